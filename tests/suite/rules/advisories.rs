//! Published vulnerabilities of programs that read virtual disks, and what reviews of such
//! programs found: the same input, and what comes of it here.

use super::{Place, planted};
use crate::hostile::{delta, descriptor, sparse};
use std::{fs, os::unix::fs::MetadataExt, os::unix::fs::symlink};
use tests::damages::guest::{SECTORS, guest};
use vmdk::write::{Cell, descriptor::Text, hosted, stream};

const CLUSTER: usize = 65_536;

/// An empty qcow2 image of `len` bytes, with a backing file or an external data file.
pub(super) fn qcow2(len: u64, backing: Option<&str>, data_file: Option<&str>) -> Vec<u8> {
    let version = if data_file.is_some() { 3 } else { 2u32 };
    let per_table = 8192 * CLUSTER as u64;
    let tables = len.div_ceil(per_table) as u32;
    let mut b = vec![0; 4 * CLUSTER];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        b[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"QFI\xfb");
    put(&version.to_be_bytes());
    put(&backing.map_or(0, |_| 512u64).to_be_bytes());
    put(&(backing.unwrap_or_default().len() as u32).to_be_bytes());
    put(&16u32.to_be_bytes());
    put(&len.to_be_bytes());
    put(&0u32.to_be_bytes());
    put(&tables.to_be_bytes());
    put(&(3 * CLUSTER as u64).to_be_bytes());
    put(&(CLUSTER as u64).to_be_bytes());
    put(&1u32.to_be_bytes());
    put(&[0; 12]); // no snapshots
    if let Some(name) = data_file {
        put(&4u64.to_be_bytes()); // incompatible: an external data file
        put(&0u64.to_be_bytes());
        put(&0u64.to_be_bytes());
        put(&4u32.to_be_bytes());
        put(&104u32.to_be_bytes());
        put(b"DATA");
        put(&(name.len() as u32).to_be_bytes());
        put(name.as_bytes());
    }
    b[512..][..backing.unwrap_or_default().len()]
        .copy_from_slice(backing.unwrap_or_default().as_bytes());
    // One block of reference counts, for these four clusters.
    b[CLUSTER..][..8].copy_from_slice(&(2 * CLUSTER as u64).to_be_bytes());
    for n in 0..4 {
        b[2 * CLUSTER + 2 * n + 1] = 1;
    }
    b
}

/// OpenStack's services let qemu-img follow the extent lines of an uploaded descriptor, and the
/// host's own files came back as a disk. Here a name that leads out of the image's directory is
/// refused unopened, whatever the line's type and the createType say.
#[test]
fn cve_2022_47951_an_extent_line_names_a_file_of_the_host() {
    let place = Place::new();
    let secret = place.secret();
    for (kind, create_type) in [
        ("FLAT", "monolithicFlat"),
        ("FLAT", "streamOptimized"),
        ("SPARSE", "monolithicSparse"),
        ("VMFS", "vmfs"),
    ] {
        let line = format!("RW 8 {kind} \"{secret}\"");
        let text = descriptor(&line).replace("\"custom\"", &format!("\"{create_type}\""));
        place.put("disk.vmdk", &text);
        place.refused("disk.vmdk", &["secret.bin", "--allow-dir"]);
    }
    for name in ["../secret.bin", "./x/../../secret.bin", "..\\secret.bin"] {
        place.put("disk.vmdk", descriptor(&format!("RW 8 FLAT \"{name}\" 0")));
        place.refused("disk.vmdk", &["secret.bin"]);
    }
    // The image itself is sound: who says that the place may be read gets the bytes.
    place.put(
        "disk.vmdk",
        descriptor(&format!("RW 8 FLAT \"{secret}\" 0")),
    );
    let top = place.top.path().display().to_string();
    let args = ["convert", "disk.vmdk", "out.raw", "--to", "raw"];
    place.done(&[&args[..], &["--allow-dir", &top]].concat());
    assert_eq!(place.get("out.raw"), fs::read(secret).unwrap());
    assert!(place.watch.was_opened(), "the watch does not see");
}

