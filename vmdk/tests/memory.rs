//! What a deep chain over a huge disk keeps in memory, and how often it reads.
//!
//! A binary of its own: the resident size is that of the whole process. The disks are
//! formulas: no 255 files of 2 TiB exist.

#![allow(clippy::unwrap_used, clippy::panic)]

use disk_io::{
    Disk, DiskError, FileId, Locate, MemDisk, Opened, Purpose, Result, Run, RunKind,
    disk::check_range, faults::Counting, layered::WINDOW,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use vmdk::{
    Image, OpenOptions,
    write::{
        descriptor::{Text, extent},
        hosted, sesparse,
    },
};

const CAPACITY: u64 = 2 << 40;
const LINKS: u64 = 255;

#[derive(Clone, Debug, Default)]
struct Dir(Arc<Files>);

/// Number and contents by name.
type Files = HashMap<PathBuf, (u64, Arc<dyn Disk>)>;

impl Locate for Dir {
    fn open(&self, name: &Path, _: Purpose) -> Result<Opened> {
        let (number, disk) = self
            .0
            .get(name)
            .ok_or_else(|| DiskError::not_found("opening").file(name.display()))?;
        Ok(Opened {
            disk: disk.clone(),
            path: name.into(),
            id: FileId {
                container: 0,
                file: *number,
            },
            dir: Arc::new(self.clone()),
        })
    }
    fn list(&self, _: usize) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn describe(&self) -> String {
        "formulas".into()
    }
}

/// Words of a file by place; only whole words inside the areas are ever asked for.
trait Formula: Send + Sync + std::fmt::Debug {
    /// Bytes of a word: 4 or 8.
    const WIDTH: u64;
    /// The area that holds `at`: its end, and whether it has words that are not zero.
    fn area(&self, at: u64) -> (u64, bool);
    /// Places of the words in `from..to` that are not zero, with the words.
    fn words(&self, from: u64, to: u64, put: &mut dyn FnMut(u64, u64));
    fn head(&self) -> &[u8];
}

#[derive(Debug)]
struct ByFormula<F>(F);

impl<F: Formula> Disk for ByFormula<F> {
    fn len(&self) -> u64 {
        // Tables, and what little they lead to.
        4 << 40
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), offset, buf.len())?;
        buf.fill(0);
        let head = self.0.head();
        if offset < head.len() as u64 {
            let n = buf.len().min(head.len() - offset as usize);
            buf[..n].copy_from_slice(&head[offset as usize..offset as usize + n]);
        }
        let end = offset + buf.len() as u64;
        if self.0.area(offset).1 {
            self.0.words(offset, end, &mut |at, word| {
                let i = (at - offset) as usize;
                let width = F::WIDTH as usize;
                buf[i..i + width].copy_from_slice(&word.to_le_bytes()[..width]);
            });
        }
        Ok(())
    }
    fn run_at(&self, offset: u64) -> Result<Run> {
        Ok(Run {
            len: self.len() - offset,
            kind: RunKind::Data,
        })
    }
}

/// KDMV: one table in eight is there, with every 37th grain.
#[derive(Debug)]
struct Hosted {
    link: u64,
    head: Vec<u8>,
}

const GD: u64 = 1 << 20;
const GT: u64 = 2 << 20;
const GRAINS: u64 = 1 << 30;

impl Formula for Hosted {
    const WIDTH: u64 = 4;
    fn area(&self, at: u64) -> (u64, bool) {
        (0, (GD..GRAINS).contains(&at))
    }
    fn words(&self, from: u64, to: u64, put: &mut dyn FnMut(u64, u64)) {
        if from < GT {
            let first = (from - GD) / 4;
            for table in first..(to - GD) / 4 {
                if (table + self.link).is_multiple_of(8) {
                    put(GD + table * 4, (GT + table * 2048) / 512);
                }
            }
        } else {
            let mut entry = (from - GT) / 4;
            while GT + entry * 4 < to {
                if (entry + self.link).is_multiple_of(37) {
                    put(GT + entry * 4, (GRAINS / 512) + (entry % 8192) * 128);
                    entry += 36;
                }
                entry += 1;
            }
        }
    }
    fn head(&self) -> &[u8] {
        &self.head
    }
}

/// seSparse: one table in 64 is there, with every 97th grain.
#[derive(Debug)]
struct SeSparse {
    link: u64,
    head: Vec<u8>,
}

