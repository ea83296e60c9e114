//! Who waits for a mount is told when it is ready, and which process serves it: a file with its
//! number, and systemd's readiness protocol (sd_notify(3)).
//!
//! Both are opened before the process gives up what it will not need, and used after.

use crate::exit::Failure;
use disk_io::{DiskError, Result};
use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::Write,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
};

/// What is to be told.
#[derive(Debug)]
pub(crate) struct Ready {
    pid_file: Option<(PathBuf, File)>,
    socket: Option<File>,
}

impl Ready {
    /// Prepares it.
    ///
    /// # Errors
    /// `Refused` where the file exists and names a process that lives.
    pub(crate) fn prepare(pid_file: Option<&Path>) -> Result<Self, Failure> {
        let pid_file = match pid_file {
            None => None,
            Some(path) => Some((path.to_path_buf(), open(path)?)),
        };
        // Whoever set the variable waits for an answer; without one it says so itself.
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name).ok());
        Ok(Self { pid_file, socket })
    }

    /// Tells it.
    pub(crate) fn tell(&self) -> Result<(), Failure> {
        let pid = std::process::id();
        if let Some((path, file)) = &self.pid_file {
            let mut file = file;
            let written = writeln!(file, "{pid}");
            written.map_err(|e| {
                DiskError::io("writing the number of the process", &e).file(path.display())
            })?;
        }
        if let Some(socket) = &self.socket {
            let mut socket = socket;
            let _ = socket.write_all(format!("READY=1\nMAINPID={pid}\n").as_bytes());
        }
        Ok(())
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // A confined process may not remove it: its keeper does then.
        if let Some((path, _)) = &self.pid_file {
            remove(path, std::process::id());
        }
    }
}

/// Removes the file if it is still that of process `pid`.
pub(crate) fn remove(path: &Path, pid: u32) {
    if number_in(path) == Some(pid) {
        let _ = std::fs::remove_file(path);
    }
}

fn number_in(path: &Path) -> Option<u32> {
    let is_plain = path
        .symlink_metadata()
        .is_ok_and(|m| m.is_file() && m.len() < 32);
    let text = is_plain.then(|| std::fs::read_to_string(path).ok())?;
    text?.trim().parse().ok()
}

fn open(path: &Path) -> Result<File> {
    let doing = "opening the file for the number of the process";
    if let Ok(found) = path.symlink_metadata()
        && found.len() > 0
    {
        let refused = || DiskError::refused(doing).file(path.display());
        let Some(pid) = number_in(path) else {
            return Err(refused()
                .expected("no file, or one with the number of a process")
                .found("something else"));
        };
        let lives = Path::new(&format!("/proc/{pid}")).exists();
        if lives && pid != std::process::id() {
            return Err(refused()
                .expected("the number of a process that has ended")
                .found(format!("process {pid}, which runs"))
                .hint("unmount that first, or name another file"));
        }
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path);
    file.map_err(|e| DiskError::io(doing, &e).file(path.display()))
}

/// A socket of the file system, or one that has a name only (`@`).
fn connect(name: &OsStr) -> std::io::Result<File> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    // Written to as a file: sending is one of the calls that are given up.
    Ok(File::from(OwnedFd::from(socket)))
}
