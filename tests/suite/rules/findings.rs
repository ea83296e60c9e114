//! What current tools were seen to do with images that are odd, damaged or made by others:
//! wrong bytes, hangs and silence. Each is met here by the right bytes or by an error.

use super::{Place, planted};
use crate::hostile::{delta, descriptor, sparse, with_parent};
use tests::damages::{
    Bytes, Files,
    guest::{self, SECTORS, guest},
};
use vmdk::write::{
    Cell, cowd,
    descriptor::{Text, extent},
    hosted, sesparse, stream,
};

const GRAIN: usize = 65_536;

fn text(create_type: &str, lines: Vec<String>, parent: Option<(u32, &str)>) -> String {
    Text {
        cid: 0x1234_5678,
        parent,
        create_type,
        extents: lines,
    }
    .encode()
}

/// A monolithicSparse disk.
fn monolithic(sectors: u64, grains: &[(u64, Cell)], zeroed_grains: bool) -> Vec<u8> {
    let line = vec![extent(sectors, "SPARSE", "disk.vmdk")];
    let options = hosted::Options {
        redundant: false,
        zeroed_grains,
        descriptor: Some(text("monolithicSparse", line, None)),
        ..hosted::Options::default()
    };
    hosted::encode(&options, sectors, grains)
}

/// A stream.
fn streamed(
    layout: stream::Layout,
    sectors: u64,
    grains: &[(u64, Cell)],
    pad_last: bool,
) -> Vec<u8> {
    let line = vec![extent(sectors, "SPARSE", "disk.vmdk")];
    let options = stream::Options {
        layout,
        version: 3,
        grain_size: 128,
        descriptor: text("streamOptimized", line, None),
        pad_last,
        level: 1,
    };
    stream::encode(&options, sectors, grains)
}

/// Where the only table of a monolithic disk begins.
fn table(bytes: &[u8]) -> usize {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    number(number(56) as usize * 512) as usize * 512
}

/// qemu-img drops lines that are not `RW`, and ends by an assertion where none is left. Here
/// RDONLY and small letters are read, and NOACCESS takes its room and cannot be read.
#[test]
fn qemu_img_lines_that_are_not_rw_are_dropped() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    for line in ["RDONLY 8 FLAT \"f.bin\" 0", "rw 8 flat \"f.bin\" 0"] {
        place.put("disk.vmdk", descriptor(line));
        place.copied("disk.vmdk", &[7; 4096]);
    }
    for lines in [
        "NOACCESS 8 FLAT \"f.bin\" 0",
        "RW 8 FLAT \"f.bin\" 0\nNOACCESS 8 ZERO",
        "NOACCESS 8 FLAT \"../secret.bin\" 0\nRW 8 FLAT \"f.bin\" 0",
    ] {
        place.put("disk.vmdk", descriptor(lines));
        place.done(&["info", "disk.vmdk"]);
        place.not_copied("disk.vmdk", &["disk.vmdk", "NOACCESS"]);
    }
}

/// qemu-img never ends on a disk that names itself as its parent. Here the chain is refused.
#[test]
fn qemu_img_a_disk_that_is_its_own_parent() {
    let place = Place::new();
    for name in ["disk.vmdk", "./disk.vmdk", "sub\\..\\disk.vmdk"] {
        delta(&place.path(""), "disk.vmdk", name);
        place.refused("disk.vmdk", &["disk.vmdk"]);
    }
    delta(&place.path(""), "disk.vmdk", "disk.vmdk");
    place.refused("disk.vmdk", &["above it in the chain"]);
}

/// qemu-img puts any file of the host into the disk that an absolute name leads to. Here no name
/// does, and a file of that base name beside the descriptor is used with a word.
#[test]
fn qemu_img_an_absolute_name_opens_any_file() {
    let place = Place::new();
    place.put("disk.vmdk", descriptor("RW 1 FLAT \"/etc/hostname\" 0"));
    place.refused("disk.vmdk", &["/etc/hostname", "--allow-dir"]);
    place.put("hostname", [7; 512]);
    place.copied("disk.vmdk", &[7; 512]);
    let ran = place.done(&["info", "disk.vmdk"]);
    assert!(ran.err.contains("beside it is used"), "{}", ran.err);
}

