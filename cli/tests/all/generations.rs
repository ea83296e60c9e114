//! What `export --keep` may remove, and what `--since newest` may build on.

use crate::{common::Fixture, machine::machine};
use std::fs;

fn names(f: &Fixture) -> Vec<String> {
    let mut names = crate::common::names(&f.path("bk"));
    names.retain(|n| !n.starts_with('.'));
    names
}

/// Writes other contents into the machine's disk.
fn change(f: &Fixture, n: u8) {
    let disk = f.path("web/disk-flat.vmdk");
    let mut raw = fs::read(&disk).unwrap();
    raw[6 << 20..(6 << 20) + 5000].fill(n);
    fs::write(disk, raw).unwrap();
}

/// A backup that was given another name is what others build on all the same.
#[test]
fn a_renamed_backup_stays_while_others_build_on_it() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("bk")).unwrap();
    let export = |args: &[&str]| f.run(&[&["export", "web"], args].concat()).code(0);
    export(&["bk/1", "--keep", "5"]);
    change(&f, 1);
    export(&["bk/2", "--since", "bk/1", "--keep", "5"]);
    fs::rename(f.path("bk/1"), f.path("bk/1-monthly")).unwrap();
    let said = export(&["bk/3", "--keep", "2"]);
    assert_eq!(names(&f), ["1-monthly", "2", "3"], "{}", said.err);
    // It cannot be read under that name, so nothing is merged either.
    let args = ["export", "web", "bk/4", "--keep", "3", "--merge"];
    f.run(&args).code(3).says("put it back");
    assert_eq!(names(&f), ["1-monthly", "2", "3", "4"]);
    // Nothing is known of what is not there.
    fs::rename(f.path("bk/1-monthly"), f.path("elsewhere")).unwrap();
    let said = export(&["bk/5", "--keep", "1"]);
    assert!(said.err.contains("is not beside it"), "{}", said.err);
    assert_eq!(names(&f), ["2", "3", "4", "5"]);
    fs::rename(f.path("elsewhere"), f.path("bk/1")).unwrap();
    export(&["bk/6", "--keep", "1"]);
    assert_eq!(names(&f), ["6"]);
}

/// What a host's own system puts into any directory is no reason to doubt or to keep a backup, and
/// is left where it is.
#[test]
fn files_of_the_hosts_system_are_neither_doubted_nor_removed() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("bk")).unwrap();
    let export = |args: &[&str]| f.run(&[&["export", "web"], args].concat()).code(0);
    export(&["bk/1", "--keep", "5"]);
    f.run(&["verify", "bk/1"]).code(0);
    for dir in ["@eaDir", "lost+found"] {
        fs::create_dir(f.path("bk/1").join(dir)).unwrap();
    }
    for file in ["@eaDir/x", ".DS_Store", "Thumbs.db", ".nfs0000001"] {
        fs::write(f.path("bk/1").join(file), file).unwrap();
    }
    let verify = f.run(&["verify", "bk/1"]).code(0);
    assert!(verify.text().contains("note: .DS_Store: is no part"));
    export(&["bk/2", "--keep", "1"]).says("its directory stays");
    let left = [
        ".DS_Store",
        ".nfs0000001",
        "@eaDir",
        "Thumbs.db",
        "lost+found",
    ];
    assert_eq!(crate::common::names(&f.path("bk/1")), left);
    assert_eq!(fs::read(f.path("bk/1/@eaDir/x")).unwrap(), b"@eaDir/x");
    // A file of that name is none, nor is anything else.
    for (dir, file) in [("2", "@eaDir"), ("3", "notes.txt")] {
        let next = format!("bk/{}", dir.parse::<u8>().unwrap() + 1);
        let stray = f.path("bk").join(dir).join(file);
        fs::write(&stray, "").unwrap();
        f.run(&["verify", &format!("bk/{dir}")]).code(3);
        export(&[&next, "--keep", "1"]).says("which is no part of the backup");
        fs::remove_file(stray).unwrap();
    }
}

