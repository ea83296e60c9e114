//! VMFS datastores: reading a thick disk out of one, listing many files, opening a huge one.

use super::guest::peak;
use crate::bench::{
    Bench,
    measure::{Contestant, Cost, race, run, run_output, used, wait_until, warm},
    report::{figure, rows},
    text,
};
use anyhow::{Context, Result, ensure};
use disk_io::{
    Disk, SparseMemDisk,
    host_file::{FilePool, HostFile},
};
use std::{fs, path::Path, process::Command, sync::Arc};
use tests::{
    mount::{Mount, is_mount_point},
    tools,
};
use vmfs_reader::build::{Builder, FileSpec, Provision};

const GIB: u64 = 1 << 30;

/// Reads `file` of a volume that a FUSE server of theirs has mounted.
fn theirs(program: &str, lun: &Path, at: &Path, file: &str) -> Result<Cost> {
    let mut command = tools::command(program);
    command.arg(lun).arg(at).arg("-f");
    let mount = Mount::start(command, at)?;
    wait_until(|| is_mount_point(at))?;
    let before = used(mount.server_id())?;
    let from = format!("if={}", text(&at.join(file)));
    let cost = run(Command::new("dd").args([&from, "of=/dev/null", "bs=1M"]))?;
    let cost = cost.with_server(before, used(mount.server_id())?);
    mount.unmount()?;
    Ok(cost)
}

/// A thick disk of the bench's raw one, read to its end.
pub(crate) fn read(bench: &mut Bench) -> Result<()> {
    let raw = bench.raw()?;
    let len = fs::metadata(&raw)?.len().min(bench.scaled(4 * GIB));
    let contents: Arc<dyn Disk> = HostFile::open_named(&raw, &FilePool::new(4))?;
    let contents: Arc<dyn Disk> = Arc::new(disk_io::Slice::new(contents, 0, len)?);
    let place = bench.work("vmfs")?;
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place)?;
    for (six, program) in [(false, "vmfs-fuse"), (true, "vmfs6-fuse")] {
        // Units of 256 MiB, and some for the metadata.
        let units = [len.div_ceil(GIB / 4) + 8];
        let builder = if six {
            Builder::six("bench")
        } else {
            Builder::five("bench")
        };
        let mut builder = builder.devices(&units);
        let thick = FileSpec {
            provision: Provision::Thick,
            ..FileSpec::default()
        };
        builder.file("vm/disk-flat.vmdk", contents.clone(), thick);
        let lun = place.join("lun.img");
        let device = builder.build().pop().context("a device")?;
        device.write_to(&lun)?;
        drop(builder);
        warm(&lun)?;
        let at = place.join("mnt");
        fs::create_dir_all(&at)?;
        let vmdkit = bench.vmdkit.clone();
        let mut contestants = vec![
            Contestant::new("vmdkit cat", || {
                run(Command::new(&vmdkit)
                    .arg("cat")
                    .arg(&lun)
                    .arg("vm/disk-flat.vmdk"))
            }),
            Contestant::new("dd of as many bytes of the LUN", || {
                let from = format!("if={}", text(&lun));
                let count = format!("count={}", len >> 20);
                run(Command::new("dd").args([&from, "of=/dev/null", "bs=1M", &count]))
            }),
        ];
        if bench.has(&[program]) {
            let (lun, at) = (lun.clone(), at.clone());
            let name = if six { "vmfs6-fuse" } else { "vmfs-fuse" };
            contestants.push(Contestant::new(name, move || {
                theirs(program, &lun, &at, "vm/disk-flat.vmdk")
            }));
        }
        let (runs, dropped) = race(bench.rounds, contestants)?;
        let goals = [(program, 3.0), ("dd of as many bytes of the LUN", 0.8)];
        let name = if six {
            "a thick disk out of VMFS-6, warm"
        } else {
            "a thick disk out of VMFS-5, warm"
        };
        bench.rows.extend(rows(name, &runs, &goals, &[]));
        dropped.into_iter().for_each(|d| bench.note(d));
        fs::remove_file(&lun)?;
    }
    fs::remove_dir_all(&place)?;
    Ok(())
}

