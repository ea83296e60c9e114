//! The backup of a GUID partition table belongs at the end of the disk: on a larger device
//! it moves there, and both headers say so.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Entries that are moved: real tables have 16 KiB of them.
const MOST: u64 = 4 << 20;
/// Bytes of a header that are summed.
const HEADER: usize = 92;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Sets the checksum of a header.
fn seal(header: &mut [u8]) {
    put(header, 16, &[0; 4]);
    let sum = crc32fast::hash(header.get(..HEADER).unwrap_or_default());
    put(header, 16, &sum.to_le_bytes());
}

/// Moves the backup of the table on `file` to its end (`len` bytes, sectors of `sector`);
/// `false` if there is no good table. The new backup is written and synced before the
/// header that names it.
pub(super) fn move_backup(file: &File, sector: u64, len: u64) -> io::Result<bool> {
    let size = usize::try_from(sector).unwrap_or(512);
    let mut primary = vec![0; size];
    file.read_exact_at(&mut primary, sector)?;
    let good = |header: &[u8]| -> Option<(u64, u64, u64, u32)> {
        if header.get(..8)? != b"EFI PART" || u32_at(header, 12)? as usize != HEADER {
            return None;
        }
        let mut copy = header.to_vec();
        seal(&mut copy);
        if copy != header {
            return None;
        }
        let bytes = u64::from(u32_at(header, 80)?).checked_mul(u64::from(u32_at(header, 84)?))?;
        (bytes <= MOST).then_some(())?;
        Some((
            u64_at(header, 32)?,
            u64_at(header, 72)?,
            bytes,
            u32_at(header, 88)?,
        ))
    };
    let Some((old_backup, entries_at, entries_len, entries_sum)) = good(&primary) else {
        return Ok(false);
    };
    let mut entries = vec![0; usize::try_from(entries_len).unwrap_or(0)];
    file.read_exact_at(&mut entries, entries_at.saturating_mul(sector))?;
    if crc32fast::hash(&entries) != entries_sum {
        return Ok(false);
    }
    let last = (len / sector).saturating_sub(1);
    let new_entries = last.saturating_sub(entries_len.div_ceil(sector));
    let usable = new_entries.saturating_sub(1);
    let mut backup = primary.clone();
    put(&mut primary, 32, &last.to_le_bytes());
    put(&mut primary, 48, &usable.to_le_bytes());
    seal(&mut primary);
    put(&mut backup, 24, &last.to_le_bytes());
    put(&mut backup, 32, &1u64.to_le_bytes());
    put(&mut backup, 48, &usable.to_le_bytes());
    put(&mut backup, 72, &new_entries.to_le_bytes());
    seal(&mut backup);
    file.write_all_at(&entries, new_entries * sector)?;
    file.write_all_at(&backup, last * sector)?;
    file.sync_all()?;
    file.write_all_at(&primary, sector)?;
    if old_backup != last && old_backup > 1 {
        // Tools would find two backups.
        let mut old = vec![0; size];
        file.read_exact_at(&mut old, old_backup.saturating_mul(sector))?;
        if old.starts_with(b"EFI PART") {
            file.write_all_at(&vec![0; size], old_backup * sector)?;
        }
    }
    // The protective entry covers the whole disk.
    let mut mbr = [0; 512];
    file.read_exact_at(&mut mbr, 0)?;
    if mbr.get(450) == Some(&0xee) {
        let sectors = u32::try_from(last).unwrap_or(u32::MAX);
        put(&mut mbr, 458, &sectors.to_le_bytes());
        file.write_all_at(&mbr, 0)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::{Disk, MemDisk};
    use std::sync::Arc;

    /// A disk that sfdisk partitioned, made longer: our reader and sfdisk both find nothing
    /// wrong with it afterwards.
    #[test]
    fn the_backup_is_at_the_new_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create_new(&path).unwrap();
        file.set_len(16 << 20).unwrap();
        let script = "label: gpt\nstart=2048, size=4096, name=one\nstart=8192, size=4096\n";
        let sfdisk = |args: &[&str], input: &str| -> Option<(bool, String)> {
            use std::io::Write;
            let mut child = std::process::Command::new("/sbin/sfdisk")
                .args(args)
                .arg(&path)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .ok()?;
            child.stdin.take()?.write_all(input.as_bytes()).ok()?;
            let out = child.wait_with_output().ok()?;
            let text = [out.stdout, out.stderr].concat();
            Some((
                out.status.success(),
                String::from_utf8_lossy(&text).into_owned(),
            ))
        };
        let Some((true, _)) = sfdisk(&["-q"], script) else {
            assert!(
                !std::env::var("VMDKIT_REQUIRE")
                    .unwrap_or_default()
                    .contains("peers"),
                "no sfdisk"
            );
            eprintln!("skipped: no sfdisk");
            return;
        };
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.set_len(24 << 20).unwrap();
        assert!(move_backup(&file, 512, 24 << 20).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
        let table = guest_fs::partition::read(&disk).unwrap();
        assert_eq!(table.partitions.len(), 2);
        assert!(table.remarks.is_empty(), "{:?}", table.remarks);
        let (good, said) = sfdisk(&["--verify"], "").unwrap();
        assert!(good && said.contains("No errors detected"), "{said}");
        // Without a table there is nothing to move.
        file.set_len(0).unwrap();
        file.set_len(1 << 20).unwrap();
        assert!(!move_backup(&file, 512, 1 << 20).unwrap());
    }
}
