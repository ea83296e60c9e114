//! Replication: an older copy of a disk is brought up to date by what changed, so that a crash
//! leaves the old disk or the new one, never a mix.
//!
//! What changed goes into a journal beside the target first ([`journal`]), is proven there to
//! make exactly the source's contents, and only then is written ([`apply`]). The journal has the
//! form of the stream between two hosts ([`frames`]): what a sender writes is what a receiver
//! keeps until it has all of it, and goes on with when the connection broke.

mod apply;
mod first;
mod frames;
mod have;
mod journal;
mod state;
mod survey;
mod unit;

pub use have::Have;
pub use journal::Head;
pub use state::{Form, Part, State};

use crate::{
    backup::{
        ChainLink,
        units::{Keep, Units},
    },
    digest::{Digest, DigestKind, Hash, UNIT, UnitFold, sha256},
    pipeline::{self, CopyOptions, Sparse, cancelled},
    place::check_not_source,
    progress::Progress,
    target::Discard,
    to_image::ImageFormat,
};
use disk_io::{Disk, DiskError, Result, output::write_error};
use frames::{Frames, Kind, MAGIC, encode};
use journal::{End, Journal, JournalDisk};
use state::Places;
use std::{
    fs::{self, File},
    io::{Read, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};
use survey::{Survey, full};
use unit::{Unit, ZERO};

const VERSION: u32 = 1;

/// A disk that is replicated.
#[derive(Clone, Debug)]
pub struct From {
    /// Its contents.
    pub disk: Arc<dyn Disk>,
    /// As the user named it.
    pub name: String,
    /// Files that it consists of: none of them may be the target.
    pub files: Vec<PathBuf>,
    /// Its chain, where it can be known again.
    pub chain: Vec<ChainLink>,
    /// All that can differ from what the target has, where that is known.
    pub candidates: Option<Vec<Range<u64>>>,
}

/// The same for every replication.
pub struct How<'a> {
    /// Threads; 0 means one for every core.
    pub workers: usize,
    /// Content id that a VMDK gets whose contents change.
    pub cid: u32,
    /// What a target that there is not yet becomes.
    pub format: ImageFormat,
    /// Whether that replaces files which bear its extents' names: a first replication that was cut
    /// off may leave some.
    pub force: bool,
    /// When this is: RFC 3339.
    pub now: String,
    /// Is told how far it is.
    pub progress: &'a dyn Progress,
}

/// What a target is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Absent,
    /// There is one of which nothing is known.
    Foreign,
    /// It is what the last replication made of it.
    Kept,
    /// It was written to since: the file, and how that is seen.
    Ran(PathBuf, String),
}

/// What became of a replication that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// There was none.
    Nothing,
    /// The target is complete now.
    Ended,
    /// A first one, of which nothing has its name: the target is made anew.
    Anew,
}

/// What a replication did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Length of the disk in bytes.
    pub size: u64,
    /// Digest of what the target has now.
    pub digest: String,
    /// Units (MiB) that differed.
    pub units: u64,
    /// Bytes that were written into the target.
    pub changed: u64,
    /// Bytes that were sent, or written into the journal.
    pub sent: u64,
    /// Bytes of the source that were read, holes counted where all of it was.
    pub read: u64,
    /// Units that had come before the connection broke.
    pub kept: u64,
}

/// A target, and what is known of it. Nobody else works on it meanwhile.
#[derive(Debug)]
pub struct Replica {
    places: Places,
    _lock: File,
    state: Option<State>,
    /// What a first replication noted that was cut off after it.
    begun: Option<State>,
}

