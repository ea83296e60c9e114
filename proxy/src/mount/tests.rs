//! The mount as programs see it. Needs /dev/fuse; skips visibly without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::{
    SourceSpec, TreeOptions,
    mock::{MockFs, odd_volume, pattern, tree},
    own::{Own, OwnTree},
    source::Source,
};
use disk_io::{Disk, ErrorKind};
use guest_fs::{Name, NodeKind};
use rustix::fs::{SeekFrom, seek, statvfs};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    ops::ControlFlow,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    process::{Command, Stdio},
    time::Instant,
};

/// A mount in a directory of its own; unmounted before the directory goes.
struct Here {
    mounted: Option<Mounted>,
    tree: Arc<Tree>,
    place: tempfile::TempDir,
}

impl Here {
    fn new(tree: Tree, options: &MountOptions) -> Option<Self> {
        if !available() {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let tree = Arc::new(tree);
        let mounted = mount(tree.clone(), place.path(), options).unwrap();
        Some(Self {
            mounted: Some(mounted),
            tree,
            place,
        })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place.path().join(path)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        drop(self.mounted.take());
    }
}

fn available() -> bool {
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    let required = std::env::var("VMDKIT_REQUIRE").is_ok_and(|r| r.split(',').any(|r| r == "fuse"));
    match device {
        Ok(_) => true,
        Err(e) if required => {
            panic!("VMDKIT_REQUIRE has fuse, and /dev/fuse cannot be opened: {e}")
        }
        Err(e) => {
            eprintln!("skipped: /dev/fuse cannot be opened: {e}");
            false
        }
    }
}

fn odd() -> Tree {
    tree(vec![odd_volume(), MockFs::new()], TreeOptions::default())
}

fn os_error<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

const EIO: i32 = 5;
const ENOTCONN: i32 = 107;

/// Everything below `dir` of the mount is what the tree says, and nothing else is there.
fn compare(here: &Here, dir: &Path, node: crate::Node, seen: &mut usize) {
    let mut expected = Vec::new();
    let mut lost = false;
    let listed = here.tree.read_dir(node, &mut |entry| {
        match entry {
            Ok(entry) => expected.push(entry),
            Err(_) => lost = true,
        }
        ControlFlow::Continue(())
    });
    if let Err(e) = listed {
        let code = os_error(fs::read_dir(dir));
        assert_eq!(code, errno::errno(e.kind()).code(), "{}", dir.display());
        return;
    }
    let mut names = BTreeSet::new();
    let mut failed = None;
    for entry in fs::read_dir(dir).unwrap() {
        match entry {
            Ok(entry) => assert!(names.insert(entry.file_name()), "a name twice"),
            Err(e) => {
                failed = e.raw_os_error();
                break;
            }
        }
    }
    assert_eq!(failed.is_some(), lost, "{}", dir.display());
    let all: BTreeSet<_> = expected
        .iter()
        .map(|e| e.name.as_os_str().to_owned())
        .collect();
    assert_eq!(names, all, "{}", dir.display());
    for entry in expected {
        *seen += 1;
        let path = dir.join(entry.name.as_os_str());
        let metadata = match here.tree.metadata(entry.node) {
            Ok(metadata) => metadata,
            Err(e) => {
                assert_eq!(
                    os_error(fs::symlink_metadata(&path)),
                    errno::errno(e.kind()).code()
                );
                continue;
            }
        };
        let stat = fs::symlink_metadata(&path).unwrap();
        assert_eq!(stat.ino(), here.tree.inode(entry.node), "{path:?}");
        assert_eq!(stat.nlink(), u64::from(metadata.links), "{path:?}");
        if let Some(modified) = metadata.modified {
            assert_eq!(stat.mtime(), modified.seconds);
            assert_eq!(stat.mtime_nsec(), i64::from(modified.nanos));
            assert_eq!(stat.atime(), metadata.accessed.unwrap().seconds);
            assert_eq!(stat.ctime(), metadata.changed.unwrap().seconds);
        }
        match metadata.kind {
            NodeKind::Directory => {
                assert!(stat.is_dir());
                assert_eq!(stat.mode() & 0o7777, 0o555);
                compare(here, &path, entry.node, seen);
            }
            NodeKind::Symlink => {
                let target = here.tree.read_link(entry.node).unwrap().target;
                assert_eq!(
                    fs::read_link(&path).unwrap().as_os_str(),
                    target.as_os_str()
                );
            }
            _ => {
                assert!(stat.is_file());
                assert_eq!(stat.mode() & 0o7777, 0o444);
                assert_eq!(stat.len(), metadata.size);
                assert!(metadata.size == 0 || stat.blocks() > 0);
                match here.tree.open(entry.node, None) {
                    Ok(disk) => {
                        let mut bytes = vec![0; disk.len() as usize];
                        disk.read_exact_at(&mut bytes, 0).unwrap();
                        assert!(fs::read(&path).unwrap() == bytes, "{path:?}");
                    }
                    Err(e) => assert_eq!(
                        os_error(File::open(&path)),
                        errno::errno(e.kind()).code(),
                        "{path:?}"
                    ),
                }
            }
        }
    }
}

#[test]
fn the_mount_is_the_tree() {
    for direct_io in [false, true] {
        let options = MountOptions {
            direct_io,
            ..MountOptions::default()
        };
        let Some(here) = Here::new(odd(), &options) else {
            return;
        };
        let mut seen = 0;
        compare(&here, here.place.path(), here.tree.root(), &mut seen);
        assert!(seen > 35, "{seen}");
        // And again, from the kernel's caches.
        compare(&here, here.place.path(), here.tree.root(), &mut seen);
        assert_eq!(fs::symlink_metadata(here.place.path()).unwrap().ino(), 1);
    }
}

#[test]
fn names_fold_twins_do_not_and_what_is_not_there_is_not() {
    let Some(here) = Here::new(odd(), &MountOptions::default()) else {
        return;
    };
    assert_eq!(fs::read(here.at("p1/Users/Bob/A.TXT")).unwrap(), b"twin");
    assert_eq!(fs::read(here.at("p1/Users/Bob/a.txt")).unwrap(), b"hello");
    assert_eq!(fs::read(here.at("p1/Users/Bob/EMPTY")).unwrap(), b"");
    assert_eq!(fs::read(here.at("p1/users/bob/a.txt")).unwrap(), b"hello");
    for _ in 0..2 {
        let e = fs::metadata(here.at("p1/Users/nobody")).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
    }
    assert_eq!(
        fs::read(here.at("p1/Users/relative")).unwrap(),
        b"hello",
        "a relative link leads somewhere"
    );
}

#[test]
fn nothing_can_be_written() {
    let Some(here) = Here::new(odd(), &MountOptions::default()) else {
        return;
    };
    const EROFS: i32 = 30;
    let file = here.at("p1/Users/Bob/a.txt");
    let open = |o: &mut fs::OpenOptions| o.open(&file);
    assert_eq!(os_error(open(fs::OpenOptions::new().write(true))), EROFS);
    assert_eq!(os_error(File::create(here.at("p1/new"))), EROFS);
    assert_eq!(os_error(fs::remove_file(&file)), EROFS);
    assert_eq!(os_error(fs::rename(&file, here.at("p1/x"))), EROFS);
    assert_eq!(os_error(fs::create_dir(here.at("p1/d"))), EROFS);
}

#[test]
fn owner_and_mode_follow_the_options() {
    let options = MountOptions {
        uid: Some(1234),
        gid: Some(77),
        umask: 0o027,
        ..MountOptions::default()
    };
    let Some(here) = Here::new(odd(), &options) else {
        return;
    };
    let file = fs::metadata(here.at("p1/Users/Bob/a.txt")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1234, 77));
    assert_eq!(file.mode() & 0o7777, 0o440);
    assert_eq!(fs::metadata(here.at("p1")).unwrap().mode() & 0o7777, 0o550);
}

