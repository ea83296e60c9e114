//! Conversion to every other format, beside qemu-img with equal durability; and how large
//! what comes out is.

use crate::bench::{
    Bench,
    measure::{Contestant, race, run, warm},
    report::{figure, rows},
};
use anyhow::Result;
use std::{fs, path::Path, process::Command};
use tests::tools;

/// What is written, our options, qemu-img's, and how many times as fast we want to be.
struct Way {
    name: &'static str,
    ours: &'static [&'static str],
    theirs: &'static [&'static str],
    goal: f64,
    /// Ours may not be larger.
    compressed: bool,
}

const fn way(
    name: &'static str,
    ours: &'static [&'static str],
    theirs: &'static [&'static str],
    goal: f64,
    compressed: bool,
) -> Way {
    Way {
        name,
        ours,
        theirs,
        goal,
        compressed,
    }
}

const STREAM: &[&str] = &["-O", "vmdk", "-o", "subformat=streamOptimized"];
const ZLIB: &[&str] = &["-O", "qcow2", "-c", "-W", "-m", "8"];
const ZSTD: &[&str] = &[
    "-O",
    "qcow2",
    "-c",
    "-W",
    "-m",
    "8",
    "-o",
    "compression_type=zstd",
];

const WAYS: &[Way] = &[
    way(
        "sparse to sparse",
        &["--to", "vmdk"],
        &["-O", "vmdk"],
        1.0,
        false,
    ),
    way(
        "sparse to streamOptimized",
        &["--to", "vmdk", "--compress"],
        STREAM,
        4.5,
        true,
    ),
    way(
        "sparse to qcow2, zlib",
        &["--to", "qcow2", "--compress"],
        ZLIB,
        2.3,
        true,
    ),
    // Level 6 is a little larger than qemu-img's, which this is not.
    way(
        "sparse to qcow2, zlib level 9",
        &["--to", "qcow2", "--compress=9"],
        ZLIB,
        1.0,
        true,
    ),
    way(
        "sparse to qcow2, zstd",
        &["--to", "qcow2", "--compress", "--compression", "zstd"],
        ZSTD,
        1.5,
        true,
    ),
    way(
        "sparse to vhdx",
        &["--to", "vhdx"],
        &["-O", "vhdx"],
        1.5,
        false,
    ),
    way(
        "sparse to vhd",
        &["--to", "vhd"],
        &["-O", "vpc", "-o", "force_size=on"],
        1.5,
        false,
    ),
    way(
        "sparse to vdi",
        &["--to", "vdi"],
        &["-O", "vdi"],
        1.5,
        false,
    ),
];

/// To every format.
pub(crate) fn formats(bench: &mut Bench) -> Result<()> {
    if !bench.has(&["qemu-img"]) {
        return Ok(());
    }
    let image = bench.sparse()?;
    warm(&image)?;
    let (ours, theirs) = (bench.work("ours.out")?, bench.work("theirs.out")?);
    let vmdkit = bench.vmdkit.clone();
    let fresh = |path: &Path| {
        let _ = fs::remove_file(path);
        Command::new("sync").status()?;
        Ok(())
    };
    for way in WAYS {
        let contestants = vec![
            Contestant::new("vmdkit", || {
                let mut command = Command::new(&vmdkit);
                command.args(["convert", "--quiet"]).args(way.ours);
                run(command.arg(&image).arg(&ours))
            })
            .prepared(|| fresh(&ours)),
            Contestant::new("qemu-img convert", || {
                let mut command = tools::command("qemu-img");
                command
                    .args(["convert", "-t", "writeback"])
                    .args(way.theirs);
                run(command.arg(&image).arg(&theirs))
            })
            .prepared(|| fresh(&theirs)),
        ];
        let (runs, dropped) = race(bench.rounds, contestants)?;
        let goals = [("qemu-img convert", way.goal)];
        bench.rows.extend(rows(way.name, &runs, &goals, &[]));
        dropped.into_iter().for_each(|d| bench.note(d));
        if way.compressed {
            let (a, b) = (fs::metadata(&ours)?.len(), fs::metadata(&theirs)?.len());
            let text = format!("{:.3} of qemu-img's", a as f64 / b as f64);
            bench
                .rows
                .push(figure(way.name, "length of the file", text, Some(a <= b)));
        }
        fs::remove_file(&ours)?;
        let _ = fs::remove_file(&theirs);
    }
    Ok(())
}

/// A disk of 2 TiB with little in it: time and memory go with what it holds.
pub(crate) fn empty(bench: &mut Bench) -> Result<()> {
    let (source, out) = (bench.work("empty.raw")?, bench.work("empty.out")?);
    let file = fs::File::create(&source)?;
    file.set_len(2 << 40)?;
    for i in 0..64u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[i as u8 | 1; 1 << 16], i << 35)?;
    }
    let vmdkit = bench.vmdkit.clone();
    for (name, args) in [
        ("2 TiB mostly empty to sparse", &["--to", "vmdk"][..]),
        (
            "2 TiB mostly empty to streamOptimized",
            &["--to", "vmdk", "--compress"],
        ),
        ("2 TiB mostly empty to vhdx", &["--to", "vhdx"]),
    ] {
        let mut command = Command::new(&vmdkit);
        command
            .args(["convert", "--quiet", "--format", "raw", "--force"])
            .args(args);
        let cost = run(command.arg(&source).arg(&out))?;
        let text = format!(
            "{:.2} s for 4 MiB of data, a goal of under 20 s met: {}",
            cost.wall,
            cost.wall < 20.0
        );
        bench
            .rows
            .push(figure(name, "seconds", text, Some(cost.wall < 20.0)));
    }
    fs::remove_file(&source)?;
    fs::remove_file(&out)?;
    Ok(())
}
