//! One machine's life: its disk on a datastore inside a LUN, backed up whole and then by what changed,
//! the oldest backup expired, and one file back from every point in every way there is.

use crate::letters::{SIGNATURE, system_hive};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::Duration,
};
use tests::{
    guest::{Fill, contents, sha256},
    mount::{Mount, ntfs_3g},
    sample::{mbr, sparse_file, splice},
    tools,
};
use vmdk::write::{
    Cell, cowd,
    descriptor::{Text, extent},
    sesparse,
};
use vmfs_reader::build::{Builder, FileSpec, Provision};

const LEN: u64 = 80 << 20;
const NTFS: u64 = 2048;
const FAT: u64 = 67584;
const VOLUME: u64 = 65536;

/// What the files that change hold at a version: one on C:, one on D:.
fn report(version: usize) -> Vec<u8> {
    contents(
        &format!("report {version}"),
        90_000 + version * 7000,
        Fill::Text,
    )
}

fn log(version: usize) -> Vec<u8> {
    contents(&format!("log {version}"), 40_000, Fill::Noise)
}

/// The disk's three versions, as raw images.
fn versions(dir: &Path) -> Vec<PathBuf> {
    let (ntfs, fat) = (dir.join("ntfs"), dir.join("fat"));
    for volume in [&ntfs, &fat] {
        sparse_file(volume, VOLUME * 512).unwrap();
    }
    tools::run("mkntfs", ["-F", "-q", "-Q", ntfs.to_str().unwrap()]).unwrap();
    tools::run("mkfs.fat", ["-F", "16", fat.to_str().unwrap()]).unwrap();
    let one = |version: usize| {
        let mount = ntfs_3g(&ntfs, &dir.join("mnt"), "permissions").unwrap();
        let at = mount.path();
        if version == 1 {
            let config = at.join("Windows/System32/config");
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("SYSTEM"), system_hive()).unwrap();
            fs::create_dir_all(at.join("Users/anna")).unwrap();
        }
        fs::write(at.join("Users/anna/report.txt"), report(version)).unwrap();
        mount.unmount().unwrap();
        let file = dir.join("log.bin");
        fs::write(&file, log(version)).unwrap();
        let words = ["-o", "-i", fat.to_str().unwrap(), file.to_str().unwrap()];
        tools::run("mcopy", words.into_iter().chain(["::log.bin"])).unwrap();
        let image = dir.join(format!("version-{version}"));
        let out = sparse_file(&image, LEN).unwrap();
        let mut sector = mbr(&[(NTFS, VOLUME, 7), (FAT, VOLUME, 6)]);
        sector[440..444].copy_from_slice(&SIGNATURE.to_le_bytes());
        out.write_all_at(&sector, 0).unwrap();
        splice(&ntfs, &out, NTFS * 512).unwrap();
        splice(&fat, &out, FAT * 512).unwrap();
        image
    };
    (1..=3).map(one).collect()
}

/// Grains of `grain` bytes in which two images differ, as `new` has them.
fn changed(old: &Path, new: &Path, grain: usize) -> Vec<(u64, Cell)> {
    let (old, new) = (fs::read(old).unwrap(), fs::read(new).unwrap());
    let pairs = old.chunks(grain).zip(new.chunks(grain));
    let differ = pairs.enumerate().filter(|(_, (a, b))| a != b);
    differ
        .map(|(n, (_, b))| (n as u64, Cell::Data(b.to_vec())))
        .collect()
}

fn descriptor(cid: u32, parent: Option<(u32, &str)>, kind: &str, line: String) -> Vec<u8> {
    let text = Text {
        cid,
        parent,
        create_type: kind,
        extents: vec![line],
    };
    text.encode().into_bytes()
}

