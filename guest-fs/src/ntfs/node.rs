//! The [`FileSystem`] methods.

use super::{
    ea,
    facts::{Interix, interix},
    file::{Content, File},
    index::{self, FileName, namespace, own_of},
    listing::is_metafile,
    misnamed::misnamed,
    record::{Form, flags, kind},
    reparse::{self, Meaning, Reparse},
    security, stream, usn,
    volume::{Ntfs, ROOT},
    wof,
};
use crate::{
    Change, DirEntry, Extent, FileSystem, Found, Link, Metadata, Name, NodeId, Security, Stream,
    Visit, VolumeInfo, fs::DELETED,
};
use disk_io::{Disk, DiskError, Fields, Result};
use std::{ops::ControlFlow, sync::Arc};

/// Record of $BadClus.
const BAD_CLUSTERS: u64 = 8;

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
        interix(&file)?
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

impl Ntfs {
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

    /// The stream with the chunks of a WOF file, and what it takes on the volume.
    pub(super) fn wof_stream(&self, file: &File<'_>) -> Result<(Content, u64)> {
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