impl Replica {
    /// Of the file `target`, which need not be there.
    ///
    /// # Errors
    /// `Refused` while somebody else is at it; `Corrupt` if what is known of it is not.
    pub fn open(target: &Path) -> Result<Self> {
        let places = Places::of(target)?;
        places.check()?;
        let lock = places.take_lock()?;
        let mut state = State::load(&places)?;
        let begun = state.take_if(|s| s.making);
        // What is noted is of a target that is gone: it is made anew.
        if !places.target().exists() && !places.applying().exists() {
            state = None;
        }
        Ok(Self {
            state,
            begun,
            places,
            _lock: lock,
        })
    }

    /// What was noted when it was brought up to date last.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// What it is to us now.
    pub fn standing(&self) -> Standing {
        let there = self.places.target().symlink_metadata().is_ok();
        match &self.state {
            None if there => Standing::Foreign,
            Some(state) if there => match state.touched(&self.places) {
                Some((file, how)) => Standing::Ran(file, how),
                // Hashes that are not those of the target would hide what it has not.
                None if !self.is_known(state) => Standing::Foreign,
                None => Standing::Kept,
            },
            _ => Standing::Absent,
        }
    }

    /// Whether the hashes beside it are those of what it was brought to.
    fn is_known(&self, state: &State) -> bool {
        let units = Units::open(&self.places.units(), state.size);
        let digest = units.and_then(|u| u.digest(state.size));
        digest.is_ok_and(|d| d.hex() == state.digest)
    }

    /// Ends what was cut off while the target was made or written to.
    ///
    /// # Errors
    /// `Io`; `Corrupt` if the target was lost meanwhile.
    pub fn recover(&mut self, how: &How<'_>) -> Result<Recovered> {
        let first = self.end_first(how)?;
        Ok(match self.end_journal(how)? {
            true => Recovered::Ended,
            false => first,
        })
    }

    /// Ends what a complete journal says; whether there was something to end.
    fn end_journal(&mut self, how: &How<'_>) -> Result<bool> {
        let Some(journal) = Journal::open(&self.places.journal())? else {
            return self.named();
        };
        let Some((head, end)) = journal.is_complete() else {
            return self.named();
        };
        let (head, end) = (head.clone(), end.clone());
        let done = self.state.as_ref().is_some_and(|s| s.digest == end.digest);
        match (&self.state, &head.base) {
            // All was done but for this.
            (Some(_), _) if done && self.places.target().exists() => {
                journal.remove()?;
                return Ok(false);
            }
            (Some(_), _) if done && self.places.applying().exists() => {
                apply::give_name(&self.places)?;
                journal.remove()?;
            }
            (Some(state), Some(base)) if &state.digest == base => {
                // Its end came to the disk and something before it did not: nothing was done yet.
                if self.places.target().exists() && !self.proves(&journal, &end)? {
                    return self.named();
                }
                self.not_another(state, &end, how)?;
                self.write(journal, &head, &end, how)?;
            }
            (None, None) if self.places.target().exists() => return Ok(false),
            (None, None) => self.create(journal, &head, &end, how)?,
            _ => return Err(self.unfit(&self.places.journal(), &head)),
        }
        Ok(true)
    }

