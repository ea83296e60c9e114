//! Guest file systems: listing, searching, copying trees, compressed files, random reads.

use super::mount::qemu_export;
use crate::bench::{
    Bench,
    data::{LARGE, START},
    measure::{Contestant, Cost, drop_caches, race, run, used, warm},
    report::{figure, rows},
    text,
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tests::{
    mount::{Mount, ntfs_3g},
    tools,
};

const NTFS_3G: &str = "ntfs-3g over qemu-storage-daemon";

/// Where ntfs-3g mounts the partition of a disk, over qemu-storage-daemon.
#[derive(Clone)]
pub(crate) struct Peer {
    image: PathBuf,
    export: PathBuf,
    at: PathBuf,
    len: u64,
}

impl Peer {
    pub(crate) fn new(bench: &Bench, image: &Path, len: u64) -> Result<Self> {
        Ok(Self {
            image: image.to_path_buf(),
            export: bench.work("part.raw")?,
            at: bench.work("mnt")?,
            len,
        })
    }

    /// Mounts, runs a command in it, adds what the servers used. A mount is fresh each time
    /// as our process is; with `twice` the command is run before without being timed, which
    /// fills the kernel's caches of names and attributes.
    pub(crate) fn run(
        &self,
        twice: bool,
        cold: bool,
        command: &dyn Fn(&Path) -> Command,
    ) -> Result<Cost> {
        let part = (START * 512, self.len - START * 512);
        let disk = qemu_export(&self.image, &self.export, Some(part))?;
        let mount = ntfs_3g(&self.export, &self.at, "ro")?;
        if twice {
            run(&mut command(&self.at))?;
        }
        if cold {
            drop_caches()?;
        }
        let servers = [&disk, &mount].map(Mount::server_id);
        let before = [used(servers[0])?, used(servers[1])?];
        let cost = run(&mut command(&self.at))?
            .with_server(before[0], used(servers[0])?)
            .with_server(before[1], used(servers[1])?);
        mount.unmount()?;
        disk.unmount()?;
        Ok(cost)
    }
}

pub(crate) fn shell(script: &str, args: &[&Path]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).args(args);
    command
}

/// The most resident memory of a command, in MiB, as GNU time tells it.
pub(crate) fn peak(command: &mut Command) -> Result<u64> {
    let log = tempfile::NamedTempFile::new()?;
    let mut timed = Command::new("time");
    timed.args(["-f", "%M", "-o"]).arg(log.path());
    timed.arg(command.get_program()).args(command.get_args());
    run(&mut timed)?;
    let text = fs::read_to_string(log.path())?;
    let kib: u64 = text.trim().parse().context("what time(1) said")?;
    Ok(kib >> 10)
}

