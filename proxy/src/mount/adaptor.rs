//! Kernel requests in, bytes or an errno out.

use super::{
    Activity, Audit, Opening, Zone,
    attr::{self, Ownership, attr},
    dir::{OpenDir, Step},
    errno::errno,
    listings::{self, Listings},
    readahead::{Pool, Stream},
    report::Reporter,
    xattr,
};
use crate::{
    inode::{self, Sequences},
    tree::{Node, Tree},
};
use disk_io::{Disk, Result};
use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyXattr, Request,
};
use guest_fs::{Metadata, Name};
use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::OsStr,
    io,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

/// Images never change.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// For what could not be read: the next one asks again.
const AT_ONCE: Duration = Duration::ZERO;

/// So many runs, or so long, are looked through for one answer to `lseek`, which no signal
/// interrupts: a large, empty disk has millions.
const SEEK_RUNS: u32 = 4096;
const SEEK_TIME: Duration = Duration::from_millis(50);

/// A table of open things. Numbers are never used again.
#[derive(Debug)]
struct Handles<T>(RwLock<HashMap<u64, Arc<T>>>);

impl<T> Handles<T> {
    fn new() -> Self {
        Self(RwLock::new(HashMap::new()))
    }

    fn insert(&self, number: u64, thing: Arc<T>, activity: &Activity) {
        activity.held.fetch_add(1, Ordering::Relaxed);
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(number, thing);
    }

    fn get(&self, handle: FileHandle) -> Option<Arc<T>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&handle.0).cloned()
    }

    fn remove(&self, handle: FileHandle, activity: &Activity) -> Option<Arc<T>> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let found = table.remove(&handle.0)?;
        activity.held.fetch_sub(1, Ordering::Relaxed);
        Some(found)
    }
}

#[derive(Debug)]
struct OpenFile {
    node: Node,
    stream: Arc<Stream>,
}

/// What [`super::MountOptions`] chooses of how requests are answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    pub(super) direct_io: bool,
    pub(super) exact_case: bool,
}

#[derive(Debug)]
pub(crate) struct Adaptor {
    tree: Arc<Tree>,
    who: Ownership,
    zone: Option<Zone>,
    ways: Ways,
    sequences: Sequences,
    files: Handles<OpenFile>,
    dirs: Handles<OpenDir>,
    listings: Arc<Listings>,
    next: AtomicU64,
    pool: Pool,
    reporter: Reporter,
    activity: Arc<Activity>,
    audit: Option<Audit>,
}

