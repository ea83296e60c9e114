//! A file in memory, kept by pages: what is empty costs nothing.

use disk_io::{Disk, Result, RunKind};
use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt, path::Path, sync::Arc};

const PAGE: u64 = 4096;

/// A file that can be changed. Places and lengths are the caller's own: it panics where they are
/// wrong, for a test that damages something else than it says proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8]>>,
}

impl Bytes {
    /// A copy of these.
    pub fn new(bytes: &[u8]) -> Self {
        let mut new = Self {
            len: bytes.len() as u64,
            ..Self::default()
        };
        for (n, page) in (0..).zip(bytes.chunks(PAGE as usize)) {
            new.keep(n, page);
        }
        new
    }

    /// A copy of a disk.
    pub fn of_disk(disk: &dyn Disk) -> Result<Self> {
        let mut new = Self {
            len: disk.len(),
            ..Self::default()
        };
        let mut at = 0;
        while at < disk.len() {
            let run = disk.run_at(at)?;
            let end = (at + run.len).next_multiple_of(PAGE);
            if run.kind == RunKind::Data {
                for n in at / PAGE..end.div_ceil(PAGE) {
                    let start = n * PAGE;
                    let mut page = vec![0; PAGE.min(disk.len() - start) as usize];
                    disk.read_exact_at(&mut page, start)?;
                    new.keep(n, &page);
                }
            }
            at += run.len;
        }
        Ok(new)
    }

    fn keep(&mut self, n: u64, bytes: &[u8]) {
        if bytes.iter().all(|b| *b == 0) {
            self.pages.remove(&n);
            return;
        }
        let mut page = bytes.to_vec();
        page.resize(PAGE as usize, 0);
        self.pages.insert(n, page.into());
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts it, or lets it grow by zeros.
    pub fn set_len(&mut self, len: u64) {
        self.pages.retain(|n, _| n * PAGE < len);
        if len < self.len && !len.is_multiple_of(PAGE) {
            let kept = self.get(len / PAGE * PAGE, (len % PAGE) as usize);
            self.keep(len / PAGE, &kept);
        }
        self.len = len;
    }

    /// `n` bytes at `at`.
    #[track_caller]
    pub fn get(&self, at: u64, n: usize) -> Vec<u8> {
        assert!(
            at + n as u64 <= self.len,
            "{n} bytes at {at} of {}",
            self.len
        );
        let mut out = vec![0; n];
        let mut done = 0;
        while done < n {
            let from = at + done as u64;
            let inside = (from % PAGE) as usize;
            let step = (PAGE as usize - inside).min(n - done);
            if let Some(page) = self.pages.get(&(from / PAGE)) {
                out[done..done + step].copy_from_slice(&page[inside..inside + step]);
            }
            done += step;
        }
        out
    }

    /// Overwrites.
    #[track_caller]
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        assert!(
            end <= self.len,
            "{} bytes at {at} of {}",
            bytes.len(),
            self.len
        );
        let mut done = 0;
        while done < bytes.len() {
            let from = at + done as u64;
            let inside = (from % PAGE) as usize;
            let step = (PAGE as usize - inside).min(bytes.len() - done);
            let n = from / PAGE;
            let old = self.pages.get(&n);
            let mut page = old.map_or_else(|| vec![0; PAGE as usize], |p| p.to_vec());
            page[inside..inside + step].copy_from_slice(&bytes[done..done + step]);
            self.keep(n, &page);
            done += step;
        }
    }

    /// Adds bytes at the end; where they begin.
    pub fn push(&mut self, bytes: &[u8]) -> u64 {
        let at = self.len;
        self.set_len(at + bytes.len() as u64);
        self.put(at, bytes);
        at
    }

    /// Fills with one value.
    #[track_caller]
    pub fn fill(&mut self, at: u64, n: usize, value: u8) {
        self.put(at, &vec![value; n]);
    }

    /// Changes bits of one byte.
    #[track_caller]
    pub fn flip(&mut self, at: u64, bits: u8) {
        let old = self.u8(at);
        self.put(at, &[old ^ bits]);
    }

    /// Where these bytes are, from `from` on.
    pub fn find(&self, what: &[u8], from: u64) -> Option<u64> {
        self.find_by(what, from, 1)
    }

    /// The same, at multiples of `step`.
    pub fn find_by(&self, what: &[u8], from: u64, step: u64) -> Option<u64> {
        // What is looked for is in a page, or begins in one.
        let pages = self.pages.range(from / PAGE..).map(|(n, _)| n * PAGE);
        pages
            .flat_map(|start| start.max(from).next_multiple_of(step)..start + PAGE)
            .filter(|at| at.is_multiple_of(step) && at + what.len() as u64 <= self.len)
            .find(|at| self.get(*at, what.len()) == what)
    }

    /// Writes it as a file with holes.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.len)?;
        for (n, page) in &self.pages {
            let at = n * PAGE;
            let n = PAGE.min(self.len.saturating_sub(at)) as usize;
            file.write_all_at(&page[..n], at)?;
        }
        Ok(())
    }
}

macro_rules! numbers {
    ($($get:ident, $set:ident, $type:ty, $from:ident, $to:ident;)*) => {
        impl Bytes {$(
            /// A number.
            #[track_caller]
            pub fn $get(&self, at: u64) -> $type {
                let bytes = self.get(at, size_of::<$type>());
                bytes.try_into().map_or(0, <$type>::$from)
            }

            /// Sets a number.
            #[track_caller]
            pub fn $set(&mut self, at: u64, value: $type) {
                self.put(at, &value.$to());
            }
        )*}
    };
}

numbers! {
    u8, set_u8, u8, from_le_bytes, to_le_bytes;
    u16, set_u16, u16, from_le_bytes, to_le_bytes;
    u32, set_u32, u32, from_le_bytes, to_le_bytes;
    u64, set_u64, u64, from_le_bytes, to_le_bytes;
    be16, set_be16, u16, from_be_bytes, to_be_bytes;
    be32, set_be32, u32, from_be_bytes, to_be_bytes;
    be64, set_be64, u64, from_be_bytes, to_be_bytes;
}
