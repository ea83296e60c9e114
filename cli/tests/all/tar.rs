//! `tar`: unpacked, it is what `cp -r` restores.

use crate::common::{Fixture, contents_of_c, names};
use std::{fs, process::Command};

fn unpack(f: &Fixture, bytes: &[u8], options: &[&str]) {
    fs::create_dir_all(f.path("out")).unwrap();
    fs::write(f.path("a.tar"), bytes).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-xf", "../a.tar"]).args(options);
    let done = tar.current_dir(f.path("out")).output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn unpacked_it_is_the_tree() {
    let f = Fixture::new();
    let ran = f.run(&["tar", "disk.vmdk", "/p0/dir", "/p0/a.txt"]).code(0);
    unpack(&f, &ran.out, &[]);
    assert_eq!(names(&f.path("out")), ["a.txt", "dir"]);
    assert_eq!(fs::read(f.path("out/a.txt")).unwrap(), b"hello\n");
    assert!(fs::read(f.path("out/dir/sub/c.bin")).unwrap() == contents_of_c());
    ran.says("archived 3 files").says("2 directories");
    f.run(&["cp", "disk.vmdk", "/p0/a.txt", "plain.txt"])
        .code(0);
    let modified = |name: &str| fs::metadata(f.path(name)).unwrap().modified().unwrap();
    assert_eq!(modified("out/a.txt"), modified("plain.txt"));
}

#[test]
fn compressed_filtered_and_without_a_directory() {
    let f = Fixture::new();
    let args = [
        "tar",
        "--zstd",
        "disk.vmdk",
        "/p0/.",
        "--exclude",
        "sub",
        "-q",
    ];
    let ran = f.run(&args).code(0);
    assert_eq!(ran.err, "");
    assert_eq!(ran.out[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    let plain = f
        .run(&["tar", "disk.vmdk", "/p0/.", "--include", "*.txt"])
        .code(0);
    unpack(&f, &plain.out, &[]);
    assert_eq!(names(&f.path("out")), ["a.txt", "dir"]);
    assert_eq!(names(&f.path("out/dir")), ["b.txt"]);
}

#[test]
fn what_is_not_there() {
    let f = Fixture::new();
    f.run(&["tar", "disk.vmdk", "/p0/none"])
        .code(1)
        .says("none");
    let some = f
        .run(&["tar", "disk.vmdk", "/p0/none", "/p0/a.txt"])
        .code(3);
    unpack(&f, &some.out, &[]);
    some.says("none").says("failed 1");
    f.run(&["tar", "disk.vmdk"]).code(2);
    f.run(&["tar", "disk.vmdk", "/p0", "--zstd=99"]).code(2);
}

/// PATHs that end alike are not one name for two members.
#[test]
fn no_name_twice() {
    let f = Fixture::new();
    for form in ["tar", "zip"] {
        let args = ["tar", "--as", form, "disk.vmdk", "/p0/a.txt", "/p0/a.txt"];
        let ran = f.run(&args).code(3);
        ran.says("second member of that name")
            .says("archived 1 file")
            .says("failed 1");
    }
    let ran = f.run(&["tar", "disk.vmdk", "/p0/dir", "/p0/."]).code(3);
    unpack(&f, &ran.out, &[]);
    let told = fs::read_to_string(f.path("out/vmdkit-failures.txt")).unwrap();
    assert!(told.starts_with("/p0/dir: "), "{told}");
    assert_eq!(names(&f.path("out")).len(), 5);
    assert_eq!(fs::read(f.path("out/dir/b.txt")).unwrap(), b"there\n");
}
