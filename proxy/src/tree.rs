//! The restore tree: names, metadata and contents by node.

use crate::{
    inode,
    letters::{Letters, MountPoints},
    machine::{self, Machine, Machines},
    names,
    own::{LazyDisk, Own, OwnFile, OwnId, OwnTree},
    source::{Source, SourceSpec},
    volume::{Volume, VolumeReport},
};
use disk_io::{Disk, DiskError, ErrorKind, Result};
use guest_fs::{DirEntry, FileSystem, Link, Metadata, Name, NodeId, NodeKind, Stream};
use inventory::{Point, Slot};
use std::{
    collections::HashMap,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

/// One object of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Which volume; 0 for the tree's own entries. The root directory of a volume is an
    /// own entry, so that listing what is above the volumes opens none of them.
    pub volume: u16,
    /// Which object of it.
    pub id: NodeId,
}

/// One name in a directory of the tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name, safe for a host directory (see [`crate::names`]).
    pub name: Name,
    /// What it names.
    pub node: Node,
    /// What kind of object, as the directory knows it.
    pub kind: NodeKind,
    /// The 8.3 name beside a long one.
    pub short_name: Option<Name>,
}

/// What the tree shows.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// List the metafiles of file systems (`--meta`). They are found by name without it.
    pub meta: bool,
    /// Show the machines that SOURCE holds too, below `/guests`: of a datastore, or of a
    /// directory with many of them.
    pub guests: bool,
    /// Told what should be known of a disk that is opened later, with its path.
    pub warn: Option<Warn>,
}

/// Where warnings go.
#[derive(Clone)]
pub struct Warn(pub Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Warn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Warn")
    }
}

/// The restore tree.
#[derive(Debug)]
pub struct Tree {
    pub(crate) own: OwnTree,
    /// Volume number *n* is at *n* - 1.
    pub(crate) volumes: boxcar::Vec<(Arc<Volume>, OwnId)>,
    source: Option<Arc<Source>>,
    options: TreeOptions,
    /// The directory of the disks that a path without one means.
    pub(crate) current: Option<OwnId>,
    /// Files of the host that the tree is made of, where it is no single disk.
    files: Vec<PathBuf>,
    warnings: Vec<String>,
    /// Held while volumes are added.
    growing: Mutex<()>,
    /// What the registry says of volumes that lie in no restore point.
    pub(crate) letters: OnceLock<Letters>,
    /// Directories that are restore points, each with what its own registry says.
    pub(crate) points: boxcar::Vec<(OwnId, OnceLock<Letters>)>,
    pub(crate) mount_points: MountPoints,
    /// What is doubtful about directories that names were looked up in.
    pub(crate) dir_doubts: Mutex<HashMap<Node, Vec<String>>>,
}

/// Room on a volume, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub size: u64,
    /// In use, if known.
    pub used: Option<u64>,
    /// Allocation unit.
    pub block: u32,
}

