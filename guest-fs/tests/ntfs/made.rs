//! Volumes that ntfs-3g fills, read by us and by ntfs-3g: every name, byte, size and time.

use crate::{
    support::{digest, open_at, sha, walk},
    tools::{Mounted, Volume, have, noise, run, set_attr, text},
};
use disk_io::RunKind;
use guest_fs::{FileSystem, Name, NodeKind, ntfs::Ntfs};
use std::{
    ffi::OsStr,
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, symlink},
    },
    path::Path,
};

/// Follows a path from the root.
fn find(fs: &dyn FileSystem, path: &[u8]) -> Option<guest_fs::NodeId> {
    path.split(|b| *b == b'/')
        .filter(|c| !c.is_empty())
        .try_fold(fs.root(), |dir, c| {
            fs.lookup(dir, &Name::from_bytes(c)).unwrap()
        })
}

/// Compares everything that ntfs-3g shows with what we show.
fn compare(ours: &Ntfs, theirs: &Mounted) -> usize {
    let walk = walk(ours, 1 << 30);
    assert!(walk.errors.is_empty(), "{:?}", walk.errors);
    let mut count = 0;
    let mut todo = vec![theirs.at.clone()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = &path.as_os_str().as_bytes()[theirs.at.as_os_str().len()..];
            let shown = String::from_utf8_lossy(name);
            let meta = fs::symlink_metadata(&path).unwrap();
            let seen = walk
                .seen
                .get(name)
                .unwrap_or_else(|| panic!("{shown}: not seen"));
            let m = &seen.metadata;
            count += 1;
            assert_eq!(find(ours, name), Some(m.node), "{shown}: lookup");
            assert_eq!(m.node.record, meta.ino(), "{shown}: record");
            if !meta.is_dir() {
                // ntfs-3g counts an 8.3 name as a link.
                let short = u64::from(seen.short_name.is_some());
                assert_eq!(u64::from(m.links) + short, meta.nlink(), "{shown}: links");
            }
            let ns = |t: Option<guest_fs::Timestamp>| t.map(|t| (t.seconds, i64::from(t.nanos)));
            assert_eq!(
                ns(m.modified),
                Some((meta.mtime(), meta.mtime_nsec())),
                "{shown}: mtime"
            );
            assert_eq!(
                ns(m.changed),
                Some((meta.ctime(), meta.ctime_nsec())),
                "{shown}: ctime"
            );
            if meta.is_dir() {
                assert_eq!(m.kind, NodeKind::Directory, "{shown}");
                todo.push(path);
            } else if meta.is_symlink() {
                assert_eq!(m.kind, NodeKind::Symlink, "{shown}");
                let link = ours.read_link(m.node).unwrap();
                let target = fs::read_link(&path).unwrap();
                assert_eq!(link.target.as_os_str(), target.as_os_str(), "{shown}");
            } else if meta.is_file() {
                assert_eq!(m.size, meta.len(), "{shown}: size");
                let contents = seen
                    .contents
                    .as_ref()
                    .unwrap_or_else(|e| panic!("{shown}: {e}"));
                assert_eq!(*contents, sha(&fs::read(&path).unwrap()), "{shown}: bytes");
                let disk = ours.open(m.node, None).unwrap();
                if disk.len() < 1 << 20 {
                    disk_io::conformance::check_rules(&*disk);
                }
            } else {
                assert_eq!(m.kind, NodeKind::Special, "{shown}");
            }
        }
    }
    assert_eq!(
        count,
        walk.seen.len(),
        "we list names that ntfs-3g does not"
    );
    count
}

