//! `cargo xtask torture`: mutated images through `vmdkit` and through the tools that others use, and
//! what became of each; written into docs/reliability.md.

mod images;
mod mutate;
mod outcome;
mod report;
mod simulated;

use anyhow::{Context, Result};
use clap::Args;
use images::{Image, Volume};
use mutate::{Dice, interesting, mutate};
use outcome::{End, Outcome, Ran, compare, watch};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tests::tools;

/// How much.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Mutants of each format and each file system.
    #[arg(long, default_value_t = 200)]
    mutants: u64,
    /// The first mutant's number: others than those before.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only these formats and file systems.
    only: Vec<String>,
    /// Write docs/reliability.md.
    #[arg(long)]
    write: bool,
    /// Measure the program that is there already, instead of building it.
    #[arg(long)]
    no_build: bool,
    /// Leave out what the crash simulation and the stress of the mount have to tell, which takes
    /// minutes.
    #[arg(long)]
    no_suite: bool,
    /// Keep mutants that gave other bytes or worse, with what each program made of them.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// Outcomes of one program with one kind of image.
type Counts = BTreeMap<Outcome, u64>;

#[derive(Debug, Default)]
struct Score {
    /// By kind of image, then program, in the order in which they are shown.
    counts: Vec<(String, Vec<(&'static str, Counts)>)>,
    /// Mutants that gave other bytes without an error, and how many of them `check` finds.
    quiet: u64,
    checked: u64,
    ceilings: BTreeMap<&'static str, (Duration, u64)>,
}

impl Score {
    /// Every program, ours first.
    fn programs(&self) -> Vec<&'static str> {
        let mut all: Vec<&'static str> = Vec::new();
        for (program, _) in self.counts.iter().flat_map(|(_, programs)| programs) {
            if !all.contains(program) {
                all.push(program);
            }
        }
        all
    }

    /// Outcomes of one program with images of every kind.
    fn all_of(&self, program: &str) -> Counts {
        let mut all = Counts::new();
        let programs = self.counts.iter().flat_map(|(_, programs)| programs);
        for (_, counts) in programs.filter(|(p, _)| *p == program) {
            for (outcome, n) in counts {
                *all.entry(*outcome).or_default() += n;
            }
        }
        all
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.no_build {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let args = ["build", "--release", "--quiet", "--package", "vmdkit"];
        tools::output(Command::new(cargo).args(args).current_dir(tools::project()))?;
    }
    let vmdkit = tools::target_dir().join("release/vmdkit");
    let scratch = tempfile::tempdir()?;
    let mut score = Score::default();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|o| o == name);
    for image in images::all(&vmdkit, scratch.path())? {
        if wanted(image.name) {
            one(
                &vmdkit,
                image.name,
                &Subject::Image(&image),
                options,
                &mut score,
            )?;
        }
    }
    for volume in images::volumes(&vmdkit, scratch.path())? {
        if wanted(volume.name) {
            one(
                &vmdkit,
                volume.name,
                &Subject::Volume(&volume),
                options,
                &mut score,
            )?;
        }
    }
    let suite = match options.no_suite {
        true => None,
        false => Some(simulated::run(&vmdkit)?),
    };
    let text = report::page(&score, suite.as_ref(), options)?;
    println!("{text}");
    if options.write {
        let page = tools::project().join("docs/reliability.md");
        fs::write(page, text)?;
    }
    Ok(())
}

/// What is mutated and read.
enum Subject<'a> {
    Image(&'a Image),
    Volume(&'a Volume),
}

/// A program and its run, and what became of the mutant.
struct Tried {
    program: &'static str,
    ran: Ran,
    outcome: Outcome,
}

fn one(
    vmdkit: &Path,
    name: &str,
    subject: &Subject<'_>,
    options: &Options,
    score: &mut Score,
) -> Result<()> {
    let next = AtomicU64::new(options.seed);
    let end = options.seed + options.mutants;
    let all: Mutex<Vec<(u64, Vec<Tried>, bool)>> = Mutex::default();
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= end {
                            return Ok(());
                        }
                        let dir = tempfile::tempdir()?;
                        let tried = match subject {
                            Subject::Image(image) => disk(vmdkit, image, number, dir.path())?,
                            Subject::Volume(volume) => tree(vmdkit, volume, number, dir.path())?,
                        };
                        let Some((opened, tried)) = tried else {
                            continue;
                        };
                        let told = is_told(vmdkit, &opened, &tried)?;
                        keep(options, name, number, dir.path(), &tried)?;
                        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                        all.push((number, tried, told));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().ok().context("a thread")??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let mut by_program: Vec<(&'static str, Counts)> = Vec::new();
    for (_, tried, told) in all.into_inner().unwrap_or_else(PoisonError::into_inner) {
        for t in tried {
            if !by_program.iter().any(|(p, _)| *p == t.program) {
                by_program.push((t.program, Counts::new()));
            }
            if let Some((_, counts)) = by_program.iter_mut().find(|(p, _)| *p == t.program) {
                *counts.entry(t.outcome).or_default() += 1;
            }
            let most = score.ceilings.entry(t.program).or_default();
            *most = (most.0.max(t.ran.wall), most.1.max(t.ran.peak));
            if t.program == OURS && matches!(t.outcome, Outcome::Wrong | Outcome::Zeros) {
                score.quiet += 1;
                score.checked += u64::from(told);
            }
        }
    }
    println!("{name}:");
    for (program, counts) in &by_program {
        let text: Vec<String> = counts
            .iter()
            .map(|(o, n)| format!("{n} {}", o.name()))
            .collect();
        println!("  {program}: {}", text.join(", "));
    }
    score.counts.push((name.to_owned(), by_program));
    Ok(())
}

const OURS: &str = "vmdkit";

/// Whether `check` finds what a read did not.
fn is_told(vmdkit: &Path, opened: &Path, tried: &[Tried]) -> Result<bool> {
    let ours = tried.iter().find(|t| t.program == OURS);
    if !ours.is_some_and(|t| matches!(t.outcome, Outcome::Wrong | Outcome::Zeros)) {
        return Ok(false);
    }
    // Of a volume, and of what has no structure, only `verify` looks at what is inside.
    let verb = match opened.extension().is_some_and(|e| e == "raw") {
        true => "verify",
        false => "check",
    };
    let command = "\"$0\" -q \"$1\" \"$2\" >&2; [ $? -ne 4 ]";
    let mut check = Command::new("sh");
    check
        .args(["-c", command])
        .arg(vmdkit)
        .arg(verb)
        .arg(opened);
    Ok(watch(&mut check)?.end == End::Error)
}

fn keep(options: &Options, name: &str, number: u64, dir: &Path, tried: &[Tried]) -> Result<()> {
    let Some(place) = &options.keep else {
        return Ok(());
    };
    let worth = tried
        .iter()
        .any(|t| t.program == OURS && !matches!(t.outcome, Outcome::Right | Outcome::Named));
    if !worth {
        return Ok(());
    }
    let to = place.join(format!("{name}-{number}"));
    fs::create_dir_all(&to)?;
    let mut text = String::new();
    for t in tried {
        writeln!(
            text,
            "{}: {:?} {:?}\n{}",
            t.program, t.outcome, t.ran.end, t.ran.said
        )?;
    }
    fs::write(to.join("told"), text)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// What came of a program that writes a disk to `out`.
fn of_disk(
    program: &'static str,
    ran: Ran,
    out: &Path,
    (wanted, changed): (&[u8], usize),
) -> Tried {
    let outcome = Outcome::of_end(&ran).unwrap_or_else(|| {
        let found = fs::read(out).unwrap_or_default();
        compare(&found, wanted, changed)
    });
    let _ = fs::remove_file(out);
    Tried {
        program,
        ran,
        outcome,
    }
}

type Result2 = Result<Option<(PathBuf, Vec<Tried>)>>;

/// A mutant of a disk image.
fn disk(vmdkit: &Path, image: &Image, number: u64, dir: &Path) -> Result2 {
    let mut dice = Dice::new(number * 31 + image.name.len() as u64);
    let which = match image.files.len() {
        1 => 0,
        // The descriptor once in a while; a flat disk has nothing else.
        n if image.name.ends_with("Flat") || dice.below(4) == 0 => n - 1,
        n => dice.below(n - 1),
    };
    let mut changed = 0;
    for (n, (name, bytes)) in image.files.iter().enumerate() {
        let mut bytes = bytes.clone();
        if n == which {
            let payload = if n == 0 {
                image.payload.as_slice()
            } else {
                &[]
            };
            let places = interesting(&bytes, payload);
            if places.is_empty() {
                return Ok(None);
            }
            let edits = mutate(&mut bytes, &places, &mut dice);
            if edits.is_empty() {
                return Ok(None);
            }
            changed = edits.iter().map(|(_, len)| len).sum();
        }
        fs::write(dir.join(name), bytes)?;
    }
    let opened = dir.join(&image.opened);
    let out = dir.join("out.raw");
    let mut tried = Vec::new();
    let mut ours = Command::new(vmdkit);
    ours.args(["-q", "convert"])
        .arg(&opened)
        .arg(&out)
        .args(["--to", "raw"]);
    tried.push(of_disk(
        OURS,
        watch(&mut ours)?,
        &out,
        (&image.wanted, changed),
    ));
    if tools::find("qemu-img").is_some() {
        let mut theirs = tools::command("qemu-img");
        theirs
            .args(["convert", "-f", image.qemu, "-O", "raw"])
            .arg(&opened)
            .arg(&out);
        tried.push(of_disk(
            "qemu-img",
            watch(&mut theirs)?,
            &out,
            (&image.wanted, changed),
        ));
    }
    if !image.seven.is_empty() && tools::find("7zz").is_some() {
        let mut theirs = Command::new("sh");
        theirs
            .args(["-c", "exec 7zz x -so \"-t$2\" \"$0\" > \"$1\""])
            .args([&opened, &out])
            .arg(image.seven);
        tried.push(of_disk(
            "7-Zip",
            watch(&mut theirs)?,
            &out,
            (&image.wanted, changed),
        ));
    }
    Ok(Some((opened, tried)))
}

/// What came of a program that copied a volume's files to `out`.
fn of_tree(
    program: &'static str,
    ran: Ran,
    out: &Path,
    (reference, changed): (&Path, usize),
) -> Tried {
    let outcome = Outcome::of_end(&ran).unwrap_or_else(|| {
        let mut worst = Outcome::Right;
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(reference.join(&dir))
                .into_iter()
                .flatten()
                .flatten()
            {
                let path = dir.join(entry.file_name());
                let kind = entry.file_type();
                if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                    dirs.push(path);
                } else if kind.is_ok_and(|k| k.is_file()) {
                    let wanted = fs::read(reference.join(&path)).unwrap_or_default();
                    let found = fs::read(out.join(&path));
                    let this =
                        found.map_or(Outcome::Wrong, |found| compare(&found, &wanted, changed));
                    worst = worst.max(this);
                }
            }
        }
        worst
    });
    let _ = fs::remove_dir_all(out);
    Tried {
        program,
        ran,
        outcome,
    }
}

/// A mutant of a volume.
fn tree(vmdkit: &Path, volume: &Volume, number: u64, dir: &Path) -> Result2 {
    let mut dice = Dice::new(number * 37 + volume.name.len() as u64);
    let mut bytes = volume.bytes.clone();
    let places = interesting(&bytes, &[]);
    let edits = mutate(&mut bytes, &places, &mut dice);
    if edits.is_empty() {
        return Ok(None);
    }
    let changed = edits.iter().map(|(_, len)| len).sum();
    let image = dir.join("volume.raw");
    fs::write(&image, bytes)?;
    let out = dir.join("out");
    let mut tried = Vec::new();
    fs::create_dir(&out)?;
    let mut ours = Command::new(vmdkit);
    ours.args(["-q", "cp", "-r", "--format", "raw"])
        .arg(&image)
        .arg("/p0/.")
        .arg(&out);
    tried.push(of_tree(
        OURS,
        watch(&mut ours)?,
        &out,
        (&volume.reference, changed),
    ));
    if tools::find("7zz").is_some() && volume.name != "exfat-files" {
        let mut theirs = tools::command("7zz");
        theirs
            .args(["x", "-y"])
            .arg(format!("-o{}", out.display()))
            .arg(&image);
        tried.push(of_tree(
            "7-Zip",
            watch(&mut theirs)?,
            &out,
            (&volume.reference, changed),
        ));
    }
    if tools::find("tsk_recover").is_some() {
        fs::create_dir_all(&out)?;
        let mut theirs = tools::command("tsk_recover");
        theirs.arg("-a").arg(&image).arg(&out);
        tried.push(of_tree(
            "Sleuth Kit",
            watch(&mut theirs)?,
            &out,
            (&volume.reference, changed),
        ));
    }
    Ok(Some((image, tried)))
}
