//! The same disk through `ls -R --json`, `cp -r` and the mount: one tree, one set of hashes.

use serde_json::Value;
use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path, process::Command};
use tests::{
    fixtures,
    guest::{Entry, Truth, differences, read_dir},
    mount::{Mount, is_mount_point},
    say, tools,
};

fn vmdkit(args: &[&OsStr]) -> std::process::Output {
    let vmdkit = tools::vmdkit().unwrap();
    Command::new(vmdkit).args(args).output().unwrap()
}

fn said(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// What `ls -R --json` lists: path to (type, size), one object a line.
fn listed(image: &Path) -> BTreeMap<String, (String, u64)> {
    let out = vmdkit(&[
        "ls".as_ref(),
        "-R".as_ref(),
        "--json".as_ref(),
        image.as_ref(),
    ]);
    assert!(out.status.success(), "{}", said(&out));
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let entry: Value = serde_json::from_str(line).unwrap();
            let path = entry["path"]
                .as_str()
                .unwrap_or_else(|| panic!("no path: {line}"));
            let kind = entry["type"]
                .as_str()
                .unwrap_or_else(|| panic!("no type: {line}"));
            let size = entry["size"].as_u64().unwrap_or(0);
            (
                path.trim_start_matches('/').to_owned(),
                (kind.to_owned(), size),
            )
        })
        .collect()
}

/// The truth of a fixture with its volumes as directories.
fn with_volumes(truth: &Truth, sort: fixtures::Sort) -> Truth {
    let mut out = Truth::new();
    for (path, entry) in truth {
        let path = match sort {
            fixtures::Sort::Disk => path.clone(),
            _ => format!("p0/{path}"),
        };
        if let Some((volume, _)) = path.split_once('/') {
            out.insert(volume.to_owned(), Entry::Dir);
        }
        out.insert(path, entry.clone());
    }
    out
}

#[test]
fn ls_cp_and_mount_agree() {
    let fuse = tools::have_fuse();
    for fixture in fixtures::all() {
        let Some(made) = fixtures::get(fixture.name) else {
            continue;
        };
        let truth = with_volumes(&made.truth, fixture.sort);

        let mut list = listed(&made.image);
        list.retain(|_, (kind, _)| kind == "file" || kind == "directory");
        for (path, entry) in &truth {
            let found = list.remove(path);
            let expected = match entry {
                Entry::Dir => ("directory".to_owned(), found.as_ref().map_or(0, |f| f.1)),
                Entry::File { size, .. } => ("file".to_owned(), *size),
            };
            assert_eq!(found, Some(expected), "{}: ls: {path}", fixture.name);
        }
        let more: Vec<_> = list.keys().filter(|p| p.contains('/')).collect();
        assert!(more.is_empty(), "{}: ls lists more: {more:?}", fixture.name);

        let dir = tempfile::tempdir().unwrap();
        let copied = dir.path().join("copied");
        let out = vmdkit(&[
            "cp".as_ref(),
            "-r".as_ref(),
            made.image.as_ref(),
            "/".as_ref(),
            copied.as_ref(),
        ]);
        assert!(out.status.success(), "{}: cp: {}", fixture.name, said(&out));
        let by_copy = read_dir(&copied).unwrap();
        let lines = differences(&truth, &by_copy);
        assert!(
            lines.is_empty(),
            "{}: cp:\n{}",
            fixture.name,
            lines.join("\n")
        );

        if fuse {
            let at = dir.path().join("mnt");
            fs::create_dir(&at).unwrap();
            let out = vmdkit(&["mount".as_ref(), made.image.as_ref(), at.as_ref()]);
            assert!(
                out.status.success(),
                "{}: mount: {}",
                fixture.name,
                said(&out)
            );
            let by_mount = read_dir(&at);
            let out = vmdkit(&["umount".as_ref(), at.as_ref()]);
            assert!(
                out.status.success(),
                "{}: umount: {}",
                fixture.name,
                said(&out)
            );
            assert!(
                !is_mount_point(&at).unwrap(),
                "{}: still mounted",
                fixture.name
            );
            let lines = differences(&truth, &by_mount.unwrap());
            assert!(
                lines.is_empty(),
                "{}: mount:\n{}",
                fixture.name,
                lines.join("\n")
            );
        }
        say!(
            "{}: ls, cp{} agree on {} objects",
            fixture.name,
            if fuse { " and mount" } else { "" },
            truth.len()
        );
    }
}

