//! The private header (PRIVHEAD) and the table of contents.

use crate::{ldm::SECTOR, partition::types};
use disk_io::{Disk, DiskError, Fields, Result};
use std::sync::Arc;

/// Where a disk with an MBR has its header.
const MBR_PLACE: u64 = 6;

/// Type of the partition that holds header and database on a disk with a GPT.
const GPT_METADATA: &str = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3";

/// What a disk says of itself. Places are in bytes from its beginning.
#[derive(Clone, Debug)]
pub struct Header {
    /// The disk's identity.
    pub disk_id: String,
    /// The group's identity.
    pub group_id: String,
    /// The group's name.
    pub group_name: String,
    /// Where the part of the disk that volumes live in begins.
    pub data_start: u64,
    /// Its length.
    pub data_len: u64,
    /// Where the database begins.
    pub config_start: u64,
    /// Its length.
    pub config_len: u64,
}

/// Text in a field of fixed length.
fn text(f: &Fields<'_>, at: usize, len: usize) -> Result<String> {
    let bytes = f.bytes(at, len)?;
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(len);
    Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
}

/// Finds the header of a whole disk: in sector 6, at the end of the metadata partition, or
/// its copy in the last sector of the disk.
pub fn find(disk: &Arc<dyn Disk>) -> Result<Option<Header>> {
    let mut places = vec![MBR_PLACE.saturating_mul(SECTOR)];
    let mut entry = [0; 128];
    // The first GPT entries, without ceremony: a wrong one has no signature where it points.
    for unit in [512u64, 4096] {
        for n in 0..16u64 {
            let at = unit.saturating_mul(2).saturating_add(n.saturating_mul(128));
            if disk.read_exact_at(&mut entry, at).is_err() {
                break;
            }
            let f = Fields::new(&entry, at, "GPT entry");
            if types::guid(f.bytes(0, 16)?) == GPT_METADATA {
                places.push(f.u64_le(40)?.saturating_mul(unit));
            }
        }
    }
    places.extend(disk.len().checked_sub(SECTOR));
    for at in places {
        let mut sector = [0; 512];
        if disk.read_exact_at(&mut sector, at).is_err() || !sector.starts_with(b"PRIVHEAD") {
            continue;
        }
        return parse(&sector, at).map(Some);
    }
    Ok(None)
}

fn parse(sector: &[u8; 512], at: u64) -> Result<Header> {
    let f = Fields::new(sector, at, "LDM private header");
    let (major, minor) = (f.u16_be(0x0c)?, f.u16_be(0x0e)?);
    if major != 2 || !(11..=12).contains(&minor) {
        return Err(DiskError::unsupported("reading the LDM private header")
            .offset(at)
            .expected("version 2.11 or 2.12")
            .found(format!("version {major}.{minor}")));
    }
    let place = |at: usize| Ok::<_, DiskError>(f.u64_be(at)?.saturating_mul(SECTOR));
    Ok(Header {
        disk_id: text(&f, 0x30, 64)?.to_lowercase(),
        group_id: text(&f, 0xb0, 64)?.to_lowercase(),
        group_name: text(&f, 0xf0, 31)?,
        data_start: place(0x11b)?,
        data_len: place(0x123)?,
        config_start: place(0x12b)?,
        config_len: place(0x133)?,
    })
}

impl Header {
    /// Where the database proper begins: the table of contents in the second sector of the
    /// area says it. There is a copy two sectors on.
    pub fn database(&self, disk: &Arc<dyn Disk>) -> Result<u64> {
        let mut failure = None;
        for sector in [1u64, 2] {
            let at = self
                .config_start
                .saturating_add(sector.saturating_mul(SECTOR));
            match self.contents(disk, at) {
                Ok(found) => return Ok(found),
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        Err(failure.unwrap_or_else(|| DiskError::corrupt("reading the LDM table of contents")))
    }

    fn contents(&self, disk: &Arc<dyn Disk>, at: u64) -> Result<u64> {
        let mut bytes = [0; 512];
        disk.read_exact_at(&mut bytes, at)?;
        let f = Fields::new(&bytes, at, "LDM table of contents");
        if f.bytes(0, 8)? != b"TOCBLOCK" {
            return Err(f.corrupt(0, "the signature").expected("TOCBLOCK"));
        }
        for region in [0x24, 0x46] {
            let name = f.bytes(region, 8)?;
            if name.starts_with(b"config\0") {
                let start = f.sub(region, 26, "LDM region")?.u64_be(10)?;
                return Ok(self
                    .config_start
                    .saturating_add(start.saturating_mul(SECTOR)));
            }
        }
        Err(f.corrupt(0x24, "the regions").expected("one called config"))
    }
}