/// qemu-img reads zeros where a table leads behind the end of the file. Here the grain cannot be
/// read, the place is named, and files elsewhere are whole.
#[test]
fn qemu_img_a_table_that_leads_behind_the_file_reads_as_zeros() {
    for group in ["VMDK: hosted sparse", "VMDK: COWD", "VMDK: seSparse"] {
        let place = Place::of(&planted(group, "a grain behind the end of the file"));
        place.not_copied("d.vmdk", &["inside the file", "finding grain"]);
        assert_eq!(place.done(&["cat", "d.vmdk", "/p0/one.txt"]).out, "one");
    }
}

/// qemu-img gives the first sectors of the file itself, or zeros, for a table entry of 1 that the
/// header does not allow. Here that is an error.
#[test]
fn qemu_img_an_entry_of_1_without_its_flag() {
    let place = Place::new();
    let mut bytes = monolithic(
        256,
        &[(0, Cell::Data(vec![7; GRAIN])), (1, Cell::Zero)],
        true,
    );
    let mut whole = vec![7; GRAIN];
    whole.resize(2 * GRAIN, 0);
    place.put("disk.vmdk", &bytes);
    place.copied("disk.vmdk", &whole);
    bytes[8] &= !4;
    place.put("disk.vmdk", &bytes);
    place.not_copied("disk.vmdk", &["disk.vmdk", "grain 1", "entry 1"]);
}

/// libvmdk takes a table entry of 1 for a place, and the descriptor becomes the guest's data.
/// Here the flag makes it zeros, and nothing else makes it anything.
#[test]
fn libvmdk_an_entry_of_1_gives_the_descriptor() {
    let place = Place::new();
    let mut bytes = monolithic(128, &[(0, Cell::Data(vec![7; GRAIN]))], true);
    let table = table(&bytes);
    bytes[table..table + 4].copy_from_slice(&1u32.to_le_bytes());
    place.put("disk.vmdk", &bytes);
    place.copied("disk.vmdk", &vec![0; GRAIN]);
    bytes[8] &= !4;
    place.put("disk.vmdk", &bytes);
    place.not_copied("disk.vmdk", &["disk.vmdk", "entry 1"]);
    let piped = place.run(&["convert", "disk.vmdk", "-", "--to", "raw"]);
    assert_eq!(piped.code, Some(1));
    assert!(!piped.out.contains("createType"), "the descriptor leaked");
}

/// qemu-img copies a descriptor with an unusual first line as a raw disk of text. Here text that
/// is not known is no disk, and a descriptor without the customary comment is one.
#[test]
fn qemu_img_a_descriptor_with_another_first_line_becomes_a_raw_disk() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    let text = descriptor("RW 8 FLAT \"f.bin\" 0");
    for first in ["; made by hand\n", "hello\n", "<!-- -->\n"] {
        place.put("disk.vmdk", format!("{first}{text}"));
        place.refused("disk.vmdk", &["disk.vmdk", "found nothing known"]);
    }
    for other in [
        text.replace("# Disk DescriptorFile\n", ""),
        text.replace("# Disk DescriptorFile", "#disk descriptorfile"),
        text.replace('\n', "\r\n"),
    ] {
        place.put("disk.vmdk", other);
        place.copied("disk.vmdk", &[7; 4096]);
    }
}

