//! Sources that fail while they are read: at every operation in turn, for every reader.
//!
//! What must hold: the right bytes or a typed error; after a fault that passes, the same object
//! reads right; nothing panics.

use crate::{
    bases, images,
    patch::{Base, Patched},
};
use disk_image::Format;
use disk_io::{Disk, DiskError, Result, Run};
use guest_fs::{FileSystem, NodeKind, OpenOptions, partition, volume};
use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use vmfs_reader::{FileKind, Volume};

/// How a source fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One operation fails, those behind it work.
    Passing,
    /// From one operation on all fail.
    Lasting,
    /// From one operation on other bytes are there.
    Changing,
}

/// A source that fails at its n-th operation.
#[derive(Debug)]
struct Failing {
    disk: Arc<dyn Disk>,
    fault: Fault,
    at: u64,
    done: AtomicU64,
}

impl Failing {
    fn new(disk: Arc<dyn Disk>, fault: Fault, at: u64) -> Arc<Self> {
        Arc::new(Self {
            disk,
            fault,
            at,
            done: AtomicU64::new(0),
        })
    }

    /// Whether the operation works; in the second case with other bytes.
    fn step(&self, offset: u64) -> Result<bool> {
        let n = self.done.fetch_add(1, Ordering::Relaxed);
        let fails = match self.fault {
            Fault::Passing => n == self.at,
            Fault::Lasting => n >= self.at,
            Fault::Changing => return Ok(n >= self.at),
        };
        match fails {
            true => {
                let e = io::Error::from_raw_os_error(5);
                Err(DiskError::io("reading", &e).offset(offset))
            }
            false => Ok(false),
        }
    }
}

impl Disk for Failing {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let other = self.step(offset)?;
        self.disk.read_exact_at(buf, offset)?;
        if other {
            buf.iter_mut()
                .step_by(3)
                .for_each(|b| *b = b.wrapping_add(0x55));
        }
        Ok(())
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        self.step(offset)?;
        self.disk.run_at(offset)
    }
}

/// Reads everything of an opened object: a hash of all of it.
type ReadAll = Box<dyn Fn() -> Result<u64>>;
type Open = fn(Arc<dyn Disk>) -> Result<ReadAll>;

/// A reader and the sound images that it reads.
pub struct Reader {
    /// What it reads.
    pub name: &'static str,
    bases: fn() -> &'static [Base],
    open: Open,
}

/// All of them.
pub const READERS: &[Reader] = &[
    reader("monolithicSparse", bases::hosted, |d| {
        image(d, Format::Vmdk)
    }),
    reader("streamOptimized", bases::stream, |d| image(d, Format::Vmdk)),
    reader("vmfsSparse", bases::cowd, |d| {
        extent(bases::cowd_descriptor(), d)
    }),
    reader("seSparse", bases::sesparse, |d| {
        extent(bases::sesparse_descriptor(), d)
    }),
    reader("qcow2", bases::qcow2, |d| image(d, Format::Qcow2)),
    reader("VHD", bases::vhd, |d| image(d, Format::Vhd)),
    reader("VHDX", bases::vhdx, |d| image(d, Format::Vhdx)),
    reader("VDI", bases::vdi, |d| image(d, Format::Vdi)),
    reader("OVA", bases::ova, |d| image(d, Format::Ova)),
    reader("MBR and GPT", bases::partitions, partitions),
    reader("NTFS", bases::ntfs, files),
    reader("FAT", bases::fat, files),
    reader("exFAT", bases::exfat, files),
    reader("ext", bases::ext, files),
    reader("VMFS", bases::vmfs, datastore),
];

const fn reader(name: &'static str, bases: fn() -> &'static [Base], open: Open) -> Reader {
    Reader { name, bases, open }
}

fn image(disk: Arc<dyn Disk>, format: Format) -> Result<ReadAll> {
    let disk = images::open(disk, format)?;
    Ok(Box::new(move || contents(&*disk)))
}

fn extent(descriptor: &'static str, disk: Arc<dyn Disk>) -> Result<ReadAll> {
    let disk = images::open_extent(descriptor, disk)?;
    Ok(Box::new(move || contents(&*disk)))
}

/// Everything that is read, in pieces that do not depend on runs; holes are as good as zeros.
fn contents(disk: &dyn Disk) -> Result<u64> {
    let mut hash = DefaultHasher::new();
    disk.len().hash(&mut hash);
    let (mut at, mut hole) = (0, 0..0);
    while at < disk.len() {
        let n = (disk.len() - at).min(32 << 10);
        if at >= hole.end {
            let run = disk.run_at(at)?;
            hole = match run.kind.reads_as_zero() {
                true => at..at + run.len,
                false => 0..0,
            };
        }
        if at + n > hole.end {
            let mut bytes = vec![0xa5; n as usize];
            disk.read_exact_at(&mut bytes, at)?;
            if bytes.iter().any(|b| *b != 0) {
                (at, bytes).hash(&mut hash);
            }
        }
        at += n;
    }
    Ok(hash.finish())
}

