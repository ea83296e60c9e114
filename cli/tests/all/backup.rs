//! `export`, `restore`: a machine goes out and comes back.

use crate::{
    common::{Fixture, names, skipped},
    machine::machine,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

#[test]
fn a_machine_out_and_back() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::write(f.path("web/web.nvram"), vec![7; 8684]).unwrap();
    let export = f.run(&["export", "--json", "web", "out"]).code(0).json();
    let digest = export["manifest"]["disks"][0]["digest"]["hash"].clone();
    assert_eq!(export["manifest"]["vm"]["name"], "web 01");
    let names: Vec<_> = export["manifest"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "web.vmdk",
            "web.vmdk.units",
            "web.nvram",
            "web.vmx",
            "catalog"
        ]
    );
    let vmx = fs::read_to_string(f.path("out/web.vmx")).unwrap();
    assert!(vmx.contains("scsi0:0.fileName = \"web.vmdk\"\n"), "{vmx}");
    // It is a machine, whole and sound.
    f.run(&["check", "out"]).code(0);
    let cat = f.run(&["cat", "out", "/dir/b.txt"]).code(0);
    assert_eq!(cat.text(), "there\n");
    // The digest is of the contents, whatever the format.
    let raw = f
        .run(&["export", "--json", "--to", "raw", "web", "raw"])
        .code(0)
        .json();
    assert_eq!(raw["manifest"]["disks"][0]["digest"]["hash"], digest);
    assert_eq!(fs::read(f.path("raw/web.img")).unwrap(), f.raw());

    let args = ["restore", "out", "back", "--name", "copy", "--uuid", "new"];
    f.run(&args).code(0);
    let vmx = fs::read_to_string(f.path("back/web.vmx")).unwrap();
    assert!(
        vmx.contains("displayName = \"copy\"") && !vmx.contains("uuid.bios"),
        "{vmx}"
    );
    let nvram = fs::read(f.path("back/web.nvram")).unwrap();
    assert_eq!(nvram, [7; 8684]);
    f.run(&["convert", "back", "back.raw", "--to", "raw"])
        .code(0);
    assert_eq!(fs::read(f.path("back.raw")).unwrap(), f.raw());
    // A state that the manifest does not speak of is not proven.
    let point = f
        .run(&["restore", "web", "--snapshot", "id:1", "old"])
        .code(0);
    assert!(point.text().contains("not proven"), "{}", point.text());
}

/// An empty directory is replaced by one that the same users may enter.
#[test]
fn into_an_empty_directory() {
    let f = Fixture::new();
    machine(&f, "web");
    let mode = |name: &str| fs::metadata(f.path(name)).unwrap().permissions().mode() & 0o7777;
    for (name, args) in [
        ("private", ["export", "web", "private"]),
        ("back", ["restore", "private", "back"]),
    ] {
        fs::create_dir(f.path(name)).unwrap();
        fs::set_permissions(f.path(name), fs::Permissions::from_mode(0o700)).unwrap();
        f.run(&args).code(0);
        assert_eq!(mode(name), 0o700);
        assert!(f.path(name).join("web.vmdk").exists());
    }
}

/// What no directory can take the place of is refused before anything is read: also a source that
/// is not there.
#[test]
fn into_what_cannot_be_replaced() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::create_dir(f.path("real")).unwrap();
    symlink("real", f.path("link")).unwrap();
    let before = names(f.dir.path());
    for dest in ["link", "link/", ".", "real/.."] {
        for args in [
            ["export", "missing", dest],
            ["restore", "missing", dest],
            ["restore", "-", dest],
        ] {
            f.run(&args).code(1).says("name a new directory in it");
        }
    }
    assert_eq!(names(f.dir.path()), before);
    // Other file systems, and another directory of the same.
    fs::create_dir(f.path("other")).unwrap();
    let before = names(f.dir.path());
    for mount in ["-t tmpfs none", "--bind other"] {
        let line = format!("mount {mount} real || exit 77; exec \"$V\" export missing real");
        let out = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &line])
            .env("V", env!("CARGO_BIN_EXE_vmdkit"))
            .current_dir(f.dir.path())
            .output();
        let out = match out {
            Ok(out) if matches!(out.status.code(), Some(0 | 1)) => out,
            other => return skipped("mounts", &format!("no mount in a namespace: {other:?}")),
        };
        let said = String::from_utf8_lossy(&out.stderr);
        if said.contains("unshare") {
            return skipped("mounts", &said);
        }
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("name a new directory in it"), "{said}");
        assert_eq!(names(f.dir.path()), before);
    }
    // One in it is as good as any.
    f.run(&["export", "web", "link/new"]).code(0);
    assert!(f.path("real/new/web.vmx").exists());
}

