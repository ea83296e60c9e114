//! Opening the extents of a link.

use super::{
    ExtentMap, ForbiddenExtent, Remarks, Seat, Spot, ZeroExtent,
    flat::FlatExtent,
    head::{Head, no_extents},
    redo::{Bare, Redo},
};
use crate::{
    cowd,
    descriptor::{Access, Descriptor, ExtentLine, ExtentType, geometry::Geometry},
    directory::Pieces,
    hosted::{self, Header},
    image::OpenOptions,
    link::{ExtentInfo, LinkMap, Part, SparseInfo},
    names,
    probe::{Kind, probe},
    sesparse,
};
use disk_io::{Disk, DiskError, FileId, FileIndex, Opened, Result};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

/// Longest disk in bytes. One that claims more is a trap for whatever walks it.
const MAX_LEN: u64 = 1 << 50;

/// Which bytes of a file flat extents have.
struct Taken {
    name: String,
    len: u64,
    /// Their ends, by their beginnings.
    ranges: BTreeMap<u64, u64>,
}

impl Taken {
    /// Says that a file goes on behind its last extent: a digit that is wrong in a line cuts the
    /// disk short and moves what follows. Devices are longer than the partitions in them.
    fn tell_rest(&self, remarks: &Remarks) {
        let end = self.ranges.values().copied().max().unwrap_or(self.len);
        if self.len.saturating_sub(end) < crate::SECTOR || self.name.starts_with("/dev/") {
            return;
        }
        let place = || Spot {
            file: self.name.clone(),
            offset: Some(end),
            touched: None,
        };
        remarks.add("extent-file-longer", place, || {
            format!(
                "{}: the file has {} bytes, the descriptor's extents only the first {end}: a line \
                 of it may be wrong",
                self.name, self.len
            )
        });
    }
}

/// The extents of one link while they are opened.
pub(crate) struct Extents<'a> {
    pub(crate) opened: &'a Opened,
    pub(crate) options: &'a OpenOptions,
    pub(crate) warnings: &'a mut Vec<String>,
    name: String,
    pieces: Arc<Pieces>,
    remarks: Arc<Remarks>,
    parts: Vec<Part>,
    infos: Vec<ExtentInfo>,
    end: u64,
    flat: HashMap<FileId, Taken>,
    /// The first extent in each file, by whose number the file is known.
    first: HashMap<FileId, u32>,
}

impl<'a> Extents<'a> {
    /// Opens everything that `head` names. Every file is opened now, so that a missing one
    /// is found before the first byte is given out; the files' pool bounds the descriptors.
    pub(crate) fn open(
        opened: &'a Opened,
        head: &Head,
        options: &'a OpenOptions,
        warnings: &'a mut Vec<String>,
    ) -> Result<(LinkMap, Vec<ExtentInfo>)> {
        let mut this = Self {
            name: opened.path.display().to_string(),
            opened,
            options,
            warnings,
            pieces: Arc::default(),
            remarks: Arc::default(),
            parts: Vec::new(),
            infos: Vec::new(),
            end: 0,
            flat: HashMap::new(),
            first: HashMap::new(),
        };
        if let Some(damage) = &head.damage {
            damage.tell(&this.name, &this.remarks);
        }
        match &head.bare {
            Some(Bare::Redo(redo)) => this.redo(redo)?,
            Some(Bare::Flat(len)) => this.whole_file(*len)?,
            None => this.described(head)?,
        }
        this.flat.values().for_each(|t| t.tell_rest(&this.remarks));
        if let Some(d) = &head.descriptor {
            this.against_geometry(d);
        }
        let map = LinkMap {
            name: this.name,
            len: this.end,
            parts: this.parts,
            remarks: this.remarks,
        };
        Ok((map, this.infos))
    }

    /// Where the geometry is of a longer disk, a line of the descriptor may be lost.
    fn against_geometry(&self, d: &Descriptor) {
        if let Some((Geometry::OfOther, told)) = d.longer_geometry(self.end) {
            self.remarks
                .add("extents-short-of-geometry", Spot::default, || {
                    format!(
                        "{}: its extents have {} bytes, and its geometry is that of a longer disk \
                         ({told}): one of its lines may be lost or wrong",
                        self.name, self.end
                    )
                });
        }
    }

