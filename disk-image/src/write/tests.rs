//! What is written reads back: here by our own readers, in `tests/` by qemu-img.

use super::*;
use crate::{OpenOptions, open};
use disk_io::{ErrorKind, HostDir, conformance, host_dir::Allowed};
use proptest::prelude::*;

fn all() -> Vec<WriteOptions> {
    let mut found = Vec::new();
    for format in [
        Format::Raw,
        Format::Vhd,
        Format::Vdi,
        Format::Vhdx,
        Format::Qcow2,
    ] {
        found.push(WriteOptions::new(format));
    }
    for format in [Format::Vhd, Format::Vdi, Format::Vhdx] {
        found.push(WriteOptions {
            fixed: true,
            ..WriteOptions::new(format)
        });
    }
    found.push(WriteOptions {
        sector_size: 4096,
        ..WriteOptions::new(Format::Vhdx)
    });
    for compress in [Compress::Zlib(6), Compress::Zstd(3)] {
        found.push(WriteOptions {
            compress: Some(compress),
            ..WriteOptions::new(Format::Qcow2)
        });
    }
    found
}

/// Writes `pieces` of `contents` from two threads, out of order.
fn write(options: &WriteOptions, contents: &[u8], step: usize) -> crate::Image {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let writer = Writer::create(&file, &path, contents.len() as u64, options).unwrap();
    let pieces: Vec<_> = contents.chunks(step).enumerate().collect();
    std::thread::scope(|scope| {
        for t in 0..2 {
            let (writer, pieces) = (&writer, &pieces);
            scope.spawn(move || {
                for (n, piece) in pieces.iter().rev().filter(|(n, _)| n % 2 == t) {
                    let at = (n * step) as u64;
                    if disk_io::zero::is_zero(piece) {
                        writer.zero_at(at, piece.len() as u64).unwrap();
                    } else {
                        writer.write_at(piece, at).unwrap();
                    }
                }
            });
        }
    });
    writer.finish().unwrap();
    let source = HostDir::open_source(&path, &Allowed::default()).unwrap();
    let forced = OpenOptions {
        format: Some(options.format),
        ..OpenOptions::default()
    };
    let image = open(source, &forced).unwrap();
    assert_eq!(image.disk.sector_size(), options.sector_size);
    conformance::check(&*image.disk, contents);
    image
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn what_is_written_reads_back(
        sectors in 1usize..1400, data in prop::collection::vec((0usize..1400, 1usize..300, any::<u8>()), 0..12),
        step in prop::sample::select(vec![4096usize, 65536, 100_352, 1 << 20])
    ) {
        let mut contents = vec![0u8; sectors * 4096];
        for (at, n, byte) in data {
            let from = (at * 4096).min(contents.len());
            let to = (from + n * 4096).min(contents.len());
            for (i, b) in contents[from..to].iter_mut().enumerate() {
                // Some of it compresses, some does not.
                *b = if byte % 2 == 0 { byte } else { (i.wrapping_mul(i) >> 7) as u8 ^ byte };
            }
        }
        for options in all() {
            write(&options, &contents, step);
        }
    }
}

#[test]
fn empty_disks_and_single_sectors() {
    for options in all() {
        let sector = vec![7; options.sector_size as usize];
        write(&options, &sector, 4096);
        if !options.fixed && options.format != Format::Raw {
            write(&options, &[], 4096);
        }
    }
}

#[test]
fn a_huge_empty_disk_costs_nothing() {
    for options in all()
        .into_iter()
        .filter(|o| !o.fixed && o.format != Format::Raw)
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = File::create(&path).unwrap();
        let len = 2000 << 30;
        let writer = Writer::create(&file, &path, len, &options).unwrap();
        writer.zero_at(0, len - 4096).unwrap();
        writer.write_at(&[9; 4096], len - 4096).unwrap();
        writer.finish().unwrap();
        let image = open(
            HostDir::open_source(&path, &Allowed::default()).unwrap(),
            &OpenOptions::default(),
        )
        .unwrap();
        assert_eq!(image.format, options.format);
        assert_eq!(image.disk.len(), len);
        let mut end = [0; 4096];
        image.disk.read_exact_at(&mut end, len - 4096).unwrap();
        assert_eq!(end, [9; 4096]);
        let used = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512;
        assert!(used < 40 << 20, "{}: {used} bytes", options.format);
    }
}

#[test]
fn what_a_format_cannot_hold_is_refused_first() {
    let file = tempfile::tempfile().unwrap();
    let kind = |len, options: WriteOptions| {
        let e = Writer::create(&file, Path::new("x"), len, &options).unwrap_err();
        assert_eq!(file.metadata().unwrap().len(), 0, "nothing was written");
        e.kind()
    };
    assert_eq!(
        kind(513, WriteOptions::new(Format::Vhd)),
        ErrorKind::Refused
    );
    assert_eq!(
        kind(3 << 40, WriteOptions::new(Format::Vhd)),
        ErrorKind::Refused
    );
    assert_eq!(
        kind(65 << 40, WriteOptions::new(Format::Vhdx)),
        ErrorKind::Refused
    );
    assert_eq!(
        kind(512, WriteOptions::new(Format::Dmg)),
        ErrorKind::Unsupported
    );
    let four_k = WriteOptions {
        sector_size: 4096,
        ..WriteOptions::new(Format::Qcow2)
    };
    assert_eq!(kind(4096, four_k), ErrorKind::Refused);
    let packed = WriteOptions {
        compress: Some(Compress::Zlib(6)),
        ..WriteOptions::new(Format::Vdi)
    };
    assert_eq!(kind(4096, packed), ErrorKind::Refused);
}
