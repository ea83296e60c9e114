//! Conversion to raw: decoding alone, and end to end with equal durability.

use crate::bench::{
    Bench,
    data::qemu_path,
    measure::{Contestant, Cost, race, run, warm},
    report::rows,
    text,
};
use anyhow::{Context, Result};
use std::{fs, path::Path, process::Command};
use tests::tools;

pub(crate) fn sparse_to_raw(bench: &mut Bench) -> Result<()> {
    let image = bench.sparse()?;
    to_raw(bench, "sparse to raw", &image, 2.0, 1.0)
}

pub(crate) fn stream_to_raw(bench: &mut Bench) -> Result<()> {
    let image = bench.stream()?;
    let done = to_raw(bench, "stream to raw", &image, 3.0, 3.0);
    bench.forget(&["stream.vmdk"])?;
    done
}

/// qemu-img into a target that takes everything and keeps nothing.
pub(crate) fn qemu_decode(image: &Path, options: &[&str]) -> Result<Cost> {
    let out = tools::run("qemu-img", ["info", "--output=json", &text(image)])?;
    let info = String::from_utf8_lossy(&out.stdout);
    // Of the disk itself; those of its extents are indented further.
    let size = info
        .lines()
        .find_map(|l| l.strip_prefix("    \"virtual-size\": "))
        .context("the virtual size")?
        .trim_end_matches(',');
    let source = format!(
        "driver=vmdk,file.driver=file,file.filename={}",
        qemu_path(image)
    );
    let target = format!("driver=null-co,size={size}");
    let mut command = tools::command("qemu-img");
    command.args(["convert", "-n", "--image-opts", "--target-image-opts"]);
    run(command.args(options).args([&source, &target]))
}

fn to_raw(
    bench: &mut Bench,
    case: &str,
    image: &Path,
    decode_goal: f64,
    whole_goal: f64,
) -> Result<()> {
    if !bench.has(&["qemu-img"]) {
        return Ok(());
    }
    let raw = bench.raw()?;
    warm(image)?;
    warm(&raw)?;
    let xtask = bench.xtask.clone();
    let decoding = vec![
        Contestant::new("vmdkit", || {
            run(Command::new(&xtask)
                .args(["bench-child", "decode"])
                .arg(image))
        }),
        Contestant::new("qemu-img convert", || qemu_decode(image, &[])),
        Contestant::new("qemu-img convert -W -m 8", || {
            qemu_decode(image, &["-W", "-m", "8"])
        }),
        Contestant::new("dd of the image", || {
            let source = format!("if={}", text(image));
            run(Command::new("dd").args([&source, "of=/dev/null", "bs=1M"]))
        }),
    ];
    let (runs, dropped) = race(bench.rounds, decoding)?;
    let limits = ["dd of the image"];
    let goals = [("qemu-img convert", decode_goal)];
    bench.rows.extend(rows(
        &format!("{case}, decode only"),
        &runs,
        &goals,
        &limits,
    ));
    dropped.into_iter().for_each(|d| bench.note(d));

    let out = bench.work("out.raw")?;
    let fresh = || {
        let _ = fs::remove_file(&out);
        Command::new("sync").status()?;
        Ok(())
    };
    let vmdkit = bench.vmdkit.clone();
    let whole = vec![
        Contestant::new("vmdkit", || {
            let mut command = Command::new(&vmdkit);
            run(command
                .args(["convert", "--quiet", "--to", "raw"])
                .arg(image)
                .arg(&out))
        })
        .prepared(fresh),
        Contestant::new("vmdkit --digest none", || {
            let mut command = Command::new(&vmdkit);
            command.args(["convert", "--quiet", "--to", "raw", "--digest", "none"]);
            run(command.arg(image).arg(&out))
        })
        .prepared(fresh),
        Contestant::new("qemu-img convert", || {
            // Without writeback nothing would be on the disk when it ends.
            let mut command = tools::command("qemu-img");
            command.args(["convert", "-t", "writeback", "-O", "raw"]);
            run(command.arg(image).arg(&out))
        })
        .prepared(fresh),
        Contestant::new("cp --sparse=always", || {
            let script = "cp --sparse=always \"$0\" \"$1\" && sync \"$1\"";
            run(Command::new("sh").args(["-c", script]).arg(&raw).arg(&out))
        })
        .prepared(fresh),
    ];
    let (runs, dropped) = race(bench.rounds, whole)?;
    let goals = [("qemu-img convert", whole_goal)];
    let limits = ["cp --sparse=always"];
    bench
        .rows
        .extend(rows(&format!("{case}, end to end"), &runs, &goals, &limits));
    dropped.into_iter().for_each(|d| bench.note(d));
    let _ = fs::remove_file(&out);
    Ok(())
}
