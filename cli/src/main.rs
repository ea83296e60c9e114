//! `vmdkit`: reads virtual disks and restores files out of them.
//!
//! One file a verb under [`verb`]; what they share is beside it: arguments, opening SOURCE,
//! output, progress, exit codes. The work itself is done in the library crates.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod background;
mod backup;
mod clock;
mod disk_doubts;
mod exit;
mod fstab;
mod generations;
mod guard;
mod guest;
mod hooks;
mod image_format;
mod json;
mod keeper;
mod memory;
mod names;
mod output;
mod package;
mod paths;
mod progress;
mod ready;
mod report;
mod signals;
mod since;
mod source;
mod spool;
mod times;
mod used;
mod verb;

use args::Cli;
use clap::{CommandFactory, FromArgMatches};
use exit::{Exit, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        if disk_io::guarded::is_guarded() {
            return;
        }
        let place = info
            .location()
            .map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        output::say(format_args!(
            "vmdkit: internal error{place}: this is a fault of vmdkit itself; nothing \
             unfinished was given its final name\n  \
             hint: run it again with --log-level debug and report what it says"
        ));
    }));
    let done = std::panic::catch_unwind(|| {
        let args = match args::by_program_name(std::env::args_os()) {
            Ok(Some(args)) => args,
            Ok(None) => return Exit::Done,
            Err(failure) => return failure.tell(),
        };
        let args = args::with_long_spellings(args.into_iter());
        let matches = match Cli::command().try_get_matches_from(args) {
            Ok(matches) => matches,
            Err(e) => {
                let exit = Exit::from_clap(e.exit_code());
                return match e.print() {
                    // Help that was asked for is a result.
                    Err(e) if exit == Exit::Done => Failure::Output(e).tell(),
                    _ => exit,
                };
            }
        };
        let result = match Cli::from_arg_matches(&matches) {
            Ok(cli) => run(cli),
            Err(e) => Err(Failure::usage(e.to_string())),
        };
        match result {
            Ok(exit) => exit,
            Err(failure) => failure.tell(),
        }
    });
    done.unwrap_or(Exit::Failed).into()
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    output::start_logging(&cli.global, cli.verb.tells_remarks());
    match (cli.global.max_memory, &cli.verb) {
        (None, _) => {}
        (Some(bytes), args::Verb::Mount(_)) => memory::limit(bytes)?,
        (Some(bytes), _) => memory::watch(bytes)?,
    }
    cli.verb.run(&cli.global)
}
