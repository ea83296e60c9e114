//! Resident memory on a disk with far more tables than fit into it.

use crate::bench::{Bench, measure::run_output, report::figure};
use anyhow::{Context, Result};
use std::process::Command;

pub(crate) fn tables(bench: &mut Bench) -> Result<()> {
    let gib = ((2048.0 * bench.scale) as u64).max(1).to_string();
    let links = ((255.0 * bench.scale.sqrt()) as u64)
        .clamp(2, 255)
        .to_string();
    for kind in ["hosted", "sesparse"] {
        let mut command = Command::new(&bench.xtask);
        command.args([
            "bench-child",
            "tables",
            kind,
            "--links",
            &links,
            "--gib",
            &gib,
        ]);
        let (cost, text) = run_output(&mut command)?;
        let kib: u64 = text.trim().parse().context("the peak of resident memory")?;
        let mib = kib as f64 / 1024.0;
        let what = format!(
            "{mib:.0} MiB at most, goal under 100 ({links} links, {gib} GiB, {:.0} s)",
            cost.wall
        );
        let case = format!("every table of a large disk, {kind}");
        bench
            .rows
            .push(figure(&case, "resident memory", what, Some(mib < 100.0)));
    }
    Ok(())
}
