//! DEST is a block device: the way back from a machine to a physical disk.

use super::{Convert, DigestJson, Told};
use crate::{
    args::Global,
    exit::Failure,
    guard,
    image_format::Format,
    output::{Out, human},
    progress::Bar,
    used::LeftOut,
};
use convert::device;
use disk_io::Disk;
use proxy::Source;
use serde::Serialize;
use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Arc,
};

#[derive(Serialize)]
struct DeviceJson<'a> {
    source: String,
    destination: String,
    format: &'a str,
    virtual_size: u64,
    device_size: u64,
    written: u64,
    verified: bool,
    /// The backup of the GUID partition table is at the end of the device now.
    moved_gpt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<DigestJson>,
    /// With --used-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<LeftOut>,
    seconds: f64,
    warnings: Vec<String>,
}

impl Convert {
    /// Whether DEST is a block device that was named twice.
    pub(super) fn to_device(&self) -> Result<bool, Failure> {
        let number = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            found.file_type().is_block_device().then(|| found.rdev())
        };
        match (number(&self.dest), &self.device) {
            (None, None) => Ok(false),
            (Some(_), None) => Err(Failure::usage_with(
                format!(
                    "{} is a block device: what is on it would be lost",
                    self.dest.display()
                ),
                format!("if that is meant, say so: --device {}", self.dest.display()),
            )),
            (dest, Some(device)) => {
                if self.to != Format::Raw {
                    return Err(Failure::usage(
                        "a device takes the bytes of a disk: --to raw",
                    ));
                }
                if dest.is_none() || dest != number(device) {
                    return Err(Failure::usage(format!(
                        "DEST and --device must be the same block device, and are {} and {}",
                        self.dest.display(),
                        device.display()
                    )));
                }
                Ok(true)
            }
        }
    }

    pub(super) fn onto_device(
        &self,
        source: &Source,
        disk: &Arc<dyn Disk>,
        told: Told,
        global: &Global,
    ) -> Result<(), Failure> {
        guard::check(&self.dest, source)?;
        let options = device::Options {
            workers: self.jobs,
            digest: self.digest,
            verify: self.verify,
        };
        let bar = Bar::new(global, source.disk().len());
        let report = device::write(disk, &self.dest, options, &bar)?;
        drop(bar);
        let mut out = Out::new();
        if self.json {
            out.document(&DeviceJson {
                source: self.source.source.display().to_string(),
                destination: self.dest.display().to_string(),
                format: self.to.name(),
                virtual_size: report.virtual_size,
                device_size: report.device_size,
                written: report.written,
                verified: report.verified,
                moved_gpt: report.moved_gpt,
                digest: report.digest.as_ref().map(DigestJson::of),
                left_out: told.left_out,
                seconds: told.begin.elapsed().as_secs_f64(),
                warnings: told.warnings,
            })?;
        } else if !global.quiet {
            let size = |n: u64| format!("{n} ({})", human(n));
            out.line(format!("virtual size  {}", size(report.virtual_size)))?;
            out.line(format!("device        {}", size(report.device_size)))?;
            if let Some(digest) = &report.digest {
                out.line(format!("digest        {digest}"))?;
            }
            if let Some(left) = &told.left_out {
                out.line(format!("left out      {} of free space", size(left.bytes)))?;
            }
            if report.verified {
                out.line("verified      read back, the same digest")?;
            }
            if report.moved_gpt {
                out.line("moved         the backup of the partition table, to the device's end")?;
            }
        }
        out.finish()?;
        Ok(())
    }
}
