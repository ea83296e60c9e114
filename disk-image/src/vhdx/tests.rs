//! VHDXs made here: differencing, 4Kn and torn ones, which qemu cannot make.

use super::header::check_crc;
use crate::{
    OpenOptions,
    guid::Guid,
    testing::{Files, alone, survive},
};
use disk_io::{DiskError, ErrorKind, conformance};
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, data: &[u8]) {
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// What a test image is to be.
#[derive(Clone)]
struct Spec {
    sector_size: u32,
    len: u64,
    write_id: u8,
    parent: Option<u8>,
    log_id: u8,
}

/// State of a payload block, and what is at its place.
type Payload = (u64, Vec<u8>);

const NO_BLOCK: Payload = (0, Vec::new());

fn header(seq: u64, spec: &Spec) -> Vec<u8> {
    let mut h = vec![0; 4 * KIB];
    put(&mut h, 0, b"head");
    put(&mut h, 8, &seq.to_le_bytes());
    h[32..48].fill(spec.write_id);
    h[48..64].fill(spec.log_id);
    put(&mut h, 66, &1u16.to_le_bytes());
    put(&mut h, 68, &(MIB as u32).to_le_bytes());
    put(&mut h, 72, &(MIB as u64).to_le_bytes());
    seal(&mut h);
    h
}

/// Log at 1 MiB, BAT at 2 MiB, metadata at 3 MiB, blocks of 1 MiB from 4 MiB on. `bitmap`
/// is the first chunk's.
fn image(spec: &Spec, blocks: &[Payload], bitmap: &[u8]) -> Vec<u8> {
    let mut f = vec![0; 4 * MIB];
    put(&mut f, 0, b"vhdxfile");
    put(&mut f, 64 * KIB, &header(1, spec));
    put(&mut f, 128 * KIB, &header(2, spec));
    let mut regions = vec![0; 64 * KIB];
    put(&mut regions, 0, b"regi");
    put(&mut regions, 8, &2u32.to_le_bytes());
    for (n, (id, at)) in [
        (0x2dc27766_f623_4200_9d64_115e9bfd4a08_u128, 2 * MIB),
        (0x8b7ca206_4790_4b9a_b8fe_575f050f886e, 3 * MIB),
    ]
    .iter()
    .enumerate()
    {
        let e = 16 + 32 * n;
        put(&mut regions, e, &Guid::new(*id).0);
        put(&mut regions, e + 16, &(*at as u64).to_le_bytes());
        put(&mut regions, e + 24, &(MIB as u32).to_le_bytes());
        put(&mut regions, e + 28, &1u32.to_le_bytes());
    }
    seal(&mut regions);
    put(&mut f, 192 * KIB, &regions);
    put(&mut f, 256 * KIB, &regions);
    metadata(&mut f[3 * MIB..], spec);
    let chunk = (1u64 << 23) * u64::from(spec.sector_size) / MIB as u64;
    for (n, (state, data)) in blocks.iter().enumerate() {
        let mut entry = *state;
        if !data.is_empty() {
            entry |= f.len() as u64;
            let mut data = data.clone();
            data.resize(MIB, 0);
            f.extend(data);
        }
        put(&mut f, 2 * MIB + 8 * n, &entry.to_le_bytes());
    }
    if !bitmap.is_empty() {
        let entry = f.len() as u64 | 6;
        let mut bits = bitmap.to_vec();
        bits.resize(MIB, 0);
        f.extend(bits);
        put(&mut f, 2 * MIB + 8 * chunk as usize, &entry.to_le_bytes());
    }
    f
}

fn metadata(region: &mut [u8], spec: &Spec) {
    put(region, 0, b"metadata");
    let mut items: Vec<(u128, Vec<u8>)> = vec![
        (
            0xcaa16737_fa36_4d43_b3b6_33f0aa44e76b,
            [
                (MIB as u32).to_le_bytes(),
                (u32::from(spec.parent.is_some()) * 2).to_le_bytes(),
            ]
            .concat(),
        ),
        (
            0x2fa54224_cd1b_4876_b211_5dbed83bf4b8,
            spec.len.to_le_bytes().to_vec(),
        ),
        (
            0x8141bf1d_a96f_4709_ba47_f233a8faab5f,
            spec.sector_size.to_le_bytes().to_vec(),
        ),
    ];
    if let Some(id) = spec.parent {
        items.push((0xa8d35f2d_b30b_454d_abf7_d3d84834ab0c, locator(id)));
    }
    put(region, 10, &(items.len() as u16).to_le_bytes());
    let mut at = 64 * KIB;
    for (n, (id, data)) in items.iter().enumerate() {
        let e = 32 + 32 * n;
        put(region, e, &Guid::new(*id).0);
        put(region, e + 16, &(at as u32).to_le_bytes());
        put(region, e + 20, &(data.len() as u32).to_le_bytes());
        put(region, e + 24, &4u32.to_le_bytes());
        put(region, at, data);
        at += data.len();
    }
}

fn locator(parent: u8) -> Vec<u8> {
    let wide = |s: &str| {
        s.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let id = Guid([parent; 16]);
    let pairs = [
        ("parent_linkage", format!("{{{id}}}")),
        ("relative_path", r".\base.vhdx".to_string()),
    ];
    let mut out = Guid::new(0xb04aefb7_d19e_4a81_b789_25b8e9445913).0.to_vec();
    out.extend([0, 0]);
    out.extend((pairs.len() as u16).to_le_bytes());
    let mut at = 20 + 12 * pairs.len();
    let mut text = Vec::new();
    for (key, value) in &pairs {
        let (key, value) = (wide(key), wide(value));
        out.extend((at as u32).to_le_bytes());
        out.extend(((at + key.len()) as u32).to_le_bytes());
        out.extend((key.len() as u16).to_le_bytes());
        out.extend((value.len() as u16).to_le_bytes());
        at += key.len() + value.len();
        text.extend(key);
        text.extend(value);
    }
    out.extend(text);
    out
}

fn spec(len: usize) -> Spec {
    Spec {
        sector_size: 512,
        len: len as u64,
        write_id: 1,
        parent: None,
        log_id: 0,
    }
}

fn filled(byte: u8) -> Payload {
    (6, vec![byte; MIB])
}

#[test]
fn states_of_blocks() {
    let blocks = [filled(7), NO_BLOCK, (1, vec![]), (2, vec![]), (3, vec![])];
    let disk = alone(image(&spec(5 * MIB - 512), &blocks, &[]))
        .unwrap()
        .disk;
    let mut expected = vec![0; 5 * MIB - 512];
    expected[..MIB].fill(7);
    conformance::check(&*disk, &expected);
    for bad in [(4, vec![1]), (5, vec![1]), (7, vec![1]), (6, vec![])] {
        let disk = alone(image(&spec(2 * MIB), &[bad, filled(2)], &[]))
            .unwrap()
            .disk;
        let e = disk.read_exact_at(&mut [0; 16], 0).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
        disk.read_exact_at(&mut [0; 16], MIB as u64).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn differencing_by_sectors(
        bits in prop::collection::vec(any::<u8>(), 2 * 256),
        states in prop::collection::vec(prop::sample::select(vec![0u64, 2, 6, 7]), 2),
        four_k: bool,
    ) {
        let sector_size = if four_k { 4096 } else { 512 };
        let len = 2 * MIB;
        let base = Spec { sector_size, ..spec(len) };
        let top = Spec { sector_size, parent: Some(1), write_id: 2, ..spec(len) };
        let blocks: Vec<Payload> = states.iter()
            .map(|s| (*s, if *s > 5 { vec![0x70; MIB] } else { vec![] }))
            .collect();
        let files = Files::new(&[
            ("top.vhdx", image(&top, &blocks, &bits)),
            ("base.vhdx", image(&base, &[filled(0xb1), filled(0xb2)], &[])),
        ]);
        let opened = files.image("top.vhdx", &OpenOptions::default()).unwrap();
        prop_assert_eq!(opened.disk.sector_size(), sector_size);
        let expected: Vec<u8> = (0..len).map(|at| {
            let block = at / MIB;
            let sector = at / sector_size as usize;
            let own = match states[block] {
                0 => None,
                2 => Some(0),
                6 => Some(0x70),
                _ if bits[sector / 8] >> (sector % 8) & 1 == 1 => Some(0x70),
                _ => None,
            };
            own.unwrap_or([0xb1, 0xb2][block])
        }).collect();
        conformance::check(&*opened.disk, &expected);
    }
}

#[test]
fn the_parent_must_be_the_one() {
    let top = Spec {
        parent: Some(9),
        write_id: 2,
        ..spec(MIB)
    };
    let top = image(&top, &[NO_BLOCK], &[]);
    let files = Files::new(&[
        ("top", top.clone()),
        ("base.vhdx", image(&spec(MIB), &[filled(1)], &[])),
    ]);
    let e = files.image("top", &OpenOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    assert_eq!(alone(top).unwrap_err().kind(), ErrorKind::NotFound);
}

/// A log entry with one data descriptor.
fn write(offset: u64, sector: &[u8; 4096], seq: u64) -> Vec<u8> {
    let mut e = vec![0; 8 * KIB];
    put(&mut e, 0, b"loge");
    put(&mut e, 8, &(8 * KIB as u32).to_le_bytes());
    put(&mut e, 16, &seq.to_le_bytes());
    put(&mut e, 24, &1u32.to_le_bytes());
    e[32..48].fill(5);
    put(&mut e, 48, &(5 * MIB as u64).to_le_bytes());
    put(&mut e, 56, &(5 * MIB as u64).to_le_bytes());
    put(&mut e, 64, b"desc");
    put(&mut e, 68, &sector[4092..]);
    put(&mut e, 72, &sector[..8]);
    put(&mut e, 80, &offset.to_le_bytes());
    put(&mut e, 88, &seq.to_le_bytes());
    put(&mut e, 4096, b"data");
    put(&mut e, 4100, &((seq >> 32) as u32).to_le_bytes());
    put(&mut e, 4104, &sector[8..4092]);
    put(&mut e, 8188, &(seq as u32).to_le_bytes());
    seal(&mut e);
    e
}

/// An image of one block of ones, with these entries in its log, each pointing at the first
/// as its tail.
fn with_log(entries: &[Vec<u8>]) -> Vec<u8> {
    let spec = Spec {
        log_id: 5,
        ..spec(MIB)
    };
    let mut f = image(&spec, &[filled(1)], &[]);
    for (n, e) in entries.iter().enumerate() {
        put(&mut f, MIB + n * 8 * KIB, e);
    }
    f
}

#[test]
fn the_log_is_replayed_in_order() {
    let at = 4 * MIB as u64;
    let mut mixed = [3u8; 4096];
    mixed[0] = 0xaa;
    mixed[4095] = 0xbb;
    let f = with_log(&[
        write(at, &[2; 4096], 5),
        write(at + 4096, &mixed, 6),
        write(at, &[4; 4096], 7),
    ]);
    let opened = alone(f).unwrap();
    assert!(
        opened.warnings[0].contains("3 entries"),
        "{:?}",
        opened.warnings
    );
    let mut expected = vec![1; MIB];
    expected[..4096].fill(4);
    expected[4096..8192].copy_from_slice(&mixed);
    conformance::check(&*opened.disk, &expected);
    // The newest one is torn: the sequence ends before it.
    let mut torn = write(at, &[4; 4096], 7);
    torn[5000] ^= 1;
    let f = with_log(&[write(at, &[2; 4096], 5), write(at + 4096, &mixed, 6), torn]);
    expected[..4096].fill(2);
    conformance::check(&*alone(f).unwrap().disk, &expected);
    // Nothing whole in it: contents of which time is not known.
    let e = alone(with_log(&[])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
}

#[test]
fn a_log_of_nothing_but_beginnings_ends_soon() {
    let mut f = with_log(&[]);
    for n in 0..256 {
        let at = MIB + n * 4 * KIB;
        let mut e = vec![0; 64];
        put(&mut e, 0, b"loge");
        put(&mut e, 8, &(MIB as u32).to_le_bytes());
        put(&mut e, 16, &1u64.to_le_bytes());
        e[32..48].fill(5);
        put(&mut f, at, &e);
    }
    let start = std::time::Instant::now();
    assert!(alone(f).is_err());
    assert!(start.elapsed().as_secs() < 2);
}

#[test]
fn one_torn_header_or_table_is_no_loss() {
    let good = image(&spec(MIB), &[filled(8)], &[]);
    for at in [
        64 * KIB + 100,
        128 * KIB + 100,
        192 * KIB + 100,
        256 * KIB + 100,
    ] {
        let mut f = good.clone();
        f[at] ^= 1;
        conformance::check(&*alone(f).unwrap().disk, &vec![8; MIB]);
    }
    let mut f = good.clone();
    f[64 * KIB + 100] ^= 1;
    f[128 * KIB + 100] ^= 1;
    assert_eq!(alone(f).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut h = good[64 * KIB..68 * KIB].to_vec();
    check_crc(&h, b"head", || DiskError::corrupt("test")).unwrap();
    h[9] ^= 1;
    check_crc(&h, b"head", || DiskError::corrupt("test")).unwrap_err();
}

#[test]
fn what_is_required_and_unknown_is_refused() {
    let mut f = image(&spec(MIB), &[filled(8)], &[]);
    put(&mut f, 3 * MIB + 10, &4u16.to_le_bytes());
    let e = 3 * MIB + 32 + 32 * 3;
    f[e..e + 16].fill(0x33);
    assert!(alone(f.clone()).is_ok(), "unknown and not required");
    put(&mut f, e + 24, &4u32.to_le_bytes());
    let e = alone(f).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
}

proptest! {
    #[test]
    fn damage_never_panics(
        place in prop::sample::select(vec![0, 64 * KIB, 192 * KIB, MIB, 2 * MIB, 3 * MIB, 3 * MIB + 64 * KIB]),
        at in 0usize..300, bytes in any::<[u8; 4]>(), both: bool, cut in 0usize..(6 * MIB)
    ) {
        let good = with_log(&[write(4 * MIB as u64, &[9; 4096], 5)]);
        let mut bad = good.clone();
        put(&mut bad, place + at, &bytes);
        if both && (64 * KIB..MIB).contains(&place) {
            seal(&mut bad[64 * KIB..68 * KIB]);
            seal(&mut bad[192 * KIB..256 * KIB]);
            put(&mut bad, 128 * KIB, &[0; 4]);
        }
        bad.truncate(cut.max(MIB));
        let _ = survive(bad, &good);
    }
}

/// The header that announces the log is damaged, the older one knows nothing of it.
#[test]
fn a_log_that_only_a_damaged_header_announces_is_told() {
    let at = 4 * MIB as u64;
    let mut f = with_log(&[write(at, &[2; 4096], 5)]);
    put(&mut f, 64 * KIB, &header(1, &spec(MIB)));
    assert!(alone(f.clone()).unwrap().doubts.is_empty());
    f[128 * KIB + 100] ^= 1;
    let opened = alone(f).unwrap();
    assert_eq!(opened.doubts.len(), 1, "{:?}", opened.doubts);
    // Without a log it may be, and is said.
    let mut f = image(&spec(MIB), &[filled(1)], &[]);
    f[128 * KIB + 100] ^= 1;
    let opened = alone(f).unwrap();
    assert!(opened.doubts.is_empty() && opened.warnings.len() == 1);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let sound = image(&spec(2 * MIB), &[filled(1), filled(2)], &[]);
    let corrupt = |f: Vec<u8>| {
        let e = match alone(f) {
            Ok(opened) => opened.disk.read_exact_at(&mut [0; 16], 0).unwrap_err(),
            Err(e) => e,
        };
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    };
    // A block of zeros that has a place.
    let mut f = sound.clone();
    f[2 * MIB] = 2;
    corrupt(f);
    // The size is read from where the parameters are.
    let mut f = sound.clone();
    f[3 * MIB + 32 + 32 + 16] = 0;
    corrupt(f);
    // An item of no length, which may be said to be anywhere.
    let mut f = sound.clone();
    put(&mut f, 3 * MIB + 32 + 16, &0x8000_0000u32.to_le_bytes());
    put(&mut f, 3 * MIB + 32 + 20, &0u32.to_le_bytes());
    corrupt(f);
    // A parent is named, and the mark of a child is lost.
    let top = Spec {
        parent: Some(1),
        ..spec(MIB)
    };
    let mut f = image(&top, &[NO_BLOCK], &[]);
    f[3 * MIB + 64 * KIB + 4] = 0;
    corrupt(f);
    // Bits of sectors where the log is.
    let mut f = image(&top, &[(7, vec![1])], &[1]);
    let entry = (MIB as u64 | 6).to_le_bytes();
    put(&mut f, 2 * MIB + 8 * 4096, &entry);
    let files = Files::new(&[
        ("top", f),
        ("base.vhdx", image(&spec(MIB), &[filled(1)], &[])),
    ]);
    let opened = files.image("top", &OpenOptions::default()).unwrap();
    let e = opened.disk.read_exact_at(&mut [0; 16], 0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
}