#[test]
fn the_raw_layout_is_the_virtual_disk() {
    if !tools::have_fuse() {
        return;
    }
    let (Some(raw), Some(made)) = (fixtures::get("disk-mbr"), fixtures::get("vmdk-stream")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let mut command = Command::new(tools::vmdkit().unwrap());
    command
        .args(["mount", "--foreground", "--layout", "raw"])
        .arg(&made.image)
        .arg(&at);
    let mounted = Mount::start(command, &at).unwrap();
    let expected = fs::read(&raw.image).unwrap();
    let mut found = fs::read(at.join("disk.img")).unwrap();
    // qemu rounds a VMDK up to whole grains.
    assert!(found.len() - expected.len() < 65_536);
    assert!(found[expected.len()..].iter().all(|b| *b == 0));
    found.truncate(expected.len());
    assert!(found == expected, "disk.img differs");
    let ntfs = fixtures::get("ntfs-basic").unwrap();
    assert!(
        fs::read(at.join("p1.img")).unwrap() == fs::read(&ntfs.image).unwrap(),
        "p1.img differs"
    );
    let fat = fixtures::get("fat16").unwrap();
    assert!(
        fs::read(at.join("p5.img")).unwrap() == fs::read(&fat.image).unwrap(),
        "p5.img differs"
    );
    mounted.unmount().unwrap();
}

#[test]
fn cat_gives_the_file_and_nothing_else() {
    let Some(made) = fixtures::get("vmdk-sparse") else {
        return;
    };
    for path in [
        "/p1/sizes/65537",
        "/p5/SIZES/4097",
        "/p6/large.bin",
        "/p1/sizes/0",
    ] {
        let out = vmdkit(&["cat".as_ref(), made.image.as_ref(), path.as_ref()]);
        assert!(out.status.success(), "{path}: {}", said(&out));
        let entry = Entry::File {
            size: out.stdout.len() as u64,
            sha256: tests::guest::sha256(&out.stdout),
        };
        assert_eq!(made.truth[&path[1..]], entry, "{path}");
    }
}

#[test]
fn convert_to_raw_gives_the_virtual_disk() {
    let Some(raw) = fixtures::get("disk-mbr") else {
        return;
    };
    let expected = fs::read(&raw.image).unwrap();
    for name in [
        "vmdk-sparse",
        "vmdk-flat",
        "vmdk-split-sparse",
        "vmdk-split-flat",
        "vmdk-stream",
    ] {
        let Some(made) = fixtures::get(name) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out.raw");
        let out = vmdkit(&[
            "convert".as_ref(),
            made.image.as_ref(),
            to.as_ref(),
            "--to".as_ref(),
            "raw".as_ref(),
        ]);
        assert!(out.status.success(), "{name}: {}", said(&out));
        let mut found = fs::read(&to).unwrap();
        assert!(found.len() - expected.len() < 65_536, "{name}");
        found.truncate(expected.len());
        assert!(found == expected, "{name} differs");
        use std::os::unix::fs::MetadataExt;
        let blocks = fs::metadata(&to).unwrap().blocks() * 512;
        assert!(
            blocks < 60 << 20,
            "{name}: {blocks} bytes on disk, holes were filled"
        );
    }
}

#[test]
fn what_is_not_there_is_said_and_nothing_is_left() {
    let Some(made) = fixtures::get("vmdk-sparse") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    let out = vmdkit(&[
        "cp".as_ref(),
        made.image.as_ref(),
        "/p1/names/nothing.txt".as_ref(),
        to.as_ref(),
    ]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("nothing.txt"), "{}", said(&out));
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "something was left"
    );
}
