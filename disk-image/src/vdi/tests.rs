//! VDIs made here: the model is a list of blocks.

use crate::{
    OpenOptions,
    testing::{Files, alone, survive},
};
use disk_io::{ErrorKind, conformance};
use proptest::prelude::*;

const BLOCK: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Block {
    Free,
    Zero,
    Data(u8),
}

fn image(
    blocks: &[Block],
    len: u64,
    ids: (u8, u8),
    parent: Option<(u8, u8)>,
    extra: usize,
) -> Vec<u8> {
    let mut h = vec![0u8; 512];
    let put = |h: &mut Vec<u8>, at: usize, n: u32| h[at..at + 4].copy_from_slice(&n.to_le_bytes());
    let map_len = (blocks.len() * 4).next_multiple_of(512);
    put(&mut h, 64, 0xbeda_107f);
    put(&mut h, 68, 0x0001_0001);
    put(&mut h, 72, 400);
    put(&mut h, 76, if parent.is_some() { 4 } else { 1 });
    put(&mut h, 340, 512);
    put(&mut h, 344, (512 + map_len) as u32);
    put(&mut h, 360, 512);
    h[368..376].copy_from_slice(&len.to_le_bytes());
    put(&mut h, 376, BLOCK as u32);
    put(&mut h, 380, extra as u32);
    put(&mut h, 384, blocks.len() as u32);
    h[392..408].fill(ids.0);
    h[408..424].fill(ids.1);
    if let Some((id, modify)) = parent {
        h[424..440].fill(id);
        h[440..456].fill(modify);
    }
    let mut map = Vec::new();
    let mut data = Vec::new();
    let mut next = 0u32;
    for block in blocks {
        let entry = match block {
            Block::Free => u32::MAX,
            Block::Zero => u32::MAX - 1,
            Block::Data(b) => {
                data.extend(vec![0xee; extra]);
                data.extend([*b; BLOCK]);
                next += 1;
                next - 1
            }
        };
        map.extend(entry.to_le_bytes());
    }
    map.resize(map_len, 0);
    [h, map, data].concat()
}

fn merged(layers: &[&[Block]], len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| {
            for layer in layers {
                match layer.get(at / BLOCK) {
                    Some(Block::Free) => {}
                    Some(Block::Data(b)) => return *b,
                    Some(Block::Zero) | None => return 0,
                }
            }
            0
        })
        .collect()
}

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let one = prop_oneof![
        2 => Just(Block::Free),
        1 => Just(Block::Zero),
        2 => any::<u8>().prop_map(Block::Data)
    ];
    prop::collection::vec(one, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn reads_like_the_model(top in blocks(), base in blocks(), short in 0usize..4, extra in 0usize..2) {
        let len = top.len() * BLOCK - short * 512;
        let base_len = (base.len() * BLOCK) as u64;
        let files = Files::new(&[
            ("other.txt", b"not a disk".to_vec()),
            ("top.vdi", image(&top, len as u64, (2, 2), Some((1, 7)), extra * 512)),
            ("base.vdi", image(&base, base_len, (1, 7), None, 0)),
        ]);
        let opened = files.image("top.vdi", &OpenOptions::default()).unwrap();
        conformance::check(&*opened.disk, &merged(&[&top, &base], len));
        let opened = files.image("base.vdi", &OpenOptions::default()).unwrap();
        conformance::check(&*opened.disk, &merged(&[&base], base_len as usize));
    }
}

#[test]
fn a_parent_that_changed_is_not_taken() {
    let top = image(&[Block::Free], 4096, (2, 2), Some((1, 7)), 0);
    let changed = image(&[Block::Data(5)], 4096, (1, 8), None, 0);
    let files = Files::new(&[("top.vdi", top.clone()), ("base.vdi", changed)]);
    let e = files.image("top.vdi", &OpenOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    assert!(e.to_string().contains("the state"), "{e}");
    let e = alone(top).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
}

proptest! {
    #[test]
    fn damage_never_panics(at in 64usize..600, bytes in any::<[u8; 4]>(), cut in 0usize..9000) {
        let good = image(&[Block::Data(1), Block::Free, Block::Zero, Block::Data(2)], 16384, (1, 1), None, 0);
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&bytes);
        bad.truncate(cut.max(68));
        let _ = survive(bad, &good);
    }
}

/// What is said of itself by a header that one wrong bit made another.
#[test]
fn a_header_that_contradicts_itself_is_told() {
    let sound = image(&[Block::Data(1), Block::Data(2)], 8192, (1, 7), None, 0);
    let opened = alone(sound.clone()).unwrap();
    assert!(opened.doubts.is_empty(), "{:?}", opened.doubts);
    let with = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        alone(bytes)
    };
    // A map off its sector; a child that says to have no parent.
    assert_eq!(with(340, 4).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(with(424, 1).unwrap_err().kind(), ErrorKind::Corrupt);
    // A length of one block where the map has two; more blocks than are in the file; bytes before
    // each block.
    for (at, byte) in [(369, 0x10), (388, 3), (380, 1)] {
        let opened = with(at, byte).unwrap();
        assert_eq!(opened.doubts.len(), 1, "{at}: {:?}", opened.doubts);
        assert_eq!(opened.doubts, opened.warnings);
    }
}

#[test]
fn a_parent_of_another_length_is_told() {
    for (len, what) in [(8192, "longer"), (12288, "")] {
        let blocks = vec![Block::Free; len / BLOCK];
        let files = Files::new(&[
            (
                "top.vdi",
                image(&[Block::Free; 3], 12288, (2, 2), Some((1, 7)), 0),
            ),
            ("base.vdi", image(&blocks, len as u64, (1, 7), None, 0)),
        ]);
        let opened = files.image("top.vdi", &OpenOptions::default()).unwrap();
        let told = opened
            .doubts
            .iter()
            .any(|d| d.contains("longer than its parent"));
        assert_eq!(told, !what.is_empty(), "{:?}", opened.doubts);
    }
}
