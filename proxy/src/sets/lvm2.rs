//! Physical volumes of LVM2 among the members.

use super::{
    Part, Place, Role, Sets, Shown, Under, Whole, checked,
    identity::{copy_of, doubt_of_copy},
};
use crate::source::SourceSpec;
use disk_io::{Disk, error::escape};
use guest_fs::{
    FsKind, Name,
    lvm2::{self, label::PhysicalVolume},
    volume,
};
use std::sync::Arc;

impl Sets {
    /// Finds physical volumes among `parts`, marks them, and lists their logical volumes.
    pub(super) fn lvm2(&mut self, wholes: &[Whole<'_>], parts: &mut [Part], spec: &SourceSpec) {
        let (mut arrays, mut physical) = (Vec::new(), Vec::new());
        for (n, part) in parts.iter_mut().enumerate() {
            if part.role != Role::Plain {
                continue;
            }
            match PhysicalVolume::read(&part.disk) {
                Ok(Some(pv)) => {
                    part.role = Role::Lvm2;
                    arrays.extend(volume::doubt_of_array(&part.disk).map(|doubt| (n, doubt)));
                    physical.push((n, part.on, pv.uuid));
                }
                Ok(None) => {}
                // A place that cannot be read is told by who reads it.
                Err(e) if e.kind() == disk_io::ErrorKind::Io => {}
                Err(e) => self.warnings.push(e.to_string()),
            }
        }
        if physical.is_empty() {
            return;
        }
        let ids = physical.iter().map(|(_, on, id)| (*on, id.clone()));
        let ids: Vec<(usize, String)> = ids.collect();
        let mut aside = self.set_aside(wholes, &ids).into_iter();
        physical.retain(|_| !aside.next().unwrap_or(false));
        let used = physical.iter().filter_map(|(n, _, _)| parts.get(*n));
        let disks: Vec<Arc<dyn Disk>> = used.map(|part| part.disk.clone()).collect();
        let found = match lvm2::scan(&disks) {
            Ok(found) => found,
            Err(e) => return self.warnings.push(e.to_string()),
        };
        self.group("LVM2", &found.remarks, &[]);
        let own = parts
            .iter()
            .filter(|p| p.on == 0 && p.role == Role::Lvm2)
            .map(|p| (p.partition.as_ref().map_or(0, |p| p.start), p.disk.clone()));
        let under: Under = own.collect();
        for group in found.groups {
            let members = physical.iter();
            let members = members.filter(|(_, _, id)| group.members.contains(id));
            let members: Vec<&(usize, usize, String)> = members.collect();
            let on: Vec<usize> = members.iter().map(|(_, on, _)| *on).collect();
            let shown = self.shown(wholes, &on);
            let mut copy = None;
            for (n, on, id) in &members {
                let copied = copy_of(wholes, &ids, id).filter(|_| *on == 0);
                copy = copy.or(copied);
                if let Some(part) = parts.get_mut(*n) {
                    part.shown = match shown {
                        Shown::With(_) if copied.is_some() => Shown::Nowhere,
                        // What it held before is not among the group's volumes.
                        _ if group.stale.contains(id) => Shown::Nowhere,
                        shown => shown,
                    };
                }
            }
            let copy = copy.filter(|_| on.iter().any(|on| *on > 0));
            let arrays = arrays
                .iter()
                .filter(|(n, _)| members.iter().any(|(m, _, _)| m == n));
            let arrays: Vec<String> = arrays.map(|(_, doubt)| doubt.clone()).collect();
            let more: Vec<String> = arrays.into_iter().chain(copy.map(doubt_of_copy)).collect();
            let own = members.iter().any(|(_, on, _)| *on == 0);
            self.lacking |= own && !group.missing.is_empty();
            if shown != Shown::Here {
                continue;
            }
            let what = format!("the LVM2 group {}", escape(&group.name));
            self.group(&what, &[], &group.missing);
            for volume in group.volumes.iter().filter(|v| v.visible) {
                let (refusal, missing) = (volume.refusal.clone(), volume.missing());
                let opened = checked(&what, refusal, &missing, spec).and_then(|()| volume.open());
                let place = Place {
                    kind: FsKind::Lvm2,
                    directories: vec![Name::from("lvm"), Name::from(group.name.as_str())],
                    name: Name::from(volume.name.as_str()),
                    len: volume.len,
                    doubts: [volume.doubts.as_slice(), more.as_slice()].concat(),
                    pieces: volume.pieces(),
                    under: under.clone(),
                };
                self.logical(place, opened, spec);
            }
        }
    }
}
