//! What the record of a file tells but for its contents: times, lengths, names, and what sort of
//! object it is.

use super::{
    file::{Content, File},
    index::namespace,
    node::file_names,
    record::{Attribute, Form, kind},
    reparse::{self, Meaning, Reparse},
    runs::Where,
    stream,
    volume::{FIRST_USER, Ntfs},
};
use crate::{Link, Metadata, Name, NodeId, NodeKind, Timestamp, fs::attributes};
use disk_io::{DiskError, Fields, Result};
use std::borrow::Cow;

/// DOS attribute: the contents are elsewhere.
const OFFLINE: u32 = 0x1000;
/// DOS attribute: the contents are fetched when they are read.
const RECALL_ON_DATA_ACCESS: u32 = 0x40_0000;
/// Longest target of an Interix link.
pub(super) const MAX_INTERIX: u64 = 8 + 2 * 4096;

/// What is known of a file, and how its contents are to be read.
pub(crate) struct Facts {
    pub(crate) metadata: Metadata,
    pub(crate) wof: Option<reparse::Wof>,
}

impl Ntfs {
    /// Everything but the contents.
    pub(crate) fn facts(&self, file: &File<'_>) -> Result<Facts> {
        let mut known = Known::new(self, file);
        known.times();
        known.links();
        let contents = known.length();
        let reparse = known.reparse();
        let wof = match &reparse {
            Some(reparse) => known.meaning(reparse)?,
            None => None,
        };
        // An empty file has empty contents.
        if contents.lost && reparse.is_none() && known.is_users() && file.base.is_plain() {
            let lost = "no contents of it were found, not even empty ones: they may be lost";
            known.m.remarks.push(lost.into());
        }
        if known.m.kind == NodeKind::File && known.m.refusal.is_none() && wof.is_none() {
            known.m.refusal = contents.refusal;
        }
        known.interix();
        Ok(Facts {
            metadata: known.m,
            wof,
        })
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

/// What the attribute of the unnamed stream tells.
#[derive(Default)]
struct Contents {
    /// Why they cannot be read as they are stored; of no matter where they are stored otherwise.
    refusal: Option<DiskError>,
    /// There is no such attribute.
    lost: bool,
}

/// What is known so far.
struct Known<'a, 'f> {
    ntfs: &'a Ntfs,
    file: &'a File<'f>,
    directory: bool,
    m: Metadata,
}

impl<'a, 'f> Known<'a, 'f> {
    fn new(ntfs: &'a Ntfs, file: &'a File<'f>) -> Self {
        let node = NodeId {
            record: file.base.number,
            sequence: file.base.sequence(),
        };
        let directory = file.base.is_directory();
        let kind = match directory {
            true => NodeKind::Directory,
            false => NodeKind::File,
        };
        Self {
            ntfs,
            file,
            directory,
            m: Metadata {
                remarks: file.damage.iter().map(ToString::to_string).collect(),
                ..Metadata::new(node, kind)
            },
        }
    }

    /// Whether it is a file of the guest, not one of the volume's own.
    fn is_users(&self) -> bool {
        self.file.base.number >= FIRST_USER
    }

    /// For errors.
    fn contents(&self) -> String {
        format!("the contents of record {}", self.file.base.number)
    }

    fn remark(&mut self, e: &DiskError) {
        let text = e.to_string();
        if !self.m.remarks.contains(&text) {
            self.m.remarks.push(text);
        }
    }

    /// Times and attributes.
    fn times(&mut self) {
        let plain = self.file.plain(kind::STANDARD_INFORMATION);
        let standard = match plain.and_then(|mut all| all.next().map(|a| a.form)) {
            Some(Form::Resident(value)) => Ok(Some(Cow::Borrowed(value))),
            _ => (self.file)
                .value(kind::STANDARD_INFORMATION, &[], 4096)
                .map(|v| v.map(Cow::Owned)),
        };
        match standard {
            Ok(Some(value)) => {
                let f = Fields::new(&value, 0, "standard information");
                let time = |at| f.u64_le(at).ok().map(Timestamp::from_filetime);
                self.m.created = time(0);
                self.m.modified = time(8);
                self.m.changed = time(16);
                self.m.accessed = time(24);
                self.m.attributes = f.u32_le(32).ok();
            }
            Ok(None) if self.is_users() => {
                (self.m.remarks).push("it has no standard information: times are not known".into())
            }
            Ok(None) => {}
            Err(e) => self.m.remarks.push(e.to_string()),
        }
    }

    /// How many names it has.
    fn links(&mut self) {
        let links = plain_links(self.file).unwrap_or_else(|| {
            let (names, damage) = file_names(self.file);
            if let Some(e) = damage {
                self.remark(&e);
            }
            let links = names.iter().filter(|n| n.namespace != namespace::DOS);
            u32::try_from(links.count()).unwrap_or(u32::MAX)
        });
        self.m.links = links.max(1);
    }

    /// Length and allocation, which stand in the first piece of the attribute whatever became of
    /// the others.
    fn length(&mut self) -> Contents {
        let file = self.file;
        let mut contents = Contents::default();
        let plain = file.plain(kind::DATA).and_then(|mut all| all.next());
        if let Some(a) = plain.filter(|a| a.lowest() == 0) {
            contents.refusal = self.length_of(&a);
        } else if let (first, _) = file.find(kind::DATA, Some(&[]), true)
            && let Some(piece) = first.first()
        {
            match piece.attribute() {
                Ok(a) => contents.refusal = self.length_of(&a),
                Err(e) => self.m.refusal = Some(e),
            }
        } else if !self.directory {
            match file.content(kind::DATA, &[]) {
                Ok(found) => contents.lost = found.is_none(),
                Err(e) => self.m.refusal = Some(e),
            }
        }
        if self.directory {
            self.m.size = 0;
        }
        contents
    }

    /// Takes the lengths of the unnamed stream; why it cannot be read as it is stored.
    fn length_of(&mut self, a: &Attribute<'_>) -> Option<DiskError> {
        let n = match a.form {
            Form::Resident(bytes) => {
                self.m.size = bytes.len() as u64;
                return None;
            }
            Form::NonResident(n) => n,
        };
        self.m.size = n.size;
        self.m.allocated = n.stored;
        if n.initialized > n.size {
            self.m.remarks.push(format!(
                "it has {} bytes, and {} of them are said to have been written: its length may be \
                 damaged",
                n.size, n.initialized
            ));
        }
        if self.ntfs.volume.options.efs_raw {
            self.m.size = stream::raw_size(a.flags, n.size);
        }
        stream::coding(&self.ntfs.volume, a.flags, n.unit, &|| self.contents()).err()
    }

    /// Its reparse point.
    fn reparse(&mut self) -> Option<Reparse> {
        let none = self.file.plain(kind::REPARSE_POINT);
        if none.is_some_and(|mut all| all.next().is_none()) {
            return None;
        }
        let value = (self.file).value(kind::REPARSE_POINT, &[], reparse::MAX_LEN);
        let parsed = match value {
            Ok(Some(value)) => Reparse::parse(&value).map(Some),
            Ok(None) => Ok(None),
            Err(e) => Err(e),
        };
        parsed.unwrap_or_else(|e| {
            self.m.refusal = Some(e.context(self.contents()));
            None
        })
    }

    /// What the reparse point makes of it.
    fn meaning(&mut self, reparse: &Reparse) -> Result<Option<reparse::Wof>> {
        self.m.reparse_tag = Some(reparse.tag);
        let not_here = |what: String| {
            DiskError::unsupported(format!("reading {}", self.contents())).found(what)
        };
        match reparse.meaning() {
            Ok(Meaning::Link) => {
                let link = reparse.link();
                self.m.kind = NodeKind::Symlink;
                self.m.size = link.map_or(0, |l| l.target.as_bytes().len() as u64);
            }
            Ok(Meaning::Special) => self.m.kind = NodeKind::Special,
            Ok(Meaning::Wof(w)) if !self.directory => {
                match self.ntfs.wof_stream(self.file) {
                    Ok((_, stored)) => self.m.allocated = stored,
                    Err(e) => self.m.refusal = Some(e),
                }
                return Ok(Some(w));
            }
            Ok(Meaning::Elsewhere(..) | Meaning::Perhaps(_)) | Err(_)
                if self.ntfs.volume.options.raw_reparse => {}
            Ok(Meaning::Elsewhere(feature, hint)) if !self.directory => {
                let found = format!("{feature} (tag {:#x})", reparse.tag);
                self.m.refusal = Some(not_here(found).hint(hint));
            }
            Ok(Meaning::Perhaps(feature)) if !self.directory => {
                let offline = self.m.attributes.unwrap_or(0) & (OFFLINE | RECALL_ON_DATA_ACCESS);
                if offline != 0 || self.ntfs.has_holes(self.file)? {
                    let tag = reparse.tag;
                    let found = format!("{feature} (tag {tag:#x}) that is not kept on this disk");
                    let hint = "it must be made available offline in the guest first";
                    self.m.refusal = Some(not_here(found).hint(hint));
                }
            }
            Ok(_) => {}
            Err(e) if !self.directory => self.m.refusal = Some(e.context(self.contents())),
            Err(e) => self.m.remarks.push(e.to_string()),
        }
        Ok(None)
    }

    /// Looks whether a short system file is a link or a device of Interix.
    fn interix(&mut self) {
        let perhaps = self.m.kind == NodeKind::File
            && self.m.refusal.is_none()
            && self.m.attributes.unwrap_or(0) & attributes::SYSTEM != 0
            && self.is_users()
            && self.m.size <= MAX_INTERIX;
        if !perhaps {
            return;
        }
        match interix(self.file) {
            Ok(Some(Interix::Link(link))) => {
                self.m.kind = NodeKind::Symlink;
                self.m.size = link.target.as_bytes().len() as u64;
            }
            Ok(Some(Interix::Device)) => self.m.kind = NodeKind::Special,
            Ok(None) | Err(_) => {}
        }
    }
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

/// What the Interix subsystem (Services for Unix), and ntfs-3g by default, write into
/// system files.
pub(super) enum Interix {
    Link(Link),
    Device,
}

/// Looks for Interix' marks in a short system file.
pub(super) fn interix(file: &File<'_>) -> Result<Option<Interix>> {
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