#[test]
fn a_directory_larger_than_any_buffer() {
    let mut fs = MockFs::new();
    fs.file(0, "not shown", b"");
    let big = fs.dir(0, "big");
    const COUNT: usize = 150_000;
    for i in 0..COUNT {
        fs.file(big, format!("file number {i:06}"), b"");
    }
    let Some(here) = Here::new(
        tree(vec![fs], TreeOptions::default()),
        &MountOptions::default(),
    ) else {
        return;
    };
    for _ in 0..2 {
        let names: BTreeSet<_> = std::fs::read_dir(here.at("p1/big"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), COUNT);
        assert!(names.contains(std::ffi::OsStr::new("file number 149999")));
    }
    // `find` counts on d_type, `ls -U` on stat: both see everything.
    let find = Command::new("find")
        .arg(here.at("p1/big"))
        .args(["-type", "f", "-name", "*77"])
        .output()
        .unwrap();
    assert_eq!(
        find.stdout.iter().filter(|b| **b == b'\n').count(),
        COUNT / 100
    );
}

#[test]
fn damage_is_told_and_the_rest_is_there() {
    let mut fs = odd_volume();
    let evil = fs.file(0, "panics", b"x");
    fs.panic_on(evil);
    let Some(here) = Here::new(
        tree(vec![fs], TreeOptions::default()),
        &MountOptions::default(),
    ) else {
        return;
    };
    let listed = fs::read_dir(here.at("p1")).unwrap();
    assert!(
        listed
            .map(|e| e.unwrap().file_name())
            .any(|n| n == "panics")
    );
    assert_eq!(os_error(fs::metadata(here.at("p1/panics"))), EIO);
    assert_eq!(
        os_error(fs::metadata(here.at("p1/damaged/bad record"))),
        EIO
    );
    assert_eq!(fs::read(here.at("p1/damaged/good")).unwrap(), b"good");
    let torn: Vec<_> = fs::read_dir(here.at("p1/torn")).unwrap().collect();
    assert_eq!(torn.iter().filter(|e| e.is_ok()).count(), 10);
    assert!(torn.iter().any(|e| e.is_err()), "the loss is not told");
    const EOPNOTSUPP: i32 = 95;
    assert_eq!(os_error(fs::read_dir(here.at("p9"))), EOPNOTSUPP);
    assert_eq!(
        os_error(File::open(here.at("p1/Users/encrypted.doc"))),
        EOPNOTSUPP
    );
}

