//! Opening an image, whatever it is.

use crate::{
    Format,
    chain::{Chain, Link},
    probe::probe,
    qcow2::Snapshot,
};
use disk_io::{Disk, DiskError, Layered, Memory, Opened, Result};
use std::sync::Arc;

/// How to open.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Take SOURCE for this format instead of looking (`--format`).
    pub format: Option<Format>,
    /// What readers may keep in memory; the process's own if absent.
    pub memory: Option<Arc<Memory>>,
    /// Open this internal snapshot instead of the present state: `id:N`, `name:TEXT`, or a
    /// bare word that is either (qcow2).
    pub snapshot: Option<String>,
    /// Which disk of a package: its id, its file's name, or its place (`scsi0:0`). Needed
    /// where there are several.
    pub disk: Option<String>,
    /// How long a compressed disk of a package may become; [`crate::ova::UNPACK_LIMIT`] if
    /// absent. It is unpacked into a temporary file.
    pub unpack_limit: Option<u64>,
    /// What only concerns VMDKs, and two things that concern every chain: `ignore_cid` goes
    /// on where a parent of any format is not the one its child was made from, and `parent`
    /// is used where a parent is missing or does not match.
    pub vmdk: vmdk::OpenOptions,
}

/// An opened image.
#[derive(Debug)]
pub struct Image {
    /// What it is.
    pub format: Format,
    /// Its contents.
    pub disk: Arc<dyn Disk>,
    /// The same with its layers, for `map`.
    pub layered: Option<Arc<Layered>>,
    /// The VMDK with its descriptors and extents, if it is one.
    pub vmdk: Option<vmdk::Image>,
    /// Its files, the newest first.
    pub links: Vec<Link>,
    /// Its internal snapshots (qcow2).
    pub snapshots: Vec<Snapshot>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Whether something was recognised or forced. If not, it is a raw disk only if a
    /// partition table or a file system is found on it, which is for the caller to look for.
    pub believed: bool,
}

/// Opens `source` as what its contents say it is, and everything it is made of. Parents
/// and data files are looked up in `source.dir`.
///
/// Unsupported, naming it, for what is recognised and not read; Corrupt for what carries a
/// format's signature and breaks its rules. Neither ever falls through to raw.
pub fn open(source: Opened, options: &OpenOptions) -> Result<Image> {
    let found = match options.format {
        Some(format) => Some(format),
        None => probe(&*source.disk).map_err(|e| e.file(source.path.display()))?,
    };
    let format = found.unwrap_or(Format::Raw);
    if let Some(wanted) = options
        .snapshot
        .as_deref()
        .filter(|_| format != Format::Qcow2)
    {
        return Err(DiskError::not_found("choosing a snapshot")
            .file(source.path.display())
            .expected(wanted.to_string())
            .found(format!(
                "a {}, which has no internal snapshots",
                format.title()
            )));
    }
    let raw = source.disk.clone();
    let mut chain = Chain::new(options);
    chain.open(source, format)?;
    let memory = chain.memory();
    let Chain {
        layers,
        links,
        warnings,
        snapshots,
        vmdk,
        capacity,
        ..
    } = chain;
    if layers.is_empty() {
        return Err(DiskError::corrupt("opening the image").found("no layer"));
    }
    let mut warnings = warnings;
    if let (Some(said), Some(first)) = (capacity, layers.first())
        && said != first.len()
    {
        warnings.push(format!(
            "the package's descriptor says that the disk has {said} bytes, and it has {}",
            first.len()
        ));
    }
    let layered = match &vmdk {
        Some(image) => image.disk(),
        None => Arc::new(Layered::new(layers, memory)?),
    };
    // A raw disk needs no map, and its own runs are the better ones.
    let disk: Arc<dyn Disk> = match format {
        Format::Raw => raw,
        _ => layered.clone(),
    };
    Ok(Image {
        format,
        disk,
        layered: Some(layered),
        vmdk,
        links,
        snapshots,
        warnings,
        believed: found.is_some(),
    })
}
