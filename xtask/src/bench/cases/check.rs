//! `check` and `diff`, against what qemu-img has of them.

use super::guest::{Peer, peak, shell};
use crate::bench::{
    Bench,
    data::START,
    measure::{Contestant, Cost, race, run, warm},
    report::{figure, rows},
};
use anyhow::{Context, Result};
use std::{fs, os::unix::fs::FileExt, path::Path, process::Command};
use tests::{mount::ntfs_3g, sample, tools};

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

/// A volume of a million files: its structure, against finding every file and `ntfsfix -n`, which
/// together see less.
pub(crate) fn volume(bench: &mut Bench) -> Result<()> {
    let (image, len) = bench.million()?;
    warm(&image)?;
    let vmdkit = bench.vmdkit.clone();
    let raw = bench.work("volume.raw")?;
    let peer = Peer::new(bench, &image, len)?;
    let mut contestants = vec![Contestant::new("vmdkit check --guests", || {
        run(Command::new(&vmdkit)
            .args(["-q", "check", "--guests"])
            .arg(&image))
    })];
    const PEER: &str = "find through ntfs-3g, then ntfsfix -n";
    if bench.has(&["qemu-storage-daemon", "ntfs-3g", "ntfsfix"]) && tools::can_fuse() {
        // ntfsfix wants the bare volume.
        let disk = bench.work("disk.raw")?;
        let convert = ["convert", "-f", "vmdk", "-O", "raw"];
        tools::output(
            tools::command("qemu-img")
                .args(convert)
                .arg(&image)
                .arg(&disk),
        )?;
        let size = fs::metadata(&disk)?.len() - START * 512;
        let out = sample::sparse_file(&raw, size)?;
        copy_from(&disk, START * 512, &out)?;
        fs::remove_file(&disk)?;
        warm(&raw)?;
        contestants.push(Contestant::new(PEER, || {
            let find = peer.run(false, false, &|at| shell("find \"$0\" -ls", &[at]))?;
            let fix = run(tools::command("ntfsfix").arg("-n").arg(&raw))?;
            Ok(sum(find, fix))
        }));
    }
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let case = "check of a volume of a million files";
    bench.rows.extend(rows(case, &runs, &[(PEER, 5.0)], &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    if bench.has(&["time"]) {
        let mut check = Command::new(&bench.vmdkit);
        check.args(["-q", "check", "--guests"]).arg(&image);
        let most = peak(&mut check)?;
        let text = format!("{most} MiB, goal under 300");
        bench
            .rows
            .push(figure(case, "resident memory", text, Some(most < 300)));
    }
    let _ = fs::remove_file(&raw);
    bench.forget(&["million.vmdk"])
}

/// Copies a file from an offset on, leaving zeros out.
fn copy_from(from: &Path, offset: u64, to: &fs::File) -> Result<()> {
    let from = fs::File::open(from)?;
    let len = from.metadata()?.len();
    let mut block = vec![0; 1 << 20];
    let mut at = offset;
    while at < len {
        let n = (len - at).min(block.len() as u64) as usize;
        let part = block.get_mut(..n).context("a buffer")?;
        from.read_exact_at(part, at)?;
        if part.iter().any(|b| *b != 0) {
            to.write_all_at(part, at - offset)?;
        }
        at += n as u64;
    }
    Ok(())
}

/// A backup of the sparse disk end to end: its file is hashed and so is what the disk contains, so
/// openssl hashes that file twice, on two cores.
pub(crate) fn contents(bench: &mut Bench) -> Result<()> {
    if !bench.has(&["openssl"]) {
        return Ok(());
    }
    let image = bench.sparse()?;
    let backup = bench.work("backup")?;
    let _ = fs::remove_dir_all(&backup);
    let mut export = Command::new(&bench.vmdkit);
    run(export.args(["-q", "export"]).arg(&image).arg(&backup))?;
    let disk = backup.join(image.file_name().context("a name")?);
    warm(&disk)?;
    let vmdkit = bench.vmdkit.clone();
    let contestants = vec![
        Contestant::new("vmdkit verify", || {
            run(Command::new(&vmdkit).args(["-q", "verify"]).arg(&backup))
        }),
        Contestant::new("openssl dgst -sha256, twice side by side", || {
            let both = "openssl dgst -sha256 \"$0\" & openssl dgst -sha256 \"$0\" & wait";
            run(&mut shell(both, &[&disk]))
        }),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let goals = [("openssl dgst -sha256, twice side by side", 0.9)];
    bench
        .rows
        .extend(rows("verify of a backup", &runs, &goals, &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    fs::remove_dir_all(&backup)?;
    Ok(())
}

/// `diff --files` of a volume of many files with a delta in which few of them, and one in which
/// many, were changed.
pub(crate) fn changed_files(bench: &mut Bench) -> Result<()> {
    if !bench.has(&["qemu-img", "qemu-io", "ntfs-3g"]) || !tools::can_fuse() {
        return Ok(());
    }
    let (image, name) = bench.many()?;
    let dir = bench.work("diff")?;
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let base = dir.join("base.vmdk");
    fs::hard_link(&image, &base)?;
    let before = dir.join("before.raw");
    let convert = ["convert", "-f", "vmdk", "-O", "raw"];
    tools::output(
        tools::command("qemu-img")
            .args(convert)
            .arg(&base)
            .arg(&before),
    )?;
    let tree = name.split('/').next().context("a directory")?.to_owned();
    let mut figures = Vec::new();
    for (count, parent) in [(10usize, &tree), (1000, &tree)] {
        let volume = dir.join("volume.raw");
        let size = fs::metadata(&before)?.len() - START * 512;
        copy_from(&before, START * 512, &sample::sparse_file(&volume, size)?)?;
        let at = bench.work("mnt")?;
        let mount = ntfs_3g(&volume, &at, "big_writes")?;
        let changed = change(&at, parent, count);
        mount.unmount()?;
        let changed = changed?;
        let after = dir.join("after.raw");
        fs::copy(&before, &after)?;
        let out = fs::OpenOptions::new().write(true).open(&after)?;
        sample::splice(&volume, &out, START * 512)?;
        let child = dir.join(format!("child-{count}.vmdk"));
        sample::delta(&base, &child, &before, &after)?;
        let mut diff = Command::new("sh");
        diff.args(["-c", "\"$0\" -q diff --files \"$1\" \"$2\"; [ $? -eq 4 ]"])
            .arg(&bench.vmdkit)
            .args([&base, &child]);
        let mut walls = Vec::new();
        let mut read = 0;
        for _ in 0..bench.rounds {
            let cost = run(&mut diff)?;
            walls.push(cost.wall);
            read = cost.read;
        }
        let stored = fs::metadata(&child)?.len();
        figures.push(format!(
            "{changed} files: {:.2} s, {:.1} MiB read, the delta stores {:.1} MiB",
            crate::bench::measure::median(&walls),
            read as f64 / 1048576.0,
            stored as f64 / 1048576.0
        ));
        for path in [volume, after] {
            fs::remove_file(path)?;
        }
    }
    bench.rows.push(figure(
        "diff --files in a volume of 100,000 files",
        "time and bytes, by what changed",
        figures.join("; "),
        None,
    ));
    fs::remove_dir_all(&dir)?;
    bench.forget(&["many.vmdk"])
}

/// Writes over the beginning of `count` files below `parent`, or of as many as there are.
fn change(at: &Path, parent: &str, count: usize) -> Result<usize> {
    let mut dirs = vec![at.join(parent)];
    let mut changed = 0;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if changed < count {
                let file = fs::OpenOptions::new().write(true).open(&path)?;
                file.write_all_at(format!("changed {changed}").as_bytes(), 0)?;
                changed += 1;
            }
        }
    }
    Ok(changed)
}
