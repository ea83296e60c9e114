//! Partition tables made by `sfdisk` and `sgdisk`, and tables made to hurt.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod volume_common;

use disk_io::{Disk, MemDisk, SparseMemDisk};
use guest_fs::partition::{self, Scheme};
use proptest::prelude::*;
use std::{
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};
use volume_common::{disk, have, run};

fn sfdisk(script: &str, mib: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(mib << 20).unwrap();
    let mut child = Command::new("sfdisk")
        .args(["-q", "--no-reread", "--no-tell-kernel"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    file
}

fn listed(path: &Path) -> Vec<(u32, u64, u64)> {
    let table = partition::read(&disk(path)).unwrap();
    table
        .partitions
        .iter()
        .map(|p| (p.number, p.start / 512, p.len / 512))
        .collect()
}

#[test]
fn primary_and_logical_partitions_have_linux_numbers() {
    if !have("sfdisk") {
        return;
    }
    let made = sfdisk(
        "label: dos\nlabel-id: 0xcafe0001\nstart=2048,size=2048,type=7,bootable\nstart=4096,size=20000,type=f\nstart=30000,size=1000,type=c\nstart=6000,size=100,type=83\nstart=8000,size=100,type=82\nstart=10000,size=100,type=fb\n",
        20,
    );
    let table = partition::read(&disk(made.path())).unwrap();
    assert_eq!(table.scheme, Scheme::Mbr);
    assert_eq!(table.uuid.as_deref(), Some("cafe0001"));
    assert_eq!(
        listed(made.path()),
        [
            (1, 2048, 2048),
            (2, 4096, 20000),
            (3, 30000, 1000),
            (5, 6000, 100),
            (6, 8000, 100),
            (7, 10000, 100)
        ]
    );
    assert!(table.partitions[0].active && table.partitions[1].extended);
    assert_eq!(table.partitions[5].type_name, "VMware VMFS");
    assert_eq!(table.partitions[5].uuid.as_deref(), Some("cafe0001-07"));
    assert_eq!(table.remarks, Vec::<String>::new());
}

/// A GPT of three partitions, the second number left out.
fn gpt() -> tempfile::NamedTempFile {
    sfdisk(
        "label: gpt\nlabel-id: AABBCCDD-0001-0002-0003-000000000001\n1: start=2048,size=2048,name=\"first\"\n3: start=6000,size=100,type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n5: start=8000,size=2000,name=\"ümläut\",type=AF9B60A0-1431-4F62-BC68-3311714A69AD\n",
        16,
    )
}

#[test]
fn gpt_and_its_backup() {
    if !have("sfdisk") {
        return;
    }
    let made = gpt();
    let good = partition::read(&disk(made.path())).unwrap();
    assert_eq!(good.scheme, Scheme::Gpt);
    assert_eq!(good.remarks, Vec::<String>::new());
    assert_eq!(
        listed(made.path()),
        [(1, 2048, 2048), (3, 6000, 100), (5, 8000, 2000)]
    );
    assert_eq!(good.partitions[2].name.as_deref(), Some("ümläut"));
    assert_eq!(good.partitions[1].type_name, "Linux LVM");
    assert_eq!(
        good.uuid.as_deref(),
        Some("aabbccdd-0001-0002-0003-000000000001")
    );
    let image = std::fs::read(made.path()).unwrap();
    let len = image.len();
    // (what is damaged, what must be said)
    let cases: [(&str, Vec<usize>, &str); 4] = [
        ("header", vec![512 + 60], "the backup in sector"),
        ("entries", vec![1024 + 40], "the backup in sector"),
        (
            "backup header",
            vec![len - 512 + 60],
            "backup GUID partition table is",
        ),
        (
            "both entries",
            vec![1024 + 60, len - 33 * 512 + 60],
            "take them with care",
        ),
    ];
    for (what, places, said) in cases {
        let mut image = image.clone();
        for at in places {
            image[at] ^= 0x55;
        }
        let table = partition::read(&(Arc::new(MemDisk::new(image)) as Arc<dyn Disk>)).unwrap();
        assert_eq!(table.partitions.len(), 3, "{what}");
        assert!(
            table.remarks.join(" ").contains(said),
            "{what}: {:?}",
            table.remarks
        );
        if what != "both entries" {
            assert_eq!(table.partitions, good.partitions, "{what}");
        }
    }
    // Cut short: kept, and said.
    let mut short = image.clone();
    short.truncate(9000 * 512);
    let table = partition::read(&(Arc::new(MemDisk::new(short)) as Arc<dyn Disk>)).unwrap();
    assert_eq!(table.partitions[2].available, 1000 * 512);
    assert_eq!(table.partitions[2].len, 2000 * 512);
    assert_eq!(table.remarks.len(), 2, "{:?}", table.remarks);
    // Sector 0 wiped.
    let mut wiped = image;
    wiped[..512].fill(0);
    let table = partition::read(&(Arc::new(MemDisk::new(wiped)) as Arc<dyn Disk>)).unwrap();
    assert_eq!(table.partitions, good.partitions);
    assert!(table.remarks.join(" ").contains("no protective MBR"));
}

#[test]
fn hybrid_tables_are_named() {
    if !have("sgdisk") || !have("sfdisk") {
        return;
    }
    let made = gpt();
    run(Command::new("sgdisk").args(["-h", "1:5"]).arg(made.path()));
    let table = partition::read(&disk(made.path())).unwrap();
    assert_eq!(table.scheme, Scheme::HybridGpt);
    assert_eq!(table.partitions.len(), 3);
    assert!(table.remarks.join(" ").contains("hybrid"));
}

#[test]
fn sectors_of_4096_bytes_are_found() {
    // Built by hand: the tools want a device of that sector size.
    let mut image = SparseMemDisk::new(64 << 20);
    let mut mbr = [0u8; 512];
    mbr[446 + 4] = 0xee;
    mbr[446 + 8..446 + 12].copy_from_slice(&1u32.to_le_bytes());
    mbr[446 + 12..446 + 16].copy_from_slice(&16383u32.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    image.put(0, &mbr);
    let mut entries = vec![0u8; 128 * 128];
    entries[..16].copy_from_slice(&[0xa2; 16]);
    entries[32..40].copy_from_slice(&256u64.to_le_bytes());
    entries[40..48].copy_from_slice(&511u64.to_le_bytes());
    image.put(2 * 4096, &entries);
    let mut header = vec![0u8; 4096];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x10000u32.to_le_bytes());
    header[12..16].copy_from_slice(&92u32.to_le_bytes());
    header[24..32].copy_from_slice(&1u64.to_le_bytes());
    header[32..40].copy_from_slice(&16383u64.to_le_bytes());
    header[72..80].copy_from_slice(&2u64.to_le_bytes());
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    let crc = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    image.put(4096, &header);
    let plain = tempfile::NamedTempFile::new().unwrap();
    plain.as_file().set_len(64 << 20).unwrap();
    for (at, bytes) in [(0, &mbr[..]), (2 * 4096, &entries), (4096, &header)] {
        plain.as_file().write_all_at(bytes, at).unwrap();
    }
    let table = partition::read(&(Arc::new(image) as Arc<dyn Disk>)).unwrap();
    assert_eq!((table.scheme, table.sector_size), (Scheme::Gpt, 4096));
    assert_eq!(
        (table.partitions[0].start, table.partitions[0].len),
        (1 << 20, 1 << 20)
    );
    assert!(
        table.remarks.iter().any(|r| r.contains("4096")),
        "{:?}",
        table.remarks
    );
    // A plain file does not say that its sectors have 512.
    let plain = partition::read(&disk(plain.path())).unwrap();
    assert_eq!(plain.sector_size, 4096);
    assert!(!plain.remarks.iter().any(|r| r.contains("sectors of 4096")));
}

/// A boot sector of an NTFS volume of `sectors`, without what is behind it.
fn ntfs_boot(sectors: u64) -> [u8; 512] {
    let mut boot = [0; 512];
    boot[3..11].copy_from_slice(b"NTFS    ");
    boot[0x0b..0x0e].copy_from_slice(&[0, 2, 8]);
    boot[0x28..0x30].copy_from_slice(&sectors.to_le_bytes());
    boot[0x30] = 4;
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    boot
}

#[test]
fn the_backup_boot_sector_of_the_last_partition_is_no_other_volume() {
    if !have("sfdisk") {
        return;
    }
    let made = sfdisk("label: dos\nstart=2048,size=38912,type=7\n", 20);
    let clean = std::fs::read(made.path()).unwrap();
    let last = clean.len() - 512;
    // The partition's own; then one of a volume that had the whole disk.
    for (sectors, told) in [(38911, false), (40959, true)] {
        let mut image = clean.clone();
        image[last..].copy_from_slice(&ntfs_boot(sectors));
        let remarks = table_of(&image).remarks.join("; ");
        assert_eq!(remarks.contains("also looks like ntfs"), told, "{remarks}");
    }
}

#[test]
fn a_table_that_lists_the_volume_it_lies_in_is_no_other() {
    if !have("mkfs.fat") {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(20 << 20).unwrap();
    run(Command::new("mkfs.fat").arg("--mbr=y").arg(file.path()));
    let clean = std::fs::read(file.path()).unwrap();
    assert_eq!(clean[446], 0x80);
    let table = table_of(&clean);
    assert_eq!(table.scheme, Scheme::None);
    assert!(table.remarks.is_empty(), "{:?}", table.remarks);
    // One that begins elsewhere, and a second one.
    for at in [446 + 9, 462 + 4] {
        let mut image = clean.clone();
        image[at] = 8;
        image[462 + 12] = 8;
        let remarks = table_of(&image).remarks;
        assert!(remarks.join("; ").contains("a partition table; ignored"));
    }
}

fn ebr(first: (u8, u32, u32), second: (u8, u32, u32)) -> [u8; 512] {
    let mut sector = [0u8; 512];
    for (at, (kind, start, count)) in [(446, first), (462, second)] {
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn a_million_links_and_a_loop_end_with_a_reason() {
    let links = 1_000_000u32;
    let mut image = SparseMemDisk::new(u64::from(links) * 1024 + 4096);
    image.put(0, &ebr((5, 2, links * 2), (0, 0, 0)));
    for n in 0..5000 {
        image.put(
            u64::from(2 + n * 2) * 512,
            &ebr((0x83, 1, 1), (5, (n + 1) * 2, 2)),
        );
    }
    let table = partition::read(&(Arc::new(image) as Arc<dyn Disk>)).unwrap();
    assert_eq!(table.partitions.len(), 1 + partition::ebr::MAX_LINKS);
    assert!(
        table
            .remarks
            .iter()
            .any(|r| r.contains("more than 1024 links"))
    );

    let mut image = SparseMemDisk::new(1 << 20);
    image.put(0, &ebr((5, 10, 1000), (0, 0, 0)));
    // Out of order, then back to the first.
    image.put(10 * 512, &ebr((0x83, 1, 1), (5, 500, 100)));
    image.put(510 * 512, &ebr((0x83, 1, 1), (5, 200, 100)));
    image.put(210 * 512, &ebr((0x83, 1, 1), (5, 0, 100)));
    let table = partition::read(&(Arc::new(image) as Arc<dyn Disk>)).unwrap();
    let starts: Vec<_> = table
        .partitions
        .iter()
        .map(|p| (p.number, p.start / 512))
        .collect();
    assert_eq!(starts, [(1, 10), (5, 11), (6, 511), (7, 211)]);
    assert!(
        table.remarks.iter().any(|r| r.contains("comes back")),
        "{:?}",
        table.remarks
    );
}

proptest! {
    #[test]
    fn any_bytes_are_some_table(
        head in prop::collection::vec(any::<u8>(), 0..2048),
        magic in any::<bool>(), gpt in any::<bool>(),
    ) {
        let mut image = head;
        image.resize(40_000, 0);
        if magic {
            image[510..512].copy_from_slice(&[0x55, 0xaa]);
            for at in [446, 462, 478, 494] {
                image[at] &= 0x80;
            }
        }
        if gpt {
            image[450] = 0xee;
            image[512..520].copy_from_slice(b"EFI PART");
        }
        let table = partition::read(&(Arc::new(MemDisk::new(image)) as Arc<dyn Disk>)).unwrap();
        for p in &table.partitions {
            prop_assert!(p.available <= p.len && p.available <= 40_000);
        }
    }

    #[test]
    fn a_damaged_gpt_is_survived(flips in prop::collection::vec((0usize..20_000, any::<u8>()), 1..20)) {
        use std::sync::OnceLock;
        static IMAGE: OnceLock<Option<Vec<u8>>> = OnceLock::new();
        let image = IMAGE.get_or_init(|| have("sfdisk").then(|| std::fs::read(gpt().path()).unwrap()));
        if let Some(image) = image {
            let mut image = image[..1 << 20].to_vec();
            for (at, byte) in flips {
                image[at] = byte;
            }
            let _ = partition::read(&(Arc::new(MemDisk::new(image)) as Arc<dyn Disk>)).unwrap();
        }
    }
}

fn table_of(bytes: &[u8]) -> partition::Table {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
    partition::read(&disk).unwrap()
}

/// Whether one of the losses says so.
fn loses(table: &partition::Table, part: &str) -> bool {
    table.losses.iter().any(|l| l.contains(part))
}

/// Whether something says so by which the disk may be another one.
fn doubts(table: &partition::Table, part: &str) -> bool {
    table.rivals.iter().any(|l| l.contains(part))
}

/// Makes the checksums of the GPT whose header is at `at` right.
fn reseal(image: &mut [u8], at: usize) {
    let entries = u64::from_le_bytes(image[at + 72..at + 80].try_into().unwrap()) as usize * 512;
    let sum = crc32fast::hash(&image[entries..entries + 128 * 128]);
    image[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    image[at + 16..at + 20].fill(0);
    let sum = crc32fast::hash(&image[at..at + 92]);
    image[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn tables_that_contradict_each_other_are_told() {
    if !have("sfdisk") {
        return;
    }
    let good = std::fs::read(gpt().path()).unwrap();
    let len = good.len();
    assert!(table_of(&good).losses.is_empty());
    // A copy that lacks a partition, or is another disk's.
    for (header, entry) in [(512, 1024 + 2 * 128), (len - 512, len - 33 * 512 + 2 * 128)] {
        let mut other = good.clone();
        other[entry..entry + 128].fill(0);
        reseal(&mut other, header);
        assert!(
            doubts(&table_of(&other), "sound and lists other partitions"),
            "{header}"
        );
    }
    let mut other = good.clone();
    other[len - 512 + 56] ^= 1;
    reseal(&mut other, len - 512);
    assert!(doubts(
        &table_of(&other),
        "sound and lists other partitions"
    ));
    // Sector 0 does not announce it.
    let mut other = good.clone();
    assert_eq!(other[446 + 4], 0xee);
    other[446 + 4] = 0x83;
    assert!(doubts(
        &table_of(&other),
        "which sector 0 does not announce"
    ));
    // A wrong boot flag keeps nobody from reading it.
    let mut other = good.clone();
    other[446] = 1;
    let table = table_of(&other);
    assert_eq!((table.scheme, table.partitions.len()), (Scheme::Gpt, 3));
    // Partitions over each other, and over the table.
    let mut other = good.clone();
    for (place, sector) in [(1024 + 32, 34u64), (1024 + 2 * 128 + 32, 3000)] {
        other[place..place + 8].copy_from_slice(&sector.to_le_bytes());
    }
    other[1024 + 32] = 1;
    reseal(&mut other, 512);
    let remarks = table_of(&other).remarks.join("; ");
    assert!(remarks.contains("partitions 1 and 3 overlap"), "{remarks}");
    assert!(
        remarks.contains("partition 1 begins in sector 1, before"),
        "{remarks}"
    );
}

/// The end of the disk is what nobody wipes.
#[test]
fn a_backup_that_is_left_over_does_not_hide_what_is_there() {
    if !have("sfdisk") {
        return;
    }
    let mut image = std::fs::read(gpt().path()).unwrap();
    image[..1 << 20].fill(0);
    let table = table_of(&image);
    assert_eq!((table.scheme, table.partitions.len()), (Scheme::Gpt, 3));
    assert!(loses(&table, "only the backup"), "{:?}", table.losses);
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/bases/ext-4.zst");
    let ext = zstd::decode_all(std::fs::File::open(base).unwrap()).unwrap();
    let len = image.len().max(ext.len() + (1 << 20));
    let end = image.split_off(image.len() - 33 * 512);
    image.resize(len - end.len(), 0);
    image.extend(&end);
    image[..ext.len()].copy_from_slice(&ext);
    // The backup says where it is.
    let header = len - 512;
    let last = (len / 512 - 1) as u64;
    image[header + 24..header + 32].copy_from_slice(&last.to_le_bytes());
    image[header + 72..header + 80].copy_from_slice(&(last - 32).to_le_bytes());
    reseal(&mut image, header);
    let table = table_of(&image);
    assert_eq!(table.scheme, Scheme::None);
    let remarks = table.remarks.join("; ");
    assert!(remarks.contains("the whole disk is ext4"), "{remarks}");
}

#[test]
fn slots_that_hide_partitions_are_told() {
    if !have("sfdisk") {
        return;
    }
    let made = sfdisk(
        "label: dos\nlabel-id: 0xcafe0001\nstart=2048,size=2048,type=7\nstart=4096,size=20000,type=5\nstart=6000,size=100,type=83\nstart=8000,size=100,type=82\nstart=10000,size=100,type=fb\n",
        20,
    );
    let good = std::fs::read(made.path()).unwrap();
    let whole = table_of(&good);
    assert!(whole.losses.is_empty(), "{:?}", whole.losses);
    let with = |at: usize, byte: u8| {
        let mut other = good.clone();
        other[at] = byte;
        table_of(&other)
    };
    assert!(doubts(&with(446 + 4, 0), "no type"));
    // The link in the first table of the chain.
    let link = 4096 * 512 + 462 + 4;
    assert_eq!(good[link], 5);
    for kind in [0, 4] {
        assert!(
            loses(&with(link, kind), "leads to another table"),
            "type {kind}"
        );
    }
    // The extended one is shorter than its chain.
    let remarks = with(462 + 13, 1).remarks.join("; ");
    assert!(remarks.contains("lies outside"), "{remarks}");
    assert!(loses(&with(446, 1), "boot flag 0x01"));
}

/// Making an array of a whole disk leaves its first 4 KiB alone, and a table with them.
#[test]
fn a_table_that_an_array_left_is_not_believed() {
    if !have("sfdisk") {
        return;
    }
    let mut image = std::fs::read(gpt().path()).unwrap();
    let mut sb = [0u8; 260];
    for (place, n) in [(0, 0xa92b_4efc), (4, 1), (72, 5), (144, 8), (220, 2)] {
        sb[place..place + 4].copy_from_slice(&u32::to_le_bytes(n));
    }
    let words = sb
        .chunks(4)
        .map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap())));
    let sum: u64 = words.sum();
    sb[216..220].copy_from_slice(&(((sum & 0xffff_ffff) + (sum >> 32)) as u32).to_le_bytes());
    image[4096..4096 + sb.len()].copy_from_slice(&sb);
    let table = table_of(&image);
    assert_eq!(table.scheme, Scheme::None, "{table:?}");
    assert!(
        table
            .remarks
            .join("; ")
            .contains("the whole disk is linux-raid")
    );
    // Of an MBR it may be either.
    let made = sfdisk(
        "label: dos\nlabel-id: 0xcafe0001\nstart=2048,size=2048,type=7\n",
        20,
    );
    let mut image = std::fs::read(made.path()).unwrap();
    assert!(table_of(&image).losses.is_empty());
    image[4096..4096 + sb.len()].copy_from_slice(&sb);
    assert!(doubts(&table_of(&image), "looks like linux-raid"));
}
