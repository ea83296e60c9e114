//! The read-only FUSE mount: a thin adaptor over [`Tree`].
//!
//! | module | holds |
//! |---|---|
//! | `adaptor` | kernel requests in, bytes or an errno out |
//! | `attr`, `dir`, `listings` | metadata as `stat` shows it; open directories, and what is kept of them |
//! | `readahead` | what is fetched before it is asked for |
//! | `xattr` | streams and access control as extended attributes |
//! | `errno`, `report` | the one table of errors, and each told once |
//! | `sandbox` | what a mount that is served can no longer do |
//! | `state`, `table`, [`mod@umount`] | what is mounted, and how it goes away |

mod adaptor;
mod attr;
mod dir;
mod errno;
mod listings;
mod readahead;
mod report;
mod sandbox;
pub mod state;
mod table;
pub mod umount;
mod xattr;

use crate::tree::Tree;
pub use sandbox::{Detach, Sandbox};

use adaptor::{Adaptor, Ways};
use attr::Ownership;
use disk_io::{DiskError, ErrorKind, Result};
use fuser::{Config, MountOption, Session, SessionACL};
use guest_fs::{Metadata, Name, Timestamp};
use signal_hook::iterator::Signals;
use state::StateFile;
use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What the mount shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// The tree.
    #[default]
    Tree,
    /// The disk and its partitions as files: `disk.img`, `p1.img` …
    Raw,
    /// As VMware Consolidated Backup mounted volumes: `letters/C` … and `digits/1` …
    Vcb,
}

/// Where the guest's clock stood: turns times without a zone (FAT's) into real ones.
#[derive(Clone)]
pub struct Zone(Arc<dyn Fn(Timestamp) -> Timestamp + Send + Sync>);

impl Zone {
    /// By a function that is given every time that the mount shows.
    pub fn new(settle: impl Fn(Timestamp) -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(settle))
    }

    fn settle(&self, metadata: &mut Metadata) {
        for time in [
            &mut metadata.created,
            &mut metadata.modified,
            &mut metadata.accessed,
            &mut metadata.changed,
        ] {
            *time = time.map(|t| (self.0)(t));
        }
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Zone")
    }
}

/// How a tree is mounted.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// What the mount shows.
    pub layout: Layout,
    /// Let other users in, as far as permissions of the guest's files allow.
    pub allow_other: bool,
    /// Owner of everything; the guest's own or the mounting user if `None`.
    pub uid: Option<u32>,
    /// Group of everything; the guest's own or the mounting user's if `None`.
    pub gid: Option<u32>,
    /// Permission bits to take away.
    pub umask: u32,
    /// Past the page cache: for bulk copies.
    pub direct_io: bool,
    /// Names are found as they are written only, not as the guest would fold them.
    pub exact_case: bool,
    /// [`Mounted::serve`] ends when nothing was asked for so long and nothing is in use.
    pub idle: Option<Duration>,
    /// By which time goes; the machine's own if `None`.
    pub clock: Option<Clock>,
    /// Told of everything that is opened.
    pub audit: Option<Audit>,
    /// The zone of times that the guest stores without one; shown as UTC if `None`.
    pub zone: Option<Zone>,
    /// Event loops; by the number of processors if `None`.
    pub threads: Option<usize>,
    /// Name of the source in the mount table; SOURCE's path if `None`.
    pub fs_name: Option<String>,
    /// Take SIGINT, SIGTERM and SIGHUP from before the mount on, for [`Mounted::serve`]: a
    /// signal at any moment then unmounts. For processes that do nothing else.
    pub signals: bool,
    /// Lock the threads that serve, and the one that calls, down to reading what is listed.
    pub sandbox: Option<Sandbox>,
}

/// Told who opens what.
#[derive(Clone)]
pub struct Audit(Arc<dyn Fn(&Opening) + Send + Sync>);

impl Audit {
    /// By a function that is told of every opening, from any thread.
    pub fn new(told: impl Fn(&Opening) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

/// Somebody opened something.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Whose process.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Which process; 0 where the kernel does not say.
    pub pid: u32,
    /// A file, or a directory to be listed.
    pub directory: bool,
    /// What, as the tree calls it.
    pub path: Name,
    /// Why not, if it was refused.
    pub error: Option<String>,
}

/// How a mount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody unmounted it.
    Unmounted,
    /// A signal asked for the end; it is unmounted.
    Signal(i32),
    /// Nothing was asked for a long time; it is unmounted.
    Idle,
}

