//! Talking to a running qemu: pictures of its screen, and the text on it.

use disk_io::{DiskError, Result};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Where a PC has the text of its screen, and how much of it: 25 lines of 80 characters, each
/// with its colour.
const TEXT_AT: u64 = 0xb8000;
const TEXT_LEN: usize = 80 * 25 * 2;
/// Longest that an answer may take: emulation is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to qemu's monitor.
pub(super) struct Monitor {
    answers: BufReader<UnixStream>,
    commands: UnixStream,
}

fn fail(e: &std::io::Error) -> DiskError {
    DiskError::io("talking to qemu", e)
}

impl Monitor {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(|e| fail(&e))?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(|e| fail(&e))?;
        let mut monitor = Self {
            commands: stream.try_clone().map_err(|e| fail(&e))?,
            answers: BufReader::new(stream),
        };
        // It introduces itself first.
        monitor.line()?;
        monitor.run("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let n = self.answers.read_line(&mut line).map_err(|e| fail(&e))?;
        if n == 0 {
            return Err(DiskError::refused("talking to qemu").found("it has ended"));
        }
        serde_json::from_str(&line).map_err(|e| fail(&e.into()))
    }

    fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.commands
            .write_all(format!("{text}\n").as_bytes())
            .map_err(|e| fail(&e))?;
        loop {
            let answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(DiskError::refused(format!("asking qemu for {command}"))
                    .found(error.to_string()));
            }
            // What happens meanwhile is told in between.
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    /// Writes a picture of the screen, as PNG.
    pub(super) fn picture(&mut self, to: &Path) -> Result<()> {
        let name = to.to_string_lossy();
        self.run("screendump", json!({"filename": name, "format": "png"}))
            .map(|_| ())
    }

    /// The text on a screen in text mode, without blank lines; whatever was there last in others.
    pub(super) fn text(&mut self, scratch: &Path) -> Result<String> {
        let name = scratch.to_string_lossy();
        let args = json!({"val": TEXT_AT, "size": TEXT_LEN, "filename": name});
        self.run("pmemsave", args)?;
        let bytes = fs::read(scratch).map_err(|e| fail(&e))?;
        let lines = bytes.chunks(160).map(|line| {
            let text: String = line.iter().step_by(2).map(|b| shown(*b)).collect();
            text.trim_end().to_owned()
        });
        let lines: Vec<String> = lines.filter(|l| !l.is_empty()).collect();
        Ok(lines.join("\n"))
    }

    /// Ends it.
    pub(super) fn quit(&mut self) {
        let _ = self.run("quit", json!({}));
    }
}

fn shown(byte: u8) -> char {
    match byte {
        b' '..=b'~' => char::from(byte),
        _ => ' ',
    }
}
