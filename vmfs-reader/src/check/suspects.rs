//! Resources that something is wrong with, and the files that have them: these are looked for
//! in a second walk, which sound volumes do not cost.

use super::{Check, Kind, Numbers, Which, names};
use crate::{
    address::{Address, FdAddress},
    blocks::Mapping,
    volume::Volume,
};
use disk_io::{DiskError, Finding};
use std::collections::BTreeMap;

/// Resources whose files are looked for.
const MOST: usize = 1 << 16;
/// Files of one resource that are told.
const MOST_FILES: usize = 16;

/// One of them.
#[derive(Debug, Default)]
struct Suspect {
    /// Several addresses lead to it.
    shared: bool,
    /// A bitmap calls it free: where that one lies.
    free: Option<u64>,
    files: Vec<(FdAddress, Vec<u8>)>,
}

#[derive(Debug, Default)]
pub(super) struct Suspects {
    all: BTreeMap<(Kind, u64), Suspect>,
    more: u64,
}

impl Suspects {
    fn of(&mut self, kind: Kind, number: u64) -> Option<&mut Suspect> {
        if self.all.len() >= MOST && !self.all.contains_key(&(kind, number)) {
            self.more = self.more.saturating_add(1);
            return None;
        }
        Some(self.all.entry((kind, number)).or_default())
    }

    /// Several addresses lead to a resource.
    pub(super) fn shared(&mut self, kind: Kind, number: u64) {
        if let Some(suspect) = self.of(kind, number) {
            suspect.shared = true;
        }
    }

    /// What a file uses is called free by the bitmap at `place`.
    pub(super) fn free(&mut self, kind: Kind, number: u64, place: u64) {
        if let Some(suspect) = self.of(kind, number) {
            suspect.free = Some(place);
        }
    }
}

impl Check<'_> {
    /// Looks for the files of the suspects, and tells of them: neighbours with the same files
    /// at once.
    pub(super) fn suspects(&mut self, volume: &Volume) {
        let mut suspects = std::mem::take(&mut self.suspects);
        if suspects.all.is_empty() || self.failed.is_some() {
            return;
        }
        let mut followed = [Numbers::default(), Numbers::default(), Numbers::default()];
        names::walk(volume, &mut |file| {
            self.ask(&mut suspects.all, &mut followed, file);
        });
        let mut all = suspects.all.into_iter().peekable();
        while let Some(((kind, first), suspect)) = all.next() {
            let mut count = 1u64;
            while all
                .next_if(|((k, n), next)| {
                    (*k, *n) == (kind, first.saturating_add(count))
                        && (next.shared, next.free, &next.files)
                            == (suspect.shared, suspect.free, &suspect.files)
                })
                .is_some()
            {
                count = count.saturating_add(1);
            }
            self.tell(kind, first, count, &suspect);
        }
        if suspects.more > 0 {
            let e = DiskError::corrupt("holding files against each other")
                .expected(format!("at most {MOST} resources to look for"))
                .found(format!("{} more", suspects.more));
            self.found(Finding::damage("vmfs-blocks-shared", e), &[]);
        }
    }

    /// Adds a file to the suspects that it has.
    fn ask(
        &self,
        all: &mut BTreeMap<(Kind, u64), Suspect>,
        followed: &mut [Numbers; 3],
        file: Which<'_>,
    ) {
        let mut add = |kind, number| {
            if let Some(suspect) = all.get_mut(&(kind, number))
                && suspect.files.len() < MOST_FILES
                && suspect.files.iter().all(|(a, _)| *a != file.address)
            {
                suspect.files.push((file.address, file.path.to_vec()));
            }
        };
        if let Some(number) = self.number_of(file.address) {
            add(Kind::Descriptor, number);
        }
        let Ok(descriptor) = self.core.descriptor(file.address) else {
            return;
        };
        let Mapping::Blocks { depth } = descriptor.blocks.mapping else {
            return;
        };
        let mut tables = vec![(descriptor.blocks.pointers.clone(), depth)];
        while let Some((table, depth)) = tables.pop() {
            for raw in table.iter().filter(|raw| **raw != 0) {
                let Ok(address) = Address::parse(*raw, &self.core.geometry) else {
                    continue;
                };
                let Some((kind, first, count)) = self.place_of(address) else {
                    continue;
                };
                for n in first..first.saturating_add(count) {
                    add(kind, n);
                }
                let [subs, pointers, pointers2] = &mut *followed;
                let before = match kind {
                    Kind::Sub => subs,
                    Kind::Pointer => pointers,
                    _ => pointers2,
                };
                if depth > 0
                    && before.insert(first)
                    && let Ok(below) = self.core.pointer_block(*raw, 0)
                {
                    tables.push((below, depth.saturating_sub(1)));
                }
            }
        }
    }

    fn tell(&mut self, kind: Kind, first: u64, count: u64, suspect: &Suspect) {
        let files: Vec<Which<'_>> = suspect
            .files
            .iter()
            .map(|(address, path)| Which {
                address: *address,
                path,
            })
            .collect();
        let what = match count {
            1 => format!("{} {first}", kind.as_str()),
            _ => format!(
                "{}s {first} to {}",
                kind.as_str(),
                first.saturating_add(count).saturating_sub(1)
            ),
        };
        let of = match files.len() {
            0 => String::new(),
            1 => ", of one file".into(),
            n => format!(", of {n} files"),
        };
        let size = self.core.geometry.block_size;
        let bytes = (kind == Kind::Block)
            .then(|| first.saturating_mul(size)..first.saturating_add(count).saturating_mul(size));
        if suspect.shared {
            let e = DiskError::corrupt("holding files against each other")
                .expected("what one file has in no other place")
                .found(format!("{what} in several{of}"));
            let finding = Finding::damage("vmfs-blocks-shared", e).touching(bytes.clone());
            self.found(finding, &files);
        }
        if let Some(place) = suspect.free {
            let e = DiskError::corrupt("holding bitmaps against files")
                .offset(place)
                .expected(format!("{what} to be in use{of}"))
                .found("it called free");
            let code = match kind {
                Kind::Descriptor => "vmfs-descriptor-called-free",
                _ => "vmfs-bitmap-free",
            };
            self.found(Finding::warning(code, e).touching(bytes), &files);
        }
    }
}
