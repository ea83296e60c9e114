//! `commit` and `rebase`: the links of a chain, put together otherwise.
//!
//! Both write a new image and leave every file of the chain as it is, unless `--in-place`
//! asks for more. What goes into the new image is what differs from its parent-to-be.

use crate::{
    args::{Global, HowArgs, SourceArgs},
    disk_doubts,
    exit::{Exit, Failure},
    image_format::{FormatArgs, subformat_like},
    output::{Out, human, warn},
    progress::Bar,
    signals, source,
    verb::create::parent_hint,
};
use clap::Args;
use convert::{
    Destination, DigestKind, ImageFormat, ImageOptions, Progress,
    delta::{self, ChildOptions, FlatPart, Written},
    place::file_ids,
    to_image,
};
use disk_io::{Disk, DiskError, HostDir, host_dir::Allowed};
use proxy::Source;
use serde::Serialize;
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};
use vmdk::{
    Link,
    writer::{Options, Subformat},
};

/// Merge the newest delta of a chain into its parent: as a new image, or in place
///
/// Without --in-place DEST is the parent with SOURCE merged in; it has the parent's own
/// parent, if there is one. With --in-place the parent's file is changed; that is refused
/// where another disk has the same parent.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit commit web01-000002.vmdk                     writes web01-000001-committed.vmdk
  vmdkit commit web01-000002.vmdk merged.vmdk
  vmdkit commit --in-place web01-000001.vmdk          changes web01.vmdk

After --in-place SOURCE and its parent have the same contents, and SOURCE can be deleted. If
it is interrupted, run it again: until it is done SOURCE stays right.")]
pub(crate) struct Commit {
    /// The newest delta of the chain
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// File to write; by default PARENT-committed.vmdk beside the parent
    #[arg(value_name = "DEST", conflicts_with = "in_place")]
    dest: Option<PathBuf>,
    /// Change the parent itself
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    common: Common,
}

/// Give a disk another parent: write a child of P with what differs from P
///
/// The new child of P has the same contents as SOURCE. P may be anything that is a VMDK of
/// the same size: another generation, a template, a link of SOURCE's own chain.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit rebase web01-000003.vmdk --onto web01.vmdk   writes web01-000003-rebased.vmdk
  vmdkit rebase clone.vmdk small.vmdk --onto template.vmdk
  vmdkit rebase --in-place web01-000003.vmdk --onto web01.vmdk")]
pub(crate) struct Rebase {
    /// The disk
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// File to write; by default SOURCE-rebased.vmdk beside it
    #[arg(value_name = "DEST", conflicts_with = "in_place")]
    dest: Option<PathBuf>,
    /// Its parent-to-be
    #[arg(long, value_name = "P")]
    onto: PathBuf,
    /// Replace SOURCE itself, once the new file is complete
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    common: Common,
}

/// What both have.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    format: FormatArgs,
    /// Replace DEST if it exists
    #[arg(long, short)]
    force: bool,
    /// Read the result and compare it with SOURCE
    #[arg(long)]
    verify: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Serialize)]
struct Json<'a> {
    source: String,
    destination: String,
    /// The parent that the result has.
    parent: Option<String>,
    subformat: Option<&'static str>,
    cid: Option<String>,
    in_place: bool,
    virtual_size: u64,
    written: u64,
    zeros: u64,
    verified: bool,
    files: Vec<String>,
    warnings: &'a [String],
}

/// What is known of the result before it is told.
struct Outcome {
    dest: PathBuf,
    parent: Option<String>,
    subformat: Option<&'static str>,
    cid: Option<u32>,
    in_place: bool,
    done: Written,
}

impl Common {
    fn open(&self, path: &Path, global: &Global) -> Result<Arc<Source>, Failure> {
        let args = SourceArgs {
            source: path.to_path_buf(),
            how: self.how.clone(),
        };
        source::open(&args, global)
    }

    /// Another link of the chain: that there is newer data is known.
    fn open_quietly(&self, path: &Path, global: &Global) -> Result<Arc<Source>, Failure> {
        let args = SourceArgs {
            source: path.to_path_buf(),
            how: self.how.clone(),
        };
        source::open_quietly(&args, global)
    }

    /// The parent-to-be: what says which disk SOURCE is, and of which format, is not about it.
    fn open_onto(&self, path: &Path, global: &Global) -> Result<Arc<Source>, Failure> {
        let how = HowArgs {
            format: None,
            snapshot: None,
            disk: None,
            ..self.how.clone()
        };
        let source = path.to_path_buf();
        source::open_quietly(&SourceArgs { source, how }, global)
    }

