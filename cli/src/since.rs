//! `export --since`: which disk of the earlier backup each disk builds on, and what can have
//! changed in it; and the leave to read the earlier backup that a later one needs.

use crate::{backup::Taken, exit::Failure, output};
use convert::{
    DigestKind,
    backup::{Base, ChainFile, ChainLink, Manifest, SinceEntry, units::Units},
    digest::UNIT,
};
use disk_io::{DiskError, Result, error::shell_word};
use proxy::{Source, SourceSpec};
use std::{
    collections::HashSet,
    fs,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Backups that build on each other, at most; a loop ends there.
const LONGEST: usize = 10_000;
/// Longest list of changed blocks.
const MAX_LIST: u64 = 256 << 20;

/// How the changes of a disk are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is nothing to build on.
    Whole,
    /// By the deltas that came on top of what the earlier backup was made of.
    Chain,
    /// By a list that the user gave.
    List,
    /// By the hashes of every MiB, in one pass.
    Hashes,
}

impl Found {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Chain => "chain",
            Self::List => "list",
            Self::Hashes => "hashes",
        }
    }
}

/// A list of changed blocks, and the disk that it is of.
#[derive(Clone, Debug)]
pub(crate) struct List {
    place: Option<String>,
    file: PathBuf,
}

impl std::str::FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, file) = match text.split_once('=') {
            Some((place, file)) => (Some(place.to_owned()), file),
            None => (None, text),
        };
        Ok(Self {
            place,
            file: file.into(),
        })
    }
}

/// The chain of a disk that lies in VMDK files of the host.
pub(crate) fn chain_of(source: &Source) -> Vec<ChainLink> {
    let Some(vmdk) = source.image().vmdk.as_ref() else {
        return Vec::new();
    };
    if !source.devices().is_empty() {
        return Vec::new();
    }
    let links = vmdk.links().iter().map(|link| {
        let extents = link.extents.iter().filter_map(|e| e.file.as_ref());
        let mut files: Vec<&PathBuf> = std::iter::once(&link.path).chain(extents).collect();
        files.dedup();
        let files = files.into_iter().map(|path| {
            let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
            Some(ChainFile {
                name: path.file_name()?.to_str()?.to_owned(),
                size: found.len(),
                modified: (found.mtime(), found.mtime_nsec()),
            })
        });
        Some(ChainLink {
            cid: link.cid,
            files: files.collect::<Option<_>>()?,
        })
    });
    // What cannot be known again is not noted.
    links.collect::<Option<_>>().unwrap_or_default()
}

/// Gives every disk that the earlier backup has its base there. Says how each is found.
pub(crate) fn attach(
    taken: &mut Taken,
    earlier: &Path,
    dest: &Path,
    lists: &[List],
) -> Result<(SinceEntry, Vec<Found>), Failure> {
    let doing = "building on an earlier backup";
    let Some((manifest, own)) = Manifest::read_hashed(earlier)? else {
        return Err(DiskError::refused(doing)
            .file(earlier.display())
            .expected("a backup with a manifest, as export writes it")
            .found("none")
            .into());
    };
    let directory = beside(earlier, dest)?;
    if directory.contains('"') || directory.contains(char::is_control) {
        return Err(Failure::usage(
            "the earlier backup's directory is named in the descriptors of the new one: rename it \
             to something without quotes and control characters",
        ));
    }
    let mut how = Vec::new();
    let mut used = vec![false; lists.len()];
    for (part, source) in taken.parts.disks.iter_mut().zip(&taken.sources) {
        let place = part.slot.map(|s| s.to_string());
        let entry = manifest.disks.iter().find(|d| d.place == place);
        let Some(entry) = entry else {
            how.push(Found::Whole);
            continue;
        };
        let mut spec = SourceSpec {
            path: earlier.join(&entry.file),
            ..SourceSpec::default()
        };
        allow(&mut spec)?;
        let opened = Source::open(&spec)?;
        // A child of another length than its parent is none that others read.
        let (len, before) = (source.disk().len(), opened.disk().len());
        if len != before {
            let shown = place.as_deref().unwrap_or(&entry.file);
            output::say(format_args!(
                "{}{shown}: it has {len} bytes, {before} in the earlier backup: all of it is written",
                output::subject()
            ));
            mark(&mut used, lists, place.as_ref())?;
            how.push(Found::Whole);
            continue;
        }
        let cid = opened.image().vmdk.as_ref().and_then(|v| {
            let top = v.links().first()?;
            top.cid
        });
        let Some(cid) = cid else {
            return Err(DiskError::refused(doing)
                .file(spec.path.display())
                .expected("a VMDK, which can have children")
                .found(entry.format.clone())
                .hint("export the first backup without --to")
                .into());
        };
        let units = entry.units.as_ref();
        let units = units.and_then(|u| Units::open(&earlier.join(u), opened.disk().len()).ok());
        // Hashes that are not those of the backup would make a wrong one of the next.
        let units = units.filter(|u| {
            let digest = u.digest(opened.disk().len());
            entry.digest.kind() == Some(DigestKind::Vmdkit)
                && digest.is_ok_and(|d| d.hex() == entry.digest.hash)
        });
        let (found, candidates) = match mark(&mut used, lists, place.as_ref())? {
            Some(list) => {
                let ranges = read_list(&list.file, source.disk().len())?;
                (Found::List, Some(ranges))
            }
            None => match by_chain(source, &part.chain, &entry.chain)? {
                Some(ranges) => (Found::Chain, Some(ranges)),
                None => (Found::Hashes, None),
            },
        };
        how.push(match units {
            // Without hashes of what stays everything is read.
            None => Found::Hashes,
            Some(_) => found,
        });
        part.base = Some(Base {
            disk: opened.disk().clone(),
            units,
            file: entry.file.clone(),
            cid,
            candidates,
        });
    }
    if let Some((list, _)) = lists.iter().zip(used).find(|(_, used)| !used) {
        return Err(Failure::usage(format!(
            "{}: there is no disk that this list of changed blocks is of",
            list.file.display()
        )));
    }
    let since = SinceEntry {
        directory,
        created: manifest.created,
        manifest: own,
    };
    Ok((since, how))
}