    /// What the descriptor says, or the header of an extent that has none.
    fn described(&mut self, head: &Head) -> Result<()> {
        let embedded = head.header.as_ref().filter(|h| h.capacity > 0);
        match (&head.descriptor, embedded) {
            (None, Some(header)) => self.alone(header)?,
            (Some(d), header) if d.extent_count() > 0 => {
                for (number, line) in d.extents().enumerate() {
                    // An embedded descriptor is in the first extent (fact sheet, VMDK 2.6),
                    // whatever name stands there: the file may have been renamed (2.4).
                    let own = header.filter(|_| number == 0 && line.kind == ExtentType::Sparse);
                    self.extent(d, line, own).map_err(|e| match &head.hint {
                        Some(hint) => e.hint(hint),
                        None => e,
                    })?;
                }
            }
            // Also inside an extent whose header would be enough: where the text was wiped,
            // nobody knows whether there is a parent.
            _ => {
                return Err(no_extents().file(&self.name).hint(match &head.hint {
                    Some(hint) => hint,
                    None => {
                        "if this is a piece of a split disk, open the text file that lists its \
                         pieces"
                    }
                }));
            }
        }
        Ok(())
    }

    /// A redo log: a COWD extent over the whole disk.
    fn redo(&mut self, redo: &Redo) -> Result<()> {
        let opened = self.opened.clone();
        let kind = ExtentType::VmfsSparse;
        self.sparse(&opened, Access::Rw, kind, redo.len, None, true)
    }

    /// The disk below redo logs.
    fn whole_file(&mut self, len: u64) -> Result<()> {
        let seat = self.seat(self.opened);
        let info = ExtentInfo {
            kind: ExtentType::Vmfs,
            access: Access::Rw,
            start: 0,
            len,
            offset: 0,
            file: Some(self.opened.path.clone()),
            file_size: Some(self.opened.disk.len()),
            sparse: None,
        };
        let map = FlatExtent {
            index: seat.file,
            name: seat.name,
            file: self.opened.disk.clone(),
            offset: 0,
            len,
        };
        self.push(info, map.index, Box::new(map))
    }

    /// A sparse extent that no descriptor describes.
    fn alone(&mut self, header: &Header) -> Result<()> {
        let len = crate::bytes(header.capacity).unwrap_or_default();
        let opened = self.opened.clone();
        self.sparse(
            &opened,
            Access::Rw,
            ExtentType::Sparse,
            len,
            Some(header),
            false,
        )
    }

    /// The number of the next extent.
    fn number(&self) -> u32 {
        u32::try_from(self.parts.len()).unwrap_or(u32::MAX)
    }

    fn seat(&mut self, file: &Opened) -> Seat {
        let number = self.number();
        Seat {
            number,
            file: FileIndex(*self.first.entry(file.id).or_insert(number)),
            name: file.path.display().to_string(),
            pieces: self.pieces.clone(),
            remarks: self.remarks.clone(),
        }
    }

    fn push(&mut self, info: ExtentInfo, file: FileIndex, map: Box<dyn ExtentMap>) -> Result<()> {
        let name = info
            .file
            .as_ref()
            .map_or_else(|| self.name.clone(), |f| f.display().to_string());
        let end = self
            .end
            .checked_add(info.len)
            .filter(|end| *end <= MAX_LEN)
            .ok_or_else(|| {
                DiskError::refused("adding up the extents")
                    .file(&self.name)
                    .expected("at most 1 PiB in all; VMware's disks end at 64 TiB")
                    .found(format!(
                        "{} bytes and more",
                        self.end.saturating_add(info.len)
                    ))
            })?;
        self.parts.push(Part {
            start: self.end,
            len: info.len,
            name,
            file,
            map,
        });
        self.infos.push(ExtentInfo {
            start: self.end,
            ..info
        });
        self.end = end;
        Ok(())
    }

