//! Rules 10 to 12 and 14: packages, what is written, what holds the readers, what is printed.

use super::{Place, planted};
use crate::hostile::{delta, descriptor};
use std::{fs, os::unix::fs::symlink, process::Command};
use tar::{EntryType, Header};
use tests::{guest::sha256, mount::Mount, tools};
use vmdk::write::{
    Cell,
    descriptor::{Text, extent},
    hosted, stream,
};

const GRAIN: usize = 65_536;

/// One disk of a grain.
fn disk(byte: u8) -> Vec<u8> {
    let text = Text {
        cid: 1,
        parent: None,
        create_type: "streamOptimized",
        extents: vec![extent(128, "SPARSE", "d.vmdk")],
    };
    let options = stream::Options {
        layout: stream::Layout::Footer,
        version: 3,
        grain_size: 128,
        descriptor: text.encode(),
        pad_last: false,
        level: 1,
    };
    stream::encode(&options, 128, &[(0, Cell::Data(vec![byte; GRAIN]))])
}

fn ovf(prologue: &str, href: &str) -> Vec<u8> {
    let format = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
    format!(
        "<?xml version=\"1.0\"?>\n{prologue}<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"><References><File ovf:id=\"f\" \
         ovf:href=\"{href}\"/></References><DiskSection><Info/><Disk ovf:diskId=\"d\" \
         ovf:fileRef=\"f\" ovf:format=\"{format}\" ovf:capacity=\"{GRAIN}\"/></DiskSection></Envelope>\n"
    )
    .into_bytes()
}

/// A member: its name as it is, its kind, where a link leads, its bytes.
type Member<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

fn file<'a>(name: &'a str, bytes: &'a [u8]) -> Member<'a> {
    (name, EntryType::Regular, "", bytes)
}

fn pack(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, link, bytes) in members {
        let mut head = Header::new_ustar();
        let raw = head.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        head.set_entry_type(*kind);
        head.set_size(bytes.len() as u64);
        head.set_mode(0o644);
        head.set_cksum();
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A package's descriptor names files as a disk's does: of the host, behind links, on the net.
/// Here a name is that of a regular member, or of a file beneath the descriptor's directory.
#[test]
fn rule_10_a_package_names_files_outside_of_it() {
    let place = Place::new();
    let d = disk(7);
    place.put(
        "web.ova",
        pack(&[file("web.ovf", &ovf("", "d.vmdk")), file("d.vmdk", &d)]),
    );
    place.copied("web.ova", &[7; GRAIN]);
    let secret = place.secret();
    symlink(&secret, place.path("link.vmdk")).unwrap();
    for href in [
        secret.as_str(),
        "../secret.bin",
        "link.vmdk",
        "http://127.0.0.1:1/d.vmdk",
        "https://127.0.0.1:1/d.vmdk",
        &format!("file://{secret}"),
    ] {
        let text = ovf("", href);
        place.put(
            "web.ova",
            pack(&[file("web.ovf", &text), file("d.vmdk", &d)]),
        );
        place.refused("web.ova", &["web.ova"]);
        place.put("web.ovf", &text);
        let last = href.rsplit('/').next().unwrap();
        place.refused("web.ovf", &[last]);
    }
}

/// An archive's links and devices are made when it is unpacked, and lead out when they are read.
/// Here nothing is unpacked, and a member that is no file is refused by what it is.
#[test]
fn rule_10_members_that_are_not_files() {
    let place = Place::new();
    let (text, secret) = (ovf("", "d.vmdk"), place.secret());
    for (kind, says) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::Directory, "a directory"),
    ] {
        let member = ("d.vmdk", kind, secret.as_str(), &b""[..]);
        place.put("web.ova", pack(&[file("web.ovf", &text), member]));
        place.refused("web.ova", &["d.vmdk", says]);
    }
    assert_eq!(place.names(), ["web.ova"], "something was unpacked");
}

/// Of two members of one name one reader takes the first and another the last: what was looked at
/// is not what is used. Here such an archive is refused.
#[test]
fn rule_10_two_members_of_one_name() {
    let place = Place::new();
    let (text, good, bad) = (ovf("", "d.vmdk"), disk(7), disk(8));
    for members in [
        [
            file("web.ovf", &text),
            file("d.vmdk", &good),
            file("d.vmdk", &bad),
        ],
        [
            file("web.ovf", &text),
            file("d.vmdk", &good),
            file("./d.vmdk", &bad),
        ],
        [
            file("web.ovf", &text),
            file("web.ovf", &text),
            file("d.vmdk", &bad),
        ],
    ] {
        place.put("web.ova", pack(&members));
        place.refused("web.ova", &["web.ova", "two that are called"]);
    }
}

