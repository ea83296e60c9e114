//! `export`: a machine or disk as a backup.

use crate::{
    args::{Global, SourceArgs},
    backup::{Taken, take},
    disk_doubts,
    exit::{Exit, Failure, STDOUT},
    generations::{Expired, Lock, clean, expire, newest},
    hooks::HookArgs,
    image_format::{Format, FormatArgs, size},
    output::{Out, human, say, warn},
    package,
    progress::Bar,
    signals,
    since::{Found, List, attach},
    used::used_only,
};
use clap::{Args, ValueEnum};
use convert::backup::{self, Changes, Gaps, Manifest, Naming, Options, TarStream, Written};
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

mod ova;
mod several;
mod shared;

/// Write a machine or disk into a new directory as a backup, with a manifest
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit export web01/web01.vmx /backups/web01-2026-11-26
  vmdkit export web01 --snapshot id:3 /backups/web01-before-patch
  vmdkit export -D lun.img web01/web01.vmx DIR --subformat streamOptimized
  vmdkit export web01.vmdk DIR --to qcow2          a single disk
  vmdkit export web01 /backups/web01-2 --since /backups/web01-1     what changed since
  vmdkit export web01 /backups/web01-$(date +%F) --keep 14 --on-error 'logger failed'
  vmdkit export web01 /backups/$(date +%F) --since newest --keep 14 --merge
  vmdkit export /vms /backups --select any: --since newest --keep 14 --merge     every night
  vmdkit export web01/web01.vmx web01.ova --to ova
  vmdkit export -D lun.img . /backups --select any:      every machine, each in its directory
  vmdkit export web01 DIR --split 4G              for media of limited size
  vmdkit export web01 - | ssh host 'cat > web01.tar'
  vmdkit export web01 - | vmdkit restore - ./copy

Every disk is written whole, with all its parents merged in. The configuration is made to
fit; the manifest holds a digest of every file and of what each disk contains, so that
'vmdkit verify DIR' can prove the backup and 'vmdkit restore DIR NEW' what it restores. DIR
appears when everything in it is complete. With - the same goes to standard output as a tar
archive, its disks in pieces, the manifest last.")]
pub(crate) struct Export {
    #[command(flatten)]
    source: SourceArgs,
    /// A new directory; a file with --to ova; - for a tar stream on standard output
    #[arg(value_name = "DIR|FILE")]
    dest: PathBuf,
    /// Format of the disks; or ova: DEST is a package for vSphere, VirtualBox and others
    #[arg(
        help_heading = "What is written",
        long,
        value_enum,
        default_value_t = Target::Vmdk
    )]
    to: Target,
    /// Replace a package that exists
    #[arg(help_heading = "What is written", long, short)]
    force: bool,
    #[command(flatten)]
    format: FormatArgs,
    /// Write only what changed since this earlier backup, which must lie beside DIR: disks are
    /// children of its disks. It must be kept as long as this one. 'newest' is the newest backup of
    /// the same machine beside DIR; where there is none, a whole one is written
    #[arg(help_heading = "What is written", long, value_name = "BACKUP")]
    since: Option<PathBuf>,
    /// A list of changed blocks of a disk, as ESXi's QueryChangedDiskAreas gives it in JSON
    #[arg(
        help_heading = "What is written",
        long,
        value_name = "[PLACE=]FILE",
        requires = "since"
    )]
    changed_blocks: Vec<List>,
    /// Keep so many backups of this machine beside each other: when the new one is proven, older
    /// ones are removed, but for those that a kept one builds on
    #[arg(
        help_heading = "What is written",
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    keep: Option<u32>,
    /// Of the backups that --keep keeps, make those whole that build on one which goes
    #[arg(help_heading = "What is written", long, requires = "keep")]
    merge: bool,
    /// Make zeros of what the guests' file systems say is free
    #[arg(help_heading = "What is written", long)]
    used_only: bool,
    /// Take the machine's saved memory along (.vmss, .vmsn, .vmem), so that it goes on where it
    /// was: for a snapshot that was taken with memory, or a machine that was suspended
    // What a running guest has not written yet can lie where its disk says that nothing is.
    #[arg(help_heading = "What is written", long, conflicts_with = "used_only")]
    with_memory: bool,
    #[command(flatten)]
    hooks: HookArgs,
    /// Every machine of SOURCE (a directory, a datastore; with -D, . is all of it) that fits, each
    /// into a directory of its name below DEST (repeatable): name:TEXT, uuid:TEXT, any:, or a name.
    /// A disk that two of them share is written once, and in both backups
    #[arg(help_heading = "Several machines", long, value_name = "SELECTOR")]
    select: Vec<String>,
    /// So many machines at a time
    #[arg(
        help_heading = "Several machines",
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = at_once,
        requires = "select"
    )]
    at_once: usize,
    /// Call disks as VMware Consolidated Backup did: scsi0-0-0-web01.vmdk
    #[arg(help_heading = "What is written", long)]
    vcb_names: bool,
    /// Write disks (as streamOptimized VMDKs) in pieces of this size: web01.vmdk.000000000, …;
    /// every verb opens them as web01.vmdk. To standard output 256M, unless said otherwise
    #[arg(help_heading = "What is written", long, value_name = "SIZE", value_parser = size)]
    split: Option<u64>,
    /// Go on where an OVA package is not what its manifest says
    #[arg(long)]
    ignore_manifest: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Disks that it shares with others that are exported too.
    #[arg(skip)]
    shared: Option<shared::Shared>,
    /// Print JSON; on standard error where DEST is standard output
    #[arg(long)]
    json: bool,
}