/// How often it is looked whether a mount has been idle: its clock may be another than that of
/// the threads that wait.
const LOOK: Duration = Duration::from_secs(1);

/// A mounted tree. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    dir: PathBuf,
    warnings: Vec<String>,
    session: Arc<Running>,
    thread: Option<JoinHandle<()>>,
    watcher: Option<Watcher>,
    activity: Arc<Activity>,
    idle: Option<Duration>,
    /// Who unmounts where this process itself no longer can.
    detach: Option<Detach>,
}

/// The time, for what happens by it: how long after some moment it is now.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// By a function, so that a day can pass in a moment.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Default for Clock {
    /// The machine's own.
    fn default() -> Self {
        let since = Instant::now();
        Self::new(move || since.elapsed())
    }
}

/// When something was last asked, and what is open.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Clock,
    /// Milliseconds of the clock.
    last: AtomicU64,
    /// Open files and directories.
    held: AtomicU64,
}

impl Activity {
    fn new(clock: Clock) -> Self {
        let new = Self {
            clock,
            last: AtomicU64::new(0),
            held: AtomicU64::new(0),
        };
        new.touch();
        new
    }

    fn now(&self) -> u64 {
        u64::try_from((self.clock.0)().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something is asked now.
    pub(crate) fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// How long nothing was asked.
    fn quiet(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

/// Signals as they come from now on, kept until somebody looks.
fn catch_signals() -> Result<Signals> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|e| DiskError::io("waiting for signals", &e))
}

/// The thread that waits for signals, as long as the mount lasts.
#[derive(Debug)]
struct Watcher {
    handle: signal_hook::iterator::Handle,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    fn start(mut signals: Signals, running: &Arc<Running>) -> Result<Self> {
        let handle = signals.handle();
        let running = running.clone();
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    // Under the lock that waiters hold, or one could miss it.
                    let _state = running.state.lock();
                    *running
                        .signal
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner) = Some(signal);
                    running.changed.notify_all();
                }
            })
            .map_err(|e| DiskError::io("starting a thread", &e))?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The session's thread and whoever waits for it.
#[derive(Debug, Default)]
struct Running {
    state: Mutex<Option<io::Result<()>>>,
    changed: Condvar,
    signal: Mutex<Option<i32>>,
    over: AtomicBool,
    /// Gone as soon as the mount is, even while open files keep the session.
    file: Mutex<Option<StateFile>>,
}

impl Running {
    /// Where the state file is.
    fn file(&self) -> Option<PathBuf> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().map(|f| f.path().to_path_buf())
    }

    fn forget(&self) {
        drop(
            self.file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

impl Mounted {
    /// Where.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the user should be told, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Waits until somebody unmounts it.
    pub fn wait(self) -> Result<()> {
        self.wait_for(None, false);
        self.finish()
    }

    /// Waits until somebody unmounts it, or until SIGINT, SIGTERM or SIGHUP, which unmount
    /// it. Files that are open then fail with ENOTCONN once the process ends.
    pub fn serve(mut self) -> Result<Ended> {
        if self.watcher.is_none() {
            self.watcher = Some(Watcher::start(catch_signals()?, &self.session)?);
        }
        if let Some(limit) = self.idle {
            while !self.wait_for(Some(self.rest(limit).min(LOOK)), true) {
                if self.rest(limit) > Duration::ZERO {
                    continue;
                }
                // What is in use, if only as somebody's working directory, stays.
                if self.detach(false).is_ok() {
                    self.session.forget();
                    self.wait_for(Some(Duration::from_secs(1)), false);
                    self.unmount()?;
                    return Ok(Ended::Idle);
                }
                self.activity.touch();
            }
        } else {
            self.wait_for(None, true);
        }
        let signal = *self
            .session
            .signal
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match signal {
            Some(signal) => {
                self.unmount()?;
                Ok(Ended::Signal(signal))
            }
            None => self.finish().map(|()| Ended::Unmounted),
        }
    }

    /// How long until it has been idle for `limit`.
    fn rest(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.activity.quiet())
    }

    /// Detaches the mount from the tree at once, and waits a moment for programs that still
    /// have files of it open.
    pub fn unmount(mut self) -> Result<()> {
        self.stop()
    }

    fn detach(&self, lazy: bool) -> Result<()> {
        match &self.detach {
            Some(detach) => detach.ask(lazy),
            None => umount::detach(&self.dir, lazy),
        }
    }

    /// Whether it is still served.
    pub fn is_alive(&self) -> bool {
        !self.session.over.load(Ordering::Acquire)
    }

    /// Waits for the session's end or a signal; `false` when the time is over.
    fn wait_for(&self, time: Option<Duration>, signals: bool) -> bool {
        let mut state = self
            .session
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let signal = signals
                && self
                    .session
                    .signal
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_some();
            if state.is_some() || signal {
                return true;
            }
            match time {
                None => {
                    state = self
                        .session
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Some(time) => {
                    let (after, timed_out) = self
                        .session
                        .changed
                        .wait_timeout(state, time)
                        .unwrap_or_else(PoisonError::into_inner);
                    state = after;
                    if timed_out.timed_out() {
                        return state.is_some();
                    }
                }
            }
        }
    }

    fn stop(&mut self) -> Result<()> {
        if self.is_alive() {
            self.detach(true)?;
            self.session.forget();
            self.wait_for(Some(Duration::from_secs(1)), false);
        }
        if !self.is_alive()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        Ok(())
    }

    /// After the session's end: its result.
    fn finish(mut self) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut state = self
            .session
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match state.take() {
            Some(Err(e)) => Err(DiskError::io("serving the mount", &e).file(self.dir.display())),
            _ => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            tracing::error!("{e}");
        }
    }
}

