//! `convert`: a disk as another format.

use crate::{
    args::{Global, SourceArgs},
    disk_doubts,
    exit::{Exit, Failure, STDOUT},
    guard,
    image_format::{Format, FormatArgs},
    output::{Out, human, say, warn},
    package,
    progress::Bar,
    signals, source, spool,
    used::{LeftOut, used_only},
};
use clap::Args;
use convert::{
    Destination, DigestKind, ImageOptions, checkpoint, checkpoint::Checkpointing,
    pipeline::is_cancelled, to_image, verify,
};
use disk_io::Disk;
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

mod device;

/// Write a disk, with all its parents merged in, as another format
///
/// The output is sparse where the format can be: what the source does not store, and zeros
/// found in what it stores, take no space. It appears under its name when it is complete.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit convert web01-000002.vmdk web01.raw --to raw      flattens the chain
  vmdkit convert web01-000002.vmdk flat.vmdk --to vmdk     the same as one growing VMDK
  vmdkit convert web01.vmdk web01-esx.vmdk --to vmdk --subformat vmfs
  vmdkit convert web01.vmdk web01-disk1.vmdk --to vmdk --subformat streamOptimized
  vmdkit convert web01.vmdk web01.qcow2 --to qcow2 --compress --verify
  vmdkit convert web01.vmdk web01.vhdx --to vhdx
  vmdkit convert --used-only web01.vmdk small.vmdk --to vmdk --subformat streamOptimized
  vmdkit convert web01.vmdk web01.qcow2 --to qcow2 --resume
  vmdkit convert web01.vmdk - --to raw | zstd > web01.zst  to standard output
  vmdkit convert web01.vmdk /dev/sdx --device /dev/sdx --to raw --verify
  ssh host 'cat /dev/sdb' | vmdkit convert - disk.vmdk --format raw --to vmdk
  vmdkit convert web01.vmdk - --to vmdk | ssh host 'cat > web01.vmdk'
  vmdkit convert web01.vmdk /dev/null --to raw             read everything, write nothing
  vmdkit convert -O qcow2 -c -p web01.vmdk web01.qcow2     as with qemu-img

