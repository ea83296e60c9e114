//! A second opinion: files read again with the crates `ntfs` and `fatfs`, where these are known to
//! be right (the faults that limit it are tests, in `tests/suite/oracles`).

use disk_io::{Disk, DiskError, Result, guarded::guarded, positioned::cursor};
use fatfs::{FileSystem as FatVolume, FsOptions};
use guest_fs::{FileSystem, FsKind, Metadata, NodeId, fs::attributes};
use ntfs::{Ntfs, NtfsAttributeType, NtfsReadSeek};
use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
    sync::Arc,
};

type Raw = positioned_io::SizeCursor<disk_io::positioned::AsReadAt>;

/// What is compared at a time.
const CHUNK: usize = 1 << 20;

/// What a second reader made of guest files.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Files that both read the same.
    pub same: u64,
    /// Files that it reads otherwise, by path.
    pub differ: Vec<(Vec<u8>, DiskError)>,
    /// Files that it is not asked about, by the reason.
    pub left: BTreeMap<&'static str, u64>,
}

/// The other reader of one volume.
pub(super) enum Reader {
    Ntfs(Box<(Ntfs, Raw)>),
    Fat(Box<FatVolume<ReadOnly>>),
    /// It cannot be asked, and why.
    None(&'static str),
}

/// The crate wants to write even to read. It may not.
pub(super) struct ReadOnly(Raw);

impl Read for ReadOnly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for ReadOnly {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}

impl Write for ReadOnly {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Reader {
    /// Over a volume; `sound` is whether its own structures agree.
    pub(super) fn open(kind: Option<FsKind>, disk: &Arc<dyn Disk>, sound: bool) -> Self {
        // On damage one of them panics and the other one goes round in circles.
        if !sound {
            return Self::None("of volumes with damage");
        }
        let mut raw = cursor(disk.clone());
        match kind {
            Some(FsKind::Ntfs) => match guarded(|| Ntfs::new(&mut raw).ok()).flatten() {
                Some(ntfs) => Self::Ntfs(Box::new((ntfs, raw))),
                None => Self::None("of volumes that it cannot open"),
            },
            Some(FsKind::Fat12 | FsKind::Fat16 | FsKind::Fat32) => {
                let options = FsOptions::new().update_accessed_date(false);
                match guarded(|| FatVolume::new(ReadOnly(raw), options).ok()).flatten() {
                    Some(fat) => Self::Fat(Box::new(fat)),
                    None => Self::None("of volumes that it cannot open"),
                }
            }
            _ => Self::None("of other file systems"),
        }
    }

