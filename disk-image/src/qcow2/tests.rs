//! qcow2 files made here by hand: what qemu-img does not make, and damage.

use crate::{
    OpenOptions,
    testing::{Files, alone, survive},
};
use disk_io::{ErrorKind, conformance};
use libdeflater::{CompressionLvl, Compressor};
use proptest::prelude::*;

const CLUSTER: usize = 512;

#[derive(Clone, Copy, Debug)]
enum Cluster {
    Below,
    Zero,
    /// Zero, with a place that must not be read.
    ZeroKept(u8),
    Data(u8),
    Packed(u8),
}

fn header(version: u32, bits: u32, size: u64, l1: (u32, u64)) -> Vec<u8> {
    let mut h = vec![0; 112];
    h[..4].copy_from_slice(b"QFI\xfb");
    h[4..8].copy_from_slice(&version.to_be_bytes());
    h[20..24].copy_from_slice(&bits.to_be_bytes());
    h[24..32].copy_from_slice(&size.to_be_bytes());
    h[36..40].copy_from_slice(&l1.0.to_be_bytes());
    h[40..48].copy_from_slice(&l1.1.to_be_bytes());
    h[96..100].copy_from_slice(&4u32.to_be_bytes());
    h[100..104].copy_from_slice(&104u32.to_be_bytes());
    if version == 2 {
        h[72..].fill(0);
    }
    h
}

/// A version 3 file with clusters of 512 bytes: 64 to a table.
fn image(clusters: &[Cluster], size: u64, backing: Option<(&str, &str)>) -> Vec<u8> {
    let tables = clusters.len().div_ceil(64).max(1);
    let l1_len = (tables * 8).next_multiple_of(CLUSTER);
    let mut f = header(3, 9, size, (tables as u32, CLUSTER as u64));
    f.resize(CLUSTER, 0);
    if let Some((name, format)) = backing {
        f[104..108].copy_from_slice(&0xe279_2aca_u32.to_be_bytes());
        f[108..112].copy_from_slice(&(format.len() as u32).to_be_bytes());
        f[112..112 + format.len()].copy_from_slice(format.as_bytes());
        f[8..16].copy_from_slice(&400u64.to_be_bytes());
        f[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        f[400..400 + name.len()].copy_from_slice(name.as_bytes());
    }
    f.resize(CLUSTER + l1_len + tables * CLUSTER, 0);
    for t in 0..tables {
        let at = (CLUSTER + l1_len + t * CLUSTER) as u64 | 1 << 63;
        f[CLUSTER + t * 8..CLUSTER + t * 8 + 8].copy_from_slice(&at.to_be_bytes());
    }
    let mut deflate = Compressor::new(CompressionLvl::fastest());
    for (n, cluster) in clusters.iter().enumerate() {
        let entry = match cluster {
            Cluster::Below => 0,
            Cluster::Zero => 1,
            Cluster::ZeroKept(b) | Cluster::Data(b) => {
                f.resize(f.len().next_multiple_of(CLUSTER), 0);
                let at = f.len() as u64 | 1 << 63;
                f.extend([*b; CLUSTER]);
                at | u64::from(matches!(cluster, Cluster::ZeroKept(_)))
            }
            Cluster::Packed(b) => {
                let mut out = vec![0; 1024];
                let len = deflate.deflate_compress(&[*b; CLUSTER], &mut out).unwrap();
                let at = f.len() as u64;
                f.extend(&out[..len]);
                // Sectors touched beyond the first.
                let sectors = ((at % 512) as usize + len - 1) as u64 / 512;
                at | sectors << (62 - 1) | 1 << 62
            }
        };
        let at = CLUSTER + l1_len + n * 8;
        f[at..at + 8].copy_from_slice(&entry.to_be_bytes());
    }
    f
}

fn merged(top: &[Cluster], below: &[u8], size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| match top[at / CLUSTER] {
            Cluster::Below => below.get(at).copied().unwrap_or(0),
            Cluster::Zero | Cluster::ZeroKept(_) => 0,
            Cluster::Data(b) | Cluster::Packed(b) => b,
        })
        .collect()
}

