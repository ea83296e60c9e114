//! Whose disk, whose snapshot, whose letter: what is not known is never guessed without a word.

use crate::{common::Fixture, machine::machine};
use std::fs;

fn replace(f: &Fixture, file: &str, from: &str, to: &str) {
    let path = f.path(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has {from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

fn add(f: &Fixture, file: &str, more: &str) {
    let path = f.path(file);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text + more).unwrap();
}

/// Disks on several datastores bear one name. The one that is not here is not the other.
#[test]
fn a_disk_that_is_elsewhere_is_not_another_of_its_name() {
    let f = Fixture::new();
    let elsewhere = [
        "/vmfs/volumes/5a1b/web/disk-000002.vmdk",
        "[ds2] web/disk-000002.vmdk",
        "C:\\\\vms\\\\disk-000002.vmdk",
    ];
    for name in elsewhere {
        machine(&f, "web");
        add(
            &f,
            "web/web.vmx",
            &format!("scsi0:1.fileName = \"{name}\"\n"),
        );
        f.run(&["cat", "web", "/current/scsi0-0/p0/a.txt"]).code(0);
        f.run(&["cat", "web", "/current/scsi0-1/p0/a.txt"])
            .code(1)
            .says("which is scsi0:0");
        f.run(&["export", "web", "out"]).code(1);
        fs::remove_dir_all(f.path("web")).unwrap();
        // The same machine with one disk was moved.
        machine(&f, "web");
        replace(
            &f,
            "web/web.vmx",
            "\"disk-000002.vmdk\"",
            &format!("\"{name}\""),
        );
        f.run(&["cat", "web", "/a.txt"])
            .code(0)
            .says("is not there");
        fs::remove_dir_all(f.path("web")).unwrap();
    }
    // One that is there and may not be had is not replaced.
    machine(&f, "web");
    machine(&f, "other");
    let named = "scsi0:1.fileName = \"../other/disk-000001.vmdk\"\n";
    add(&f, "web/web.vmx", named);
    f.run(&["cat", "web", "/current/scsi0-1/p0/a.txt"])
        .code(1)
        .says("--allow-dir");
    let args = [
        "cat",
        "--allow-dir",
        "other",
        "web",
        "/current/scsi0-1/p0/a.txt",
    ];
    f.run(&args).code(0);
}

/// A machine on two datastores, both copied to this host: its second disk is where the user says.
#[test]
fn a_disk_that_is_elsewhere_is_found_in_an_allowed_directory() {
    for name in [
        "/vmfs/volumes/5a1b/web/disk-000002.vmdk",
        "[ds2] web/disk-000002.vmdk",
    ] {
        let f = Fixture::new();
        for dir in ["web", "ds2", "ds3"] {
            machine(&f, dir);
        }
        let second = format!("scsi0:1.fileName = \"{name}\"\n");
        add(&f, "web/web.vmx", &second);
        let cat = |allowed: &[&str]| {
            let mut args = vec!["cat", "web", "/current/scsi0-1/p0/a.txt"];
            args.extend(allowed.iter().flat_map(|dir| ["--allow-dir", *dir]));
            f.run(&args)
        };
        cat(&["ds2"]).code(0).says("ds2/disk-000002.vmdk is used");
        let out = format!("out{}", name.len());
        let export = f
            .run(&["export", "web", &out, "--allow-dir", "ds2"])
            .code(0);
        let said = &export.err;
        assert!(said.contains("scsi0:1: "), "{said}");
        assert!(!said.contains("scsi0:1: scsi0:1: "), "{said}");
        // SOURCE's own directory has only the machine's other disk of that name.
        cat(&["web", "ds2"]).code(0);
        cat(&["web"]).code(1).says("which is scsi0:0");
        cat(&["ds2", "ds3"])
            .code(1)
            .says("ds2/disk-000002.vmdk and ");
        // Two that are not here may be either.
        let third = second.replace("0:1", "0:2").replace("web/", "db/");
        add(&f, "web/web.vmx", &third);
        cat(&["ds2"]).code(1).says("which may be scsi0:2");
    }
}

#[test]
fn a_parent_that_is_elsewhere_is_found_in_an_allowed_directory() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("ds2")).unwrap();
    for name in ["disk.vmdk", "disk-flat.vmdk"] {
        fs::rename(f.path("web").join(name), f.path("ds2").join(name)).unwrap();
    }
    let hint = "/vmfs/volumes/5a1b/web/disk.vmdk";
    let from = "parentFileNameHint=\"disk.vmdk\"";
    let to = format!("parentFileNameHint=\"{hint}\"");
    let path = f.path("web/disk-000001.vmdk");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(from.len())
        .position(|w| w == from.as_bytes())
        .unwrap();
    // The text has room behind it.
    let end = at + bytes[at..].iter().position(|b| *b == 0).unwrap();
    let rest = bytes[at + from.len()..end].to_vec();
    let text = [to.as_bytes(), &rest].concat();
    bytes[at..at + text.len()].copy_from_slice(&text);
    fs::write(&path, bytes).unwrap();
    let cat = ["cat", "web/disk-000001.vmdk", "/a.txt"];
    f.run(&cat).code(1).says("5a1b/web is not on this host");
    f.run(&[&cat[..], &["--allow-dir", "ds2"]].concat())
        .code(0)
        .says("ds2/disk.vmdk is used");
}

