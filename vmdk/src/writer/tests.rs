//! What is written reads back: every subformat, in any order, from several threads.

use super::*;
use crate::{Image, image::OpenOptions};
use disk_io::{Disk, HostDir, RunKind, conformance, host_dir::Allowed};
use proptest::prelude::*;
use std::{fs::File, path::Path};

fn options(subformat: Subformat) -> Options {
    Options {
        // Small, so that small disks have several pieces.
        split: 1 << 20,
        ..Options::new(subformat, Identity::new(0x1234_5678))
    }
}

fn open(path: &Path) -> Image {
    let source = HostDir::open_source(path, &Allowed::default()).unwrap();
    Image::open(source, &OpenOptions::default()).unwrap()
}

/// Writes `contents` in pieces of `step` bytes, backwards from two threads where the
/// subformat allows that; zeros are told by block.
fn write(dir: &Path, name: &str, contents: &[u8], step: usize, options: Options) {
    let plan = Plan::new(name, contents.len() as u64, options).unwrap();
    let files: Vec<File> = plan
        .files()
        .iter()
        .map(|f| File::create(dir.join(&f.name)).unwrap())
        .collect();
    let sinks = files.iter().map(Sink::File).collect();
    let writer = Writer::create(plan, sinks).unwrap();
    let block = writer.block() as usize;
    let put = |at: usize, end: usize| {
        if writer.in_order() {
            let piece = &contents[at..end];
            if piece.iter().all(|b| *b == 0) {
                return writer.zero_at(at as u64, piece.len() as u64).unwrap();
            }
            let encoded = writer.encode(piece, at as u64).unwrap().unwrap();
            return writer.write_at(&encoded, at as u64).unwrap();
        }
        let mut from = at;
        while from < end {
            let to = ((from / block + 1) * block).min(end);
            let part = &contents[from..to];
            if part.iter().all(|b| *b == 0) {
                writer.zero_at(from as u64, part.len() as u64).unwrap();
            } else {
                writer.write_at(part, from as u64).unwrap();
            }
            from = to;
        }
    };
    let mut pieces: Vec<(usize, usize)> = (0..contents.len())
        .step_by(step)
        .map(|at| (at, (at + step).min(contents.len())))
        .collect();
    if writer.in_order() {
        pieces.iter().for_each(|(at, end)| put(*at, *end));
    } else {
        pieces.reverse();
        let (one, two) = pieces.split_at(pieces.len() / 2);
        std::thread::scope(|s| {
            s.spawn(|| one.iter().for_each(|(at, end)| put(*at, *end)));
            s.spawn(|| two.iter().for_each(|(at, end)| put(*at, *end)));
        });
    }
    writer.finish().unwrap();
}

fn filled(sectors: usize, data: &[(usize, usize, u8)]) -> Vec<u8> {
    let mut contents = vec![0u8; sectors * 512];
    for (at, n, byte) in data {
        let from = (at * 512).min(contents.len());
        let to = (from + n * 512).min(contents.len());
        for (i, b) in contents[from..to].iter_mut().enumerate() {
            // Some of it compresses, some does not, some is zero.
            *b = match byte % 3 {
                0 => 0,
                1 => *byte,
                _ => (i.wrapping_mul(i) >> 7) as u8 ^ byte,
            };
        }
    }
    contents
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    #[test]
    fn what_is_written_reads_back(
        sectors in 1usize..9000,
        data in prop::collection::vec((0usize..9000, 1usize..3000, any::<u8>()), 0..8),
        // Of streamOptimized whole grains.
        step in prop::sample::select(vec![65536usize, 1 << 20]),
    ) {
        let contents = filled(sectors, &data);
        for subformat in Subformat::ALL {
            for layout in [StreamLayout::Header, StreamLayout::Footer] {
                if layout == StreamLayout::Footer && subformat != Subformat::StreamOptimized {
                    continue;
                }
                let dir = tempfile::tempdir().unwrap();
                let options = Options { layout, ..options(subformat) };
                write(dir.path(), "d.vmdk", &contents, step, options);
                let image = open(&dir.path().join("d.vmdk"));
                prop_assert!(image.warnings().is_empty(), "{subformat}: {:?}", image.warnings());
                conformance::check(&*image.disk(), &contents);
            }
        }
    }

    /// Zeros of a child hide what the parent has there.
    #[test]
    fn a_child_says_its_zeros(
        sectors in 1usize..3000,
        below in prop::collection::vec((0usize..3000, 1usize..1000, any::<u8>()), 1..4),
        above in prop::collection::vec((0usize..3000, 1usize..1000, any::<u8>()), 0..4),
    ) {
        let (base, contents) = (filled(sectors, &below), filled(sectors, &above));
        for subformat in [Subformat::MonolithicSparse, Subformat::TwoGbMaxExtentSparse,
            Subformat::VmfsSparse, Subformat::SeSparse] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "base.vmdk", &base, 65536, options(Subformat::MonolithicFlat));
            let mut child = options(subformat);
            child.identity.parent = Some((0x1234_5678, "base.vmdk".into()));
            write(dir.path(), "d.vmdk", &contents, 65536, child);
            let image = open(&dir.path().join("d.vmdk"));
            conformance::check(&*image.disk(), &contents);
        }
    }
}

