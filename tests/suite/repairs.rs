//! What `check --repair` writes is read by others: qemu-img finds nothing wrong with it, and the
//! file systems in it are sound for their own tools, with the files that were put in.

use serde_json::Value;
use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::{
    damages::{self, guest::guest},
    tools,
};

pub(crate) fn vmdkit(args: &[&str]) -> Output {
    Command::new(tools::vmdkit().unwrap())
        .args(args)
        .output()
        .unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Mends `broken` into `out`: whether everything is in the copy, and what is lost or
/// doubtful. `None` where
/// there is nothing to mend, which is said.
fn mend(broken: &Path, out: &Path) -> Option<(bool, Vec<(u64, u64)>)> {
    let args = [
        "check",
        text(broken),
        "--repair",
        text(out),
        "--force",
        "--json",
    ];
    let done = vmdkit(&args);
    let code = done.status.code();
    if !matches!(code, Some(0 | 3)) {
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!said.is_empty() && code != Some(4), "{broken:?}: {done:?}");
        return None;
    }
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let number = |v: &Value| v.as_u64().unwrap();
    let lost = ["lost", "doubtful"]
        .into_iter()
        .flat_map(|of| report[of].as_array().unwrap());
    let lost = lost.map(|l| (number(&l["offset"]), number(&l["length"])));
    Some((code == Some(0), lost.collect()))
}

