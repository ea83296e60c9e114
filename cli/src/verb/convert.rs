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
    Destination, Digest, DigestKind, ImageOptions, Report, checkpoint, checkpoint::Checkpointing,
    pipeline::is_cancelled, to_image, verify,
};
use disk_io::{Disk, DiskError};
use proxy::Source;
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;

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

impl DigestJson {
    fn of(digest: &Digest) -> Self {
        Self {
            kind: digest.name(),
            hash: digest.hex(),
        }
    }
}

/// What is told at the end, whatever DEST is.
struct Told {
    begin: Instant,
    /// With --used-only.
    left_out: Option<LeftOut>,
    warnings: Vec<String>,
}

/// What DEST is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    File,
    Stdout,
    /// Read everything and write nothing.
    Null,
    Device,
}

impl Convert {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let formats = self.formats()?;
        // What is wrong with the command line shows before SOURCE is opened.
        let to = self.check_arguments(&formats)?;
        signals::watch();
        let begin = Instant::now();
        let (source, _spooled) = self.open(to, global)?;
        if !self.ignore_manifest {
            package::check(&source, global)?;
        }
        let shared = disk_doubts::tell(&source)?;
        let doubtful = !shared.is_empty();
        let warnings = [source.warnings(), shared.as_slice()].concat();
        if to == To::Stdout {
            guard::check_stdout(&source)?;
        }
        let (disk, left_out) = self.contents(&source);
        let told = Told {
            begin,
            left_out,
            warnings,
        };
        match to {
            To::Device => self.onto_device(&source, &disk, told, global)?,
            _ => self.write_image(&source, &disk, (to, &formats), told, global)?,
        }
        Ok(Exit::partial_if(doubtful))
    }

    /// The options of the format, those in the manner of qemu-img among them.
    fn formats(&self) -> Result<FormatArgs, Failure> {
        let mut formats = self.format.clone();
        formats.qemu_options(&self.options)?;
        if self.compress_short && formats.compress.is_none() {
            formats.compress = Some("default".into());
        }
        Ok(formats)
    }

    fn reads_stdin(&self) -> bool {
        self.source.source.as_os_str() == "-"
    }

    /// Refuses arguments that do not go together; what DEST is.
    fn check_arguments(&self, formats: &FormatArgs) -> Result<To, Failure> {
        let to = match self.dest.as_os_str() == "-" {
            true => To::Stdout,
            false if is_null(&self.dest) => To::Null,
            false => To::File,
        };
        if to == To::Stdout && io::stdout().is_terminal() {
            return Err(Failure::usage_with(
                "a disk is not written to a terminal",
                "redirect it to a file or pipe",
            ));
        }
        if self.verify && to != To::File {
            return Err(Failure::usage(
                "--verify needs a file that can be read back",
            ));
        }
        if to == To::Null && self.to != Format::Raw {
            return Err(Failure::usage_with(
                format!("{} cannot be written to the null device", self.to.name()),
                "use --to raw to read everything and write nothing",
            ));
        }
        let to = match self.to_device()? {
            true => To::Device,
            false => to,
        };
        if self.resume {
            self.check_resume(to)?;
        }
        formats.format(self.to, 512, to == To::Stdout)?;
        Ok(to)
    }

    /// Refuses what cannot be gone on with.
    fn check_resume(&self, to: To) -> Result<(), Failure> {
        if self.reads_stdin() || to != To::File {
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

    /// Opens SOURCE. Standard input is kept in a file, for as long as that is held.
    fn open(
        &self,
        to: To,
        global: &Global,
    ) -> Result<(Arc<Source>, Option<NamedTempFile>), Failure> {
        if !self.reads_stdin() {
            return Ok((source::open(&self.source, global)?, None));
        }
        let beside = match to {
            To::File => spool::beside(&self.dest),
            To::Stdout | To::Null | To::Device => std::env::temp_dir(),
        };
        let file = spool::standard_input(&beside)?;
        let mut args = self.source.clone();
        args.source = file.path().to_path_buf();
        match source::open(&args, global) {
            Ok(source) => Ok((source, Some(file))),
            Err(Failure::Disk(e)) => Err(Failure::Disk(
                e.context("reading a disk from standard input"),
            )),
            Err(other) => Err(other),
        }
    }

    /// The disk, and with --used-only what of it reads as zeros.
    fn contents(&self, source: &Source) -> (Arc<dyn Disk>, Option<LeftOut>) {
        if !self.used_only {
            return (source.disk().clone(), None);
        }
        let (disk, left) = used_only(source, self.no_swap);
        for whole in &left.whole {
            say(format_args!("{whole}"));
        }
        (disk, Some(left))
    }

    /// DEST is not a device.
    fn write_image(
        &self,
        source: &Source,
        disk: &Arc<dyn Disk>,
        (to, formats): (To, &FormatArgs),
        told: Told,
        global: &Global,
    ) -> Result<(), Failure> {
        let bar = Bar::new(global, source.disk().len());
        let options = ImageOptions {
            format: formats.format(self.to, source.disk().sector_size(), to == To::Stdout)?,
            workers: self.jobs,
            digest: match self.digest {
                DigestKind::None if self.verify => DigestKind::Vmdkit,
                digest => digest,
            },
            force: self.force,
            sources: source::files(source),
            checkpoints: (!self.reads_stdin()).then(|| self.checkpointing(formats)),
        };
        let destination = match to {
            To::Stdout => Destination::Stream(Box::new(io::stdout()), STDOUT.into()),
            To::Null => Destination::Discard,
            To::File | To::Device => Destination::File(&self.dest),
        };
        if to == To::File && !self.reads_stdin() {
            self.say_what_is_left();
        }
        let written = to_image(disk, destination, &options, &bar);
        drop(bar);
        let report = written.inspect_err(|e| self.say_what_is_kept(e))?;
        // Two runs made what was gone on with: nothing but its own bytes proves it.
        let verified = self.verify || report.resumed.is_some();
        if verified && let Some(digest) = &report.digest {
            let bar = Bar::new(global, source.disk().len());
            let format = &options.format;
            let files = &report.files;
            if let Err(e) = verify(&self.dest, format, digest, files, self.jobs, &bar) {
                // Nothing that is wrong, or unproven, keeps a good name.
                for file in files {
                    let _ = std::fs::remove_file(file);
                }
                return Err(e.context("the output was removed").into());
            }
        }
        self.tell(&report, verified, to, told, global)
    }

    /// What became of a run that was stopped, or failed.
    fn say_what_is_kept(&self, e: &DiskError) {
        if self.resume && checkpoint::interrupted(&self.dest).is_some() {
            let what = match is_cancelled(e) {
                true => "stopped",
                false => "failed",
            };
            say(format_args!(
                "{what}; what is done is kept, and the same command goes on from there"
            ));
        }
    }

    fn tell(
        &self,
        report: &Report,
        verified: bool,
        to: To,
        told: Told,
        global: &Global,
    ) -> Result<(), Failure> {
        let files = report.files.iter();
        let json = Json {
            source: self.source.source.display().to_string(),
            destination: self.dest.display().to_string(),
            format: self.to.name(),
            files: files.map(|f| f.display().to_string()).collect(),
            verified,
            resumed: report.resumed,
            virtual_size: report.virtual_size,
            written: report.written,
            zeros: report.zeros,
            digest: report.digest.as_ref().map(DigestJson::of),
            left_out: told.left_out,
            seconds: told.begin.elapsed().as_secs_f64(),
            warnings: &told.warnings,
        };
        if to == To::Stdout {
            // Standard output is the disk itself.
            if self.json {
                say(crate::json::text(&json)?);
            } else if let Some(digest) = report.digest.as_ref().filter(|_| !global.quiet) {
                say(format_args!("digest {digest}"));
            }
            return Ok(());
        }
        let mut out = Out::new();
        if self.json {
            out.document(&json)?;
        } else if !global.quiet {
            let size = |n: u64| format!("{n} ({})", human(n));
            out.line(format!("virtual size  {}", size(report.virtual_size)))?;
            out.line(format!("written       {}", size(report.written)))?;
            if let Some(digest) = &report.digest {
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
            if let [beside @ .., _] = report.files.as_slice() {
                for file in beside {
                    let name = guest_fs::Name::from_bytes(file.as_os_str().as_encoded_bytes());
                    out.line(format!("beside        {name}"))?;
                }
            }
        }
        out.finish()?;
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

/// Whether it is the null device: character device 1:3.
fn is_null(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| {
        m.file_type().is_char_device()
            && rustix::fs::major(m.rdev()) == 1
            && rustix::fs::minor(m.rdev()) == 3
    })
}
