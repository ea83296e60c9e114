//! The [`FileSystem`] methods.

use super::{
    ea,
    file::{Content, File},
    index::{self, FileName, namespace, own_of},
    misnamed::misnamed,
    record::{Attribute, Form, flags, kind},
    reparse::{self, Meaning, Reparse, tag},
    runs::Where,
    security, stream, usn,
    volume::{FIRST_USER, Ntfs, ROOT},
    wof,
};
use crate::{
    Change, DirEntry, Extent, FileSystem, Found, Link, Metadata, Name, NodeId, NodeKind, Security,
    Stream, Timestamp, Visit, VolumeInfo,
    fs::{DELETED, attributes},
};
use disk_io::{Disk, DiskError, Fields, Result};
use std::{borrow::Cow, collections::HashMap, ops::ControlFlow, sync::Arc};

/// Record of $BadClus.
const BAD_CLUSTERS: u64 = 8;
/// DOS attribute: the contents are elsewhere.
const OFFLINE: u32 = 0x1000;
/// DOS attribute: the contents are fetched when they are read.
const RECALL_ON_DATA_ACCESS: u32 = 0x40_0000;
/// Longest target of an Interix link.
const MAX_INTERIX: u64 = 8 + 2 * 4096;

impl FileSystem for Ntfs {
    fn info(&self) -> VolumeInfo {
        self.volume.info()
    }

    fn root(&self) -> NodeId {
        let find = || self.volume.record(ROOT).map_or(0, |r| r.sequence());
        let sequence = *self.volume.root_sequence.get_or_init(find);
        NodeId {
            record: ROOT,
            sequence,
        }
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        let Some(units) = name.to_utf16() else {
            return Ok(None);
        };
        let found = match self.volume.directory(dir) {
            Ok(directory) => directory.lookup(&self.volume, &units)?,
            // Nothing is left of its index.
            Err(e) => {
                let own = self.volume.file(dir).ok().as_ref().and_then(own_of);
                let named = own.map(|own| self.volume.named_by_records(own, &units));
                match named.and_then(|n| n.exact.or(n.folded)) {
                    Some(found) => Some(found),
                    None => return Err(e),
                }
            }
        };
        Ok(found.map(NodeId::from))
    }

    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()> {
        // Metafiles have their own names: under another, the reference is damaged, and what it
        // should lead to must not vanish.
        self.list(
            dir,
            &|record, name| dir.record != ROOT || !is_metafile(record, name),
            visit,
        )
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let mut metadata = self.facts(&self.volume.file(node)?)?.metadata;
        metadata.node = node;
        Ok(metadata)
    }

    fn doubts(&self, node: NodeId) -> Vec<String> {
        self.metadata(node)
            .map_or_else(|_| Vec::new(), |m| m.remarks)
    }

