//! A file system in memory that logs what changes it, fails when it is told to, and tells what a
//! loss of power would have left.
//!
//! Through FUSE: what runs on it is the real program. Reads go past the kernel's cache and writes
//! come as the program makes them, so the log has them in order. It has no extended attributes,
//! no shared blocks and no holes; `syncfs` is not seen, for the kernel does not pass it on.

pub mod op;
pub mod states;
pub mod tree;

mod serve;

use anyhow::Result;
use fuser::{BackgroundSession, Config, MountOption};
use op::{Entry, Op};
use serve::Server;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tree::{Code, Ino, ROOT, Tree};

/// An operation that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which, counted from 0 and over those that change something.
    pub at: usize,
    /// How: `ENOSPC`, `EIO`.
    pub code: Code,
    /// Whether those that come later fail too; of a full disk only what needs room.
    pub lasting: bool,
}

/// What is served.
#[derive(Debug)]
struct State {
    tree: Tree,
    log: Vec<Entry>,
    /// Number of the next file. None is ever given twice.
    next: Ino,
    /// Operations so far, those that failed among them.
    count: usize,
    fault: Option<Fault>,
    failed: Vec<String>,
    last: SystemTime,
}

impl State {
    fn is_failing(&self, op: &Op) -> bool {
        self.fault.is_some_and(|fault| {
            let later = fault.lasting
                && self.count > fault.at
                && (fault.code != libc::ENOSPC || op.needs_room());
            self.count == fault.at || later
        })
    }

    fn change(&mut self, op: Op) -> Result<(), Code> {
        let said = self.tree.say(&op);
        let failing = self.is_failing(&op);
        self.count += 1;
        if failing {
            self.failed.push(said);
            return Err(self.fault.map_or(libc::EIO, |f| f.code));
        }
        // No two changes at one time.
        let now = SystemTime::now().max(self.last + Duration::from_nanos(1));
        self.last = now;
        self.tree.apply(&op, now)?;
        self.log.push(Entry { op, at: now, said });
        Ok(())
    }

    /// A disk that fills takes the first half.
    fn write(&mut self, ino: Ino, at: u64, bytes: &[u8]) -> Result<usize, Code> {
        let mut op = Op::Write {
            ino,
            at,
            bytes: bytes.into(),
        };
        let fills = self
            .fault
            .is_some_and(|f| f.at == self.count && f.lasting && f.code == libc::ENOSPC);
        if !fills || bytes.len() < 2 {
            return self.change(op).map(|()| bytes.len());
        }
        let half = bytes.len() / 2;
        if let Op::Write { bytes: all, .. } = &mut op {
            *all = bytes.get(..half).unwrap_or_default().into();
        }
        let fault = self.fault.take();
        let result = self.change(op);
        self.fault = fault;
        result.map(|()| half)
    }
}

/// The file system, mounted until it is dropped.
pub struct CrashFs {
    state: Arc<Mutex<State>>,
    at: PathBuf,
    session: Option<BackgroundSession>,
}

impl std::fmt::Debug for CrashFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CrashFs at {}", self.at.display())
    }
}

impl CrashFs {
    /// An empty one at a directory that is made.
    pub fn mount(at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let state = Arc::new(Mutex::new(State {
            tree: Tree::default(),
            log: Vec::new(),
            next: ROOT + 1,
            count: 0,
            fault: None,
            failed: Vec::new(),
            last: SystemTime::now(),
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("crash".into())];
        let session = fuser::spawn_mount(Server(state.clone()), at, &config)?;
        Ok(Self {
            state,
            at: at.to_path_buf(),
            session: Some(session),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.at
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds now.
    pub fn tree(&self) -> Tree {
        self.state().tree.clone()
    }

    /// From now on it holds this, with an empty log, and fails as said.
    pub fn load(&self, tree: &Tree, fault: Option<Fault>) {
        let mut state = self.state();
        state.tree = tree.clone();
        state.log.clear();
        state.failed.clear();
        state.count = 0;
        state.fault = fault;
    }

    /// What was done since it was loaded.
    pub fn log(&self) -> Vec<Entry> {
        self.state().log.clone()
    }

    /// What failed since it was loaded.
    pub fn failed(&self) -> Vec<String> {
        self.state().failed.clone()
    }
}

impl Drop for CrashFs {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(e) = session.umount_and_join()
        {
            crate::say!("unmounting {}: {e}", self.at.display());
        }
    }
}