fn at_once(text: &str) -> Result<usize, String> {
    let n = text.parse().ok().filter(|n| (1..=64).contains(n));
    n.ok_or_else(|| "expected 1 to 64".into())
}

/// To a stream: each waits among temporary files until it is whole.
const PIECE: u64 = 256 << 20;
/// Smaller ones are too many.
const SMALLEST: u64 = 1 << 20;

/// What disks are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    Raw,
    Vmdk,
    Qcow2,
    Vhd,
    Vhdx,
    Vdi,
    Ova,
}

impl Target {
    /// The format of each disk; `None` for a package.
    fn format(self) -> Option<Format> {
        Some(match self {
            Self::Raw => Format::Raw,
            Self::Vmdk => Format::Vmdk,
            Self::Qcow2 => Format::Qcow2,
            Self::Vhd => Format::Vhd,
            Self::Vhdx => Format::Vhdx,
            Self::Vdi => Format::Vdi,
            Self::Ova => return None,
        })
    }
}

#[derive(Serialize)]
struct Json<'a> {
    destination: String,
    manifest: &'a Manifest,
    written: u64,
    /// With --since: bytes of disks that were read to find what changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<u64>,
    /// With --since: how the changes of each disk were found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    found_by: Vec<&'static str>,
    /// With --keep: older backups that were removed.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    expired: &'a [String],
    /// With --merge: backups that were made whole.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    merged: &'a [String],
    left_out: &'a [String],
    warnings: &'a [String],
}