    fn misnamed(&self, node: NodeId, dir: NodeId, name: &Name) -> Option<String> {
        misnamed(&self.volume.file(node).ok()?, dir, name)
    }

    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        let file = self.volume.file(node)?;
        let what = match stream {
            None => format!("the contents of record {}", node.record),
            Some(name) => format!("stream {name} of record {}", node.record),
        };
        let content = match stream {
            None => {
                let facts = self.facts(&file)?;
                if let Some(refusal) = facts.metadata.refusal {
                    return Err(refusal);
                }
                if let Some(method) = facts.wof {
                    if node.record & DELETED != 0 {
                        return Err(DiskError::unsupported(format!("reading {what}"))
                            .found("a deleted file that CompactOS compressed"));
                    }
                    return self.open_wof(&file, method, facts.metadata.size, what);
                }
                file.content(kind::DATA, &[])?
            }
            Some(name) => match self.raw_attribute_named(&file, name)? {
                Some(value) => Some(Content::Resident(value)),
                None => self.named(&file, stream)?,
            },
        };
        match content {
            // As long as the volume, and nowhere but in bad clusters; no flag says so.
            Some(Content::Clusters(mut clusters)) if node.record == BAD_CLUSTERS => {
                clusters.flags |= flags::SPARSE;
                stream::open(&self.volume, Content::Clusters(clusters), what)
            }
            Some(content) if node.record & DELETED != 0 => {
                let content = self.volume.spare_reused(content)?;
                stream::open(&self.volume, content, what)
            }
            Some(content) => stream::open(&self.volume, content, what),
            // Directories and metafiles without unnamed data are empty files.
            None => stream::open(&self.volume, Content::Resident(Vec::new()), what),
        }
    }

    fn streams(&self, node: NodeId) -> Result<Vec<Stream>> {
        let file = self.volume.file(node)?;
        let (found, damage) = file.find(kind::DATA, None, true);
        let mut streams = Vec::new();
        // The chunks of a CompactOS file are its contents, not a stream of the user's.
        let compact = file
            .value(kind::REPARSE_POINT, &[], reparse::MAX_LEN)
            .ok()
            .flatten()
            .and_then(|v| Reparse::parse(&v).ok())
            .is_some_and(|r| matches!(r.meaning(), Ok(Meaning::Wof(_))));
        for (name, kind) in self.raw_attributes() {
            if let Some(value) = raw_attribute(&file, name, kind)? {
                streams.push(Stream {
                    name: name.into(),
                    size: value.len() as u64,
                    allocated: 0,
                });
            }
        }
        for piece in found.iter().filter(|p| !p.name.is_empty()) {
            if compact && super::units(&piece.name).eq(wof::STREAM.encode_utf16()) {
                continue;
            }
            let (size, allocated) = match piece.attribute()?.form {
                Form::Resident(bytes) => (bytes.len() as u64, 0),
                Form::NonResident(n) => (n.size, n.stored),
            };
            streams.push(Stream {
                name: Name::from_utf16(super::units(&piece.name)),
                size,
                allocated,
            });
        }
        match damage {
            Some(e) if streams.is_empty() => Err(e),
            _ => Ok(streams),
        }
    }

    fn read_link(&self, node: NodeId) -> Result<Link> {
        let file = self.volume.file(node)?;
        if let Some(value) = file.value(kind::REPARSE_POINT, &[], reparse::MAX_LEN)? {
            return Reparse::parse(&value)?
                .link()
                .map_err(|e| e.context(format!("reading the link of record {}", node.record)));
        }
        interix(&file, 0)?
            .and_then(|i| match i {
                Interix::Link(link) => Some(link),
                Interix::Device => None,
            })
            .ok_or_else(|| self.volume.not_a(node, "a link"))
    }

    fn names(&self, node: NodeId) -> Result<Vec<(NodeId, Name)>> {
        let file = self.volume.file(node)?;
        let (names, damage) = file_names(&file);
        let names: Vec<_> = names
            .into_iter()
            .filter(|n| n.namespace != namespace::DOS)
            .map(|n| (n.parent.into(), Name::from_utf16(n.units)))
            .collect();
        match damage {
            Some(e) if names.is_empty() => Err(e),
            _ => Ok(names),
        }
    }

    fn metafiles(&self) -> Vec<DirEntry> {
        let mut entries = Vec::new();
        let root = self.root();
        let _ = self.list(
            root,
            &|record, name| is_metafile(record, name) && record != ROOT,
            &mut |e| {
                entries.extend(e);
                ControlFlow::Continue(())
            },
        );
        entries
    }

    fn security(&self, node: NodeId) -> Result<Option<Security>> {
        security::read(&self.volume, &self.volume.file(node)?)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Name, Vec<u8>)>> {
        ea::read(&self.volume.file(node)?)
    }

    fn object_id(&self, node: NodeId) -> Result<Option<[u8; 16]>> {
        ea::object_id(&self.volume.file(node)?)
    }

    fn reparse(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        let file = self.volume.file(node)?;
        file.value(kind::REPARSE_POINT, &[], reparse::MAX_LEN)
    }

    fn changes(&self, visit: &mut dyn FnMut(Result<Change>) -> ControlFlow<()>) -> Result<bool> {
        usn::read(self, visit)
    }

    fn check(&self, visit: disk_io::finding::Visit<'_>) -> Result<bool> {
        self.volume.check(visit)?;
        Ok(true)
    }

    fn free(&self, visit: crate::free::Visit<'_>) -> Result<bool> {
        self.volume.free(visit)?;
        Ok(true)
    }

    fn scan(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) -> Result<bool> {
        self.visit_records(false, visit);
        Ok(true)
    }

    fn deleted(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) -> Result<bool> {
        self.visit_records(true, visit);
        Ok(true)
    }

    fn extents(&self, node: NodeId, stream: Option<&Name>) -> Result<Vec<Extent>> {
        let file = self.volume.file(node)?;
        let content = match stream {
            None => file.content(kind::DATA, &[])?,
            Some(_) => self.named(&file, stream)?,
        };
        Ok(content.map_or_else(Vec::new, |c| {
            stream::extents(&c, self.volume.boot.cluster())
        }))
    }

    fn structure(&self, node: NodeId) -> Result<Vec<Extent>> {
        let file = self.volume.file(node)?;
        let index = file.content(kind::INDEX_ALLOCATION, index::I30)?;
        Ok(index.map_or_else(Vec::new, |c| {
            stream::extents(&c, self.volume.boot.cluster())
        }))
    }
}