/// A machine that was copied has the uuid of the other one.
#[test]
fn copies_of_a_machine_have_generations_of_their_own() {
    let f = Fixture::new();
    machine(&f, "web");
    machine(&f, "copy");
    let config = f.path("copy/web.vmx");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("web 01", "web 02")).unwrap();
    fs::create_dir(f.path("bk")).unwrap();
    f.run(&["export", "web", "bk/a", "--keep", "1"]).code(0);
    let said = f.run(&["export", "copy", "bk/b", "--keep", "1"]).code(0);
    assert!(said.err.contains("the same uuid"), "{}", said.err);
    assert_eq!(names(&f), ["a", "b"]);
    let args = ["export", "copy", "bk/c", "--since", "newest", "--keep", "1"];
    let json = f.run(&[&args[..], &["--json"]].concat()).code(0).json();
    assert_eq!(json["manifest"]["since"]["directory"], "b");
    // The same machine, moved: its name is enough.
    fs::rename(f.path("web"), f.path("moved")).unwrap();
    let args = [
        "export", "moved", "bk/d", "--since", "newest", "--keep", "1",
    ];
    let json = f.run(&[&args[..], &["--json"]].concat()).code(0).json();
    assert_eq!(json["manifest"]["since"]["directory"], "a");
}

/// A backup that turns out to be damaged is built on once, and not every night.
#[test]
fn what_is_damaged_is_not_built_on_for_ever() {
    let f = Fixture::new();
    f.noise();
    machine(&f, "web");
    fs::create_dir(f.path("bk")).unwrap();
    let run = |n: u8, code| {
        change(&f, n);
        let dest = format!("bk/{n}");
        let args = ["export", "web", &dest, "--since", "newest", "--keep", "9"];
        f.run(&args).code(code)
    };
    run(1, 0);
    let disk = f.path("bk/1/web.vmdk");
    let mut bytes = fs::read(&disk).unwrap();
    let at = bytes.len() - 300_000;
    bytes[at] ^= 1;
    fs::write(&disk, bytes).unwrap();
    let said = run(2, 1);
    assert!(
        said.err.contains("bk/1, which it builds on, is damaged"),
        "{}",
        said.err
    );
    assert!(!f.path("bk/1/.done").exists());
    let said = run(3, 0);
    assert!(said.err.contains("no earlier backup of it"), "{}", said.err);
    run(4, 0);
    f.run(&["verify", "bk/4"]).code(0);
    let manifest = fs::read_to_string(f.path("bk/4/vmdkit-manifest.json")).unwrap();
    assert!(manifest.contains("\"directory\": \"3\"") || manifest.contains("\"directory\":\"3\""));
}

/// Whatever lies where the manifest of an earlier backup should is not waited for.
#[test]
fn manifests_are_files_and_chains_end() {
    let f = Fixture::new();
    for dir in ["bk", "bk/a", "bk/b"] {
        fs::create_dir(f.path(dir)).unwrap();
    }
    for name in ["disk.vmdk", "disk-flat.vmdk"] {
        fs::copy(f.path(name), f.path("bk/a").join(name)).unwrap();
    }
    let manifest = |own: &str, other: &str, of: &str, stands_for: &str| {
        let text = format!(
            "{{\"vmdkit_backup\":1,\"created\":\"2026-01-01T00:00:00Z\",\"source\":\"x\",\"since\":\
             {{\"directory\":\"{other}\",\"created\":\"2026\",\"manifest\":\"{of}\"}},\
             \"stands_for\":[\"{stands_for}\"],\"vm\":null,\"disks\":[],\"files\":[]}}"
        );
        fs::write(f.path("bk").join(own).join("vmdkit-manifest.json"), text).unwrap();
    };
    manifest("a", "b", "x", "y");
    let pipe = f.path("bk/b/vmdkit-manifest.json");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    f.run(&["ls", "bk/a/disk.vmdk"]).code(1).says("manifest");
    fs::remove_file(&pipe).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &pipe).unwrap();
    f.run(&["ls", "bk/a/disk.vmdk"]).code(1).says("manifest");
    fs::remove_file(&pipe).unwrap();
    manifest("b", "a", "y", "x");
    f.run(&["ls", "bk/a/disk.vmdk"])
        .code(1)
        .says("build on each other");
}
