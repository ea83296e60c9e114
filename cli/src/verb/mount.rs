//! `mount`: the tree, read-only, for every program.
//!
//! Without `--foreground` the command starts itself again with it and waits for that
//! process to say on a pipe that the mount is ready; its errors are shown as one's own.

use crate::{
    args::{Global, GuestArgs, SourceArgs},
    exit::{Exit, Failure},
    guard,
    keeper::Keeper,
    names::{hex_if_needed, shown},
    output,
    ready::Ready,
    source::{open_tree_with, spec_of},
};
use clap::{Args, ValueEnum};
use disk_io::DiskError;
use proxy::{Audit, Detach, Ended, Layout, MountOptions, Opening, Sandbox};
use serde::Serialize;
use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Set for the process that serves, so that it tells when it is ready.
const CHILD: &str = "VMDKIT_MOUNT_READY";

/// Mount SOURCE read-only; returns when it is ready
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit mount web01-000002.vmdk /mnt && ls /mnt/p1
  vmdkit mount --layout raw web01.vmdk /mnt && fsck.ext4 -n /mnt/p1.img
  vmdkit mount --layout vcb web01.vmdk /mnt && ls /mnt/letters/C/Users
  vmdkit mount --foreground web01.vmdk /mnt        until Ctrl-C
  vmdkit mount --guests lun.img /mnt && ls /mnt/guests/web01/current/scsi0-0/p1
  vmdkit mount --guests /backups /mnt              every machine below a directory
  vmdkit umount /mnt

No root is needed, only the fuse3 package. Nothing can be written through the mount.")]
pub(crate) struct Mount {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    guest: GuestArgs,
    /// An existing directory; what is in it is hidden while the mount lasts
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Stay and serve until Ctrl-C or umount
    #[arg(long, short)]
    foreground: bool,
    /// What the mount shows
    #[arg(long, value_enum, default_value_t = LayoutArg::Tree)]
    layout: LayoutArg,
    /// Show the machines of a datastore or directory too, below guests, down to their files
    #[arg(long)]
    guests: bool,
    /// Let other users in
    #[arg(long)]
    allow_other: bool,
    /// Everything belongs to this user
    #[arg(long, value_name = "NUMBER")]
    uid: Option<u32>,
    /// Everything belongs to this group
    #[arg(long, value_name = "NUMBER")]
    gid: Option<u32>,
    /// Permission bits to take away, in octal
    #[arg(long, value_name = "OCTAL", value_parser = octal, default_value = "0")]
    umask: u32,
    /// Past the page cache, for bulk copies
    #[arg(long)]
    direct_io: bool,
    /// Names are found only as they are written; otherwise as the guest finds them: exactly
    /// first, then in any case where its file system does so
    #[arg(long)]
    exact_case: bool,
    /// Unmount when nothing was asked for so long and nothing is in use: seconds, or with m, h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle_timeout: Option<Duration>,
    /// Append who opens what to FILE, as JSON, one object a line
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Do not lock the process that serves the mount down (Landlock, seccomp, capabilities)
    #[arg(long)]
    no_sandbox: bool,
    /// Write the number of the process that serves the mount to FILE, which goes with it. With
    /// --foreground, systemd is told too when the mount is ready (Type=notify)
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Append what goes wrong while it is mounted to FILE
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArg {
    /// Volumes with their files: p1, p2, …
    Tree,
    /// The disk and its partitions as files: disk.img, p1.img, …
    Raw,
    /// As VMware Consolidated Backup did: letters/C, letters/D and digits/1, digits/2, …
    Vcb,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|m| *m <= 0o777)
        .ok_or_else(|| "expected an octal number up to 777".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number of seconds, or with s, m or h behind it: 30m".to_owned();
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) if text.ends_with('h') => (number, 3600),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number
        .checked_mul(unit)
        .filter(|n| *n > 0)
        .ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[derive(Serialize)]
struct OpeningJson {
    time: String,
    uid: u32,
    gid: u32,
    pid: u32,
    /// What the process is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    operation: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Writes a line for each opening; what cannot be written is told in the log.
fn audit(file: File) -> Audit {
    Audit::new(move |opening: &Opening| {
        let command = std::fs::read_to_string(format!("/proc/{}/comm", opening.pid));
        let path = opening.path.as_bytes();
        let line = serde_json::to_string(&OpeningJson {
            time: crate::clock::now().to_string(),
            uid: opening.uid,
            gid: opening.gid,
            pid: opening.pid,
            command: command.ok().map(|c| c.trim_end().to_owned()),
            operation: if opening.directory { "list" } else { "open" },
            path: shown(path),
            path_hex: hex_if_needed(path),
            error: opening.error.clone(),
        });
        // One call for a line: several processes may append.
        let written = line
            .map_err(io::Error::from)
            .and_then(|line| (&file).write_all(format!("{line}\n").as_bytes()));
        if let Err(e) = written {
            tracing::error!("the audit log cannot be written: {e}");
        }
    })
}

impl Mount {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        if self.foreground {
            self.serve(global)
        } else {
            start_child()
        }
    }

