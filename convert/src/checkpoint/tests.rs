use super::*;
use crate::{
    Destination, Digest, DigestKind, Discard, ImageFormat, ImageOptions, NoProgress, Progress,
    Sparse, pipeline, to_image,
};
use disk_image::{
    Format,
    write::{Compress, WriteOptions},
};
use disk_io::{HostDir, MemDisk, host_dir::Allowed};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use vmdk::writer::{Identity, Options, StreamLayout, Subformat};

/// Stops after so many advances.
struct After(AtomicI64);

impl Progress for After {
    fn advance(&self, _: u64) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 0
    }
}

fn formats() -> Vec<(String, ImageFormat)> {
    let mut all = vec![("raw".to_owned(), ImageFormat::Raw)];
    for subformat in Subformat::ALL {
        for layout in [StreamLayout::Header, StreamLayout::Footer] {
            if layout == StreamLayout::Footer && subformat != Subformat::StreamOptimized {
                continue;
            }
            let options = Options {
                split: 5 << 20,
                layout,
                ..Options::new(subformat, Identity::new(7))
            };
            let name = format!("{subformat} {layout:?}");
            all.push((name, ImageFormat::Vmdk(options)));
        }
    }
    for format in [Format::Qcow2, Format::Vhd, Format::Vhdx, Format::Vdi] {
        for fixed in [false, true] {
            let options = WriteOptions {
                fixed,
                ..WriteOptions::new(format)
            };
            all.push((format!("{format} {fixed}"), ImageFormat::Portable(options)));
        }
    }
    for compress in [Compress::Zlib(1), Compress::Zstd(1)] {
        let options = WriteOptions {
            compress: Some(compress),
            ..WriteOptions::new(Format::Qcow2)
        };
        all.push((format!("{compress:?}"), ImageFormat::Portable(options)));
    }
    all
}

fn contents(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut bytes = vec![0; len];
    for (n, grain) in bytes.chunks_mut(4096).enumerate() {
        match n / 5 % 4 {
            0 => {}
            1 => grain.fill(n as u8),
            _ => grain.iter_mut().for_each(|b| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *b = (state >> 24) as u8;
            }),
        }
    }
    bytes
}

fn options(format: ImageFormat, digest: DigestKind, source: &Path) -> ImageOptions {
    ImageOptions {
        format,
        // Batches are the smaller the more there are.
        workers: 16,
        digest,
        force: false,
        sources: vec![source.to_path_buf()],
        checkpoints: Some(Checkpointing {
            every: Duration::ZERO,
            resume: true,
            context: "test".into(),
        }),
    }
}

fn digest(disk: &Arc<dyn Disk>, kind: DigestKind) -> Option<Digest> {
    let options = crate::CopyOptions {
        workers: 1,
        digest: kind,
        sparse: Sparse::Always,
    };
    pipeline::copy(disk, &Discard, options, &NoProgress)
        .unwrap()
        .digest
}

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

/// Every format, cut off again and again: in the end it is as if it had never been.
#[test]
fn what_is_cut_off_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::write(&source, b"stands for it").unwrap();
    // Odd, and with a last grain that is not whole.
    let bytes = contents((19 << 20) + 1536);
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes.clone()));
    let (mut resumed, mut all) = (0, 0);
    for (name, format) in formats() {
        for kind in [DigestKind::Vmdkit, DigestKind::Sha256] {
            let out = tempfile::tempdir().unwrap();
            let dest = out.path().join("d.vmdk");
            let options = options(format.clone(), kind, &source);
            let mut report = None;
            for stop in [3, 1, 9, 4, 6, 1000] {
                let stop = After(AtomicI64::new(stop));
                let to = Destination::File(&dest);
                match to_image(&disk, to, &options, &stop) {
                    Ok(done) => report = Some(done),
                    Err(e) => {
                        assert!(pipeline::is_cancelled(&e), "{name}: {e}");
                        assert!(!dest.exists());
                    }
                }
                if report.is_some() {
                    break;
                }
            }
            let report = report.unwrap();
            all += 1;
            resumed += u64::from(report.resumed.is_some());
            assert_eq!(report.digest, digest(&disk, kind), "{name}");
            let opened = HostDir::open_source(&dest, &Allowed::default()).unwrap();
            let forced = disk_image::OpenOptions {
                format: (format_of(&format) == Format::Raw).then_some(Format::Raw),
                ..disk_image::OpenOptions::default()
            };
            let image = disk_image::open(opened, &forced).unwrap();
            let read = digest(&image.disk, kind);
            if image.disk.len() == disk.len() {
                assert_eq!(read, report.digest, "{name}");
            }
            let left = names(out.path());
            assert!(left.iter().all(|n| !n.starts_with(TEMP_PREFIX)), "{left:?}");
        }
    }
    assert!(resumed * 10 > all * 8, "{resumed} of {all}");
}

