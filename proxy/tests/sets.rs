//! Volumes over several disks: Windows dynamic disks, LVM2 and VMFS, through the tree.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use disk_io::{Disk, ErrorKind};
use guest_fs::{FsKind, Name, NodeKind};
use proxy::{Node, Source, SourceSpec, Tree, TreeOptions};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

fn skip(why: &str) {
    let required = std::env::var("VMDKIT_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|k| k == "images"), "{why}");
    eprintln!("skipped: {why}");
}

fn images() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
    let found = std::env::var_os("VMDKIT_IMAGES")
        .map(PathBuf::from)
        .into_iter()
        .chain([target])
        .find(|d| d.join("partition/libldm").is_dir());
    if found.is_none() {
        skip("VMDKIT_IMAGES does not hold the image collection");
    }
    found
}

fn spec(source: &Path, with: &[PathBuf]) -> SourceSpec {
    SourceSpec {
        path: source.to_owned(),
        with: with.to_vec(),
        ..SourceSpec::default()
    }
}

fn tree(spec: &SourceSpec) -> Tree {
    let source = Source::open(spec).unwrap_or_else(|e| panic!("{e}"));
    Tree::new(
        Arc::new(source),
        TreeOptions {
            meta: true,
            ..TreeOptions::default()
        },
    )
    .unwrap()
}

/// Every path below `from` with its node.
fn walk(tree: &Tree, from: &str) -> BTreeMap<String, (Node, NodeKind)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![(tree.resolve(from).unwrap().node, from.to_owned())];
    while let Some((dir, path)) = dirs.pop() {
        tree.read_dir(dir, &mut |entry| {
            let entry = entry.unwrap_or_else(|e| panic!("in {path}: {e}"));
            let path = format!("{path}/{}", entry.name);
            if entry.kind == NodeKind::Directory {
                dirs.push((entry.node, path.clone()));
            }
            found.insert(path, (entry.node, entry.kind));
            ControlFlow::Continue(())
        })
        .unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    found
}

/// Reads every plain file below `from`; gives how many there are.
fn read_all(tree: &Tree, from: &str) -> usize {
    let files = walk(tree, from);
    let files = files
        .iter()
        .filter(|(_, (_, kind))| *kind == NodeKind::File);
    files
        .map(|(path, (node, _))| {
            let file = tree
                .open(*node, None)
                .unwrap_or_else(|e| panic!("{path}: {e}"));
            sha256(&*file, 0, file.len().min(8 << 20));
        })
        .count()
}

