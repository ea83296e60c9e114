//! LVM2 physical volumes of the collection, and groups made by `pvcreate` and `vgcreate`'s
//! text format by hand.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod volume_common;

use disk_io::{Disk, MemDisk};
use guest_fs::{ErrorKind, OpenOptions, lvm2, volume};
use std::sync::Arc;
use volume_common::{disk, images, walk};

#[test]
fn volumes_of_the_collection() {
    let Some((dir, _)) = images() else { return };
    let scan = |names: &[&str]| {
        let disks: Vec<_> = names
            .iter()
            .map(|n| disk(&dir.join("partition").join(n)))
            .collect();
        lvm2::scan(&disks).unwrap().groups
    };
    let groups = scan(&["dissect/lvm.bin"]);
    assert_eq!(
        (groups[0].name.as_str(), groups[0].volumes[0].name.as_str()),
        ("vg_test", "lv_test")
    );
    assert_eq!(groups[0].volumes[0].len, 4 << 20);
    let one = groups[0].volumes[0].open().unwrap();
    disk_io::conformance::check_rules(&one);

    let groups = scan(&["plaso/lvm.raw"]);
    assert_eq!(groups[0].volumes.len(), 2, "{groups:?}");
    let mut read = 0;
    for lv in groups[0].volumes.iter().filter(|v| v.visible) {
        let logical = lv.open().unwrap();
        if let Ok(fs) = volume::open(&logical, &OpenOptions::default()) {
            let (found, errors) = walk(&*fs);
            assert_eq!(errors, Vec::<String>::new(), "{}", lv.name);
            read += found.iter().filter(|f| f.bytes.is_ok()).count();
        }
    }
    assert!(read > 0);

    let groups = scan(&["dissect/lvm-thin.bin"]);
    for lv in &groups[0].volumes {
        if lv.kinds.iter().any(|k| k.starts_with("thin")) {
            let e = lv.open().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unsupported);
            assert!(e.to_string().contains("thin"), "{e}");
        }
    }
    // Half of a mirrored group: what is missing is said.
    let groups = scan(&["dissect/lvm-mirror-1.bin"]);
    assert_eq!(groups[0].missing.len(), 1);
    let hidden: Vec<_> = groups[0].volumes.iter().filter(|v| !v.visible).collect();
    let reads = hidden
        .iter()
        .map(|v| v.open().unwrap().read_exact_at(&mut [0; 512], 0).is_ok());
    assert_eq!(reads.filter(|r| *r).count(), 1);
    let both = scan(&["dissect/lvm-mirror-1.bin", "dissect/lvm-mirror-2.bin"]);
    assert_eq!((both.len(), both[0].missing.len()), (1, 0));
}

/// LVM's checksum.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    crc.update(bytes);
    !crc.finalize()
}

const AREA: usize = 4096;
const AREA_LEN: usize = 64 << 10;
const EXTENT: usize = 64 << 10;
const PE_START: usize = 128 << 10;

