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
    /// Those of them after which the disk's contents are not to be relied on.
    pub doubts: Vec<String>,
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
    chain.check_lengths();
    let memory = chain.memory();
    let Chain {
        layers,
        links,
        warnings,
        doubts,
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
        doubts,
        believed: found.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Files;
    use disk_io::{ErrorKind, conformance};

    #[test]
    fn raw_is_believed_only_when_forced() {
        let bytes = vec![3; 5000];
        let files = Files::new(&[("a", bytes.clone())]);
        let image = files.image("a", &OpenOptions::default()).unwrap();
        assert_eq!((image.format, image.believed), (Format::Raw, false));
        conformance::check(&*image.disk, &bytes);
        let forced = OpenOptions {
            format: Some(Format::Raw),
            ..OpenOptions::default()
        };
        assert!(files.image("a", &forced).unwrap().believed);
        conformance::check(
            &*files.image("a", &forced).unwrap().layered.unwrap(),
            &bytes,
        );
    }

    /// Whatever carries a signature is an error that names it, never a raw disk; and raw
    /// all the same when the user says so.
    #[test]
    fn nothing_recognised_falls_through_to_raw() {
        for (head, name, kind) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip", ErrorKind::Unsupported),
            (b"\xfd7zXZ\0", "xz", ErrorKind::Unsupported),
            (b"QFI\xfb\0\0\0\x01", "version 1", ErrorKind::Unsupported),
            (b"QED\0", "QED", ErrorKind::Unsupported),
            (b"LUKS\xba\xbe", "LUKS", ErrorKind::Unsupported),
            (b"EVF\x09\x0d\x0a\xff\0", "E01", ErrorKind::Unsupported),
            (b"QFI\xfb\0\0\0\x03", "qcow2", ErrorKind::Corrupt),
            (b"vhdxfile", "VHDX", ErrorKind::Corrupt),
            (b"conectix", "VHD", ErrorKind::Corrupt),
            (
                b"<<< Oracle VM VirtualBox Disk Image >>>",
                "VDI",
                ErrorKind::Corrupt,
            ),
            (b"<ovf:Envelope>", "OVF", ErrorKind::Corrupt),
        ] {
            let mut bytes = head.to_vec();
            bytes.resize(300_000, 0);
            let files = Files::new(&[("a", bytes.clone())]);
            let e = files.image("a", &OpenOptions::default()).unwrap_err();
            assert_eq!(e.kind(), kind, "{name}: {e}");
            assert!(e.to_string().contains(name), "{name}: {e}");
            let forced = OpenOptions {
                format: Some(Format::Raw),
                ..OpenOptions::default()
            };
            conformance::check(&*files.image("a", &forced).unwrap().disk, &bytes);
        }
    }

    #[test]
    fn a_wrong_format_that_is_forced_is_an_error() {
        let files = Files::new(&[("a", vec![3; 300_000])]);
        for format in Format::read().filter(|f| *f != Format::Raw) {
            let forced = OpenOptions {
                format: Some(format),
                ..OpenOptions::default()
            };
            let e = files.image("a", &forced).unwrap_err();
            assert!(
                matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                "{format}: {e:?}"
            );
        }
    }

    #[test]
    fn a_failing_disk_is_an_io_error() {
        let disk = Arc::new(disk_io::MemDisk::new(vec![0; 4096]));
        let mut source = disk_io::Locate::open(
            &Files::new(&[("a", vec![])]),
            std::path::Path::new("a"),
            disk_io::Purpose::Extent,
        )
        .unwrap();
        source.disk = Arc::new(disk_io::faults::FailRange::new(disk, 0..512));
        let e = open(source, &OpenOptions::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
    }
}
