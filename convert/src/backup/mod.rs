//! A machine or disk, written into a directory: as a backup with a manifest, or ready to
//! run.
//!
//! Every disk is one file (with its extents), all its parents merged in. The directory
//! appears under its name when everything in it is complete.

mod access;
mod again;
pub mod manifest;
mod new_dir;
pub mod rewrite;
mod shelf;
mod since;
mod split;
mod strays;
pub mod units;
mod whole;

pub use again::Again;
pub use manifest::{
    ChainFile, ChainLink, DigestEntry, DiskEntry, FileEntry, Gaps, Manifest, PointEntry,
    SinceEntry, VmEntry,
};
pub use new_dir::{check_dest, discard, remove_leftovers};
pub use rewrite::{Changes, Identity};
pub use shelf::TarStream;
pub use since::Base;
pub use strays::is_of_host;
pub use whole::{Child, Whole};

use crate::{
    crc::Crc,
    delta::{ChildOptions, child},
    digest::{Digest, DigestKind},
    pipeline::{self, CopyOptions, Sparse, cancelled},
    place,
    progress::Progress,
    target::Discard,
    to_image::{Destination, ImageFormat, ImageOptions, to_image},
};
use disk_io::{Disk, DiskError, Result, output::write_error};
use inventory::{Dictionary, Slot};
use new_dir::NewDir;
use shelf::Shelf;
use split::Split;
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Files up to this length have a plain SHA-256 in the manifest; longer ones the digest
/// that all cores compute.
const PLAIN: u64 = 16 << 20;

/// A disk that is written.
#[derive(Clone, Debug)]
pub struct DiskPart {
    /// Where it hangs.
    pub slot: Option<Slot>,
    /// Its contents.
    pub disk: Arc<dyn Disk>,
    /// What they must be, if it is known.
    pub expected: Option<DigestEntry>,
    /// The chain that they come from, where it lies in files of the host.
    pub chain: Vec<ChainLink>,
    /// The disk of an earlier backup that it is written as a child of.
    pub base: Option<Base>,
    /// The same disk in the backup of another machine, made at the same time.
    pub again: Option<Again>,
}

/// The machine that the disks belong to.
#[derive(Clone, Debug)]
pub struct MachinePart {
    /// What the manifest says of it.
    pub entry: VmEntry,
    /// Its configuration.
    pub config: Dictionary,
    /// Further files of it that are copied: name and contents.
    pub files: Vec<(String, Arc<dyn Disk>)>,
    /// What changes in the configuration.
    pub changes: Changes,
}

/// What is written.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The first part of every name.
    pub stem: String,
    /// The machine, if it is one.
    pub machine: Option<MachinePart>,
    /// The disks.
    pub disks: Vec<DiskPart>,
    /// Files that none of them may be written over.
    pub sources: Vec<PathBuf>,
}

/// How disks are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// `web01.vmdk`, `web01_1.vmdk`, as ESXi does.
    #[default]
    Plain,
    /// `scsi0-0-0-web01.vmdk`, as VMware Consolidated Backup did.
    Vcb,
}

/// The format for a disk with sectors of so many bytes, and the end of its name.
pub type FormatOf<'a> = &'a dyn Fn(u32) -> Result<(ImageFormat, &'static str)>;

/// How it is written.
pub struct Options<'a> {
    /// In which format.
    pub format: FormatOf<'a>,
    /// How disks are called.
    pub naming: Naming,
    /// Write a manifest and VCB's `catalog`: a backup.
    pub manifest: bool,
    /// When, as RFC 3339, and from what, for the manifest.
    pub origin: (String, String),
    /// By what it is known that another backup is of the same disk.
    pub identity: Option<String>,
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Disks are written in pieces of so many bytes: only in a format that is written as a
    /// stream and that ends with a mark of its own, so that a missing piece is noticed.
    pub split: Option<u64>,
    /// The earlier backup that disks with a base build on; it lies beside the new one.
    pub since: Option<SinceEntry>,
    /// What is missing or doubtful, for the manifest.
    pub gaps: Gaps,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The manifest, which was written only if it was asked for.
    pub manifest: Manifest,
    /// Bytes of data that were written for disks.
    pub written: u64,
    /// Bytes of disks that were read to find what changed.
    pub read: u64,
    /// The files of each disk, in the order of the manifest's; without one none are known.
    pub files: Vec<Vec<FileEntry>>,
}