/// Whether an entry of the root directory is that of a metafile: `$MFT`, `.` and their like.
fn is_metafile(record: u64, name: &FileName) -> bool {
    let begins = |c: u8| name.units.first() == Some(&u16::from(c));
    record < FIRST_USER && (begins(b'$') || begins(b'.'))
}

/// What is known of a file, and how its contents are to be read.
pub(crate) struct Facts {
    pub(crate) metadata: Metadata,
    pub(crate) wof: Option<reparse::Wof>,
}

impl Ntfs {
    /// Lists a directory; `shown` chooses by record number and name.
    fn list(
        &self,
        dir: NodeId,
        shown: &dyn Fn(u64, &FileName) -> bool,
        visit: Visit<'_>,
    ) -> Result<()> {
        let volume = &self.volume;
        let directory = match volume.directory(dir) {
            Ok(directory) => directory,
            Err(e) => {
                let own = volume.file(dir).ok().as_ref().and_then(own_of);
                let own = own.ok_or_else(|| e.clone())?;
                if visit(Err(e)).is_continue() {
                    let _ = self.list_by_records(own, None, shown, visit);
                }
                return Ok(());
            }
        };
        // 8.3 names stand elsewhere in the order than the long names they belong to.
        let mut short: HashMap<u64, Name> = HashMap::new();
        directory.walk(volume, &mut |entry| {
            if let Ok(e) = entry
                && let Some(key) = &e.key
                && key.namespace == namespace::DOS
            {
                short.insert(e.target.record, Name::from_utf16(key.units.iter().copied()));
            }
            ControlFlow::Continue(())
        });
        let (mut stopped, mut damaged) = (false, false);
        directory.walk(volume, &mut |entry| {
            let flow = match entry {
                Err(e) => {
                    damaged = true;
                    visit(Err(e))
                }
                Ok(e) => match &e.key {
                    Some(key)
                        if key.namespace != namespace::DOS
                            && shown(e.target.record, key)
                            && e.target.record != dir.record =>
                    {
                        let short_name = if key.namespace == namespace::WIN32 {
                            short.remove(&e.target.record)
                        } else {
                            None
                        };
                        visit(Ok(DirEntry {
                            name: Name::from_utf16(key.units.iter().copied()),
                            node: e.target.into(),
                            kind: self.kind_by_name(e.target.into(), key),
                            short_name,
                        }))
                    }
                    _ => ControlFlow::Continue(()),
                },
            };
            stopped |= flow.is_break();
            flow
        });
        if let Some(own) = directory.own.filter(|_| damaged && !stopped) {
            let flow = self.list_by_records(own, Some(&directory), shown, &mut |entry| {
                if let Ok(entry) = &entry {
                    short.remove(&entry.node.record);
                }
                visit(entry)
            });
            stopped = flow.is_break();
        }
        if stopped || short.is_empty() {
            return Ok(());
        }
        // 8.3 names whose long name is lost: better shown than a file left out.
        directory.walk(volume, &mut |entry| match entry {
            Ok(e) => match &e.key {
                Some(key)
                    if key.namespace == namespace::DOS
                        && shown(e.target.record, key)
                        && short.remove(&e.target.record).is_some() =>
                {
                    visit(Ok(DirEntry {
                        name: Name::from_utf16(key.units.iter().copied()),
                        node: e.target.into(),
                        kind: self.kind_by_name(e.target.into(), key),
                        short_name: None,
                    }))
                }
                _ => ControlFlow::Continue(()),
            },
            Err(_) => ControlFlow::Continue(()),
        });
        Ok(())
    }