/// A LUN with a GPT, in its partition a VMFS-6 volume, in that the machine as of a version: a flat
/// base, a COWD delta from version 2 on, an seSparse delta on that from version 3 on.
fn lun(dir: &Path, versions: &[PathBuf], version: usize) -> PathBuf {
    let sectors = LEN / 512;
    let mut store = Builder::six("store1");
    let base = File::open(&versions[0]).unwrap();
    let mut bytes = vec![0; LEN as usize];
    base.read_exact_at(&mut bytes, 0).unwrap();
    let thin = FileSpec {
        provision: Provision::Thin,
        ..FileSpec::default()
    };
    let flat = descriptor(1, None, "vmfs", extent(sectors, "VMFS", "web-flat.vmdk"));
    store.bytes("web/web.vmdk", &flat).file(
        "web/web-flat.vmdk",
        Arc::new(disk_io::MemDisk::new(bytes)),
        thin.clone(),
    );
    let mut list = format!("snapshot.numSnapshots = \"{}\"\n", version - 1);
    let mut point = |n: usize, file: &str| {
        list += &format!(
            "snapshot{n}.uid = \"{}\"\nsnapshot{n}.parent = \"{n}\"\nsnapshot{n}.displayName = \"day {}\"\n\
             snapshot{n}.numDisks = \"1\"\nsnapshot{n}.disk0.node = \"scsi0:0\"\n\
             snapshot{n}.disk0.fileName = \"{file}\"\n",
            n + 1,
            n + 1
        );
    };
    let mut current = "web.vmdk";
    if version >= 2 {
        let cells = changed(&versions[0], &versions[1], 512);
        let delta = cowd::encode(sectors as u32, 1, &cells);
        let line = extent(sectors, "VMFSSPARSE", "web-000001-delta.vmdk");
        let text = descriptor(2, Some((1, "web.vmdk")), "vmfsSparse", line);
        store
            .bytes("web/web-000001.vmdk", &text)
            .bytes("web/web-000001-delta.vmdk", &delta);
        point(0, "web.vmdk");
        current = "web-000001.vmdk";
    }
    if version >= 3 {
        let cells = changed(&versions[1], &versions[2], 4096);
        let delta = sesparse::encode(sectors, &cells, false);
        let line = extent(sectors, "SESPARSE", "web-000002-sesparse.vmdk");
        let text = descriptor(3, Some((2, "web-000001.vmdk")), "seSparse", line);
        store
            .bytes("web/web-000002.vmdk", &text)
            .bytes("web/web-000002-sesparse.vmdk", &delta);
        point(1, "web-000001.vmdk");
        current = "web-000002.vmdk";
    }
    let config = format!(
        "config.version = \"8\"\nvirtualHW.version = \"14\"\ndisplayName = \"web\"\n\
         guestOS = \"windows9srv-64\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
         scsi0:0.fileName = \"{current}\"\n"
    );
    store
        .bytes("web/web.vmx", config.as_bytes())
        .bytes("web/web.vmsd", list.as_bytes());
    let volume = dir.join("volume");
    store.build().pop().unwrap().write_to(&volume).unwrap();
    let image = dir.join("lun.img");
    let len = fs::metadata(&volume).unwrap().len();
    let out = sparse_file(&image, len + (4 << 20)).unwrap();
    let script = dir.join("script");
    let text = format!(
        "label: gpt\n1 : start=2048, size={}, type=AA31E02A-400F-11DB-9590-000C2911D1B8\n",
        len / 512
    );
    fs::write(&script, text).unwrap();
    let mut sfdisk = tools::command("sfdisk");
    sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel"]);
    tools::output(sfdisk.arg(&image).stdin(File::open(&script).unwrap())).unwrap();
    splice(&volume, &out, 2048 * 512).unwrap();
    fs::remove_file(&volume).unwrap();
    image
}

fn vmdkit() -> Command {
    Command::new(tools::vmdkit().unwrap())
}

/// Runs `vmdkit`; what it wrote.
fn run(args: &[&str]) -> Vec<u8> {
    let out = vmdkit().args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {said}");
    out.stdout
}

const SCRIPT: &str = r#"#!/bin/sh
# One file of web back, as a script of VCB's time did it.
set -e
vcbMounter -h "$1" -u root -p secret -a name:web -r "$2" -t file -m san
trap 'vcbMounter -U "$2"' EXIT
cp "$2/letters/C/Users/anna/report.txt" "$3"
cp "$2/letters/D/log.bin" "$4"
"#;

