//! Restore points as a path names them: which volumes belong to one, drive letters behind
//! its name (`/snapshots/before/C:/…`), and volumes that its guest mounted in directories.
//!
//! What a letter or a mount point means is asked of the registry of that point's own guest:
//! a letter may have moved since.

use crate::{
    letters::Letters,
    own::{Own, OwnId, OwnTree},
    path,
    resolve::{Resolved, Step},
    tree::{Node, Tree, own_id, own_node},
    volume::Volume,
};
use disk_io::{DiskError, ErrorKind, Result};
use guest_fs::{Name, NodeKind};
use std::sync::Arc;

/// Mount points that one path leads through; Windows follows as many reparse points.
const MOST_HOPS: usize = 63;
/// Dated backups that are looked into to say which of them has a path, the newest first.
const LOOK_INTO: usize = 32;

/// Where drive letters are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// The point whose registry says what they mean.
    pub(crate) point: OwnId,
    /// The disk that has been named, which must have the volume.
    disk: Option<OwnId>,
}

impl Tree {
    /// The restore point that an own entry lies in, or is; the root where it lies in none.
    pub(crate) fn point_above(&self, id: OwnId) -> OwnId {
        let mut at = id;
        while at != OwnTree::ROOT && !self.is_point(at) {
            at = self.own.parent(at);
        }
        at
    }

    fn is_point(&self, id: OwnId) -> bool {
        self.points.iter().any(|(_, (point, _))| *point == id)
    }

    /// The point that a path without one means; the root where there is none.
    pub(crate) fn default_point(&self) -> OwnId {
        self.current.unwrap_or(OwnTree::ROOT)
    }

    /// The volumes of a point. Opens its disks; what cannot be opened is told by
    /// [`Self::closed_at`], and when it is named.
    pub(crate) fn volumes_at(&self, point: OwnId) -> Vec<(Arc<Volume>, OwnId)> {
        for (id, _) in self.own.children(point) {
            if let Some(Own::Disk(_)) = self.own.get(id) {
                let _ = self.place(own_node(id));
            }
        }
        let all = self.volumes.iter().map(|(_, v)| v);
        let mine = all.filter(|(_, door)| self.point_above(*door) == point);
        mine.cloned().collect()
    }

    /// Disks of a point that cannot be opened, with the reason.
    pub(crate) fn closed_at(&self, point: OwnId) -> Vec<(OwnId, DiskError)> {
        let disks = self.own.children(point).map(|(id, _)| id);
        disks
            .filter(|id| matches!(self.own.get(*id), Some(Own::Disk(_))))
            .filter_map(|id| self.place(own_node(id)).err().map(|e| (id, e)))
            .collect()
    }

    /// Drive letters and mount points of a point. Reads registries the first time.
    pub(crate) fn letters_at(&self, point: OwnId) -> &Letters {
        let kept = self.points.iter().map(|(_, kept)| kept);
        let mine = kept.filter(|(id, _)| *id == point).map(|(_, l)| l).next();
        mine.unwrap_or(&self.letters)
            .get_or_init(|| Letters::find(&self.volumes_at(point), &self.own))
    }

    /// Where a drive letter is meant that stands in a directory of the tree's own: in a
    /// point or one of its disks; in a machine its present state is.
    pub(crate) fn scope(&self, dir: OwnId) -> Option<Scope> {
        let whole = |point| Some(Scope { point, disk: None });
        match self.own.get(dir)? {
            Own::Disk(_) => Some(Scope {
                point: self.point_above(dir),
                disk: Some(dir),
            }),
            Own::Directory if self.is_point(dir) => whole(dir),
            Own::Directory if dir == OwnTree::ROOT => match self.current {
                Some(current) => whole(current),
                None => (!self.volumes_at(dir).is_empty()).then_some(Scope {
                    point: dir,
                    disk: None,
                }),
            },
            Own::Directory => {
                let current = self.own.child(dir, &Name::from("current"))?;
                self.is_point(current).then_some(current).and_then(whole)
            }
            _ => None,
        }
    }

