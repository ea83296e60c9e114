//! Linux' own: ext2/3/4, XFS, Btrfs, F2FS, SquashFS, swap, LUKS, LVM2, software RAID.

use super::{Recognised, probe::Probe};
use crate::{FsKind, Name};

/// An encrypted volume, version 1 or 2.
pub(super) fn luks(probe: &Probe) -> Option<Recognised> {
    if !probe.is(0, b"LUKS\xba\xbe") {
        return None;
    }
    let text = |at, len| Some(probe.text(at, len)?.as_str()?.to_owned());
    let label = (probe.bytes(6, 2)? == [0, 2])
        .then(|| probe.text(24, 48))
        .flatten();
    Some(
        Recognised::new(FsKind::Luks)
            .label(label)
            .uuid(text(168, 40)),
    )
}

/// A physical volume: its label is in one of the first four sectors.
pub(super) fn lvm2(probe: &Probe) -> Option<Recognised> {
    let at = [512u64, 0, 1024, 1536]
        .into_iter()
        .find(|at| probe.is(*at, b"LABELONE") && probe.is(at.saturating_add(24), b"LVM2 001"))?;
    let header = at.checked_add(u64::from(probe.u32_le(at.checked_add(20)?)?))?;
    let id = probe.bytes(header, 32)?;
    let size = probe.u64_le(header.checked_add(32)?);
    Some(
        Recognised::new(FsKind::Lvm2)
            .uuid(crate::lvm2::dashed(&id))
            .size(size),
    )
}

/// Everything with a superblock.
pub(super) fn file_system(probe: &Probe) -> Option<Recognised> {
    ext(probe)
        .or_else(|| xfs(probe))
        .or_else(|| btrfs(probe))
        .or_else(|| f2fs(probe))
        .or_else(|| squashfs(probe))
        .or_else(|| swap(probe))
}

fn ext(probe: &Probe) -> Option<Recognised> {
    const SB: u64 = 1024;
    let f = |at: u64| probe.u32_le(SB.saturating_add(at));
    if probe.u16_le(SB + 0x38)? != 0xef53 {
        return None;
    }
    let (compat, incompat, ro) = (f(0x5c)?, f(0x60)?, f(0x64)?);
    let log_block = f(0x18)?;
    let blocks = u64::from(f(4)?);
    // An external journal has the same magic and is no file system.
    if log_block > 6 || blocks == 0 || f(0x28)? == 0 || incompat & 0x8 != 0 {
        return None;
    }
    // As blkid tells them apart: ext3 is ext2 with a journal and nothing newer.
    let only_old = incompat & !0x16 == 0 && ro & !0x7 == 0;
    let kind = match (only_old, compat & 0x4 != 0) {
        (true, false) => FsKind::Ext2,
        (true, true) => FsKind::Ext3,
        (false, _) => FsKind::Ext4,
    };
    let high = if incompat & 0x80 != 0 { f(0x150)? } else { 0 };
    let blocks = blocks | u64::from(high) << 32;
    let block = 1024u64.checked_shl(log_block)?;
    Some(
        Recognised::new(kind)
            .label(probe.text(SB + 0x78, 16))
            .uuid(probe.uuid(SB + 0x68))
            .size(blocks.checked_mul(block)),
    )
}

fn xfs(probe: &Probe) -> Option<Recognised> {
    if !probe.is(0, b"XFSB") {
        return None;
    }
    let block = u64::from(probe.u32_be(4)?);
    if !(512..=65536).contains(&block) || !block.is_power_of_two() {
        return None;
    }
    Some(
        Recognised::new(FsKind::Xfs)
            .label(probe.text(108, 12))
            .uuid(probe.uuid(32))
            .size(probe.u64_be(8)?.checked_mul(block)),
    )
}

fn btrfs(probe: &Probe) -> Option<Recognised> {
    const SB: u64 = 0x1_0000;
    if !probe.is(SB + 0x40, b"_BHRfS_M") {
        return None;
    }
    Some(
        Recognised::new(FsKind::Btrfs)
            .label(probe.text(SB + 0x12b, 256))
            .uuid(probe.uuid(SB + 0x20))
            .size(probe.u64_le(SB + 0x70)),
    )
}

