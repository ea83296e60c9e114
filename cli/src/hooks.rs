//! Commands of the user before and after an export.

use crate::{
    exit::{Exit, Failure},
    output::warn,
};
use clap::Args;
use disk_io::DiskError;
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// The commands.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Hooks")]
pub(crate) struct HookArgs {
    /// Run this by the shell before anything else; if it fails nothing is done
    #[arg(long, value_name = "CMD")]
    pre: Option<String>,
    /// Run this when the backup is complete
    #[arg(long, value_name = "CMD")]
    post: Option<String>,
    /// Run this when it failed, also when --pre did
    #[arg(long, value_name = "CMD")]
    on_error: Option<String>,
}

impl HookArgs {
    /// Does `work` between the commands. They have `VMDKIT_PHASE` (`pre`, `post`, `error`),
    /// `VMDKIT_SOURCE`, `VMDKIT_DEST` and, but for the first, `VMDKIT_EXIT`: the exit code that
    /// vmdkit ends with.
    pub(crate) fn around(
        &self,
        source: &Path,
        dest: &Path,
        work: impl FnOnce() -> Result<Exit, Failure>,
    ) -> Result<Exit, Failure> {
        let run = |phase, command: &Option<String>, exit: Option<u8>| match command {
            Some(command) => run(phase, command, source, dest, exit),
            None => Ok(()),
        };
        let done = run("pre", &self.pre, None).and_then(|()| work());
        match done {
            Ok(exit) if matches!(exit, Exit::Done | Exit::Partial) => {
                match run("post", &self.post, Some(exit.code())) {
                    Ok(()) => Ok(exit),
                    Err(e) => {
                        if let Err(Failure::Disk(e)) =
                            run("error", &self.on_error, Some(e.exit().code()))
                        {
                            warn(e.to_string());
                        }
                        Err(e)
                    }
                }
            }
            other => {
                let code = match &other {
                    Ok(exit) => exit.code(),
                    Err(e) => e.exit().code(),
                };
                // The failure before counts.
                if let Err(Failure::Disk(e)) = run("error", &self.on_error, Some(code)) {
                    warn(e.to_string());
                }
                other
            }
        }
    }
}

fn run(
    phase: &str,
    command: &str,
    source: &Path,
    dest: &Path,
    exit: Option<u8>,
) -> Result<(), Failure> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .env("VMDKIT_PHASE", phase)
        .env("VMDKIT_SOURCE", source)
        .env("VMDKIT_DEST", dest)
        .stdin(Stdio::null());
    if let Some(exit) = exit {
        shell.env("VMDKIT_EXIT", exit.to_string());
    }
    // Standard output is vmdkit's own.
    match rustix::io::dup(rustix::stdio::stderr()) {
        Ok(stderr) => shell.stdout(Stdio::from(stderr)),
        Err(_) => shell.stdout(Stdio::null()),
    };
    let doing = format!("running the command of the phase {phase}");
    let status = shell
        .status()
        .map_err(|e| DiskError::io(&doing, &e).file("sh"))?;
    match status.success() {
        true => Ok(()),
        false => Err(DiskError::refused(doing)
            .file(command)
            .expected("an exit code of 0")
            .found(status.to_string())
            .into()),
    }
}