    /// Compares one file. `path` is within the volume, without a slash before it.
    pub(super) fn compare(
        &mut self,
        fs: &Arc<dyn FileSystem>,
        (node, metadata): (NodeId, &Metadata),
        (full, path): (&[u8], &[u8]),
        ours: &Arc<dyn Disk>,
        second: &mut Second,
    ) -> Result<()> {
        let mut leave = |why| *second.left.entry(why).or_default() += 1;
        if let Self::None(why) = self {
            leave(*why);
            return Ok(());
        }
        let special = attributes::COMPRESSED | attributes::ENCRYPTED | attributes::REPARSE;
        if metadata.attributes.unwrap_or(0) & special != 0 {
            leave("that are compressed, encrypted or linked");
            return Ok(());
        }
        let compared = match self {
            Self::None(_) => return Ok(()),
            Self::Ntfs(reader) => {
                let (ntfs, raw) = &mut **reader;
                let end = initialized(fs, node, ours)?;
                guarded(|| with_ntfs(ntfs, raw, node.record, ours, end))
            }
            Self::Fat(fat) => match std::str::from_utf8(path) {
                Ok(path) => guarded(|| with_fat(fat, path, ours)),
                Err(_) => None,
            },
        };
        match compared {
            Some(Ok(None)) => second.same += 1,
            Some(Ok(Some(at))) => {
                let e = DiskError::corrupt("comparing two readers")
                    .code("readers-differ")
                    .offset(at)
                    .expected("the same bytes from both")
                    .found("other bytes from the second");
                second.differ.push((full.to_vec(), e));
            }
            Some(Err(Stop::Ours(e))) => return Err(e),
            Some(Err(Stop::Theirs)) | None => leave("that it cannot read"),
            Some(Err(Stop::Split)) => leave("whose record goes on in others"),
        }
        Ok(())
    }
}

/// Why a comparison ended.
enum Stop {
    Ours(DiskError),
    Theirs,
    Split,
}

/// Up to where an NTFS file was written: the crate gives what lies behind as it is.
fn initialized(fs: &Arc<dyn FileSystem>, node: NodeId, ours: &Arc<dyn Disk>) -> Result<u64> {
    let mut end = ours.len();
    let Ok(extents) = fs.extents(node, None) else {
        return Ok(end);
    };
    for extent in extents.iter().filter(|e| e.place.is_some()) {
        let mut at = extent.offset;
        let stop = extent.offset.saturating_add(extent.len).min(end);
        while at < stop {
            let run = ours.run_at(at)?;
            if run.kind.reads_as_zero() {
                end = end.min(at);
                break;
            }
            at = at.saturating_add(run.len.max(1));
        }
    }
    Ok(end)
}

/// The first byte that differs.
fn with_ntfs(
    ntfs: &Ntfs,
    raw: &mut Raw,
    record: u64,
    ours: &Arc<dyn Disk>,
    end: u64,
) -> Result<Option<u64>, Stop> {
    let file = ntfs.file(raw, record).map_err(|_| Stop::Theirs)?;
    let mut split = false;
    file.attributes_raw().for_each(|a| {
        let kind = a.and_then(|a| a.ty());
        split |= kind.is_ok_and(|kind| kind == NtfsAttributeType::AttributeList);
    });
    if split {
        return Err(Stop::Split);
    }
    let Some(Ok(item)) = file.data(raw, "") else {
        return Err(Stop::Theirs);
    };
    let attribute = item.to_attribute().map_err(|_| Stop::Theirs)?;
    let mut value = attribute.value(raw).map_err(|_| Stop::Theirs)?;
    same(ours, end, |buffer| {
        value.read(raw, buffer).map_err(|_| Stop::Theirs)
    })
}

fn with_fat(
    fat: &FatVolume<ReadOnly>,
    path: &str,
    ours: &Arc<dyn Disk>,
) -> Result<Option<u64>, Stop> {
    let mut file = fat.root_dir().open_file(path).map_err(|_| Stop::Theirs)?;
    same(ours, ours.len(), |buffer| {
        file.read(buffer).map_err(|_| Stop::Theirs)
    })
}

/// Reads both to `end`; the first byte that differs.
fn same(
    ours: &Arc<dyn Disk>,
    end: u64,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Stop>,
) -> Result<Option<u64>, Stop> {
    let (mut theirs, mut own) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0u64;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let mut got = 0;
        while let Some(rest) = theirs.get_mut(got..wanted).filter(|r| !r.is_empty()) {
            match read(rest)? {
                0 => break,
                n => got += n,
            }
        }
        let own = own.get_mut(..wanted).unwrap_or_default();
        ours.read_exact_at(own, at).map_err(Stop::Ours)?;
        let theirs = theirs.get(..got).unwrap_or_default();
        if own != theirs {
            let first = own.iter().zip(theirs).take_while(|(a, b)| a == b).count();
            return Ok(Some(at + first as u64));
        }
        at += wanted as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::MemDisk;
    use guest_fs::{Name, OpenOptions, volume};

    /// A byte that one of the two has otherwise is told, and where.
    #[test]
    fn a_difference_is_found() {
        let mut disk = io::Cursor::new(vec![0; 1 << 20]);
        fatfs::format_volume(&mut disk, fatfs::FormatVolumeOptions::new()).unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
        {
            let fs = FatVolume::new(&mut disk, FsOptions::new()).unwrap();
            let mut file = fs.root_dir().create_file("a.bin").unwrap();
            file.write_all(&bytes).unwrap();
        }
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(disk.into_inner()));
        let fs = volume::open(&disk, &OpenOptions::default()).unwrap();
        let node = fs.lookup(fs.root(), &Name::from("a.bin")).unwrap().unwrap();
        let metadata = fs.metadata(node).unwrap();
        let mut reader = Reader::open(Some(fs.info().kind), &disk, true);
        let mut second = Second::default();
        let mut wrong = bytes.clone();
        wrong[4321] ^= 1;
        for ours in [bytes, wrong] {
            let ours: Arc<dyn Disk> = Arc::new(MemDisk::new(ours));
            let names = (&b"/p0/a.bin"[..], &b"a.bin"[..]);
            reader
                .compare(&fs, (node, &metadata), names, &ours, &mut second)
                .unwrap();
        }
        assert_eq!((second.same, second.differ.len()), (1, 1));
        let (path, e) = &second.differ[0];
        assert_eq!((path.as_slice(), e.at()), (&b"/p0/a.bin"[..], Some(4321)));
        // One that is damaged is not asked about, and that is counted.
        let ours: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![0; 10]));
        let mut closed = Reader::open(Some(fs.info().kind), &disk, false);
        let names = (&b"/p0/a.bin"[..], &b"a.bin"[..]);
        closed
            .compare(&fs, (node, &metadata), names, &ours, &mut second)
            .unwrap();
        assert_eq!(second.left.values().sum::<u64>(), 1);
    }
}
