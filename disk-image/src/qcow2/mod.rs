//! qcow2, versions 2 and 3.
//!
//! Reference counts are not needed for reading, so an image that was not closed cleanly, or
//! whose counts are damaged, reads as well as any other.

mod check;
mod decode;
mod header;
mod snapshots;
mod tables;
#[cfg(test)]
mod tests;

use crate::{
    Format,
    chain::{Below, Chain, Link},
};
pub(crate) use check::check;
use disk_io::{Disk, DiskError, Opened, Purpose, Result};
use header::Header;
pub use snapshots::Snapshot;
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tables::Qcow2Map;

/// Opens one file of a chain, and finds its backing file.
pub(crate) fn open(source: &Opened, chain: &mut Chain<'_>) -> Result<Option<Below>> {
    let header = Header::read(&*source.disk)?;
    let snapshots = snapshots::read(&*source.disk, &header);
    let top = chain.layers.is_empty();
    let wanted = chain.options.snapshot.as_deref().filter(|_| top);
    let (l1, len) = match wanted {
        Some(wanted) => {
            let s = snapshots::find(snapshots.as_deref().map_err(Clone::clone)?, wanted)?;
            ((s.l1_table_offset, s.l1_size), s.len)
        }
        None => ((header.l1_table_offset, header.l1_size), header.size),
    };
    match snapshots {
        // They are not part of the disk as it is now.
        Err(e) => chain.warn(source, format_args!("its snapshots cannot be read: {e}")),
        Ok(found) if top => chain.snapshots = found,
        Ok(_) => {}
    }
    if header.corrupt {
        let text = "marked as corrupt by the program that wrote it; read as it stands";
        chain.warn(source, text);
    }
    if header.dirty {
        let text = "was not closed cleanly; its contents are read as they stand";
        chain.warn(source, text);
    }
    let data = match &header.data_file {
        None => None,
        Some(None) => {
            return Err(DiskError::not_found("opening the external data file")
                .found("an image that does not name it"));
        }
        Some(Some(name)) => {
            let path = local_name(name, "data file")?;
            let data = source.dir.open(&path, Purpose::Data).map_err(|e| {
                e.context(format_args!(
                    "{} keeps its data in another file",
                    source.path.display()
                ))
            })?;
            Some(data)
        }
    };
    let map = Qcow2Map::new(source, &header, data, l1, len)?;
    chain.push(Arc::new(map), link(source, &header, len));
    let Some(name) = &header.backing_file else {
        return Ok(None);
    };
    let format = header.backing_format.as_deref().map(backing_format);
    let format = format.transpose()?;
    let path = local_name(name, "backing file")?;
    let below = source
        .dir
        .open(&path, Purpose::Backing)
        .map_err(|e| e.context(format_args!("{} is an overlay", source.path.display())))?;
    Ok(Some(Below {
        source: below,
        format,
    }))
}

fn link(source: &Opened, header: &Header, len: u64) -> Link {
    let mut facts = vec![
        ("version", header.version.to_string()),
        ("cluster_size", header.cluster_size().to_string()),
        (
            "compression",
            format!("{:?}", header.compression).to_lowercase(),
        ),
    ];
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    if header.extended_l2 {
        facts.push(("extended_l2", "true".into()));
    }
    if let Some(name) = &header.backing_file {
        facts.push(("backing_file", text(name)));
    }
    if let Some(format) = &header.backing_format {
        facts.push(("backing_format", format.clone()));
    }
    if let Some(Some(name)) = &header.data_file {
        facts.push(("data_file", text(name)));
    }
    if header.nb_snapshots > 0 {
        facts.push(("snapshots", header.nb_snapshots.to_string()));
    }
    Link {
        path: source.path.clone(),
        format: Format::Qcow2,
        len,
        facts,
    }
}

/// A name that may be a qemu block driver's address. Only local files are opened.
fn local_name(name: &[u8], what: &str) -> Result<PathBuf> {
    let name = match name.strip_prefix(b"file:") {
        Some(rest) => match rest.strip_prefix(b"//") {
            Some(path) if path.starts_with(b"/") => path,
            _ => rest,
        },
        None => name,
    };
    let scheme = name.iter().position(|b| *b == b':' || *b == b'/');
    let protocol = scheme.filter(|at| name.get(*at) == Some(&b':') && *at > 0);
    if protocol.is_some() {
        return Err(DiskError::unsupported(format!("opening the {what}"))
            .expected("the name of a local file")
            .found(String::from_utf8_lossy(name).into_owned()));
    }
    Ok(Path::new(OsStr::from_bytes(name)).to_path_buf())
}

/// qemu's name of a format. What it says is raw is never looked at for another format:
/// the guest writes a raw disk's first bytes.
fn backing_format(name: &str) -> Result<Format> {
    match name {
        "raw" | "file" | "host_device" => Ok(Format::Raw),
        other => other.parse().map_err(|_| {
            DiskError::unsupported("opening the backing file")
                .expected("a format that is read")
                .found(other.to_string())
        }),
    }
}

/// Reads a part of a table; one that reaches beyond the file is damage and not a caller's
/// mistake.
fn read_table(disk: &dyn Disk, buf: &mut [u8], at: u64, what: &str) -> Result<()> {
    let inside = at
        .checked_add(buf.len() as u64)
        .is_some_and(|end| end <= disk.len());
    if inside {
        return disk.read_exact_at(buf, at);
    }
    Err(DiskError::corrupt(format!("reading {what}"))
        .offset(at)
        .expected(format!("{} bytes", buf.len()))
        .found(format!("the end of the file at {}", disk.len())))
}
