//! The files of a backup against its manifest.

use super::{
    Item,
    earlier::Earlier,
    effort::{Effort, Timed},
};
use convert::{
    Progress,
    backup::{Manifest, compare, crc32_of, digest_of, is_of_host, manifest},
    pipeline::is_cancelled,
};
use disk_io::{Disk, DiskError, ErrorKind, HostDir, Result, host_dir::Allowed};
use std::path::Path;

/// Of a sample, files of this length and more are disks whose contents are looked at by
/// themselves.
const LARGE: u64 = 16 << 20;

/// Every file that the manifest names.
pub(super) fn files(
    manifest: &Manifest,
    dir: &Path,
    quick: bool,
    (effort, progress): (Effort, &dyn Progress),
    mut earlier: Option<&mut Earlier>,
    (unproven, notes): (&mut Vec<String>, &mut Vec<String>),
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let timed = Timed {
        inner: progress,
        effort,
    };
    for file in &manifest.files {
        let path = dir.join(&file.name);
        let known = earlier.as_ref().is_some_and(|e| e.has_file(&file.name));
        let sampled = effort.is_sample() && file.size >= LARGE;
        let only_length = known || sampled;
        let look = || -> Result<()> {
            let opened = HostDir::open_source(&path, &Allowed::default())?;
            if opened.disk.len() != file.size {
                return Err(DiskError::corrupt("comparing with the manifest")
                    .file(path.display())
                    .expected(format!("{} bytes", file.size))
                    .found(opened.disk.len().to_string()));
            }
            if only_length {
                return Ok(());
            }
            if quick && let Some(expected) = &file.crc32 {
                let found = format!("{:08x}", crc32_of(&opened.disk, &timed)?);
                return match found == expected.to_ascii_lowercase() {
                    true => Ok(()),
                    false => Err(DiskError::corrupt("comparing with the manifest")
                        .code("digest-differs")
                        .file(path.display())
                        .expected(format!("CRC-32 {expected}"))
                        .found(found)),
                };
            }
            let Some(kind) = file.digest.kind() else {
                return Err(DiskError::unsupported("comparing with the manifest")
                    .file(path.display())
                    .found(format!("a digest of kind {}", file.digest.kind)));
            };
            let digest = digest_of(&opened.disk, kind, 0, &timed)?;
            compare(&digest, &file.digest, &path.display().to_string())
        };
        let problem = match look() {
            Err(e) if is_cancelled(&e) && effort.is_over() => {
                unproven.push(format!("file {}: the time was up", file.name));
                continue;
            }
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            other => other.err(),
        };
        if let (None, false, Some(earlier)) = (&problem, only_length || quick, &mut earlier) {
            earlier.file_is_good(&file.name)?;
        }
        if sampled && !known && problem.is_none() {
            let name = &file.name;
            unproven.push(format!(
                "file {name}: of a sample only its length is looked at"
            ));
        }
        items.push(Item::new(format!("file {}", file.name), problem));
    }
    let names = std::fs::read_dir(dir)
        .map_err(|e| DiskError::io("listing the backup", &e).file(dir.display()))?;
    for entry in names.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Left by export --keep for scripts.
        if name == ".done" {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| is_of_host(&name, kind)) {
            notes.push(format!(
                "{name}: is no part of the backup: the host's system makes it"
            ));
            continue;
        }
        if name != manifest::NAME && !manifest.files.iter().any(|f| f.name == name) {
            // It harms nothing, and nothing says what it should hold.
            unproven.push(format!("file {name}: is no part of the backup"));
        }
    }
    Ok(items)
}