/// Both files of a version, from `source`, by a script.
fn by_script(dir: &Path, source: &str, version: usize) {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let link = bin.join("vcbMounter");
    if !link.exists() {
        symlink(tools::vmdkit().unwrap(), link).unwrap();
        fs::write(dir.join("old-script"), SCRIPT).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let (a, b) = (dir.join("script-report"), dir.join("script-log"));
    let out = Command::new("sh")
        .arg(dir.join("old-script"))
        .args([Path::new(source), &dir.join("script-mnt"), &a, &b])
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{source}: {said}");
    assert!(!said.contains("secret"));
    assert_eq!(sha256(&fs::read(a).unwrap()), sha256(&report(version)));
    assert_eq!(sha256(&fs::read(b).unwrap()), sha256(&log(version)));
}

#[test]
fn a_machine_its_backups_and_one_file_of_every_day() {
    let programs = ["mkntfs", "ntfs-3g", "mkfs.fat", "mcopy", "sfdisk", "rsync"];
    if !tools::have(&programs) || !tools::have_fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let versions = versions(dir);
    let backups = dir.join("backups");
    fs::create_dir(&backups).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let backup = |day: usize| text(&backups.join(format!("2026-11-0{day}")));
    // A day of hours is in `day`. The first two hold the same.
    for (day, version) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
        let image = text(&lun(dir, &versions, version));
        let dest = backup(day);
        let earlier = backup(day - 1);
        let mut args = vec!["export", "--json", "-D", &image, "web/web.vmx", &dest];
        args.extend(["--keep", "3"]);
        // Two of them whole.
        if day > 2 {
            args.extend(["--since", &earlier]);
        }
        let said: Value = serde_json::from_slice(&run(&args)).unwrap();
        if day > 2 {
            let written = said["written"].as_u64().unwrap();
            assert!(written < 2 << 20, "{written} bytes for a small change");
        }
        let removed = said["expired"].as_array().map_or(0, Vec::len);
        assert_eq!(removed, usize::from(day == 4), "{said}");
    }
    let lun = text(&dir.join("lun.img"));
    assert!(!Path::new(&backup(1)).exists());
    let all = text(&backups);
    // By path and by letter, out of each backup and out of the datastore at each point.
    for (day, version) in [(2, 1), (3, 2), (4, 3)] {
        let one = backup(day);
        run(&["verify", &one]);
        let same = |args: &[&str], wanted: &[u8]| {
            assert_eq!(sha256(&run(args)), sha256(wanted), "{args:?}");
        };
        same(
            &["cat", &one, "/scsi0-0/p1/Users/anna/report.txt"],
            &report(version),
        );
        same(
            &["cat", &one, r"C:\Users\anna\report.txt"],
            &report(version),
        );
        same(&["cat", &one, "D:/log.bin"], &log(version));
        let dated = format!("/2026-11-0{day}/scsi0-0/p2/log.bin");
        same(&["cat", &all, &dated], &log(version));
        let point = match version {
            3 => "current".to_owned(),
            n => format!("name:day {n}"),
        };
        let at = ["cat", "-D", &lun, "web/web.vmx", "--snapshot", &point];
        same(
            &[&at[..], &["C:/Users/anna/report.txt"]].concat(),
            &report(version),
        );
        by_script(dir, &one, version);
    }
    by_script(dir, &lun, 3);
    // The versions of the file, one line each.
    let said = run(&["history", "--json", &all, "D:/log.bin"]);
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(said["versions"].as_array().unwrap().len(), 3, "{said}");
    all_in_one_mount(dir, &all);
    a_restored_machine(dir, &backup(3), 2);
    a_hot_site(dir, &lun, &versions[2]);
}

/// All days in one mount, two of them copied by rsync.
fn all_in_one_mount(dir: &Path, all: &str) {
    let at = dir.join("all");
    fs::create_dir(&at).unwrap();
    let mut command = vmdkit();
    command.args(["mount", "-f", all]).arg(&at);
    let mount = Mount::start(command, &at).unwrap();
    for (day, version) in [(2, 1), (3, 2), (4, 3)] {
        let point = at.join(format!("2026-11-0{day}/current/scsi0-0"));
        let read = fs::read(point.join("p1/Users/anna/report.txt")).unwrap();
        assert_eq!(sha256(&read), sha256(&report(version)));
        if day == 2 {
            continue;
        }
        let copy = dir.join(format!("rsync-{day}"));
        let from = format!("{}/p1/Users", point.display());
        let out = Command::new("rsync")
            .args(["-aH", &from])
            .arg(&copy)
            .output();
        let out = out.unwrap();
        assert!(out.status.success(), "{out:?}");
        let read = fs::read(copy.join("Users/anna/report.txt")).unwrap();
        assert_eq!(sha256(&read), sha256(&report(version)));
    }
    mount.unmount().unwrap();
}

/// The machine of a day, put back whole out of an increment.
fn a_restored_machine(dir: &Path, backup: &str, version: usize) {
    let new = dir.join("restored");
    let new_text = new.to_str().unwrap();
    run(&["restore", backup, new_text]);
    let read = run(&["cat", new_text, "D:/log.bin"]);
    assert_eq!(sha256(&read), sha256(&log(version)));
}

/// A copy at another place, brought up to date from what it had, killed on the way.
fn a_hot_site(dir: &Path, lun: &str, newest: &Path) {
    let target = dir.join("hot.raw");
    let args = ["replicate", "--json", "-D", lun, "web/web.vmx"];
    let at = |point: &str| {
        let mut command = vmdkit();
        command
            .args(args)
            .arg(&target)
            .args(["--snapshot", point])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let first = at("name:day 1").output().unwrap();
    assert!(first.status.success(), "{first:?}");
    for wait in [5, 20, 60, 150] {
        let mut child = at("current").spawn().unwrap();
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = at("current").output().unwrap();
    assert!(last.status.success(), "{last:?}");
    assert!(fs::read(&target).unwrap() == fs::read(newest).unwrap());
}
