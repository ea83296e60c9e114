//! The header of a qcow2 file, its extensions and its feature bits.

use disk_io::{Disk, DiskError, Fields, Result};
use std::ops::Range;

/// `QFI\xfb`.
pub(super) const MAGIC: u32 = 0x5146_49fb;

/// The longest refcount table that qemu takes, in bytes.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Length of a version 2 header in bytes.
const V2_LEN: usize = 72;
/// Least length of a version 3 header in bytes.
const V3_LEN: usize = 104;

// Incompatible features: a reader must know each bit that is set.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Deflate without a wrapper, whatever the specification calls it.
    Zlib,
    Zstd,
}

/// What the header says, checked.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    /// Length of the disk in bytes.
    pub(super) size: u64,
    pub(super) l1_size: u32,
    pub(super) l1_table_offset: u64,
    /// Where the refcount table is, in bytes; of a sane length at most.
    pub(super) refcount_table: Range<u64>,
    pub(super) nb_snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) dirty: bool,
    pub(super) corrupt: bool,
    pub(super) extended_l2: bool,
    pub(super) compression: Compression,
    /// The backing file's name as it is stored.
    pub(super) backing_file: Option<Vec<u8>>,
    pub(super) backing_format: Option<String>,
    /// Whether data is in another file, and that file's name.
    pub(super) data_file: Option<Option<Vec<u8>>>,
}

impl Header {
    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Reads and checks it. Memory is bounded by one cluster, 2 MiB at most.
    pub(super) fn read(disk: &dyn Disk) -> Result<Self> {
        let first = read_up_to(disk, V3_LEN + 8)?;
        let f = Fields::new(&first, 0, "qcow2 header");
        if f.u32_be(0)? != MAGIC {
            return Err(f
                .corrupt(0, "the signature")
                .expected("QFI\\xfb")
                .found(format!("{:#010x}", f.u32_be(0)?)));
        }
        let version = f.u32_be(4)?;
        if !(2..=3).contains(&version) {
            return Err(DiskError::unsupported("opening the qcow2 image")
                .offset(4)
                .expected("version 2 or 3")
                .found(format!("version {version}")));
        }
        let cluster_bits = f.u32_be(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(f
                .corrupt(20, "cluster_bits")
                .expected("9 to 21")
                .found(cluster_bits.to_string()));
        }
        refuse_encryption(&f)?;
        let mut header = Self {
            version,
            cluster_bits,
            size: f.u64_be(24)?,
            l1_size: f.u32_be(36)?,
            l1_table_offset: f.u64_be(40)?,
            refcount_table: {
                let start = f.u64_be(48)?;
                let len = u64::from(f.u32_be(56)?) << cluster_bits;
                start..start.saturating_add(len.min(MAX_REFCOUNT_TABLE))
            },
            nb_snapshots: f.u32_be(60)?,
            snapshots_offset: f.u64_be(64)?,
            dirty: false,
            corrupt: false,
            extended_l2: false,
            compression: Compression::Zlib,
            backing_file: None,
            backing_format: None,
            data_file: None,
        };
        let cluster = usize::try_from(header.cluster_size()).unwrap_or(1 << 21);
        let cluster = read_up_to(disk, cluster)?;
        let whole = Fields::new(&cluster, 0, "qcow2 header");
        let (len, incompatible) = header.version_3(&whole)?;
        let extensions = Extensions::read(&whole, len)?;
        header.features(incompatible, &extensions)?;
        header.backing(&whole)?;
        if extensions.encryption && f.u32_be(32)? == 0 {
            return Err(f
                .corrupt(32, "crypt_method")
                .expected("2 (LUKS), as the header of an encrypted disk is there")
                .found("none"));
        }
        if header.backing_file.is_none() && extensions.backing_format.is_some() {
            return Err(f
                .corrupt(8, "backing_file_offset")
                .expected("a backing file, as its format is named")
                .found("none"));
        }
        header.backing_format = extensions.backing_format;
        if incompatible & DATA_FILE != 0 {
            header.data_file = Some(extensions.data_file);
        }
        if header.size > i64::MAX.unsigned_abs() {
            return Err(f
                .corrupt(24, "size")
                .expected("less than 2^63 bytes")
                .found(header.size.to_string()));
        }
        Ok(header)
    }

    /// The fields that version 3 added: the header's length and the incompatible features.
    fn version_3(&mut self, f: &Fields<'_>) -> Result<(usize, u64)> {
        if self.version < 3 {
            return Ok((V2_LEN, 0));
        }
        let incompatible = f.u64_be(72)?;
        let stored = f.u32_be(100)?;
        let len = usize::try_from(stored)
            .ok()
            .filter(|len| *len >= V3_LEN && *len <= f.len() && len.is_multiple_of(8));
        let Some(len) = len else {
            return Err(f
                .corrupt(100, "header_length")
                .expected(format!("a multiple of 8 from {V3_LEN} to one cluster"))
                .found(stored.to_string()));
        };
        let kind = if len > V3_LEN { f.u8(104)? } else { 0 };
        self.compression = match kind {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => {
                return Err(DiskError::unsupported("opening the qcow2 image")
                    .offset(104)
                    .expected("compression type 0 (zlib) or 1 (zstd)")
                    .found(other.to_string()));
            }
        };
        if (incompatible & COMPRESSION != 0) != (kind != 0) {
            return Err(f
                .corrupt(104, "compression_type")
                .expected("the feature bit and the type to agree")
                .found(format!("features {incompatible:#x}, type {kind}")));
        }
        Ok((len, incompatible))
    }

