//! Everything in a directory, in the order of its index.

use super::super::volume::Volume;
use super::{Directory, Entry, parse::Node};
use disk_io::{DiskError, Result};
use std::{
    collections::HashSet,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// Listings read index allocations up to this length in one go.
const WHOLE: u64 = 8 << 20;

impl Directory {
    /// Visits every entry in the order of the index, damage as errors. After damage the
    /// blocks that the tree does not lead to any more follow, by the $BITMAP.
    pub(crate) fn walk(
        &self,
        volume: &Volume,
        visit: &mut dyn FnMut(Result<&Entry, DiskError>) -> ControlFlow<()>,
    ) {
        let whole = self.read_whole(volume);
        let load = |vcn: u64| -> Result<Arc<Node>> {
            let offset = self.offset_of(volume, vcn)?;
            let end = offset.saturating_add(u64::from(self.block_size));
            match whole
                .as_ref()
                .and_then(|w| w.get(offset as usize..end as usize))
            {
                Some(bytes) => self.parse_block(&mut bytes.to_vec(), vcn).map(Arc::new),
                None => self.read_block(volume, vcn).map(Arc::new),
            }
        };
        let mut visited: HashSet<u64> = HashSet::new();
        let mut damaged = false;
        let mut stack = vec![(self.root.clone(), 0usize, false)];
        while let Some((node, at, below)) = stack.last_mut() {
            let Some(entry) = node.entries.get(*at) else {
                let damage = node.damage.clone();
                stack.pop();
                if let Some(e) = damage {
                    damaged = true;
                    if visit(Err(e)).is_break() {
                        return;
                    }
                }
                continue;
            };
            if let Some(vcn) = entry.child
                && !*below
            {
                *below = true;
                let loaded = if visited.insert(vcn) {
                    load(vcn)
                } else {
                    Err(self.fail().found(format!("a loop through block {vcn}")))
                };
                match loaded {
                    Ok(child) => stack.push((child, 0, false)),
                    Err(e) => {
                        damaged = true;
                        if visit(Err(e)).is_break() {
                            return;
                        }
                    }
                }
                continue;
            }
            let flow = if entry.key.is_some() {
                visit(Ok(entry))
            } else {
                ControlFlow::Continue(())
            };
            if flow.is_break() {
                return;
            }
            *at = at.saturating_add(1);
            *below = false;
        }
        if !damaged && let Some(vcn) = self.unreached(volume, &visited).next() {
            damaged = true;
            let found = format!("block {vcn}, which is in use and nothing leads to");
            if visit(Err(self.fail().found(found))).is_break() {
                return;
            }
        }
        if damaged {
            self.damaged.store(true, Relaxed);
            self.sweep(volume, &visited, &load, visit);
        }
    }

    /// Blocks in use that the tree did not lead to.
    fn unreached(&self, volume: &Volume, visited: &HashSet<u64>) -> impl Iterator<Item = u64> {
        let unit = volume.boot.index_unit(self.block_size);
        let step = u64::from(self.block_size).checked_div(unit).unwrap_or(1);
        let bitmap = self.bitmap.as_deref().unwrap_or_default();
        let bytes = (0u64..).zip(bitmap).filter(|(_, byte)| **byte != 0);
        bytes
            .flat_map(|(i, byte)| {
                let bits = (0..8u64).filter(move |bit| byte >> bit & 1 != 0);
                bits.map(move |bit| i.saturating_mul(8).saturating_add(bit))
            })
            .map(move |block| block.saturating_mul(step))
            .filter(|vcn| !visited.contains(vcn))
    }

    /// Visits what is in the blocks that the tree did not lead to.
    fn sweep(
        &self,
        volume: &Volume,
        visited: &HashSet<u64>,
        load: &dyn Fn(u64) -> Result<Arc<Node>>,
        visit: &mut dyn FnMut(Result<&Entry, DiskError>) -> ControlFlow<()>,
    ) {
        if let Err(e) = &self.bitmap {
            let _ = visit(Err(e.clone()));
        }
        for vcn in self.unreached(volume, visited) {
            // A block that is no node of this tree says nothing: its loss, if it was one, has
            // been told where the tree led to it.
            let Ok(node) = load(vcn) else { continue };
            for entry in node.entries.iter().filter(|e| e.key.is_some()) {
                if visit(Ok(entry)).is_break() {
                    return;
                }
            }
        }
    }

    /// All index blocks, where they are few enough.
    fn read_whole(&self, volume: &Volume) -> Option<Vec<u8>> {
        let blocks = self.blocks.as_ref()?;
        let len = self.valid();
        if len > WHOLE {
            return None;
        }
        let mut bytes = vec![0; len as usize];
        let what = || format!("directory {}", self.number);
        volume
            .read_runs(&blocks.runs, &mut bytes, 0, &what)
            .ok()
            .map(|()| bytes)
    }
}
