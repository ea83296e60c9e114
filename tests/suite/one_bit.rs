//! One wrong bit in the head of an image: the same disk, an error, or a word about it.
//!
//! Every bit of the headers and of the first entries of the tables of every format, one after the
//! other. What the format has no second word about is listed with its reason.

use disk_io::{Disk, HostDir, host_dir::Allowed};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};
use tests::tools;

/// Length of the disks: small, since each is read for every bit.
const LEN: usize = 256 << 10;

/// Bytes of the damaged file: from, to.
type Bits = &'static [(u64, u64)];

/// What reads otherwise without a word, and why nothing can be said of it.
type Known = fn(bit: u64) -> Option<&'static str>;

struct Image {
    what: &'static str,
    /// The file that is opened, and the one that is damaged.
    top: PathBuf,
    damaged: PathBuf,
    bits: Bits,
    known: Known,
}

fn run(program: &Path, words: &[&str]) {
    let out = Command::new(program).args(words).output().unwrap();
    assert!(
        out.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn read(path: &Path) -> Result<(Vec<u8>, bool), disk_io::DiskError> {
    let opened = HostDir::open_source(path, &Allowed::default())?;
    let image = disk_image::open(opened, &disk_image::OpenOptions::default())?;
    if !image.believed {
        // A raw disk is one only where a partition table or a file system is found on it.
        return Err(disk_io::DiskError::unsupported("opening as a disk"));
    }
    let told = !image.warnings.is_empty();
    // A disk that says to be endless is read as far as the right one goes.
    let len = image.disk.len().min(2 * LEN as u64);
    let mut bytes = vec![0; len as usize];
    image.disk.read_exact_at(&mut bytes, 0)?;
    let told = told || image.vmdk.is_some_and(|v| !v.remarks().is_empty());
    Ok((bytes, told))
}

/// Contents of which no two sectors are the same and none is zeros.
fn contents(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..LEN / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state | 1).to_le_bytes()
        })
        .collect()
}

fn images(dir: &Path) -> Vec<Image> {
    let vmdkit = tools::vmdkit().unwrap();
    let at = |name: &str| dir.join(name);
    let text = |name: &str| at(name).to_str().unwrap().to_owned();
    fs::write(at("base.raw"), contents(1)).unwrap();
    // The child differs in its first and its last part.
    let mut child = contents(1);
    let other = contents(2);
    child[..LEN / 4].copy_from_slice(&other[..LEN / 4]);
    child[LEN - LEN / 4..].copy_from_slice(&other[LEN - LEN / 4..]);
    fs::write(at("child.raw"), child).unwrap();
    let none: Known = |_| None;
    let vdi: Known = |bit| match bit / 8 {
        368..376 => Some("inside one block nothing else has the size"),
        _ => None,
    };
    let vhdx: Known = |bit| match bit / 8 {
        // The item with the size begins 8 bytes into the items.
        place if (2_162_696..2_162_704).contains(&place) => Some("nothing else has the size"),
        place if (3 << 20..(3 << 20) + 8).contains(&place) => {
            Some("another place of the file, which nothing else has")
        }
        _ => None,
    };
    let mut all = Vec::new();
    let mut add = |what, top: &str, damaged: &str, bits: Bits, known: Known| {
        all.push(Image {
            what,
            top: at(top),
            damaged: at(damaged),
            bits,
            known,
        });
    };
    let convert = |to: &str, more: &[&str], name: &str| {
        let (from, to_file) = (text("base.raw"), text(name));
        let words = ["convert", "-q", "--format", "raw", "--to", to];
        run(vmdkit, &[&words[..], more, &[&from, &to_file]].concat());
    };
    for (format, name) in [("vdi", "d.vdi"), ("vhdx", "d.vhdx"), ("vhd", "d.vhd")] {
        convert(format, &[], name);
    }
    add("VDI", "d.vdi", "d.vdi", &[(64, 520)], vdi);
    add("VHD", "d.vhd", "d.vhd", &[(0, 1600)], none);
    // Headers; region table; metadata table and items; the first entries of the BAT.
    add(
        "VHDX",
        "d.vhdx",
        "d.vhdx",
        &[
            (64 << 10, (64 << 10) + 80),
            (192 << 10, (192 << 10) + 80),
            (2 << 20, (2 << 20) + 192),
            ((2 << 20) + (64 << 10), (2 << 20) + (64 << 10) + 64),
            (3 << 20, (3 << 20) + 16),
        ],
        vhdx,
    );
    convert("vmdk", &["--subformat", "vmfs"], "base.vmdk");
    convert("vmdk", &["--subformat", "twoGbMaxExtentFlat"], "flat.vmdk");
    add(
        "text of a flat disk",
        "flat.vmdk",
        "flat.vmdk",
        &[(0, 300)],
        none,
    );
    for (what, subformat, file) in [
        ("COWD", "vmfsSparse", "-delta.vmdk"),
        ("seSparse", "seSparse", "-sesparse.vmdk"),
        ("sparse", "monolithicSparse", ".vmdk"),
    ] {
        let name = format!("{subformat}.vmdk");
        let (from, to, onto) = (text("child.raw"), text(&name), text("base.vmdk"));
        // A raw disk cannot be rebased: through a VMDK.
        let full = text("child.vmdk");
        if !at("child.vmdk").exists() {
            run(
                vmdkit,
                &[
                    "convert", "-q", "--format", "raw", "--to", "vmdk", &from, &full,
                ],
            );
        }
        run(
            vmdkit,
            &[
                "-q",
                "rebase",
                &full,
                &to,
                "--onto",
                &onto,
                "--subformat",
                subformat,
            ],
        );
        let damaged = format!("{subformat}{file}");
        add(what, &name, &damaged, &[(0, 208)], none);
    }
    all
}

#[test]
fn every_bit_of_every_head() {
    let dir = tempfile::tempdir().unwrap();
    let mut silent = Vec::new();
    for image in images(dir.path()) {
        let (right, told) = read(&image.top).unwrap();
        assert!(!told && right.len() == LEN, "{}", image.what);
        let good = fs::read(&image.damaged).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(&image.damaged)
            .unwrap();
        let (mut same, mut refused, mut said) = (0, 0, 0);
        for place in image.bits.iter().flat_map(|(from, to)| *from..*to) {
            let Some(old) = good.get(place as usize).copied() else {
                continue;
            };
            for bit in 0..8 {
                file.write_all_at(&[old ^ 1 << bit], place).unwrap();
                match read(&image.top) {
                    Err(_) => refused += 1,
                    Ok((found, _)) if found == right => same += 1,
                    Ok((_, true)) => said += 1,
                    Ok((found, false)) => {
                        if (image.known)(place * 8 + bit).is_none() {
                            silent.push(format!(
                                "{}: bit {bit} of byte {place}: {} bytes",
                                image.what,
                                found.len()
                            ));
                        }
                    }
                }
            }
            file.write_all_at(&[old], place).unwrap();
        }
        assert!(read(&image.top).unwrap().0 == right, "{}", image.what);
        println!(
            "{}: {same} the same, {refused} refused, {said} told",
            image.what
        );
    }
    assert!(
        silent.is_empty(),
        "{} silent:\n{}",
        silent.len(),
        silent.join("\n")
    );
}
