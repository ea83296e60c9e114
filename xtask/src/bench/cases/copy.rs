//! Single files out of the guest.

use super::mount::qemu_export;
use crate::bench::{
    Bench,
    data::{LARGE, START},
    measure::{Contestant, race, run, used, warm},
    report::{figure, rows},
};
use anyhow::Result;
use std::{fs, process::Command};
use tests::{mount::ntfs_3g, tools};

/// One large file: against ntfs-3g over qemu-storage-daemon, whose mounts are ready before
/// the clock starts.
pub(crate) fn large(bench: &mut Bench) -> Result<()> {
    let image = bench.sparse()?;
    warm(&image)?;
    let out = bench.work("large.out")?;
    let plain = bench.work("large.plain")?;
    let export = bench.work("part.raw")?;
    let at = bench.work("mnt")?;
    let path = format!("/p1/{LARGE}");
    let vmdkit = bench.vmdkit.clone();
    run(Command::new(&vmdkit)
        .args(["cp", "--quiet"])
        .arg(&image)
        .arg(&path)
        .arg(&plain))?;
    let volume = (START * 512, bench.scaled(10 << 30) - START * 512);
    let fresh = || {
        let _ = fs::remove_file(&out);
        Command::new("sync").status()?;
        Ok(())
    };
    let copy = "cp \"$0\" \"$1\" && sync \"$1\"";
    let contestants = vec![
        Contestant::new("vmdkit", || {
            run(Command::new(&vmdkit)
                .args(["cp", "--quiet"])
                .arg(&image)
                .arg(&path)
                .arg(&out))
        })
        .prepared(fresh),
        Contestant::new("ntfs-3g over qemu-storage-daemon", || {
            let disk = qemu_export(&image, &export, Some(volume))?;
            let mount = ntfs_3g(&export, &at, "ro")?;
            let servers = [disk.server_id(), mount.server_id()];
            let before = [used(servers[0])?, used(servers[1])?];
            let cost = run(Command::new("sh")
                .args(["-c", copy])
                .arg(at.join(LARGE))
                .arg(&out))?;
            let cost = cost
                .with_server(before[0], used(servers[0])?)
                .with_server(before[1], used(servers[1])?);
            mount.unmount()?;
            disk.unmount()?;
            Ok(cost)
        })
        .prepared(fresh),
        Contestant::new("cp of the plain file", || {
            run(Command::new("sh").args(["-c", copy]).arg(&plain).arg(&out))
        })
        .prepared(fresh),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let goals = [("ntfs-3g over qemu-storage-daemon", 2.0)];
    bench.rows.extend(rows(
        "cp of one large file",
        &runs,
        &goals,
        &["cp of the plain file"],
    ));
    dropped.into_iter().for_each(|d| bench.note(d));
    let same = fs::read(&plain)? == fs::read(&out)?;
    bench.rows.push(figure(
        "cp of one large file",
        "the same bytes",
        same.to_string(),
        Some(same),
    ));
    fs::remove_file(&plain)?;
    fs::remove_file(&out)?;
    Ok(())
}

/// One small file out of many, process start included.
pub(crate) fn small(bench: &mut Bench) -> Result<()> {
    let (image, path) = bench.many()?;
    warm(&image)?;
    let out = bench.work("small.out")?;
    let dir = bench.work("small")?;
    fs::create_dir_all(&dir)?;
    let inside = format!("/p1/{path}");
    // The only file system of a disk is its root.
    let by_dissect = format!("/{path}");
    let vmdkit = bench.vmdkit.clone();
    let fresh = || {
        let _ = fs::remove_file(&out);
        let _ = fs::remove_dir_all(&dir);
        Ok(fs::create_dir_all(&dir)?)
    };
    let mut contestants = vec![
        Contestant::new("vmdkit cp", || {
            run(Command::new(&vmdkit)
                .args(["cp", "--quiet"])
                .arg(&image)
                .arg(&inside)
                .arg(&out))
        })
        .prepared(fresh),
    ];
    contestants.push(
        Contestant::new("7zz e", || {
            let to = format!("-o{}", dir.display());
            let mut command = tools::command("7zz");
            let cost = run(command.args(["e", "-y", &to]).arg(&image).arg(&path))?;
            anyhow::ensure!(
                fs::read_dir(&dir)?.next().is_some(),
                "7zz extracted nothing"
            );
            Ok(cost)
        })
        .prepared(fresh),
    );
    let has_dissect = tools::find("target-fs").is_some();
    if has_dissect {
        contestants.push(
            Contestant::new("target-fs cp", || {
                let mut command = tools::command("target-fs");
                command
                    .arg("-q")
                    .arg(&image)
                    .args(["cp", &by_dissect, "-o"]);
                run(command.arg(&dir))
            })
            .prepared(fresh),
        );
    }
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let goals = [("7zz e", 1.0), ("target-fs cp", 1.0)];
    let case = "cp of one small file";
    bench.rows.extend(rows(case, &runs, &goals, &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    if !has_dissect {
        bench.note("target-fs is not installed (pip install dissect.target in a venv on PATH)");
    }
    let read = runs
        .first()
        .and_then(|r| r.costs.iter().map(|c| c.read).max())
        .unwrap_or(0);
    let text = format!(
        "{:.2} MiB read, goal under 2",
        read as f64 / f64::from(1 << 20)
    );
    bench
        .rows
        .push(figure(case, "bytes read", text, Some(read < 2 << 20)));
    bench.forget(&["many.vmdk"])
}