impl Export {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        if !self.select.is_empty() {
            return self.several(global);
        }
        let work = || self.export(global);
        self.hooks.around(&self.source.source, &self.dest, work)
    }

    fn export(&self, global: &Global) -> Result<Exit, Failure> {
        let Some(to) = self.to.format() else {
            return self.package(global);
        };
        let to_stdout = self.dest.as_os_str() == "-";
        let split = self.split.or(to_stdout.then_some(PIECE));
        if split.is_some() {
            self.check_split(to)?;
        }
        if to_stdout && io::stdout().is_terminal() {
            return Err(Failure::usage_with(
                "a backup is not written to a terminal",
                "redirect it to a file or pipe",
            ));
        }
        self.format.format(to, 512, split.is_some())?;
        if self.since.is_some() && (to != Format::Vmdk || split.is_some()) {
            return Err(Failure::usage_with(
                "what changed since a backup is written as VMDK children, each in a file of its own",
                "leave out --to, --split and -",
            ));
        }
        if self.force {
            return Err(Failure::usage(
                "--force is for packages: a backup's directory is new",
            ));
        }
        if self.keep.is_some() && to_stdout {
            return Err(Failure::usage("--keep is for directories"));
        }
        let how = &self.source.how;
        if self.keep.is_some() && (how.disk.is_some() || how.snapshot.is_some()) {
            return Err(Failure::usage_with(
                "--keep is for whole machines as they are now: others would count as older ones",
                "leave out --keep, --disk or --snapshot",
            ));
        }
        if self.used_only && !self.changed_blocks.is_empty() {
            return Err(Failure::usage(
                "a list of changed blocks does not say what became free: leave it or --used-only out",
            ));
        }
        if !to_stdout {
            backup::check_dest(&self.dest)?;
        }
        signals::watch();
        // Nobody removes the earlier one meanwhile.
        let mut lock = match (self.keep, &self.since) {
            (Some(_), _) => Some(Lock::take(&self.dest)?),
            (None, Some(_)) => Some(Lock::share(&self.dest)?),
            (None, None) => None,
        };
        if let (Some(_), Some(lock)) = (self.keep, &lock) {
            clean(&self.dest, lock);
        }
        let mut taken = self.take(global)?;
        let missing = taken.tell();
        if let Some(shared) = &self.shared {
            shared.find(&mut taken);
        }
        let earlier = self.earlier(&taken, global)?;
        let (since, how) = match &earlier {
            Some(earlier) => {
                let (since, how) = attach(&mut taken, earlier, &self.dest, &self.changed_blocks)?;
                (Some(since), how)
            }
            None => (None, Vec::new()),
        };
        let shared = disk_doubts::tell_all(&taken.sources)?;
        let doubtful = !shared.is_empty();
        let gaps = Gaps {
            left_out: taken.left_out.clone(),
            doubts: taken.doubts(&shared),
            not_asked: taken.not_asked.clone(),
        };
        taken.warnings.extend(shared);
        let bar = Bar::new(global, taken.len());
        let format = |sector: u32| {
            // The options were found good above.
            let format = self.format.format(to, sector, split.is_some());
            let format = format.map_err(|_| {
                disk_io::DiskError::unsupported("writing the disk").found(to.name())
            })?;
            Ok((format, extension(to)))
        };
        let options = Options {
            format: &format,
            naming: match self.vcb_names {
                true => Naming::Vcb,
                false => Naming::Plain,
            },
            manifest: true,
            origin: (
                crate::clock::now().to_string(),
                self.source.source.display().to_string(),
            ),
            identity: self.identity(),
            workers: self.jobs,
            split,
            since,
            gaps,
        };
        let written = match to_stdout {
            false => backup::write(&taken.parts, &self.dest, &options, &bar)?,
            true => {
                let out = TarStream::new(Box::new(io::stdout()), STDOUT);
                backup::write_stream(&taken.parts, out, &options, &bar)?
            }
        };
        drop(bar);
        if let Some(shared) = &self.shared {
            shared.note(&taken, &self.dest, &written);
        }
        let expired = match self.keep.zip(lock.as_mut()) {
            Some(_) if missing || doubtful => {
                warn(match missing {
                    true => "disks were left out: no older backup is removed",
                    false => "this backup is not to be relied on: no older one is removed",
                });
                Expired::default()
            }
            Some((keep, lock)) => expire(
                &self.dest,
                keep as usize,
                self.merge,
                (self.jobs, global),
                lock,
            )?,
            None => Expired::default(),
        };
        drop(lock);
        self.report(&taken, (&written, &how, &expired), to_stdout, global)?;
        Ok(Exit::partial_if(missing || doubtful || expired.failed))
    }

    fn report(
        &self,
        taken: &Taken,
        (written, how, expired): (&Written, &[Found], &Expired),
        to_stdout: bool,
        global: &Global,
    ) -> Result<(), Failure> {
        let json = Json {
            destination: self.dest.display().to_string(),
            manifest: &written.manifest,
            written: written.written,
            read: written.manifest.since.is_some().then_some(written.read),
            found_by: how.iter().map(|h| h.as_str()).collect(),
            expired: &expired.removed,
            merged: &expired.merged,
            left_out: &taken.left_out,
            warnings: &taken.warnings,
        };
        if to_stdout {
            // Standard output is the backup itself.
            if self.json {
                say(crate::json::text(&json)?);
            }
            return Ok(());
        }
        let mut out = Out::new();
        if self.json {
            out.document(&json)?;
        } else if !global.quiet {
            for disk in &written.manifest.disks {
                out.line(format!(
                    "{}  {}  {}:{}",
                    disk.file,
                    human(disk.virtual_size),
                    disk.digest.kind,
                    disk.digest.hash
                ))?;
            }
            for (disk, how) in written.manifest.disks.iter().zip(how) {
                let how = match how {
                    Found::Whole => "is not in the earlier backup: written whole",
                    Found::Chain => {
                        "changes found by the deltas on top of the earlier backup's chain"
                    }
                    Found::List => "changes found by the list",
                    Found::Hashes => "changes found by hashes, in one pass",
                };
                out.line(format!("{}  {how}", disk.file))?;
            }
            out.line(format!(
                "{} files, {} of disks written",
                written.manifest.files.len(),
                human(written.written)
            ))?;
            for one in &expired.merged {
                out.line(format!("made whole {one}"))?;
            }
            for old in &expired.removed {
                out.line(format!("removed {old}"))?;
            }
        }
        out.finish()
    }
}

