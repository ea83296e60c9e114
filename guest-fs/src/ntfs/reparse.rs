//! Reparse points: links, and tags that mean that the contents are elsewhere.

use crate::{Link, Name};
use disk_io::{DiskError, Fields, Result};

/// Longest reparse data, by Windows' own limit.
pub(crate) const MAX_LEN: u64 = 16 << 10;

/// Tags.
pub(crate) mod tag {
    pub(crate) const MOUNT_POINT: u32 = 0xa000_0003;
    pub(crate) const SYMLINK: u32 = 0xa000_000c;
    pub(crate) const LX_SYMLINK: u32 = 0xa000_001d;
    pub(crate) const AF_UNIX: u32 = 0x8000_0023;
    pub(crate) const LX_FIFO: u32 = 0x8000_0024;
    pub(crate) const LX_CHR: u32 = 0x8000_0025;
    pub(crate) const LX_BLK: u32 = 0x8000_0026;
    pub(crate) const WOF: u32 = 0x8000_0017;
    pub(crate) const DEDUP: u32 = 0x8000_0013;
    pub(crate) const SIS: u32 = 0x8000_0007;
    pub(crate) const HSM: u32 = 0xc000_0004;
    pub(crate) const HSM2: u32 = 0x8000_0006;
    pub(crate) const NFS: u32 = 0x8000_0014;
    pub(crate) const APP_EXEC_LINK: u32 = 0x8000_001b;
    pub(crate) const FILE_SYNC: u32 = 0x8000_001e;
    pub(crate) const PROJ_FS: u32 = 0x9000_001c;
    pub(crate) const WCI: u32 = 0x8000_0018;
    /// Bits 12 to 15 count variants.
    pub(crate) const CLOUD: u32 = 0x9000_001a;
    /// Likewise.
    pub(crate) const WCI_1: u32 = 0x9000_0018;
    const VARIANT: u32 = 0xffff_0fff;

    /// The tag without its variant number.
    pub(crate) fn family(tag: u32) -> u32 {
        match tag & VARIANT {
            CLOUD => CLOUD,
            WCI_1 => WCI_1,
            _ => tag,
        }
    }
}

/// A reparse point's tag and data.
#[derive(Clone, Debug)]
pub(crate) struct Reparse {
    pub(crate) tag: u32,
    pub(crate) data: Vec<u8>,
}

/// What a reader of the file's contents has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Another path.
    Link,
    /// A device, socket or pipe of Linux.
    Special,
    /// Compressed by the Windows Overlay Filter into a stream of its own.
    Wof(Wof),
    /// Never in this file: the name of the feature, and a hint.
    Elsewhere(&'static str, &'static str),
    /// In this file only if it has no holes and is not offline: the name of the feature.
    Perhaps(&'static str),
}

/// How the Windows Overlay Filter keeps a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wof {
    /// XPRESS Huffman with chunks of this many bytes.
    Xpress(u32),
    /// LZX with chunks of 32 KiB.
    Lzx,
}

impl Reparse {
    /// Parses the value of a $REPARSE_POINT.
    pub(crate) fn parse(value: &[u8]) -> Result<Self> {
        let f = Fields::new(value, 0, "reparse point");
        let tag = f.u32_le(0)?;
        let len = usize::from(f.u16_le(4)?);
        // Tags that are not Microsoft's carry a GUID before the data.
        let at = if tag & 0x8000_0000 == 0 { 24 } else { 8 };
        Ok(Self {
            tag,
            data: f.bytes(at, len)?.to_vec(),
        })
    }

    /// What the tag means.
    pub(crate) fn meaning(&self) -> Result<Meaning> {
        Ok(match tag::family(self.tag) {
            tag::MOUNT_POINT | tag::SYMLINK | tag::LX_SYMLINK => Meaning::Link,
            tag::AF_UNIX | tag::LX_FIFO | tag::LX_CHR | tag::LX_BLK => Meaning::Special,
            tag::WOF => return self.wof(),
            tag::DEDUP => Meaning::Elsewhere(
                "a deduplicated file: its contents are in the volume's chunk store",
                "restore it through Windows with the deduplication role",
            ),
            tag::SIS => Meaning::Elsewhere(
                "a file of Single Instance Storage: its contents are in \\SIS Common Store",
                "restore the common store's file",
            ),
            tag::HSM | tag::HSM2 => Meaning::Elsewhere(
                "a file of hierarchical storage: its contents are on other media",
                "recall it in the guest",
            ),
            tag::CLOUD => Meaning::Perhaps("a OneDrive or other cloud file"),
            tag::FILE_SYNC => Meaning::Perhaps("a file of Azure File Sync"),
            tag::PROJ_FS => Meaning::Perhaps("a file of the projected file system"),
            tag::WCI | tag::WCI_1 => Meaning::Perhaps("a file of a Windows container layer"),
            tag::NFS => Meaning::Perhaps("an NFS link"),
            tag::APP_EXEC_LINK => Meaning::Perhaps("an app execution alias"),
            _ => Meaning::Perhaps("a file with a reparse tag not known here"),
        })
    }