#[test]
fn a_huge_disk_costs_what_it_holds() {
    let len = (2 << 40) - 512;
    for subformat in Subformat::ALL {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new("d.vmdk", len, Options::new(subformat, Identity::new(1))).unwrap();
        let pieces = plan.files().len();
        let files: Vec<File> = plan
            .files()
            .iter()
            .map(|f| File::create(dir.path().join(&f.name)).unwrap())
            .collect();
        let writer = Writer::create(plan, files.iter().map(Sink::File).collect()).unwrap();
        let place = len - 65024;
        let tail = vec![9; 65024];
        // The end of a table's range and the beginning of the next.
        writer.zero_at(0, place).unwrap();
        let tail = writer.encode(&tail, place).unwrap().unwrap_or(tail);
        writer.write_at(&tail, place).unwrap();
        writer.finish().unwrap();
        let used: u64 = files
            .iter()
            .map(|f| std::os::unix::fs::MetadataExt::blocks(&f.metadata().unwrap()) * 512)
            .sum();
        assert!(
            used < 10 << 20,
            "{subformat}: {used} bytes in {pieces} files"
        );
        let image = open(&dir.path().join("d.vmdk"));
        assert_eq!(image.disk().len(), len);
        let mut end = [0; 65536];
        image.disk().read_exact_at(&mut end, len - 65536).unwrap();
        assert_eq!(end[..512], [0; 512]);
        assert_eq!(end[512..], [9; 65024]);
        assert_ne!(
            image.disk().run_at(0).unwrap().kind,
            RunKind::Data,
            "{subformat}"
        );
    }
}

#[test]
fn what_cannot_be_written_is_refused_first() {
    let plan =
        |name: &str, len, options: Options| Plan::new(name, len, options).unwrap_err().to_string();
    let sparse = options(Subformat::MonolithicSparse);
    assert!(plan("d.vmdk", 513, sparse.clone()).contains("whole sectors"));
    assert!(plan("a\"b.vmdk", 512, sparse.clone()).contains("quotes"));
    let crumbs = Options {
        split: 512,
        ..options(Subformat::TwoGbMaxExtentFlat)
    };
    assert!(plan("d.vmdk", 512, crumbs).contains("64 KiB"));
    let many = options(Subformat::TwoGbMaxExtentFlat);
    assert!(plan("d.vmdk", 1 << 40, many).contains("--split-size"));
    let stream = |sink: Sink, options: Options| {
        let plan = Plan::new("d.vmdk", 512, options).unwrap();
        Writer::create(plan, vec![sink]).unwrap_err().to_string()
    };
    let e = stream(Sink::Stream(Box::new(Vec::new())), sparse);
    assert!(e.contains("streamOptimized"), "{e}");
    let header = options(Subformat::StreamOptimized);
    let e = stream(Sink::Stream(Box::new(Vec::new())), header);
    assert!(e.contains("--stream-layout footer"), "{e}");
    let mut child = options(Subformat::StreamOptimized);
    child.identity.parent = Some((1, "p.vmdk".into()));
    let file = tempfile::tempfile().unwrap();
    assert!(stream(Sink::File(&file), child).contains("without a parent"));
    // 2 TiB and more need seSparse.
    let plan = Plan::new("d.vmdk", 4 << 40, options(Subformat::VmfsSparse)).unwrap();
    let (one, two) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let e = Writer::create(plan, vec![Sink::File(&one), Sink::File(&two)]).unwrap_err();
    assert!(e.to_string().contains("seSparse"), "{e}");
}
