//! Rules 11, 12 and 14: what is written, what holds the readers, what is printed.

use super::{Place, planted};
use crate::hostile::{delta, descriptor};
use std::{fs, process::Command};
use tests::{mount::Mount, tools};
use vmdk::write::{
    Cell,
    descriptor::{Text, extent},
    hosted,
};

const GRAIN: usize = 65_536;

/// Output that is written in place looks finished when it is not. Here it has its name when it is
/// complete: a copy that fails leaves what was there before, or nothing.
#[test]
fn rule_11_a_copy_that_fails_leaves_what_was_there() {
    for (group, name) in [
        ("VMDK: hosted sparse", "the file is cut short"),
        ("VMDK: streamOptimized", "a byte of a compressed grain"),
    ] {
        let place = Place::of(&planted(group, name));
        place.put("out.raw", "what was there before");
        let before = place.names();
        for to in ["raw", "vmdk", "qcow2", "vhd", "vhdx", "vdi"] {
            let args = ["convert", "d.vmdk", "out.raw", "--force", "--to", to];
            let ran = place.run(&args);
            assert_eq!(ran.code, Some(1), "{to}: {}", ran.err);
            assert_eq!(place.get("out.raw"), b"what was there before", "{to}");
            assert_eq!(place.names(), before, "{to}");
        }
        let ran = place.run(&["convert", "d.vmdk", "out.raw", "--to", "raw"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains("out.raw"), "not for the name: {}", ran.err);
    }
}

/// A base that is written to takes the ground from under its other children. Here a commit into
/// one that has others is refused, and nothing of it changes.
#[test]
fn rule_11_a_base_with_other_children_is_not_written_to() {
    let place = Place::new();
    place.put("base-flat.vmdk", vec![3; 2 * GRAIN]);
    let sparse = |name: &str, cell: u64| {
        let text = Text {
            cid: 2 + cell as u32,
            parent: Some((1, "base.vmdk")),
            create_type: "monolithicSparse",
            extents: vec![extent(256, "SPARSE", name)],
        };
        let options = hosted::Options {
            descriptor: Some(text.encode()),
            ..hosted::Options::default()
        };
        let cells = [(cell, Cell::Data(vec![5; GRAIN]))];
        place.put(name, hosted::encode(&options, 256, &cells));
    };
    let base = Text {
        cid: 1,
        parent: None,
        create_type: "monolithicFlat",
        extents: vec![extent(256, "FLAT", "base-flat.vmdk")],
    };
    place.put("base.vmdk", base.encode());
    sparse("one.vmdk", 0);
    sparse("two.vmdk", 1);
    let before = ["base.vmdk", "base-flat.vmdk", "one.vmdk", "two.vmdk"].map(|n| place.get(n));
    let ran = place.run(&["commit", "one.vmdk", "--in-place"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("two.vmdk"), "{}", ran.err);
    let after = ["base.vmdk", "base-flat.vmdk", "one.vmdk", "two.vmdk"].map(|n| place.get(n));
    assert!(after == before, "something was written");
    // The same without the other child is done.
    fs::remove_file(place.path("two.vmdk")).unwrap();
    place.done(&["commit", "one.vmdk", "--in-place"]);
    place.copied("base.vmdk", &[vec![5; GRAIN], vec![3; GRAIN]].concat());
}

/// What reads hostile bytes in another language reads past their end. Here no crate may hold
/// `unsafe`, and every format has a fuzz target.
#[test]
fn rule_12_no_unsafe_and_a_fuzz_target_for_every_parser() {
    let read = |name: &str| fs::read_to_string(tools::project().join(name)).unwrap();
    let workspace = read("Cargo.toml");
    assert!(workspace.contains("unsafe_code = \"forbid\""));
    for name in [
        "disk-io",
        "vmdk",
        "vmfs-reader",
        "disk-image",
        "guest-fs",
        "inventory",
        "convert",
        "proxy",
        "verify",
        "cli",
    ] {
        let manifest = read(&format!("{name}/Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name}");
    }
    let targets = read("fuzz/src/lib.rs");
    for name in [
        "descriptor",
        "hosted",
        "stream",
        "salvage",
        "cowd",
        "sesparse",
        "vmsd",
        "vmx",
        "ovf",
        "ova",
        "qcow2",
        "vhd",
        "vhdx",
        "vdi",
        "any",
        "partitions",
        "ntfs",
        "fat",
        "vmfs",
    ] {
        assert!(targets.contains(&format!("\"{name}\"")), "no target {name}");
    }
}

/// A server of a mount that ends in the middle of a read hangs whoever reads. Here a damaged place
/// is EIO for that place, and the mount serves on.
#[test]
fn rule_12_a_damaged_place_in_a_mount_is_an_error_and_no_end() {
    if !tools::have_fuse() {
        return;
    }
    let place = Place::of(&planted(
        "VMDK: hosted sparse",
        "a grain behind the end of the file",
    ));
    let at = place.top.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let mut command = Command::new(tools::vmdkit().unwrap());
    command
        .args(["mount", "--foreground"])
        .arg(place.path("d.vmdk"))
        .arg(&at);
    let mounted = Mount::start(command, &at).unwrap();
    for _ in 0..3 {
        let failed = fs::read(at.join("p0/BIG.BIN")).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(5), "{failed}");
        assert_eq!(fs::read(at.join("p0/one.txt")).unwrap(), b"one");
    }
    assert_eq!(
        fs::read(at.join("p0/sub/last.bin")).unwrap(),
        vec![0x1a; 300_000]
    );
    mounted.unmount().unwrap();
}

/// Text of an image that reaches the terminal can move the cursor, set titles and hide what is
/// said. Here control characters are shown and not sent, in output and in errors.
#[test]
fn rule_14_control_characters_are_not_printed() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{8}\u{9b}31m\u{202e}";
    let plain = |what: &str, text: &str| {
        let bad = text
            .chars()
            .find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert!(bad.is_none(), "{what}: {bad:?} in {text:?}");
    };
    let text = descriptor("RW 8 FLAT \"f.bin\" 0");
    for text in [
        text.replace("custom", evil),
        text.replace("\"ide\"", &format!("\"{evil}\"")),
        text.replace("#DDB", &format!("{evil}\nddb.{evil} = \"x\"\n")),
        text.replace("FLAT", evil),
        text.replace("f.bin", evil),
        text.replace("RW", evil),
        text.replace("ffffffff", evil),
        text.replace("RW 8", &format!("parentFileNameHint=\"{evil}\"\nRW 8")),
        text.replace(
            "ffffffff\n",
            &format!("00000001\nparentFileNameHint=\"{evil}\"\n"),
        )
        .replace("FLAT", "SPARSE"),
    ] {
        place.put("disk.vmdk", &text);
        for verb in [
            "info",
            "check",
            "map",
            "ls",
            "info --json",
            "check --json",
            "map --json",
        ] {
            let mut args: Vec<&str> = verb.split(' ').collect();
            args.push("disk.vmdk");
            let ran = place.run(&args);
            plain("output", &ran.out);
            plain("error", &ran.err);
        }
    }
    delta(&place.path(""), "disk.vmdk", evil);
    let ran = place.run(&["info", "disk.vmdk"]);
    assert_eq!(ran.code, Some(1));
    plain("error", &ran.err);
}

/// A byte that is no UTF-8 breaks what reads the output. Here JSON is JSON, whatever a descriptor
/// holds, and its strings have what can be told.
#[test]
fn rule_14_json_survives_bytes_that_are_no_text() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    let mut text = descriptor("RW 8 FLAT \"f.bin\" 0").into_bytes();
    text.extend(b"ddb.comment = \"\xff\xfe\xc3\x28\xed\xa0\x80 \\ \x1b\x01\"\n\xf0\x28\x8c\x28\n");
    let at = text.windows(6).position(|w| w == b"custom").unwrap();
    text[at..at + 6].copy_from_slice(b"\xff\"\\\xc0\x80\x01");
    place.put("disk.vmdk", &text);
    for args in [
        &["info", "--json", "disk.vmdk"][..],
        &["check", "--json", "disk.vmdk"],
        &["map", "--json", "disk.vmdk"],
        &["convert", "--json", "disk.vmdk", "out.raw", "--to", "raw"],
    ] {
        // Bytes, since a lossy reading would mend what is asked for.
        let mut command = Command::new(tools::vmdkit().unwrap());
        let out = command
            .args(args)
            .current_dir(place.path(""))
            .output()
            .unwrap();
        assert!(
            matches!(out.status.code(), Some(0 | 4)),
            "{args:?}: {out:?}"
        );
        let text = String::from_utf8(out.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        for line in text.lines().filter(|_| args[0] == "map") {
            let found: Result<serde_json::Value, _> = serde_json::from_str(line);
            let whole: Result<serde_json::Value, _> = serde_json::from_str(&text);
            assert!(found.is_ok() || whole.is_ok(), "{args:?}: {line}");
        }
        if args[0] != "map" {
            let found: Result<serde_json::Value, _> = serde_json::from_str(&text);
            assert!(found.is_ok(), "{args:?}: {text}");
        }
    }
    assert!(place.get("out.raw") == [7; 4096]);
}
