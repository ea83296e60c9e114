//! From a link to its parent, down to the base (fact sheet, VMDK 3).
//!
//! What a delta does not hold is its parent's, and only the content id says that a file is
//! that parent. So every candidate is compared by content id and length before it is taken,
//! and nothing is given out before the whole chain is known.

mod allowed;
mod check;
mod failure;

use crate::{
    descriptor::Descriptor,
    extent::{
        head::{Head, is_complete, parent_is_lost},
        open::Extents,
        redo::{self, Bare, Redo},
    },
    image::OpenOptions,
    link::Link,
    names,
};
pub use check::Checked;
pub(crate) use check::check;
use disk_io::{
    DiskError, ErrorKind, FileId, HostDir, Locate, Opened, Purpose, Result, host_dir::Allowed,
};
use failure::{Failure, Unfit, show};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// Most links of a chain. vSphere allows 32 snapshots; nothing here needs a small limit.
pub(crate) const MAX_DEPTH: usize = 1024;
/// Most extents of all links together.
const MAX_EXTENTS: usize = 4 * crate::descriptor::MAX_EXTENTS;
/// Most disks of a directory that are looked at for a parent or a child.
pub(crate) const MAX_SCANNED: usize = 4096;
/// Most names of a directory that are listed.
const MAX_LISTED: usize = 1 << 20;

/// Opens a link and everything below it. The second value is what the user should know.
pub(crate) fn open(source: Opened, options: &OpenOptions) -> Result<(Vec<Link>, Vec<String>)> {
    let head = Head::read_source(&source)?;
    let mut chain = Chain {
        options,
        seen: HashSet::from([source.id]),
        explicit: options.parent.as_deref(),
        warnings: Vec::new(),
        dir: source.dir.clone(),
    };
    let mut links = Vec::new();
    let mut extents = 0usize;
    let mut current = Some((source, head));
    while let Some((opened, head)) = current.take() {
        extents = extents.saturating_add(head.descriptor.as_ref().map_or(1, |d| d.extent_count()));
        if links.len() >= MAX_DEPTH || extents > MAX_EXTENTS {
            return Err(DiskError::refused("following the chain of parents")
                .file(opened.path.display())
                .expected(format!(
                    "at most {MAX_DEPTH} links with {MAX_EXTENTS} extents"
                ))
                .found("more"));
        }
        let wanted = chain.wanted(&opened, &head)?;
        let capacity = head.capacity();
        if let Some(wanted) = wanted {
            current = Some(chain.find_parent(&opened, capacity, &wanted)?);
        }
        links.push(chain.link(&opened, head)?);
    }
    if let Some(unused) = chain.explicit {
        // A name that leads nowhere is a mistake, needed or not.
        chain.explicit(unused)?;
        chain.warnings.push(format!(
            "the given parent {} was not needed: every link found its own",
            unused.display()
        ));
    }
    chain.warnings.extend(check_lengths(&links)?);
    Ok((links, chain.warnings))
}

/// ESXi refuses a chain whose links differ in length (fact sheet, VMDK 3). A difference of
/// less than a grain is how writers round.
fn check_lengths(links: &[Link]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (child, parent) in links.iter().zip(links.iter().skip(1)) {
        if !same_length(child.capacity, parent.capacity) {
            return Err(DiskError::corrupt("comparing a disk with its parent")
                .code("parent-length-differs")
                .file(child.path.display())
                .expected(format!("the parent's length, {} bytes", parent.capacity))
                .found(format!("{} bytes", child.capacity)));
        }
        if child.capacity > parent.capacity {
            warnings.push(format!(
                "{}: is {} bytes longer than its parent; there it reads as zeros where it has \
                 nothing of its own",
                child.path.display(),
                child.capacity.abs_diff(parent.capacity)
            ));
        }
    }
    Ok(warnings)
}

fn same_length(a: u64, b: u64) -> bool {
    a.abs_diff(b) < 128 * crate::SECTOR
}

/// The parent that a link asks for.
struct Wanted {
    cid: Option<u32>,
    hint: Option<String>,
    encoding: &'static encoding_rs::Encoding,
    /// The child is a redo log: its parent is known by name, length and generation.
    redo: Option<Redo>,
}

struct Chain<'a> {
    options: &'a OpenOptions,
    seen: HashSet<FileId>,
    /// The user's own parent, until it is used.
    explicit: Option<&'a Path>,
    warnings: Vec<String>,
    /// SOURCE's own directory.
    dir: std::sync::Arc<dyn Locate>,
}

