//! Results on standard output, everything else on standard error.

use crate::{args::Global, exit::Failure, json};
use disk_io::error::escape;
use serde::Serialize;
use std::{
    cell::RefCell,
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
};

/// Standard output. A reader that goes away ends the command quietly.
pub(crate) struct Out {
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Out {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        Self {
            terminal: stdout.is_terminal(),
            out: BufWriter::with_capacity(64 << 10, stdout.lock()),
        }
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.out.write_all(text.as_ref().as_bytes())?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    /// `before` and a guest name or path: as it is for a program, escaped for a terminal.
    pub(crate) fn name(&mut self, before: &str, name: &[u8], after: &str) -> Result<(), Failure> {
        self.out.write_all(before.as_bytes())?;
        if self.terminal {
            let shown = guest_fs::Name::from_bytes(name).to_string();
            self.out.write_all(shown.as_bytes())?;
        } else {
            self.out.write_all(name)?;
        }
        self.line(after)
    }

    /// A guest path as it is, ended by a zero byte.
    pub(crate) fn zero_ended(&mut self, name: &[u8]) -> Result<(), Failure> {
        self.out.write_all(name)?;
        self.out.write_all(&[0])?;
        Ok(())
    }

    /// A JSON document over several lines.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        json::document(&mut self.out, value)?;
        self.line("")
    }

    /// A JSON object on a line of its own.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        json::line(&mut self.out, value)?;
        self.line("")
    }

    /// Everything is said.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// A line on standard error. Where that cannot be written nobody is left to be told, and
/// the work goes on.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

thread_local! {
    /// What this thread works on, where others work on other things.
    static ABOUT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does `work`; what it warns of begins with `name`.
pub(crate) fn about<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let before = ABOUT.replace(format!("{}: ", escape(name)));
    let done = work();
    ABOUT.set(before);
    done
}

/// The beginning of what is said of what this thread works on; most often nothing.
pub(crate) fn subject() -> String {
    ABOUT.with_borrow(String::clone)
}

/// A warning on standard error.
pub(crate) fn warn(text: impl AsRef<str>) {
    // Warnings carry names from images.
    let text = escape(text.as_ref());
    say(format_args!("vmdkit: warning: {}{text}", subject()));
}

/// Standard error for the log: what cannot be written is dropped.
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // As our own warnings begin.
        let line = match bytes.strip_prefix(b" WARN ") {
            Some(rest) => [b"vmdkit: warning: ", rest].concat(),
            None => bytes.to_vec(),
        };
        let _ = io::stderr().write_all(&line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&"EiB"))
}

/// Columns of text, each as wide as its widest cell; the last is not padded.
pub(crate) fn table(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let n = cell.chars().count();
            match widths.get_mut(i) {
                Some(w) => *w = n.max(*w),
                None => widths.push(n),
            }
        }
    }
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if i > 0 {
                    line.push_str("  ");
                }
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                if right.contains(&i) {
                    line.push_str(&pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&pad);
                }
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// What libraries log, on standard error.
/// What is noticed of a disk is not logged too where it is `told`.
pub(crate) fn start_logging(global: &Global, told: bool) {
    let level = global.log_level.level();
    // The FUSE library warns of what our own messages explain better.
    let mut filter = match level {
        tracing::Level::DEBUG | tracing::Level::TRACE => level.to_string(),
        level => format!("{level},fuser=off"),
    };
    if told {
        filter.push_str(&format!(",{}=off", vmdk::REMARKS));
    }
    let _ = tracing_subscriber::fmt()
        .with_writer(|| LogWriter)
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        // The mount puts a file in the place of standard error later.
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes() {
        let all = [0, 1023, 1024, 1536, 1_048_575, 1 << 20, 10 << 30, u64::MAX];
        assert_eq!(
            all.map(human),
            [
                "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "10.0 GiB", "16.0 EiB"
            ]
        );
    }
}