/// The same hole by the descriptor inside a sparse file, which a check for text files misses.
#[test]
fn cve_2022_47951_an_embedded_descriptor_names_a_file_of_the_host() {
    let place = Place::new();
    let secret = place.secret();
    let lines = format!("RW 2048 SPARSE \"disk.vmdk\"\nRW 8 FLAT \"{secret}\" 0");
    sparse(&place.path(""), |b| {
        b[512..20 * 512].fill(0);
        let text = descriptor(&lines);
        b[512..][..text.len()].copy_from_slice(text.as_bytes());
    });
    place.refused("disk.vmdk", &["secret.bin", "--allow-dir"]);
}

/// A qcow2 image may say that its data is in another file, and OpenStack's services read that
/// file. Here it is looked up as an extent is: never outside of the image's directory.
#[test]
fn cve_2024_32498_an_external_data_file_of_the_host() {
    let place = Place::new();
    for name in [place.secret().as_str(), "../secret.bin"] {
        place.put("disk.qcow2", qcow2(1 << 20, None, Some(name)));
        place.refused("disk.qcow2", &["secret.bin"]);
    }
}

/// The first mending looked at headers; a stream's descriptor, read after it, could still name
/// other files. Here the lines of a stream's descriptor pass the same gate.
#[test]
fn cve_2024_40767_a_stream_with_a_footer_names_another_extent() {
    let place = Place::new();
    for layout in [stream::Layout::Footer, stream::Layout::Header] {
        let text = Text {
            cid: 1,
            parent: None,
            create_type: "streamOptimized",
            extents: vec![
                "RW 128 SPARSE \"disk.vmdk\"".into(),
                format!("RW 8 FLAT \"{}\" 0", place.secret()),
            ],
        };
        let options = stream::Options {
            layout,
            version: 3,
            grain_size: 128,
            descriptor: text.encode(),
            pad_last: false,
            level: 1,
        };
        let grains = [(0, Cell::Data(vec![7; 65_536]))];
        place.put("disk.vmdk", stream::encode(&options, 128, &grains));
        place.refused("disk.vmdk", &["secret.bin", "--allow-dir"]);
    }
}

/// The same family: an image that is called raw and begins as a descriptor or a qcow2 header was
/// looked into all the same. Here `--format raw` gives the file's own bytes and follows nothing.
#[test]
fn cve_2024_40767_what_is_said_to_be_raw_is_not_looked_into() {
    let place = Place::new();
    let secret = place.secret();
    let mut text = descriptor(&format!("RW 8 FLAT \"{secret}\" 0")).into_bytes();
    text.resize(4096, b'\n');
    for bytes in [text, qcow2(1 << 20, Some(&secret), None)] {
        place.put("disk.raw", &bytes);
        place.done(&["info", "disk.raw", "--format", "raw"]);
        let args = ["convert", "disk.raw", "out.raw", "--to", "raw"];
        place.done(&[&args[..], &["--format", "raw", "--force"]].concat());
        assert!(place.get("out.raw") == bytes, "other bytes");
        assert!(!place.watch.was_opened());
    }
}

/// An imported image with a backing file made the image service hand out that file. Here a
/// backing file or parent outside of the image's directory is refused unopened.
#[test]
fn cve_2015_5163_a_backing_file_of_the_host() {
    let place = Place::new();
    for name in [place.secret().as_str(), "../secret.bin"] {
        place.put("disk.qcow2", qcow2(1 << 20, Some(name), None));
        place.refused("disk.qcow2", &["secret.bin"]);
        delta(&place.path(""), "disk.vmdk", name);
        place.refused("disk.vmdk", &["secret.bin"]);
    }
}

