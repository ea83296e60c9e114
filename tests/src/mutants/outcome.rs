//! What became of a mutant, and of many.

use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With exit code 0.
    Good,
    /// With an exit code that is not 0.
    Error,
    /// By a signal.
    Crash,
    /// Not at all.
    Hang,
}

/// A program's run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub wall: Duration,
    /// The most memory that was seen, in KiB.
    pub peak: u64,
    /// What it said.
    pub said: String,
}

/// Runs a command with an eye on its memory, and ends it if it does not end.
pub fn watch(command: &mut Command) -> Result<Ran> {
    use std::io::{Read, Seek};
    let mut log = tempfile::tempfile()?;
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let place = format!("/proc/{}", child.id());
    let ours = fs::read_link("/proc/self/exe")?;
    let mut peak = 0;
    let mut pause = Duration::from_micros(500);
    let end = loop {
        if let Some(status) = child.try_wait()? {
            break match (status.success(), status.signal()) {
                (true, _) => End::Good,
                (_, Some(_)) => End::Crash,
                _ => End::Error,
            };
        }
        if begin.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            break End::Hang;
        }
        // Until it runs the program, its memory is ours.
        let runs = fs::read_link(format!("{place}/exe")).is_ok_and(|exe| exe != ours);
        let text = match runs {
            true => fs::read_to_string(format!("{place}/status")).unwrap_or_default(),
            false => String::new(),
        };
        let most = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = most.and_then(|m| m.split_whitespace().next()?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    let mut said = String::new();
    log.rewind()?;
    let _ = log.take(4096).read_to_string(&mut said);
    Ok(Ran {
        end,
        wall: begin.elapsed(),
        peak,
        said,
    })
}

/// What became of a mutant in one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The right bytes, but for those of the contents that were changed themselves.
    Right,
    /// An error that says something.
    Named,
    /// An error without a word.
    Mute,
    /// Other bytes, and no error.
    Wrong,
    /// Zeros in the place of data, and no error.
    Zeros,
    /// Ended by a signal, or by a panic.
    Crash,
    /// Not ended at all.
    Hang,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Right,
        Self::Named,
        Self::Mute,
        Self::Wrong,
        Self::Zeros,
        Self::Crash,
        Self::Hang,
    ];

    /// For reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Named => "named error",
            Self::Mute => "error without a word",
            Self::Wrong => "other bytes, no error",
            Self::Zeros => "zeros, no error",
            Self::Crash => "crash",
            Self::Hang => "hang",
        }
    }

    /// Of a program that ended with an error, or was ended.
    pub fn of_end(ran: &Ran) -> Option<Self> {
        Some(match ran.end {
            End::Good => return None,
            End::Crash => Self::Crash,
            End::Hang => Self::Hang,
            End::Error if ran.said.trim().is_empty() => Self::Mute,
            // A message of a panic is a crash that was caught.
            End::Error if ran.said.contains("panicked") => Self::Crash,
            End::Error => Self::Named,
        })
    }
}

/// Compares what came out with what should have. As many bytes as were `changed` may differ: that
/// may be the change itself, in contents, which nothing guards.
pub fn compare(found: &[u8], wanted: &[u8], changed: usize) -> Outcome {
    if found == wanted {
        return Outcome::Right;
    }
    if found.len() != wanted.len() {
        return Outcome::Wrong;
    }
    let differ = found.iter().zip(wanted).filter(|(a, b)| a != b);
    let (mut count, mut zeros) = (0usize, 0usize);
    for (found, _) in differ {
        count += 1;
        zeros += usize::from(*found == 0);
    }
    match (count, zeros) {
        (count, _) if count <= changed => Outcome::Right,
        (count, zeros) if zeros == count => Outcome::Zeros,
        _ => Outcome::Wrong,
    }
}
