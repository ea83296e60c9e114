//! `verify` holds the structures of a guest's volume against each other: each planted fault is
//! found, named and mapped to the guest file, and clean volumes have none.

use serde_json::Value;
use std::{fs, path::Path, process::Command};
use tests::{fixtures, images::images, tools};

fn verify(image: &Path) -> (Option<i32>, Vec<Value>) {
    let out = Command::new(tools::vmdkit().unwrap())
        .args(["verify", "--json"])
        .arg(image)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    let found = said["guests"]["structure"].as_array().unwrap().clone();
    (out.status.code(), found)
}

/// The only finding above a note.
fn only(image: &Path, bytes: &[u8], code: &str, severity: &str) -> Value {
    fs::write(image, bytes).unwrap();
    let (exit, mut found) = verify(image);
    found.retain(|f| f["severity"] != "note");
    assert_eq!(found.len(), 1, "{code}: {found:?}");
    assert_eq!(found[0]["code"], code, "{found:?}");
    assert_eq!(found[0]["severity"], severity);
    // Without a manifest nothing is proven; damage is bad.
    assert_eq!(
        exit,
        Some(if severity == "damage" { 4 } else { 3 }),
        "{code}"
    );
    found.remove(0)
}

fn touches(found: &Value, path: &str) {
    let touched = found["touched"].as_array().unwrap();
    assert!(touched.iter().any(|t| t["path"] == path), "{path}: {found}");
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
}

#[test]
fn clean_volumes_have_no_findings() {
    let mut seen = 0;
    for fixture in fixtures::all() {
        let Some(made) = fixtures::get(fixture.name) else {
            continue;
        };
        let (_, mut found) = verify(&made.image);
        found.retain(|f| f["severity"] != "note");
        assert!(found.is_empty(), "{}: {found:?}", fixture.name);
        seen += 1;
    }
    assert!(seen > 0 || !tools::have(&["mkntfs"]));
}

/// Where record `n` of an NTFS volume lies, and where in it the runs of its `$DATA` begin.
fn ntfs_record(volume: &[u8], n: usize) -> (usize, usize) {
    let cluster = 512 * usize::from(volume[0x0d]);
    let record = number(&volume[0x30..0x38]) * cluster + n * 1024;
    let mut at = record + number(&volume[record + 20..record + 22]);
    while volume[at] != 0x80 {
        at += number(&volume[at + 4..at + 8]);
    }
    (record, at + number(&volume[at + 32..at + 34]))
}

#[test]
fn faults_of_ntfs() {
    if !tools::have(&["mkntfs", "ntfscp"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, file) = (dir.path().join("v.img"), dir.path().join("file"));
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tools::run("mkntfs", ["-F", "-q", "-Q", image.to_str().unwrap()]).unwrap();
    for (name, byte) in [("one.bin", 1), ("two.bin", 2)] {
        fs::write(&file, vec![byte; 50_000]).unwrap();
        let (image, file) = (image.to_str().unwrap(), file.to_str().unwrap());
        tools::run("ntfscp", ["-f", image, file, name]).unwrap();
    }
    let clean = fs::read(&image).unwrap();
    let (_, found) = verify(&image);
    assert!(found.is_empty(), "{found:?}");
    let cluster = 512 * usize::from(clean[0x0d]);
    let run = |record: usize| {
        let runs = ntfs_record(&clean, record).1;
        let (len, place) = (usize::from(clean[runs] & 15), usize::from(clean[runs] >> 4));
        let at = runs + 1 + len;
        (at..at + place, number(&clean[at..at + place]))
    };
    // Records of users' files: 24 is where mkntfs leaves room for them to begin.
    let named = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mft = number(&clean[0x30..0x38]) * cluster;
        let at = (24..200).find(|n| {
            let record = &clean[mft + n * 1024..][..1024];
            record.starts_with(b"FILE") && record.windows(wide.len()).any(|w| w == wide)
        });
        at.unwrap()
    };
    let (one, two) = (named("one.bin"), named("two.bin"));

    let mut bytes = clean.clone();
    let map = run(6).1 * cluster;
    let lcn = run(one).1;
    bytes[map + lcn / 8] &= !(1 << (lcn % 8));
    let found = only(&image, &bytes, "ntfs-bitmap-free", "warning");
    touches(&found, "/p0/one.bin");

    let mut bytes = clean.clone();
    let place = run(two).0;
    let other = run(one).1.to_le_bytes();
    let width = place.len();
    bytes[place].copy_from_slice(&other[..width]);
    let found = only(&image, &bytes, "ntfs-clusters-shared", "damage");
    touches(&found, "/p0/one.bin");
    touches(&found, "/p0/two.bin");

    // A name that leads to a freed record is damage, but on a volume that a crash left.
    let mft = number(&clean[0x30..0x38]) * cluster;
    let mut bytes = clean.clone();
    bytes[mft + one * 1024 + 22] &= !1;
    fs::write(&image, &bytes).unwrap();
    assert_eq!(verify(&image).0, Some(4));
    let volume = mft + 3 * 1024;
    let mut at = volume + number(&clean[volume + 20..][..2]);
    while number(&clean[at..][..4]) != 0x70 {
        at += number(&clean[at + 4..][..4]);
    }
    bytes[at + number(&clean[at + 20..][..2]) + 10] |= 1;
    fs::write(&image, &bytes).unwrap();
    assert_eq!(verify(&image).0, Some(3));

    let mut bytes = clean.clone();
    let mirror = number(&clean[0x38..0x40]) * cluster;
    bytes[mirror + 1024 + 16] ^= 1;
    only(&image, &bytes, "ntfs-mirror-differs", "warning");

    let mut bytes = clean.clone();
    let copy = number(&clean[0x28..0x30]) * 512;
    bytes[copy + 0x30] ^= 1;
    only(&image, &bytes, "ntfs-boot-copy-differs", "warning");
    // Where `ntfsresize` leaves room behind the file system, the copy is in the last sector.
    let sectors = number(&clean[0x28..0x30]);
    let mut bytes = clean.clone();
    bytes[0x28..0x30].copy_from_slice(&(sectors as u64 - 7).to_le_bytes());
    let boot = bytes[..512].to_vec();
    bytes[sectors * 512..][..512].copy_from_slice(&boot);
    fs::write(&image, &bytes).unwrap();
    let (_, found) = verify(&image);
    assert!(found.is_empty(), "{found:?}");
    bytes[sectors * 512 + 0x30] ^= 1;
    only(&image, &bytes, "ntfs-boot-copy-differs", "warning");

    // A run that leaves the volume.
    let mut bytes = clean.clone();
    let place = run(two).0;
    bytes[place.clone()].fill(0x7f);
    only(&image, &bytes, "ntfs-record-damaged", "damage");
}