/// qemu-img finds out that a parent was changed when a read first reaches it, with most of the
/// copy written. Here content ids are compared before the first byte is given out.
#[test]
fn qemu_img_a_changed_parent_is_noticed_after_most_was_written() {
    let files = planted(
        "VMDK: descriptors, flat extents, chains",
        "a parent that was changed",
    );
    let place = Place::of(&files);
    place.refused(
        "d2.vmdk",
        &["content id 00000002", "00000009 in", "--ignore-cid"],
    );
    let args = [
        "convert",
        "d2.vmdk",
        "out.raw",
        "--to",
        "raw",
        "--ignore-cid",
    ];
    let ran = place.done(&args);
    assert!(ran.err.contains("IGNORED"), "{}", ran.err);
}

/// qemu-img's own commit leaves the overlay with a parent of another content id, which no other
/// tool then reads. Here what `commit` writes opens with nothing ignored.
#[test]
fn qemu_img_a_commit_leaves_what_cannot_be_opened() {
    let place = Place::new();
    let base = vec![3u8; 2 * GRAIN];
    place.put("base-flat.vmdk", &base);
    let line = vec![extent(256, "FLAT", "base-flat.vmdk")];
    place.put("base.vmdk", text("monolithicFlat", line, None));
    let line = vec![extent(256, "SPARSE", "top.vmdk")];
    let options = hosted::Options {
        descriptor: Some(text(
            "monolithicSparse",
            line,
            Some((0x1234_5678, "base.vmdk")),
        )),
        ..hosted::Options::default()
    };
    let top = hosted::encode(&options, 256, &[(1, Cell::Data(vec![5; GRAIN]))]);
    place.put("top.vmdk", top);
    let whole = [vec![3; GRAIN], vec![5; GRAIN]].concat();
    place.copied("top.vmdk", &whole);
    place.done(&["commit", "top.vmdk", "merged.vmdk"]);
    place.copied("merged.vmdk", &whole);
    place.copied("top.vmdk", &whole);
    assert!(place.get("base-flat.vmdk") == base, "the base was changed");
}

/// open-vmdk never ends on a disk whose last grain is cut by the disk's end and is stored. Here
/// its bytes come, and none behind the end.
#[test]
fn open_vmdk_a_last_grain_that_is_cut_by_the_end() {
    let place = Place::new();
    let sectors = 128 + 5;
    let whole: Vec<u8> = (0..sectors as usize * 512)
        .map(|n| (n >> 9) as u8 | 1)
        .collect();
    let last = |padded: usize| {
        let mut last = whole[GRAIN..].to_vec();
        last.resize(padded, 0xee);
        vec![
            (0, Cell::Data(whole[..GRAIN].to_vec())),
            (1, Cell::Data(last)),
        ]
    };
    let (cut, padded) = (last(5 * 512), last(GRAIN));
    place.put("disk.vmdk", monolithic(sectors, &padded, false));
    place.copied("disk.vmdk", &whole);
    for layout in [stream::Layout::Footer, stream::Layout::Header] {
        for pad_last in [false, true] {
            place.put("disk.vmdk", streamed(layout, sectors, &cut, pad_last));
            place.copied("disk.vmdk", &whole);
        }
    }
    place.done(&["convert", "disk.vmdk", "again.vmdk", "--to", "vmdk"]);
    place.copied("again.vmdk", &whole);
}

/// open-vmdk takes what a delta does not hold for zeros, without a look for its parent. Here a
/// delta without its parent is refused, with the names that were tried.
#[test]
fn open_vmdk_a_delta_without_its_parent_reads_as_zeros() {
    let place = Place::new();
    delta(&place.path(""), "disk.vmdk", "base.vmdk");
    place.refused("disk.vmdk", &["disk.vmdk", "base.vmdk", "--parent"]);
    let group = "VMDK: descriptors, flat extents, chains";
    let place = Place::of(&planted(group, "a parent that is not there"));
    place.refused("d2.vmdk", &["d1.vmdk", "b.vmdk", "--parent"]);
}

