//! What of an image and its chain can be checked, opened as far as that goes.

use crate::{
    Format, OpenOptions,
    chain::Chain,
    ova::{Package, UNPACK_LIMIT},
    probe::probe,
    qcow2, vdi, vhd, vhdx,
};
use disk_io::{BlockMap, DiskError, ErrorKind, Finding, Opened, Result, finding::Visit};
use std::{path::PathBuf, sync::Arc};

/// One file (or VMDK link) of a chain: its map is for the caller to walk.
#[derive(Debug)]
pub struct CheckedLayer {
    /// Its file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Where its bytes live.
    pub map: Arc<dyn BlockMap>,
    /// The VMDK link, whose own check wants the map to have been walked.
    pub link: Option<vmdk::Link>,
}

/// A disk with its chain, the newest layer first.
#[derive(Debug)]
pub struct CheckedDisk {
    /// What the package calls it; `None` where SOURCE is the disk.
    pub name: Option<String>,
    /// As many layers as could be opened.
    pub layers: Vec<CheckedLayer>,
    /// Whether these are all that there are, down to a base. If not, together they are not the
    /// disk: what a lost one has would read as what is below it, or as zeros.
    pub whole: bool,
}

/// Opens what can be opened of `source` and visits what is wrong with its structure, except
/// what the layers' maps say. `step` is told how many bytes of which file were read.
///
/// # Errors
/// Where the device fails, and for formats that are recognised and not read: damage is
/// visited.
pub fn check(
    source: &Opened,
    options: &OpenOptions,
    step: &mut dyn FnMut(&str, u64),
    visit: Visit<'_>,
) -> Result<(Format, Vec<CheckedDisk>)> {
    let found = match options.format {
        Some(format) => Some(format),
        None => probe(&*source.disk).map_err(|e| e.file(source.path.display()))?,
    };
    let format = found.unwrap_or(Format::Raw);
    let disks = match format {
        Format::Ova | Format::Ovf => package(source, format, options, step, visit),
        _ if !format.is_read() => {
            // Not damage: it is only not read here.
            return Err(DiskError::unsupported("checking the image")
                .file(source.path.display())
                .found(format!("a {}, which is not read", format.title())));
        }
        _ => vec![disk(None, source, format, options, visit)],
    };
    Ok((format, disks))
}

fn disk(
    name: Option<String>,
    source: &Opened,
    format: Format,
    options: &OpenOptions,
    visit: Visit<'_>,
) -> CheckedDisk {
    if format == Format::Vmdk {
        let checked = vmdk::check_chain(source.clone(), &options.vmdk, visit);
        let layers = checked.links.into_iter().map(|link| CheckedLayer {
            path: link.path.clone(),
            format,
            map: link.block_map(),
            link: Some(link),
        });
        return CheckedDisk {
            name,
            layers: layers.collect(),
            whole: checked.whole,
        };
    }
    let mut chain = Chain::new(options);
    let opened = chain.open(source.clone(), format);
    for (file, format) in &chain.sources {
        let done = match format {
            Format::Qcow2 => qcow2::check(file, visit),
            Format::Vhd => vhd::check(file, visit),
            Format::Vhdx => vhdx::check(file, visit),
            Format::Vdi => vdi::check(file, visit),
            _ => Ok(()),
        };
        if let Err(e) = done {
            visit(Finding::damage(
                "image-unusable",
                e.file(file.path.display()),
            ));
        }
    }
    let whole = opened.is_ok();
    if let Err(e) = opened {
        let code = match e.kind() {
            ErrorKind::NotFound => "parent-missing",
            _ => "image-unusable",
        };
        visit(Finding::damage(code, e));
    }
    let layers = chain.layers.iter().zip(&chain.links);
    let layers = layers.map(|(map, link)| CheckedLayer {
        path: link.path.clone(),
        format: link.format,
        map: map.clone(),
        link: None,
    });
    CheckedDisk {
        name,
        layers: layers.collect(),
        whole,
    }
}

fn package(
    source: &Opened,
    format: Format,
    options: &OpenOptions,
    step: &mut dyn FnMut(&str, u64),
    visit: Visit<'_>,
) -> Vec<CheckedDisk> {
    let package = match Package::open(source, format) {
        Ok(package) => package,
        Err(e) => {
            visit(Finding::damage("package-unusable", e));
            return Vec::new();
        }
    };
    match package.verify_manifest(step) {
        Err(e) => visit(Finding::damage("manifest-unreadable", e)),
        Ok(None) => {
            let e = DiskError::not_found("looking for the manifest")
                .file(source.path.display())
                .found("none: the files are not known to be what was exported");
            visit(Finding::note("manifest-missing", e));
        }
        Ok(Some(lines)) => {
            for file in package.unlisted(&lines) {
                let e = DiskError::not_found("looking for a file in the manifest")
                    .file(&file)
                    .expected("a line with its digest")
                    .found("none: it is not known to be what was exported");
                visit(Finding::note("manifest-incomplete", e));
            }
            for e in lines.into_iter().filter_map(|l| l.problem) {
                let code = match e.kind() {
                    ErrorKind::NotFound => "member-missing",
                    _ => "digest-differs",
                };
                visit(Finding::damage(code, e));
            }
        }
    }
    let mut disks = Vec::new();
    for described in &package.descriptor.disks {
        if described.file.is_none() {
            continue;
        }
        if options.disk.as_deref().is_some_and(|d| {
            !package
                .choose(Some(d))
                .is_ok_and(|chosen| chosen.id == described.id)
        }) {
            continue;
        }
        let limit = options.unpack_limit.unwrap_or(UNPACK_LIMIT);
        let opened = match package.open_disk(described, limit) {
            Ok(opened) => opened,
            Err(e) => {
                let code = match e.kind() {
                    ErrorKind::NotFound => "member-missing",
                    _ => "member-unusable",
                };
                visit(Finding::damage(code, e));
                continue;
            }
        };
        let found = match probe(&*opened.disk) {
            Ok(found) => found.unwrap_or(Format::Raw),
            Err(e) => {
                visit(Finding::damage("member-unusable", e));
                continue;
            }
        };
        let inner = OpenOptions {
            format: None,
            disk: None,
            ..options.clone()
        };
        let name = Some(described.id.clone());
        let disk = disk(name, &opened, found, &inner, visit);
        if let (Some(said), Some(layer)) = (described.capacity, disk.layers.first())
            && said != layer.map.len()
        {
            let e = DiskError::corrupt("comparing a disk with the package's descriptor")
                .file(opened.path.display())
                .expected(format!("{said} bytes"))
                .found(layer.map.len().to_string());
            visit(Finding::warning("capacity-differs", e));
        }
        disks.push(disk);
    }
    disks
}
