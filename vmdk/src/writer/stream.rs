//! streamOptimized (fact sheet, VMDK 6): compressed grains in the order of the disk, each
//! table behind its grains, the directory at the end.

use super::{
    Extent, Plan, Sink, StreamLayout,
    hosted::{DESCRIPTOR_SECTORS, GRAIN_SECTORS},
    saved,
};
use crate::{
    SECTOR,
    hosted::header::{GD_AT_END, Header, NEWLINE_TEST, flags},
    split,
    write::hosted::encode_header,
};
use disk_io::{DiskError, Fields, Result, output::write_error, zero::is_zero};
use libdeflater::{CompressionLvl, Compressor};
use std::{
    io::{BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

const GRAIN: u64 = GRAIN_SECTORS * SECTOR;
const ENTRIES: u64 = 512;
/// Bytes of the disk that one table covers.
const SPAN: u64 = GRAIN * ENTRIES;
/// Sector number and length come before the compressed bytes.
const MARKER: usize = 12;

/// The one extent of such a disk.
pub(super) struct Stream<'f> {
    name: String,
    header: Header,
    level: CompressionLvl,
    descriptor: String,
    state: Mutex<State<'f>>,
    /// For the header, which comes last.
    patch: Option<&'f std::fs::File>,
    /// For going on with it.
    file: Option<&'f std::fs::File>,
}

struct State<'f> {
    out: BufWriter<Box<dyn Write + Send + 'f>>,
    /// The next sector of the file.
    next: u64,
    /// Up to where the disk has come.
    at: u64,
    /// The table that is being filled.
    table: Vec<u32>,
    directory: Vec<u32>,
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", self.name)
    }
}

impl<'f> Stream<'f> {
    pub(super) fn new(sink: Sink<'f>, name: String, capacity: u64, plan: &Plan) -> Result<Self> {
        let options = plan.options();
        if plan.is_child() {
            return Err(DiskError::refused("writing a VMDK (streamOptimized)")
                .file(name)
                .expected("a disk without a parent")
                .found("a child")
                .hint(
                    "the subformat has no way to say zeros over a parent; use monolithicSparse",
                ));
        }
        let level = CompressionLvl::new(options.level).map_err(|_| {
            DiskError::refused("writing a VMDK (streamOptimized)")
                .expected("a compression level of 0 to 12")
                .found(format!("{}", options.level))
        })?;
        let (out, patch, whole): (Box<dyn Write + Send + 'f>, _, _) = match (sink, options.layout) {
            (Sink::File(file), layout) => (
                Box::new(file),
                (layout == StreamLayout::Header).then_some(file),
                Some(file),
            ),
            (Sink::Stream(out), StreamLayout::Footer) => (out, None, None),
            (Sink::Stream(_), StreamLayout::Header) => {
                return Err(DiskError::refused("writing a VMDK (streamOptimized)")
                    .file(name)
                    .expected("a file: the header is written last in this layout")
                    .found("a stream")
                    .hint("use --stream-layout footer"));
            }
        };
        let over_head = DESCRIPTOR_SECTORS
            .saturating_add(1)
            .next_multiple_of(GRAIN_SECTORS);
        let header = Header {
            // ESXi refuses version 1 (fact sheet, VMDK 6.3).
            version: 3,
            flags: flags::VALID_NEWLINE_TEST | flags::COMPRESSED | flags::MARKERS,
            capacity,
            grain_size: GRAIN_SECTORS,
            descriptor_offset: 1,
            descriptor_size: DESCRIPTOR_SECTORS,
            num_gtes_per_gt: ENTRIES as u32,
            rgd_offset: 0,
            gd_offset: GD_AT_END,
            over_head,
            unclean_shutdown: false,
            compress_algorithm: 1,
            newline_test: NEWLINE_TEST,
        };
        let stream = Self {
            name,
            level,
            descriptor: plan.descriptor(),
            state: Mutex::new(State {
                out: BufWriter::with_capacity(1 << 20, out),
                next: 0,
                at: 0,
                table: vec![0; ENTRIES as usize],
                directory: Vec::new(),
            }),
            patch,
            file: whole,
            header,
        };
        Ok(stream)
    }