/// A physical volume with a metadata area whose text goes round its end.
fn pv(id: &str, text: &str, extents: usize) -> Vec<u8> {
    let mut disk = vec![0u8; PE_START + extents * EXTENT];
    let label = &mut disk[512..1024];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(id.replace('-', "").as_bytes());
    label[72..80].copy_from_slice(&(PE_START as u64).to_le_bytes());
    label[104..112].copy_from_slice(&(AREA as u64).to_le_bytes());
    label[112..120].copy_from_slice(&(AREA_LEN as u64).to_le_bytes());
    let sum = checksum(&label[20..512]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    let place = AREA_LEN - 100;
    let bytes = text.as_bytes();
    disk[AREA + place..AREA + AREA_LEN].copy_from_slice(&bytes[..100]);
    disk[AREA + 512..AREA + 512 + bytes.len() - 100].copy_from_slice(&bytes[100..]);
    let area = &mut disk[AREA..AREA + 512];
    area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    area[20] = 1;
    area[24..32].copy_from_slice(&(AREA as u64).to_le_bytes());
    area[32..40].copy_from_slice(&(AREA_LEN as u64).to_le_bytes());
    area[40..48].copy_from_slice(&(place as u64).to_le_bytes());
    area[48..56].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    area[56..60].copy_from_slice(&checksum(bytes).to_le_bytes());
    let sum = checksum(&area[4..512]);
    area[..4].copy_from_slice(&sum.to_le_bytes());
    disk
}

const A: &str = "AAAAAA-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";
const B: &str = "BBBBBB-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb";

fn text(seqno: u32, names: &str) -> String {
    format!(
        r#"vg {{
id = "VG"
seqno = {seqno}
extent_size = 128
physical_volumes {{
 pv0 {{ id = "{A}"
 pe_start = 256 }}
 pv1 {{ id = "{B}"
 pe_start = 256 }}
}}
logical_volumes {{
{names} {{
 id = "LV"
 status = ["READ", "WRITE", "VISIBLE"]
 segment_count = 2
 segment1 {{ start_extent = 0
  extent_count = 2
  type = "striped"
  stripe_count = 1
  stripes = [ "pv1", 1 ] }}
 segment2 {{ start_extent = 2
  extent_count = 4
  type = "striped"
  stripe_count = 2
  stripe_size = 8 # 4 KiB
  stripes = [ "pv0", 0, "pv1", 3 ] }}
}}
}}
}}
"#
    )
}

#[test]
fn linear_and_striped_segments_over_two_disks() {
    let mut a = pv(A, &text(7, "new"), 8);
    // The older text on the other disk must not win.
    let mut b = pv(B, &text(3, "old"), 8);
    let mut expected = vec![0u8; 6 * EXTENT];
    for (n, byte) in expected.iter_mut().enumerate() {
        *byte = (n / 512 * 7 + n) as u8;
    }
    b[PE_START + EXTENT..PE_START + 3 * EXTENT].copy_from_slice(&expected[..2 * EXTENT]);
    for (n, chunk) in expected[2 * EXTENT..].chunks(4096).enumerate() {
        let (to, base) = if n % 2 == 0 {
            (&mut a, PE_START)
        } else {
            (&mut b, PE_START + 3 * EXTENT)
        };
        let at = base + n / 2 * 4096;
        to[at..at + 4096].copy_from_slice(chunk);
    }
    let (a, b): (Arc<dyn Disk>, Arc<dyn Disk>) =
        (Arc::new(MemDisk::new(a)), Arc::new(MemDisk::new(b)));
    for order in [[a.clone(), b.clone()], [b.clone(), a.clone()]] {
        let groups = lvm2::scan(&order).unwrap().groups;
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].volumes[0].name, "new");
        disk_io::conformance::check(&groups[0].volumes[0].open().unwrap(), &expected);
        let doubts = &groups[0].volumes[0].doubts;
        assert!(
            doubts.len() == 1 && doubts[0].contains("has version 3 of the group's metadata"),
            "{doubts:?}"
        );
    }
    let alone = lvm2::scan(&[a]).unwrap().groups;
    assert!(alone[0].volumes[0].doubts.is_empty());
    assert_eq!(alone[0].missing, [B]);
    let lv = alone[0].volumes[0].open().unwrap();
    assert!(
        lv.read_exact_at(&mut [0], 0)
            .unwrap_err()
            .to_string()
            .contains(B)
    );
    assert!(lv.read_exact_at(&mut [0; 4096], 2 * EXTENT as u64).is_ok());
    assert!(lv.read_exact_at(&mut [0; 4097], 2 * EXTENT as u64).is_err());
}

#[test]
fn damaged_physical_volumes_are_survived() {
    let good = pv(A, &text(7, "new"), 1);
    let mut seed = 1u64;
    for _ in 0..500 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % 8192;
            bytes[at] = (seed >> 20) as u8;
        }
        let damaged: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
        for group in lvm2::scan(&[damaged]).unwrap_or_default().groups {
            for lv in &group.volumes {
                if let Ok(d) = lv.open() {
                    let _ = d.run_at(0);
                }
            }
        }
    }
    let mut bytes = good;
    bytes[AREA + 600] ^= 1;
    let found = lvm2::scan(&[Arc::new(MemDisk::new(bytes)) as Arc<dyn Disk>]).unwrap();
    assert!(
        found.groups.is_empty(),
        "a text with a bad checksum is not believed"
    );
    assert!(found.remarks[0].contains("checksum"), "{:?}", found.remarks);
}