impl Chain<'_> {
    /// Opens a link's extents, once its place in the chain is known.
    fn link(&mut self, opened: &Opened, head: Head) -> Result<Link> {
        let name = opened.path.display();
        if let Some(d) = &head.descriptor {
            for warning in d.warnings() {
                self.warnings.push(format!("{name}: {warning}"));
            }
        }
        let (map, extents) = Extents::open(opened, &head, self.options, &mut self.warnings)?;
        self.warnings.extend(map.remarks.all());
        let d = head.descriptor.as_ref();
        Ok(Link {
            path: opened.path.clone(),
            create_type: d.and_then(Descriptor::create_type).map(str::to_owned),
            cid: d.and_then(Descriptor::cid),
            parent_cid: d.and_then(|d| d.parent_cid().ok()).flatten(),
            capacity: map.len,
            extents,
            descriptor: head.descriptor,
            map: std::sync::Arc::new(map),
        })
    }

    /// Which parent the link asks for, if any.
    fn wanted(&mut self, opened: &Opened, head: &Head) -> Result<Option<Wanted>> {
        if let Some(Bare::Redo(redo)) = &head.bare {
            return Ok(Some(Wanted {
                cid: None,
                hint: Some(redo.parent.clone()),
                encoding: encoding_rs::UTF_8,
                redo: Some(redo.clone()),
            }));
        }
        let Some(d) = &head.descriptor else {
            return Ok(None);
        };
        let name = opened.path.display();
        if let Some(key) = d.encryption() {
            return Err(DiskError::unsupported("opening an encrypted disk")
                .file(name)
                .found(format!("the key {key} in its descriptor")));
        }
        let cid = d.parent_cid().map_err(|e| e.file(&name))?;
        let hint = d.parent_hint().map(str::to_owned);
        if d.parent_is_lost() && !is_complete(d) {
            return Err(parent_is_lost().file(name).hint(match &head.hint {
                Some(hint) => hint,
                None => "restore the descriptor from a backup",
            }));
        }
        if cid.is_none() && hint.is_none() {
            // Every writer says it, also of a disk without parent.
            if d.get("parentCID").is_none() && !is_complete(d) {
                self.warnings.push(format!(
                    "{name}: its descriptor has no parentCID: whether it has a parent is not said, \
                     and it is read as a disk without one"
                ));
            }
            return Ok(None);
        }
        if is_complete(d) {
            // Nothing would ever be asked of it: native snapshots are full copies.
            self.warnings.push(format!(
                "{name}: names a parent, but holds every byte itself; the parent is not opened"
            ));
            return Ok(None);
        }
        if cid.is_none() && !self.options.ignore_cid {
            return Err(DiskError::corrupt("looking for the parent disk")
                .code("parent-cid-missing")
                .file(name)
                .expected("parentCID beside parentFileNameHint")
                .found(match d.get("parentCID") {
                    Some(_) => "parentCID=ffffffff, which means that there is no parent",
                    None => "no parentCID",
                })
                .hint("--ignore-cid uses the parent that is named"));
        }
        Ok(Some(Wanted {
            cid,
            hint,
            encoding: d.encoding(),
            redo: None,
        }))
    }

    /// Compares a file with what is wanted.
    fn fits(
        &self,
        candidate: Opened,
        capacity: Option<u64>,
        wanted: &Wanted,
    ) -> Result<(Opened, Head), Unfit> {
        if self.seen.contains(&candidate.id) {
            return Err(Unfit::Seen(candidate.path));
        }
        if let Some(redo) = &wanted.redo {
            let head = below_redo(&candidate, redo).map_err(Unfit::Other)?;
            return Ok((candidate, head));
        }
        let head = Head::read(&candidate).map_err(Unfit::Other)?;
        if let (Some(child), Some(parent)) = (capacity, head.capacity())
            && !same_length(child, parent)
        {
            return Err(Unfit::Other(
                DiskError::corrupt("comparing a disk with its parent")
                    .code("parent-length-differs")
                    .file(candidate.path.display())
                    .expected(format!("{child} bytes, the child's length"))
                    .found(format!("{parent} bytes")),
            ));
        }
        let cid = head.descriptor.as_ref().and_then(Descriptor::cid);
        if wanted.cid.is_none() || cid != wanted.cid {
            return Err(Unfit::Cid(candidate, Box::new(head)));
        }
        Ok((candidate, head))
    }

    /// Finds the parent of `child` in the order of the fact sheet (VMDK 3.1).
    fn find_parent(
        &mut self,
        child: &Opened,
        capacity: Option<u64>,
        wanted: &Wanted,
    ) -> Result<(Opened, Head)> {
        let mut failure = Failure::new(child, wanted);
        // Beside the child; then beside SOURCE, which is elsewhere where the user gave a
        // parent in another directory.
        let dirs = [child.dir.clone(), self.dir.clone()];
        for (name, dir) in candidates(wanted)
            .iter()
            .flat_map(|name| dirs.iter().map(move |dir| (name, dir)))
        {
            if !failure.tried.contains(name) {
                failure.tried.push(name.clone());
            }
            let opened = match names::open(&**dir, name, wanted.encoding, Purpose::Parent) {
                Ok(opened) => opened,
                Err(e) => {
                    failure.add(Unfit::Other(e));
                    continue;
                }
            };
            match self.fits(opened, capacity, wanted) {
                Ok(found) => {
                    self.warn_redo(child, &found.0, wanted);
                    return Ok(self.take(found));
                }
                Err(unfit) => failure.add(unfit),
            }
        }
        // What the user gave goes before what a search would find.
        let given = self
            .explicit
            .map(|path| self.try_explicit(path, child, capacity, wanted));
        if let Some(Ok(found)) = given {
            self.explicit = None;
            return Ok(self.take(found));
        }
        if let Some(found) = self.scan(child, capacity, wanted, &mut failure)? {
            self.warnings.push(format!(
                "{}: the parent that it names, {}, is not there or is another disk; {} has the \
                 content id and is used",
                child.path.display(),
                wanted.hint.as_deref().unwrap_or("(not named)"),
                found.0.path.display()
            ));
            return Ok(self.take(found));
        }
        if let Some(Err(e)) = given {
            return Err(e);
        }
        if let Some(found) = self.in_allowed(child, capacity, wanted, &mut failure)? {
            return Ok(self.take(found));
        }
        match failure.mismatch.take() {
            Some((opened, head)) if self.options.ignore_cid => {
                self.warn_cid(child, &opened, &head, wanted);
                Ok(self.take((opened, *head)))
            }
            other => {
                failure.mismatch = other;
                Err(failure.error())
            }
        }
    }

    fn take(&mut self, found: (Opened, Head)) -> (Opened, Head) {
        self.seen.insert(found.0.id);
        found
    }

    fn warn_redo(&mut self, child: &Opened, parent: &Opened, wanted: &Wanted) {
        if wanted.redo.is_some() {
            self.warnings.push(format!(
                "{}: is a redo log of ESX 2, which has no content id: {} is taken for its disk by \
                 name and length",
                child.path.display(),
                parent.path.display()
            ));
        }
    }

    fn warn_cid(&mut self, child: &Opened, parent: &Opened, head: &Head, wanted: &Wanted) {
        let cid = head.descriptor.as_ref().and_then(Descriptor::cid);
        self.warnings.push(format!(
            "{}: the content id of its parent {} is {}, not {}, and is IGNORED as asked: the \
             parent may have been changed, and the contents may be a mixture",
            child.path.display(),
            parent.path.display(),
            show(cid),
            show(wanted.cid),
        ));
    }

    /// The parent that the user gave: of this machine, since the user typed it; inside
    /// SOURCE's own place if it is not there.
    fn explicit(&self, path: &Path) -> Result<Opened> {
        HostDir::open_source(path, &Allowed::default()).or_else(|e| {
            match (e.kind(), self.dir.open(path, Purpose::Parent)) {
                (ErrorKind::NotFound, Ok(opened)) => Ok(opened),
                _ => Err(e.context("opening the parent given by --parent")),
            }
        })
    }

    /// Compares the parent that the user gave with what `child` wants.
    fn try_explicit(
        &mut self,
        path: &Path,
        child: &Opened,
        capacity: Option<u64>,
        wanted: &Wanted,
    ) -> Result<(Opened, Head)> {
        let found = match self.fits(self.explicit(path)?, capacity, wanted) {
            Ok(found) => found,
            Err(Unfit::Cid(opened, head)) if self.options.ignore_cid => {
                self.warn_cid(child, &opened, &head, wanted);
                (opened, *head)
            }
            Err(unfit) => {
                let mut failure = Failure::new(child, wanted);
                failure.tried.push(path.display().to_string());
                failure.add(unfit);
                return Err(failure.error());
            }
        };
        self.warnings.push(format!(
            "{}: {} is used as its parent, as asked",
            child.path.display(),
            found.0.path.display()
        ));
        Ok(found)
    }

    /// Looks through the child's directory for the one disk with the wanted content id.
    fn scan(
        &self,
        child: &Opened,
        capacity: Option<u64>,
        wanted: &Wanted,
        failure: &mut Failure,
    ) -> Result<Option<(Opened, Head)>> {
        // These are not random, so they identify nothing (fact sheet, VMDK 3).
        let Some(cid) = wanted.cid.filter(|c| !matches!(c, 0 | 0xffff_fffe)) else {
            return Ok(None);
        };
        let mut found: Option<(Opened, Head)> = None;
        let mut second = None;
        let names = match disk_names(&*child.dir) {
            Ok(names) => names,
            Err(e) => {
                failure.add(Unfit::Other(e));
                return Ok(None);
            }
        };
        for name in names {
            let Ok(opened) = child.dir.open(&name, Purpose::Parent) else {
                continue;
            };
            if let Ok((opened, head)) = self.fits(opened, capacity, wanted) {
                // A snapshot that was never written to has its parent's content id, so the
                // child's own children may match too.
                let below_child = head
                    .descriptor
                    .as_ref()
                    .and_then(Descriptor::parent_hint)
                    .and_then(names::base_name)
                    .is_some_and(|hint| child.base_name() == Path::new(hint));
                if below_child {
                    continue;
                }
                // Two are as good as many, and descriptors can be large.
                if found.is_some() {
                    second = Some(opened.path);
                    break;
                }
                found = Some((opened, head));
            }
        }
        failure
            .tried
            .push(format!("content id {cid:08x} in {}", child.dir.describe()));
        match (&found, second) {
            (Some((first, _)), Some(second)) => {
                Err(DiskError::not_found("looking for the parent disk")
                    .file(child.path.display())
                    .expected(format!("one disk with content id {cid:08x}"))
                    .found(format!("{} and {}", first.path.display(), second.display()))
                    .hint("say which with --parent FILE"))
            }
            _ => Ok(found),
        }
    }
}

