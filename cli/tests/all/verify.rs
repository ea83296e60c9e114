//! `verify` and `diff`.

use crate::{common::Fixture, machine::machine};
use std::{
    fs,
    io::{Cursor, Write},
};

/// `NAME.vmdk`: the fixture's disk with `a.txt` changed, `empty` gone and `new.bin` there.
pub(crate) fn changed(f: &Fixture, name: &str) {
    let mut disk = Cursor::new(f.raw());
    {
        let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
        let root = fs.root_dir();
        root.create_file("a.txt")
            .unwrap()
            .write_all(b"HELLO")
            .unwrap();
        root.remove("empty").unwrap();
        let mut new = root.create_file("new.bin").unwrap();
        new.write_all(&[5; 100_000]).unwrap();
    }
    fs::write(f.path(&format!("{name}-flat.vmdk")), disk.into_inner()).unwrap();
    let text = fs::read_to_string(f.path("disk.vmdk")).unwrap();
    let text = text.replace("disk-flat", &format!("{name}-flat"));
    fs::write(f.path(&format!("{name}.vmdk")), text).unwrap();
}

#[test]
fn what_differs() {
    let f = Fixture::new();
    changed(&f, "other");
    let diff = f.run(&[
        "diff",
        "--json",
        "--files",
        "--blocks",
        "disk.vmdk",
        "other.vmdk",
    ]);
    let diff = diff.code(4).json();
    let files: Vec<_> = diff["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["path"].as_str().unwrap(), c["change"].as_str().unwrap()))
        .collect();
    assert_eq!(
        files,
        [
            ("/p0/a.txt", "content"),
            ("/p0/empty", "removed"),
            ("/p0/new.bin", "added"),
        ]
    );
    // The ranges are those that differ, byte by byte.
    let (a, b) = (f.raw(), fs::read(f.path("other-flat.vmdk")).unwrap());
    let mut left = a.clone();
    for range in diff["ranges"].as_array().unwrap() {
        let at = range["offset"].as_u64().unwrap() as usize;
        let end = at + range["length"].as_u64().unwrap() as usize;
        for block in (at..end).step_by(4096) {
            assert_ne!(a[block..block + 4096], b[block..block + 4096]);
        }
        left[at..end].copy_from_slice(&b[at..end]);
    }
    assert!(left == b);
    let text = f.run(&["diff", "disk.vmdk", "other.vmdk"]).code(4);
    assert!(text.text().contains(" ranges differ"), "{}", text.text());
    f.run(&["diff", "disk.vmdk", "disk-flat.vmdk"]).code(0);
    f.run(&["diff", "disk.vmdk"]).code(2);
}

/// Two files that change names have the same sizes and times, and no block of their own differs.
#[test]
fn files_that_change_names_differ() {
    let f = Fixture::new();
    let mut disk = Cursor::new(f.raw());
    let save = |disk: &Cursor<Vec<u8>>, name: &str| {
        fs::write(f.path(name), disk.get_ref()).unwrap();
    };
    {
        let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
        for (name, bytes) in [("x.txt", b"one"), ("y.txt", b"two")] {
            let mut file = fs.root_dir().create_file(name).unwrap();
            file.write_all(bytes).unwrap();
        }
    }
    save(&disk, "a.raw");
    disk.set_position(0);
    {
        let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
        let root = fs.root_dir();
        for (from, to) in [("x.txt", "t.txt"), ("y.txt", "x.txt"), ("t.txt", "y.txt")] {
            root.rename(from, &root, to).unwrap();
        }
    }
    save(&disk, "b.raw");
    let diff = f.run(&["diff", "--json", "--files", "a.raw", "b.raw"]);
    let diff = diff.code(4).json();
    let files: Vec<_> = diff["files"].as_array().unwrap().iter().collect();
    let files: Vec<_> = files
        .iter()
        .map(|c| (c["path"].as_str().unwrap(), c["change"].as_str().unwrap()))
        .collect();
    assert_eq!(files, [("/p0/x.txt", "content"), ("/p0/y.txt", "content")]);
}

#[test]
fn snapshots_share_what_is_not_read() {
    let f = Fixture::new();
    machine(&f, "web");
    let same = f.run(&["diff", "--json", "web", "--a", "id:1", "--b", "current"]);
    let same = same.code(0).json();
    assert_eq!(same["read_bytes"], 0);
    assert_eq!(same["same"], true);
}

#[test]
fn backups_that_hold_and_those_that_do_not() {
    let f = Fixture::new();
    machine(&f, "web");
    f.run(&["export", "--subformat", "monolithicFlat", "web", "out"])
        .code(0);
    let good = f.run(&["verify", "out"]).code(0);
    assert!(
        good.text().ends_with("PROVEN: this backup would restore\n"),
        "{}",
        good.text()
    );
    assert!(
        good.text().contains("5 files of 1 volumes"),
        "{}",
        good.text()
    );
    // Nothing says what it should hold.
    f.run(&["verify", "web"]).code(3);
    // Something does.
    f.run(&["verify", "web", "--against", "out"]).code(0);
    f.run(&["verify", "disk.vmdk", "--against", "web"]).code(0);
    changed(&f, "other");
    let other = f
        .run(&["verify", "other.vmdk", "--against", "disk.vmdk"])
        .code(4);
    assert!(
        other.text().contains("BAD other.vmdk against disk.vmdk"),
        "{}",
        other.text()
    );

    let flat = f.path("out/web-flat.vmdk");
    let mut bytes = fs::read(&flat).unwrap();
    bytes[5_000_000] ^= 1;
    fs::write(&flat, &bytes).unwrap();
    let json = f.run(&["verify", "--json", "out"]).code(4).json();
    assert_eq!(json["result"], "bad");
    let bad = |items: &serde_json::Value| {
        let items = items.as_array().unwrap().iter();
        let bad = items.filter(|i| i["ok"] == false);
        bad.map(|i| i["what"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(bad(&json["files"]), ["file web-flat.vmdk"]);
    assert_eq!(bad(&json["contents"]), ["contents of scsi0:0"]);
    bytes[5_000_000] ^= 1;
    fs::write(&flat, &bytes).unwrap();
    fs::write(f.path("out/extra"), "x").unwrap();
    let extra = f.run(&["verify", "out"]).code(3);
    assert!(
        extra.text().contains("no part of the backup"),
        "{}",
        extra.text()
    );
    fs::remove_file(f.path("out/extra")).unwrap();
    fs::remove_file(f.path("out/web.vmx")).unwrap();
    f.run(&["verify", "out"]).code(1);
}

#[test]
fn a_guest_file_that_cannot_be_read() {
    let f = Fixture::new();
    let raw = f.raw();
    // The last cluster of the longest file is gone, and nothing else.
    let c = crate::common::contents_of_c();
    let at = raw
        .windows(64)
        .position(|w| w == &c[299_000..299_064])
        .unwrap();
    fs::write(f.path("disk-flat.vmdk"), &raw[..at]).unwrap();
    let json = f.run(&["verify", "--json", "disk.vmdk"]).code(4).json();
    let failed = json["guests"]["failed"].as_array().unwrap();
    assert!(
        failed.iter().any(|x| x["path"] == "/p0/dir/sub/c.bin"),
        "{failed:?}"
    );
    assert_eq!(json["structure"]["findings"][0]["code"], "extent-cut-short");
}