#[test]
fn a_damaged_name_does_not_harm_the_file() {
    let mut fs = MockFs::new();
    let good = fs.file(0, "good", b"good");
    let dir = fs.dir(0, "dir");
    fs.name(dir, "stale", good);
    let Some(here) = Here::new(
        tree(vec![fs], TreeOptions::default()),
        &MountOptions::default(),
    ) else {
        return;
    };
    let before = fs::metadata(here.at("p1/good")).unwrap().ino();
    let open = File::open(here.at("p1/good")).unwrap();
    let listed = fs::read_dir(here.at("p1/dir")).unwrap();
    let listed: Vec<_> = listed.map(|e| e.unwrap().file_name()).collect();
    assert_eq!(listed, ["stale"]);
    assert_eq!(fs::read(here.at("p1/good")).unwrap(), b"good");
    assert_eq!(open.metadata().unwrap().ino(), before);
}

#[test]
fn holes_are_found() {
    let Some(here) = Here::new(odd(), &MountOptions::default()) else {
        return;
    };
    let file = File::open(here.at("p1/Users/sparse")).unwrap();
    const MIB: u64 = 1 << 20;
    assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), MIB);
    assert_eq!(seek(&file, SeekFrom::Hole(0)).unwrap(), 0);
    assert_eq!(seek(&file, SeekFrom::Hole(MIB)).unwrap(), 2 * MIB);
    assert_eq!(seek(&file, SeekFrom::Data(2 * MIB)).unwrap(), 40 * MIB);
    assert_eq!(
        seek(&file, SeekFrom::Hole(40 * MIB)).unwrap(),
        40 * MIB + 4096
    );
    assert_eq!(
        seek(&file, SeekFrom::Data(41 * MIB)).unwrap_err(),
        rustix::io::Errno::NXIO
    );
    assert_eq!(
        seek(&file, SeekFrom::Hole(64 * MIB)).unwrap_err(),
        rustix::io::Errno::NXIO
    );
    let dense = File::open(here.at("p1/Users/Bob/big")).unwrap();
    assert_eq!(seek(&dense, SeekFrom::Hole(5)).unwrap(), 3_000_001);
}

