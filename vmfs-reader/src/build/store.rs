//! Built volumes and devices: pieces at offsets, the rest a hole.

use disk_io::{
    Disk, Result, Run, RunKind, SparseMemDisk,
    disk::{check_range, check_run_offset},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// `len` bytes of a disk from an offset on.
    Disk(Arc<dyn Disk>, u64, u64),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(b) => b.len() as u64,
            Self::Disk(_, _, len) => *len,
        }
    }
}

/// A volume in pieces that do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pieces: BTreeMap<u64, Piece>,
}

impl Store {
    pub(crate) fn put(&mut self, at: u64, bytes: Vec<u8>) {
        self.insert(at, Piece::Bytes(bytes));
    }

    pub(crate) fn put_disk(&mut self, at: u64, disk: &Arc<dyn Disk>, from: u64, len: u64) {
        if len > 0 {
            self.insert(at, Piece::Disk(disk.clone(), from, len));
        }
    }

    fn insert(&mut self, at: u64, piece: Piece) {
        let before = self.pieces.range(..at).next_back();
        assert!(before.is_none_or(|(b, p)| b + p.len() <= at), "{at:#x}");
        let after = self.pieces.range(at..).next();
        assert!(after.is_none_or(|(a, _)| at + piece.len() <= *a), "{at:#x}");
        self.pieces.insert(at, piece);
    }

    /// The piece that holds `at`, and where the next one begins.
    fn find(&self, at: u64) -> (Option<(u64, &Piece)>, u64) {
        let here = self.pieces.range(..=at).next_back();
        let here = here
            .filter(|(b, p)| *b + p.len() > at)
            .map(|(b, p)| (*b, p));
        let next = self.pieces.range(at + 1..).next();
        (here, next.map_or(u64::MAX, |(b, _)| *b))
    }

    fn read(&self, buf: &mut [u8], mut at: u64) -> Result<()> {
        let mut rest = buf;
        while !rest.is_empty() {
            let (here, next) = self.find(at);
            let end = here.map_or(next, |(b, p)| b + p.len());
            let n = (end - at).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(n);
            match here {
                None => now.fill(0),
                Some((b, Piece::Bytes(bytes))) => {
                    now.copy_from_slice(&bytes[(at - b) as usize..][..n]);
                }
                Some((b, Piece::Disk(disk, from, _))) => disk.read_exact_at(now, from + at - b)?,
            }
            rest = later;
            at += n as u64;
        }
        Ok(())
    }

    fn run(&self, at: u64) -> Run {
        match self.find(at) {
            (Some((b, piece)), _) => Run {
                len: b + piece.len() - at,
                kind: RunKind::Data,
            },
            (None, next) => Run {
                len: next - at,
                kind: RunKind::Unallocated,
            },
        }
    }
}

/// A built device: the LVM metadata, then its part of the volume.
#[derive(Clone, Debug)]
pub struct Device {
    head: SparseMemDisk,
    head_len: u64,
    store: Arc<Store>,
    first: u64,
    len: u64,
}

impl Device {
    pub(super) fn bare(store: Arc<Store>, len: u64) -> Self {
        Self {
            head: SparseMemDisk::new(0),
            head_len: 0,
            store,
            first: 0,
            len,
        }
    }

    /// `first` is where the device's part of the volume begins.
    pub(super) fn with_head(head: SparseMemDisk, store: Arc<Store>, first: u64, len: u64) -> Self {
        Self {
            head_len: head.len(),
            head,
            store,
            first,
            len,
        }
    }

    /// Writes the device into a sparse file.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.len)?;
        let mut at = 0;
        while at < self.len {
            let run = self.run_at(at)?;
            let end = at + run.len;
            while run.kind == RunKind::Data && at < end {
                let mut buf = vec![0; (end - at).min(1 << 20) as usize];
                self.read_exact_at(&mut buf, at)?;
                if !disk_io::zero::is_zero(&buf) {
                    file.seek(SeekFrom::Start(at))?;
                    file.write_all(&buf)?;
                }
                at += buf.len() as u64;
            }
            at = end;
        }
        Ok(())
    }
}

impl Disk for Device {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len, offset, buf.len())?;
        let n = self.head_len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (head, body) = buf.split_at_mut(n);
        if !head.is_empty() {
            self.head.read_exact_at(head, offset)?;
        }
        if body.is_empty() {
            return Ok(());
        }
        let at = offset + n as u64 - self.head_len + self.first;
        self.store.read(body, at)
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len, offset)?;
        let mut run = if offset < self.head_len {
            self.head.run_at(offset)?
        } else {
            self.store.run(offset - self.head_len + self.first)
        };
        run.len = run.len.min(self.len - offset);
        Ok(run)
    }
}
