//! The disks of a backup.

use convert::backup::{DiskEntry, Manifest};
use disk_image::{Format, ova::Package};
use disk_io::{Result, error::escape};
use proxy::SourceSpec;
use std::path::Path;

/// A disk of SOURCE.
pub(super) struct Member {
    /// Its place in the machine, or its file.
    pub(super) name: String,
    pub(super) spec: SourceSpec,
    /// What the manifest says of it.
    pub(super) entry: Option<DiskEntry>,
}

/// All of them.
pub(super) fn disks(
    spec: &SourceSpec,
    manifest: Option<&Manifest>,
    dir: Option<&Path>,
) -> Result<Vec<Member>> {
    if let (Some(manifest), Some(dir)) = (manifest.filter(|m| m.vm.is_none()), dir) {
        let disks = manifest.disks.iter().map(|disk| {
            let spec = SourceSpec {
                path: dir.join(&disk.file),
                format: spec.format.or(spec.format_of(Path::new(&disk.file))),
                ..spec.clone()
            };
            Member {
                name: disk.file.clone(),
                spec,
                entry: Some(disk.clone()),
            }
        });
        return Ok(disks.collect());
    }
    let machines = match spec.disk.is_some() {
        true => None,
        false => spec.machines()?,
    };
    let Some(machines) = machines else {
        if let Some(disks) = package_disks(spec)? {
            return Ok(disks);
        }
        let name = escape(&spec.path.display().to_string());
        let spec = spec.clone();
        return Ok(vec![Member {
            name,
            spec,
            entry: None,
        }]);
    };
    let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
    let wanted = spec.snapshot.clone().filter(|_| !date_used);
    let point = machine.point(wanted.as_deref())?;
    let disks = point.disks.iter();
    let disks = disks.filter(|d| machine.raw_device(d).is_none()).map(|d| {
        let place = d.slot.to_string();
        let entry = manifest.filter(|_| point.is_current());
        let entry = entry.and_then(|m| m.disks.iter().find(|e| e.place.as_ref() == Some(&place)));
        let spec = SourceSpec {
            disk: Some(place.clone()),
            in_turn: true,
            ..spec.clone()
        };
        Member {
            name: place,
            spec,
            entry: entry.cloned(),
        }
    });
    Ok(disks.collect())
}

/// The disks of a package, if SOURCE is one and none is chosen.
fn package_disks(spec: &SourceSpec) -> Result<Option<Vec<Member>>> {
    let opened = spec.locate()?.opened;
    let format = match spec.format {
        Some(format) => Some(format),
        None => disk_image::probe(&*opened.disk)?,
    };
    let Some(format @ (Format::Ova | Format::Ovf)) = format else {
        return Ok(None);
    };
    if spec.disk.is_some() {
        return Ok(None);
    }
    // One that cannot be opened is for the check to tell.
    let Ok(package) = Package::open(&opened, format) else {
        return Ok(None);
    };
    let disks = package.descriptor.disks.iter().filter(|d| d.file.is_some());
    let disks = disks.map(|d| {
        let spec = SourceSpec {
            disk: Some(d.id.clone()),
            ..spec.clone()
        };
        Member {
            name: d.id.clone(),
            spec,
            entry: None,
        }
    });
    Ok(Some(disks.collect()))
}
