//! Several machines exported at once.

use crate::{common::Fixture, machine::machine};
use std::{fs, os::unix::fs::MetadataExt};

/// Three machines: two of one name that share a disk, one whose disk is lost.
fn place(f: &Fixture) {
    for dir in ["vms/a", "vms/b", "vms/c"] {
        machine(f, dir);
    }
    for (dir, extra) in [
        ("a", "scsi0:1.fileName = \"../shared.vmdk\"\n"),
        ("b", "scsi0:1.fileName = \"../shared.vmdk\"\n"),
        ("c", "scsi0:1.fileName = \"lost.vmdk\"\n"),
    ] {
        let path = f.path(&format!("vms/{dir}/web.vmx"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text + extra).unwrap();
    }
    let shared = f.path("vms/shared.vmdk");
    let text = fs::read_to_string(f.path("disk.vmdk")).unwrap();
    fs::write(shared, text.replace("disk-flat", "shared-flat")).unwrap();
    fs::write(f.path("vms/shared-flat.vmdk"), f.raw()).unwrap();
}

#[test]
fn every_machine_of_a_place() {
    let f = Fixture::new();
    place(&f);
    let args = ["export", "vms", "out", "--select", "any:", "--at-once", "3"];
    let run = f
        // The shared disk lies in the directory that is named: that allows it.
        .run(&args)
        .code(3);
    let run = run.says("2 of 3 machines exported");
    run.says("web 01 (3): failed").says("lost.vmdk");
    for name in ["web 01", "web 01 (2)"] {
        f.run(&["verify", &format!("out/{name}")]).code(0);
    }
    // The disk that both have is in both, so that each can be restored alone; and once on the disk.
    let inodes = ["web 01", "web 01 (2)"].map(|name| {
        let disk = f.path(&format!("out/{name}/web_1.vmdk"));
        fs::metadata(disk).unwrap().ino()
    });
    assert_eq!(inodes[0], inodes[1]);
    let own = ["web 01", "web 01 (2)"].map(|name| {
        let disk = f.path(&format!("out/{name}/web.vmdk"));
        fs::metadata(disk).unwrap().ino()
    });
    assert_ne!(own[0], own[1]);
    f.run(&["restore", "out/web 01 (2)", "back"]).code(0);
    f.run(&[
        "diff",
        "--blocks",
        "back",
        "vms/b",
        "--disk",
        "scsi0:1",
        "--allow-dir",
        "vms",
    ])
    .code(0);
    assert!(!f.path("out/web 01 (3)").exists());
}

/// Every night: each machine builds on its own newest backup, and the first time on none.
#[test]
fn increments_of_several() {
    let f = Fixture::new();
    place(&f);
    let args = ["export", "vms", "bk", "--select", "any:", "--json"];
    let args = [&args[..], &["--keep", "2", "--merge", "--since", "newest"]].concat();
    for night in 0..4u8 {
        let mut raw = f.raw();
        raw[5 << 20..(5 << 20) + 9000].fill(night + 1);
        for at in ["vms/a/disk-flat.vmdk", "vms/b/disk-flat.vmdk"] {
            fs::write(f.path(at), &raw).unwrap();
        }
        let run = f.run(&args).code(3);
        // Whose warnings and errors they are is said.
        assert!(run.err.contains("web 01 (3): "), "{}", run.err);
        let first = run.err.contains("no earlier backup");
        assert!(!first, "quiet in several: {}", run.err);
        let json = run.json();
        let results: Vec<_> = json["machines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["result"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(results, ["done", "done", "failed"]);
        let error = json["machines"][2]["error"].as_str().unwrap();
        assert!(error.contains("lost.vmdk"), "{error}");
        let dir = json["machines"][0]["directory"]
            .as_str()
            .unwrap()
            .to_owned();
        let manifest = fs::read_to_string(f.path(&dir).join("vmdkit-manifest.json")).unwrap();
        assert_eq!(manifest.contains("\"since\""), night > 0, "{manifest}");
        f.run(&["diff", "--blocks", &dir, "vms/a", "--disk", "scsi0:0"])
            .code(0);
        // Names have the second in them.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let mut names = crate::common::names(&f.path("bk/web 01"));
    names.retain(|n| !n.starts_with('.'));
    assert_eq!(names.len(), 2, "{names:?}");
    f.run(&["export", "vms", "bk", "--select", "any:", "--since", "x"])
        .code(2)
        .says("--since newest");
}

/// Whatever files a disk has that machines share, each backup has all of them; and where two of
/// one name come together in a third machine, one of them gets another.
#[test]
fn shared_disks_of_any_form() {
    for how in [
        &[][..],
        &["--split", "1M"],
        &["--to", "raw"],
        &["--to", "qcow2"],
        &["--subformat", "twoGbMaxExtentFlat"],
        &["--vcb-names"],
    ] {
        let f = Fixture::new();
        for (n, dir) in ["vms/a", "vms/b", "vms/c"].into_iter().enumerate() {
            machine(&f, dir);
            let path = f.path(&format!("{dir}/web.vmx"));
            let text = fs::read_to_string(&path).unwrap();
            let text = text.replace("web 01", &dir[4..]);
            let mut text = text.replace("7c 2d 9f", &format!("7c 2d 0{n}"));
            for (unit, disk) in [(1, "p"), (2, "q")] {
                if n == 2 || unit - 1 == n {
                    let line = format!("scsi0:{unit}.fileName = \"../{disk}.vmdk\"\n");
                    text.push_str(&line);
                }
            }
            fs::write(path, text).unwrap();
        }
        let text = fs::read_to_string(f.path("disk.vmdk")).unwrap();
        for (n, disk) in ["p", "q"].into_iter().enumerate() {
            let text = text.replace("disk-flat", &format!("{disk}-flat"));
            fs::write(f.path(&format!("vms/{disk}.vmdk")), text).unwrap();
            let mut raw = f.raw();
            raw[5 << 20..][..5000].fill(n as u8 + 1);
            fs::write(f.path(&format!("vms/{disk}-flat.vmdk")), raw).unwrap();
        }
        let args = ["export", "vms", "out", "--select", "any:", "--at-once", "1"];
        f.run(&[&args, how].concat()).code(0);
        for name in ["a", "b", "c"] {
            f.run(&["verify", &format!("out/{name}")]).code(0);
        }
        let shared = |name: &str| {
            let files = fs::read_dir(f.path(&format!("out/{name}"))).unwrap();
            let links = files.map(|e| e.unwrap().metadata().unwrap().nlink());
            links.filter(|n| *n > 1).count()
        };
        assert!(shared("a") > 0 && shared("c") >= shared("a"), "{how:?}");
        f.run(&["restore", "out/c", "back"]).code(0);
        for (slot, disk) in [("scsi0:1", "p"), ("scsi0:2", "q")] {
            let raw = f.path("back.raw");
            let _ = fs::remove_file(&raw);
            let args = ["-q", "convert", "back", "back.raw", "--to", "raw"];
            f.run(&[&args[..], &["--disk", slot]].concat()).code(0);
            let wanted = fs::read(f.path(&format!("vms/{disk}-flat.vmdk"))).unwrap();
            assert_eq!(fs::read(raw).unwrap(), wanted, "{how:?} {disk}");
        }
    }
}

#[test]
fn generations_of_several_and_wrong_usage() {
    let f = Fixture::new();
    machine(&f, "vms/a");
    let args = [
        "export",
        "vms",
        "out",
        "--select",
        "name:web 01",
        "--keep",
        "2",
    ];
    f.run(&args).code(0);
    let dates: Vec<_> = fs::read_dir(f.path("out/web 01"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with("20"))
        .collect();
    assert_eq!(dates.len(), 1, "{dates:?}");
    f.run(&["ls", "out/web 01", &format!("/{}/scsi0-0/p0", dates[0])])
        .code(0);
    f.run(&["export", "vms", "x", "--select", "name:none"])
        .code(1)
        .says("none that fits");
    f.run(&["export", "vms", "x", "--select", "any:", "--since", "y"])
        .code(2);
    f.run(&["export", "vms", "x", "--select", "any:", "--at-once", "0"])
        .code(2);
    assert!(!f.path("x").exists());
}

/// A machine of which nothing is known but its name is no backup, and a disk that cannot be opened
/// is not one that lacks the file.
#[test]
fn what_is_not_known_is_said() {
    let f = Fixture::new();
    fs::create_dir(f.path("enc")).unwrap();
    let hidden = "displayName = \"enc\"\nencryption.keySafe = \"x\"\nencryption.data = \"y\"\n";
    fs::write(f.path("enc/enc.vmx"), hidden).unwrap();
    let listed = f.run(&["vm", "enc"]).code(0).out;
    assert!(String::from_utf8_lossy(&listed).contains("ENCRYPTED"));
    f.run(&["export", "enc", "out"])
        .code(1)
        .says("an encrypted one");
    assert!(!f.path("out").exists());
    machine(&f, "vms/a");
    let path = f.path("vms/a/web.vmx");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text + "scsi0:1.fileName = \"lost.vmdk\"\n").unwrap();
    let said = f.run(&["history", "vms/a", "/no-such-file"]).code(3);
    let (out, err) = (String::from_utf8_lossy(&said.out), &said.err);
    // Its snapshots do not have the disk that is lost.
    let states = ["absent", "absent", "unknown"].map(|s| out.matches(s).count());
    assert_eq!(states, [2, 2, 1], "{out}");
    assert!(err.contains("lost.vmdk"), "{err}");
}