    /// Digest of the target's contents as they are now: reads all of it.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn digest(&self, how: &How<'_>) -> Result<String> {
        match &self.state {
            Some(state) => self.digest_of(state, how),
            None => Ok(String::new()),
        }
    }

    fn digest_of(&self, state: &State, how: &How<'_>) -> Result<String> {
        let options = CopyOptions {
            workers: how.workers,
            digest: DigestKind::Vmdkit,
            sparse: Sparse::Always,
        };
        let disk = state.disk(&self.places)?;
        let digest = pipeline::copy(&disk, &Discard, options, how.progress)?.digest;
        Ok(digest.map(|d| d.hex()).unwrap_or_default())
    }

    /// A journal is written only into the disk that it is made for, whole or in part.
    fn not_another(&self, state: &State, end: &End, how: &How<'_>) -> Result<()> {
        let target = self.places.target();
        let fail =
            || DiskError::refused("ending a replication that was cut off").file(target.display());
        if !target.exists() {
            return Ok(());
        }
        let away = self.places.applying();
        if away.exists() {
            return Err(fail()
                .expected(format!("nothing: the disk is {} now", away.display()))
                .found("a file that somebody put there")
                .hint("remove the one that is not wanted"));
        }
        if state.touched(&self.places).is_none() {
            return Ok(());
        }
        // A clone took its name and was not noted yet; or somebody wrote to it.
        match self.digest(how)? {
            found if found == end.digest => Ok(()),
            found => Err(fail()
                .expected(format!("the contents {} or {}", state.digest, end.digest))
                .found(found)
                .hint(format!(
                    "it was written to; without {} it is compared as a whole, with --force",
                    self.places.journal().display()
                ))),
        }
    }

    /// A target that lost its name without a journal is not for us to judge.
    fn named(&self) -> Result<bool> {
        let away = self.places.applying();
        match away.exists() && !self.places.target().exists() {
            false => Ok(false),
            true => Err(DiskError::corrupt("ending a replication that was cut off")
                .file(away.display())
                .expected(format!("{} beside it", self.places.journal().display()))
                .found("none")
                .hint("the target may be half written: make it anew")),
        }
    }

    fn unfit(&self, journal: &Path, head: &Head) -> DiskError {
        DiskError::corrupt("replicating")
            .code("replica-unfit")
            .file(self.places.target().display())
            .expected(match &head.base {
                Some(base) => format!("the contents {base}, which the changes are made for"),
                None => "no target: all of the disk was sent".to_owned(),
            })
            .found(match &self.state {
                Some(state) => state.digest.clone(),
                None => "none that is known".to_owned(),
            })
            .hint(format!(
                "ask the target again with --have; {} can go",
                journal.display()
            ))
    }

    /// Takes a target into care of which nothing is known, or that was written to since: reads
    /// all of it.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn adopt(&mut self, form: Form, parts: Vec<Part>, how: &How<'_>) -> Result<()> {
        let size = parts.iter().map(|p| p.len).sum();
        let mut state = State::new(size, String::new(), form, parts);
        let disk = state.disk(&self.places)?;
        let journal = self.places.journal();
        if let Some(journal) = Journal::open(&journal)? {
            journal.remove()?;
        }
        let keep = self.keep(how, disk.len())?;
        let options = CopyOptions {
            workers: how.workers,
            digest: DigestKind::Vmdkit,
            sparse: Sparse::Always,
        };
        let digest = computed(pipeline::copy(&disk, &Discard, options, &keep)?.digest)?;
        keep.finish()?;
        state.digest = digest.hex();
        state.look(&self.places)?;
        state.save(&self.places)?;
        self.state = Some(state);
        Ok(())
    }

    /// Takes the hashes of units while they are computed, instead of those that there are.
    fn keep<'a>(&self, how: &How<'a>, len: u64) -> Result<Keep<'a>> {
        let path = self.places.units();
        // What it says is not true any more.
        for old in [&self.places.state(), &path] {
            match fs::remove_file(old) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(write_error("removing", old, &e));
                }
                _ => {}
            }
        }
        Keep::create(path, len, how.progress)
    }

    fn known(&self) -> Result<Option<Units>> {
        match &self.state {
            Some(state) => Units::open(&self.places.units(), state.size).map(Some),
            None => Ok(None),
        }
    }

    /// Makes the target a copy of `from`; there is none yet.
    ///
    /// # Errors
    /// As [`to_image`].
    pub fn make(&mut self, from: &From, how: &How<'_>) -> Result<Report> {
        self.not_source(from)?;
        if let Some(journal) = Journal::open(&self.places.journal())? {
            journal.remove()?;
        }
        let head = head(from, None, how);
        let digest = self.image(&from.disk, &from.files, &head, how)?;
        let size = from.disk.len();
        Ok(Report {
            size,
            digest,
            units: size.div_ceil(UNIT),
            changed: size,
            sent: 0,
            read: size,
            kept: 0,
        })
    }

    fn note(&mut self, mut state: State, head: &Head) -> Result<()> {
        state.is_of(head);
        state.look(&self.places)?;
        state.save(&self.places)?;
        self.state = Some(state);
        Ok(())
    }

    fn not_source(&self, from: &From) -> Result<()> {
        let mut targets = vec![self.places.target().to_path_buf()];
        let parts = self.state.iter().flat_map(|s| &s.parts);
        targets.extend(parts.map(|p| self.places.target().with_file_name(&p.file)));
        for target in targets {
            check_not_source(&target, from.files.iter().map(PathBuf::as_path))?;
        }
        Ok(())
    }

    /// Brings the target up to date with `from`.
    ///
    /// # Errors
    /// `Refused` for a disk of another length. The target is as it was unless the journal was
    /// complete; then [`Replica::recover`] ends it.
    pub fn update(&mut self, from: &From, how: &How<'_>) -> Result<Report> {
        self.not_source(from)?;
        let (Some(state), Some(known)) = (self.state.clone(), self.known()?) else {
            return self.make(from, how);
        };
        same_size(state.size, from.disk.len(), self.places.target())?;
        let old = state.disk(&self.places)?;
        let head = head(from, Some(state.digest.clone()), how);
        let path = self.places.journal();
        // What another source sent is not gone on with.
        if let Some(old) = Journal::open(&path)? {
            old.remove()?;
        }
        let mut journal = Journal::begin(&path, &head)?;
        let survey = Survey {
            disk: &from.disk,
            candidates: from.candidates.as_deref(),
            known: &|unit| Ok(known.get(unit)?.unwrap_or(ZERO)),
            old: Some(&old),
            workers: how.workers,
            progress: how.progress,
        };
        let found = survey.run(&mut |unit| journal.put(Kind::Unit, &unit.encode()));
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                let _ = journal.remove();
                return Err(e);
            }
        };
        let end = End {
            digest: found.digest.hex(),
            units: found.units,
        };
        journal.complete(end.clone())?;
        let sent = journal.len();
        self.write(journal, &head, &end, how)?;
        Ok(Report {
            size: state.size,
            digest: end.digest,
            units: found.units,
            changed: found.changed,
            sent,
            read: found.read,
            kept: 0,
        })
    }

    /// Does what a complete journal says.
    fn write(&mut self, journal: Journal, head: &Head, end: &End, how: &How<'_>) -> Result<()> {
        let Some(mut state) = self.state.clone() else {
            return Err(self.unfit(&self.places.journal(), head));
        };
        // Nothing to write leaves the target, and its content id, alone.
        if journal.hashes().next().is_some() || self.places.applying().exists() {
            let work = (how.workers, how.progress);
            apply::apply(&self.places, &state, &journal, how.cid, work)?;
        }
        state.digest.clone_from(&end.digest);
        self.note(state, head)?;
        journal.remove()
    }

    /// Makes a target out of a journal of all of a disk.
    fn create(&mut self, journal: Journal, head: &Head, end: &End, how: &How<'_>) -> Result<()> {
        let journal = Arc::new(journal);
        let disk: Arc<dyn Disk> = Arc::new(JournalDisk::new(journal.clone(), head.size));
        let digest = self.image(&disk, &[], head, how)?;
        drop(disk);
        if digest != end.digest {
            return Err(DiskError::corrupt("making a replica")
                .file(self.places.target().display())
                .expected(format!("the contents {}", end.digest))
                .found(digest));
        }
        match Arc::try_unwrap(journal) {
            Ok(journal) => journal.remove(),
            Err(_) => Ok(()),
        }
    }

    /// Tells what the target has, and what it received already.
    ///
    /// # Errors
    /// Those of writing.
    pub fn tell(&self, out: &mut dyn Write) -> Result<()> {
        let journal = Journal::open(&self.places.journal())?;
        let base = self.state.as_ref().map(|s| s.digest.clone());
        let head = journal.as_ref().and_then(Journal::head);
        let fits = head.is_some_and(|h| h.base == base);
        let size = match &self.state {
            Some(state) => state.size,
            None => head.filter(|_| fits).map_or(0, |h| h.size),
        };
        let chain = self.state.as_ref().map(|s| s.chain.clone());
        let known = self.known()?;
        let hashes = |unit| match &known {
            Some(known) => Ok(known.get(unit)?.unwrap_or(ZERO)),
            None => Ok(ZERO),
        };
        let pending = journal.iter().filter(|_| fits).flat_map(Journal::hashes);
        have::write(
            out,
            (size, base, chain.unwrap_or_default()),
            (known.as_ref().map_or(0, Units::count), &hashes),
            pending,
        )
    }

    /// Takes what [`send`] wrote, and brings the target up to date with it.
    ///
    /// # Errors
    /// `Corrupt` if the stream is damaged or made for another state of the target; if it breaks
    /// off what came is kept, and the target is as it was.
    pub fn receive(&mut self, from: impl Read, name: &str, how: &How<'_>) -> Result<Report> {
        let mut frames = Frames::new(from, name)?;
        let bad = |found: &str| {
            DiskError::corrupt("receiving what changed")
                .file(name)
                .expected("what vmdkit replicate --send writes")
                .found(found)
                .hint("what came is kept: ask with --have, and send again")
        };
        let first = frames.next()?.filter(|f| f.kind == Kind::Head);
        let first = first.ok_or_else(|| bad("no beginning"))?;
        let head: Head =
            serde_json::from_slice(&first.body).map_err(|e| bad(&format!("no beginning: {e}")))?;
        let base = self.state.as_ref().map(|s| s.digest.clone());
        if head.version != VERSION || head.base != base {
            return Err(self.unfit(&self.places.journal(), &head));
        }
        if let Some(state) = &self.state {
            same_size(state.size, head.size, self.places.target())?;
        }
        let mut journal = Journal::begin(&self.places.journal(), &head)?;
        let kept = journal.hashes().count() as u64;
        let mut report = Report {
            size: head.size,
            digest: String::new(),
            units: 0,
            changed: 0,
            sent: 0,
            read: 0,
            kept,
        };
        let end: End = loop {
            if how.progress.cancelled() {
                return Err(cancelled());
            }
            let frame = frames
                .next()?
                .ok_or_else(|| bad("the end, before all came"))?;
            match frame.kind {
                Kind::Unit => {
                    let unit = Unit::decode(&frame.body, head.size);
                    let unit = unit.ok_or_else(|| bad("a unit that the disk has not"))?;
                    let bytes = unit.whole(head.size)?;
                    let bytes = bytes.ok_or_else(|| bad("some blocks of a unit"))?;
                    if unit.hash != ZERO && sha256(&bytes) != unit.hash {
                        return Err(bad("another SHA-256 than it is said to have"));
                    }
                    report.changed += bytes.len() as u64;
                    journal.put(Kind::Unit, &frame.body)?;
                    how.progress.advance(bytes.len() as u64);
                }
                Kind::Drop => journal.put(Kind::Drop, &frame.body)?,
                Kind::End => {
                    break serde_json::from_slice(&frame.body)
                        .map_err(|e| bad(&format!("no end: {e}")))?;
                }
                _ => return Err(bad("a frame that does not belong there")),
            }
        };
        report.sent = frames.position();
        report.units = journal.hashes().count() as u64;
        report.digest.clone_from(&end.digest);
        let digest = self.would_be(&journal, head.size)?;
        if digest != end.digest {
            let _ = journal.remove();
            return Err(DiskError::corrupt("proving what came")
                .code("replica-unfit")
                .file(self.places.target().display())
                .expected(format!("changes that make the contents {}", end.digest))
                .found(format!("such that would make {digest}"))
                .hint("the target is as it was; ask it again with --have"));
        }
        journal.complete(end.clone())?;
        match self.state {
            Some(_) => self.write(journal, &head, &end, how)?,
            None => self.create(journal, &head, &end, how)?,
        }
        Ok(report)
    }

    /// Whether the target with the journal applied is what the journal says.
    fn proves(&self, journal: &Journal, end: &End) -> Result<bool> {
        let size = self.state.as_ref().map_or(0, |s| s.size);
        Ok(self.would_be(journal, size)? == end.digest)
    }

    /// Digest of the target with the journal applied.
    fn would_be(&self, journal: &Journal, size: u64) -> Result<String> {
        let known = self.known()?;
        let mut fold = UnitFold::new(size);
        for unit in 0..size.div_ceil(UNIT) {
            let hash: Hash = match (journal.hash_of(unit), &known) {
                (Some(hash), _) => hash,
                (None, Some(known)) => known.get(unit)?.unwrap_or(ZERO),
                (None, None) => ZERO,
            };
            fold.put(unit, full(unit, hash, size));
        }
        Ok(fold.finish()?.hex())
    }
}

