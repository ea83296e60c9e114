//! docs/reliability.md: one table of everything, then each kind by itself.

use super::{
    Counts, Need, Options, Score,
    simulated::{Suite, fuzzed},
};
use anyhow::Result;
use std::{collections::BTreeMap, fmt::Write};
use tests::mutants::{outcome::Outcome, tried::OURS};
use vmdkit_fuzz::faults::{Fault, READERS};

const INTRODUCTION: &str = "\
# Reliability

Written by `cargo xtask torture --write`. Mutants are counted by what became of them; in the other rows everything was as it must be,
or nothing would have been written.

";

const MUTANTS: &str = "\
## Mutants

Sound images of every format and volumes of every file system have some of their bytes changed, most of them in headers and
tables, or are cut short. Each mutant is read by `vmdkit` and by the tools that others use, each as a whole process:
`convert --to raw` and its like for images, every file copied out for volumes.

";

const FAULTS: &str = "\
## Sources that fail

Each reader opens and reads everything of a sound image whose n-th operation fails, for n = 0, 1, 2, …. A fault may pass (that
operation alone fails), last (all behind it do), or be that from there on other bytes come, which nobody can tell from right ones.
Else right bytes or a named error are what must come, and after a fault that passes the right bytes when asked again;
anything else ends the run.

| reader | faults | named errors | right all the same | what a changed source held | right when asked again |
|---|---|---|---|---|---|
";

/// What came of faults in one reader: injected, named errors, right, changed, right again.
type Faults = [u64; 5];

/// Sources that fail at one operation after another, for every reader, in this process.
fn faults() -> Vec<(&'static str, Faults)> {
    let all = READERS.iter().map(|reader| {
        let mut sum = [0; 5];
        for fault in [Fault::Passing, Fault::Lasting, Fault::Changing] {
            let s = reader.torture(fault, 400, 100);
            let these = [s.injected, s.errors, s.right, s.changed, s.again];
            sum.iter_mut().zip(these).for_each(|(all, n)| *all += n);
        }
        (reader.name, sum)
    });
    all.collect()
}

fn cells(counts: &Counts) -> String {
    let number = |o| counts.get(&o).copied().unwrap_or(0);
    Outcome::ALL.map(|o| format!(" {} |", number(o))).concat()
}

fn outcomes() -> String {
    let names = Outcome::ALL.map(|o| format!(" {} |", o.name())).concat();
    let lines = "---|".repeat(Outcome::ALL.len());
    format!("{names}\n|---|---|{lines}\n")
}

