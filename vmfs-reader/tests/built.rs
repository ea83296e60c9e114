//! Volumes made by the builder: read back by this crate and by other people's readers.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{Disk, MemDisk, SparseMemDisk, conformance};
use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};
use support::*;
use vmfs_reader::{
    FileKind, OpenOptions, Uuid, Volume,
    build::{Builder, FileSpec, Provision},
};

/// Contents that say where they are: every 512 bytes begin with their offset and a name.
fn marked(name: &str, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while (out.len() as u64) < len {
        let mut sector = vec![b'.'; 512];
        let text = format!("{name} {}\n", out.len());
        sector[..text.len()].copy_from_slice(text.as_bytes());
        out.extend(sector);
    }
    out.truncate(len as usize);
    out
}

/// A file with a few marked pieces; the rest is holes.
fn pieces(name: &str, len: u64, at: &[u64]) -> Arc<dyn Disk> {
    let mut disk = SparseMemDisk::new(len);
    for from in at {
        disk.put(
            *from,
            &marked(&format!("{name}@{from}"), (len - from).min(70_000)),
        );
    }
    Arc::new(disk)
}

fn spec(provision: Provision, gap: u64) -> FileSpec {
    FileSpec {
        provision,
        gap,
        ..FileSpec::default()
    }
}

const MIB: u64 = 1 << 20;

/// One of everything. Gives the contents by path too.
fn everything(mut b: Builder) -> (Builder, BTreeMap<String, Arc<dyn Disk>>) {
    let mut files: Vec<(&str, Arc<dyn Disk>, FileSpec)> = Vec::new();
    for len in [0u64, 1, 1024, 1025, 3584, 3585, 8192, 8193, 65536, 65537] {
        let name: &str = format!("small/{len}").leak();
        files.push((
            name,
            Arc::new(MemDisk::new(marked(name, len))),
            spec(Provision::Small, 0),
        ));
    }
    let thick = marked("thick", 5 * MIB + 777);
    files.push((
        "vm/thick.vmdk",
        Arc::new(MemDisk::new(thick)),
        spec(Provision::Thick, 0),
    ));
    let thick = marked("pieces", 5 * MIB + 777);
    files.push((
        "vm/pieces.vmdk",
        Arc::new(MemDisk::new(thick)),
        spec(Provision::Thick, 1),
    ));
    let leading = pieces("leading", 64 * MIB, &[40 * MIB, 63 * MIB]);
    files.push(("vm/leading-hole.vmdk", leading, spec(Provision::Thin, 0)));
    let lazy = pieces("lazy", 6 * MIB, &[0, 3 * MIB + 5]);
    files.push(("vm/lazy.vmdk", lazy, spec(Provision::LazyZeroed, 0)));
    let single = pieces(
        "single",
        70 << 30,
        &[0, 300 * MIB, 42 << 30, (70 << 30) - 512],
    );
    files.push(("vm/single.vmdk", single, spec(Provision::Thin, 2)));
    let near = pieces("near", 400 * MIB, &[0, 299 * MIB, 350 * MIB]);
    files.push(("vm/near.vmdk", near, spec(Provision::Thin, 0)));
    let double = pieces(
        "double",
        42 << 40,
        &[1 << 20, 117 << 30, 7 << 40, (42 << 40) - 512],
    );
    files.push(("vm/double.vmdk", double, spec(Provision::Thin, 0)));
    files.push((
        "vm/empty-flat.vmdk",
        Arc::new(SparseMemDisk::new(100 << 30)),
        spec(Provision::Thin, 0),
    ));
    let mut contents = BTreeMap::new();
    for (path, disk, spec) in files {
        contents.insert(path.to_owned(), disk.clone());
        b.file(path, disk, spec);
    }
    for i in 0..3000 {
        let path = format!("many/file number {i}");
        let text = format!("I am {i}");
        contents.insert(
            path.clone(),
            Arc::new(MemDisk::new(text.clone())) as Arc<dyn Disk>,
        );
        b.bytes(&path, text.as_bytes());
    }
    b.symlink("vm/link", "thick.vmdk");
    b.rdm("vm/raw-rdm.vmdk", 7 << 40);
    (b, contents)
}

