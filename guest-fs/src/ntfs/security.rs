//! Security descriptors: in $Secure for all files, or in the file itself in old volumes.

mod sddl;

use super::{
    file::{Clusters, Content, File},
    index::Directory,
    record::kind,
    volume::Volume,
};
use crate::Security;
use disk_io::{DiskError, Fields, Result};

/// $Secure's record.
const SECURE: u64 = 9;
/// "$SDS" in UTF-16LE: the stream with all descriptors.
const SDS: &[u8] = b"$\0S\0D\0S\0";
/// "$SII" in UTF-16LE: the index by security id.
const SII: &[u8] = b"$\0S\0I\0I\0";
/// Windows' own limit for a descriptor.
const MAX_LEN: u64 = 1 << 17;
/// Bytes before a descriptor in $SDS.
const HEADER: u64 = 20;
/// $SDS repeats itself in blocks of this size: one of data, one copy.
const BLOCK: u64 = 256 << 10;

/// The descriptor of a file.
pub(crate) fn read(volume: &Volume, file: &File<'_>) -> Result<Option<Security>> {
    let number = file.base.number;
    let context = |e: DiskError| e.context(format!("reading the security of record {number}"));
    let standard = file.value(kind::STANDARD_INFORMATION, &[], 4096)?;
    let id = standard
        .as_deref()
        .and_then(|bytes| {
            Fields::new(bytes, 0, "standard information")
                .u32_le(52)
                .ok()
        })
        .filter(|id| *id != 0);
    let raw = match id {
        Some(id) => shared(volume, id).map_err(context)?,
        None => match file.value(kind::SECURITY_DESCRIPTOR, &[], MAX_LEN)? {
            Some(raw) => raw,
            None => return Ok(None),
        },
    };
    let sddl = sddl::text(&raw).map_err(context)?;
    Ok(Some(Security { raw, sddl }))
}

/// The descriptor with this id out of $Secure.
fn shared(volume: &Volume, id: u32) -> Result<Vec<u8>> {
    let key = (u64::MAX, u64::from(id));
    if let Some(raw) = volume.units.get(&key) {
        return Ok(raw.to_vec());
    }
    let secure = File::open(volume, SECURE, 0, false)?;
    let sds = match secure.content(kind::DATA, SDS)? {
        Some(Content::Clusters(sds)) => sds,
        _ => return Err(DiskError::corrupt("opening $Secure:$SDS").found("no stream in clusters")),
    };
    // The index says where; where it is damaged the stream is searched.
    let place = Directory::open_named(&secure, SII)
        .and_then(|index| index.find_u32(volume, id))
        .ok()
        .flatten();
    let found = place.and_then(|value| {
        let f = Fields::new(&value, 0, "$SII entry");
        let (offset, len) = (f.u64_le(8).ok()?, f.u32_le(16).ok()?);
        [offset, offset.saturating_add(BLOCK)]
            .into_iter()
            .find_map(|at| entry(volume, &sds, at, id, Some(len)).ok().flatten())
    });
    let raw = match found {
        Some(raw) => raw,
        None => search(volume, &sds, id)?,
    };
    volume.units.insert(key, raw.clone().into());
    Ok(raw)
}

/// The descriptor whose header is at `at`, if it is that one and sound.
fn entry(
    volume: &Volume,
    sds: &Clusters,
    at: u64,
    id: u32,
    len: Option<u32>,
) -> Result<Option<Vec<u8>>> {
    let what = || "$Secure:$SDS".to_string();
    let mut header = [0; HEADER as usize];
    let valid = sds.size.min(sds.initialized);
    if at.saturating_add(HEADER) > valid {
        return Ok(None);
    }
    volume.read_runs(&sds.runs, &mut header, at, &what)?;
    let f = Fields::new(&header, at, "$SDS entry");
    let stored = f.u32_le(16)?;
    if f.u32_le(4)? != id
        || len.is_some_and(|len| len != stored)
        || u64::from(stored) < HEADER
        || u64::from(stored) > MAX_LEN
        || at.saturating_add(u64::from(stored)) > valid
    {
        return Ok(None);
    }
    let mut raw = vec![0; u64::from(stored).saturating_sub(HEADER) as usize];
    volume.read_runs(&sds.runs, &mut raw, at.saturating_add(HEADER), &what)?;
    Ok((hash(&raw) == f.u32_le(0)?).then_some(raw))
}

/// Goes through the whole stream.
fn search(volume: &Volume, sds: &Clusters, id: u32) -> Result<Vec<u8>> {
    let what = || "$Secure:$SDS".to_string();
    let valid = sds.size.min(sds.initialized);
    let mut block = 0u64;
    while block < valid {
        let len = valid.saturating_sub(block).min(BLOCK);
        let mut bytes = vec![0; len as usize];
        if volume
            .read_runs(&sds.runs, &mut bytes, block, &what)
            .is_ok()
        {
            let f = Fields::new(&bytes, block, "$SDS block");
            let mut at = 0usize;
            while let (Ok(found), Ok(len)) = (
                f.u32_le(at.saturating_add(4)),
                f.u32_le(at.saturating_add(16)),
            ) {
                if u64::from(len) < HEADER || u64::from(len) > MAX_LEN {
                    break;
                }
                if found == id
                    && let Ok(Some(raw)) =
                        entry(volume, sds, block.saturating_add(at as u64), id, Some(len))
                {
                    return Ok(raw);
                }
                at = at.saturating_add((len as usize).saturating_add(15) & !15);
            }
        }
        block = block.saturating_add(BLOCK);
    }
    Err(DiskError::corrupt("searching $Secure:$SDS")
        .expected(format!("a sound descriptor with id {id}"))
        .found("none"))
}

/// The hash that $Secure keeps beside each descriptor.
fn hash(raw: &[u8]) -> u32 {
    raw.as_chunks::<4>().0.iter().fold(0u32, |hash, word| {
        hash.rotate_left(3).wrapping_add(u32::from_le_bytes(*word))
    })
}
