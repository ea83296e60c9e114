//! One mutant through every program.

use super::{
    images::{Image, Volume},
    mutate::{Dice, Edit, interesting, mutate},
    outcome::{End, Outcome, Ran, compare, watch},
};
use crate::tools;
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What our program is called in reports.
pub const OURS: &str = "vmdkit";

/// What is mutated and read.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A disk image.
    Image(&'a Image),
    /// A volume.
    Volume(&'a Volume),
}

/// A mutant that lies in a directory.
#[derive(Debug)]
pub struct Mutant {
    /// The file that is opened.
    pub opened: PathBuf,
    /// The file that was changed.
    pub changed: PathBuf,
    /// As it was.
    pub sound: Vec<u8>,
    /// As it is.
    pub bytes: Vec<u8>,
    /// What was changed.
    pub edits: Vec<Edit>,
}

impl Mutant {
    /// How many bytes were changed.
    fn len(&self) -> usize {
        self.edits.iter().map(|(_, len)| len).sum()
    }

    /// Whether the file was cut short.
    pub fn is_cut(&self) -> bool {
        self.bytes.len() != self.sound.len()
    }

    /// Leaves of its changes only these.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn only(&self, kept: impl Fn(Edit) -> bool) -> Result<()> {
        let mut bytes = self.sound.clone();
        for (at, len) in self.edits.iter().filter(|e| kept(**e)) {
            match self.is_cut() {
                true => bytes.truncate(*at),
                false => bytes[*at..at + len].copy_from_slice(&self.bytes[*at..at + len]),
            }
        }
        Ok(fs::write(&self.changed, bytes)?)
    }
}

/// A program and its run, and what became of the mutant.
#[derive(Debug)]
pub struct Tried {
    /// Which program.
    pub program: &'static str,
    /// Its run.
    pub ran: Ran,
    /// What it made of it.
    pub outcome: Outcome,
}