#[test]
fn what_differs_leaves_nothing() {
    let f = Fixture::new();
    machine(&f, "web");
    f.run(&[
        "export",
        "--subformat",
        "monolithicFlat",
        "--vcb-names",
        "web",
        "out",
    ])
    .code(0);
    let flat = f.path("out/scsi0-0-0-web-flat.vmdk");
    let mut bytes = fs::read(&flat).unwrap();
    bytes[5_000_000] ^= 1;
    fs::write(&flat, bytes).unwrap();
    f.run(&["restore", "out", "back"])
        .code(1)
        .says("comparing with the manifest");
    assert!(!f.path("back").exists());
    let left = fs::read_dir(f.dir.path()).unwrap();
    let left: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
    assert!(
        left.iter().all(|n| !n.to_string_lossy().ends_with(".tmp")),
        "{left:?}"
    );
    // What is there is not written over.
    f.run(&["export", "web", "out"])
        .code(1)
        .says("empty directory");
    f.run(&["export", "web", "disk.vmdk"])
        .code(1)
        .says("something else");
}

/// The hashes of every MiB tell where a disk differs, and which guest file that is.
#[test]
fn damage_is_placed() {
    let f = Fixture::new();
    machine(&f, "web");
    f.run(&["export", "--subformat", "monolithicFlat", "web", "out"])
        .code(0);
    f.run(&["verify", "out"]).code(0);
    // Nothing is wrong at a quick look; its contents are not proven by it.
    f.run(&["verify", "--quick", "out"]).code(3);
    let flat = f.path("out/web-flat.vmdk");
    let mut bytes = fs::read(&flat).unwrap();
    let at = bytes.windows(6).position(|w| w == b"there\n").unwrap();
    bytes[at] = b'T';
    fs::write(&flat, bytes).unwrap();
    let said = f.run(&["verify", "--json", "out"]).code(4).json();
    let contents = &said["contents"][0];
    assert_eq!(contents["ok"], false);
    let range = &contents["ranges"][0];
    let start = range["offset"].as_u64().unwrap();
    assert!((start..start + range["len"].as_u64().unwrap()).contains(&(at as u64)));
    assert_eq!(contents["ranges"].as_array().unwrap().len(), 1);
    let touched = contents["touched"].to_string();
    assert!(touched.contains("/p0/dir/b.txt"), "{touched}");
    let quick = f.run(&["verify", "--quick", "out"]).code(4);
    assert!(quick.text().contains("CRC-32"), "{}", quick.text());
    let text = f.run(&["verify", "out"]).code(4);
    assert!(text.text().contains("touches /p0/dir/b.txt"));
}

/// A file that is only copied is compared as well.
#[test]
fn a_copied_file_that_differs() {
    let f = Fixture::new();
    machine(&f, "web");
    fs::write(f.path("web/web.nvram"), [7; 100]).unwrap();
    f.run(&["export", "web", "out"]).code(0);
    fs::write(f.path("out/web.nvram"), [8; 100]).unwrap();
    f.run(&["restore", "out", "back"]).code(1).says("web.nvram");
    assert!(!f.path("back").exists());
}

/// A disk that was added after the snapshot, or that no snapshot covers.
#[test]
fn a_disk_that_the_snapshot_has_not_is_said() {
    let f = Fixture::new();
    machine(&f, "web");
    f.run(&["create", "web/added.vmdk", "1M"]).code(0);
    let vmx = fs::read_to_string(f.path("web/web.vmx")).unwrap();
    fs::write(
        f.path("web/web.vmx"),
        vmx + "scsi0:1.fileName = \"added.vmdk\"\n",
    )
    .unwrap();
    f.run(&["export", "web", "all"]).code(0);
    f.run(&["export", "web", "--snapshot", "id:1", "old"])
        .code(3)
        .says("scsi0:1 (added.vmdk): is not part of the snapshot");
}

#[test]
fn one_disk_out_and_back() {
    let f = Fixture::new();
    f.run(&["export", "--to", "qcow2", "--compress", "disk.vmdk", "out"])
        .code(0);
    f.run(&["restore", "out", "back", "--subformat", "streamOptimized"])
        .code(0);
    f.run(&["convert", "back/disk.vmdk", "back.raw", "--to", "raw"])
        .code(0);
    assert_eq!(fs::read(f.path("back.raw")).unwrap(), f.raw());
}

#[test]
fn a_raw_device_map_is_left_out_and_said() {
    let f = Fixture::new();
    machine(&f, "web");
    let rdm = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
               createType=\"vmfsPassthroughRawDeviceMap\"\nRW 2048 VMFSRDM \"lun-rdmp.vmdk\"\n";
    fs::write(f.path("web/lun.vmdk"), rdm).unwrap();
    let vmx = fs::read_to_string(f.path("web/web.vmx")).unwrap();
    fs::write(
        f.path("web/web.vmx"),
        vmx + "scsi0:1.fileName = \"lun.vmdk\"\n",
    )
    .unwrap();
    f.run(&["export", "web", "out"])
        .code(3)
        .says("physical raw device map");
    let vmx = fs::read_to_string(f.path("out/web.vmx")).unwrap();
    assert!(!vmx.contains("scsi0:1"), "{vmx}");
    let vm = f.run(&["vm", "web"]).code(0);
    assert!(vm.text().contains("[physical]"), "{}", vm.text());
}

