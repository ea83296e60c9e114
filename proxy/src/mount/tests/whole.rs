//! What the tree is, the mount is.

use super::*;

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
