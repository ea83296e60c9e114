//! A small disk with a FAT volume whose files say what they are.

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::io::{Cursor, Write};

/// Bytes of the disk: 16 MiB.
pub(crate) const LEN: usize = 16 << 20;

/// The disk, and where the contents of `/BIG.BIN` begin: it is contiguous.
pub(crate) fn disk() -> (Vec<u8>, usize) {
    let mut disk = Cursor::new(vec![0u8; LEN]);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat16);
    fatfs::format_volume(&mut disk, options).unwrap();
    {
        let fs = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        let root = fs.root_dir();
        let mut one = root.create_file("one.txt").unwrap();
        one.write_all(b"one").unwrap();
        let mut big = root.create_file("BIG.BIN").unwrap();
        for block in 0..(4 << 20) / 512u32 {
            let mut bytes = [0xb1; 512];
            bytes[..4].copy_from_slice(&block.to_le_bytes());
            big.write_all(&bytes).unwrap();
        }
        let dir = root.create_dir("sub").unwrap();
        let mut last = dir.create_file("last.bin").unwrap();
        last.write_all(&vec![0x1a; 300_000]).unwrap();
    }
    let bytes = disk.into_inner();
    let mut first = [0xb1; 512];
    first[..4].fill(0);
    let at = bytes.chunks(512).position(|s| s == first).unwrap() * 512;
    // The contents lie in one piece.
    for block in 0..(4 << 20) / 512usize {
        let sector = &bytes[at + block * 512..][..4];
        assert_eq!(sector, (block as u32).to_le_bytes());
    }
    (bytes, at)
}

/// The grains of `size` bytes that are not zero.
pub(crate) fn grains(disk: &[u8], size: usize) -> Vec<(u64, vmdk::write::Cell)> {
    disk.chunks(size)
        .enumerate()
        .filter(|(_, g)| g.iter().any(|b| *b != 0))
        .map(|(n, g)| (n as u64, vmdk::write::Cell::Data(g.to_vec())))
        .collect()
}