fn format_of(format: &ImageFormat) -> Format {
    match format {
        ImageFormat::Raw => Format::Raw,
        ImageFormat::Vmdk(_) => Format::Vmdk,
        ImageFormat::Portable(p) => p.format,
    }
}

#[test]
fn nothing_is_gone_on_with_that_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest) = (dir.path().join("source"), dir.path().join("out.raw"));
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(contents(40 << 20)));
    let cut_off = |how: &ImageOptions| {
        for stop in 20..30 {
            let stop = After(AtomicI64::new(stop));
            to_image(&disk, Destination::File(&dest), how, &stop).unwrap_err();
            if interrupted(&dest).is_some() {
                return;
            }
        }
        panic!("no checkpoint");
    };
    let refused = |disk: &Arc<dyn Disk>, how: &ImageOptions| {
        let e = to_image(disk, Destination::File(&dest), how, &NoProgress).unwrap_err();
        assert!(!dest.exists());
        assert!(interrupted(&dest).is_some(), "it is still there");
        e.to_string()
    };
    fs::write(&source, b"source").unwrap();
    let how = options(ImageFormat::Raw, DigestKind::Vmdkit, &source);
    cut_off(&how);
    // Another command.
    let mut other = how.clone();
    if let Some(c) = &mut other.checkpoints {
        c.context = "other".into();
    }
    assert!(refused(&disk, &other).contains("other options"));
    // Other bytes under the same name, and another disk.
    let changed: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![1; 40 << 20]));
    assert!(refused(&changed, &how).contains("other bytes"));
    let longer: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![1; 41 << 20]));
    assert!(refused(&longer, &how).contains("another disk"));
    // The source's file was touched.
    fs::write(&source, b"source2").unwrap();
    assert!(refused(&disk, &how).contains("changed or replaced"));
    discard(&dest).unwrap();
    assert_eq!(names(dir.path()), ["source"]);
    // The unfinished output was replaced.
    cut_off(&how);
    let temp = names(dir.path()).into_iter().find(|n| n.ends_with(".tmp"));
    let temp = dir.path().join(temp.unwrap());
    fs::rename(&temp, dir.path().join("kept")).unwrap();
    fs::write(&temp, b"").unwrap();
    assert!(refused(&disk, &how).contains("another file"));
    // Somebody is at it.
    fs::rename(dir.path().join("kept"), &temp).unwrap();
    let held = File::open(&temp).unwrap();
    lock(&held, &dest).unwrap();
    assert!(refused(&disk, &how).contains("another process"));
    drop(held);
    // Damage of the checkpoint.
    let path = path_of(&dest);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[60] ^= 1;
    fs::write(&path, bytes).unwrap();
    let e = to_image(&disk, Destination::File(&dest), &how, &NoProgress).unwrap_err();
    assert!(e.to_string().contains("something else"), "{e}");
    fs::write(&path, whole).unwrap();
    let report = to_image(&disk, Destination::File(&dest), &how, &NoProgress).unwrap();
    assert!(report.resumed.is_some());
    assert_eq!(names(dir.path()), ["out.raw", "source"]);
}

/// Without `resume` nothing is left after an error, and what a killed process left is removed.
#[test]
fn who_does_not_ask_gets_nothing_left() {
    let dir = tempfile::tempdir().unwrap();
    let (source, dest) = (dir.path().join("source"), dir.path().join("out.qcow2"));
    fs::write(&source, b"source").unwrap();
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(contents(40 << 20)));
    let format = ImageFormat::Portable(WriteOptions::new(Format::Qcow2));
    let mut how = options(format, DigestKind::Vmdkit, &source);
    let run = |how: &ImageOptions, stop: i64| {
        let stop = After(AtomicI64::new(stop));
        to_image(&disk, Destination::File(&dest), how, &stop)
    };
    run(&how, 25).unwrap_err();
    assert!(names(dir.path()).len() > 1);
    if let Some(c) = &mut how.checkpoints {
        c.resume = false;
    }
    run(&how, 25).unwrap_err();
    assert_eq!(names(dir.path()), ["source"]);
    run(&how, i64::MAX).unwrap();
    assert_eq!(names(dir.path()), ["out.qcow2", "source"]);
}
