//! `check --repair`: a mended copy has everything that could be read, and says what it has not.

use crate::common::{Fixture, LEN};
use std::fs;

fn raw_of(f: &Fixture, disk: &str) -> Vec<u8> {
    f.run(&["convert", "--force", disk, "now.raw", "--to", "raw"])
        .code(0);
    fs::read(f.path("now.raw")).unwrap()
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// Only the ranges that are lost differ, and they are zeros.
fn same_but(lost: &serde_json::Value, old: &[u8], new: &[u8]) -> usize {
    let mut expected = old.to_vec();
    let mut sum = 0;
    for range in lost.as_array().unwrap() {
        let at = range["offset"].as_u64().unwrap() as usize;
        let len = range["length"].as_u64().unwrap() as usize;
        expected[at..at + len].fill(0);
        sum += len;
    }
    assert!(new == expected, "more differs than is told");
    sum
}

#[test]
fn tables_that_are_damaged() {
    let f = Fixture::new();
    f.noise();
    f.run(&["convert", "disk.vmdk", "s.vmdk", "--to", "vmdk"])
        .code(0);
    let sound = fs::read(f.path("s.vmdk")).unwrap();
    // The directory is lost; its copy serves.
    let mut bytes = sound.clone();
    let gd = u64_at(&bytes, 56) * 512;
    bytes[gd..gd + 4].fill(0xff);
    fs::write(f.path("s.vmdk"), &bytes).unwrap();
    f.run(&["check", "s.vmdk"]).code(4);
    let said = f
        .run(&["check", "s.vmdk", "--repair", "m.vmdk", "--json"])
        .code(0)
        .json();
    assert_eq!(said["complete"], true);
    assert_eq!(raw_of(&f, "m.vmdk"), f.raw());
    f.run(&["check", "m.vmdk"]).code(0);
    assert_eq!(
        fs::read(f.path("s.vmdk")).unwrap(),
        bytes,
        "SOURCE is as it was"
    );
    // A grain that both tables say is behind the end is lost.
    let mut bytes = sound;
    for directory in [48, 56] {
        let gd = u64_at(&bytes, directory) * 512;
        let gt = u32::from_le_bytes(bytes[gd..gd + 4].try_into().unwrap()) as usize * 512;
        let entry = gt + 4 * (LEN / 65536 - 2);
        bytes[entry..entry + 4].fill(0xee);
    }
    fs::write(f.path("s.vmdk"), &bytes).unwrap();
    f.run(&["convert", "s.vmdk", "x.raw", "--to", "raw"])
        .code(1);
    f.run(&["check", "s.vmdk", "--repair", "m.vmdk"]).code(1);
    let said = f
        .run(&["check", "s.vmdk", "--repair", "m.vmdk", "--force", "--json"])
        .code(3)
        .json();
    let lost = same_but(&said["lost"], &f.raw(), &raw_of(&f, "m.vmdk"));
    assert_eq!(lost, 65536);
    let text = f.run(&["check", "s.vmdk", "--repair", "n.vmdk"]).code(3);
    assert!(text.text().contains("LOST: 64.0 KiB"), "{}", text.text());
    f.run(&["check", "s.vmdk", "--repair", "s.vmdk", "--force"])
        .code(1);
}

#[test]
fn a_stream_that_was_cut() {
    let f = Fixture::new();
    f.noise();
    let args = ["convert", "disk.vmdk", "s.vmdk", "--to", "vmdk"];
    let args = [
        &args[..],
        &[
            "--subformat",
            "streamOptimized",
            "--stream-layout",
            "footer",
        ],
    ]
    .concat();
    f.run(&args).code(0);
    let whole = fs::read(f.path("s.vmdk")).unwrap();
    // Everything but the tables; then in the middle of the noise.
    let tables = 3 << 20;
    for (cut, code) in [
        (whole.len() - 1536, 0),
        (whole.len() - tables / 2, 3),
        (whole.len() / 3, 3),
    ] {
        fs::write(f.path("s.vmdk"), &whole[..cut]).unwrap();
        f.run(&["info", "s.vmdk"]).code(1);
        let args = ["check", "s.vmdk", "--repair", "m.vmdk", "--force", "--json"];
        let said = f.run(&args).code(code).json();
        let lost = same_but(&said["lost"], &f.raw(), &raw_of(&f, "m.vmdk"));
        assert!(lost < LEN, "{said}");
        assert_eq!(said["result"], "sound");
        let cat = f.run(&["cat", "m.vmdk", "/a.txt"]).code(0);
        assert_eq!(cat.text(), "hello\n");
    }
    // Zeros where grains were, as a file system leaves them after a crash: no end mark, and not
    // what the disk has there.
    let mut bytes = whole[..whole.len() - 1536].to_vec();
    let at = bytes.len() - (1 << 20);
    bytes[at..].fill(0);
    fs::write(f.path("s.vmdk"), &bytes).unwrap();
    let args = ["check", "s.vmdk", "--repair", "m.vmdk", "--force", "--json"];
    let said = f.run(&args).code(3).json();
    let lost = same_but(&said["lost"], &f.raw(), &raw_of(&f, "m.vmdk"));
    assert!(lost > 500_000, "{said}");
    // A grain in the middle is damaged, and the end is gone.
    let mut bytes = whole[..whole.len() - 1536].to_vec();
    let middle = bytes.len() - (1 << 20);
    bytes[middle..middle + 200].fill(0x5a);
    fs::write(f.path("s.vmdk"), &bytes).unwrap();
    let said = f
        .run(&["check", "s.vmdk", "--repair", "m.vmdk", "--force", "--json"])
        .code(3)
        .json();
    same_but(&said["lost"], &f.raw(), &raw_of(&f, "m.vmdk"));
}

#[test]
fn a_delta_stays_one() {
    let f = Fixture::new();
    f.noise();
    let mut bytes = f.raw();
    bytes[6_000_000..6_300_000].fill(7);
    fs::write(f.path("other.raw"), &bytes).unwrap();
    f.run(&["create", "d.vmdk", "--child-of", "disk.vmdk"])
        .code(0);
    f.run(&[
        "rebase",
        "--force",
        "other.raw",
        "d.vmdk",
        "--onto",
        "disk.vmdk",
    ])
    .code(0);
    // The redundant directory of the delta is damaged.
    let mut delta = fs::read(f.path("d.vmdk")).unwrap();
    let rgd = u64_at(&delta, 48) * 512;
    delta[rgd..rgd + 4].fill(0xff);
    fs::write(f.path("d.vmdk"), &delta).unwrap();
    f.run(&["check", "d.vmdk"]).code(4);
    let said = f
        .run(&["check", "d.vmdk", "--repair", "m.vmdk", "--json"])
        .code(0)
        .json();
    assert_eq!(said["parent"], "disk.vmdk");
    assert!(fs::metadata(f.path("m.vmdk")).unwrap().len() < 1 << 20);
    assert_eq!(raw_of(&f, "m.vmdk"), bytes);
    f.run(&["check", "m.vmdk"]).code(0);
    // Which parent it has is never guessed.
    let text = fs::read_to_string(f.path("disk.vmdk")).unwrap();
    fs::write(f.path("disk.vmdk"), text.replace("12345678", "12345679")).unwrap();
    f.run(&["check", "d.vmdk", "--repair", "n.vmdk"]).code(1);
    let said = f
        .run(&[
            "check",
            "--ignore-cid",
            "d.vmdk",
            "--repair",
            "n.vmdk",
            "--json",
        ])
        .code(0)
        .json();
    assert_eq!(said["parent"], "disk.vmdk");
    f.run(&["check", "n.vmdk"]).code(0);
    assert_eq!(raw_of(&f, "n.vmdk"), bytes);
}

#[test]
fn other_formats() {
    let f = Fixture::new();
    f.noise();
    for format in ["qcow2", "vhd", "vhdx", "vdi"] {
        let name = format!("s.{format}");
        f.run(&["convert", "disk.vmdk", &name, "--to", format])
            .code(0);
        let out = format!("m.{format}");
        let said = f
            .run(&["check", &name, "--repair", &out, "--json"])
            .code(0)
            .json();
        assert_eq!(
            (&said["format"], &said["complete"]),
            (&format.into(), &true.into())
        );
        assert_eq!(raw_of(&f, &out), f.raw());
    }
    // Cut off: what is behind the end is lost, the rest is not.
    let bytes = fs::read(f.path("s.vdi")).unwrap();
    fs::write(f.path("s.vdi"), &bytes[..bytes.len() - (1 << 20)]).unwrap();
    let said = f
        .run(&["check", "s.vdi", "--repair", "m.vdi", "--force", "--json"])
        .code(3)
        .json();
    let lost = same_but(&said["lost"], &f.raw(), &raw_of(&f, "m.vdi"));
    assert_eq!(lost, 1 << 20);
}
