//! Partition tables of real disks, against `sfdisk`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod volume_common;

use guest_fs::partition::{self, Scheme};
use std::process::Command;
use volume_common::{disk, have, images};

/// (number, first sector, sectors, type).
type Part = (u32, u64, u64, String);

/// The label and the partitions as `sfdisk -J` has them.
fn sfdisk(path: &std::path::Path) -> Option<(String, Vec<Part>)> {
    let out = Command::new("sfdisk").arg("-J").arg(path).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
    let table = &json["partitiontable"];
    let label = table["label"].as_str()?.to_owned();
    let name = path.to_str()?;
    let parts = table["partitions"].as_array().cloned().unwrap_or_default();
    let parts = parts
        .iter()
        .map(|p| {
            let number = p["node"].as_str()?.strip_prefix(name)?;
            Some((
                number.trim_start_matches('p').parse().ok()?,
                p["start"].as_u64()?,
                p["size"].as_u64()?,
                p["type"].as_str()?.to_lowercase(),
            ))
        })
        .collect::<Option<Vec<_>>>()?;
    Some((label, parts))
}

fn ours(path: &std::path::Path) -> (partition::Table, Vec<Part>) {
    let table = partition::read(&disk(path)).unwrap();
    let unit = u64::from(table.sector_size);
    let parts = table
        .partitions
        .iter()
        .map(|p| {
            let kind = p.type_id.trim_start_matches("0x");
            let kind = kind.strip_prefix('0').unwrap_or(kind);
            let kind = if p.type_id.len() > 4 {
                &p.type_id
            } else {
                kind
            };
            (p.number, p.start / unit, p.len / unit, kind.to_owned())
        })
        .collect();
    (table, parts)
}

/// Where sfdisk says less than we do, and why.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "partition/dissect/bsd64.bin",
        "cut short: sfdisk needs the whole disk to believe the GPT",
    ),
    (
        "partition/dissect/gpt.bin",
        "cut short: sfdisk needs the whole disk to believe the GPT",
    ),
    (
        "partition/dissect/gpt_esxi.bin",
        "cut short: sfdisk needs the whole disk to believe the GPT",
    ),
    (
        "partition/dissect/bsd.bin",
        "a BSD disk label, named and not read",
    ),
    (
        "partition/util-linux/bsd.img",
        "a BSD disk label, named and not read",
    ),
];

#[test]
fn every_table_of_the_collection_is_what_sfdisk_says() {
    let Some((dir, index)) = images() else { return };
    if !have("sfdisk") {
        return;
    }
    let mut compared = 0;
    for image in &index {
        let path = image["path"].as_str().unwrap();
        if image["format"] != "raw" || !dir.join(path).is_file() {
            continue;
        }
        if !(path.starts_with("partition/") || image.get("partition_table").is_some()) {
            continue;
        }
        let full = dir.join(path);
        let (table, parts) = ours(&full);
        println!(
            "{path}: {} {parts:?} {:?}",
            table.scheme.as_str(),
            table.remarks
        );
        if EXPLAINED.iter().any(|(p, _)| *p == path) {
            assert!(!table.remarks.is_empty(), "{path}: no remark");
            continue;
        }
        let Some((label, expected)) = sfdisk(&full) else {
            assert_eq!(table.scheme, Scheme::None, "{path}");
            continue;
        };
        if table.scheme == Scheme::None {
            // A file system without a table, whose boot sector sfdisk takes for one.
            let boot = guest_fs::volume::boot_sector(&disk(&full)).unwrap();
            assert!(boot.is_some(), "{path}: sfdisk sees {label} {expected:?}");
            continue;
        }
        let label_of = |scheme| match scheme {
            Scheme::Mbr => "dos",
            _ => "gpt",
        };
        assert_eq!(label_of(table.scheme), label, "{path}");
        assert_eq!(table.sector_size, 512, "{path}");
        assert_eq!(table.dynamic, path.contains("libldm"), "{path}");
        assert_eq!(parts, expected, "{path}");
        compared += 1;
    }
    assert!(compared > 25, "only {compared} tables compared");
}