/// What lies below a redo log: another one of the generation that it was made on, a disk with a
/// descriptor, or bytes as they are.
fn below_redo(candidate: &Opened, redo: &Redo) -> Result<Head> {
    // A file as long as the log's disk is that disk, whatever its guest wrote into the first sector,
    // unless it is called a log itself.
    let is_disk = candidate.disk.len() == redo.len && !redo::is_redo_name(candidate.base_name());
    if is_disk || crate::probe(&*candidate.disk)?.is_none() {
        return redo::flat(candidate, redo.len).map(Head::of);
    }
    let head = Head::read(candidate)?;
    let differs = |what: &'static str, expected: String, found: String| {
        DiskError::corrupt("comparing a redo log with its parent")
            .code(what)
            .file(candidate.path.display())
            .expected(expected)
            .found(found)
    };
    if let Some(len) = head.capacity().filter(|len| *len != redo.len) {
        let (expected, found) = (redo.len.to_string(), format!("{len} bytes"));
        return Err(differs("parent-length-differs", expected, found));
    }
    if let Some(Bare::Redo(parent)) = &head.bare
        && redo.parent_generation != 0
        && redo.parent_generation != parent.generation
    {
        let expected = format!("generation {}", redo.parent_generation);
        let found = format!("generation {}: it was written to since", parent.generation);
        return Err(differs("parent-cid-differs", expected, found));
    }
    Ok(head)
}

