//! Every real VMDK, its extents and descriptors: the recorded contents, or the right error.

use crate::walk;
use disk_image::{Format, OpenOptions};
use disk_io::{DiskError, ErrorKind, HostDir, host_dir::Allowed};
use std::{path::Path, time::Instant};
use tests::{images, say};

/// What becomes of those that have no recorded contents, with the reason.
const EXPECTED: &[(&str, Expected)] = &[
    // Flat data and a saved web page: nothing that we know, so no VMDK and not believed.
    (
        "vmdk/vmdk-rs/monolithicFlat-flat.vmdk",
        Expected::NotAnImage,
    ),
    (
        "vmdk/vmdk-rs/twoGbMaxExtentFlat-f001.vmdk",
        Expected::NotAnImage,
    ),
    ("vmdk/vmdk-rs/vmfs_thick-flat.vmdk", Expected::NotAnImage),
    ("vmdk/go-vcloud-director/Ubuntu1.vmdk", Expected::NotAnImage),
    (
        "vmdk/plaso/multi_partition_image.vmdk",
        Expected::NotAnImage,
    ),
    // A sparse extent without a descriptor, opened on its own: the whole of its disk.
    (
        "vmdk/vmdk-rs/twoGbMaxExtentSparse-s001.vmdk",
        Expected::Contents("a3bcf05f07a1c06a3380eeca8571f0efb2b85afafa1e21662b8cad436d1f7727"),
    ),
    // Descriptors whose extents were not collected, or are devices of Windows'.
    (
        "descriptors/mfd-esxi/Base_R91-000001.vmdk",
        Expected::Error(ErrorKind::NotFound, "sesparse"),
    ),
    (
        "descriptors/mfd-esxi/Base_R91.vmdk",
        Expected::Error(ErrorKind::NotFound, "flat"),
    ),
    (
        "descriptors/vmdk-text/metasploitable3-win-twoGbMaxExtentSparse.vmdk",
        Expected::Error(ErrorKind::NotFound, "s001"),
    ),
    (
        "descriptors/vmdk-text/sq8vps-a.vmdk",
        Expected::Error(ErrorKind::Refused, "PhysicalDrive"),
    ),
    (
        "descriptors/vmdk-text/sq8vps-b.vmdk",
        Expected::Error(ErrorKind::Refused, "PhysicalDrive"),
    ),
    (
        "descriptors/vmdk-text/sq8vps-c.vmdk",
        Expected::Error(ErrorKind::Refused, "PhysicalDrive"),
    ),
    (
        "vmdk/vmdk-rs/vmfs_thick-000001.vmdk",
        Expected::Error(ErrorKind::NotFound, "vmfs_thick-000001-delta.vmdk"),
    ),
    (
        "vmdk/vmdk-rs/old-1.vmdk",
        Expected::Error(ErrorKind::NotFound, ".vmdk"),
    ),
    (
        "vmdk/vmdk-rs/old-2.vmdk",
        Expected::Error(ErrorKind::NotFound, ".vmdk"),
    ),
    (
        "vmdk/vmdk-rs/old-3.vmdk",
        Expected::Error(ErrorKind::NotFound, ".vmdk"),
    ),
    (
        "vmdk/vmdk-rs/old-4.vmdk",
        Expected::Error(ErrorKind::NotFound, ".vmdk"),
    ),
    // Its extent was replaced by a shorter one since.
    (
        "vmdk/vmdk-rs/old-vmfs_thick.vmdk",
        Expected::Error(ErrorKind::Corrupt, "cut short"),
    ),
    // Damaged on purpose: the text of the embedded descriptor was taken out, so that all
    // behind it lies 349 bytes too early; and one made by a fuzzer.
    (
        "vmdk/go-vmdk-parser/vmdk-invalid.img",
        Expected::Error(ErrorKind::Corrupt, "descriptor"),
    ),
    (
        "vmdk/qemu/afl9.vmdk",
        Expected::Error(ErrorKind::Corrupt, "numGTEsPerGT"),
    ),
];

#[derive(Debug)]
enum Expected {
    /// SHA-256 of the virtual disk.
    Contents(&'static str),
    /// Nothing recognised; not taken for a disk without being told.
    NotAnImage,
    /// The kind, and a word that names the thing.
    Error(ErrorKind, &'static str),
}

/// The virtual disk's hash, or `None` where nothing was recognised.
fn open(path: &Path) -> Result<(Format, u64, Option<String>), DiskError> {
    let opened = HostDir::open_source(path, &Allowed::default())?;
    let image = disk_image::open(opened, &OpenOptions::default())?;
    let len = image.disk.len();
    if !image.believed {
        return Ok((image.format, len, None));
    }
    Ok((image.format, len, Some(walk::hash(&*image.disk)?)))
}

#[test]
fn every_vmdk_gives_its_contents_or_the_right_error() {
    let Some(images) = images::images() else {
        return;
    };
    let mut wrong = Vec::new();
    let mut rows = Vec::new();
    for image in &images.index {
        let is_vmdk = image.format.starts_with("vmdk") || image.path.ends_with(".vmdk");
        if !is_vmdk {
            continue;
        }
        let begun = Instant::now();
        let found = open(&images.path(image));
        let took = begun.elapsed().as_millis();
        let shown = match &found {
            Ok((format, len, Some(hash))) => format!("{} {len} {}", format.name(), &hash[..12]),
            Ok((_, _, None)) => "not recognised".into(),
            Err(e) => format!("{}: {e}", e.kind().as_str())
                .replace(&images.root.display().to_string(), ""),
        };
        let recorded = image.virtual_sha256.as_deref();
        let listed = EXPECTED
            .iter()
            .find(|(path, _)| *path == image.path)
            .map(|(_, e)| e);
        let right = match (&found, recorded, listed) {
            (Ok((_, len, Some(hash))), Some(recorded), None) => {
                hash == recorded && image.virtual_size.is_none_or(|v| v == *len)
            }
            (Ok((_, _, Some(hash))), _, Some(Expected::Contents(expected))) => hash == expected,
            (Ok((_, _, None)), None, Some(Expected::NotAnImage)) => true,
            (Err(e), None, Some(Expected::Error(kind, word))) => {
                e.kind() == *kind && e.to_string().contains(word)
            }
            _ => false,
        };
        rows.push(format!("{:<60} {} ({took} ms)", image.path, shown));
        if !right {
            let recorded = recorded.map_or_else(|| format!("{listed:?}"), str::to_owned);
            wrong.push(format!(
                "{}: found {shown}, expected {recorded}",
                image.path
            ));
        }
    }
    say!("VMDK images: {}\n{}", rows.len(), rows.join("\n"));
    assert!(rows.len() > 30, "the index lists VMDKs");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
