//! The kernel's requests.

use super::{
    State,
    op::Op,
    tree::{Code, Ino, Kind, Tree},
};
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// Nothing is kept by the kernel: files change behind its back.
const NO_TIME: Duration = Duration::ZERO;

/// Serves what [`super::CrashFs`] holds.
#[derive(Debug)]
pub(super) struct Server(pub(super) Arc<Mutex<State>>);

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(
        &self,
        req: &Request,
        (dir, name): (INodeNo, &OsStr),
        kind: Kind,
        mode: u32,
    ) -> Result<FileAttr, Code> {
        let mut state = self.state();
        let ino = state.next;
        state.next += 1;
        state.change(Op::Make {
            dir: dir.0,
            name: name.to_owned(),
            ino,
            kind,
            mode,
            owner: (req.uid(), req.gid()),
        })?;
        attr(&state.tree, ino)
    }

    fn remove(&self, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        done(self.state().change(Op::Remove { dir: dir.0, name }), reply);
    }
}

fn attr(tree: &Tree, ino: Ino) -> Result<FileAttr, Code> {
    let node = tree.node(ino)?;
    let (kind, size) = match &node.kind {
        Kind::File(bytes) => (FileType::RegularFile, bytes.len() as u64),
        Kind::Dir(_) => (FileType::Directory, 4096),
        Kind::Link(to) => (FileType::Symlink, to.as_os_str().len() as u64),
    };
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: node.modified,
        mtime: node.modified,
        ctime: node.changed,
        crtime: node.modified,
        kind,
        perm: u16::try_from(node.mode & 0o7777).unwrap_or(0),
        nlink: tree.links(ino).max(1),
        uid: node.owner.0,
        gid: node.owner.1,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn entry(found: Result<FileAttr, Code>, reply: ReplyEntry) {
    match found {
        Ok(attr) => reply.entry(&NO_TIME, &attr, Generation(0)),
        Err(e) => reply.error(Errno::from_i32(e)),
    }
}

fn done(result: Result<(), Code>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(Errno::from_i32(e)),
    }
}

fn time(when: TimeOrNow) -> SystemTime {
    match when {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        let ino = state.tree.lookup(parent.0, name);
        entry(ino.and_then(|ino| attr(&state.tree, ino)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attr(&self.state().tree, ino.0) {
            Ok(attr) => reply.attr(&NO_TIME, &attr),
            Err(e) => reply.error(Errno::from_i32(e)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let ino = ino.0;
        let mut result = Ok(());
        if let Some(len) = size {
            result = state.change(Op::Truncate { ino, len });
        } else if mode.is_some() || uid.is_some() || gid.is_some() || mtime.is_some() {
            result = state.change(Op::Attributes {
                ino,
                mode,
                uid,
                gid,
                modified: mtime.map(time),
            });
        }
        match result.and_then(|()| attr(&state.tree, ino)) {
            Ok(attr) => reply.attr(&NO_TIME, &attr),
            Err(e) => reply.error(Errno::from_i32(e)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.state().tree.node(ino.0).map(|n| &n.kind) {
            Ok(Kind::Link(to)) => reply.data(to.as_os_str().as_encoded_bytes()),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, req: &Request, dir: INodeNo, name: &OsStr, mode: u32, _: u32, r: ReplyEntry) {
        let kind = Kind::Dir(BTreeMap::new());
        entry(self.make(req, (dir, name), kind, mode), r);
    }

    fn symlink(&self, req: &Request, dir: INodeNo, name: &OsStr, to: &Path, reply: ReplyEntry) {
        let kind = Kind::Link(to.to_path_buf());
        entry(self.make(req, (dir, name), kind, 0o777), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state();
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            let (one, other) = (
                (parent.0, name.to_owned()),
                (newparent.0, newname.to_owned()),
            );
            return done(state.change(Op::Exchange { one, other }), reply);
        }
        let taken = state.tree.lookup(newparent.0, newname).is_ok();
        if taken && flags.contains(RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EEXIST);
        }
        let (from, to) = (
            (parent.0, name.to_owned()),
            (newparent.0, newname.to_owned()),
        );
        done(state.change(Op::Rename { from, to }), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let made = state.change(Op::Link {
            dir: dir.0,
            name: name.to_owned(),
            ino: ino.0,
        });
        entry(made.and_then(|()| attr(&state.tree, ino.0)), reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let kind = Kind::File(Arc::default());
        match self.make(req, (parent, name), kind, mode & 0o7777) {
            Ok(attr) => reply.created(
                &NO_TIME,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(e) => reply.error(Errno::from_i32(e)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().tree.node(ino.0).map(|n| &n.kind) {
            Ok(Kind::File(bytes)) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(from..).unwrap_or_default();
                let n = rest.len().min(size as usize);
                reply.data(rest.get(..n).unwrap_or_default());
            }
            _ => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.state().write(ino.0, at, data) {
            Ok(n) => reply.written(u32::try_from(n).unwrap_or(0)),
            Err(e) => reply.error(Errno::from_i32(e)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, r: ReplyEmpty) {
        let ino = ino.0;
        done(self.state().change(Op::Sync { ino, data_only }), r);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.state().change(Op::SyncDir { dir: ino.0 }), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.state();
        let names = match state.tree.names(ino.0) {
            Ok(names) => names,
            Err(e) => return reply.error(Errno::from_i32(e)),
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (n, (name, ino)) in names.iter().enumerate().skip(skip) {
            let kind = match state.tree.node(*ino).map(|n| &n.kind) {
                Ok(Kind::Dir(_)) => FileType::Directory,
                Ok(Kind::Link(_)) => FileType::Symlink,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(*ino), n as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let many = 1 << 30;
        reply.statfs(many, many, many, many, many, 4096, 255, 4096);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