/// Fills a volume with what tends to go wrong.
fn fill(at: &Path, many: usize) {
    fs::create_dir_all(at.join("deep/er/still")).unwrap();
    fs::write(at.join("deep/er/still/resident.txt"), b"small").unwrap();
    fs::write(at.join("empty"), b"").unwrap();
    let dir = at.join("many");
    fs::create_dir(&dir).unwrap();
    for i in 0..many {
        let name = format!(
            "file number {} with a long name {i:05}.txt",
            i * 7919 % many
        );
        fs::write(dir.join(name), format!("I am {i}")).unwrap();
    }
    // A file with holes at both ends and in the middle.
    let mut f = fs::File::create(at.join("sparse")).unwrap();
    f.seek(SeekFrom::Start(1 << 20)).unwrap();
    f.write_all(&noise(1, 70_000)).unwrap();
    f.seek(SeekFrom::Start(3 << 20)).unwrap();
    f.write_all(&noise(2, 5)).unwrap();
    f.set_len(4 << 20).unwrap();
    drop(f);
    fs::hard_link(at.join("sparse"), at.join("deep/also sparse")).unwrap();
    // Two files that grow in turns: fragments.
    let a = fs::File::create(at.join("frag-a")).unwrap();
    let b = fs::File::create(at.join("frag-b")).unwrap();
    for i in 0..60u64 {
        a.write_at(&noise(i, 9000), i * 9000).unwrap();
        b.write_at(&noise(i + 100, 5000), i * 5000).unwrap();
    }
    drop((a, b));
    symlink("deep/er", at.join("link")).unwrap();
    // Names: twins, combining, an emoji, an unpaired surrogate.
    fs::write(at.join("Twin"), b"upper").unwrap();
    fs::write(at.join("twin"), b"lower").unwrap();
    fs::write(at.join("Grüße é 😀"), b"text").unwrap();
    fs::write(
        at.join(OsStr::from_bytes(b"half \xed\xa0\x80")),
        b"surrogate",
    )
    .unwrap();
    fs::write(at.join("streams"), b"main").unwrap();
    set_attr(&at.join("streams"), "user.first", b"one");
    set_attr(&at.join("streams"), "user.second", &noise(9, 20_000));
    set_attr(&at.join("many"), "user.of dir", b"dir stream");
    fs::write(at.join("A Long Name.text"), b"short too").unwrap();
    set_attr(
        &at.join("A Long Name.text"),
        "system.ntfs_dos_name",
        b"ALONGN~1.TEX",
    );
}

fn check_geometry(size: u64, args: &[&str], many: usize) {
    let Some(volume) = Volume::make(size, args) else {
        return;
    };
    let mounted = volume.mount("streams_interface=xattr");
    fill(&mounted.at, many);
    drop(mounted);
    let ours = open_at(&volume.image, 0, None).unwrap();
    let mounted = volume.mount("ro");
    let count = compare(&ours, &mounted);
    assert_eq!(count, many + 17, "{args:?}");

    let info = ours.info();
    assert_eq!(info.label, Some("made".into()));
    assert_eq!(
        (info.dirty, info.version.as_deref()),
        (Some(false), Some("3.1"))
    );
    assert_eq!(info.remarks, Vec::<String>::new());
    let stat = run("stat", ["-f", "-c", "%f %S", mounted.at.to_str().unwrap()]);
    let stat: Vec<u64> = String::from_utf8(stat)
        .unwrap()
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let clusters = info.size / u64::from(info.cluster_size);
    assert_eq!(
        info.used.unwrap() / u64::from(info.cluster_size),
        clusters - stat[0]
    );

    // Streams, by exact and folded name.
    let node = find(&ours, b"streams").unwrap();
    let mut streams: Vec<_> = ours
        .streams(node)
        .unwrap()
        .into_iter()
        .map(|s| (s.name, s.size))
        .collect();
    streams.sort();
    assert_eq!(streams, [("first".into(), 3), ("second".into(), 20_000)]);
    let second = ours.open(node, Some(&"SECOND".into())).unwrap();
    disk_io::conformance::check(&*second, &noise(9, 20_000));
    assert!(ours.open(node, Some(&"third".into())).is_err());
    let dir = find(&ours, b"many").unwrap();
    assert_eq!(ours.streams(dir).unwrap().len(), 1);

    // Case: exact first, each twin reachable; folded elsewhere; 8.3 resolved, not listed.
    let twin = |n: &[u8]| digest(&*ours.open(find(&ours, n).unwrap(), None).unwrap()).unwrap();
    assert_eq!(twin(b"Twin"), sha(b"upper"));
    assert_eq!(twin(b"twin"), sha(b"lower"));
    assert!(find(&ours, b"TWIN").is_some());
    assert_eq!(twin(b"DEEP/Er/STILL/resident.TXT"), sha(b"small"));
    assert_eq!(
        twin("GRÜSSE É 😀".replace("SS", "ß").as_bytes()),
        sha(b"text")
    );
    assert_eq!(twin(b"alongn~1.tex"), sha(b"short too"));
    assert_eq!(find(&ours, b"many/nothing"), None);
    let seen = walk(&ours, 0).seen;
    assert_eq!(
        seen[&b"/A Long Name.text"[..]].short_name,
        Some("ALONGN~1.TEX".into())
    );
    assert!(!seen.contains_key(&b"/ALONGN~1.TEX"[..]));

    // Hard links by name, and holes as runs.
    let node = find(&ours, b"sparse").unwrap();
    let mut names: Vec<_> = ours.names(node).unwrap().into_iter().map(|n| n.1).collect();
    names.sort();
    assert_eq!(names, ["also sparse".into(), "sparse".into()]);
    let disk = ours.open(node, None).unwrap();
    let run = disk.run_at(0).unwrap();
    if info.cluster_size <= 65_536 {
        assert_eq!((run.kind, run.len), (RunKind::Unallocated, 1 << 20));
    }
    let stored: u64 = ours
        .extents(node, None)
        .unwrap()
        .iter()
        .filter(|e| e.place.is_some())
        .map(|e| e.len)
        .sum();
    assert!(stored < 2 << 20 || info.cluster_size > 1 << 20, "{stored}");

    // Metafiles: there, but not in listings; no unnamed data is size 0.
    let meta = ours.metafiles();
    let secure = meta.iter().find(|e| e.name == "$Secure".into()).unwrap();
    assert_eq!(ours.metadata(secure.node).unwrap().size, 0);
    assert_eq!(ours.open(secure.node, None).unwrap().len(), 0);
    let boot = meta.iter().find(|e| e.name == "$Boot".into()).unwrap();
    let mut first = [0; 512];
    ours.open(boot.node, None)
        .unwrap()
        .read_exact_at(&mut first, 0)
        .unwrap();
    assert_eq!(&first[3..11], b"NTFS    ", "cluster 0 is no hole");
    for entry in &meta {
        let disk = ours.open(entry.node, None).unwrap();
        if disk.len() < 64 << 20 {
            digest(&*disk).unwrap_or_else(|e| panic!("{:?}: {e}", entry.name));
        }
    }
}