    /// What lies in datastores is only read.
    fn only_host_files(&self, refused: &DiskError) -> Result<(), Failure> {
        match self.how.datastore.is_empty() {
            true => Ok(()),
            false => Err(refused
                .clone()
                .expected("files of this host")
                .found("a datastore, which is only read")
                .hint("leave out --in-place, and use the new image")
                .into()),
        }
    }

    /// How the result is written: as asked for, else as `like` is, where it can be a child.
    fn options(&self, like: &Link, is_child: bool) -> Result<Options, Failure> {
        let mut options = self.format.vmdk(false)?;
        if self.format.subformat.is_none() {
            options.subformat = subformat_like(like.create_type.as_deref(), is_child);
        }
        Ok(options)
    }

    fn child_options(&self, sources: Vec<PathBuf>, force: bool) -> ChildOptions {
        ChildOptions {
            force: self.force || force,
            workers: self.jobs,
            sources,
            sync_later: false,
        }
    }

    /// What makes the contents of SOURCE doubtful. Nothing is overwritten by what is.
    fn doubts(&self, source: &Source, in_place: bool) -> Result<Vec<String>, Failure> {
        let doubts = disk_doubts::tell(source)?;
        match in_place && !doubts.is_empty() {
            true => Err(DiskError::refused("changing the chain in place")
                .file(source.path().display())
                .expected("files that do not contradict each other")
                .found("a disk whose contents are doubtful")
                .hint("leave out --in-place: the files that are there stay as they are")
                .into()),
            false => Ok(doubts),
        }
    }

    fn tell(
        &self,
        global: &Global,
        source: &Source,
        doubts: &[String],
        outcome: &Outcome,
    ) -> Result<Exit, Failure> {
        let mut verified = false;
        if self.verify {
            let result = self.open_quietly(&outcome.dest, global)?;
            let bar = Bar::new(global, result.disk().len());
            let found = changed(&result, source, true, &bar)?;
            if let Some(first) = found.first() {
                return Err(DiskError::corrupt("verifying the result")
                    .file(outcome.dest.display())
                    .offset(first.start)
                    .expected("the contents of SOURCE")
                    .found("other bytes")
                    .hint("do not use it; keep the chain as it was")
                    .into());
            }
            verified = true;
        }
        let done = &outcome.done;
        let mut out = Out::new();
        if self.json {
            out.document(&Json {
                source: source.path().display().to_string(),
                destination: outcome.dest.display().to_string(),
                parent: outcome.parent.clone(),
                subformat: outcome.subformat,
                cid: outcome.cid.map(|cid| format!("{cid:08x}")),
                in_place: outcome.in_place,
                virtual_size: source.disk().len(),
                written: done.written,
                zeros: done.zeros,
                verified,
                files: done.files.iter().map(|f| f.display().to_string()).collect(),
                warnings: &[source.warnings(), doubts].concat(),
            })?;
        } else if !global.quiet {
            for file in &done.files {
                let name = guest_fs::Name::from_bytes(file.as_os_str().as_encoded_bytes());
                let what = if outcome.in_place {
                    "changed"
                } else {
                    "created"
                };
                out.line(format!("{what:<13} {name}"))?;
            }
            out.line(format!(
                "parent        {}",
                outcome.parent.as_deref().unwrap_or("none")
            ))?;
            out.line(format!(
                "written       {} ({})",
                done.written,
                human(done.written)
            ))?;
            if verified {
                out.line("verified      read back, the same contents as SOURCE")?;
            }
        }
        out.finish()?;
        Ok(Exit::partial_if(!doubts.is_empty()))
    }
}

/// Ranges in which two disks differ, found by their maps where these tell.
fn changed(a: &Source, b: &Source, first: bool, bar: &Bar) -> Result<Vec<Range<u64>>, Failure> {
    let mut told = 0;
    let mut cancelled = false;
    let found = verify::diff::blocks(a, b, first, &mut |at| {
        bar.advance(at.saturating_sub(told));
        told = at;
        cancelled |= bar.cancelled();
    })?;
    if cancelled || signals::caught().is_some() {
        return Err(DiskError::refused("comparing")
            .found("a wish to stop")
            .into());
    }
    if let Some((a_len, b_len)) = found.lengths {
        return Err(DiskError::refused("comparing the disks")
            .expected(format!("two disks of one size, {a_len} bytes"))
            .found(format!("{b_len} bytes"))
            .into());
    }
    Ok(found.ranges)
}

fn links(source: &Source) -> Result<&[Link], Failure> {
    match &source.image().vmdk {
        Some(image) => Ok(image.links()),
        None => Err(DiskError::unsupported("changing the chain")
            .file(source.path().display())
            .expected("a VMDK")
            .found(source.image().format.title())
            .into()),
    }
}

