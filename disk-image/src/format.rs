//! The names of what a file's contents can be.

use disk_io::{DiskError, ErrorKind};
use std::{fmt, str::FromStr};

macro_rules! formats {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $title:literal;)*) => {
        /// What the contents of a file are: every format that is read, and those that are
        /// recognised so that they can be refused by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Format {
            $($(#[$doc])* $variant,)*
        }

        impl Format {
            /// Every format.
            pub const ALL: &[Format] = &[$(Self::$variant),*];

            /// The word for `--format`, for JSON and for scripts.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What people call it.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

formats! {
    /// Any kind of VMDK: a descriptor, or an extent with its own header.
    Vmdk, "vmdk", "VMware disk (VMDK)";
    /// The bytes of a disk, and nothing else.
    Raw, "raw", "raw disk";
    /// QEMU copy-on-write, versions 2 and 3.
    Qcow2, "qcow2", "QEMU disk (qcow2)";
    /// Virtual PC and Hyper-V, the older format.
    Vhd, "vhd", "Virtual PC / Hyper-V disk (VHD)";
    /// Hyper-V, the newer format.
    Vhdx, "vhdx", "Hyper-V disk (VHDX)";
    /// VirtualBox.
    Vdi, "vdi", "VirtualBox disk (VDI)";
    /// A tar archive, which an OVA is.
    Ova, "ova", "OVF archive (OVA)";
    /// An OVF descriptor on its own.
    Ovf, "ovf", "OVF descriptor";
    /// QEMU copy-on-write, version 1.
    Qcow1, "qcow1", "QEMU disk, version 1 (qcow)";
    /// QEMU enhanced disk.
    Qed, "qed", "QEMU enhanced disk (QED)";
    /// Parallels and Virtuozzo.
    Parallels, "parallels", "Parallels disk (HDD)";
    /// Bochs growing image.
    Bochs, "bochs", "Bochs growing disk";
    /// Compressed loop.
    Cloop, "cloop", "compressed loop image (cloop)";
    /// Apple.
    Dmg, "dmg", "Apple disk image (DMG)";
    /// Apple sparse image.
    SparseImage, "sparseimage", "Apple sparse image";
    /// Expert Witness, as EnCase writes it.
    Ewf, "ewf", "Expert Witness image (EWF/E01)";
    /// Advanced Forensic Format.
    Aff, "aff", "Advanced Forensic Format (AFF)";
    /// Optical disc.
    Iso, "iso", "optical disc image (ISO 9660)";
    /// A disk encrypted as a whole.
    Luks, "luks", "LUKS-encrypted disk";
    /// A Windows archive of files.
    Wim, "wim", "Windows image archive (WIM)";
    /// Partclone.
    Partclone, "partclone", "Partclone image";
    /// Ntfsclone's special format.
    Ntfsclone, "ntfsclone", "ntfsclone image";
    /// Proxmox backup.
    Vma, "vma", "Proxmox backup archive (VMA)";
    /// Compressed by gzip.
    Gzip, "gzip", "gzip-compressed file";
    /// Compressed by xz.
    Xz, "xz", "xz-compressed file";
    /// Compressed by zstd.
    Zstd, "zstd", "zstd-compressed file";
    /// Compressed by bzip2.
    Bzip2, "bzip2", "bzip2-compressed file";
    /// Compressed by lz4.
    Lz4, "lz4", "lz4-compressed file";
    /// A zip archive (and AFF4, which is one).
    Zip, "zip", "zip archive";
    /// A 7-Zip archive.
    SevenZip, "7z", "7-Zip archive";
    /// The configuration of a virtual machine.
    Vmx, "vmx", "virtual machine configuration (.vmx)";
}

impl Format {
    /// Whether images of this format can be opened.
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::Vmdk
                | Self::Raw
                | Self::Qcow2
                | Self::Vhd
                | Self::Vhdx
                | Self::Vdi
                | Self::Ova
                | Self::Ovf
        )
    }

    /// The formats that can be opened.
    pub fn read() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|f| f.is_read())
    }

    /// What to try with something that is recognised and not read.
    pub(crate) fn hint(self) -> String {
        match self {
            Self::Gzip | Self::Xz | Self::Zstd | Self::Bzip2 | Self::Lz4 => {
                "decompress it first; --format raw takes the bytes as they are".into()
            }
            Self::Zip | Self::SevenZip => {
                "unpack it first; --format raw takes the bytes as they are".into()
            }
            Self::Qcow1 | Self::Qed | Self::Parallels | Self::Bochs | Self::Cloop | Self::Dmg => {
                "qemu-img convert -O qcow2 makes an image of it that is read".into()
            }
            Self::Vmx => "open it as a virtual machine, or open one of its disks".into(),
            _ => "--format raw takes the bytes as they are".into(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = DiskError;

    /// By [`Format::name`], in any case; `vpc` is VHD as in qemu-img, `qcow` is version 1.
    fn from_str(text: &str) -> Result<Self, DiskError> {
        let lower = text.to_ascii_lowercase();
        let name = match lower.as_str() {
            "vpc" => "vhd",
            "qcow" => "qcow1",
            "tar" => "ova",
            "luks1" | "luks2" => "luks",
            other => other,
        };
        Self::ALL
            .iter()
            .copied()
            .find(|f| f.name() == name)
            .ok_or_else(|| {
                let known: Vec<_> = Self::read().map(Self::name).collect();
                DiskError::new(ErrorKind::Unsupported, "choosing a format")
                    .expected(format!("one of {}", known.join(", ")))
                    .found(text.to_string())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_parses_back() {
        for f in Format::ALL {
            assert_eq!(f.name().parse::<Format>().unwrap(), *f);
            assert_eq!(f.name().to_uppercase().parse::<Format>().unwrap(), *f);
        }
        assert_eq!("vpc".parse::<Format>().unwrap(), Format::Vhd);
        let e = "vmdq".parse::<Format>().unwrap_err().to_string();
        assert!(e.contains("vmdk, raw, qcow2"), "{e}");
    }
}
