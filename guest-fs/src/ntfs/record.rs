//! File records: fix-ups, header, attributes.

use disk_io::{DiskError, Fields, Result};
use std::sync::Arc;

/// Attribute types.
pub(crate) mod kind {
    pub(crate) const STANDARD_INFORMATION: u32 = 0x10;
    pub(crate) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(crate) const FILE_NAME: u32 = 0x30;
    pub(crate) const OBJECT_ID: u32 = 0x40;
    pub(crate) const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub(crate) const EA: u32 = 0xe0;
    pub(crate) const VOLUME_NAME: u32 = 0x60;
    pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
    pub(crate) const DATA: u32 = 0x80;
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    pub(crate) const INDEX_ALLOCATION: u32 = 0xa0;
    pub(crate) const BITMAP: u32 = 0xb0;
    pub(crate) const REPARSE_POINT: u32 = 0xc0;
    pub(crate) const LOGGED_UTILITY_STREAM: u32 = 0x100;
}

/// Attribute flags.
pub(crate) mod flags {
    pub(crate) const COMPRESSION: u16 = 0x00ff;
    pub(crate) const ENCRYPTED: u16 = 0x4000;
    pub(crate) const SPARSE: u16 = 0x8000;
}

/// Multi-sector structures are protected every 512 bytes, whatever the sector size.
const STRIDE: usize = 512;

/// Undoes the fix-ups of a record or index block in place: the last two bytes of every 512
/// were replaced by a number that says whether the whole was written. `base` is its offset
/// on the volume.
pub(crate) fn fix_up(block: &mut [u8], base: u64, what: &'static str) -> Result<()> {
    let f = Fields::new(block, base, what);
    let offset = usize::from(f.u16_le(4)?);
    let count = usize::from(f.u16_le(6)?);
    let strides = block.len() / STRIDE;
    if count != strides.saturating_add(1) || !block.len().is_multiple_of(STRIDE) {
        return Err(f
            .corrupt(6, "the fix-up count")
            .expected(strides.saturating_add(1).to_string())
            .found(count.to_string()));
    }
    let array = f.bytes(offset, count.saturating_mul(2))?.to_vec();
    let (pairs, _) = array.as_chunks::<2>();
    let Some((number, saved)) = pairs.split_first() else {
        return Err(f.corrupt(4, "the fix-ups"));
    };
    for (i, stride) in block.chunks_exact(STRIDE).enumerate() {
        let end = stride.last_chunk::<2>();
        if end != Some(number) {
            return Err(
                DiskError::corrupt(format!("checking the fix-ups of the {what}"))
                    .offset(base.saturating_add((i.saturating_mul(STRIDE)) as u64))
                    .expected(format!("{:#06x}", u16::from_le_bytes(*number)))
                    .found(format!(
                        "{:#06x}: a torn write",
                        end.map_or(0, |e| u16::from_le_bytes(*e))
                    )),
            );
        }
    }
    for (stride, saved) in block.chunks_exact_mut(STRIDE).zip(saved) {
        if let Some(end) = stride.last_chunk_mut::<2>() {
            *end = *saved;
        }
    }
    Ok(())
}

/// Whether a slot of the $MFT holds a record.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// A record whose fix-ups agree.
    Good,
    /// Never used: zeros.
    Empty,
    /// Damaged or unreadable.
    Bad(DiskError),
}

/// Neighbouring records, read together and fixed up.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Number of the first record.
    pub(crate) first: u64,
    pub(crate) record_size: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) slots: Vec<Slot>,
}

impl Chunk {
    /// Fixes up the records in `bytes`; those in `slots` that are bad already stay so.
    pub(crate) fn new(
        first: u64,
        record_size: usize,
        mut bytes: Vec<u8>,
        mut slots: Vec<Slot>,
    ) -> Self {
        for (i, (record, slot)) in bytes
            .chunks_exact_mut(record_size)
            .zip(&mut slots)
            .enumerate()
        {
            if matches!(slot, Slot::Good) {
                *slot = check(record, first.saturating_add(i as u64));
            }
        }
        Self {
            first,
            record_size,
            bytes,
            slots,
        }
    }

    /// The record with this number, with the state of its slot.
    pub(crate) fn get(self: &Arc<Self>, number: u64) -> Result<Record> {
        let index = number.checked_sub(self.first).unwrap_or(u64::MAX);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        match self.slots.get(index) {
            Some(Slot::Good) => Ok(Record {
                chunk: self.clone(),
                start: index.saturating_mul(self.record_size),
                number,
            }),
            Some(Slot::Bad(e)) => Err(e.clone()),
            Some(Slot::Empty) => Err(DiskError::corrupt(format!("reading file record {number}"))
                .expected("a record")
                .found("zeros: a record that was never used")),
            None => {
                Err(DiskError::corrupt(format!("reading file record {number}"))
                    .found("no such record"))
            }
        }
    }
}

