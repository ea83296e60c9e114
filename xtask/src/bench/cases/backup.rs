//! `export --since` against a whole export of the same state.

use crate::bench::{
    Bench,
    measure::{Contestant, race, run, warm},
    report::rows,
};
use anyhow::{Result, ensure};
use std::{fs, path::Path, process::Command};

/// One link more, which rewrites 1 % of the grains here and there.
pub(crate) fn since(bench: &mut Bench) -> Result<()> {
    bench.sparse()?;
    bench.forget(&["disk.raw", "stream.vmdk"])?;
    let mut chain = bench.chain(true)?;
    chain.grow(1)?;
    let old = chain.top.clone();
    chain.grow(2)?;
    let new = chain.top.clone();
    warm(&new)?;
    let backups = bench.work("backups")?;
    let _ = fs::remove_dir_all(&backups);
    fs::create_dir(&backups)?;
    let (earlier, whole, changed) = (
        backups.join("earlier"),
        backups.join("whole"),
        backups.join("changed"),
    );
    let vmdkit = bench.vmdkit.clone();
    let export = |source: &Path, dest: &Path, more: &[&Path]| {
        let mut command = Command::new(&vmdkit);
        command.args(["export", "--quiet"]).arg(source).arg(dest);
        if let [earlier] = more {
            command.arg("--since").arg(earlier);
        }
        run(&mut command)
    };
    export(&old, &earlier, &[])?;
    let fresh = |path: &Path| {
        let _ = fs::remove_dir_all(path);
        Command::new("sync").status()?;
        Ok(())
    };
    let contestants = vec![
        Contestant::new("export --since", || export(&new, &changed, &[&earlier]))
            .prepared(|| fresh(&changed)),
        Contestant::new("export", || export(&new, &whole, &[])).prepared(|| fresh(&whole)),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let goals = [("export", 20.0)];
    let name = "export --since, 1 % of the grains rewritten at random";
    bench.rows.extend(rows(name, &runs, &goals, &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    // Both are the same disk.
    let same = Command::new(&vmdkit)
        .arg("verify")
        .args(["--no-guest-files", "--quiet"])
        .arg(&changed)
        .arg("--against")
        .arg(&new)
        .status()?;
    ensure!(same.success(), "what was exported is not the disk");
    fs::remove_dir_all(&backups)?;
    Ok(())
}
