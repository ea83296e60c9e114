//! `restore`: a whole machine back, ready to register.

use crate::{
    args::{Global, SourceArgs},
    backup::{Taken, take},
    disk_doubts,
    exit::{Exit, Failure},
    guest::{self, GuestJson},
    output::{Out, human},
    package,
    progress::Bar,
    signals, spool,
};
use clap::{Args, ValueEnum};
use convert::{
    ImageFormat,
    backup::{self, Changes, Gaps, Identity, Naming, Options, Written},
};
use disk_image::write::new_id;
use disk_io::error::escape;
use proxy::GuestState;
use serde::Serialize;
use std::path::PathBuf;
use vmdk::writer::{self, Subformat};

/// Write a whole machine back into a new directory, ready to register
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit restore /backups/web01-2026-11-26 ./web01
  vmdkit restore web01 --snapshot id:3 ./web01-before-patch
  vmdkit restore BACKUP ./copy --name copy --uuid new --mac new   beside the original
  ssh host 'cat web01.tar' | vmdkit restore - ./web01         what export - wrote
  vmdkit restore /archive/vcb/web01 ./web01 --subformat vmfs
  vmdkit restore appliance.ova ./appliance
  vmdkit restore -D vapp.ova db01.vmx ./db01                 one of a package's machines

SOURCE is a backup of ours, a machine's directory, one that VMware Consolidated Backup or
ESX 2 left behind, or a package (OVA, OVF), of which a configuration is made. Where it has a
manifest, what is written is compared with it, and nothing is left if it differs.")]
pub(crate) struct Restore {
    #[command(flatten)]
    source: SourceArgs,
    /// A new directory
    #[arg(value_name = "DIR")]
    dest: PathBuf,
    /// What the machine is called
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Subformat of the disks: monolithicSparse, vmfs, monolithicFlat, …
    #[arg(long, value_name = "KIND")]
    subformat: Option<String>,
    /// Keep the machine's uuid, or let the host give it a new one
    #[arg(long, value_enum, default_value_t = Keep::Keep)]
    uuid: Keep,
    /// Keep the addresses of its network adapters, or let the host give new ones
    #[arg(long, value_enum, default_value_t = Keep::Keep)]
    mac: Keep,
    /// Restore a package (OVA, OVF) whose files are not what its manifest says
    #[arg(long)]
    ignore_manifest: bool,
    /// Take the machine's saved memory along, so that it goes on where it was
    #[arg(long)]
    with_memory: bool,
    /// Say what would be written and what the guest says of itself, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Keep {
    /// It is the same machine
    Keep,
    /// It is a copy beside the original
    New,
}

impl From<Keep> for Identity {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Keep => Self::Keep,
            Keep::New => Self::New,
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    destination: String,
    config: Option<&'a str>,
    /// Whether nothing was written.
    dry_run: bool,
    /// Of all disks.
    virtual_size: u64,
    disks: &'a [backup::DiskEntry],
    written: u64,
    proven: bool,
    left_out: &'a [String],
    warnings: &'a [String],
    guest: GuestJson,
}

impl Restore {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let subformat: Subformat = match &self.subformat {
            Some(text) => text.parse().map_err(Failure::usage)?,
            None => Subformat::default(),
        };
        signals::watch();
        let changes = Changes {
            name: self.name.clone(),
            uuid: self.uuid.into(),
            mac: self.mac.into(),
            resume: None,
        };
        if self.with_memory && (self.uuid == Keep::New || self.mac == Keep::New) {
            return Err(Failure::usage(
                "--with-memory is for the same machine: a running guest does not take a new uuid or address",
            ));
        }
        backup::check_dest(&self.dest)?;
        let mut args = self.source.clone();
        // It goes when the machine is written.
        let spooled = match args.source.as_os_str() == "-" {
            true => Some(spool::archive(&spool::beside(&self.dest))?),
            false => None,
        };
        if let Some(dir) = &spooled {
            args.source = dir.path().to_path_buf();
        }
        let mut taken = take(&args, global, changes, self.with_memory)?;
        if let Some(path) = taken.package.as_ref().filter(|_| !self.ignore_manifest) {
            taken.proven = package::check_file(path, global)?;
        }
        let mut missing = taken.tell();
        let shared = disk_doubts::tell_all(&taken.sources)?;
        missing |= !shared.is_empty();
        taken.warnings.extend(shared);
        let machine = taken.parts.machine.as_ref();
        let state = match machine {
            Some(machine) => guest::of_machine(&taken.sources, &machine.config),
            None => guest::of(&taken.sources),
        };
        guest::tell(&state);
        if self.dry_run {
            return self.told(&taken, &state, None, missing, global);
        }
        if !self.json && !global.quiet {
            // Before anything is written, so that it can still be stopped.
            let mut out = Out::new();
            guest::lines(&mut out, &state, "")?;
            out.finish()?;
        }
        let bar = Bar::new(global, taken.len());
        let format = |_| {
            let [a, b, c, d, ..] = new_id();
            let identity = writer::Identity::new(u32::from_le_bytes([a, b, c, d]) & 0x7fff_ffff);
            let options = writer::Options::new(subformat, identity);
            Ok((ImageFormat::Vmdk(options), "vmdk"))
        };
        let options = Options {
            format: &format,
            naming: Naming::Plain,
            manifest: false,
            origin: (String::new(), String::new()),
            identity: None,
            workers: self.jobs,
            split: None,
            since: None,
            gaps: Gaps::default(),
        };
        let written = backup::write(&taken.parts, &self.dest, &options, &bar)?;
        drop(bar);
        self.told(&taken, &state, Some(&written), missing, global)
    }

    /// What was written, or with --dry-run what would be.
    fn told(
        &self,
        taken: &Taken,
        state: &GuestState,
        written: Option<&Written>,
        missing: bool,
        global: &Global,
    ) -> Result<Exit, Failure> {
        let vm = taken.parts.machine.as_ref().map(|m| &m.entry);
        let config = vm.map(|vm| vm.config.as_str());
        let disks = written.map(|w| w.manifest.disks.as_slice());
        let mut out = Out::new();
        if self.json {
            out.document(&Json {
                destination: self.dest.display().to_string(),
                config,
                dry_run: written.is_none(),
                virtual_size: taken.len(),
                disks: disks.unwrap_or_default(),
                written: written.map_or(0, |w| w.written),
                proven: taken.proven,
                left_out: &taken.left_out,
                warnings: &taken.warnings,
                guest: state.into(),
            })?;
        } else if !global.quiet {
            for disk in disks.unwrap_or_default() {
                out.line(format!("{}  {}", disk.file, human(disk.virtual_size)))?;
            }
            if written.is_none() {
                guest::lines(&mut out, state, "")?;
                for disk in &taken.parts.disks {
                    let place = disk
                        .slot
                        .map_or_else(|| "disk".to_owned(), |s| s.to_string());
                    out.line(format!("would write   {place}  {}", human(disk.disk.len())))?;
                }
                let to = self.dest.join(config.unwrap_or_default());
                out.line(format!(
                    "to            {}",
                    escape(&to.display().to_string())
                ))?;
            } else if let Some(config) = config {
                out.line(format!("register {}", self.dest.join(config).display()))?;
            }
            out.line(match (taken.proven, written) {
                (true, Some(_)) => "contents as the manifest says",
                (true, None) => "contents will be compared with the manifest",
                (false, _) => "contents are not proven: SOURCE has no manifest of this state",
            })?;
        }
        out.finish()?;
        Ok(Exit::partial_if(missing))
    }
}
