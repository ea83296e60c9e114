//! The table.

use super::{
    Bench,
    measure::{Cost, Runs, median},
};
use anyhow::Result;
use std::fmt::Write;

/// One line: us against one other.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) peer: String,
    /// Their time over ours, round by round.
    pub(crate) ratios: Vec<f64>,
    /// At least this.
    pub(crate) goal: Option<f64>,
    ours: Cost,
    theirs: Cost,
    /// Whether the peer is no peer but the limit of the machine.
    limit: bool,
    /// For figures that are no race: what to print instead.
    pub(crate) figure: Option<(String, Option<bool>)>,
}

fn middle(runs: &Runs) -> Cost {
    let of = |get: fn(&Cost) -> f64| median(&runs.costs.iter().map(get).collect::<Vec<_>>());
    Cost {
        wall: of(|c| c.wall),
        cpu: of(|c| c.cpu),
        read: of(|c| c.read as f64) as u64,
    }
}

/// The rows of a race: the first contestant is ours, and `goals` are for the others by name.
pub(crate) fn rows(case: &str, runs: &[Runs], goals: &[(&str, f64)], limits: &[&str]) -> Vec<Row> {
    let Some((ours, others)) = runs.split_first() else {
        return Vec::new();
    };
    others
        .iter()
        .map(|theirs| Row {
            case: case.to_owned(),
            peer: theirs.name.to_owned(),
            ratios: theirs
                .costs
                .iter()
                .zip(&ours.costs)
                .map(|(t, o)| t.wall / o.wall)
                .collect(),
            goal: goals.iter().find(|g| g.0 == theirs.name).map(|g| g.1),
            ours: middle(ours),
            theirs: middle(theirs),
            limit: limits.contains(&theirs.name),
            figure: None,
        })
        .collect()
}

/// A figure that is no race.
pub(crate) fn figure(case: &str, what: &str, text: String, met: Option<bool>) -> Row {
    Row {
        case: case.to_owned(),
        peer: what.to_owned(),
        ratios: Vec::new(),
        goal: None,
        ours: Cost::default(),
        theirs: Cost::default(),
        limit: false,
        figure: Some((text, met)),
    }
}

impl Row {
    /// How many times as fast we are.
    pub(crate) fn ratio(&self) -> f64 {
        median(&self.ratios)
    }

    /// Whether the goal was met, if there is one.
    pub(crate) fn met(&self) -> Option<bool> {
        match &self.figure {
            Some((_, met)) => *met,
            None => self.goal.map(|goal| self.ratio() >= goal),
        }
    }

    fn cells(&self) -> [String; 7] {
        let met = match self.met() {
            None => "",
            Some(true) => " ✓",
            Some(false) => " ✗",
        };
        if let Some((text, _)) = &self.figure {
            let empty = String::new;
            return [
                self.case.clone(),
                self.peer.clone(),
                format!("{text}{met}"),
                empty(),
                empty(),
                empty(),
                empty(),
            ];
        }
        let low = self.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.ratios.iter().copied().fold(0.0, f64::max);
        let limit = if self.limit { " (limit)" } else { "" };
        [
            self.case.clone(),
            format!("{}{limit}", self.peer),
            format!("**{:.2}** ({low:.2}–{high:.2}){met}", self.ratio()),
            self.goal.map_or_else(String::new, |g| format!("≥ {g}")),
            format!("{:.2} : {:.2}", self.ours.wall, self.theirs.wall),
            format!("{:.2} : {:.2}", self.ours.cpu, self.theirs.cpu),
            format!("{} : {}", mib(self.ours.read), mib(self.theirs.read)),
        ]
    }

    /// For the terminal.
    pub(crate) fn line(&self) -> String {
        self.cells().join(" | ")
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1 << 20) as f64)
}

/// docs/bench.md.
pub(crate) fn markdown(bench: &Bench, rows: &[Row], notes: &[String]) -> Result<String> {
    let cpus = std::thread::available_parallelism()?;
    let mut out = String::new();
    writeln!(out, "# Benches\n")?;
    writeln!(
        out,
        "Written by `cargo xtask bench --write` (scale {}, {} rounds that count, {cpus} processors).\n\
         Ratios are how many times as fast vmdkit is: the other's time over ours within one round,\n\
         the median of the rounds, in parentheses the lowest and the highest. Contestants take turns\n\
         in ABBA order and the first round is thrown away. Seconds, CPU seconds and MiB read (what\n\
         read calls returned, servers included) are medians of the same run, ours first; they say\n\
         something about this one machine only. *limit* is a row where nothing is decoded: copying\n\
         or reading the same bytes.\n",
        bench.scale, bench.rounds
    )?;
    writeln!(
        out,
        "| bench | against | times as fast | goal | seconds | CPU seconds | MiB read |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for row in rows {
        writeln!(out, "| {} |", row.cells().join(" | "))?;
    }
    if !notes.is_empty() {
        writeln!(out)?;
        for note in notes {
            writeln!(out, "* {}", note.replace('\n', " "))?;
        }
    }
    Ok(out)
}
