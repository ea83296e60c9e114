//! What `cp` writes beside the files it restores: the manifest, and access control as text.

use crate::{
    exit::Failure,
    names::{hex_if_needed, shown},
    times::Zone,
    verb::entry::{attribute_names, kind_name},
};
use convert::{
    place::Partial,
    restore::{Record, Summary},
};
use disk_io::{DiskError, ErrorKind};
use guest_fs::{NodeKind, Timestamp};
use serde::Serialize;
use std::{
    io::{self, BufWriter, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Files that grow with each record.
pub(crate) struct Kept {
    manifest: Option<Output>,
    sddl: Option<Output>,
    icacls: Option<Output>,
    zone: Zone,
    entries: u64,
    /// Why something could not be written.
    failure: Option<DiskError>,
}

struct Output {
    path: PathBuf,
    partial: Partial,
    buffer: BufWriter<std::fs::File>,
}

#[derive(Serialize)]
struct Entry<'a> {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    /// Relative to the destination.
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    place_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    /// Of a further hard link: the place of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link_to: Option<String>,
    created: Option<String>,
    modified: Option<String>,
    accessed: Option<String>,
    changed: Option<String>,
    time_zone: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sddl: Option<&'a str>,
}

impl Output {
    fn create(path: &Path, replace: bool) -> Result<Self, DiskError> {
        let partial = Partial::create(path, replace)?;
        let file = partial.file().try_clone();
        let file = file.map_err(|e| DiskError::io("creating", &e).file(path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            partial,
            buffer: BufWriter::with_capacity(1 << 18, file),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        let written = self.buffer.write_all(bytes);
        written.map_err(|e| self.error(&e))
    }

    fn error(&self, e: &io::Error) -> DiskError {
        DiskError::io("writing", e).file(self.path.display())
    }

    fn finish(mut self) -> Result<(), DiskError> {
        self.buffer.flush().map_err(|e| self.error(&e))?;
        drop(self.buffer);
        self.partial.finish()
    }
}

/// `NAME`, or `NAME-2`, `NAME-3` … where that exists: nothing of an earlier restore is lost.
fn free(dir: &Path, stem: &str, extension: &str) -> PathBuf {
    let mut n = 1;
    loop {
        let name = match n {
            1 => format!("{stem}.{extension}"),
            n => format!("{stem}-{n}.{extension}"),
        };
        let path = dir.join(name);
        if path.symlink_metadata().is_err() {
            return path;
        }
        n += 1;
    }
}

impl Kept {
    /// `root` is the directory that is restored into.
    pub(crate) fn create(
        manifest: Option<&Path>,
        source: &Path,
        root: &Path,
        acl: bool,
        zone: Zone,
    ) -> Result<Self, Failure> {
        let mut kept = Self {
            manifest: manifest
                .map(|m| Output::create(m, false))
                .transpose()
                .map_err(|e| match e.kind() {
                    ErrorKind::Refused => e.hint("choose another name for the manifest"),
                    _ => e,
                })?,
            sddl: None,
            icacls: None,
            zone,
            entries: 0,
            failure: None,
        };
        if acl {
            let sddl = free(root, "vmdkit-acl", "jsonl");
            let icacls = free(root, "vmdkit-acl", "icacls");
            kept.sddl = Some(Output::create(&sddl, false)?);
            kept.icacls = Some(Output::create(&icacls, false)?);
        }
        if let Some(manifest) = &mut kept.manifest {
            let head = format!(
                "{{\n\"format\": \"vmdkit-files\",\n\"version\": 1,\n\"source\": {},\n\"destination\": {},\n\"entries\": [\n",
                serde_json::to_string(&shown(source.as_os_str().as_bytes()))
                    .map_err(io::Error::from)?,
                serde_json::to_string(&shown(root.as_os_str().as_bytes()))
                    .map_err(io::Error::from)?,
            );
            manifest.write(head.as_bytes())?;
        }
        Ok(kept)
    }

    /// Writes what is known of one thing. An error is told at the end.
    pub(crate) fn add(&mut self, record: &Record<'_>) {
        if self.failure.is_none()
            && let Err(e) = self.try_add(record)
        {
            self.failure = Some(e);
        }
    }

    fn try_add(&mut self, record: &Record<'_>) -> Result<(), DiskError> {
        let m = record.metadata;
        let place = record.place.as_os_str().as_bytes();
        if let Some(manifest) = &mut self.manifest {
            let time = |t: Option<Timestamp>| t.map(|t| self.zone.rfc3339(t));
            let times = [m.created, m.modified, m.accessed, m.changed];
            let entry = Entry {
                path: shown(record.path),
                path_hex: hex_if_needed(record.path),
                place: shown(place),
                place_hex: hex_if_needed(place),
                kind: kind_name(m.kind),
                size: (m.kind == NodeKind::File).then_some(m.size),
                sha256: record.sha256,
                target: record.target.map(|t| shown(t.as_bytes())),
                target_hex: record.target.and_then(|t| hex_if_needed(t.as_bytes())),
                hard_link_to: record.first.map(|p| shown(p.as_os_str().as_bytes())),
                created: time(m.created),
                modified: time(m.modified),
                accessed: time(m.accessed),
                changed: time(m.changed),
                time_zone: match times.iter().flatten().any(|t| !t.zoned) {
                    true => "unknown",
                    false => "utc",
                },
                attributes: m.attributes.map(attribute_names),
                mode: m.mode.map(|m| format!("{:04o}", m & 0o7777)),
                uid: m.owner.map(|o| o.0),
                gid: m.owner.map(|o| o.1),
                sddl: record.security.map(|s| s.sddl.as_str()),
            };
            let mut line = serde_json::to_vec(&entry)
                .map_err(|e| DiskError::io("writing the manifest", &e.into()))?;
            if self.entries > 0 {
                line.splice(0..0, *b",\n");
            }
            manifest.write(&line)?;
        }
        self.entries += 1;
        let Some(security) = record.security else {
            return Ok(());
        };
        if let Some(out) = &mut self.sddl {
            let mut line = serde_json::to_vec(&serde_json::json!({
                "place": shown(place),
                "sddl": security.sddl,
            }))
            .map_err(|e| DiskError::io("writing access control", &e.into()))?;
            line.push(b'\n');
            out.write(&line)?;
        }
        if let Some(out) = &mut self.icacls {
            let path = String::from_utf8_lossy(place).replace('/', "\\");
            let text = format!("{path}\r\n{}\r\n", dacl(&security.sddl));
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            out.write(&bytes)?;
        }
        Ok(())
    }

    /// Gives all files their names.
    pub(crate) fn finish(mut self, s: &Summary) -> Result<(), DiskError> {
        if let Some(e) = self.failure {
            return Err(e);
        }
        if let Some(mut manifest) = self.manifest.take() {
            let tail = format!(
                "\n],\n\"files\": {},\n\"directories\": {},\n\"symlinks\": {},\n\"bytes\": {},\n\"failed\": {},\n\"skipped\": {}\n}}\n",
                s.files, s.directories, s.symlinks, s.bytes, s.failed, s.skipped
            );
            manifest.write(tail.as_bytes())?;
            manifest.finish()?;
        }
        for out in [self.sddl, self.icacls].into_iter().flatten() {
            out.finish()?;
        }
        Ok(())
    }
}

/// The part of a descriptor that icacls saves and restores.
fn dacl(sddl: &str) -> &str {
    let mut depth = 0u32;
    let (mut start, mut end) = (None, sddl.len());
    let bytes = sddl.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && at > 0 => match bytes.get(at - 1) {
                Some(b'D') if start.is_none() => start = Some(at - 1),
                Some(b'S') if start.is_some() => {
                    end = at - 1;
                    break;
                }
                _ => {}
            },
            _ => {}
        }
    }
    start.and_then(|s| sddl.get(s..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::dacl;

    #[test]
    fn the_part_that_icacls_takes() {
        let whole = "O:BAG:SYD:PAI(A;OICI;FA;;;SY)(A;;0x1301bf;;;S-1-5-21-1)S:AI(AU;SA;FA;;;WD)";
        assert_eq!(
            dacl(whole),
            "D:PAI(A;OICI;FA;;;SY)(A;;0x1301bf;;;S-1-5-21-1)"
        );
        assert_eq!(dacl("O:BAD:NO_ACCESS_CONTROL"), "D:NO_ACCESS_CONTROL");
        assert_eq!(dacl("O:BAG:SY"), "");
    }
}
