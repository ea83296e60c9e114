//! `check` and `diff`, against what qemu-img has of them.

use crate::bench::{
    Bench,
    measure::{Contestant, Cost, race, run, warm},
    report::{figure, rows},
};
use anyhow::{Context, Result};
use std::process::Command;

/// Structure of the sparse disk: qemu-img needs `check` and `map` for what they cover of it.
pub(crate) fn structure(bench: &mut Bench) -> Result<()> {
    if !bench.has(&["qemu-img"]) {
        return Ok(());
    }
    let image = bench.sparse()?;
    warm(&image)?;
    let vmdkit = bench.vmdkit.clone();
    let contestants = vec![
        Contestant::new("vmdkit check", || {
            run(Command::new(&vmdkit).arg("check").arg(&image))
        }),
        Contestant::new("qemu-img check, then map", || {
            let check = run(Command::new("qemu-img").arg("check").arg(&image))?;
            let map = run(Command::new("qemu-img")
                .args(["map", "--output=json"])
                .arg(&image))?;
            Ok(sum(check, map))
        }),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let goals = [("qemu-img check, then map", 5.0)];
    bench
        .rows
        .extend(rows("check of a sparse disk", &runs, &goals, &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    Ok(())
}

fn sum(a: Cost, b: Cost) -> Cost {
    Cost {
        wall: a.wall + b.wall,
        cpu: a.cpu + b.cpu,
        read: a.read + b.read,
    }
}

/// What `diff` reads of two neighbours of a chain: what changed, and tables.
pub(crate) fn changed(bench: &mut Bench) -> Result<()> {
    bench.sparse()?;
    bench.forget(&["disk.raw", "stream.vmdk"])?;
    let mut chain = bench.chain(true)?;
    chain.grow(7)?;
    let old = chain.top.clone();
    chain.grow(8)?;
    let new = chain.top.clone();
    let vmdkit = bench.vmdkit.clone();
    let diff = || -> Result<Cost> {
        // It ends with 4, since they differ.
        run(Command::new("sh")
            .args(["-c", "\"$0\" diff \"$1\" \"$2\"; [ $? -eq 4 ]"])
            .arg(&vmdkit)
            .args([&old, &new]))
    };
    let compare = || {
        run(Command::new("sh")
            .args(["-c", "qemu-img compare \"$0\" \"$1\"; [ $? -le 1 ]"])
            .args([&old, &new]))
    };
    let mut contestants = vec![Contestant::new("vmdkit diff", diff)];
    if bench.has(&["qemu-img"]) {
        contestants.push(Contestant::new("qemu-img compare", compare));
    }
    let (runs, dropped) = race(bench.rounds, contestants)?;
    bench
        .rows
        .extend(rows("diff of two snapshots", &runs, &[], &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    let own = std::fs::metadata(&new)?.len();
    let read = runs
        .first()
        .and_then(|r| r.costs.last())
        .context("a run")?
        .read;
    bench.rows.push(figure(
        "diff of two snapshots",
        "read, for each MiB that the newer one stores",
        format!("{:.2} MiB", read as f64 / own as f64),
        None,
    ));
    Ok(())
}