    /// Opens what one line says; `own` is the header of the file itself.
    fn extent(&mut self, d: &Descriptor, line: &ExtentLine, own: Option<&Header>) -> Result<()> {
        let fail = |e: DiskError| e.file(&self.name);
        let too_long = |what: &str, sectors: u64| {
            fail(
                DiskError::corrupt(format!("reading the {what} of an extent"))
                    .expected("less than 2^63 bytes")
                    .found(format!("{sectors} sectors")),
            )
        };
        let len = crate::bytes(line.sectors).ok_or_else(|| too_long("length", line.sectors))?;
        let offset = line.offset.unwrap_or_default();
        let offset = crate::bytes(offset).ok_or_else(|| too_long("offset", offset))?;
        let mut info = ExtentInfo {
            kind: line.kind.clone(),
            access: line.access,
            start: 0,
            len,
            offset,
            file: None,
            file_size: None,
            sparse: None,
        };
        let unsupported = |what: &str| {
            fail(
                DiskError::unsupported(what)
                    .found(format!("an extent of type {}", line.kind.as_str())),
            )
        };
        // One extent is as long as its header says, whatever is left of the number.
        let by_header = own.is_some() && d.extent_count() == 1;
        if line.access == Access::NoAccess || (len == 0 && !by_header) {
            let e = DiskError::refused("reading a range that the descriptor marks NOACCESS")
                .file(&self.name);
            return self.push(info, FileIndex(self.number()), Box::new(ForbiddenExtent(e)));
        }
        match line.kind {
            ExtentType::Zero => {
                return self.push(info, FileIndex(self.number()), Box::new(ZeroExtent));
            }
            ExtentType::VmfsRdm => {
                return Err(unsupported("opening a raw device mapping").hint(
                    "the mapping file does not hold the disk's data; open the LUN itself as a \
                     raw disk",
                ));
            }
            ExtentType::VsanSparse => return Err(unsupported("opening a vSAN delta (vsanSparse)")),
            ExtentType::Other(_) => return Err(unsupported("opening an extent")),
            _ => {}
        }
        let flat = matches!(
            line.kind,
            ExtentType::Flat | ExtentType::Vmfs | ExtentType::VmfsRaw
        );
        if let (Some(header), false) = (own, flat) {
            // One extent and one file: the header is what every reader takes the length from
            // (fact sheet, VMDK 13.1), as long as the line does not promise more.
            let len = match crate::bytes(header.capacity) {
                Some(capacity) if d.extent_count() == 1 && capacity > len => {
                    self.warnings.push(format!(
                        "{}: the extent line says {len} bytes, the header {capacity}; the \
                         header is followed",
                        self.name
                    ));
                    capacity
                }
                _ => len,
            };
            let opened = self.opened.clone();
            return self.sparse(&opened, line.access, line.kind.clone(), len, own, true);
        }
        let Some(name) = &line.file else {
            return Err(fail(
                DiskError::corrupt("opening an extent").expected("a file name"),
            ));
        };
        for object in ["vsan://", "vvol://"] {
            if name.starts_with(object) {
                return Err(unsupported("opening an extent in an object store")
                    .found(format!("an extent at {object}")));
            }
        }
        let (file, remark) = names::open_extent(&*self.opened.dir, name, d.encoding())
            .map_err(|e| e.context(format!("opening the disk {}", self.name)))?;
        self.warnings.extend(remark);
        if !flat {
            if offset != 0 {
                return Err(unsupported(
                    "opening a sparse extent at an offset in its file",
                ));
            }
            return self.sparse(&file, line.access, line.kind.clone(), len, None, true);
        }
        info.file = Some(file.path.clone());
        info.file_size = Some(file.disk.len());
        self.told_apart(&file, offset, len);
        let seat = self.seat(&file);
        let map = FlatExtent {
            index: seat.file,
            name: seat.name,
            file: file.disk,
            offset,
            len,
        };
        let present = map.present();
        if present < len {
            self.warnings.push(format!(
                "{}: the extent should have {len} bytes and has {present}; the rest cannot be \
                 read",
                map.name
            ));
        }
        self.push(info, map.index, Box::new(map))
    }

    /// Says where a flat extent has bytes of its file that another one has too: no writer makes that.
    fn told_apart(&mut self, file: &Opened, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let taken = self.flat.entry(file.id).or_insert_with(|| Taken {
            name: file.path.display().to_string(),
            len: file.disk.len(),
            ranges: BTreeMap::new(),
        });
        let taken = &mut taken.ranges;
        // Ranges that lie apart are in order, so the last that begins before `end` tells; where
        // two overlap that was said.
        let overlaps = taken
            .range(..end)
            .next_back()
            .is_some_and(|(_, e)| *e > offset);
        let reach = taken.entry(offset).or_insert(end);
        *reach = end.max(*reach);
        if overlaps {
            let name = &self.name;
            self.remarks.add("extents-overlap", Spot::default, || {
                format!(
                    "{name}: two extents have the same bytes of {}",
                    file.path.display()
                )
            });
        }
    }

