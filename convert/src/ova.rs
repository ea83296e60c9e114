//! A machine or disk as an OVA package, for vSphere, VirtualBox and others to import.
//!
//! Members come in the order that strict readers want: the descriptor, the manifest, the
//! disks in the order in which the descriptor names them, as streamOptimized VMDKs.

mod descriptor;

use crate::{
    backup::{Parts, compare, digest_of},
    digest::DigestKind,
    place::{self, Partial},
    progress::{NoProgress, Progress},
    to_image::{Destination, ImageFormat, ImageOptions, to_image},
};
use disk_io::{Disk, DiskError, HostDir, Result, host_dir::Allowed, output::write_error};
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};
use tar::{Builder, EntryType, Header};

/// A disk of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackagedDisk {
    /// Its member.
    pub name: String,
    /// Length of the member in bytes.
    pub size: u64,
    /// Length of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes of data in it.
    pub populated: u64,
    /// Digest of its contents, as `convert` prints it.
    pub digest: crate::Digest,
}

/// How to write a package.
pub struct Options<'a> {
    /// How each disk is written: a streamOptimized VMDK.
    pub format: &'a dyn Fn() -> Result<ImageFormat>,
    /// Replace the package if it exists.
    pub force: bool,
    /// Threads; 0 means one for every core.
    pub workers: usize,
}

/// Writes a package. It appears when it is complete; the disks lie beside it meanwhile.
///
/// # Errors
/// As [`to_image`]; `Corrupt` if a disk is not what its backup's manifest says.
pub fn write(
    parts: &Parts,
    dest: &Path,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Vec<PackagedDisk>> {
    place::check_not_source(dest, parts.sources.iter().map(PathBuf::as_path))?;
    let partial = Partial::create(dest, options.force)?;
    let scratch = Scratch::beside(dest)?;
    let stem = member_stem(&parts.stem);
    let mut disks = Vec::new();
    let mut manifest = String::new();
    for (n, part) in parts.disks.iter().enumerate() {
        let name = format!("{stem}-disk{}.vmdk", n + 1);
        let path = scratch.0.join(&name);
        let image = ImageOptions {
            format: (options.format)()?,
            workers: options.workers,
            digest: part
                .expected
                .as_ref()
                .and_then(|e| e.kind())
                .unwrap_or(DigestKind::Vmdkit),
            force: false,
            sources: parts.sources.clone(),
            checkpoints: None,
        };
        let report = to_image(&part.disk, Destination::File(&path), &image, progress)?;
        let Some(digest) = report.digest else {
            return Err(DiskError::unsupported("computing a digest").file(&name));
        };
        if let Some(expected) = &part.expected {
            compare(&digest, expected, &name)?;
        }
        let opened = HostDir::open_source(&path, &Allowed::default())?;
        let sum = digest_of(
            &opened.disk,
            DigestKind::Sha256,
            options.workers,
            &NoProgress,
        )?;
        manifest.push_str(&format!("SHA256({name})= {}\n", sum.hex()));
        disks.push(PackagedDisk {
            name,
            size: opened.disk.len(),
            virtual_size: report.virtual_size,
            populated: report.written,
            digest,
        });
    }
    let text = descriptor::text(parts, &disks);
    let name = format!("{stem}.ovf");
    let sum = crate::digest::sha256(text.as_bytes());
    let hex: String = sum.iter().map(|b| format!("{b:02x}")).collect();
    let manifest = format!("SHA256({name})= {hex}\n{manifest}");
    package(&stem, &disks, &text, &manifest, &scratch.0, partial.file())
        .map_err(|e| write_error("writing the package", dest, &e))?;
    if progress.cancelled() {
        return Err(crate::pipeline::cancelled());
    }
    partial.finish()?;
    Ok(disks)
}

/// Names of members are URIs in the descriptor, and lines of text in the manifest.
fn member_stem(stem: &str) -> String {
    let keep = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "._-".contains(c) => c,
        _ => '_',
    };
    let stem: String = stem.chars().map(keep).take(80).collect();
    match stem.trim_start_matches('.') {
        "" => "machine".to_owned(),
        stem => stem.to_owned(),
    }
}

fn package(
    stem: &str,
    disks: &[PackagedDisk],
    descriptor: &str,
    manifest: &str,
    scratch: &Path,
    out: &File,
) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let header = |size: u64| {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(now.as_ref().map_or(0, |n| n.as_secs()));
        header.set_size(size);
        header
    };
    for (end, text) in [("ovf", descriptor), ("mf", manifest)] {
        let mut header = header(text.len() as u64);
        tar.append_data(&mut header, format!("{stem}.{end}"), text.as_bytes())?;
    }
    for disk in disks {
        let mut header = header(disk.size);
        let path = scratch.join(&disk.name);
        tar.append_data(&mut header, &disk.name, File::open(&path)?)?;
        // Room is short where there are several.
        std::fs::remove_file(&path)?;
    }
    tar.into_inner()?.flush()
}

/// A directory for what is not complete; it goes with its contents.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(dest: &Path) -> Result<Self> {
        let dir = match dest.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let path = dir.join(place::temp_name());
        std::fs::create_dir(&path).map_err(|e| {
            DiskError::io("creating a temporary directory", &e).file(path.display())
        })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
