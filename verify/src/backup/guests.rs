//! The guests: the structures of their volumes, and every file read to its end.

use super::{
    MOST,
    earlier::Earlier,
    effort::Effort,
    second::{Reader, Second},
};
use crate::{
    check::Step,
    volumes::{self, VolumeFinding},
};
use disk_io::{Disk, DiskError, ErrorKind, Result, Severity};
use guest_fs::{Name, NodeKind};
use proxy::{DOUBTFUL, Source, Tree, TreeOptions, Volume, find::Below};
use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

/// What is read of a guest file at a time.
const CHUNK: u64 = 4 << 20;

/// What was read of the guests.
#[derive(Clone, Debug, Default)]
pub struct Guests {
    /// Volumes that were read.
    pub volumes: u64,
    /// Files that were read to their end.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What could not be read, by path.
    pub failed: Vec<(Vec<u8>, DiskError)>,
    /// How many more could not be read.
    pub dropped: u64,
    /// What is wrong with the volumes' own structures.
    pub structure: Vec<VolumeFinding>,
    /// How many more findings there are.
    pub more: u64,
    /// What should be known, one sentence each: volumes that were not closed, ….
    pub remarks: Vec<String>,
    /// Files that were not part of the sample.
    pub left: u64,
    /// Whether the time was up before all were read.
    pub cut: bool,
    /// What a second reader says, if it was asked.
    pub second: Option<Second>,
}

/// Holds the structures of every volume against each other, where its file system can.
pub(super) fn check_volumes(
    name: &str,
    source: &Arc<Source>,
    several: bool,
    guests: &mut Guests,
) -> Result<()> {
    let called = |path: &str| match several {
        true => format!("{name} {path}"),
        false => path.to_owned(),
    };
    let (found, more) = volumes::check(source, MOST, &called)?;
    guests.more = guests.more.saturating_add(more);
    guests.structure.extend(found);
    Ok(())
}

/// The guests' files, as they are read.
struct Files<'a> {
    name: &'a str,
    /// Whether paths need it before them.
    several: bool,
    tree: &'a Tree,
    effort: Effort,
    guests: &'a mut Guests,
    /// Volumes that cannot be entered, by path: they were named.
    closed: Vec<Vec<u8>>,
    /// Volumes that were not closed, by path.
    unsettled: Vec<Vec<u8>>,
    /// The second readers by volume, each with the volume's path.
    readers: HashMap<u16, (Name, Reader)>,
    buf: Vec<u8>,
    done: u64,
}

