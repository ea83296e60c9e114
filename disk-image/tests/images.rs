//! Images that nobody on this project made: each reproduces its hash or ends in the error
//! that it deserves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(unreachable_pub)]
mod common;

use common::{images, open, open_with, required, sha256};
use disk_image::{Format, OpenOptions, ova::Package};
use disk_io::{
    ErrorKind::{self, Corrupt, NotFound},
    HostDir,
    host_dir::Allowed,
};
use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Images that end in an error, and what the error has to say.
const ERRORS: &[(&str, ErrorKind, &str)] = &[
    // Their backing files were not published.
    (
        "qcow2/cdi/cirros-snapshot-qcow2.img",
        NotFound,
        "cirros-qcow2.img",
    ),
    ("qcow2/cdi/cirros-snapshot1.qcow2", NotFound, "cirros.raw"),
    ("qcow2/cdi/cirros-snapshot2.qcow2", NotFound, "cirros.raw"),
    // Made by a fuzzer.
    ("vhd/qemu/afl5.img", Corrupt, "dynamic disk header"),
    // Made by a script that got a checksum wrong; other readers do not look.
    ("vhd/dfvfs/image.vhd", Corrupt, "the checksum"),
    ("vhd/dfvfs/image-differential.vhd", Corrupt, "the checksum"),
];

/// Contents that were hashed by other means than the index names.
const HASHES: &[(&str, &str)] = &[
    // libvhdi takes sector 186 from the child, where its bit is clear; that empties the file
    // `System Volume Information/WPSettings.dat`, which the parent has.
    (
        "vhd/dfvfs/fat-differential.vhd",
        "f4b61a33ee2f7e8c19f737792a4107e46340026a9a829e4169b751901cc3ef02",
    ),
];

/// Formats whose virtual disks this test compares.
const FOLDERS: &[&str] = &["qcow2/", "vhd/", "vhdx/", "vdi/"];

fn check(dir: &Path, entry: &serde_json::Value) -> Result<String, String> {
    let path = entry["path"].as_str().unwrap_or_default();
    let expected = HASHES
        .iter()
        .find(|h| h.0 == path)
        .map(|h| h.1)
        .or_else(|| entry["virtual_sha256"].as_str());
    let size = entry["virtual_size"].as_u64().unwrap_or(0);
    let result = open(&dir.join(path));
    if let Some((_, kind, text)) = ERRORS.iter().find(|e| e.0 == path) {
        return match result {
            Err(e) if e.kind() == *kind && e.to_string().contains(text) => {
                Ok(format!("{kind:?}, as it should: {e}"))
            }
            Err(e) => Err(format!("expected {kind:?} with {text:?}, found {e:?}")),
            Ok(_) => Err(format!("expected {kind:?} with {text:?}, and it opened")),
        };
    }
    let image = result.map_err(|e| format!("{e:?}"))?;
    for warning in &image.warnings {
        println!("        {warning}");
    }
    if expected.is_none() && size > 2 << 30 {
        return Ok(format!(
            "{}, {} bytes, no hash known",
            image.format,
            image.disk.len()
        ));
    }
    if size > 2 << 30 && !required("images") {
        return Ok("opened; too long to hash unless images are required".into());
    }
    let found = sha256(&*image.disk).map_err(|e| format!("{e:?}"))?;
    match expected {
        Some(expected) if expected != found => Err(format!(
            "{} bytes hash to {found}, not {expected}",
            image.disk.len()
        )),
        Some(_) => Ok(format!(
            "{}, {} bytes, same hash",
            image.format,
            image.disk.len()
        )),
        None => Ok(format!(
            "{}, {} bytes, {found}, no hash known",
            image.format,
            image.disk.len()
        )),
    }
}

/// The disks of every archive, in place, against the same disks on their own.
#[test]
fn every_disk_of_every_archive() {
    let Some((dir, index)) = images() else {
        return;
    };
    let entries = index.as_array().or_else(|| index["images"].as_array());
    let entries = entries.expect("a list");
    let mut seen = 0;
    for entry in entries {
        let path = entry["path"].as_str().unwrap_or_default();
        let Some(stem) = path.strip_prefix("ova/go-vcloud-director/") else {
            continue;
        };
        let stem = stem.trim_end_matches(".ova");
        let source = HostDir::open_source(&dir.join(path), &Allowed::default()).unwrap();
        let package = Package::open(&source, Format::Ova).unwrap();
        assert!(!package.descriptor.disks.is_empty());
        for disk in &package.descriptor.disks {
            let href = &package.descriptor.file_of(disk).unwrap().href;
            let same = format!("ova-members/{stem}/{href}");
            let expected = entries.iter().find(|e| e["path"] == same.as_str());
            let expected = expected.unwrap()["virtual_sha256"].as_str().unwrap();
            let options = OpenOptions {
                disk: Some(disk.id.clone()),
                ..OpenOptions::default()
            };
            let image = open_with(&dir.join(path), &options).unwrap();
            assert_eq!(sha256(&*image.disk).unwrap(), expected, "{path} {href}");
            assert_eq!(Some(image.disk.len()), disk.capacity);
            println!("ok      {path}: {href}");
            seen += 1;
        }
        let checked = package.verify_manifest(&mut |_, _| {}).unwrap();
        for line in checked.into_iter().flatten() {
            assert!(line.problem.is_none(), "{:?}", line.problem);
            println!("ok      {path}: {} as in the manifest", line.entry.name);
        }
    }
    assert_eq!(seen, 5);
    // One whose disk was cut off by whoever made it.
    let e = open(&dir.join("ova/cdi/fake.ova")).unwrap_err();
    assert_eq!(e.kind(), Corrupt);
    assert!(e.to_string().contains("7804077568"), "{e}");
}

#[test]
fn every_image_reproduces_its_hash_or_its_error() {
    let Some((dir, index)) = images() else {
        return;
    };
    let entries = index.as_array().or_else(|| index["images"].as_array());
    let mut entries: Vec<_> = entries.expect("a list").iter().collect();
    entries.retain(|e| {
        let path = e["path"].as_str().unwrap_or_default();
        FOLDERS.iter().any(|f| path.starts_with(f))
    });
    assert!(!entries.is_empty(), "the index has none of {FOLDERS:?}");
    // One hash keeps one core busy for a minute: the longest first, on every core.
    entries.sort_by_key(|e| std::cmp::Reverse(e["virtual_size"].as_u64()));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((
                entry["path"].as_str().unwrap_or_default(),
                check(&dir, entry),
            ));
        }
        done
    };
    let mut results = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let results = threads.into_iter().flat_map(|t| t.join().unwrap());
        results.collect::<Vec<_>>()
    });
    results.sort();
    let mut failures = 0;
    for (path, result) in &results {
        match result {
            Ok(text) => println!("ok      {path}: {text}"),
            Err(text) => {
                failures += 1;
                println!("FAILED  {path}: {text}");
            }
        }
    }
    assert_eq!(failures, 0, "of {} images", results.len());
}
