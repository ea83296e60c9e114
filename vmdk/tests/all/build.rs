//! Links of every kind, and beside them the bytes that a guest would see.

use crate::common::MemDir;
use vmdk::write::{
    Cell, cowd,
    descriptor::{Text, extent},
    hosted, sesparse,
    stream::{self, Layout},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sparse,
    /// Version 2, grains of zeros, no second directory, missing tables.
    SparseV2,
    SparseV3SmallGrain,
    SplitSparse,
    StreamFooter,
    StreamHeader,
    Cowd1,
    Cowd8,
    SeSparse,
    Flat,
    Vmfs,
    SplitFlat,
}

pub(crate) const ALL: [Kind; 12] = [
    Kind::Sparse,
    Kind::SparseV2,
    Kind::SparseV3SmallGrain,
    Kind::SplitSparse,
    Kind::StreamFooter,
    Kind::StreamHeader,
    Kind::Cowd1,
    Kind::Cowd8,
    Kind::SeSparse,
    Kind::Flat,
    Kind::Vmfs,
    Kind::SplitFlat,
];

impl Kind {
    /// Sectors in a grain.
    pub(crate) fn grain(self) -> u64 {
        match self {
            Self::SparseV3SmallGrain | Self::Cowd8 | Self::SeSparse => 8,
            Self::Cowd1 => 1,
            _ => 128,
        }
    }

    /// Whether it can have a parent.
    pub(crate) fn is_delta(self) -> bool {
        !matches!(self, Self::Flat | Self::Vmfs | Self::SplitFlat)
    }
}

/// A chain that is being made, with the bytes it stands for.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) dir: MemDir,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Sectors.
    pub(crate) capacity: u64,
    pub(crate) bytes: Vec<u8>,
    /// Content id and file of the newest link.
    pub(crate) top: Option<(u32, String)>,
    links: usize,
}

