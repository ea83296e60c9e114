//! `cargo xtask`: what the project does to itself. Not part of the product.

use anyhow::Result;
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
    /// Make the sample disks of README's first command.
    Sample {
        /// Where; created if it is not there.
        dir: PathBuf,
    },
}

fn main() -> Result<()> {
    match Args::parse().verb {
        Verb::Sample { dir } => {
            let sample = tests::sample::make(&dir)?;
            for link in sample.links {
                println!("{}", link.display());
            }
        }
    }
    Ok(())
}
