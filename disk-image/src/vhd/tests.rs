//! VHDs made here: the model is a vector of sectors.

use crate::{
    OpenOptions,
    testing::{Files, alone, survive},
};
use disk_io::{ErrorKind, conformance};
use proptest::prelude::*;

const SECTOR: usize = 512;

fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum = bytes
        .iter()
        .fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

fn footer(kind: u32, len: u64, id: u8) -> Vec<u8> {
    let mut f = vec![0; SECTOR];
    f[..8].copy_from_slice(b"conectix");
    f[12..16].copy_from_slice(&0x0001_0000u32.to_be_bytes());
    let data_offset = if kind == 2 { u64::MAX } else { 512 };
    f[16..24].copy_from_slice(&data_offset.to_be_bytes());
    f[28..32].copy_from_slice(b"test");
    f[48..56].copy_from_slice(&len.to_be_bytes());
    f[60..64].copy_from_slice(&kind.to_be_bytes());
    f[68..84].fill(id);
    seal(&mut f, 64);
    f
}

pub(super) fn fixed(contents: &[u8]) -> Vec<u8> {
    let mut out = contents.to_vec();
    out.extend(footer(2, contents.len() as u64, 1));
    out
}

/// A sparse VHD of `sectors`, of which `Some` ones are stored, in blocks of `block` bytes.
/// With a parent, `None` is the parent's; without one it is zero.
fn sparse(sectors: &[Option<u8>], block: usize, parent: Option<(u8, &str)>, id: u8) -> Vec<u8> {
    let len = (sectors.len() * SECTOR) as u64;
    let kind = if parent.is_some() { 4 } else { 3 };
    let foot = footer(kind, len, id);
    let per_block = block / SECTOR;
    let blocks = sectors.len().div_ceil(per_block);
    let table_at = 512 + 1024;
    let mut h = vec![0; 1024];
    h[..8].copy_from_slice(b"cxsparse");
    h[8..16].fill(0xff);
    h[16..24].copy_from_slice(&(table_at as u64).to_be_bytes());
    h[24..28].copy_from_slice(&0x0001_0000u32.to_be_bytes());
    h[28..32].copy_from_slice(&(blocks as u32).to_be_bytes());
    h[32..36].copy_from_slice(&(block as u32).to_be_bytes());
    let table_len = (blocks * 4).next_multiple_of(SECTOR);
    let mut name = Vec::new();
    if let Some((parent_id, text)) = parent {
        h[40..56].fill(parent_id);
        name = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        h[576..580].copy_from_slice(b"W2ru");
        h[580..584].copy_from_slice(&512u32.to_be_bytes());
        h[584..588].copy_from_slice(&(name.len() as u32).to_be_bytes());
        h[592..600].copy_from_slice(&((table_at + table_len) as u64).to_be_bytes());
    }
    seal(&mut h, 36);
    name.resize(SECTOR, 0);
    let mut table = Vec::new();
    let mut data = Vec::new();
    let data_at = table_at + table_len + SECTOR;
    for part in sectors.chunks(per_block) {
        if part.iter().all(Option::is_none) {
            table.extend(u32::MAX.to_be_bytes());
            continue;
        }
        let at = (data_at + data.len()) / SECTOR;
        table.extend((at as u32).to_be_bytes());
        let mut bitmap = vec![0u8; per_block.div_ceil(8).next_multiple_of(SECTOR)];
        let mut bytes = vec![0u8; block];
        for (n, sector) in part.iter().enumerate() {
            if let Some(b) = sector {
                bitmap[n / 8] |= 0x80 >> (n % 8);
                bytes[n * SECTOR..(n + 1) * SECTOR].fill(*b);
            } else if parent.is_some() {
                // What is not this file's must not show.
                bytes[n * SECTOR..(n + 1) * SECTOR].fill(0xee);
            }
        }
        data.extend(bitmap);
        data.extend(bytes);
    }
    table.resize(table_len, 0xff);
    [foot.clone(), h, table, name, data, foot].concat()
}

fn contents(sectors: &[Option<u8>]) -> Vec<u8> {
    sectors
        .iter()
        .flat_map(|s| [s.unwrap_or(0); SECTOR])
        .collect()
}

