//! A guest in memory, and an observer that remembers.

use super::*;

/// A guest in memory. Node 0 is the root directory.
#[derive(Default)]
pub(super) struct Guest {
    pub(super) nodes: Vec<Object>,
}

pub(super) struct Object {
    pub(super) kind: NodeKind,
    pub(super) contents: Arc<dyn Disk>,
    pub(super) children: Vec<(Name, u64)>,
    pub(super) streams: BTreeMap<Name, Vec<u8>>,
    pub(super) target: Name,
    pub(super) links: u32,
    pub(super) refusal: Option<DiskError>,
    pub(super) seconds: i64,
    pub(super) mode: Option<u32>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) panics: bool,
    pub(super) loses_streams: bool,
}

impl Object {
    pub(super) fn new(kind: NodeKind) -> Self {
        Self {
            kind,
            contents: Arc::new(MemDisk::new(Vec::new())),
            children: Vec::new(),
            streams: BTreeMap::new(),
            target: Name::default(),
            links: 1,
            refusal: None,
            seconds: 1_000_000_000,
            mode: None,
            owner: None,
            panics: false,
            loses_streams: false,
        }
    }
}

impl Guest {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Object::new(NodeKind::Directory)],
        }
    }

    pub(super) fn add(&mut self, dir: u64, name: impl AsRef<[u8]>, object: Object) -> u64 {
        let number = self.nodes.len() as u64;
        self.nodes.push(object);
        self.name(dir, name, number);
        number
    }

    pub(super) fn name(&mut self, dir: u64, name: impl AsRef<[u8]>, number: u64) {
        let name = Name::from_bytes(name.as_ref());
        self.nodes[dir as usize].children.push((name, number));
    }

    pub(super) fn dir(&mut self, dir: u64, name: impl AsRef<[u8]>) -> u64 {
        self.add(dir, name, Object::new(NodeKind::Directory))
    }

    pub(super) fn file(
        &mut self,
        dir: u64,
        name: impl AsRef<[u8]>,
        bytes: impl AsRef<[u8]>,
    ) -> u64 {
        let mut object = Object::new(NodeKind::File);
        object.contents = Arc::new(MemDisk::new(bytes.as_ref()));
        self.add(dir, name, object)
    }

    pub(super) fn at(&mut self, node: u64) -> &mut Object {
        &mut self.nodes[node as usize]
    }
}

impl Source for Guest {
    type Node = u64;

    fn metadata(&self, node: u64) -> Result<Metadata> {
        let object = &self.nodes[node as usize];
        assert!(!object.panics, "a test's own panic");
        Ok(Metadata {
            size: object.contents.len(),
            links: object.links,
            modified: Some(Timestamp::from_unix(object.seconds, 123_456_700)),
            mode: object.mode,
            owner: object.owner,
            refusal: object.refusal.clone(),
            ..Metadata::new(NodeId::plain(node), object.kind)
        })
    }

    fn read_dir(
        &self,
        node: u64,
        visit: &mut dyn FnMut(Result<Entry<u64>>) -> ControlFlow<()>,
    ) -> Result<()> {
        for (name, node) in &self.nodes[node as usize].children {
            let kind = self.nodes[*node as usize].kind;
            let entry = Entry {
                name: name.clone(),
                node: *node,
                kind,
            };
            if visit(Ok(entry)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn directory(&self, node: u64) -> u64 {
        node
    }

    fn open(&self, node: u64, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        let object = &self.nodes[node as usize];
        match stream {
            None => Ok(object.contents.clone()),
            Some(name) => Ok(Arc::new(MemDisk::new(object.streams[name].clone()))),
        }
    }

    fn streams(&self, node: u64) -> Result<Vec<Stream>> {
        if self.nodes[node as usize].loses_streams {
            return Err(DiskError::corrupt("reading the list of streams"));
        }
        let streams = self.nodes[node as usize].streams.iter();
        Ok(streams
            .map(|(name, bytes)| Stream {
                name: name.clone(),
                size: bytes.len() as u64,
                allocated: 0,
            })
            .collect())
    }

    fn read_link(&self, node: u64) -> Result<Link> {
        let target = self.nodes[node as usize].target.clone();
        Ok(Link {
            sort: "symlink",
            stored: target.clone(),
            target,
        })
    }
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) lines: Mutex<Vec<String>>,
    pub(super) pieces: AtomicUsize,
    pub(super) stop_after: Option<usize>,
}

impl Progress for Log {
    fn advance(&self, _bytes: u64) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.stop_after
            .is_some_and(|n| self.pieces.load(Ordering::Relaxed) >= n)
    }
}

impl Observer for Log {
    fn event(&self, event: Event<'_>) {
        let name = |p: &[u8]| Name::from_bytes(p).to_string();
        let line = match event {
            Event::Restored { path, bytes } => format!("restored {} {bytes}", name(path)),
            Event::Skipped { path, reason } => format!("skipped {}: {reason}", name(path)),
            Event::Failed { path, error } => format!("failed {}: {error}", name(path)),
            Event::Left { path, why } => format!("left {}: {why}", name(path)),
            Event::Doubtful { path, why } => format!("doubtful {}: {why}", name(path)),
            Event::Renamed { path, name: n } => format!("renamed {}: {}", name(path), name(n)),
        };
        self.lines.lock().unwrap().push(line);
    }
}

impl Log {
    pub(super) fn lines(&self, begin: &str) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap().clone();
        lines.retain(|l| l.starts_with(begin));
        lines.sort();
        lines
    }
}

/// Contents whose reader looks at the modes of all files in a directory.
#[derive(Debug)]
pub(super) struct Peeks(
    pub(super) std::path::PathBuf,
    pub(super) Arc<Mutex<Vec<u32>>>,
);

impl Disk for Peeks {
    fn len(&self) -> u64 {
        1
    }
    fn read_exact_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        let modes = fs::read_dir(&self.0).unwrap();
        let modes = modes.map(|e| e.unwrap().metadata().unwrap().mode() & 0o777);
        self.1.lock().unwrap().extend(modes);
        buf.fill(1);
        Ok(())
    }
    fn run_at(&self, _offset: u64) -> Result<disk_io::Run> {
        Ok(disk_io::Run {
            len: 1,
            kind: disk_io::RunKind::Data,
        })
    }
}
