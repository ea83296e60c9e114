//! Every kind of extent: the contract, and what qemu-img reads from the same files.

use crate::{
    build::{ALL, Chain, Kind},
    common::{MemDir, read_all, skip},
};
use disk_io::{Disk, ErrorKind, MemDisk, conformance, faults::Counting};
use proptest::prelude::*;
use std::{process::Command, sync::Arc};
use vmdk::write::{
    Cell,
    descriptor::{Text, extent},
    hosted,
};

/// Odd, even and tiny lengths in sectors.
const LENGTHS: [u64; 6] = [1, 8, 127, 1280, 2049, 4096];

#[test]
fn conforms() {
    for kind in ALL {
        for capacity in LENGTHS {
            let mut chain = Chain::new(capacity);
            chain.add_regular(kind, 3);
            let image = chain
                .dir
                .image(chain.name())
                .unwrap_or_else(|e| panic!("{kind:?} of {capacity}: {e}"));
            println!("{kind:?} of {capacity} sectors");
            assert!(image.warnings().is_empty(), "{:?}", image.warnings());
            conformance::check(&*image.disk(), &chain.bytes);
            assert!(image.remarks().is_empty());
        }
    }
}

/// Half a gigabyte, so that there are several tables and windows.
#[test]
fn several_tables() {
    for kind in ALL.into_iter().filter(|k| k.is_delta()) {
        let capacity = (100 << 20) / 512 + 7;
        let mut chain = Chain::new(capacity);
        let grains = capacity.div_ceil(kind.grain());
        let cells: Vec<_> = [0, 1, grains / 3, grains / 2, grains - 2, grains - 1]
            .into_iter()
            .map(|g| (g, Cell::Data(chain.data(kind, g))))
            .collect();
        chain.add(kind, &cells);
        let image = chain.dir.image(chain.name()).unwrap();
        let read = read_all(&*image.disk()).unwrap();
        assert!(read == chain.bytes, "{kind:?}");
    }
}

#[test]
fn chains_of_every_pair() {
    for below in ALL {
        for above in ALL.into_iter().filter(|k| k.is_delta()) {
            let mut chain = Chain::new(1290);
            chain.add_regular(below, 2);
            chain.add_regular(above, 3);
            let image = chain.dir.image(chain.name()).unwrap();
            assert_eq!(image.links().len(), 2);
            let read = read_all(&*image.disk()).unwrap();
            assert!(read == chain.bytes, "{above:?} on {below:?}");
        }
    }
}

fn cells() -> impl Strategy<Value = Vec<(u64, u8)>> {
    prop::collection::vec((0u64..700, 0u8..8), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Random writes through random chains of mixed kinds read like a plain array.
    #[test]
    fn random_chains(
        capacity in 1u64..700,
        base in 0usize..ALL.len(),
        links in prop::collection::vec((0usize..9, cells()), 0..7),
        first in cells(),
    ) {
        let mut chain = Chain::new(capacity);
        for (kind, cells) in std::iter::once((base, first)).chain(links) {
            let kind = ALL[kind];
            let cells: Vec<_> = cells
                .into_iter()
                .map(|(n, what)| {
                    let n = n % capacity.div_ceil(kind.grain());
                    (n, match what {
                        0 => Cell::Zero,
                        1 => Cell::Unmapped,
                        _ => Cell::Data(chain.data(kind, n)),
                    })
                })
                .collect();
            chain.add(kind, &cells);
        }
        let image = chain.dir.image(chain.name()).unwrap();
        prop_assert!(image.warnings().is_empty(), "{:?}", image.warnings());
        conformance::check(&*image.disk(), &chain.bytes);
    }
}

#[test]
fn counts() {
    let mut chain = Chain::new(80);
    let data = chain.data(Kind::SeSparse, 0);
    chain.add(
        Kind::SeSparse,
        &[
            (0, Cell::Data(data)),
            (3, Cell::Zero),
            (4, Cell::Unmapped),
            (5, Cell::Unmapped),
        ],
    );
    let image = chain.dir.image(chain.name()).unwrap();
    let counts = image.links()[0].count().unwrap();
    assert_eq!(
        (
            counts.stored,
            counts.zero,
            counts.unmapped,
            counts.below,
            counts.bad
        ),
        (4096, 4096, 8192, 80 * 512 - 4 * 4096, 0)
    );
    assert_eq!(
        (
            counts.stored_grains,
            counts.zero_grains,
            counts.unmapped_grains
        ),
        (1, 1, 2)
    );
}

/// Our encoders are only worth something if others read what they write.
#[test]
fn qemu_reads_the_same() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        return skip("peers", "qemu-img is not installed");
    }
    let qemu = |chain: &Chain, what: &str| {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &chain.files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let raw = dir.path().join("out.raw");
        let out = Command::new("qemu-img")
            .args(["convert", "-f", "vmdk", "-O", "raw"])
            .arg(dir.path().join(chain.name()))
            .arg(&raw)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let read = std::fs::read(raw).unwrap();
        assert_eq!(read.len(), chain.bytes.len(), "{what}: length");
        let differs = (0..read.len()).find(|i| read[*i] != chain.bytes[*i]);
        assert_eq!(differs, None, "{what}: first difference");
    };
    for kind in ALL {
        // qemu wants lengths in whole grains for hosted sparse, and at least some sectors.
        let mut chain = Chain::new(1280);
        chain.add_regular(kind, 3);
        qemu(&chain, &format!("{kind:?}"));
    }
    for kinds in [
        [Kind::Vmfs, Kind::Cowd1, Kind::Cowd8],
        [Kind::Vmfs, Kind::SeSparse, Kind::SeSparse],
        [Kind::Sparse, Kind::SparseV2, Kind::Sparse],
        [Kind::StreamFooter, Kind::Sparse, Kind::SplitSparse],
    ] {
        let mut chain = Chain::new(1280);
        for (step, kind) in (1..).zip(kinds) {
            chain.add_regular(kind, step);
        }
        qemu(&chain, &format!("{kinds:?}"));
    }
}

