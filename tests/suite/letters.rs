//! Drive letters from a guest's registry: in listings, in paths, and in VCB's layout.

use regf::{DataType, HiveBuilder};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::{
    mount::{Mount, ntfs_3g},
    sample::{mbr, sparse_file, splice},
    tools,
};

pub(crate) const SIGNATURE: u32 = 0x1a2b_3c4d;
const VOLUME: &str = "Volume{00112233-4455-6677-8899-aabbccddeeff}";

const GONE: &str = "Volume{99999999-4455-6677-8899-aabbccddeeff}";

/// How MountedDevices names a partition of this disk.
fn device(start: u64) -> Vec<u8> {
    let mut data = SIGNATURE.to_le_bytes().to_vec();
    data.extend((start * 512).to_le_bytes());
    data
}

/// A SYSTEM hive that knows C: (partition 1), D: (partition 2), and E: of another disk.
pub(crate) fn system_hive() -> Vec<u8> {
    hive(["C", "D"])
}

/// The same with other letters for the two partitions.
fn hive(letters: [&str; 2]) -> Vec<u8> {
    let mut hive = HiveBuilder::new().unwrap();
    let root = hive.root_offset();
    let key = hive.add_key(root, "MountedDevices").unwrap();
    let other = [9, 9, 9, 9, 0, 0, 16, 0, 0, 0, 0, 0];
    for (name, data) in [
        (format!(r"\DosDevices\{}:", letters[0]), device(2048)),
        (format!(r"\DosDevices\{}:", letters[1]), device(67584)),
        (r"\DosDevices\E:".to_owned(), other.to_vec()),
        (format!(r"\??\{VOLUME}"), device(67584)),
    ] {
        hive.add_value(key, &name, DataType::Binary, &data).unwrap();
    }
    hive.to_bytes().unwrap()
}

/// A mount point's reparse data.
fn mount_point(volume: &str) -> String {
    let target: Vec<u8> = format!(r"\??\{volume}\")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let len = target.len() as u16;
    let mut data = Vec::new();
    for v in [0, len, len + 2, 0] {
        data.extend(v.to_le_bytes());
    }
    data.extend(target);
    data.extend([0; 4]);
    let mut value = 0xa000_0003u32.to_le_bytes().to_vec();
    value.extend((data.len() as u16).to_le_bytes());
    value.extend([0, 0]);
    value.extend(data);
    value.iter().map(|b| format!("{b:02x}")).collect()
}

/// Two NTFS partitions of 32 MiB: Windows on the first, data on the second.
fn disk(dir: &Path) -> Option<PathBuf> {
    disk_with(dir, ["C", "D"])
}

fn disk_with(dir: &Path, letters: [&str; 2]) -> Option<PathBuf> {
    if !tools::have(&["mkntfs", "ntfs-3g", "setfattr"]) || !tools::have_fuse() {
        return None;
    }
    let image = dir.join("disk.raw");
    let out = sparse_file(&image, 80 << 20).unwrap();
    let mut sector = mbr(&[(2048, 65536, 7), (67584, 65536, 7)]);
    sector[440..444].copy_from_slice(&SIGNATURE.to_le_bytes());
    out.write_all_at(&sector, 0).unwrap();
    for (start, name) in [(2048u64, "system"), (67584, "data")] {
        let volume = dir.join(name);
        sparse_file(&volume, 65536 * 512).unwrap();
        tools::run(
            "mkntfs",
            ["-F", "-q", "-Q", "-L", name, volume.to_str().unwrap()],
        )
        .unwrap();
        let mount = ntfs_3g(&volume, &dir.join("mnt"), "permissions").unwrap();
        let at = mount.path();
        fs::write(at.join("name.txt"), name).unwrap();
        if name == "system" {
            let config = at.join("Windows/System32/config");
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("SYSTEM"), hive(letters)).unwrap();
            for (name, volume) in [("deep/mounted", VOLUME), ("deep/gone", GONE)] {
                let point = at.join(name);
                fs::create_dir_all(&point).unwrap();
                let value = format!("0x{}", mount_point(volume));
                let words = ["-h", "-n", "system.ntfs_reparse_data", "-v", &value];
                let words = words.iter().map(|w| (*w).to_owned());
                let all = words.chain([point.to_str().unwrap().to_owned()]);
                tools::run("setfattr", all).unwrap();
            }
        }
        mount.unmount().unwrap();
        splice(&volume, &out, start * 512).unwrap();
    }
    Some(image)
}

fn vmdkit(args: &[&str]) -> Output {
    let out = Command::new(tools::vmdkit().unwrap()).args(args).output();
    out.unwrap()
}

