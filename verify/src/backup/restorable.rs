//! Whether a machine could be made of it, at a given place.

use super::{Item, picture::Picture};
use disk_io::{DiskError, Result, error::escape};
use proxy::SourceSpec;
use std::path::Path;

/// What a restore needs besides right bytes; and what should be known of it.
pub(super) fn look(
    spec: &SourceSpec,
    is_machine: bool,
    pictures: &[Picture],
    target: Option<&Path>,
) -> Result<(Vec<Item>, Vec<String>)> {
    let (mut items, mut remarks) = (Vec::new(), Vec::new());
    let doing = "looking whether a machine can be made of it";
    let machines = match is_machine && spec.disk.is_none() {
        true => spec.machines()?,
        false => None,
    };
    let mut name = None;
    if let Some(machines) = machines {
        let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
        let wanted = spec.snapshot.clone().filter(|_| !date_used);
        let point = machine.point(wanted.as_deref())?;
        let problem = point.disks.is_empty().then(|| {
            DiskError::corrupt(doing)
                .code("machine-without-disks")
                .expected("a disk")
                .found("none in its configuration")
        });
        items.push(Item::new("configuration".into(), problem));
        for disk in &point.disks {
            if let Some(device) = machine.raw_device(disk) {
                remarks.push(format!(
                    "{}: its data is on the LUN {}, which no backup of files has",
                    disk.slot,
                    escape(device)
                ));
            }
        }
        name = Some(machine.vm().name());
    }
    if is_machine && !pictures.is_empty() && pictures.iter().all(|p| p.boot.is_none()) {
        remarks.push("no disk has a boot sector with a loader that is known here".into());
    }
    if let Some(target) = target {
        items.push(Item::new(
            format!("room at {}", target.display()),
            room(target, pictures, name.as_deref())?,
        ));
    }
    Ok((items, remarks))
}

/// Free space for every disk, and no directory of the machine's name.
fn room(target: &Path, pictures: &[Picture], name: Option<&str>) -> Result<Option<DiskError>> {
    let doing = "looking for room for a restore";
    let fail = |e: &std::io::Error| DiskError::io(doing, e).file(target.display());
    let found = match std::fs::metadata(target) {
        Ok(found) => found,
        // Of the backup itself that says nothing.
        Err(e) => return Ok(Some(fail(&e))),
    };
    if !found.is_dir() {
        return Ok(Some(
            DiskError::refused(doing)
                .file(target.display())
                .expected("a directory")
                .found("none"),
        ));
    }
    if let Some(name) = name
        && target.join(name).symlink_metadata().is_ok()
    {
        return Ok(Some(
            DiskError::refused(doing)
                .code("restore-name-taken")
                .file(target.join(name).display())
                .expected("no file of the machine's name")
                .found("one")
                .hint("restore under another name: --name"),
        ));
    }
    let space = rustix::fs::statvfs(target).map_err(|e| fail(&e.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let needed: u64 = pictures.iter().map(|p| p.data).sum();
    Ok((free < needed).then(|| {
        DiskError::refused(doing)
            .code("restore-no-room")
            .file(target.display())
            .expected(format!("{needed} bytes free, for disks that grow"))
            .found(free.to_string())
    }))
}
