//! Images that qemu-img and qemu-io make here, compared with qemu-img's own raw output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(unreachable_pub)]
mod common;

use common::{Numbers, bytes, have, open, open_with, run};
use disk_image::{Format, OpenOptions};
use disk_io::{ErrorKind, conformance};
use std::path::Path;

/// Writes, zeroes and discards at random places of `file` through `qemu-io`.
fn scribble(dir: &Path, file: &str, format: &str, len: u64, seed: u64, zeroes: bool) {
    let mut numbers = Numbers(seed);
    let mut args = vec!["-f".to_string(), format.into()];
    for i in 0..24 {
        let n = (numbers.below(64) + 1) * 512;
        let at = numbers.below((len - n) / 512 + 1) * 512;
        let command = match i % 6 {
            4 if zeroes => format!("write -z {at} {n}"),
            5 if zeroes => format!("write -zu {} 65536", at / 65536 * 65536 % (len - 65536)),
            _ => format!("write -P {} {at} {n}", 1 + numbers.below(254)),
        };
        args.extend(["-c".into(), command]);
    }
    args.push(file.into());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(dir, "qemu-io", &args);
}

/// Compares with what qemu-img makes of it.
fn same_as_qemu(dir: &Path, file: &str, format: &str) {
    run(
        dir,
        "qemu-img",
        &["convert", "-f", format, "-O", "raw", file, "raw.out"],
    );
    let expected = std::fs::read(dir.join("raw.out")).unwrap();
    let image = open(&dir.join(file)).unwrap();
    conformance::check(&*image.disk, &expected);
}

const QCOW2: &[&str] = &[
    "compat=0.10",
    "compat=1.1",
    "cluster_size=512",
    "cluster_size=2M",
    "compat=0.10,cluster_size=4k",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "preallocation=metadata",
    "preallocation=full",
    "data_file=data.bin",
    "data_file=data.bin,data_file_raw=on",
    "data_file=data.bin,extended_l2=on",
];

#[test]
fn qcow2_of_every_layout() {
    if !have("qemu-img") {
        return;
    }
    for (n, options) in QCOW2.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let len: u64 = (3 << 20) + 512 * 7;
        run(
            d,
            "qemu-img",
            &[
                "create",
                "-f",
                "qcow2",
                "-o",
                options,
                "a.qcow2",
                &len.to_string(),
            ],
        );
        scribble(d, "a.qcow2", "qcow2", len, n as u64, true);
        println!("{options}");
        same_as_qemu(d, "a.qcow2", "qcow2");
    }
}

#[test]
fn a_data_file_that_is_not_there_is_called_so() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let options = "data_file=data.bin";
    let args = ["create", "-f", "qcow2", "-o", options, "a.qcow2", "1M"];
    run(d, "qemu-img", &args);
    std::fs::remove_file(d.join("data.bin")).unwrap();
    let e = open(&d.join("a.qcow2")).unwrap_err();
    let text = e.to_string();
    assert!(text.contains("opening the data file"), "{text}");
    assert!(text.contains("data.bin"), "{text}");
    assert!(!text.contains("backing"), "{text}");
}

#[test]
fn qcow2_compressed_both_ways() {
    if !have("qemu-img") {
        return;
    }
    for options in [
        "compression_type=zlib",
        "compression_type=zstd",
        "compression_type=zlib,cluster_size=512",
        "compression_type=zlib,cluster_size=2M",
        "compression_type=zstd,cluster_size=2M",
        "compression_type=zlib,extended_l2=on",
        "compat=0.10",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        // Text that deflates, with an odd end.
        let mut raw: Vec<u8> = (0u64..400_000)
            .flat_map(|i| (i * i).to_le_bytes())
            .collect();
        raw.truncate((3 << 20) + 512 * 3);
        std::fs::write(d.join("in.raw"), &raw).unwrap();
        let args = [
            "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, "in.raw", "a.qcow2",
        ];
        run(d, "qemu-img", &args);
        println!("{options}");
        same_as_qemu(d, "a.qcow2", "qcow2");
        // And some clusters written over.
        scribble(d, "a.qcow2", "qcow2", raw.len() as u64, 5, true);
        same_as_qemu(d, "a.qcow2", "qcow2");
    }
}

#[test]
fn qcow2_chains_over_every_kind_of_disk() {
    if !have("qemu-img") {
        return;
    }
    for base in ["raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi"] {
        if !base.parse::<Format>().unwrap().is_read() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let len: u64 = 2 << 20;
        run(
            d,
            "qemu-img",
            &["create", "-f", base, "base", &len.to_string()],
        );
        scribble(d, "base", base, len, 1, false);
        // A longer overlay, and a shorter one on top.
        let longer = (len + 65536 * 3).to_string();
        run(
            d,
            "qemu-img",
            &[
                "create", "-f", "qcow2", "-b", "base", "-F", base, "mid", &longer,
            ],
        );
        scribble(d, "mid", "qcow2", len, 2, true);
        let options = "extended_l2=on,cluster_size=32k";
        let shorter = (len - 512 * 5).to_string();
        run(
            d,
            "qemu-img",
            &[
                "create", "-f", "qcow2", "-o", options, "-b", "mid", "-F", "qcow2", "top", &shorter,
            ],
        );
        scribble(d, "top", "qcow2", len - 512 * 5, 3, true);
        println!("{base}");
        same_as_qemu(d, "mid", "qcow2");
        same_as_qemu(d, "top", "qcow2");
        let image = open(&d.join("top")).unwrap();
        assert!(image.links.len() >= 3);
        // That a disk grew in its overlay is no news, but a raw file may have been cut short.
        let cut = |w: &String| w.contains("cut short looks the same");
        assert!(image.warnings.iter().all(cut), "{:?}", image.warnings);
        assert_eq!(image.warnings.len(), usize::from(base == "raw"));
        assert!(image.doubts.is_empty());
    }
}

