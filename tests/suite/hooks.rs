//! The examples of `docs/hooks` do what they say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::tools;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hooks")
}

/// A machine with one disk, on which a partition table stands and nothing else.
fn machine(dir: &Path, name: &str) {
    fs::create_dir(dir).unwrap();
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[446..462].copy_from_slice(&[0, 0, 2, 0, 0xda, 0, 33, 0, 1, 0, 0, 0, 100, 0, 0, 0]);
    fs::write(dir.join("disk-flat.vmdk"), disk).unwrap();
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
        createType=\"vmfs\"\n\nRW 2048 VMFS \"disk-flat.vmdk\" 0\n";
    fs::write(dir.join("disk.vmdk"), descriptor).unwrap();
    let config = format!(
        "config.version = \"8\"\nvirtualHW.version = \"7\"\ndisplayName = \"{name}\"\n\
         guestOS = \"other\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"disk.vmdk\"\n"
    );
    fs::write(dir.join(format!("{name}.vmx")), config).unwrap();
}

#[test]
fn shellcheck_has_nothing_to_say() {
    if !tools::have(&["shellcheck"]) {
        return;
    }
    let scripts = fs::read_dir(dir()).unwrap().map(|e| e.unwrap().path());
    let scripts: Vec<_> = scripts
        .filter(|p| p.extension().is_some_and(|e| e == "sh"))
        .collect();
    assert_eq!(scripts.len(), 6);
    tools::run("shellcheck", &scripts).unwrap();
}

#[test]
fn products_stage_and_empty() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    for name in ["web01", "db01"] {
        machine(&at(name), name);
    }
    let list = format!(
        "# name source\nweb01 {}\n\ndb01 {}\n",
        at("web01/web01.vmx").display(),
        at("db01/db01.vmx").display()
    );
    fs::write(at("machines"), list).unwrap();
    let run = |script: &str, args: &[&str]| -> Output {
        Command::new(dir().join(script))
            .args(args)
            .env("VMDKIT", tools::vmdkit().unwrap())
            .env("VMDKIT_STAGE_SH", dir().join("stage.sh"))
            .env("VMDKIT_MACHINES", at("machines"))
            .env("VMDKIT_STAGE", at("stage"))
            .env("VMDKIT_LOG", at("log"))
            .output()
            .unwrap()
    };
    let there = |names: &[&str]| {
        let mut found: Vec<_> = fs::read_dir(at("stage"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
    };
    for (script, before, after) in [
        (
            "bacula-runscript.sh",
            &["before", "nightly"][..],
            &["after", "nightly", "OK"][..],
        ),
        ("networker-savepnpc.sh", &["pre"], &["post"]),
        ("tsm-schedule.sh", &["pre"], &["post"]),
    ] {
        let out = run(script, before);
        assert!(out.status.success(), "{script}: {out:?}");
        there(&["db01", "web01"]);
        assert!(run(script, after).status.success());
        there(&[]);
    }
    let args = ["host", "policy", "full", "FULL"];
    assert!(run("netbackup-bpstart_notify.sh", &args).status.success());
    there(&["db01", "web01"]);
    // A backup that failed leaves them, and the next one says so.
    let failed = [&args[..], &["6"]].concat();
    assert!(run("netbackup-bpend_notify.sh", &failed).status.success());
    there(&["db01", "web01"]);
    assert!(!run("netbackup-bpstart_notify.sh", &args).status.success());
    assert!(
        fs::read_to_string(at("log"))
            .unwrap()
            .contains("is there already")
    );
    let done = [&args[..], &["0"]].concat();
    assert!(run("netbackup-bpend_notify.sh", &done).status.success());
    there(&[]);
    // One machine, one that is not listed, one that is lost.
    let out = run("bacula-runscript.sh", &["before", "vmdkit-db01"]);
    assert!(out.status.success(), "{out:?}");
    there(&["db01"]);
    let out = run("bacula-runscript.sh", &["after", "vmdkit-db01", "Error"]);
    assert!(out.status.success());
    there(&["db01"]);
    assert!(run("stage.sh", &["empty"]).status.success());
    assert!(!run("stage.sh", &["fill", "mail01"]).status.success());
    fs::remove_file(at("db01/db01.vmx")).unwrap();
    let out = run("stage.sh", &["fill"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("db01: failed"));
    there(&["web01"]);
    assert_eq!(run("stage.sh", &[]).status.code(), Some(2));
}
