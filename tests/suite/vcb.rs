//! An old backup script, as it was written for VMware Consolidated Backup, goes on working.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};
use tests::{mount::is_mount_point, tools};

const SCRIPT: &str = r#"#!/bin/sh
# Nightly backup of every machine: files of web01 by mount, all machines in full.
set -e
export PATH="$BIN:$PATH"
NAME=$(vcbVmName -h "$HOST" -u root -p secret -s any: 2>/dev/null | grep '^name:' | cut -d: -f2 | head -1)
vcbMounter -h "$HOST" -u root -p secret -a "name:$NAME" -r "$DEST/mnt" -t file -m san -L 6
cp "$DEST/mnt/digits/1/a.txt" "$DEST/file-copy"
vcbMounter -U "$DEST/mnt"
vcbMounter -h "$HOST" -a "name:$NAME" -r "$DEST/full" -t fullvm -M 1 -F 1
vcbSnapAll -h "$HOST" -a any: -r "$DEST/all" -M 1
vcbRestore -s "$DEST/full" -h "$DEST/restored"
"#;

#[test]
fn a_script_of_old_runs() {
    if !tools::have(&["mkfs.fat", "mcopy"]) || !tools::have_fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (vm, bin, dest) = (at("vms/web 01"), at("bin"), at("dest"));
    for dir in [&vm, &bin, &dest] {
        fs::create_dir_all(dir).unwrap();
    }
    let flat = vm.join("web-flat.vmdk");
    fs::File::create(&flat).unwrap().set_len(4 << 20).unwrap();
    tools::run("mkfs.fat", ["-F", "12", &text(&flat)]).unwrap();
    fs::write(at("a.txt"), "the file").unwrap();
    tools::run(
        "mcopy",
        ["-i", &text(&flat), &text(&at("a.txt")), "::a.txt"],
    )
    .unwrap();
    let vmdkit = tools::vmdkit().unwrap();
    let over = [
        "create",
        &text(&vm.join("web.vmdk")),
        "--over",
        &text(&flat),
    ];
    assert!(Command::new(vmdkit).args(over).status().unwrap().success());
    fs::write(
        vm.join("web.vmx"),
        "config.version = \"8\"\nvirtualHW.version = \"7\"\ndisplayName = \"web 01\"\n\
         guestOS = \"other\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"web.vmdk\"\n",
    )
    .unwrap();
    for name in ["vcbMounter", "vcbVmName", "vcbSnapAll", "vcbRestore"] {
        symlink(vmdkit, bin.join(name)).unwrap();
    }
    fs::write(at("script"), SCRIPT).unwrap();
    let out = Command::new("sh")
        .arg(at("script"))
        .env("BIN", &bin)
        .env("HOST", at("vms"))
        .env("DEST", &dest)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{said}");
    // What it was told in confidence it tells nobody.
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(fs::read(dest.join("file-copy")).unwrap(), b"the file");
    assert!(!is_mount_point(&dest.join("mnt")).unwrap());
    let full = dest.join("full");
    assert!(full.join("scsi0-0-0-web.vmdk").exists() && full.join("catalog").exists());
    for (args, code) in [
        (
            vec![
                "diff".to_owned(),
                text(&full.join("web.vmx")),
                text(&vm.join("web.vmx")),
            ],
            0,
        ),
        (vec!["verify".to_owned(), text(&dest.join("all/web 01"))], 0),
        (
            vec![
                "cat".to_owned(),
                text(&dest.join("restored/web 01")),
                "/a.txt".to_owned(),
            ],
            0,
        ),
        (vec!["vcb".into(), "mounter".into(), "--help".into()], 0),
        // Wrong usage is told as such.
        (
            vec!["vcb".into(), "mounter".into(), "-r".into(), "/x".into()],
            2,
        ),
        (vec!["vcb".into(), "nonsense".into()], 2),
        (
            vec![
                "vcb".into(),
                "mounter".into(),
                "-h".into(),
                text(&at("vms")),
                "-a".into(),
                "name:none".into(),
                "-r".into(),
                "/x".into(),
            ],
            1,
        ),
    ] {
        let out = Command::new(vmdkit).args(&args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    }
}
