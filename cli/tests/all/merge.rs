//! `commit` and `rebase`: the contents stay, the chain is another.

use crate::common::Fixture;
use std::fs;

/// `disk.vmdk` (flat), `other.vmdk` of the same size with other contents, and `delta.vmdk`,
/// which is `other.vmdk` as a child of `disk.vmdk`.
fn chain(f: &Fixture) -> Vec<u8> {
    crate::verify::changed(f, "other");
    f.run(&[
        "rebase",
        "other.vmdk",
        "delta.vmdk",
        "--onto",
        "disk.vmdk",
        "--verify",
    ])
    .code(0);
    f.run(&["convert", "other.vmdk", "other.raw", "--to", "raw"])
        .code(0);
    fs::read(f.path("other.raw")).unwrap()
}

fn contents(f: &Fixture, image: &str) -> Vec<u8> {
    let args = ["-q", "convert", "--force", image, "out.raw", "--to", "raw"];
    f.run(&args).code(0);
    fs::read(f.path("out.raw")).unwrap()
}

#[test]
fn a_disk_gets_another_parent() {
    let f = Fixture::new();
    let bytes = chain(&f);
    assert_eq!(contents(&f, "delta.vmdk"), bytes);
    // It holds what differs and little more.
    let own = fs::metadata(f.path("delta.vmdk")).unwrap().len();
    assert!(own < bytes.len() as u64 / 2, "{own}");
    let said = f
        .run(&[
            "rebase",
            "--json",
            "--in-place",
            "delta.vmdk",
            "--onto",
            "other.vmdk",
        ])
        .code(0)
        .json();
    assert_eq!(said["parent"], "other.vmdk");
    assert_eq!(said["written"], 0);
    assert_eq!(contents(&f, "delta.vmdk"), bytes);
    // A parent that needs the disk itself is refused.
    f.run(&["rebase", "other.vmdk", "loop.vmdk", "--onto", "delta.vmdk"])
        .code(0);
    f.run(&["rebase", "--in-place", "delta.vmdk", "--onto", "loop.vmdk"])
        .code(1);
    assert_eq!(contents(&f, "delta.vmdk"), bytes);
}

/// `--format` says what SOURCE is. Its parent-to-be is a VMDK all the same.
#[test]
fn a_raw_disk_gets_a_parent() {
    let f = Fixture::new();
    let bytes = chain(&f);
    let args = [
        "rebase",
        "--format",
        "raw",
        "other.raw",
        "made.vmdk",
        "--onto",
        "disk.vmdk",
    ];
    f.run(&args).code(0);
    assert_eq!(contents(&f, "made.vmdk"), bytes);
}

#[test]
fn a_copy_by_default() {
    let f = Fixture::new();
    let before = f.raw();
    let bytes = chain(&f);
    f.run(&["commit", "delta.vmdk", "--verify"]).code(0);
    assert_eq!(contents(&f, "disk-committed.vmdk"), bytes);
    assert_eq!(fs::read(f.path("disk-flat.vmdk")).unwrap(), before);
    // It exists now.
    f.run(&["commit", "delta.vmdk"]).code(1);
    f.run(&["commit", "delta.vmdk", "--force"]).code(0);
    // A disk without a parent has nothing to commit.
    f.run(&["commit", "disk.vmdk"]).code(1).says("has a parent");
}

#[test]
fn in_place_never_into_what_others_need() {
    let f = Fixture::new();
    let before = f.raw();
    let bytes = chain(&f);
    f.run(&["create", "second.vmdk", "--child-of", "disk.vmdk"])
        .code(0);
    f.run(&["commit", "--in-place", "delta.vmdk"])
        .code(1)
        .says("second.vmdk");
    assert_eq!(fs::read(f.path("disk-flat.vmdk")).unwrap(), before);
    fs::remove_file(f.path("second.vmdk")).unwrap();
    f.run(&["create", "third.vmdk", "--child-of", "delta.vmdk"])
        .code(0);
    f.run(&["commit", "--in-place", "delta.vmdk"])
        .code(1)
        .says("third.vmdk");
    fs::remove_file(f.path("third.vmdk")).unwrap();

    let here = f.path("");
    let here = here.to_str().unwrap();
    f.run(&["commit", "--in-place", "-D", here, "delta.vmdk"])
        .code(1)
        .says("a datastore");
    f.run(&["commit", "--in-place", "--verify", "delta.vmdk"])
        .code(0);
    assert_eq!(fs::read(f.path("disk-flat.vmdk")).unwrap(), bytes);
    assert_eq!(contents(&f, "disk.vmdk"), bytes);
    fs::remove_file(f.path("other.vmdk")).unwrap();
    // Whoever made something of the old parent hears of it.
    f.run(&["ls", "delta.vmdk"]).code(1).says("content id");
}
