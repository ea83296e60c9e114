//! What is done to every writer, and what must hold then.

use super::sweep;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::{
    crash_fs::{
        CrashFs, Fault,
        op::Entry,
        states::{Survived, after},
        tree::{Kind, Tree},
    },
    tools,
};

/// Everything that has a name.
pub(super) type Files = BTreeMap<String, Kind>;

/// Says what is wrong with what is under the final names.
type Right<'a> = Box<dyn Fn(&Path) -> Result<(), String> + 'a>;

/// A writer and its small case.
pub(super) struct Writer<'a> {
    pub(super) name: &'a str,
    /// What it is called with; `@` stands for the directory that is written into, and the file
    /// behind a last `<` is its standard input.
    pub(super) args: Vec<String>,
    /// What ends or repeats it after it was cut off; the second where the first is refused.
    pub(super) again: Vec<Vec<String>>,
    /// Whether it takes the place of what has its name.
    pub(super) replaces: bool,
    /// Whether it promises to go on, so that what is left behind is wanted.
    pub(super) goes_on: bool,
    /// What decides about what lies beside it: the disk under its name, a directory. Where it is
    /// not there nothing else counts. None: every file for itself.
    pub(super) main: Option<&'a str>,
    /// Names beside the result that belong to nobody's disk.
    pub(super) aside: fn(&str) -> bool,
    /// What must hold besides of all that has a name.
    pub(super) also: fn(&Files, &Files, &Files) -> Result<(), String>,
    /// Reads what was written and compares it with the source.
    pub(super) right: Right<'a>,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    operations: usize,
    faults: usize,
    states: usize,
    again: usize,
}

/// Nothing must hold besides.
pub(super) fn no_more(_: &Files, _: &Files, _: &Files) -> Result<(), String> {
    Ok(())
}

/// Temporary names, checkpoints and locks.
pub(super) fn is_ours(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with(".vmdkit-"))
}

pub(super) fn command(fs: &CrashFs, args: &[String]) -> Command {
    let mut command = Command::new(tools::vmdkit().unwrap());
    let at = fs.path().to_str().unwrap();
    let args = match args {
        [args @ .., mark, file] if mark == "<" => {
            command.stdin(File::open(file).unwrap());
            args
        }
        args => args,
    };
    command.args(args.iter().map(|arg| arg.replace('@', at)));
    command
}

fn run(fs: &CrashFs, args: &[String]) -> Output {
    command(fs, args).output().unwrap()
}

pub(super) fn said(out: &Output) -> String {
    let (a, b) = (&out.stdout, &out.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(a),
        String::from_utf8_lossy(b)
    )
}

/// Runs it whole, with faults, and through losses of power. `base` is what is there before.
pub(super) fn prove(fs: &CrashFs, base: &Tree, writer: &Writer<'_>) -> Result<(), String> {
    let name = writer.name;
    let (mut proof, log) = Proof::begin(fs, base, writer);
    proof.crashes(&log);
    proof.faults(&log);
    let counts = proof.counts;
    tests::say!(
        "crash: {name}: {} operations, {} faults, {} states, {} again",
        counts.operations,
        counts.faults,
        counts.states,
        counts.again
    );
    let wrong = &proof.wrong;
    if wrong.is_empty() {
        return Ok(());
    }
    let first: Vec<_> = wrong.iter().take(12).cloned().collect();
    let all: Vec<String> = (log.iter().enumerate())
        .map(|(n, e)| format!("  {n} {}", e.said))
        .collect();
    Err(format!(
        "{name}: {} wrong\n{}\nof\n{}\n",
        wrong.len(),
        first.join("\n"),
        all.join("\n")
    ))
}

/// Kills it after every operation: all that was done is there, and the same again ends well.
pub(super) fn killed(fs: &CrashFs, base: &Tree, writer: &Writer<'_>) -> Result<(), String> {
    let name = writer.name;
    let (mut proof, log) = Proof::begin(fs, base, writer);
    for n in 0..=log.len() {
        let behind = log.get(..n).unwrap_or_default();
        fs.load(&after(base, behind, Survived::All), None);
        let last = behind.last().map_or("nothing", |e| &e.said);
        proof.again(&format!("killed after {n}, {last}"));
    }
    let again = proof.counts.again;
    tests::say!("crash: {name}: killed and begun again {again} times");
    match proof.wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{name}:\n{}\n", proof.wrong.join("\n"))),
    }
}

struct Proof<'a> {
    fs: &'a CrashFs,
    base: &'a Tree,
    before: Files,
    end: Files,
    writer: &'a Writer<'a>,
    counts: Counts,
    wrong: Vec<String>,
}

