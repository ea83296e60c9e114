//! What is done with hostile bytes, and what must hold whatever they are: a typed error, or a
//! disk whose map and contents agree, within bounds; never a panic.
//!
//! The functions take bytes from anywhere: `cargo test` replays what was found and mutates for a
//! moment, `cargo xtask fuzz` drives them by coverage through libFuzzer (`engine`).
//!
//! | module | targets |
//! |---|---|
//! | [`texts`] | descriptors, configurations, snapshot lists, OVF, registry hives |
//! | [`images`] | every disk format, their chains, packages |
//! | [`volumes`] | partition tables, volume groups, guest file systems |
//! | [`datastores`] | VMFS and its LVM |
//! | [`codecs`] | decompressors |
//! | [`bases`] | sound images that inputs are patches of |
//! | [`faults`] | sources that fail while they are read |
//! | [`patch`] | what an input means |
//! | [`oracle`] | what must hold of a disk |
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a rule that is broken panics: that is how it is found"
)]

pub mod bases;
pub mod codecs;
pub mod datastores;
pub mod faults;
pub mod images;
pub mod oracle;
pub mod patch;
pub mod texts;
pub mod volumes;

/// Something that takes hostile bytes.
pub struct Target {
    /// Its name: also of its directory of inputs.
    pub name: &'static str,
    /// What is fed.
    pub what: &'static str,
    /// Feeds it; panics where a rule is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const ALL: &[Target] = &[
    target("descriptor", "VMDK descriptor", texts::descriptor),
    target("vmx", "configuration of a machine", texts::vmx),
    target("vmsd", "list of snapshots", texts::vmsd),
    target("ovf", "OVF descriptor", texts::ovf),
    target("hosted", "monolithicSparse VMDK", images::hosted),
    target("stream", "streamOptimized VMDK", images::stream),
    target(
        "salvage",
        "streamOptimized VMDK by its markers",
        images::salvage,
    ),
    target("cowd", "COWD", images::cowd),
    target("sesparse", "seSparse", images::sesparse),
    target("qcow2", "qcow2", images::qcow2),
    target("vhd", "VHD", images::vhd),
    target("vhdx", "VHDX", images::vhdx),
    target("vdi", "VDI", images::vdi),
    target("ova", "OVA package", images::ova),
    target(
        "any",
        "bytes of any kind, recognised by content",
        images::any,
    ),
    target("partitions", "MBR and GPT", volumes::partitions),
    target("lvm2", "LVM2", volumes::lvm2),
    target("ldm", "LDM", volumes::ldm),
    target("ntfs", "NTFS", volumes::ntfs),
    target("fat", "FAT12, FAT16, FAT32", volumes::fat),
    target("exfat", "exFAT", volumes::exfat),
    target("ext", "ext2, ext3, ext4", volumes::ext),
    target("vmfs-lvm", "LVM of VMFS", datastores::lvm),
    target("vmfs", "VMFS-5 and VMFS-6", datastores::vmfs),
    target("hive", "registry hive", texts::hive),
    target("lznt1", "LZNT1", codecs::lznt1),
    target("xpress", "XPRESS Huffman", codecs::xpress),
    target("lzx", "LZX", codecs::lzx),
];

const fn target(name: &'static str, what: &'static str, run: fn(&[u8])) -> Target {
    Target { name, what, run }
}

/// The target of a name.
pub fn find(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|t| t.name == name)
}