#[test]
fn clusters_of_512() {
    check_geometry(24 << 20, &["-c", "512"], 300);
}

#[test]
fn clusters_of_4096_and_sectors_of_4096() {
    check_geometry(32 << 20, &["-c", "4096", "-s", "4096"], 300);
}

#[test]
fn clusters_larger_than_index_blocks() {
    check_geometry(96 << 20, &["-c", "65536"], 400);
}

#[test]
fn clusters_of_2_mib() {
    check_geometry(1 << 30, &["-c", "2097152"], 200);
}

#[test]
fn a_thousand_fragments_over_many_records() {
    let Some(volume) = Volume::make(16 << 20, &["-c", "512"]) else {
        return;
    };
    let mounted = volume.mount("rw");
    let at = &mounted.at;
    // Fill the volume, free every second piece, then put one file, one directory and many
    // file records into the gaps.
    let mut made = 0;
    while fs::write(at.join(format!("filler{made:05}")), noise(made, 2100)).is_ok() && made < 6000 {
        made += 1;
    }
    // Emptied, not deleted: their records stay taken, so the $MFT has to grow too.
    for i in (0..made).step_by(2) {
        let path = at.join(format!("filler{i:05}"));
        let filler = fs::File::options().write(true).open(path).unwrap();
        filler.set_len(0).unwrap();
    }
    let big = noise(77, 300_000);
    fs::write(at.join("big"), &big).unwrap();
    let holes = fs::File::create(at.join("holes")).unwrap();
    for i in 0..1500u64 {
        holes.write_at(&noise(i, 512), i * 1024).unwrap();
    }
    drop(holes);
    fs::create_dir(at.join("dir")).unwrap();
    for i in 0..2600 {
        let name = format!("dir/{i:04} {}", "and a name that is quite long, ".repeat(5));
        if fs::write(at.join(name), b"").is_err() {
            break;
        }
    }
    drop(mounted);
    let ours = open_at(&volume.image, 0, None).unwrap();
    let mft = ours.extents(guest_fs::NodeId::plain(0), None).unwrap();
    println!("the $MFT has {} pieces", mft.len());
    let lists = |path: &str| {
        let image = volume.image.to_str().unwrap();
        let out = run("ntfsinfo", ["-f", "-v", "-F", path, image]);
        String::from_utf8_lossy(&out).contains("Dumping attribute $ATTRIBUTE_LIST (0x20)")
    };
    assert!(lists("/holes"), "the file fits its record");
    assert!(lists("/dir"), "the directory fits its record");
    assert!(lists("/$MFT"), "the $MFT fits its record");
    let mounted = volume.mount("ro");
    compare(&ours, &mounted);
    let node = find(&ours, b"big").unwrap();
    let disk = ours.open(node, None).unwrap();
    disk_io::conformance::check(&*disk, &big);
    let node = find(&ours, b"holes").unwrap();
    assert_eq!(ours.extents(node, None).unwrap().len(), 2999);
}

