//! Mounts by other programs, for comparison. They go away when dropped.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A mounted directory whose server is a child of ours in the foreground.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    server: Child,
}

impl Mount {
    /// Starts `command`, a FUSE server that stays in the foreground, and waits until `at`
    /// (a directory, or a file for exports of one file) is a mount point.
    pub fn start(mut command: Command, at: &Path) -> Result<Self> {
        let log = tempfile::tempfile()?;
        let server = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let mut mount = Self {
            dir: at.to_path_buf(),
            server,
        };
        let until = Instant::now() + Duration::from_secs(60);
        while !is_mount_point(at)? {
            let ended = mount.server.try_wait()?;
            if ended.is_some() || Instant::now() > until {
                let text = read_log(log);
                bail!("{command:?} did not mount {}: {text}", at.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The server's process number: its CPU time and reads are in `/proc`.
    pub fn server_id(&self) -> u32 {
        self.server.id()
    }

    /// Unmounts and waits until the server has written everything and ended.
    pub fn unmount(mut self) -> Result<()> {
        self.leave()
    }

    fn leave(&mut self) -> Result<()> {
        if self.server.try_wait()?.is_some() && !is_mount_point(&self.dir)? {
            return Ok(());
        }
        // Somebody else may have unmounted it, and the server be about to end.
        if is_mount_point(&self.dir)? {
            let done = match tools::find("fusermount3") {
                Some(_) => tools::run("fusermount3", ["-u".as_ref(), self.dir.as_os_str()]),
                None => tools::run("umount", [self.dir.as_os_str()]),
            };
            if done.is_err() && is_mount_point(&self.dir)? {
                tools::run("umount", ["-l".as_ref(), self.dir.as_os_str()])?;
            }
        }
        let until = Instant::now() + Duration::from_secs(20);
        while self.server.try_wait()?.is_none() {
            if Instant::now() > until {
                // Some servers (qemu-storage-daemon) outlive their export.
                self.server.kill()?;
                self.server.wait()?;
                break;
            }
            if Instant::now() + Duration::from_secs(19) > until {
                let _ = Command::new("kill")
                    .args(["-TERM", &self.server.id().to_string()])
                    .status();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(e) = self.leave() {
            crate::say!("unmounting {}: {e:#}", self.dir.display());
        }
    }
}

fn read_log(mut log: fs::File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    let _ = log.rewind();
    let _ = log.read_to_string(&mut text);
    text
}

/// Whether the kernel lists `path` as a mount point.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let Some(parent) = path.parent() else {
        return Ok(true);
    };
    let Ok(parent) = parent.canonicalize() else {
        return Ok(false);
    };
    let want = parent.join(path.file_name().unwrap_or_default());
    let want = want.to_string_lossy().replace(' ', "\\040");
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(want.as_str())))
}

/// Mounts an NTFS volume (a file or device) with ntfs-3g. `options` are added to those
/// that make it comparable.
pub fn ntfs_3g(volume: &Path, at: &Path, options: &str) -> Result<Mount> {
    fs::create_dir_all(at)?;
    let mut command = tools::command("ntfs-3g");
    command
        .arg("-o")
        .arg(format!("no_detach,streams_interface=xattr,{options}"))
        .arg(volume)
        .arg(at);
    Mount::start(command, at)
}