#[test]
fn another_machines_snapshots_are_not_taken() {
    let f = Fixture::new();
    machine(&f, "two");
    fs::rename(f.path("two/web.vmsd"), f.path("two/db.vmsd")).unwrap();
    let listed = f.run(&["history", "two/web.vmx", "/a.txt"]).code(0);
    assert_eq!(listed.text().lines().count(), 4, "the only list there is");
    fs::copy(f.path("two/web.vmx"), f.path("two/db.vmx")).unwrap();
    let listed = f.run(&["history", "two/web.vmx", "/a.txt"]).code(0);
    assert_eq!(listed.text().lines().count(), 2, "{}", listed.text());
    listed.says("db.vmsd: may be of this machine");
    f.run(&["history", "two/db.vmx", "/a.txt"]).code(0);
}

/// What snapshots say of their disks is held against the chain.
#[test]
fn snapshots_that_the_chain_contradicts_are_told() {
    let f = Fixture::new();
    machine(&f, "web");
    let first = "snapshot0.disk0.fileName = \"disk.vmdk\"";
    let second = "snapshot1.disk0.fileName = \"disk-000001.vmdk\"";
    f.run(&["cat", "web", "--snapshot", "id:2", "/a.txt"])
        .code(0)
        .quiet();
    // Each with the other's.
    replace(
        &f,
        "web/web.vmsd",
        first,
        "snapshot0.disk0.fileName = \"-\"",
    );
    replace(&f, "web/web.vmsd", second, &second.replace("-000001", ""));
    replace(&f, "web/web.vmsd", "= \"-\"", "= \"disk-000001.vmdk\"");
    f.run(&["cat", "web", "--snapshot", "id:2", "/a.txt"])
        .code(0)
        .says("does not lie on disk-000001.vmdk");
    replace(&f, "web/web.vmsd", "\"disk.vmdk\"", "\"disk-000002.vmdk\"");
    let said = f.run(&["vm", "web"]).code(0);
    assert!(
        said.text().contains("the same file as the present state"),
        "{}",
        said.text()
    );
    // A number that two have, a disk without a name.
    let anew = || {
        fs::remove_dir_all(f.path("web")).unwrap();
        machine(&f, "web");
    };
    anew();
    replace(
        &f,
        "web/web.vmsd",
        "snapshot1.uid = \"2\"",
        "snapshot1.uid = \"1\"",
    );
    f.run(&["history", "web", "/a.txt"])
        .code(0)
        .says("is left out");
    anew();
    replace(
        &f,
        "web/web.vmsd",
        "snapshot0.disk0.fileName",
        "snapshot0.disk0.fileNbme",
    );
    let said = f.run(&["history", "web", "/a.txt"]).code(3);
    assert!(said.text().contains("unknown"), "{}", said.text());
    said.says("is not named");
}

#[test]
fn a_snapshot_may_be_called_current() {
    let f = Fixture::new();
    machine(&f, "web");
    replace(
        &f,
        "web/web.vmsd",
        "snapshot1.displayName = \"a/b\"",
        "snapshot1.displayName = \"current\"",
    );
    f.run(&["info", "web"]).code(0);
    f.run(&["history", "web", "/a.txt"]).code(0);
    let chain = |point: &str| {
        let info = f
            .run(&["info", "--json", "web", "--snapshot", point])
            .code(0);
        info.json()["chain"].as_array().unwrap().len()
    };
    assert_eq!((chain("current"), chain("name:current")), (3, 2));
}

/// A version that cannot be looked at is not one that lacks the file.
#[test]
fn what_cannot_be_looked_through_is_unknown() {
    let f = Fixture::new();
    machine(&f, "web");
    // One that nobody ever wrote to has no file.
    f.run(&["create", "web/blank.vmdk", "8M"]).code(0);
    add(&f, "web/web.vmx", "scsi0:1.fileName = \"blank.vmdk\"\n");
    f.run(&["history", "web", "/nowhere"])
        .code(1)
        .says("none of 3");
    fs::write(f.path("junk.raw"), vec![0x5a; 1 << 20]).unwrap();
    let args = [
        "convert",
        "--format",
        "raw",
        "junk.raw",
        "web/junk.vmdk",
        "--to",
        "vmdk",
    ];
    f.run(&args).code(0);
    replace(&f, "web/web.vmx", "\"disk-000002.vmdk\"", "\"junk.vmdk\"");
    let said = f.run(&["history", "web", "/a.txt"]).code(3);
    let states = ["absent", "unknown"].map(|s| said.text().matches(s).count());
    assert_eq!(states, [0, 1], "{}", said.text());
}