#[test]
fn bytes_that_were_never_written_are_zeros() {
    let Some(volume) = Volume::make(32 << 20, &[]) else {
        return;
    };
    if !have(&["ntfsfallocate"]) {
        return;
    }
    let mounted = volume.mount("rw");
    // What must not shine through.
    fs::write(mounted.at.join("secret"), vec![0xee; 8 << 20]).unwrap();
    fs::write(mounted.at.join("file"), noise(3, 5000)).unwrap();
    fs::remove_file(mounted.at.join("secret")).unwrap();
    drop(mounted);
    run(
        "ntfsfallocate",
        [
            "-f",
            "-l",
            "9000000",
            volume.image.to_str().unwrap(),
            "/file",
        ],
    );
    let ours = open_at(&volume.image, 0, None).unwrap();
    let mut expected = noise(3, 5000);
    expected.resize(9_000_000, 0);
    let disk = ours.open(find(&ours, b"file").unwrap(), None).unwrap();
    disk_io::conformance::check(&*disk, &expected);
    let run = disk.run_at(5000).unwrap();
    assert_eq!((run.kind, run.len), (RunKind::Zero, 9_000_000 - 5000));
    assert_eq!(disk.run_at(0).unwrap().len, 5000);
}

#[test]
fn files_compressed_by_ntfs() {
    for cluster in ["512", "4096"] {
        let Some(volume) = Volume::make(48 << 20, &["-c", cluster]) else {
            return;
        };
        let mounted = volume.mount("compression");
        let dir = mounted.at.join("packed");
        fs::create_dir(&dir).unwrap();
        set_attr(&dir, "system.ntfs_attrib_be", &0x800u32.to_be_bytes());
        let mut mixed = text(1, 300_000);
        mixed.extend(noise(2, 200_000));
        mixed.extend(vec![0; 400_000]);
        mixed.extend(text(3, 123_457));
        let cases = [
            ("text", text(4, 1_000_001)),
            ("noise", noise(5, 300_000)),
            ("zeros", vec![0; 500_000]),
            ("one unit", text(6, 65_536)),
            ("less than a cluster", text(7, 900)),
            ("mixed", mixed),
        ];
        for (name, bytes) in &cases {
            fs::write(dir.join(name), bytes).unwrap();
        }
        let sparse = fs::File::create(dir.join("sparse")).unwrap();
        sparse.write_at(&text(8, 100_000), 1 << 20).unwrap();
        sparse.set_len(2 << 20).unwrap();
        drop((sparse, mounted));
        let ours = open_at(&volume.image, 0, None).unwrap();
        let mounted = volume.mount("ro");
        compare(&ours, &mounted);
        for (name, bytes) in &cases {
            let node = find(&ours, format!("packed/{name}").as_bytes()).unwrap();
            disk_io::conformance::check(&*ours.open(node, None).unwrap(), bytes);
            if *name == "text" {
                let m = ours.metadata(node).unwrap();
                assert!(m.allocated < m.size / 2, "not compressed: {}", m.allocated);
            }
        }
    }
}