fn clusters() -> impl Strategy<Value = Vec<Cluster>> {
    let one = prop_oneof![
        2 => Just(Cluster::Below),
        1 => Just(Cluster::Zero),
        1 => any::<u8>().prop_map(Cluster::ZeroKept),
        2 => any::<u8>().prop_map(Cluster::Data),
        2 => any::<u8>().prop_map(Cluster::Packed),
    ];
    prop::collection::vec(one, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn reads_like_the_model(
        top in clusters(), base in clusters(), cut in 0usize..500, raw in prop::collection::vec(any::<u8>(), 0..9000)
    ) {
        let size = top.len() * CLUSTER - cut;
        let base_size = base.len() * CLUSTER;
        let files = Files::new(&[
            ("top", image(&top, size as u64, Some(("base", "qcow2")))),
            ("base", image(&base, base_size as u64, Some(("raw", "raw")))),
            ("raw", raw.clone()),
        ]);
        let below = merged(&base, &raw, base_size);
        let opened = files.image("base", &OpenOptions::default()).unwrap();
        conformance::check(&*opened.disk, &below);
        let opened = files.image("top", &OpenOptions::default()).unwrap();
        conformance::check(&*opened.disk, &merged(&top, &below, size));
    }
}

/// Headers that claim the impossible: refused at once, in no memory.
#[test]
fn hostile_headers() {
    let open = |h: Vec<u8>| alone(h).unwrap_err().kind();
    let huge = header(3, 9, 1 << 62, (u32::MAX, 512));
    assert_eq!(open(huge), ErrorKind::Corrupt);
    let mut big_table = header(3, 16, 1 << 40, (1 << 22, 65536));
    big_table.resize(70_000, 0);
    assert_eq!(open(big_table), ErrorKind::Corrupt);
    assert_eq!(open(header(3, 22, 512, (1, 512))), ErrorKind::Corrupt);
    assert_eq!(open(header(3, 8, 512, (1, 512))), ErrorKind::Corrupt);
    assert_eq!(open(header(7, 9, 512, (1, 512))), ErrorKind::Unsupported);
    let mut aes = header(3, 9, 512, (1, 512));
    aes[35] = 1;
    let e = alone(aes).unwrap_err();
    assert!(
        e.kind() == ErrorKind::Unsupported && e.to_string().contains("AES"),
        "{e}"
    );
    let mut unknown = header(3, 9, 512, (1, 512));
    unknown[75] = 0x80;
    unknown.resize(1024, 0);
    let e = alone(unknown).unwrap_err();
    assert!(
        e.kind() == ErrorKind::Unsupported && e.to_string().contains("bit 39"),
        "{e}"
    );
}

#[test]
fn entries_that_break_the_rules_fail_to_read() {
    let good = image(&[Cluster::Data(1), Cluster::Data(2)], 1024, None);
    // The first L2 entry: reserved bits, an odd place, a place beyond the end.
    for entry in [1536u64 | 2, 1536 | (1 << 57), 1 << 40] {
        let mut f = good.clone();
        f[1024..1032].copy_from_slice(&entry.to_be_bytes());
        let disk = alone(f).unwrap().disk;
        let e = disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
        let mut second = [0; 512];
        disk.read_exact_at(&mut second, 512).unwrap();
        assert_eq!(second, [2; 512]);
    }
    // The L1 entry: no table can be there.
    for entry in [1u64 << 40, 700, 512 | 1 << 60] {
        let mut f = good.clone();
        f[512..520].copy_from_slice(&entry.to_be_bytes());
        let e = alone(f)
            .unwrap()
            .disk
            .read_exact_at(&mut [0; 1], 0)
            .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    }
}

#[test]
fn names_lead_nowhere_else() {
    let with = |name: &str, format: &str| {
        let top = image(&[Cluster::Below], 512, Some((name, format)));
        let files = Files::new(&[("top", top), ("base", vec![7; 512])]);
        files.image("top", &OpenOptions::default())
    };
    let opened = with("file:base", "raw").unwrap();
    conformance::check(&*opened.disk, &[7; 512]);
    for (name, format, kind) in [
        ("nbd://host/x", "raw", ErrorKind::Unsupported),
        ("json:{\"driver\":\"file\"}", "raw", ErrorKind::Unsupported),
        ("gone", "raw", ErrorKind::NotFound),
        ("base", "rbd", ErrorKind::Unsupported),
        ("base", "qcow2", ErrorKind::Corrupt),
        ("top", "qcow2", ErrorKind::Corrupt),
    ] {
        let e = with(name, format).unwrap_err();
        assert_eq!(e.kind(), kind, "{name} as {format}: {e}");
    }
    // Without a format the contents say, and the user is told.
    let guessed = image(&[Cluster::Below], 512, Some(("base", "")));
    let mut guessed = guessed;
    guessed[104..112].fill(0);
    let files = Files::new(&[("top", guessed), ("base", vec![7; 512])]);
    let opened = files.image("top", &OpenOptions::default()).unwrap();
    assert!(opened.warnings[0].contains("does not name the format"));
    conformance::check(&*opened.disk, &[7; 512]);
}

#[test]
fn a_snapshot_is_only_for_formats_that_have_them() {
    let options = OpenOptions {
        snapshot: Some("one".into()),
        ..OpenOptions::default()
    };
    let files = Files::new(&[("raw", vec![1; 512])]);
    assert_eq!(
        files.image("raw", &options).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

proptest! {
    #[test]
    fn damage_never_panics(at in 4usize..1700, bytes in any::<[u8; 4]>(), cut in 0usize..4000) {
        use Cluster::{Data, Packed, Zero};
        let good = image(&[Data(1), Packed(2), Zero, Data(3), Packed(4)], 2560, None);
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&bytes);
        bad.truncate(cut.max(8));
        let _ = survive(bad, &good);
    }
}

/// What one wrong bit would make a disk of zeros, or of ciphertext.
#[test]
fn what_contradicts_itself_is_refused() {
    let refused = |f: Vec<u8>| {
        let e = match alone(f) {
            Ok(opened) => opened.disk.read_exact_at(&mut [0; 16], 0).unwrap_err(),
            Err(e) => e,
        };
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    };
    let sound = image(&[Cluster::Data(1)], 512, None);
    // An L1 and an L2 entry that are in use and have no place.
    for at in [CLUSTER, 2 * CLUSTER] {
        let mut f = sound.clone();
        f[at..at + 8].copy_from_slice(&(1u64 << 63).to_be_bytes());
        refused(f);
    }
    // The format of a backing file, and no backing file.
    let mut f = image(&[Cluster::Below], 512, Some(("base", "raw")));
    f[8..16].fill(0);
    refused(f);
    // The header of an encryption, and no method.
    let mut f = sound.clone();
    f[104..108].copy_from_slice(&0x0537_be77_u32.to_be_bytes());
    refused(f);
    // A refcount table in the place of data: reading does without it.
    let mut f = sound;
    let data = f.len() as u64 - 512;
    f[48..56].copy_from_slice(&data.to_be_bytes());
    f[56..60].copy_from_slice(&1u32.to_be_bytes());
    let opened = alone(f).unwrap();
    conformance::check(&*opened.disk, &[1; 512]);
    let mut tables = Vec::new();
    let layered = opened.layered.unwrap();
    layered.layers()[0]
        .tables(&mut |_, range| tables.push(range))
        .unwrap();
    assert!(tables.contains(&(data..data + 512)), "{tables:?}");
}
