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

/// How MountedDevices names a partition of this disk.
fn device(start: u64) -> Vec<u8> {
    let mut data = SIGNATURE.to_le_bytes().to_vec();
    data.extend((start * 512).to_le_bytes());
    data
}

/// A SYSTEM hive that knows C: (partition 1), D: (partition 2), and E: of another disk.
pub(crate) fn system_hive() -> Vec<u8> {
    let mut hive = HiveBuilder::new().unwrap();
    let root = hive.root_offset();
    let key = hive.add_key(root, "MountedDevices").unwrap();
    let other = [9, 9, 9, 9, 0, 0, 16, 0, 0, 0, 0, 0];
    for (name, data) in [
        (r"\DosDevices\C:".to_owned(), device(2048)),
        (r"\DosDevices\D:".to_owned(), device(67584)),
        (r"\DosDevices\E:".to_owned(), other.to_vec()),
        (format!(r"\??\{VOLUME}"), device(67584)),
    ] {
        hive.add_value(key, &name, DataType::Binary, &data).unwrap();
    }
    hive.to_bytes().unwrap()
}

/// A mount point's reparse data.
fn mount_point() -> String {
    let target: Vec<u8> = format!(r"\??\{VOLUME}\")
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
            fs::write(config.join("SYSTEM"), system_hive()).unwrap();
            fs::create_dir_all(at.join("deep/mounted")).unwrap();
            let value = format!("0x{}", mount_point());
            let words = ["-h", "-n", "system.ntfs_reparse_data", "-v", &value];
            let point = at.join("deep/mounted");
            let words = words.iter().map(|w| (*w).to_owned());
            let all = words.chain([point.to_str().unwrap().to_owned()]);
            tools::run("setfattr", all).unwrap();
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