/// Names under which a parent may be found, in order and without repetition.
fn candidates(wanted: &Wanted) -> Vec<String> {
    let Some(hint) = &wanted.hint else {
        return Vec::new();
    };
    let mut all = Vec::new();
    if !names::is_absolute(hint) {
        all.push(hint.clone());
        // A relative name in the spelling of Windows.
        all.push(hint.replace('\\', "/"));
    }
    all.extend(names::base_name(hint).map(str::to_owned));
    all.extend(names::last_two(hint).map(|two| format!("../{two}")));
    if names::is_absolute(hint) {
        all.push(hint.clone());
    }
    let mut unique: Vec<String> = Vec::new();
    for name in all {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

/// Names in a directory that may be those of disks, sorted.
///
/// # Errors
/// `Refused` if there are more than a look at each would be worth: a part of them proves
/// nothing.
pub(crate) fn disk_names(dir: &dyn Locate) -> Result<Vec<PathBuf>> {
    let mut names = dir.list(MAX_LISTED)?;
    let all = names.len() < MAX_LISTED;
    names.retain(|n| {
        n.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("vmdk"))
            || redo::is_redo_name(n)
    });
    if !all || names.len() > MAX_SCANNED {
        return Err(
            DiskError::refused("looking through the directory for disks")
                .file(dir.describe())
                .expected(format!("at most {MAX_SCANNED} of them"))
                .found("more"),
        );
    }
    Ok(names)
}