/// Where a node is answered.
pub(crate) enum Place<'a> {
    Own(OwnId),
    File(&'a OwnFile),
    Guest(u16, &'a Arc<dyn FileSystem>, NodeId),
}

impl Tree {
    /// The tree of a disk: `/p1`, `/p2` …, or `/p0`; `/lvm/GROUP/VOLUME` and
    /// `/ldm/GROUP/VOLUME` for logical volumes.
    pub fn new(source: Arc<Source>, options: TreeOptions) -> Result<Self> {
        let mut tree = Self::empty(options);
        tree.add_source(OwnTree::ROOT, &source)?;
        tree.source = Some(source);
        Ok(tree)
    }

    /// The tree of whatever SOURCE is: a disk, a machine with its restore points, dated
    /// backups of one. Disks of machines are opened when they are entered.
    pub fn of(spec: &SourceSpec, options: TreeOptions) -> Result<Self> {
        if !options.guests {
            return Self::of_source(spec, options);
        }
        let mut tree = match Self::of_source(spec, options.clone()) {
            Ok(tree) => tree,
            // A directory of many machines is none of them.
            Err(e) if spec.path.is_dir() && e.kind() != ErrorKind::Io => Self::empty(options),
            Err(e) => return Err(e),
        };
        let guests = tree.own.directory(OwnTree::ROOT, &Name::from("guests"));
        for scanned in machine::scan(spec)? {
            tree.warnings.extend_from_slice(&scanned.inventory.warnings);
            for vm in &scanned.inventory.vms {
                let name = Name::from(vm.name().as_str());
                let dir = tree.own.add(guests, &name, Own::Directory);
                tree.add_machine(dir, &scanned.machine(vm, spec));
            }
        }
        Ok(tree)
    }

    fn of_source(spec: &SourceSpec, options: TreeOptions) -> Result<Self> {
        let Some(machines) = spec.machines()? else {
            return match Self::of_package(spec, &options)? {
                Some(tree) => Ok(tree),
                None => Self::new(Arc::new(Source::open_disk(spec)?), options),
            };
        };
        if spec.disk.is_some() {
            return Self::new(Arc::new(Source::open(spec)?), options);
        }
        let mut tree = Self::empty(options);
        match &machines {
            Machines::Dated(all) | Machines::Forest(all) if spec.snapshot.is_none() => {
                for (name, machine) in all {
                    let parts = name.split('/').map(Name::from);
                    let dir = parts.fold(OwnTree::ROOT, |at, part| tree.own.directory(at, &part));
                    tree.add_machine(dir, machine);
                }
            }
            _ => {
                let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
                tree.warnings.extend_from_slice(&machine.vm().warnings);
                match spec.snapshot.as_deref().filter(|_| !date_used) {
                    Some(wanted) => {
                        let point = machine.point(Some(wanted))?.clone();
                        tree.add_point(OwnTree::ROOT, machine, &point);
                        tree.current = Some(OwnTree::ROOT);
                        tree.files.extend(machine.files());
                    }
                    None => tree.current = Some(tree.add_machine(OwnTree::ROOT, machine)),
                }
            }
        }
        Ok(tree)
    }

    /// The tree of a package with several disks: that of its machine, or one directory for each.
    /// One that has a single disk is that disk.
    fn of_package(spec: &SourceSpec, options: &TreeOptions) -> Result<Option<Self>> {
        if spec.disk.is_some() {
            return Ok(None);
        }
        let machines = spec.package_machines()?;
        let disks = machines.iter().flat_map(|m| &m.vm().points);
        if disks.map(|p| p.disks.len()).sum::<usize>() < 2 {
            return Ok(None);
        }
        let mut tree = Self::empty(options.clone());
        if let [only] = machines.as_slice() {
            tree.warnings.extend_from_slice(&only.vm().warnings);
            tree.current = Some(tree.add_machine(OwnTree::ROOT, only));
            return Ok(Some(tree));
        }
        for machine in &machines {
            let name = Name::from(machine.vm().name().as_str());
            let dir = tree.own.add(OwnTree::ROOT, &name, Own::Directory);
            tree.add_machine(dir, machine);
        }
        Ok(Some(tree))
    }

    /// The restore points of a machine below `dir`: the directory of the present one.
    fn add_machine(&mut self, dir: OwnId, machine: &Machine) -> OwnId {
        self.files.extend(machine.files());
        let mut current = dir;
        let points = &machine.vm().points;
        for point in points {
            let below = match point.is_current() {
                true => {
                    current = self.own.directory(dir, &Name::from("current"));
                    current
                }
                false => {
                    let twins = points
                        .iter()
                        .filter(|p| p.name == point.name && !p.is_current());
                    let name = match (twins.count(), point.uid) {
                        (2.., Some(uid)) => format!("{} (id {uid})", point.name),
                        _ => point.name.clone(),
                    };
                    let snapshots = self.own.directory(dir, &Name::from("snapshots"));
                    self.own
                        .add(snapshots, &Name::from(name.as_str()), Own::Directory)
                }
            };
            self.add_point(below, machine, point);
        }
        current
    }

    fn add_point(&self, dir: OwnId, machine: &Machine, point: &Point) {
        self.points.push((dir, OnceLock::new()));
        for disk in &point.disks {
            let (machine, wanted, newer) = (machine.clone(), disk.clone(), point.is_current());
            let lazy = LazyDisk {
                open: Box::new(move || machine.open(&wanted, newer)),
                opened: OnceLock::new(),
            };
            let name = Name::from(disk.slot.in_path().as_str());
            self.own.add(dir, &name, Own::Disk(Arc::new(lazy)));
        }
    }

    /// The volumes of a disk below `parent`.
    fn add_source(&self, parent: OwnId, source: &Source) -> Result<()> {
        for volume in source.volumes() {
            self.add_volume(parent, volume.clone())?;
        }
        for logical in source.logical() {
            let directories = logical.directories.iter();
            let parent = directories.fold(parent, |at, name| self.own.directory(at, name));
            self.add_volume(parent, logical.volume.clone())?;
        }
        Ok(())
    }

    /// Opens the disk of an own entry, once.
    fn enter_disk(&self, id: OwnId, lazy: &LazyDisk) -> Result<()> {
        if let Some(done) = lazy.opened.get() {
            return done.clone();
        }
        let _turn = self.growing.lock();
        if let Some(done) = lazy.opened.get() {
            return done.clone();
        }
        let done = match (lazy.open)() {
            // A mount lives long, and what failed to be read once may be read later.
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => Err(e),
            Ok(source) => {
                let path = self.own.path(id);
                for warning in source.warnings() {
                    if let Some(Warn(warn)) = &self.options.warn {
                        warn(&format!("{path}: {warning}"));
                    }
                }
                self.add_source(id, &source)
            }
        };
        lazy.opened.get_or_init(|| done).clone()
    }

    /// What the user should be told before anything else, one sentence each.
    pub fn warnings(&self) -> &[String] {
        match &self.source {
            Some(source) => source.warnings(),
            None => &self.warnings,
        }
    }

    /// Files of the host that the tree is made of, where it is no single disk.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The raw layout: `disk.img`, and `p1.img` … for the partitions.
    pub fn raw(source: Arc<Source>) -> Self {
        let mut tree = Self::empty(TreeOptions::default());
        let root = OwnTree::ROOT;
        let disk = Own::file(source.disk().clone());
        tree.own.add(root, &Name::from("disk.img"), disk);
        for volume in source.volumes() {
            if volume.partition().is_some() {
                let mut name = volume.name().as_bytes().to_vec();
                name.extend_from_slice(b".img");
                let part = Own::file(volume.disk().clone());
                tree.own.add(root, &Name::from_bytes(name), part);
            }
        }
        tree.source = Some(source);
        tree
    }

    /// A tree with nothing in it, to be filled with [`Self::add_directory`] and
    /// [`Self::add_volume`].
    pub fn empty(options: TreeOptions) -> Self {
        Self {
            own: OwnTree::default(),
            volumes: boxcar::Vec::new(),
            source: None,
            options,
            current: None,
            files: Vec::new(),
            warnings: Vec::new(),
            growing: Mutex::new(()),
            letters: OnceLock::new(),
            points: boxcar::Vec::new(),
            mount_points: MountPoints::default(),
            dir_doubts: Mutex::default(),
        }
    }

    /// The directory `name` of the tree's own below `parent`, made if it is not there.
    pub fn add_directory(&self, parent: OwnId, name: &Name) -> OwnId {
        self.own.directory(parent, name)
    }

    /// Puts a volume below `parent`, under its own name.
    ///
    /// Only one thread at a time may add volumes.
    pub fn add_volume(&self, parent: OwnId, volume: Arc<Volume>) -> Result<u16> {
        let name = volume.name().clone();
        self.add_volume_as(parent, &name, volume)
    }

    /// The same under another name than the volume's own.
    pub(crate) fn add_volume_as(
        &self,
        parent: OwnId,
        name: &Name,
        volume: Arc<Volume>,
    ) -> Result<u16> {
        let number = u16::try_from(self.volumes.count() + 1).map_err(|_| {
            DiskError::refused("building the tree")
                .expected("at most 65535 volumes")
                .found("more")
        })?;
        let door = self.own.add(parent, name, Own::Volume(number));
        self.volumes.push((volume, door));
        Ok(number)
    }

    pub(crate) fn options(&self) -> &TreeOptions {
        &self.options
    }

    pub(crate) fn warn_more(&mut self, warnings: &[String]) {
        self.warnings.extend_from_slice(warnings);
    }

    /// Whether metafiles are listed.
    pub fn shows_metafiles(&self) -> bool {
        self.options.meta
    }

    /// What the tree was made of, where it is one disk.
    pub fn source(&self) -> Option<&Arc<Source>> {
        self.source.as_ref()
    }

    /// The root directory.
    pub fn root(&self) -> Node {
        own_node(OwnTree::ROOT)
    }

    /// The inode number of a node: 16 bits of volume, 48 bits of record.
    pub fn inode(&self, node: Node) -> u64 {
        inode::inode(node)
    }

    /// What is known of every volume. Opens their file systems; one that cannot be read
    /// is listed with the reason.
    pub fn volumes(&self) -> Vec<VolumeReport> {
        self.volumes
            .iter()
            .map(|(_, (volume, door))| {
                VolumeReport::of(volume, self.own.path(*door), self.letter_of(*door))
            })
            .collect()
    }

    /// The volumes of a disk, where `node` is the directory that has them as its entries:
    /// the root, or a disk of a machine. Opens their file systems, as [`Self::volumes`].
    pub fn volume_level(&self, node: Node) -> Result<Option<Vec<VolumeReport>>> {
        let Some(id) = own_id(node) else {
            return Ok(None);
        };
        let is_disk = match self.own.get(id) {
            Some(Own::Disk(_)) => true,
            _ => node == self.root() && self.source.is_some(),
        };
        if !is_disk {
            return Ok(None);
        }
        self.enter(node)?;
        let below = |mut at: OwnId| {
            while at != id && at != OwnTree::ROOT {
                at = self.own.parent(at);
            }
            at == id
        };
        let all = self.volumes.iter().map(|(_, v)| v);
        let mine = all.filter(|(_, door)| below(*door));
        Ok(Some(
            mine.map(|(volume, door)| {
                VolumeReport::of(volume, self.own.path(*door), self.letter_of(*door))
            })
            .collect(),
        ))
    }

    /// The number of the volume that a node is, or lies in.
    pub fn number_of(&self, node: Node) -> Option<u16> {
        match node.volume {
            0 => match self.own.get(own_id(node)?)? {
                Own::Volume(number) => Some(*number),
                _ => None,
            },
            number => Some(number),
        }
    }

    /// The volume that a node is, or lies in.
    pub fn volume_of(&self, node: Node) -> Option<&Arc<Volume>> {
        let number = self.number_of(node)?;
        self.volume(number).map(|(volume, _)| volume)
    }

    /// Every volume with its number and its root directory.
    pub fn doors(&self) -> impl Iterator<Item = (u16, &Arc<Volume>, Node)> {
        let numbered = self.volumes.iter().zip(1u16..);
        numbered.map(|((_, (volume, door)), number)| (number, volume, own_node(*door)))
    }

    /// The node of an object of a volume, by what its file system calls it.
    pub fn guest_node(&self, volume: u16, id: NodeId) -> Result<Node> {
        match self.file_system(volume)? {
            Some(fs) => self.node(volume, fs, id),
            None => Err(DiskError::not_found("looking up a file by number")
                .found(format!("no volume {volume} in the tree"))),
        }
    }

    fn volume(&self, number: u16) -> Option<&(Arc<Volume>, OwnId)> {
        self.volumes.get(usize::from(number).checked_sub(1)?)
    }

    /// The file system of volume `number`; `None` if there is no such volume. The error
    /// names the volume by its path, besides the host's file if that is at fault.
    fn file_system(&self, number: u16) -> Result<Option<&Arc<dyn FileSystem>>> {
        let Some((volume, door)) = self.volume(number) else {
            return Ok(None);
        };
        volume.file_system().map(Some).map_err(|e| {
            let path = self.own.path(*door);
            match e.file_name() {
                None => e.file(path),
                Some(_) => e.context(path),
            }
        })
    }

    pub(crate) fn place(&self, node: Node) -> Result<Place<'_>> {
        let gone = || {
            DiskError::not_found("looking up a file by number")
                .found(format!("no file {:#x} in the tree", inode::inode(node)))
        };
        if node.volume == 0 {
            let id = own_id(node).ok_or_else(gone)?;
            return match self.own.get(id).ok_or_else(gone)? {
                Own::Directory => Ok(Place::Own(id)),
                Own::Disk(lazy) => {
                    self.enter_disk(id, lazy)?;
                    Ok(Place::Own(id))
                }
                Own::File(file) => Ok(Place::File(file)),
                Own::Volume(number) => {
                    let fs = self.file_system(*number)?.ok_or_else(gone)?;
                    Ok(Place::Guest(*number, fs, fs.root()))
                }
            };
        }
        let fs = self.file_system(node.volume)?.ok_or_else(gone)?;
        Ok(Place::Guest(node.volume, fs, node.id))
    }

    /// The file system that answers for a node, and the node's name in it; `None` for the
    /// tree's own entries. A volume's root directory is the file system's.
    pub fn guest(&self, node: Node) -> Result<Option<(&Arc<dyn FileSystem>, NodeId)>> {
        Ok(match self.place(node)? {
            Place::Guest(_, fs, id) => Some((fs, id)),
            _ => None,
        })
    }

    /// The node of an object of volume `number`: its root directory is the tree's own.
    fn node(&self, number: u16, fs: &Arc<dyn FileSystem>, id: NodeId) -> Result<Node> {
        if id == fs.root()
            && let Some((_, door)) = self.volume(number)
        {
            return Ok(own_node(*door));
        }
        if id.record > inode::MAX_RECORD {
            return Err(DiskError::corrupt("looking up a file")
                .expected("a record number of at most 48 bits")
                .found(format!("{:#x}", id.record)));
        }
        Ok(Node { volume: number, id })
    }

    /// An entry of the tree's own. At the root the disks of the present state are found
    /// too: `/scsi0-0` is short for `/current/scsi0-0`.
    fn own_child(&self, dir: OwnId, name: &Name) -> Option<OwnId> {
        self.own.child(dir, name).or_else(|| {
            let text = std::str::from_utf8(name.as_bytes()).ok()?;
            let slot: Slot = text.parse().ok()?;
            let root = self.current.filter(|_| dir == OwnTree::ROOT);
            // Any machine's directory: that of a date, one among several guests.
            let current = root.or_else(|| self.own.child(dir, &Name::from("current")))?;
            self.own
                .child(current, &Name::from(slot.in_path().as_str()))
        })
    }

    /// The volumes that a path without one is looked for in: those of the present state.
    pub(crate) fn searched(&self) -> Vec<(Arc<Volume>, OwnId)> {
        self.volumes_at(self.default_point())
    }

    /// Disks of the machine's present state that cannot be opened, with the reason: what lies on
    /// them is not known.
    pub fn closed(&self) -> Vec<(Node, DiskError)> {
        let all = self.closed_at(self.default_point()).into_iter();
        all.map(|(id, e)| (own_node(id), e)).collect()
    }

    /// Finds a name in a directory: exactly first, then, where the guest's file system
    /// folds case, folded. Metafiles are found too. `Ok(None)` if there is no such name.
    pub fn lookup(&self, dir: Node, name: &Name) -> Result<Option<Node>> {
        match self.place(dir)? {
            Place::Own(id) => Ok(self.own_child(id, name).map(own_node)),
            Place::File(_) => Ok(None),
            Place::Guest(number, fs, id) => {
                if matches!(name.as_bytes(), b"" | b"." | b"..") {
                    return Ok(None);
                }
                let mut found = fs.lookup(id, name)?;
                if found.is_none()
                    && let Some(stored) = names::stored(name)
                {
                    found = fs.lookup(id, &stored)?;
                }
                if found.is_none() && id == fs.root() {
                    found = fs
                        .metafiles()
                        .into_iter()
                        .find(|m| m.name == *name)
                        .map(|m| m.node);
                }
                found.map(|id| self.node(number, fs, id)).transpose()
            }
        }
    }

    /// Visits every entry of a directory. An unreadable part is visited as an error and
    /// the rest goes on; the call itself fails only if nothing can be listed at all.
    pub fn read_dir(
        &self,
        dir: Node,
        visit: &mut dyn FnMut(Result<Entry>) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.place(dir)? {
            Place::Own(id) => {
                for (child, name) in self.own.children(id) {
                    let kind = match self.own.get(child) {
                        Some(Own::File(_)) => NodeKind::File,
                        _ => NodeKind::Directory,
                    };
                    let entry = Entry {
                        name: name.clone(),
                        node: own_node(child),
                        kind,
                        short_name: None,
                    };
                    if visit(Ok(entry)).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Place::File(_) => Err(not_a_directory()),
            Place::Guest(number, fs, id) => {
                let mut pass = |entry: Result<DirEntry>| {
                    visit(entry.and_then(|e| {
                        Ok(Entry {
                            node: self.node(number, fs, e.node)?,
                            name: names::shown(e.name),
                            kind: e.kind,
                            short_name: e.short_name,
                        })
                    }))
                };
                if self.options.meta && id == fs.root() {
                    for meta in fs.metafiles() {
                        if pass(Ok(meta)).is_break() {
                            return Ok(());
                        }
                    }
                }
                fs.read_dir(id, &mut pass)
            }
        }
    }

    /// What is known of a node. A volume that cannot be entered still is a directory, with
    /// the reason as its refusal.
    pub fn metadata(&self, node: Node) -> Result<Metadata> {
        // A disk is not opened to say that it is a directory.
        if let Some(Own::Disk(lazy)) = own_id(node).and_then(|id| self.own.get(id)) {
            let mut metadata = own_metadata(node, NodeKind::Directory, 0, 0);
            metadata.refusal = lazy.opened.get().and_then(|done| done.clone().err());
            return Ok(metadata);
        }
        match self.place(node) {
            Ok(Place::Own(_)) => Ok(own_metadata(node, NodeKind::Directory, 0, 0)),
            Ok(Place::File(file)) => {
                let (size, allocated) = (file.disk.len(), file.allocated());
                Ok(own_metadata(node, NodeKind::File, size, allocated))
            }
            Ok(Place::Guest(_, fs, id)) => fs.metadata(id),
            Err(e)
                if node.volume == 0 && own_id(node).is_some_and(|i| self.own.get(i).is_some()) =>
            {
                let mut metadata = own_metadata(node, NodeKind::Directory, 0, 0);
                metadata.refusal = Some(e);
                Ok(metadata)
            }
            Err(e) => Err(e),
        }
    }

    /// The contents: of the unnamed stream, or of a named one.
    pub fn open(&self, node: Node, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        match (self.place(node)?, stream) {
            (Place::File(file), None) => Ok(file.disk.clone()),
            (Place::Guest(_, fs, id), stream) => fs.open(id, stream),
            (Place::Own(_), None) => Err(DiskError::unsupported("reading").found("a directory")),
            (_, Some(stream)) => Err(DiskError::not_found(format!(
                "opening the stream '{stream}'"
            ))),
        }
    }

    /// Where a link leads.
    pub fn read_link(&self, node: Node) -> Result<Link> {
        match self.place(node)? {
            Place::Guest(_, fs, id) => {
                let mut link = fs.read_link(id)?;
                if link.sort == "mount point"
                    && let Some(there) = self.mount_points.target(&self.path_of(node), &link.target)
                {
                    link.target = there;
                }
                Ok(link)
            }
            _ => Err(DiskError::unsupported("reading a link").found("no link")),
        }
    }

    /// Named streams of a node.
    pub fn streams(&self, node: Node) -> Result<Vec<Stream>> {
        match self.place(node)? {
            Place::Guest(_, fs, id) => fs.streams(id),
            _ => Ok(Vec::new()),
        }
    }

    /// Every name of a node as (directory, name); empty where the file system cannot tell.
    pub fn names(&self, node: Node) -> Result<Vec<(Node, Name)>> {
        match self.place(node)? {
            Place::Guest(number, fs, id) if node.volume != 0 => fs
                .names(id)?
                .into_iter()
                .map(|(dir, name)| Ok((self.node(number, fs, dir)?, names::shown(name))))
                .collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// A directory that holds the node; the root's is the root. `None` where the file
    /// system cannot tell.
    pub fn parent(&self, node: Node) -> Option<Node> {
        match own_id(node) {
            Some(id) => Some(own_node(self.own.parent(id))),
            None => Some(self.names(node).ok()?.first()?.0),
        }
    }

    /// Checks that a directory can be listed: its volume can be read.
    pub fn enter(&self, dir: Node) -> Result<()> {
        self.place(dir).map(|_| ())
    }

    /// Size and use of the volume that a node lies in; above the volumes, of the disk.
    pub fn space(&self, node: Node) -> Space {
        let of_disk = |len| Space {
            size: len,
            used: None,
            block: 4096,
        };
        match (self.place(node), self.volume_of(node)) {
            (Ok(Place::Guest(_, fs, _)), _) => {
                let info = fs.info();
                Space {
                    size: info.size,
                    used: info.used,
                    block: info.cluster_size,
                }
            }
            (_, Some(volume)) => of_disk(volume.disk().len()),
            _ => of_disk(self.source.as_ref().map_or(0, |s| s.disk().len())),
        }
    }

    /// A path that leads to the node, for messages. Where the file system cannot tell
    /// names, the record is named instead.
    pub fn path_of(&self, node: Node) -> Name {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = node;
        // A damaged volume may have a loop of parents.
        while at.volume != 0 && parts.len() < 512 {
            match self.names(at).ok().and_then(|n| n.into_iter().next()) {
                Some((dir, name)) => {
                    parts.push(name.as_bytes().to_vec());
                    at = dir;
                }
                None => {
                    parts.push(format!("(record {})", at.id.record).into_bytes());
                    at = self
                        .volume(at.volume)
                        .map_or_else(|| self.root(), |(_, door)| own_node(*door));
                }
            }
        }
        let mut path = own_id(at)
            .map_or_else(|| Name::from("/"), |id| self.own.path(id))
            .as_bytes()
            .to_vec();
        for part in parts.iter().rev() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        Name::from_bytes(path)
    }
}

pub(crate) fn own_node(id: OwnId) -> Node {
    Node {
        volume: 0,
        id: NodeId::plain(u64::from(id)),
    }
}

pub(crate) fn own_id(node: Node) -> Option<OwnId> {
    (node.volume == 0)
        .then(|| OwnId::try_from(node.id.record).ok())
        .flatten()
}

fn own_metadata(node: Node, kind: NodeKind, size: u64, allocated: u64) -> Metadata {
    Metadata {
        node: node.id,
        kind,
        size,
        allocated,
        links: 1,
        created: None,
        modified: None,
        accessed: None,
        changed: None,
        attributes: None,
        mode: None,
        owner: None,
        reparse_tag: None,
        refusal: None,
        remarks: Vec::new(),
    }
}

pub(crate) fn not_a_directory() -> DiskError {
    DiskError::new(disk_io::ErrorKind::NotFound, "listing").found("no directory")
}
