//! qcow2, version 3, clusters of 64 KiB, with and without compression.

use super::{Compress, vhd::put};
use disk_io::{DiskError, OutFile, Result};
use flate2::{Compress as Deflate, Compression, FlushCompress, Status};
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

const BITS: u32 = 16;
/// Length of a cluster in bytes.
pub(super) const CLUSTER: u64 = 1 << BITS;
/// Entries of an L2 table, and of a block of reference counts' table.
const ENTRIES: u64 = CLUSTER / 8;
/// Bytes of disk that one L2 table covers.
const GROUP: u64 = CLUSTER * ENTRIES;
/// An L1 table of 32 MiB, which is qemu's limit.
pub(super) const MAX_LEN: u64 = (32 << 20) / 8 * GROUP;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// The state of an image that is being written.
#[derive(Debug)]
pub(super) struct Clusters {
    len: u64,
    compress: Option<Compress>,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// L2 tables that are not written yet.
    groups: BTreeMap<u64, Group>,
    l1: Vec<u64>,
    /// How often each cluster of the file is used. The first one is the header.
    counts: Vec<u16>,
    /// Where the next compressed cluster goes, and where its room ends.
    packed: (u64, u64),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Group {
    /// Empty until a cluster of the group has data.
    entries: Vec<u64>,
    /// Bytes of the group that came, as data or as zeros: a full group is written and
    /// forgotten, so that memory does not grow with the disk.
    covered: u64,
}

impl State {
    /// Takes `n` clusters that lie together; the first one's offset.
    fn take(&mut self, n: u64) -> u64 {
        let at = (self.counts.len() as u64).saturating_mul(CLUSTER);
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        self.counts.resize(self.counts.len().saturating_add(n), 1);
        at
    }

    pub(super) fn end(&self) -> u64 {
        (self.counts.len() as u64).saturating_mul(CLUSTER)
    }

    /// Room for `len` compressed bytes: anywhere, also across clusters that lie together.
    fn pack(&mut self, len: u64) -> u64 {
        let (mut at, mut end) = self.packed;
        if at.saturating_add(len) > end {
            let joins = end == self.end();
            let new = self.take(1);
            if let Some(count) = self.counts.last_mut() {
                // Counted below, for every stream that touches it.
                *count = 0;
            }
            if !joins {
                at = new;
            }
            end = new.saturating_add(CLUSTER);
        }
        let last = at.saturating_add(len).saturating_sub(1);
        for cluster in (at >> BITS)..=(last >> BITS) {
            let index = usize::try_from(cluster).unwrap_or(usize::MAX);
            if let Some(count) = self.counts.get_mut(index) {
                *count = count.saturating_add(1);
            }
        }
        self.packed = (at.saturating_add(len), end);
        at
    }

    fn entry(&mut self, cluster: u64) -> Option<&mut u64> {
        let group = self.groups.entry(cluster / ENTRIES).or_default();
        if group.entries.is_empty() {
            group.entries = vec![0; usize::try_from(ENTRIES).unwrap_or(0)];
        }
        let index = usize::try_from(cluster % ENTRIES).unwrap_or(usize::MAX);
        group.entries.get_mut(index)
    }
}

impl Clusters {
    pub(super) fn new(len: u64, compress: Option<Compress>) -> Self {
        let l1 = usize::try_from(len.div_ceil(GROUP)).unwrap_or(0);
        Self {
            len,
            compress,
            state: Mutex::new(State {
                groups: BTreeMap::new(),
                l1: vec![0; l1],
                counts: vec![1],
                packed: (0, 0),
            }),
        }
    }

    pub(super) fn save(&self) -> State {
        self.state().clone()
    }

    pub(super) fn restore(&self, state: &State) {
        self.state().clone_from(state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_at(&self, out: &OutFile<'_>, bytes: &[u8], offset: u64) -> Result<()> {
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let inside = at & (CLUSTER - 1);
            let room = usize::try_from(CLUSTER.saturating_sub(inside)).unwrap_or(0);
            let (now, later) = rest.split_at(room.min(rest.len()));
            let whole = inside == 0
                && (now.len() == room || at.saturating_add(now.len() as u64) == self.len);
            match self.compress {
                Some(how) if whole => self.packed(out, how, now, at >> BITS)?,
                _ => self.plain(out, now, at)?,
            }
            rest = later;
            at = at.saturating_add(now.len() as u64);
        }
        self.covered(out, offset, bytes.len() as u64)
    }

    /// A cluster, or a part of one, as it is.
    fn plain(&self, out: &OutFile<'_>, bytes: &[u8], at: u64) -> Result<()> {
        let place = {
            let mut state = self.state();
            let cluster = at >> BITS;
            let known = state.entry(cluster).map_or(0, |e| *e);
            if known == 0 {
                let place = state.take(1);
                if let Some(entry) = state.entry(cluster) {
                    *entry = place | COPIED;
                }
                place
            } else {
                known & !COPIED
            }
        };
        out.put(bytes, place.saturating_add(at & (CLUSTER - 1)))
    }

    fn packed(&self, out: &OutFile<'_>, how: Compress, bytes: &[u8], cluster: u64) -> Result<()> {
        let mut padded;
        let mut whole = bytes;
        if (bytes.len() as u64) < CLUSTER {
            padded = bytes.to_vec();
            padded.resize(usize::try_from(CLUSTER).unwrap_or(0), 0);
            whole = &padded;
        }
        let Some(small) = compress(how, whole)? else {
            return self.plain(out, bytes, cluster << BITS);
        };
        let len = small.len() as u64;
        let place = {
            let mut state = self.state();
            let place = state.pack(len);
            let sectors = (place % 512).saturating_add(len).saturating_sub(1) / 512;
            let shift = 62u32.saturating_sub(BITS.saturating_sub(8));
            if let Some(entry) = state.entry(cluster) {
                *entry = COMPRESSED | sectors << shift | place;
            }
            place
        };
        out.put(&small, place)
    }

    /// Notes that a range has come, and writes the tables that are complete by it.
    pub(super) fn covered(&self, out: &OutFile<'_>, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let number = at / GROUP;
            let group_end = number.saturating_add(1).saturating_mul(GROUP);
            let to = group_end.min(end);
            let whole = group_end
                .min(self.len)
                .saturating_sub(number.saturating_mul(GROUP));
            let full = {
                let mut state = self.state();
                let group = state.groups.entry(number).or_default();
                group.covered = group.covered.saturating_add(to.saturating_sub(at));
                (group.covered >= whole)
                    .then(|| state.groups.remove(&number))
                    .flatten()
            };
            if let Some(group) = full {
                self.write_group(out, number, &group.entries)?;
            }
            at = to;
        }
        Ok(())
    }