/// The list of a disk, which is of no other.
fn mark<'l>(
    used: &mut [bool],
    lists: &'l [List],
    place: Option<&String>,
) -> Result<Option<&'l List>, Failure> {
    let mut all = lists.iter().zip(used);
    let of_disk = |list: &List| list.place.is_none() || list.place.as_ref() == place;
    let Some((list, used)) = all.find(|(list, _)| of_disk(list)) else {
        return Ok(None);
    };
    if *used {
        return Err(Failure::usage_with(
            "one list of changed blocks for several disks",
            "say which it is of: --changed-blocks scsi0:0=FILE",
        ));
    }
    *used = true;
    Ok(Some(list))
}

/// The name of the earlier backup, which must lie beside the new one.
fn beside(earlier: &Path, dest: &Path) -> Result<String, Failure> {
    let parent = match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let look = |path: &Path| {
        path.canonicalize()
            .map_err(|e| DiskError::io("looking at", &e).file(path.display()))
    };
    let (real, parent) = (look(earlier)?, look(parent)?);
    let name = real.file_name().and_then(|n| n.to_str());
    match name {
        Some(name) if real.parent() == Some(&parent) => Ok(name.to_owned()),
        _ => Err(Failure::usage_with(
            "backups that build on each other lie side by side",
            format!(
                "write it into {}",
                shell_word(&real.with_file_name("NAME").display().to_string())
            ),
        )),
    }
}

/// What lies in deltas on top of the chain that the earlier backup was made of; `None` where
/// that chain is not below, or not as it was.
pub(crate) fn by_chain(
    source: &Source,
    now: &[ChainLink],
    then: &[ChainLink],
) -> Result<Option<Vec<Range<u64>>>> {
    let Some(new) = now.len().checked_sub(then.len()) else {
        return Ok(None);
    };
    if then.is_empty() || now.get(new..) != Some(then) {
        return Ok(None);
    }
    let Some(layers) = source.layered() else {
        return Ok(None);
    };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let (mut at, len) = (0, source.disk().len());
    while at < len {
        let origin = layers.origin_at(at)?;
        let end = at.saturating_add(origin.len.max(1)).min(len);
        if origin.depth < new {
            match ranges.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => ranges.push(at..end),
            }
        }
        at = end;
    }
    Ok(Some(ranges))
}

