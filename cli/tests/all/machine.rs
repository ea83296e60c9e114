//! Machines as SOURCE, and `vm`.

use crate::{common::Fixture, mount::no_fuse};
use std::fs;

/// A machine `web` on the fixture's disk, with two snapshots of one name below the present
/// state; the newest link has no data of its own.
pub(crate) fn machine(f: &Fixture, dir: &str) {
    let dir = f.path(dir);
    fs::create_dir_all(&dir).unwrap();
    for name in ["disk.vmdk", "disk-flat.vmdk"] {
        fs::copy(f.path(name), dir.join(name)).unwrap();
    }
    let child = |name: &str, parent: &str| {
        let (name, parent) = (dir.join(name), dir.join(parent));
        let (name, parent) = (name.to_str().unwrap(), parent.to_str().unwrap());
        f.run(&["-q", "create", name, "--child-of", parent]).code(0);
    };
    child("disk-000001.vmdk", "disk.vmdk");
    child("disk-000002.vmdk", "disk-000001.vmdk");
    fs::write(
        dir.join("web.vmx"),
        ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nvirtualHW.version = \"14\"\n\
         displayName = \"web 01\"\nguestOS = \"other\"\n\
         uuid.bios = \"56 4d 81 3c dd d8 88 2c-f1 42 bf 58 f5 7c 2d 9f\"\n\
         scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"disk-000002.vmdk\"\n\
         ide1:0.deviceType = \"cdrom-image\"\nide1:0.fileName = \"x.iso\"\n",
    )
    .unwrap();
    let snapshot = |n: u32, uid: u32, parent: u32, disk: &str| {
        format!(
            "snapshot{n}.uid = \"{uid}\"\nsnapshot{n}.parent = \"{parent}\"\n\
             snapshot{n}.displayName = \"a/b\"\nsnapshot{n}.createTimeHigh = \"388801\"\n\
             snapshot{n}.createTimeLow = \"-814770620\"\nsnapshot{n}.numDisks = \"1\"\n\
             snapshot{n}.disk0.fileName = \"{disk}\"\nsnapshot{n}.disk0.node = \"scsi0:0\"\n"
        )
    };
    fs::write(
        dir.join("web.vmsd"),
        format!(
            "snapshot.numSnapshots = \"2\"\nsnapshot.current = \"2\"\n{}{}",
            snapshot(0, 1, 0, "disk.vmdk"),
            snapshot(1, 2, 1, "disk-000001.vmdk")
        ),
    )
    .unwrap();
}

#[test]
fn the_tree_of_a_machine() {
    let f = Fixture::new();
    machine(&f, "web");
    for source in ["web", "web/web.vmx"] {
        let ls = |path: &str| f.run(&["ls", source, path]).code(0).text().to_owned();
        assert_eq!(ls("/"), "current\nsnapshots\n");
        assert_eq!(ls("/snapshots"), "a%2Fb (id 1)\na%2Fb (id 2)\n");
        assert_eq!(ls("/current"), "scsi0-0\n");
        assert!(ls("/current/scsi0-0").contains("RESTORE"));
        let all = "Long name of a file.dat\na.txt\ndir\nempty\n";
        for dir in [
            "/current/scsi0-0/p0",
            "/scsi0-0/p0",
            "/scsi0:0/p0",
            "/snapshots/a%2Fb (id 1)/scsi0-0/p0",
        ] {
            assert_eq!(ls(dir), all, "{dir}");
        }
        // No disk is named: the present state is meant.
        let cat = f.run(&["cat", source, "/a.txt"]).code(0);
        assert_eq!(cat.text(), "hello\n");
    }
    let point = f
        .run(&["ls", "web", "--snapshot", "id:1", "/scsi0-0/p0"])
        .code(0);
    assert!(point.text().contains("a.txt"));
    f.run(&["ls", "web", "--snapshot", "a/b", "/"])
        .code(2)
        .says("id:1 (a/b), id:2 (a/b)");
    f.run(&["ls", "web", "--snapshot", "id:9", "/"])
        .code(1)
        .says("id:2");
    f.run(&["ls", "web", "--disk", "scsi0:1", "/"])
        .code(1)
        .says("scsi0:0");
    f.run(&["ls", "web", "/scsi0-1/p0"]).code(1);
    // One disk, for what takes one.
    let info = f
        .run(&["info", "--json", "web", "--snapshot", "id:2"])
        .code(0);
    assert_eq!(info.json()["chain"].as_array().unwrap().len(), 2);
    f.run(&["cp", "-r", "web", "/scsi0-0/p0", "out"]).code(0);
    assert_eq!(fs::read(f.path("out/a.txt")).unwrap(), b"hello\n");
    // What the machine is made of is not written over.
    f.run(&[
        "cp",
        "--overwrite",
        "always",
        "web",
        "/a.txt",
        "web/web.vmx",
    ])
    .code(1);
}

