//! Every file of every volume that real hosts wrote, against what is known of them.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{Disk, conformance};
use serde_json::Value;
use std::{ops::ControlFlow, path::Path, sync::Arc};
use support::*;
use vmfs_reader::{FdAddress, File, FileKind, Place, Volume, lvm};

fn disks(base: &Path, truth: &Value) -> Vec<Arc<dyn Disk>> {
    truth["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| host(&image(base, name.as_str().unwrap())))
        .collect()
}

fn number(value: &Value) -> u64 {
    match value {
        Value::String(s) => match (s.strip_prefix("0x"), s.strip_prefix("0o")) {
            (Some(hex), _) => u64::from_str_radix(hex, 16).unwrap(),
            (_, Some(octal)) => u64::from_str_radix(octal, 8).unwrap(),
            _ => s.parse().unwrap(),
        },
        other => other.as_u64().unwrap_or_else(|| panic!("{other}")),
    }
}

/// (offset, length, place) of what a file has stored, joined as the truth has it: whole
/// blocks, so the end of the last is cut here.
fn extents(file: &File) -> Vec<(u64, u64, u64)> {
    let mut out: Vec<(u64, u64, u64)> = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let extent = file.extent_at(at).unwrap();
        if let Place::Stored(place) = extent.place {
            match out.last_mut() {
                Some(l) if l.0 + l.1 == at && l.2 + l.1 == place => l.1 += extent.len,
                _ => out.push((at, extent.len, place)),
            }
        }
        assert!(!matches!(extent.place, Place::Bad(_)), "{:?}", extent.place);
        at += extent.len;
    }
    out
}

fn check_file(volume: &Volume, address: FdAddress, truth: &Value, name: &str) {
    let stat = volume.stat(address).unwrap();
    for (ours, theirs) in [
        (stat.size, "size"),
        (u64::from(address.0), "fd"),
        (u64::from(stat.addressing), "zla"),
        (stat.uid.into(), "uid"),
        (stat.gid.into(), "gid"),
        (stat.links.into(), "nlink"),
        (stat.flags.into(), "flags"),
        (stat.block_size, "block_size"),
        (stat.modified.into(), "mtime"),
        (stat.changed.into(), "ctime"),
        (stat.accessed.into(), "atime"),
        (stat.generation.into(), "generation"),
        (stat.pointer_blocks.into(), "npb"),
        (
            stat.allocated.checked_div(stat.block_size).unwrap(),
            "num_blocks",
        ),
    ] {
        assert_eq!(ours, number(&truth[theirs]), "{name}: {theirs}");
    }
    let mode = number(&truth["mode"]) as u32;
    assert_eq!(stat.mode & 0o7777, mode & 0o7777, "{name}");
    let kind = match truth["kind"].as_str().unwrap() {
        "dir" => FileKind::Directory,
        "file" => FileKind::File,
        "sysfile" => FileKind::System,
        "symlink" => FileKind::Symlink,
        "rdm" => FileKind::Rdm,
        other => panic!("{other}"),
    };
    assert_eq!(stat.kind, kind, "{name}");
    assert!(!volume.lock_state(address).unwrap().lock.is_held());
    if kind == FileKind::Rdm {
        let target = volume.rdm_target(address).unwrap().unwrap();
        assert!(
            truth["rdm"]["id"]
                .as_str()
                .unwrap()
                .starts_with(&hex(&target.id)),
            "{target}"
        );
        let e = volume.open_file(address).unwrap_err();
        assert_eq!(e.kind(), disk_io::ErrorKind::Unsupported);
        assert!(e.to_string().contains("QM00015 QEMU H"), "{e}");
        return;
    }
    let file = volume.open_file(address).unwrap();
    let ours = extents(&file);
    if let Some(theirs) = truth["extents"].as_array() {
        // The truth counts whole blocks, and in directories more than the length.
        let theirs: Vec<(u64, u64, u64)> = theirs
            .iter()
            .map(|e| {
                (
                    number(&e["file_off"]),
                    number(&e["len"]),
                    number(&e["vol_off"]),
                )
            })
            .filter(|e| e.0 < file.len())
            .map(|(at, len, place)| (at, len.min(file.len() - at), place))
            .collect();
        assert_eq!(ours, theirs, "{name}: extents");
    }
    if let Some(sha) = truth["sha256"].as_str() {
        assert_eq!(sha256(&file, 0, file.len()), sha, "{name}");
    }
    if let Some(sha) = truth["sha256_first_1MiB"].as_str() {
        assert_eq!(sha256(&file, 0, 1 << 20), sha, "{name}: begin");
        let sha = truth["sha256_last_1MiB"].as_str().unwrap();
        assert_eq!(
            sha256(&file, file.len() - (1 << 20), 1 << 20),
            sha,
            "{name}: end"
        );
    }
    for part in truth["allocated_sha256"].as_array().unwrap_or(&Vec::new()) {
        let (at, len) = (number(&part["file_off"]), number(&part["len"]));
        assert_eq!(
            sha256(&file, at, len),
            part["sha256"].as_str().unwrap(),
            "{name} at {at}"
        );
    }
    if let Some(target) = truth["target"].as_str() {
        assert_eq!(volume.read_link(address).unwrap(), target.as_bytes());
    }
    conformance::check_rules(&file);
}