#[test]
fn a_package_that_strict_readers_take() {
    let f = Fixture::new();
    crate::machine::machine(&f, "web");
    f.run(&["export", "web", "web.ova", "--to", "ova"]).code(0);
    let mut archive = tar::Archive::new(std::fs::File::open(f.path("web.ova")).unwrap());
    let mut names = Vec::new();
    let mut sums = std::collections::BTreeMap::new();
    let mut texts = Vec::new();
    for member in archive.entries().unwrap() {
        let mut member = member.unwrap();
        let name = member.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
        sums.insert(name.clone(), convert::digest::sha256(&bytes));
        if !name.ends_with("vmdk") {
            texts.push(String::from_utf8(bytes).unwrap());
        }
        names.push(name);
    }
    // The descriptor, the manifest, then the disks in the descriptor's order.
    assert!(
        names[0].ends_with(".ovf") && names[1].ends_with(".mf"),
        "{names:?}"
    );
    let mut last = 0;
    for name in &names[2..] {
        let at = texts[0].find(&format!("ovf:href=\"{name}\"")).unwrap();
        assert!(at > last);
        last = at;
    }
    for line in texts[1].lines() {
        let (name, hex) = line
            .strip_prefix("SHA256(")
            .unwrap()
            .split_once(")= ")
            .unwrap();
        let sum: String = sums[name].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, sum, "{name}");
    }
    assert_eq!(texts[1].lines().count(), names.len() - 1);
    // Its disk is the machine's.
    f.run(&["check", "web.ova"]).code(0);
    f.run(&["diff", "web.ova", "web"]).code(0);
    f.run(&["export", "web", "web.ova", "--to", "ova"]).code(1);
    f.run(&["export", "web", "web.ova", "--to", "ova", "--force"])
        .code(0);
    // A package that was changed is refused, unless that is wanted.
    let mut bytes = std::fs::read(f.path("web.ova")).unwrap();
    let at = bytes
        .windows(13)
        .position(|w| w == b"<Info>A virtu")
        .unwrap();
    bytes[at + 6] = b'B';
    std::fs::write(f.path("web.ova"), bytes).unwrap();
    for args in [
        &["convert", "web.ova", "x.raw", "--to", "raw"][..],
        &["export", "web.ova", "out.ova", "--to", "ova"],
    ] {
        f.run(args).code(1).says("--ignore-manifest");
        let with = [args, &["--ignore-manifest"]].concat();
        f.run(&with).code(0);
    }
    let left = crate::common::names(f.path("").as_path());
    assert!(left.iter().all(|n| !n.contains(".vmdkit-")), "{left:?}");
}

/// Disks in pieces are one disk to every verb, and what is missing is noticed.
#[test]
fn a_backup_in_pieces() {
    let f = Fixture::new();
    f.noise();
    machine(&f, "web");
    let args = ["export", "--json", "--split", "1M", "web", "out"];
    let said = f.run(&args).code(0).json();
    let files = said["manifest"]["files"].as_array().unwrap();
    let pieces: Vec<_> = files
        .iter()
        .filter(|f| f["name"].as_str().unwrap().starts_with("web.vmdk.0"))
        .collect();
    assert!(pieces.len() > 1, "{files:?}");
    let (last, whole) = pieces.split_last().unwrap();
    assert!(whole.iter().all(|p| p["size"] == 1 << 20));
    assert!(last["size"].as_u64().unwrap() <= 1 << 20);
    assert!(pieces.iter().all(|p| p["digest"]["kind"] == "sha256"));
    f.run(&["verify", "out"]).code(0);
    f.run(&["check", "out"]).code(0);
    f.run(&["check", "out/web.vmdk"]).code(0);
    let cat = f.run(&["cat", "out", "/dir/b.txt"]).code(0);
    assert_eq!(cat.text(), "there\n");
    f.run(&["convert", "out/web.vmdk", "back.raw", "--to", "raw"])
        .code(0);
    assert_eq!(fs::read(f.path("back.raw")).unwrap(), f.raw());
    f.run(&["restore", "out", "back"]).code(0);
    // Joined by hand it is the same file.
    let joined = crate::common::names(&f.path("out"))
        .into_iter()
        .filter(|n| n.starts_with("web.vmdk.0"))
        .flat_map(|n| fs::read(f.path("out").join(n)).unwrap());
    fs::write(f.path("joined.vmdk"), joined.collect::<Vec<_>>()).unwrap();
    f.run(&["diff", "joined.vmdk", "out/web.vmdk"]).code(0);
    assert_eq!(pieces.len(), 4);
    for (n, says) in [(3, "cut short"), (1, "web.vmdk.000000001")] {
        fs::remove_file(f.path(&format!("out/web.vmdk.{n:09}"))).unwrap();
        f.run(&["convert", "out/web.vmdk", "bad.raw", "--to", "raw"])
            .code(1)
            .says(says);
        f.run(&["verify", "out"]).code(4);
    }
}

