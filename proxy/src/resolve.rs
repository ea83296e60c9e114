//! Paths as users type them: what `ls` prints, `cp` takes, and an error names.

use crate::{
    names,
    own::{Own, OwnTree},
    path,
    tree::{Node, Tree, own_id, own_node},
};
use disk_io::{DiskError, ErrorKind, Result};
use guest_fs::{FsKind, Name, NodeKind};
use std::{collections::BTreeSet, ops::ControlFlow};

/// A path that leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where to.
    pub node: Node,
    /// The named stream that the path ends in.
    pub stream: Option<Name>,
    /// The path from the root with the names as they are stored, without the stream.
    pub path: Name,
    /// What was met on the way: volumes that could not be searched, one sentence each.
    pub remarks: Vec<String>,
    /// Why the path may not lead to what it should: which part of it, and what speaks against it
    /// ([`Tree::misnamed`], [`Tree::doubts`] of the directories).
    pub doubts: Vec<(Name, String)>,
}

/// A directory or file on the way.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) node: Node,
    /// Its path from the root, with the names as they are stored.
    pub(crate) path: Name,
}

/// How many entries are looked at for "did you mean" and for stored spellings.
const LOOK_AT: usize = 20_000;

impl Tree {
    /// Resolves a path (bytes or text). It is literal, never a pattern.
    ///
    /// Errors: [`ErrorKind::NotFound`] names the component that is missing;
    /// [`ErrorKind::Ambiguous`] lists the volumes that have a path given without one, or
    /// the names that differ from the one given, and from each other, by case alone.
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> Result<Resolved> {
        let path = path.as_ref();
        if let Some((letter, rest)) = path::drive(path) {
            let door = match self.letter(letter) {
                Some(door) => door,
                None => {
                    let why = self.in_points(path);
                    let no_letter = || self.no_letter(path, letter, self.default_point());
                    return Err(why.unwrap_or_else(no_letter));
                }
            };
            return self.walk(door, &rest, path);
        }
        let Some(first) = path::components(path).next() else {
            return self.walk(self.root(), path, path);
        };
        let name = Name::from_bytes(first);
        if first == b".." || self.lookup(self.root(), &name)?.is_some() {
            return self.walk(self.root(), path, path);
        }
        if let Some(why) = self.in_points(path) {
            return Err(why);
        }
        // `/C:/…` is a drive, unless a guest has a file of that name.
        match path::drive_component(first) {
            Some(letter) if !self.is_a_name(first) => match self.letter(letter) {
                Some(_) => self.walk(self.root(), path, path),
                None => self
                    .search_volumes(path)
                    .map_err(|_| self.no_letter(path, letter, self.default_point())),
            },
            _ => self.search_volumes(path),
        }
    }

    /// A path with no volume: good where exactly one volume has it.
    fn search_volumes(&self, path: &[u8]) -> Result<Resolved> {
        let shown = Name::from_bytes(path);
        let mut found: Vec<Resolved> = Vec::new();
        let mut missing: Vec<DiskError> = Vec::new();
        let mut remarks = Vec::new();
        let mut unsearched = Vec::new();
        let volumes = self.searched();
        let closed = self.closed();
        for (disk, e) in &closed {
            let disk = self.path_of(*disk).to_string();
            remarks.push(format!("{disk} was not searched: {e}"));
            unsearched.push(disk);
        }
        for (_, door) in volumes {
            let door = own_node(door);
            match self.walk(door, path, path) {
                Ok(resolved) => found.push(resolved),
                Err(e) if e.kind() == ErrorKind::NotFound => missing.push(e),
                Err(e) if e.kind() == ErrorKind::Ambiguous => return Err(e),
                // It has none, so nothing was passed over.
                Err(_) if self.without_files(door).is_some() => {}
                Err(e) => {
                    let volume = self.path_of(door).to_string();
                    remarks.push(format!("{volume} was not searched: {e}"));
                    unsearched.push(volume);
                }
            }
        }
        match found.len() {
            1 => {
                let mut only = found.remove(0);
                only.remarks = remarks;
                Ok(only)
            }
            0 => {
                let volumes = self.list_volumes();
                // With one readable volume its own error says more than "in none".
                let base = match (path::volume_name(path), missing.as_slice()) {
                    // Nothing could be searched: why is the answer.
                    (_, []) if let [(_, e), ..] = closed.as_slice() => e.clone(),
                    (Some(name), _) => {
                        let name = Name::from_bytes(name);
                        DiskError::not_found(format!("there is no volume /{name}")).file(&shown)
                    }
                    (None, [only]) => only.clone(),
                    _ => DiskError::not_found("no volume has this path").file(&shown),
                };
                let mut hint = match base.hint_text() {
                    Some(hint) => format!("{hint}; the volumes are {volumes}"),
                    None => format!("the volumes are {volumes}"),
                };
                if !unsearched.is_empty() {
                    hint.push_str(&format!(
                        "; {} could not be searched (info says why)",
                        unsearched.join(", ")
                    ));
                }
                Err(base.hint(hint))
            }
            _ => {
                let list: Vec<String> = found.iter().map(|r| r.path.to_string()).collect();
                Err(
                    DiskError::new(ErrorKind::Ambiguous, "more than one volume has this path")
                        .file(&shown)
                        .found(list.join(" and "))
                        .hint("name the volume in the path"),
                )
            }
        }
    }

