//! The command line that verbs share.

use crate::{
    exit::{Exit, Failure},
    fstab, keeper,
    times::Zone,
    verb,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use convert::restore::Filter;
use std::{ffi::OsString, path::PathBuf, sync::OnceLock};

/// Reads virtual disks and restores files out of them.
///
/// SOURCE is a VMDK descriptor or extent of any kind, a delta with its parents beside it,
/// another disk image, or a block device. What it is is found out from its contents. Every
/// verb shows the same tree: /p1, /p2 … for the partitions (/p0 where there is no table).
#[derive(Debug, Parser)]
#[command(
    name = "vmdkit",
    version,
    propagate_version = false,
    max_term_width = 100
)]
#[command(after_help = "\
Examples:
  vmdkit info web01.vmdk                              what is it, and what is on it?
  vmdkit ls -l web01-000002.vmdk /p1/Users            as of that snapshot
  vmdkit cp -r web01.vmdk /p1/Users/anna ./restored   files out, no root needed
  vmdkit mount web01.vmdk /mnt                        read-only; vmdkit umount /mnt
  vmdkit vm /backups                                  which machines, which snapshots?
  vmdkit convert web01.vmdk web01.raw --to raw
  vmdkit check web01-000002.vmdk                      is every link of it sound?

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done in part, 4 checked and found bad,
128+n ended by signal n.
'vmdkit VERB --help' has examples for each verb.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// For all verbs.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// No progress bar, no notes; errors and warnings still
    #[arg(help_heading = "For all verbs", long, short, global = true)]
    pub(crate) quiet: bool,
    /// How much the inner parts say on standard error
    #[arg(
        help_heading = "For all verbs",
        long,
        value_name = "LEVEL",
        global = true,
        default_value = "warn"
    )]
    pub(crate) log_level: LogLevel,
    /// Show times in this zone (UTC, local, +02:00, Europe/Berlin), and take FAT's
    /// local times to be of it
    #[arg(
        help_heading = "For all verbs",
        long,
        value_name = "ZONE",
        global = true
    )]
    pub(crate) tz: Option<Zone>,
    /// End with an error rather than have more than SIZE in memory (such as 200M)
    #[arg(
        help_heading = "For all verbs",
        long,
        value_name = "SIZE",
        global = true,
        value_parser = crate::image_format::size
    )]
    pub(crate) max_memory: Option<u64>,
}