#[test]
fn room_is_told() {
    let Some(here) = Here::new(odd(), &MountOptions::default()) else {
        return;
    };
    let volume = statvfs(here.at("p1/Users")).unwrap();
    assert_eq!(volume.f_blocks * volume.f_frsize, 1 << 30);
    assert_eq!(
        (volume.f_blocks - volume.f_bfree) * volume.f_frsize,
        1 << 29
    );
    assert_eq!(volume.f_bavail, 0);
    statvfs(here.place.path()).unwrap();
}

#[test]
fn many_readers_at_once() {
    for direct_io in [false, true] {
        let mut fs = MockFs::new();
        let expected = Arc::new(pattern(24 << 20, 3));
        fs.file(0, "not shown", b"");
        fs.file(0, "data", &expected);
        let options = MountOptions {
            direct_io,
            threads: Some(4),
            ..MountOptions::default()
        };
        let Some(here) = Here::new(tree(vec![fs], TreeOptions::default()), &options) else {
            return;
        };
        let path = here.at("p1/data");
        std::thread::scope(|scope| {
            for t in 0..16usize {
                let (path, expected) = (&path, expected.clone());
                scope.spawn(move || {
                    let file = File::open(path).unwrap();
                    let mut buf = vec![0; 1_000_003];
                    for i in 0..24usize {
                        let at = match t % 2 {
                            0 => (i * 1_000_003) % expected.len(),
                            _ => (i * 7_919_771 + t * 104_729) % expected.len(),
                        };
                        let n = buf.len().min(expected.len() - at);
                        file.read_exact_at(&mut buf[..n], at as u64).unwrap();
                        assert!(buf[..n] == expected[at..at + n]);
                    }
                });
            }
        });
    }
}

#[test]
fn a_busy_mount_says_so_and_can_be_detached() {
    let Some(mut here) = Here::new(odd(), &MountOptions::default()) else {
        return;
    };
    let mut file = File::open(here.at("p1/Users/Bob/big")).unwrap();
    let e = umount::umount(here.place.path(), false).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
    let begin = Instant::now();
    here.mounted.take().unwrap().unmount().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert!(table::at(&here.place.path().canonicalize().unwrap()).is_none());
    // Whoever has it open goes on reading while this process lives.
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == pattern(3_000_001, 1));
    let e = umount::umount(here.place.path(), false).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
}

#[test]
fn where_nothing_can_be_mounted() {
    if !available() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let tree = Arc::new(odd());
    let try_at = |dir: &Path| mount(tree.clone(), dir, &MountOptions::default()).unwrap_err();
    let e = try_at(&place.path().join("missing"));
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("mkdir"), "{e}");
    let file = place.path().join("file");
    File::create(&file).unwrap();
    assert_eq!(try_at(&file).kind(), ErrorKind::Refused);
    // Not empty: allowed, and said.
    let mounted = mount(tree.clone(), place.path(), &MountOptions::default()).unwrap();
    assert!(mounted.warnings().iter().any(|w| w.contains("not empty")));
    let e = try_at(place.path());
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.to_string().contains("nothing is mounted"), "{e}");
    mounted.unmount().unwrap();
    assert!(file.exists());
    // A mount of somebody else is not ours to take away.
    let e = umount::umount(Path::new("/proc"), false).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
}