The digest 'vmdkit' is SHA-256 over the length (64 bits, little endian) and the SHA-256 of
every MiB of the virtual disk in order; 'sha256' is what sha256sum prints for the raw disk.")]
pub(crate) struct Convert {
    #[command(flatten)]
    source: SourceArgs,
    /// File to write, or - for standard output (raw, and vmdk as streamOptimized)
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
    #[command(flatten)]
    format: FormatArgs,
    /// DEST is this block device, whose contents are lost: it is named twice, so that no slip
    /// of the hand is enough
    #[arg(long, value_name = "DEVICE", conflicts_with = "force")]
    device: Option<PathBuf>,
    /// Replace DEST if it exists
    #[arg(long, short)]
    force: bool,
    /// Leave out what NTFS, FAT, exFAT and ext mark as free: it reads as zeros afterwards
    #[arg(long)]
    used_only: bool,
    /// Leave out the contents of page and hibernation files and of swap space too
    #[arg(long, requires = "used_only")]
    no_swap: bool,
    /// Go on where an OVA package is not what its manifest says
    #[arg(long)]
    ignore_manifest: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Digest of the virtual contents, computed on the way: vmdkit, sha256 or none
    #[arg(long, value_name = "KIND", default_value = "vmdkit")]
    digest: DigestKind,
    /// Go on where this command was cut off, by a crash, a kill or an error; begin anew if there
    /// is nothing to go on with. What is unfinished is kept after an error, too, and the result
    /// is read back
    #[arg(long)]
    resume: bool,
    /// Keep what --resume needs every so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 15,
        help_heading = "Fine control"
    )]
    checkpoint: u64,
    /// Read the result back from the disk and compare its digest
    #[arg(long)]
    verify: bool,
    /// Print the result as JSON; on standard error where DEST is standard output
    #[arg(long)]
    json: bool,
    /// As in qemu-img: --compress
    #[arg(short = 'c', hide = true)]
    compress_short: bool,
    /// As in qemu-img: subformat=, adapter_type=, hwversion=, compression_type=
    #[arg(short = 'o', value_name = "KEY=VALUE", hide = true)]
    options: Vec<String>,
    /// As in qemu-img; a progress bar is shown anyway
    #[arg(short = 'p', hide = true)]
    progress: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    source: String,
    destination: String,
    format: &'a str,
    files: Vec<String>,
    verified: bool,
    /// Bytes of the disk that were done when it was gone on with --resume.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<u64>,
    virtual_size: u64,
    written: u64,
    zeros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<DigestJson>,
    /// With --used-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<LeftOut>,
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
        let mut formats = self.format.clone();
        formats.qemu_options(&self.options)?;
        if self.compress_short && formats.compress.is_none() {
            formats.compress = Some("default".into());
        }
        let to_stdout = self.dest.as_os_str() == "-";
        if to_stdout && io::stdout().is_terminal() {
            return Err(Failure::usage_with(
                "a disk is not written to a terminal",
                "redirect it to a file or pipe",
            ));
        }
        let to_null = !to_stdout && is_null(&self.dest);
        if self.verify && (to_stdout || to_null) {
            return Err(Failure::usage(
                "--verify needs a file that can be read back",
            ));
        }
        if to_null && self.to != Format::Raw {
            return Err(Failure::usage_with(
                format!("{} cannot be written to the null device", self.to.name()),
                "use --to raw to read everything and write nothing",
            ));
        }
        let to_device = self.to_device()?;
        let from_stdin = self.source.source.as_os_str() == "-";
        if self.resume {
            self.check_resume(from_stdin, to_stdout || to_null || to_device)?;
        }
        // What is wrong with the command line shows before SOURCE is opened.
        formats.format(self.to, 512, to_stdout)?;
        signals::watch();
        let begin = Instant::now();
        let spooled = match from_stdin {
            true => Some(spool::standard_input(&beside(&self.dest, to_stdout))?),
            false => None,
        };
        let mut args = self.source.clone();
        if let Some(file) = &spooled {
            args.source = file.path().to_path_buf();
        }
        let source = match source::open(&args, global) {
            Err(Failure::Disk(e)) if from_stdin => {
                return Err(Failure::Disk(
                    e.context("reading a disk from standard input"),
                ));
            }
            other => other?,
        };
        if !self.ignore_manifest {
            package::check(&source, global)?;
        }
        let shared = disk_doubts::tell(&source)?;
        let doubtful = !shared.is_empty();
        let warnings = [source.warnings(), shared.as_slice()].concat();
        let bar = Bar::new(global, source.disk().len());
        let options = ImageOptions {
            format: formats.format(self.to, source.disk().sector_size(), to_stdout)?,
            workers: self.jobs,
            digest: match self.digest {
                DigestKind::None if self.verify => DigestKind::Vmdkit,
                digest => digest,
            },
            force: self.force,
            sources: source::files(&source),
            checkpoints: (!from_stdin).then(|| self.checkpointing(&formats)),
        };
        if to_stdout {
            guard::check_stdout(&source)?;
        }
        let (disk, left_out) = match self.used_only {
            true => {
                let (disk, left) = used_only(&source, self.no_swap);
                for whole in &left.whole {
                    say(format_args!("{whole}"));
                }
                (disk, Some(left))
            }
            false => (source.disk().clone(), None),
        };
        if to_device {
            let exit = self.onto_device(&source, &disk, &bar, begin, global)?;
            return Ok(exit.or_partial(doubtful));
        }
        let destination = if to_stdout {
            Destination::Stream(Box::new(io::stdout()), STDOUT.into())
        } else if to_null {
            Destination::Discard
        } else {
            Destination::File(&self.dest)
        };
        let to_file = matches!(destination, Destination::File(_)) && !from_stdin;
        if to_file {
            self.say_what_is_left();
        }
        let report = match to_image(&disk, destination, &options, &bar) {
            Ok(report) => report,
            Err(e) => {
                drop(bar);
                if self.resume && checkpoint::interrupted(&self.dest).is_some() {
                    let what = match is_cancelled(&e) {
                        true => "stopped",
                        false => "failed",
                    };
                    say(format_args!(
                        "{what}; what is done is kept, and the same command goes on from there"
                    ));
                }
                return Err(e.into());
            }
        };
        drop(bar);
        // Two runs made what was gone on with: nothing but its own bytes proves it.
        let verified = self.verify || report.resumed.is_some();
        if verified && let Some(digest) = &report.digest {
            let bar = Bar::new(global, source.disk().len());
            let done = verify(
                &self.dest,
                &options.format,
                digest,
                &report.files,
                self.jobs,
                &bar,
            );
            if let Err(e) = done {
                // Nothing that is wrong, or unproven, keeps a good name.
                for file in &report.files {
                    let _ = std::fs::remove_file(file);
                }
                return Err(e.context("the output was removed").into());
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let json = Json {
            source: self.source.source.display().to_string(),
            destination: self.dest.display().to_string(),
            format: self.to.name(),
            files: report
                .files
                .iter()
                .map(|f| f.display().to_string())
                .collect(),
            verified,
            resumed: report.resumed,
            virtual_size: report.virtual_size,
            written: report.written,
            zeros: report.zeros,
            digest: report.digest.map(|d| DigestJson {
                kind: d.name(),
                hash: d.hex(),
            }),
            left_out,
            seconds,
            warnings: &warnings,
        };
        if to_stdout {
            // Standard output is the disk itself.
            if self.json {
                say(crate::json::text(&json)?);
            } else if let Some(digest) = report.digest.filter(|_| !global.quiet) {
                say(format_args!("digest {digest}"));
            }
            return Ok(Exit::partial_if(doubtful));
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
            if let Some(left) = &json.left_out {
                out.line(format!("left out      {} of free space", size(left.bytes)))?;
            }
            if let Some(done) = report.resumed {
                out.line(format!("gone on from  {}", size(done)))?;
            }
            if verified {
                out.line("verified      read back, the same digest")?;
            }
            if let [beside @ .., _] = report.files.as_slice()
                && !beside.is_empty()
            {
                for file in beside {
                    let name = guest_fs::Name::from_bytes(file.as_os_str().as_encoded_bytes());
                    out.line(format!("beside        {name}"))?;
                }
            }
        }
        out.finish()?;
        Ok(Exit::partial_if(doubtful))
    }
}