    /// Walks from `from`, component by component. `typed` is the path for messages.
    pub(crate) fn walk(&self, from: Node, rest: &[u8], typed: &[u8]) -> Result<Resolved> {
        self.walk_on(from, rest, typed, &mut 0)
    }

    /// The same, where `hops` mount points have been followed before.
    pub(crate) fn walk_on(
        &self,
        from: Node,
        rest: &[u8],
        typed: &[u8],
        hops: &mut usize,
    ) -> Result<Resolved> {
        let mut trail: Vec<Step> = Vec::new();
        let start = Step {
            node: from,
            path: own_id(from).map_or_else(|| self.path_of(from), |id| self.own.path(id)),
        };
        let parts: Vec<&[u8]> = path::components(rest).collect();
        let (mut stream, mut doubts) = (None, Vec::new());
        for (i, part) in parts.iter().enumerate() {
            if *part == b".." {
                trail.pop();
                continue;
            }
            let name = Name::from_bytes(*part);
            let is_last = i + 1 == parts.len() && !path::wants_directory(rest);
            let mut here = trail.last().unwrap_or(&start).clone();
            let mut found = self.lookup(here.node, &name);
            while !matches!(found, Ok(Some(_)))
                && let Some(there) = self.through(&here, typed, hops)?
            {
                // `..` leads back to where the volume is mounted, as in Windows.
                if let Some(last) = trail.last_mut() {
                    *last = there.clone();
                }
                here = there;
                found = self.lookup(here.node, &name);
            }
            match found {
                Ok(Some(node)) => {
                    let stored = self.stored_name(here.node, node, &name);
                    self.only_one(here.node, node, &name, &stored, &|| here.path.clone())?;
                    let path = below(&here.path, &stored);
                    let typed = || below(&here.path, &name);
                    for why in self.doubts_of_dir(here.node) {
                        let doubt = (here.path.clone(), why);
                        if !doubts.contains(&doubt) {
                            doubts.push(doubt);
                        }
                    }
                    if let Some(why) = self.misnamed_as_typed(node, here.node, &name) {
                        doubts.push((typed(), why));
                    }
                    trail.push(Step { node, path });
                }
                Ok(None) => {
                    if let Some(drive) = self.drive_in(&here, part, typed)? {
                        trail.push(drive);
                        continue;
                    }
                    if is_last
                        && let Some((node, base, named)) = self.stream_of(here.node, &name)?
                    {
                        let path = below(&here.path, &base);
                        trail.push(Step { node, path });
                        stream = named;
                        break;
                    }
                    return Err(self.missing(here.node, &here.path, &name, typed));
                }
                Err(e) => {
                    return Err(match self.not_enterable(here.node, &here.path, typed) {
                        Some(why) => why,
                        None => e.file(&here.path),
                    });
                }
            }
        }
        let mut end = trail.pop().unwrap_or(start);
        if path::wants_directory(rest) {
            while let Some(there) = self.through(&end, typed, hops)? {
                end = there;
            }
            if let Some(why) = self.not_enterable(end.node, &end.path, typed) {
                return Err(why);
            }
        }
        if let Some(why) = self.spread_over(end.node) {
            doubts.push((end.path.clone(), why));
        }
        Ok(Resolved {
            node: end.node,
            stream,
            path: end.path,
            remarks: Vec::new(),
            doubts,
        })
    }

    /// What to say to who asks for one disk of a machine alone, where volumes that lie on it among
    /// others are with another one.
    fn spread_over(&self, node: Node) -> Option<String> {
        let id = own_id(node)?;
        let Some(Own::Disk(_)) = self.own.get(id) else {
            return None;
        };
        self.enter(node).ok()?;
        let mut volumes = self.volumes.iter().map(|(_, volume)| volume);
        let slot = volumes.find_map(|(volume, door)| {
            let with = volume.with()?;
            (self.own.parent(*door) == id).then_some(with)
        })?;
        let point = self.own.path(self.own.parent(id));
        let there = join(&point, &Name::from(slot.in_path().as_str()));
        Some(format!(
            "volumes that lie on this disk and others are in {there}, and not here"
        ))
    }