/// A guest wrote a qcow2 header to the first sectors of its raw disk, and the host's qemu-img,
/// told no format, followed it. Here what a descriptor calls flat is bytes, whatever they begin
/// with, and a lone raw file with such a header leads nowhere outside either.
#[test]
fn cve_2026_24708_a_guest_writes_an_image_header_on_its_raw_disk() {
    let place = Place::new();
    let secret = place.secret();
    let mut text = descriptor(&format!("RW 8 FLAT \"{secret}\" 0")).into_bytes();
    text.resize(262_144, b'\n');
    let mut header = vec![0; 262_144];
    header[..4].copy_from_slice(b"KDMV");
    for bytes in [qcow2(1 << 20, Some(&secret), None), text, header] {
        place.put("disk-flat.vmdk", &bytes);
        let line = format!("RW {} FLAT \"disk-flat.vmdk\" 0", bytes.len() / 512);
        for line in [line.clone(), line.replace("FLAT", "VMFS")] {
            place.put("disk.vmdk", descriptor(&line));
            place.copied("disk.vmdk", &bytes);
        }
        assert!(!place.watch.was_opened());
    }
    place.put("disk.raw", qcow2(1 << 20, Some(&secret), None));
    place.refused("disk.raw", &["secret.bin"]);
}

/// A compute service believed the backing file that a guest had written into its own image. Here
/// a name inside the directory is no way around either: a link there is not followed.
#[test]
fn cve_2011_3147_a_backing_file_behind_a_link() {
    let place = Place::new();
    symlink(place.secret(), place.path("base.img")).unwrap();
    symlink("..", place.path("up")).unwrap();
    for name in ["base.img", "up/secret.bin"] {
        place.put("disk.qcow2", qcow2(1 << 20, Some(name), None));
        place.refused("disk.qcow2", &["symbolic link"]);
    }
}

/// The virtual size of an upload was not looked at, and a few KiB filled the host's disk. Here
/// the size is told before anything is written, what no disk has is refused, and what is not
/// stored takes no room in a copy.
#[test]
fn cve_2013_2096_a_small_file_with_a_huge_virtual_size() {
    let place = Place::new();
    place.put("disk.qcow2", qcow2(1 << 40, None, None));
    let info = place.done(&["info", "--json", "disk.qcow2"]).out;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual_size"], 1u64 << 40);
    let args = ["convert", "disk.qcow2", "out.raw", "--to", "raw"];
    place.done(&[&args[..], &["--digest", "none"]].concat());
    let out = fs::metadata(place.path("out.raw")).unwrap();
    assert_eq!(out.len(), 1 << 40);
    assert!(out.blocks() * 512 < 1 << 20, "{} blocks", out.blocks());
    for sectors in [1u64 << 42, 1 << 54, 1 << 63, u64::MAX] {
        place.put("huge.vmdk", descriptor(&format!("RW {sectors} ZERO")));
        place.refused("huge.vmdk", &["huge.vmdk"]);
    }
}

/// A review of a hypervisor's new VMDK backend: it opened extents with an openat2 that was told
/// to resolve anything, so `..` and links led out. Here neither does, at any depth.
#[test]
fn cloud_hypervisor_8713_paths_that_resolve_out_of_the_directory() {
    let place = Place::new();
    fs::create_dir_all(place.path("a/b")).unwrap();
    symlink("../../../secret.bin", place.path("a/b/direct")).unwrap();
    symlink("../..", place.path("a/out")).unwrap();
    symlink("b", place.path("a/inside")).unwrap();
    place.put("a/b/own.bin", [7; 4096]);
    for name in [
        "a/b/direct",
        "a/out/secret.bin",
        "a/b/../../../secret.bin",
        "a/inside/own.bin",
        "/proc/self/cwd/../secret.bin",
        "/proc/self/root/etc/hostname",
    ] {
        place.put("disk.vmdk", descriptor(&format!("RW 8 FLAT \"{name}\" 0")));
        let base = name.rsplit('/').next().unwrap();
        place.refused("disk.vmdk", &[base]);
    }
    place.put("disk.vmdk", descriptor("RW 8 FLAT \"a/b/own.bin\" 0"));
    place.copied("disk.vmdk", &[7; 4096]);
}