/// Checks the signature and undoes the fix-ups of one record.
pub(crate) fn check(record: &mut [u8], number: u64) -> Slot {
    let doing = || format!("reading file record {number}");
    match record.first_chunk::<4>() {
        Some(b"FILE") => match fix_up(record, 0, "file record") {
            Ok(()) => Slot::Good,
            Err(e) => Slot::Bad(e.context(doing())),
        },
        Some(b"BAAD") => Slot::Bad(
            DiskError::corrupt(doing()).found("a record that Windows marked as torn (BAAD)"),
        ),
        Some([0, 0, 0, 0]) if disk_io::zero::is_zero(record) => Slot::Empty,
        other => Slot::Bad(
            DiskError::corrupt(doing())
                .expected("\"FILE\"")
                .found(format!("{other:02x?}")),
        ),
    }
}

/// One file record, fixed up.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    chunk: Arc<Chunk>,
    start: usize,
    /// Its number.
    pub(crate) number: u64,
}

/// A reference to a file record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) record: u64,
    pub(crate) sequence: u16,
}

impl Reference {
    /// From its 64 bits: 48 of record number, 16 of sequence number.
    pub(crate) fn new(raw: u64) -> Self {
        Self {
            record: raw & 0xffff_ffff_ffff,
            sequence: (raw >> 48) as u16,
        }
    }
}

impl Record {
    /// All bytes of the record.
    pub(crate) fn bytes(&self) -> &[u8] {
        let end = self.start.saturating_add(self.chunk.record_size);
        self.chunk.bytes.get(self.start..end).unwrap_or_default()
    }

    fn fields(&self) -> Fields<'_> {
        Fields::new(self.bytes(), 0, "file record")
    }

    fn u16(&self, at: usize) -> u16 {
        self.fields().u16_le(at).unwrap_or(0)
    }

    /// How often the record was given to a new file.
    pub(crate) fn sequence(&self) -> u16 {
        self.u16(16)
    }

    /// How many names it counts.
    pub(crate) fn links(&self) -> u16 {
        let two = self.bytes().get(0x12..).and_then(|b| b.first_chunk());
        two.map_or(0, |b| u16::from_le_bytes(*b))
    }

    /// Whether a file has it now.
    pub(crate) fn in_use(&self) -> bool {
        self.u16(22) & 1 != 0
    }

    /// Whether the file is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.u16(22) & 2 != 0
    }

    /// Whether it is in use and nothing but a file: neither a directory nor one of the metafiles
    /// below $Extend.
    pub(crate) fn is_plain(&self) -> bool {
        self.u16(22) & 0xf == 1
    }

    /// The base record, if this is an extension.
    pub(crate) fn base(&self) -> Option<Reference> {
        match self.fields().u64_le(32) {
            Ok(0) | Err(_) => None,
            Ok(raw) => Some(Reference::new(raw)),
        }
    }

    /// The attributes in order. After a damaged one nothing more is found: the last item is
    /// then the error.
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        let f = self.fields();
        let used = f.u32_le(24).unwrap_or(0) as usize;
        let bytes = f.all().get(..used).unwrap_or(f.all());
        Attributes {
            record: bytes,
            at: usize::from(self.u16(20)),
            number: self.number,
            done: false,
        }
    }

    /// The attribute at this offset, as given by [`Attributes::at`].
    pub(crate) fn attribute_at(&self, at: usize) -> Result<Attribute<'_>> {
        let mut all = self.attributes();
        all.at = at;
        all.next().map_or_else(
            || Err(DiskError::corrupt("finding an attribute again")),
            |r| r.map(|(_, a)| a),
        )
    }
}

/// See [`Record::attributes`].
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    record: &'a [u8],
    at: usize,
    number: u64,
    done: bool,
}

impl<'a> Iterator for Attributes<'a> {
    /// The offset of the attribute in the record, and the attribute.
    type Item = Result<(usize, Attribute<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let at = self.at;
        let parsed = self.parse();
        match parsed {
            Ok(None) => {
                self.done = true;
                None
            }
            Ok(Some(attribute)) => Some(Ok((at, attribute))),
            Err(e) => {
                self.done = true;
                Some(Err(e.context(format!(
                    "reading the attributes of record {}",
                    self.number
                ))))
            }
        }
    }
}

