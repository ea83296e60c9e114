//! Which files an image consists of, and what its descriptor says.

use super::{cowd, hosted, sesparse};
use crate::{SECTOR, write::descriptor};
use disk_io::{DiskError, Result};
use std::{fmt, str::FromStr};

/// Subformats, under the names that `createType` has (fact sheet, VMDK 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Subformat {
    /// One growing file.
    #[default]
    MonolithicSparse,
    /// One file with all bytes, and a descriptor.
    MonolithicFlat,
    /// Growing files of at most 2 GB, and a descriptor.
    TwoGbMaxExtentSparse,
    /// Files with all bytes of at most 2 GB, and a descriptor.
    TwoGbMaxExtentFlat,
    /// One compressed file, as in OVA packages.
    StreamOptimized,
    /// One file with all bytes, and a descriptor as ESXi wants it.
    Vmfs,
    /// A growing file of ESXi up to 5, and a descriptor (COWD).
    VmfsSparse,
    /// A growing file of ESXi from 5.5 on, and a descriptor.
    SeSparse,
}

impl Subformat {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::MonolithicSparse,
        Self::MonolithicFlat,
        Self::TwoGbMaxExtentSparse,
        Self::TwoGbMaxExtentFlat,
        Self::StreamOptimized,
        Self::Vmfs,
        Self::VmfsSparse,
        Self::SeSparse,
    ];

    /// As in `createType`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MonolithicSparse => "monolithicSparse",
            Self::MonolithicFlat => "monolithicFlat",
            Self::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
            Self::TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
            Self::StreamOptimized => "streamOptimized",
            Self::Vmfs => "vmfs",
            Self::VmfsSparse => "vmfsSparse",
            Self::SeSparse => "seSparse",
        }
    }

    /// The type in an extent line.
    fn extent_type(self) -> &'static str {
        match self {
            Self::MonolithicSparse | Self::TwoGbMaxExtentSparse | Self::StreamOptimized => "SPARSE",
            Self::MonolithicFlat | Self::TwoGbMaxExtentFlat => "FLAT",
            Self::Vmfs => "VMFS",
            Self::VmfsSparse => "VMFSSPARSE",
            Self::SeSparse => "SESPARSE",
        }
    }

    /// Whether the descriptor lies in the only file.
    fn is_monolithic(self) -> bool {
        matches!(self, Self::MonolithicSparse | Self::StreamOptimized)
    }

    fn is_split(self) -> bool {
        matches!(self, Self::TwoGbMaxExtentSparse | Self::TwoGbMaxExtentFlat)
    }

    /// Whether every byte of the disk has its place from the beginning.
    pub fn is_flat(self) -> bool {
        matches!(
            self,
            Self::MonolithicFlat | Self::TwoGbMaxExtentFlat | Self::Vmfs
        )
    }

    /// Bytes that are stored together.
    pub(super) fn block(self) -> u64 {
        match self {
            Self::MonolithicFlat | Self::TwoGbMaxExtentFlat | Self::Vmfs => 4096,
            Self::VmfsSparse => cowd::GRAIN_SECTORS * SECTOR * 8,
            Self::SeSparse => sesparse::GRAIN,
            _ => hosted::GRAIN_SECTORS * SECTOR,
        }
    }

    /// What stands between the name and `.vmdk` in the names of extents.
    fn suffix(self, number: usize) -> String {
        match self {
            Self::TwoGbMaxExtentSparse => format!("-s{number:03}"),
            Self::TwoGbMaxExtentFlat => format!("-f{number:03}"),
            Self::VmfsSparse => "-delta".into(),
            Self::SeSparse => "-sesparse".into(),
            _ => "-flat".into(),
        }
    }
}

impl fmt::Display for Subformat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Subformat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|s| s.name()).collect();
                format!(
                    "{text:?} is no subformat of VMDK; there are {}",
                    names.join(", ")
                )
            })
    }
}

/// Where a streamOptimized file has its directory (fact sheet, VMDK 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamLayout {
    /// The header says where it is: every reader that was tried takes that. The header is
    /// written last, so the output must be a file.
    #[default]
    Header,
    /// A footer behind everything says where it is, as VMware and VirtualBox write it. The
    /// output can be a pipe.
    Footer,
}

/// What identifies a disk, and how its descriptor presents it to a hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Content id; neither `fffffffe` nor `ffffffff`.
    pub cid: u32,
    /// `ddb.adapterType`.
    pub adapter: String,
    /// `ddb.virtualHWVersion`.
    pub hardware: u32,
    /// `ddb.uuid`, if there is to be one.
    pub uuid: Option<[u8; 16]>,
    /// Content id of the parent, and the name by which it is found.
    pub parent: Option<(u32, String)>,
}

impl Identity {
    /// A disk of its own with this content id, for a SCSI adapter.
    pub fn new(cid: u32) -> Self {
        Self {
            cid: match cid {
                // Reserved (fact sheet, VMDK 3).
                0xffff_fffe | u32::MAX => 0x1000_0001,
                cid => cid,
            },
            adapter: "lsilogic".into(),
            hardware: 7,
            uuid: None,
            parent: None,
        }
    }
}

/// How to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// The subformat.
    pub subformat: Subformat,
    /// Of streamOptimized.
    pub layout: StreamLayout,
    /// Level of deflate of streamOptimized: 1 to 12, or 0 for none.
    pub level: i32,
    /// Bytes of the disk in each piece of a split subformat.
    pub split: u64,
    /// What the descriptor says.
    pub identity: Identity,
}

