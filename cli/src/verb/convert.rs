//! `convert`: a disk as another format.

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure, STDOUT},
    guard,
    image_format::{Format, FormatArgs},
    output::{Out, human, say},
    package,
    progress::Bar,
    signals, source, spool,
    used::{LeftOut, used_only},
};
use clap::Args;
use convert::{Destination, DigestKind, ImageOptions, device, to_image, verify};
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
        // What is wrong with the command line shows before SOURCE is opened.
        formats.format(self.to, 512, to_stdout)?;
        signals::watch();
        let begin = Instant::now();
        let from_stdin = self.source.source.as_os_str() == "-";
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
            return self.onto_device(&source, &disk, &bar, begin, global);
        }
        let destination = if to_stdout {
            Destination::Stream(Box::new(io::stdout()), STDOUT.into())
        } else if to_null {
            Destination::Discard
        } else {
            Destination::File(&self.dest)
        };
        let report = to_image(&disk, destination, &options, &bar)?;
        drop(bar);
        if self.verify
            && let Some(digest) = &report.digest
        {
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
            verified: self.verify,
            virtual_size: report.virtual_size,
            written: report.written,
            zeros: report.zeros,
            digest: report.digest.map(|d| DigestJson {
                kind: d.name(),
                hash: d.hex(),
            }),
            left_out,
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
            if let Some(left) = &json.left_out {
                out.line(format!("left out      {} of free space", size(left.bytes)))?;
            }
            if self.verify {
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
        Ok(Exit::Done)
    }
}

#[derive(Serialize)]
struct DeviceJson<'a> {
    source: String,
    destination: String,
    format: &'a str,
    virtual_size: u64,
    device_size: u64,
    written: u64,
    verified: bool,
    /// The backup of the GUID partition table is at the end of the device now.
    moved_gpt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<DigestJson>,
    seconds: f64,
    warnings: &'a [String],
}

impl Convert {
    /// Whether DEST is a block device that was named twice.
    fn to_device(&self) -> Result<bool, Failure> {
        let number = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            found.file_type().is_block_device().then(|| found.rdev())
        };
        match (number(&self.dest), &self.device) {
            (None, None) => Ok(false),
            (Some(_), None) => Err(Failure::usage_with(
                format!(
                    "{} is a block device: what is on it would be lost",
                    self.dest.display()
                ),
                format!("if that is meant, say so: --device {}", self.dest.display()),
            )),
            (dest, Some(device)) => {
                if self.to != Format::Raw {
                    return Err(Failure::usage(
                        "a device takes the bytes of a disk: --to raw",
                    ));
                }
                if dest.is_none() || dest != number(device) {
                    return Err(Failure::usage(format!(
                        "DEST and --device must be the same block device, and are {} and {}",
                        self.dest.display(),
                        device.display()
                    )));
                }
                Ok(true)
            }
        }
    }

    fn onto_device(
        &self,
        source: &proxy::Source,
        disk: &std::sync::Arc<dyn Disk>,
        bar: &Bar,
        begin: Instant,
        global: &Global,
    ) -> Result<Exit, Failure> {
        guard::check(&self.dest, source)?;
        let options = device::Options {
            workers: self.jobs,
            digest: self.digest,
            verify: self.verify,
        };
        let report = device::write(disk, &self.dest, options, bar)?;
        let mut out = Out::new();
        if self.json {
            out.document(&DeviceJson {
                source: self.source.source.display().to_string(),
                destination: self.dest.display().to_string(),
                format: self.to.name(),
                virtual_size: report.virtual_size,
                device_size: report.device_size,
                written: report.written,
                verified: report.verified,
                moved_gpt: report.moved_gpt,
                digest: report.digest.map(|d| DigestJson {
                    kind: d.name(),
                    hash: d.hex(),
                }),
                seconds: begin.elapsed().as_secs_f64(),
                warnings: source.warnings(),
            })?;
        } else if !global.quiet {
            let size = |n: u64| format!("{n} ({})", human(n));
            out.line(format!("virtual size  {}", size(report.virtual_size)))?;
            out.line(format!("device        {}", size(report.device_size)))?;
            if let Some(digest) = report.digest {
                out.line(format!("digest        {digest}"))?;
            }
            if report.verified {
                out.line("verified      read back, the same digest")?;
            }
            if report.moved_gpt {
                out.line("moved         the backup of the partition table, to the device's end")?;
            }
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

/// Where standard input is kept meanwhile: where there is room for the output too.
fn beside(dest: &Path, to_stdout: bool) -> PathBuf {
    let dir = dest.parent().filter(|p| !p.as_os_str().is_empty());
    match dir {
        _ if to_stdout || is_null(dest) => std::env::temp_dir(),
        Some(dir) => dir.to_path_buf(),
        None => PathBuf::from("."),
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