impl Subject<'_> {
    /// Its kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Image(image) => image.name,
            Self::Volume(volume) => volume.name,
        }
    }

    /// Writes mutant `number` into `dir`; `None` where there is nothing to change.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn mutant(&self, number: u64, dir: &Path) -> Result<Option<Mutant>> {
        let name = self.name();
        let (which, mut dice) = match self {
            Self::Volume(_) => (0, Dice::new(number * 37 + name.len() as u64)),
            Self::Image(image) => {
                let mut dice = Dice::new(number * 31 + name.len() as u64);
                let which = match image.files.len() {
                    1 => 0,
                    // The descriptor once in a while; a flat disk has nothing else.
                    n if name.ends_with("Flat") || dice.below(4) == 0 => n - 1,
                    n => dice.below(n - 1),
                };
                (which, dice)
            }
        };
        let none = Vec::new();
        let (file, sound, payload, opened) = match self {
            Self::Volume(volume) => ("volume.raw", &volume.bytes, &none, "volume.raw"),
            Self::Image(image) => {
                for (name, bytes) in &image.files {
                    fs::write(dir.join(name), bytes)?;
                }
                let (name, bytes) = &image.files[which];
                let payload = if which == 0 { &image.payload } else { &none };
                (name.as_str(), bytes, payload, image.opened.as_str())
            }
        };
        let places = interesting(sound, payload);
        if places.is_empty() {
            return Ok(None);
        }
        let mut bytes = sound.clone();
        let edits = mutate(&mut bytes, &places, &mut dice);
        if edits.is_empty() {
            return Ok(None);
        }
        let changed = dir.join(file);
        fs::write(&changed, &bytes)?;
        Ok(Some(Mutant {
            opened: dir.join(opened),
            changed,
            sound: sound.clone(),
            bytes,
            edits,
        }))
    }

    /// What `vmdkit` makes of it.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn ours(&self, vmdkit: &Path, mutant: &Mutant) -> Result<Tried> {
        let out = mutant.opened.with_file_name("out");
        let mut ours = Command::new(vmdkit);
        match self {
            Self::Image(_) => {
                ours.args(["-q", "convert"]).arg(&mutant.opened).arg(&out);
                ours.args(["--to", "raw"]);
            }
            Self::Volume(_) => {
                fs::create_dir(&out)?;
                ours.args(["-q", "cp", "-r", "--format", "raw"]);
                ours.arg(&mutant.opened).arg("/p0/.").arg(&out);
            }
        }
        let ran = watch(&mut ours)?;
        Ok(self.judge(OURS, ran, &out, mutant))
    }

    /// What the other programs that are here make of it.
    ///
    /// # Errors
    /// Where a program cannot be started.
    pub fn others(&self, mutant: &Mutant) -> Result<Vec<Tried>> {
        let opened = &mutant.opened;
        let out = opened.with_file_name("out");
        let mut tried = Vec::new();
        let mut run = |program, command: &mut Command| -> Result<()> {
            let ran = watch(command)?;
            tried.push(self.judge(program, ran, &out, mutant));
            Ok(())
        };
        match self {
            Self::Image(image) => {
                if tools::find("qemu-img").is_some() {
                    let mut theirs = tools::command("qemu-img");
                    theirs.args(["convert", "-f", image.qemu, "-O", "raw"]);
                    run("qemu-img", theirs.arg(opened).arg(&out))?;
                }
                if !image.seven.is_empty() && tools::find("7zz").is_some() {
                    let mut theirs = Command::new("sh");
                    theirs.args(["-c", "exec 7zz x -so \"-t$2\" \"$0\" > \"$1\""]);
                    run("7-Zip", theirs.args([opened, &out]).arg(image.seven))?;
                }
            }
            Self::Volume(volume) => {
                if tools::find("7zz").is_some() && volume.name != "exfat-files" {
                    let mut theirs = tools::command("7zz");
                    theirs.args(["x", "-y"]);
                    let to = format!("-o{}", out.display());
                    run("7-Zip", theirs.arg(to).arg(opened))?;
                }
                if tools::find("tsk_recover").is_some() {
                    fs::create_dir_all(&out)?;
                    let mut theirs = tools::command("tsk_recover");
                    run("Sleuth Kit", theirs.arg("-a").arg(opened).arg(&out))?;
                }
            }
        }
        Ok(tried)
    }

    /// What became of it, by what came out; which is removed.
    fn judge(&self, program: &'static str, ran: Ran, out: &Path, mutant: &Mutant) -> Tried {
        let outcome = Outcome::of_end(&ran).unwrap_or_else(|| match self {
            Self::Image(image) => {
                let found = fs::read(out).unwrap_or_default();
                compare(&found, &image.wanted, mutant.len())
            }
            Self::Volume(volume) => compare_trees(&volume.reference, out, mutant.len()),
        });
        let _ = fs::remove_file(out);
        let _ = fs::remove_dir_all(out);
        Tried {
            program,
            ran,
            outcome,
        }
    }
}

/// The worst that became of any file of `reference`.
fn compare_trees(reference: &Path, out: &Path, changed: usize) -> Outcome {
    let mut worst = Outcome::Right;
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(reference.join(&dir)).into_iter().flatten();
        for entry in entries.flatten() {
            let path = dir.join(entry.file_name());
            let kind = entry.file_type();
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                dirs.push(path);
            } else if kind.is_ok_and(|k| k.is_file()) {
                let wanted = fs::read(reference.join(&path)).unwrap_or_default();
                let found = fs::read(out.join(&path));
                let this = found.map_or(Outcome::Wrong, |found| compare(&found, &wanted, changed));
                worst = worst.max(this);
            }
        }
    }
    worst
}

/// What `check` (of a volume, and of what has no structure, `verify`) says of a mutant.
///
/// # Errors
/// Where the program cannot be started.
pub fn check(vmdkit: &Path, opened: &Path) -> Result<(bool, String)> {
    let verb = match opened.extension().is_some_and(|e| e == "raw") {
        true => "verify",
        false => "check",
    };
    let command = "\"$0\" \"$1\" \"$2\" >&2; [ $? -ne 4 ]";
    let mut check = Command::new("sh");
    check.args(["-c", command]).arg(vmdkit).arg(verb);
    let ran = watch(check.arg(opened))?;
    Ok((ran.end == End::Error, ran.said))
}
