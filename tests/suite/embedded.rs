//! Holes in the descriptors of sparse disks: convert gives the disk or says why not, never another
//! disk; where the header has to serve, every verb says so.

use crate::repairs::{text, vmdkit};
use std::{fs, process::Command};
use tests::{
    damages::{self, guest::guest, run},
    tools,
};

/// A megabyte of which no two sectors are equal, and none is empty but the last third.
fn disk() -> Vec<u8> {
    let mut bytes = vec![0u8; 1 << 20];
    let used = bytes.len() / 3 * 2;
    for (n, word) in bytes[..used].chunks_exact_mut(8).enumerate() {
        let value = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

const KINDS: [&str; 2] = ["monolithicSparse", "streamOptimized"];

#[test]
fn holes_give_the_disk_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let sound = disk();
    fs::write(at("disk.raw"), &sound).unwrap();
    let mut told = Vec::new();
    for kind in KINDS {
        let (image, out, theirs) = (at("disk.vmdk"), at("out.raw"), at("theirs.raw"));
        let raw = at("disk.raw");
        let made = vmdkit(&[
            "convert",
            "--format",
            "raw",
            text(&raw),
            text(&image),
            "--to",
            "vmdk",
            "--subformat",
            kind,
            "--force",
        ]);
        assert!(made.status.success(), "{made:?}");
        let whole = fs::read(&image).unwrap();
        let len = whole[512..].iter().position(|b| *b == 0).unwrap();
        let (mut right, mut by_header, mut refused, mut agreed, mut zipped) = (0, 0, 0, 0, 0);
        for place in (0..len).step_by(9) {
            for value in [0, 0xff] {
                let mut bytes = whole.clone();
                bytes[512 + place..512 + (place + 3).min(len)].fill(value);
                fs::write(&image, bytes).unwrap();
                let args = [
                    "convert",
                    text(&image),
                    text(&out),
                    "--to",
                    "raw",
                    "--force",
                ];
                let done = vmdkit(&args);
                let said = String::from_utf8_lossy(&done.stderr);
                if !done.status.success() {
                    assert!(said.contains("descriptor"), "{kind} {place}: {said}");
                    refused += 1;
                    continue;
                }
                let what = format!("{kind}, {value} at {place}");
                assert!(fs::read(&out).unwrap() == sound, "{what}: other bytes");
                right += 1;
                by_header += usize::from(said.contains("DAMAGED"));
                // Others go by the header too, where they take the text for one.
                let args = [
                    "convert",
                    "-f",
                    "vmdk",
                    "-O",
                    "raw",
                    text(&image),
                    text(&theirs),
                ];
                if tools::have(&["qemu-img"]) && tools::run("qemu-img", args).is_ok() {
                    assert!(
                        fs::read(&theirs).unwrap() == sound,
                        "{what}: qemu-img differs"
                    );
                    agreed += 1;
                }
                if tools::have(&["7zz"]) {
                    let out = Command::new("7zz").args(["x", "-so"]).arg(&image).output();
                    let out = out.unwrap();
                    if out.status.success() && out.stdout.len() == sound.len() {
                        assert!(out.stdout == sound, "{what}: 7-Zip differs");
                        zipped += 1;
                    }
                }
            }
        }
        told.push(format!(
            "{kind}: {right} right, {by_header} of them by the header, {refused} refused; qemu-img \
             agrees on {agreed}, 7-Zip on {zipped}"
        ));
        assert!(by_header > 4, "{told:?}");
    }
    println!("{}", told.join("\n"));
}

fn planted(name: &str) -> damages::Files {
    let all = damages::all().map(|(_, d)| d);
    let damage = all.into_iter().find(|d| d.name == name);
    let damage = damage.unwrap_or_else(|| panic!("no {name}"));
    let mut files = damage.base.files();
    (damage.plant)(&mut files);
    files
}

#[test]
fn every_verb_says_it_and_the_mended_copy_is_sound() {
    for name in [
        "zeros in a comment before the extents",
        "zeros in the text of a stream",
    ] {
        let files = planted(name);
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        files.files["d.vmdk"].write(&at("d.vmdk")).unwrap();
        let (image, mended, out) = (at("d.vmdk"), at("m.vmdk"), at("one.txt"));
        for args in [
            &["info", text(&image)][..],
            &["ls", text(&image), "/p0"],
            &["cp", text(&image), "/p0/one.txt", text(&out)],
        ] {
            let done = vmdkit(args);
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{args:?}: {said}");
            assert!(said.contains("DAMAGED"), "{args:?}: {said}");
        }
        assert_eq!(fs::read(&out).unwrap(), b"one");
        let done = vmdkit(&["check", text(&image), "--repair", text(&mended)]);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let report = run::check_path(&mended).unwrap();
        let all: Vec<String> = report.findings.iter().map(run::Finding::line).collect();
        assert!(all.is_empty(), "{}", all.join("\n"));
        let raw = at("m.raw");
        let done = vmdkit(&["convert", text(&mended), text(&raw), "--to", "raw"]);
        assert!(done.status.success(), "{done:?}");
        assert!(fs::read(&raw).unwrap() == guest().bytes, "{name}");
    }
}

/// Neither is the disk below it given for it.
#[test]
fn a_delta_without_its_text_stays_an_error() {
    for name in [
        "zeros in the text of a delta",
        "ones over what a delta says of its parent",
    ] {
        let files = planted(name);
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &files.files {
            bytes.write(&dir.path().join(name)).unwrap();
        }
        let (image, out) = (dir.path().join("d.vmdk"), dir.path().join("out"));
        let to_raw = ["convert", text(&image), text(&out), "--to", "raw"];
        for args in [
            &["info", text(&image)][..],
            &["check", text(&image), "--repair", text(&out)],
            &to_raw,
        ] {
            let done = vmdkit(args);
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(!done.status.success(), "{name}: {args:?}: {said}");
            assert!(
                said.contains("restore it from a backup"),
                "{args:?}: {said}"
            );
            assert!(!out.exists(), "{args:?}");
        }
    }
}

/// What is left of a chain that has lost a link is another disk.
#[test]
fn a_chain_with_a_gap_is_not_mended() {
    let mut gap = planted("a lost grain of the newest link");
    gap.files.remove("d1-delta.vmdk");
    // The text of the delta is sound, the header below it is not.
    let mut below = planted("zeros in the text of a delta");
    let hole = below.of("d.vmdk").find(&[0; 3], 512).unwrap();
    below.of("d.vmdk").put(hole, b"# E");
    below.of("b.vmdk").set_u64(20, 100);
    for (files, says) in [(gap, "d1-delta.vmdk"), (below, "grainSize")] {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &files.files {
            bytes.write(&dir.path().join(name)).unwrap();
        }
        let image = dir.path().join(&files.open);
        let out = dir.path().join("out.vmdk");
        let done = vmdkit(&["check", text(&image), "--repair", text(&out)]);
        assert!(!done.status.success() && !out.exists(), "{done:?}");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn nor_is_an_overlay_without_its_backing_file() {
    if !tools::have(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (base, top, out) = (at("b.qcow2"), at("d.qcow2"), at("out.qcow2"));
    let create = ["create", "-q", "-f", "qcow2"];
    tools::run("qemu-img", [&create[..], &[text(&base), "1M"]].concat()).unwrap();
    let args = ["-b", "b.qcow2", "-F", "qcow2", text(&top)];
    tools::run("qemu-img", [&create[..], &args].concat()).unwrap();
    let mut bytes = fs::read(&base).unwrap();
    bytes[0] = b'X';
    fs::write(&base, bytes).unwrap();
    let done = vmdkit(&["check", text(&top), "--repair", text(&out)]);
    assert!(!done.status.success() && !out.exists(), "{done:?}");
}
