//! A guest file system in memory, with the oddities that real ones have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::{Tree, TreeOptions, Volume, own::OwnTree};
use disk_io::{Disk, DiskError, MemDisk, Result, Run, RunKind, SparseMemDisk};
use guest_fs::{
    DirEntry, FileSystem, FsKind, Link, Metadata, Name, NodeId, NodeKind, Stream, Timestamp, Visit,
    VolumeInfo,
};
use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Zeros in runs of 4 KiB, each of which takes its time to find.
#[derive(Debug)]
pub(crate) struct Shreds {
    len: u64,
    time: Duration,
    asked: Arc<AtomicU64>,
}

impl Shreds {
    /// The disk, and how many runs it was asked for.
    pub(crate) fn disk(len: u64, time: Duration) -> (Arc<dyn Disk>, Arc<AtomicU64>) {
        let asked: Arc<AtomicU64> = Arc::default();
        let disk = Self {
            len,
            time,
            asked: asked.clone(),
        };
        (Arc::new(disk), asked)
    }
}

impl Disk for Shreds {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_exact_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn run_at(&self, offset: u64) -> Result<Run> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.time);
        Ok(Run {
            len: (4096 - offset % 4096).min(self.len - offset),
            kind: RunKind::Zero,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Item {
    kind: NodeKind,
    data: Arc<dyn Disk>,
    children: Vec<(Name, u64)>,
    names: Vec<(u64, Name)>,
    streams: Vec<(Name, Vec<u8>)>,
    link: Option<Name>,
    damaged: bool,
    loses: bool,
    panics: bool,
    refusal: Option<DiskError>,
}

/// Folds case by lower case, gives sequence numbers, knows its names.
#[derive(Debug)]
pub(crate) struct MockFs {
    items: Vec<Item>,
    pub(crate) kind: FsKind,
    pub(crate) tells_names: bool,
    /// What its links are.
    pub(crate) sort: &'static str,
}

impl MockFs {
    pub(crate) fn new() -> Self {
        let mut fs = Self {
            items: Vec::new(),
            kind: FsKind::Ntfs,
            tells_names: true,
            sort: "symlink",
        };
        fs.item(NodeKind::Directory, Vec::new());
        fs
    }

    fn item(&mut self, kind: NodeKind, data: Vec<u8>) -> u64 {
        self.items.push(Item {
            kind,
            data: Arc::new(MemDisk::new(data)),
            children: Vec::new(),
            names: Vec::new(),
            streams: Vec::new(),
            link: None,
            damaged: false,
            loses: false,
            panics: false,
            refusal: None,
        });
        self.items.len() as u64 - 1
    }

    pub(crate) fn put(&mut self, dir: u64, name: impl Into<Vec<u8>>, item: u64) {
        let name = Name::from_bytes(name);
        self.items[dir as usize].children.push((name.clone(), item));
        self.items[item as usize].names.push((dir, name));
    }

    pub(crate) fn dir(&mut self, dir: u64, name: impl Into<Vec<u8>>) -> u64 {
        let item = self.item(NodeKind::Directory, Vec::new());
        self.put(dir, name, item);
        item
    }

    pub(crate) fn file(&mut self, dir: u64, name: impl Into<Vec<u8>>, data: &[u8]) -> u64 {
        let item = self.item(NodeKind::File, data.to_vec());
        self.put(dir, name, item);
        item
    }

    pub(crate) fn disk(&mut self, dir: u64, name: &str, disk: Arc<dyn Disk>) -> u64 {
        let item = self.file(dir, name, b"");
        self.items[item as usize].data = disk;
        item
    }

    pub(crate) fn link(&mut self, dir: u64, name: &str, target: &str) -> u64 {
        let item = self.item(NodeKind::Symlink, Vec::new());
        self.items[item as usize].link = Some(Name::from(target));
        self.put(dir, name, item);
        item
    }

    /// A further name; one that begins with `stale` is listed with a wrong sequence number.
    pub(crate) fn name(&mut self, dir: u64, name: &str, item: u64) {
        self.items[dir as usize]
            .children
            .push((Name::from(name), item));
    }

    pub(crate) fn stream(&mut self, item: u64, name: &str, data: &[u8]) {
        self.items[item as usize]
            .streams
            .push((Name::from(name), data.to_vec()));
    }

    /// The record cannot be read.
    pub(crate) fn damage(&mut self, item: u64) {
        self.items[item as usize].damaged = true;
    }

    /// A part of the directory cannot be read.
    pub(crate) fn lose_some(&mut self, item: u64) {
        self.items[item as usize].loses = true;
    }

    pub(crate) fn panic_on(&mut self, item: u64) {
        self.items[item as usize].panics = true;
    }

    pub(crate) fn refuse(&mut self, item: u64, why: DiskError) {
        self.items[item as usize].refusal = Some(why);
    }

    pub(crate) fn id(item: u64) -> NodeId {
        NodeId {
            record: item,
            sequence: (item % 7 + 1) as u16,
        }
    }

    fn get(&self, node: NodeId) -> Result<&Item> {
        assert_eq!(node, Self::id(node.record), "a wrong sequence number");
        let item = self
            .items
            .get(node.record as usize)
            .ok_or_else(|| DiskError::corrupt("reading a record").offset(node.record))?;
        if item.panics {
            panic!("asked for a record that panics");
        }
        if item.damaged {
            return Err(DiskError::corrupt("reading a record").offset(node.record));
        }
        Ok(item)
    }
}

impl FileSystem for MockFs {
    fn info(&self) -> VolumeInfo {
        VolumeInfo {
            kind: self.kind,
            version: None,
            label: Some(Name::from("Mock")),
            uuid: None,
            size: 1 << 30,
            used: Some(1 << 29),
            cluster_size: 4096,
            dirty: Some(false),
            unsettled: false,
            remarks: Vec::new(),
        }
    }

    fn root(&self) -> NodeId {
        Self::id(0)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        let item = self.get(dir)?;
        if item.kind != NodeKind::Directory {
            return Err(DiskError::not_found("looking up").found("no directory"));
        }
        let lower = |n: &Name| n.as_str().map(str::to_lowercase);
        let found = item.children.iter().find(|(n, _)| n == name).or_else(|| {
            item.children
                .iter()
                .find(|(n, _)| lower(n).is_some() && lower(n) == lower(name))
        });
        Ok(found.map(|(_, item)| Self::id(*item)))
    }

    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()> {
        let item = self.get(dir)?;
        for (i, (name, child)) in item.children.iter().enumerate() {
            if item.loses && i == item.children.len() / 2 {
                let lost = DiskError::corrupt("reading an index block").offset(99);
                if visit(Err(lost)).is_break() {
                    return Ok(());
                }
            }
            let entry = DirEntry {
                name: name.clone(),
                node: match name.as_bytes().starts_with(b"stale") {
                    // As a damaged directory gives it.
                    true => NodeId {
                        sequence: 99,
                        ..Self::id(*child)
                    },
                    false => Self::id(*child),
                },
                kind: self.items[*child as usize].kind,
                short_name: None,
            };
            if visit(Ok(entry)) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let item = self.get(node)?;
        let time = |n: i64| Some(Timestamp::from_unix(1_700_000_000 + n, 123_456_700));
        let record = node.record as i64;
        Ok(Metadata {
            size: item.data.len(),
            allocated: item.data.len().next_multiple_of(4096),
            links: item.names.len().max(1) as u32,
            created: time(-record),
            modified: time(record),
            accessed: time(record + 1),
            changed: time(record + 2),
            attributes: Some(0x20),
            refusal: item.refusal.clone(),
            ..Metadata::new(node, item.kind)
        })
    }

    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        let item = self.get(node)?;
        if let Some(refusal) = &item.refusal {
            return Err(refusal.clone());
        }
        match stream {
            None => Ok(item.data.clone()),
            Some(stream) => item
                .streams
                .iter()
                .find(|(n, _)| n == stream)
                .map(|(_, data)| Arc::new(MemDisk::new(data.clone())) as Arc<dyn Disk>)
                .ok_or_else(|| DiskError::not_found("opening a stream")),
        }
    }

    fn streams(&self, node: NodeId) -> Result<Vec<Stream>> {
        let streams = self.get(node)?.streams.iter();
        Ok(streams
            .map(|(name, data)| Stream {
                name: name.clone(),
                size: data.len() as u64,
                allocated: 0,
            })
            .collect())
    }

    fn read_link(&self, node: NodeId) -> Result<Link> {
        let target = self.get(node)?.link.clone();
        let target = target.ok_or_else(|| DiskError::unsupported("reading a link"))?;
        Ok(Link {
            sort: self.sort,
            stored: target.clone(),
            target,
        })
    }

    fn names(&self, node: NodeId) -> Result<Vec<(NodeId, Name)>> {
        if !self.tells_names {
            return Ok(Vec::new());
        }
        let names = self.get(node)?.names.iter();
        Ok(names.map(|(d, n)| (Self::id(*d), n.clone())).collect())
    }

    fn metafiles(&self) -> Vec<DirEntry> {
        // Its contents are the root's: what it holds does not matter here.
        vec![DirEntry {
            name: Name::from("$MFT"),
            node: Self::id(1),
            kind: NodeKind::File,
            short_name: None,
        }]
    }
}

/// A tree of these file systems as `/p1`, `/p2` …, and `/p9`, which cannot be read.
pub(crate) fn tree(systems: Vec<MockFs>, options: TreeOptions) -> Tree {
    let tree = Tree::empty(options);
    let disk: Arc<dyn Disk> = Arc::new(SparseMemDisk::new(1 << 30));
    for (i, fs) in systems.into_iter().enumerate() {
        let name = Name::from(format!("p{}", i + 1).as_str());
        let volume = Volume::with_file_system(name, disk.clone(), Arc::new(fs));
        tree.add_volume(OwnTree::ROOT, Arc::new(volume)).unwrap();
    }
    let locked = DiskError::unsupported("entering /p9").found("a BitLocker volume");
    let volume = Volume::unreadable(Name::from("p9"), disk, None, locked);
    tree.add_volume(OwnTree::ROOT, Arc::new(volume)).unwrap();
    tree
}

/// Bytes that say where they are.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i / 4096 * 29 + i * 7 + seed) as u8)
        .collect()
}

/// A volume with everything in it that tends to go wrong.
pub(crate) fn odd_volume() -> MockFs {
    let mut fs = MockFs::new();
    let meta = fs.file(0, "not shown", b"");
    assert_eq!(meta, 1);
    let users = fs.dir(0, "Users");
    let bob = fs.dir(users, "Bob");
    let a = fs.file(bob, "a.txt", b"hello");
    fs.stream(a, "Zone.Identifier", b"[ZoneTransfer]");
    fs.put(bob, "hard link to a.txt", a);
    fs.file(bob, "A.TXT", b"twin");
    fs.file(bob, "colon:name", b"literal");
    fs.file(bob, "", b"no name");
    fs.file(bob, "a/b", b"slash");
    fs.file(bob, "..", b"dots");
    // An unpaired surrogate, a newline, Latin-1.
    fs.file(bob, vec![0x61, 0xed, 0xa0, 0x80], b"surrogate");
    fs.file(bob, "new\nline", b"newline");
    fs.file(bob, vec![0xe9, 0xff], b"latin");
    fs.file(bob, "n".repeat(765), b"long");
    fs.file(bob, "empty", b"");
    fs.file(bob, "big", &pattern(3_000_001, 1));
    fs.link(users, "All Users", "C:/ProgramData");
    fs.link(users, "relative", "Bob/a.txt");
    let locked = fs.file(users, "encrypted.doc", b"cipher");
    fs.refuse(
        locked,
        DiskError::unsupported("opening").found("a file encrypted with EFS"),
    );
    let mut sparse = SparseMemDisk::new(64 << 20);
    sparse.put(1 << 20, &pattern(1 << 20, 5));
    sparse.put(40 << 20, &pattern(4096, 6));
    fs.disk(users, "sparse", Arc::new(sparse));
    let twisted = fs.dir(0, "damaged");
    let bad = fs.file(twisted, "bad record", b"x");
    fs.damage(bad);
    let good = fs.file(twisted, "good", b"good");
    let _ = good;
    let torn = fs.dir(0, "torn");
    for i in 0..10 {
        fs.file(torn, format!("{i}"), b"t");
    }
    fs.lose_some(torn);
    fs
}
