//! Every VMDK among the images of others: the recorded contents, or the right error.

use crate::common::skip;
use disk_io::{Disk, ErrorKind, HostDir, host_dir::Allowed};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use vmdk::{Image, OpenOptions};

/// The index and the directory of the unpacked images.
fn images() -> Option<(serde_json::Value, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let shared = root.parent()?.join("shared/images");
    let dir = match std::env::var_os("VMDKIT_IMAGES") {
        Some(dir) => PathBuf::from(dir),
        None => root.join("target/images"),
    };
    let index = [dir.join("index.json"), shared.join("index.json")]
        .iter()
        .find_map(|p| std::fs::read(p).ok())?;
    (dir.join("vmdk").is_dir()).then_some((serde_json::from_slice(&index).ok()?, dir))
}

fn sha256(disk: &dyn Disk) -> disk_io::Result<String> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 8 << 20];
    let mut at = 0;
    while at < disk.len() {
        let n = (disk.len() - at).min(buf.len() as u64) as usize;
        disk.read_exact_at(&mut buf[..n], at)?;
        hash.update(&buf[..n]);
        at += n as u64;
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// What images without a recorded hash must answer: kind of error, and a word of it.
const ERRORS: &[(&str, ErrorKind, &str)] = &[
    (
        "go-vcloud-director/Ubuntu1.vmdk",
        ErrorKind::Unsupported,
        "neither",
    ),
    (
        "plaso/multi_partition_image.vmdk",
        ErrorKind::Unsupported,
        "neither",
    ),
    ("-flat.vmdk", ErrorKind::Unsupported, "neither"),
    ("-f001.vmdk", ErrorKind::Unsupported, "neither"),
    ("go-vmdk-parser/vmdk-invalid.img", ErrorKind::Corrupt, ""),
    ("qemu/afl9.vmdk", ErrorKind::Corrupt, ""),
    (
        "vmdk-rs/vmfs_thick-000001.vmdk",
        ErrorKind::NotFound,
        "-delta.vmdk",
    ),
    ("vmdk-rs/old-1.vmdk", ErrorKind::NotFound, "1-s001.vmdk"),
    ("vmdk-rs/old-2.vmdk", ErrorKind::NotFound, "2-flat.vmdk"),
    ("vmdk-rs/old-3.vmdk", ErrorKind::NotFound, "3-f001.vmdk"),
    ("vmdk-rs/old-4.vmdk", ErrorKind::NotFound, "4-flat.vmdk"),
    (
        "mfd-esxi/Base_R91.vmdk",
        ErrorKind::NotFound,
        "Base_R91-flat.vmdk",
    ),
    (
        "mfd-esxi/Base_R91-000001.vmdk",
        ErrorKind::NotFound,
        "-sesparse.vmdk",
    ),
    (
        "metasploitable3-win-twoGbMaxExtentSparse.vmdk",
        ErrorKind::NotFound,
        "disk-s001.vmdk",
    ),
    (
        "vmdk-text/sq8vps-a.vmdk",
        ErrorKind::Refused,
        "PhysicalDrive2",
    ),
    (
        "vmdk-text/sq8vps-b.vmdk",
        ErrorKind::Refused,
        "PhysicalDrive1",
    ),
    (
        "vmdk-text/sq8vps-c.vmdk",
        ErrorKind::Refused,
        "PhysicalDrive2",
    ),
];

/// Images that open although nothing was recorded of them, and why.
const OPEN: &[&str] = &[
    // A piece of a split disk, opened by itself.
    "vmdk-rs/twoGbMaxExtentSparse-s001.vmdk",
    // An old descriptor whose flat file of today is shorter: the missing tail is an error.
    "vmdk-rs/old-vmfs_thick.vmdk",
];

#[test]
fn images_of_others() {
    let Some((index, dir)) = images() else {
        return skip(
            "images",
            "no images: set VMDKIT_IMAGES to the unpacked ones",
        );
    };
    let mut wrong = Vec::new();
    let mut checked = 0;
    for row in index.as_array().unwrap() {
        let path = row["path"].as_str().unwrap_or_default();
        let name = path.to_ascii_lowercase();
        let ours = name.ends_with(".vmdk") || name.contains("go-vmdk-parser/");
        let full = dir.join(path);
        if !ours || !full.exists() {
            continue;
        }
        checked += 1;
        let expected = row["virtual_sha256"].as_str();
        let opened = HostDir::open_source(&full, &Allowed::default())
            .and_then(|o| Image::open(o, &OpenOptions::default()));
        let result = opened.and_then(|image| {
            for warning in image.warnings() {
                println!("  {warning}");
            }
            sha256(&*image.disk())
        });
        let good = match (&result, expected) {
            (Ok(hash), Some(expected)) => hash == expected,
            (Err(e), None) => {
                OPEN.iter().any(|n| path.ends_with(n))
                    || ERRORS.iter().any(|(n, kind, word)| {
                        path.ends_with(n) && e.kind() == *kind && e.to_string().contains(word)
                    })
            }
            (Ok(_), None) => OPEN.iter().any(|n| path.ends_with(n)),
            (Err(_), Some(_)) => false,
        };
        let said = match &result {
            Ok(hash) => hash[..16].to_owned(),
            Err(e) => format!("{e:?}"),
        };
        println!("{} {path}: {said}", if good { "ok   " } else { "WRONG" });
        if !good {
            wrong.push(path.to_owned());
        }
    }
    assert!(checked > 30, "only {checked} images found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
