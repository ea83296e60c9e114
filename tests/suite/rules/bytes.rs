//! Rules 5 to 9 and 13: what tables lead to, what is inflated, what chains and footers say.

use super::{Place, planted};
use crate::hostile::{delta, descriptor, sparse};
use std::fs;
use tests::damages::{
    Bytes,
    guest::{self, SECTORS, guest},
};
use vmdk::write::{
    Cell,
    descriptor::{Text, extent},
    sesparse, stream,
};

const HOSTED: &str = "VMDK: hosted sparse";
const STREAM: &str = "VMDK: streamOptimized";
const CHAINS: &str = "VMDK: descriptors, flat extents, chains";

/// A zlib stream of stored blocks: as long as what it holds, whatever that is.
fn zlib_stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut left = bytes.chunks(65_535).peekable();
    while let Some(part) = left.next() {
        out.push(u8::from(left.peek().is_none()));
        let n = part.len() as u16;
        out.extend(n.to_le_bytes());
        out.extend((!n).to_le_bytes());
        out.extend(part);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend(((b << 16) | a).to_be_bytes());
    out
}

/// A place from a table is read as it is, be it in the header, the descriptor or a table: the
/// guest gets the host's bookkeeping. Here such a place is an error with its sector.
#[test]
fn rule_05_a_grain_inside_the_metadata() {
    for (group, name) in [
        (HOSTED, "a grain inside the header"),
        (HOSTED, "a grain inside a table"),
        (HOSTED, "both directories lead into the header"),
        ("VMDK: COWD", "a grain inside the header"),
        ("VMDK: COWD", "a table inside the header"),
    ] {
        let place = Place::of(&planted(group, name));
        place.not_copied("d.vmdk", &["copying byte", "at offset", "sector"]);
        assert_eq!(place.run(&["check", "d.vmdk"]).code, Some(4), "{name}");
    }
}

/// A place behind the end of the file reads as zeros. Here it is an error, for grains and for the
/// tables that lead to them, in every format.
#[test]
fn rule_05_a_grain_behind_the_end_of_the_file() {
    for (group, name) in [
        (HOSTED, "a grain behind the end of the file"),
        (STREAM, "a table entry leads outside the file"),
        ("VMDK: COWD", "a grain behind the end of the file"),
        ("VMDK: COWD", "a table behind the end of the file"),
        ("VMDK: seSparse", "a grain behind the end of the file"),
        ("VMDK: seSparse", "a table behind the end of the file"),
    ] {
        let place = Place::of(&planted(group, name));
        place.not_copied("d.vmdk", &["copying byte", "inside the file"]);
    }
}

/// Two places of the disk that are stored in the same bytes: one of them is wrong, and no reader
/// can tell which. Here `check` names the bytes and the guest's file.
#[test]
fn rule_05_two_grains_in_one_place_are_told() {
    for (group, name) in [
        (HOSTED, "two grains in one place"),
        ("VMDK: COWD", "two grains in one place"),
        ("VMDK: seSparse", "two grains in one place"),
    ] {
        let place = Place::of(&planted(group, name));
        let ran = place.run(&["check", "d.vmdk", "--json"]);
        assert_eq!(ran.code, Some(4), "{name}: {}", ran.err);
        assert!(ran.out.contains("place-shared"), "{name}: {}", ran.out);
        assert!(ran.out.contains(guest::BIG), "{name}: {}", ran.out);
    }
}

