//! Windows dynamic disks of the collection, against `ldmtool` and through their NTFS.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod volume_common;

use disk_io::Disk;
use guest_fs::{FsKind, NodeKind, OpenOptions, ldm, volume};
use std::{path::PathBuf, process::Command, sync::Arc};
use volume_common::{disk, have, images, walk};

/// Where the database of these disks is.
const CONFIG: usize = 51_380_224;

fn members(kind: &str, count: usize) -> Option<Vec<PathBuf>> {
    let (dir, _) = images()?;
    let name = |n| dir.join(format!("partition/libldm/ldm-2003r2-{kind}-{n}.img"));
    Some((1..=count).map(name).collect())
}

fn disks(paths: &[PathBuf]) -> Vec<Arc<dyn Disk>> {
    paths.iter().map(|p| disk(p)).collect()
}

#[test]
fn every_kind_of_volume_is_put_together() {
    for (kind, count) in [
        ("simple", 1),
        ("spanned", 2),
        ("striped", 2),
        ("mirrored", 2),
    ] {
        let Some(paths) = members(kind, count) else {
            return;
        };
        let groups = ldm::scan(&disks(&paths)).groups;
        assert_eq!(groups.len(), 1);
        // The database knows every volume of the group; these disks hold one of them.
        let here = |v: &&ldm::Volume| v.kind == kind && v.missing().is_empty();
        let of_kind: Vec<_> = groups[0].volumes.iter().filter(here).collect();
        assert_eq!(of_kind.len(), 1, "{kind}: {:?}", groups[0]);
        let logical = of_kind[0].open().unwrap();
        let seen = volume::recognise(&logical).unwrap().unwrap();
        assert_eq!(seen.kind, FsKind::Ntfs, "{kind}");
        assert!(seen.size.unwrap() <= logical.len(), "{kind}");
        assert!(
            seen.label.unwrap().to_string().eq_ignore_ascii_case(kind),
            "{kind}"
        );
        let fs = volume::open(&logical, &OpenOptions::default()).unwrap();
        let (found, errors) = walk(&*fs);
        assert_eq!(errors, Vec::<String>::new(), "{kind}");
        let files: Vec<_> = found.iter().filter(|f| f.kind == NodeKind::File).collect();
        assert!(!files.is_empty(), "{kind}");
        for f in files {
            assert!(f.bytes.is_ok(), "{kind}: {f:?}");
        }
        let few = logical.len().min(8 << 20) as usize;
        disk_io::conformance::check_rules(&logical);
        let mut head = vec![0; few];
        logical.read_exact_at(&mut head, 0).unwrap();
        let mut odd = vec![0; few - 77];
        logical.read_exact_at(&mut odd, 77).unwrap();
        assert!(odd == head[77..], "{kind}");
    }
}

#[test]
fn raid5_is_refused_by_name_and_missing_disks_are_errors() {
    let Some(paths) = members("raid5", 3) else {
        return;
    };
    let groups = ldm::scan(&disks(&paths)).groups;
    let raid = groups[0]
        .volumes
        .iter()
        .find(|v| v.kind == "raid5")
        .unwrap();
    assert!(raid.open().unwrap_err().to_string().contains("RAID-5"));

    let paths = members("spanned", 2).unwrap();
    let group = ldm::scan(&disks(&paths[1..])).groups.remove(0);
    assert!(!group.missing.is_empty());
    let spanned = group.volumes.iter().find(|v| v.kind == "spanned").unwrap();
    let logical = spanned.open().unwrap();
    let (mut good, mut bad) = (0, 0);
    for at in (0..logical.len()).step_by(1 << 20) {
        match logical.read_exact_at(&mut [0; 512], at) {
            Ok(()) => good += 1,
            Err(e) => {
                assert!(e.to_string().contains("is not here"), "{e}");
                bad += 1;
            }
        }
    }
    assert!(good > 0 && bad > 0, "{good} {bad}");

    // One half of a mirror is enough.
    let paths = members("mirrored", 2).unwrap();
    for one in &paths {
        let group = ldm::scan(&[disk(one)]).groups.remove(0);
        let mirrored = group.volumes.iter().find(|v| v.kind == "mirrored").unwrap();
        let fs = volume::open(&mirrored.open().unwrap(), &OpenOptions::default()).unwrap();
        assert_eq!(walk(&*fs).1, Vec::<String>::new());
    }
}

/// The disk at `path` with the bytes of its database changed by `change`.
fn with_database(path: &std::path::Path, change: impl FnOnce(&mut [u8])) -> Arc<dyn Disk> {
    let mut image = std::fs::read(path).unwrap();
    change(&mut image[CONFIG..]);
    Arc::new(disk_io::MemDisk::new(image))
}

/// Makes a database older than that of the other disks.
fn older(config: &mut [u8]) {
    let at = place_of(config, b"VMDB");
    assert_eq!(config[at + 0x7c], 0x6d, "the last byte of version 1133");
    config[at + 0x7c] -= 1;
}

fn place_of(bytes: &[u8], what: &[u8]) -> usize {
    let at = bytes.windows(what.len()).position(|w| w == what);
    at.expect("it is there")
}

