//! Who unmounts when the process that serves a mount no longer can.
//!
//! That process gives up its privileges before it serves. Before, it starts this program once more
//! as a keeper, which reads no image and waits at a pipe: for the word to unmount, or for the end
//! of the other process, however that came. Then it takes a dead mount away.

use crate::{
    exit::{Exit, Failure},
    ready,
};
use clap::Args;
use disk_io::{DiskError, ErrorKind, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The verb that a keeper runs as.
pub(crate) const VERB: &str = "keep-mount";
/// How long the kernel may take to end the connection of a process that died.
const PATIENCE: Duration = Duration::from_secs(5);

/// A keeper, as the process that serves sees it.
#[derive(Debug)]
pub(crate) struct Keeper(Mutex<(ChildStdin, BufReader<ChildStdout>)>);

impl Keeper {
    /// Starts one for the mount at `dir`.
    /// `pid_file` has the number of this process, and goes with it.
    pub(crate) fn start(dir: &Path, pid_file: Option<&Path>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(VERB);
        if let Some(path) = pid_file {
            let pid = std::process::id().to_string();
            command.arg("--pid").arg(pid).arg("--pid-file").arg(path);
        }
        let mut child = command
            .arg("--")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Whoever waits for the end of our output does not wait for the keeper's.
            .stderr(Stdio::null())
            .spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(to), Some(from)) => Ok(Self(Mutex::new((to, BufReader::new(from))))),
            _ => Err(io::Error::other("no pipes")),
        }
    }

    /// Has it unmount.
    pub(crate) fn unmount(&self, lazy: bool) -> Result<()> {
        let mut pipes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (to, from) = &mut *pipes;
        let mut said = String::new();
        let word: &[u8] = if lazy { b"lazy\n" } else { b"now\n" };
        to.write_all(word)
            .and_then(|()| to.flush())
            .and_then(|()| from.read_line(&mut said))
            .map_err(|e| DiskError::io("asking for the mount to be taken away", &e))?;
        match said.trim_end() {
            "done" => Ok(()),
            "" => Err(DiskError::new(ErrorKind::Io, "unmounting").found("no answer")),
            why => Err(DiskError::refused("unmounting").found(why.to_owned())),
        }
    }
}

/// Waits for the word to unmount, or the end of whoever started this
#[derive(Debug, Args)]
pub(crate) struct KeepMount {
    dir: PathBuf,
    /// A file to remove at the end, if it has this number
    #[arg(long, requires = "pid")]
    pid_file: Option<PathBuf>,
    #[arg(long)]
    pid: Option<u32>,
}

impl KeepMount {
    pub(crate) fn run(self) -> std::result::Result<Exit, Failure> {
        // Signals of the terminal are for the process that serves.
        let _ = rustix::process::setsid();
        // Nor is what ends a whole service for this: the end of the pipe is.
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let _ = signal_hook::flag::register(signal, Arc::default());
        }
        let _ = std::env::set_current_dir("/");
        for line in io::stdin().lines() {
            // What is no word ends it as the end of the pipe does.
            let lazy = match line.unwrap_or_default().as_str() {
                "lazy" => true,
                "now" => false,
                _ => break,
            };
            let said = match proxy::umount_served(&self.dir, lazy) {
                Ok(()) => "done".to_owned(),
                Err(e) => e.to_string().replace('\n', " "),
            };
            let mut out = io::stdout();
            writeln!(out, "{said}")?;
            out.flush()?;
        }
        let begin = Instant::now();
        while proxy::is_mounted(&self.dir) && begin.elapsed() < PATIENCE {
            if proxy::umount_dead(&self.dir)? {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let (Some(path), Some(pid)) = (&self.pid_file, self.pid) {
            ready::remove(path, pid);
        }
        Ok(Exit::Done)
    }
}
