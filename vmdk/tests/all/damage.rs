//! Damaged and contradictory sparse extents: the right bytes, or an error for just the range.

use crate::{
    build::{Chain, Kind},
    common::{MemDir, read_all},
};
use disk_io::{Disk, DiskError, ErrorKind, MemDisk, RunKind, conformance, faults::FailRange};
use std::sync::Arc;
use vmdk::{Image, OpenOptions, hosted::Header, write::Cell};

/// A disk of four grains, 0 1 2 stored, with both directories.
fn sparse() -> Chain {
    let mut chain = Chain::new(512);
    let cells: Vec<_> = (0..3)
        .map(|g| (g, Cell::Data(chain.data(Kind::Sparse, g))))
        .collect();
    chain.add(Kind::Sparse, &cells);
    chain
}

struct Places {
    gd: usize,
    rgd: usize,
    gt: usize,
    rgt: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn places(bytes: &[u8]) -> Places {
    let h = Header::parse(&bytes[..512], 0).unwrap();
    let (gd, rgd) = (h.gd_offset as usize * 512, h.rgd_offset as usize * 512);
    Places {
        gd,
        rgd,
        gt: u32_at(bytes, gd) * 512,
        rgt: u32_at(bytes, rgd) * 512,
    }
}

fn set(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Opens the first file of a chain after `change`.
fn changed(chain: &Chain, change: impl FnOnce(&mut Vec<u8>, Places)) -> disk_io::Result<Image> {
    let (name, bytes) = &chain.files[0];
    let mut bytes = bytes.clone();
    let places = places(&bytes);
    change(&mut bytes, places);
    let mut dir = MemDir::default();
    dir.put(name, bytes);
    dir.image(name)
}

/// Error of every grain of 64 KiB; `None` where the bytes are right.
fn grains(image: &Image, expected: &[u8]) -> Vec<Option<ErrorKind>> {
    let disk = image.disk();
    expected
        .chunks(65_536)
        .enumerate()
        .map(|(n, expected)| {
            let at = n as u64 * 65_536;
            let mut buf = vec![0; expected.len()];
            match disk.read_exact_at(&mut buf, at) {
                Ok(()) => {
                    assert!(buf == expected, "grain {n} has wrong bytes");
                    None
                }
                Err(e) => {
                    println!("{e}");
                    // What cannot be read is never said to be zeros.
                    assert_eq!(disk.run_at(at).unwrap().kind, RunKind::Data);
                    Some(e.kind())
                }
            }
        })
        .collect()
}

const BAD: Option<ErrorKind> = Some(ErrorKind::Corrupt);

#[test]
fn one_good_copy_is_used_and_it_is_said() {
    let chain = sparse();
    type Change = fn(&mut Vec<u8>, Places);
    let cases: [(&str, Change); 12] = [
        ("gd zero", |b, p| set(b, p.gd, 0)),
        ("rgd zero", |b, p| set(b, p.rgd, 0)),
        ("gd outside", |b, p| set(b, p.gd, 0xff_ffff)),
        ("rgd outside", |b, p| set(b, p.rgd, 0xff_ffff)),
        ("gd offset 0", |b, _| b[56..64].fill(0)),
        ("gd offset outside", |b, _| b[56..64].fill(0x70)),
        ("rgd offset outside", |b, _| b[48..56].fill(0x70)),
        ("gte past the end", |b, p| set(b, p.gt, 0xff_ffff)),
        ("rgte past the end", |b, p| set(b, p.rgt + 4, 0xff_ffff)),
        ("gte in the metadata", |b, p| set(b, p.gt, 21)),
        ("gte 1", |b, p| set(b, p.gt, 1)),
        ("gte twice", |b, p| {
            let v = u32_at(b, p.gt) as u32;
            set(b, p.gt + 4, v);
        }),
    ];
    for (what, change) in cases {
        let image = changed(&chain, change).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(grains(&image, &chain.bytes), [None; 4], "{what}");
        let said = image.remarks();
        assert_eq!(said.len(), 1, "{what}: {said:?}");
        conformance::check(&*image.disk(), &chain.bytes);
    }
}

/// A directory inside the descriptor's area would be one of zeros: a disk of nothing.
#[test]
fn a_directory_in_the_descriptor_is_none() {
    let chain = sparse();
    let image = changed(&chain, |b, _| {
        b[56..64].copy_from_slice(&10u64.to_le_bytes());
        b[48..56].fill(0);
    });
    assert_eq!(
        image.unwrap_err().code_text(),
        Some("grain-directory-outside-file")
    );
    let image = changed(&chain, |b, _| {
        b[56..64].copy_from_slice(&10u64.to_le_bytes())
    });
    assert_eq!(grains(&image.unwrap(), &chain.bytes), [None; 4]);
}

/// One copy is damaged in one entry, the other has lost another one: it is not believed that there
/// is nothing.
#[test]
fn the_good_copy_is_not_believed_to_have_nothing() {
    let chain = sparse();
    // Nothing, and zeros by the flag.
    for (damaged_first, nothing) in [(true, 0), (false, 0), (true, 1), (false, 1)] {
        let image = changed(&chain, |b, p| {
            let (damaged, lost) = match damaged_first {
                true => (p.gt, p.rgt),
                false => (p.rgt, p.gt),
            };
            set(b, damaged, 0xff_ffff);
            set(b, lost + 4, nothing);
            set(b, 8, 7);
        });
        let got = grains(&image.unwrap(), &chain.bytes);
        assert_eq!(got, [None, BAD, None, None]);
    }
}

#[test]
fn copies_that_differ_and_are_both_possible_are_an_error() {
    let chain = sparse();
    // Swapped, gone, unaligned in one: which is right?
    let image = changed(&chain, |b, p| set(b, p.gt + 4, 0)).unwrap();
    assert_eq!(grains(&image, &chain.bytes), [None, BAD, None, None]);
    assert_eq!(image.remarks().len(), 1);
    let image = changed(&chain, |b, p| {
        let (x, y) = (u32_at(b, p.gt) as u32, u32_at(b, p.gt + 8) as u32);
        set(b, p.gt, y);
        set(b, p.gt + 8, x);
    })
    .unwrap();
    assert_eq!(grains(&image, &chain.bytes), [BAD, None, BAD, None]);
    // Both impossible: what they agree on is still right.
    let image = changed(&chain, |b, p| {
        set(b, p.gt, 0xff_fff0);
        set(b, p.rgt, 0xff_fff1);
    })
    .unwrap();
    assert_eq!(grains(&image, &chain.bytes), [BAD, None, None, None]);
    // Both directories lost.
    let e = changed(&chain, |b, _| {
        b[48..64].fill(0x70);
    })
    .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    let image = changed(&chain, |b, p| {
        set(b, p.gd, 0xff_ffff);
        set(b, p.rgd, 0xff_ffff);
    })
    .unwrap();
    assert_eq!(grains(&image, &chain.bytes), [BAD; 4]);
    // One lost and the other denies that there is a table: that is no proof of zeros.
    let image = changed(&chain, |b, p| {
        set(b, p.gd, 0xff_ffff);
        set(b, p.rgd, 0);
    })
    .unwrap();
    assert_eq!(grains(&image, &chain.bytes), [BAD; 4]);
}

#[test]
fn without_a_copy_bad_entries_are_errors() {
    let mut chain = Chain::new(512);
    let cells: Vec<_> = (0..3)
        .map(|g| (g, Cell::Data(chain.data(Kind::SparseV2, g))))
        .collect();
    chain.add(Kind::SparseV2, &cells);
    for entry in [21, 2, 127, 0xff_ffff, u32::MAX] {
        let (name, bytes) = &chain.files[0];
        let mut bytes = bytes.clone();
        let gt = u32_at(
            &bytes,
            Header::parse(&bytes[..512], 0).unwrap().gd_offset as usize * 512,
        );
        set(&mut bytes, gt * 512 + 4, entry);
        let mut dir = MemDir::default();
        dir.put(name, bytes);
        let image = dir.image(name).unwrap();
        assert_eq!(
            grains(&image, &chain.bytes),
            [None, BAD, None, None],
            "{entry}"
        );
    }
}

/// An entry of 1 means zeros with flag 4 and nothing without; qemu and libvmdk give the
/// descriptor's text as data.
#[test]
fn entry_one_needs_its_flag() {
    let chain = sparse();
    let both = |b: &mut Vec<u8>, p: Places| {
        set(b, p.gt, 1);
        set(b, p.rgt, 1);
    };
    let image = changed(&chain, both).unwrap();
    assert_eq!(grains(&image, &chain.bytes)[0], BAD);
    let image = changed(&chain, |b, p| {
        both(b, p);
        b[8] |= 4;
    })
    .unwrap();
    let mut expected = chain.bytes.clone();
    expected[..65_536].fill(0);
    conformance::check(&*image.disk(), &expected);
    assert_eq!(image.disk().run_at(0).unwrap().kind, RunKind::Zero);
}

#[test]
fn a_cut_file_is_an_error_for_what_is_missing() {
    let chain = sparse();
    let image = changed(&chain, |b, _| b.truncate(b.len() - 1)).unwrap();
    assert_eq!(grains(&image, &chain.bytes), [None, None, BAD, None]);
    // A flat file: never zeros.
    let mut chain = Chain::new(512);
    chain.add_regular(Kind::Flat, 1);
    let mut dir = chain.dir.clone();
    dir.put(&chain.files[0].0, &chain.files[0].1[..100_000]);
    let image = dir.image(chain.name()).unwrap();
    assert_eq!(image.warnings().len(), 1);
    assert_eq!(grains(&image, &chain.bytes), [None, BAD, BAD, BAD]);
    image
        .disk()
        .read_exact_at(&mut [0; 34_464], 65_536)
        .unwrap();
    let e = image
        .disk()
        .read_exact_at(&mut [0; 1], 100_000)
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
}

#[test]
fn headers_that_readers_disagree_on() {
    let chain = sparse();
    let header = |change: fn(&mut Vec<u8>)| changed(&chain, |b, _| change(b)).map(|_| ());
    let kind = |r: disk_io::Result<()>| {
        let e: DiskError = r.unwrap_err();
        println!("{e}");
        e.kind()
    };
    header(|b| b[4] = 2).unwrap();
    header(|b| b[4] = 3).unwrap();
    assert_eq!(kind(header(|b| b[4] = 4)), ErrorKind::Unsupported);
    assert_eq!(kind(header(|b| b[4] = 0)), ErrorKind::Unsupported);
    assert_eq!(kind(header(|b| b[11] = 1)), ErrorKind::Unsupported);
    // Unknown compatible flags are ignored.
    header(|b| b[9] = 0x80).unwrap();
    // A text-mode transfer.
    assert_eq!(kind(header(|b| b[73] = b'\r')), ErrorKind::Corrupt);
    // Compression flags and algorithm that contradict each other.
    assert_eq!(kind(header(|b| b[77] = 1)), ErrorKind::Corrupt);
    assert_eq!(kind(header(|b| b[10] = 3)), ErrorKind::Corrupt);
    assert_eq!(kind(header(|b| b[10] = 2)), ErrorKind::Corrupt);
    assert_eq!(
        kind(header(|b| {
            b[10] = 1;
            b[77] = 1;
        })),
        ErrorKind::Unsupported
    );
    assert_eq!(kind(header(|b| b[77] = 2)), ErrorKind::Unsupported);
    // Grains and tables.
    for grain in [0u64, 3, 1 << 22, u64::MAX] {
        let (name, bytes) = &chain.files[0];
        let mut bytes = bytes.clone();
        bytes[20..28].copy_from_slice(&grain.to_le_bytes());
        let mut dir = MemDir::default();
        dir.put(name, bytes);
        assert_eq!(kind(dir.image(name).map(|_| ())), ErrorKind::Corrupt);
    }
    assert_eq!(kind(header(|b| b[44..48].fill(0))), ErrorKind::Corrupt);
    // Left open: said, and read.
    let image = changed(&chain, |b, _| b[72] = 1).unwrap();
    assert_eq!(image.warnings().len(), 1);
    assert_eq!(grains(&image, &chain.bytes), [None; 4]);
}

#[test]
fn grains_of_a_stream_are_checked() {
    for kind in [Kind::StreamFooter, Kind::StreamHeader] {
        let mut chain = Chain::new(500);
        let cells: Vec<_> = (0..4)
            .map(|g| (g, Cell::Data(chain.data(kind, g))))
            .collect();
        chain.add(kind, &cells);
        let (name, bytes) = &chain.files[0];
        let first = Header::parse(&bytes[..512], 0).unwrap().over_head as usize * 512;
        // Guest sector, length, data.
        for (at, value) in [
            (0, 1),
            (8, 0),
            (9, 0xff),
            (11, 0x7f),
            (12, 0xff),
            (100, 0x55),
        ] {
            let mut bytes = bytes.clone();
            match at {
                // The whole length.
                8 => bytes[first + 8..first + 12].fill(0),
                _ => bytes[first + at] ^= value,
            }
            let mut dir = MemDir::default();
            dir.put(name, bytes);
            let image = dir.image(name).unwrap();
            assert_eq!(
                grains(&image, &chain.bytes),
                [BAD, None, None, None],
                "{at}"
            );
        }
    }
}

#[test]
fn bad_entries_of_esx_formats() {
    // seSparse: nibbles that mean nothing, grains outside, tables outside.
    let mut chain = Chain::new(128 * 4);
    let cells: Vec<_> = (0..64)
        .map(|g| (g, Cell::Data(chain.data(Kind::SeSparse, g))))
        .collect();
    chain.add(Kind::SeSparse, &cells);
    let (file, bytes) = &chain.files[0];
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let (gd, gts) = (word(128) * 512, word(144) * 512);
    for (at, value) in [
        (gts, 4u64 << 60),
        (gts, 15 << 60),
        (gts, 1),
        (gts, 0x3fff << 48),
        (gts, u64::MAX),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let mut dir = chain.dir.clone();
        dir.put(file, bytes);
        let image = dir.image(chain.name()).unwrap();
        assert_eq!(
            grains(&image, &chain.bytes),
            [BAD, None, None, None],
            "{value:#x}"
        );
    }
    for value in [1u64, 0x2000_0000_0000_0000, 0x1000_0000_ffff_ffff] {
        let mut bytes = bytes.clone();
        bytes[gd..gd + 8].copy_from_slice(&value.to_le_bytes());
        let mut dir = chain.dir.clone();
        dir.put(file, bytes);
        let image = dir.image(chain.name()).unwrap();
        assert_eq!(grains(&image, &chain.bytes), [BAD; 4], "{value:#x}");
    }
    // A journal that was not replayed.
    let mut dirty = bytes.clone();
    dirty[512 + 24] = 1;
    let mut dir = chain.dir.clone();
    dir.put(file, dirty);
    let e = dir.image(chain.name()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("--ignore-dirty-journal"), "{e}");
    let options = OpenOptions {
        ignore_dirty_journal: true,
        ..Default::default()
    };
    let image = dir.image_with(chain.name(), &options).unwrap();
    assert!(image.warnings()[0].contains("IGNORED"));
    assert!(read_all(&*image.disk()).unwrap() == chain.bytes);

    // COWD: entries into the metadata and past the end.
    let mut chain = Chain::new(128 * 4);
    let cells: Vec<_> = (0..64)
        .map(|g| (g, Cell::Data(chain.data(Kind::Cowd8, g))))
        .collect();
    chain.add(Kind::Cowd8, &cells);
    let (file, bytes) = &chain.files[0];
    let gt = u32_at(bytes, 4 * 512) * 512;
    for value in [1, 4, 0xff_ffff, u32::MAX] {
        let mut bytes = bytes.clone();
        set(&mut bytes, gt, value);
        let mut dir = chain.dir.clone();
        dir.put(file, bytes);
        let image = dir.image(chain.name()).unwrap();
        assert_eq!(
            grains(&image, &chain.bytes),
            [BAD, None, None, None],
            "{value:#x}"
        );
    }
}

/// A bad sector under one copy of a table is what the other copy is for.
#[test]
fn read_errors_in_tables() {
    let chain = sparse();
    let (name, bytes) = &chain.files[0];
    let p = places(bytes);
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes.clone()));
    let with = |range: std::ops::Range<usize>| {
        let mut dir = MemDir::default();
        let bad = range.start as u64..range.end as u64;
        dir.put_disk(name, Arc::new(FailRange::new(disk.clone(), bad)));
        dir.image(name).unwrap()
    };
    let image = with(p.gt..p.gt + 512);
    assert_eq!(grains(&image, &chain.bytes), [None; 4]);
    assert_eq!(image.remarks().len(), 1);
    // Bad data sectors stay what they are: an error of the device.
    let first = u32_at(bytes, p.gt) * 512;
    let image = with(first..first + 512);
    let io = Some(ErrorKind::Io);
    assert_eq!(grains(&image, &chain.bytes), [io, None, None, None]);
}
