//! `replicate`: an older copy of a disk is brought up to date by what changed.

use crate::{
    args::{Global, HowArgs, SourceArgs},
    disk_doubts,
    exit::{Exit, Failure},
    guard, guest,
    output::{Out, human, say, warn},
    progress::Bar,
    signals,
    since::{Found, by_chain, chain_of, read_list},
    source,
    used::used_only,
};
use clap::Args;
use convert::{
    ImageFormat, Progress,
    backup::ChainLink,
    replicate::{Form, From, Have, How, Part, Recovered, Replica, Report, Standing, send},
};
use disk_image::write::new_id;
use disk_io::{Disk, DiskError, Result as DiskResult, error::shell_word};
use proxy::{GuestState, Source, SourceSpec, Tree, TreeOptions};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, IsTerminal},
    path::{Path, PathBuf},
};
use vmdk::writer::{self, Subformat};

/// Bring an older copy of a disk up to date by what changed
///
/// TARGET is a raw disk or a VMDK with flat extents; if there is none it is made. What changed
/// is written beside it and proven first: if this is cut off at any point TARGET is the old
/// disk, or has no name until the same command ends it as the new one. What TARGET has is noted
/// in TARGET.replica.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit replicate web01.vmdk /hot/web01.raw          the first time a copy, then changes
  vmdkit replicate web01 --disk scsi0:1 --snapshot id:7 /hot/data.vmdk
  vmdkit replicate --force /hot/web01.raw web01.raw   back again, after the copy has run

Over ssh, in one line; if it breaks off the same line goes on where it was:
  ssh hot vmdkit replicate --have web01.raw | vmdkit replicate --send web01.vmdk --since - |
      ssh hot vmdkit replicate --receive web01.raw

Where SOURCE has only new deltas on top of what TARGET was brought to, only these are read;
otherwise SOURCE is read once and compared by the SHA-256 of every MiB. A TARGET that was
written to since is refused; --force reads all of it, and what was written is lost.")]
pub(crate) struct Replicate {
    /// The disk as it is now, in any format
    #[arg(value_name = "SOURCE")]
    first: PathBuf,
    /// Its older copy, or a new file: with .vmdk a flat VMDK, otherwise a raw disk
    #[arg(value_name = "TARGET", required_unless_present_any = ["send", "receive", "have"],
          conflicts_with_all = ["send", "receive", "have"])]
    target: Option<PathBuf>,
    /// Write what changed in SOURCE to standard output, for --receive
    #[arg(long, group = "mode")]
    send: bool,
    /// Bring the TARGET named instead of SOURCE up to date with what standard input has
    #[arg(long, group = "mode")]
    receive: bool,
    /// Write what the TARGET named instead of SOURCE has to standard output, for --since
    #[arg(long, group = "mode")]
    have: bool,
    /// What the target has (a file, or - for standard input); without it all is sent
    #[arg(long, value_name = "HAVE", requires = "send")]
    since: Option<PathBuf>,
    /// A list of all blocks that changed, as ESXi's QueryChangedDiskAreas gives it in JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["receive", "have"])]
    changed_blocks: Option<PathBuf>,
    /// Make zeros of what the guest's file systems say is free
    #[arg(long, conflicts_with_all = ["receive", "have"])]
    used_only: bool,
    /// Take a TARGET of which nothing is known, or that was written to since: all of it is
    /// compared, and what differs is lost
    #[arg(long, short, conflicts_with = "send")]
    force: bool,
    /// TARGET is a raw disk, whatever it looks like
    #[arg(long, conflicts_with = "send")]
    raw_target: bool,
    /// Read TARGET afterwards and compare it with what it must be
    #[arg(long, conflicts_with_all = ["send", "have"])]
    verify: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Print JSON; with --send on standard error
    #[arg(long, conflicts_with = "have")]
    json: bool,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Serialize)]
