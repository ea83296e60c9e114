//! Rules 1 to 4: what is opened, what it is taken for, and how much of it is believed.

use super::{Place, advisories::qcow2};
use crate::hostile::{delta, descriptor, sparse, with_parent};
use std::{fs, os::unix::net::UnixListener, process::Command};
use vmdk::write::{cowd, sesparse};

/// A reader that opens what a name means to some system finds shares, drives, protocols and other
/// processes. Here a name is a path beneath the image's directory, or it is nothing.
#[test]
fn rule_01_names_that_mean_something_to_a_system() {
    let place = Place::new();
    let secret = place.secret();
    for name in [
        "C:\\windows\\secret.bin",
        "c:secret.bin",
        "\\\\server\\share\\secret.bin",
        "\\\\?\\C:\\secret.bin",
        "//server/share/secret.bin",
        "[datastore1] web/secret.bin",
        &format!("file:{secret}"),
        &format!("file://{secret}"),
        "nbd://127.0.0.1:1/secret.bin",
        "nbd:127.0.0.1:1:exportname=secret.bin",
        "http://127.0.0.1:1/secret.bin",
        "https://127.0.0.1:1/secret.bin",
        "ssh://127.0.0.1/secret.bin",
        "fat:../secret.bin",
        "json:{file.filename:../secret.bin}",
        "vsan://secret.bin",
        "~/secret.bin",
        "$(cat ../secret.bin)",
        "../secret.bin\\",
        "..",
        ".",
        "/",
        "...",
    ] {
        place.put("disk.vmdk", descriptor(&format!("RW 8 FLAT \"{name}\" 0")));
        let opened = place.run(&["convert", "disk.vmdk", "out.raw", "--to", "raw"]);
        assert_eq!(opened.code, Some(1), "{name}: {}", opened.err);
        delta(&place.path(""), "top.vmdk", name);
        let opened = place.run(&["convert", "top.vmdk", "out.raw", "--to", "raw"]);
        assert_eq!(opened.code, Some(1), "{name}: {}", opened.err);
        assert!(opened.err.contains("top.vmdk"), "{name}: {}", opened.err);
        assert!(!place.watch.was_opened(), "{name}");
        assert!(!place.path("out.raw").exists(), "{name}");
    }
}

/// A name with a NUL or a control character is two names to two readers. Here it is refused, and
/// what stands before the NUL is not opened.
#[test]
fn rule_01_names_with_control_characters() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    for bad in ["\u{1}", "\u{1b}[2J", "\u{7f}", "\r", "\u{9b}"] {
        let line = format!("RW 8 FLAT \"f.bin{bad}\" 0");
        place.put("disk.vmdk", descriptor(&line));
        place.refused("disk.vmdk", &["disk.vmdk"]);
    }
    // Text ends at a NUL: what follows is no descriptor, and no line is half a line.
    place.put(
        "disk.vmdk",
        descriptor("RW 8 FLAT \"f.bin\0/../../secret.bin\" 0"),
    );
    place.refused("disk.vmdk", &["disk.vmdk"]);
}

/// Opening a pipe waits for a writer, opening a device may do anything. Here only regular files
/// pass, found out without waiting, for extents, parents and backing files alike.
#[test]
fn rule_01_only_regular_files_are_opened() {
    let place = Place::new();
    let made = Command::new("mkfifo").arg(place.path("pipe")).status();
    assert!(made.unwrap().success());
    let _socket = UnixListener::bind(place.path("socket")).unwrap();
    fs::create_dir(place.path("sub")).unwrap();
    for name in ["pipe", "socket", "sub"] {
        place.put("disk.vmdk", descriptor(&format!("RW 8 FLAT \"{name}\" 0")));
        place.refused("disk.vmdk", &[name]);
        delta(&place.path(""), "disk.vmdk", name);
        place.refused("disk.vmdk", &[name]);
        place.put("disk.qcow2", qcow2(1 << 20, Some(name), None));
        place.refused("disk.qcow2", &[name]);
    }
    for name in ["/dev/zero", "/dev/stdin", "/proc/self/fd/0", "/dev/fd/0"] {
        place.put("disk.vmdk", descriptor(&format!("RW 8 FLAT \"{name}\" 0")));
        place.refused("disk.vmdk", &[name]);
    }
}