    /// The name under which `dir` stores `node`, which was found as `typed`.
    fn stored_name(&self, dir: Node, node: Node, typed: &Name) -> Name {
        if node.volume == 0 || !self.folds_case(dir) {
            return typed.clone();
        }
        let fits = |names: &[Name]| {
            let same = |n: &&Name| lower(n) == lower(typed);
            names
                .iter()
                .find(|n| *n == typed)
                .or_else(|| names.iter().find(same))
                .or_else(|| names.first())
                .cloned()
        };
        let told: Vec<Name> = self
            .names(node)
            .unwrap_or_default()
            .into_iter()
            .filter(|(d, _)| self.same_directory(*d, dir))
            .map(|(_, name)| name)
            .collect();
        if let Some(name) = fits(&told) {
            return name;
        }
        let mut listed = Vec::new();
        let mut left = LOOK_AT;
        let _ = self.read_dir(dir, &mut |entry| {
            left = left.saturating_sub(1);
            if let Ok(entry) = entry
                && entry.node == node
            {
                listed.push(entry.name);
            }
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        fits(&listed).unwrap_or_else(|| typed.clone())
    }

    /// Whether the file system that holds `dir` may find a name by another spelling.
    fn folds_case(&self, dir: Node) -> bool {
        !matches!(
            self.kind_of(dir),
            Some(FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 | FsKind::Vmfs)
        )
    }

    /// Which file system a node lies in. Does not ask the file system itself: that may
    /// have to read much for an answer.
    fn kind_of(&self, node: Node) -> Option<FsKind> {
        let recognised = self.volume_of(node)?.recognised().as_ref().ok()?;
        recognised.as_ref().map(|r| r.kind)
    }

    /// Refuses a name that was found by another spelling, if that spelling fits more than
    /// one file: which of them is meant must not be guessed.
    fn only_one(
        &self,
        dir: Node,
        node: Node,
        typed: &Name,
        stored: &Name,
        place: &dyn Fn() -> Name,
    ) -> Result<()> {
        if node.volume == 0 || stored == typed {
            return Ok(());
        }
        let wanted = lower(typed);
        let mut fitting = BTreeSet::new();
        let mut others = false;
        // All of it, however long: a twin may stand at the end.
        self.read_dir(dir, &mut |entry| {
            if let Ok(entry) = entry
                && lower(&entry.name) == wanted
            {
                others |= entry.node != node;
                fitting.insert(entry.name);
            }
            ControlFlow::Continue(())
        })?;
        if !others {
            return Ok(());
        }
        fitting.insert(stored.clone());
        let place = place();
        let list: Vec<String> = fitting
            .iter()
            .map(|name| join(&place, name).to_string())
            .collect();
        Err(
            DiskError::new(ErrorKind::Ambiguous, "more than one file has this name")
                .file(join(&place, typed))
                .expected("one that differs by case alone, or the exact name")
                .found(list.join(" and "))
                .hint("give the exact name"),
        )
    }

    /// A reference to a directory may come without its sequence number.
    pub(crate) fn same_directory(&self, a: Node, b: Node) -> bool {
        a.volume == b.volume && a.id.record == b.id.record
    }

    /// `name:stream`, after the whole name was not found.
    #[allow(clippy::type_complexity)]
    fn stream_of(&self, dir: Node, name: &Name) -> Result<Option<(Node, Name, Option<Name>)>> {
        let Some((base, stream)) = path::stream(name.as_bytes()) else {
            return Ok(None);
        };
        let base = Name::from_bytes(base);
        let Some(node) = self.lookup(dir, &base)? else {
            return Ok(None);
        };
        // Before its streams are looked at: the twin may have the one that is meant.
        let stored = self.stored_name(dir, node, &base);
        self.only_one(dir, node, &base, &stored, &|| self.path_of(dir))?;
        let base = stored;
        if stream.is_empty() {
            return Ok(Some((node, base, None)));
        }
        let stream = Name::from_bytes(stream);
        let streams = self.streams(node)?;
        let exact = streams.iter().find(|s| s.name == stream);
        let folded: Vec<_> = match exact {
            Some(exact) => vec![exact],
            None => streams
                .iter()
                .filter(|s| lower(&s.name) == lower(&stream))
                .collect(),
        };
        match folded.as_slice() {
            [] => {}
            [found] => return Ok(Some((node, base, Some(found.name.clone())))),
            several => {
                let list: Vec<String> = several.iter().map(|s| format!("'{}'", s.name)).collect();
                return Err(DiskError::new(
                    ErrorKind::Ambiguous,
                    "more than one stream has this name",
                )
                .file(join(&self.path_of(dir), name))
                .found(list.join(" and "))
                .hint("give the exact name"));
            }
        }
        if self.kind_of(dir) != Some(FsKind::Ntfs) {
            return Ok(None);
        }
        let has = match streams.as_slice() {
            [] => "it has no named streams".to_string(),
            some => format!(
                "it has {}",
                some.iter()
                    .map(|s| format!("'{}'", s.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        Err(
            DiskError::not_found(format!("'{base}' exists, its stream '{stream}' does not"))
                .file(join(&self.path_of(dir), name))
                .hint(has),
        )
    }

    /// Why nothing can be below `node`, if so.
    fn not_enterable(&self, node: Node, place: &Name, typed: &[u8]) -> Option<DiskError> {
        let metadata = self.metadata(node).ok()?;
        let typed = Name::from_bytes(typed);
        match metadata.kind {
            // A volume's root that cannot be entered.
            NodeKind::Directory => metadata
                .refusal
                .filter(|_| node.volume == 0)
                .or_else(|| self.without_files(node))
                .map(|e| e.file(place)),
            NodeKind::Symlink => {
                let link = self.read_link(node);
                let to = match &link {
                    Ok(link) => format!("{} to {}", link_words(link.sort), link.target),
                    Err(_) => "a link".into(),
                };
                let error = DiskError::not_found(format!("{place} is {to}, which is not followed"))
                    .file(&typed);
                Some(match link {
                    Ok(link) => {
                        error.hint(format!("give the path that it leads to: {}", link.target))
                    }
                    Err(_) => error,
                })
            }
            NodeKind::File | NodeKind::Special => Some(
                DiskError::not_found(format!("{place} is a file, not a directory")).file(&typed),
            ),
        }
    }

    fn missing(&self, dir: Node, place: &Name, name: &Name, typed: &[u8]) -> DiskError {
        if let Some(why) = self.not_enterable(dir, place, typed) {
            return why;
        }
        let error = DiskError::not_found(format!("{place} exists, '{name}' in it does not"))
            .file(Name::from_bytes(typed));
        let near = self.near(dir, name);
        match near.as_slice() {
            [] if name.as_bytes() == b"$deleted" && !self.shows_metafiles() => {
                error.hint("--meta shows deleted files of NTFS and FAT there")
            }
            [] if dir == self.root() => error.hint(format!("it has {}", self.list_volumes())),
            [] => error,
            near => error.hint(format!("did you mean {}?", near.join(" or "))),
        }
    }

    /// Up to three names of `dir` that look like `name`.
    fn near(&self, dir: Node, name: &Name) -> Vec<String> {
        let limit = (name.as_bytes().len() / 3).min(2);
        let mut near: Vec<(usize, Name)> = Vec::new();
        let mut left = LOOK_AT;
        let _ = self.read_dir(dir, &mut |entry| {
            left = left.saturating_sub(1);
            if let Ok(entry) = entry
                && let Some(d) = path::distance(name.as_bytes(), entry.name.as_bytes(), limit)
            {
                near.push((d, entry.name));
            }
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        near.sort();
        near.dedup();
        near.iter().take(3).map(|(_, n)| format!("'{n}'")).collect()
    }

    /// What paths may begin with, for hints.
    fn list_volumes(&self) -> String {
        if self.current.is_some() || self.volumes_at(OwnTree::ROOT).is_empty() {
            let names = self.own.children(OwnTree::ROOT).take(32);
            let names: Vec<String> = names.map(|(_, name)| format!("/{name}")).collect();
            return match names.is_empty() {
                true => "none".into(),
                false => names.join(", "),
            };
        }
        self.list_volumes_at(OwnTree::ROOT)
    }
}

/// A sort of link ([`guest_fs::Link::sort`]) in a sentence.
pub fn link_words(sort: &str) -> &'static str {
    match sort {
        "junction" => "a junction",
        "mount point" => "a mount point",
        _ => "a symbolic link",
    }
}

/// `dir/name`, where the name is as the tree shows it.
fn below(dir: &Name, name: &Name) -> Name {
    let mut path = dir.as_bytes().to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    Name::from_bytes(path)
}

fn join(dir: &Name, name: &Name) -> Name {
    let mut path = dir.as_bytes().to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(names::shown(name.clone()).as_bytes());
    Name::from_bytes(path)
}

/// For comparing spellings only; the file system's own folding decides what is found.
fn lower(name: &Name) -> Vec<u8> {
    match name.as_str() {
        Some(text) => text.to_lowercase().into_bytes(),
        None => name.as_bytes().to_ascii_lowercase(),
    }
}
