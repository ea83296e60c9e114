//! The guests' volumes: the structures of each file system held against each other.

use crate::owners::{Owner, Wanted, owners_of};
use disk_io::{ErrorKind, Finding, Result, Severity};
use guest_fs::FsKind;
use proxy::{Source, Tree, TreeOptions, Volume};
use std::sync::Arc;

/// What was found in the structures of a guest's volume.
#[derive(Clone, Debug)]
pub struct VolumeFinding {
    /// The volume: `/p1`.
    pub volume: String,
    /// What; its ranges are in bytes of the volume.
    pub finding: Finding,
    /// Guest files that it touches.
    pub touched: Vec<Owner>,
}

/// A volume, and where the tree of its disk has it.
pub struct Found<'a> {
    /// `/p1`, `/lvm/GROUP/VOLUME`.
    pub path: String,
    /// The volume.
    pub volume: &'a Arc<Volume>,
}

/// Partitions, and volumes over them.
pub(crate) fn all(source: &Source) -> impl Iterator<Item = Found<'_>> {
    let own = source.volumes().iter().map(|volume| Found {
        path: format!("/{}", volume.name()),
        volume,
    });
    let logical = source.logical().iter().map(|logical| Found {
        path: logical.path(),
        volume: &logical.volume,
    });
    own.chain(logical)
}

/// Visits what is wrong with the structures of every volume whose file system can tell. VMFS is
/// left out: it is where disks lie, and is checked with them.
///
/// # Errors
/// Where the device fails.
pub fn visit(source: &Source, visit: &mut dyn FnMut(&Found<'_>, Finding)) -> Result<()> {
    for found in all(source) {
        let volume = found.volume;
        let kind = volume.recognised().as_ref().ok().and_then(Option::as_ref);
        if kind.is_some_and(|k| k.kind == FsKind::Vmfs) {
            continue;
        }
        // Why one cannot be opened is told by whoever reads its files.
        if let Ok(fs) = volume.file_system() {
            fs.check(&mut |finding| visit(&found, finding))?;
        }
    }
    Ok(())
}

/// Visits volumes of a kind that is read here and that cannot be opened all the same.
///
/// # Errors
/// Where the device fails.
pub fn unusable(source: &Source, visit: &mut dyn FnMut(&Found<'_>, Finding)) -> Result<()> {
    for found in all(source) {
        let volume = found.volume;
        let Ok(Some(kind)) = volume.recognised() else {
            continue;
        };
        if !kind.readable || kind.kind == FsKind::Vmfs {
            continue;
        }
        match volume.file_system() {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::Refused) => {
                visit(&found, Finding::note("volume-not-read", e));
            }
            Err(e) => visit(&found, Finding::damage("volume-unusable", e)),
        }
    }
    Ok(())
}

/// Where a volume begins on the disk; `None` where it lies on several ranges.
pub fn start(source: &Source, volume: &Volume) -> Option<u64> {
    match volume.partition() {
        Some(p) => Some(p.start),
        None => (volume.disk().len() == source.disk().len()).then_some(0),
    }
}

/// What is asked of [`owners_of`] about a finding of a volume.
pub(crate) fn wanted(volume: &Arc<Volume>, finding: &Finding) -> Wanted {
    Wanted {
        volume: Some(volume.clone()),
        ranges: finding.ranges.clone(),
        nodes: finding.nodes.clone(),
    }
}

/// Everything that is found in the volumes, with the guest files that it touches: at most `most`
/// findings, and how many more there are. `called` names a volume.
pub(crate) fn check(
    source: &Arc<Source>,
    most: usize,
    called: &dyn Fn(&str) -> String,
) -> Result<(Vec<VolumeFinding>, u64)> {
    let mut found: Vec<VolumeFinding> = Vec::new();
    let mut asked: Vec<Wanted> = Vec::new();
    let mut more = 0u64;
    visit(source, &mut |at, finding| {
        // Damage is kept where notes and warnings are not, so that it is known.
        let room = match finding.severity {
            Severity::Damage => most.saturating_mul(2),
            _ => most,
        };
        if found.len() >= room {
            more = more.saturating_add(1);
            return;
        }
        asked.push(wanted(at.volume, &finding));
        found.push(VolumeFinding {
            volume: called(&at.path),
            finding,
            touched: Vec::new(),
        });
    })?;
    if asked
        .iter()
        .all(|w| w.ranges.is_empty() && w.nodes.is_empty())
    {
        return Ok((found, more));
    }
    let tree = Tree::new(source.clone(), TreeOptions::default())?;
    for owner in owners_of(&tree, &asked).files {
        for index in &owner.ranges {
            if let Some(one) = found.get_mut(*index) {
                one.touched.push(owner.clone());
            }
        }
    }
    Ok((found, more))
}
