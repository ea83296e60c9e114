//! Disk images.

use crate::{
    bases, oracle,
    patch::{Base, Patched, apply},
};
use disk_image::{Format, OpenOptions, ova};
use disk_io::{Disk, FileId, Locate, MemDisk, Memory, NoFiles, Opened, Purpose};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

fn opened(disk: Arc<dyn Disk>) -> Opened {
    Opened {
        disk,
        path: "/input".into(),
        id: FileId {
            container: 1,
            file: 1,
        },
        dir: Arc::new(NoFiles),
    }
}

/// Opens, reads and checks it.
fn look(disk: Arc<dyn Disk>, format: Option<Format>) {
    look_at(opened(disk), format);
}

fn look_at(source: Opened, format: Option<Format>) {
    let options = OpenOptions {
        format,
        memory: Some(Memory::new(4 << 20)),
        // A small input must not become a large file.
        unpack_limit: Some(1 << 20),
        ..OpenOptions::default()
    };
    if let Ok(image) = disk_image::open(source.clone(), &options) {
        oracle::disk(&*image.disk);
    }
    let mut findings = 0;
    let checked = disk_image::check(&source, &options, &mut |_, _| {}, &mut |finding| {
        findings += 1;
        assert!(
            finding.ranges.iter().all(|r| r.start <= r.end),
            "{finding:?}"
        );
    });
    drop(checked);
}

/// A monolithicSparse VMDK.
pub fn hosted(input: &[u8]) {
    look(apply(bases::hosted(), input), Some(Format::Vmdk));
}

/// A streamOptimized VMDK.
pub fn stream(input: &[u8]) {
    look(apply(bases::stream(), input), Some(Format::Vmdk));
}

/// A streamOptimized VMDK, by the markers of its grains.
pub fn salvage(input: &[u8]) {
    let disk = apply(bases::stream(), input);
    if let Ok(salvaged) = vmdk::Salvaged::open(disk, "input", &mut |_| {}) {
        oracle::disk(&salvaged);
        assert!(salvaged.lost().iter().all(|r| r.end <= salvaged.len()));
    }
}

/// A COWD delta.
pub fn cowd(input: &[u8]) {
    beside(bases::cowd_descriptor(), apply(bases::cowd(), input));
}

/// An seSparse delta.
pub fn sesparse(input: &[u8]) {
    beside(
        bases::sesparse_descriptor(),
        apply(bases::sesparse(), input),
    );
}

/// A sound descriptor, and whatever its extent is.
fn beside(descriptor: &str, extent: Arc<dyn Disk>) {
    let mut source = opened(Arc::new(MemDisk::new(descriptor)));
    source.dir = Arc::new(OneFile(extent));
    look_at(source, Some(Format::Vmdk));
}

/// Opens an image.
pub(crate) fn open(disk: Arc<dyn Disk>, format: Format) -> disk_io::Result<Arc<dyn Disk>> {
    let options = OpenOptions {
        format: Some(format),
        memory: Some(Memory::new(4 << 20)),
        ..OpenOptions::default()
    };
    Ok(disk_image::open(opened(disk), &options)?.disk)
}

/// Opens an extent by its descriptor.
pub(crate) fn open_extent(
    descriptor: &str,
    extent: Arc<dyn Disk>,
) -> disk_io::Result<Arc<dyn Disk>> {
    let mut source = opened(Arc::new(MemDisk::new(descriptor)));
    source.dir = Arc::new(OneFile(extent));
    let options = OpenOptions {
        memory: Some(Memory::new(4 << 20)),
        ..OpenOptions::default()
    };
    Ok(disk_image::open(source, &options)?.disk)
}

/// Whether a sound extent opens by its descriptor.
pub fn opens(descriptor: &str, extent: &'static Base) -> bool {
    let mut source = opened(Arc::new(MemDisk::new(descriptor)));
    source.dir = Arc::new(OneFile(Arc::new(Patched::sound(extent))));
    disk_image::open(source, &OpenOptions::default()).is_ok()
}

/// A directory in which every name is the same file.
#[derive(Debug)]
struct OneFile(Arc<dyn Disk>);

impl Locate for OneFile {
    fn open(&self, name: &Path, _: Purpose) -> disk_io::Result<Opened> {
        Ok(Opened {
            disk: self.0.clone(),
            path: name.to_path_buf(),
            id: FileId {
                container: 1,
                file: 2,
            },
            dir: Arc::new(NoFiles),
        })
    }

    fn list(&self, _: usize) -> disk_io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn describe(&self) -> String {
        "a directory".into()
    }
}

/// qcow2.
pub fn qcow2(input: &[u8]) {
    look(apply(bases::qcow2(), input), Some(Format::Qcow2));
}

/// VHD.
pub fn vhd(input: &[u8]) {
    look(apply(bases::vhd(), input), Some(Format::Vhd));
}

/// VHDX.
pub fn vhdx(input: &[u8]) {
    look(apply(bases::vhdx(), input), Some(Format::Vhdx));
}

/// VDI.
pub fn vdi(input: &[u8]) {
    look(apply(bases::vdi(), input), Some(Format::Vdi));
}

/// An OVA package.
pub fn ova(input: &[u8]) {
    let disk = apply(bases::ova(), input);
    if let Ok(archive) = ova::Archive::open(&opened(disk.clone())) {
        drop(archive);
    }
    look(disk, Some(Format::Ova));
}

/// Whatever it is.
pub fn any(input: &[u8]) {
    look(Arc::new(MemDisk::new(input.to_vec())), None);
}
