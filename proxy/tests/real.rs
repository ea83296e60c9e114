//! Real file systems, made by their own tools, in a partitioned disk, in images made by
//! qemu-img: the tree and the mount give every file back.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use disk_io::{Disk, ErrorKind};
use guest_fs::FsKind;
use proxy::{Layout, MountOptions, Source, SourceSpec, Tree, TreeOptions};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

const MIB: u64 = 1 << 20;

fn required(what: &str) -> bool {
    std::env::var("VMDKIT_REQUIRE").is_ok_and(|r| r.split(',').any(|r| r == what))
}

fn skip(kind: &str, why: &str) -> bool {
    assert!(!required(kind), "VMDKIT_REQUIRE has {kind}, and {why}");
    eprintln!("skipped: {why}");
    false
}

fn have(tools: &[&str]) -> bool {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    tools.iter().all(|tool| {
        path.split(':')
            .any(|dir| Path::new(dir).join(tool).exists())
            || skip("peers", &format!("{tool} is not installed"))
    })
}

fn have_fuse() -> bool {
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    device.is_ok() || skip("fuse", "/dev/fuse cannot be opened")
}

fn run(program: &str, args: &[&str]) {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i / 512 * 31 + i * 11 + seed) as u8)
        .collect()
}

/// (name, contents) of what both volumes hold.
fn files() -> Vec<(String, Vec<u8>)> {
    vec![
        ("Small File.txt".into(), b"small".to_vec()),
        ("empty".into(), Vec::new()),
        ("Übung.txt".into(), pattern(700, 1)),
        ("large.bin".into(), pattern(5_000_017, 2)),
        (
            "a name that is far too long for eight and three.data".into(),
            pattern(70_000, 3),
        ),
    ]
}

/// A disk with FAT16 in partition 1, NTFS in partition 2, swap in partition 3, as a raw file.
fn make_disk(dir: &Path) -> PathBuf {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let source = dir.join("files");
    fs::create_dir(&source).unwrap();
    let (fat, ntfs, swap) = (at("fat"), at("ntfs"), at("swap"));
    for (file, len) in [(&fat, 24), (&ntfs, 32), (&swap, 2)] {
        File::create(file).unwrap().set_len(len * MIB).unwrap();
    }
    run("mkfs.vfat", &["-F", "16", "-n", "FATVOL", &fat]);
    run("mkntfs", &["-F", "-q", "-L", "NTFSVOL", &ntfs]);
    run("mkswap", &[&swap]);
    for (name, data) in files() {
        let file = source.join(&name);
        fs::write(&file, data).unwrap();
        let file = file.to_str().unwrap();
        run("mcopy", &["-i", &fat, file, "::"]);
        run("ntfscp", &["-q", &ntfs, file, &name]);
    }
    run("mmd", &["-i", &fat, "::Only Here"]);
    let one = at("files/Small File.txt");
    run("mcopy", &["-i", &fat, &one, "::Only Here/copy.txt"]);

    let raw = dir.join("disk.raw");
    let disk = File::create(&raw).unwrap();
    disk.set_len(64 * MIB).unwrap();
    let mut mbr = vec![0; 512];
    for (slot, (kind, start, len, file)) in [
        (0x0e_u8, 1, 24, &fat),
        (0x07, 25, 32, &ntfs),
        (0x82, 60, 2, &swap),
    ]
    .into_iter()
    .enumerate()
    {
        let entry = &mut mbr[446 + slot * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&((start * MIB / 512) as u32).to_le_bytes());
        entry[12..].copy_from_slice(&((len * MIB / 512) as u32).to_le_bytes());
        disk.write_all_at(&fs::read(file).unwrap(), start * MIB)
            .unwrap();
    }
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all_at(&mbr, 0).unwrap();
    raw
}

fn open(path: &Path) -> Tree {
    let spec = SourceSpec {
        path: path.to_path_buf(),
        ..SourceSpec::default()
    };
    let source = Source::open(&spec).unwrap_or_else(|e| panic!("{e}"));
    Tree::new(Arc::new(source), TreeOptions::default()).unwrap()
}