thread_local! {
    /// One reply buffer a thread, as large as its largest read.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adaptor {
    pub(crate) fn new(
        tree: Arc<Tree>,
        who: Ownership,
        zone: Option<Zone>,
        ways: Ways,
        threads: usize,
        activity: Arc<Activity>,
        audit: Option<Audit>,
    ) -> Self {
        Self {
            tree,
            who,
            zone,
            ways,
            sequences: Sequences::default(),
            files: Handles::new(),
            dirs: Handles::new(),
            listings: Arc::default(),
            next: AtomicU64::new(1),
            pool: Pool::new(threads),
            reporter: Reporter::default(),
            activity,
            audit,
        }
    }

    /// Tells who opens what.
    fn audited<T>(&self, req: &Request, node: Node, directory: bool, done: &Result<T, Errno>) {
        if let Some(Audit(told)) = &self.audit {
            told(&Opening {
                uid: req.uid(),
                gid: req.gid(),
                pid: req.pid(),
                directory,
                path: self.reporter.path(&self.tree, node),
                error: done
                    .as_ref()
                    .err()
                    .map(|e| io::Error::from_raw_os_error(e.code()).to_string()),
            });
        }
    }

    fn node(&self, ino: INodeNo) -> Node {
        self.sequences.node(ino.0)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs the body of a handler: errors and panics become an errno and one line in the
    /// log. "Not there" is an answer and is not logged.
    fn answer<T>(
        &self,
        node: Node,
        doing: &str,
        body: impl FnOnce() -> Result<T>,
    ) -> Result<T, Errno> {
        self.activity.touch();
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(e)) => {
                if e.kind() != disk_io::ErrorKind::NotFound {
                    self.reporter.error(&self.tree, node, doing, &e);
                }
                Err(errno(e.kind()))
            }
            Err(_) => {
                self.reporter.panic(&self.tree, node, doing);
                Err(Errno::EIO)
            }
        }
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let mut metadata = self.tree.metadata(node)?;
        if let Some(zone) = &self.zone {
            zone.settle(&mut metadata);
        }
        Ok(metadata)
    }

    fn attr_of(&self, node: Node) -> Result<FileAttr> {
        let metadata = self.metadata(node)?;
        Ok(self.attr(node, &metadata))
    }

    /// Metadata of an entry of a listing, which goes on whatever happens to it.
    fn listed(&self, dir: Node, name: &OsStr, node: Node) -> Result<Metadata, Errno> {
        self.answer(node, "reading attributes", || {
            let metadata = self.metadata(node)?;
            self.reporter
                .reached(&self.tree, dir, &Name::from(name), node);
            Ok(metadata)
        })
    }

    fn attr(&self, node: Node, metadata: &Metadata) -> FileAttr {
        self.sequences.remember(node);
        attr(&self.tree, node, metadata, &self.who)
    }

    /// Attributes of something whose own could not be read: of the right kind, no more.
    /// Nothing is remembered: a damaged entry may have a sequence number that is not the
    /// record's.
    fn bare_attr(&self, node: Node, kind: FileType) -> FileAttr {
        FileAttr {
            ino: INodeNo(self.tree.inode(node)),
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0,
            nlink: 1,
            uid: self.who.mounter.0,
            gid: self.who.mounter.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// Finds a name. `.` and `..` are asked for by an NFS server that lost its way.
    fn find(&self, parent: Node, name: &OsStr) -> Result<Option<Node>> {
        match name.as_encoded_bytes() {
            b"." => Ok(Some(parent)),
            b".." => Ok(self.tree.parent(parent)),
            _ => {
                let name = Name::from(name);
                let mut found = self.tree.lookup(parent, &name)?;
                if let Some(node) = found
                    && self.ways.exact_case
                    && !self.is_listed(parent, &name, node)?
                {
                    found = None;
                }
                if let Some(node) = found {
                    self.reporter.reached(&self.tree, parent, &name, node);
                    for why in self.tree.doubts_of_dir(parent) {
                        self.reporter.doubt(&self.tree, parent, &why);
                    }
                    if let Some(why) = self.tree.misnamed_as_typed(node, parent, &name) {
                        self.reporter.doubt(&self.tree, node, &why);
                    }
                }
                Ok(found)
            }
        }
    }

    /// Whether a directory has exactly this name.
    fn is_listed(&self, dir: Node, name: &Name, node: Node) -> Result<bool> {
        let mut names = self.tree.names(node)?.into_iter();
        if names.any(|(above, n)| above == dir && n == *name) {
            return Ok(true);
        }
        let mut found = false;
        self.tree.read_dir(dir, &mut |entry| {
            found = entry.is_ok_and(|e| e.name == *name);
            match found {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        Ok(found)
    }

    fn open_file(&self, node: Node) -> Result<u64> {
        let disk = self.tree.open(node, None)?;
        for why in self.tree.doubts(node) {
            self.reporter.doubt(&self.tree, node, &why);
        }
        let number = self.number();
        let stream = Stream::new(disk, &self.pool);
        let file = Arc::new(OpenFile { node, stream });
        self.files.insert(number, file, &self.activity);
        Ok(number)
    }

    /// The next position of data or of a hole; `None` past the last. Where that takes too
    /// long the rest counts as data, from where the search has come to: a reader that asks
    /// again from there goes on.
    fn seek(disk: &dyn Disk, offset: u64, hole: bool) -> Result<Option<u64>> {
        let len = disk.len();
        let mut at = offset;
        let begin = Instant::now();
        let mut runs = 0;
        while at < len {
            let run = disk.run_at(at)?;
            if run.kind.reads_as_zero() == hole {
                return Ok(Some(at));
            }
            at = at.saturating_add(run.len);
            runs += 1;
            if at < len && (runs >= SEEK_RUNS || begin.elapsed() > SEEK_TIME) {
                return Ok(Some(if hole { len } else { at }));
            }
        }
        // The end of a file counts as a hole.
        Ok((hole && offset < len).then_some(len))
    }

    /// Gives out a directory: `.`, `..`, then its names, until `add` is full.
    fn list(
        &self,
        dir: &OpenDir,
        offset: u64,
        add: &mut dyn FnMut(u64, Listed<'_>) -> bool,
    ) -> Result<()> {
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        if first == 0 && add(1, Listed::Dot(dir.node)) {
            return Ok(());
        }
        if first <= 1 {
            let parent = self.tree.parent(dir.node).unwrap_or(dir.node);
            if add(2, Listed::DotDot(parent)) {
                return Ok(());
            }
        }
        let mut given = first <= 1;
        let mut lost = None;
        dir.walk(
            &self.tree,
            first.saturating_sub(2),
            &mut |position, step| {
                match step {
                    Step::Entry(entry) => {
                        if add(position as u64 + 3, Listed::Entry(entry)) {
                            return ControlFlow::Break(());
                        }
                        given = true;
                    }
                    Step::End(why) => lost = why,
                }
                ControlFlow::Continue(())
            },
        )?;
        // Names that could be read are all given out first, then the reader learns that
        // there should be more.
        match lost {
            Some(e) if !given => Err(e),
            _ => Ok(()),
        }
    }
}

/// A value, or its length where only that is asked for.
fn give(value: &[u8], size: u32, reply: ReplyXattr) {
    // Both callers hold it to 64 KiB, but for what a guest's own list may be.
    let Ok(len) = u32::try_from(value.len()) else {
        return reply.error(Errno::E2BIG);
    };
    match size {
        0 => reply.size(len),
        size if size < len => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

enum Listed<'a> {
    Dot(Node),
    DotDot(Node),
    Entry(listings::Listed<'a>),
}

impl Filesystem for Adaptor {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_background(64);
        let _ = config.set_congestion_threshold(48);
        // What the kernel offered is the most it takes.
        if let Err(most) = config.set_max_readahead(16 << 20) {
            let _ = config.set_max_readahead(most);
        }
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPORT_SUPPORT,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ] {
            // An older kernel goes without.
            let _ = config.add_capabilities(wanted);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let dir = self.node(parent);
        let found = self.answer(dir, "looking up a name", || {
            self.find(dir, name)?
                .map(|node| Ok((node, self.attr_of(node)?)))
                .transpose()
        });
        match found {
            Ok(Some((node, attr))) => {
                reply.entry(&LONG, &attr, Generation(u64::from(node.id.sequence)));
            }
            // A name that is not there never will be.
            Ok(None) => {
                let mut none = self.bare_attr(dir, FileType::RegularFile);
                none.ino = INodeNo(0);
                reply.entry(&LONG, &none, Generation(0));
            }
            Err(e) => reply.error(e),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let node = self.node(ino);
        match self.answer(node, "reading attributes", || self.attr_of(node)) {
            Ok(attr) => reply.attr(&LONG, &attr),
            Err(e) => reply.error(e),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let node = self.node(ino);
        match self.answer(node, "reading a link", || self.tree.read_link(node)) {
            Ok(link) => reply.data(link.target.as_bytes()),
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let node = self.node(ino);
        let opened = self.answer(node, "opening", || self.open_file(node));
        self.audited(req, node, false, &opened);
        match opened {
            Ok(number) => {
                let mut how = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                if self.ways.direct_io {
                    how |= FopenFlags::FOPEN_DIRECT_IO;
                }
                reply.opened(FileHandle(number), how);
            }
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = self.files.get(fh) else {
            return reply.error(Errno::EBADF);
        };
        let rest = file.stream.disk().len().saturating_sub(offset);
        // Not more than `size`, which fits.
        let n = rest.min(u64::from(size)) as usize;
        // At the end, and anywhere behind it: the kernel asks where it does not cache.
        if n == 0 {
            return reply.data(&[]);
        }
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < n {
                buffer.resize(n, 0);
            }
            let bytes = buffer.get_mut(..n).unwrap_or_default();
            let read = self.answer(file.node, "reading", || {
                file.stream.read(&self.pool, bytes, offset)
            });
            match read {
                Ok(()) => reply.data(bytes),
                Err(e) => reply.error(e),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(file) = self.files.remove(fh, &self.activity) {
            file.stream.close();
        }
        reply.ok();
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let node = self.node(ino);
        let opened = self.answer(node, "entering", || self.tree.enter(node));
        self.audited(req, node, true, &opened);
        match opened {
            Ok(()) => {
                let number = self.number();
                let dir = OpenDir::new(node, self.listings.clone());
                self.dirs.insert(number, Arc::new(dir), &self.activity);
                let how = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
                reply.opened(FileHandle(number), how);
            }
            Err(e) => reply.error(e),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(dir) = self.dirs.get(fh) else {
            return reply.error(Errno::EBADF);
        };
        let done = self.answer(dir.node, "listing", || {
            self.list(&dir, offset, &mut |next, listed| {
                let ino = |node| INodeNo(self.tree.inode(node));
                match listed {
                    Listed::Dot(node) => reply.add(ino(node), next, FileType::Directory, "."),
                    Listed::DotDot(node) => reply.add(ino(node), next, FileType::Directory, ".."),
                    Listed::Entry(e) => {
                        let kind = attr::file_type(e.kind, None);
                        reply.add(ino(e.node), next, kind, e.name)
                    }
                }
            })
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(dir) = self.dirs.get(fh) else {
            return reply.error(Errno::EBADF);
        };
        let done = self.answer(dir.node, "listing", || {
            self.list(&dir, offset, &mut |next, listed| {
                let (node, name, kind) = match &listed {
                    Listed::Dot(node) => (*node, OsStr::new("."), None),
                    Listed::DotDot(node) => (*node, OsStr::new(".."), None),
                    Listed::Entry(e) => (e.node, e.name, Some(e.kind)),
                };
                let generation = Generation(u64::from(node.id.sequence));
                let (attr, valid, generation) = match kind {
                    // The kernel takes no attributes from these two.
                    None => (
                        self.bare_attr(node, FileType::Directory),
                        AT_ONCE,
                        generation,
                    ),
                    Some(kind) => match self.listed(dir.node, name, node) {
                        Ok(metadata) => (self.attr(node, &metadata), LONG, generation),
                        // The name is there; what is wrong with it is told when asked.
                        Err(_) => {
                            let mut attr = self.bare_attr(node, attr::file_type(kind, None));
                            attr.ino = INodeNo(inode::unread(node));
                            (attr, AT_ONCE, Generation(0))
                        }
                    },
                };
                reply.add(attr.ino, next, name, &valid, &attr, generation)
            })
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.dirs.remove(fh, &self.activity);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let node = self.node(ino);
        // A volume that cannot be read has a size all the same.
        let info = catch_unwind(AssertUnwindSafe(|| self.tree.space(node))).unwrap_or_default();
        let block = u64::from(info.block.max(512));
        let blocks = info.size / block;
        let used = info.used.map_or(blocks, |used| used.div_ceil(block));
        let free = blocks.saturating_sub(used);
        let block = u32::try_from(block).unwrap_or(4096);
        reply.statfs(blocks, free, 0, 0, 0, block, 255, block);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let node = self.node(ino);
        let found = self.answer(node, "reading an extended attribute", || {
            xattr::get(&self.tree, node, name.as_encoded_bytes())
        });
        match found {
            Ok(xattr::Value::Is(value)) => give(&value, size, reply),
            Ok(xattr::Value::TooLong) => reply.error(Errno::E2BIG),
            Ok(xattr::Value::None) => reply.error(Errno::NO_XATTR),
            Err(e) => reply.error(e),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let node = self.node(ino);
        let found = self.answer(node, "listing extended attributes", || {
            xattr::list(&self.tree, node)
        });
        match found {
            Ok(names) => {
                let mut list = Vec::new();
                for name in names {
                    list.extend(name);
                    list.push(0);
                }
                match list.len() as u64 > xattr::LONGEST {
                    true => reply.error(Errno::E2BIG),
                    false => give(&list, size, reply),
                }
            }
            Err(e) => reply.error(e),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        /// `SEEK_DATA` and `SEEK_HOLE` of Linux; the kernel answers the others itself.
        const DATA: i32 = 3;
        const HOLE: i32 = 4;
        let Some(file) = self.files.get(fh) else {
            return reply.error(Errno::EBADF);
        };
        let (Ok(from), DATA | HOLE) = (u64::try_from(offset), whence) else {
            return reply.error(Errno::EINVAL);
        };
        let found = self.answer(file.node, "looking for holes", || {
            Self::seek(&**file.stream.disk(), from, whence == HOLE)
        });
        match found.map(|at| at.and_then(|at| i64::try_from(at).ok())) {
            Ok(Some(at)) => reply.offset(at),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(e) => reply.error(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::mock::Shreds;

    #[test]
    fn one_seek_takes_a_bounded_time_and_goes_on_from_there() {
        for time in [Duration::ZERO, Duration::from_millis(10)] {
            let (disk, asked) = Shreds::disk(1 << 60, time);
            let first = Adaptor::seek(&*disk, 5, false).unwrap().unwrap();
            assert!(first > 5 && first < 1 << 30);
            let next = Adaptor::seek(&*disk, first, false).unwrap().unwrap();
            assert!(next > first);
            assert!(asked.load(Ordering::Relaxed) <= 2 * u64::from(SEEK_RUNS));
            assert_eq!(Adaptor::seek(&*disk, next, true).unwrap(), Some(next));
        }
        let (small, _) = Shreds::disk(1 << 20, Duration::ZERO);
        assert_eq!(Adaptor::seek(&*small, 0, false).unwrap(), None);
    }
}