/// Mounts the tree at `dir`, which must be an existing directory; returns when it is ready.
///
/// Errors: [`ErrorKind::NotFound`] where the directory, `/dev/fuse` or `fusermount3` is
/// missing, [`ErrorKind::Refused`] where something is mounted there or the system does not
/// allow it.
pub fn mount(tree: Arc<Tree>, dir: &Path, options: &MountOptions) -> Result<Mounted> {
    let mut warnings = Vec::new();
    let dir = check_dir(dir, &mut warnings)?;
    let source = tree
        .source()
        .map_or_else(PathBuf::new, |s| s.path().to_path_buf());
    let tree = match (options.layout, tree.source()) {
        (Layout::Raw, Some(source)) => Arc::new(Tree::raw(source.clone())),
        (Layout::Raw, None) => {
            return Err(
                DiskError::unsupported("mounting a machine's disk as a file")
                    .expected("one disk")
                    .found("a machine")
                    .hint("say which disk with --disk"),
            );
        }
        (Layout::Vcb, _) => {
            let vcb = tree.vcb()?;
            warnings.extend_from_slice(vcb.warnings());
            Arc::new(vcb)
        }
        _ => tree,
    };
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = options.threads.unwrap_or(processors.max(2)).clamp(1, 64);
    let who = Ownership {
        uid: options.uid,
        gid: options.gid,
        umask: options.umask,
        mounter: (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        ),
    };
    let mut config = Config::default();
    let name = match &options.fs_name {
        Some(name) => name.clone(),
        None => source.display().to_string(),
    };
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName(table::source_name(&name)),
    ];
    if options.allow_other {
        // Others are held to the permissions that the mount shows. The operator alone is
        // not: a backup is restored by who can read the backup.
        config.mount_options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(threads);

    let running = Arc::new(Running::default());
    // From before the mount on; the thread that looks at them starts confined, like all others.
    let signals = options.signals.then(catch_signals).transpose()?;
    let activity = Arc::new(Activity::new(options.clock.clone().unwrap_or_default()));
    let adaptor = Adaptor::new(
        tree,
        who,
        options.zone.clone(),
        Ways {
            direct_io: options.direct_io,
            exact_case: options.exact_case,
        },
        processors,
        activity.clone(),
        options.audit.clone(),
    );
    let readable = options.sandbox.as_ref().map(sandbox::Readable::look_up);
    // fuser asserts that standard input, output and error are open.
    let session = catch_unwind(AssertUnwindSafe(|| Session::new(adaptor, &dir, &config)))
        .map_err(|_| {
            DiskError::refused("mounting")
                .file(dir.display())
                .found("a fault in the mount helper")
                .hint("standard input, output and error must be open")
        })?
        .map_err(|e| explain(&e, &dir))?;

    match StateFile::create(&dir, &source) {
        Ok(file) => {
            *running.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        }
        Err(e) => warnings.push(format!(
            "no state file could be written ({e}): `cleanup` will not know of this mount"
        )),
    }
    raise_readahead(&dir);
    // From here on threads can only read; none was started before.
    if let Some(readable) = readable {
        warnings.extend(sandbox::enter(readable, running.file().as_deref()));
    }
    let watcher = signals.map(|signals| Watcher::start(signals, &running));
    let watcher = watcher.transpose()?;
    let thread = {
        let running = running.clone();
        std::thread::Builder::new()
            .name("mount".into())
            .spawn(move || {
                let ended = session.run();
                running.forget();
                running.over.store(true, Ordering::Release);
                *running.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
                running.changed.notify_all();
            })
            .map_err(|e| DiskError::io("starting a thread", &e))?
    };
    let mounted = Mounted {
        dir,
        warnings,
        session: running,
        thread: Some(thread),
        watcher,
        activity,
        idle: options.idle,
        detach: options.sandbox.as_ref().map(|s| s.detach.clone()),
    };
    Ok(mounted)
}