impl Chain {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            dir: MemDir::default(),
            files: Vec::new(),
            capacity,
            bytes: vec![0; (capacity * 512) as usize],
            top: None,
            links: 0,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.top.as_ref().map_or("", |t| &t.1)
    }

    /// Contents of grain `number` written by the link being made: every sector names both.
    pub(crate) fn data(&self, kind: Kind, number: u64) -> Vec<u8> {
        let grain = kind.grain();
        (0..grain)
            .flat_map(|s| {
                let mut sector = [(self.links + 1) as u8; 512];
                sector[..8].copy_from_slice(&(number * grain + s + 1).to_le_bytes());
                // Something that does not compress to nothing.
                let mut seed = number * 77 + s;
                for b in &mut sector[8..40] {
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(99);
                    *b = (seed >> 33) as u8;
                }
                sector
            })
            .collect()
    }

    fn put(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.dir.put(name, bytes.clone());
        self.files.push((name.into(), bytes));
    }

    /// Adds a link on top. `cells` are in the link's own grains; later ones win and numbers
    /// outside are dropped.
    pub(crate) fn add(&mut self, kind: Kind, cells: &[(u64, Cell)]) {
        let grain = kind.grain();
        let grains = self.capacity.div_ceil(grain);
        let mut kept: Vec<(u64, Cell)> = Vec::new();
        for (number, cell) in cells {
            let cell = match (kind, cell) {
                // A stream leaves zeros out, so it cannot hide a parent's data.
                (Kind::StreamFooter | Kind::StreamHeader, Cell::Zero | Cell::Unmapped)
                    if self.links > 0 =>
                {
                    continue;
                }
                (_, cell) => cell.clone(),
            };
            if *number < grains {
                kept.retain(|(n, _)| n != number);
                kept.push((*number, cell));
            }
        }
        for (number, cell) in &kept {
            let from = (number * grain * 512) as usize;
            let to = self.bytes.len().min(from + (grain * 512) as usize);
            match cell {
                Cell::Data(data) => self.bytes[from..to].copy_from_slice(&data[..to - from]),
                Cell::Zero | Cell::Unmapped => self.bytes[from..to].fill(0),
            }
        }
        let n = self.links;
        let cid = 0x1000_0000 + n as u32;
        let name = format!("disk-{n:06}.vmdk");
        let parent = self.top.take();
        let text = |create_type: &str, extents: Vec<String>| {
            Text {
                cid,
                parent: parent.as_ref().map(|(cid, name)| (*cid, name.as_str())),
                create_type,
                extents,
            }
            .encode()
        };
        let cap = self.capacity;
        let mut put: Vec<(String, Vec<u8>)> = Vec::new();
        match kind {
            Kind::Sparse | Kind::SparseV2 | Kind::SparseV3SmallGrain => {
                let options = hosted::Options {
                    version: match kind {
                        Kind::Sparse => 1,
                        Kind::SparseV2 => 2,
                        _ => 3,
                    },
                    grain_size: grain,
                    redundant: kind != Kind::SparseV2,
                    zeroed_grains: kind == Kind::SparseV2,
                    all_tables: kind != Kind::SparseV2,
                    descriptor: Some(text("monolithicSparse", vec![extent(cap, "SPARSE", &name)])),
                    ..Default::default()
                };
                put.push((name.clone(), hosted::encode(&options, cap, &kept)));
            }
            Kind::StreamFooter | Kind::StreamHeader => {
                let options = stream::Options {
                    layout: if kind == Kind::StreamFooter {
                        Layout::Footer
                    } else {
                        Layout::Header
                    },
                    version: 3,
                    grain_size: grain,
                    descriptor: text("streamOptimized", vec![extent(cap, "SPARSE", &name)]),
                    pad_last: kind == Kind::StreamFooter,
                    level: if n.is_multiple_of(2) { 6 } else { 0 },
                };
                put.push((name.clone(), stream::encode(&options, cap, &kept)));
            }
            Kind::SplitSparse => {
                let piece = 5 * grain;
                let mut lines = Vec::new();
                for p in 0..cap.div_ceil(piece) {
                    let file = format!("disk-{n:06}-s{:03}.vmdk", p + 1);
                    let len = piece.min(cap - p * piece);
                    let own: Vec<_> = kept
                        .iter()
                        .filter(|(g, _)| g / 5 == p)
                        .map(|(g, c)| (g % 5, c.clone()))
                        .collect();
                    lines.push(extent(len, "SPARSE", &file));
                    put.push((file, hosted::encode(&hosted::Options::default(), len, &own)));
                }
                put.push((name.clone(), text("twoGbMaxExtentSparse", lines).into()));
            }
            Kind::Cowd1 | Kind::Cowd8 => {
                let file = format!("disk-{n:06}-delta.vmdk");
                put.push((file.clone(), cowd::encode(cap as u32, grain as u32, &kept)));
                let lines = vec![extent(cap, "VMFSSPARSE", &file)];
                put.push((name.clone(), text("vmfsSparse", lines).into()));
            }
            Kind::SeSparse => {
                let file = format!("disk-{n:06}-sesparse.vmdk");
                put.push((file.clone(), sesparse::encode(cap, &kept, false)));
                let lines = vec![extent(cap, "SESPARSE", &file)];
                put.push((name.clone(), text("seSparse", lines).into()));
            }
            Kind::Flat | Kind::Vmfs => {
                let file = format!("disk-{n:06}-flat.vmdk");
                put.push((file.clone(), self.bytes.clone()));
                let (word, create_type) = match kind {
                    Kind::Flat => ("FLAT", "monolithicFlat"),
                    _ => ("VMFS", "vmfs"),
                };
                put.push((
                    name.clone(),
                    text(create_type, vec![extent(cap, word, &file)]).into(),
                ));
            }
            Kind::SplitFlat => {
                let piece = 333;
                let mut lines = Vec::new();
                for p in 0..cap.div_ceil(piece) {
                    let file = format!("disk-{n:06}-f{:03}.vmdk", p + 1);
                    let len = piece.min(cap - p * piece);
                    let from = (p * piece * 512) as usize;
                    lines.push(extent(len, "FLAT", &file));
                    put.push((file, self.bytes[from..from + (len * 512) as usize].to_vec()));
                }
                put.push((name.clone(), text("twoGbMaxExtentFlat", lines).into()));
            }
        }
        for (name, bytes) in put {
            self.put(&name, bytes);
        }
        self.top = Some((cid, name));
        self.links += 1;
    }

    /// Adds a link with data in every `step`th grain, from the last to the first.
    pub(crate) fn add_regular(&mut self, kind: Kind, step: u64) {
        let grains = self.capacity.div_ceil(kind.grain());
        let cells: Vec<_> = (0..grains)
            .rev()
            .filter(|g| g % step == 0)
            .map(|g| {
                let cell = match g / step % 4 {
                    1 => Cell::Zero,
                    3 => Cell::Unmapped,
                    _ => Cell::Data(self.data(kind, g)),
                };
                (g, cell)
            })
            .collect();
        self.add(kind, &cells);
    }
}
