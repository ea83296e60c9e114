//! Unmounting: what runs, what died, and what nobody remembers.

use super::{state, table};
use disk_io::{DiskError, ErrorKind, Result};
use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount},
};
use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long the process of a mount may take to notice that it is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Unmounts what is mounted at `dir`, even if its process died, and waits for the process
/// to end. Open files keep a mount: that is an error which says so, unless `lazy`, which
/// detaches it from the tree at once.
pub fn umount(dir: &Path, lazy: bool) -> Result<()> {
    let dir = real_dir(dir)?;
    let doing = "unmounting";
    let Some(line) = table::at(&dir) else {
        return Err(DiskError::not_found(doing)
            .file(dir.display())
            .found("nothing mounted there"));
    };
    if !line.is_ours() {
        return Err(DiskError::refused(doing).file(dir.display()).found(format!(
            "a mount of another program: {} ({})",
            line.source.display(),
            line.kind
        )));
    }
    detach(&dir, lazy)?;
    let mine: Vec<_> = state::list()
        .into_iter()
        .filter(|(_, s)| s.dir == dir)
        .collect();
    let begin = Instant::now();
    for (file, state) in mine {
        while !lazy && state.is_alive() && file.exists() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !state.is_alive() {
            let _ = std::fs::remove_file(file);
        }
    }
    Ok(())
}

/// What [`cleanup`] did.
#[derive(Clone, Debug)]
pub struct Cleaned {
    /// Where something was left.
    pub dir: PathBuf,
    /// What had been mounted there.
    pub source: PathBuf,
    /// Why it is still there; `None` if it is gone.
    pub error: Option<DiskError>,
}

/// Unmounts every mount of ours whose process died and removes its state. Mounts that are
/// served are left alone.
pub fn cleanup() -> Vec<Cleaned> {
    let mut done = Vec::new();
    for (file, state) in state::list() {
        if state.is_alive() {
            continue;
        }
        let error = match table::at(&state.dir).filter(table::Line::is_ours) {
            Some(_) if is_dead(&state.dir) => detach(&state.dir, true).err(),
            // Mounted anew by a process that lives.
            _ => None,
        };
        if error.is_none() {
            let _ = std::fs::remove_file(file);
        }
        done.push(Cleaned {
            dir: state.dir,
            source: state.source,
            error,
        });
    }
    for line in table::read() {
        if line.is_ours() && is_dead(&line.dir) && !done.iter().any(|d| d.dir == line.dir) {
            let source = line.source.to_string_lossy();
            done.push(Cleaned {
                source: source.trim_start_matches(table::PREFIX).into(),
                error: detach(&line.dir, true).err(),
                dir: line.dir,
            });
        }
    }
    done
}

/// Takes the mount at `dir` away if the process that served it is gone; whether it was there.
///
/// # Errors
/// As [`umount`].
pub fn umount_dead(dir: &Path) -> Result<bool> {
    match is_dead(dir) {
        true => umount(dir, true).map(|()| true),
        false => Ok(false),
    }
}

/// Unmounts `dir`, which is a mount of this program's that is served.
///
/// # Errors
/// `Refused` where it is in use, unless `lazy`.
pub fn umount_served(dir: &Path, lazy: bool) -> Result<()> {
    // Somebody else may have been quicker, and something else be mounted there now.
    if !table::at(dir).is_some_and(|line| line.is_ours()) {
        return Ok(());
    }
    detach(dir, lazy)
}

/// Whether something is mounted at `dir`, which is absolute.
pub fn is_mounted(dir: &Path) -> bool {
    table::at(dir).is_some()
}

/// Whether the process behind a FUSE mount is gone. Attributes would not tell: the kernel keeps
/// those of the root as it keeps all others. Room is always asked for.
pub(crate) fn is_dead(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_err_and(|e| e == Errno::NOTCONN)
}

/// `dir` absolute and free of links. The directory itself is not touched: a dead mount
/// fails every call on it.
pub(crate) fn real_dir(dir: &Path) -> Result<PathBuf> {
    let fail = |e: &io::Error| DiskError::io("finding the directory", e).file(dir.display());
    match dir.canonicalize() {
        Ok(real) => Ok(real),
        Err(e) if e.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            let absolute = std::path::absolute(dir).map_err(|e| fail(&e))?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => {
                    Ok(parent.canonicalize().map_err(|e| fail(&e))?.join(name))
                }
                _ => Ok(absolute),
            }
        }
        Err(e) => Err(fail(&e)),
    }
}

/// How long a mount may be busy because somebody only looks whether it is alive.
const LOOKS: Duration = Duration::from_millis(500);

/// Takes a mount away: by system call where that is allowed, else through fusermount.
pub(crate) fn detach(dir: &Path, lazy: bool) -> Result<()> {
    let until = Instant::now() + LOOKS;
    while is_busy(dir, lazy)? {
        if Instant::now() >= until {
            return Err(busy(dir));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Takes a mount away, unless it is busy.
fn is_busy(dir: &Path, lazy: bool) -> Result<bool> {
    let flags = match lazy {
        true => UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        false => UnmountFlags::NOFOLLOW,
    };
    match unmount(dir, flags) {
        Ok(()) => Ok(false),
        // Not mounted any more: somebody was quicker.
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(Errno::BUSY) => Ok(true),
        Err(Errno::PERM) => fusermount(dir, lazy),
        Err(e) => Err(DiskError::io("unmounting", &e.into()).file(dir.display())),
    }
}

fn busy(dir: &Path) -> DiskError {
    DiskError::refused("unmounting")
        .file(dir.display())
        .found("open files or a working directory beneath it")
        .hint(format!(
            "see who with: fuser -vm '{}'; --lazy detaches it all the same",
            dir.display()
        ))
}

/// The same by the program that may do it for us.
fn fusermount(dir: &Path, lazy: bool) -> Result<bool> {
    for program in ["fusermount3", "fusermount"] {
        let mut command = Command::new(program);
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        let output = command.arg("--").arg(dir).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => return Ok(false),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                if text.contains("busy") {
                    return Ok(true);
                }
                return Err(DiskError::new(ErrorKind::Refused, "unmounting")
                    .file(dir.display())
                    .found(text.trim().to_string()));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(DiskError::io(format!("running {program}"), &e)),
        }
    }
    Err(DiskError::not_found("unmounting")
        .file(dir.display())
        .found("no program fusermount3")
        .hint("install it: on Debian, the package fuse3"))
}
