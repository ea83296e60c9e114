//! `cargo xtask`: what the project does to itself. Not part of the product.

mod bases;
mod bench;
mod fuzz;
mod release;
mod torture;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Fixtures, sample and benches of vmdkit")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make every test image that the tools on this machine can make.
    Fixtures {
        /// Where (default: target/fixtures).
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Measure vmdkit beside the real tools.
    Bench(bench::Options),
    /// A part of a bench in a process of its own.
    #[command(hide = true, subcommand)]
    BenchChild(bench::Child),
    /// Feed every parser hostile bytes.
    Fuzz(fuzz::Options),
    /// Read mutated images, and let the tools that others use read them.
    Torture(torture::Options),
    /// Build what is given out, twice, and hold the two against each other.
    Release(release::Options),
    /// Write testdata/INDEX.md.
    Index,
    /// Make the sample disks of README's first command.
    Sample {
        /// Where; created if it is not there.
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    match Args::parse().verb {
        Verb::Fixtures { dir } => {
            let dir = dir.unwrap_or_else(|| tests::tools::target_dir().join("fixtures"));
            for fixture in tests::fixtures::all() {
                let begun = std::time::Instant::now();
                let made = tests::fixtures::make(fixture, &dir)
                    .with_context(|| format!("making {}", fixture.name))?;
                let took = begun.elapsed().as_secs_f32();
                println!(
                    "{} ({} entries, {took:.1} s)",
                    made.image.display(),
                    made.truth.len()
                );
            }
        }
        Verb::Bench(options) => bench::run(&options)?,
        Verb::BenchChild(child) => child.run()?,
        Verb::Fuzz(options) => fuzz::run(&options)?,
        Verb::Torture(options) => torture::run(&options)?,
        Verb::Release(options) => release::run(&options)?,
        Verb::Index => {
            let path = tests::tools::project().join("testdata/INDEX.md");
            std::fs::write(&path, tests::fixtures::index())?;
        }
        Verb::Sample { dir } => {
            let sample = tests::sample::make(&dir)?;
            for link in sample.links {
                println!("{}", link.display());
            }
        }
    }
    Ok(())
}