fn sectors(max: usize) -> impl Strategy<Value = Vec<Option<u8>>> {
    prop::collection::vec(
        prop_oneof![2 => Just(None), 1 => any::<u8>().prop_map(Some)],
        1..max,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn reads_like_the_model(top in sectors(60), base in sectors(60), shift in 0u32..6) {
        let block = SECTOR << shift;
        let image = alone(sparse(&base, 4096, None, 1)).unwrap();
        conformance::check(&*image.disk, &contents(&base));
        let files = Files::new(&[
            ("top.vhd", sparse(&top, block, Some((1, r".\base.vhd")), 2)),
            ("base.vhd", sparse(&base, 4096, None, 1)),
        ]);
        let image = files.image("top.vhd", &OpenOptions::default()).unwrap();
        prop_assert_eq!(image.links.len(), 2);
        let merged: Vec<_> = top.iter().enumerate()
            .map(|(n, s)| s.or_else(|| base.get(n).copied().flatten()))
            .collect();
        conformance::check(&*image.disk, &contents(&merged));
    }
}

#[test]
fn a_damaged_footer_has_a_copy() {
    let s = [Some(9), None, Some(7)];
    let mut image = sparse(&s, 512, None, 1);
    let end = image.len();
    image[end - 100] ^= 1;
    let opened = alone(image.clone()).unwrap();
    assert!(
        opened.warnings[0].contains("footer is damaged"),
        "{:?}",
        opened.warnings
    );
    conformance::check(&*opened.disk, &contents(&s));
    image[100] ^= 1;
    assert_eq!(alone(image).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_footer_of_511_bytes() {
    let mut image = fixed(&[3; 2048]);
    image.pop();
    conformance::check(&*alone(image).unwrap().disk, &[3; 2048]);
}

#[test]
fn the_parent_must_be_the_one() {
    let top = sparse(&[None], 512, Some((1, "base.vhd")), 2);
    let files = Files::new(&[("top", top), ("base.vhd", fixed(&[5; 512]))]);
    files.image("top", &OpenOptions::default()).unwrap();
    let top = sparse(&[None], 512, Some((9, "base.vhd")), 2);
    let files = Files::new(&[("top", top.clone()), ("base.vhd", fixed(&[5; 512]))]);
    let e = files.image("top", &OpenOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    assert!(e.to_string().contains("0909"), "{e}");
    let mut options = OpenOptions::default();
    options.vmdk.ignore_cid = true;
    let image = files.image("top", &options).unwrap();
    assert_eq!(image.warnings.len(), 1);
    conformance::check(&*image.disk, &[5; 512]);
    let e = Files::new(&[("top", top)])
        .image("top", &OpenOptions::default())
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
}

#[test]
fn a_disk_below_itself_is_found_out() {
    let one = sparse(&[None], 512, Some((2, "two")), 1);
    let two = sparse(&[None], 512, Some((1, "one")), 2);
    let e = Files::new(&[("one", one), ("two", two)])
        .image("one", &OpenOptions::default())
        .unwrap_err();
    assert!(e.to_string().contains("below itself"), "{e}");
}

#[test]
fn blocks_outside_the_file_fail_to_read_and_are_no_zeros() {
    let mut image = sparse(&[Some(1), Some(2)], 512, None, 1);
    image[1536..1540].copy_from_slice(&0x00ff_ffffu32.to_be_bytes());
    let disk = alone(image).unwrap().disk;
    let e = disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert_eq!(e.at(), Some(1536));
    let mut second = [0; 512];
    disk.read_exact_at(&mut second, 512).unwrap();
    assert_eq!(second, [2; 512]);
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..3000, bytes in any::<[u8; 4]>(), seal_again: bool, cut in 0usize..9000) {
        let good = sparse(&[Some(1), None, Some(3), Some(4)], 1024, None, 1);
        let mut bad = good.clone();
        let at = at % (bad.len() - 4);
        bad[at..at + 4].copy_from_slice(&bytes);
        if seal_again {
            // Past the checksums, into the checks behind them.
            seal(&mut bad[..512], 64);
            seal(&mut bad[512..1536], 36);
            let end = bad.len();
            seal(&mut bad[end - 512..], 64);
        }
        bad.truncate(cut.max(1));
        let _ = survive(bad, &good);
    }
}

/// A block that lies a sector off begins in the bitmap of the next; one more sector, and the last
/// reaches over the footer.
#[test]
fn bitmaps_and_footer_are_told_as_tables() {
    let image = alone(sparse(&[Some(1); 16], 4096, None, 1)).unwrap();
    let layered = image.layered.unwrap();
    let mut tables = Vec::new();
    layered.layers()[0]
        .tables(&mut |_, range| tables.push(range))
        .unwrap();
    // The copy of the footer, header and table; two blocks behind bitmaps; the footer.
    let blocks: Vec<u64> = [0, 1].iter().map(|n| 2560 + n * (512 + 4096)).collect();
    let end = 2560 + 2 * (512 + 4096);
    for range in [
        0..512,
        blocks[0]..blocks[0] + 512,
        blocks[1]..blocks[1] + 512,
        end..end + 512,
    ] {
        assert!(tables.contains(&range), "{range:?} in {tables:?}");
    }
    let mut bytes = sparse(&[Some(1); 16], 4096, None, 1);
    let last = 1536 + 4;
    bytes[last + 3] += 1;
    let disk = alone(bytes).unwrap().disk;
    let e = disk.read_exact_at(&mut [0; 16], 4096).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
}

/// A length of half the file, in a footer whose sum is right.
#[test]
fn more_data_than_the_footer_says_is_told() {
    let mut bytes = vec![5; 8192];
    bytes.extend(footer(2, 4096, 1));
    let opened = alone(bytes).unwrap();
    assert_eq!(opened.doubts.len(), 1, "{:?}", opened.doubts);
    assert!(alone(fixed(&[5; 8192])).unwrap().doubts.is_empty());
}