/// Compares where either of two disks has data, and the ends.
fn same(ours: &dyn Disk, theirs: &dyn Disk, name: &str) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let len = ours.len();
    for (at, n) in data_runs(ours).into_iter().chain(data_runs(theirs)) {
        let (mut a, mut b) = (vec![0; n as usize], vec![1; n as usize]);
        ours.read_exact_at(&mut a, at)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        theirs.read_exact_at(&mut b, at).unwrap();
        assert!(a == b, "{name} differs in {n} bytes at {at}");
    }
    conformance::check_rules(ours);
    if len < 8 * MIB {
        let mut b = vec![1; len as usize];
        theirs.read_exact_at(&mut b, 0).unwrap();
        conformance::check(ours, &b);
    }
}

fn check(volume: &Volume, contents: &BTreeMap<String, Arc<dyn Disk>>) {
    let found = tree(volume);
    for (path, disk) in contents {
        let file = volume.open_file(found[&format!("/{path}")]).unwrap();
        same(&file, disk, path);
    }
    let user = |p: &&String| !p.ends_with(".sf") && *p != "/";
    // The files, four directories, a link, a device map.
    assert_eq!(found.keys().filter(user).count(), contents.len() + 3 + 2);
    let link = found["/vm/link"];
    assert_eq!(volume.read_link(link).unwrap(), b"thick.vmdk");
    assert_eq!(
        volume.stat(found["/vm/raw-rdm.vmdk"]).unwrap().kind,
        FileKind::Rdm
    );
    assert_eq!(volume.warnings(), &[] as &[String]);
    let mut findings = Vec::new();
    volume.check(&mut |f| findings.push(f)).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
    let usage = volume.usage().unwrap().unwrap();
    assert!(
        usage.free > 0 && usage.used + usage.free == volume.size(),
        "{usage:?}"
    );
}

#[test]
fn reads_back_what_was_made() {
    for b in [Builder::five("five"), Builder::six("six")] {
        for (units, lvm) in [(vec![6], true), (vec![2, 1, 3], true), (vec![6], false)] {
            let fresh = if format!("{b:?}").contains("six: true") {
                Builder::six("six")
            } else {
                Builder::five("five")
            };
            let (b, contents) = everything(fresh.devices(&units));
            let b = if lvm { b } else { b.without_lvm() };
            let mut disks = b.disks();
            for disk in &disks {
                conformance::check_rules(disk);
            }
            disks.reverse();
            check(&open(&disks), &contents);
        }
    }
}

#[test]
fn locks_and_heartbeats() {
    let host = Uuid([7; 16]);
    let mut b = Builder::six("locks");
    let alive = b.heartbeat(host, 42);
    let held = FileSpec {
        lock: Some((alive, 1)),
        ..FileSpec::default()
    };
    b.file("held", Arc::new(MemDisk::new("x")), held);
    b.bytes("free", b"y");
    let volume = open(&b.disks());
    let find = |name: &[u8]| volume.lookup(volume.root(), name).unwrap().unwrap().address;
    let state = volume.lock_state(find(b"held")).unwrap();
    assert!(state.lock.is_held() && state.lock.owner == host);
    assert_eq!(state.alive.len(), 1);
    assert_eq!(state.alive[0].address, "192.0.2.7");
    let state = volume.lock_state(find(b"free")).unwrap();
    assert!(!state.lock.is_held() && state.alive.is_empty());
}

/// Runs a reader on devices; `None` if it is not installed.
fn run(command: &mut Command) -> Option<Vec<u8>> {
    match command.output() {
        Ok(out) if out.status.success() => Some(out.stdout),
        Ok(out) => panic!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)),
        Err(e) => {
            skip("peers", &format!("{command:?}: {e}"));
            None
        }
    }
}

fn write(b: &Builder, dir: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for (i, device) in b.build().iter().enumerate() {
        let path = dir.join(format!("dev{i}"));
        device.write_to(&path).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
    }
    paths
}

/// Mounts a volume with a FUSE reader, compares every file, unmounts.
fn mounted(tool: &str, devices: &[String], contents: &BTreeMap<String, Arc<dyn Disk>>) {
    let dir = tempfile::tempdir().unwrap();
    let result = Command::new(tool).args(devices).arg(dir.path()).output();
    let out = match result {
        Ok(out) => out,
        Err(e) => return skip("peers", &format!("{tool}: {e}")),
    };
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            why.contains("fuse"),
            "{tool} does not read the volume: {why}"
        );
        return skip("fuse", &format!("{tool}: {why}"));
    }
    let unmount = || {
        let _ = Command::new("fusermount")
            .arg("-u")
            .arg(dir.path())
            .output();
    };
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for (path, disk) in contents {
            let file = dir.path().join(path);
            let len = std::fs::metadata(&file)
                .unwrap_or_else(|e| panic!("{path}: {e}"))
                .len();
            assert_eq!(len, disk.len(), "{tool}: {path}");
            let opened = std::fs::File::open(&file).unwrap();
            for (at, n) in data_runs(disk) {
                use std::os::unix::fs::FileExt;
                let (mut a, mut b) = (vec![0; n as usize], vec![1; n as usize]);
                opened
                    .read_exact_at(&mut a, at)
                    .unwrap_or_else(|e| panic!("{path}: {e}"));
                disk.read_exact_at(&mut b, at).unwrap();
                assert!(a == b, "{tool}: {path} at {at}");
            }
        }
    }));
    unmount();
    if let Err(e) = checked {
        std::panic::resume_unwind(e);
    }
}