    /// The root directory of the volume that `part`, a component of the drive form, means
    /// in `dir`; `None` where it is no drive letter.
    pub(crate) fn drive_in(&self, dir: &Step, part: &[u8], typed: &[u8]) -> Result<Option<Step>> {
        let scope = own_id(dir.node).and_then(|id| self.scope(id));
        let (Some(letter), Some(scope)) = (path::drive_component(part), scope) else {
            return Ok(None);
        };
        let known = self.letters_at(scope.point);
        // The disk that is named may settle what it is.
        let settled = || {
            let disk = scope.disk?;
            let (_, doors) = known.disputed.iter().find(|(l, _)| *l == letter)?;
            let mut here = doors.iter().filter(|door| self.lies_in(**door, disk));
            let first = here.next().copied();
            first.filter(|_| here.next().is_none())
        };
        let door = known
            .of(letter)
            .or_else(settled)
            .ok_or_else(|| self.no_letter(typed, letter, scope.point))?;
        let path = self.own.path(door);
        if let Some(disk) = scope.disk
            && !self.lies_in(door, disk)
        {
            let letter = char::from(letter);
            return Err(DiskError::not_found(format!(
                "{} does not have the letter {letter}",
                dir.path
            ))
            .file(Name::from_bytes(typed))
            .found(format!("{letter}: is {path}"))
            .hint("leave the disk out of the path"));
        }
        let node = own_node(door);
        Ok(Some(Step { node, path }))
    }

    fn lies_in(&self, id: OwnId, dir: OwnId) -> bool {
        let mut at = id;
        while at != dir && at != OwnTree::ROOT {
            at = self.own.parent(at);
        }
        at == dir
    }

    /// Whether a volume of the default point has `name` in its root directory, exactly.
    pub(crate) fn is_a_name(&self, name: &[u8]) -> bool {
        let name = Name::from_bytes(name);
        let volumes = self.volumes_at(self.default_point());
        let mut doors = volumes.iter().map(|(_, door)| own_node(*door));
        doors.any(|door| matches!(self.lookup(door, &name), Ok(Some(_))))
    }

    pub(crate) fn no_letter(&self, typed: &[u8], letter: u8, point: OwnId) -> DiskError {
        let known = self.letters_at(point);
        if let Some((_, doors)) = known.disputed.iter().find(|(l, _)| *l == letter) {
            let doors: Vec<String> = doors
                .iter()
                .map(|d| self.own.path(*d).to_string())
                .collect();
            let said = format!(
                "more than one volume may have the letter {}",
                char::from(letter)
            );
            return DiskError::new(ErrorKind::Ambiguous, said)
                .file(Name::from_bytes(typed))
                .found(doors.join(" and "))
                .hint("name the volume in the path");
        }
        let error =
            DiskError::not_found(format!("no volume has the letter {}", char::from(letter)))
                .file(Name::from_bytes(typed));
        let others: Vec<String> = known
            .letters
            .iter()
            .map(|(l, door)| format!("{}: ({})", char::from(*l), self.own.path(*door)))
            .collect();
        let mut volumes = self.list_volumes_at(point);
        for (disk, _) in self.closed_at(point) {
            let disk = self.own.path(disk);
            volumes.push_str(&format!("; {disk} could not be opened (ls says why)"));
        }
        if !others.is_empty() {
            let mut hint = format!("the registry knows {}", others.join(", "));
            for (disk, _) in self.closed_at(point) {
                let disk = self.own.path(disk);
                hint.push_str(&format!("; {disk} could not be opened (ls says why)"));
            }
            return error.hint(hint);
        }
        if let Some(why) = known.unread.first() {
            return error
                .found(format!("a registry that cannot be read: {why}"))
                .hint(format!("name the volume instead: {volumes}"));
        }
        if !known.disputed.is_empty() {
            return error.hint(format!(
                "no registry here names it; name the volume instead: {volumes}"
            ));
        }
        let of = match point {
            OwnTree::ROOT => "SOURCE".into(),
            point => self.own.path(point).to_string(),
        };
        error.hint(format!(
            "drive letters come from the registry of a Windows installation on {of}, \
             and none was read here; name the volume instead: {volumes}"
        ))
    }