/// The mount point, absolute and free of links, if something can be mounted there.
fn check_dir(dir: &Path, warnings: &mut Vec<String>) -> Result<PathBuf> {
    let doing = "mounting";
    if umount::is_dead(dir) {
        return Err(DiskError::refused(doing)
            .file(dir.display())
            .found("a mount whose process died")
            .hint(format!("clear it with: vmdkit umount '{}'", dir.display())));
    }
    let real = match dir.canonicalize() {
        Ok(real) => real,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(DiskError::not_found(doing)
                .file(dir.display())
                .expected("an existing directory")
                .found("nothing")
                .hint(format!("make it with: mkdir -p '{}'", dir.display())));
        }
        Err(e) => return Err(DiskError::io(doing, &e).file(dir.display())),
    };
    if !real.is_dir() {
        return Err(DiskError::refused(doing)
            .file(dir.display())
            .expected("a directory")
            .found("a file"));
    }
    if let Some(line) = table::at(&real) {
        return Err(DiskError::refused(doing)
            .file(dir.display())
            .expected("a directory where nothing is mounted")
            .found(format!("{} ({})", line.source.display(), line.kind)));
    }
    let not_empty = std::fs::read_dir(&real).is_ok_and(|mut d| d.next().is_some());
    if not_empty {
        warnings.push(format!(
            "{} is not empty: what is in it is hidden while the mount lasts",
            dir.display()
        ));
    }
    Ok(real)
}

/// What went wrong with mounting, in words that lead on.
fn explain(e: &io::Error, dir: &Path) -> DiskError {
    let text = e.to_string();
    let error = if !Path::new("/dev/fuse").exists() {
        DiskError::not_found("mounting").found("no /dev/fuse").hint(
            "load the kernel's module with: modprobe fuse; in a container, pass the device in",
        )
    } else if e.kind() == io::ErrorKind::PermissionDenied && !may_open_fuse() {
        DiskError::refused("mounting")
            .found("no permission to open /dev/fuse")
            .hint("mount as root, or let users in with: chmod 666 /dev/fuse")
    } else if text.contains("user_allow_other") {
        DiskError::refused("mounting with --allow-other")
            .found("a system that reserves it for root")
            .hint("put the line user_allow_other into /etc/fuse.conf")
    } else if e.kind() == io::ErrorKind::NotFound {
        DiskError::not_found("mounting")
            .found("no program fusermount3")
            .hint("install it (on Debian, the package fuse3) or mount as root")
    } else if e.raw_os_error().is_some() {
        DiskError::io("mounting", e)
    } else {
        DiskError::new(ErrorKind::Refused, "mounting").found(text.trim().to_string())
    };
    error.file(dir.display())
}

fn may_open_fuse() -> bool {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open("/dev/fuse").is_ok()
}

/// Lets the kernel read further ahead than the 128 KiB it offers a FUSE server: 2.6 to 3.8
/// instead of 1.9 GB/s where it was measured. Needs root; without it nothing is lost.
fn raise_readahead(dir: &Path) {
    if let Some(line) = table::at(dir) {
        let knob = format!("/sys/class/bdi/{}/read_ahead_kb", line.device);
        if let Err(e) = std::fs::write(&knob, "4096") {
            tracing::debug!("{knob}: {e}");
        }
    }
}

#[cfg(test)]
mod tests;