#[test]
fn a_source_that_shrinks_gives_an_error_and_no_hang() {
    if !available() {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let image = files.path().join("disk.raw");
    let bytes = pattern(8 << 20, 9);
    fs::write(&image, &bytes).unwrap();
    let allowed = disk_io::host_dir::Allowed::default();
    let opened = disk_io::HostDir::open_source(&image, &allowed).unwrap();
    let tree = Tree::empty(TreeOptions::default());
    tree.own.add(
        OwnTree::ROOT,
        &Name::from("disk.img"),
        Own::file(opened.disk),
    );
    let here = Here::new(tree, &MountOptions::default()).unwrap();
    let file = File::open(here.at("disk.img")).unwrap();
    let mut buf = vec![0; 65_536];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == bytes[..65_536]);
    fs::OpenOptions::new()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let begin = Instant::now();
    assert_eq!(os_error(file.read_exact_at(&mut buf, 6 << 20)), EIO);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_raw_layout_is_the_disk() {
    if !available() {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let image = files.path().join("disk.raw");
    let mut file = File::create(&image).unwrap();
    let head = pattern(1 << 20, 2);
    file.write_all(&head).unwrap();
    file.set_len(32 << 20).unwrap();
    let spec = SourceSpec {
        path: image.clone(),
        format: Some(disk_image::Format::Raw),
        ..SourceSpec::default()
    };
    let source = Arc::new(Source::open(&spec).unwrap());
    let tree = Tree::new(source, TreeOptions::default()).unwrap();
    let options = MountOptions {
        layout: Layout::Raw,
        ..MountOptions::default()
    };
    let here = Here::new(tree, &options).unwrap();
    let disk = here.at("disk.img");
    assert!(fs::read(&disk).unwrap() == fs::read(&image).unwrap());
    let stat = fs::metadata(&disk).unwrap();
    assert_eq!(stat.len(), 32 << 20);
    assert!(
        stat.blocks() * 512 < 2 << 20,
        "holes are not counted: {}",
        stat.blocks()
    );
    // `cp` copies the hole structure.
    let copy = files.path().join("copy");
    let status = Command::new("cp").args([&disk, &copy]).status().unwrap();
    assert!(status.success());
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 2 << 20);
    let name = table::at(&here.place.path().canonicalize().unwrap()).unwrap();
    assert!(name.source.as_bytes().ends_with(b"disk.raw"), "{name:?}");
}

/// Not a test of its own: the process that the next test starts and ends.
#[test]
fn child_that_serves() {
    let Some(dir) = std::env::var_os("VMDKIT_TEST_SERVE") else {
        return;
    };
    if std::env::var_os("VMDKIT_TEST_CLEANUP").is_some() {
        for done in umount::cleanup() {
            println!("cleaned {} {:?}", done.dir.display(), done.error);
        }
        return;
    }
    let confined = std::env::var_os("VMDKIT_TEST_SANDBOX").is_some();
    let options = MountOptions {
        signals: true,
        sandbox: confined.then(|| Sandbox {
            read: Vec::new(),
            detach: Detach::new(|_| Err(DiskError::refused("unmounting"))),
        }),
        ..MountOptions::default()
    };
    let mounted = mount(Arc::new(odd()), Path::new(&dir), &options).unwrap();
    let ended = mounted.serve().unwrap();
    println!("ended {ended:?}");
}

fn child(dir: &Path, runtime: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "mount::tests::child_that_serves", "--nocapture"])
        .env("VMDKIT_TEST_SERVE", dir)
        .env("XDG_RUNTIME_DIR", runtime)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

fn wait_for_ready(child: &mut std::process::Child, dir: &Path) {
    let begin = Instant::now();
    while table::at(dir).is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended early");
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read(dir.join("p1/Users/Bob/a.txt")).unwrap(), b"hello");
}