/// A copy that was left behind is not read, whichever comes first, nor where the other fails.
#[test]
fn a_mirror_is_read_from_its_current_copy() {
    let Some(paths) = members("mirrored", 2) else {
        return;
    };
    let mirrored = |disks: &[Arc<dyn Disk>]| {
        let group = ldm::scan(disks).groups.remove(0);
        let volume = group.volumes.into_iter().find(|v| v.kind == "mirrored");
        (volume.unwrap(), group.remarks)
    };
    let whole = mirrored(&disks(&paths));
    assert!(whole.0.doubts.is_empty() && whole.1.is_empty());
    let mut expected = vec![0; 1 << 20];
    whole
        .0
        .open()
        .unwrap()
        .read_exact_at(&mut expected, 0)
        .unwrap();
    for stale in 0..2 {
        let mut image = std::fs::read(&paths[stale]).unwrap();
        older(&mut image[CONFIG..]);
        for byte in &mut image[32 << 10..CONFIG] {
            *byte ^= 0xff;
        }
        let old: Arc<dyn Disk> = Arc::new(disk_io::MemDisk::new(image));
        let good = disk(&paths[1 - stale]);
        for order in [[old.clone(), good.clone()], [good.clone(), old.clone()]] {
            let (volume, remarks) = mirrored(&order);
            let mut bytes = vec![0; expected.len()];
            volume.open().unwrap().read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes == expected);
            assert!(volume.doubts.is_empty(), "{:?}", volume.doubts);
            assert!(remarks[0].contains("different versions"), "{remarks:?}");
        }
        let e = mirrored(&[good.clone(), good.clone()])
            .0
            .open()
            .unwrap_err();
        assert!(e.to_string().contains("each disk of the group once"), "{e}");
    }
    let detached = |version: u8| {
        with_database(&paths[0], |config| {
            let at = place_of(config, b"VMDB");
            config[at + 0x7c] = version;
            let at = place_of(config, b"Volume3-02\x06ACTIVE");
            config[at + 11..at + 17].copy_from_slice(b"DETACH");
        })
    };
    let (volume, _) = mirrored(&[detached(0x6e), disk(&paths[1])]);
    assert!(volume.doubts.is_empty() && volume.complete());
    // Both are of the same version, and do not say the same: each went on by itself.
    let (volume, _) = mirrored(&[detached(0x6d), disk(&paths[1])]);
    assert!(
        volume
            .doubts
            .iter()
            .any(|d| d.contains("different databases of one version")),
        "{:?}",
        volume.doubts
    );
}

#[test]
fn a_disk_that_was_left_behind_is_doubtful() {
    let Some(paths) = members("spanned", 2) else {
        return;
    };
    let old = with_database(&paths[1], older);
    let group = ldm::scan(&[disk(&paths[0]), old]).groups.remove(0);
    let here = |v: &&ldm::Volume| v.kind == "spanned" && v.missing().is_empty();
    let volume = group.volumes.iter().find(here).unwrap();
    assert_eq!(volume.doubts.len(), 1, "{:?}", volume.doubts);
    assert!(
        volume.doubts[0].contains("version 1132"),
        "{:?}",
        volume.doubts
    );
}

#[test]
fn ldmtool_says_the_same() {
    let Some(paths) = members("striped", 2) else {
        return;
    };
    if !have("ldmtool") {
        return;
    }
    let all = [
        ("simple", 1),
        ("spanned", 2),
        ("striped", 2),
        ("mirrored", 2),
        ("raid5", 3),
    ];
    let all: Vec<_> = all
        .iter()
        .flat_map(|(k, n)| members(k, *n).unwrap())
        .collect();
    assert!(paths.iter().all(|p| all.contains(p)));
    let groups = ldm::scan(&disks(&all)).groups;
    assert_eq!(groups.len(), 1);
    for v in &groups[0].volumes {
        let mut tool = Command::new("ldmtool");
        for p in &all {
            tool.arg("-d").arg(p);
        }
        let out = tool
            .args(["show", "volume", &groups[0].uuid, &v.name])
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(json["size"].as_u64().unwrap() * 512, v.len, "{json}");
        assert_eq!(json["guid"], v.uuid.as_str(), "{json}");
        let kind = json["type"].as_str().unwrap().to_lowercase();
        assert_eq!(kind, v.kind, "{json}");
    }
}

#[test]
fn damaged_databases_are_survived() {
    use disk_io::SparseMemDisk;
    let Some(paths) = members("striped", 2) else {
        return;
    };
    let image = std::fs::read(&paths[0]).unwrap();
    let mut seed = 7u64;
    for _ in 0..200 {
        let mut damaged = SparseMemDisk::new(image.len() as u64);
        damaged.put(0, &image[..8192]);
        let mut config = image[CONFIG..CONFIG + (64 << 10)].to_vec();
        for _ in 0..30 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % 20_000;
            config[at] = (seed >> 20) as u8;
        }
        damaged.put(CONFIG as u64, &config);
        let damaged: Arc<dyn Disk> = Arc::new(damaged);
        for group in ldm::scan(&[damaged]).groups {
            for v in &group.volumes {
                if let Ok(d) = v.open() {
                    let _ = d.run_at(0);
                    let _ = d.read_exact_at(&mut [0; 16], d.len() / 2);
                }
            }
        }
    }
}