/// A grain that inflates without end fills memory. Here its output is one grain, so that a bomb is
/// an error, and what it would have become is never held.
#[test]
fn rule_06_a_grain_that_inflates_to_more() {
    let place = Place::new();
    let text = Text {
        cid: 1,
        parent: None,
        create_type: "streamOptimized",
        extents: vec![extent(128, "SPARSE", "disk.vmdk")],
    };
    let options = stream::Options {
        layout: stream::Layout::Footer,
        version: 3,
        grain_size: 128,
        descriptor: text.encode(),
        pad_last: false,
        level: 0,
    };
    // Stored, so that another stored stream of the same length fits into its place.
    let bytes = stream::encode(&options, 128, &[(0, Cell::Data(vec![7; 65_536]))]);
    place.put("disk.vmdk", &bytes);
    place.copied("disk.vmdk", &[7; 65_536]);
    let image = Bytes::new(&bytes);
    let size = |n: usize| {
        let mut head = 0u64.to_le_bytes().to_vec();
        head.extend((n as u32).to_le_bytes());
        head
    };
    let sound = zlib_stored(&[7; 65_536]);
    let marker = image.find(&sound[sound.len() - 16..sound.len() - 4], 0);
    let end = marker.expect("the stored grain") as usize + 16;
    let start = bytes[..end]
        .windows(2)
        .rposition(|w| w == [0x78, 0x01])
        .expect("the beginning of its zlib stream");
    for n in [65_537usize, 100_000, 131_000] {
        // What is deflated is longer than a grain; the file has room for it behind.
        let mut bomb = bytes[..start - 12].to_vec();
        let data = zlib_stored(&vec![7; n]);
        bomb.extend(size(data.len()));
        bomb.extend(&data);
        bomb.resize(bomb.len().next_multiple_of(512), 0);
        let moved = bomb.len() as i64 - end.next_multiple_of(512) as i64;
        let tail = end.next_multiple_of(512);
        bomb.extend(&bytes[tail..]);
        relocate(&mut bomb, tail, moved);
        place.put("disk.vmdk", &bomb);
        place.not_copied(
            "disk.vmdk",
            &["disk.vmdk", "grain of sector 0: inflating it"],
        );
    }
    // What is deflated is shorter than a grain: not filled up with zeros.
    let mut short = bytes.clone();
    let data = zlib_stored(&[7; 60_000]);
    short[start - 4..start].copy_from_slice(&(data.len() as u32).to_le_bytes());
    short[start..][..data.len()].copy_from_slice(&data);
    place.put("disk.vmdk", &short);
    place.not_copied("disk.vmdk", &["disk.vmdk", "expected 65536 bytes", "60000"]);
}

/// Puts the places right in a stream whose one grain became longer: in the table, the directory
/// and the footer, all of which lie behind it.
fn relocate(bytes: &mut [u8], tail: usize, moved: i64) {
    let sectors = moved / 512;
    let tail = (tail as i64 + moved) as usize;
    let add = |bytes: &mut [u8], at: usize| {
        let old = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let new = (i64::from(old) + sectors) as u32;
        bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
    };
    // The table has the grain's place, which did not move; the directory has the table's.
    let footer = bytes.len() - 1024;
    assert_eq!(&bytes[footer..footer + 4], b"KDMV");
    add(bytes, footer + 56);
    let gd = u32::from_le_bytes(bytes[footer + 56..footer + 60].try_into().unwrap());
    assert!(gd as usize * 512 >= tail);
    add(bytes, gd as usize * 512);
}

/// A compressed grain is found by its table and taken for what the table says. Here its own marker
/// must name the same sector, and a length that is more than two grains is refused unread.
#[test]
fn rule_06_a_marker_that_contradicts_the_table() {
    for (name, says) in [
        (
            "the marker of a grain says another place",
            "reading its marker",
        ),
        (
            "the marker of a grain says another place, directory in the header",
            "reading its marker",
        ),
        ("a grain of an impossible length", "reading its length"),
        ("a byte of a compressed grain", "inflating it"),
        ("a table entry is lost", ""),
    ] {
        let place = Place::of(&planted(STREAM, name));
        assert_eq!(place.run(&["check", "d.vmdk"]).code, Some(4), "{name}");
        if !says.is_empty() {
            place.not_copied("d.vmdk", &["d.vmdk", says, "at offset"]);
        }
    }
}

