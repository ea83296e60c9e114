//! `convert`: a disk as another format.

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure, STDOUT},
    guard,
    output::{Out, human, say},
    progress::Bar,
    signals, source,
};
use clap::{Args, ValueEnum};
use convert::{Destination, DigestKind, RawOptions, to_raw};
use disk_io::Disk;
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::Instant,
};

/// Write a disk, with all its parents merged in, as another format
///
/// The output is sparse: what the source does not store, and zeros found in what it stores,
/// take no space. It appears under its name when it is complete.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit convert web01-000002.vmdk web01.raw --to raw      flattens the chain
  vmdkit convert web01.vmdk - --to raw | zstd > web01.zst  to standard output
  vmdkit convert web01.vmdk /dev/null --to raw             read everything, write nothing
  vmdkit convert -O raw -p web01.vmdk web01.raw            as with qemu-img

The digest 'vmdkit' is SHA-256 over the length (64 bits, little endian) and the SHA-256 of
every MiB of the virtual disk in order; 'sha256' is what sha256sum prints for the raw disk.")]
pub(crate) struct Convert {
    #[command(flatten)]
    source: SourceArgs,
    /// File to write, or - for standard output
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// Format to write
    #[arg(
        long,
        short = 'O',
        visible_alias = "target-format",
        value_name = "FORMAT"
    )]
    to: Format,
    /// Replace DEST if it exists
    #[arg(long, short)]
    force: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Digest of the virtual contents, computed on the way: vmdkit, sha256 or none
    #[arg(long, value_name = "KIND", default_value = "vmdkit")]
    digest: DigestKind,
    /// Print the result as JSON; on standard error where DEST is standard output
    #[arg(long)]
    json: bool,
    /// As in qemu-img; a progress bar is shown anyway
    #[arg(short = 'p', hide = true)]
    progress: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// The bytes of the disk
    Raw,
}

#[derive(Serialize)]
struct Json<'a> {
    source: String,
    destination: String,
    format: &'a str,
    virtual_size: u64,
    written: u64,
    zeros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<DigestJson>,
    seconds: f64,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct DigestJson {
    kind: &'static str,
    hash: String,
}

impl Convert {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Format::Raw = self.to;
        let to_stdout = self.dest.as_os_str() == "-";
        if to_stdout && io::stdout().is_terminal() {
            return Err(Failure::usage_with(
                "a disk is not written to a terminal",
                "redirect it to a file or pipe",
            ));
        }
        signals::watch();
        let source = source::open(&self.source, global)?;
        let begin = Instant::now();
        let bar = Bar::new(global, source.disk().len());
        let options = RawOptions {
            workers: self.jobs,
            digest: self.digest,
            force: self.force,
            sources: source::files(&source),
        };
        if to_stdout {
            guard::check_stdout(&source)?;
        }
        let destination = if to_stdout {
            Destination::Stream(Box::new(io::stdout()), STDOUT.into())
        } else if is_null(&self.dest) {
            Destination::Discard
        } else {
            Destination::File(&self.dest)
        };
        let report = to_raw(source.disk(), destination, &options, &bar)?;
        drop(bar);
        let seconds = begin.elapsed().as_secs_f64();
        let json = Json {
            source: self.source.source.display().to_string(),
            destination: self.dest.display().to_string(),
            format: "raw",
            virtual_size: report.virtual_size,
            written: report.written,
            zeros: report.zeros,
            digest: report.digest.map(|d| DigestJson {
                kind: d.name(),
                hash: d.hex(),
            }),
            seconds,
            warnings: source.warnings(),
        };
        if to_stdout {
            // Standard output is the disk itself.
            if self.json {
                say(serde_json::to_string_pretty(&json)?);
            } else if let Some(digest) = report.digest.filter(|_| !global.quiet) {
                say(format_args!("digest {digest}"));
            }
            return Ok(Exit::Done);
        }
        let mut out = Out::new();
        if self.json {
            out.document(&json)?;
        } else if !global.quiet {
            let size = |n: u64| format!("{n} ({})", human(n));
            out.line(format!("virtual size  {}", size(report.virtual_size)))?;
            out.line(format!("written       {}", size(report.written)))?;
            if let Some(digest) = report.digest {
                out.line(format!("digest        {digest}"))?;
            }
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

/// Whether it is the null device: character device 1:3.
fn is_null(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| {
        m.file_type().is_char_device()
            && rustix::fs::major(m.rdev()) == 1
            && rustix::fs::minor(m.rdev()) == 3
    })
}