impl Formula for SeSparse {
    const WIDTH: u64 = 8;
    fn area(&self, at: u64) -> (u64, bool) {
        (0, (GD..GRAINS * 8).contains(&at))
    }
    fn words(&self, from: u64, to: u64, put: &mut dyn FnMut(u64, u64)) {
        const GTS: u64 = 4 << 20;
        if from < GTS {
            for table in (from - GD) / 8..(to - GD) / 8 {
                if (table + self.link).is_multiple_of(64) {
                    put(GD + table * 8, 0x1000_0000 << 32 | table);
                }
            }
        } else {
            let mut entry = (from - GTS) / 8;
            while GTS + entry * 8 < to {
                if (entry + self.link).is_multiple_of(97) {
                    put(GTS + entry * 8, 3 << 60 | (entry % 4096) << 48);
                    entry += 96;
                }
                entry += 1;
            }
        }
    }
    fn head(&self) -> &[u8] {
        &self.head
    }
}

fn hosted_disk(link: u64) -> Arc<dyn Disk> {
    let options = hosted::Options {
        redundant: false,
        all_tables: false,
        ..Default::default()
    };
    let mut head = hosted::encode(&options, 128, &[])[..512].to_vec();
    head[12..20].copy_from_slice(&(CAPACITY / 512).to_le_bytes());
    head[56..64].copy_from_slice(&(GD / 512).to_le_bytes());
    head[64..72].copy_from_slice(&(GRAINS / 512).to_le_bytes());
    Arc::new(ByFormula(Hosted { link, head }))
}

fn sesparse_disk(link: u64) -> Arc<dyn Disk> {
    let mut head = sesparse::encode(8, &[], false)[..1024].to_vec();
    let mut put = |at: usize, value: u64| head[at..at + 8].copy_from_slice(&value.to_le_bytes());
    let tables = CAPACITY / (16 << 20);
    put(16, CAPACITY / 512);
    put(128, GD / 512);
    put(136, tables * 8 / 512);
    put(144, (4 << 20) / 512);
    put(152, tables * 64);
    put(192, GRAINS * 8 / 512);
    put(200, CAPACITY / 512);
    Arc::new(ByFormula(SeSparse { link, head }))
}

/// 255 links, and the counter of each link's extent.
fn chain(kind: &str, make: fn(u64) -> Arc<dyn Disk>) -> (Image, Vec<Arc<Counting>>) {
    let mut files = Files::new();
    let mut counters = Vec::new();
    for link in 0..LINKS {
        let parent = format!("{}.vmdk", link.wrapping_sub(1));
        let text = Text {
            cid: link as u32 + 1,
            parent: (link > 0).then_some((link as u32, parent.as_str())),
            create_type: "custom",
            extents: vec![extent(CAPACITY / 512, kind, &format!("{link}-data.vmdk"))],
        };
        let name = format!("{link}.vmdk");
        files.insert(
            name.into(),
            (2 * link, Arc::new(MemDisk::new(text.encode()))),
        );
        let counter = Arc::new(Counting::new(make(link)));
        counters.push(counter.clone());
        files.insert(format!("{link}-data.vmdk").into(), (2 * link + 1, counter));
    }
    let dir = Dir(Arc::new(files));
    let top = format!("{}.vmdk", LINKS - 1);
    let source = dir.open(Path::new(&top), Purpose::Member).unwrap();
    let image = Image::open(source, &OpenOptions::default()).unwrap();
    (image, counters)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn walk(kind: &str, make: fn(u64) -> Arc<dyn Disk>, step: u64) {
    let before = resident();
    let start = Instant::now();
    let (image, counters) = chain(kind, make);
    let disk = image.disk();
    let mut buf = vec![0; 4096];
    let mut most = 0;
    let mut at = 0;
    while at < CAPACITY {
        disk.read_exact_at(&mut buf, at).unwrap();
        if (at / WINDOW).is_multiple_of(1024 / step) {
            most = most.max(resident());
        }
        at += WINDOW * step;
    }
    most = most.max(resident());
    let (mut reads, mut bytes) = (0, 0);
    for c in &counters {
        let (r, b) = c.so_far();
        reads += r;
        bytes += b;
    }
    let windows = CAPACITY / WINDOW / step * LINKS;
    println!(
        "{kind}: {} links, {} windows: grew by {} MiB, {:.2} reads and {} bytes a window and \
         link, {:?}",
        LINKS,
        CAPACITY / WINDOW / step,
        most.saturating_sub(before) >> 20,
        reads as f64 / windows as f64,
        bytes / windows,
        start.elapsed()
    );
    assert!(most.saturating_sub(before) < 100 << 20, "{kind}");
    assert!(reads < windows * 2, "{kind}: {reads} reads");
}

/// One test, so that one chain is measured at a time.
#[test]
fn two_tebibytes_and_255_links() {
    walk("SPARSE", hosted_disk, 16);
    walk("SESPARSE", sesparse_disk, 16);
}

/// Half a minute and more: run with `--ignored`.
#[test]
#[ignore = "takes a minute; the other test takes every sixteenth window"]
fn two_tebibytes_and_255_links_every_window() {
    walk("SPARSE", hosted_disk, 1);
    walk("SESPARSE", sesparse_disk, 1);
}