/// What VMware splits at: 2047 MiB (fact sheet, VMDK 4).
const SPLIT: u64 = 2047 << 20;
/// Extents that a disk may have: the readers' limit here.
const MAX_EXTENTS: u64 = 65_536;

impl Options {
    /// The usual settings of a subformat.
    pub fn new(subformat: Subformat, identity: Identity) -> Self {
        Self {
            subformat,
            layout: StreamLayout::default(),
            level: 6,
            split: SPLIT,
            identity,
        }
    }
}

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its name, without a directory.
    pub name: String,
    /// First sector of the disk in it.
    pub start: u64,
    /// Sectors of the disk in it.
    pub sectors: u64,
    /// Whether it is the descriptor.
    pub is_descriptor: bool,
}

impl PlannedFile {
    /// Bytes of the disk in it.
    pub fn len(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Whether it holds nothing of the disk.
    pub fn is_empty(&self) -> bool {
        self.sectors == 0
    }
}

/// The files of an image, the descriptor (or the only file) last.
#[derive(Clone, Debug)]
pub struct Plan {
    files: Vec<PlannedFile>,
    sectors: u64,
    options: Options,
}

impl Plan {
    /// Plans a disk of `len` bytes that is called `name` (`web01.vmdk`).
    ///
    /// # Errors
    /// `Refused` for what the subformat cannot hold, and for names that a descriptor cannot
    /// say.
    pub fn new(name: &str, len: u64, options: Options) -> Result<Self> {
        let subformat = options.subformat;
        let refused = || DiskError::refused(format!("writing a VMDK ({subformat})")).file(name);
        if !len.is_multiple_of(SECTOR) {
            return Err(refused()
                .expected("a disk of whole sectors of 512 bytes")
                .found(format!("{len} bytes")));
        }
        if crate::bytes(len / SECTOR).is_none() || len == 0 {
            return Err(refused()
                .expected("a disk of 512 bytes to 2^63")
                .found(format!("{len} bytes")));
        }
        // Quotes cannot be escaped in a descriptor (fact sheet, VMDK 2.1).
        if name.is_empty() || name.contains(['"', '/', '\\']) || name.contains(char::is_control) {
            return Err(refused()
                .expected("a name without quotes, slashes and control characters")
                .hint("choose another name for the output"));
        }
        if options.split < SECTOR << 7 || !options.split.is_multiple_of(SECTOR << 7) {
            return Err(refused()
                .expected("pieces of a multiple of 64 KiB")
                .found(format!("{} bytes", options.split)));
        }
        let sectors = len / SECTOR;
        let stem = name.strip_suffix(".vmdk").unwrap_or(name);
        let mut files = Vec::new();
        if !subformat.is_monolithic() {
            let split = if subformat.is_split() {
                options.split / SECTOR
            } else {
                sectors
            };
            if sectors.div_ceil(split) > MAX_EXTENTS {
                return Err(refused()
                    .expected(format!("at most {MAX_EXTENTS} pieces"))
                    .found(format!("{}", sectors.div_ceil(split)))
                    .hint("choose larger pieces with --split-size"));
            }
            let mut start = 0u64;
            while start < sectors {
                let here = split.min(sectors.saturating_sub(start));
                let number = files.len().saturating_add(1);
                files.push(PlannedFile {
                    name: format!("{stem}{}.vmdk", subformat.suffix(number)),
                    start,
                    sectors: here,
                    is_descriptor: false,
                });
                start = start.saturating_add(here);
            }
        }
        files.push(PlannedFile {
            name: name.to_owned(),
            start: if subformat.is_monolithic() {
                0
            } else {
                sectors
            },
            sectors: if subformat.is_monolithic() {
                sectors
            } else {
                0
            },
            is_descriptor: !subformat.is_monolithic(),
        });
        Ok(Self {
            files,
            sectors,
            options,
        })
    }

    /// Plans the descriptor `name` for a flat file of `len` bytes that is there already.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn over(name: &str, flat: &str, len: u64, options: Options) -> Result<Self> {
        // What holds for the one name holds for the other.
        Self::new(flat, len, options.clone())?;
        let mut plan = Self::new(name, len, options)?;
        if let Some(extent) = plan.files.first_mut() {
            flat.clone_into(&mut extent.name);
        }
        Ok(plan)
    }

    /// The files, the one under the image's own name last.
    pub fn files(&self) -> &[PlannedFile] {
        &self.files
    }

    /// Bytes of the disk.
    pub fn len(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Whether the disk has no bytes; there is no such plan.
    pub fn is_empty(&self) -> bool {
        self.sectors == 0
    }

    /// The subformat.
    pub fn subformat(&self) -> Subformat {
        self.options.subformat
    }

    /// How to write.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether there is a parent: then zeros have to be said.
    pub fn is_child(&self) -> bool {
        self.options.identity.parent.is_some()
    }

    pub(super) fn has_descriptor_file(&self) -> bool {
        !self.options.subformat.is_monolithic()
    }

    /// The descriptor.
    pub fn descriptor(&self) -> String {
        let subformat = self.options.subformat;
        let extents = self.files.iter().filter(|f| !f.is_descriptor);
        let identity = &self.options.identity;
        let text = descriptor::Text {
            cid: identity.cid,
            parent: identity
                .parent
                .as_ref()
                .map(|(cid, hint)| (*cid, hint.as_str())),
            create_type: subformat.name(),
            extents: extents
                .map(|f| descriptor::extent(f.sectors, subformat.extent_type(), &f.name))
                .collect(),
        };
        text.encode_for(identity, self.sectors)
    }
}