/// Reads every file and named stream of every volume.
pub(super) fn read_guests(
    name: &str,
    (source, several): (&Arc<Source>, bool),
    (effort, mut earlier): (Effort, Option<&mut Earlier>),
    step: &mut dyn FnMut(Step<'_>),
    guests: &mut Guests,
) -> Result<()> {
    let tree = Tree::new(source.clone(), TreeOptions::default())?;
    let called = format!("files of {name}");
    let mut files = Files {
        name,
        several,
        tree: &tree,
        effort,
        guests,
        closed: Vec::new(),
        unsettled: Vec::new(),
        readers: HashMap::new(),
        buf: vec![0; CHUNK as usize],
        done: 0,
    };
    files.volumes();
    // The order is that of the file systems, which do not change.
    let skip = earlier.as_ref().map_or(0, |e| e.guests_of(name));
    let (mut good, mut reached) = (Some(0u64), skip);
    let mut stop: Option<DiskError> = None;
    let _ = tree.find(tree.root(), b"", &|_, _| true, &mut |below| {
        if effort.is_over() {
            files.guests.cut = true;
            return ControlFlow::Break(());
        }
        let bad = files.guests.bad();
        if good.is_some_and(|n| n < skip) {
            good = good.map(|n| n.saturating_add(1));
            return ControlFlow::Continue(());
        }
        if let Err(e) = files.one(below) {
            stop = Some(e);
            return ControlFlow::Break(());
        }
        // From the first that is bad on they are read again.
        match files.guests.bad() == bad {
            true => good = good.map(|n| n.saturating_add(1)),
            false => good = None,
        }
        reached = good.unwrap_or(reached);
        if let Some(earlier) = &mut earlier
            && let Err(e) = earlier.guests_are_good(name, reached)
        {
            stop = Some(e);
            return ControlFlow::Break(());
        }
        step(Step {
            file: &called,
            done: files.done,
            of: 0,
        });
        ControlFlow::Continue(())
    });
    match stop {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

impl Files<'_> {
    fn volumes(&mut self) {
        for volume in self.tree.volumes() {
            let path = volume.path.to_string();
            if volume.without_files {
                continue;
            }
            if volume.why_not.is_some() {
                self.closed.push(path.clone().into_bytes());
            }
            let path = match self.several {
                true => format!("{} {path}", self.name),
                false => path,
            };
            match (&volume.why_not, &volume.info) {
                (Some(e), _) => self.guests.fail(path.into_bytes(), e.clone()),
                (None, Some(info)) => {
                    self.guests.volumes += 1;
                    if info.unsettled {
                        self.unsettled.push(volume.path.as_bytes().to_vec());
                    }
                    if info.dirty == Some(true) {
                        self.guests.remarks.push(format!(
                            "{path}: was not closed: it is as a crash left it, and its own \
                             journal is replayed when the guest starts"
                        ));
                    }
                    let told = info.remarks.iter();
                    self.guests
                        .remarks
                        .extend(told.map(|r| format!("{path}: {r}")));
                }
                _ => {}
            }
        }
    }

    /// Only a failing device ends it.
    fn one(&mut self, below: Result<Below>) -> Result<()> {
        let below = match below {
            Ok(below) => below,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                let file = e.file_name().unwrap_or_default().as_bytes().to_vec();
                // A volume that cannot be entered was named above.
                if !self.closed.contains(&file) {
                    // A name may come onto the disk before its file does.
                    let within = |dir: &Vec<u8>| {
                        let below = file.strip_prefix(dir.as_slice());
                        below.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
                    };
                    let e = match self.unsettled.iter().any(within) {
                        true => e.code(DOUBTFUL),
                        false => e,
                    };
                    self.guests.fail(file, e);
                }
                return Ok(());
            }
        };
        if below.metadata.kind != NodeKind::File {
            return Ok(());
        }
        if !self.effort.takes(&below.path) {
            self.guests.left += 1;
            return Ok(());
        }
        let mut streams = vec![None];
        match self.tree.streams(below.node) {
            Ok(named) => streams.extend(named.into_iter().map(|s| Some(s.name))),
            Err(e) => self.guests.fail(below.path.clone(), e),
        }
        for stream in streams {
            let file = self.tree.open(below.node, stream.as_ref());
            let read = file.and_then(|file| Ok((read_all(&*file, &mut self.buf)?, file)));
            match read {
                Ok((bytes, file)) => {
                    self.guests.bytes += bytes;
                    self.done += bytes;
                    if stream.is_none() {
                        self.guests.files += 1;
                        self.ask_second(&below, &file)?;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                Err(e) => {
                    let mut path = below.path.clone();
                    if self.several {
                        path.splice(..0, format!("{} ", self.name).into_bytes());
                    }
                    if let Some(stream) = &stream {
                        path.push(b':');
                        path.extend_from_slice(stream.as_bytes());
                    }
                    self.guests.fail(path, e);
                }
            }
        }
        Ok(())
    }

    fn ask_second(&mut self, below: &Below, file: &Arc<dyn Disk>) -> Result<()> {
        let Some(second) = &mut self.guests.second else {
            return Ok(());
        };
        let (Some(number), Some((fs, id))) = (
            self.tree.number_of(below.node),
            self.tree.guest(below.node)?,
        ) else {
            return Ok(());
        };
        let (name, tree, damaged) = (self.name, self.tree, &self.guests.structure);
        let (door, reader) = self.readers.entry(number).or_insert_with(|| {
            let mut doors = tree.doors();
            match doors.find(|(n, _, _)| *n == number) {
                Some((_, volume, door)) => {
                    let door = tree.path_of(door);
                    let reader = second_reader(volume, (name, &door), damaged);
                    (door, reader)
                }
                None => (Name::default(), Reader::None("of other file systems")),
            }
        });
        // What comes behind the volume in the path.
        let path = below.path.strip_prefix(door.as_bytes());
        let path = path.unwrap_or_default();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        reader.compare(fs, (id, &below.metadata), (&below.path, path), file, second)
    }
}

/// `disk` and `door` name the volume, as its findings do.
fn second_reader(
    volume: &Arc<Volume>,
    (disk, door): (&str, &Name),
    findings: &[VolumeFinding],
) -> Reader {
    let kind = volume.recognised().as_ref().ok().and_then(Option::as_ref);
    let called = [door.to_string(), format!("{disk} {door}")];
    let sound = !findings
        .iter()
        .any(|f| f.finding.severity == Severity::Damage && called.contains(&f.volume));
    Reader::open(kind.map(|k| k.kind), volume.disk(), sound)
}

/// Reads what is stored of a file; holes are known to be zeros.
fn read_all(file: &dyn Disk, buf: &mut [u8]) -> Result<u64> {
    let len = file.len();
    let mut at = 0;
    while at < len {
        let run = file.run_at(at)?;
        let end = at.saturating_add(run.len.max(1)).min(len);
        if run.kind.reads_as_zero() {
            at = end;
            continue;
        }
        while at < end {
            let n = usize::try_from((end - at).min(buf.len() as u64)).unwrap_or(0);
            file.read_exact_at(&mut buf[..n], at)?;
            at += n as u64;
        }
    }
    Ok(len)
}

impl Guests {
    /// How much is not as it should be.
    fn bad(&self) -> u64 {
        let differ = self.second.as_ref().map_or(0, |s| s.differ.len());
        self.dropped
            .saturating_add(self.failed.len() as u64)
            .saturating_add(differ as u64)
    }

    fn fail(&mut self, path: Vec<u8>, e: DiskError) {
        if self.failed.len() < MOST {
            self.failed.push((path, e));
        } else {
            self.dropped += 1;
        }
    }
}
