//! A FAT32 volume of 2 TiB, as pieces in memory: what it costs to open, list and read.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use disk_io::{Disk, SparseMemDisk, faults::Counting};
use guest_fs::{FileSystem, Name, OpenOptions, fat::Fat};
use std::sync::Arc;

const CLUSTER: u64 = 32 << 10;
const FAT_START: u64 = 32 * 512;
const FAT_SECTORS: u64 = 524_288;
const DATA: u64 = FAT_START + 2 * FAT_SECTORS * 512;

/// A file of 4 GiB less one byte, each of whose clusters is followed by the one after next.
fn huge() -> Arc<dyn Disk> {
    let sectors = (2u64 << 40) / 512 - 1;
    let mut disk = SparseMemDisk::new(sectors * 512);
    let mut boot = [0u8; 512];
    boot[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
    boot[11..13].copy_from_slice(&512u16.to_le_bytes());
    boot[13] = 64;
    boot[14..16].copy_from_slice(&32u16.to_le_bytes());
    boot[16] = 2;
    boot[21] = 0xf8;
    boot[32..36].copy_from_slice(&(sectors as u32).to_le_bytes());
    boot[36..40].copy_from_slice(&(FAT_SECTORS as u32).to_le_bytes());
    boot[44..48].copy_from_slice(&2u32.to_le_bytes());
    boot[82..87].copy_from_slice(b"FAT32");
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.put(0, &boot);
    let clusters = (u64::from(u32::MAX)).div_ceil(CLUSTER);
    let mut fat = vec![0u8; (10 + clusters as usize * 2) * 4];
    let mut set = |at: u64, to: u32| {
        let at = at as usize * 4;
        fat[at..at + 4].copy_from_slice(&to.to_le_bytes());
    };
    set(0, 0x0fff_fff8);
    set(1, 0x0fff_ffff);
    set(2, 0x0fff_ffff);
    for n in 0..clusters {
        let at = 4 + n * 2;
        set(
            at,
            if n + 1 == clusters {
                0x0fff_ffff
            } else {
                at as u32 + 2
            },
        );
        disk.put(DATA + (at - 2) * CLUSTER, &n.to_le_bytes());
    }
    disk.put(FAT_START, &fat);
    let mut entry = [0u8; 32];
    entry[..12].copy_from_slice(b"HUGE    BIN\x20");
    entry[26] = 4;
    entry[28..32].fill(0xff);
    disk.put(DATA, &entry);
    Arc::new(disk)
}

#[test]
fn a_volume_of_2_tib_costs_little() {
    let counting = Arc::new(Counting::new(huge()));
    let fs = Fat::open(counting.clone(), &OpenOptions::default()).unwrap();
    let node = fs
        .lookup(fs.root(), &Name::from("huge.bin"))
        .unwrap()
        .unwrap();
    assert_eq!(fs.metadata(node).unwrap().size, u64::from(u32::MAX));
    let _ = fs.info();
    let (_, bytes) = counting.so_far();
    assert!(
        bytes < 300 << 10,
        "{bytes} bytes to open, look up and describe"
    );

    let file = fs.open(node, None).unwrap();
    let (_, bytes) = counting.so_far();
    assert!(
        bytes < 2 << 20,
        "{bytes} bytes to open a fragmented file of 4 GiB"
    );
    let started = std::time::Instant::now();
    let clusters = file.len().div_ceil(CLUSTER);
    for n in (0..clusters).rev() {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, n * CLUSTER).unwrap();
        assert_eq!(u64::from_le_bytes(word), n);
    }
    let (_, after) = counting.so_far();
    assert_eq!(
        after - bytes,
        clusters * 8,
        "reading the file reads nothing else"
    );
    // The crate that walks the chain for every seek takes minutes for this.
    assert!(started.elapsed().as_secs() < 20);
    assert_eq!(fs.extents(node, None).unwrap().len() as u64, clusters);
}