#[test]
fn letters_in_listings_and_paths() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = disk(dir.path()) else {
        return;
    };
    let image = image.to_str().unwrap();
    let said: serde_json::Value =
        serde_json::from_slice(&vmdkit(&["ls", "--json", image]).stdout).unwrap();
    let letters: Vec<_> = said["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["letter"])
        .collect();
    assert_eq!(letters, ["C", "D"]);
    for (path, expected) in [
        ("C:/name.txt", "system"),
        (r"c:\NAME.TXT", "system"),
        ("D:/name.txt", "data"),
        ("C:/deep/../name.txt", "system"),
    ] {
        let out = vmdkit(&["cat", image, path]);
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            expected,
            "{path}: {out:?}"
        );
    }
    let out = vmdkit(&["cat", image, "E:/name.txt"]);
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("C: (/p1), D: (/p2)"), "{said}");
}

#[test]
fn the_layout_of_vcb() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = disk(dir.path()) else {
        return;
    };
    let at = dir.path().join("vcb");
    fs::create_dir(&at).unwrap();
    let mut command = Command::new(tools::vmdkit().unwrap());
    command
        .args(["mount", "-f", "--layout", "vcb"])
        .arg(&image)
        .arg(&at);
    let mount = Mount::start(command, &at).unwrap();
    let read = |path: &str| fs::read_to_string(at.join(path)).unwrap();
    assert_eq!(read("letters/C/name.txt"), "system");
    assert_eq!(read("letters/D/name.txt"), "data");
    assert_eq!(read("digits/1/name.txt"), "system");
    assert_eq!(read("digits/2/name.txt"), "data");
    // A volume that is mounted in a directory of another is there too.
    assert_eq!(
        fs::read_link(at.join("letters/C/deep/mounted")).unwrap(),
        Path::new("../../../digits/2")
    );
    assert_eq!(read("letters/C/deep/mounted/name.txt"), "data");
    let mut names: Vec<_> = fs::read_dir(at.join("letters"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["C", "D"]);
    mount.unmount().unwrap();
}

/// A machine with a snapshot, whose only disk is `image`.
fn machine(dir: &Path, image: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::rename(image, dir.join("web-flat.vmdk")).unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for args in [
        ["create", &at("web.vmdk"), "--over", &at("web-flat.vmdk")],
        ["create", &at("web-1.vmdk"), "--child-of", &at("web.vmdk")],
    ] {
        assert!(vmdkit(&args).status.success());
    }
    fs::write(
        at("web.vmx"),
        "config.version = \"8\"\nvirtualHW.version = \"7\"\ndisplayName = \"web\"\n\
         guestOS = \"other\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"web-1.vmdk\"\n",
    )
    .unwrap();
    fs::write(
        at("web.vmsd"),
        "snapshot.numSnapshots = \"1\"\nsnapshot.current = \"1\"\nsnapshot0.uid = \"1\"\n\
         snapshot0.displayName = \"before\"\nsnapshot0.numDisks = \"1\"\n\
         snapshot0.disk0.fileName = \"web.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n",
    )
    .unwrap();
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[out.stdout.clone(), out.stderr.clone()].concat()).into_owned()
}

