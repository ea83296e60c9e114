//! Odd but legal ways in which descriptors, headers and files fit together.

use crate::common::{MemDir, read_all};
use disk_io::{Disk, ErrorKind, HostDir, host_dir::Allowed};
use vmdk::{
    Image, Kind, OpenOptions, probe,
    write::{
        Cell,
        descriptor::{Text, extent},
        hosted,
    },
};

fn text(extents: Vec<String>) -> String {
    Text {
        cid: 1,
        parent: None,
        create_type: "monolithicSparse",
        extents,
    }
    .encode()
}

fn sparse(descriptor: Option<String>, capacity: u64) -> Vec<u8> {
    let options = hosted::Options {
        descriptor,
        ..Default::default()
    };
    hosted::encode(&options, capacity, &[(0, Cell::Data(vec![7; 65_536]))])
}

#[test]
fn a_renamed_file_opens_itself() {
    let mut dir = MemDir::default();
    let own = text(vec![extent(128, "SPARSE", "old-name.vmdk")]);
    dir.put("new.vmdk", sparse(Some(own), 128));
    // Another file has the old name by now.
    dir.put("old-name.vmdk", vec![1; 70_000]);
    let image = dir.image("new.vmdk").unwrap();
    assert!(read_all(&*image.disk()).unwrap() == vec![7; 65_536]);
    assert_eq!(
        probe(&*dir.source("new.vmdk").disk).unwrap(),
        Some(Kind::HostedSparse)
    );
    assert_eq!(probe(&*dir.source("old-name.vmdk").disk).unwrap(), None);
}

#[test]
fn an_empty_extent_may_carry_the_descriptor_of_others() {
    let list = text(vec![
        extent(128, "SPARSE", "x-s001.vmdk"),
        extent(2, "FLAT", "x-f.vmdk"),
    ]);
    let mut carrier = sparse(Some(list), 128);
    carrier[12..20].fill(0);
    let mut dir = MemDir::default();
    dir.put("x.vmdk", carrier);
    dir.put("x-s001.vmdk", sparse(None, 128));
    dir.put("x-f.vmdk", vec![9; 1024]);
    let image = dir.image("x.vmdk").unwrap();
    let mut expected = vec![7; 65_536];
    expected.extend([9; 1024]);
    assert!(read_all(&*image.disk()).unwrap() == expected);
    let info = &image.links()[0].extents;
    assert_eq!(info.len(), 2);
    assert_eq!(
        (info[1].start, info[1].len, info[1].file_size),
        (65_536, 1024, Some(1024))
    );
    assert_eq!(info[0].sparse.unwrap().grain_size, 65_536);
}

#[test]
fn a_piece_alone_opens_with_a_warning() {
    let mut dir = MemDir::default();
    dir.put("x-s001.vmdk", sparse(None, 128));
    let image = dir.image("x-s001.vmdk").unwrap();
    assert_eq!(image.warnings().len(), 1);
    assert!(read_all(&*image.disk()).unwrap() == vec![7; 65_536]);
    // A descriptor that was wiped is not the same: there may have been a parent.
    let mut wiped = sparse(Some(text(vec![extent(128, "SPARSE", "x")])), 128);
    wiped[512..21 * 512].fill(0);
    dir.put("w.vmdk", wiped);
    assert_eq!(dir.image("w.vmdk").unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Length on the line against length in the header.
#[test]
fn lengths_of_line_and_header() {
    let split = |line: u64, header: u64| {
        let mut dir = MemDir::default();
        let lines = vec![
            extent(line, "SPARSE", "x-s001.vmdk"),
            extent(1, "FLAT", "f"),
        ];
        dir.put("x.vmdk", text(lines));
        dir.put("x-s001.vmdk", sparse(None, header))
            .put("f", vec![5; 512]);
        dir.image("x.vmdk")
    };
    // (line, header): length of the extent and warnings.
    for (line, header, warnings) in [(128, 128, 0), (100, 128, 0), (100, 256, 1), (128, 100, 1)] {
        let image = split(line, header).unwrap();
        assert_eq!(image.warnings().len(), warnings, "{line} {header}");
        let read = read_all(&*image.disk()).unwrap();
        assert_eq!(read.len() as u64, (line + 1) * 512);
        assert!(read[line as usize * 512..] == [5; 512], "{line} {header}");
        assert!(read[..line as usize * 512].iter().all(|b| *b == 7));
    }
    assert_eq!(split(129, 128).unwrap_err().kind(), ErrorKind::Corrupt);
    // In one file: the header, as everywhere else.
    let alone = |line: u64, header: u64| {
        let mut dir = MemDir::default();
        dir.put(
            "x.vmdk",
            sparse(Some(text(vec![extent(line, "SPARSE", "x.vmdk")])), header),
        );
        dir.image("x.vmdk")
    };
    assert_eq!(alone(128, 200).unwrap().disk().len(), 200 * 512);
    assert_eq!(alone(300, 200).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Names in the descriptor's own character set, on a disk that keeps them as bytes.
#[test]
fn names_in_other_character_sets() {
    use std::os::unix::ffi::OsStrExt;
    for (label, encoding, name) in [
        ("GBK", encoding_rs::GBK, "磁盘-flat.vmdk"),
        ("Shift_JIS", encoding_rs::SHIFT_JIS, "表ソ-flat.vmdk"),
        ("windows-1252", encoding_rs::WINDOWS_1252, "Größe-flat.vmdk"),
    ] {
        let all = format!(
            "# Disk DescriptorFile\nversion=1\nencoding=\"{label}\"\nCID=1\n\
             parentCID=ffffffff\ncreateType=\"vmfs\"\nRW 2 VMFS \"{name}\"\n"
        );
        let raw = encoding.encode(name).0.into_owned();
        for stored in [name.as_bytes(), &raw] {
            let dir = tempfile::tempdir().unwrap();
            let source = dir.path().join("a.vmdk");
            std::fs::write(&source, encoding.encode(&all).0).unwrap();
            let file = dir.path().join(std::ffi::OsStr::from_bytes(stored));
            std::fs::write(file, [3; 1024]).unwrap();
            let opened = HostDir::open_source(&source, &Allowed::default()).unwrap();
            let image = Image::open(opened, &OpenOptions::default()).unwrap();
            assert!(read_all(&*image.disk()).unwrap() == [3; 1024], "{label}");
        }
    }
}

/// A descriptor that says it has a parent, over extents that hold everything.
#[test]
fn a_complete_link_needs_no_parent() {
    let mut dir = MemDir::default();
    dir.put(
        "x.vmdk",
        Text {
            cid: 1,
            parent: Some((2, "gone.vmdk")),
            create_type: "vmfs",
            extents: vec![extent(2, "VMFS", "x-flat.vmdk")],
        }
        .encode(),
    );
    dir.put("x-flat.vmdk", vec![4; 1024]);
    let image = dir.image("x.vmdk").unwrap();
    assert_eq!(image.warnings().len(), 1);
    assert!(read_all(&*image.disk()).unwrap() == [4; 1024]);
    // Longer files are fine, and nothing past the extent is shown.
    dir.put("x-flat.vmdk", vec![4; 4096]);
    assert_eq!(dir.image("x.vmdk").unwrap().disk().len(), 1024);
}