/// A list as QueryChangedDiskAreas gives it: `changedArea` with `start` and `length`, or that
/// array alone; or several answers, which together are of the whole disk. Widened to whole MiB:
/// these are hashed as a whole, so what the list misses beside a change is not missed.
pub(crate) fn read_list(path: &Path, len: u64) -> Result<Vec<Range<u64>>> {
    let doing = "reading the list of changed blocks";
    let fail = |e: &std::io::Error| DiskError::io(doing, e).file(path.display());
    let found = fs::metadata(path).map_err(|e| fail(&e))?;
    if !found.is_file() || found.len() > MAX_LIST {
        return Err(DiskError::refused(doing)
            .file(path.display())
            .expected(format!("a file of at most {MAX_LIST} bytes"))
            .found(found.len().to_string()));
    }
    let bad = |found: String| {
        DiskError::corrupt(doing)
            .file(path.display())
            .expected(r#"JSON: {"changedArea": [{"start": N, "length": N}, …]}"#)
            .found(found)
    };
    let text = fs::read(path).map_err(|e| fail(&e))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let is_answer = |v: &serde_json::Value| v.get("changedArea").is_some();
    let answers: Vec<&serde_json::Value> = match json.as_array() {
        Some(several) if several.iter().any(is_answer) => several.iter().collect(),
        _ => vec![&json],
    };
    let number = |v: &serde_json::Value, key: &str| v.get(key).and_then(serde_json::Value::as_u64);
    // What is there and no whole number is not what is not there.
    let said = |v: &serde_json::Value, key: &str| match (v.get(key), number(v, key)) {
        (Some(other), None) => Err(bad(format!("{key}: {other}, which is no whole number"))),
        (_, number) => Ok(number),
    };
    // What each answer speaks of; all of the disk where it does not say.
    let mut spoken: Vec<Range<u64>> = Vec::new();
    let mut ranges = Vec::new();
    for answer in answers {
        let from = said(answer, "startOffset")?.unwrap_or(0);
        let to = said(answer, "length")?.map_or(len, |n| from.saturating_add(n));
        spoken.push(from..to);
        let areas = answer.get("changedArea").unwrap_or(answer);
        let areas = areas.as_array().ok_or_else(|| bad("no list".into()))?;
        for area in areas {
            let range = number(area, "start").zip(number(area, "length"));
            let range = range.and_then(|(start, n)| Some(start..start.checked_add(n)?));
            match range {
                Some(range) if range.end <= len => {
                    let start = range.start - range.start % UNIT;
                    let end = range.end.next_multiple_of(UNIT).min(len);
                    ranges.extend((range.start < range.end).then_some(start..end));
                }
                Some(range) => {
                    return Err(bad(format!(
                        "a block up to byte {} of a disk of {len}",
                        range.end
                    )));
                }
                None => return Err(bad(area.to_string())),
            }
        }
    }
    spoken.sort_by_key(|r| r.start);
    let mut known = 0;
    for range in spoken {
        if range.start > known {
            break;
        }
        known = known.max(range.end);
    }
    if known < len {
        return Err(DiskError::corrupt(doing)
            .code("list-incomplete")
            .file(path.display())
            .expected(format!("answers for all {len} bytes of the disk"))
            .found(format!("none for byte {known}"))
            .hint("ask the host again from there, and put the answers into one list: [A, B, …]"));
    }
    ranges.sort_by_key(|r| r.start);
    Ok(ranges)
}

/// Allows the directories of the earlier backups that SOURCE builds on, if it is a backup:
/// beside it, named in its manifest, and with the manifest that they had then.
///
/// # Errors
/// `Corrupt` where such a backup is missing or another.
pub(crate) fn allow(spec: &mut SourceSpec) -> Result<()> {
    if !spec.datastores.is_empty() {
        return Ok(());
    }
    let mut dir = match spec.path.is_dir() {
        true => spec.path.clone(),
        false => match spec.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
            _ => PathBuf::from("."),
        },
    };
    raw_disks(spec, &dir);
    let mut met = HashSet::new();
    for _ in 0..LONGEST {
        // A manifest that cannot be read is for whoever needs it to tell.
        let Ok(Some(manifest)) = Manifest::read(&dir) else {
            return Ok(());
        };
        let Some(since) = manifest.since else {
            return Ok(());
        };
        let real = dir
            .canonicalize()
            .map_err(|e| DiskError::io("looking at", &e).file(dir.display()))?;
        let earlier = real.with_file_name(&since.directory);
        let doing = "opening the backup that this one builds on";
        let plain = earlier.symlink_metadata().is_ok_and(|m| m.is_dir());
        let read = match plain {
            true => Manifest::read_hashed(&earlier)?,
            false => None,
        };
        let Some((manifest, own)) = read else {
            // Not "not found": what is in it is not known, and not absent.
            return Err(DiskError::corrupt(doing)
                .code("since-missing")
                .file(earlier.display())
                .expected(format!("the backup of {}", since.created))
                .found("none")
                .hint("put it back beside this one; without it only what changed is here"));
        };
        // The same, or that made whole.
        if !manifest.is_meant(&own, &since.manifest) {
            return Err(DiskError::corrupt(doing)
                .code("since-differs")
                .file(earlier.display())
                .expected(format!("the backup of {}", since.created))
                .found("another manifest than it had then"));
        }
        if !met.insert(earlier.clone()) {
            return Err(DiskError::corrupt(doing)
                .file(earlier.display())
                .expected("a first backup, which builds on no other")
                .found("backups that build on each other"));
        }
        spec.allow_dirs.push(earlier.clone());
        dir = earlier;
    }
    Ok(())
}

/// Notes which disks of a backup are raw: they are not looked at to find that out.
fn raw_disks(spec: &mut SourceSpec, dir: &Path) {
    let Ok(Some(manifest)) = Manifest::read(dir) else {
        return;
    };
    let raw = manifest.disks.into_iter().filter(|d| d.format == "raw");
    spec.raw_disks = raw.map(|d| d.file).collect();
    if !spec.path.is_dir() && spec.format.is_none() {
        spec.format = spec.format_of(&spec.path);
    }
}

/// The sources of a backup's disks, kept for [`attach`].
pub(crate) type Sources = Vec<Arc<Source>>;