#[test]
fn every_file_of_every_volume() {
    let Some((base, truth)) = images() else {
        return;
    };
    let mut files = 0;
    for (set, truth) in truth.as_object().unwrap() {
        let Some(list) = truth["files"].as_array() else {
            continue;
        };
        let mut disks = disks(&base, truth);
        // The order of the devices does not matter.
        disks.reverse();
        let volume = open(&disks);
        let sb = volume.superblock();
        assert_eq!(sb.label, truth["label"].as_str().unwrap());
        assert_eq!(sb.uuid.to_string(), truth["uuid"].as_str().unwrap());
        assert_eq!(sb.block_size, number(&truth["block_size"]), "{set}");
        assert_eq!(u64::from(sb.major), number(&truth["vmfs_version"][0]));
        assert_eq!(u64::from(sb.minor), number(&truth["vmfs_version"][1]));
        assert_eq!(
            volume.lvm_uuid().map(|u| u.to_string()).as_deref(),
            truth["lvm_volume_uuid"].as_str(),
            "{set}"
        );
        assert_eq!(volume.warnings(), &[] as &[String], "{set}");
        let (beats, damage) = volume.heartbeats().unwrap();
        let theirs = truth["active_heartbeats"].as_array().unwrap();
        assert_eq!(beats.len(), theirs.len(), "{set}");
        assert!(damage.is_empty(), "{set}: {damage:?}");
        for (ours, theirs) in beats.iter().zip(theirs) {
            assert_eq!(u64::from(ours.slot), number(&theirs["slot"]));
            assert_eq!(hex(&ours.host.0), theirs["owner"].as_str().unwrap());
            assert_eq!(ours.driver, theirs["drv"].as_str().unwrap());
            assert_eq!(u64::from(ours.journal), number(&theirs["journal_addr"]));
            assert_eq!(ours.address, theirs["ip"].as_str().unwrap());
        }
        let ours = tree(&volume);
        let paths: Vec<&str> = ours.keys().map(String::as_str).collect();
        let mut theirs: Vec<&str> = list.iter().map(|f| f["path"].as_str().unwrap()).collect();
        theirs.sort_unstable();
        assert_eq!(paths, theirs, "{set}");
        for file in list {
            let path = file["path"].as_str().unwrap();
            check_file(&volume, ours[path], file, &format!("{set}{path}"));
            files += 1;
        }
        let mut deleted = Vec::new();
        volume
            .deleted(&mut |found| {
                deleted.push(found.unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
        let empty = Vec::new();
        let theirs = truth["deleted_fds"].as_array().unwrap_or(&empty);
        // The truth has no deleted directories.
        deleted.retain(|d| d.stat.kind == FileKind::File);
        assert_eq!(deleted.len(), theirs.len(), "{set}");
        for (ours, theirs) in deleted.iter().zip(theirs) {
            assert_eq!(u64::from(ours.stat.address.0), number(&theirs["fd"]));
            assert_eq!(
                u64::from(ours.stat.generation),
                number(&theirs["generation"])
            );
            assert_eq!(ours.stat.size, number(&theirs["size"]));
            let text = ours
                .contents
                .as_deref()
                .map(|c| std::str::from_utf8(c).unwrap());
            assert_eq!(text, theirs["resident_text"].as_str());
        }
        let mut findings = Vec::new();
        let checked = volume.check(&mut |f| findings.push(f)).unwrap();
        assert!(findings.is_empty(), "{set}: {findings:#?}");
        assert_eq!(
            (checked.files, checked.directories >= 2),
            (list.len() as u64, true)
        );
        assert!(
            checked.addresses > 300 && checked.clusters > 100,
            "{checked:?}"
        );
        let usage = volume.usage().unwrap();
        println!(
            "{set}: {usage:?}, {} files, {} deleted",
            list.len(),
            deleted.len()
        );
        if let Some(usage) = usage {
            assert!(
                usage.used + usage.free <= volume.size() && usage.used > 0,
                "{set}"
            );
        }
    }
    assert!(files > 250, "{files}");
}

#[test]
fn every_logical_volume() {
    let Some((base, truth)) = images() else {
        return;
    };
    for (set, truth) in truth.as_object().unwrap() {
        let Some(volumes) = truth["lvm"]["volumes"].as_array() else {
            continue;
        };
        let devices: Vec<lvm::Device> = disks(&base, truth)
            .into_iter()
            .enumerate()
            .map(|(i, d)| lvm::Device::open(d, i).unwrap().unwrap())
            .collect();
        for (device, theirs) in devices
            .iter()
            .zip(truth["lvm"]["devices"].as_array().unwrap())
        {
            let header = &device.header;
            assert_eq!(u64::from(header.major), number(&theirs["major"]));
            assert_eq!(u64::from(header.minor), number(&theirs["minor"]));
            assert_eq!(header.uuid.to_string(), theirs["uuid"].as_str().unwrap());
            assert_eq!(header.size, number(&theirs["totalBytes"]));
            assert_eq!(u64::from(header.entries), number(&theirs["numPEs"]));
            assert_eq!(header.data_offset, number(&theirs["dataOffset"]));
            assert_eq!(header.created_us, number(&theirs["initTimeUS"]));
            assert!(
                theirs["scsi"]["id"]
                    .as_str()
                    .unwrap()
                    .starts_with(&hex(&header.identity.id))
            );
        }
        let names: Vec<String> = devices[0].names().unwrap();
        let sets = lvm::group(devices.into_iter().rev().collect());
        assert_eq!(sets.len(), 1);
        let volume = sets[0].assemble(false).unwrap();
        assert_eq!(volume.warnings(), &[] as &[String]);
        let theirs = &volumes[0];
        assert_eq!(volume.uuid().to_string(), theirs["uuid"].as_str().unwrap());
        assert_eq!(volume.len(), number(&theirs["size"]));
        assert_eq!(volume.entries()[0].name, theirs["name"].as_str().unwrap());
        let wanted: Vec<&str> = theirs["device_names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        assert_eq!(names, wanted, "{set}");
        let mut at = 0;
        for run in theirs["dataruns"].as_array().unwrap() {
            assert_eq!(number(&run[0]), at, "{set}");
            let (index, physical, len) = volume.place(at).unwrap();
            assert_eq!(physical, number(&run[1]), "{set}");
            assert_eq!(len, number(&run[2]), "{set}");
            assert_eq!(index as u64, number(&run[3]), "{set}");
            at += len;
        }
        assert_eq!(at, volume.len());
        conformance::check_rules(&volume);
    }
}