/// The files that are put into every volume.
fn files() -> [(&'static str, Vec<u8>); 2] {
    let noise = |seed: u32, len: u32| {
        let byte = |n: u32| (n.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8;
        (0..len).map(byte).collect()
    };
    [("one.bin", noise(1, 700_000)), ("two.bin", noise(2, 5000))]
}

/// A disk with one volume.
struct Guest {
    name: &'static str,
    kind: &'static str,
    disk: PathBuf,
    /// Where the volume is.
    start: u64,
    len: u64,
}

/// Writes a volume at 1 MiB behind a table that counts in sectors of 4096 bytes.
fn behind_table(volume: &Path, disk: &Path) -> (u64, u64) {
    let len = fs::metadata(volume).unwrap().len();
    let start = 1u64 << 20;
    let mut mbr = vec![0u8; 4096];
    mbr[446 + 4] = 7;
    mbr[446 + 8..][..4].copy_from_slice(&((start / 4096) as u32).to_le_bytes());
    mbr[446 + 12..][..4].copy_from_slice(&((len / 4096) as u32).to_le_bytes());
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut file = fs::File::create(disk).unwrap();
    file.write_all(&mbr).unwrap();
    file.seek(SeekFrom::Start(start)).unwrap();
    file.write_all(&fs::read(volume).unwrap()).unwrap();
    file.set_len(start + len + (1 << 20)).unwrap();
    (start, len)
}

fn ntfs(dir: &Path, name: &str, sector: &str) -> PathBuf {
    let image = dir.join(name);
    fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    tools::run(
        "mkntfs",
        ["-F", "-q", "-s", sector, "-c", "4096", text(&image)],
    )
    .unwrap();
    for (name, _) in files() {
        tools::run("ntfscp", [text(&image), text(&dir.join(name)), name]).unwrap();
    }
    image
}

fn fat(dir: &Path, name: &str, sector: &str) -> PathBuf {
    let image = dir.join(name);
    fs::File::create(&image).unwrap().set_len(40 << 20).unwrap();
    tools::run("mkfs.fat", ["-S", sector, text(&image)]).unwrap();
    for (name, _) in files() {
        let to = format!("::{name}");
        tools::run("mcopy", ["-i", text(&image), text(&dir.join(name)), &to]).unwrap();
    }
    image
}

fn guests(dir: &Path) -> Vec<Guest> {
    let root = dir.join("root");
    fs::create_dir(&root).unwrap();
    for (name, bytes) in files() {
        fs::write(dir.join(name), &bytes).unwrap();
        fs::write(root.join(name), &bytes).unwrap();
    }
    let whole = |name, kind, disk: PathBuf| Guest {
        name,
        kind,
        len: fs::metadata(&disk).unwrap().len(),
        disk,
        start: 0,
    };
    let ext = dir.join("ext.img");
    fs::File::create(&ext).unwrap().set_len(24 << 20).unwrap();
    tools::run(
        "mke2fs",
        ["-q", "-F", "-t", "ext4", "-d", text(&root), text(&ext)],
    )
    .unwrap();
    let four = |name, kind, volume: PathBuf| {
        let disk = dir.join(format!("{kind}-4kn.img"));
        let (start, len) = behind_table(&volume, &disk);
        Guest {
            name,
            kind,
            disk,
            start,
            len,
        }
    };
    vec![
        whole("NTFS", "ntfs", ntfs(dir, "ntfs.img", "512")),
        whole("FAT", "fat", fat(dir, "fat.img", "512")),
        whole("ext4", "ext", ext),
        four(
            "NTFS in sectors of 4096",
            "ntfs",
            ntfs(dir, "ntfs4.img", "4096"),
        ),
        four(
            "FAT in sectors of 4096",
            "fat",
            fat(dir, "fat4.img", "4096"),
        ),
    ]
}

/// What the file system's own tools say of a volume, and the files that they read there.
fn others_agree(kind: &str, volume: &Path, name: &str) {
    let image = text(volume);
    let checks: &[&[&str]] = match kind {
        "ntfs" => &[&["ntfsinfo", "-m", image], &["ntfsfix", "-n", image]],
        "fat" => &[&["fsck.fat", "-n", image]],
        _ => &[&["e2fsck", "-f", "-n", image]],
    };
    for check in checks {
        let said = tools::run(check[0], &check[1..]);
        said.unwrap_or_else(|e| panic!("{name}: {e:#}"));
    }
    for (file, bytes) in files() {
        let (to, cat) = (format!("::{file}"), format!("cat /{file}"));
        let read: [&str; 4] = match kind {
            "ntfs" => ["ntfscat", "-f", image, file],
            "fat" => ["mtype", "-i", image, &to],
            _ => ["debugfs", "-R", &cat, image],
        };
        let found = tools::run(read[0], &read[1..]).unwrap();
        assert!(found.stdout == bytes, "{name}: {file} differs");
    }
}

/// How an image is made, under which name others open it, and what is broken in it.
type Broken = (&'static [&'static str], &'static str, fn(&mut Vec<u8>));

const BROKEN: &[Broken] = &[
    (&["vmdk", "--subformat", "monolithicSparse"], "vmdk", |b| {
        // The second grain directory.
        let rgd = u64::from_le_bytes(b[48..56].try_into().unwrap()) as usize * 512;
        b[rgd..rgd + 4].fill(0xff);
    }),
    (
        &[
            "vmdk",
            "--subformat",
            "streamOptimized",
            "--stream-layout",
            "footer",
        ],
        "vmdk",
        // The footer is cut off.
        |b| b.truncate(b.len() - 1024),
    ),
    (&["vhd"], "vpc", |b| {
        let footer = b.len() - 512;
        b[footer..].fill(0);
    }),
    (&["vhdx"], "vhdx", |b| b[0x1_0000..0x1_0200].fill(0)),
    (&["qcow2"], "qcow2", |b| b.extend([7u8; 65_536])),
    (&["vdi"], "vdi", |b| b[0x184] ^= 1),
];

#[test]
fn file_systems_in_a_mended_copy_are_sound_for_their_own_tools() {
    let programs = [
        "qemu-img", "mkntfs", "ntfscp", "ntfsinfo", "ntfsfix", "ntfscat", "mkfs.fat", "mcopy",
        "mtype", "fsck.fat", "mke2fs", "e2fsck", "debugfs",
    ];
    if !tools::have(&programs) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for guest in guests(dir.path()) {
        for (to, format, damage) in BROKEN {
            let name = format!("{} in {to:?}", guest.name);
            let (disk, out, raw) = (at("disk.img"), at("mended.img"), at("mended.raw"));
            let args = ["convert", text(&guest.disk), text(&disk), "--force", "--to"];
            let done = vmdkit(&[&args, *to].concat());
            assert!(done.status.success(), "{name}: {done:?}");
            // Before anything is broken, nothing is found.
            let found = vmdkit(&["check", "--guests", "--json", text(&disk)]);
            let report: Value = serde_json::from_slice(&found.stdout).unwrap();
            assert_eq!(report["findings"], serde_json::json!([]), "{name}");
            let mut bytes = fs::read(&disk).unwrap();
            damage(&mut bytes);
            fs::write(&disk, bytes).unwrap();
            let (complete, lost) = mend(&disk, &out).unwrap();
            // Whether something stood behind the last grain that is left of a stream cannot be
            // told.
            let cut = to.contains(&"streamOptimized");
            let last = lost.iter().all(|(_, len)| cut && *len > 0) && lost.len() <= 1;
            assert!(complete || last, "{name}: {lost:?}");
            let out = text(&out);
            // It has no check of these.
            if *format != "vpc" {
                let done = tools::run("qemu-img", ["check", "-f", format, out]);
                done.unwrap_or_else(|e| panic!("{name}: {e:#}"));
            }
            tools::run(
                "qemu-img",
                ["convert", "-f", format, "-O", "raw", out, text(&raw)],
            )
            .unwrap();
            let mut whole = fs::File::open(&raw).unwrap();
            whole.seek(SeekFrom::Start(guest.start)).unwrap();
            let mut volume = vec![0; guest.len as usize];
            whole.read_exact(&mut volume).unwrap();
            let cut = at("volume.img");
            fs::write(&cut, volume).unwrap();
            others_agree(guest.kind, &cut, &name);
        }
    }
}

/// The guest's disk as others read it from an image.
fn read_by_others(image: &Path, raw: &Path, format: &str) -> Vec<u8> {
    let args = ["convert", "-f", format, "-O", "raw", text(image), text(raw)];
    tools::run("qemu-img", args).unwrap();
    fs::read(raw).unwrap()
}

/// Every planted fault of a format that others read: what is mended is the disk, but for what is
/// said to be lost.
#[test]
fn planted_damage_is_mended_for_others() {
    if !tools::have(&["qemu-img"]) {
        return;
    }
    let groups = [
        ("VMDK: hosted sparse", "vmdk"),
        ("VMDK: streamOptimized", "vmdk"),
        ("VMDK: embedded descriptors", "vmdk"),
        ("qcow2", "qcow2"),
        ("VHD", "vpc"),
        ("VHDX", "vhdx"),
        ("VDI", "vdi"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for (wanted, format) in groups {
        let (mut whole, mut partly) = (0, 0);
        let all = damages::all().filter(|(group, _)| *group == wanted);
        for (_, damage) in all.filter(|(_, d)| tools::have(d.base.programs)) {
            let mut made = damage.base.files();
            (damage.plant)(&mut made);
            let place = tempfile::tempdir_in(dir.path()).unwrap();
            for (name, bytes) in &made.files {
                bytes.write(&place.path().join(name)).unwrap();
            }
            // Named as the format wants it.
            let out = place.path().join(format!("mended-{}", made.open));
            let Some((complete, lost)) = mend(&place.path().join(&made.open), &out) else {
                continue;
            };
            // A delta is read with what it stands on; these are tested where that is.
            if made.files.len() > 1 {
                continue;
            }
            if format != "vpc" {
                let check = tools::run("qemu-img", ["check", "-f", format, text(&out)]);
                if let Err(e) = check {
                    wrong.push(format!("{wanted}: {}: {e:#}", damage.name));
                    continue;
                }
            }
            let raw = read_by_others(&out, &place.path().join("raw"), format);
            let sound = &guest().bytes;
            let inside = |at: u64| lost.iter().any(|(o, l)| (*o..o + l).contains(&at));
            let same = |(n, (a, b)): (usize, (&[u8], &[u8]))| a == b || inside(n as u64 * 512);
            let pairs = raw.chunks(512).zip(sound.chunks(512)).enumerate();
            let first = pairs.map(|p| (p.0, same(p))).find(|(_, same)| !same);
            if let Some((sector, _)) = first.filter(|_| raw.len() >= sound.len()) {
                wrong.push(format!(
                    "{wanted}: {}: sector {sector} differs",
                    damage.name
                ));
            }
            if raw.len() < sound.len() {
                wrong.push(format!("{wanted}: {}: {} bytes", damage.name, raw.len()));
            }
            if complete {
                whole += 1;
            } else {
                partly += 1;
            }
        }
        told.push(format!("{wanted}: {whole} whole, {partly} with losses"));
        assert!(whole > 0, "{wanted}: nothing was mended whole");
    }
    println!("{}", told.join("\n"));
    assert!(
        wrong.is_empty(),
        "{}\n{}",
        wrong.join("\n"),
        told.join("\n")
    );
}