/// open-vmdk copies what it does not know as a raw disk and ends with success: also deltas of
/// ESXi and damaged headers. Here those are read as what they are, or refused.
#[test]
fn open_vmdk_what_is_not_known_is_copied_as_a_raw_disk() {
    let kinds = [
        (
            "VMFSSPARSE",
            cowd::encode(SECTORS as u32, 1, &guest::grains(512)),
        ),
        (
            "SESPARSE",
            sesparse::encode(SECTORS, &guest::grains(4096), false),
        ),
    ];
    for (kind, bytes) in kinds {
        let line = vec![extent(SECTORS, kind, "x-delta.vmdk")];
        let text = text("custom", line, None);
        let files = Files::one("disk.vmdk", Bytes::new(text.as_bytes()));
        let place = Place::of(&files.and("x-delta.vmdk", Bytes::new(&bytes)));
        place.copied("disk.vmdk", &guest().bytes);
        // The file with the tables alone: its first bytes are not the disk's.
        let ran = place.run(&["convert", "x-delta.vmdk", "out.raw", "--to", "raw"]);
        if ran.code == Some(0) {
            assert!(place.get("out.raw") == guest().bytes, "{kind}: other bytes");
        }
        let mut broken = bytes;
        broken[0] ^= 0x20;
        place.put("x-delta.vmdk", &broken);
        place.refused("x-delta.vmdk", &["x-delta.vmdk"]);
    }
    let place = Place::new();
    for at in [0, 4, 8 + 3, 44, 77] {
        sparse(&place.path(""), |b| b[at] ^= 0x40);
        place.refused("disk.vmdk", &["disk.vmdk"]);
    }
    place.put("disk.vmdk", vec![0x5a; 1 << 20]);
    place.refused("disk.vmdk", &["disk.vmdk", "--format raw"]);
}

/// dissect, and qemu-img with it, leave ZERO extents out, so that everything behind them is in
/// the wrong place; 7-Zip ends in an error there. Here they are zeros of their length.
#[test]
fn dissect_zero_extents_shift_what_is_behind_them() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    let lines = "RW 16 ZERO\nRW 4 FLAT \"f.bin\" 4\nRW 3 ZERO\nRW 4 FLAT \"f.bin\" 0\nRW 1 ZERO";
    place.put("disk.vmdk", descriptor(lines));
    let mut whole = vec![0; 28 * 512];
    whole[16 * 512..20 * 512].fill(7);
    whole[23 * 512..27 * 512].fill(7);
    place.copied("disk.vmdk", &whole);
    // As 7-Zip meets it: alone, and last.
    place.put("disk.vmdk", descriptor("RW 16 ZERO"));
    place.copied("disk.vmdk", &[0; 8192]);
}

/// dissect loses an extent whose line has tabs between its words. Here any blank is one.
#[test]
fn dissect_tabs_in_an_extent_line() {
    let place = Place::new();
    place.put("f.bin", [7; 4096]);
    for line in [
        "RW\t8\tFLAT\t\"f.bin\"\t0",
        "  RW  8   FLAT  \"f.bin\"   0  ",
        "\tRW 8\t FLAT \"f.bin\"\t",
    ] {
        place.put("disk.vmdk", descriptor(line));
        place.copied("disk.vmdk", &[7; 4096]);
    }
}

/// dissect gives fewer bytes than were asked for, and no error, where a file ends too early.
/// Here the first missing byte is an error that says where.
#[test]
fn dissect_short_reads_instead_of_errors() {
    let place = Place::new();
    place.put("f.bin", [7; 4096 - 100]);
    place.put("disk.vmdk", descriptor("RW 8 FLAT \"f.bin\" 0"));
    place.not_copied("disk.vmdk", &["f.bin", "cut short"]);
    let group = "VMDK: descriptors, flat extents, chains";
    let place = Place::of(&planted(group, "a flat extent that is cut short"));
    place.not_copied("b.vmdk", &["b-flat.vmdk", "cut short"]);
    let big = place.run(&["cat", "b.vmdk", "/p0/BIG.BIN"]);
    assert!(
        big.code != Some(0) && big.err.contains("b-flat.vmdk"),
        "{}",
        big.err
    );
}

