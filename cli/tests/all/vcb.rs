//! `vcb`: flags as scripts of VMware Consolidated Backup have them, and those it never had.

use crate::{
    common::{Fixture, names},
    machine::machine,
};
use std::{fs, os::unix::fs::symlink, process::Command};

/// Machines `web 01`, `db 01` and `old 01` below `vms`.
fn machines(f: &Fixture) {
    for name in ["web", "db", "old"] {
        machine(f, &format!("vms/{name}"));
        let config = f.path(&format!("vms/{name}/web.vmx"));
        let text = fs::read_to_string(&config).unwrap();
        let uuid = text.replace("2d 9f", &format!("{:02x} 9f", name.len()));
        fs::write(config, uuid.replace("web 01", &format!("{name} 01"))).unwrap();
    }
}

#[test]
fn several_selectors() {
    let f = Fixture::new();
    machines(&f);
    f.run(&[
        "vcb",
        "snapall",
        "-h",
        "vms",
        "-a",
        "name:web 01",
        "-a",
        "name:old 01",
        "-a",
        "name:web 01",
        "-r",
        "out",
        "-M",
        "1",
    ])
    .code(0);
    assert_eq!(names(&f.path("out")), ["old 01", "web 01"]);
    f.run(&["verify", "out/web 01"]).code(0);
    // What fits none is named, and the others are there.
    f.run(&[
        "vcb",
        "snapall",
        "-h",
        "vms",
        "-aname:none",
        "-aname:db 01",
        "-r",
        "more",
    ])
    .code(3)
    .says("no machine fits name:none");
    assert_eq!(names(&f.path("more")), ["db 01"]);
    f.run(&["vcb", "snapall", "-h", "vms", "-a", "name:none", "-r", "no"])
        .code(1);
    f.run(&["vcb", "snapall", "-h", "vms", "-r", "all"]).code(0);
    assert_eq!(names(&f.path("all")), ["db 01", "old 01", "web 01"]);
}

/// Names that would be options, or lines of their own.
#[test]
fn odd_names() {
    let f = Fixture::new();
    machines(&f);
    f.run(&["vcb", "export", "-s", "vms/web", "-d", "backup"])
        .code(0);
    let catalog = fs::read_to_string(f.path("backup/catalog")).unwrap();
    fs::write(f.path("edited"), catalog.replace("web 01", "--mac=new")).unwrap();
    f.run(&[
        "vcb", "restore", "-s", "backup", "-h", "host", "-a", "edited",
    ])
    .code(0);
    let text = fs::read_to_string(f.path("host/--mac=new/web.vmx")).unwrap();
    assert!(text.contains("displayName = \"--mac=new\""), "{text}");
    let path = f.path("vms/web/web.vmx");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("web 01", "web|0Auuid:other")).unwrap();
    let said = f.run(&["vcb", "vmname", "-h", "vms/web"]).code(0);
    assert_eq!(said.text().matches("\nuuid:").count(), 1, "{}", said.text());
}