/// A backup whose machine cannot be read is a version less: that is said.
#[test]
fn a_backup_that_cannot_be_read_is_not_passed_over() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("all")).unwrap();
    for day in ["01", "02", "03"] {
        f.run(&["export", "web", &format!("all/2024-01-{day}")])
            .code(0);
    }
    fs::write(f.path("all/2024-01-02/web.vmx"), "").unwrap();
    let said = f.run(&["history", "all", "/a.txt"]).code(3);
    let rows = said.text().lines().filter(|l| l.contains("2024-01-02"));
    assert!(rows.clone().all(|l| l.contains("unknown")) && rows.count() == 1);
    f.run(&["cat", "all", "/2024-01-02/current/scsi0-0/p0/a.txt"])
        .code(1)
        .says("a configuration");
    f.run(&["cat", "all", "--snapshot", "date:2024-01-02", "/a.txt"])
        .code(1);
    f.run(&["cat", "all", "--snapshot", "date:2024-01-03", "/a.txt"])
        .code(0);
    f.run(&["ls", "all", "/"])
        .code(0)
        .says("2024-01-02 is left out");
    f.run(&["cp", "-r", "all", "/", "out"]).code(3);
}

/// An exact name is that backup's, whatever others begin with it; other machines are others.
#[test]
fn dated_backups_are_told_apart() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("all")).unwrap();
    for day in ["web-2024-01-31", "web-2024-01-31_22-00", "old-2023-12-31"] {
        f.run(&["export", "web", &format!("all/{day}")]).code(0);
    }
    let said = f.run(&["history", "all", "/a.txt"]).code(0);
    let first = said.text().lines().nth(1).unwrap().to_owned();
    assert!(first.contains("old-2023"), "by date, not by name: {first}");
    let args = ["cat", "all", "--snapshot", "date:web-2024-01-31", "/a.txt"];
    f.run(&args).code(0);
    replace(
        &f,
        "all/old-2023-12-31/web.vmx",
        "f5 7c 2d 9f",
        "f5 7c 2d 9e",
    );
    f.run(&["history", "all", "/a.txt"])
        .code(2)
        .says("old-2023-12-31");
    f.run(&["cat", "all", "/old-2023-12-31/current/scsi0-0/p0/a.txt"])
        .code(0);
}

/// A name that leads to the very file, by another path, is as good as its own; one that leads to
/// another file is not replaced by the one beside it, nor the other way round.
#[test]
fn a_path_through_a_link_and_a_copy() {
    let f = Fixture::new();
    machine(&f, "data/web");
    std::os::unix::fs::symlink("data", f.path("vms")).unwrap();
    let named = |dir: &str| format!("\"{}\"", f.path(dir).join("disk-000002.vmdk").display());
    replace(
        &f,
        "data/web/web.vmx",
        "\"disk-000002.vmdk\"",
        &named("vms/web"),
    );
    for source in ["data/web", "vms/web", "vms/web/web.vmx"] {
        f.run(&["cat", source, "/a.txt"]).code(0).quiet();
    }
    machine(&f, "copy");
    replace(
        &f,
        "copy/web.vmx",
        "\"disk-000002.vmdk\"",
        &named("data/web"),
    );
    f.run(&["cat", "copy", "/a.txt"])
        .code(1)
        .says("has the same name");
    f.run(&["cat", "copy", "--allow-dir", "data", "/a.txt"])
        .code(0);
}

/// What lies among dated backups and is none of a machine, or of one that had no uuid yet.
#[test]
fn others_among_dated_backups() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("all")).unwrap();
    f.run(&["export", "web", "all/2024-01-01"]).code(0);
    f.run(&["export", "web", "all/2024-01-03"]).code(0);
    f.run(&["export", "disk.vmdk", "all/data-2024-01-02"])
        .code(0);
    f.run(&["history", "all", "/a.txt"]).code(0).quiet();
    let vmx = "all/2024-01-01/web.vmx";
    replace(&f, vmx, "uuid.bios", "not.bios");
    f.run(&["history", "all", "/a.txt"]).code(0);
    fs::remove_file(f.path(vmx)).unwrap();
    let said = f.run(&["history", "all", "/a.txt"]).code(3);
    let first = said.text().lines().nth(1).unwrap();
    assert!(first.contains("2024-01-01"), "the oldest first: {first}");
    // Several machines: a date that only one has is enough.
    replace(&f, "all/2024-01-03/web.vmx", "f5 7c 2d 9f", "f5 7c 2d 9e");
    f.run(&["export", "web", "all/2024-01-04"]).code(0);
    f.run(&["history", "all", "/a.txt"]).code(2);
    f.run(&["cat", "all", "--snapshot", "date:2024-01-04", "/a.txt"])
        .code(0);
}
