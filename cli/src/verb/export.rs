//! `export`: a machine or disk as a backup.

use crate::{
    args::{Global, SourceArgs},
    backup::take,
    exit::{Exit, Failure},
    image_format::{Format, FormatArgs},
    output::{Out, human},
    progress::Bar,
    signals,
};
use clap::Args;
use convert::backup::{self, Changes, Manifest, Naming, Options};
use serde::Serialize;
use std::path::PathBuf;

/// Write a machine or disk into a new directory as a backup, with a manifest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit export web01/web01.vmx /backups/web01-2026-11-26
  vmdkit export web01 --snapshot id:3 /backups/web01-before-patch
  vmdkit export -D lun.img web01/web01.vmx DIR --subformat streamOptimized
  vmdkit export web01.vmdk DIR --to qcow2          a single disk

Every disk is written whole, with all its parents merged in. The configuration is made to
fit; the manifest holds a digest of every file and of what each disk contains, so that
'vmdkit verify DIR' can prove the backup and 'vmdkit restore DIR NEW' what it restores. DIR
appears when everything in it is complete.")]
pub(crate) struct Export {
    #[command(flatten)]
    source: SourceArgs,
    /// A new directory
    #[arg(value_name = "DIR")]
    dest: PathBuf,
    /// Format of the disks
    #[arg(
        help_heading = "What is written",
        long,
        value_enum,
        default_value_t = Format::Vmdk
    )]
    to: Format,
    #[command(flatten)]
    format: FormatArgs,
    /// Call disks as VMware Consolidated Backup did: scsi0-0-0-web01.vmdk
    #[arg(help_heading = "What is written", long)]
    vcb_names: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    destination: String,
    manifest: &'a Manifest,
    written: u64,
    left_out: &'a [String],
    warnings: &'a [String],
}

impl Export {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        self.format.format(self.to, 512, false)?;
        signals::watch();
        let taken = take(&self.source, global, Changes::default())?;
        let missing = taken.tell();
        let bar = Bar::new(global, taken.len());
        let format = |sector: u32| {
            // The options were found good above.
            let format = self.format.format(self.to, sector, false);
            let format = format.map_err(|_| {
                disk_io::DiskError::unsupported("writing the disk").found(self.to.name())
            })?;
            Ok((format, extension(self.to)))
        };
        let options = Options {
            format: &format,
            naming: match self.vcb_names {
                true => Naming::Vcb,
                false => Naming::Plain,
            },
            manifest: true,
            origin: (
                jiff::Timestamp::now().to_string(),
                self.source.source.display().to_string(),
            ),
            workers: self.jobs,
        };
        let written = backup::write(&taken.parts, &self.dest, &options, &bar)?;
        drop(bar);
        let mut out = Out::new();
        if self.json {
            out.document(&Json {
                destination: self.dest.display().to_string(),
                manifest: &written.manifest,
                written: written.written,
                left_out: &taken.left_out,
                warnings: &taken.warnings,
            })?;
        } else if !global.quiet {
            for disk in &written.manifest.disks {
                out.line(format!(
                    "{}  {}  {}:{}",
                    disk.file,
                    human(disk.virtual_size),
                    disk.digest.kind,
                    disk.digest.hash
                ))?;
            }
            out.line(format!(
                "{} files, {} of disks written",
                written.manifest.files.len(),
                human(written.written)
            ))?;
        }
        out.finish()?;
        Ok(Exit::partial_if(missing))
    }
}

/// The end of a disk's name.
fn extension(format: Format) -> &'static str {
    match format {
        Format::Raw => "img",
        other => other.name(),
    }
}
