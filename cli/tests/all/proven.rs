//! What "proven" means: a backup that lacks something, or is not the one that was made, is not.

use crate::{common::Fixture, machine::machine};
use std::fs;

/// A machine with two disks, `scsi0:0` and `scsi0:1`.
fn two(f: &Fixture) {
    machine(f, "web");
    f.run(&["convert", "disk.vmdk", "web/data.vmdk", "--to", "vmdk"])
        .code(0);
    let path = f.path("web/web.vmx");
    let text = fs::read_to_string(&path).unwrap() + "memsize = \"4096\"\n";
    fs::write(path, text + "scsi0:1.fileName = \"data.vmdk\"\n").unwrap();
}

fn replace(f: &Fixture, file: &str, from: &str, to: &str) {
    let path = f.path(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has {from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_backup_of_which_something_was_left_out() {
    let f = Fixture::new();
    two(&f);
    f.run(&["export", "web", "whole"]).code(0);
    f.run(&["verify", "whole"]).code(0);
    f.run(&["verify", "whole", "--against", "web"]).code(0);
    // One disk was asked for: that much is proven, and what is not in it is told.
    f.run(&["export", "web", "one", "--disk", "scsi0:0"])
        .code(0);
    let said = f.run(&["verify", "one"]).code(0);
    assert!(said.text().contains("scsi0:1"), "{}", said.text());
    f.run(&["restore", "one", "back"]).code(3).says("scsi0:1");
    let said = f.run(&["verify", "one", "--against", "web"]).code(4);
    assert!(said.text().contains("scsi0:1"), "{}", said.text());
    // A disk whose data is on a LUN cannot be asked for.
    fs::write(
        f.path("web/data.vmdk"),
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"vmfsRawDeviceMap\"\nRW 2048 VMFSRDM \"data-rdm.vmdk\"\n",
    )
    .unwrap();
    f.run(&["export", "web", "lun"]).code(3).says("left out");
    let said = f.run(&["verify", "lun"]).code(3);
    assert!(
        said.text().contains("left out when the backup was made"),
        "{}",
        said.text()
    );
    f.run(&["restore", "lun", "again"])
        .code(3)
        .says("raw device map");
}

#[test]
fn a_configuration_that_was_changed_afterwards() {
    let f = Fixture::new();
    two(&f);
    f.run(&["export", "web", "out"]).code(0);
    f.run(&["restore", "out", "back"]).code(0);
    let good = fs::read_to_string(f.path("out/web.vmx")).unwrap();
    replace(&f, "out/web.vmx", "4096", "0096");
    f.run(&["restore", "out", "memory"])
        .code(3)
        .says("was changed after");
    // By another name too.
    fs::rename(f.path("out/web.vmx"), f.path("out/new.vmx")).unwrap();
    f.run(&["restore", "out", "renamed"])
        .code(3)
        .says("was changed after");
    fs::remove_file(f.path("out/new.vmx")).unwrap();
    fs::write(f.path("out/web.vmx"), &good).unwrap();
    replace(&f, "out/web.vmx", "scsi0:1.fileName", "scsi0:1.fileNbme");
    f.run(&["restore", "out", "lost"])
        .code(3)
        .says("is in the manifest, and not in");
    // Hung elsewhere it is the same disk, and held against the same digest.
    fs::write(f.path("out/web.vmx"), good.replace("scsi0:1", "scsi0:3")).unwrap();
    let said = f.run(&["restore", "out", "moved"]).code(3);
    assert!(
        said.text().contains("contents as the manifest says"),
        "{}",
        said.text()
    );
}

#[test]
fn a_package_whose_manifest_says_less() {
    let f = Fixture::new();
    two(&f);
    f.run(&["export", "web", "m.ova", "--to", "ova"]).code(0);
    let mut tar = std::process::Command::new("tar");
    assert!(
        tar.args(["xf", "m.ova"])
            .current_dir(f.path(""))
            .status()
            .unwrap()
            .success()
    );
    let list = fs::read_dir(f.path("")).unwrap().filter_map(|e| {
        let name = e.unwrap().file_name().into_string().unwrap();
        name.ends_with(".mf").then_some(name)
    });
    let list = list.collect::<Vec<_>>().remove(0);
    let package = list.replace(".mf", ".ovf");
    f.run(&["verify", &package]).code(0);
    let good = fs::read_to_string(f.path(&list)).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    for left in [&lines[..lines.len() - 1], &[]] {
        fs::write(f.path(&list), left.join("\n")).unwrap();
        let said = f.run(&["verify", &package]).code(3);
        assert!(
            said.text().contains("does not list all of its files"),
            "{}",
            said.text()
        );
        let said = f.run(&["restore", &package, "back"]);
        assert!(
            !said.text().contains("contents as the manifest says"),
            "{}",
            said.text()
        );
        said.says("does not list");
        let _ = fs::remove_dir_all(f.path("back"));
    }
}

/// What is no number is not what is not said.
#[test]
fn a_list_of_changes_that_says_its_length_oddly() {
    let f = Fixture::new();
    f.run(&["export", "disk.vmdk", "first"]).code(0);
    for odd in ["\"1048576\"", "1048576.0", "null", "-1"] {
        let list = format!("{{\"startOffset\": 0, \"length\": {odd}, \"changedArea\": []}}");
        fs::write(f.path("list.json"), list).unwrap();
        let args = [
            "export",
            "disk.vmdk",
            "second",
            "--since",
            "first",
            "--changed-blocks",
            "list.json",
        ];
        f.run(&args).code(1).says("no whole number");
    }
}

/// Restore refuses what no whole sectors are.
#[test]
fn a_disk_of_an_odd_length_is_not_proven_to_restore() {
    let f = Fixture::new();
    let mut bytes = f.raw();
    bytes.extend([7; 100]);
    fs::write(f.path("odd.img"), bytes).unwrap();
    f.run(&["export", "odd.img", "out", "--to", "raw"]).code(0);
    let said = f.run(&["verify", "out"]).code(3);
    assert!(said.text().contains("no whole sectors"), "{}", said.text());
    f.run(&["restore", "out", "back"]).code(1);
}

#[test]
fn a_name_that_begins_with_a_blank() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::rename(f.path("web/web.vmx"), f.path("web/ web.vmx")).unwrap();
    f.run(&["export", "web", "out"]).code(0);
    f.run(&["verify", "out"]).code(0);
    f.run(&["restore", "out", "back"]).code(0);
}

/// A disk that a snapshot has and whose file is not named.
#[test]
fn a_snapshot_that_lost_a_disk_is_not_whole() {
    let f = Fixture::new();
    machine(&f, "web");
    replace(
        &f,
        "web/web.vmsd",
        "snapshot1.numDisks = \"1\"",
        "snapshot1.numDisks = \"2\"\nsnapshot1.disk1.node = \"scsi0:1\"",
    );
    f.run(&["export", "web", "out", "--snapshot", "id:2"])
        .code(3)
        .says("is not named");
    f.run(&["verify", "out"]).code(3);
}
