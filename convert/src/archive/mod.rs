//! Files and trees of a guest as an archive, streamed: tar or zip.
//!
//! Memory does not grow with the tree: each object is written as it is met. A file's header
//! says its length before its contents have been read, so one that turns out to be unreadable
//! is filled with zeros to that length, told as a failure, and listed in a last member of the
//! archive, [`FAILURES`], so that whoever unpacks it elsewhere knows too.
//!
//! No name is given twice: of a link and a directory of one name some programs make the link,
//! and then put what is in the directory where the link leads.

mod contents;
mod pax;
mod tar;
#[cfg(test)]
mod tests;
mod zip;

use crate::restore::{Event, Filter, Observer, SOCKET, Source, Streams, Summary};
use contents::Contents;
use disk_io::{Disk, DiskError, Result};
use guest_fs::{Entered, Metadata, Name, NodeKind, SpecialKind, fs::attributes};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    io::{self, Write},
    ops::ControlFlow,
};

/// Name of the member that lists what could not be read; where the guest has a file of that
/// name, it gets a number.
pub const FAILURES: &str = "vmdkit-failures.txt";

/// Longest stream that becomes an extended attribute, as on Linux.
const LONGEST_XATTR: u64 = 64 << 10;

/// What goes into the archive.
#[derive(Clone, Debug)]
pub struct Item<N> {
    /// Its path in the tree.
    pub path: Vec<u8>,
    /// Its name in the archive; empty for a directory whose entries have no directory.
    pub name: Vec<u8>,
    /// The object.
    pub node: N,
    /// Why it may not be what its path names: which part of the path, and the reason.
    pub doubts: Vec<(Name, String)>,
}

/// How to write it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What to take and what to leave.
    pub filter: Filter,
    /// What becomes of named streams: extended attributes, members `FILE:NAME`, or nothing.
    pub streams: Streams,
    /// The format.
    pub format: Format,
}

/// The format of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// pax, the tar format of POSIX.
    #[default]
    Tar,
    /// zip with 64-bit sizes, deflated. Holes, further hard links and streams as attributes
    /// are beyond it: holes compress to nothing, links are files again.
    Zip,
}

/// Writes `items`, with everything in them, to `out`; `name` is the output's, for messages.
/// What cannot be read is told to `observer` and the rest goes on; only the output's own
/// failure, or the wish to stop, ends it. The writer comes back, to be finished.
pub fn archive<S: Source, W: Write>(
    source: &S,
    items: &[Item<S::Node>],
    out: W,
    name: &str,
    options: &Options,
    observer: &dyn Observer,
) -> (Summary, Result<W>) {
    match options.format {
        Format::Tar => run(source, items, tar::Tar::new(out), name, options, observer),
        Format::Zip => run(source, items, zip::Zip::new(out), name, options, observer),
    }
}

fn run<S: Source, A: Archive>(
    source: &S,
    items: &[Item<S::Node>],
    archive: A,
    name: &str,
    options: &Options,
    observer: &dyn Observer,
) -> (Summary, Result<A::Output>) {
    let mut run = Run {
        source,
        options,
        observer,
        archive,
        output: name,
        links: HashMap::new(),
        entered: Entered::default(),
        summary: Summary::default(),
        failures: Vec::new(),
    };
    let done = run.all(items);
    let summary = run.summary;
    let written = done.and_then(|()| run.archive.finish().map_err(|e| failed(name, &e)));
    (summary, written)
}

/// Names that members of one directory have, as the archive spells them.
type Names = HashSet<Vec<u8>>;

/// Two things that would have one name in the archive.
fn twice() -> DiskError {
    DiskError::refused("archiving")
        .expected("names that are not in the archive yet")
        .found("a second member of that name")
        .hint("archive one of the two by itself")
}

fn failed(output: &str, e: &io::Error) -> DiskError {
    DiskError::io("writing the archive", e).file(output)
}

struct Run<'a, S: Source, A: Archive> {
    source: &'a S,
    options: &'a Options,
    observer: &'a dyn Observer,
    archive: A,
    output: &'a str,
    /// Names in the archive of files that have several.
    links: HashMap<S::Node, Vec<u8>>,
    entered: Entered,
    summary: Summary,
    failures: Vec<u8>,
}

