//! What a guest says of itself is told before it is put back.

use crate::common::Fixture;
use std::{
    fs,
    io::{Cursor, Write},
};

fn add(f: &Fixture, files: &[(&str, &str)]) {
    let mut disk = Cursor::new(f.raw());
    {
        let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
        let root = fs.root_dir();
        for (path, text) in files {
            for (n, _) in path.match_indices('/') {
                // It may be there.
                let _ = root.create_dir(&path[..n]);
            }
            root.create_file(path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
    }
    fs::write(f.path("disk-flat.vmdk"), disk.into_inner()).unwrap();
}

#[test]
fn before_it_is_put_back() {
    let f = Fixture::new();
    let plain = f
        .run(&["info", "--guest", "--json", "disk.vmdk"])
        .code(0)
        .json();
    assert!(plain["guest"]["host"].is_null());
    assert_eq!(plain["guest"]["warnings"].as_array().unwrap().len(), 0);
    assert!(f.run(&["info", "--json", "disk.vmdk"]).code(0).json()["guest"].is_null());
    add(
        &f,
        &[
            ("etc/hostname", "db01\n"),
            ("etc/os-release", "ID=x\nPRETTY_NAME=\"Some Linux 12\"\n"),
            (
                "etc/network/interfaces",
                "auto lo\niface eth0 inet static\n  address 10.1.2.3/24\n",
            ),
            ("var/lib/postgresql/15/main/PG_VERSION", "15\n"),
            ("var/lib/postgresql/15/main/postmaster.pid", "1\n"),
            ("Windows/NTDS/ntds.dit", "x"),
        ],
    );
    let said = f
        .run(&["info", "--guest", "--json", "disk.vmdk"])
        .code(0)
        .json();
    let guest = &said["guest"];
    assert_eq!(guest["host"], "db01");
    assert_eq!(guest["system"], "Some Linux 12");
    assert_eq!(guest["addresses"][0], "10.1.2.3/24 (eth0)");
    assert_eq!(guest["domain_controller"], true);
    assert_eq!(guest["databases"][1]["open"], true, "{guest}");
    crate::machine::machine(&f, "web");
    // Of each point; the deltas on top are empty.
    let vm = f.run(&["vm", "web", "--guest", "--json"]).code(0).json();
    for n in 0..3 {
        let guest = &vm["places"][0]["vms"][0]["points"][n]["guest"];
        assert_eq!(guest["host"], "db01", "{n}");
    }
    let vm = f.run(&["vm", "web", "--guest"]).code(0);
    assert!(vm.text().contains("guest         db01"), "{}", vm.text());
    assert!(vm.text().contains("warning: it is a domain controller"));
    // Before anything is written.
    let said = f.run(&["restore", "web", "back", "--dry-run"]).code(0);
    assert!(
        said.text().contains("guest         db01"),
        "{}",
        said.text()
    );
    assert!(
        said.text().contains("would write   scsi0:0  8.0 MiB"),
        "{}",
        said.text()
    );
    assert!(!f.path("back").exists());
    fs::create_dir_all(f.path("full/x")).unwrap();
    f.run(&["restore", "web", "full", "--dry-run"])
        .code(1)
        .says("files in it");
    // A backup says what it was made of.
    f.run(&["export", "web", "old", "--snapshot", "id:1"])
        .code(0);
    let vm = f.run(&["vm", "old"]).code(0);
    let line = "current (made of snapshot a/b, crash-consistent)";
    assert!(vm.text().contains(line), "{}", vm.text());
    f.run(&["replicate", "disk.vmdk", "hot.raw"])
        .code(0)
        .says("USN rollback");
    let said = f.run(&["restore", "web", "back"]).code(0);
    for part in [
        "USN rollback",
        "PostgreSQL was running",
        "fixed addresses: 10.1.2.3/24",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(
        said.text().contains("guest         db01"),
        "{}",
        said.text()
    );
    let said = f.run(&["verify", "web"]).code(3);
    assert!(said.text().contains("USN rollback"), "{}", said.text());
}