/// Dated backups two levels down: of several machines, and of one.
#[test]
fn machines_by_date_and_dates_by_machine() {
    let f = Fixture::new();
    machine(&f, "web");
    let put = |path: &str, name: &str| {
        fs::create_dir_all(f.path(path).parent().unwrap()).unwrap();
        f.run(&["export", "web", path]).code(0);
        let config = f.path(path).join("web.vmx");
        let text = fs::read_to_string(&config).unwrap();
        let text = text.replace("web 01", name).replace(
            "f5 7c 2d 9f",
            match name {
                "web 01" => "f5 7c 2d 9f",
                _ => "f5 7c 2d 9e",
            },
        );
        fs::write(config, text).unwrap();
    };
    for date in ["2026-11-01", "2026-11-02"] {
        for name in ["web 01", "db 01"] {
            put(&format!("a/{name}/{date}"), name);
            put(&format!("b/{date}/{name}"), name);
        }
        put(&format!("c/web 01/{date}"), "web 01");
    }
    let ls = |source: &str, path: &str| f.run(&["ls", source, path]).code(0).text().to_owned();
    assert_eq!(ls("a", "/"), "db 01\nweb 01\n");
    assert_eq!(ls("a", "/db 01"), "2026-11-01\n2026-11-02\n");
    assert_eq!(ls("b", "/2026-11-02"), "db 01\nweb 01\n");
    for (source, path) in [
        ("a", "/web 01/2026-11-02/current/scsi0-0/p0/a.txt"),
        ("b", "/2026-11-02/db 01/current/scsi0-0/p0/a.txt"),
        ("c", "/web 01/2026-11-01/scsi0-0/p0/a.txt"),
    ] {
        assert_eq!(f.run(&["cat", source, path]).code(0).out, b"hello\n");
    }
    // One machine's backups are points in time; several machines are none.
    let history = f.run(&["history", "c", "/a.txt"]).code(0);
    assert!(
        history.text().contains("web 01/2026-11-02"),
        "{}",
        history.text()
    );
    f.run(&["cat", "c", "--snapshot", "date:2026-11-01", "/a.txt"])
        .code(0);
    f.run(&["history", "a", "/a.txt"])
        .code(2)
        .says("db 01/2026-11-01");
    f.run(&["history", "a/db 01", "/a.txt"]).code(0);
    f.run(&["check", "b"]).code(2).says("name that directory");
}

#[test]
fn a_lost_link_is_told_where_it_matters() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::remove_file(f.path("web/disk-000001.vmdk")).unwrap();
    // Listing above it opens nothing.
    f.run(&["ls", "web", "/"]).code(0);
    f.run(&["ls", "web", "/current/scsi0-0"])
        .code(1)
        .says("disk-000001.vmdk");
    f.run(&["ls", "web", "/snapshots/a%2Fb (id 1)/scsi0-0/p0"])
        .code(0);
    let vm = f.run(&["vm", "--json", "web"]).code(3).json();
    let points = &vm["places"][0]["vms"][0]["points"];
    assert!(points[0]["disks"][0]["error"].is_string());
    assert!(points[1]["disks"][0]["error"].is_null());
    let check = f.run(&["check", "--json", "web"]).code(4).json();
    let codes: Vec<_> = check["findings"].as_array().unwrap().iter().collect();
    assert!(
        codes.iter().any(|c| c["code"] == "parent-missing"),
        "{check}"
    );
    assert!(codes.iter().any(|c| c["code"] == "disk-missing"), "{check}");
}

