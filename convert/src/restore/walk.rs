//! The tree in order: directories made, files handed to workers.

use crate::{
    pipeline,
    place::FileId,
    restore::{
        Acl, Entry, Event, Item, Observer, Options, Record, Source, Summary,
        batch::{self, Batch, Pending},
        file::{There, look},
        host::{HostDir, open_dir_beneath},
        links::{DirRecord, First, LaterLink},
        names::host_name,
        report::{Counters, add},
    },
    target::write_error,
};
use disk_io::{DiskError, Result};
use guest_fs::{Entered, Name, NodeKind, Security};
use rustix::{
    fs::{AtFlags, fsync, statat, syncfs},
    io::Errno,
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::{OsStr, OsString},
    ops::ControlFlow,
    os::unix::ffi::{OsStrExt, OsStringExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

/// So many directories are synced by themselves; of more all of the file system is.
const DIRECTORIES: usize = 64;

/// One file for a worker.
#[derive(Clone, Debug)]
pub(crate) struct Job<N> {
    /// Its path in the tree.
    pub(crate) path: Vec<u8>,
    pub(crate) node: N,
    pub(crate) dir: Arc<HostDir>,
    pub(crate) name: OsString,
    /// The guest's directory that it was found in, and its name there.
    pub(crate) known_as: Option<(N, Name)>,
}

/// A restore that is going on.
pub(crate) struct Run<'a, S: Source> {
    pub(crate) source: &'a S,
    pub(crate) options: &'a Options,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) root: Arc<HostDir>,
    pub(crate) links: Mutex<HashMap<S::Node, First>>,
    pub(crate) later: Mutex<Vec<LaterLink<S::Node>>>,
    pub(crate) directories: Mutex<Vec<DirRecord>>,
    counters: Counters,
    batch: Batch<S::Node>,
    /// Directories in which something got a name, with those above; not all where they are many.
    wrote: Mutex<BTreeSet<PathBuf>>,
    /// What this run has put into the destination, where files are replaced.
    placed: Mutex<HashSet<FileId>>,
    fatal: Mutex<Option<DiskError>>,
    stop: AtomicBool,
}

/// Restores `items` beneath the directory `root`. What fails is told to `observer` and the
/// rest goes on; an error ends everything only where nothing more could succeed (the disk
/// is full, …): files that are complete by then keep their names. The sums come either way.
pub fn restore<S: Source>(
    source: &S,
    root: &Path,
    items: &[Item<S::Node>],
    options: &Options,
    observer: &dyn Observer,
) -> (Summary, Result<()>) {
    let root = match HostDir::root(root, options.dry_run) {
        Ok(root) => root,
        Err(e) => return (Summary::default(), Err(e)),
    };
    let run = Run {
        source,
        options,
        observer,
        root,
        links: Mutex::default(),
        later: Mutex::default(),
        directories: Mutex::default(),
        counters: Counters::default(),
        batch: Batch::default(),
        wrote: Mutex::default(),
        placed: Mutex::default(),
        fatal: Mutex::default(),
        stop: AtomicBool::new(false),
    };
    run.all(items);
    let fatal = run.fatal.into_inner().unwrap_or_else(|e| e.into_inner());
    (run.counters.summary(), fatal.map_or(Ok(()), Err))
}

/// Whether nothing more can succeed after this.
pub(crate) fn is_fatal(e: &DiskError) -> bool {
    pipeline::is_cancelled(e)
        || e.os_error().map(Errno::from_raw_os_error).is_some_and(|e| {
            matches!(
                e,
                Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::MFILE | Errno::NFILE
            )
        })
}

/// Runs what may meet a defect in a reader: a panic is a failure of that one thing.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(pipeline::panicked("restoring")))
}

/// Two names of the guest that are one on the host.
fn twice(path: &Path) -> DiskError {
    DiskError::refused("giving the restored file its name")
        .file(path.display())
        .expected("one of the guest's names for one of the host's")
        .found("a second one, after the first has been restored there")
        .hint("restore one of the two by itself, to another destination")
}