impl Global {
    /// The zone to show times in.
    pub(crate) fn zone(&self) -> Zone {
        self.tz.clone().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub(crate) fn level(self) -> tracing::Level {
        match self {
            Self::Error => tracing::Level::ERROR,
            Self::Warn => tracing::Level::WARN,
            Self::Info => tracing::Level::INFO,
            Self::Debug => tracing::Level::DEBUG,
            Self::Trace => tracing::Level::TRACE,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Info(verb::info::Info),
    Vm(verb::vm::Vm),
    Ls(verb::ls::Ls),
    Stat(verb::stat::Stat),
    Cat(verb::cat::Cat),
    Cp(verb::cp::Cp),
    Find(verb::find::Find),
    History(verb::history::History),
    Tar(verb::tar::Tar),
    Map(verb::map::Map),
    Check(verb::check::Check),
    Verify(verb::verify::Verify),
    VerifyReport(verb::verify_report::VerifyReport),
    Diff(verb::diff::Diff),
    Drill(verb::drill::Drill),
    Mount(verb::mount::Mount),
    Umount(verb::umount::Umount),
    #[command(hide = true)]
    KeepMount(keeper::KeepMount),
    Cleanup(verb::umount::Cleanup),
    Convert(verb::convert::Convert),
    Create(verb::create::Create),
    Commit(verb::merge::Commit),
    Rebase(verb::merge::Rebase),
    Export(verb::export::Export),
    Restore(verb::restore::Restore),
    Replicate(verb::replicate::Replicate),
    Vcb(verb::vcb::Vcb),
    Completions(verb::docs::Completions),
    Man(verb::docs::Man),
}

impl Verb {
    /// Whether what is noticed of a disk is part of what the verb prints.
    pub(crate) fn tells_remarks(&self) -> bool {
        matches!(self, Self::Info(_) | Self::Check(_) | Self::Verify(_))
    }

    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Info(v) => v.run(global),
            Self::Vm(v) => v.run(global),
            Self::Ls(v) => v.run(global),
            Self::Stat(v) => v.run(global),
            Self::Cat(v) => v.run(global),
            Self::Cp(v) => v.run(global),
            Self::Find(v) => v.run(global),
            Self::History(v) => v.run(global),
            Self::Tar(v) => v.run(global),
            Self::Map(v) => v.run(global),
            Self::Check(v) => v.run(global),
            Self::Verify(v) => v.run(global),
            Self::VerifyReport(v) => v.run(global),
            Self::Diff(v) => v.run(global),
            Self::Drill(v) => v.run(global),
            Self::Mount(v) => v.run(global),
            Self::Umount(v) => v.run(),
            Self::KeepMount(v) => v.run(),
            Self::Cleanup(v) => v.run(),
            Self::Convert(v) => v.run(global),
            Self::Create(v) => v.run(global),
            Self::Commit(v) => v.run(global),
            Self::Rebase(v) => v.run(global),
            Self::Export(v) => v.run(global),
            Self::Restore(v) => v.run(global),
            Self::Replicate(v) => v.run(global),
            Self::Vcb(v) => v.run(global),
            Self::Completions(v) => v.run(),
            Self::Man(v) => v.run(),
        }
    }
}

/// What of a tree is taken.
#[derive(Clone, Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only what matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Not what matches, a directory with everything in it (repeatable)
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Patterns match in upper and lower case
    #[arg(long)]
    ignore_case: bool,
}

impl FilterArgs {
    pub(crate) fn filter(&self) -> Result<Filter, Failure> {
        Filter::new(&self.include, &self.exclude, self.ignore_case).map_err(Failure::usage)
    }
}

/// SOURCE and how it is opened.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceArgs {
    /// Disk image, descriptor, extent, delta or block device; a machine's .vmx or its
    /// directory; a directory of dated backups of one
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// What of guest file systems is shown that is hidden otherwise.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct GuestArgs {
    /// The file systems' metafiles too ($MFT, …), and deleted files of NTFS and FAT below
    /// $deleted in each volume
    #[arg(help_heading = "How guest files are read", long)]
    pub(crate) meta: bool,
    /// Take what is there of files whose contents are elsewhere (deduplicated, cloud, SIS …);
    /// their reparse points are streams $REPARSE_POINT
    #[arg(help_heading = "How guest files are read", long)]
    pub(crate) raw_reparse: bool,
    /// Take the cipher text of files encrypted by EFS; their keys are streams $EFS
    #[arg(help_heading = "How guest files are read", long)]
    pub(crate) efs_raw: bool,
}

/// The options of SOURCE.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct HowArgs {
    /// Take SOURCE for this format instead of looking (vmdk, raw, qcow2, vhd, …)
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Look SOURCE up in this datastore (repeatable): a VMFS volume, whose further devices
    /// follow after commas and whose partition #pN picks; an OVA package; or a directory
    #[arg(
        help_heading = "How SOURCE is opened",
        long,
        short = 'D',
        value_name = "[NAME=]D[,D…]"
    )]
    pub(crate) datastore: Vec<proxy::DatastoreSpec>,
    /// A further member of the set that SOURCE belongs to: a disk of its LVM2 or LDM group,
    /// a device of its VMFS volume (repeatable, in any order)
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "DISK")]
    pub(crate) with: Vec<PathBuf>,
    /// Go on where a member of the set is missing: what lies on it fails to read
    #[arg(help_heading = "How SOURCE is opened", long)]
    pub(crate) allow_missing: bool,
    /// Extents and parents may also lie beneath DIR (repeatable)
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "DIR")]
    pub(crate) allow_dir: Vec<PathBuf>,
    /// Extents may also be this block device (repeatable)
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "DEVICE")]
    pub(crate) allow_device: Vec<PathBuf>,
    /// Go on where a parent was changed after its child was made: contents may be wrong
    #[arg(help_heading = "How SOURCE is opened", long)]
    pub(crate) ignore_cid: bool,
    /// Read a seSparse disk whose journal was not replayed: contents may be wrong
    #[arg(help_heading = "How SOURCE is opened", long)]
    pub(crate) ignore_dirty_journal: bool,
    /// Use FILE where the lowest link's parent is missing or does not match
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "FILE")]
    pub(crate) parent: Option<PathBuf>,
    /// A snapshot instead of the present state, of a machine or of a qcow2 image: id:N,
    /// name:TEXT, date:PREFIX, or a name
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "POINT")]
    pub(crate) snapshot: Option<String>,
    /// Which disk of a machine or package: scsi0:0 (scsi0-0 is the same), ide1:0, …
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "PLACE")]
    pub(crate) disk: Option<String>,
    /// Code page of FAT's short names
    #[arg(help_heading = "How SOURCE is opened", long, value_name = "NUMBER")]
    pub(crate) code_page: Option<u16>,
}