/// What ESX leaves of its list when all snapshots are deleted: entries, and a count of none.
#[test]
fn entries_of_deleted_snapshots_are_no_snapshots() {
    let f = Fixture::new();
    machine(&f, "web");
    let edit = |name: &str, pairs: &[(&str, &str)]| {
        let path = f.path("web").join(name);
        let mut text = fs::read_to_string(&path).unwrap();
        for (from, to) in pairs {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        fs::write(path, text).unwrap();
    };
    edit("web.vmx", &[("disk-000002", "disk")]);
    fs::remove_file(f.path("web/disk-000002.vmdk")).unwrap();
    edit(
        "web.vmsd",
        &[("snapshot.current = \"2\"", "snapshot.current = \"0\"")],
    );
    let count = [("numSnapshots = \"2\"", "numSnapshots = \"0\"")];
    edit("web.vmsd", &count);
    // While a delta that they name is there, nothing is passed over.
    f.run(&["ls", "web", "/snapshots"]).code(0);
    fs::remove_file(f.path("web/disk-000001.vmdk")).unwrap();
    f.run(&["ls", "-R", "web"]).code(0);
    f.run(&["check", "web"]).code(0);
    let vm = f.run(&["vm", "web"]).code(0);
    assert!(vm.text().contains("nothing is left"), "{}", vm.text());
    f.run(&["verify", "web"]).code(3);
    edit("web.vmsd", &[(count[0].1, count[0].0)]);
    f.run(&["check", "web"]).code(4);
}

#[test]
fn an_independent_disk_is_told_where_there_are_snapshots() {
    let f = Fixture::new();
    machine(&f, "web");
    let path = f.path("web/web.vmx");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + "scsi0:0.mode = \"independent-persistent\"\n").unwrap();
    let told = || f.run(&["vm", "web"]).text().contains("is independent");
    assert!(told());
    fs::remove_file(f.path("web/web.vmsd")).unwrap();
    assert!(!told());
}

#[test]
fn inventories() {
    let f = Fixture::new();
    machine(&f, "all/web");
    machine(&f, "all/web2");
    fs::copy(f.path("disk.vmdk"), f.path("all/web/left.vmdk")).unwrap();
    let vm = f.run(&["vm", "--json", "all"]).code(0).json();
    let place = &vm["places"][0];
    assert_eq!(place["vms"].as_array().unwrap().len(), 2);
    assert_eq!(place["unused"][0], "web/left.vmdk");
    assert_eq!(place["unused"].as_array().unwrap().len(), 1);
    let web = &place["vms"][0];
    assert_eq!(web["name"], "web 01");
    assert_eq!(web["uuid"], "564d813c-ddd8-882c-f142-bf58f57c2d9f");
    let chain = &web["points"][0]["disks"][0]["chain"];
    assert_eq!(chain.as_array().unwrap().len(), 3);
    assert_eq!(chain[0], "web/disk-000002.vmdk");
    let text = f.run(&["vm", "all"]).code(0);
    assert!(
        text.text()
            .contains("snapshot a/b (id 2, crash-consistent)"),
        "{}",
        text.text()
    );
    assert!(text.text().contains("unused: web/left.vmdk"));
    f.run(&["vm", "--select", "name:web 01", "all"]).code(0);
    f.run(&["vm", "--select", "nobody", "all"])
        .code(1)
        .says("nobody");
    f.run(&["vm"]).code(2);
    f.run(&["vm", "nowhere"]).code(1);
    // Several machines are no backups of one.
    f.run(&["ls", "all"]).code(2).says("web2/web.vmx");
    // With dates they are.
    for (from, to) in [("web", "web-2024-01-31"), ("web2", "web-20240201")] {
        fs::rename(f.path("all").join(from), f.path("all").join(to)).unwrap();
    }
    let ls = f.run(&["ls", "all"]).code(0);
    assert_eq!(ls.text(), "web-2024-01-31\nweb-20240201\n");
    let ls = f
        .run(&["ls", "all", "/web-20240201/current/scsi0-0/p0"])
        .code(0);
    assert!(ls.text().contains("a.txt"));
    let ls = f
        .run(&["ls", "all", "--snapshot", "date:2024-01", "/"])
        .code(0);
    assert_eq!(ls.text(), "current\nsnapshots\n");
    f.run(&["check", "all", "--snapshot", "date:2024-01"])
        .code(0);
    f.run(&["verify", "all", "--snapshot", "date:2024-01"])
        .code(3);
    // A datastore that is a directory, by the names that hosts use.
    for source in ["web-20240201/web.vmx", "[ds1] web-20240201/web.vmx"] {
        let ls = f
            .run(&["ls", "-D", "ds1=all", source, "/scsi0-0/p0"])
            .code(0);
        assert!(ls.text().contains("a.txt"));
    }
    f.run(&["ls", "-D", "ds1=all", "[ds2] web-20240201/web.vmx", "/"])
        .code(1);
}

