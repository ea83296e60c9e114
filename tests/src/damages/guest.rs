//! The disk inside the images: a FAT volume with one large file, laid out so that a block of any
//! format lies in one file.

use super::Bytes;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::{
    io::{Cursor, Write},
    sync::OnceLock,
};
use vmdk::write::Cell;

/// Bytes of the disk.
pub const LEN: u64 = 40 << 20;
/// The same in sectors.
pub const SECTORS: u64 = LEN / 512;
/// The large file.
pub const BIG: &str = "/p0/BIG.BIN";
/// The files behind it.
pub const BEHIND: &[&str] = &["/p0/BIG.BIN", "/p0/sub", "/p0/sub/last.bin"];
const BIG_LEN: usize = 36 << 20;
/// Every MiB of the large file begins with this much data.
const DATA: usize = 128 << 10;

/// The disk.
#[derive(Debug)]
pub struct Guest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// A byte of the large file with data around it; what a block of any format has here is
    /// this file's.
    pub mid: u64,
    /// Another one, in another block of every format.
    pub other: u64,
}

/// Made once.
pub fn guest() -> &'static Guest {
    static GUEST: OnceLock<Guest> = OnceLock::new();
    GUEST.get_or_init(make)
}

fn make() -> Guest {
    let mut disk = Cursor::new(vec![0u8; LEN as usize]);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat16);
    fatfs::format_volume(&mut disk, options).unwrap();
    let mut contents = vec![0u8; BIG_LEN];
    for mib in 0..BIG_LEN >> 20 {
        for (n, sector) in contents[mib << 20..][..DATA].chunks_mut(512).enumerate() {
            sector.fill(0xb1);
            sector[..4].copy_from_slice(&((mib << 11 | n) as u32).to_le_bytes());
        }
    }
    {
        let fs = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        let root = fs.root_dir();
        let mut one = root.create_file("one.txt").unwrap();
        one.write_all(b"one").unwrap();
        let mut big = root.create_file("BIG.BIN").unwrap();
        big.write_all(&contents).unwrap();
        let dir = root.create_dir("sub").unwrap();
        let mut last = dir.create_file("last.bin").unwrap();
        last.write_all(&vec![0x1a; 300_000]).unwrap();
    }
    let bytes = disk.into_inner();
    let big = bytes
        .chunks(512)
        .position(|s| s == &contents[..512])
        .unwrap()
        * 512;
    assert!(bytes[big..][..BIG_LEN] == contents, "it lies in one piece");
    // The 16 MiB around it are the file's, whatever block they are of.
    let at = |mib: usize| ((big + (mib << 20)) as u64).next_multiple_of(65_536);
    let (mid, other) = (at(20), at(23));
    assert!(mid >> 24 == 1 && (big as u64) < 16 << 20 && other + 65_536 < 32 << 20);
    Guest { bytes, mid, other }
}

/// Its grains of `size` bytes that are not zero.
pub fn grains(size: usize) -> Vec<(u64, Cell)> {
    let all = guest().bytes.chunks(size).zip(0..);
    all.filter(|(grain, _)| grain.iter().any(|b| *b != 0))
        .map(|(grain, n)| (n, Cell::Data(grain.to_vec())))
        .collect()
}

/// The disk as a file.
pub fn raw() -> Bytes {
    Bytes::new(&guest().bytes)
}
