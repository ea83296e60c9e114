//! A directory to which two names lead is entered once, by whatever walks the tree.

use crate::common::{Fixture, Ran, names};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use std::{
    fs,
    io::{Cursor, Write},
};

/// So many directories, each with two entries that have the clusters of the next.
const LEVELS: usize = 25;

/// A FAT16 volume of which every directory has `F`, and as `X` and as `Y` the next.
fn two_entries(f: &Fixture) {
    let mut disk = Cursor::new(vec![0; crate::common::LEN]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new()).unwrap();
    {
        let fs = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        let mut at = fs.root_dir();
        for n in 0..LEVELS {
            let mut file = at.create_file("F").unwrap();
            file.write_all(n.to_string().as_bytes()).unwrap();
            at.create_dir("Y").unwrap();
            at = at.create_dir("X").unwrap();
        }
    }
    let mut bytes = disk.into_inner();
    let entry = |bytes: &[u8], at: usize, name: &[u8; 11]| {
        bytes
            .get(at..at + 12)
            .is_some_and(|e| e[..11] == *name && e[11] == 0x10)
    };
    let mut made = 0;
    for y in (0..bytes.len()).step_by(32) {
        if !entry(&bytes, y, b"Y          ") {
            continue;
        }
        let x = (y..)
            .step_by(32)
            .find(|x| entry(&bytes, *x, b"X          "));
        let x = x.unwrap();
        let cluster = [bytes[x + 26], bytes[x + 27]];
        bytes[y + 26..y + 28].copy_from_slice(&cluster);
        made += 1;
    }
    assert_eq!(made, LEVELS);
    fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
}

#[test]
fn entries_of_fat_with_one_cluster() {
    let f = Fixture::new();
    two_entries(&f);
    let told = |ran: Ran| {
        assert_eq!(
            ran.err.matches("has one name").count(),
            LEVELS,
            "{}",
            ran.err
        );
        ran.says("/p0/Y")
    };
    for verb in [
        "ls -R disk.vmdk /p0",
        "find disk.vmdk /p0",
        "ls -R disk.vmdk /",
        "find disk.vmdk",
    ] {
        let ran = told(f.run(&verb.split(' ').collect::<Vec<_>>()).code(3));
        let files = ran.text().lines().filter(|l| l.ends_with("/F")).count();
        assert_eq!(files, LEVELS, "{verb}");
    }
    fs::create_dir(f.path("out")).unwrap();
    let ran = told(f.run(&["cp", "-r", "disk.vmdk", "/p0", "out"]).code(3));
    ran.says(&format!("restored {LEVELS} files"));
    assert_eq!(names(&f.path("out/p0")).len(), 2);
    let ran = told(f.run(&["tar", "disk.vmdk", "/p0"]).code(3));
    ran.says(&format!("archived {LEVELS} files"));
    // By itself either name is good.
    for name in ["X", "Y"] {
        let path = format!("/p0/{name}");
        let ran = f.run(&["ls", "-R", "disk.vmdk", &path]).code(3);
        let files = ran.text().lines().filter(|l| l.ends_with("/F")).count();
        assert_eq!(files, LEVELS - 1);
    }
    let ran = f
        .run(&["cp", "-r", "disk.vmdk", "/p0/X", "/p0/Y", "out"])
        .code(3);
    ran.says(&format!("restored {} files", 2 * (LEVELS - 1)));
}