/// Writes `parts` into the new directory `dest`.
///
/// # Errors
/// `Refused` if `dest` exists and is not an empty directory whose place another can take; `Corrupt`, and nothing is
/// left, if a disk's contents are not what they must be; `Io` and whatever reading gives.
pub fn write(
    parts: &Parts,
    dest: &Path,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Written> {
    let place = NewDir::create(dest)?;
    let written = write_into(&place.temp, None, parts, options, progress)?;
    place.finish()?;
    Ok(written)
}

/// Writes `parts` as a tar archive: file by file, in pieces of [`Options::split`] bytes, the
/// manifest last. What is not in the stream yet is in a directory for temporary files.
///
/// # Errors
/// As [`write()`].
pub fn write_stream(
    parts: &Parts,
    out: TarStream,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Written> {
    let temp = std::env::temp_dir();
    let scratch = tempfile::Builder::new()
        .prefix(place::TEMP_PREFIX)
        .tempdir_in(&temp)
        .map_err(|e| write_error("creating a directory in", &temp, &e))?;
    let written = write_into(scratch.path(), Some(&out), parts, options, progress)?;
    out.finish()?;
    Ok(written)
}

fn write_into(
    dir: &Path,
    stream: Option<&TarStream>,
    parts: &Parts,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Written> {
    let shelf = Shelf {
        dir: dir.to_path_buf(),
        manifest: options.manifest,
        workers: options.workers,
        progress,
        stream,
        entries: Mutex::default(),
        unsynced: Mutex::default(),
    };
    let mut writer = Writer {
        shelf: &shelf,
        parts,
        options,
        progress,
        disks: Vec::new(),
        files: Vec::new(),
        written: 0,
        read: 0,
    };
    writer.disks()?;
    if let Some(machine) = &parts.machine {
        writer.machine(machine)?;
    }
    let manifest = Manifest {
        vmdkit_backup: manifest::VERSION,
        created: options.origin.0.clone(),
        source: options.origin.1.clone(),
        identity: options.identity.clone(),
        since: options.since.clone(),
        stands_for: Vec::new(),
        vm: parts.machine.as_ref().map(|m| m.entry.clone()),
        disks: writer.disks.iter().map(|(_, d)| d.clone()).collect(),
        files: Vec::new(),
        gaps: options.gaps.clone(),
    };
    let (written, read) = (writer.written, writer.read);
    let files = std::mem::take(&mut writer.files);
    let manifest = match options.manifest {
        true => writer.manifest(manifest)?,
        false => manifest,
    };
    if progress.cancelled() {
        return Err(cancelled());
    }
    shelf.sync()?;
    Ok(Written {
        manifest,
        written,
        read,
        files,
    })
}

/// Digest of the file or disk `disk`.
pub fn digest_of(
    disk: &Arc<dyn Disk>,
    digest: DigestKind,
    workers: usize,
    progress: &dyn Progress,
) -> Result<Digest> {
    let options = CopyOptions {
        workers,
        digest,
        sparse: Sparse::Always,
    };
    let copied = pipeline::copy(disk, &Discard, options, progress)?;
    copied
        .digest
        .ok_or_else(|| DiskError::unsupported("computing a digest").found("none"))
}

/// Digest and CRC-32 of a file, in one pass.
fn sums_of(
    disk: &Arc<dyn Disk>,
    digest: DigestKind,
    workers: usize,
    progress: &dyn Progress,
) -> Result<(Digest, u32)> {
    let options = CopyOptions {
        workers,
        digest,
        sparse: Sparse::Always,
    };
    let crc = Crc::default();
    let copied = pipeline::copy(disk, &crc, options, progress)?;
    let digest = copied
        .digest
        .ok_or_else(|| DiskError::unsupported("computing a digest").found("none"))?;
    Ok((digest, crc.finish(disk.len())?))
}

/// The CRC-32 of a file.
pub fn crc32_of(disk: &Arc<dyn Disk>, progress: &dyn Progress) -> Result<u32> {
    let options = CopyOptions {
        workers: 0,
        digest: DigestKind::None,
        sparse: Sparse::Always,
    };
    let crc = Crc::default();
    pipeline::copy(disk, &crc, options, progress)?;
    crc.finish(disk.len())
}

/// Refuses contents that are not what was promised.
pub fn compare(found: &Digest, expected: &DigestEntry, what: &str) -> Result<()> {
    let found = DigestEntry::from(*found);
    if found == *expected {
        return Ok(());
    }
    Err(DiskError::corrupt("comparing with the manifest")
        .code("digest-differs")
        .file(what)
        .expected(format!("{} {}", expected.kind, expected.hash))
        .found(format!("{} {}", found.kind, found.hash)))
}

struct Writer<'a> {
    shelf: &'a Shelf<'a>,
    parts: &'a Parts,
    options: &'a Options<'a>,
    progress: &'a dyn Progress,
    disks: Vec<(Option<Slot>, DiskEntry)>,
    /// The files of each of them.
    files: Vec<Vec<FileEntry>>,
    written: u64,
    read: u64,
}

impl Writer<'_> {
    fn disks(&mut self) -> Result<()> {
        let mut names = Vec::new();
        for (number, part) in self.parts.disks.iter().enumerate() {
            let (_, extension) = (self.options.format)(part.disk.sector_size())?;
            names.push(self.name(number, part, extension));
        }
        let parts = self.parts;
        for (number, (part, name)) in parts.disks.iter().zip(&names).enumerate() {
            let before = self.shelf.entries();
            let later = names.get(number + 1..).unwrap_or_default();
            let again = part.again.as_ref().filter(|a| a.fits(&before, later));
            let entry = match again {
                // What must be compared is read.
                Some(again) if part.expected.is_none() && part.base.is_none() => {
                    again.put(self.shelf, part.slot)?
                }
                _ => self.disk(part, name.clone())?,
            };
            self.disks.push((part.slot, entry));
            let files = self.shelf.entries().split_off(before.len());
            self.files.push(files);
        }
        Ok(())
    }

    fn disk(&mut self, part: &DiskPart, name: String) -> Result<DiskEntry> {
        let (format, _) = (self.options.format)(part.disk.sector_size())?;
        if let (Some(base), Some(since)) = (&part.base, &self.options.since) {
            return self.increment(part, base, since, &format, name);
        }
        let kind = match &part.expected {
            Some(expected) => expected.kind().unwrap_or_default(),
            None => DigestKind::Vmdkit,
        };
        let image = ImageOptions {
            format: format.clone(),
            workers: self.options.workers,
            digest: kind,
            force: false,
            sources: self.parts.sources.clone(),
            checkpoints: None,
        };
        let path = self.shelf.dir.join(&name);
        let units = (self.options.manifest && kind == DigestKind::Vmdkit)
            .then(|| format!("{name}{}", units::EXTENSION));
        let split = self.options.split;
        let split = split.map(|size| Split::new(self.shelf, &name, size));
        let to = match &split {
            None => Destination::File(&path),
            Some(split) => Destination::Stream(Box::new(split), name.clone()),
        };
        let report = match &units {
            None => to_image(&part.disk, to, &image, self.progress)?,
            Some(name) => {
                let path = self.shelf.dir.join(name);
                let keep = units::Keep::create(path, part.disk.len(), self.progress)?;
                let report = to_image(&part.disk, to, &image, &keep)?;
                keep.finish()?;
                report
            }
        };
        if let Some(split) = split {
            split.finish()?;
        }
        let Some(digest) = report.digest else {
            return Err(DiskError::unsupported("computing a digest").file(&name));
        };
        if let Some(expected) = &part.expected {
            compare(&digest, expected, &name)?;
        }
        self.written = self.written.saturating_add(report.written);
        for file in &report.files {
            let name = file.file_name().unwrap_or_default();
            self.shelf.finished(&name.to_string_lossy(), None)?;
        }
        if let Some(units) = &units {
            self.shelf.finished(units, None)?;
        }
        Ok(DiskEntry {
            place: part.slot.map(|s| s.to_string()),
            file: name,
            format: format_name(&format).to_owned(),
            virtual_size: report.virtual_size,
            digest: digest.into(),
            units,
            parent: None,
            chain: part.chain.clone(),
        })
    }

    fn name(&self, number: usize, part: &DiskPart, extension: &str) -> String {
        let stem = &self.parts.stem;
        match (self.options.naming, part.slot) {
            (Naming::Vcb, Some(slot)) => {
                format!("{}-0-{stem}.{extension}", slot.in_path())
            }
            _ if number == 0 => format!("{stem}.{extension}"),
            _ => format!("{stem}_{number}.{extension}"),
        }
    }

    /// Writes what changed, as a child of the earlier backup's disk.
    fn increment(
        &mut self,
        part: &DiskPart,
        base: &Base,
        since: &SinceEntry,
        format: &ImageFormat,
        name: String,
    ) -> Result<DiskEntry> {
        let ImageFormat::Vmdk(vmdk) = format else {
            return Err(DiskError::refused("writing what changed since a backup")
                .expected("VMDK: other formats have no children here")
                .found(format_name(format)));
        };
        let mut vmdk = vmdk.clone();
        vmdk.identity.parent = Some((base.cid, format!("../{}/{}", since.directory, base.file)));
        let dir = &self.shelf.dir;
        let units = format!("{name}{}", units::EXTENSION);
        let workers = self.options.workers;
        let found = since::find(&part.disk, base, dir.join(&units), workers, self.progress)?;
        if let Some(expected) = &part.expected {
            compare(&found.digest, expected, &name)?;
        }
        let options = ChildOptions {
            force: false,
            workers,
            sources: self.parts.sources.clone(),
            sync_later: true,
        };
        let quiet = Quiet(self.progress);
        let path = dir.join(&name);
        let written = child(&part.disk, &found.ranges, &path, &vmdk, &options, &quiet)?;
        self.written = self.written.saturating_add(written.written);
        self.read = self.read.saturating_add(found.read);
        for file in &written.files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            self.shelf.sync_later(&name);
            // One flat hash of it would take as long as all that was read to find what changed.
            self.shelf.finished(&name, Some(DigestKind::Vmdkit))?;
        }
        self.shelf.sync_later(&units);
        self.shelf.finished(&units, None)?;
        Ok(DiskEntry {
            place: part.slot.map(|s| s.to_string()),
            file: name,
            format: "vmdk".into(),
            virtual_size: part.disk.len(),
            digest: found.digest.into(),
            units: Some(units),
            parent: Some(base.file.clone()),
            chain: part.chain.clone(),
        })
    }

    fn machine(&mut self, machine: &MachinePart) -> Result<()> {
        let mut config = machine.config.clone();
        let disks = self
            .disks
            .iter()
            .filter_map(|(slot, entry)| Some(((*slot)?, entry.file.clone())));
        let disks: Vec<(Slot, String)> = disks.collect();
        rewrite::rewrite(&mut config, &disks, &machine.changes);
        for (name, disk) in &machine.files {
            let path = self.shelf.dir.join(name);
            let fail = |e| write_error("writing", &path, &e);
            let mut file = File::create_new(&path).map_err(fail)?;
            let mut at = 0;
            let mut buf = vec![0; 1 << 20];
            while at < disk.len() {
                if self.progress.cancelled() {
                    return Err(cancelled());
                }
                let n = (disk.len() - at).min(buf.len() as u64);
                let part = &mut buf[..usize::try_from(n).unwrap_or(0)];
                disk.read_exact_at(part, at)?;
                file.write_all(part).map_err(fail)?;
                at += n;
            }
            file.sync_all().map_err(fail)?;
            self.shelf.finished(name, None)?;
        }
        self.text(&machine.entry.config, &config.to_text())
    }

    /// Writes a file of text; whoever writes it says that it is finished. It is synced at the end.
    fn put(&self, name: &str, text: &str) -> Result<()> {
        let path = self.shelf.dir.join(name);
        let fail = |e| write_error("writing", &path, &e);
        let mut file = File::create_new(&path).map_err(fail)?;
        self.shelf.sync_later(name);
        file.write_all(text.as_bytes()).map_err(fail)
    }

    fn text(&self, name: &str, text: &str) -> Result<()> {
        self.put(name, text)?;
        self.shelf.finished(name, None)
    }

    /// Writes VCB's catalog and the manifest, which names every file.
    fn manifest(&self, mut manifest: Manifest) -> Result<Manifest> {
        if let Some(vm) = &manifest.vm {
            let catalog = catalog(vm, &manifest.created, &self.disks);
            self.text("catalog", &catalog)?;
        }
        manifest.files = self.shelf.entries();
        self.put(manifest::NAME, &manifest.to_text()?)?;
        self.shelf.drain(manifest::NAME)?;
        Ok(manifest)
    }
}