    fn write_head(&self) -> Result<()> {
        self.with(|state| {
            // A file gets its header when everything else is there.
            let header = match self.patch {
                Some(_) => vec![0; SECTOR as usize],
                None => encode_header(&self.header),
            };
            state.append(&header)?;
            state.append(self.descriptor.as_bytes())?;
            let left = self.header.over_head.saturating_sub(state.next);
            let zeros = vec![0; usize::try_from(left.saturating_mul(SECTOR)).unwrap_or(0)];
            state.append(&zeros)
        })
    }

    fn with(&self, act: impl FnOnce(&mut State) -> std::io::Result<()>) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = state.next.saturating_mul(SECTOR);
        act(&mut state).map_err(|e| write_error("writing", Path::new(&self.name), &e).offset(at))
    }

    /// Goes on to `offset`: zeros between what came and that had no marker.
    fn go_on(&self, state: &mut State, offset: u64) -> Result<()> {
        if state.at > offset {
            return Err(DiskError::refused("writing a VMDK (streamOptimized)")
                .file(&self.name)
                .expected(format!("the disk in order: byte {} next", state.at))
                .found(format!("byte {offset}")));
        }
        let at = state.next.saturating_mul(SECTOR);
        state
            .advance(offset)
            .map_err(|e| write_error("writing", Path::new(&self.name), &e).offset(at))
    }
}

impl State<'_> {
    /// Appends bytes, filled up to a sector.
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        const ZEROS: [u8; SECTOR as usize] = [0; SECTOR as usize];
        self.out.write_all(bytes)?;
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        let filled = sectors.saturating_mul(SECTOR);
        let left = usize::try_from(filled.saturating_sub(bytes.len() as u64)).unwrap_or(0);
        self.out.write_all(ZEROS.get(..left).unwrap_or_default())?;
        self.next = self.next.saturating_add(sectors);
        Ok(())
    }

    fn marker(&mut self, sectors: u64, kind: u32) -> std::io::Result<()> {
        let mut bytes = sectors.to_le_bytes().to_vec();
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        self.append(&bytes)
    }

    /// The disk has come up to `at`: tables that are complete are written. A table without
    /// grains is left out.
    fn advance(&mut self, at: u64) -> std::io::Result<()> {
        while self.at < at {
            let (table, _) = split(self.at, SPAN);
            let end = table.saturating_add(1).saturating_mul(SPAN);
            self.at = at.min(end);
            if self.at == end {
                self.close_table()?;
            }
        }
        Ok(())
    }

    fn close_table(&mut self) -> std::io::Result<()> {
        let place = if self.table.iter().all(|e| *e == 0) {
            0
        } else {
            let bytes: Vec<u8> = self.table.iter().flat_map(|e| e.to_le_bytes()).collect();
            self.marker(ENTRIES * 4 / SECTOR, 1)?;
            let place = self.sector()?;
            self.append(&bytes)?;
            self.table.fill(0);
            place
        };
        self.directory.push(place);
        Ok(())
    }

    /// The next sector, which has to fit into 32 bits.
    fn sector(&self) -> std::io::Result<u32> {
        u32::try_from(self.next).map_err(|_| {
            std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                "more than 2 TiB of compressed data, which is all that streamOptimized can address",
            )
        })
    }
}