impl<S: Source, A: Archive> Run<'_, S, A> {
    fn all(&mut self, items: &[Item<S::Node>]) -> Result<()> {
        let mut top = Names::new();
        for item in items {
            // What is asked for by itself is taken, wherever it was met before.
            self.entered = Entered::default();
            if !self.options.filter.excludes(&item.path) {
                for (path, why) in &item.doubts {
                    self.doubt(path.as_bytes(), why);
                    self.summary.doubtful += 1;
                }
                self.object(&item.path, &item.name, item.node, None, false, &mut top)?;
            }
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.failures);
        let mut numbered = (2..).map(|n| FAILURES.replace('.', &format!("-{n}.")));
        let free = |name: &String| !top.contains(name.as_bytes());
        let name = Some(FAILURES.to_owned()).filter(free);
        let name = name.or_else(|| numbered.find(free)).unwrap_or_default();
        let written = self.archive.text(&name, &text);
        written.map_err(|e| failed(self.output, &e))
    }

    /// Something could not be read, or not wholly.
    fn fail(&mut self, path: &[u8], error: &DiskError) {
        self.summary.failed += 1;
        self.observer.event(Event::Failed { path, error });
        let line = format!("{}: {error}\n", Name::from_bytes(path));
        self.failures.extend_from_slice(line.as_bytes());
    }

    /// Whether `name`, of which the directory is `given`'s, has not been given yet.
    fn give(&mut self, path: &[u8], name: &[u8], given: &mut Names) -> bool {
        let last = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
        let is_new = given.insert(self.archive.spelled(last).into_owned());
        if !is_new {
            self.fail(path, &twice());
        }
        is_new
    }

    /// Tells what is doubtful about something that was archived.
    fn doubts(&mut self, path: &[u8], node: S::Node, known_as: Option<(S::Node, &Name)>) {
        let doubts = self.source.doubts(node, known_as);
        self.summary.doubtful += u64::from(!doubts.is_empty());
        for why in &doubts {
            self.doubt(path, why);
        }
    }

    fn doubt(&mut self, path: &[u8], why: &str) {
        self.observer.event(Event::Doubtful { path, why });
        let line = format!("{}: doubtful: {why}\n", Name::from_bytes(path));
        self.failures.extend_from_slice(line.as_bytes());
    }

    /// One object with everything in it; `known_as` is the directory that it was found in, and
    /// its name there; `given` has the names of that directory, or of the PATHs.
    fn object(
        &mut self,
        path: &[u8],
        name: &[u8],
        node: S::Node,
        known_as: Option<(S::Node, &Name)>,
        inside: bool,
        given: &mut Names,
    ) -> Result<()> {
        if self.observer.cancelled() {
            return Err(crate::pipeline::cancelled());
        }
        let metadata = match self.source.metadata(node) {
            Ok(metadata) => metadata,
            Err(e) => {
                self.fail(path, &e);
                return Ok(());
            }
        };
        let wanted = self.options.filter.includes(path, inside);
        let is_directory = metadata.kind == NodeKind::Directory;
        let is_member = is_directory && !name.is_empty() || !is_directory && wanted;
        if is_member && !self.give(path, name, given) {
            return Ok(());
        }
        match metadata.kind {
            NodeKind::Directory => {
                if let Err(e) = self.entered.enter(self.source.directory(node), path) {
                    self.fail(path, &e);
                    return Ok(());
                }
                if wanted && is_member {
                    self.directory(path, name, &metadata)?;
                }
                let inside = self.options.filter.is_selective() && wanted;
                let mut below = Names::new();
                // What is in a directory that is no member has names of the level above.
                let given = if is_member { &mut below } else { given };
                match self.entries(path, name, node, inside, given)? {
                    true => self.entered.leave(),
                    false => self.entered.leave_unlisted(),
                }
                self.doubts(path, node, known_as);
                Ok(())
            }
            _ if !wanted => Ok(()),
            NodeKind::File => {
                self.file(path, name, node, &metadata, given)?;
                self.doubts(path, node, known_as);
                Ok(())
            }
            NodeKind::Symlink => {
                self.symlink(path, name, node, &metadata)?;
                self.doubts(path, node, known_as);
                Ok(())
            }
            NodeKind::Special => self.special(path, name, &metadata),
        }
    }

    fn directory(&mut self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<()> {
        let written = self.archive.directory(name, metadata);
        if !self.done(path, written)? {
            return Ok(());
        }
        self.summary.directories += 1;
        self.observer.event(Event::Restored { path, bytes: 0 });
        Ok(())
    }

    /// What is in a directory; whether any of it could be listed.
    fn entries(
        &mut self,
        path: &[u8],
        name: &[u8],
        node: S::Node,
        inside: bool,
        given: &mut Names,
    ) -> Result<bool> {
        let mut entries = Vec::new();
        let mut lost = Vec::new();
        let listed = self.source.read_dir(node, &mut |entry| {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => lost.push(e),
            }
            ControlFlow::Continue(())
        });
        let any = listed.is_ok() || !entries.is_empty();
        for e in lost.into_iter().chain(listed.err()) {
            self.fail(path, &e);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = join(path, entry.name.as_bytes());
            if self.options.filter.excludes(&path) {
                continue;
            }
            let name = match name {
                b"" => entry.name.as_bytes().to_vec(),
                name => join(name, entry.name.as_bytes()),
            };
            let known_as = Some((node, &entry.name));
            self.object(&path, &name, entry.node, known_as, inside, given)?;
        }
        Ok(any)
    }

    fn file(
        &mut self,
        path: &[u8],
        name: &[u8],
        node: S::Node,
        metadata: &Metadata,
        given: &mut Names,
    ) -> Result<()> {
        if metadata.links > 1 {
            if let Some(first) = self.links.get(&node).cloned()
                && let Some(written) = self.archive.hard_link(name, metadata, &first)
            {
                self.done(path, written)?;
                self.summary.files += 1;
                self.observer.event(Event::Restored { path, bytes: 0 });
                return Ok(());
            }
            self.links.insert(node, name.to_vec());
        }
        let disk = match self.source.open(node, None) {
            Ok(disk) => disk,
            Err(e) => {
                self.links.remove(&node);
                self.fail(path, &e);
                return Ok(());
            }
        };
        let mut xattrs = Vec::new();
        let streams = self.streams(path, node, &mut xattrs);
        if self.archive.keeps_xattrs() {
            match self.source.xattrs(node) {
                Ok(all) => xattrs.extend(all),
                Err(e) => self.fail(path, &e),
            }
        }
        self.observer.found(disk.len());
        if self.contents(path, name, &*disk, metadata, &xattrs)? {
            self.summary.files += 1;
            self.summary.bytes += disk.len();
            let bytes = disk.len();
            self.observer.event(Event::Restored { path, bytes });
        } else {
            // Its other names are tried, and named, each on its own.
            self.links.remove(&node);
        }
        for stream in streams {
            let suffix = [b":", stream.as_bytes()].concat();
            let (path, name) = ([path, &suffix].concat(), [name, &suffix].concat());
            if !self.give(&path, &name, given) {
                continue;
            }
            match self.source.open(node, Some(&stream)) {
                Ok(disk) => {
                    self.contents(&path, &name, &*disk, metadata, &[])?;
                }
                Err(e) => self.fail(&path, &e),
            }
        }
        Ok(())
    }

    /// Puts the streams of a file into its attributes, or gives those that become members.
    fn streams(
        &mut self,
        path: &[u8],
        node: S::Node,
        xattrs: &mut Vec<(Name, Vec<u8>)>,
    ) -> Vec<Name> {
        let streams = match self.source.streams(node) {
            Ok(streams) => streams,
            Err(e) => {
                self.fail(path, &e);
                return Vec::new();
            }
        };
        match self.options.streams {
            Streams::Xattr if !self.archive.keeps_xattrs() => {
                self.summary.streams_left += streams.len() as u64;
                Vec::new()
            }
            Streams::None => {
                self.summary.streams_left += streams.len() as u64;
                Vec::new()
            }
            Streams::Files => streams.into_iter().map(|s| s.name).collect(),
            Streams::Xattr => {
                for stream in streams {
                    let read = self.source.open(node, Some(&stream.name)).and_then(|disk| {
                        if disk.len() > LONGEST_XATTR {
                            return Err(DiskError::refused("keeping a stream as an attribute")
                                .expected("at most 64 KiB")
                                .found(format!("{} bytes", disk.len()))
                                .hint("use --streams files"));
                        }
                        let mut bytes = vec![0; disk.len() as usize];
                        disk.read_exact_at(&mut bytes, 0)?;
                        Ok(bytes)
                    });
                    match read {
                        Ok(bytes) => {
                            let name = [b"user.", stream.name.as_bytes()].concat();
                            xattrs.push((Name::from_bytes(name), bytes));
                        }
                        Err(e) => {
                            let path = [path, b":", stream.name.as_bytes()].concat();
                            self.fail(&path, &e);
                        }
                    }
                }
                Vec::new()
            }
        }
    }

    /// Writes a member with the bytes of a disk; whether all could be read.
    fn contents(
        &mut self,
        path: &[u8],
        name: &[u8],
        disk: &dyn Disk,
        metadata: &Metadata,
        xattrs: &[(Name, Vec<u8>)],
    ) -> Result<bool> {
        let mut contents = Contents::new(disk, self.observer, self.archive.keeps_holes());
        let written = self.archive.file(name, metadata, &mut contents, xattrs);
        let error = contents.error();
        if !self.done(path, written)? {
            return Ok(false);
        }
        match error {
            None => Ok(true),
            Some(e) => {
                let hint = "in the archive the file has zeros from there on";
                self.fail(path, &e.hint(hint));
                Ok(false)
            }
        }
    }

    fn symlink(
        &mut self,
        path: &[u8],
        name: &[u8],
        node: S::Node,
        metadata: &Metadata,
    ) -> Result<()> {
        let link = match self.source.read_link(node) {
            Ok(link) => link,
            Err(e) => {
                self.fail(path, &e);
                return Ok(());
            }
        };
        let written = self.archive.symlink(name, metadata, link.target.as_bytes());
        if !self.done(path, written)? {
            return Ok(());
        }
        self.summary.symlinks += 1;
        self.observer.event(Event::Restored { path, bytes: 0 });
        Ok(())
    }

    /// A pipe or a device node, where the format has such members. A socket is none without the
    /// program that listens to it.
    fn special(&mut self, path: &[u8], name: &[u8], metadata: &Metadata) -> Result<()> {
        let kind = metadata.special();
        if kind == Some(SpecialKind::Socket) {
            let why = SOCKET;
            self.observer.event(Event::Left { path, why });
            return Ok(());
        }
        let written = kind.and_then(|kind| self.archive.special(name, metadata, kind));
        let Some(written) = written else {
            let e = DiskError::unsupported("archiving").found("a device node, socket or pipe");
            self.fail(path, &e);
            return Ok(());
        };
        if self.done(path, written)? {
            self.summary.files += 1;
            self.observer.event(Event::Restored { path, bytes: 0 });
        }
        Ok(())
    }

    /// What became of a member: whether it is there, and under which name.
    fn done(&mut self, path: &[u8], written: io::Result<Given>) -> Result<bool> {
        match written {
            Ok(Given::AsIs) => Ok(true),
            Ok(Given::Renamed(name)) => {
                self.summary.renamed += 1;
                self.observer.event(Event::Renamed { path, name: &name });
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.fail(path, &twice());
                Ok(false)
            }
            // The reader stopped because it was asked to.
            Err(_) if self.observer.cancelled() => Err(crate::pipeline::cancelled()),
            Err(e) => Err(failed(self.output, &e)),
        }
    }
}