    /// Opens a sparse extent of `len` bytes by what its file says it is; the type on its line
    /// is only what the writer meant (fact sheet, VMDK 2.3).
    fn sparse(
        &mut self,
        file: &Opened,
        access: Access,
        kind: ExtentType,
        len: u64,
        own: Option<&Header>,
        described: bool,
    ) -> Result<()> {
        let seat = self.seat(file);
        let index = seat.file;
        let name = seat.name.clone();
        let disk = file.disk.clone();
        let found = match own {
            Some(_) => Some(Kind::HostedSparse),
            None => probe(&*disk)?,
        };
        let (map, sparse): (Box<dyn ExtentMap>, SparseInfo) = match found {
            Some(Kind::HostedSparse) => {
                let header = match own {
                    Some(header) => header.clone(),
                    None => Header::read(&*disk, &name)?,
                };
                let sparse = SparseInfo {
                    version: header.version.into(),
                    flags: header.flags.into(),
                    grain_size: header.grain_size.saturating_mul(crate::SECTOR),
                    capacity: header.capacity.saturating_mul(crate::SECTOR),
                    compressed: header.compressed(),
                    unclean: header.unclean_shutdown,
                };
                self.agree(&name, len, &sparse)?;
                let map = hosted::Hosted::open(disk.clone(), seat, &header, len)?;
                if !described {
                    self.warnings.push(format!(
                        "{name}: has no descriptor. It may be a piece of a split disk, or of a \
                         delta whose other contents are in a parent; it is opened by itself"
                    ));
                }
                (Box::new(map), sparse)
            }
            Some(Kind::Cowd) => {
                let header = cowd::Header::read(&*disk, &name)?;
                let sparse = SparseInfo {
                    version: header.version.into(),
                    flags: header.flags.into(),
                    grain_size: u64::from(header.grain_size).saturating_mul(crate::SECTOR),
                    capacity: u64::from(header.num_sectors).saturating_mul(crate::SECTOR),
                    compressed: false,
                    unclean: header.unclean_shutdown,
                };
                self.agree(&name, len, &sparse)?;
                let map = cowd::Cowd::open(disk.clone(), seat, &header, len)?;
                (Box::new(map), sparse)
            }
            Some(Kind::SeSparse) => {
                let header = sesparse::Header::read(&*disk, &name)?;
                let dirty = header.journal_is_dirty(&*disk, &name)?;
                if dirty {
                    let e = DiskError::unsupported("opening an seSparse extent")
                        .code("journal-dirty")
                        .file(&name)
                        .offset(crate::bytes(header.volatile_header).unwrap_or(0))
                        .expected("a replayed journal")
                        .found("a dirty one: changes in it are not in the tables")
                        .hint("--ignore-dirty-journal reads what the tables say");
                    if !self.options.ignore_dirty_journal {
                        return Err(e);
                    }
                    self.warnings.push(format!(
                        "{name}: its journal was never replayed and is IGNORED as asked: recent \
                         writes may be missing or torn"
                    ));
                }
                let sparse = SparseInfo {
                    version: sesparse::VERSION,
                    flags: 0,
                    grain_size: sesparse::GRAIN_SECTORS.saturating_mul(crate::SECTOR),
                    capacity: header.capacity.saturating_mul(crate::SECTOR),
                    compressed: false,
                    unclean: dirty,
                };
                self.agree(&name, len, &sparse)?;
                let map = sesparse::SeSparse::open(disk.clone(), seat, &header, len)?;
                (Box::new(map), sparse)
            }
            other => {
                return Err(DiskError::corrupt("opening a sparse extent")
                    .file(&name)
                    .offset(0)
                    .expected("KDMV, COWD or seSparse at its beginning")
                    .found(other.map_or("something else", Kind::describe)));
            }
        };
        self.push(
            ExtentInfo {
                kind,
                access,
                start: 0,
                len,
                offset: 0,
                file: Some(PathBuf::from(&file.path)),
                file_size: Some(disk.len()),
                sparse: Some(sparse),
            },
            index,
            map,
        )
    }

    /// The extent line lays the disk out (fact sheet, VMDK 1), the header says how much the
    /// tables can address. A longer header is the usual rounding, or a warning; a shorter one
    /// would leave guest sectors that nobody has, so it is damage. Peers take the header and
    /// so move every later extent (13.1).
    fn agree(&mut self, name: &str, len: u64, sparse: &SparseInfo) -> Result<()> {
        let round = |n: u64| {
            n.checked_next_multiple_of(sparse.grain_size.max(1))
                .unwrap_or(n)
        };
        if sparse.capacity == len || round(len) == sparse.capacity {
            return Ok(());
        }
        if round(sparse.capacity) < len {
            return Err(
                DiskError::corrupt("comparing an extent with its description")
                    .code("extent-capacity-differs")
                    .file(name)
                    .expected(format!("{len} bytes, as the descriptor says"))
                    .found(format!("a header that says {}", sparse.capacity)),
            );
        }
        let place = || Spot {
            file: name.to_owned(),
            ..Spot::default()
        };
        self.remarks.add("extent-capacity-differs", place, || {
            format!(
                "{name}: its header says {} bytes, the descriptor {len}; the descriptor is \
                 followed",
                sparse.capacity
            )
        });
        Ok(())
    }
}