#[test]
fn contents_that_are_elsewhere_are_refused_by_name() {
    let Some(volume) = Volume::make(16 << 20, &[]) else {
        return;
    };
    let mounted = volume.mount("rw");
    let wim: Vec<u8> = [1u32, 1, 0, 0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let cases: [(&str, u32, &[u8], &str); 6] = [
        ("dedup", 0x8000_0013, &[0; 16], "deduplicated"),
        ("sis", 0x8000_0007, &[0; 16], "Single Instance"),
        ("cloud", 0x9000_601a, &[0; 16], "OneDrive"),
        ("wimboot", 0x8000_0017, &wim, "WIM image"),
        ("hsm", 0xc000_0004, &[0; 16], "hierarchical"),
        ("new", 0x8000_7777, &[0; 16], "not known here"),
    ];
    for (name, tag, data, _) in &cases {
        let path = mounted.at.join(name);
        fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let mut value = tag.to_le_bytes().to_vec();
        value.extend((data.len() as u16).to_le_bytes());
        value.extend([0, 0]);
        value.extend(*data);
        set_attr(&path, "system.ntfs_reparse_data", &value);
    }
    drop(mounted);
    let ours = open_at(&volume.image, 0, None).unwrap();
    for (name, tag, _, text) in &cases {
        let node = find(&ours, name.as_bytes()).unwrap();
        let m = ours.metadata(node).unwrap();
        assert_eq!(m.reparse_tag, Some(*tag));
        let refusal = m.refusal.unwrap_or_else(|| panic!("{name} is not refused"));
        assert!(refusal.to_string().contains(text), "{refusal}");
        let error = ours.open(node, None).unwrap_err();
        assert_eq!(error.to_string(), refusal.to_string());
        assert_eq!(error.kind(), disk_io::ErrorKind::Unsupported);
    }
}

/// Reads an attribute as hexadecimal.
fn attr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let out = std::process::Command::new("getfattr")
        .args(["-h", "-e", "hex", "--only-values", "-n", name])
        .arg(path)
        .output()
        .unwrap();
    out.status.success().then_some(out.stdout)
}

#[test]
fn security_attributes_and_ids_as_ntfs_3g_shows_them() {
    let Some(volume) = Volume::make(16 << 20, &[]) else {
        return;
    };
    if !have(&["getfattr"]) {
        return;
    }
    let mounted = volume.mount("permissions");
    // Many owners and modes make many descriptors.
    for i in 0..150u32 {
        let path = mounted.at.join(format!("f{i}"));
        fs::write(&path, b"x").unwrap();
        std::os::unix::fs::chown(&path, Some(1000 + i), Some(2000 + i / 3)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600 | (i % 64));
        fs::set_permissions(&path, mode).unwrap();
    }
    let path = mounted.at.join("f7");
    let mut ea = Vec::new();
    ea.extend(20u32.to_le_bytes());
    ea.extend([0, 6, 4, 0]);
    ea.extend(b"$LXMOD\0\xa4\x81\0\0\0");
    set_attr(&path, "system.ntfs_ea", &ea);
    set_attr(&path, "system.ntfs_object_id", &noise(1, 16));
    drop(mounted);
    let ours = open_at(&volume.image, 0, None).unwrap();
    let mounted = volume.mount("ro,permissions");
    let mut texts = std::collections::BTreeSet::new();
    for i in 0..150 {
        let name = format!("f{i}");
        let node = find(&ours, name.as_bytes()).unwrap();
        let security = ours.security(node).unwrap().unwrap();
        let theirs = attr(&mounted.at.join(&name), "system.ntfs_acl").unwrap();
        assert_eq!(security.raw, theirs, "{name}");
        assert!(security.sddl.starts_with("O:S-1-5-"), "{}", security.sddl);
        assert!(security.sddl.contains("D:"), "{}", security.sddl);
        texts.insert(security.sddl);
    }
    assert!(texts.len() > 100);
    let root = ours.security(ours.root()).unwrap().unwrap();
    println!("root: {}", root.sddl);
    assert_eq!(root.raw, attr(&mounted.at, "system.ntfs_acl").unwrap());
    let node = find(&ours, b"f7").unwrap();
    assert_eq!(
        ours.xattrs(node).unwrap(),
        [("$LXMOD".into(), vec![0xa4, 0x81, 0, 0])]
    );
    assert_eq!(ours.object_id(node).unwrap().unwrap()[..], noise(1, 16));
    assert_eq!(ours.object_id(find(&ours, b"f8").unwrap()).unwrap(), None);
}