fn both(a: Vec<u8>, b: Vec<u8>) -> [Arc<dyn Disk>; 2] {
    [Arc::new(MemDisk::new(a)), Arc::new(MemDisk::new(b))]
}

/// Members that were not together when the group was changed last have bytes of different times.
#[test]
fn a_member_that_was_away_is_doubtful() {
    let now = text(7, "new");
    let marked = now.replacen(
        "pe_start = 256 }",
        "pe_start = 256\n flags = [\"MISSING\"] }",
        1,
    );
    let moved = now.replacen("id = \"VG\"", "id = \"OTHER\"", 1);
    for (a, b, expected) in [
        (&now, &now, None),
        (
            &marked,
            &marked,
            Some("was not there when the group was changed"),
        ),
        (&now, &moved, Some("is of another group")),
        (
            &now,
            &text(7, "other"),
            Some("different metadata of one version"),
        ),
    ] {
        let groups = lvm2::scan(&both(pv(A, a, 8), pv(B, b, 8))).unwrap().groups;
        let doubts = &groups[0].volumes[0].doubts;
        match expected {
            None => assert!(doubts.is_empty(), "{doubts:?}"),
            Some(why) => assert!(doubts.len() == 1 && doubts[0].contains(why), "{doubts:?}"),
        }
    }
}

/// Which of two clones is meant, nobody knows.
#[test]
fn two_disks_that_are_the_same_member_are_refused() {
    let now = text(7, "new");
    let twins = both(pv(A, &now, 8), pv(A, &now, 8));
    let groups = lvm2::scan(&twins).unwrap().groups;
    let e = groups[0].volumes[0].open().unwrap_err();
    assert!(e.to_string().contains(&format!("two that are {A}")), "{e}");
}

/// What a snapshot holds that is being merged belongs to the origin, whose own extents are older.
#[test]
fn an_origin_that_is_being_merged_into_is_refused() {
    for (key, refused) in [("merging_store", true), ("cow_store", false)] {
        let snapshot = format!(
            "logical_volumes {{\nsnapshot0 {{\n id = \"S\"\n status = [\"READ\"]\n segment_count = 1\n \
             segment1 {{ start_extent = 0\n extent_count = 6\n type = \"snapshot\"\n chunk_size = 8\n \
             origin = \"new\"\n {key} = \"snap\" }}\n}}\n"
        );
        let text = text(7, "new").replacen("logical_volumes {\n", &snapshot, 1);
        let disks = both(pv(A, &text, 8), pv(B, &text, 8));
        let groups = lvm2::scan(&disks).unwrap().groups;
        let origin = groups[0].volumes.iter().find(|v| v.name == "new").unwrap();
        match origin.open() {
            Ok(_) => assert!(!refused),
            Err(e) => assert!(refused && e.to_string().contains("being merged"), "{e}"),
        }
    }
}

/// A member of an array begins like a file system that is longer than it.
#[test]
fn a_member_of_an_array_is_no_file_system() {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/bases/ext-4.zst");
    let whole = zstd::decode_all(std::fs::File::open(base).unwrap()).unwrap();
    let kind = |bytes: Vec<u8>| {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
        volume::recognise(&disk).unwrap().unwrap().kind
    };
    let half = whole.len() / 2;
    // Version, where it is, the field of the level.
    type Superblock = (u32, fn(usize) -> usize, usize);
    let places: [Superblock; 2] = [
        (1, |len| (len - 8192) & !4095, 72),
        (0, |len| (len & !0xffff) - 0x1_0000, 28),
    ];
    for (version, place, field) in places {
        let member = |len: usize, level: u32| {
            let mut bytes = whole[..len].to_vec();
            bytes.resize(len + (128 << 10), 0);
            let at = place(bytes.len());
            for (at, n) in [(at, 0xa92b_4efc), (at + 4, version), (at + field, level)] {
                bytes[at..at + 4].copy_from_slice(&n.to_le_bytes());
            }
            bytes
        };
        for (level, found) in [
            (0, guest_fs::FsKind::LinuxRaid),
            (5, guest_fs::FsKind::LinuxRaid),
            (1, guest_fs::FsKind::Ext4),
        ] {
            assert_eq!(
                kind(member(half, level)),
                found,
                "version {version}, level {level}"
            );
            // All of it is there: what is left of an earlier life says nothing.
            assert_eq!(kind(member(whole.len(), level)), guest_fs::FsKind::Ext4);
        }
    }
}

