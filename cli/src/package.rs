//! OVA packages as SOURCE: their manifest is believed only after it was checked.

use crate::{args::Global, exit::Failure, output, progress::Bar, signals};
use convert::Progress;
use disk_image::{Format, ova::Package};
use disk_io::{DiskError, HostDir, host_dir::Allowed};
use proxy::Source;
use std::path::Path;

/// Compares the files of a package with its manifest, if SOURCE is one and has one.
pub(crate) fn check(source: &Source, global: &Global) -> Result<(), Failure> {
    let format = source.image().format;
    // What is looked up inside a package is no package.
    if matches!(format, Format::Ova | Format::Ovf) && source.devices().is_empty() {
        check_file(source.path(), global)?;
    }
    Ok(())
}

/// Compares the files of the package `path` with its manifest; whether it has one.
pub(crate) fn check_file(path: &Path, global: &Global) -> Result<bool, Failure> {
    let opened = HostDir::open_source(path, &Allowed::default())?;
    let format = disk_image::probe(&*opened.disk)?.unwrap_or(Format::Ova);
    let package = Package::open(&opened, format)?;
    let bar = Bar::new(global, 0);
    let mut last = (String::new(), 0);
    let checked = package.verify_manifest(&mut |name, done| {
        if last.0 != name {
            last = (name.to_owned(), 0);
        }
        bar.grow(done.saturating_sub(last.1));
        bar.advance(done.saturating_sub(last.1));
        last.1 = done;
    })?;
    drop(bar);
    if signals::caught().is_some() {
        return Err(DiskError::refused("checking the manifest")
            .found("a wish to stop")
            .into());
    }
    let Some(lines) = checked else {
        output::warn("the package has no manifest: that it is what was exported is unproven");
        return Ok(false);
    };
    let unlisted = package.unlisted(&lines);
    for file in &unlisted {
        output::warn(format!(
            "the package's manifest does not list {}: that it is what was exported is unproven",
            disk_io::error::escape(file)
        ));
    }
    match lines.into_iter().find_map(|l| l.problem) {
        None => Ok(unlisted.is_empty()),
        Some(e) => Err(e
            .hint("the package was damaged or changed; --ignore-manifest goes on regardless")
            .into()),
    }
}