fn f2fs(probe: &Probe) -> Option<Recognised> {
    const SB: u64 = 1024;
    if probe.u32_le(SB)? != 0xf2f5_2010 {
        return None;
    }
    let log_block = probe.u32_le(SB + 16)?;
    let blocks = probe.u64_le(SB + 36)?;
    let label = probe.bytes(SB + 124, 1024).map(|b| {
        Name::from_utf16(
            b.chunks_exact(2)
                .filter_map(|b| Some(u16::from_le_bytes(b.try_into().ok()?)))
                .take_while(|u| *u != 0),
        )
    });
    Some(
        Recognised::new(FsKind::F2fs)
            .label(label)
            .uuid(probe.uuid(SB + 108))
            .size(1u64.checked_shl(log_block)?.checked_mul(blocks)),
    )
}

fn squashfs(probe: &Probe) -> Option<Recognised> {
    if !probe.is(0, b"hsqs") || probe.u16_le(28)? != 4 {
        return None;
    }
    Some(Recognised::new(FsKind::SquashFs).size(probe.u64_le(40)))
}

fn swap(probe: &Probe) -> Option<Recognised> {
    let page = [4096u64, 8192, 16384, 32768, 65536].into_iter().find(|p| {
        let at = p.saturating_sub(10);
        probe.is(at, b"SWAPSPACE2") || probe.is(at, b"SWAP-SPACE")
    })?;
    let pages = u64::from(probe.u32_le(1028)?).checked_add(1)?;
    let new = probe.is(page.checked_sub(10)?, b"SWAPSPACE2");
    let mut found = Recognised::new(FsKind::Swap);
    if new && probe.u32_le(1024)? == 1 {
        found = found
            .label(probe.text(1052, 16))
            .uuid(probe.uuid(1036))
            .size(pages.checked_mul(page));
    }
    Some(found)
}

/// A superblock of an array, version 1.x: what of it is looked at.
struct Md {
    /// 0 to 10; -1 linear, -4 several paths to one disk.
    level: i32,
    state: State,
}

enum State {
    Whole,
    /// What was being written is not on every mirror, or a first synchronisation began.
    InUse,
    /// Its contents are being rebuilt.
    Rebuilt,
    /// It has no part of the contents: what is on it is from before.
    Spare,
}

const MD: u32 = 0xa92b_4efc;

/// The superblock at `at`, if its checksum is right and it says that it is there.
fn md(probe: &Probe, at: u64) -> Option<Md> {
    let f = |n: u64| at.checked_add(n);
    if probe.u32_le(at)? != MD || probe.u32_le(f(4)?)? != 1 {
        return None;
    }
    let roles = probe.u32_le(f(220)?)?;
    if roles > 1920 || probe.u64_le(f(144)?)?.checked_mul(512)? != at {
        return None;
    }
    let len = usize::try_from(roles)
        .ok()?
        .checked_mul(2)?
        .checked_add(256)?;
    let mut bytes = probe.bytes(at, len)?;
    bytes.get_mut(216..220)?.fill(0);
    let words = bytes.chunks(4).map(|c| {
        let mut word = [0; 4];
        let (to, from) = (word.get_mut(..c.len()), c);
        if let Some(to) = to {
            to.copy_from_slice(from);
        }
        u64::from(u32::from_le_bytes(word))
    });
    let sum = words.fold(0, u64::saturating_add);
    let folded = u32::try_from((sum & 0xffff_ffff).saturating_add(sum >> 32) & 0xffff_ffff).ok()?;
    if folded != probe.u32_le(f(216)?)? {
        return None;
    }
    let (recovering, resync) = (probe.u32_le(f(8)?)? & 2 != 0, probe.u64_le(f(208)?)?);
    let own = probe.u32_le(f(160)?)?;
    let role = f(256)?.checked_add(u64::from(own).checked_mul(2)?)?;
    let role = match own < roles {
        true => probe.u16_le(role)?,
        false => u16::MAX,
    };
    Some(Md {
        level: i32::from_le_bytes(probe.u32_le(f(72)?)?.to_le_bytes()),
        state: match (role, recovering, resync) {
            (0xfffd.., _, _) => State::Spare,
            (_, false, u64::MAX) => State::Whole,
            (_, false, 0) => State::InUse,
            _ => State::Rebuilt,
        },
    })
}