    /// The kind as the directory knows it; links of Interix are known by their contents.
    fn kind_by_name(&self, node: NodeId, key: &FileName) -> NodeKind {
        if key.attributes & attributes::REPARSE != 0 {
            match key.tag {
                tag::MOUNT_POINT | tag::SYMLINK | tag::LX_SYMLINK => return NodeKind::Symlink,
                tag::AF_UNIX | tag::LX_FIFO | tag::LX_CHR | tag::LX_BLK => {
                    return NodeKind::Special;
                }
                _ => {}
            }
        }
        if key.attributes & FileName::DIRECTORY != 0 {
            NodeKind::Directory
        } else if key.attributes & attributes::SYSTEM != 0
            && node.record >= FIRST_USER
            && key.size <= MAX_INTERIX
        {
            self.metadata(node).map_or(NodeKind::File, |m| m.kind)
        } else {
            NodeKind::File
        }
    }

    /// A named stream: exactly that name first, then folded.
    fn named(&self, file: &File<'_>, stream: Option<&Name>) -> Result<Option<Content>> {
        let Some(wanted) = stream else {
            return Ok(None);
        };
        let not_found = || {
            DiskError::not_found(format!(
                "opening stream {wanted} of record {}",
                file.base.number
            ))
        };
        let units = wanted.to_utf16().ok_or_else(not_found)?;
        let (found, damage) = file.find(kind::DATA, None, true);
        let named = || found.iter().filter(|p| !p.name.is_empty());
        let piece = named()
            .find(|p| super::units(&p.name).eq(units.iter().copied()))
            .or_else(|| {
                let upcase = self.volume.upcase();
                let fold = |u: u16| upcase.fold(u);
                named().find(|p| {
                    super::units(&p.name)
                        .map(fold)
                        .eq(units.iter().copied().map(fold))
                })
            });
        match (piece, damage) {
            (Some(piece), _) => file.content(kind::DATA, &piece.name),
            (None, Some(e)) => Err(e),
            (None, None) => Err(not_found()),
        }
    }