/// The content id by which a child knows its parent.
fn cid_of(link: &Link) -> Result<u32, Failure> {
    link.cid.ok_or_else(|| {
        DiskError::refused("naming the parent")
            .file(link.path.display())
            .expected("a VMDK with a content id, which the child can name")
            .found("none")
            .into()
    })
}

/// `NAME-what.vmdk` beside a file.
fn beside(path: &Path, what: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{what}.vmdk"))
}

impl Commit {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        signals::watch();
        let source = self.common.open(&self.source, global)?;
        let links = links(&source)?;
        let [top, parent, above @ ..] = links else {
            return Err(DiskError::refused("committing")
                .file(self.source.display())
                .expected("a delta, which has a parent to merge into")
                .found("a disk without a parent")
                .hint("vmdkit convert copies a disk")
                .into());
        };
        let doubts = self.common.doubts(&source, self.in_place)?;
        let outcome = match self.in_place {
            true => self.in_place(&source, top, parent, above, global)?,
            false => {
                let dest = self.dest.clone();
                let dest = dest.unwrap_or_else(|| beside(&parent.path, "committed"));
                let options = self.common.options(parent, !above.is_empty())?;
                let sources = source::files(&source);
                self.merged(&source, above, &dest, options, sources, global)?
            }
        };
        self.common.tell(global, &source, &doubts, &outcome)
    }

    /// The parent with SOURCE merged in, as `dest`.
    fn merged(
        &self,
        source: &Arc<Source>,
        above: &[Link],
        dest: &Path,
        mut options: Options,
        sources: Vec<PathBuf>,
        global: &Global,
    ) -> Result<Outcome, Failure> {
        let cid = options.identity.cid;
        let subformat = options.subformat.name();
        let force = self.in_place;
        let Some(grandparent) = above.first() else {
            let bar = Bar::new(global, source.disk().len());
            let image = ImageOptions {
                format: ImageFormat::Vmdk(options),
                workers: self.common.jobs,
                digest: DigestKind::None,
                force: self.common.force || force,
                sources,
                checkpoints: None,
            };
            let report = to_image(source.disk(), Destination::File(dest), &image, &bar)?;
            return Ok(Outcome {
                dest: dest.to_path_buf(),
                parent: None,
                subformat: Some(subformat),
                cid: Some(cid),
                in_place: force,
                done: Written {
                    files: report.files,
                    written: report.written,
                    zeros: report.zeros,
                },
            });
        };
        let below = self.common.open_quietly(&grandparent.path, global)?;
        let hint = parent_hint(dest, &grandparent.path)?;
        options.identity.parent = Some((cid_of(grandparent)?, hint.clone()));
        let bar = Bar::new(global, source.disk().len());
        let ranges = changed(source, &below, false, &bar)?;
        let how = self.common.child_options(sources, force);
        let done = delta::child(source.disk(), &ranges, dest, &options, &how, &bar)?;
        Ok(Outcome {
            dest: dest.to_path_buf(),
            parent: Some(hint),
            subformat: Some(subformat),
            cid: Some(cid),
            in_place: force,
            done,
        })
    }

    fn in_place(
        &self,
        source: &Arc<Source>,
        top: &Link,
        parent: &Link,
        above: &[Link],
        global: &Global,
    ) -> Result<Outcome, Failure> {
        let refused = || DiskError::refused("committing in place").file(parent.path.display());
        self.common.only_host_files(&refused())?;
        only_child(&parent.path, &top.path)?;
        no_children(&top.path)?;
        let flat: Option<Vec<FlatPart>> = parent
            .extents
            .iter()
            .map(|e| {
                Some(FlatPart {
                    file: e.file.clone().filter(|_| e.sparse.is_none())?,
                    start: e.start,
                    len: e.len,
                    offset: e.offset,
                })
            })
            .collect();
        let single = parent.create_type.as_deref() == Some("monolithicSparse");
        match flat.filter(|f| !f.is_empty()) {
            Some(parts) => {
                let below = self.common.open_quietly(&parent.path, global)?;
                let bar = Bar::new(global, source.disk().len());
                let ranges = changed(source, &below, false, &bar)?;
                drop(below);
                let jobs = self.common.jobs;
                let done = delta::into_flat(source.disk(), &ranges, &parts, jobs, &bar)?;
                // Only now is the parent another disk than it was.
                let cid = self.common.format.vmdk(false)?.identity.cid;
                delta::set_cid(&parent.path, cid)?;
                Ok(Outcome {
                    dest: parent.path.clone(),
                    parent: None,
                    subformat: None,
                    cid: Some(cid),
                    in_place: true,
                    done,
                })
            }
            None if single => {
                let mut options = self.common.options(parent, !above.is_empty())?;
                options.subformat = Subformat::MonolithicSparse;
                self.merged(source, above, &parent.path, options, Vec::new(), global)
            }
            None => Err(refused()
                .expected("a flat parent, or one of the subformat monolithicSparse")
                .found(parent.create_type.clone().unwrap_or_default())
                .hint("leave out --in-place, and use the new image")
                .into()),
        }
    }
}