    fn wof(&self) -> Result<Meaning> {
        let f = Fields::new(&self.data, 0, "WOF reparse data");
        let (version, provider) = (f.u32_le(0)?, f.u32_le(4)?);
        let unknown = |found: String| {
            Err(DiskError::unsupported("reading a file of the Windows Overlay Filter").found(found))
        };
        match (version, provider) {
            (1, 1) => Ok(Meaning::Elsewhere(
                "a file backed by a WIM image (WIMBoot): its contents are not on this volume",
                "extract it from the .wim file",
            )),
            (1, 2) => match (f.u32_le(8)?, f.u32_le(12)?) {
                (1, 0) => Ok(Meaning::Wof(Wof::Xpress(4096))),
                (1, 1) => Ok(Meaning::Wof(Wof::Lzx)),
                (1, 2) => Ok(Meaning::Wof(Wof::Xpress(8192))),
                (1, 3) => Ok(Meaning::Wof(Wof::Xpress(16384))),
                (v, a) => unknown(format!("version {v}, algorithm {a}")),
            },
            (v, p) => unknown(format!("version {v}, provider {p}")),
        }
    }

    /// Where a link leads.
    pub(crate) fn link(&self) -> Result<Link> {
        let f = Fields::new(&self.data, 0, "reparse data");
        match self.tag {
            tag::LX_SYMLINK => {
                let text = self.data.get(4..).unwrap_or_default();
                let name = Name::from_bytes(text);
                Ok(Link {
                    sort: "wsl",
                    stored: name.clone(),
                    target: name,
                })
            }
            tag::SYMLINK => {
                let relative = f.u32_le(8)? & 1 != 0;
                let stored = text(&f, 12)?;
                Ok(Link {
                    sort: "symlink",
                    target: unix_path(&stored, relative),
                    stored: Name::from_utf16(stored),
                })
            }
            tag::MOUNT_POINT => {
                let stored = text(&f, 8)?;
                let volume: Vec<u16> = r"\??\Volume{".encode_utf16().collect();
                Ok(Link {
                    sort: if stored.starts_with(&volume) {
                        "mount point"
                    } else {
                        "junction"
                    },
                    target: unix_path(&stored, false),
                    stored: Name::from_utf16(stored),
                })
            }
            other => Err(DiskError::unsupported("reading a link").found(format!("tag {other:#x}"))),
        }
    }
}

/// The substitute name of a symbolic link or mount point; names lie from `names` on. Where
/// it is empty the print name serves.
fn text(f: &Fields<'_>, names: usize) -> Result<Vec<u16>> {
    let at = |offset: usize, len: usize| -> Result<Vec<u16>> {
        let start = names.saturating_add(usize::from(f.u16_le(offset)?));
        Ok(super::units(f.bytes(start, usize::from(f.u16_le(len)?))?).collect())
    };
    let substitute = at(0, 2)?;
    if substitute.is_empty() {
        at(4, 6)
    } else {
        Ok(substitute)
    }
}

/// Backslashes turned; the prefix of the NT name space taken away.
fn unix_path(stored: &[u16], relative: bool) -> Name {
    let prefix = |s: &str| s.encode_utf16().collect::<Vec<_>>();
    let mut rest = stored;
    if !relative {
        for p in [r"\??\", r"\\?\"] {
            rest = rest.strip_prefix(prefix(p).as_slice()).unwrap_or(rest);
        }
    }
    let unc = prefix(r"UNC\");
    let (start, rest) = match rest.strip_prefix(unc.as_slice()) {
        Some(share) if !relative && rest.len() != stored.len() => ("//", share),
        _ => ("", rest),
    };
    let turned = rest.iter().map(|u| {
        if *u == u16::from(b'\\') {
            u16::from(b'/')
        } else {
            *u
        }
    });
    Name::from_utf16(start.encode_utf16().chain(turned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symlink(target: &str, flags: u32) -> Reparse {
        let units: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let len = units.len() as u16;
        let mut data = Vec::new();
        for v in [0, len, 0, 0] {
            data.extend(v.to_le_bytes());
        }
        data.extend(flags.to_le_bytes());
        data.extend(units);
        Reparse {
            tag: tag::SYMLINK,
            data,
        }
    }

    #[test]
    fn targets() {
        for (stored, flags, target) in [
            (r"..\a\b", 1, "../a/b"),
            (r"\??\C:\Users\x", 0, "C:/Users/x"),
            (r"\??\UNC\server\share\f", 0, "//server/share/f"),
            (r"\??\Volume{1}\d", 0, "Volume{1}/d"),
            (r"UNC\here", 1, "UNC/here"),
        ] {
            let link = symlink(stored, flags).link().unwrap();
            assert_eq!(link.target, Name::from(target));
            assert_eq!(link.stored, Name::from(stored));
        }
    }

    #[test]
    fn names_what_is_elsewhere() {
        for (tag, text) in [
            (tag::DEDUP, "deduplicated"),
            (tag::SIS, "Single Instance"),
            (tag::HSM, "hierarchical"),
        ] {
            let r = Reparse { tag, data: vec![] };
            match r.meaning().unwrap() {
                Meaning::Elsewhere(what, _) => assert!(what.contains(text)),
                other => panic!("{other:?}"),
            }
        }
        let cloud = Reparse {
            tag: 0x9000_601a,
            data: vec![],
        };
        assert!(matches!(cloud.meaning().unwrap(), Meaning::Perhaps(_)));
    }
}