    /// Everything but the contents.
    pub(crate) fn facts(&self, file: &File<'_>) -> Result<Facts> {
        let number = file.base.number;
        let node = NodeId {
            record: number,
            sequence: file.base.sequence(),
        };
        let directory = file.base.is_directory();
        let kind = match directory {
            true => NodeKind::Directory,
            false => NodeKind::File,
        };
        let mut m = Metadata {
            remarks: file.damage.iter().map(ToString::to_string).collect(),
            ..Metadata::new(node, kind)
        };
        let plain = file.plain(kind::STANDARD_INFORMATION);
        let standard = match plain.and_then(|mut all| all.next().map(|a| a.form)) {
            Some(Form::Resident(value)) => Ok(Some(Cow::Borrowed(value))),
            _ => file
                .value(kind::STANDARD_INFORMATION, &[], 4096)
                .map(|v| v.map(Cow::Owned)),
        };
        match standard {
            Ok(Some(value)) => {
                let f = Fields::new(&value, 0, "standard information");
                let time = |at| f.u64_le(at).ok().map(Timestamp::from_filetime);
                m.created = time(0);
                m.modified = time(8);
                m.changed = time(16);
                m.accessed = time(24);
                m.attributes = f.u32_le(32).ok();
            }
            Ok(None) => {
                if number >= FIRST_USER {
                    m.remarks
                        .push("it has no standard information: times are not known".into());
                }
            }
            Err(e) => m.remarks.push(e.to_string()),
        }
        m.links = match plain_links(file) {
            Some(links) => links,
            None => {
                let (names, damage) = file_names(file);
                let links = names.iter().filter(|n| n.namespace != namespace::DOS);
                if let Some(e) = damage {
                    let text = e.to_string();
                    if !m.remarks.contains(&text) {
                        m.remarks.push(text);
                    }
                }
                u32::try_from(links.count()).unwrap_or(u32::MAX)
            }
        }
        .max(1);
        let what = || format!("the contents of record {number}");
        // Size and allocation stand in the first piece, whatever became of the others.
        let mut refusal = None;
        let (mut cut, mut nothing) = (None, false);
        let mut size_of = |a: &Attribute<'_>| match a.form {
            Form::Resident(bytes) => m.size = bytes.len() as u64,
            Form::NonResident(n) => {
                refusal = stream::coding(&self.volume, a.flags, n.unit, &what).err();
                m.size = n.size;
                cut = (n.initialized > n.size).then(|| {
                    format!(
                        "it has {} bytes, and {} of them are said to have been written: its length may \
                         be damaged",
                        n.size, n.initialized
                    )
                });
                if self.volume.options.efs_raw {
                    m.size = stream::raw_size(a.flags, n.size);
                }
                m.allocated = n.stored;
            }
        };
        let plain = file.plain(kind::DATA).and_then(|mut all| all.next());
        if let Some(a) = plain.filter(|a| a.lowest() == 0) {
            size_of(&a);
        } else if let (first, _) = file.find(kind::DATA, Some(&[]), true)
            && let Some(piece) = first.first()
        {
            match piece.attribute() {
                Ok(a) => size_of(&a),
                Err(e) => m.refusal = Some(e),
            }
        } else if !directory {
            match file.content(kind::DATA, &[]) {
                Ok(found) => nothing = found.is_none(),
                Err(e) => m.refusal = Some(e),
            }
        }
        m.remarks.extend(cut);
        if directory {
            m.size = 0;
        }
        let none = file.plain(kind::REPARSE_POINT);
        let value = match none.is_some_and(|mut all| all.next().is_none()) {
            true => Ok(None),
            false => file.value(kind::REPARSE_POINT, &[], reparse::MAX_LEN),
        };
        let reparse = match value {
            Ok(Some(value)) => match Reparse::parse(&value) {
                Ok(r) => Some(r),
                Err(e) => {
                    m.refusal = Some(e.context(what()));
                    None
                }
            },
            Ok(None) => None,
            Err(e) => {
                m.refusal = Some(e.context(what()));
                None
            }
        };
        let mut wof = None;
        let raw = self.volume.options.raw_reparse;
        if let Some(reparse) = &reparse {
            m.reparse_tag = Some(reparse.tag);
            match reparse.meaning() {
                Ok(Meaning::Link) => {
                    m.kind = NodeKind::Symlink;
                    m.size = reparse
                        .link()
                        .map_or(0, |l| l.target.as_bytes().len() as u64);
                }
                Ok(Meaning::Special) => m.kind = NodeKind::Special,
                Ok(Meaning::Wof(w)) if !directory => {
                    match self.wof_stream(file) {
                        Ok((_, stored)) => m.allocated = stored,
                        Err(e) => m.refusal = Some(e),
                    }
                    wof = Some(w);
                }
                Ok(Meaning::Elsewhere(..) | Meaning::Perhaps(_)) | Err(_) if raw => {}
                Ok(Meaning::Elsewhere(feature, hint)) if !directory => {
                    m.refusal = Some(
                        DiskError::unsupported(format!("reading {}", what()))
                            .found(format!("{feature} (tag {:#x})", reparse.tag))
                            .hint(hint),
                    );
                }
                Ok(Meaning::Perhaps(feature)) if !directory => {
                    let offline = m.attributes.unwrap_or(0) & (OFFLINE | RECALL_ON_DATA_ACCESS);
                    if offline != 0 || self.has_holes(file)? {
                        m.refusal = Some(
                            DiskError::unsupported(format!("reading {}", what()))
                                .found(format!(
                                    "{feature} (tag {:#x}) that is not kept on this disk",
                                    reparse.tag
                                ))
                                .hint("it must be made available offline in the guest first"),
                        );
                    }
                }
                Ok(_) => {}
                Err(e) if !directory => m.refusal = Some(e.context(what())),
                Err(e) => m.remarks.push(e.to_string()),
            }
        }
        // An empty file has empty contents.
        if nothing && reparse.is_none() && number >= FIRST_USER && file.base.is_plain() {
            let lost = "no contents of it were found, not even empty ones: they may be lost";
            m.remarks.push(lost.into());
        }
        if m.kind == NodeKind::File && m.refusal.is_none() && wof.is_none() {
            m.refusal = refusal;
        }
        if m.kind == NodeKind::File
            && m.refusal.is_none()
            && m.attributes.unwrap_or(0) & attributes::SYSTEM != 0
            && number >= FIRST_USER
            && m.size <= MAX_INTERIX
        {
            match interix(file, m.size) {
                Ok(Some(Interix::Link(link))) => {
                    m.kind = NodeKind::Symlink;
                    m.size = link.target.as_bytes().len() as u64;
                }
                Ok(Some(Interix::Device)) => m.kind = NodeKind::Special,
                Ok(None) | Err(_) => {}
            }
        }
        Ok(Facts { metadata: m, wof })
    }

    /// The stream with the chunks of a WOF file, and what it takes on the volume.
    fn wof_stream(&self, file: &File<'_>) -> Result<(Content, u64)> {
        let name: Vec<u8> = wof::STREAM
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let (found, _) = file.find(kind::DATA, Some(&name), true);
        let stored = found.first().map(|f| f.attribute().map(|a| a.stored()));
        match (file.content(kind::DATA, &name)?, stored) {
            (Some(content), Some(stored)) => Ok((content, stored?)),
            _ => Err(DiskError::corrupt(format!(
                "reading the contents of record {}",
                file.base.number
            ))
            .expected(format!(
                "a stream {}: it is compressed by CompactOS",
                wof::STREAM
            ))
            .found("none")),
        }
    }

    fn open_wof(
        &self,
        file: &File<'_>,
        method: reparse::Wof,
        len: u64,
        what: String,
    ) -> Result<Arc<dyn Disk>> {
        let (content, _) = self.wof_stream(file)?;
        let stream = stream::open(&self.volume, content, what.clone())?;
        let volume = self.volume.clone();
        Ok(Arc::new(wof::Compact::new(
            volume, what, stream, len, method,
        )?))
    }

    /// Whether parts of the unnamed stream are stored nowhere.
    fn has_holes(&self, file: &File<'_>) -> Result<bool> {
        let cluster = self.volume.boot.cluster();
        Ok(match file.content(kind::DATA, &[])? {
            Some(Content::Clusters(c)) => stream::places(&c.runs, cluster, 0, c.size)
                .any(|(_, _, place)| place == Where::Hole),
            _ => false,
        })
    }
}

