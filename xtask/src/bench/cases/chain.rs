//! What depth costs: the same chain read at depth 1, 8, 32 and 128.

use super::convert::qemu_decode;
use crate::bench::{
    Bench,
    measure::{Contestant, Runs, median, race, run_output},
    report::figure,
};
use anyhow::{Context, Result};
use std::{path::PathBuf, process::Command};

const DEPTHS: [(u32, &str, &str); 4] = [
    (1, "vmdkit, depth 1", "qemu-img, depth 1"),
    (8, "vmdkit, depth 8", "qemu-img, depth 8"),
    (32, "vmdkit, depth 32", "qemu-img, depth 32"),
    (128, "vmdkit, depth 128", "qemu-img, depth 128"),
];

pub(crate) fn rewritten(bench: &mut Bench) -> Result<()> {
    depths(bench, "chain, 1 % rewritten a link", true, 1.25)
}

pub(crate) fn empty(bench: &mut Bench) -> Result<()> {
    depths(bench, "chain, empty deltas", false, 1.1)
}

fn depths(bench: &mut Bench, case: &str, rewrite: bool, goal: f64) -> Result<()> {
    bench.sparse()?;
    // Room for the links.
    bench.forget(&["disk.raw", "stream.vmdk"])?;
    let mut chain = bench.chain(rewrite)?;
    let mut tops: Vec<PathBuf> = Vec::new();
    for (depth, _, _) in DEPTHS {
        eprintln!("   growing the chain to {depth} links");
        chain.grow(depth)?;
        tops.push(chain.top.clone());
    }
    let xtask = bench.xtask.clone();
    let mut contestants = Vec::new();
    for ((_, ours, theirs), top) in DEPTHS.iter().zip(&tops) {
        let xtask = &xtask;
        contestants.push(Contestant::new(ours, move || {
            // The second pass: windows merged, units decoded, files in the page cache.
            let mut command = Command::new(xtask);
            let (mut cost, text) = run_output(command.args(["bench-child", "read"]).arg(top))?;
            let last = text.lines().last().context("the seconds of a pass")?;
            cost.wall = last.trim().parse()?;
            Ok(cost)
        }));
        contestants.push(Contestant::new(theirs, move || qemu_decode(top, &[])));
    }
    let (runs, dropped) = race(bench.rounds, contestants)?;
    dropped.into_iter().for_each(|d| bench.note(d));
    let find = |name: &str| runs.iter().find(|r| r.name == name);
    for (depth, ours, theirs) in &DEPTHS[1..] {
        let growth = |name: &str, first: &str| -> Option<f64> {
            let (at, one): (&Runs, &Runs) = (find(name)?, find(first)?);
            let ratios: Vec<f64> = at
                .costs
                .iter()
                .zip(&one.costs)
                .map(|(a, b)| a.wall / b.wall)
                .collect();
            Some(median(&ratios))
        };
        let mine = growth(ours, DEPTHS[0].1).context("our own figures")?;
        let qemu = growth(theirs, DEPTHS[0].2).map_or("–".to_owned(), |g| format!("{g:.2}"));
        let goal_text = if *depth == 128 {
            format!(", goal at most {goal}")
        } else {
            String::new()
        };
        let text =
            format!("costs **{mine:.2}** times what depth 1 costs{goal_text}; qemu-img {qemu}");
        let met = (*depth == 128).then_some(mine <= goal);
        bench
            .rows
            .push(figure(case, &format!("depth {depth}"), text, met));
    }
    std::fs::remove_dir_all(bench.dir.join("chain"))?;
    Ok(())
}
