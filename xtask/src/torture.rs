//! `cargo xtask torture`: mutated images through `vmdkit` and through the tools that others use, and
//! what became of each, with its reason; written into docs/reliability.md.

mod report;
mod simulated;

use anyhow::{Context, Result, ensure};
use clap::Args;
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
use tests::{
    mutants::{
        account::{self, is_silent},
        images,
        outcome::Outcome,
        tried::{Subject, Tried},
    },
    tools,
};

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

/// What became of one mutant.
struct Done {
    number: u64,
    tried: Vec<Tried>,
    /// Why it is as it is, where that needs a reason, and what needs it.
    why: Option<(Need, Option<&'static str>)>,
}

/// What needs a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Other bytes, and no error.
    Silent,
    /// An error, where another program gives the right bytes.
    Refused,
}

#[derive(Debug, Default)]
struct Score {
    /// By kind of image, then program, in the order in which they are shown.
    counts: Vec<(String, Vec<(&'static str, Counts)>)>,
    /// How many mutants had which reason, by kind of image.
    reasons: BTreeMap<(Need, &'static str, String), u64>,
    /// Mutants without one.
    unexplained: Vec<String>,
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

    /// Takes in what became of the mutants of one kind.
    fn add(&mut self, name: &'static str, all: Vec<Done>) {
        let mut by_program: Vec<(&'static str, Counts)> = Vec::new();
        for done in all {
            for t in &done.tried {
                if !by_program.iter().any(|(p, _)| *p == t.program) {
                    by_program.push((t.program, Counts::new()));
                }
                if let Some((_, counts)) = by_program.iter_mut().find(|(p, _)| *p == t.program) {
                    *counts.entry(t.outcome).or_default() += 1;
                }
                let most = self.ceilings.entry(t.program).or_default();
                *most = (most.0.max(t.ran.wall), most.1.max(t.ran.peak));
            }
            match done.why {
                Some((need, Some(why))) => {
                    let key = (need, why, name.to_owned());
                    *self.reasons.entry(key).or_default() += 1;
                }
                Some((need, None)) => {
                    let said = done.tried.first().map(|t| t.ran.said.trim());
                    let said = said.unwrap_or_default();
                    let text = format!("{name} {}: {need:?}: {said}", done.number);
                    self.unexplained.push(text);
                }
                None => {}
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
        self.counts.push((name.to_owned(), by_program));
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
    let images = images::all(&vmdkit, scratch.path())?;
    let volumes = images::volumes(&vmdkit, scratch.path())?;
    let subjects = images.iter().map(Subject::Image);
    for subject in subjects.chain(volumes.iter().map(Subject::Volume)) {
        let name = subject.name();
        if options.only.is_empty() || options.only.iter().any(|o| o == name) {
            score.add(name, all(&vmdkit, subject, options)?);
        }
    }
    for one in &score.unexplained {
        println!("no reason: {one}");
    }
    let n = score.unexplained.len();
    ensure!(n == 0, "{n} outcomes have no reason in tests/src/mutants");
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

/// All mutants of one subject, in the order of their numbers.
fn all(vmdkit: &Path, subject: Subject<'_>, options: &Options) -> Result<Vec<Done>> {
    let next = AtomicU64::new(options.seed);
    let end = options.seed + options.mutants;
    let all: Mutex<Vec<Done>> = Mutex::default();
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok(());
                }
                let done = one(vmdkit, subject, number, options)?;
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(done);
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().ok().context("a thread")??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|d| d.number);
    Ok(all)
}

fn one(
    vmdkit: &Path,
    subject: Subject<'_>,
    number: u64,
    options: &Options,
) -> Result<Option<Done>> {
    let dir = tempfile::tempdir()?;
    let Some(mutant) = subject.mutant(number, dir.path())? else {
        return Ok(None);
    };
    let ours = subject.ours(vmdkit, &mutant)?;
    let others = subject.others(&mutant)?;
    let why = if is_silent(ours.outcome) {
        let why = account::silent(subject, vmdkit, &mutant, &ours)?;
        Some((Need::Silent, why.map(account::Why::text)))
    } else if ours.outcome == Outcome::Named && others.iter().any(|t| t.outcome == Outcome::Right) {
        let why = account::refusal(subject.name(), &ours.ran.said);
        Some((Need::Refused, why))
    } else {
        None
    };
    let mut tried = vec![ours];
    tried.extend(others);
    if why.is_some() {
        keep(options, subject.name(), number, dir.path(), &tried)?;
    }
    Ok(Some(Done { number, tried, why }))
}

fn keep(options: &Options, name: &str, number: u64, dir: &Path, tried: &[Tried]) -> Result<()> {
    let Some(place) = &options.keep else {
        return Ok(());
    };
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