/// 10,000 files in one directory.
pub(crate) fn list(bench: &mut Bench) -> Result<()> {
    let place = bench.work("vmfs")?;
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place)?;
    let lun = place.join("lun.img");
    let mut builder = Builder::five("bench").devices(&[64]);
    let count = ((10_000.0 * bench.scale) as usize).max(1000);
    for n in 0..count {
        builder.bytes(&format!("many/file {n:05}"), b"x");
    }
    builder.build().pop().context("a device")?.write_to(&lun)?;
    drop(builder);
    warm(&lun)?;
    let vmdkit = bench.vmdkit.clone();
    let ours = || {
        let mut command = Command::new(&vmdkit);
        let (cost, listed) = run_output(command.args(["ls", "-l"]).arg(&lun).arg("many"))?;
        ensure!(listed.lines().count() >= count, "not all files were listed");
        Ok(cost)
    };
    let mut contestants = vec![Contestant::new("vmdkit ls -l", ours)];
    if bench.has(&["debugvmfs"]) {
        contestants.push(Contestant::new("debugvmfs ls -l", || {
            let mut command = tools::command("debugvmfs");
            let (cost, listed) = run_output(command.arg(&lun).args(["ls", "-l", "/many"]))?;
            ensure!(listed.lines().count() >= count, "not all files were listed");
            Ok(cost)
        }));
    }
    if bench.has(&["vmfs-fuse"]) {
        let at = place.join("mnt");
        fs::create_dir(&at)?;
        let lun = lun.clone();
        contestants.push(Contestant::new("vmfs-fuse, ls -l", move || {
            let mut command = tools::command("vmfs-fuse");
            command.arg(&lun).arg(&at).arg("-f");
            let mount = Mount::start(command, &at)?;
            let before = used(mount.server_id())?;
            let cost = run(Command::new("ls").arg("-l").arg(at.join("many")))?;
            let cost = cost.with_server(before, used(mount.server_id())?);
            mount.unmount()?;
            Ok(cost)
        }));
    }
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let goals = [("debugvmfs ls -l", 5.0)];
    let name = format!("listing {count} files of a VMFS-5 directory, warm");
    bench.rows.extend(rows(&name, &runs, &goals, &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    fs::remove_dir_all(&place)?;
    Ok(())
}

/// 64 TiB in five sparse devices: what opening and listing it reads and holds.
pub(crate) fn open(bench: &mut Bench) -> Result<()> {
    const TIB: u64 = 1 << 40;
    let place = bench.work("vmfs")?;
    for six in [false, true] {
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place)?;
        let builder = if six {
            Builder::six("huge")
        } else {
            Builder::five("huge")
        };
        let mut builder = builder.devices(&[52_428, 52_429, 52_429, 52_429, 52_429]);
        let mut contents = SparseMemDisk::new(62 * TIB);
        for n in 0..62 {
            contents.put(n * TIB, b"here");
        }
        let thin = FileSpec {
            provision: Provision::Thin,
            ..FileSpec::default()
        };
        builder.file("vm/huge-flat.vmdk", Arc::new(contents), thin);
        let mut names = Vec::new();
        for (n, device) in builder.build().iter().enumerate() {
            let path = place.join(format!("d{n}.img"));
            device.write_to(&path)?;
            names.push(text(&path));
        }
        drop(builder);
        let mut command = Command::new(&bench.vmdkit);
        command.args(["vm", "-D"]).arg(names.join(","));
        let (cost, _) = run_output(&mut command)?;
        let (read, held) = (cost.read as f64 / 1048576.0, peak(&mut command)?);
        let what =
            format!("{read:.1} MiB read (goal under 16), {held} MiB held at most (goal under 64)");
        let name = format!("opening 64 TiB of VMFS-{}", if six { 6 } else { 5 });
        let met = read < 16.0 && held < 64;
        bench
            .rows
            .push(figure(&name, "bytes and memory", what, Some(met)));
    }
    fs::remove_dir_all(&place)?;
    Ok(())
}