#[test]
fn vmfs_tools_read_what_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let (b, mut contents) = everything(Builder::five("made5").devices(&[3, 3]));
    let devices = write(&b, dir.path());
    // vmfs-tools returns zeros for files with two levels of pointer blocks.
    contents.remove("vm/double.vmdk");
    mounted("vmfs-fuse", &devices, &contents);
    let mut cat = Command::new("debugvmfs");
    cat.args(&devices).args(["cat", "/vm/thick.vmdk"]);
    if let Some(out) = run(&mut cat) {
        assert!(
            out == marked("thick", 5 * MIB + 777),
            "debugvmfs cat differs"
        );
    }
}

#[test]
fn vmfs6_tools_read_what_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let (b, mut contents) = everything(Builder::six("made6").devices(&[3, 3]));
    let devices = write(&b, dir.path());
    // vmfs6-tools returns zeros for thin files with long holes; dissect.vmfs does not.
    let wrong = ["leading-hole", "single", "double"].map(|n| format!("vm/{n}.vmdk"));
    contents.retain(|name, _| !wrong.contains(name));
    mounted("vmfs6-fuse", &devices, &contents);
}

/// A program for dissect.vmfs: the hash of every part of files as `path offset length`.
const DISSECT: &str = r#"
import sys, hashlib
from dissect.vmfs import LVM, VMFS
parts = sys.argv[1].split(",")
if sys.argv[2] == "lvm":
    lvm = LVM([open(p, "rb") for p in parts])
    fh = lvm.volumes[0]
    fh = fh.open() if hasattr(fh, "open") else fh
else:
    fh = open(parts[0], "rb")
fs = VMFS(fh)
for line in sys.stdin:
    path, at, n = line.rstrip("\n").split("\t")
    node = fs.get(path)
    f = node.open()
    f.seek(int(at))
    print(node.size, hashlib.sha256(f.read(int(n))).hexdigest())
"#;

#[test]
fn dissect_reads_what_was_made() {
    use sha2::{Digest, Sha256};
    use std::{io::Write, process::Stdio};
    let Some(python) = std::env::var_os("VMDKIT_DISSECT_PYTHON") else {
        return skip(
            "dissect",
            "VMDKIT_DISSECT_PYTHON names no Python with dissect.vmfs",
        );
    };
    for b in [Builder::five("five"), Builder::six("six")] {
        let dir = tempfile::tempdir().unwrap();
        let (b, contents) = everything(b.devices(&[3, 3]));
        let devices = write(&b, dir.path()).join(",");
        let mut child = Command::new(&python)
            .args(["-c", DISSECT, &devices, "lvm"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = String::new();
        let mut wanted = String::new();
        // It is slow: a few of the many files are enough.
        let some = |p: &&String| !p.starts_with("many/") || p.ends_with("77");
        for path in contents.keys().filter(some) {
            let disk = &contents[path];
            for (at, n) in data_runs(disk) {
                input += &format!("{path}\t{at}\t{n}\n");
                let mut buf = vec![0; n as usize];
                disk.read_exact_at(&mut buf, at).unwrap();
                wanted += &format!("{} {}\n", disk.len(), hex(&Sha256::digest(&buf)));
            }
        }
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(out.status.success());
        assert_eq!(String::from_utf8(out.stdout).unwrap(), wanted);
    }
}

#[test]
fn other_block_sizes() {
    for size in [512 << 10, 2 * MIB, 4 * MIB, 8 * MIB] {
        let (b, contents) = everything(Builder::five("blocks").block_size(size).devices(&[16]));
        check(
            &Volume::open(&b.disks(), &OpenOptions::default()).unwrap(),
            &contents,
        );
    }
}
