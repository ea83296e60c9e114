//! How a command ends: exit codes, and failures told to people.

use crate::output::{say, subject};
use disk_io::{DiskError, ErrorKind};
use std::{io, process::ExitCode};

/// The exit codes of every verb; docs/exit-codes.md sets them beside other tools'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Done,
    /// Nothing useful was done.
    Failed,
    /// The command line is wrong, or a name fits more than one thing.
    Usage,
    /// Something that was asked for was skipped or could not be read; each was named.
    Partial,
    /// Checked and found bad, or different.
    Bad,
    /// A signal ended it.
    Signal(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Bad => 4,
            Self::Signal(n) => 128 | n,
        }
    }

    /// What clap wants: 0 for `--help`, 2 for a mistake.
    pub(crate) fn from_clap(code: i32) -> Self {
        if code == 0 { Self::Done } else { Self::Usage }
    }

    /// [`Exit::Partial`] if anything is missing.
    pub(crate) fn partial_if(missing: bool) -> Self {
        if missing { Self::Partial } else { Self::Done }
    }

    /// The same, where part of what was done is doubtful.
    pub(crate) fn or_partial(self, doubtful: bool) -> Self {
        match self {
            Self::Done => Self::partial_if(doubtful),
            other => other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line cannot be meant.
    Usage { said: String, hint: Option<String> },
    /// A disk, an image, a guest file, the destination.
    Disk(DiskError),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn usage(said: impl Into<String>) -> Self {
        Self::Usage {
            said: said.into(),
            hint: None,
        }
    }

    pub(crate) fn usage_with(said: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            said: said.into(),
            hint: Some(hint.into()),
        }
    }

    /// What went wrong, as one sentence.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Usage { said, .. } => said.clone(),
            Self::Disk(e) => e.to_string(),
            Self::Output(e) => format!("standard output: writing failed: {e}"),
        }
    }

    /// The exit code, without saying anything.
    pub(crate) fn exit(&self) -> Exit {
        if let Some(n) = crate::signals::caught() {
            return Exit::Signal(n);
        }
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Disk(e) if e.kind() == ErrorKind::Ambiguous => Exit::Usage,
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Disk(e) if is_broken_pipe(e) => Exit::Done,
            _ => Exit::Failed,
        }
    }

    /// Says what happened on standard error, and gives the exit code.
    pub(crate) fn tell(&self) -> Exit {
        if let Some(n) = crate::signals::caught() {
            return Exit::Signal(n);
        }
        match self {
            Self::Usage { said, hint } => {
                say(format_args!("vmdkit: {}", said.trim_end()));
                if let Some(hint) = hint {
                    say(format_args!("  hint: {hint}"));
                }
                Exit::Usage
            }
            // Whoever read the output has enough.
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Disk(e) if is_broken_pipe(e) => Exit::Done,
            Self::Output(e) => {
                say(format_args!("vmdkit: standard output: writing failed: {e}"));
                Exit::Failed
            }
            Self::Disk(e) => {
                tell_error(e);
                match e.kind() {
                    ErrorKind::Ambiguous => Exit::Usage,
                    _ => Exit::Failed,
                }
            }
        }
    }
}

/// What streams to standard output call it.
pub(crate) const STDOUT: &str = "standard output";

fn is_broken_pipe(e: &DiskError) -> bool {
    e.file_name() == Some(STDOUT)
        && e.os_error().map(rustix::io::Errno::from_raw_os_error) == Some(rustix::io::Errno::PIPE)
}

/// An error on standard error: what, where, expected and found; then what to try.
pub(crate) fn tell_error(e: &DiskError) {
    let (said, hint) = split_hint(e);
    say(format_args!("vmdkit: {}{said}", subject()));
    if let Some(hint) = hint {
        say(format_args!("  hint: {hint}"));
    }
}

/// Tells why what a path leads to may not be what it should be.
pub(crate) fn tell_doubt(path: &[u8], why: &str) {
    let path = guest_fs::Name::from_bytes(path);
    crate::output::warn(format!("{path} is doubtful: {why}"));
}

/// What is doubtful about the way to something; whether anything is.
pub(crate) fn tell_doubts(found: &proxy::resolve::Resolved) -> bool {
    for (path, why) in &found.doubts {
        tell_doubt(path.as_bytes(), why);
    }
    !found.doubts.is_empty()
}

/// An error about one path of the tree, the rest going on.
pub(crate) fn tell_path_error(path: &[u8], e: &DiskError) {
    let (_, hint) = split_hint(e);
    say(format_args!("vmdkit: {}", said_of_path(path, e)));
    if let Some(hint) = hint {
        say(format_args!("  hint: {hint}"));
    }
}

/// A path and what is wrong with it, which need not say the path again.
pub(crate) fn said_of_path(path: &[u8], e: &DiskError) -> String {
    let path = match path {
        b"" => "/".into(),
        path => guest_fs::Name::from_bytes(path).to_string(),
    };
    let (said, _) = split_hint(e);
    let rest = said.strip_prefix(&format!("{path}: "));
    match rest.filter(|_| e.file_name() == Some(&path)) {
        Some(rest) => format!("{path}: {rest}"),
        None => format!("{path}: {said}"),
    }
}

/// An error as a sentence, and what to try.
pub(crate) fn split_hint(e: &DiskError) -> (String, Option<&str>) {
    let all = e.to_string();
    match e.hint_text() {
        Some(hint) => {
            let tail = format!(" ({hint})");
            let said = all.strip_suffix(&tail).unwrap_or(&all).to_owned();
            (said, Some(hint))
        }
        None => (all, None),
    }
}

impl From<DiskError> for Failure {
    fn from(e: DiskError) -> Self {
        Self::Disk(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(e: serde_json::Error) -> Self {
        Self::Output(e.into())
    }
}