struct Json<'a> {
    source: Option<String>,
    target: Option<String>,
    /// How the changes were found.
    found_by: Option<&'static str>,
    virtual_size: u64,
    digest: &'a str,
    changed_units: u64,
    changed_bytes: u64,
    sent_bytes: u64,
    read_bytes: u64,
    kept_units: u64,
    recovered: bool,
    verified: bool,
    left_out: Vec<String>,
    warnings: &'a [String],
}

/// What is told of a replication.
#[derive(Default)]
struct Told<'a> {
    source: Option<&'a Path>,
    target: Option<&'a Path>,
    found: Option<Found>,
    recovered: bool,
    verified: bool,
    left_out: Vec<String>,
    warnings: &'a [String],
}

/// A source, ready to be read.
struct Reading {
    from: From,
    found: Found,
    left_out: Vec<String>,
}

/// Whoever fails back puts an older disk where a newer one was.
fn tell_of_domain_controller(source: &std::sync::Arc<Source>) {
    if let Ok(tree) = Tree::new(source.clone(), TreeOptions::default()) {
        guest::tell(&GuestState::of_domain_controller(&tree));
    }
}

impl Replicate {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        signals::watch();
        match &self.target {
            Some(target) => self.local(target, global),
            None if self.send => self.send(global),
            None if self.receive => self.receive(global),
            None => self.have(global),
        }
    }

    fn how<'a>(&self, target: &Path, progress: &'a dyn Progress) -> How<'a> {
        let [a, b, c, d, ..] = new_id();
        let cid = writer::Identity::new(u32::from_le_bytes([a, b, c, d]) & 0x7fff_ffff);
        let is_vmdk = target
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("vmdk"));
        let format = match is_vmdk && !self.raw_target {
            true => ImageFormat::Vmdk(writer::Options::new(Subformat::MonolithicFlat, cid.clone())),
            false => ImageFormat::Raw,
        };
        How {
            workers: self.jobs,
            cid: cid.cid,
            format,
            force: self.force,
            now: crate::clock::now().to_string(),
            progress,
        }
    }

    /// A name that promises another format than is written.
    fn check_name(&self, target: &Path) -> Result<(), Failure> {
        let extension = target.extension().unwrap_or_default();
        let extension = extension.to_string_lossy().to_ascii_lowercase();
        let promises = ["qcow2", "vhd", "vhdx", "vdi", "ova", "ovf"].contains(&extension.as_str());
        match promises && !self.raw_target && target.symlink_metadata().is_err() {
            true => Err(Failure::usage_with(
                format!(
                    "TARGET is a raw disk or a VMDK, and .{extension} is the name of another format"
                ),
                "call it .raw or .vmdk; --raw-target means a raw disk whatever its name",
            )),
            false => Ok(()),
        }
    }

    fn open(&self, global: &Global) -> Result<std::sync::Arc<Source>, Failure> {
        let args = SourceArgs {
            source: self.first.clone(),
            how: self.how.clone(),
        };
        source::open(&args, global)
    }

    /// What is read, and what of it can differ from a target brought to `then`.
    fn reading(&self, source: &Source, then: Option<&[ChainLink]>) -> Result<Reading, Failure> {
        let mut left_out = Vec::new();
        let mut chain = chain_of(source);
        let disk = match self.used_only {
            true => {
                let (disk, out) = used_only(source, false);
                left_out.push(format!("{} that no file uses", human(out.bytes)));
                left_out.extend(out.whole.iter().map(ToString::to_string));
                // What is free can change without a delta that says so.
                chain.clear();
                disk
            }
            false => source.disk().clone(),
        };
        let by_list = match &self.changed_blocks {
            Some(list) => Some((Found::List, read_list(list, disk.len())?)),
            None => None,
        };
        let by_chain = match then.filter(|_| !self.used_only && by_list.is_none()) {
            Some(then) => by_chain(source, &chain, then)?.map(|ranges| (Found::Chain, ranges)),
            None => None,
        };
        let (found, candidates) = match by_list.or(by_chain).filter(|_| then.is_some()) {
            Some((found, ranges)) => (found, Some(ranges)),
            None if then.is_some() => (Found::Hashes, None),
            None => (Found::Whole, None),
        };
        Ok(Reading {
            from: From {
                disk,
                name: source.path().display().to_string(),
                files: source::files(source),
                chain,
                candidates,
            },
            found,
            left_out,
        })
    }

    fn local(&self, target: &Path, global: &Global) -> Result<Exit, Failure> {
        self.check_name(target)?;
        let source = self.open(global)?;
        let bar = Bar::new(global, source.disk().len());
        let how = self.how(target, &bar);
        let mut replica = Replica::open(target)?;
        let recovered = self.recover(&mut replica, target, &how)?;
        self.take(&mut replica, target, &source::files(&source), &how)?;
        let then = match replica.standing() {
            Standing::Absent => None,
            _ => replica.state().map(|s| s.chain.clone()),
        };
        let shared = disk_doubts::tell(&source)?;
        let warnings = [source.warnings(), shared.as_slice()].concat();
        let reading = self.reading(&source, then.as_deref())?;
        tell_of_domain_controller(&source);
        let report = match then {
            Some(_) => replica.update(&reading.from, &how)?,
            None => replica.make(&reading.from, &how)?,
        };
        let verified = self.verify && prove(&replica, &report, &how)?;
        drop(bar);
        let told = Told {
            source: Some(source.path()),
            target: Some(target),
            found: Some(reading.found),
            recovered,
            verified,
            left_out: reading.left_out,
            warnings: &warnings,
        };
        Ok(self
            .tell(global, &report, told)?
            .or_partial(!shared.is_empty()))
    }

    fn recover(
        &self,
        replica: &mut Replica,
        target: &Path,
        how: &How<'_>,
    ) -> Result<bool, Failure> {
        let recovered = replica.recover(how)?;
        let target = target.display();
        match recovered {
            Recovered::Nothing => {}
            Recovered::Ended => warn(format!(
                "{target}: a replication was cut off while it was written; it is complete now"
            )),
            Recovered::Anew => warn(format!(
                "{target}: a first replication was cut off before it had its name; it is made anew"
            )),
        }
        Ok(recovered == Recovered::Ended)
    }

    /// Sees to it that TARGET is one that may be written to, and that what it has is known.
    fn take(
        &self,
        replica: &mut Replica,
        target: &Path,
        sources: &[PathBuf],
        how: &How<'_>,
    ) -> Result<(), Failure> {
        let refused = || DiskError::refused("replicating").file(target.display());
        match replica.standing() {
            Standing::Absent | Standing::Kept => return Ok(()),
            Standing::Foreign if !self.force => {
                return Err(refused()
                    .code("replica-unknown")
                    .expected("a copy that vmdkit replicate made, or no file")
                    .found("a file of which nothing is known")
                    .hint("--force compares all of it with SOURCE, and what differs is lost")
                    .into());
            }
            Standing::Ran(file, found) if !self.force => {
                let since = replica.state().map(|s| s.replicated.clone());
                return Err(refused()
                    .code("replica-ran")
                    .file(file.display())
                    .expected(format!("what it was on {}", since.unwrap_or_default()))
                    .found(format!("{found}: it was written to since"))
                    .hint(
                        "to keep what was written replicate the other way; \
                         --force compares all of it, and what was written is lost",
                    )
                    .into());
            }
            Standing::Foreign | Standing::Ran(..) => {}
        }
        let (form, parts) = self.parts(target)?;
        let files = parts.iter().map(|p| target.with_file_name(&p.file));
        for file in files.chain([target.to_path_buf()]) {
            let sources = sources.iter().map(PathBuf::as_path);
            convert::place::check_not_source(&file, sources)?;
        }
        replica.adopt(form, parts, how)?;
        Ok(())
    }

    /// The files of a target of which nothing is known.
    fn parts(&self, target: &Path) -> Result<(Form, Vec<Part>), Failure> {
        let refused = || DiskError::refused("replicating").file(target.display());
        let found = target.symlink_metadata();
        let found = found.map_err(|e| DiskError::io("looking at", &e).file(target.display()))?;
        if !found.is_file() {
            return Err(refused()
                .expected("a regular file")
                .found("a link, directory or device")
                .into());
        }
        let part = |file: &Path, start, len, offset| {
            let beside = file.parent().map(Path::canonicalize);
            let own = target.canonicalize();
            let here = own.ok().and_then(|t| t.parent().map(Path::to_path_buf));
            let name = file.file_name().and_then(|n| n.to_str());
            match (name, beside) {
                (Some(name), Some(Ok(dir))) if Some(&dir) == here.as_ref() => Ok(Part {
                    file: name.to_owned(),
                    start,
                    len,
                    offset,
                    size: 0,
                    modified: (0, 0),
                }),
                _ => Err(Failure::from(
                    refused()
                        .expected("extents beside their descriptor")
                        .found(file.display().to_string()),
                )),
            }
        };
        let own = target.canonicalize();
        let own = own.map_err(|e| DiskError::io("looking at", &e).file(target.display()))?;
        if self.raw_target {
            return Ok((Form::Raw, vec![part(&own, 0, found.len(), 0)?]));
        }
        let spec = SourceSpec {
            path: target.to_path_buf(),
            ..SourceSpec::default()
        };
        let opened = Source::open(&spec).map_err(|e| {
            e.hint("a raw disk with nothing on it that is known needs --raw-target")
        })?;
        let image = opened.image();
        let Some(vmdk) = &image.vmdk else {
            return match image.format {
                disk_image::Format::Raw => Ok((Form::Raw, vec![part(&own, 0, found.len(), 0)?])),
                other => Err(refused()
                    .expected("a raw disk or a VMDK with flat extents")
                    .found(other.title())
                    .hint(format!(
                        "make a new copy: vmdkit replicate SOURCE {}",
                        shell_word(&target.with_extension("raw").display().to_string())
                    ))
                    .into()),
            };
        };
        let flat = |e: &vmdk::ExtentInfo| match &e.file {
            Some(file) if e.sparse.is_none() => Some(part(file, e.start, e.len, e.offset)),
            _ => None,
        };
        let parts: Option<Vec<_>> = match vmdk.links() {
            [link] if link.path.file_name() == target.file_name() => {
                link.extents.iter().map(flat).collect()
            }
            _ => None,
        };
        match parts.filter(|p| !p.is_empty()) {
            Some(parts) => Ok((Form::Vmdk, parts.into_iter().collect::<Result<_, _>>()?)),
            None => Err(refused()
                .expected("a VMDK with flat extents and no parent")
                .found("one that is sparse, or a delta")
                .hint("make a new copy: vmdkit replicate SOURCE NEW.vmdk")
                .into()),
        }
    }

    fn have(&self, global: &Global) -> Result<Exit, Failure> {
        no_terminal("what a target has")?;
        let bar = Bar::new(global, 0);
        let target = &self.first;
        let how = self.how(target, &bar);
        let mut replica = Replica::open(target)?;
        self.recover(&mut replica, target, &how)?;
        self.take(&mut replica, target, &[], &how)?;
        replica.tell(&mut BufWriter::new(io::stdout().lock()))?;
        Ok(Exit::Done)
    }

    fn send(&self, global: &Global) -> Result<Exit, Failure> {
        no_terminal("what changed")?;
        let have = match &self.since {
            None => Have::nothing(),
            Some(file) if file.as_os_str() == "-" => {
                Have::read(io::stdin().lock(), "standard input")?
            }
            Some(file) => {
                let opened = File::open(file);
                let opened =
                    opened.map_err(|e| DiskError::io("opening", &e).file(file.display()))?;
                Have::read(BufReader::new(opened), &file.display().to_string())?
            }
        };
        let source = self.open(global)?;
        guard::check_stdout(&source)?;
        let then = have.digest.is_some().then_some(have.chain.as_slice());
        let shared = disk_doubts::tell(&source)?;
        let warnings = [source.warnings(), shared.as_slice()].concat();
        let reading = self.reading(&source, then)?;
        let bar = Bar::new(global, source.disk().len());
        let how = self.how(Path::new(""), &bar);
        let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
        let report = send(&reading.from, &have, &mut out, &how)?;
        drop(bar);
        let told = Told {
            source: Some(source.path()),
            found: Some(reading.found),
            left_out: reading.left_out,
            warnings: &warnings,
            ..Told::default()
        };
        Ok(self
            .tell(global, &report, told)?
            .or_partial(!shared.is_empty()))
    }

    fn receive(&self, global: &Global) -> Result<Exit, Failure> {
        let bar = Bar::new(global, 0);
        let target = &self.first;
        let how = self.how(target, &bar);
        // Nothing comes before --send has heard what there is: until then the target is free for
        // --have in the same pipe.
        let mut stream = io::stdin().lock();
        stream
            .fill_buf()
            .map_err(|e| DiskError::io("reading", &e).file("standard input"))?;
        self.check_name(target)?;
        let mut replica = Replica::open(target)?;
        let recovered = self.recover(&mut replica, target, &how)?;
        self.take(&mut replica, target, &[], &how)?;
        let report = replica.receive(stream, "standard input", &how)?;
        let verified = self.verify && prove(&replica, &report, &how)?;
        drop(bar);
        let told = Told {
            target: Some(target),
            recovered,
            verified,
            ..Told::default()
        };
        self.tell(global, &report, told)
    }

    fn tell(&self, global: &Global, report: &Report, told: Told<'_>) -> Result<Exit, Failure> {
        let shown = |path: Option<&Path>| path.map(|p| p.display().to_string());
        if self.json {
            let json = Json {
                source: shown(told.source),
                target: shown(told.target),
                found_by: told.found.map(Found::as_str),
                virtual_size: report.size,
                digest: &report.digest,
                changed_units: report.units,
                changed_bytes: report.changed,
                sent_bytes: report.sent,
                read_bytes: report.read,
                kept_units: report.kept,
                recovered: told.recovered,
                verified: told.verified,
                left_out: told.left_out,
                warnings: told.warnings,
            };
            if self.send {
                say(serde_json::to_string(&json)?);
                return Ok(Exit::Done);
            }
            let mut out = Out::new();
            out.document(&json)?;
            out.finish()?;
            return Ok(Exit::Done);
        }
        if global.quiet {
            return Ok(Exit::Done);
        }
        let mut lines = Vec::new();
        if let Some(target) = shown(told.target) {
            lines.push(format!("target        {target}"));
        }
        if let Some(found) = told.found {
            lines.push(format!("found by      {}", found.as_str()));
        }
        let units = report.size.div_ceil(1 << 20);
        let plain = |n: u64| format!("{n} ({})", human(n));
        lines.push(format!("changed       {} of {units} MiB", report.units));
        lines.push(format!("bytes         {}", plain(report.changed)));
        if report.kept > 0 {
            lines.push(format!("had come      {} MiB", report.kept));
        }
        if report.sent > 0 {
            lines.push(format!("sent          {}", plain(report.sent)));
        }
        if report.read > 0 {
            lines.push(format!("read          {}", plain(report.read)));
        }
        lines.extend(told.left_out.iter().map(|w| format!("left out      {w}")));
        lines.push(format!("digest        vmdkit:{}", report.digest));
        if told.verified {
            lines.push("verified      read back, the same contents".into());
        }
        if self.send {
            lines.iter().for_each(say);
            return Ok(Exit::Done);
        }
        let mut out = Out::new();
        for line in lines {
            out.line(line)?;
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

fn no_terminal(what: &str) -> Result<(), Failure> {
    match io::stdout().is_terminal() {
        true => Err(Failure::usage_with(
            format!("{what} is not written to a terminal"),
            "redirect it to a file or pipe",
        )),
        false => Ok(()),
    }
}

/// Reads the target again.
fn prove(replica: &Replica, report: &Report, how: &How<'_>) -> DiskResult<bool> {
    match replica.digest(how)? {
        digest if digest == report.digest => Ok(true),
        digest => Err(DiskError::corrupt("reading the target again")
            .expected(format!("the contents {}", report.digest))
            .found(digest)),
    }
}