impl Rebase {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        signals::watch();
        let source = self.common.open(&self.source, global)?;
        let onto = self.common.open_onto(&self.onto, global)?;
        let doubts = self.common.doubts(&source, self.in_place)?;
        let refused = || DiskError::refused("rebasing").file(self.source.display());
        let Some(target) = links(&onto)?.first() else {
            return Err(refused().expected("a VMDK as the parent-to-be").into());
        };
        let own = source.image().vmdk.as_ref().and_then(|v| v.links().first());
        let dest = match (&self.dest, self.in_place) {
            (Some(dest), _) => dest.clone(),
            (None, true) => self.source.clone(),
            (None, false) => beside(&self.source, "rebased"),
        };
        let mut options = self.common.options(own.unwrap_or(target), true)?;
        let mut sources = source::files(&source);
        sources.extend(source::files(&onto));
        if self.in_place {
            self.common.only_host_files(&refused())?;
            let single = own.is_some_and(|l| l.create_type.as_deref() == Some("monolithicSparse"));
            let Some(link) = own.filter(|_| single) else {
                return Err(refused()
                    .expected(
                        "one file of the subformat monolithicSparse, which can be replaced at once",
                    )
                    .found(own.and_then(|l| l.create_type.clone()).unwrap_or_default())
                    .hint("leave out --in-place, and use the new image")
                    .into());
            };
            let needed = source::files(&onto);
            let needed = file_ids(needed.iter().map(PathBuf::as_path));
            if file_ids([link.path.as_path()])
                .iter()
                .any(|id| needed.contains(id))
            {
                return Err(refused()
                    .expected("a parent-to-be that does not need SOURCE")
                    .found("a chain that SOURCE is part of")
                    .into());
            }
            // The contents stay, so that children of SOURCE stay right.
            options.identity.cid = cid_of(link)?;
            sources.clear();
        }
        let hint = parent_hint(&dest, &self.onto)?;
        options.identity.parent = Some((cid_of(target)?, hint.clone()));
        let bar = Bar::new(global, source.disk().len());
        let ranges = changed(&source, &onto, false, &bar)?;
        let how = self.common.child_options(sources, self.in_place);
        let done = delta::child(source.disk(), &ranges, &dest, &options, &how, &bar)?;
        drop(bar);
        let outcome = Outcome {
            dest,
            parent: Some(hint),
            subformat: Some(options.subformat.name()),
            cid: Some(options.identity.cid),
            in_place: self.in_place,
            done,
        };
        self.common.tell(global, &source, &doubts, &outcome)
    }
}

/// Direct children of a disk in its directory.
fn children(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let opened = HostDir::open_source(path, &Allowed::default())?;
    let all = vmdk::newer_children(&opened)?;
    Ok(all
        .into_iter()
        .filter(|c| c.depth == 1)
        .map(|c| path.with_file_name(c.path))
        .collect())
}

fn only_child(parent: &Path, child: &Path) -> Result<(), Failure> {
    let same = |other: &PathBuf| other.canonicalize().ok() == child.canonicalize().ok();
    let others: Vec<_> = children(parent)?.into_iter().filter(|c| !same(c)).collect();
    match others.as_slice() {
        [] => {
            warn(format!(
                "only {} was looked through for other children of {}",
                parent.parent().unwrap_or(Path::new(".")).display(),
                parent.display()
            ));
            Ok(())
        }
        some => Err(DiskError::refused("committing in place")
            .file(parent.display())
            .expected("a parent that no other disk has")
            .found(names(some))
            .hint("leave out --in-place, and use the new image")
            .into()),
    }
}

fn no_children(path: &Path) -> Result<(), Failure> {
    match children(path)?.as_slice() {
        [] => Ok(()),
        some => Err(DiskError::refused("committing in place")
            .file(path.display())
            .expected("the newest delta of its chain")
            .found(format!("newer ones: {}", names(some)))
            .hint("commit the newest first")
            .into()),
    }
}

fn names(paths: &[PathBuf]) -> String {
    let all: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    all.join(", ")
}