#[test]
fn mounted() {
    let f = Fixture::new();
    machine(&f, "web");
    if no_fuse() {
        return;
    }
    fs::create_dir(f.path("m")).unwrap();
    f.run(&["mount", "web", "m"]).code(0);
    let read = |path: &str| fs::read(f.path("m").join(path)).map_err(|e| e.to_string());
    let results = [
        read("current/scsi0-0/p0/a.txt"),
        read("snapshots/a%2Fb (id 1)/scsi0-0/p0/a.txt"),
        read("scsi0-0/p0/a.txt"),
    ];
    // Two states of one file are two files.
    let inode = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(f.path("m").join(path)).map(|m| m.ino()).ok()
    };
    let inodes = [
        inode("current/scsi0-0/p0/a.txt"),
        inode("snapshots/a%2Fb (id 1)/scsi0-0/p0/a.txt"),
    ];
    f.run(&["umount", "m"]).code(0);
    for result in results {
        assert_eq!(result.as_deref(), Ok(&b"hello\n"[..]));
    }
    assert!(inodes[0].is_some() && inodes[0] != inodes[1], "{inodes:?}");
}

#[test]
fn versions_of_a_file() {
    let f = Fixture::new();
    machine(&f, "web");
    // A second backup, of another state.
    crate::verify::changed(&f, "other");
    f.run(&["export", "web", "all/web-2024-01-31"]).code(1);
    fs::create_dir(f.path("all")).unwrap();
    f.run(&["export", "web", "all/web-2024-01-31"]).code(0);
    fs::copy(f.path("other-flat.vmdk"), f.path("web/disk-flat.vmdk")).unwrap();
    f.run(&["export", "web", "all/web-2024-02-01"]).code(0);
    let history = |source: &str, path: &str| {
        let ran = f.run(&["history", "--json", source, path]).code(0).json();
        ran["versions"].as_array().unwrap().clone()
    };
    let versions = history("all", "/a.txt");
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[0]["point"], "web-2024-01-31");
    assert_eq!(
        versions[0]["sha256"],
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    );
    assert_eq!(versions[1]["changed"], true);
    let versions = history("all", "/new.bin");
    assert_eq!(versions[0]["exists"], false);
    assert_eq!(versions[1]["size"], 100_000);
    let versions = history("all", "/dir/b.txt");
    assert_eq!(versions[1]["changed"], false);
    // Of a machine: its snapshots, then the present state.
    let points: Vec<_> = history("web", "/a.txt")
        .iter()
        .map(|v| v["selector"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(points, ["id:1", "id:2", "current"]);
    f.run(&["history", "web", "/nowhere"])
        .code(1)
        .says("none of 3");
    f.run(&["history", "disk.vmdk", "/a.txt"]).code(2);
    f.run(&["history", "no-such-file", "/a.txt"])
        .code(1)
        .says("No such file");
}

/// A mount serves from another directory than it was started in.
#[test]
fn a_relative_directory_is_allowed_in_a_mount() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    machine(&f, "vms/web");
    fs::create_dir(f.path("vms/shared")).unwrap();
    for name in ["disk.vmdk", "disk-flat.vmdk"] {
        fs::copy(f.path(name), f.path("vms/shared").join(name)).unwrap();
    }
    let config = f.path("vms/web/web.vmx");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text + "scsi0:1.fileName = \"../shared/disk.vmdk\"\n",
    )
    .unwrap();
    fs::create_dir(f.path("mnt")).unwrap();
    let mount = ["mount", "vms/web", "mnt", "--allow-dir", "vms/shared"];
    f.run(&mount).code(0);
    let read = |slot: &str| fs::read(f.path(&format!("mnt/current/{slot}/p0/a.txt")));
    let both = [read("scsi0-0"), read("scsi0-1")];
    f.run(&["umount", "mnt"]).code(0);
    for one in both {
        assert_eq!(one.unwrap(), b"hello\n");
    }
}