#[test]
fn signals_and_sudden_death_leave_nothing_behind() {
    if !available() {
        return;
    }
    use rustix::process::{Pid, Signal, kill_process};
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("mount point");
    let runtime = place.path().join("runtime");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&runtime).unwrap();
    let dir = dir.canonicalize().unwrap();
    let states = || fs::read_dir(runtime.join("vmdkit")).map_or(0, |d| d.count());
    let pid = |c: &std::process::Child| Pid::from_raw(c.id() as i32).unwrap();

    // Asked to end, with a file open.
    for signal in [Signal::TERM, Signal::INT] {
        let mut serving = child(&dir, &runtime).spawn().unwrap();
        wait_for_ready(&mut serving, &dir);
        let open = File::open(dir.join("p1/Users/Bob/big")).unwrap();
        assert_eq!(states(), 1);
        kill_process(pid(&serving), signal).unwrap();
        let output = serving.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("ended Signal"), "{text}");
        assert!(table::at(&dir).is_none(), "still mounted");
        assert_eq!(states(), 0);
        let mut buf = vec![0; 4096];
        assert_eq!(os_error(open.read_at(&mut buf, 2 << 20)), ENOTCONN);
    }

    // Unmounted by somebody: the process ends by itself.
    let mut serving = child(&dir, &runtime).spawn().unwrap();
    wait_for_ready(&mut serving, &dir);
    umount::umount(&dir, false).unwrap();
    let output = serving.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ended Unmounted"), "{text}");
    assert_eq!(states(), 0);

    // Killed: `umount` works on what is left, and a new mount says what to do.
    let mut serving = child(&dir, &runtime).spawn().unwrap();
    wait_for_ready(&mut serving, &dir);
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert_eq!(os_error(fs::metadata(&dir)), ENOTCONN);
    let e = mount(Arc::new(odd()), &dir, &MountOptions::default()).unwrap_err();
    assert!(e.to_string().contains("vmdkit umount"), "{e}");
    umount::umount(&dir, false).unwrap();
    assert!(fs::metadata(&dir).is_ok());

    // Killed, and cleaned up by another process that knows only the state files.
    let mut serving = child(&dir, &runtime).spawn().unwrap();
    wait_for_ready(&mut serving, &dir);
    serving.kill().unwrap();
    serving.wait().unwrap();
    let output = child(&dir, &runtime)
        .env("VMDKIT_TEST_CLEANUP", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains(&format!("cleaned {} None", dir.display())),
        "{text}"
    );
    assert!(fs::metadata(&dir).is_ok());
    assert_eq!(states(), 0, "{text}");
}

/// Also the one that waits for signals, which are caught from before the mount on.
#[test]
fn every_thread_is_confined() {
    if !available() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().canonicalize().unwrap().join("mnt");
    let runtime = place.path().join("runtime");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&runtime).unwrap();
    let mut serving = child(&dir, &runtime)
        .env("VMDKIT_TEST_SANDBOX", "1")
        .spawn()
        .unwrap();
    wait_for_ready(&mut serving, &dir);
    let first = serving.id().to_string();
    let status = |thread: fs::DirEntry| {
        let thread = thread.path();
        let name = fs::read_to_string(thread.join("comm")).unwrap();
        let status = fs::read_to_string(thread.join("status")).unwrap();
        (name.trim_end().to_owned(), status)
    };
    let all = || {
        let threads = fs::read_dir(format!("/proc/{}/task", serving.id())).unwrap();
        let threads = threads
            .map(|t| t.unwrap())
            // The one that waits for the test to end was there before, and serves nothing.
            .filter(|t| t.file_name() != first.as_str());
        threads.map(status).collect::<Vec<_>>()
    };
    // A thread gives itself its name, some time after it began.
    let mut threads = all();
    for _ in 0..500 {
        if threads.iter().any(|(name, _)| name == "signals") {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        threads = all();
    }
    umount::umount(&dir, false).unwrap();
    let output = serving.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ended Unmounted"), "{text}");
    assert!(threads.len() >= 4, "{threads:?}");
    assert!(threads.iter().any(|(name, _)| name == "signals"));
    for (name, status) in threads {
        assert!(status.contains("Seccomp:\t2"), "{name}: {status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{name}: {status}");
    }
}

#[test]
fn an_idle_mount_goes_and_one_in_use_stays() {
    let options = MountOptions {
        idle: Some(Duration::from_millis(300)),
        ..MountOptions::default()
    };
    let Some(mut here) = Here::new(odd(), &options) else {
        return;
    };
    let file = File::open(here.at("p1/Users/Bob/a.txt")).unwrap();
    let mounted = here.mounted.take().unwrap();
    let began = Instant::now();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        drop(file);
    });
    assert_eq!(mounted.serve().unwrap(), Ended::Idle);
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    holder.join().unwrap();
    assert!(table::at(here.place.path()).is_none());
}