/// The same review: a descriptor was read whole, however long. Here more text than any disk has
/// is refused before it is read, alone or embedded.
#[test]
fn cloud_hypervisor_8714_a_descriptor_without_bounds() {
    let place = Place::new();
    place.put("disk.vmdk", descriptor("RW 8 ZERO"));
    let file = fs::File::options()
        .write(true)
        .open(place.path("disk.vmdk"));
    file.unwrap().set_len(64 << 30).unwrap();
    place.refused("disk.vmdk", &["disk.vmdk", "descriptor", "at most"]);
    sparse(&place.path(""), |b| {
        b[36..44].copy_from_slice(&(1u64 << 32).to_le_bytes())
    });
    place.refused("disk.vmdk", &["disk.vmdk", "descriptor"]);
}

/// qemu once multiplied a header's grain size and table lengths without looking. Here each
/// product that would not fit is an error that names the field.
#[test]
fn qemu_059_sizes_in_a_header_that_overflow() {
    let place = Place::new();
    let fields: [(usize, &[u8], &str); 8] = [
        (20, &(1u64 << 55).to_le_bytes(), "grainSize"),
        (20, &(u64::MAX).to_le_bytes(), "grainSize"),
        (20, &0u64.to_le_bytes(), "grainSize"),
        (44, &u32::MAX.to_le_bytes(), "numGTEsPerGT"),
        (44, &(1u32 << 31).to_le_bytes(), "numGTEsPerGT"),
        (12, &(u64::MAX).to_le_bytes(), "capacity"),
        (12, &(1u64 << 55).to_le_bytes(), "capacity"),
        (36, &(u64::MAX).to_le_bytes(), "descriptor"),
    ];
    for (at, bytes, says) in fields {
        sparse(&place.path(""), |b| {
            b[at..at + bytes.len()].copy_from_slice(bytes)
        });
        place.refused("disk.vmdk", &["disk.vmdk", says]);
    }
}

/// qemu once read a sparse file that had lost its end as if the rest were zeros. Here grains that
/// are gone cannot be read, and those that are there can.
#[test]
fn qemu_059_a_sparse_file_that_is_cut_short() {
    let files = planted("VMDK: hosted sparse", "the file is cut short");
    let place = Place::of(&files);
    place.not_copied("d.vmdk", &["d.vmdk", "a place inside the file"]);
    assert_eq!(place.done(&["cat", "d.vmdk", "/p0/one.txt"]).out, "one");
    let last = place.run(&["cat", "d.vmdk", "/p0/sub/last.bin"]);
    assert!(last.code != Some(0), "{}", last.err);
    assert!(last.err.contains("d.vmdk"), "{}", last.err);
    assert!(!last.out.contains('\0'), "zeros in place of what is lost");
}

/// qemu once took extent lines apart without checking what it got. Here a line that cannot be
/// understood is an error with its number: to skip it would move everything behind it.
#[test]
fn qemu_059_extent_lines_that_are_malformed() {
    let place = Place::new();
    place.put("f.bin", [7; 8192]);
    for line in [
        "RW 8",
        "RW",
        "RW eight FLAT \"f.bin\" 0",
        "RW -8 FLAT \"f.bin\" 0",
        "RW 8 VMFS",
        "RW 8 VMFS f.bin\" 1",
        "RW 8 VMFS \"f.bin",
        "RW 8 FLAT \"f.bin\" -1",
        "RW 8 FLAT \"f.bin\"0",
        "RW 8 FLAT \"f\"bin\" 0",
        "WR 8 FLAT \"f.bin\" 0",
    ] {
        let lines = format!("RW 8 FLAT \"f.bin\" 8\n{line}");
        place.put("disk.vmdk", descriptor(&lines));
        place.refused("disk.vmdk", &["disk.vmdk", "line 9 of the descriptor"]);
    }
}

