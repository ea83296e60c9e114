//! Windows dynamic disks among the members.

use super::{
    Part, Place, Role, Sets, Shown, Under, Whole, checked,
    identity::{copy_of, doubt_of_copy},
};
use crate::source::SourceSpec;
use disk_io::{Disk, error::escape};
use guest_fs::{FsKind, Name, ldm};
use std::sync::Arc;

/// A member of a dynamic disk group, as it says.
struct Dynamic {
    on: usize,
    disk: Arc<dyn Disk>,
    /// The group's identity and the disk's.
    id: Option<(String, String)>,
}

impl Dynamic {
    /// Whether the newest database of a group knows the disk.
    fn is_of(&self, wanted: &ldm::Group) -> bool {
        let known = |(group, disk): &(String, String)| {
            *group == wanted.uuid && wanted.members.contains(disk)
        };
        self.id.as_ref().is_some_and(known)
    }

    /// What no other disk is called. One that does not say is like no other.
    fn name(&self) -> String {
        match &self.id {
            Some((group, disk)) => format!("{group} {disk}"),
            None => format!("disk {}", self.on),
        }
    }
}

impl Sets {
    /// Lists the volumes of dynamic disk groups, and marks the parts of `parts` that they lie on.
    pub(super) fn ldm(&mut self, wholes: &[Whole<'_>], parts: &mut [Part], spec: &SourceSpec) {
        let dynamic = |whole: &Whole<'_>| whole.table.is_some_and(|t| t.dynamic);
        let all = wholes.iter().zip(0usize..).filter(|(w, _)| dynamic(w));
        let all: Vec<Dynamic> = all
            .map(|(whole, on)| Dynamic {
                on,
                disk: whole.disk.clone(),
                id: ldm::identity_of(whole.disk),
            })
            .collect();
        if all.is_empty() {
            return;
        }
        let ids: Vec<(usize, String)> = all.iter().map(|d| (d.on, d.name())).collect();
        let aside = self.set_aside(wholes, &ids);
        let used = all.iter().zip(&aside).filter(|(_, aside)| !**aside);
        let used: Vec<&Dynamic> = used.map(|(dynamic, _)| dynamic).collect();
        let disks: Vec<Arc<dyn Disk>> = used.iter().map(|d| d.disk.clone()).collect();
        let found = ldm::scan(&disks);
        let failed = found.failed.iter();
        self.warnings.extend(failed.map(ToString::to_string));
        let source = used.iter().filter(|d| d.on == 0);
        let under: Under = source.map(|d| (0, d.disk.clone())).collect();
        let own = ids.iter().find(|(on, _)| *on == 0);
        let copy = own.and_then(|(_, id)| copy_of(wholes, &ids, id));
        for group in found.groups {
            let holders = used.iter().filter(|d| d.is_of(&group));
            let holders: Vec<usize> = holders.map(|d| d.on).collect();
            let copy = copy.filter(|_| holders.contains(&0) && holders.len() > 1);
            let shown = match self.shown(wholes, &holders) {
                Shown::With(_) if copy.is_some() => Shown::Nowhere,
                shown => shown,
            };
            let members = parts.iter_mut().filter(|p| p.role == Role::Ldm);
            for part in members.filter(|p| holders.contains(&p.on)) {
                part.shown = shown;
            }
            self.lacking |= holders.contains(&0) && !group.missing.is_empty();
            if shown != Shown::Here {
                continue;
            }
            let what = format!("the dynamic disk group {}", escape(&group.name));
            self.group(&what, &group.remarks, &group.missing);
            for volume in &group.volumes {
                let missing = match volume.complete() {
                    true => Vec::new(),
                    false => volume.missing(),
                };
                let refusal = volume.refusal.clone();
                let opened = checked(&what, refusal, &missing, spec).and_then(|()| volume.open());
                let place = Place {
                    kind: FsKind::Ldm,
                    directories: vec![Name::from("ldm"), Name::from(group.name.as_str())],
                    name: Name::from(volume.name.as_str()),
                    len: volume.len,
                    doubts: [
                        volume.doubts.clone(),
                        copy.map(doubt_of_copy).into_iter().collect(),
                    ]
                    .concat(),
                    pieces: volume.pieces(),
                    under: under.clone(),
                };
                self.logical(place, opened, spec);
            }
        }
    }
}