#[test]
fn a_scan_finds_what_a_walk_finds() {
    let Some(volume) = Volume::make(32 << 20, &[]) else {
        return;
    };
    let mounted = volume.mount("rw");
    fill(&mounted.at, 500);
    drop(mounted);
    let ours = open_at(&volume.image, 0, None).unwrap();
    let walk = walk(&ours, 0);
    let mut found = std::collections::BTreeMap::new();
    assert!(
        ours.scan(&mut |f| {
            let f = f.unwrap();
            found.insert(f.metadata.node, f);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap()
    );
    // Paths by climbing to the root.
    let path_of = |mut dir: guest_fs::NodeId, name: &Name| {
        let mut path = name.as_bytes().to_vec();
        while dir != ours.root() {
            let (parent, name) = &found[&dir].names[0];
            path = [name.as_bytes(), b"/", &path].concat();
            dir = *parent;
        }
        [b"/", &path[..]].concat()
    };
    let mut seen = std::collections::BTreeMap::new();
    for f in found.values() {
        for (parent, name) in &f.names {
            seen.insert(path_of(*parent, name), format!("{:?}", f.metadata));
        }
    }
    let walked = walk
        .seen
        .into_iter()
        .map(|(p, s)| (p, format!("{:?}", s.metadata)));
    assert_eq!(seen, walked.collect());
}

#[test]
fn deleted_files_are_found_and_never_give_bytes_of_others() {
    let Some(volume) = Volume::make(16 << 20, &[]) else {
        return;
    };
    let mounted = volume.mount("rw");
    let dir = mounted.at.join("dir");
    fs::create_dir(&dir).unwrap();
    let bytes = noise(1, 200_000);
    fs::write(dir.join("whole"), &bytes).unwrap();
    fs::write(dir.join("small"), b"in its record").unwrap();
    fs::write(dir.join("stays"), b"stays").unwrap();
    drop(mounted);
    let mounted = volume.mount("rw");
    fs::remove_file(dir.join("whole")).unwrap();
    fs::remove_file(dir.join("small")).unwrap();
    drop(mounted);
    let look = || {
        let ours = open_at(&volume.image, 0, None).unwrap();
        let mut found = Vec::new();
        ours.deleted(&mut |f| {
            let f = f.unwrap();
            found.push((f.names[0].1.to_string(), f));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        (ours, found)
    };
    let (ours, found) = look();
    let names: Vec<_> = found.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["whole", "small"]);
    let whole = &found[0].1;
    assert_eq!(whole.metadata.size, 200_000);
    assert_eq!(whole.names[0].0, find(&ours, b"dir").unwrap());
    assert!(whole.metadata.node.record < 1 << 48);
    let disk = ours.open(whole.metadata.node, None).unwrap();
    disk_io::conformance::check(&*disk, &bytes);
    // Under its plain number it is not to be had.
    let plain = guest_fs::NodeId {
        record: whole.metadata.node.record & !(1 << 47),
        ..whole.metadata.node
    };
    assert!(ours.open(plain, None).is_err());
    assert!(ours.metadata(plain).is_err());
    assert!(find(&ours, b"dir/whole").is_none());
    drop(ours);

    // Fill the volume: the clusters go to others, the record may not.
    let before = fs::read(&volume.image).unwrap();
    let mounted = volume.mount("rw");
    let mut filler = fs::File::create(dir.join("filler")).unwrap();
    while filler.write_all(&[0xaa; 65_536]).is_ok() {}
    drop((filler, mounted));
    // The file's old record back in place, as if it had not been reused.
    let after = fs::read(&volume.image).unwrap();
    let (ours, found) = look();
    assert_ne!(before, after);
    for (name, f) in &found {
        if f.metadata.size == 200_000 {
            let disk = ours.open(f.metadata.node, None).unwrap();
            let e = digest(&*disk).unwrap_err();
            assert!(
                e.to_string().contains("belong to another file"),
                "{name}: {e}"
            );
        }
    }
}
