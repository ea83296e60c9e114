//! What a target has, told to whoever sends what it has not.

use super::{
    frames::{Frames, Kind, MAGIC, encode},
    unit::ZERO,
};
use crate::{
    backup::ChainLink,
    digest::{Hash, UNIT},
};
use disk_io::{DiskError, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    os::unix::fs::FileExt,
};

/// Hashes in a frame.
const EACH: u64 = 32 << 10;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    size: u64,
    /// Digest of the contents; none for a target that there is not.
    digest: Option<String>,
    chain: Vec<ChainLink>,
}

/// What a target has.
#[derive(Debug)]
pub struct Have {
    /// Length of its disk in bytes; 0 for one that there is not.
    pub size: u64,
    /// Digest of its contents; none for one that there is not.
    pub digest: Option<String>,
    /// The chain of what it was brought up to date from.
    pub chain: Vec<ChainLink>,
    hashes: Option<File>,
    /// What it received already.
    pub(super) pending: BTreeMap<u64, Hash>,
}

impl Have {
    /// # Errors
    /// `Corrupt` for what is no such list.
    pub fn read(from: impl Read, name: &str) -> Result<Self> {
        let mut frames = Frames::new(from, name)?;
        let bad = || {
            DiskError::corrupt("reading what a replica has")
                .file(name)
                .expected("what vmdkit replicate --have writes")
                .found("something else, or not all of it")
        };
        let first = frames.next()?.filter(|f| f.kind == Kind::Head);
        let head: Head = serde_json::from_slice(&first.ok_or_else(bad)?.body).map_err(|_| bad())?;
        let fail = |e: std::io::Error| DiskError::io("keeping what a replica has", &e);
        let spool = tempfile::tempfile().map_err(fail)?;
        let mut pending = BTreeMap::new();
        loop {
            let frame = frames.next()?.ok_or_else(bad)?;
            match frame.kind {
                Kind::Hashes => {
                    let (first, hashes) = frame.body.split_first_chunk().ok_or_else(bad)?;
                    let first = u64::from_le_bytes(*first);
                    let at = first.checked_mul(32).ok_or_else(bad)?;
                    spool.write_all_at(hashes, at).map_err(fail)?;
                }
                Kind::Pending => {
                    for entry in frame.body.chunks_exact(40) {
                        let (unit, hash) = entry.split_first_chunk().ok_or_else(bad)?;
                        let hash = hash.try_into().map_err(|_| bad())?;
                        let unit = u64::from_le_bytes(*unit);
                        if unit < head.size.div_ceil(UNIT) {
                            pending.insert(unit, hash);
                        }
                    }
                }
                Kind::End => break,
                _ => return Err(bad()),
            }
        }
        Ok(Self {
            size: head.size,
            digest: head.digest,
            chain: head.chain,
            hashes: Some(spool),
            pending,
        })
    }

    /// Nothing: all of a disk is sent.
    pub fn nothing() -> Self {
        Self {
            size: 0,
            digest: None,
            chain: Vec::new(),
            hashes: None,
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn hash(&self, unit: u64) -> Result<Hash> {
        let mut hash = ZERO;
        let (Some(file), true) = (&self.hashes, self.digest.is_some()) else {
            return Ok(hash);
        };
        file.read_exact_at(&mut hash, unit.saturating_mul(32))
            .map_err(|e| DiskError::io("looking up what the replica has", &e))?;
        Ok(hash)
    }
}

/// Writes what a target has: `hashes` for every one of its `count` units.
pub(super) fn write(
    out: &mut dyn Write,
    (size, digest, chain): (u64, Option<String>, Vec<ChainLink>),
    (count, hashes): (u64, &dyn Fn(u64) -> Result<Hash>),
    pending: impl Iterator<Item = (u64, Hash)>,
) -> Result<()> {
    let fail = |e: std::io::Error| DiskError::io("writing what the replica has", &e);
    let head = Head {
        version: 1,
        size,
        digest,
        chain,
    };
    let body = serde_json::to_vec(&head).map_err(|e| fail(e.into()))?;
    out.write_all(MAGIC).map_err(fail)?;
    out.write_all(&encode(Kind::Head, &body)).map_err(fail)?;
    for first in (0..count).step_by(EACH as usize) {
        let mut body = first.to_le_bytes().to_vec();
        for unit in first..first.saturating_add(EACH).min(count) {
            body.extend(hashes(unit)?);
        }
        out.write_all(&encode(Kind::Hashes, &body)).map_err(fail)?;
    }
    let pending: Vec<(u64, Hash)> = pending.collect();
    for some in pending.chunks(EACH as usize) {
        let body: Vec<u8> = some
            .iter()
            .flat_map(|(unit, hash)| unit.to_le_bytes().into_iter().chain(*hash))
            .collect();
        out.write_all(&encode(Kind::Pending, &body)).map_err(fail)?;
    }
    out.write_all(&encode(Kind::End, b"{}"))
        .and_then(|()| out.flush())
        .map_err(fail)
}