#[test]
fn restores_over_what_is_there() {
    let f = Fixture::new();
    machines(&f);
    f.run(&["vcb", "export", "-s", "vms/web", "-d", "backup"])
        .code(0);
    let restore = ["vcb", "restore", "-s", "backup", "-h", "host"];
    let with = |more: &[&str]| f.run(&[&restore[..], more].concat());
    with(&[]).code(0);
    fs::write(f.path("host/web 01/vmware.log"), "old").unwrap();
    // It stays, unless it is said.
    with(&[]).code(1).says("-b overwrite");
    with(&["-b", "preserve"]).code(1).says("is there already");
    with(&["-b", "always"])
        .code(2)
        .says("preserve or overwrite");
    assert!(f.path("host/web 01/vmware.log").exists());
    with(&["-b", "overwrite"]).code(0);
    assert!(!f.path("host/web 01/vmware.log").exists());
    f.run(&["diff", "host/web 01/web.vmx", "vms/web/web.vmx"])
        .code(0);
    assert_eq!(names(&f.path("host")), ["web 01"]);
    // What is no machine's file is not lost.
    fs::write(f.path("host/web 01/notes.txt"), "mine").unwrap();
    with(&["-b", "overwrite"]).code(0).says("is kept as");
    let all = names(&f.path("host"));
    let kept = all.iter().find(|n| n.contains(".replaced-")).unwrap();
    assert!(f.path("host").join(kept).join("notes.txt").exists());
    assert!(!f.path("host/web 01/notes.txt").exists() && all.len() == 2);
    // A lock of a host: it may be running.
    fs::write(f.path("host/web 01/web.vmdk.lck"), "").unwrap();
    with(&["-b", "overwrite"]).code(1).says("may be running");
    fs::remove_file(f.path("host/web 01/web.vmdk.lck")).unwrap();
    fs::write(f.path("host/web 01/.lck-3409000000000000"), "").unwrap();
    with(&["-b", "overwrite"]).code(1).says("may be running");
    fs::remove_file(f.path("host/web 01/.lck-3409000000000000")).unwrap();
    // A disk that it does not name is somebody's; one that another has too, that one's.
    fs::remove_dir_all(f.path("host").join(kept)).unwrap();
    fs::write(f.path("host/web 01/data.vmdk"), "mine").unwrap();
    with(&["-b", "overwrite"]).code(0).says("is kept as");
    let all = names(&f.path("host"));
    let kept = all.iter().find(|n| n.contains(".replaced-")).unwrap();
    assert!(f.path("host").join(kept).join("data.vmdk").exists());
    fs::remove_dir_all(f.path("host").join(kept)).unwrap();
    fs::create_dir(f.path("host/db")).unwrap();
    let text = fs::read_to_string(f.path("host/web 01/web.vmx")).unwrap();
    let disk = names(&f.path("host/web 01"));
    let disk = disk.iter().find(|n| n.ends_with(".vmdk")).unwrap();
    let text = text.replace("web 01", "db");
    let text = text.replace(disk, &format!("../web 01/{disk}"));
    fs::write(f.path("host/db/db.vmx"), text).unwrap();
    with(&["-b", "overwrite"]).code(1).says("which db has too");
    fs::remove_dir_all(f.path("host/db")).unwrap();
    // A backup that cannot be restored replaces nothing.
    let disk = names(&f.path("backup"));
    let disk = disk.iter().find(|n| n.ends_with(".vmdk")).unwrap();
    let whole = fs::read(f.path("backup").join(disk)).unwrap();
    fs::write(f.path("backup").join(disk), b"torn").unwrap();
    let before = names(&f.path("host/web 01"));
    let failed = with(&["-b", "overwrite"]);
    assert!(failed.code != Some(0), "{}", failed.err);
    failed.says("is as it was");
    assert_eq!(names(&f.path("host/web 01")), before);
    fs::write(f.path("backup").join(disk), whole).unwrap();
    // Another machine, no machine, the backup itself.
    fs::remove_dir_all(f.path("host/web 01")).unwrap();
    f.run(&["restore", "vms/db", "host/web 01"]).code(0);
    let config = f.path("host/web 01/web.vmx");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("uuid.bios", "uuid.was")).unwrap();
    with(&["-b", "overwrite"])
        .code(1)
        .says("another machine, db 01");
    fs::remove_dir_all(f.path("host/web 01")).unwrap();
    fs::create_dir(f.path("host/web 01")).unwrap();
    with(&[]).code(0);
    fs::remove_dir_all(f.path("host/web 01")).unwrap();
    fs::create_dir(f.path("host/web 01")).unwrap();
    fs::write(f.path("host/web 01/thesis.odt"), "").unwrap();
    with(&["-b", "overwrite"]).code(1).says("no machine");
    fs::rename(f.path("backup"), f.path("web 01")).unwrap();
    f.run(&[
        "vcb",
        "restore",
        "-s",
        "web 01",
        "-h",
        ".",
        "-b",
        "overwrite",
    ])
    .code(1)
    .says("the backup itself");
    assert!(f.path("web 01").join(disk).exists());
}

#[test]
fn as_another_catalog_says() {
    let f = Fixture::new();
    machines(&f);
    f.run(&["vcb", "export", "-s", "vms/web", "-d", "backup"])
        .code(0);
    let own = fs::read_to_string(f.path("backup/catalog")).unwrap();
    let catalog = own
        .replace("\"web 01\"", "\"web 02\"")
        .replace("\"[] ", "\"[ds 2] copies/")
        + "host= \"esx7\"\nresourcepool= \"/ha-folder-root/x\"\n";
    fs::write(f.path("edited"), catalog).unwrap();
    let restore = |catalog: &str| {
        f.run(&[
            "vcb", "restore", "-s", "backup", "-h", "host", "-a", catalog,
        ])
    };
    restore("edited")
        .code(0)
        .says("host, resourcepool of the catalog ignored");
    assert_eq!(names(&f.path("host")), ["copies"]);
    let vm = f.run(&["vm", "--json", "host/copies"]).code(0).json();
    assert_eq!(vm["places"][0]["vms"][0]["name"], "web 02");
    // Its own changes nothing.
    restore("backup/catalog").code(0);
    assert_eq!(names(&f.path("host")), ["copies", "web 01"]);
    restore("none").code(1).says("none");
    fs::write(f.path("wrong"), "colour= \"blue\"\n").unwrap();
    restore("wrong").code(1).says("config.vmx=");
    let other = own + "disk.scsi0:9.filename= \"other.vmdk\"\n";
    fs::write(f.path("disks"), other).unwrap();
    restore("disks").code(1).says("other.vmdk");
}

