//! Mounts as users have them: a machine of many snapshots, many readers, random reads.

use super::mount::qemu_export;
use crate::bench::{
    Bench,
    data::{LARGE, START},
    measure::{Contestant, Cost, race, run, used, warm},
    report::{figure, rows},
    text,
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Instant,
};
use tests::{
    mount::{Mount, ntfs_3g},
    tools,
};

const SNAPSHOTS: u32 = 32;
const READS: u32 = 20_000;

/// The bench's own program, reading at random places.
fn random(file: &Path, threads: u32) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench-child", "random"]).arg(file);
    let (reads, threads) = (READS.to_string(), threads.to_string());
    command.args(["--reads", &reads, "--threads", &threads]);
    Ok(command)
}

/// Reads 4 KiB at random places of `file`, from several threads.
pub(crate) fn child(file: &Path, reads: u32, threads: u32) -> Result<()> {
    let pages = fs::metadata(file)?.len() / 4096;
    std::thread::scope(|scope| {
        let read = |thread: u32| {
            let file = File::open(file)?;
            let mut state = u64::from(thread) + 1;
            let mut page = [0; 4096];
            for _ in 0..reads / threads {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                file.read_exact_at(&mut page, (state >> 24) % pages * 4096)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..threads)
            .map(|t| scope.spawn(move || -> Result<()> { read(t) }))
            .collect();
        for thread in threads {
            thread.join().ok().context("a thread")??;
        }
        Ok(())
    })
}

/// Random reads of a guest file of NTFS through mounts that are fresh each time.
pub(crate) fn random_reads(bench: &mut Bench) -> Result<()> {
    if !tools::can_fuse() || !bench.has(&["qemu-storage-daemon", "ntfs-3g"]) {
        bench.note("mount-random not measured: FUSE or a peer is missing");
        return Ok(());
    }
    let image = bench.sparse()?;
    let len = fs::metadata(bench.raw()?)?.len();
    warm(&image)?;
    let at = bench.work("mnt")?;
    fs::create_dir_all(&at)?;
    let part = bench.work("part.raw")?;
    let vmdkit = bench.vmdkit.clone();
    let ours = |threads: u32| -> Result<Cost> {
        let mut command = Command::new(&vmdkit);
        command.args(["mount", "--foreground"]).arg(&image).arg(&at);
        let mount = Mount::start(command, &at)?;
        let before = used(mount.server_id())?;
        let cost = run(&mut random(&at.join("p1").join(LARGE), threads)?)?;
        let cost = cost.with_server(before, used(mount.server_id())?);
        mount.unmount()?;
        Ok(cost)
    };
    let theirs = |threads: u32| -> Result<Cost> {
        let range = (START * 512, len - START * 512);
        let disk = qemu_export(&image, &part, Some(range))?;
        let mount = ntfs_3g(&part, &at, "ro")?;
        let servers = [&disk, &mount].map(Mount::server_id);
        let before = [used(servers[0])?, used(servers[1])?];
        let cost = run(&mut random(&at.join(LARGE), threads)?)?
            .with_server(before[0], used(servers[0])?)
            .with_server(before[1], used(servers[1])?);
        mount.unmount()?;
        disk.unmount()?;
        Ok(cost)
    };
    const PEER: &str = "ntfs-3g over qemu-storage-daemon";
    for threads in [1, 16] {
        let contestants = vec![
            Contestant::new("vmdkit mount", || ours(threads)),
            Contestant::new(PEER, || theirs(threads)),
        ];
        let (runs, dropped) = race(bench.rounds, contestants)?;
        let case = format!("{READS} random reads of 4 KiB through a mount, {threads} readers");
        bench.rows.extend(rows(&case, &runs, &[(PEER, 2.0)], &[]));
        dropped.into_iter().for_each(|d| bench.note(d));
    }
    // As many reads by sixteen as by one: how the mount scales with this machine's cores.
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        one.push(ours(1)?.wall);
        many.push(ours(16)?.wall);
    }
    let ratio = crate::bench::measure::median(&one) / crate::bench::measure::median(&many);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    bench.rows.push(figure(
        "random reads through one mount",
        "16 readers against one",
        format!("{ratio:.2} times as fast on {cores} cores"),
        None,
    ));
    Ok(())
}

/// What is read until a machine of many snapshots is mounted, and for each that is entered.
pub(crate) fn snapshots(bench: &mut Bench) -> Result<()> {
    if !tools::can_fuse() || !bench.has(&["qemu-img", "qemu-io"]) {
        bench.note("mount-points not measured: FUSE or qemu is missing");
        return Ok(());
    }
    let mut chain = bench.chain(true)?;
    chain.grow(SNAPSHOTS)?;
    let dir = chain.top.parent().context("a directory")?.to_path_buf();
    let link = |n: u32| match n {
        0 => "base.vmdk".to_owned(),
        n => format!("link-{n:03}.vmdk"),
    };
    let mut list = format!("snapshot.numSnapshots = \"{SNAPSHOTS}\"\n");
    for n in 0..SNAPSHOTS {
        list += &format!(
            "snapshot{n}.uid = \"{}\"\nsnapshot{n}.parent = \"{n}\"\nsnapshot{n}.displayName = \"s{n}\"\n\
             snapshot{n}.numDisks = \"1\"\nsnapshot{n}.disk0.node = \"scsi0:0\"\n\
             snapshot{n}.disk0.fileName = \"{}\"\n",
            n + 1,
            link(n)
        );
    }
    fs::write(dir.join("web.vmsd"), list)?;
    let config = format!(
        "config.version = \"8\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"{}\"\n",
        link(SNAPSHOTS)
    );
    fs::write(dir.join("web.vmx"), config)?;
    let at = bench.work("mnt")?;
    fs::create_dir_all(&at)?;
    let begin = Instant::now();
    let mut command = Command::new(&bench.vmdkit);
    command.args(["mount", "--foreground"]).arg(&dir).arg(&at);
    let mount = Mount::start(command, &at)?;
    let wall = begin.elapsed().as_secs_f64();
    let read = || used(mount.server_id()).map(|u| u.bytes_read());
    let ready = read()?;
    let names = fs::read_dir(at.join("snapshots"))?.count();
    let listed = read()?;
    let first = at.join("snapshots/s3/scsi0-0");
    let volumes = fs::read_dir(&first)?.count();
    let entered = read()?;
    mount.unmount()?;
    let what = format!("mount of a machine of {SNAPSHOTS} snapshots");
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    bench.rows.push(figure(
        &what,
        "read until it is ready",
        format!(
            "{:.0} KiB of {} (libraries and tables of the kernel among them), {wall:.2} s",
            kib(ready),
            text(dir.file_name().context("a name")?.as_ref())
        ),
        Some(ready < 4 << 20),
    ));
    bench.rows.push(figure(
        &what,
        "read to list the snapshots, then to enter one",
        format!(
            "{:.0} KiB for {names}, {:.0} KiB for the {volumes} volumes of a chain of 4",
            kib(listed - ready),
            kib(entered - listed)
        ),
        Some(listed - ready < 64 << 10 && entered - listed < 4 << 20),
    ));
    Ok(())
}
