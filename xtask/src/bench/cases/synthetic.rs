//! Disks that exist nowhere: headers, directories and tables are computed when they are
//! read. Each link has one grain in every table, so a chain has every table to look at.

use anyhow::{Result, bail};
use disk_io::{
    Disk, DiskError, FileId, Locate, Opened, Purpose, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use vmdk::sesparse;

const SECTOR: u64 = 512;
const GIB: u64 = 1 << 30;

/// Which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hosted,
    SeSparse,
}

/// All links of a chain; also the directory in which they are found.
#[derive(Clone, Copy, Debug)]
struct Chain {
    kind: Kind,
    links: u32,
    capacity: u64,
}

/// One file of one link.
#[derive(Debug)]
struct File {
    chain: Chain,
    link: u32,
    /// What is written out, at its offsets.
    pieces: Vec<(u64, Vec<u8>)>,
    gd: (u64, u64),
    gts: (u64, u64),
    grains: u64,
    len: u64,
}

/// The newest link of a chain of `links` links and `gib` GiB.
pub(crate) fn top(kind: &str, links: u32, gib: u64) -> Result<Opened> {
    let kind = match kind {
        "hosted" => Kind::Hosted,
        "sesparse" => Kind::SeSparse,
        other => bail!("no kind of synthetic disk is called {other}"),
    };
    let chain = Chain {
        kind,
        links,
        capacity: gib * GIB / SECTOR,
    };
    Ok(chain.open(Path::new(&chain.name(links - 1)), Purpose::Parent)?)
}

impl Chain {
    fn name(&self, link: u32) -> String {
        format!("link-{link:03}.vmdk")
    }

    fn tables(&self) -> u64 {
        self.capacity.div_ceil(self.per_table() * self.grain())
    }

    /// Entries in a table.
    fn per_table(&self) -> u64 {
        match self.kind {
            Kind::Hosted => 512,
            Kind::SeSparse => sesparse::TABLE_ENTRIES,
        }
    }

    /// Sectors in a grain.
    fn grain(&self) -> u64 {
        match self.kind {
            Kind::Hosted => 128,
            Kind::SeSparse => sesparse::GRAIN_SECTORS,
        }
    }

    fn descriptor(&self, link: u32) -> String {
        let parent = match link.checked_sub(1) {
            None => "parentCID=ffffffff\n".to_owned(),
            Some(parent) => format!(
                "parentCID={:08x}\nparentFileNameHint=\"{}\"\n",
                0x1000 + parent,
                self.name(parent)
            ),
        };
        let (create_type, extent) = match self.kind {
            Kind::Hosted => (
                "monolithicSparse",
                format!("SPARSE \"{}\"", self.name(link)),
            ),
            Kind::SeSparse => (
                "seSparse",
                format!("SESPARSE \"link-{link:03}-sesparse.vmdk\""),
            ),
        };
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={:08x}\n{parent}createType=\"{create_type}\"\n\n\
             # Extent description\nRW {} {extent}\n",
            0x1000 + link,
            self.capacity
        )
    }

    fn hosted(self, link: u32) -> File {
        let gd_len = (self.tables() * 4).next_multiple_of(SECTOR);
        let gts_len = self.tables() * 2048;
        let gd = 21 * SECTOR;
        let gts = gd + gd_len;
        let grains = (gts + gts_len).next_multiple_of(65_536);
        let mut header = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = header.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, b"KDMV");
        put(4, &1u32.to_le_bytes());
        put(8, &1u32.to_le_bytes());
        put(12, &self.capacity.to_le_bytes());
        put(20, &128u64.to_le_bytes());
        put(28, &1u64.to_le_bytes());
        put(36, &20u64.to_le_bytes());
        put(44, &512u32.to_le_bytes());
        put(56, &(gd / SECTOR).to_le_bytes());
        put(64, &(grains / SECTOR).to_le_bytes());
        put(73, b"\n \r\n");
        File {
            chain: self,
            link,
            pieces: vec![(0, header), (SECTOR, self.descriptor(link).into_bytes())],
            gd: (gd, gd_len),
            gts: (gts, gts_len),
            grains,
            len: grains + self.tables() * 65_536,
        }
    }

    fn se_sparse(self, link: u32) -> File {
        let gd_len = (self.tables() * 8).next_multiple_of(SECTOR);
        let gts_len = self.tables() * sesparse::TABLE_SECTORS * SECTOR;
        let gd = 64 * SECTOR;
        let gts = (gd + gd_len).next_multiple_of(4096);
        let grains = gts + gts_len;
        let mut header = vec![0u64; 64];
        let sectors = |bytes: u64| bytes / SECTOR;
        let values = [
            (0, sesparse::MAGIC),
            (1, sesparse::VERSION),
            (2, self.capacity),
            (3, sesparse::GRAIN_SECTORS),
            (4, sesparse::TABLE_SECTORS),
            (10, 1),
            (11, 1),
            (12, 2),
            (13, 2),
            (14, 4),
            (15, 8),
            (16, sectors(gd)),
            (17, sectors(gd_len)),
            (18, sectors(gts)),
            (19, sectors(gts_len)),
            (20, 16),
            (21, 8),
            (22, 24),
            (23, 8),
            (24, sectors(grains)),
            (25, self.capacity),
        ];
        for (at, value) in values {
            if let Some(place) = header.get_mut(at) {
                *place = value;
            }
        }
        let bytes = |values: &[u64]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        File {
            chain: self,
            link,
            pieces: vec![
                (0, bytes(&header)),
                (
                    SECTOR,
                    bytes(&[sesparse::VOLATILE_MAGIC, self.tables(), 1, 0]),
                ),
            ],
            gd: (gd, gd_len),
            gts: (gts, gts_len),
            grains,
            len: grains + self.capacity * SECTOR,
        }
    }
}