impl<'a> Proof<'a> {
    /// Runs it whole, and keeps what it did.
    fn begin(fs: &'a CrashFs, base: &'a Tree, writer: &'a Writer<'a>) -> (Self, Vec<Entry>) {
        let name = writer.name;
        fs.load(base, None);
        let out = run(fs, &writer.args);
        assert!(out.status.success(), "{name}: {}", said(&out));
        let (log, end) = (fs.log(), fs.tree().files());
        if let Err(e) = (writer.right)(fs.path()) {
            panic!("{name}: {e}");
        }
        let proof = Self {
            fs,
            base,
            before: base.files(),
            end,
            writer,
            counts: Counts {
                operations: log.len(),
                ..Counts::default()
            },
            wrong: Vec::new(),
        };
        (proof, log)
    }
}

impl Proof<'_> {
    /// Whether a state is one that may be found, by comparison with before and after.
    fn judge(&self, now: &Files) -> Result<(), String> {
        let mut paths: BTreeSet<&String> = self.before.keys().collect();
        paths.extend(self.end.keys());
        paths.extend(now.keys());
        paths.retain(|path| !is_ours(path) && !(self.writer.aside)(path));
        let same = |path: &String, other: &Files| now.get(path) == other.get(path);
        for path in &paths {
            if !self.is_its_business(path) && !same(path, &self.before) {
                return Err(format!("{path}, which is not its business, was changed"));
            }
        }
        let absent = |path: &str| !now.contains_key(path);
        (self.writer.also)(now, &self.before, &self.end)?;
        match self.writer.main {
            Some(main) if absent(main) => Ok(()),
            Some(main) => {
                let differ = |other| -> Vec<String> {
                    let paths = paths.iter().filter(|path| !same(path, other));
                    paths.map(|path| (*path).clone()).collect()
                };
                let (old, new) = (differ(&self.before), differ(&self.end));
                match old.is_empty() || new.is_empty() {
                    true => Ok(()),
                    false => Err(format!(
                        "{main} is there, but not as before: {old:?}, nor as after: {new:?}"
                    )),
                }
            }
            None => {
                let fit = |path: &String| {
                    absent(path) || same(path, &self.before) || same(path, &self.end)
                };
                match paths.into_iter().find(|path| !fit(path)) {
                    Some(path) => Err(format!("{path} has wrong bytes")),
                    None => Ok(()),
                }
            }
        }
    }

    fn crashes(&mut self, log: &[Entry]) {
        let mut seen = HashSet::new();
        let mut to_go_on = Vec::new();
        for n in 0..=log.len() {
            for survived in Survived::each(sweep::seeds()) {
                let tree = after(self.base, log.get(..n).unwrap_or_default(), survived);
                let files = tree.files();
                let is_new = seen.insert(hash(&files));
                if !is_new && n < log.len() {
                    continue;
                }
                self.counts.states += usize::from(is_new);
                let place = format!("power lost after {n}, {survived:?}");
                let mut judged = self.judge(&files);
                // What ended well lasts.
                if n == log.len() && judged.is_ok() {
                    let lost = |(path, kind): &(&String, &Kind)| {
                        !is_ours(path)
                            && !(self.writer.aside)(path)
                            && files.get(*path) != Some(*kind)
                    };
                    if let Some((path, _)) = self.end.iter().find(lost) {
                        judged = Err(format!("it had ended well, and {path} is lost"));
                    }
                }
                match judged {
                    Err(e) => self.wrong.push(format!("{place}: {e}")),
                    Ok(()) if is_new && !self.is_done(&files) => to_go_on.push((place, tree)),
                    Ok(()) => {}
                }
            }
        }
        for n in sweep::spread(to_go_on.len(), sweep::again()) {
            let (place, tree) = &to_go_on[n];
            self.fs.load(tree, None);
            self.again(place);
        }
    }

    /// Whether it has its new name already, which it does not take again.
    fn is_done(&self, files: &Files) -> bool {
        self.writer.main.is_some_and(|main| {
            let (there, end) = (files.get(main), self.end.get(main));
            !self.writer.replaces && there.is_some() && there == end
        })
    }

    /// The same again ends well, whatever it was that cut it off.
    fn again(&mut self, place: &str) {
        self.counts.again += 1;
        let mut refused = String::new();
        for args in &self.writer.again {
            let out = run(self.fs, args);
            if out.status.success() {
                if let Err(e) = (self.writer.right)(self.fs.path()) {
                    self.wrong.push(format!("{place}: again: {e}"));
                }
                return;
            }
            refused = said(&out);
        }
        self.wrong.push(format!("{place}: again: {refused}"));
    }

    fn faults(&mut self, log: &[Entry]) {
        for at in sweep::spread(log.len(), sweep::faults()) {
            for (code, lasting) in sweep::kinds(at) {
                let fault = Fault { at, code, lasting };
                self.fs.load(self.base, Some(fault));
                self.counts.faults += 1;
                let out = run(self.fs, &self.writer.args);
                let failed = self.fs.failed();
                if failed.is_empty() {
                    continue;
                }
                let place = format!("{fault:?}, {failed:?}");
                let tree = self.fs.tree();
                self.fs.load(&tree, None);
                if let Err(e) = self.failed(&out, code, &tree.files(), &failed) {
                    let said = said(&out);
                    self.wrong
                        .push(format!("{place}: {e} ({}: {said})", out.status));
                }
                if !out.status.success() && at % 3 == 0 && !self.is_done(&tree.files()) {
                    self.fs.load(&tree, None);
                    self.again(&place);
                }
            }
        }
    }

    fn failed(
        &self,
        out: &Output,
        code: i32,
        files: &Files,
        failed: &[String],
    ) -> Result<(), String> {
        let right = || (self.writer.right)(self.fs.path());
        if out.status.success() {
            // What makes no difference may fail; what makes the bytes last may not.
            let matters = |op: &&String| {
                let aside = op.contains(".resume") || op.ends_with(".lock");
                (op.starts_with("write ") || op.starts_with("sync ")) && !aside
            };
            return match failed.iter().find(matters) {
                Some(op) => Err(format!("{op} failed and it says that all is well")),
                None => right(),
            };
        }
        let reason = match code {
            libc::ENOSPC => "No space left",
            _ => "Input/output error",
        };
        let said = said(out);
        if !said.contains(reason) {
            return Err(format!("it does not say {reason:?}"));
        }
        let mut names = self.end.keys().filter(|path| !is_ours(path));
        let at = self.fs.path().to_str().unwrap();
        if !said.contains(at)
            && !names.any(|path| said.contains(path.rsplit('/').next().unwrap_or(path)))
        {
            return Err("it does not name the file".to_owned());
        }
        let judged = self.untouched(files);
        if judged.is_err() {
            return judged.or_else(|e| right().map_err(|other| format!("{e}; {other}")));
        }
        let removing = failed.iter().any(|op| op.starts_with("remove "));
        let left: Vec<_> = files
            .keys()
            .filter(|path| path.ends_with(".tmp") && !self.before.contains_key(*path))
            .collect();
        match left.is_empty() || removing || self.writer.goes_on {
            true => Ok(()),
            false => Err(format!("{left:?} stays")),
        }
    }

    /// What it changes, and what lies beside its disk under the same name.
    fn is_its_business(&self, path: &String) -> bool {
        let beside = self.writer.main.is_some_and(|main| path.starts_with(main));
        let changes = self.end.get(path) != self.before.get(path);
        beside || changes || is_ours(path) || (self.writer.aside)(path)
    }

    /// Whether a failed run left everything as it was, or the result absent.
    fn untouched(&self, now: &Files) -> Result<(), String> {
        for (path, kind) in &self.before {
            if !self.is_its_business(path) && now.get(path) != Some(kind) {
                return Err(format!("{path}, which is not its business, was changed"));
            }
        }
        let mut names: Vec<&str> = self.writer.main.into_iter().collect();
        if names.is_empty() {
            let end = self.end.keys().map(String::as_str);
            names = end.filter(|path| !is_ours(path)).collect();
        }
        let fit = |name: &&&str| {
            let there = now.get(**name);
            there.is_none() || there == self.before.get(**name) || there == self.end.get(**name)
        };
        let is_new = |name: &str| now.contains_key(name) && now.get(name) != self.before.get(name);
        match names.iter().find(|name| !fit(name)) {
            Some(name) => Err(format!("{name} is neither absent nor as it was")),
            // There: read it.
            None if self.writer.main.is_some_and(is_new) => {
                Err("it is there though it failed".to_owned())
            }
            None => Ok(()),
        }
    }
}

fn hash(files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, kind) in files {
        path.hash(&mut hasher);
        match kind {
            Kind::File(bytes) => bytes.hash(&mut hasher),
            Kind::Dir(_) => 1.hash(&mut hasher),
            Kind::Link(to) => to.hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// Compares a disk with the raw image that it was made of.
pub(super) fn same_disk(disk: &Path, format: &[&str], source: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let raw: PathBuf = dir.path().join("read.raw");
    let out = Command::new(tools::vmdkit().unwrap())
        .args(["convert", "-q", "--to", "raw", "--checkpoint", "3600"])
        .args(format)
        .args([disk, &raw])
        .output()
        .unwrap();
    if !out.status.success() {
        return Err(said(&out));
    }
    let (read, want) = (std::fs::read(&raw).unwrap(), std::fs::read(source).unwrap());
    let rest = read.get(want.len()..).unwrap_or_default();
    match read.starts_with(&want) && rest.iter().all(|b| *b == 0) {
        true => Ok(()),
        false => Err(format!("{} has wrong bytes", disk.display())),
    }
}
