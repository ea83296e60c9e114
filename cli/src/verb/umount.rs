//! `umount` and `cleanup`.

use crate::{
    exit::{Exit, Failure, tell_error},
    output::Out,
};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Take a mount away, even if its process died
#[derive(Debug, Args)]
#[command(visible_alias = "unmount")]
#[command(after_help = "\
Examples:
  vmdkit umount /mnt
  vmdkit umount --lazy /mnt       at once; programs that have files open keep them")]
pub(crate) struct Umount {
    /// Where it is mounted
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Detach it at once, even if files of it are open
    #[arg(long, short)]
    lazy: bool,
}

impl Umount {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let mut failed = 0;
        for dir in &self.dirs {
            if let Err(e) = proxy::umount(dir, self.lazy) {
                tell_error(&e);
                failed += 1;
            }
        }
        Ok(match failed {
            0 => Exit::Done,
            n if n < self.dirs.len() => Exit::Partial,
            _ => Exit::Failed,
        })
    }
}

/// Take away every mount of ours whose process died, and its state
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit cleanup          after a crash or kill -9; mounts that are served are left alone")]
pub(crate) struct Cleanup {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Cleaned {
    dir: String,
    source: String,
    removed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Cleanup {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let cleaned = proxy::cleanup();
        let failed = cleaned.iter().any(|c| c.error.is_some());
        let mut out = Out::new();
        if self.json {
            let all: Vec<Cleaned> = cleaned
                .iter()
                .map(|c| Cleaned {
                    dir: c.dir.display().to_string(),
                    source: c.source.display().to_string(),
                    removed: c.error.is_none(),
                    error: c.error.as_ref().map(ToString::to_string),
                })
                .collect();
            out.document(&serde_json::json!({ "cleaned": all }))?;
        } else {
            for c in &cleaned {
                match &c.error {
                    None => out.line(format!("{} ({})", c.dir.display(), c.source.display()))?,
                    Some(e) => tell_error(e),
                }
            }
        }
        out.finish()?;
        Ok(Exit::partial_if(failed))
    }
}