/// A superblock of version 1 at `at`, whose checksum is right.
fn md(bytes: &mut [u8], at: usize, level: u32, recovering: bool) {
    let mut sb = [0u8; 256 + 2 * 2];
    let len = bytes.len() as u64;
    for (place, n) in [
        (0, 0xa92b_4efc),
        (4, 1),
        (8, if recovering { 2 } else { 0 }),
        (72, level),
        (220, 2),
    ] {
        sb[place..place + 4].copy_from_slice(&u32::to_le_bytes(n));
    }
    for (place, n) in [
        (128, 2048u64),
        (136, len / 512),
        (144, at as u64 / 512),
        (208, u64::MAX),
    ] {
        sb[place..place + 8].copy_from_slice(&n.to_le_bytes());
    }
    let words = sb
        .chunks(4)
        .map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap())));
    let sum: u64 = words.sum();
    let sum = ((sum & 0xffff_ffff) + (sum >> 32)) as u32;
    sb[216..220].copy_from_slice(&sum.to_le_bytes());
    bytes[at..at + sb.len()].copy_from_slice(&sb);
}

/// Making an array leaves the first 4 KiB alone: the boot sector there is of what was before.
#[test]
fn a_member_with_its_superblock_in_front_is_no_file_system() {
    use guest_fs::FsKind;
    for (base, kind) in [("ntfs-files", FsKind::Ntfs), ("ext-4", FsKind::Ext4)] {
        let base = format!("{}/../fuzz/bases/{base}.zst", env!("CARGO_MANIFEST_DIR"));
        let whole = zstd::decode_all(std::fs::File::open(base).unwrap()).unwrap();
        let look = |bytes: Vec<u8>| {
            let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
            let found = volume::recognise(&disk).unwrap().unwrap();
            let doubts = volume::doubts(&disk, &found);
            (found.kind, doubts)
        };
        assert_eq!(look(whole.clone()), (kind, Vec::new()));
        let mut member = whole.clone();
        md(&mut member, 4096, 5, false);
        assert_eq!(look(member.clone()).0, FsKind::LinuxRaid);
        // A superblock that does not vouch for itself is none.
        member[4096 + 100] ^= 1;
        assert_eq!(look(member).0, kind);
        // At the end it may be left over; what it says is told.
        let end = (whole.len() + (128 << 10) - 8192) & !4095;
        for (level, recovering, doubtful) in [(1, false, false), (1, true, true), (5, false, true)]
        {
            let mut member = whole.clone();
            member.resize(whole.len() + (128 << 10), 0);
            md(&mut member, end, level, recovering);
            let (found, doubts) = look(member);
            assert_eq!((found, !doubts.is_empty()), (kind, doubtful), "{doubts:?}");
        }
    }
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/bases/ntfs-files.zst");
    let mut bytes = zstd::decode_all(std::fs::File::open(base).unwrap()).unwrap();
    let len = bytes.len();
    let first: Vec<u8> = bytes[..512].to_vec();
    bytes[len - 512..].copy_from_slice(&first);
    bytes[..512].fill(0);
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
    let found = volume::recognise(&disk).unwrap().unwrap();
    let doubts = volume::doubts(&disk, &found);
    assert!(
        doubts.len() == 1 && doubts[0].contains("its first sector is not NTFS's"),
        "{doubts:?}"
    );
}