/// The attributes that are no streams, and are given out as such when they are asked for.
const REPARSE: (&str, u32) = ("$REPARSE_POINT", kind::REPARSE_POINT);
const EFS: (&str, u32) = ("$EFS", kind::LOGGED_UTILITY_STREAM);

/// Longest set of keys of an encrypted file.
const MAX_EFS: u64 = 256 << 10;

impl Ntfs {
    fn raw_attributes(&self) -> impl Iterator<Item = (&'static str, u32)> + use<> {
        let options = &self.volume.options;
        let reparse = options.raw_reparse.then_some(REPARSE);
        reparse.into_iter().chain(options.efs_raw.then_some(EFS))
    }

    fn raw_attribute_named(&self, file: &File<'_>, wanted: &Name) -> Result<Option<Vec<u8>>> {
        let mut all = self.raw_attributes();
        match all.find(|(name, _)| name.as_bytes() == wanted.as_bytes()) {
            Some((name, kind)) => raw_attribute(file, name, kind),
            None => Ok(None),
        }
    }
}

fn raw_attribute(file: &File<'_>, name: &str, attribute: u32) -> Result<Option<Vec<u8>>> {
    if attribute == kind::REPARSE_POINT {
        return file.value(attribute, &[], reparse::MAX_LEN);
    }
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    file.value(attribute, &name, MAX_EFS)
}