/// A member of an array whose superblock is at the front. What boot sector or superblock is before
/// it may be left over: making an array leaves the first 4 KiB alone, making most file systems does
/// not leave that of an array.
pub(super) fn raid_in_front(probe: &Probe) -> Option<Recognised> {
    let found = [4096, 0].into_iter().any(|at| md(probe, at).is_some());
    found.then(|| raid(probe))?
}

fn near_end(probe: &Probe) -> Option<u64> {
    Some(probe.disk().len().checked_sub(8192)? & !4095)
}

/// Why a volume that is taken for a file system may be part of an array, or older than the rest of
/// one: its superblock is at the end.
pub(super) fn doubt_of_raid(probe: &Probe) -> Option<String> {
    let md = md(probe, near_end(probe)?)?;
    let said = |state: &str| {
        Some(format!(
            "it is a member of a mirror (Linux software RAID) {state}"
        ))
    };
    match (md.level, md.state) {
        (1 | -4, State::Whole) => None,
        (1 | -4, State::InUse) => said(
            "that was in use, or not synchronised yet: what was being written may be on another \
             member only",
        ),
        (1 | -4, State::Rebuilt) => said("that was being rebuilt: its contents may be half copied"),
        (1 | -4, State::Spare) => said("without a part in it: its contents are from before"),
        (level, _) => {
            let level = match level {
                -1 => "linear".into(),
                level => format!("level {level}"),
            };
            Some(format!(
                "it is a member of an array (Linux software RAID, {level}): what lies on it may be \
                 left over from before"
            ))
        }
    }
}

/// A member of an array that has its contents only together with others: its superblock is at the
/// end, so that the member begins like a file system that is longer than it. Of one that fits the
/// superblock may be left over from an earlier life ([`doubt_of_raid`]).
pub(super) fn part_of_raid(probe: &Probe, found: &Recognised) -> Option<Recognised> {
    let len = probe.disk().len();
    let longer = found.size.is_some_and(|size| size > len);
    if !longer {
        return None;
    }
    let near_end = near_end(probe)?;
    let old = (len & !0xffff).checked_sub(0x1_0000);
    let level = |at: u64, version, field| {
        let is = probe.u32_le(at) == Some(MD) && probe.u32_le(at.checked_add(4)?) == Some(version);
        is.then(|| probe.u32_le(at.checked_add(field)?))?
    };
    let level = level(near_end, 1, 72).or_else(|| level(old?, 0, 28))?;
    // Mirrors are whole.
    if level == 1 { None } else { raid(probe) }
}

/// A member of an array: version 1.x superblocks at 0, at 4 KiB or near the end, version
/// 0.90 in the last 64 KiB.
pub(super) fn raid(probe: &Probe) -> Option<Recognised> {
    let len = probe.disk().len();
    for at in [Some(4096), Some(0), near_end(probe)].into_iter().flatten() {
        if probe.u32_le(at) == Some(0xa92b_4efc) && probe.u32_le(at.checked_add(4)?) == Some(1) {
            return Some(
                Recognised::new(FsKind::LinuxRaid)
                    .uuid(probe.uuid(at.checked_add(16)?))
                    .label(probe.text(at.checked_add(32)?, 32)),
            );
        }
    }
    let at = (len & !0xffff).checked_sub(0x1_0000)?;
    if probe.u32_le(at)? != 0xa92b_4efc || probe.u32_le(at.checked_add(4)?)? != 0 {
        return None;
    }
    let word = |n| Some(probe.u32_le(at.checked_add(n)?)?.to_be_bytes());
    let words = [word(20)?, word(52)?, word(56)?, word(60)?].concat();
    Some(Recognised::new(FsKind::LinuxRaid).uuid(Some(super::probe::uuid(&words))))
}