fn sha256(disk: &dyn Disk, from: u64, len: u64) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 4 << 20];
    let mut at = from;
    while at < from + len {
        let n = (from + len - at).min(buf.len() as u64) as usize;
        disk.read_exact_at(&mut buf[..n], at)
            .unwrap_or_else(|e| panic!("{e}"));
        hash.update(&buf[..n]);
        at += n as u64;
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn reports(tree: &Tree) -> Vec<(String, Option<FsKind>, Option<disk_io::DiskError>)> {
    tree.volumes()
        .into_iter()
        .map(|v| (v.path.to_string(), v.kind, v.why_not))
        .collect()
}

#[test]
fn dynamic_disks() {
    let Some(images) = images() else { return };
    let image =
        |kind: &str, n: usize| images.join(format!("partition/libldm/ldm-2003r2-{kind}-{n}.img"));
    for (kind, count) in [
        ("simple", 1),
        ("spanned", 2),
        ("striped", 2),
        ("mirrored", 2),
    ] {
        let members: Vec<PathBuf> = (1..=count).map(|n| image(kind, n)).collect();
        // Any of them may be SOURCE.
        for source in &members {
            let with: Vec<_> = members.iter().filter(|m| *m != source).cloned().collect();
            let tree = tree(&spec(source, &with));
            let reports = reports(&tree);
            let (mut read, mut own) = (0, 0);
            for (path, found, why_not) in &reports {
                if !path.starts_with("/ldm/") {
                    // Not NTFS, whatever it begins with.
                    assert_eq!(*found, Some(FsKind::Ldm), "{path}");
                    let e = why_not.as_ref().unwrap();
                    assert_eq!(e.kind(), ErrorKind::Unsupported);
                    let text = e.to_string();
                    assert!(text.contains("LDM") && text.contains("/ldm/"), "{text}");
                    own += 1;
                } else if why_not.is_none() {
                    assert_eq!(*found, Some(FsKind::Ntfs), "{path}");
                    assert!(read_all(&tree, path) > 0, "{path}");
                    read += 1;
                }
            }
            assert!(own > 0 && read > 0, "{kind}: {reports:?}");
            let labelled = tree.volumes().into_iter().filter(|v| {
                v.label
                    .as_ref()
                    .is_some_and(|l| l.to_string().eq_ignore_ascii_case(kind))
            });
            assert_eq!(labelled.count(), 1, "{kind}: {reports:?}");
            assert_eq!(tree.source().unwrap().members().len(), count - 1, "{kind}");
        }
    }
}

#[test]
fn a_missing_disk_of_a_group_is_named() {
    let Some(images) = images() else { return };
    let image = |kind: &str| images.join(format!("partition/libldm/ldm-2003r2-{kind}-1.img"));
    let source = spec(&image("striped"), &[]);
    let refused = |tree: &Tree| -> Vec<String> {
        reports(tree)
            .into_iter()
            .filter(|(path, _, _)| path.starts_with("/ldm/"))
            .filter_map(|(_, _, e)| e)
            .filter(|e| e.kind() == ErrorKind::Refused)
            .map(|e| e.to_string())
            .collect()
    };
    let strict = tree(&source);
    let told = refused(&strict);
    assert!(!told.is_empty());
    for text in &told {
        assert!(text.contains("--with DISK"), "{text}");
        assert!(text.contains("is not here"), "{text}");
    }
    let warnings = strict.source().unwrap().warnings();
    assert!(
        warnings.iter().any(|w| w.contains("--with DISK")),
        "{warnings:?}"
    );
    let lenient = tree(&SourceSpec {
        allow_missing: true,
        ..source
    });
    assert_eq!(refused(&lenient), Vec::<String>::new());
    // Half of a mirror is all of its bytes.
    let half = tree(&spec(&image("mirrored"), &[]));
    let whole: Vec<_> = reports(&half)
        .into_iter()
        .filter(|(path, _, e)| path.starts_with("/ldm/") && e.is_none())
        .collect();
    assert_eq!(whole.len(), 1, "{whole:?}");
    assert!(read_all(&half, &whole[0].0) > 0);
}

/// A disk of a spanned volume that was left behind when the group was changed: all is given out,
/// and told to be doubtful, once and whatever way leads into the volume.
#[test]
fn members_of_different_times_are_doubtful() {
    let Some(images) = images() else { return };
    let image = |n: usize| images.join(format!("partition/libldm/ldm-2003r2-spanned-{n}.img"));
    let mut old = std::fs::read(image(2)).unwrap();
    let database = old.windows(4).rposition(|w| w == b"VMDB").unwrap();
    old[database + 0x7c] -= 1;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.img");
    std::fs::write(&path, old).unwrap();
    for (with, doubtful) in [(image(2), 0), (path, 1)] {
        let tree = tree(&spec(&image(1), &[with]));
        let volume = reports(&tree)
            .into_iter()
            .find(|(path, _, e)| path.starts_with("/ldm/") && e.is_none())
            .unwrap()
            .0;
        assert!(read_all(&tree, &volume) > 0);
        let root = tree.resolve(&volume).unwrap().node;
        assert_eq!(tree.doubts(root).len(), doubtful);
        let below = walk(&tree, &volume);
        let (name, (node, _)) = below.first_key_value().unwrap();
        assert_eq!(tree.doubts(*node), Vec::<String>::new());
        let doubts = tree.resolve(name).unwrap().doubts;
        assert_eq!(doubts.len(), doubtful, "{name}: {doubts:?}");
    }
}

#[test]
fn logical_volumes_of_lvm2() {
    let Some(images) = images() else { return };
    let mut read = 0;
    for image in [
        "qcow2/dfvfs/lvm.qcow2",
        "qcow2/dfvfs/lvmtest.qcow2",
        "partition/plaso/lvm.raw",
        "partition/dissect/lvm.bin",
    ] {
        let tree = tree(&spec(&images.join(image), &[]));
        let reports = reports(&tree);
        assert!(
            reports.iter().any(|(p, _, _)| p.starts_with("/lvm/")),
            "{image}: {reports:?}"
        );
        for (path, kind, why_not) in reports {
            if !path.starts_with("/lvm/") {
                if kind == Some(FsKind::Lvm2) {
                    let text = why_not.unwrap().to_string();
                    assert!(text.contains("/lvm/"), "{text}");
                }
            } else if why_not.is_none() {
                read += read_all(&tree, &path);
            }
        }
    }
    assert!(read > 0);

    let half = |n| images.join(format!("partition/dissect/lvm-mirror-{n}.bin"));
    let one = Source::open(&spec(&half(1), &[])).unwrap();
    let told = |s: &Source| s.warnings().iter().any(|w| w.contains("--with DISK"));
    assert!(told(&one), "{:?}", one.warnings());
    let both = Source::open(&spec(&half(1), &[half(2)])).unwrap();
    assert!(!told(&both), "{:?}", both.warnings());
    // What is no member of anything is said.
    let odd = Source::open(&spec(&half(1), &[images.join("partition/dfvfs/mbr.raw")])).unwrap();
    assert!(
        odd.warnings().iter().any(|w| w.contains("no member")),
        "{:?}",
        odd.warnings()
    );
}

fn truth() -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/images/vmfs-truth.json");
    let Ok(bytes) = std::fs::read(path) else {
        skip("no vmfs-truth.json beside the project");
        return None;
    };
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn vmfs_image(images: &Path, name: &str) -> PathBuf {
    let dirs = ["vmfs/dissect/vmfs", "vmfs/dissect/vmfs/span"].map(|d| images.join(d).join(name));
    let found = dirs.into_iter().find(|p| p.exists());
    found.unwrap_or_else(|| panic!("no image {name}"))
}

fn number(value: &Value) -> u64 {
    match value.as_str() {
        Some(octal) => u64::from_str_radix(octal.trim_start_matches("0o"), 8).unwrap(),
        None => value.as_u64().unwrap(),
    }
}

#[test]
fn every_file_of_every_datastore() {
    let (Some(images), Some(truth)) = (images(), truth()) else {
        return;
    };
    let mut compared = 0;
    for (set, truth) in truth.as_object().unwrap() {
        let Some(files) = truth["files"].as_array() else {
            continue;
        };
        let names = truth["images"].as_array().unwrap().iter();
        let mut disks: Vec<PathBuf> = names
            .map(|n| vmfs_image(&images, n.as_str().unwrap()))
            .collect();
        // The order of the devices does not matter.
        let source = disks.pop().unwrap();
        let tree = tree(&spec(&source, &disks));
        let volumes = tree.volumes();
        let volume = &volumes[0];
        assert_eq!(volumes.len(), 1, "{set}");
        assert!(volume.why_not.is_none(), "{set}: {:?}", volume.why_not);
        assert_eq!(volume.kind, Some(FsKind::Vmfs));
        let info = volume.info.as_ref().unwrap();
        assert_eq!(
            volume.label.as_ref().unwrap(),
            &Name::from(truth["label"].as_str().unwrap())
        );
        assert_eq!(volume.uuid.as_deref(), truth["uuid"].as_str());
        let beats = truth["active_heartbeats"].as_array().unwrap();
        assert_eq!(info.dirty, Some(!beats.is_empty()), "{set}");
        for beat in beats {
            let ip = beat["ip"].as_str().unwrap();
            assert!(
                info.remarks.iter().any(|r| r.contains(ip)),
                "{set}: {:?}",
                info.remarks
            );
        }

        let door = volume.path.to_string();
        let ours = walk(&tree, &door);
        let mut theirs: Vec<String> = files
            .iter()
            .map(|f| f["path"].as_str().unwrap())
            .filter(|p| *p != "/")
            .map(|p| format!("{door}{p}"))
            .collect();
        theirs.sort_unstable();
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            theirs.iter().collect::<Vec<_>>()
        );
        for file in files.iter().filter(|f| f["path"] != "/") {
            let path = format!("{door}{}", file["path"].as_str().unwrap());
            let what = format!("{set}{path}");
            let node = tree.resolve(&path).unwrap().node;
            assert_eq!(node, ours[&path].0, "{what}");
            let m = tree.metadata(node).unwrap();
            let seconds = |t: Option<guest_fs::Timestamp>| t.unwrap().seconds as u64;
            assert_eq!(seconds(m.modified), number(&file["mtime"]), "{what}");
            assert_eq!(seconds(m.changed), number(&file["ctime"]), "{what}");
            assert_eq!(seconds(m.accessed), number(&file["atime"]), "{what}");
            assert_eq!(
                u64::from(m.mode.unwrap()),
                number(&file["mode"]) & 0o7777,
                "{what}"
            );
            let kind = match file["kind"].as_str().unwrap() {
                "dir" => NodeKind::Directory,
                "symlink" => NodeKind::Symlink,
                _ => NodeKind::File,
            };
            assert_eq!((m.kind, ours[&path].1), (kind, kind), "{what}");
            if kind == NodeKind::Directory {
                continue;
            }
            assert_eq!(m.size, number(&file["size"]), "{what}");
            if file["kind"] == "rdm" {
                let e = tree.open(node, None).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Unsupported, "{what}");
                assert!(e.to_string().contains("QEMU"), "{e}");
                assert!(m.refusal.is_some());
                continue;
            }
            if let Some(target) = file["target"].as_str() {
                let link = tree.read_link(node).unwrap();
                assert_eq!(link.target.to_string(), target, "{what}");
                continue;
            }
            let disk = tree.open(node, None).unwrap();
            assert_eq!(disk.len(), m.size, "{what}");
            if let Some(sha) = file["sha256"].as_str() {
                assert_eq!(sha256(&*disk, 0, disk.len()), sha, "{what}");
                compared += 1;
            }
            if let Some(sha) = file["sha256_first_1MiB"].as_str() {
                assert_eq!(sha256(&*disk, 0, 1 << 20), sha, "{what}");
                let sha = file["sha256_last_1MiB"].as_str().unwrap();
                assert_eq!(
                    sha256(&*disk, disk.len() - (1 << 20), 1 << 20),
                    sha,
                    "{what}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn a_device_of_a_datastore_is_missing() {
    let Some(images) = images() else { return };
    let device = |n: u32| vmfs_image(&images, &format!("vmfs5-span-{n}.bin"));
    for n in [0, 1] {
        let alone = tree(&spec(&device(n), &[]));
        let e = alone.volumes().remove(0).why_not.unwrap();
        assert_eq!(e.kind(), ErrorKind::Refused);
        assert!(e.to_string().contains("--with DISK"), "{e}");
        // A path in it is not "not found".
        let e = alone.resolve("/p0/small").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
    }
    let head = tree(&SourceSpec {
        allow_missing: true,
        ..spec(&device(0), &[])
    });
    let report = head.volumes().remove(0);
    assert!(report.why_not.is_none(), "{:?}", report.why_not);
    let remarks = report.info.unwrap().remarks;
    assert!(remarks.iter().any(|r| r.contains("missing")), "{remarks:?}");
}

/// A machine whose disks are these images, in this order.
fn machine(dir: &Path, disks: &[PathBuf]) -> PathBuf {
    let mut config = "config.version = \"8\"\nscsi0.present = \"TRUE\"\n".to_owned();
    for (n, disk) in disks.iter().enumerate() {
        let len = std::fs::copy(disk, dir.join(format!("{n}-flat.vmdk"))).unwrap();
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n\
             createType=\"monolithicFlat\"\nRW {} FLAT \"{n}-flat.vmdk\" 0\n",
            len / 512
        );
        std::fs::write(dir.join(format!("{n}.vmdk")), text).unwrap();
        config += &format!("scsi0:{n}.present = \"TRUE\"\nscsi0:{n}.fileName = \"{n}.vmdk\"\n");
    }
    std::fs::write(dir.join("vm.vmx"), config).unwrap();
    dir.join("vm.vmx")
}

/// What lies on several disks of one machine is read, and is with the first of them.
#[test]
fn a_machine_has_the_members_of_its_sets() {
    let Some(images) = images() else { return };
    let image = |n: usize| images.join(format!("partition/libldm/ldm-2003r2-spanned-{n}.img"));
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = machine(dir.path(), &[image(1), image(2)]);
    let again = machine(other.path(), &[image(2), image(1)]);
    let of = |spec: &SourceSpec| Tree::of(spec, TreeOptions::default()).unwrap();
    let volumes = |tree: &Tree| -> Vec<String> {
        for disk in ["/scsi0-0", "/scsi0-1"] {
            tree.enter(tree.resolve(disk).unwrap().node).unwrap();
        }
        let all = reports(tree).into_iter();
        let sound = all.filter(|(_, kind, e)| e.is_none() && *kind == Some(FsKind::Ntfs));
        sound.map(|(path, _, _)| path).collect()
    };
    for config in [&config, &again] {
        // Whether it is given too makes no difference.
        let given = config.with_file_name("1.vmdk");
        for with in [
            vec![],
            vec![given.clone()],
            vec![config.with_file_name("0.vmdk"), given],
        ] {
            let tree = of(&spec(config, &with));
            let found = volumes(&tree);
            assert_eq!(found.len(), 1, "{with:?}: {found:?}");
            assert!(found[0].starts_with("/current/scsi0-0/ldm/"), "{found:?}");
            assert!(read_all(&tree, &found[0]) > 0);
            let asked = tree.resolve("/scsi0-1/p1").unwrap().node;
            let e = tree.without_files(asked).unwrap().to_string();
            assert!(e.contains("LDM") && e.contains("scsi0:0"), "{e}");
        }
    }
    // Who asks for one disk alone is told that they are elsewhere, or gets them.
    let tree = of(&spec(&config, &[]));
    assert_eq!(tree.resolve("/scsi0-0").unwrap().doubts.len(), 0);
    let asked = tree.resolve("/scsi0-1").unwrap();
    assert!(asked.doubts[0].1.contains("/current/scsi0-0"), "{asked:?}");
    for in_turn in [false, true] {
        let source = Source::open(&SourceSpec {
            disk: Some("scsi0:1".into()),
            in_turn,
            ..spec(&config, &[])
        });
        assert_eq!(source.unwrap().logical().is_empty(), in_turn);
    }
    // A copy of another time that is given does not take the machine's own disk's place.
    let copy = other.path().join("copy.img");
    let mut bytes = std::fs::read(image(2)).unwrap();
    bytes[32 << 20..]
        .iter_mut()
        .step_by(512)
        .for_each(|b| *b ^= 0xff);
    std::fs::write(&copy, bytes).unwrap();
    let source = Source::open(&SourceSpec {
        disk: Some("scsi0:0".into()),
        ..spec(&config, &[copy])
    });
    let told = source.unwrap().warnings().join("; ");
    assert!(
        told.contains("is the same member, and is read instead"),
        "{told}"
    );
    // A damaged database costs nothing where others have it.
    let flat = dir.path().join("0-flat.vmdk");
    let sound = std::fs::read(&flat).unwrap();
    let mut bytes = sound.clone();
    let database = bytes.windows(4).rposition(|w| w == b"VMDB").unwrap();
    bytes[database..database + 4].fill(0);
    std::fs::write(&flat, bytes).unwrap();
    assert_eq!(volumes(&of(&spec(&config, &[]))).len(), 1);
    std::fs::write(&flat, sound).unwrap();
    // One that is not there is told, and the volume fails.
    std::fs::remove_file(dir.path().join("1-flat.vmdk")).unwrap();
    let tree = of(&spec(&config, &[]));
    let disk = tree.resolve("/scsi0-0").unwrap().node;
    let all = tree.volume_level(disk).unwrap().unwrap();
    let failed = all.iter().filter(|v| v.path.to_string().contains("/ldm/"));
    assert!(failed.filter(|v| v.why_not.is_some()).count() > 0);
    let source = Source::open(&SourceSpec {
        disk: Some("scsi0:0".into()),
        ..spec(&config, &[])
    });
    let told = source.unwrap().warnings().join("; ");
    assert!(
        told.contains("scsi0:1") && told.contains("1-flat.vmdk"),
        "{told}"
    );
    // What lies on a disk and on others is doubtful where that disk has a copy in the machine.
    let dir = tempfile::tempdir().unwrap();
    let config = machine(dir.path(), &[image(1), image(1), image(2)]);
    let tree = of(&spec(&config, &[]));
    let found = volumes(&tree);
    assert!(!found.is_empty());
    for path in found {
        let doubts = tree.doubts(tree.resolve(&path).unwrap().node);
        assert!(
            doubts[0].contains("is the same member"),
            "{path}: {doubts:?}"
        );
    }
    // A disk that has no part of a set has none of its volumes, whatever is given.
    let dir = tempfile::tempdir().unwrap();
    let plain = images.join("partition/dfvfs/mbr.raw");
    let config = machine(dir.path(), &[plain, image(1), image(2)]);
    let tree = of(&spec(&config, &[image(2)]));
    for disk in ["/scsi0-0", "/scsi0-1", "/scsi0-2"] {
        tree.enter(tree.resolve(disk).unwrap().node).unwrap();
    }
    let logical = reports(&tree)
        .into_iter()
        .filter(|(path, ..)| path.contains("/ldm/"));
    for (path, ..) in logical {
        assert!(path.starts_with("/current/scsi0-1/"), "{path}");
    }
    // A copy of a member in the same machine is not passed over without a word.
    let dir = tempfile::tempdir().unwrap();
    let config = machine(dir.path(), &[image(1), image(2), image(1)]);
    let tree = of(&spec(&config, &[]));
    assert_eq!(volumes(&tree).len(), 1);
    tree.enter(tree.resolve("/scsi0-2").unwrap().node).unwrap();
    let copy = tree.resolve("/scsi0-2/p1").unwrap().node;
    assert!(tree.enter(copy).is_err() && tree.without_files(copy).is_none());

    let half = |n| images.join(format!("partition/dissect/lvm-mirror-{n}.bin"));
    let dir = tempfile::tempdir().unwrap();
    let config = machine(dir.path(), &[half(1), half(2)]);
    for (disk, listed) in [("scsi0:0", 1), ("scsi0:1", 0)] {
        let source = Source::open(&SourceSpec {
            disk: Some(disk.into()),
            in_turn: true,
            ..spec(&config, &[])
        });
        let source = source.unwrap();
        assert_eq!(source.logical().len().min(1), listed, "{disk}");
        let lacks = |w: &&String| w.contains("--with");
        assert_eq!(source.warnings().iter().find(lacks), None);
        assert!(source.volumes().iter().any(|v| v.is_without_files()));
    }
}