impl Export {
    /// Pieces need a format that is written from front to back, and that shows by its end that
    /// it is whole.
    fn check_split(&self, to: Format) -> Result<(), Failure> {
        let stream = |kind: &String| kind.eq_ignore_ascii_case("streamOptimized");
        if to != Format::Vmdk || !self.format.subformat.as_ref().is_none_or(stream) {
            return Err(Failure::usage_with(
                "pieces and streams have disks as streamOptimized VMDKs",
                "leave out --to and --subformat, or write whole files into a directory",
            ));
        }
        if self.split.is_some_and(|size| size < SMALLEST) {
            return Err(Failure::usage("--split: expected 1M or more"));
        }
        Ok(())
    }

    /// The backup to build on.
    fn earlier(&self, taken: &Taken, global: &Global) -> Result<Option<PathBuf>, Failure> {
        let Some(since) = self.since.as_ref().filter(|s| is_newest(s)) else {
            return Ok(self.since.clone());
        };
        let vm = taken.parts.machine.as_ref().map(|m| &m.entry);
        let found = newest(
            &self.dest,
            vm,
            self.identity().as_ref(),
            self.keep.is_some(),
        )?;
        if found.is_none() && !self.changed_blocks.is_empty() {
            return Err(Failure::usage_with(
                "a list of changed blocks is of what changed since a backup, and there is none",
                "write the first one without --changed-blocks",
            ));
        }
        if found.is_none() && !global.quiet {
            let since = since.display();
            say(format_args!(
                "--since {since}: no earlier backup of it, so all is written"
            ));
        }
        Ok(found)
    }

    /// Where the disk lies, and which one of several it is.
    fn identity(&self) -> Option<String> {
        let how = &self.source.how;
        let real = |path: &std::path::Path| path.canonicalize().ok();
        if how.datastore.is_empty() {
            let path = real(&self.source.source)?;
            return Some(format!("{} {:?}", path.display(), how.disk));
        }
        let devices = how.datastore.iter().flat_map(|d| &d.devices);
        let devices: Option<Vec<String>> = devices
            .map(|d| Some(format!("{} {:?}", real(&d.path)?.display(), d.partition)))
            .collect();
        let (path, disk) = (self.source.source.display(), &how.disk);
        Some(format!("{} {path} {disk:?}", devices?.join(" ")))
    }

    fn take(&self, global: &Global) -> Result<Taken, Failure> {
        let taken = take(&self.source, global, Changes::default(), self.with_memory)?;
        match (&taken.single, &taken.package) {
            _ if self.ignore_manifest => {}
            (Some(source), _) => package::check(source, global)?,
            (None, Some(path)) => {
                package::check_file(path, global)?;
            }
            (None, None) => {}
        }
        let mut taken = taken;
        if self.used_only {
            for (part, source) in taken.parts.disks.iter_mut().zip(&taken.sources) {
                let (disk, out) = used_only(source, false);
                part.disk = disk;
                // What is free can change without a delta that says so, and what an earlier
                // manifest says is of all the bytes.
                part.chain.clear();
                part.expected = None;
                if !global.quiet {
                    say(format_args!(
                        "left out: {} that no file uses",
                        human(out.bytes)
                    ));
                    out.whole.iter().for_each(say);
                }
            }
        }
        Ok(taken)
    }
}

/// Whether `--since` means the newest backup that there is, and not a directory of that name.
fn is_newest(since: &Path) -> bool {
    since.as_os_str() == "newest" && !since.exists()
}

/// The end of a disk's name.
fn extension(format: Format) -> &'static str {
    match format {
        Format::Raw => "img",
        other => other.name(),
    }
}