impl<S: Source> Run<'_, S> {
    fn all(&self, items: &[Item<S::Node>]) {
        let workers = pipeline::workers(self.options.workers).clamp(1, 64);
        let (sender, receiver) = sync_channel::<Job<S::Node>>(64);
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                // Somebody has to take the jobs, or the walk waits for ever.
                scope.spawn(|| {
                    while let Err(e) = guarded(|| {
                        self.work(&receiver);
                        Ok(())
                    }) {
                        self.stop.store(true, Ordering::Relaxed);
                        let mut fatal = self.fatal.lock().unwrap_or_else(|e| e.into_inner());
                        fatal.get_or_insert(e);
                    }
                });
            }
            for item in items {
                if self.stopped() {
                    break;
                }
                self.item(item, &sender);
            }
            drop(sender);
        });
        if self.is_cancelled() {
            batch::discard(&self.batch.take());
            return;
        }
        self.place_all(self.batch.take());
        if !self.options.dry_run {
            self.make_links();
            self.place_all(self.batch.take());
            self.sync_names();
            self.finish_directories();
        }
    }

    fn work(&self, receiver: &Mutex<Receiver<Job<S::Node>>>) {
        loop {
            let job = receiver.lock().unwrap_or_else(|e| e.into_inner()).recv();
            let Ok(job) = job else {
                return;
            };
            if self.stopped() {
                continue;
            }
            if let Err(e) = guarded(|| self.restore_file(&job)) {
                self.failed(&job.path, &e);
            }
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        if self.observer.cancelled() {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.stop.load(Ordering::Relaxed)
    }

    fn is_cancelled(&self) -> bool {
        self.observer.cancelled()
    }

    fn item(&self, item: &Item<S::Node>, sender: &SyncSender<Job<S::Node>>) {
        let filter = &self.options.filter;
        if filter.excludes(&item.path) {
            return;
        }
        let metadata = match guarded(|| self.source.metadata(item.node)) {
            Ok(metadata) => metadata,
            Err(e) => return self.failed(&item.path, &e),
        };
        let mut dir = self.root.clone();
        let (name, above) = match item.to.split_last() {
            Some((name, above)) => (Some(name), above),
            None => (None, [].as_slice()),
        };
        for part in above {
            dir = dir.child(part);
        }
        if metadata.kind == NodeKind::Directory {
            if !self.options.recursive {
                let e = DiskError::refused("restoring")
                    .expected("a file")
                    .found("a directory")
                    .hint("-r restores directories with everything in them");
                return self.failed(&item.path, &e);
            }
            if let Some(name) = name {
                dir = dir.child(name);
            }
            let inside = filter.is_selective() && filter.includes(&item.path, false);
            // What is asked for by itself is restored, wherever it was met before.
            let mut entered = Entered::default();
            self.directory(&item.path, item.node, &dir, inside, &mut entered, sender);
            self.tell_doubts(&item.path, item.node, None);
            return;
        }
        let Some(name) = name else {
            return;
        };
        if !filter.includes(&item.path, false) {
            return;
        }
        if let Err(e) = self.enter(&dir) {
            return self.failed(&item.path, &e);
        }
        let _ = sender.send(Job {
            path: item.path.clone(),
            node: item.node,
            dir,
            name: name.clone(),
            known_as: None,
        });
    }

    fn enter(&self, dir: &HostDir) -> Result<()> {
        match dir.fd() {
            Ok(_) => Ok(()),
            Err(e) if self.options.dry_run && e.kind() == disk_io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Restores the contents of a directory into `dir`.
    fn directory(
        &self,
        path: &[u8],
        node: S::Node,
        dir: &Arc<HostDir>,
        inside: bool,
        entered: &mut Entered,
        sender: &SyncSender<Job<S::Node>>,
    ) {
        let number = guarded(|| Ok(self.source.directory(node)));
        if let Err(e) = number.and_then(|number| entered.enter(number, path)) {
            return self.failed(path, &e);
        }
        let wanted = !self.options.filter.is_selective() || inside;
        match guarded(|| self.list(path, node, dir, wanted)) {
            Ok(entries) => {
                let used: HashSet<Vec<u8>> =
                    entries.iter().map(|e| e.name.as_bytes().to_vec()).collect();
                let (mut mapped, mut given) = (HashSet::new(), HashSet::new());
                for entry in entries {
                    if self.stopped() {
                        break;
                    }
                    let name = self.name_for(path, &entry.name, &used, &mut mapped);
                    if !given.insert(name.clone()) {
                        let path = join(path, entry.name.as_bytes());
                        self.failed(&path, &twice(&dir.shown().join(&name)));
                        continue;
                    }
                    self.entry(path, node, entry, name, dir, inside, entered, sender);
                }
            }
            Err(e) => {
                self.failed(path, &e);
                return entered.leave_unlisted();
            }
        }
        entered.leave();
    }

    /// Makes the directory (at once if `wanted`, else with the first file that goes into
    /// it) and lists the guest's.
    fn list(
        &self,
        path: &[u8],
        node: S::Node,
        dir: &Arc<HostDir>,
        wanted: bool,
    ) -> Result<Vec<Entry<S::Node>>> {
        let metadata = self.source.metadata(node)?;
        if let Some(refusal) = &metadata.refusal {
            return Err(refusal.clone());
        }
        if wanted {
            self.enter(dir)?;
            if !dir.path().as_os_str().is_empty() {
                add(&self.counters.directories, 1);
            }
        }
        let job = Job {
            path: path.to_vec(),
            node,
            dir: dir.clone(),
            name: dir.path().file_name().unwrap_or_default().to_owned(),
            known_as: None,
        };
        if wanted && let Err(e) = self.streams_of(&job, &metadata, None) {
            self.failed(path, &e);
        }
        let mut entries = Vec::new();
        self.source.read_dir(node, &mut |entry| {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => self.failed(path, &e),
            }
            if self.stopped() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if !dir.path().as_os_str().is_empty() {
            let security = self.security_of(node).unwrap_or_else(|e| {
                self.failed(path, &e.context("restored, but not wholly"));
                None
            });
            let mut directories = self.directories.lock().unwrap_or_else(|e| e.into_inner());
            directories.push(DirRecord {
                path: dir.path().to_path_buf(),
                guest_path: path.to_vec(),
                xattrs: self.xattrs_of(node).unwrap_or_else(|e| {
                    self.failed(path, &e.context("restored, but not wholly"));
                    Vec::new()
                }),
                security,
                metadata,
                made: dir.made(),
            });
        }
        Ok(entries)
    }

    /// The host's name for an entry, told if it is another, and unique in its directory.
    fn name_for(
        &self,
        path: &[u8],
        name: &Name,
        used: &HashSet<Vec<u8>>,
        mapped: &mut HashSet<Vec<u8>>,
    ) -> OsString {
        let Some(first) = host_name(name.as_bytes()) else {
            return name.clone().into_os_string();
        };
        let mut other = first.clone();
        let mut n = 1;
        while used.contains(&other) || mapped.contains(&other) {
            n += 1;
            let mut long = first.clone();
            long.extend_from_slice(format!("~{n}").as_bytes());
            other = host_name(&long).unwrap_or(long);
        }
        mapped.insert(other.clone());
        self.renamed(&join(path, name.as_bytes()), &other);
        OsString::from_vec(other)
    }

    #[allow(clippy::too_many_arguments)]
    fn entry(
        &self,
        path: &[u8],
        parent: S::Node,
        entry: Entry<S::Node>,
        name: OsString,
        dir: &Arc<HostDir>,
        inside: bool,
        entered: &mut Entered,
        sender: &SyncSender<Job<S::Node>>,
    ) {
        let path = join(path, entry.name.as_bytes());
        let filter = &self.options.filter;
        if filter.excludes(&path) {
            return;
        }
        if entry.kind == NodeKind::Directory {
            let inside = filter.is_selective() && filter.includes(&path, inside);
            let dir = dir.child(&name);
            self.directory(&path, entry.node, &dir, inside, entered, sender);
            return self.tell_doubts(&path, entry.node, Some((parent, &entry.name)));
        }
        if filter.includes(&path, inside) {
            let _ = sender.send(Job {
                path,
                node: entry.node,
                dir: dir.clone(),
                name,
                known_as: Some((parent, entry.name)),
            });
        }
    }

    /// Access control of an object, where it is wanted.
    pub(crate) fn security_of(&self, node: S::Node) -> Result<Option<Security>> {
        match self.options.acl {
            Acl::None => Ok(None),
            _ => self.source.security(node),
        }
    }

    /// Extended attributes of a Unix guest, where they are kept.
    pub(crate) fn xattrs_of(&self, node: S::Node) -> Result<Vec<(Name, Vec<u8>)>> {
        match self.options.preserve {
            true => self.source.xattrs(node),
            false => Ok(Vec::new()),
        }
    }

    /// Hands over a complete file.
    pub(crate) fn push(&self, pending: Pending<S::Node>) {
        if let Some(full) = self.batch.push(pending) {
            self.place_all(full);
        }
    }

    /// Something got a name in `dir`, or it was made.
    pub(crate) fn wrote_in(&self, dir: &Path) {
        let mut wrote = self.wrote.lock().unwrap_or_else(|e| e.into_inner());
        for path in dir.ancestors() {
            if wrote.len() <= DIRECTORIES {
                wrote.insert(path.to_path_buf());
            }
        }
    }

    /// What has a name keeps it when power is lost.
    fn sync_names(&self) {
        let made = self.directories.lock().unwrap_or_else(|e| e.into_inner());
        // Without something that is wanted in it a directory is not made.
        let is_made = |d: &&DirRecord| d.made.load(Ordering::Relaxed);
        made.iter()
            .filter(is_made)
            .for_each(|d| self.wrote_in(&d.path));
        drop(made);
        let wrote = std::mem::take(&mut *self.wrote.lock().unwrap_or_else(|e| e.into_inner()));
        let sync = || -> Result<()> {
            let root = self.root.fd()?;
            let fail = |path: &Path, e: Errno| {
                let path = self.root.shown().join(path);
                write_error("syncing the directory", &path, &e.into())
            };
            if wrote.len() > DIRECTORIES {
                return syncfs(root).map_err(|e| fail(Path::new(""), e));
            }
            for path in &wrote {
                let dir = open_dir_beneath(root, path).map_err(|e| fail(path, e))?;
                match fsync(&dir) {
                    Ok(()) | Err(Errno::INVAL) => {}
                    Err(e) => return Err(fail(path, e)),
                }
            }
            Ok(())
        };
        if let Err(e) = sync() {
            let mut fatal = self.fatal.lock().unwrap_or_else(|e| e.into_inner());
            fatal.get_or_insert(e);
        }
    }

    /// Syncs files and gives them their names.
    fn place_all(&self, files: Vec<Pending<S::Node>>) {
        if files.is_empty() {
            return;
        }
        if let Err(e) = batch::sync(&files) {
            for file in &files {
                self.lost(file, &e);
            }
            batch::discard(&files);
            return;
        }
        for file in files {
            let (dir, name, id) = (&file.dir, &file.name, file.id);
            match self.once(dir, name, id, file.replace, || batch::give_name(&file)) {
                Ok(other) => {
                    self.wrote_in(dir.path());
                    let place = file.dir.path().join(other.as_ref().unwrap_or(&file.name));
                    if let Some(kept) = &file.kept {
                        self.observer.kept(&Record {
                            path: &file.path,
                            place: &place,
                            metadata: &kept.metadata,
                            sha256: kept.sha256.as_deref(),
                            target: None,
                            first: None,
                            security: kept.security.as_ref(),
                        });
                    }
                    if let Some(node) = file.node {
                        self.first_link_is(node, Some(place));
                    }
                    if let Some(other) = &other {
                        self.renamed(&file.path, other.as_bytes());
                    }
                    self.restored(&file.path, file.bytes);
                }
                Err(e) => {
                    self.lost(&file, &e);
                    batch::discard(&[file]);
                }
            }
        }
    }

    /// Gives something its name with `rename`, unless this run has put something there
    /// already that would be replaced.
    pub(crate) fn once<T>(
        &self,
        dir: &HostDir,
        name: &OsStr,
        id: Option<FileId>,
        replace: bool,
        rename: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(id) = id else {
            return rename();
        };
        let mut placed = self.placed.lock().unwrap_or_else(|e| e.into_inner());
        if replace
            && let Ok(there) = statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)
            && placed.contains(&(there.st_dev, there.st_ino))
        {
            return Err(twice(&dir.shown().join(name)));
        }
        let done = rename()?;
        placed.insert(id);
        Ok(done)
    }

    /// What lies where a file should go; an error if it must stay.
    pub(crate) fn look(&self, dir: &HostDir, name: &OsStr) -> Result<There> {
        let there = look(dir, name, &self.options.protected)?;
        if let There::File(stat) = &there {
            let placed = self.placed.lock().unwrap_or_else(|e| e.into_inner());
            if placed.contains(&(stat.st_dev, stat.st_ino)) {
                return Err(twice(&dir.shown().join(name)));
            }
        }
        Ok(there)
    }

    fn lost(&self, file: &Pending<S::Node>, e: &DiskError) {
        if let Some(node) = file.node {
            self.first_link_is(node, None);
        }
        self.failed(&file.path, e);
    }

    pub(crate) fn restored(&self, path: &[u8], bytes: u64) {
        add(&self.counters.files, 1);
        add(&self.counters.bytes, bytes);
        self.observer.event(Event::Restored { path, bytes });
    }

    pub(crate) fn made_symlink(&self, path: &[u8]) {
        add(&self.counters.symlinks, 1);
        self.observer.event(Event::Restored { path, bytes: 0 });
    }

    pub(crate) fn left_streams(&self, n: u64) {
        add(&self.counters.streams_left, n);
    }

    /// Tells what is doubtful about something that was restored.
    pub(crate) fn tell_doubts(
        &self,
        path: &[u8],
        node: S::Node,
        known_as: Option<(S::Node, &Name)>,
    ) {
        let doubts = guarded(|| Ok(self.source.doubts(node, known_as))).unwrap_or_default();
        if doubts.is_empty() {
            return;
        }
        add(&self.counters.doubtful, 1);
        for why in &doubts {
            self.observer.event(Event::Doubtful { path, why });
        }
    }

    pub(crate) fn skipped(&self, path: &[u8], reason: &str) {
        add(&self.counters.skipped, 1);
        self.observer.event(Event::Skipped { path, reason });
    }

    fn renamed(&self, path: &[u8], name: &[u8]) {
        add(&self.counters.renamed, 1);
        self.observer.event(Event::Renamed { path, name });
    }

    pub(crate) fn failed(&self, path: &[u8], error: &DiskError) {
        if is_fatal(error) {
            self.stop.store(true, Ordering::Relaxed);
            let mut fatal = self.fatal.lock().unwrap_or_else(|e| e.into_inner());
            fatal.get_or_insert_with(|| error.clone());
            if pipeline::is_cancelled(error) {
                return;
            }
        }
        add(&self.counters.failed, 1);
        self.observer.event(Event::Failed { path, error });
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    if out.last() != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(name);
    out
}