    fn features(&mut self, incompatible: u64, extensions: &Extensions) -> Result<()> {
        let unknown = incompatible & !KNOWN;
        if unknown != 0 {
            let names: Vec<_> = (0..64u8)
                .filter(|bit| unknown >> bit & 1 == 1)
                .map(|bit| {
                    let named = extensions.features.iter().find(|(b, _)| *b == bit);
                    named.map_or_else(|| format!("bit {bit}"), |(_, name)| name.clone())
                })
                .collect();
            return Err(DiskError::unsupported("opening the qcow2 image")
                .offset(72)
                .found(format!(
                    "unknown incompatible features: {}",
                    names.join(", ")
                )));
        }
        self.dirty = incompatible & DIRTY != 0;
        self.corrupt = incompatible & CORRUPT != 0;
        self.extended_l2 = incompatible & EXTENDED_L2 != 0;
        if self.extended_l2 && self.cluster_bits < 14 {
            return Err(DiskError::corrupt("reading the qcow2 header")
                .offset(20)
                .expected("clusters of at least 16 KiB for extended L2 entries")
                .found(format!("{} bytes", self.cluster_size())));
        }
        Ok(())
    }

    fn backing(&mut self, f: &Fields<'_>) -> Result<()> {
        let (at, len) = (f.u64_be(8)?, f.u32_be(16)?);
        if at == 0 {
            return Ok(());
        }
        let name = usize::try_from(at)
            .ok()
            .zip(usize::try_from(len).ok())
            .filter(|(_, len)| (1..=1023).contains(len))
            .and_then(|(at, len)| f.bytes(at, len).ok());
        let Some(name) = name else {
            return Err(f
                .corrupt(8, "backing_file_offset")
                .expected("a name of 1 to 1023 bytes in the first cluster")
                .found(format!("{len} bytes at {at}")));
        };
        self.backing_file = Some(name.to_vec());
        Ok(())
    }
}

fn refuse_encryption(f: &Fields<'_>) -> Result<()> {
    let what = match f.u32_be(32)? {
        0 => return Ok(()),
        1 => "a disk encrypted with qcow2's own AES-CBC".to_string(),
        2 => "a disk encrypted with LUKS inside qcow2".to_string(),
        n => format!("encryption method {n}"),
    };
    Err(DiskError::unsupported("opening the qcow2 image")
        .offset(32)
        .expected("a disk that is not encrypted")
        .found(what))
}

/// What of the header extensions matters for reading.
#[derive(Debug, Default)]
struct Extensions {
    /// There is a header of full disk encryption.
    encryption: bool,
    backing_format: Option<String>,
    data_file: Option<Vec<u8>>,
    /// Names of incompatible feature bits.
    features: Vec<(u8, String)>,
}

impl Extensions {
    fn read(f: &Fields<'_>, start: usize) -> Result<Self> {
        let mut found = Self::default();
        // They end at the backing file's name, at a zero type, or with the cluster.
        let name_at = usize::try_from(f.u64_be(8)?).unwrap_or(usize::MAX);
        let end = if name_at > start {
            name_at.min(f.len())
        } else {
            f.len()
        };
        let mut at = start;
        while at.saturating_add(8) <= end {
            let (kind, stored) = (f.u32_be(at)?, f.u32_be(at.saturating_add(4))?);
            if kind == 0 {
                break;
            }
            let data_at = at.saturating_add(8);
            let len = usize::try_from(stored).unwrap_or(usize::MAX);
            let data = match data_at.checked_add(len) {
                Some(to) if to <= end => f.bytes(data_at, len)?,
                _ => {
                    return Err(f
                        .corrupt(at, "a header extension")
                        .expected(format!("one that ends before {end}"))
                        .found(format!("type {kind:#010x} of {stored} bytes")));
                }
            };
            match kind {
                0xe279_2aca => {
                    found.backing_format = Some(String::from_utf8_lossy(data).into_owned());
                }
                0x0537_be77 => found.encryption = true,
                0x4441_5441 => found.data_file = Some(data.to_vec()),
                0x6803_f857 => found.features = feature_names(data),
                // Bitmaps, and the unknown, which a reader has to ignore.
                _ => {}
            }
            at = data_at.saturating_add(len.next_multiple_of(8));
        }
        Ok(found)
    }
}

/// Entries of 48 bytes: kind (0 is incompatible), bit, name.
fn feature_names(table: &[u8]) -> Vec<(u8, String)> {
    table
        .chunks_exact(48)
        .filter(|entry| entry.first() == Some(&0))
        .filter_map(|entry| {
            let name = entry.get(2..)?.split(|b| *b == 0).next()?;
            Some((*entry.get(1)?, String::from_utf8_lossy(name).into_owned()))
        })
        .collect()
}

/// The first `len` bytes, or fewer where the file is shorter.
fn read_up_to(disk: &dyn Disk, len: usize) -> Result<Vec<u8>> {
    let len = usize::try_from(disk.len()).map_or(len, |n| n.min(len));
    let mut bytes = vec![0; len];
    disk.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