impl Convert {
    /// Refuses what cannot be gone on with.
    fn check_resume(&self, from_stdin: bool, no_file: bool) -> Result<(), Failure> {
        if from_stdin || no_file {
            return Err(Failure::usage_with(
                "--resume goes from a disk that can be read again into a file",
                "without it the command begins anew",
            ));
        }
        if self.digest == DigestKind::None {
            return Err(Failure::usage_with(
                "--resume needs the digest: what is gone on with is proved by it",
                "leave --digest none out",
            ));
        }
        Ok(())
    }

    fn checkpointing(&self, formats: &FormatArgs) -> Checkpointing {
        Checkpointing {
            every: Duration::from_secs(self.checkpoint),
            resume: self.resume,
            // The rest of what counts is in the state itself.
            context: format!(
                "{:?} {} {formats:?} {} {} {:?}",
                // Which snapshot, which disk of a package, which file of a datastore.
                self.source,
                self.to.name(),
                self.used_only,
                self.no_swap,
                self.digest
            ),
        }
    }

    /// What becomes of an earlier run that was cut off.
    fn say_what_is_left(&self) {
        let shown = self.dest.display();
        match (checkpoint::interrupted(&self.dest), self.resume) {
            (Some(done), true) => say(format_args!(
                "going on with {shown}: {} of the disk are done",
                human(done)
            )),
            (None, true) => say(format_args!(
                "nothing is left of an earlier run for {shown}: beginning at the beginning"
            )),
            (Some(done), false) => warn(format!(
                "an earlier run for {shown} was cut off with {} done; --resume would have gone on with it, now it is given up",
                human(done)
            )),
            (None, false) => {}
        }
    }
}

/// Where standard input is kept meanwhile.
fn beside(dest: &Path, to_stdout: bool) -> PathBuf {
    match to_stdout || is_null(dest) {
        true => std::env::temp_dir(),
        false => spool::beside(dest),
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
