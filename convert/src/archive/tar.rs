//! pax, the tar format of POSIX.

use super::{Archive, Contents, Given, mode, pax::Pax};
use guest_fs::{Metadata, Name, SpecialKind};
use std::io::{self, Write};
use tar::{Builder, EntryType, Header};

/// Seven octal digits.
const MAX_DEVICE: u32 = 0o7_777_777;

/// A tar archive that is written.
pub(super) struct Tar<W: Write>(Builder<W>);

impl<W: Write> Tar<W> {
    pub(super) fn new(out: W) -> Self {
        Self(Builder::new(out))
    }

    /// Writes a member: its extended header, its header, its bytes.
    fn append(
        &mut self,
        mut header: Header,
        name: &[u8],
        mut pax: Pax,
        bytes: &mut dyn io::Read,
    ) -> io::Result<Given> {
        pax.name(&mut header, name);
        header.set_cksum();
        let records = pax.records();
        let records = records.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
        self.0.append_pax_extensions(records)?;
        self.0.append(&header, bytes)?;
        Ok(Given::AsIs)
    }
}

impl<W: Write> Archive for Tar<W> {
    type Output = W;

    fn keeps_holes(&self) -> bool {
        true
    }

    fn keeps_xattrs(&self) -> bool {
        true
    }

    fn directory(&mut self, name: &[u8], metadata: &Metadata) -> io::Result<Given> {
        let header = header(EntryType::Directory, metadata, 0o755);
        let full = [name, b"/"].concat();
        self.append(header, &full, Pax::of(metadata), &mut io::empty())
    }

    fn file(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        contents: &mut Contents<'_>,
        xattrs: &[(Name, Vec<u8>)],
    ) -> io::Result<Given> {
        let mut pax = Pax::of(metadata);
        for (name, value) in xattrs {
            pax.xattr(name.as_bytes(), value);
        }
        let mut header = header(EntryType::Regular, metadata, 0o644);
        header.set_size(contents.stored());
        let mut shown = name.to_vec();
        if contents.is_sparse() {
            pax.sparse(name, contents.len());
            // What readers that do not know sparse members call it.
            let last = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
            shown = [b"GNUSparseFile.0/", last].concat();
        }
        self.append(header, &shown, pax, contents)
    }

    fn symlink(&mut self, name: &[u8], metadata: &Metadata, target: &[u8]) -> io::Result<Given> {
        let mut header = header(EntryType::Symlink, metadata, 0o777);
        let mut pax = Pax::of(metadata);
        pax.link(&mut header, target);
        self.append(header, name, pax, &mut io::empty())
    }

    fn special(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        kind: SpecialKind,
    ) -> Option<io::Result<Given>> {
        let (kind, device) = match kind {
            SpecialKind::Fifo => (EntryType::Fifo, None),
            SpecialKind::CharDevice => (EntryType::Char, Some(metadata.device?)),
            SpecialKind::BlockDevice => (EntryType::Block, Some(metadata.device?)),
            SpecialKind::Socket => return None,
        };
        let mut header = header(kind, metadata, 0o644);
        if let Some((major, minor)) = device {
            // Larger ones do not fit; Linux has none.
            if major.max(minor) > MAX_DEVICE {
                return None;
            }
            header.set_device_major(major).ok()?;
            header.set_device_minor(minor).ok()?;
        }
        Some(self.append(header, name, Pax::of(metadata), &mut io::empty()))
    }

    fn hard_link(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        first: &[u8],
    ) -> Option<io::Result<Given>> {
        let mut header = header(EntryType::Link, metadata, 0o644);
        let mut pax = Pax::of(metadata);
        pax.link(&mut header, first);
        Some(self.append(header, name, pax, &mut io::empty()))
    }

    fn text(&mut self, name: &str, text: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        self.append(header, name.as_bytes(), Pax::default(), &mut &*text)?;
        Ok(())
    }

    fn finish(self) -> io::Result<W> {
        self.0.into_inner()
    }
}

/// A header with what it can say of an object.
fn header(kind: EntryType, metadata: &Metadata, default_mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode(metadata, default_mode));
    let (uid, gid) = metadata.owner.unwrap_or((0, 0));
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    let seconds = metadata.modified.map_or(0, |t| t.seconds);
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    header.set_size(0);
    header
}