/// A descriptor with a document type can read files, call servers and grow without end while it is
/// parsed. Here it has none.
#[test]
fn rule_10_entities_of_a_descriptor() {
    let place = Place::new();
    let secret = place.secret();
    let mut bomb = String::from("<!DOCTYPE e [<!ENTITY a0 \"ha\">");
    for n in 1..40 {
        bomb += &format!("<!ENTITY a{n} \"&a{0};&a{0};\">", n - 1);
    }
    bomb += "]>\n";
    let read = format!("<!DOCTYPE e [<!ENTITY x SYSTEM \"file://{secret}\">]>\n");
    let net = "<!DOCTYPE e SYSTEM \"http://127.0.0.1:1/x.dtd\">\n";
    let d = disk(7);
    for (prologue, href) in [(bomb.as_str(), "&a39;"), (&read, "&x;"), (net, "d.vmdk")] {
        let text = ovf(prologue, href);
        place.put(
            "web.ova",
            pack(&[file("web.ovf", &text), file("d.vmdk", &d)]),
        );
        place.refused("web.ova", &["web.ovf"]);
    }
    // Without a document type an entity is not known.
    let text = ovf("", "&x;");
    place.put(
        "web.ova",
        pack(&[file("web.ovf", &text), file("d.vmdk", &d)]),
    );
    place.refused("web.ova", &["web.ova"]);
}

/// Sizes in an archive are believed, and a member is longer than its archive. Here each is held
/// against the file.
#[test]
fn rule_10_sizes_that_are_not_there() {
    let place = Place::new();
    let d = disk(7);
    let sound = pack(&[file("web.ovf", &ovf("", "d.vmdk")), file("d.vmdk", &d)]);
    let header = (0..sound.len() / 512).find(|n| sound[n * 512..].starts_with(b"d.vmdk\0"));
    let header = header.unwrap() * 512;
    for size in [u64::MAX, 1 << 62, 1 << 40, sound.len() as u64] {
        let mut bytes = sound.clone();
        let mut head = Header::new_ustar();
        head.as_old_mut().name[..6].copy_from_slice(b"d.vmdk");
        head.set_entry_type(EntryType::Regular);
        head.set_size(size);
        head.set_cksum();
        bytes[header..header + 512].copy_from_slice(head.as_bytes());
        place.put("web.ova", &bytes);
        place.refused("web.ova", &["web.ova"]);
    }
    let mut bytes = sound;
    bytes[header + 1] ^= 1;
    place.put("web.ova", &bytes);
    place.refused("web.ova", &["web.ova"]);
}

/// A manifest that nobody compares protects nothing. Here a disk that is not what the manifest
/// says is not copied, `check` names it, and to go on has to be asked for.
#[test]
fn rule_10_a_disk_that_is_not_what_the_manifest_says() {
    let place = Place::new();
    let (text, good, bad) = (ovf("", "d.vmdk"), disk(7), disk(8));
    let lines = |d: &[u8]| {
        format!(
            "SHA256(web.ovf)= {}\nSHA256(d.vmdk)= {}\n",
            sha256(&text),
            sha256(d)
        )
    };
    let manifest = lines(&good);
    let package = |d: &[u8]| {
        let manifest = file("web.mf", manifest.as_bytes());
        pack(&[file("web.ovf", &text), manifest, file("d.vmdk", d)])
    };
    place.put("web.ova", package(&good));
    place.copied("web.ova", &[7; GRAIN]);
    place.put("web.ova", package(&bad));
    place.not_copied("web.ova", &["d.vmdk", &sha256(&bad), &sha256(&good)]);
    let check = place.run(&["check", "web.ova", "--json"]);
    assert_eq!(check.code, Some(4));
    assert!(check.out.contains("digest-differs"), "{}", check.out);
    let args = ["convert", "web.ova", "out.raw", "--to", "raw"];
    place.done(&[&args[..], &["--ignore-manifest"]].concat());
    assert!(place.get("out.raw") == [8; GRAIN]);
}

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
