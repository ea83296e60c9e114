//! `verify-report`: whether a report is what was signed.

use crate::{
    args::Global,
    exit::{Exit, Failure},
    output::Out,
    report::signature,
};
use clap::Args;
use disk_io::{ErrorKind, error::escape};
use serde::Serialize;
use std::path::PathBuf;

/// Check the signature of a report that verify --sign wrote
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit verify BACKUP --report r.json --sign minisign.key     writes r.json.minisig
  vmdkit verify-report r.json --key minisign.pub
  vmdkit verify-report r.json --key RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3

The keys and signatures are minisign's: minisign -V -m r.json -p minisign.pub says the same.
Exit code 0: good; 4: not.")]
pub(crate) struct VerifyReport {
    /// The report
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The public key: its file, or its line
    #[arg(long, value_name = "KEY")]
    key: String,
    /// The signature, if it is not FILE.minisig
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    file: String,
    good: bool,
    /// What was signed with it.
    comment: Option<String>,
    problem: Option<String>,
}

impl VerifyReport {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let checked = match signature::check(&self.file, &self.key, self.signature.as_deref()) {
            Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e.into()),
            other => other,
        };
        let exit = match checked {
            Ok(_) => Exit::Done,
            Err(_) => Exit::Bad,
        };
        let mut out = Out::new();
        if self.json {
            out.document(&Json {
                file: self.file.display().to_string(),
                good: checked.is_ok(),
                comment: checked.as_ref().ok().cloned(),
                problem: checked.as_ref().err().map(ToString::to_string),
            })?;
        } else {
            match &checked {
                Ok(comment) if global.quiet => drop(comment.as_str()),
                Ok(comment) => out.line(format!("GOOD: {}", escape(comment)))?,
                Err(e) => out.line(format!("BAD: {e}"))?,
            }
        }
        out.finish()?;
        Ok(exit)
    }
}