impl File {
    /// The entry of directory or table at `index`, in the format's own width.
    fn directory_entry(&self, index: u64) -> u64 {
        if index >= self.chain.tables() {
            return 0;
        }
        match self.chain.kind {
            Kind::Hosted => self.gts.0 / SECTOR + index * 4,
            Kind::SeSparse => 0x1000_0000 << 32 | index,
        }
    }

    /// Where the one entry of a table is.
    fn entry_of(&self, table: u64) -> u64 {
        (u64::from(self.link) * 2 + table) % self.chain.per_table()
    }

    fn table_entry(&self, table: u64) -> u64 {
        match self.chain.kind {
            Kind::Hosted => self.grains / SECTOR + table * 128,
            Kind::SeSparse => 3 << 60 | (table & 0xfff) << 48 | table >> 12,
        }
    }

    /// Fills what of `buf` (at `offset`) a computed range covers, entry by entry.
    fn fill(&self, buf: &mut [u8], offset: u64, range: (u64, u64), entry: impl Fn(u64) -> u64) {
        let width = match self.chain.kind {
            Kind::Hosted => 4,
            Kind::SeSparse => 8,
        };
        let end = offset + buf.len() as u64;
        let (from, to) = (offset.max(range.0), end.min(range.0 + range.1));
        if from >= to {
            return;
        }
        for index in (from - range.0) / width..(to - range.0).div_ceil(width) {
            let bytes = entry(index).to_le_bytes();
            put(
                buf,
                offset,
                range.0 + index * width,
                bytes.get(..width as usize).unwrap_or(&[]),
            );
        }
    }
}

/// Copies what of `bytes` (at `at`) falls into `buf` (at `offset`).
fn put(buf: &mut [u8], offset: u64, at: u64, bytes: &[u8]) {
    let end = (offset + buf.len() as u64).min(at + bytes.len() as u64);
    let from = offset.max(at);
    if from >= end {
        return;
    }
    let source = bytes.get((from - at) as usize..(end - at) as usize);
    let target = buf.get_mut((from - offset) as usize..(end - offset) as usize);
    if let (Some(target), Some(source)) = (target, source) {
        target.copy_from_slice(source);
    }
}

impl Disk for File {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> disk_io::Result<()> {
        check_range(self.len, offset, buf.len())?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for (at, bytes) in &self.pieces {
            put(buf, offset, *at, bytes);
        }
        self.fill(buf, offset, self.gd, |index| self.directory_entry(index));
        // Tables are zero but for one entry each.
        let width = self.gts.1 / self.chain.tables() / self.chain.per_table();
        let table_len = self.chain.per_table() * width;
        let (from, to) = (offset.max(self.gts.0), end.min(self.gts.0 + self.gts.1));
        if from < to {
            for table in (from - self.gts.0) / table_len..(to - self.gts.0).div_ceil(table_len) {
                let at = self.gts.0 + table * table_len + self.entry_of(table) * width;
                let bytes = self.table_entry(table).to_le_bytes();
                put(buf, offset, at, bytes.get(..width as usize).unwrap_or(&[]));
            }
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> disk_io::Result<Run> {
        check_run_offset(self.len, offset)?;
        Ok(Run {
            len: self.len - offset,
            kind: RunKind::Data,
        })
    }
}

/// A descriptor as a file of its own.
fn text_disk(text: String) -> Arc<dyn Disk> {
    Arc::new(disk_io::MemDisk::new(text.into_bytes()))
}

impl Locate for Chain {
    fn open(&self, name: &Path, _purpose: Purpose) -> disk_io::Result<Opened> {
        let text = name.display().to_string();
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let link = digits.parse::<u32>().ok().filter(|l| *l < self.links);
        let Some(link) = link else {
            return Err(DiskError::not_found("opening").file(name.display()));
        };
        let (disk, file): (Arc<dyn Disk>, u64) = match self.kind {
            Kind::Hosted => (Arc::new(self.hosted(link)), 0),
            Kind::SeSparse if text.ends_with("-sesparse.vmdk") => {
                (Arc::new(self.se_sparse(link)), 1)
            }
            Kind::SeSparse => (text_disk(self.descriptor(link)), 0),
        };
        Ok(Opened {
            disk,
            path: PathBuf::from(text),
            id: FileId {
                container: 1,
                file: u64::from(link) * 2 + file,
            },
            dir: Arc::new(*self),
        })
    }

    fn list(&self, _limit: usize) -> disk_io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn describe(&self) -> String {
        "a synthetic directory".into()
    }
}