/// Full listings and searches over `count` files.
fn listings(bench: &mut Bench, image: &Path, len: u64, count: &str) -> Result<()> {
    let peer = Peer::new(bench, image, len)?;
    let vmdkit = bench.vmdkit.clone();
    for cold in [false, true] {
        if cold && !drop_caches()? {
            bench.note("cold listings not measured: only root may drop the page cache");
            break;
        }
        warm(image)?;
        let fresh = || {
            if cold {
                drop_caches()?;
            }
            Ok(())
        };
        let mut contestants = vec![
            Contestant::new("vmdkit ls -lR", || {
                run(Command::new(&vmdkit)
                    .args(["-q", "ls", "-lR"])
                    .arg(image)
                    .arg("/p1"))
            })
            .prepared(fresh),
        ];
        if bench.has(&["qemu-storage-daemon", "ntfs-3g"]) && tools::can_fuse() {
            contestants.push(Contestant::new(NTFS_3G, || {
                peer.run(false, cold, &|at| shell("find \"$0\" -ls", &[at]))
            }));
            if !cold {
                contestants.push(Contestant::new("the same, a second time", || {
                    peer.run(true, false, &|at| shell("find \"$0\" -ls", &[at]))
                }));
            }
        }
        if bench.has(&["7zz"]) {
            contestants.push(
                Contestant::new("7zz l", || run(tools::command("7zz").arg("l").arg(image)))
                    .prepared(fresh),
            );
        }
        let (runs, dropped) = race(bench.rounds, contestants)?;
        let how = if cold { "cold" } else { "warm" };
        let case = format!("listing of {count} files, {how}");
        let goals = [(NTFS_3G, 5.0), ("7zz l", 2.0)];
        bench.rows.extend(rows(&case, &runs, &goals, &[]));
        dropped.into_iter().for_each(|d| bench.note(d));
    }
    warm(image)?;
    let find = |image: &Path| {
        let mut command = Command::new(&vmdkit);
        command.args(["-q", "find"]).arg(image);
        command.args(["/p1", "--name", "file*77.txt"]);
        command
    };
    let contestants = vec![
        Contestant::new("vmdkit find --name", || run(&mut find(image))),
        Contestant::new("7zz l", || run(tools::command("7zz").arg("l").arg(image))),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let case = format!("find by name over {count} files");
    bench
        .rows
        .extend(rows(&case, &runs, &[("7zz l", 1.0)], &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    if bench.has(&["time"]) {
        let mut ls = Command::new(&vmdkit);
        ls.args(["-q", "ls", "-lR"]).arg(image).arg("/p1");
        let most = peak(&mut find(image))?.max(peak(&mut ls)?);
        let text = format!("{most} MiB at most, goal under 200");
        let case = format!("listing and searching {count} files");
        bench
            .rows
            .push(figure(&case, "resident memory", text, Some(most < 200)));
    }
    Ok(())
}

/// 100,000 files: listings, and the whole tree out.
pub(crate) fn hundred_thousand(bench: &mut Bench) -> Result<()> {
    let (image, _) = bench.many()?;
    listings(bench, &image, 2 << 30, "100,000")?;
    tree(bench, &image)?;
    bench.forget(&["many.vmdk"])
}

/// A million files.
pub(crate) fn million(bench: &mut Bench) -> Result<()> {
    let (image, len) = bench.million()?;
    listings(bench, &image, len, "1,000,000")?;
    bench.forget(&["million.vmdk"])
}

fn tree(bench: &mut Bench, image: &Path) -> Result<()> {
    let peer = Peer::new(bench, image, 2 << 30)?;
    let vmdkit = bench.vmdkit.clone();
    warm(image)?;
    let contestants = vec![
        Contestant::new("vmdkit tar", || {
            run(&mut shell(
                "\"$0\" -q tar \"$1\" /p1 | cat > /dev/null",
                &[&vmdkit, image],
            ))
        }),
        Contestant::new(NTFS_3G, || {
            let tar = |at: &Path| shell("tar -cf - -C \"$0\" . | cat > /dev/null", &[at]);
            peer.run(false, false, &tar)
        }),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let case = "tar of 100,000 files";
    bench.rows.extend(rows(case, &runs, &[(NTFS_3G, 3.0)], &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    let out = bench.work("tree")?;
    let fresh = || {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out)?;
        Command::new("sync").status()?;
        Ok(())
    };
    let contestants = vec![
        Contestant::new("vmdkit cp -r", || {
            run(Command::new(&vmdkit)
                .args(["-q", "cp", "-r"])
                .arg(image)
                .arg("/p1/.")
                .arg(&out))
        })
        .prepared(fresh),
        Contestant::new("7zz x", || {
            // As safe as ours is: it ends when the files are on the disk.
            run(&mut shell(
                "7zz x -y \"-o$1\" \"$0\" && sync -f \"$1\"",
                &[image, &out],
            ))
        })
        .prepared(fresh),
        Contestant::new(NTFS_3G, || {
            let out = out.clone();
            peer.run(false, false, &move |at| {
                shell(
                    "tar -cf - -C \"$0\" . | tar -xf - -C \"$1\" && sync -f \"$1\"",
                    &[at, &out],
                )
            })
        })
        .prepared(fresh),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let case = "cp -r of 100,000 files";
    let goals = [("7zz x", 1.5), (NTFS_3G, 3.0)];
    bench.rows.extend(rows(case, &runs, &goals, &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    let _ = fs::remove_dir_all(&out);
    Ok(())
}

/// Reading one large file out of NTFS, and one that LZNT1 compressed.
pub(crate) fn contents(bench: &mut Bench) -> Result<()> {
    let image = bench.sparse()?;
    let raw = bench.raw()?;
    warm(&image)?;
    warm(&raw)?;
    let vmdkit = bench.vmdkit.clone();
    let path = format!("/p1/{LARGE}");
    let mib = bench.scaled(512 << 20) >> 20;
    let contestants = vec![
        Contestant::new("vmdkit cat", || {
            run(Command::new(&vmdkit)
                .args(["-q", "cat"])
                .arg(&image)
                .arg(&path))
        }),
        Contestant::new("dd of the raw disk", || {
            // As many bytes, from the middle of the disk.
            let (source, count) = (format!("if={}", text(&raw)), format!("count={mib}"));
            run(Command::new("dd").args([&source, "of=/dev/null", "bs=1M", "skip=1024", &count]))
        }),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let goals = [("dd of the raw disk", 0.8)];
    bench
        .rows
        .extend(rows("cat of one large file", &runs, &goals, &[]));
    dropped.into_iter().for_each(|d| bench.note(d));

    if !bench.has(&["setfattr"]) {
        return Ok(());
    }
    let (packed, len) = bench.packed()?;
    warm(&packed)?;
    let peer = Peer::new(bench, &packed, len)?;
    let contestants = vec![
        Contestant::new("vmdkit cat", || {
            run(Command::new(&vmdkit)
                .args(["-q", "cat"])
                .arg(&packed)
                .arg("/p1/packed/text"))
        }),
        Contestant::new(NTFS_3G, || {
            peer.run(false, false, &|at| {
                let mut command = Command::new("dd");
                command.arg(format!("if={}", text(&at.join("packed/text"))));
                command.args(["of=/dev/null", "bs=1M"]);
                command
            })
        }),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let case = "cat of a file that LZNT1 compressed";
    bench.rows.extend(rows(case, &runs, &[(NTFS_3G, 3.0)], &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    bench.forget(&["packed.vmdk"])
}

/// Random reads of 4 KiB in one file of 100 MiB on FAT, in this process.
pub(crate) fn random_fat(bench: &mut Bench) -> Result<()> {
    if !bench.has(&["mkfs.fat", "mcopy"]) {
        return Ok(());
    }
    let volume = bench.work("fat.img")?;
    let file = bench.work("fat.bin")?;
    fs::write(
        &file,
        tests::guest::contents("fat", 100 << 20, tests::guest::Fill::Noise),
    )?;
    tests::sample::sparse_file(&volume, 300 << 20)?;
    tools::run(
        "mkfs.fat",
        [
            "-F".as_ref(),
            "32".as_ref(),
            "-s".as_ref(),
            "1".as_ref(),
            volume.as_os_str(),
        ],
    )?;
    tools::run(
        "mcopy",
        [
            "-i".as_ref(),
            volume.as_os_str(),
            file.as_os_str(),
            "::file".as_ref(),
        ],
    )?;
    warm(&volume)?;
    let me = std::env::current_exe()?;
    let child = |how: &str, reads: &str| {
        let mut command = Command::new(&me);
        command
            .args(["bench-child", "fat", how])
            .arg(&volume)
            .arg(reads);
        command
    };
    // The crate needs seconds for so few.
    const OURS: u32 = 20_000;
    const THEIRS: u32 = 200;
    let many = OURS.to_string();
    let few = THEIRS.to_string();
    let contestants = vec![
        Contestant::new("vmdkit's reader", || run(&mut child("ours", &many))),
        Contestant::new("fatfs 0.3.6", || {
            let mut cost = run(&mut child("fatfs", &few))?;
            cost.wall *= f64::from(OURS / THEIRS);
            Ok(cost)
        }),
    ];
    let (runs, dropped) = race(bench.rounds, contestants)?;
    let case = "random reads of 4 KiB in a FAT file";
    bench
        .rows
        .extend(rows(case, &runs, &[("fatfs 0.3.6", 100.0)], &[]));
    dropped.into_iter().for_each(|d| bench.note(d));
    fs::remove_file(&volume)?;
    fs::remove_file(&file)?;
    Ok(())
}