/// A reader that guesses falls back to raw, where everything is a disk. Here what is not known is
/// an error, and a format that was asked for is that one or an error.
#[test]
fn rule_02_a_format_is_never_guessed_to_be_raw() {
    let place = Place::new();
    for bytes in [
        &b""[..],
        b"\0",
        &[0; 512],
        &[0x5a; 65_536],
        b"KDMV",
        b"COWD",
        b"QFI\xfb",
        b"# Disk",
        b"version=1\n",
        b"%PDF-1.7\n",
        b"\x7fELF\x02\x01\x01",
    ] {
        place.put("disk.vmdk", bytes);
        place.refused("disk.vmdk", &["disk.vmdk"]);
    }
    place.put("disk.img", [0x5a; 65_536]);
    for format in ["vmdk", "qcow2", "vhd", "vhdx", "vdi"] {
        let args = ["convert", "disk.img", "out.raw", "--to", "raw", "--format"];
        let ran = place.run(&[&args[..], &[format]].concat());
        assert_eq!(ran.code, Some(1), "{format}: {}", ran.err);
        assert!(!place.path("out.raw").exists(), "{format}");
        assert!(ran.err.contains("disk.img"), "{format}: {}", ran.err);
    }
    // An image of another kind is not taken for the one that was asked for either.
    place.put("disk.img", qcow2(1 << 20, None, None));
    let ran = place.run(&["info", "disk.img", "--format", "vmdk"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
}

/// A createType or extent type that a reader does not know is not a flat one. Here each is named
/// in an error.
#[test]
fn rule_02_a_type_of_extent_that_is_not_known() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    for kind in [
        "FLATTER",
        "VMFSEAGER",
        "VSANSPARSE",
        "VMFSRDM",
        "FLAT2",
        "\"FLAT\"",
    ] {
        place.put("disk.vmdk", descriptor(&format!("RW 8 {kind} \"f.bin\" 0")));
        place.refused("disk.vmdk", &["disk.vmdk", kind.trim_matches('"')]);
    }
}

/// Counts in a header are believed, and memory is asked for before a byte was read. Here each
/// claim is held against the file or a limit first: all of this runs in 1 GiB of address space.
#[test]
fn rule_03_claims_are_bounded_before_memory_is_asked_for() {
    let place = Place::new();
    // A directory of 2^40 entries, in a file of 256 KiB.
    sparse(&place.path(""), |b| {
        b[12..20].copy_from_slice(&(1u64 << 40).to_le_bytes());
        b[20..28].copy_from_slice(&1u64.to_le_bytes());
        b[44..48].copy_from_slice(&1u32.to_le_bytes());
    });
    place.refused("disk.vmdk", &["disk.vmdk"]);
    // The same, as large as it may be, of a disk that may be so large.
    sparse(&place.path(""), |b| {
        b[12..20].copy_from_slice(&(1u64 << 41).to_le_bytes());
        let text = descriptor(&format!("RW {} SPARSE \"disk.vmdk\"", 1u64 << 41));
        b[512..20 * 512].fill(0);
        b[512..][..text.len()].copy_from_slice(text.as_bytes());
    });
    place.refused("disk.vmdk", &["disk.vmdk", "directory"]);
    let mut delta = cowd::encode(2048, 1, &[]);
    delta[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    delta[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    place.put("x-delta.vmdk", &delta);
    let line = format!("RW {} VMFSSPARSE \"x-delta.vmdk\"", u32::MAX);
    place.put("disk.vmdk", descriptor(&line));
    place.refused("disk.vmdk", &["x-delta.vmdk"]);
    let mut delta = sesparse::encode(8192, &[], false);
    delta[16..24].copy_from_slice(&(1u64 << 41).to_le_bytes());
    place.put("x-delta.vmdk", &delta);
    let line = format!("RW {} SESPARSE \"x-delta.vmdk\"", 1u64 << 41);
    place.put("disk.vmdk", descriptor(&line));
    place.refused("disk.vmdk", &["x-delta.vmdk"]);
    let mut image = qcow2(1 << 20, None, None);
    image[24..32].copy_from_slice(&(1u64 << 62).to_be_bytes());
    image[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    place.put("disk.qcow2", &image);
    place.refused("disk.qcow2", &["disk.qcow2"]);
}

/// A line may be long, and there may be many. Here a line of 15 MiB is read in the same bounds and
/// is not printed whole; more lines or extents than any disk has are refused.
#[test]
fn rule_03_lines_and_extents_without_end() {
    let place = Place::new();
    let long = "x".repeat(15 << 20);
    place.put("disk.vmdk", descriptor(&format!("RW 8 FLAT \"{long}\" 0")));
    let ran = place.run(&["info", "disk.vmdk"]);
    assert_eq!(ran.code, Some(1));
    for line in [&format!("RW 8 {long} \"f\" 0"), &format!("RW {long}")] {
        place.put("disk.vmdk", descriptor(line));
        let ran = place.run(&["info", "disk.vmdk"]);
        assert_eq!(ran.code, Some(1));
    }
    place.put("disk.vmdk", descriptor(&"RW 1 ZERO\n".repeat(65_537)));
    place.refused("disk.vmdk", &["disk.vmdk", "at most 65536 extents"]);
    place.put("disk.vmdk", descriptor(&"# \n".repeat(140_000)));
    place.refused("disk.vmdk", &["disk.vmdk", "at most", "lines"]);
}

/// A chain is followed for as long as it names a parent. Here one of more links than any host
/// makes is refused; the most that is allowed opens.
#[test]
fn rule_03_a_chain_of_too_many_links() {
    let place = Place::new();
    for n in 0..1100u32 {
        let parent = if n == 0 { u32::MAX } else { 0x1000 + n - 1 };
        let hint = format!("parentFileNameHint=\"{}.vmdk\"\n", n.saturating_sub(1));
        let hint = if n == 0 { "" } else { &hint };
        let line = format!("RW 8 SPARSE \"{n}-s.vmdk\"");
        let text = with_parent(&format!("{parent:08x}"), hint, &line);
        let cid = format!("CID={:08x}\n", 0x1000 + n);
        place.put(&format!("{n}.vmdk"), text.replace("CID=12345678\n", &cid));
        let empty = vmdk::write::hosted::Options {
            redundant: false,
            grain_size: 8,
            ..Default::default()
        };
        let bytes = vmdk::write::hosted::encode(&empty, 8, &[]);
        place.put(&format!("{n}-s.vmdk"), bytes);
    }
    place.copied("1000.vmdk", &[0; 4096]);
    let args = ["convert", "1099.vmdk", "out.raw", "--to", "raw"];
    let ran = place.run(&args);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("at most 1024 links"), "{}", ran.err);
    assert!(!place.path("out.raw").exists());
}

/// Sectors times 512, offset plus length and rounded divisions wrap around, and a small number
/// passes the check. Here each of them is checked, wherever a number comes from.
#[test]
fn rule_04_arithmetic_that_does_not_fit() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    let wraps = u64::MAX / 512 + 1; // times 512: 0
    for line in [
        format!("RW {} FLAT \"f.bin\" 0", wraps + 8),
        format!("RW 8 FLAT \"f.bin\" {wraps}"),
        format!("RW 8 FLAT \"f.bin\" {}", u64::MAX),
        format!("RW {} ZERO", u64::MAX),
        format!("RW {0} ZERO\nRW {0} ZERO\nRW 8 FLAT \"f.bin\" 0", wraps / 2),
        "RW 18446744073709551616 FLAT \"f.bin\" 0".into(),
        "RW 18446744073709551624 FLAT \"f.bin\" 0".into(),
    ] {
        place.put("disk.vmdk", descriptor(&line));
        place.refused("disk.vmdk", &["disk.vmdk"]);
    }
    // Offset plus length fits into a number, and is far behind the file.
    let line = format!("RW 8 FLAT \"f.bin\" {}", (1u64 << 54) - 8);
    place.put("disk.vmdk", descriptor(&line));
    place.not_copied("disk.vmdk", &["f.bin"]);
    // Fields that are divided by.
    for (at, bytes) in [
        (20, &[0u8; 8][..]),
        (44, &[0; 4]),
        (20, &100u64.to_le_bytes()),
        (20, &129u64.to_le_bytes()),
        (44, &511u32.to_le_bytes()),
        (48, &u64::MAX.to_le_bytes()),
        (28, &u64::MAX.to_le_bytes()),
        (28, &(u64::MAX / 512).to_le_bytes()),
    ] {
        sparse(&place.path(""), |b| {
            b[at..at + bytes.len()].copy_from_slice(bytes);
            if at == 48 {
                b[56..64].copy_from_slice(&(u64::MAX / 512 - 1).to_le_bytes());
            }
        });
        place.refused("disk.vmdk", &["disk.vmdk"]);
    }
    let mut delta = cowd::encode(2048, 1, &[]);
    delta[16..20].fill(0);
    place.put("x-delta.vmdk", &delta);
    place.put(
        "disk.vmdk",
        descriptor("RW 2048 VMFSSPARSE \"x-delta.vmdk\""),
    );
    place.refused("disk.vmdk", &["x-delta.vmdk"]);
}