impl Extent for Stream<'_> {
    fn begin(&self) -> Result<()> {
        self.write_head()
    }

    fn save(&self) -> Result<saved::Piece> {
        let mut kept = saved::Stream::default();
        self.with(|state| {
            state.out.flush()?;
            kept.next = state.next;
            kept.at = state.at;
            kept.table.clone_from(&state.table);
            kept.directory.clone_from(&state.directory);
            Ok(())
        })?;
        Ok(saved::Piece::Stream(kept))
    }

    fn restore(&self, saved: &saved::Piece) -> Result<()> {
        let (saved::Piece::Stream(kept), Some(mut file)) = (saved, self.file) else {
            return Err(saved::other());
        };
        self.with(|state| {
            let end = kept.next.saturating_mul(SECTOR);
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            state.next = kept.next;
            state.at = kept.at;
            state.table.clone_from(&kept.table);
            state.directory.clone_from(&kept.directory);
            Ok(())
        })
    }

    /// Grains that are not zero, each with its marker, filled up to sectors.
    fn encode(&self, bytes: &[u8], offset: u64) -> Result<Option<Vec<u8>>> {
        let mut compressor = Compressor::new(self.level);
        let mut packed = Vec::with_capacity(bytes.len() / 2);
        let mut whole = Vec::new();
        let mut at = offset;
        for grain in bytes.chunks(GRAIN as usize) {
            if !is_zero(grain) {
                // The last grain is padded before it is compressed (fact sheet, VMDK 14).
                let grain = if grain.len() < GRAIN as usize {
                    whole.extend_from_slice(grain);
                    whole.resize(GRAIN as usize, 0);
                    &whole
                } else {
                    grain
                };
                let start = packed.len();
                let data = start.saturating_add(MARKER);
                let room = compressor.zlib_compress_bound(grain.len());
                packed.resize(data.saturating_add(room), 0);
                let n = packed
                    .get_mut(data..)
                    .and_then(|to| compressor.zlib_compress(grain, to).ok())
                    .ok_or_else(|| {
                        DiskError::refused("compressing a grain")
                            .offset(at)
                            .found("more bytes than the compressor's own bound")
                    })?;
                let size = u32::try_from(n).unwrap_or(u32::MAX);
                let marker = (at / SECTOR)
                    .to_le_bytes()
                    .into_iter()
                    .chain(size.to_le_bytes());
                for (to, from) in packed.iter_mut().skip(start).zip(marker) {
                    *to = from;
                }
                packed.truncate(data.saturating_add(n));
                packed.resize(packed.len().next_multiple_of(SECTOR as usize), 0);
            }
            at = at.saturating_add(GRAIN);
        }
        Ok(Some(packed))
    }

    /// Takes what [`Self::encode`] made: the markers say which grains they are.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.go_on(&mut state, offset)?;
        let failed = |state: &State, e: std::io::Error| {
            let at = state.next.saturating_mul(SECTOR);
            write_error("writing", Path::new(&self.name), &e).offset(at)
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let f = Fields::new(rest, 0, "grain marker");
            let (sector, size) = (f.u64_le(0)?, f.u32_le(8)?);
            let len = (size as usize)
                .saturating_add(MARKER)
                .next_multiple_of(SECTOR as usize);
            let (block, later) = rest.split_at_checked(len).ok_or_else(|| {
                f.corrupt(8, "size")
                    .expected("no more than what was compressed")
            })?;
            let start = sector.saturating_mul(SECTOR);
            state.advance(start).map_err(|e| failed(&state, e))?;
            let place = state.sector().map_err(|e| failed(&state, e))?;
            let (_, index) = split(sector / GRAIN_SECTORS, ENTRIES);
            if let Some(entry) = state
                .table
                .get_mut(usize::try_from(index).unwrap_or(usize::MAX))
            {
                *entry = place;
            }
            state.append(block).map_err(|e| failed(&state, e))?;
            let end = start.saturating_add(GRAIN);
            let end = end.min(self.header.capacity.saturating_mul(SECTOR));
            state.advance(end).map_err(|e| failed(&state, e))?;
            rest = later;
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.go_on(&mut state, offset)?;
        self.go_on(&mut state, offset.saturating_add(len))
    }

    fn finish(&self) -> Result<()> {
        let end = self.header.capacity.saturating_mul(SECTOR);
        let mut header = self.header.clone();
        self.with(|state| {
            state.advance(end)?;
            if split(end, SPAN).1 != 0 {
                state.close_table()?;
            }
            let bytes: Vec<u8> = state
                .directory
                .iter()
                .flat_map(|e| e.to_le_bytes())
                .collect();
            state.marker((bytes.len() as u64).div_ceil(SECTOR), 2)?;
            header.gd_offset = u64::from(state.sector()?);
            state.append(&bytes)?;
            if self.patch.is_none() {
                state.marker(1, 3)?;
                state.append(&encode_header(&header))?;
            }
            // End of stream.
            state.append(&[0; SECTOR as usize])?;
            state.out.flush()?;
            if let Some(file) = self.patch {
                file.write_all_at(&encode_header(&header), 0)?;
            }
            Ok(())
        })
    }
}