    /// "/p1 (ntfs, 'System'), /p2 (bitlocker)", for hints.
    pub(crate) fn list_volumes_at(&self, point: OwnId) -> String {
        let list: Vec<String> = self
            .volumes_at(point)
            .iter()
            .take(32)
            .map(|(volume, door)| {
                let what = match volume.recognised() {
                    Ok(Some(r)) => match &r.label {
                        Some(label) if !label.as_bytes().is_empty() => {
                            format!("{}, '{label}'", r.kind)
                        }
                        _ => r.kind.to_string(),
                    },
                    Ok(None) => "nothing known".into(),
                    Err(_) => "unreadable".into(),
                };
                format!("{} ({what})", self.own.path(*door))
            })
            .collect();
        match list.is_empty() {
            true => "none".into(),
            false => list.join(", "),
        }
    }
}

/// Volumes that are mounted in directories of others.
impl Tree {
    /// The directory that is seen through `step`, if that is a mount point of Windows. It
    /// is always one of the same restore point.
    pub(crate) fn through(
        &self,
        step: &Step,
        typed: &[u8],
        hops: &mut usize,
    ) -> Result<Option<Step>> {
        let Some((volume, rest)) = self.mounted(step) else {
            return Ok(None);
        };
        *hops += 1;
        if *hops > MOST_HOPS {
            return Err(DiskError::refused("following mount points")
                .file(Name::from_bytes(typed))
                .expected(format!("at most {MOST_HOPS} on the way"))
                .found("more: volumes that are mounted in each other")
                .hint("begin the path with the volume that is meant"));
        }
        let point = self.point_of(step);
        let doors = self.letters_at(point).mounted(&volume);
        // Of a disk and its clone the one that the mount point is on.
        let own = self.volume_door(step.node.volume);
        let near = doors
            .iter()
            .find(|d| own.is_some_and(|own| self.own.parent(**d) == self.own.parent(own)));
        let door = match (doors.as_slice(), near) {
            ([only], _) => Some(only),
            (_, near) => near,
        };
        if door.is_none() && !doors.is_empty() {
            let doors: Vec<String> = doors
                .iter()
                .map(|d| self.own.path(*d).to_string())
                .collect();
            let said = format!("more than one volume may be mounted in {}", step.path);
            return Err(DiskError::new(ErrorKind::Ambiguous, said)
                .file(Name::from_bytes(typed))
                .found(doors.join(" and "))
                .hint("name the volume in the path"));
        }
        let Some(door) = door.copied() else {
            let mut hint = format!(
                "it may be on another disk of the machine; the volumes here are {}",
                self.list_volumes_at(point)
            );
            for (disk, _) in self.closed_at(point) {
                let disk = self.own.path(disk);
                hint.push_str(&format!("; {disk} could not be opened (ls says why)"));
            }
            // Not `NotFound`: whether the path is on it is not known.
            return Err(DiskError::unsupported(format!(
                "{} is a mount point of {volume}, which is not here",
                step.path
            ))
            .file(Name::from_bytes(typed))
            .hint(hint));
        };
        let found = self.walk_on(own_node(door), rest.as_bytes(), typed, hops)?;
        Ok(Some(Step {
            node: found.node,
            path: found.path,
        }))
    }

    /// What a mount point names: `Volume{guid}`, and a path on it.
    fn mounted(&self, step: &Step) -> Option<(String, String)> {
        if step.node.volume == 0 || self.metadata(step.node).ok()?.kind != NodeKind::Symlink {
            return None;
        }
        let link = self.read_link(step.node).ok()?;
        // Links of the layout of VCB lead there already.
        if link.sort != "mount point" {
            return None;
        }
        let target = link.target.as_str()?;
        let (volume, rest) = target.split_once('/').unwrap_or((target, ""));
        Some((volume.to_owned(), rest.to_owned()))
    }

