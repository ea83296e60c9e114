//! `export --since` and `replicate` against a whole export of the same state.

use crate::bench::{
    Bench,
    measure::{Contestant, race, run, warm},
    report::rows,
};
use anyhow::{Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A disk, and the same with one link more, which rewrites 1 % of its grains.
fn states(bench: &mut Bench) -> Result<(PathBuf, PathBuf)> {
    bench.sparse()?;
    bench.forget(&["disk.raw", "stream.vmdk"])?;
    let mut chain = bench.chain(true)?;
    chain.grow(1)?;
    let old = chain.top.clone();
    chain.grow(2)?;
    let new = chain.top.clone();
    warm(&new)?;
    Ok((old, new))
}

/// One link more, which rewrites 1 % of the grains here and there.
pub(crate) fn since(bench: &mut Bench) -> Result<()> {
    let (old, new) = states(bench)?;
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

/// A raw copy is brought up to date by one link more, which rewrites 1 % of the grains.
pub(crate) fn replicate(bench: &mut Bench) -> Result<()> {
    let (old, new) = states(bench)?;
    let place = bench.work("replicas")?;
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place)?;
    let (kept, hot, whole) = (place.join("kept"), place.join("hot"), place.join("whole"));
    let vmdkit = bench.vmdkit.clone();
    let replicate = |source: &Path, dir: &Path| {
        let mut command = Command::new(&vmdkit);
        command.args(["replicate", "--quiet"]).arg(source);
        run(command.arg(dir.join("disk.raw")))
    };
    fs::create_dir(&kept)?;
    replicate(&old, &kept)?;
    // The old state again, times of files and all.
    let back = || {
        let _ = fs::remove_dir_all(&hot);
        let mut copy = Command::new("cp");
        copy.args(["-a", "--sparse=always", "--reflink=auto"]);
        run(copy.arg(&kept).arg(&hot))?;
        Command::new("sync").status()?;
        Ok(())
    };
    let contestants = vec![
        Contestant::new("replicate", || replicate(&new, &hot)).prepared(back),
        Contestant::new("export", || {
            let mut command = Command::new(&vmdkit);
            run(command.args(["export", "--quiet"]).arg(&new).arg(&whole))
        })
        .prepared(|| {
            let _ = fs::remove_dir_all(&whole);
            Command::new("sync").status()?;
            Ok(())
        }),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let name = "replicate, 1 % of the grains rewritten at random";
    bench
        .rows
        .extend(rows(name, &runs, &[("export", 20.0)], &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    let same = Command::new(&vmdkit)
        .args(["verify", "--no-guest-files", "--quiet"])
        .arg(hot.join("disk.raw"))
        .arg("--against")
        .arg(&new)
        .status()?;
    // 3: there is no manifest to prove it by.
    ensure!(
        matches!(same.code(), Some(0 | 3)),
        "the copy is not the disk"
    );
    fs::remove_dir_all(&place)?;
    Ok(())
}