/// Rubbish behind the end of a stream is skipped, and a second disk may hide there. Here the disk
/// is the one that its own footer tells, and `check` says that something stands behind it.
#[test]
fn rule_06_rubbish_behind_the_end() {
    let place = Place::of(&planted(STREAM, "something behind the end"));
    place.copied("d.vmdk", &guest().bytes);
    let ran = place.run(&["check", "d.vmdk", "--json"]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(ran.out.contains("footer-misplaced"), "{}", ran.out);
}

/// A chain that leads into itself under another name is not seen by a look at names. Here files
/// are told apart by device and inode, so that hard links and other spellings are found.
#[test]
fn rule_07_a_chain_that_leads_into_itself_by_a_hard_link() {
    let place = Place::new();
    delta(&place.path(""), "disk.vmdk", "base.vmdk");
    fs::hard_link(place.path("disk.vmdk"), place.path("base.vmdk")).unwrap();
    place.refused("disk.vmdk", &["base.vmdk", "above it in the chain"]);
    let place = Place::of(&planted(CHAINS, "a chain that leads into itself"));
    place.refused("d2.vmdk", &["above it in the chain"]);
}

/// A parent that is another disk gives its bytes for a while before anybody notices. Here content
/// ids and lengths of the whole chain are compared before the first byte.
#[test]
fn rule_07_the_whole_chain_is_known_before_the_first_byte() {
    for (name, says) in [
        ("a parent that was changed", "content id"),
        ("a parent of another length", "length"),
        ("a parent that is not there", "--parent"),
        ("a parent that is no disk", "d1.vmdk"),
        (
            "a delta that names a parent and no content id",
            "--ignore-cid",
        ),
    ] {
        let place = Place::of(&planted(CHAINS, name));
        place.refused("d2.vmdk", &[says]);
    }
}

/// What a damaged middle link should hold is taken from the link below it. Here it is an error,
/// unless a newer link has the place.
#[test]
fn rule_07_a_lost_grain_of_a_middle_link_is_not_its_parents() {
    let place = Place::of(&planted(CHAINS, "a lost grain in the middle of the chain"));
    place.not_copied("d2.vmdk", &["d1-delta.vmdk", "inside the file"]);
    let place = Place::of(&planted(CHAINS, "a lost grain that a newer link hides"));
    place.done(&["convert", "d2.vmdk", "out.raw", "--to", "raw"]);
    let mid = guest().mid as usize;
    assert!(place.get("out.raw")[mid + 4096..][..512] == [2; 512]);
}

/// Header, descriptor and file give three lengths, and readers differ in which they take. Here a
/// difference is said, and what not all of them promise cannot be read.
#[test]
fn rule_08_lengths_that_disagree_are_told() {
    let place = Place::new();
    // The line promises more than the header.
    sparse(&place.path(""), |b| {
        b[12..20].copy_from_slice(&1024u64.to_le_bytes())
    });
    let ran = place.run(&["convert", "disk.vmdk", "out.raw", "--to", "raw"]);
    assert!(ran.err.contains("disk.vmdk"), "{}", ran.err);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(!place.path("out.raw").exists());
    assert_eq!(place.run(&["check", "disk.vmdk"]).code, Some(4));
    // The header promises more than the line.
    sparse(&place.path(""), |b| {
        b[12..20].copy_from_slice(&4096u64.to_le_bytes())
    });
    let ran = place.done(&["info", "disk.vmdk"]);
    assert!(ran.err.contains("the header is followed"), "{}", ran.err);
    // A flat file is shorter than its line.
    place.put("f.bin", [7; 4096]);
    place.put("disk.vmdk", descriptor("RW 16 FLAT \"f.bin\" 0"));
    let ran = place.done(&["info", "disk.vmdk"]);
    assert!(
        ran.err.contains("should have 8192 bytes and has 4096"),
        "{}",
        ran.err
    );
    place.not_copied("disk.vmdk", &["f.bin", "cut short"]);
}

/// A footer that says other things than its header makes two disks of one file. Here they must
/// agree in all but the directory's place, and a stream without its footer is not read at all.
#[test]
fn rule_09_a_footer_that_contradicts_its_header() {
    let place = Place::of(&planted(STREAM, "the footer contradicts the header"));
    place.refused("d.vmdk", &["d.vmdk", "contradicts the header", "at offset"]);
    let sound = {
        let mut files = planted(STREAM, "something behind the end");
        let b = files.main();
        b.set_len(b.len() - 4096);
        files
    };
    // Version, flags, grain size, entries, compression: each by itself.
    for (field, value) in [(4, 1u32), (8, 0x3_0000), (20, 64), (44, 256), (77, 0)] {
        let mut files = sound.clone();
        let b = files.main();
        let footer = b.len() - 1024;
        b.set_u32(footer + field, value);
        let place = Place::of(&files);
        place.refused("d.vmdk", &["d.vmdk", "footer"]);
    }
    let place = Place::of(&planted(STREAM, "the stream ends before its footer"));
    place.refused("d.vmdk", &["d.vmdk", "footer", "cut short"]);
    Place::of(&sound).copied("d.vmdk", &guest().bytes);
}

/// An seSparse delta whose journal was not replayed is read by its tables, which are old. Here it
/// is refused unless that is asked for, and the file stays as it is.
#[test]
fn rule_13_a_journal_that_was_not_replayed() {
    let place = Place::new();
    let bytes = sesparse::encode(SECTORS, &guest::grains(4096), true);
    place.put("x-delta.vmdk", &bytes);
    let line = format!("RW {SECTORS} SESPARSE \"x-delta.vmdk\"");
    place.put("disk.vmdk", descriptor(&line));
    place.refused(
        "disk.vmdk",
        &["x-delta.vmdk", "journal", "--ignore-dirty-journal"],
    );
    let args = ["convert", "disk.vmdk", "out.raw", "--to", "raw"];
    let ran = place.done(&[&args[..], &["--ignore-dirty-journal"]].concat());
    assert!(ran.err.contains("journal"), "said nothing: {}", ran.err);
    assert!(place.get("x-delta.vmdk") == bytes, "the delta was changed");
}