/// dissect puts a delta on any parent of the right name. Here one with another content id, and
/// one without any, is refused.
#[test]
fn dissect_a_parent_with_another_content_id() {
    let place = Place::new();
    delta(&place.path(""), "disk.vmdk", "base.vmdk");
    place.put("f.bin", vec![7; 1 << 20]);
    let base = descriptor("RW 2048 FLAT \"f.bin\" 0");
    place.put("base.vmdk", &base);
    place.copied("disk.vmdk", &vec![7; 1 << 20]);
    place.put("base.vmdk", base.replace("12345678", "12345679"));
    place.refused("disk.vmdk", &["12345678", "12345679", "base.vmdk"]);
    place.put("base.vmdk", base.replace("CID=12345678\n", ""));
    place.refused("disk.vmdk", &["12345678", "base.vmdk"]);
}

/// dissect ends in an exception on an absolute name that is not there. Here the same disk after a
/// move opens by the base name beside it, for extents and parents, in any system's spelling.
#[test]
fn dissect_absolute_names_of_another_machine() {
    let place = Place::new();
    place.put("f.bin", vec![7; 1 << 20]);
    for name in [
        "/vmfs/volumes/5e0/web/f.bin",
        "C:\\\\vm\\\\f.bin",
        "[store] web/f.bin",
    ] {
        let name = name.replace("\\\\", "\\");
        place.put(
            "base.vmdk",
            descriptor(&format!("RW 2048 FLAT \"{name}\" 0")),
        );
        place.copied("base.vmdk", &vec![7; 1 << 20]);
        let parent = name.replace("f.bin", "base.vmdk");
        delta(&place.path(""), "disk.vmdk", &parent);
        place.copied("disk.vmdk", &vec![7; 1 << 20]);
    }
}

/// 7-Zip does not open the streams that qemu-img and open-vmdk write: the directory in front, no
/// end marker. Here both layouts give the same bytes, also without the end marker.
#[test]
fn seven_zip_streams_of_other_writers() {
    let place = Place::new();
    for layout in [stream::Layout::Footer, stream::Layout::Header] {
        let grains = guest::grains(GRAIN);
        let mut bytes = streamed(layout, SECTORS, &grains, false);
        place.put("disk.vmdk", &bytes);
        place.copied("disk.vmdk", &guest().bytes);
        bytes.truncate(bytes.len() - 512);
        place.put("disk.vmdk", &bytes);
        place.copied("disk.vmdk", &guest().bytes);
    }
}

/// VirtualBox refuses a disk whose two directories differ, and others use one without a word.
/// Here the sound one serves, and it is said that the other is not.
#[test]
fn virtualbox_one_of_two_directories_is_damaged() {
    let group = "VMDK: hosted sparse";
    let place = Place::of(&planted(group, "a directory of zeros beside a sound copy"));
    place.copied("d.vmdk", &guest().bytes);
    let ran = place.done(&["info", "d.vmdk"]);
    assert!(ran.err.contains("redundant copy is used"), "{}", ran.err);
    assert_eq!(place.run(&["check", "d.vmdk"]).code, Some(4));
}

/// qemu-img checks no content id where a delta does not say where its parent is. Here the parent
/// is looked for by its content id beside the delta, and its absence is an error.
#[test]
fn qemu_img_a_delta_that_does_not_name_its_parent() {
    let place = Place::new();
    let text = with_parent("12345679", "", "RW 2048 SPARSE \"disk.vmdk\"");
    sparse(&place.path(""), |b| {
        b[512..20 * 512].fill(0);
        b[512..][..text.len()].copy_from_slice(text.as_bytes());
    });
    place.refused("disk.vmdk", &["disk.vmdk", "12345679"]);
    place.put("f.bin", vec![7; 1 << 20]);
    let base = descriptor("RW 2048 FLAT \"f.bin\" 0").replace("12345678", "12345679");
    place.put("somewhere.vmdk", base);
    place.copied("disk.vmdk", &vec![7; 1 << 20]);
}
