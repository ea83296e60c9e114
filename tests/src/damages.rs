//! Planted damage: one fault each, made by code, over every disk format. Each says
//! what must be found: the kind, the place, and exactly the guest files that it touches.
//!
//! | module | holds |
//! |---|---|
//! | [`bytes`] | a file in memory that is damaged |
//! | [`guest`] | the disk inside the images |
//! | [`run`] | `vmdkit check` over a damaged image, and what it must say |
//! | others | the damages, by what is damaged |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod bytes;
mod chains;
mod cowd;
mod embedded;
mod exfat;
mod ext;
mod fat;
pub mod guest;
mod hosted;
mod ntfs;
mod ova;
mod qcow2;
pub mod run;
mod sesparse;
mod stream;
mod vdi;
mod vhd;
mod vhdx;
mod vmfs;

pub use bytes::Bytes;

use anyhow::Result;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, Mutex, OnceLock},
};

/// The files of an image.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// By name.
    pub files: BTreeMap<String, Bytes>,
    /// Which of them is opened.
    pub open: String,
}

impl Files {
    /// One file.
    pub fn one(name: &str, bytes: Bytes) -> Self {
        Self {
            files: BTreeMap::from([(name.to_owned(), bytes)]),
            open: name.to_owned(),
        }
    }

    /// With another file.
    pub fn and(mut self, name: &str, bytes: Bytes) -> Self {
        self.files.insert(name.to_owned(), bytes);
        self
    }

    /// With another file opened.
    pub fn opening(mut self, name: &str) -> Self {
        name.clone_into(&mut self.open);
        self
    }

    /// A file.
    #[track_caller]
    pub fn of(&mut self, name: &str) -> &mut Bytes {
        match self.files.get_mut(name) {
            Some(bytes) => bytes,
            None => panic!("no {name}"),
        }
    }

    /// The file that is opened.
    pub fn main(&mut self) -> &mut Bytes {
        let name = self.open.clone();
        self.of(&name)
    }

    /// Changes text.
    #[track_caller]
    pub fn edit(&mut self, name: &str, from: &str, to: &str) {
        let bytes = self.of(name);
        let text = String::from_utf8(bytes.get(0, bytes.len() as usize)).unwrap();
        assert!(text.contains(from), "no {from} in {name}");
        *bytes = Bytes::new(text.replacen(from, to, 1).as_bytes());
    }
}

/// A sound image that damage is planted in.
#[derive(Debug)]
pub struct Base {
    /// Its name, unique.
    pub name: &'static str,
    /// Programs that make it; none: this one does.
    pub programs: &'static [&'static str],
    /// Makes it.
    pub make: fn() -> Result<Files>,
}

impl Base {
    /// Made once per process.
    pub fn files(&self) -> Files {
        type Cell = Arc<OnceLock<Files>>;
        static MADE: OnceLock<Mutex<HashMap<&'static str, Cell>>> = OnceLock::new();
        let made = MADE.get_or_init(Mutex::default).lock();
        let cell = made.unwrap().entry(self.name).or_default().clone();
        cell.get_or_init(|| (self.make)().unwrap_or_else(|e| panic!("{}: {e:#}", self.name)))
            .clone()
    }
}

/// Where a fault was planted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// The file of the image; the finding must name it. Empty: none is named.
    pub file: &'static str,
    /// Where in it; the finding's offset must lie there.
    pub at: Option<Range<u64>>,
    /// A byte of the disk that it touches; the finding's ranges must hold it.
    pub guest: Option<u64>,
}

/// In a file as a whole.
pub fn file(file: &'static str) -> Spot {
    Spot {
        file,
        ..Spot::default()
    }
}

/// At a place in a file, `len` bytes long.
pub fn at(name: &'static str, at: u64, len: u64) -> Spot {
    Spot {
        at: Some(at..at + len),
        ..file(name)
    }
}

/// Nothing of the image's files is named, only bytes of the disk.
pub fn on_disk(byte: u64) -> Spot {
    Spot::default().touching(byte)
}

impl Spot {
    /// Which touches a byte of the disk.
    pub fn touching(mut self, byte: u64) -> Self {
        self.guest = Some(byte);
        self
    }
}

/// How bad the finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is lost; nothing else may be found.
    Note,
    /// What protects the bytes is damaged.
    Warning,
    /// Bytes are lost.
    Damage,
}

impl Severity {
    /// As `check` calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Damage => "damage",
        }
    }
}

/// One fault.
#[derive(Debug)]
pub struct Damage {
    /// What is wrong, unique, in a few words.
    pub name: &'static str,
    /// In what.
    pub base: &'static Base,
    /// Plants it.
    pub plant: fn(&mut Files) -> Spot,
    /// The kind of finding.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Exactly the guest files that it touches.
    pub files: &'static [&'static str],
    /// Kinds of findings that come with it.
    pub also: &'static [&'static str],
}

impl Damage {
    const fn new(
        base: &'static Base,
        name: &'static str,
        (severity, code): (Severity, &'static str),
        files: &'static [&'static str],
        plant: fn(&mut Files) -> Spot,
    ) -> Self {
        Self {
            name,
            base,
            plant,
            code,
            severity,
            files,
            also: &[],
        }
    }

    const fn with(mut self, also: &'static [&'static str]) -> Self {
        self.also = also;
        self
    }
}

/// Every planted fault, by the format that has it.
pub const ALL: &[(&str, &[Damage])] = &[
    ("VMDK: hosted sparse", hosted::DAMAGES),
    ("VMDK: streamOptimized", stream::DAMAGES),
    ("VMDK: COWD", cowd::DAMAGES),
    ("VMDK: seSparse", sesparse::DAMAGES),
    ("VMDK: descriptors, flat extents, chains", chains::DAMAGES),
    ("VMDK: embedded descriptors", embedded::DAMAGES),
    ("qcow2", qcow2::DAMAGES),
    ("VHD", vhd::DAMAGES),
    ("VHDX", vhdx::DAMAGES),
    ("VDI", vdi::DAMAGES),
    ("OVA and OVF", ova::DAMAGES),
    ("NTFS", ntfs::DAMAGES),
    ("FAT32", fat::DAMAGES[0]),
    ("FAT16", fat::DAMAGES[1]),
    ("FAT12", fat::DAMAGES[2]),
    ("FAT32: boot sectors", fat::OF_FAT32),
    ("exFAT", exfat::DAMAGES),
    ("ext4", ext::DAMAGES),
    ("VMFS-5", vmfs::DAMAGES[0]),
    ("VMFS-5: names and resources", vmfs::DAMAGES[1]),
    ("VMFS-5: unusable", vmfs::DAMAGES[2]),
    ("VMFS-6", vmfs::DAMAGES[3]),
    ("VMFS-6: names and resources", vmfs::DAMAGES[4]),
    ("VMFS-6: unusable", vmfs::DAMAGES[5]),
];

/// All of them.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Damage)> {
    ALL.iter()
        .flat_map(|(group, damages)| damages.iter().map(|d| (*group, d)))
}