/// The number of a file's names but for 8.3 names, told without taking them apart; `None`
/// where that needs a closer look.
fn plain_links(file: &File<'_>) -> Option<u32> {
    let mut links = 0u32;
    for attribute in file.plain(kind::FILE_NAME)? {
        let Form::Resident(value) = attribute.form else {
            return None;
        };
        let units = usize::from(*value.get(64)?);
        let namespace = *value.get(65)?;
        value.get(..66usize.saturating_add(units.saturating_mul(2)))?;
        if namespace != namespace::DOS {
            links = links.saturating_add(1);
        }
    }
    Some(links)
}

/// All names of a file.
pub(crate) fn file_names(file: &File<'_>) -> (Vec<FileName>, Option<DiskError>) {
    let mut names = Vec::new();
    let parse = |form: Form<'_>| match form {
        Form::Resident(value) => FileName::parse(&Fields::new(value, 0, "file name")),
        Form::NonResident(_) => {
            Err(DiskError::corrupt("reading a file name").found("a name that is not in the record"))
        }
    };
    if let Some(all) = file.plain(kind::FILE_NAME) {
        let mut damage = None;
        for attribute in all {
            match parse(attribute.form) {
                Ok(name) => names.push(name),
                Err(e) => damage = Some(e),
            }
        }
        return (names, damage);
    }
    let (found, mut damage) = file.find(kind::FILE_NAME, None, true);
    for piece in &found {
        match piece.attribute().and_then(|a| parse(a.form)) {
            Ok(name) => names.push(name),
            Err(e) => damage = Some(e),
        }
    }
    (names, damage)
}

/// What the Interix subsystem (Services for Unix), and ntfs-3g by default, write into
/// system files.
enum Interix {
    Link(Link),
    Device,
}

/// Looks for Interix' marks in a short system file.
fn interix(file: &File<'_>, _size: u64) -> Result<Option<Interix>> {
    let Some(bytes) = file.value(kind::DATA, &[], MAX_INTERIX)? else {
        return Ok(None);
    };
    Ok(match bytes.split_first_chunk::<8>() {
        Some((b"IntxLNK\x01", target)) => {
            let name = Name::from_utf16(super::units(target));
            Some(Interix::Link(Link {
                sort: "interix",
                stored: name.clone(),
                target: name,
            }))
        }
        Some((b"IntxCHR\0" | b"IntxBLK\0", _)) => Some(Interix::Device),
        _ => None,
    })
}