#[test]
fn flags_that_it_never_had() {
    let f = Fixture::new();
    machines(&f);
    for line in [
        "mounter -h vms -a name:x -r y -x secret",
        "mounter -Psecret",
        "snapall -h vms -r out -t secret",
        "restore -s backup -h host -d secret",
        "vmname -h vms -M secret",
        "cleanup -psecret",
    ] {
        let words: Vec<&str> = ["vcb"].into_iter().chain(line.split(' ')).collect();
        let ran = f.run(&words).code(2).says("it knows -").says("--help");
        assert!(!ran.err.contains("secret"), "{}", ran.err);
    }
    // A word that no flag takes may be half a password.
    let ran = f.run(&["vcb", "vmname", "-h", "vms", "-p", "my", "secret"]);
    assert!(!ran.code(2).says("belong to no flag").err.contains("secret"));
    let ran = f.run(&[
        "--log-level",
        "trace",
        "vcb",
        "vmname",
        "-h",
        "vms",
        "-u",
        "Administrator",
        "-p",
        "secret",
        "-m",
        "san",
    ]);
    let ran = ran.code(0).says("-u, -p, -m ignored");
    assert!(!ran.err.contains("secret") && !ran.err.contains("Administrator"));
}

#[test]
fn help_of_each_command_by_both_names() {
    let f = Fixture::new();
    for (command, program) in [
        ("mounter", "vcbMounter"),
        ("export", "vcbExport"),
        ("restore", "vcbRestore"),
        ("vmname", "vcbVmName"),
        ("snapall", "vcbSnapAll"),
        ("mountvm", "mountvm"),
        ("cleanup", "vcbCleanup"),
    ] {
        let help = f.run(&["vcb", command, "--help"]).code(0);
        assert!(help.text().contains("Examples:\n"), "{command}");
        assert!(
            help.text()
                .contains(&format!("Usage: vmdkit vcb {command}"))
        );
        symlink(env!("CARGO_BIN_EXE_vmdkit"), f.path(program)).unwrap();
        let out = Command::new(f.path(program))
            .arg("--help")
            .output()
            .unwrap();
        assert!(out.status.success());
        assert_eq!(out.stdout, help.out, "{program}");
    }
    assert!(
        f.run(&["vcb", "--help"])
            .code(0)
            .text()
            .contains("mounter -U DIR")
    );
}

/// Scripts unmount after either kind of backup: an export is not touched.
#[test]
fn unmounting_an_export() {
    let f = Fixture::new();
    machines(&f);
    let mounter = [
        "vcb",
        "mounter",
        "-h",
        "vms",
        "-a",
        "name:db 01",
        "-r",
        "full",
    ];
    f.run(&[&mounter[..], &["-t", "fullvm", "-M", "1"]].concat())
        .code(0);
    let before = names(&f.path("full"));
    f.run(&["vcb", "mounter", "-U", "full"])
        .code(0)
        .says("the export there stays");
    assert_eq!(names(&f.path("full")), before);
    f.run(&["verify", "full"]).code(0);
    // Of what is neither, it is an error.
    fs::create_dir(f.path("empty")).unwrap();
    f.run(&["vcb", "mounter", "-U", "empty"]).code(1);
    f.run(&["vcb", "mounter", "-U", "nowhere"]).code(1);
}

#[test]
fn uuids_of_both_kinds_and_what_a_snapshot_is_for() {
    let f = Fixture::new();
    machine(&f, "vms/web");
    let vmx = f.path("vms/web/web.vmx");
    let text = fs::read_to_string(&vmx).unwrap();
    let more = "vc.uuid = \"50 0d aa bb cc dd ee ff-00 11 22 33 44 55 66 77\"\n";
    fs::write(&vmx, text + more).unwrap();
    let vmsd = f.path("vms/web/web.vmsd");
    let text = fs::read_to_string(&vmsd).unwrap();
    let more = "snapshot0.description = \"before the patch|0Aof November\"\n";
    fs::write(&vmsd, text + more).unwrap();
    for uuid in [
        "uuid:500daabb-ccdd-eeff-0011-223344556677",
        "uuid:564d813c-ddd8-882c-f142-bf58f57c2d9f",
    ] {
        let ran = f.run(&["vm", "vms", "--select", uuid]).code(0);
        assert!(ran.text().starts_with("web 01: "), "{uuid}");
        let ran = f.run(&["vcb", "vmname", "-h", "vms", "-s", uuid]).code(0);
        assert!(ran.text().contains("name:web 01"), "{uuid}");
    }
    let text = f.run(&["vm", "vms"]).code(0).text().to_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|l| l.contains("(id 1,")).unwrap();
    assert_eq!(lines[at + 1], "\"before the patch\"", "{text}");
    assert_eq!(lines[at + 2], "\"of November\"", "{text}");
}