    /// The root directory of a volume, by its number.
    fn volume_door(&self, number: u16) -> Option<OwnId> {
        let found = self.volumes.get(usize::from(number).wrapping_sub(1));
        found.map(|(_, door)| *door)
    }

    fn point_of(&self, step: &Step) -> OwnId {
        let door = self.volume_door(step.node.volume);
        door.map_or(OwnTree::ROOT, |door| self.point_above(door))
    }

    /// What to say of a node that is a mount point and is not entered: where its volume is.
    pub fn mount_point_remark(&self, node: Node) -> Option<String> {
        let mut step = Step {
            node,
            path: Name::default(),
        };
        let (volume, _) = self.mounted(&step)?;
        step.path = self.path_of(node);
        let path = &step.path;
        Some(match self.through(&step, path.as_bytes(), &mut 0) {
            Ok(there) => format!(
                "{path} is a mount point; what is mounted there is {}",
                there?.path
            ),
            Err(_) => format!("{path} is a mount point of {volume}, which is not here"),
        })
    }
}

/// Dated backups.
impl Tree {
    /// Why a path that names no restore point leads nowhere, if the tree has several and
    /// none of them is meant without a name: which of them have it.
    pub(crate) fn in_points(&self, path: &[u8]) -> Option<DiskError> {
        if self.current.is_some() || !self.volumes_at(OwnTree::ROOT).is_empty() {
            return None;
        }
        let dirs = self.own.children(OwnTree::ROOT).map(|(id, _)| id);
        let mut points: Vec<(OwnId, Scope)> =
            dirs.filter_map(|id| Some((id, self.scope(id)?))).collect();
        points.reverse();
        let (newest, scope) = *points.first()?;
        let drive = path::drive(path).map(|(letter, rest)| {
            let mut whole = vec![letter, b':', b'/'];
            whole.extend(rest);
            whole
        });
        let path = drive.as_deref().unwrap_or(path);
        let shown = Name::from_bytes(path.strip_prefix(b"/").unwrap_or(path));
        let mut having = Vec::new();
        for (dir, scope) in points.iter().take(LOOK_INTO) {
            if self.is_at(*dir, *scope, path) {
                having.push(self.own.path(*dir).to_string());
            }
        }
        let of = match points.len() > LOOK_INTO {
            true => format!(" of the newest {LOOK_INTO}"),
            false => String::new(),
        };
        let error = |kind, said: &str| DiskError::new(kind, said).file(Name::from_bytes(path));
        let Some(first) = having.first() else {
            let newest = self.own.path(newest);
            let why = path::components(path)
                .next()
                .and_then(path::drive_component)
                .filter(|letter| self.letters_at(scope.point).of(*letter).is_none())
                .map(|letter| self.no_letter(path, letter, scope.point));
            let hint = match why.as_ref().and_then(DiskError::hint_text) {
                Some(hint) => format!("of the newest, {newest}: {hint}"),
                None => format!("paths in it begin with a restore point: {newest}/{shown}"),
            };
            return Some(
                error(ErrorKind::NotFound, "no restore point has this path")
                    .found(format!("none{of}, of {} in all", points.len()))
                    .hint(hint),
            );
        };
        let hint = format!("begin the path with one of them: {first}/{shown}");
        let said = "the path names no restore point, and there are several";
        Some(
            error(ErrorKind::Ambiguous, said)
                .found(format!("it is in {}{of}", having.join(", ")))
                .hint(hint),
        )
    }

    /// Whether a path leads to something at a restore point.
    fn is_at(&self, dir: OwnId, scope: Scope, path: &[u8]) -> bool {
        let found = |from: OwnId| -> Result<Resolved> { self.walk(own_node(from), path, path) };
        found(dir).is_ok()
            || self
                .volumes_at(scope.point)
                .iter()
                .any(|(_, door)| found(*door).is_ok())
    }
}

#[cfg(test)]
mod tests;