fn read(tree: &Tree, path: &str) -> Vec<u8> {
    let found = tree.resolve(path).unwrap_or_else(|e| panic!("{e}"));
    let disk = tree.open(found.node, found.stream.as_ref()).unwrap();
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_disk_with_fat_and_ntfs_in_every_image() {
    if !have(&[
        "mkfs.vfat",
        "mkntfs",
        "mkswap",
        "mcopy",
        "mmd",
        "ntfscp",
        "qemu-img",
    ]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let raw = make_disk(place.path());
    let mut images = vec![raw.clone()];
    for subformat in [
        "monolithicSparse",
        "streamOptimized",
        "twoGbMaxExtentSparse",
    ] {
        let image = place.path().join(format!("{subformat}.vmdk"));
        let option = format!("subformat={subformat}");
        let (from, to) = (raw.to_str().unwrap(), image.to_str().unwrap());
        run(
            "qemu-img",
            &[
                "convert", "-f", "raw", "-O", "vmdk", "-o", &option, from, to,
            ],
        );
        images.push(image);
    }
    for image in &images {
        let tree = open(image);
        check_tree(&tree);
        if have_fuse() {
            check_mount(tree, place.path(), &raw);
        }
    }
}

fn check_tree(tree: &Tree) {
    let volumes = tree.volumes();
    let kinds: Vec<_> = volumes
        .iter()
        .map(|v| (v.path.to_string(), v.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("/p1".to_string(), Some(FsKind::Fat16)),
            ("/p2".to_string(), Some(FsKind::Ntfs)),
            ("/p3".to_string(), Some(FsKind::Swap)),
        ]
    );
    assert_eq!(volumes[0].label.as_ref().unwrap().to_string(), "FATVOL");
    assert_eq!(volumes[1].label.as_ref().unwrap().to_string(), "NTFSVOL");
    let why = volumes[2].why_not.as_ref().unwrap();
    assert_eq!(why.kind(), ErrorKind::Unsupported);
    assert!(why.to_string().contains("swap"), "{why}");
    for (name, data) in files() {
        assert!(read(tree, &format!("/p1/{name}")) == data, "/p1/{name}");
        assert!(read(tree, &format!("/p2/{name}")) == data, "/p2/{name}");
        let folded = tree
            .resolve(format!("/p2/{}", name.to_uppercase()))
            .unwrap();
        assert_eq!(folded.path.to_string(), format!("/p2/{name}"));
        assert_eq!(tree.path_of(folded.node), folded.path);
        let both = tree.resolve(format!("/{name}")).unwrap_err();
        assert_eq!(both.kind(), ErrorKind::Ambiguous, "{both}");
    }
    assert_eq!(read(tree, "/only here/COPY.TXT"), b"small");
    let found = tree.resolve("/only here/COPY.TXT").unwrap();
    assert_eq!(found.path.to_string(), "/p1/Only Here/copy.txt");
    let e = tree.resolve("/p3/x").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
}

fn check_mount(tree: Tree, place: &Path, raw: &Path) {
    let dir = place.join("mnt");
    fs::create_dir_all(&dir).unwrap();
    let tree = Arc::new(tree);
    let mounted = proxy::mount(tree.clone(), &dir, &MountOptions::default()).unwrap();
    for volume in ["p1", "p2"] {
        let listed: Vec<String> = fs::read_dir(dir.join(volume))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        for (name, data) in files() {
            assert!(listed.contains(&name), "{name} in {listed:?}");
            let path = dir.join(volume).join(&name);
            assert!(fs::read(&path).unwrap() == data, "{path:?}");
        }
        let more = if volume == "p1" { 1 } else { 0 };
        let shown = listed.iter().filter(|n| *n != "System Volume Information");
        assert_eq!(shown.count(), files().len() + more, "{listed:?}");
    }
    // Swap has no files, and what copies a whole mount goes on.
    assert_eq!(fs::read_dir(dir.join("p3")).unwrap().count(), 0);
    mounted.unmount().unwrap();

    let options = MountOptions {
        layout: Layout::Raw,
        direct_io: true,
        ..MountOptions::default()
    };
    let mounted = proxy::mount(tree, &dir, &options).unwrap();
    let expected = fs::read(raw).unwrap();
    assert!(fs::read(dir.join("disk.img")).unwrap() == expected);
    let part = &expected[25 * MIB as usize..57 * MIB as usize];
    assert!(fs::read(dir.join("p2.img")).unwrap() == part);
    mounted.unmount().unwrap();
}

#[test]
fn newer_data_is_warned_of() {
    if !have(&["qemu-img"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    run(
        "qemu-img",
        &["create", "-f", "vmdk", &at("base.vmdk"), "8M"],
    );
    for (parent, child) in [("base", "snap1"), ("snap1", "snap2")] {
        let backing = at(&format!("{parent}.vmdk"));
        let new = at(&format!("{child}.vmdk"));
        run(
            "qemu-img",
            &["create", "-f", "vmdk", "-F", "vmdk", "-b", &backing, &new],
        );
    }
    let warnings = |name: &str| {
        let spec = SourceSpec {
            path: at(name).into(),
            ..SourceSpec::default()
        };
        Source::open(&spec).unwrap().warnings().join("\n")
    };
    let text = warnings("base.vmdk");
    assert!(text.contains("newer data exists in snap2.vmdk"), "{text}");
    assert!(!text.contains("snap1.vmdk"), "{text}");
    assert!(!warnings("snap2.vmdk").contains("newer"));
}

#[test]
fn what_is_no_disk_is_not_believed() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("letter.txt");
    fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    let mut spec = SourceSpec {
        path: file,
        ..SourceSpec::default()
    };
    let e = Source::open(&spec).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    assert!(e.to_string().contains("--format raw"), "{e}");
    spec.format = Some(proxy::Format::Raw);
    let source = Source::open(&spec).unwrap();
    let tree = Tree::new(Arc::new(source), TreeOptions::default()).unwrap();
    let e = tree.resolve("/p0/x").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    spec.path = place.path().to_path_buf();
    assert_eq!(Source::open(&spec).unwrap_err().kind(), ErrorKind::Refused);
    spec.path = place.path().join("missing");
    assert_eq!(Source::open(&spec).unwrap_err().kind(), ErrorKind::NotFound);
}