fn partitions(disk: Arc<dyn Disk>) -> Result<ReadAll> {
    let table = partition::read(&disk)?;
    Ok(Box::new(move || {
        let mut hash = DefaultHasher::new();
        for p in &table.partitions {
            (p.number, p.start, p.len).hash(&mut hash);
        }
        Ok(hash.finish())
    }))
}

/// Every name, every byte of every file.
fn files(disk: Arc<dyn Disk>) -> Result<ReadAll> {
    let fs = volume::open(&disk, &OpenOptions::default())?;
    Ok(Box::new(move || {
        let mut hash = DefaultHasher::new();
        // Copies that differ, or a log that is open, are told; so is one that was not read.
        tree(&*fs, &mut hash)?;
        Ok(hash.finish())
    }))
}

fn tree(fs: &dyn FileSystem, hash: &mut DefaultHasher) -> Result<()> {
    let mut todo = vec![fs.root()];
    while let Some(dir) = todo.pop() {
        let mut entries = Vec::new();
        fs.read_dir(dir, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })?;
        for entry in entries {
            let entry = entry?;
            entry.name.as_bytes().hash(hash);
            let metadata = fs.metadata(entry.node)?;
            (metadata.size, metadata.modified.map(|m| format!("{m:?}"))).hash(hash);
            match metadata.kind {
                NodeKind::Directory => todo.push(entry.node),
                NodeKind::Symlink => format!("{:?}", fs.read_link(entry.node)?).hash(hash),
                NodeKind::File => contents(&*fs.open(entry.node, None)?)?.hash(hash),
                NodeKind::Special => {}
            }
        }
    }
    Ok(())
}

/// Every file of a datastore.
fn datastore(disk: Arc<dyn Disk>) -> Result<ReadAll> {
    let volume = Volume::open(&[disk], &vmfs_reader::OpenOptions::default())?;
    Ok(Box::new(move || {
        let mut hash = DefaultHasher::new();
        let mut todo = vec![volume.root()];
        while let Some(dir) = todo.pop() {
            let mut entries = Vec::new();
            volume.read_dir(dir, &mut |entry| {
                entries.push(entry);
                ControlFlow::Continue(())
            })?;
            for entry in entries {
                let entry = entry?;
                format!("{:?}", entry.name).hash(&mut hash);
                match volume.stat(entry.address)?.kind {
                    FileKind::Directory => todo.push(entry.address),
                    FileKind::File => {
                        contents(&volume.open_file(entry.address)?)?.hash(&mut hash);
                    }
                    _ => {}
                }
            }
        }
        Ok(hash.finish())
    }))
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survived {
    /// Operations at which a fault was put in.
    pub injected: u64,
    /// Ended in a typed error.
    pub errors: u64,
    /// Gave the right bytes all the same: there was another copy, or nothing depended on it.
    pub right: u64,
    /// Gave what a source that changed then held.
    pub changed: u64,
    /// Were right when asked again.
    pub again: u64,
}

impl Reader {
    /// Puts a fault in at each of the first operations, then at `more` of the others. Panics where a
    /// rule is broken.
    pub fn torture(&self, fault: Fault, first: u64, more: u64) -> Survived {
        let mut sum = Survived::default();
        for base in (self.bases)() {
            let sound: Arc<dyn Disk> = Arc::new(Patched::sound(base));
            let counting = Failing::new(sound.clone(), Fault::Passing, u64::MAX);
            let wanted = (self.open)(counting.clone()).and_then(|read| read());
            let wanted = wanted.unwrap_or_else(|e| panic!("{}: {e}", self.name));
            let all = counting.done.load(Ordering::Relaxed);
            let step = (all.saturating_sub(first) / more.max(1)).max(1);
            let rest = (first..all).step_by(step as usize);
            for at in (0..first.min(all)).chain(rest) {
                self.one(&sound, (fault, at), wanted, &mut sum);
            }
        }
        sum
    }

    fn one(
        &self,
        sound: &Arc<dyn Disk>,
        (fault, at): (Fault, u64),
        wanted: u64,
        sum: &mut Survived,
    ) {
        let source = Failing::new(sound.clone(), fault, at);
        let what = || format!("{} with a {fault:?} fault at operation {at}", self.name);
        sum.injected += 1;
        let opened = (self.open)(source.clone());
        let read = match &opened {
            Ok(read) => read(),
            Err(e) => Err(e.clone()),
        };
        match read {
            Ok(found) => {
                // A source that changes may be read as it was before, as it is, or as a mixture.
                match found == wanted {
                    true => sum.right += 1,
                    false if fault == Fault::Changing => sum.changed += 1,
                    false => panic!("{}: other bytes", what()),
                }
            }
            Err(e) => {
                assert!(!e.to_string().is_empty());
                sum.errors += 1;
                if fault != Fault::Passing {
                    return;
                }
                // The fault is over: what is open reads right, and what is not opens.
                let again = match opened {
                    Ok(read) => read(),
                    Err(_) => (self.open)(source).and_then(|read| read()),
                };
                let again = again.unwrap_or_else(|e| panic!("{}: asked again: {e}", what()));
                assert_eq!(again, wanted, "{}: asked again", what());
                sum.again += 1;
            }
        }
    }
}
