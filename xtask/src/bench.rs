//! `cargo xtask bench`: vmdkit beside the real tools, in one run.
//!
//! The disk under a shared machine varies threefold, so nothing is claimed in seconds: the
//! contestants of a race take turns in ABBA order, the first round is thrown away, and what
//! counts is the median of the ratios within each round. Processor time and bytes read
//! stand beside it, and a limit (copying, reading the same bytes with nothing to decode) is
//! measured in the same race.

mod cases;
mod data;
mod measure;
mod report;

use anyhow::{Context, Result, bail};
use clap::Args;
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tests::tools;

/// What to measure and where.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Benches to run (default: all); `list` names them.
    benches: Vec<String>,
    /// Where the data sets go (default: bench in the target directory).
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Size of the data sets; 1 is 10 GiB virtual with about 5 GiB of files.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Rounds that count; one more is run first and thrown away.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write docs/bench.md.
    #[arg(long)]
    write: bool,
    /// Measure what is built already.
    #[arg(long)]
    no_build: bool,
    /// Leave the data sets where they are.
    #[arg(long)]
    keep: bool,
}

/// What every bench needs to know.
pub(crate) struct Bench {
    dir: PathBuf,
    scale: f64,
    rounds: usize,
    vmdkit: PathBuf,
    xtask: PathBuf,
    rows: Vec<report::Row>,
    notes: Vec<String>,
}

impl Bench {
    /// A number of bytes, scaled and rounded to MiB.
    fn scaled(&self, bytes: u64) -> u64 {
        ((bytes as f64 * self.scale) as u64).next_multiple_of(1 << 20)
    }

    /// Something to say under the table.
    fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("note: {text}");
        self.notes.push(text);
    }

    /// Whether all programs of a peer are here; says so if not.
    fn has(&mut self, programs: &[&str]) -> bool {
        let missing: Vec<_> = programs
            .iter()
            .copied()
            .filter(|p| tools::find(p).is_none())
            .collect();
        if !missing.is_empty() {
            self.note(format!(
                "not measured, not installed: {}",
                missing.join(", ")
            ));
        }
        missing.is_empty()
    }
}

/// Runs what was asked for.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.benches.iter().any(|b| b == "list") {
        for case in cases::ALL {
            println!("{:<16} {}", case.name, case.what);
        }
        return Ok(());
    }
    for name in &options.benches {
        if !cases::ALL.iter().any(|c| c.name == name) {
            bail!("no bench is called {name}; `cargo xtask bench list` names them");
        }
    }
    let release = tools::target_dir().join("release");
    if !options.no_build {
        build()?;
    }
    let dir = options
        .dir
        .clone()
        .unwrap_or_else(|| tools::target_dir().join("bench"));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let dir = dir.canonicalize()?;
    data::only_of_scale(&dir, options.scale)?;
    let mut bench = Bench {
        vmdkit: release.join("vmdkit"),
        xtask: release.join("xtask"),
        dir: dir.clone(),
        scale: options.scale,
        rounds: options.rounds.max(1),
        rows: Vec::new(),
        notes: Vec::new(),
    };
    for case in cases::ALL {
        if !options.benches.is_empty() && !options.benches.iter().any(|b| b == case.name) {
            continue;
        }
        println!("== {}: {}", case.name, case.what);
        let before = bench.rows.len();
        if let Err(e) = (case.run)(&mut bench) {
            bench.note(format!("{} failed: {e:#}", case.name));
        }
        for row in &bench.rows[before..] {
            println!("{}", row.line());
        }
    }
    if !options.keep {
        data::remove_all(&dir)?;
    }
    let text = report::markdown(&bench, &bench.rows, &bench.notes)?;
    println!("\n{text}");
    if options.write {
        let path = tools::project().join("docs/bench.md");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    if bench.rows.iter().any(|r| r.met() == Some(false)) {
        bail!("a goal was not met");
    }
    Ok(())
}

/// Builds what is measured with all optimisations.
fn build() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = [
        "build",
        "--release",
        "--quiet",
        "--package",
        "vmdkit",
        "--package",
        "xtask",
    ];
    tools::output(Command::new(cargo).args(args).current_dir(tools::project()))?;
    Ok(())
}

/// Children of the benches: what is measured inside a process of its own.
#[derive(clap::Subcommand, Debug, Clone)]
pub(crate) enum Child {
    /// Read and decode a whole disk into nothing.
    Decode {
        /// The image.
        image: PathBuf,
    },
    /// Read a whole disk in order, `passes` times; prints the seconds of each.
    Read {
        /// The image.
        image: PathBuf,
        /// How often.
        #[arg(long, default_value_t = 2)]
        passes: u32,
    },
    /// Read 4 KiB at random places of `/file` on a FAT volume.
    Fat {
        /// `ours` or `fatfs`.
        how: String,
        /// The volume.
        volume: PathBuf,
        /// How often.
        reads: u32,
    },
    /// Read 4 KiB at random places of a file.
    Random {
        /// The file.
        file: PathBuf,
        /// How often.
        #[arg(long)]
        reads: u32,
        /// By so many threads.
        #[arg(long)]
        threads: u32,
    },
    /// Touch every table of a synthetic disk; prints the peak of resident memory in KiB.
    Tables {
        /// `hosted` or `sesparse`.
        kind: String,
        /// Links.
        #[arg(long)]
        links: u32,
        /// Virtual size in GiB.
        #[arg(long)]
        gib: u64,
    },
}

impl Child {
    /// Does it.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Decode { image } => cases::child::decode(image),
            Self::Read { image, passes } => cases::child::read(image, *passes),
            Self::Fat { how, volume, reads } => cases::child::fat(how, volume, *reads),
            Self::Random {
                file,
                reads,
                threads,
            } => cases::points::child(file, *reads, *threads),
            Self::Tables { kind, links, gib } => cases::child::tables(kind, *links, *gib),
        }
    }
}

/// The path as text for a command line.
fn text(path: &Path) -> String {
    path.display().to_string()
}