    fn write_group(&self, out: &OutFile<'_>, number: u64, entries: &[u64]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let place = {
            let mut state = self.state();
            let place = state.take(1);
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            if let Some(entry) = state.l1.get_mut(index) {
                *entry = place | COPIED;
            }
            place
        };
        let table: Vec<u8> = entries.iter().flat_map(|e| e.to_be_bytes()).collect();
        out.put(&table, place)
    }

    /// The remaining tables, the reference counts, and the header last.
    pub(super) fn finish(&self, out: &OutFile<'_>) -> Result<()> {
        let rest = std::mem::take(&mut self.state().groups);
        for (number, group) in rest {
            self.write_group(out, number, &group.entries)?;
        }
        let mut state = self.state();
        let l1: Vec<u8> = state.l1.iter().flat_map(|e| e.to_be_bytes()).collect();
        let l1_at = state.take((l1.len() as u64).div_ceil(CLUSTER).max(1));
        out.put(&l1, l1_at)?;
        // Counts of the counts' own clusters: repeat until nothing more is needed.
        let per_block = CLUSTER / 2;
        let (mut blocks, mut table) = (0u64, 0u64);
        loop {
            let all = (state.counts.len() as u64)
                .saturating_add(blocks)
                .saturating_add(table);
            let need = all.div_ceil(per_block);
            let need_table = need.saturating_mul(8).div_ceil(CLUSTER);
            if need == blocks && need_table == table {
                break;
            }
            (blocks, table) = (need, need_table);
        }
        let table_at = state.take(table);
        let blocks_at = state.take(blocks);
        let mut counts: Vec<u8> = state.counts.iter().flat_map(|c| c.to_be_bytes()).collect();
        let full = usize::try_from(blocks.saturating_mul(CLUSTER)).unwrap_or(counts.len());
        counts.resize(full, 0);
        out.put(&counts, blocks_at)?;
        let places: Vec<u8> = (0..blocks)
            .flat_map(|n| {
                n.saturating_mul(CLUSTER)
                    .saturating_add(blocks_at)
                    .to_be_bytes()
            })
            .collect();
        out.put(&places, table_at)?;
        out.set_len(state.end())?;
        let mut h = vec![0; 112];
        put(&mut h, 0, b"QFI\xfb");
        put(&mut h, 4, &3u32.to_be_bytes());
        put(&mut h, 20, &BITS.to_be_bytes());
        put(&mut h, 24, &self.len.to_be_bytes());
        put(
            &mut h,
            36,
            &u32::try_from(state.l1.len()).unwrap_or(0).to_be_bytes(),
        );
        put(&mut h, 40, &l1_at.to_be_bytes());
        put(&mut h, 48, &table_at.to_be_bytes());
        put(&mut h, 56, &u32::try_from(table).unwrap_or(0).to_be_bytes());
        put(&mut h, 96, &4u32.to_be_bytes());
        put(&mut h, 100, &112u32.to_be_bytes());
        if matches!(self.compress, Some(Compress::Zstd(_))) {
            put(&mut h, 72, &8u64.to_be_bytes());
            put(&mut h, 104, &[1]);
        }
        out.put(&h, 0)
    }
}

thread_local! {
    static DEFLATE: RefCell<Option<(u32, Deflate)>> = const { RefCell::new(None) };
}

/// A compressed cluster, or `None` where that saves nothing.
fn compress(how: Compress, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let fail = |e: String| DiskError::corrupt("compressing a cluster").found(e);
    // One sector less than a cluster, or it is not worth it.
    let most = bytes.len().saturating_sub(512);
    let mut small = vec![0; most];
    let len = match how {
        Compress::Zlib(level) => DEFLATE.with_borrow_mut(|kept| {
            // Readers that inflate in a stream have a window of 4 KiB: no reference may
            // reach further back.
            let deflate = match kept {
                Some((l, deflate)) if *l == level => {
                    deflate.reset();
                    deflate
                }
                other => {
                    let level_ = Compression::new(level.clamp(1, 9));
                    let new = Deflate::new_with_window_bits(level_, false, 12);
                    &mut other.insert((level, new)).1
                }
            };
            let status = deflate
                .compress(bytes, &mut small, FlushCompress::Finish)
                .map_err(|e| fail(e.to_string()))?;
            let done = status == Status::StreamEnd;
            Ok::<_, DiskError>(done.then(|| usize::try_from(deflate.total_out()).unwrap_or(0)))
        })?,
        // It does not fit: that is the only way it can fail.
        Compress::Zstd(level) => zstd::bulk::compress_to_buffer(bytes, &mut small, level).ok(),
    };
    Ok(len.filter(|len| *len > 0).map(|len| {
        small.truncate(len);
        small
    }))
}
