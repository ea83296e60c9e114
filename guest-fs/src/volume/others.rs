//! VMware's, Apple's and older systems' kinds.

use super::{Recognised, probe::Probe};
use crate::{FsKind, Name};

/// A member of a VMFS volume, or a VMFS file system without its volume manager.
pub(super) fn vmfs(probe: &Probe) -> Option<Recognised> {
    const LVM: u64 = 1 << 20;
    const FS: u64 = 2 << 20;
    if probe.u32_le(LVM) == Some(0xc001_d00d) {
        return Some(Recognised::new(FsKind::Vmfs).uuid(vmfs_uuid(probe, LVM + 130)));
    }
    // VMFS; VMFS-L, which is local to a host; and the names of both that VMware's own code
    // has for VMFS-6 (fact sheet, VMFS 2).
    if matches!(probe.u32_le(FS), Some(0x2fab_f15e..=0x2fab_f161)) {
        return Some(
            Recognised::new(FsKind::Vmfs)
                .label(probe.text(FS + 29, 128))
                .uuid(vmfs_uuid(probe, FS + 9)),
        );
    }
    None
}

/// Two words, a short and six bytes: how ESX prints it.
fn vmfs_uuid(probe: &Probe, at: u64) -> Option<String> {
    let b = probe.bytes(at, 16)?;
    let mut out = String::new();
    for n in [3, 2, 1, 0, 7, 6, 5, 4, 9, 8, 10, 11, 12, 13, 14, 15] {
        out.push_str(&format!("{:02x}", b.get(n)?));
        if matches!(out.len(), 8 | 17 | 22) {
            out.push('-');
        }
    }
    Some(out)
}

/// Everything else with a superblock.
pub(super) fn file_system(probe: &Probe) -> Option<Recognised> {
    hfs_plus(probe)
        .or_else(|| apfs(probe))
        .or_else(|| iso9660(probe))
        .or_else(|| zfs(probe))
        .or_else(|| ufs(probe))
}

fn hfs_plus(probe: &Probe) -> Option<Recognised> {
    if !probe.is(1024, b"H+\0\x04") && !probe.is(1024, b"HX\0\x05") {
        return None;
    }
    let block = u64::from(probe.u32_be(1024 + 40)?);
    let blocks = u64::from(probe.u32_be(1024 + 44)?);
    if !block.is_power_of_two() {
        return None;
    }
    Some(Recognised::new(FsKind::HfsPlus).size(block.checked_mul(blocks)))
}

fn apfs(probe: &Probe) -> Option<Recognised> {
    if !probe.is(32, b"NXSB") {
        return None;
    }
    let block = u64::from(probe.u32_le(36)?);
    if !(4096..=65536).contains(&block) {
        return None;
    }
    Some(
        Recognised::new(FsKind::Apfs)
            .uuid(probe.uuid(72))
            .size(probe.u64_le(40)?.checked_mul(block)),
    )
}

fn iso9660(probe: &Probe) -> Option<Recognised> {
    const PVD: u64 = 0x8000;
    if !probe.is(PVD + 1, b"CD001") {
        return None;
    }
    let blocks = u64::from(probe.u32_le(PVD + 80)?);
    let size = u64::from(probe.u16_le(PVD + 128)?);
    // The date of last change, else of creation, is what serves as a UUID.
    let date = |at| {
        let d = probe.bytes(at, 16)?;
        let d = std::str::from_utf8(&d).ok()?;
        let sound = d.bytes().all(|b| b.is_ascii_digit()) && d.bytes().any(|b| b != b'0');
        let part = |from: usize, to: usize| d.get(from..to);
        sound.then_some(())?;
        Some(format!(
            "{}-{}-{}-{}-{}-{}-{}",
            part(0, 4)?,
            part(4, 6)?,
            part(6, 8)?,
            part(8, 10)?,
            part(10, 12)?,
            part(12, 14)?,
            part(14, 16)?
        ))
    };
    Some(
        Recognised::new(FsKind::Iso9660)
            .label(probe.text(PVD + 40, 32))
            .uuid(date(PVD + 830).or_else(|| date(PVD + 813)))
            .size(blocks.checked_mul(size)),
    )
}

/// A vdev: one of the 128 uberblocks of its first label has the magic number.
fn zfs(probe: &Probe) -> Option<Recognised> {
    const MAGIC: [u8; 8] = 0x00ba_b10c_u64.to_le_bytes();
    let ring = probe.bytes(0x2_0000, 0x2_0000)?;
    let big: Vec<u8> = MAGIC.iter().rev().copied().collect();
    ring.chunks_exact(1024)
        .any(|u| u.starts_with(&MAGIC) || u.starts_with(&big))
        .then(|| Recognised::new(FsKind::Zfs))
}

fn ufs(probe: &Probe) -> Option<Recognised> {
    for (sb, magic, label) in [
        (0x1_0000u64, 0x1954_0119u32, true),
        (0x2000, 0x0001_1954, false),
        (0x2000, 0x1954_0119, true),
        (0, 0x1954_0119, true),
    ] {
        if probe.u32_le(sb.checked_add(1372)?) != Some(magic) {
            continue;
        }
        let (a, b) = (
            probe.u32_le(sb.checked_add(144)?)?,
            probe.u32_le(sb.checked_add(148)?)?,
        );
        let name = label
            .then(|| probe.text(sb.checked_add(680)?, 32))
            .flatten()
            .filter(|n: &Name| n.as_str().is_some());
        return Some(
            Recognised::new(FsKind::Ufs)
                .label(name)
                .uuid((a != 0 || b != 0).then(|| format!("{a:08x}{b:08x}"))),
        );
    }
    None
}