/// Passes on the wish to stop and nothing else.
struct Quiet<'a>(&'a dyn Progress);

impl Progress for Quiet<'_> {
    fn advance(&self, _: u64) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// The catalog of VMware Consolidated Backup: lines of `key= "value"`, which old restore
/// scripts read.
fn catalog(vm: &VmEntry, created: &str, disks: &[(Option<Slot>, DiskEntry)]) -> String {
    let mut text = String::new();
    let mut put = |key: &str, value: &str| {
        let value = value.replace('"', "|22");
        text.push_str(&format!("{key}= \"{value}\"\n"));
    };
    put("version", "esx-3.0");
    put("display_name", &vm.name);
    put("uuid", vm.uuid.as_deref().unwrap_or_default());
    put("guestos", vm.guest_os.as_deref().unwrap_or_default());
    put("timestamp", created);
    put("config.vmx", &format!("[] {}", vm.config));
    for (slot, entry) in disks {
        if let Some(slot) = slot {
            put(&format!("disk.{slot}.filename"), &entry.file);
            put(
                &format!("disk.{slot}.diskname"),
                &format!("[] {}", entry.file),
            );
        }
    }
    text
}

fn format_name(format: &ImageFormat) -> &'static str {
    match format {
        ImageFormat::Raw => "raw",
        ImageFormat::Vmdk(_) => "vmdk",
        ImageFormat::Portable(portable) => portable.format.name(),
    }
}
