//! Sequential reads through FUSE: ours, vmdkmount's, qemu-storage-daemon's.

use crate::bench::{
    Bench,
    data::qemu_path,
    measure::{Contestant, Cost, drop_caches, race, run, used, wait_until, warm},
    report::rows,
    text,
};
use anyhow::{Context, Result};
use std::{fs, path::Path, process::Command};
use tests::{
    mount::{Mount, is_mount_point},
    tools,
};

/// qemu-storage-daemon with an export of the disk, or of `part` of it (offset, length), as
/// the file `at`.
pub(crate) fn qemu_export(image: &Path, at: &Path, part: Option<(u64, u64)>) -> Result<Mount> {
    fs::write(at, "")?;
    let mut command = tools::command("qemu-storage-daemon");
    let file = qemu_path(image);
    let at_text = qemu_path(at);
    command.args([
        "--blockdev",
        &format!("driver=file,node-name=f,filename={file},read-only=on"),
        "--blockdev",
        "driver=vmdk,node-name=v,file=f,read-only=on",
    ]);
    let node = match part {
        None => "v",
        Some((offset, size)) => {
            let raw =
                format!("driver=raw,node-name=p,file=v,offset={offset},size={size},read-only=on");
            command.args(["--blockdev", &raw]);
            "p"
        }
    };
    let export = format!("type=fuse,id=e,node-name={node},mountpoint={at_text},writable=off");
    command.args(["--export", &export]);
    Mount::start(command, at)
}

/// Reads a file with dd, and adds what the server did meanwhile.
fn read_through(file: &Path, server: u32) -> Result<Cost> {
    let before = used(server)?;
    let source = format!("if={}", text(file));
    let cost = run(Command::new("dd").args([&source, "of=/dev/null", "bs=1M"]))?;
    let after = used(server)?;
    // What dd read came through the server.
    let mut cost = cost.with_server(before, after);
    cost.read = cost.read.saturating_sub(fs::metadata(file)?.len());
    Ok(cost)
}

/// The process that serves a mount which went into the background.
fn server_of(program: &str, at: &Path) -> Result<u32> {
    let at = at.display().to_string();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut args = line.split(|b| *b == 0).map(String::from_utf8_lossy);
        let first = args.next().unwrap_or_default();
        if first.ends_with(program) && args.any(|a| a == at) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no {program} serves {at}")
}

fn vmdkmount(image: &Path, at: &Path, cold: bool) -> Result<Cost> {
    let mut command = tools::command("vmdkmount");
    // Its output goes to files: the process in the background keeps them open.
    run(command.arg(image).arg(at))?;
    wait_until(|| is_mount_point(at))?;
    let cost = (|| {
        if cold {
            drop_caches()?;
        }
        read_through(&at.join("vmdk1"), server_of("vmdkmount", at)?)
    })();
    tools::run("fusermount3", ["-u".as_ref(), at.as_os_str()])?;
    cost
}

/// Sequential reads, warm and cold.
pub(crate) fn sequential(bench: &mut Bench) -> Result<()> {
    if !tools::can_fuse() {
        bench.note("mount-read not measured: no /dev/fuse");
        return Ok(());
    }
    let image = bench.sparse()?;
    let raw = bench.raw()?;
    let at = bench.work("mnt")?;
    fs::create_dir_all(&at)?;
    let export = bench.work("export.raw")?;
    let vmdkit = bench.vmdkit.clone();
    for cold in [false, true] {
        if cold && !drop_caches()? {
            bench.note("mount-read, cold, not measured: only root may drop the page cache");
            return Ok(());
        }
        if !cold {
            warm(&image)?;
            warm(&raw)?;
        }
        let ready = |mount: Mount, file: &Path| -> Result<Cost> {
            if cold {
                drop_caches()?;
            }
            let cost = read_through(file, mount.server_id());
            mount.unmount()?;
            cost
        };
        let contestants = vec![
            Contestant::new("vmdkit", || {
                let mut command = Command::new(&vmdkit);
                command.args(["mount", "--foreground", "--layout", "raw"]);
                command.arg(&image).arg(&at);
                ready(Mount::start(command, &at)?, &at.join("disk.img"))
            }),
            Contestant::new("vmdkmount", || vmdkmount(&image, &at, cold)),
            Contestant::new("qemu-storage-daemon", || {
                let mount = qemu_export(&image, &export, None).context("the export")?;
                ready(mount, &export)
            }),
            Contestant::new("dd of the raw disk", || {
                if cold {
                    drop_caches()?;
                }
                let source = format!("if={}", text(&raw));
                run(Command::new("dd").args([&source, "of=/dev/null", "bs=1M"]))
            }),
        ];
        let (runs, dropped) = race(bench.rounds, contestants)?;
        let case = format!(
            "read through a mount, {}",
            if cold { "cold" } else { "warm" }
        );
        let goals = [("vmdkmount", 1.0), ("qemu-storage-daemon", 1.5)];
        bench
            .rows
            .extend(rows(&case, &runs, &goals, &["dd of the raw disk"]));
        dropped.into_iter().for_each(|d| bench.note(d));
    }
    Ok(())
}