/// qemu once read on in the wrong place, or gave no error, where a read crossed the end of an
/// extent. Here bytes on both sides are right, and the first that is not there is the error.
#[test]
fn qemu_059_reads_across_the_end_of_an_extent() {
    let place = Place::new();
    let whole: Vec<u8> = (0..20 * 512u32).map(|n| ((n * 7) >> 3) as u8).collect();
    place.put("a.bin", &whole[..7 * 512]);
    place.put("b.bin", &whole[7 * 512..]);
    let lines = "RW 7 FLAT \"a.bin\" 0\nRW 13 FLAT \"b.bin\" 0";
    place.put("disk.vmdk", descriptor(lines));
    place.copied("disk.vmdk", &whole);
    // The first is one sector short: that sector is an error, and not the second's first.
    place.put("a.bin", &whole[..6 * 512]);
    place.not_copied("disk.vmdk", &["a.bin", "cut short"]);
    // The second says that it is longer than its file.
    place.put("a.bin", &whole[..7 * 512]);
    place.put("disk.vmdk", descriptor(&lines.replace("RW 13", "RW 14")));
    place.not_copied("disk.vmdk", &["b.bin", "cut short"]);
}

/// VirtualBox guards its own deletion of a disk against names in the descriptor that are not the
/// disk's. Here no verb removes or changes what a descriptor names, also where it fails.
#[test]
fn virtualbox_what_a_descriptor_names_is_not_deleted() {
    let place = Place::new();
    let victim = [9u8; 4096];
    place.put("letters.txt", victim);
    let line = "RW 8 FLAT \"letters.txt\" 0";
    let other = "RW 8 FLAT \"gone.bin\" 0";
    for lines in [line.to_owned(), format!("{line}\n{other}")] {
        place.put("disk.vmdk", descriptor(&lines));
        for args in [
            &[
                "convert",
                "disk.vmdk",
                "letters.txt",
                "--to",
                "raw",
                "--force",
            ][..],
            &[
                "convert",
                "disk.vmdk",
                "disk.vmdk",
                "--to",
                "vmdk",
                "--force",
            ],
            &["check", "disk.vmdk", "--repair", "letters.txt", "--force"],
            &["create", "letters.txt"],
        ] {
            let ran = place.run(args);
            assert!(
                !matches!(ran.code, Some(0 | 3)),
                "{args:?}: {}{}",
                ran.out,
                ran.err
            );
            assert!(place.get("letters.txt") == victim, "{args:?}");
            let text = String::from_utf8(place.get("disk.vmdk")).unwrap();
            assert!(text == descriptor(&lines), "{args:?}");
        }
    }
}

/// Talks about a hypervisor whose descriptors could include its own logs and devices as disks. A
/// device is refused here by what it is, also where its directory was allowed.
#[test]
fn ernw_a_line_names_a_device_or_a_log_of_the_host() {
    let place = Place::new();
    for (line, says) in [
        ("RW 8 VMFS \"/dev/zero\"", "/dev/zero"),
        ("RW 8 FLAT \"/dev/null\" 0", "/dev/null"),
        ("RW 8 VMFSRAW \"/vmfs/devices/disks/naa.6\"", "naa.6"),
        ("RW 8 VMFSRDM \"/dev/zero\"", "raw device mapping"),
        ("RW 8 VMFS \"/var/log/lastlog\"", "lastlog"),
        ("RW 8 FLAT \"\\\\.\\PhysicalDrive0\" 0", "PhysicalDrive0"),
    ] {
        place.put("disk.vmdk", descriptor(line));
        place.refused("disk.vmdk", &[says]);
    }
    place.put("disk.vmdk", descriptor("RW 8 FLAT \"/dev/zero\" 0"));
    let ran = place.run(&["info", "disk.vmdk", "--allow-dir", "/dev"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("device"), "{}", ran.err);
}

/// What a chain of sound images gives, so that the refusals above are not those of everything.
#[test]
fn what_is_sound_is_read_in_the_same_bounds() {
    let text = Text {
        cid: 1,
        parent: None,
        create_type: "monolithicSparse",
        extents: vec![format!("RW {SECTORS} SPARSE \"d.vmdk\"")],
    };
    let options = hosted::Options {
        descriptor: Some(text.encode()),
        ..hosted::Options::default()
    };
    let place = Place::new();
    let grains = tests::damages::guest::grains(65_536);
    place.put("d.vmdk", hosted::encode(&options, SECTORS, &grains));
    place.copied("d.vmdk", &guest().bytes);
    assert!(place.done(&["ls", "d.vmdk", "/p0"]).out.contains("BIG.BIN"));
    place.done(&["check", "d.vmdk"]);
}
