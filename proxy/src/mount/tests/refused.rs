//! What cannot be read, written or mounted.

use super::*;

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