#[test]
fn faults_of_fat() {
    if !tools::have(&["mkfs.fat", "mcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, file) = (dir.path().join("v.img"), dir.path().join("file"));
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    tools::run("mkfs.fat", ["-F", "32", image.to_str().unwrap()]).unwrap();
    for (name, byte) in [("::one.bin", 1), ("::two.bin", 2)] {
        fs::write(&file, vec![byte; 50_000]).unwrap();
        let (image, file) = (image.to_str().unwrap(), file.to_str().unwrap());
        tools::run("mcopy", ["-i", image, file, name]).unwrap();
    }
    let clean = fs::read(&image).unwrap();
    let (_, found) = verify(&image);
    assert!(found.is_empty(), "{found:?}");
    let table = 512 * number(&clean[14..16]);
    let second = table + 512 * number(&clean[36..40]);
    let entry = |name: &[u8]| clean.windows(11).position(|w| w == name).unwrap();
    let first = |at: usize| number(&clean[at + 26..at + 28]);
    let (one, two) = (entry(b"ONE     BIN"), entry(b"TWO     BIN"));

    let mut bytes = clean.clone();
    bytes[second + 4 * first(one)] ^= 1;
    let found = only(&image, &bytes, "fat-copies-differ", "warning");
    touches(&found, "/p0/one.bin");

    let mut bytes = clean.clone();
    bytes[two + 26..two + 28].copy_from_slice(&(first(one) as u16).to_le_bytes());
    let found = only(&image, &bytes, "fat-clusters-shared", "damage");
    touches(&found, "/p0/one.bin");
    touches(&found, "/p0/two.bin");

    // Free in both tables, in the middle of a chain.
    let mut bytes = clean.clone();
    for table in [table, second] {
        bytes[table + 4 * (first(one) + 3)..][..4].fill(0);
    }
    let found = only(&image, &bytes, "fat-chain-broken", "damage");
    assert!(
        found["said"].as_str().unwrap().contains("/one.bin"),
        "{found}"
    );
}

/// Volumes over partitions are held against themselves too: an ext2 in an LVM2 group whose first
/// block group has its bitmaps nowhere.
#[test]
fn logical_volumes_are_checked() {
    let Some(images) = images() else { return };
    let sound = images.root.join("partition/plaso/lvm.raw");
    let mut bytes = fs::read(sound).unwrap();
    // The physical extents begin at 1 MiB, the superblock and the descriptors 1 and 2 KiB behind.
    let superblock = (1 << 20) + 1024;
    assert_eq!(&bytes[superblock + 56..][..2], &[0x53, 0xef]);
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("lvm.raw");
    bytes[superblock + 1024..][..4].fill(0xee);
    let found = only(&image, &bytes, "ext-group-damaged", "damage");
    let volume = found["volume"].as_str().unwrap();
    assert_eq!(volume, "/lvm/test_volume_group/test_logical_volume1");
}

/// What differs on the disk is told as files of the volumes over it.
#[test]
fn files_of_logical_volumes_are_named() {
    let Some(images) = images() else { return };
    let sound = images.root.join("partition/plaso/lvm.raw");
    let mut bytes = fs::read(&sound).unwrap();
    // Where `passwords.txt` is in its volume, behind the beginning of the physical extents.
    bytes[(1 << 20) + 3_146_752] ^= 1;
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("lvm.raw");
    fs::write(&image, bytes).unwrap();
    let out = Command::new(tools::vmdkit().unwrap())
        .args(["verify", "--json"])
        .arg(&image)
        .arg("--against")
        .arg(&sound)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(4));
    touches(
        &said["contents"][0],
        "/lvm/test_volume_group/test_logical_volume1/passwords.txt",
    );
}