/// A raw backing file may begin with anything, since a guest writes it.
#[test]
fn a_backing_file_named_raw_is_never_looked_at() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    run(d, "qemu-img", &["create", "-f", "qcow2", "trap", "1M"]);
    let mut trap = std::fs::read(d.join("trap")).unwrap();
    trap.resize(trap.len().next_multiple_of(512), 0);
    run(
        d,
        "qemu-img",
        &["create", "-f", "qcow2", "-b", "trap", "-F", "raw", "top"],
    );
    let image = open(&d.join("top")).unwrap();
    conformance::check(&*image.disk, &trap);
}

#[test]
fn qcow2_snapshots_are_listed_and_opened() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    run(d, "qemu-img", &["create", "-f", "qcow2", "a", "1M"]);
    run(d, "qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 1M", "a"]);
    run(d, "qemu-img", &["snapshot", "-c", "one", "a"]);
    run(
        d,
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 2 4096 128k", "a"],
    );
    run(d, "qemu-img", &["snapshot", "-c", "same", "a"]);
    run(d, "qemu-img", &["snapshot", "-c", "same", "a"]);
    run(d, "qemu-io", &["-f", "qcow2", "-c", "write -P 3 0 1M", "a"]);
    run(d, "qemu-img", &["resize", "-f", "qcow2", "a", "2M"]);
    let now = open(&d.join("a")).unwrap();
    assert_eq!(now.disk.len(), 2 << 20);
    let names: Vec<_> = now.snapshots.iter().map(|s| (&*s.id, &*s.name)).collect();
    assert_eq!(names, [("1", "one"), ("2", "same"), ("3", "same")]);
    let at = |wanted: &str| {
        let options = OpenOptions {
            snapshot: Some(wanted.into()),
            ..OpenOptions::default()
        };
        open_with(&d.join("a"), &options)
    };
    assert_eq!(bytes(&*at("one").unwrap().disk).unwrap(), vec![1; 1 << 20]);
    let mut two = vec![1; 1 << 20];
    two[4096..4096 + (128 << 10)].fill(2);
    for wanted in ["id:2", "2", "id:3"] {
        conformance::check(&*at(wanted).unwrap().disk, &two);
    }
    assert_eq!(at("name:same").unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(at("nine").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn encrypted_qcow2_is_refused_by_name() {
    if !have("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let secret = "secret,id=s,data=abc";
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    run(
        d,
        "qemu-img",
        &[
            "create", "--object", secret, "-f", "qcow2", "-o", options, "a", "1M",
        ],
    );
    let e = open(&d.join("a")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("LUKS"), "{e}");
}

#[test]
fn vhd_of_every_layout() {
    if !have("qemu-img") {
        return;
    }
    for (n, options) in [
        "subformat=dynamic,force_size=on",
        "subformat=fixed,force_size=on",
    ]
    .iter()
    .enumerate()
    {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let len: u64 = 5 << 20;
        run(
            d,
            "qemu-img",
            &["create", "-f", "vpc", "-o", options, "a", &len.to_string()],
        );
        scribble(d, "a", "vpc", len, n as u64, true);
        println!("{options}");
        same_as_qemu(d, "a", "vpc");
    }
}

#[test]
fn vhdx_of_every_layout() {
    if !have("qemu-img") {
        return;
    }
    for (n, options) in [
        "subformat=dynamic",
        "subformat=dynamic,block_size=1M",
        "subformat=dynamic,block_size=256M",
        "subformat=dynamic,block_state_zero=off",
        "subformat=fixed",
    ]
    .iter()
    .enumerate()
    {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let len: u64 = 5 << 20;
        run(
            d,
            "qemu-img",
            &["create", "-f", "vhdx", "-o", options, "a", &len.to_string()],
        );
        scribble(d, "a", "vhdx", len, n as u64, false);
        println!("{options}");
        same_as_qemu(d, "a", "vhdx");
    }
}

#[test]
fn vdi_of_every_layout() {
    if !have("qemu-img") {
        return;
    }
    for (n, options) in ["static=off", "static=on"].iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let len: u64 = (5 << 20) + 512 * 3;
        run(
            d,
            "qemu-img",
            &["create", "-f", "vdi", "-o", options, "a", &len.to_string()],
        );
        scribble(d, "a", "vdi", len, n as u64, false);
        println!("{options}");
        same_as_qemu(d, "a", "vdi");
    }
}
