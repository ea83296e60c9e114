//! `--merge`: a backup that builds on one which goes is made whole.

use super::{Base, Generation, holds_more, mark, older, prove};
use crate::{
    args::Global, exit::Failure, image_format::subformat_like, output::say, progress::Bar,
    source::names_of,
};
use convert::backup::{Child, Manifest, Whole};
use disk_io::{DiskError, Result};
use proxy::{Source, SourceSpec};
use std::path::Path;
use vmdk::writer::{self, Identity};

/// Those that stay and build on one that would go: if they did not, it could.
pub(super) fn to_merge(dest: &Path, new: &Manifest, keep: usize, all: &[Generation]) -> Vec<usize> {
    let going = older(dest, new, keep, all);
    (0..all.len())
        .filter(|n| !going.contains(n))
        .filter(|n| {
            let one = all.get(*n).filter(|g| g.is_of(new));
            let base = one.map(|g| g.base(all));
            matches!(base, Some(Base::At(base)) if going.contains(&base))
        })
        .collect()
}

/// Makes the backup `dir`, which builds on another, a whole one of the same name: with the same
/// contents and content ids, so that others go on building on it. `None` if it is left, since it
/// holds what is no part of the backup.
pub(super) fn whole(
    dir: &Path,
    old: &Manifest,
    (jobs, global): (usize, &Global),
) -> Result<Option<Manifest>, Failure> {
    // The directory goes as a whole, and with it whatever is there.
    if holds_more(dir, old, &|_, _| false)? {
        return Ok(None);
    }
    let mut children = Vec::new();
    for disk in old.disks.iter().filter(|d| d.parent.is_some()) {
        let mut spec = SourceSpec {
            path: dir.join(&disk.file),
            ..SourceSpec::default()
        };
        crate::since::allow(&mut spec)?;
        children.push(child(disk.file.clone(), &Source::open(&spec)?)?);
    }
    say(format_args!(
        "making {} whole, so that what it builds on can go",
        dir.display()
    ));
    let bar = Bar::new(global, children.iter().map(|c| c.disk.len()).sum());
    let whole = Whole::write(dir, old, &children, jobs, &bar)?;
    drop((bar, children));
    if !prove(whole.path(), (jobs, global))? {
        return Err(DiskError::corrupt("making a backup whole")
            .file(dir.display())
            .expected("one that can be proven")
            .found("one that cannot, in part")
            .into());
    }
    let manifest = whole.manifest.clone();
    mark(whole.path(), &manifest)?;
    whole.replace()?;
    Ok(Some(manifest))
}

/// A disk that is a child of an earlier backup's, to be written whole: in the subformat that the
/// chain begins with, with the content id that it has.
fn child(file: String, source: &Source) -> Result<Child> {
    let unfit = || {
        DiskError::unsupported("making a backup whole")
            .file(&file)
            .expected("a VMDK with a content id")
            .found("something else")
    };
    let links = source.image().vmdk.as_ref().map(|v| v.links());
    let links = links.ok_or_else(unfit)?;
    let (first, last) = links.first().zip(links.last()).ok_or_else(unfit)?;
    let subformat = subformat_like(last.create_type.as_deref(), false);
    let identity = Identity::new(first.cid.ok_or_else(unfit)?);
    Ok(Child {
        file,
        files: names_of(source),
        disk: source.disk().clone(),
        options: writer::Options::new(subformat, identity),
    })
}