/// A stream that lost its end has neither footer nor directory.
#[test]
fn truncated_streams_say_so() {
    let mut chain = Chain::new(1280);
    chain.add_regular(Kind::StreamFooter, 1);
    let whole = chain.files[0].1.clone();
    for cut in [512, 1024, 1536, 2048, 10_000] {
        let mut dir = crate::common::MemDir::default();
        dir.put("a.vmdk", &whole[..whole.len() - cut]);
        let result = dir.image("a.vmdk").and_then(|i| read_all(&*i.disk()));
        match result {
            // Only the end marker is lost.
            Ok(bytes) => assert!(cut == 512 && bytes == chain.bytes, "{cut}"),
            Err(e) => {
                assert!(cut > 512, "{e}");
                assert_eq!(e.kind(), ErrorKind::Corrupt);
                assert!(e.to_string().contains("footer"), "{e}");
            }
        }
    }
    // Padding behind the end marker.
    let mut padded = whole;
    padded.extend([0; 4096 + 100]);
    let mut dir = crate::common::MemDir::default();
    dir.put("a.vmdk", padded);
    let image = dir.image("a.vmdk").unwrap();
    assert_eq!(image.warnings().len(), 1);
    assert!(read_all(&*image.disk()).unwrap() == chain.bytes);
}

/// A warm window costs no table reads, and a run of grains in a row is one read.
#[test]
fn contiguous_grains_are_read_at_once() {
    let grains: Vec<_> = (0..1024)
        .map(|g| (g, Cell::Data(vec![g as u8; 65_536])))
        .collect();
    let text = Text {
        cid: 1,
        parent: None,
        create_type: "monolithicSparse",
        extents: vec![extent(1024 * 128, "SPARSE", "0.vmdk")],
    };
    let options = hosted::Options {
        descriptor: Some(text.encode()),
        ..Default::default()
    };
    let file = hosted::encode(&options, 1024 * 128, &grains);
    let counter = Arc::new(Counting::new(Arc::new(MemDisk::new(file))));
    let mut dir = MemDir::default();
    dir.put_disk("0.vmdk", counter.clone());
    let image = dir.image("0.vmdk").unwrap();
    let disk = image.disk();
    let mut buf = vec![0; 64 << 20];
    disk.read_exact_at(&mut buf, 0).unwrap();
    let (cold, _) = counter.so_far();
    disk.read_exact_at(&mut buf, 0).unwrap();
    let (warm, _) = counter.so_far();
    // Two windows.
    assert_eq!(warm - cold, 2);
    assert!(cold <= 14, "{cold} reads");
    assert!(
        buf.chunks(65_536)
            .zip(0..)
            .all(|(c, g)| c.iter().all(|b| *b == g as u8))
    );
}