impl<'a> Attributes<'a> {
    fn parse(&mut self) -> Result<Option<Attribute<'a>>> {
        let whole = Fields::new(self.record, 0, "file record");
        let kind = whole.u32_le(self.at)?;
        if kind == u32::MAX {
            return Ok(None);
        }
        let len = whole.u32_le(self.at.saturating_add(4))? as usize;
        if len < 16 || self.at < 42 {
            return Err(whole
                .corrupt(self.at, "an attribute")
                .expected("a length of 16 or more")
                .found(len.to_string()));
        }
        let f = whole.sub(self.at, len, "attribute")?;
        self.at = self.at.saturating_add(len);
        Attribute::parse(&f, kind).map(Some)
    }
}

/// One attribute, or one piece of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u32,
    /// UTF-16LE.
    pub(crate) name: &'a [u8],
    pub(crate) flags: u16,
    pub(crate) form: Form<'a>,
}

/// Where the value of an attribute is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form<'a> {
    /// In the record.
    Resident(&'a [u8]),
    /// In clusters.
    NonResident(NonResident<'a>),
}

/// The header of a piece whose value is in clusters. Sizes count only where `lowest` is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NonResident<'a> {
    /// First cluster of the value that this piece maps.
    pub(crate) lowest: u64,
    /// The cluster behind the last one that it maps.
    pub(crate) end: u64,
    /// Exponent of the clusters in a compression unit; 0 if not compressed.
    pub(crate) unit: u8,
    pub(crate) size: u64,
    /// What lies beyond was never written and reads as zeros.
    pub(crate) initialized: u64,
    /// Bytes that are really allocated, for compressed and sparse values.
    pub(crate) stored: u64,
    /// Mapping pairs.
    pub(crate) runs: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn parse(f: &Fields<'a>, kind: u32) -> Result<Self> {
        let name_len = usize::from(f.u8(9)?).saturating_mul(2);
        let name = if name_len == 0 {
            &[][..]
        } else {
            f.bytes(usize::from(f.u16_le(10)?), name_len)?
        };
        let flags = f.u16_le(12)?;
        let form = if f.u8(8)? == 0 {
            let len = f.u32_le(16)? as usize;
            let at = usize::from(f.u16_le(20)?);
            // A value fills its attribute. Of others than contents what is wrong shows in them.
            let end = at.saturating_add(len).next_multiple_of(8);
            if kind == self::kind::DATA && (!at.is_multiple_of(8) || end != f.len()) {
                return Err(f
                    .corrupt(16, "contents in the record")
                    .expected(format!(
                        "a value that ends with its attribute, at {}",
                        f.len()
                    ))
                    .found(format!("{len} bytes at {at}")));
            }
            Form::Resident(f.bytes(at, len)?)
        } else {
            let (lowest, highest) = (f.i64_le(16)?, f.i64_le(24)?);
            let end = highest
                .checked_add(1)
                .and_then(|end| u64::try_from(end).ok());
            let (Ok(lowest), Some(end)) = (u64::try_from(lowest), end) else {
                return Err(f
                    .corrupt(16, "the cluster range")
                    .found(format!("{lowest} to {highest}")));
            };
            let runs_at = usize::from(f.u16_le(32)?);
            let runs = f.bytes(runs_at, f.len().saturating_sub(runs_at))?;
            let (allocated, size) = (f.u64_le(40)?, f.u64_le(48)?);
            // Sizes are signed on disk.
            if size > i64::MAX as u64 || allocated > i64::MAX as u64 {
                return Err(f.corrupt(48, "the size").found(size.to_string()));
            }
            let unit = f.u8(34)?;
            let stored = if (unit != 0 || flags & (flags::COMPRESSION | flags::SPARSE) != 0)
                && runs_at >= 72
            {
                f.u64_le(64)?
            } else {
                allocated
            };
            Form::NonResident(NonResident {
                lowest,
                end,
                unit,
                size,
                initialized: f.u64_le(56)?,
                stored,
                runs,
            })
        };
        Ok(Self {
            kind,
            name,
            flags,
            form,
        })
    }

    /// Bytes that the value takes on the volume beside its record.
    pub(crate) fn stored(&self) -> u64 {
        match &self.form {
            Form::Resident(_) => 0,
            Form::NonResident(n) => n.stored,
        }
    }

    /// First cluster that the piece maps; 0 for resident values.
    pub(crate) fn lowest(&self) -> u64 {
        match &self.form {
            Form::Resident(_) => 0,
            Form::NonResident(n) => n.lowest,
        }
    }
}
