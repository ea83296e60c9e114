//! `completions` and `man`.

use crate::{
    args::Cli,
    exit::{Exit, Failure},
};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use disk_io::DiskError;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit completions bash > /etc/bash_completion.d/vmdkit
  vmdkit completions zsh > ~/.zfunc/_vmdkit")]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "vmdkit", &mut text);
        io::stdout().write_all(&text)?;
        Ok(Exit::Done)
    }
}

/// Print the manual page, or write one page a verb into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit man | man -l -
  vmdkit man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// An existing directory for vmdkit.1, vmdkit-cp.1, …
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let mut command = Cli::command();
        command.build();
        let Some(dir) = self.dir else {
            io::stdout().write_all(&page(command)?)?;
            return Ok(Exit::Done);
        };
        let write = |name: &str, page: &[u8]| {
            let path = dir.join(format!("{name}.1"));
            std::fs::write(&path, page).map_err(|e| failed(&path, &e))
        };
        for verb in command.get_subcommands().filter(|v| !v.is_hide_set()) {
            let name = format!("vmdkit-{}", verb.get_name());
            write(&name, &page(verb.clone().name(name.clone()))?)?;
        }
        write("vmdkit", &page(command)?)?;
        Ok(Exit::Done)
    }
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

fn failed(path: &Path, e: &io::Error) -> DiskError {
    DiskError::io("writing the manual page", e).file(path.display())
}