/// The name that a member got.
enum Given {
    AsIs,
    Renamed(Vec<u8>),
}

/// A format of archives. An error is the output's.
trait Archive {
    /// What the output is.
    type Output;

    /// Whether holes are left out; they are zeros otherwise.
    fn keeps_holes(&self) -> bool;

    /// Whether extended attributes are kept.
    fn keeps_xattrs(&self) -> bool;

    /// A name as the format keeps it: two that it spells alike are one.
    fn spelled<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(name)
    }

    fn directory(&mut self, name: &[u8], metadata: &Metadata) -> io::Result<Given>;

    fn file(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        contents: &mut Contents<'_>,
        xattrs: &[(Name, Vec<u8>)],
    ) -> io::Result<Given>;

    fn symlink(&mut self, name: &[u8], metadata: &Metadata, target: &[u8]) -> io::Result<Given>;

    /// A pipe or a device node; `None` if the format has no such thing, or what it is is not wholly
    /// known, and nothing was written.
    fn special(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        kind: SpecialKind,
    ) -> Option<io::Result<Given>>;

    /// A further name of a file that is in the archive as `first`; `None` if the format has
    /// no such thing, and nothing was written.
    fn hard_link(
        &mut self,
        name: &[u8],
        metadata: &Metadata,
        first: &[u8],
    ) -> Option<io::Result<Given>>;

    /// A member that is no file of the guest.
    fn text(&mut self, name: &str, text: &[u8]) -> io::Result<()>;

    fn finish(self) -> io::Result<Self::Output>;
}

/// The mode that a member gets; `mode` where the guest has none.
fn mode(metadata: &Metadata, mode: u32) -> u32 {
    let read_only = metadata.attributes.unwrap_or(0) & attributes::READONLY != 0;
    match metadata.mode {
        Some(mode) => mode & 0o7777,
        // Of a directory Windows' bit does not mean that nothing can be written there.
        None if read_only && metadata.kind == NodeKind::File => mode & !0o222,
        None => mode,
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    if out.last() != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(name);
    out
}