#[test]
fn every_opening_is_told() {
    let seen: Arc<Mutex<Vec<Opening>>> = Arc::default();
    let told = seen.clone();
    let options = MountOptions {
        audit: Some(Audit::new(move |o: &Opening| {
            told.lock().unwrap().push(o.clone());
        })),
        ..MountOptions::default()
    };
    let Some(here) = Here::new(odd(), &options) else {
        return;
    };
    fs::read(here.at("p1/Users/Bob/a.txt")).unwrap();
    fs::read_dir(here.at("p1/Users")).unwrap().count();
    let seen = seen.lock().unwrap();
    let me = rustix::process::getuid().as_raw();
    let find = |path: &str, directory: bool| {
        seen.iter()
            .any(|o| o.path == Name::from(path) && o.directory == directory && o.uid == me)
    };
    assert!(find("/p1/Users/Bob/a.txt", false), "{seen:?}");
    assert!(find("/p1/Users", true), "{seen:?}");
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A day in a moment: readers come every minute of a clock that is moved on, some files stay open
/// for hours, the kernel forgets what it knew; then nobody comes any more.
#[test]
fn a_day_of_readers_leaves_nothing_behind() {
    const MINUTE: u64 = 60_000;
    let now = Arc::new(AtomicU64::new(0));
    let clock = {
        let now = now.clone();
        Clock::new(move || Duration::from_millis(now.load(Ordering::Relaxed)))
    };
    let mut fs = MockFs::new();
    let mut data = Vec::new();
    for n in 0..200u32 {
        data.push(pattern(1000 + n as usize * 997, u64::from(n)));
        fs.file(0, format!("file {n}"), &data[n as usize]);
    }
    let options = MountOptions {
        idle: Some(Duration::from_secs(2 * 3600)),
        clock: Some(clock),
        ..MountOptions::default()
    };
    let Some(mut here) = Here::new(tree(vec![fs], TreeOptions::default()), &options) else {
        return;
    };
    let mounted = here.mounted.take().unwrap();
    let open_now = mounted.activity.clone();
    let server = std::thread::spawn(move || mounted.serve());
    // Forgetting is asked for where that is allowed; without it, entries only pile up.
    let forget = || drop(fs::write("/proc/sys/vm/drop_caches", "2"));
    let mut kept: std::collections::VecDeque<File> = Default::default();
    let mut after_an_hour = 0;
    for minute in 0..24 * 60u64 {
        now.fetch_add(MINUTE, Ordering::Relaxed);
        let n = (minute * 7919 % 200) as usize;
        let path = here.at(&format!("p1/file {n}"));
        let file = File::open(&path).unwrap();
        let mut read = vec![0; data[n].len() / 2];
        let from = data[n].len() - read.len();
        file.read_exact_at(&mut read, from as u64).unwrap();
        assert!(read == data[n][from..], "minute {minute}");
        if minute % 30 == 0 {
            assert_eq!(fs::read_dir(here.at("p1")).unwrap().count(), 200);
            kept.push_back(file);
        }
        if kept.len() > 8 {
            kept.pop_front();
        }
        if minute % 240 == 0 {
            forget();
        }
        if minute == 60 {
            after_an_hour = resident();
        }
    }
    // Other tests of this process have memory too, for a while.
    let mut grown = resident().saturating_sub(after_an_hour);
    for _ in 0..200 {
        if grown < 24 << 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        grown = grown.min(resident().saturating_sub(after_an_hour));
    }
    assert!(grown < 24 << 20, "{grown} bytes more after a day");
    // Open files keep it, however quiet it is.
    now.fetch_add(3 * 60 * MINUTE, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!server.is_finished());
    kept.clear();
    // Closing is told to the server a moment later, and is itself something that was asked.
    let begin = Instant::now();
    while open_now.held.load(Ordering::Relaxed) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "lost handles");
        std::thread::sleep(Duration::from_millis(5));
    }
    now.fetch_add(3 * 60 * MINUTE, Ordering::Relaxed);
    assert_eq!(server.join().unwrap().unwrap(), Ended::Idle);
    assert!(table::at(here.place.path()).is_none());
}