    fn serve(&self, global: &Global) -> Result<Exit, Failure> {
        let tree = open_tree_with(&self.source, global, self.guest, self.guests)?;
        let options = MountOptions {
            layout: match self.layout {
                LayoutArg::Tree => Layout::Tree,
                LayoutArg::Raw => Layout::Raw,
                LayoutArg::Vcb => Layout::Vcb,
            },
            allow_other: self.allow_other,
            uid: self.uid,
            gid: self.gid,
            umask: self.umask,
            direct_io: self.direct_io,
            exact_case: self.exact_case,
            idle: self.idle_timeout,
            zone: global.tz.clone().map(|zone| {
                proxy::Zone::new(move |time: guest_fs::Timestamp| zone.settle(time, true))
            }),
            ..MountOptions::default()
        };
        let append = |path: &Option<PathBuf>| -> Result<Option<File>, Failure> {
            let Some(path) = path else { return Ok(None) };
            guard::check_tree(path, &tree)?;
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file =
                file.map_err(|e| DiskError::io("opening the log", &e).file(path.display()))?;
            Ok(Some(file))
        };
        let log = append(&self.log)?;
        let options = MountOptions {
            audit: append(&self.audit)?.map(audit),
            ..options
        };
        let pid_file = self.pid_file.as_ref().map(std::path::absolute).transpose();
        let pid_file = pid_file?;
        if let Some(path) = &pid_file {
            guard::check_tree(path, &tree)?;
        }
        let ready = Ready::prepare(pid_file.as_deref())?;
        let options = MountOptions {
            sandbox: self.sandbox(global, pid_file.as_deref())?,
            ..options
        };
        let mounted = proxy::mount(tree, &self.dir, &options)?;
        for warning in mounted.warnings() {
            output::warn(warning);
        }
        ready.tell()?;
        let is_child = std::env::var_os(CHILD).is_some();
        if let Some(log) = &log {
            rustix::stdio::dup2_stderr(log).map_err(io::Error::from)?;
        }
        if is_child {
            become_daemon(log.is_some())?;
        } else if !global.quiet {
            output::say(format_args!(
                "mounted at {}; Ctrl-C unmounts",
                mounted.dir().display()
            ));
        }
        Ok(match mounted.serve()? {
            Ended::Unmounted | Ended::Idle => Exit::Done,
            Ended::Signal(n) if !is_child => Exit::Signal(u8::try_from(n).unwrap_or(0)),
            Ended::Signal(_) => Exit::Done,
        })
    }
}

impl Mount {
    /// What the process may still read once it serves, and who unmounts then.
    fn sandbox(
        &self,
        global: &Global,
        pid_file: Option<&Path>,
    ) -> Result<Option<Sandbox>, Failure> {
        // Without a directory there will be no mount.
        let Some(dir) = self.dir.canonicalize().ok().filter(|_| !self.no_sandbox) else {
            return Ok(None);
        };
        let mut read = spec_of(&self.source, global)?.places();
        if self.audit.is_some() {
            // What a process is called.
            read.push("/proc".into());
        }
        let keeper = match Keeper::start(&dir, pid_file) {
            Ok(keeper) => keeper,
            Err(e) => {
                output::warn(format!("the mount is not confined: {e}"));
                return Ok(None);
            }
        };
        let detach = Detach::new(move |lazy| keeper.unmount(lazy));
        Ok(Some(Sandbox { read, detach }))
    }
}

/// Says that the mount is ready and lets go of the terminal, the directory and the pipes of
/// whoever started it.
fn become_daemon(has_log: bool) -> Result<(), Failure> {
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let mut out = io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
    rustix::stdio::dup2_stdout(&null).map_err(io::Error::from)?;
    if !has_log {
        rustix::stdio::dup2_stderr(&null).map_err(io::Error::from)?;
    }
    Ok(())
}

/// Starts this program again to serve, and waits until it is ready or has failed.
fn start_child() -> Result<Exit, Failure> {
    let fail = |doing: &str, e: &io::Error| Failure::Disk(DiskError::io(doing, e));
    let program = std::env::current_exe().map_err(|e| fail("finding the program", &e))?;
    let mut line = crate::args::line();
    // Behind -- it would be a place.
    let end = line.iter().position(|a| a == "--").unwrap_or(line.len());
    line.insert(end, "--foreground".into());
    let mut child = Command::new(program)
        .args(line)
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Its errors are ours, until it is ready.
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| fail("starting the process that serves the mount", &e))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = BufReader::new(out).read_line(&mut line);
    }
    if line == "ready\n" {
        return Ok(Exit::Done);
    }
    let status = child
        .wait()
        .map_err(|e| fail("waiting for the process that serves the mount", &e))?;
    Ok(match status.code() {
        Some(2) => Exit::Usage,
        Some(_) => Exit::Failed,
        None => {
            output::say(format_args!(
                "vmdkit: the process that serves the mount was ended: {status}"
            ));
            Exit::Failed
        }
    })
}