/// The command line's definition.
pub(crate) fn command() -> clap::Command {
    use clap::CommandFactory;
    Cli::command()
}

static STAND_IN: OnceLock<Vec<OsString>> = OnceLock::new();

/// From now on the command line is this one: a verb that runs another.
pub(crate) fn stand_in(line: Vec<OsString>) {
    let _ = STAND_IN.set(line);
}

/// The command line without the program's name, as it is to be run.
pub(crate) fn line() -> Vec<OsString> {
    match STAND_IN.get() {
        Some(line) => line.iter().skip(1).cloned().collect(),
        None => std::env::args_os().skip(1).collect(),
    }
}

/// The command line, where the program's name says which command it is.
/// None if there is nothing to do.
pub(crate) fn by_program_name(
    args: impl Iterator<Item = OsString>,
) -> Result<Option<Vec<OsString>>, Failure> {
    let mut args: Vec<OsString> = args.collect();
    if args.first().is_some_and(fstab::is_helper) {
        let line = fstab::translate(&args).map_err(Failure::usage)?;
        if let Some(line) = &line {
            // The process that serves is started by the program's own name.
            stand_in(line.clone());
        }
        return Ok(line);
    }
    if let Some(command) = args.first().and_then(|p| verb::vcb::by_name(p)) {
        args.splice(1..1, ["vcb".into(), command.into()]);
    }
    Ok(Some(args))
}

/// The words of find(1) have one dash; ours have two, as every option of several letters.
const FIND_WORDS: [&str; 7] = ["name", "iname", "size", "newer", "older", "type", "print0"];

/// The command line with `-name` and its like of the verb `find` spelled `--name`.
pub(crate) fn with_long_spellings(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    // Of the options before the verb, two have a value of their own.
    let mut value = false;
    let verb = args.iter().skip(1).find(|a| {
        let skip = value || a.as_encoded_bytes().starts_with(b"-");
        value = *a == "--tz" || *a == "--log-level";
        !skip
    });
    if verb.is_none_or(|v| v != "find") {
        return args;
    }
    for arg in args.iter_mut().skip(2) {
        if arg == "--" {
            break;
        }
        let word = arg.to_str().and_then(|a| a.strip_prefix('-'));
        if let Some(word) = word.filter(|w| FIND_WORDS.contains(w)) {
            *arg = format!("--{word}").into();
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_find() {
        let long = |line: &str| {
            let args = line.split(' ').map(OsString::from);
            let args = with_long_spellings(args);
            args.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(
            long("vmdkit --quiet find d -name x -size -5 -0 --iname y -print0"),
            "vmdkit --quiet find d --name x --size -5 -0 --iname y --print0"
        );
        assert_eq!(long("vmdkit find d -- -name"), "vmdkit find d -- -name");
        assert_eq!(long("vmdkit ls d -name"), "vmdkit ls d -name");
        assert_eq!(
            long("vmdkit --tz UTC find d -name x"),
            "vmdkit --tz UTC find d --name x"
        );
    }
}
