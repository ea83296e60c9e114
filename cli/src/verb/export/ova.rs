//! `export --to ova`.

use super::Export;
use crate::{
    args::Global,
    disk_doubts,
    exit::{Exit, Failure},
    output::{Out, human},
    progress::Bar,
    signals,
};
use convert::{ImageFormat, backup::DigestEntry, ova};
use serde::Serialize;

#[derive(Serialize)]
struct PackageJson<'a> {
    destination: String,
    disks: Vec<PackagedJson>,
    left_out: &'a [String],
    warnings: &'a [String],
}

#[derive(Serialize)]
struct PackagedJson {
    name: String,
    size: u64,
    virtual_size: u64,
    digest: DigestEntry,
}

impl Export {
    /// An OVA package.
    pub(super) fn package(&self, global: &Global) -> Result<Exit, Failure> {
        if self.vcb_names || self.format.subformat.is_some() {
            return Err(Failure::usage(
                "a package has its own names, and its disks are streamOptimized",
            ));
        }
        let only_directories = self.keep.is_some()
            || self.since.is_some()
            || self.split.is_some()
            || self.with_memory
            || self.dest.as_os_str() == "-";
        if only_directories {
            return Err(Failure::usage_with(
                "--keep, --since, --split, --with-memory and - are for backups, not for packages",
                "leave out --to ova",
            ));
        }
        self.format.vmdk(false)?;
        signals::watch();
        let mut taken = self.take(global)?;
        let missing = taken.tell();
        let shared = disk_doubts::tell_all(&taken.sources)?;
        let doubtful = !shared.is_empty();
        taken.warnings.extend(shared);
        let bar = Bar::new(global, taken.len());
        let format = || {
            // The options were found good above; each disk has a content id of its own.
            let vmdk = self.format.vmdk(false);
            let mut vmdk = vmdk.map_err(|_| disk_io::DiskError::unsupported("writing the disk"))?;
            vmdk.subformat = vmdk::writer::Subformat::StreamOptimized;
            Ok(ImageFormat::Vmdk(vmdk))
        };
        let options = ova::Options {
            format: &format,
            force: self.force,
            workers: self.jobs,
        };
        let disks = ova::write(&taken.parts, &self.dest, &options, &bar)?;
        drop(bar);
        let mut out = Out::new();
        if self.json {
            out.document(&PackageJson {
                destination: self.dest.display().to_string(),
                disks: disks
                    .iter()
                    .map(|d| PackagedJson {
                        name: d.name.clone(),
                        size: d.size,
                        virtual_size: d.virtual_size,
                        digest: d.digest.into(),
                    })
                    .collect(),
                left_out: &taken.left_out,
                warnings: &taken.warnings,
            })?;
        } else if !global.quiet {
            for disk in &disks {
                out.line(format!(
                    "{}  {} of {}  {}",
                    disk.name,
                    human(disk.size),
                    human(disk.virtual_size),
                    disk.digest
                ))?;
            }
        }
        out.finish()?;
        Ok(Exit::partial_if(missing || doubtful))
    }
}
