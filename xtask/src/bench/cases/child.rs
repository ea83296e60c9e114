//! What runs in processes of its own, so that it can be measured from outside.

use super::synthetic;
use anyhow::{Context, Result};
use convert::{Destination, ImageOptions, to_image};
use disk_io::{Disk, HostDir, host_dir::Allowed};
use std::{path::Path, sync::Arc, time::Instant};

fn open(image: &Path) -> Result<Arc<dyn Disk>> {
    let opened = HostDir::open_source(image, &Allowed::default())?;
    Ok(disk_image::open(opened, &disk_image::OpenOptions::default())?.disk)
}

/// Reads and decodes everything, on every core, into nothing.
pub(crate) fn decode(image: &Path) -> Result<()> {
    let disk = open(image)?;
    let options = ImageOptions {
        digest: convert::DigestKind::None,
        ..ImageOptions::default()
    };
    to_image(
        &disk,
        Destination::Discard,
        &options,
        &convert::progress::NoProgress,
    )?;
    Ok(())
}

/// Reads everything in order, MiB by MiB, and prints the seconds of each pass.
pub(crate) fn read(image: &Path, passes: u32) -> Result<()> {
    let disk = open(image)?;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..passes {
        let begun = Instant::now();
        let mut at = 0;
        while at < disk.len() {
            let n = (disk.len() - at).min(buffer.len() as u64) as usize;
            let part = buffer.get_mut(..n).context("a buffer")?;
            disk.read_exact_at(part, at)?;
            at += n as u64;
        }
        println!("{}", begun.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Touches every table of a synthetic chain and prints the peak of resident memory in KiB.
pub(crate) fn tables(kind: &str, links: u32, gib: u64) -> Result<()> {
    let opened = synthetic::top(kind, links, gib)?;
    let image = vmdk::Image::open(opened, &vmdk::OpenOptions::default())?;
    let disk = image.disk();
    let mut byte = [0; 4096];
    // Every table covers at least 16 MiB.
    for at in (0..disk.len()).step_by(16 << 20) {
        disk.read_exact_at(&mut byte, at)?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .context("the peak of resident memory")?;
    println!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

/// The same places for both readers.
fn places(reads: u32, len: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..reads).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % len.saturating_sub(4096).max(1)
    })
}

/// Reads 4 KiB at random places of the file `file` on a FAT volume.
pub(crate) fn fat(how: &str, volume: &Path, reads: u32) -> Result<()> {
    let mut buffer = [0; 4096];
    if how == "fatfs" {
        use std::io::{Read, Seek, SeekFrom};
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(volume)?;
        let fs = fatfs::FileSystem::new(file, fatfs::FsOptions::new())?;
        let mut file = fs.root_dir().open_file("file")?;
        let len = file.seek(SeekFrom::End(0))?;
        for at in places(reads, len) {
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut buffer)?;
        }
        return Ok(());
    }
    let disk = open(volume)?;
    let fs = guest_fs::volume::open(&disk, &guest_fs::OpenOptions::default())?;
    let node = fs.lookup(fs.root(), &"file".into())?.context("the file")?;
    let file = fs.open(node, None)?;
    for at in places(reads, file.len()) {
        file.read_exact_at(&mut buffer, at)?;
    }
    Ok(())
}