fn computed(digest: Option<Digest>) -> Result<Digest> {
    digest.ok_or_else(|| DiskError::unsupported("computing a digest").found("none"))
}

fn head(from: &From, base: Option<String>, how: &How<'_>) -> Head {
    Head {
        version: VERSION,
        size: from.disk.len(),
        base,
        source: from.name.clone(),
        created: how.now.clone(),
        chain: from.chain.clone(),
    }
}

fn same_size(target: u64, source: u64, path: &Path) -> Result<()> {
    if target == source {
        return Ok(());
    }
    Err(DiskError::refused("replicating")
        .file(path.display())
        .expected(format!("a disk of {source} bytes, as the source is"))
        .found(format!("{target} bytes"))
        .hint("a disk that was resized needs a new copy"))
}

/// Writes what `from` has and a target has not.
///
/// # Errors
/// Those of reading and writing; `Refused` for a target of another length.
pub fn send(from: &From, have: &Have, out: &mut dyn Write, how: &How<'_>) -> Result<Report> {
    let size = from.disk.len();
    if have.digest.is_some() {
        same_size(have.size, size, Path::new("the target"))?;
    }
    let fail = |e: std::io::Error| DiskError::io("sending what changed", &e);
    let body = serde_json::to_vec(&head(from, have.digest.clone(), how));
    let mut sent = 0u64;
    let mut put = |bytes: &[u8]| {
        sent += bytes.len() as u64;
        out.write_all(bytes).map_err(fail)
    };
    put(MAGIC)?;
    put(&encode(Kind::Head, &body.map_err(|e| fail(e.into()))?))?;
    // What it received and does not need, or not so, is told below.
    let mut pending = have.pending.clone();
    let mut kept = 0;
    let survey = Survey {
        disk: &from.disk,
        candidates: from.candidates.as_deref(),
        known: &|unit| have.hash(unit),
        old: None,
        workers: how.workers,
        progress: how.progress,
    };
    let found = survey.run(&mut |unit| {
        if pending.remove(&unit.index) == Some(unit.hash) {
            kept += 1;
            return Ok(());
        }
        put(&encode(Kind::Unit, &unit.encode()))
    })?;
    for unit in pending.keys() {
        put(&encode(Kind::Drop, &unit.to_le_bytes()))?;
    }
    let end = End {
        digest: found.digest.hex(),
        units: found.units,
    };
    let body = serde_json::to_vec(&end).map_err(|e| fail(e.into()))?;
    put(&encode(Kind::End, &body))?;
    out.flush().map_err(fail)?;
    Ok(Report {
        size,
        digest: end.digest,
        units: found.units,
        changed: found.changed,
        sent,
        read: found.read,
        kept,
    })
}
