//! A target that is made: what it will be is noted and synced before any of its files has its
//! name, so that one that was cut off there is known as ours, and no other file is.

use super::{
    How, Recovered, Replica, computed,
    journal::Head,
    state::{Form, Part, State},
};
use crate::{
    create,
    digest::{Digest, DigestKind},
    to_image::{Destination, ImageFormat, ImageOptions, to_image_noted},
};
use disk_image::{Format, OpenOptions};
use disk_io::{Disk, HostDir, Result, host_dir::Allowed};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

impl Replica {
    /// Makes the target out of `disk`; its digest.
    pub(super) fn image(
        &mut self,
        disk: &Arc<dyn Disk>,
        sources: &[PathBuf],
        head: &Head,
        how: &How<'_>,
    ) -> Result<String> {
        let keep = self.keep(how, disk.len())?;
        let options = ImageOptions {
            format: how.format.clone(),
            workers: how.workers,
            digest: DigestKind::Vmdkit,
            force: how.force,
            sources: sources.to_vec(),
            ..ImageOptions::default()
        };
        let target = Destination::File(self.places.target());
        let report = to_image_noted(disk, target, &options, &keep, &|digest, files| {
            keep.finish()?;
            let mut state = self.made(disk.len(), computed(digest)?, files, how);
            state.is_of(head);
            state.making = true;
            state.save(&self.places)
        })?;
        let digest = computed(report.digest)?;
        self.note(self.made(disk.len(), digest, &report.files, how), head)?;
        Ok(digest.hex())
    }

    /// What a target is that was made of these files.
    fn made(&self, size: u64, digest: Digest, files: &[PathBuf], how: &How<'_>) -> State {
        let form = match how.format {
            ImageFormat::Raw => Form::Raw,
            _ => Form::Vmdk,
        };
        // One file of data: the target itself, or what its descriptor names.
        let target = self.places.target();
        let data = files.iter().rfind(|f| form == Form::Raw || *f != target);
        let name = data.and_then(|f| f.file_name()).and_then(|n| n.to_str());
        let part = Part {
            file: name.unwrap_or_default().to_owned(),
            start: 0,
            len: size,
            offset: 0,
            size: 0,
            modified: (0, 0),
        };
        State::new(size, digest.hex(), form, vec![part])
    }

    /// Ends a first replication that was cut off after what it made was noted. Only contents prove
    /// that a file is what was made: whatever else has its name now is somebody's.
    pub(super) fn end_first(&mut self, how: &How<'_>) -> Result<Recovered> {
        let Some(mut state) = self.begun.take() else {
            return Ok(Recovered::Nothing);
        };
        let target = self.places.target().to_path_buf();
        let there = target.symlink_metadata().is_ok();
        match (state.form, &how.format) {
            _ if there => {
                if !self.is_ours(&state) || !self.is_as_noted(&state, how)? {
                    return Ok(Recovered::Nothing);
                }
            }
            // The data has its name; only what describes it is missing.
            (Form::Vmdk, ImageFormat::Vmdk(options)) if self.is_as_noted(&state, how)? => {
                if let [part] = state.parts.as_slice() {
                    let flat = target.with_file_name(&part.file);
                    create::over(&target, &flat, options.clone(), false)?;
                }
            }
            _ => return Ok(Recovered::Anew),
        }
        state.making = false;
        state.look(&self.places)?;
        state.save(&self.places)?;
        self.state = Some(state);
        Ok(Recovered::Ended)
    }

    /// Whether its files and hashes are there, and have what was noted: reads all of them.
    fn is_as_noted(&self, state: &State, how: &How<'_>) -> Result<bool> {
        let long = |part: &Part| {
            let file = self.places.target().with_file_name(&part.file);
            let found = fs::symlink_metadata(file);
            found.is_ok_and(|f| f.is_file() && f.len() >= part.offset.saturating_add(part.len))
        };
        Ok(state.parts.iter().all(long)
            && self.is_known(state)
            && self.digest_of(state, how)? == state.digest)
    }

    /// Whether the target is what was noted, and nothing besides: a raw disk of that length, or
    /// the descriptor of that one file.
    fn is_ours(&self, state: &State) -> bool {
        let target = self.places.target();
        match (state.form, state.parts.as_slice()) {
            (Form::Raw, [part]) => {
                Some(part.file.as_ref()) == target.file_name()
                    && fs::metadata(target).is_ok_and(|f| f.len() == state.size)
            }
            (Form::Vmdk, [part]) => describes(target, part).unwrap_or(false),
            _ => false,
        }
    }
}

/// Whether `target` is a VMDK of the one flat file that is `part`.
fn describes(target: &Path, part: &Part) -> Result<bool> {
    let options = OpenOptions {
        format: Some(Format::Vmdk),
        ..OpenOptions::default()
    };
    let source = HostDir::open_source(target, &Allowed::default())?;
    let image = disk_image::open(source, &options)?;
    let links = image.vmdk.as_ref().map(|v| v.links());
    let Some([link]) = links else {
        return Ok(false);
    };
    let [extent] = link.extents.as_slice() else {
        return Ok(false);
    };
    let flat = target.with_file_name(&part.file);
    let same =
        |file: &PathBuf| Ok::<_, std::io::Error>(file.canonicalize()? == flat.canonicalize()?);
    Ok(extent.sparse.is_none()
        && extent.offset == part.offset
        && extent
            .file
            .as_ref()
            .is_some_and(|f| same(f).unwrap_or(false)))
}