/// To standard output and back from standard input.
#[test]
fn a_backup_through_a_pipe() {
    let f = Fixture::new();
    f.noise();
    machine(&f, "web");
    fs::write(f.path("web/web.nvram"), vec![7; 8684]).unwrap();
    let tar = f.run(&["export", "--split", "1M", "web", "-"]).code(0);
    fs::write(f.path("web.tar"), &tar.out).unwrap();
    let list = std::process::Command::new("tar")
        .args(["-tf".as_ref(), f.path("web.tar").as_os_str()])
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.starts_with("web.vmdk.000000000\n"), "{list}");
    assert!(list.ends_with("catalog\nvmdkit-manifest.json\n"), "{list}");
    let back = f.run_with(&["restore", "-", "back"], &tar.out).code(0);
    assert!(back.text().contains("as the manifest says"));
    f.run(&["convert", "back", "back.raw", "--to", "raw"])
        .code(0);
    assert_eq!(fs::read(f.path("back.raw")).unwrap(), f.raw());
    assert_eq!(fs::read(f.path("back/web.nvram")).unwrap(), [7; 8684]);
    // Cut off, nothing, something else.
    for bytes in [&tar.out[..700_000], &[], &[1; 5000]] {
        f.run_with(&["restore", "-", "bad"], bytes).code(1);
        assert!(!f.path("bad").exists());
    }
    let left = crate::common::names(f.path("").as_path());
    assert!(left.iter().all(|n| !n.contains(".vmdkit-")), "{left:?}");
    f.run(&["export", "--to", "raw", "web", "-"])
        .code(2)
        .says("streamOptimized");
}

/// A raw disk in a backup is one whatever the guest wrote to its first sector.
#[test]
fn raw_disks_of_backups_are_believed() {
    let mut qcow2 = vec![0; 512];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let text = b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n".to_vec();
    for first in [vec![0x5a; 512], qcow2, text] {
        let f = Fixture::new();
        let mut raw = f.raw();
        raw[..512].fill(0);
        raw[..first.len()].copy_from_slice(&first);
        fs::write(f.path("disk-flat.vmdk"), &raw).unwrap();
        machine(&f, "web");
        fs::create_dir(f.path("bk")).unwrap();
        f.run(&["export", "web", "bk/1", "--to", "raw", "--keep", "2"])
            .code(0);
        assert!(f.path("bk/1/.done").exists());
        f.run(&["check", "bk/1"]).code(0);
        // What is in it is not known, and it is what the manifest says.
        let verify = f.run(&["verify", "bk/1"]);
        assert_ne!(verify.code, Some(4), "{}", verify.err);
        f.run(&["restore", "bk/1", "back"]).code(0);
        f.run(&["convert", "back", "back.raw", "--to", "raw"])
            .code(0);
        assert_eq!(fs::read(f.path("back.raw")).unwrap(), raw);
        // A single disk.
        f.run(&["export", "disk.vmdk", "one", "--to", "raw"])
            .code(0);
        let verify = f.run(&["verify", "one"]);
        assert_ne!(verify.code, Some(4), "{}", verify.err);
        f.run(&["restore", "one", "again"]).code(0);
    }
}

/// Files that the configuration names and that are no files of the machine's directory.
#[test]
fn named_files_that_are_not_there_are_said() {
    let f = Fixture::new();
    machine(&f, "web");
    let config = f.path("web/web.vmx");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}nvram = \"web.nvram\"\n")).unwrap();
    // It was never started.
    let said = f.run(&["export", "web", "b1"]).code(0);
    assert!(said.err.contains("web.nvram is named"), "{}", said.err);
    // It lies elsewhere: not taken, and not by following a link.
    fs::write(f.path("real.nvram"), "x").unwrap();
    std::os::unix::fs::symlink("../real.nvram", f.path("web/web.nvram")).unwrap();
    f.run(&["export", "web", "b2"]).code(3).says("web.nvram");
    fs::remove_file(f.path("web/web.nvram")).unwrap();
    fs::write(f.path("web/web.nvram"), "x").unwrap();
    f.run(&["export", "web", "b3"]).code(0);
    assert_eq!(fs::read(f.path("b3/web.nvram")).unwrap(), b"x");
}