/// The table at the top.
fn summary(score: &Score, faults: &[(&str, Faults)], suite: Option<&Suite>) -> Result<String> {
    let mut text = String::from("## In short\n\n| what | how much | outcome |\n|---|---|---|\n");
    for program in score.programs() {
        let counts = score.all_of(program);
        let tried: u64 = counts.values().sum();
        let told = Outcome::ALL.map(|o| {
            let n = counts.get(&o).copied().unwrap_or(0);
            let always = matches!(o, Outcome::Crash | Outcome::Hang);
            (n > 0 || always).then(|| format!("{n} {}", o.name()))
        });
        let told: Vec<String> = told.into_iter().flatten().collect();
        let (wall, kib) = score.ceilings.get(program).copied().unwrap_or_default();
        writeln!(
            text,
            "| mutants read by {program} | {tried} | {}. At most {:.2} s and {} MiB each |",
            told.join("; "),
            wall.as_secs_f64(),
            kib >> 10
        )?;
    }
    let mut sum = [0; 5];
    for (_, these) in faults {
        sum.iter_mut().zip(these).for_each(|(all, n)| *all += n);
    }
    let [injected, errors, right, changed, again] = sum;
    writeln!(
        text,
        "| faults of sources, in {} readers | {injected} | {errors} named errors, {right} right all the same, {changed} read what a \
         changed source held; {again} right when asked again |",
        faults.len()
    )?;
    match suite {
        Some(Suite { crash, stress }) => {
            let of = |what| crash.sum(what);
            writeln!(
                text,
                "| writers on a disk that fails (full, EIO), in {} cases | {} faults, over {} operations | named, or of no matter; the \
                 destination absent, as it was, or right |",
                crash.cases,
                of("faults"),
                of("operations")
            )?;
            writeln!(
                text,
                "| losses of power while they write | {} different states, {} of them gone on from | absent, as before or right; the \
                 same command again ends well |",
                of("states"),
                of("again")
            )?;
            let of = |what| stress.sum(what);
            writeln!(
                text,
                "| a mount read by many at once | {} MiB, {} lookups, {} opened files, {} listings of large directories | every byte \
                 and name right |",
                of("MiB compared"),
                of("lookups"),
                of("files opened"),
                of("directories listed")
            )?;
            writeln!(
                text,
                "| readers of a mount that are killed | {} | nothing held for them stays |",
                of("readers killed")
            )?;
            writeln!(
                text,
                "| servers of a mount that are killed | {} | readers get an error, the mount goes |",
                of("servers killed")
            )?;
            writeln!(
                text,
                "| images cut short under a mount | {} blocks read | {} right, {} EIO |",
                of("blocks right") + of("blocks EIO"),
                of("blocks right"),
                of("blocks EIO")
            )?;
        }
        None => writeln!(
            text,
            "| crash simulation, stress of the mount | not run | |"
        )?,
    }
    let (targets, executions, most) = fuzzed()?;
    writeln!(
        text,
        "| executions fuzzed, of {targets} targets | {executions} | what was found is mended (docs/fuzzing.md); at most {most} MiB |\n"
    )?;
    Ok(text)
}

/// Why outcomes are what they are.
fn reasons(score: &Score) -> Result<String> {
    let mut text = String::new();
    for (need, title) in [
        (
            Need::Silent,
            "What became of those that `OURS` read to other bytes without an error. Where it is a structure, leaving the change to it \
             out gives right bytes or an error: another sound value in its place is what a reader cannot tell.",
        ),
        (
            Need::Refused,
            "Why `OURS` refuses what another program reads right:",
        ),
    ] {
        let title = title.replace("OURS", OURS);
        writeln!(
            text,
            "\n{title}\n\n| reason | mutants | of |\n|---|---|---|"
        )?;
        let mut all: BTreeMap<&str, (u64, Vec<String>)> = BTreeMap::new();
        for ((_, why, name), n) in score.reasons.iter().filter(|((of, _, _), _)| *of == need) {
            let (sum, kinds) = all.entry(why).or_default();
            *sum += n;
            kinds.push(format!("{name} {n}"));
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
        for (why, (n, kinds)) in all {
            writeln!(text, "| {why} | {n} | {} |", kinds.join(", "))?;
        }
    }
    text.push('\n');
    Ok(text)
}

pub(crate) fn page(score: &Score, suite: Option<&Suite>, options: &Options) -> Result<String> {
    let faults = faults();
    let mut text = String::from(INTRODUCTION);
    text += &summary(score, &faults, suite)?;
    text += MUTANTS;
    writeln!(
        text,
        "\"Right\" allows as many other bytes as were changed: contents, which nothing guards. Mutants {} to {} of each kind.\n",
        options.seed,
        options.seed + options.mutants.saturating_sub(1)
    )?;
    write!(text, "| mutants | program |{}", outcomes())?;
    for (name, programs) in &score.counts {
        let mutants: u64 = programs.first().map_or(0, |(_, c)| c.values().sum());
        for (n, (program, counts)) in programs.iter().enumerate() {
            let of = match n {
                0 => format!("{name}: {mutants}"),
                _ => String::new(),
            };
            writeln!(text, "| {of} | {program} |{}", cells(counts))?;
        }
    }
    text += &reasons(score)?;
    text += FAULTS;
    for (reader, [injected, errors, right, changed, again]) in faults {
        writeln!(
            text,
            "| {reader} | {injected} | {errors} | {right} | {changed} | {again} |"
        )?;
    }
    Ok(text)
}
