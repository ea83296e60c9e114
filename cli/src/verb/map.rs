//! `map`: the runs of the virtual disk and where they are stored.

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure, tell_error},
    names::{hex_if_needed, shown},
    output::Out,
    source,
};
use clap::Args;
use disk_io::{Disk, RunKind};
use serde::Serialize;
use std::{os::unix::ffi::OsStrExt, path::PathBuf};

/// Show the runs of the virtual disk: data, zero or unallocated, and where they are stored
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit map web01-000002.vmdk                which link of the chain holds what
  vmdkit map --json web01.vmdk | jq 'select(.kind == \"data\") | .length' | paste -sd+ | bc

Depth 0 is SOURCE itself, 1 its parent, and so on. With --json one object a line.")]
pub(crate) struct Map {
    #[command(flatten)]
    source: SourceArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    offset: u64,
    length: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_offset: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    compressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Row {
    /// Takes in the next run if it only continues this one.
    fn takes(&mut self, next: &Row) -> bool {
        let follows = match (self.file_offset, next.file_offset) {
            (Some(a), Some(b)) => !self.compressed && a.checked_add(self.length) == Some(b),
            (None, None) => true,
            _ => false,
        };
        let same = self.kind == next.kind
            && self.depth == next.depth
            && self.file == next.file
            && self.compressed == next.compressed
            && self.error == next.error;
        if follows && same {
            self.length += next.length;
        }
        follows && same
    }
}

fn kind_name(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Data => "data",
        RunKind::Zero => "zero",
        RunKind::Unallocated => "unallocated",
    }
}

impl Map {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let source = source::open(&self.source, global)?;
        let image = source.image();
        let mut out = Out::new();
        if !self.json {
            out.line(text("OFFSET", "LENGTH", "KIND", "DEPTH", "FILE:OFFSET"))?;
        }
        let len = image.disk.len();
        let mut at = 0;
        let mut last: Option<Row> = None;
        let mut bad = false;
        while at < len {
            let (row, error) = row_at(image, at)?;
            if let Some(e) = error {
                tell_error(&e.context(format!("mapping byte {at} of the disk")));
                bad = true;
            }
            at += row.length;
            match &mut last {
                Some(last) => {
                    if !last.takes(&row) {
                        let done = std::mem::replace(last, row);
                        self.show(&mut out, &done)?;
                    }
                }
                None => last = Some(row),
            }
        }
        if let Some(done) = last {
            self.show(&mut out, &done)?;
        }
        out.finish()?;
        Ok(Exit::partial_if(bad))
    }

    fn show(&self, out: &mut Out, row: &Row) -> Result<(), Failure> {
        if self.json {
            return out.object(row);
        }
        let place = match (&row.file, row.file_offset) {
            (Some(file), Some(offset)) => {
                format!("{}:{offset}", disk_io::error::escape(file))
            }
            (Some(file), None) => disk_io::error::escape(file),
            _ => String::new(),
        };
        let kind = match (&row.error, row.compressed) {
            (Some(_), _) => "unreadable",
            (None, true) => "compressed",
            (None, false) => row.kind,
        };
        let depth = row.depth.map_or_else(|| "-".into(), |d| d.to_string());
        out.line(text(
            &row.offset.to_string(),
            &row.length.to_string(),
            kind,
            &depth,
            &place,
        ))
    }
}

fn text(offset: &str, length: &str, kind: &str, depth: &str, place: &str) -> String {
    format!("{offset:>16}  {length:>16}  {kind:<11}  {depth:>5}  {place}")
        .trim_end()
        .to_owned()
}

fn row_at(
    image: &disk_image::Image,
    at: u64,
) -> disk_io::Result<(Row, Option<disk_io::DiskError>)> {
    let mut row = Row {
        offset: at,
        length: 0,
        kind: "data",
        depth: None,
        file: None,
        file_hex: None,
        file_offset: None,
        compressed: false,
        error: None,
    };
    let set_file = |row: &mut Row, path: &PathBuf, offset: u64| {
        let bytes = path.as_os_str().as_bytes();
        row.file = Some(shown(bytes));
        row.file_hex = hex_if_needed(bytes);
        row.file_offset = Some(offset);
    };
    // A raw disk is its own file; the holes of that file are worth telling.
    if image.format == disk_image::Format::Raw || image.layered.is_none() {
        let run = image.disk.run_at(at)?;
        row.length = run.len;
        row.kind = kind_name(run.kind);
        if run.kind == RunKind::Data
            && let Some(link) = image.links.first()
        {
            row.depth = Some(0);
            set_file(&mut row, &link.path, at);
        }
        return Ok((row, None));
    }
    let Some(layered) = &image.layered else {
        return Ok((row, None));
    };
    let origin = layered.origin_at(at)?;
    row.length = origin.len;
    row.kind = kind_name(origin.kind);
    row.depth = (origin.kind != RunKind::Unallocated).then_some(origin.depth);
    row.compressed = origin.encoded;
    if let Some((path, offset)) = &origin.place {
        set_file(&mut row, path, *offset);
    }
    row.error = origin.bad.as_ref().map(ToString::to_string);
    Ok((row, origin.bad))
}
