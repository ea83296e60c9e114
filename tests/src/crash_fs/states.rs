//! What a disk may hold after a loss of power.
//!
//! The names of one directory last in their order, up to a moment behind its last sync; different
//! directories know nothing of each other. A file's sync makes its bytes last and no name of it.
//! What was written since may be there, be missing, or be there in part, in any order.

use super::{
    op::{Entry, Op},
    tree::{Ino, Tree},
};
use std::collections::{HashMap, HashSet};

/// What survived of what no sync had covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survived {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// Every name and no byte: a rename without the data of what was renamed.
    Names,
    /// Every byte and no name.
    Bytes,
    /// Whatever a number says.
    Some(u64),
}

impl Survived {
    /// The four that are no matter of luck, and so many of those that are.
    pub fn each(seeds: u64) -> Vec<Self> {
        let mut all = vec![Self::Nothing, Self::All, Self::Names, Self::Bytes];
        all.extend((1..=seeds).map(Self::Some));
        all
    }
}

/// Numbers that look random and are always the same.
#[derive(Debug)]
pub struct Noise(pub u64);

impl Noise {
    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}

/// What `base`, on which all lasts, holds when power is lost after the operations of `log`.
pub fn after(base: &Tree, log: &[Entry], survived: Survived) -> Tree {
    let mut noise = match survived {
        Survived::Some(seed) => Noise(seed.wrapping_mul(1 << 20).wrapping_add(log.len() as u64)),
        _ => Noise(0),
    };
    let synced = Synced::of(log);
    let cuts = synced.cuts(survived, &mut noise);
    let mut tree = base.clone();
    let mut counts: HashMap<Ino, usize> = HashMap::new();
    for (n, entry) in log.iter().enumerate() {
        let dirs = entry.op.dirs();
        if !dirs.is_empty() {
            tree.appear(&entry.op, entry.at);
            let mut lasts = true;
            for dir in dirs {
                let count = counts.entry(dir).or_default();
                lasts &= *count < cuts.get(&dir).copied().unwrap_or(0);
                *count += 1;
            }
            if lasts {
                // Between directories an operation may miss what it builds on.
                let _ = tree.apply(&entry.op, entry.at);
            }
            continue;
        }
        let whole = match &entry.op {
            Op::Attributes { ino, .. } => n < synced.all.get(ino).copied().unwrap_or(0),
            op => op
                .data_of()
                .is_some_and(|ino| n < synced.data.get(&ino).copied().unwrap_or(0)),
        };
        let there = match survived {
            _ if whole => Part::Whole,
            Survived::All | Survived::Bytes => Part::Whole,
            Survived::Nothing | Survived::Names => Part::Missing,
            Survived::Some(_) => Part::pick(&mut noise),
        };
        there.apply(&mut tree, entry, &mut noise);
    }
    if survived != Survived::All {
        synced.stale_times(base, log, &mut tree);
    }
    tree
}

/// What syncs cover.
struct Synced {
    /// Number of the operation that synced a file's bytes last.
    data: HashMap<Ino, usize>,
    /// The same with its times and mode.
    all: HashMap<Ino, usize>,
    /// How many operations on names of a directory there are, and how many last.
    dirs: HashMap<Ino, (usize, usize)>,
}

impl Synced {
    fn of(log: &[Entry]) -> Self {
        let mut synced = Self {
            data: HashMap::new(),
            all: HashMap::new(),
            dirs: HashMap::new(),
        };
        for (n, entry) in log.iter().enumerate() {
            match &entry.op {
                Op::Sync { ino, data_only } => {
                    synced.data.insert(*ino, n);
                    if !data_only {
                        synced.all.insert(*ino, n);
                    }
                }
                Op::SyncDir { dir } => {
                    let (all, lasting) = synced.dirs.entry(*dir).or_default();
                    *lasting = *all;
                }
                op => {
                    for dir in op.dirs() {
                        synced.dirs.entry(dir).or_default().0 += 1;
                    }
                }
            }
        }
        synced
    }

    /// How many operations on the names of each directory are there.
    fn cuts(&self, survived: Survived, noise: &mut Noise) -> HashMap<Ino, usize> {
        let mut dirs: Vec<_> = self.dirs.iter().collect();
        dirs.sort();
        let cut = |(all, lasting): (usize, usize), noise: &mut Noise| match survived {
            Survived::All | Survived::Names => all,
            Survived::Nothing | Survived::Bytes => lasting,
            Survived::Some(_) => {
                lasting + usize::try_from(noise.below((all - lasting) as u64 + 1)).unwrap_or(0)
            }
        };
        dirs.iter()
            .map(|(dir, counts)| (**dir, cut(**counts, noise)))
            .collect()
    }

    /// `fdatasync` leaves the times as they were on the disk.
    fn stale_times(&self, base: &Tree, log: &[Entry], tree: &mut Tree) {
        let files: HashSet<Ino> = log.iter().filter_map(|e| e.op.data_of()).collect();
        for ino in files {
            let until = self.all.get(&ino).copied().unwrap_or(0);
            let before = log.get(..until).unwrap_or_default().iter().rev();
            let mut before = before.filter_map(|e| match &e.op {
                Op::Attributes {
                    ino: of,
                    modified: Some(modified),
                    ..
                } if *of == ino => Some(*modified),
                op => (op.data_of() == Some(ino)).then_some(e.at),
            });
            let then = before
                .next()
                .or_else(|| base.node(ino).ok().map(|n| n.modified));
            if let (Some(then), Ok(node)) = (then, tree.node_mut(ino)) {
                node.modified = then;
            }
        }
    }
}

/// How much there is of a write.
enum Part {
    Whole,
    Missing,
    /// What lies in front of a sector, or behind it.
    Torn,
    /// Some pages of it.
    Pages,
}

impl Part {
    fn pick(noise: &mut Noise) -> Self {
        match noise.below(5) {
            0 | 1 => Self::Whole,
            2 => Self::Missing,
            3 => Self::Torn,
            _ => Self::Pages,
        }
    }

    fn apply(&self, tree: &mut Tree, entry: &Entry, noise: &mut Noise) {
        let Op::Write { ino, at, bytes } = &entry.op else {
            if !matches!(self, Self::Missing) {
                let _ = tree.apply(&entry.op, entry.at);
            }
            return;
        };
        let mut put = |from: usize, to: usize| {
            let part = bytes.get(from..to.min(bytes.len())).unwrap_or_default();
            let _ = tree.put(*ino, at + from as u64, part, entry.at);
        };
        match self {
            Self::Whole => put(0, bytes.len()),
            Self::Missing => {}
            Self::Torn => {
                let sectors = bytes.len().div_ceil(512) as u64;
                let cut = usize::try_from(noise.below(sectors + 1)).unwrap_or(0) * 512;
                match noise.below(2) {
                    0 => put(0, cut),
                    _ => put(cut.min(bytes.len()), bytes.len()),
                }
            }
            Self::Pages => {
                for from in (0..bytes.len()).step_by(4096) {
                    if noise.below(2) == 0 {
                        put(from, from + 4096);
                    }
                }
            }
        }
    }
}