/// Two dated backups of a machine with a snapshot: letters moved between them.
#[test]
fn letters_behind_a_point() {
    let dir = tempfile::tempdir().unwrap();
    let all = dir.path().join("web");
    for (date, letters) in [("2026-01-01", ["C", "D"]), ("2026-01-02", ["S", "C"])] {
        let work = dir.path().join(format!("work-{date}"));
        fs::create_dir(&work).unwrap();
        let Some(image) = disk_with(&work, letters) else {
            return;
        };
        machine(&all.join(date), &image);
    }
    let source = all.to_str().unwrap();
    let cat = |source: &str, path: &str| {
        let out = vmdkit(&["cat", source, path]);
        assert!(out.status.success(), "{path}: {}", said(&out));
        String::from_utf8(out.stdout).unwrap()
    };
    for (path, expected) in [
        ("/2026-01-01/C:/name.txt", "system"),
        ("/2026-01-01/d:/NAME.txt", "data"),
        ("/2026-01-01/current/C:/name.txt", "system"),
        ("/2026-01-01/scsi0-0/D:/name.txt", "data"),
        ("/2026-01-02/snapshots/before/C:/name.txt", "data"),
        ("/2026-01-02/snapshots/before/scsi0-0/S:/name.txt", "system"),
        ("/2026-01-02/S:/deep/mounted/name.txt", "data"),
    ] {
        assert_eq!(cat(source, path), expected, "{path}");
    }
    let one = all.join("2026-01-02");
    let one = one.to_str().unwrap();
    for path in [
        "C:/name.txt",
        "/C:/name.txt",
        "/snapshots/before/C:/name.txt",
    ] {
        assert_eq!(cat(one, path), "data", "{path}");
    }
    // Every verb that takes a PATH.
    let to = dir.path().join("restored");
    fs::create_dir(&to).unwrap();
    let to_name = to.to_str().unwrap();
    for (args, expected) in [
        (vec!["ls", source, "/2026-01-02/C:"], "name.txt"),
        (
            vec!["stat", source, "/2026-01-02/C:/name.txt"],
            "/2026-01-02/current/scsi0-0/p2/name.txt",
        ),
        (
            vec!["find", source, "/2026-01-02/C:/", "--name", "name.*"],
            "/p2/name.txt",
        ),
        (vec!["tar", source, "/2026-01-02/C:/name.txt"], "data"),
        (vec!["cp", source, "/2026-01-02/C:/name.txt", to_name], ""),
        (vec!["history", source, "C:/name.txt"], "2026-01-02"),
        (vec!["history", one, "C:/name.txt"], "before"),
    ] {
        let out = vmdkit(&args);
        assert!(out.status.success(), "{args:?}: {}", said(&out));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains(expected), "{args:?}: {text}");
    }
    assert_eq!(fs::read(to.join("name.txt")).unwrap(), b"data");
    // Letters of each point in listings, too.
    let listed = said(&vmdkit(&[
        "ls",
        source,
        "/2026-01-02/snapshots/before/scsi0-0",
    ]));
    assert!(listed.contains("S:") && listed.contains("C:"), "{listed}");
    for (path, code, parts) in [
        (
            "/C:/name.txt",
            2,
            ["/2026-01-02, /2026-01-01", "begin the path with one"],
        ),
        (
            "C:\\name.txt",
            2,
            ["/2026-01-02, /2026-01-01", "/2026-01-02/C:/name.txt"],
        ),
        (
            "/2026-01-02/D:/name.txt",
            1,
            ["has the letter D", "C: (/2026-01-02/current/scsi0-0/p2)"],
        ),
        (
            "/Q:/name.txt",
            1,
            ["no restore point has this path", "C: ("],
        ),
    ] {
        let out = vmdkit(&["cat", source, path]);
        assert_eq!(out.status.code(), Some(code), "{path}: {}", said(&out));
        for part in parts {
            assert!(said(&out).contains(part), "{path}: {}", said(&out));
        }
    }
}

#[test]
fn volumes_mounted_in_directories() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = disk(dir.path()) else {
        return;
    };
    let image = image.to_str().unwrap();
    let run = |args: &[&str], code: i32| {
        let out = vmdkit(args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", said(&out));
        (
            String::from_utf8_lossy(&out.stdout).into_owned(),
            said(&out),
        )
    };
    for path in ["C:/deep/mounted/name.txt", "/p1/DEEP/Mounted/name.txt"] {
        assert_eq!(run(&["cat", image, path], 0).0, "data", "{path}");
    }
    assert_eq!(run(&["ls", image, "C:/deep/mounted/"], 0).0, "name.txt\n");
    let (only, all) = run(&["ls", image, "C:/deep/mounted"], 0);
    assert_eq!(only, "/p1/deep/mounted\n");
    assert!(all.contains("what is mounted there is /p2"), "{all}");
    let (_, all) = run(&["find", image, "C:/deep/mounted"], 1);
    assert!(all.contains("PATH/ begins there"), "{all}");
    let (found, _) = run(&["find", image, "C:/deep/mounted/"], 0);
    assert!(found.contains("/p2/name.txt"), "{found}");
    let (_, all) = run(&["cat", image, "C:/deep/gone/name.txt"], 1);
    assert!(
        all.contains(GONE) && all.contains("which is not here"),
        "{all}"
    );
    // What goes through a tree enters no other volume: each is there once.
    let (found, _) = run(&["find", image, "/", "--name", "name.txt"], 0);
    assert_eq!(found.lines().count(), 2, "{found}");
    let (listed, _) = run(&["ls", "-R", image, "/"], 0);
    assert_eq!(listed.matches("name.txt").count(), 2, "{listed}");
    let to = dir.path().join("restored");
    let to_name = to.to_str().unwrap();
    let (_, all) = run(&["cp", "-r", image, "C:/deep", to_name], 0);
    assert!(
        all.contains("/p1/deep/mounted is a mount point; what is mounted there is /p2"),
        "{all}"
    );
    assert!(to.join("mounted").is_symlink() && to.join("gone").is_symlink());
    // With / it is meant.
    fs::remove_dir_all(&to).unwrap();
    run(&["cp", "-r", image, "C:/deep/mounted/", to_name], 0);
    assert_eq!(fs::read(to.join("name.txt")).unwrap(), b"data");
}
