use super::*;
use crate::progress::Progress;
use disk_io::{Disk, DiskError, MemDisk, Result, SparseMemDisk};
use guest_fs::{Link, Metadata, Name, NodeId, NodeKind, Stream, Timestamp};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A guest in memory. Node 0 is the root directory.
#[derive(Default)]
struct Guest {
    nodes: Vec<Object>,
}

struct Object {
    kind: NodeKind,
    contents: Arc<dyn Disk>,
    children: Vec<(Name, u64)>,
    streams: BTreeMap<Name, Vec<u8>>,
    target: Name,
    links: u32,
    refusal: Option<DiskError>,
    seconds: i64,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    panics: bool,
    loses_streams: bool,
}

impl Object {
    fn new(kind: NodeKind) -> Self {
        Self {
            kind,
            contents: Arc::new(MemDisk::new(Vec::new())),
            children: Vec::new(),
            streams: BTreeMap::new(),
            target: Name::default(),
            links: 1,
            refusal: None,
            seconds: 1_000_000_000,
            mode: None,
            owner: None,
            panics: false,
            loses_streams: false,
        }
    }
}

impl Guest {
    fn new() -> Self {
        Self {
            nodes: vec![Object::new(NodeKind::Directory)],
        }
    }

    fn add(&mut self, dir: u64, name: impl AsRef<[u8]>, object: Object) -> u64 {
        let number = self.nodes.len() as u64;
        self.nodes.push(object);
        self.name(dir, name, number);
        number
    }

    fn name(&mut self, dir: u64, name: impl AsRef<[u8]>, number: u64) {
        let name = Name::from_bytes(name.as_ref());
        self.nodes[dir as usize].children.push((name, number));
    }

    fn dir(&mut self, dir: u64, name: impl AsRef<[u8]>) -> u64 {
        self.add(dir, name, Object::new(NodeKind::Directory))
    }

    fn file(&mut self, dir: u64, name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> u64 {
        let mut object = Object::new(NodeKind::File);
        object.contents = Arc::new(MemDisk::new(bytes.as_ref()));
        self.add(dir, name, object)
    }

    fn at(&mut self, node: u64) -> &mut Object {
        &mut self.nodes[node as usize]
    }
}

impl Source for Guest {
    type Node = u64;

    fn metadata(&self, node: u64) -> Result<Metadata> {
        let object = &self.nodes[node as usize];
        assert!(!object.panics, "a test's own panic");
        Ok(Metadata {
            size: object.contents.len(),
            links: object.links,
            modified: Some(Timestamp::from_unix(object.seconds, 123_456_700)),
            mode: object.mode,
            owner: object.owner,
            refusal: object.refusal.clone(),
            ..Metadata::new(NodeId::plain(node), object.kind)
        })
    }

    fn read_dir(
        &self,
        node: u64,
        visit: &mut dyn FnMut(Result<Entry<u64>>) -> ControlFlow<()>,
    ) -> Result<()> {
        for (name, node) in &self.nodes[node as usize].children {
            let kind = self.nodes[*node as usize].kind;
            let entry = Entry {
                name: name.clone(),
                node: *node,
                kind,
            };
            if visit(Ok(entry)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn directory(&self, node: u64) -> u64 {
        node
    }

    fn open(&self, node: u64, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        let object = &self.nodes[node as usize];
        match stream {
            None => Ok(object.contents.clone()),
            Some(name) => Ok(Arc::new(MemDisk::new(object.streams[name].clone()))),
        }
    }

    fn streams(&self, node: u64) -> Result<Vec<Stream>> {
        if self.nodes[node as usize].loses_streams {
            return Err(DiskError::corrupt("reading the list of streams"));
        }
        let streams = self.nodes[node as usize].streams.iter();
        Ok(streams
            .map(|(name, bytes)| Stream {
                name: name.clone(),
                size: bytes.len() as u64,
                allocated: 0,
            })
            .collect())
    }

    fn read_link(&self, node: u64) -> Result<Link> {
        let target = self.nodes[node as usize].target.clone();
        Ok(Link {
            sort: "symlink",
            stored: target.clone(),
            target,
        })
    }
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    pieces: AtomicUsize,
    stop_after: Option<usize>,
}

impl Progress for Log {
    fn advance(&self, _bytes: u64) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.stop_after
            .is_some_and(|n| self.pieces.load(Ordering::Relaxed) >= n)
    }
}

impl Observer for Log {
    fn event(&self, event: Event<'_>) {
        let name = |p: &[u8]| Name::from_bytes(p).to_string();
        let line = match event {
            Event::Restored { path, bytes } => format!("restored {} {bytes}", name(path)),
            Event::Skipped { path, reason } => format!("skipped {}: {reason}", name(path)),
            Event::Failed { path, error } => format!("failed {}: {error}", name(path)),
            Event::Doubtful { path, why } => format!("doubtful {}: {why}", name(path)),
            Event::Renamed { path, name: n } => format!("renamed {}: {}", name(path), name(n)),
        };
        self.lines.lock().unwrap().push(line);
    }
}

impl Log {
    fn lines(&self, begin: &str) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap().clone();
        lines.retain(|l| l.starts_with(begin));
        lines.sort();
        lines
    }
}

fn run(guest: &Guest, dest: &Path, options: &Options) -> (Summary, Log) {
    let log = Log::default();
    let options = Options {
        recursive: true,
        ..options.clone()
    };
    let (summary, result) = restore(guest, dest, &[whole()], &options, &log);
    result.unwrap();
    (summary, log)
}

fn whole() -> Item<u64> {
    Item {
        path: b"/".to_vec(),
        node: 0,
        to: Vec::new(),
    }
}

/// Every name below `dir`, with what it is.
fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, top: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_symlink() {
                out.push(format!("{name} -> {}", path.read_link().unwrap().display()));
            } else if meta.is_dir() {
                out.push(format!("{name}/"));
                walk(&path, top, out);
            } else {
                out.push(name);
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    out.sort();
    out
}

#[test]
fn a_tree_with_times_links_and_holes() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    guest.dir(a, "empty");
    let x = guest.file(a, "x", b"contents of x");
    guest.at(x).links = 2;
    let deep = guest.dir(a, "deep");
    guest.name(deep, "twin of x", x);
    let mut link = Object::new(NodeKind::Symlink);
    link.target = Name::from("../../outside");
    guest.add(deep, "link", link);
    let mut holes = SparseMemDisk::new(10 << 20);
    holes.put(5 << 20, b"middle");
    let mut object = Object::new(NodeKind::File);
    object.contents = Arc::new(holes);
    guest.add(0, "holes", object);
    guest.at(deep).seconds = 1_111_111_111;

    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &Options::default());
    assert_eq!(log.lines("failed"), [""; 0]);
    assert_eq!(
        tree(dir.path()),
        [
            "a/",
            "a/deep/",
            "a/deep/link -> ../../outside",
            "a/deep/twin of x",
            "a/empty/",
            "a/x",
            "holes"
        ]
    );
    assert_eq!(fs::read(dir.path().join("a/x")).unwrap(), b"contents of x");
    let stat = |p: &str| dir.path().join(p).symlink_metadata().unwrap();
    assert_eq!(stat("a/x").ino(), stat("a/deep/twin of x").ino());
    for (path, seconds) in [
        ("a", 1_000_000_000),
        ("a/x", 1_000_000_000),
        ("a/deep", 1_111_111_111),
        ("a/deep/link", 1_000_000_000),
    ] {
        let m = stat(path);
        assert_eq!(
            (m.mtime(), m.mtime_nsec()),
            (seconds, 123_456_700),
            "{path}"
        );
    }
    let m = stat("holes");
    assert_eq!(m.len(), 10 << 20);
    assert!(m.blocks() * 512 <= 1 << 20, "{} blocks", m.blocks());
    assert_eq!(
        (summary.files, summary.directories, summary.symlinks),
        (3, 3, 1)
    );
    assert_eq!(summary.bytes, 13 + (10 << 20));
}

#[test]
fn many_small_files_in_batches() {
    let mut guest = Guest::new();
    for d in 0..20 {
        let dir = guest.dir(0, format!("d{d}"));
        for f in 0..60 {
            guest.file(dir, format!("f{f}"), format!("{d}/{f}"));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (summary, _) = run(&guest, dir.path(), &Options::default());
    assert_eq!(summary.files, 1200);
    assert_eq!(tree(dir.path()).len(), 1220);
    assert_eq!(fs::read(dir.path().join("d7/f33")).unwrap(), b"7/33");
}

#[test]
fn goes_on_after_what_cannot_be_restored() {
    let mut guest = Guest::new();
    guest.file(0, "good", b"1");
    let bad = guest.file(0, "encrypted", b"ciphertext");
    guest.at(bad).refusal = Some(DiskError::unsupported("opening").found("an encrypted file"));
    let torn = guest.file(0, "torn", vec![1; 100_000]);
    let disk = guest.at(torn).contents.clone();
    guest.at(torn).contents = Arc::new(disk_io::faults::FailRange::new(disk, 70_000..70_001));
    guest.add(0, "socket", Object::new(NodeKind::Special));
    let looped = guest.dir(0, "loop");
    guest.name(looped, "again", looped);
    guest.file(looped, "inside", b"2");
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &Options::default());
    assert_eq!(summary.failed, 4, "{:?}", log.lines("failed"));
    assert!(
        log.lines("failed /torn")[0].contains("70000"),
        "{:?}",
        log.lines("failed")
    );
    assert_eq!(tree(dir.path()), ["good", "loop/", "loop/inside"]);
}

#[test]
fn hostile_names_stay_inside() {
    let mut guest = Guest::new();
    for name in ["..", ".", "", "../../escape", "/etc/x", "a\0b"] {
        guest.file(0, name, name.as_bytes());
    }
    guest.file(0, "%2E%2E", b"really called so");
    let up = guest.dir(0, "dir/../..");
    guest.file(up, "f", b"");
    let outer = tempfile::tempdir().unwrap();
    let dest = outer.path().join("dest");
    fs::create_dir(&dest).unwrap();
    let (summary, log) = run(&guest, &dest, &Options::default());
    assert_eq!(
        tree(outer.path())
            .iter()
            .filter(|n| !n.starts_with("dest/"))
            .count(),
        0
    );
    assert_eq!(
        tree(&dest),
        [
            "%",
            "%2E",
            "%2E%2E",
            "%2E%2E~2",
            "%2Fetc%2Fx",
            "..%2F..%2Fescape",
            "a%00b",
            "dir%2F..%2F../",
            "dir%2F..%2F../f"
        ]
    );
    assert_eq!(fs::read(dest.join("%2E%2E")).unwrap(), b"really called so");
    assert_eq!(summary.renamed, 7, "{:?}", log.lines("renamed"));
}

#[test]
fn never_through_a_link_at_the_destination() {
    let mut guest = Guest::new();
    let d = guest.dir(0, "d");
    guest.file(d, "f", b"guest");
    guest.file(0, "g", b"guest");
    let outer = tempfile::tempdir().unwrap();
    let (dest, victim) = (outer.path().join("dest"), outer.path().join("victim"));
    fs::create_dir_all(&victim).unwrap();
    fs::create_dir(&dest).unwrap();
    fs::write(victim.join("g"), b"host").unwrap();
    symlink(&victim, dest.join("d")).unwrap();
    symlink(victim.join("g"), dest.join("g")).unwrap();
    let always = Options {
        overwrite: Overwrite::Always,
        ..Options::default()
    };
    let (summary, log) = run(&guest, &dest, &always);
    assert_eq!(summary.failed, 1, "{:?}", log.lines("failed"));
    assert!(log.lines("failed")[0].contains("not followed"));
    assert_eq!(fs::read(victim.join("g")).unwrap(), b"host");
    assert!(!victim.join("f").exists());
    assert!(!dest.join("g").is_symlink());
    assert_eq!(fs::read(dest.join("g")).unwrap(), b"guest");
    // And a link that the guest itself brings is not entered by its next file.
    let mut guest = Guest::new();
    let mut link = Object::new(NodeKind::Symlink);
    link.target = Name::from("../victim");
    guest.add(0, "e", link);
    let e = guest.dir(0, "e");
    guest.file(e, "planted", b"bad");
    let _ = run(&guest, &dest, &always);
    assert!(!victim.join("planted").exists());
}

#[test]
fn what_exists() {
    let mut guest = Guest::new();
    let f = guest.file(0, "f", b"new");
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("f");
    let with = |overwrite| Options {
        overwrite,
        ..Options::default()
    };
    fs::write(&there, b"old").unwrap();
    let (summary, log) = run(&guest, dir.path(), &with(Overwrite::Never));
    assert_eq!((summary.skipped, summary.files), (1, 0));
    assert_eq!(log.lines("skipped"), ["skipped /f: it exists already"]);
    // Written just now, so newer than the guest's.
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfNewer)).0.skipped,
        1
    );
    assert_eq!(fs::read(&there).unwrap(), b"old");
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfChanged)).0.files,
        1
    );
    assert_eq!(fs::read(&there).unwrap(), b"new");
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfChanged))
            .0
            .skipped,
        1
    );
    guest.at(f).seconds += 1;
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::IfNewer)).0.files,
        1
    );
    assert_eq!(run(&guest, dir.path(), &with(Overwrite::Always)).0.files, 1);
    fs::remove_file(&there).unwrap();
    fs::create_dir(&there).unwrap();
    assert_eq!(
        run(&guest, dir.path(), &with(Overwrite::Always)).0.failed,
        1
    );
    assert_eq!(tree(dir.path()), ["f/"]);
}

#[test]
fn what_is_being_read_and_what_is_no_file_stay() {
    let mut guest = Guest::new();
    for name in ["image", "twin", "link", "pipe", "socket", "other"] {
        guest.file(0, name, b"new");
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("image"), b"the disk").unwrap();
    fs::hard_link(at("image"), at("twin")).unwrap();
    symlink("image", at("link")).unwrap();
    fs::write(at("other"), b"old").unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let options = Options {
        overwrite: Overwrite::Always,
        protected: crate::place::file_ids([at("image").as_path()]),
        ..Options::default()
    };
    let before = tree(dir.path());
    let (summary, log) = run(&guest, dir.path(), &options);
    assert_eq!((summary.failed, summary.files), (5, 1));
    assert_eq!(fs::read(at("image")).unwrap(), b"the disk");
    assert_eq!(fs::read(at("other")).unwrap(), b"new");
    assert_eq!(tree(dir.path()), before);
    let said = log.lines("failed").join("\n");
    for part in [
        "does not consist of",
        "a named pipe",
        "a socket",
        // The destination as the user would name it.
        &at("pipe").display().to_string(),
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn a_replaced_file_keeps_who_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let mut guest = Guest::new();
    guest.file(0, "f", b"new");
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("f");
    fs::write(&there, b"old").unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o600)).unwrap();
    let options = Options {
        overwrite: Overwrite::Always,
        ..Options::default()
    };
    assert_eq!(run(&guest, dir.path(), &options).0.files, 1);
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&there).unwrap(), b"new");
}

#[test]
fn hard_links_over_old_ones() {
    let mut guest = Guest::new();
    let f = guest.file(0, "a", b"x");
    guest.name(0, "b", f);
    guest.at(f).links = 2;
    let always = Options {
        overwrite: Overwrite::Always,
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (summary, _) = run(&guest, dir.path(), &always);
        assert_eq!(summary.files, 2);
        assert_eq!(tree(dir.path()), ["a", "b"]);
    }
    assert_eq!(run(&guest, dir.path(), &Options::default()).0.skipped, 2);
    // The first name cannot be restored: the second is copied by itself.
    fs::remove_file(dir.path().join("a")).unwrap();
    fs::remove_file(dir.path().join("b")).unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let (summary, _) = run(&guest, dir.path(), &always);
    assert_eq!((summary.failed, summary.files), (1, 1));
    assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"x");
}

#[test]
fn only_what_is_wanted() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    guest.file(a, "1.txt", b"1");
    guest.file(a, "2.doc", b"2");
    let b = guest.dir(0, "b");
    guest.file(b, "3.doc", b"3");
    let docs = guest.dir(b, "Documents");
    guest.file(docs, "4.doc", b"4");
    let filter = |include: &[&str], exclude: &[&str]| Options {
        filter: Filter::new(
            &include.iter().map(|s| (*s).into()).collect::<Vec<_>>(),
            &exclude.iter().map(|s| (*s).into()).collect::<Vec<_>>(),
            false,
        )
        .unwrap(),
        ..Options::default()
    };
    let result = |options| {
        let dir = tempfile::tempdir().unwrap();
        run(&guest, dir.path(), &options);
        tree(dir.path())
    };
    assert_eq!(result(filter(&["*.txt"], &[])), ["a/", "a/1.txt"]);
    assert_eq!(
        result(filter(&["Documents"], &[])),
        ["b/", "b/Documents/", "b/Documents/4.doc"]
    );
    assert_eq!(result(filter(&[], &["/b", "*.txt"])), ["a/", "a/2.doc"]);
}

#[test]
fn streams_kept_or_counted() {
    let mut guest = Guest::new();
    let f = guest.file(0, "f", b"main");
    let streams = &mut guest.at(f).streams;
    streams.insert(Name::from("Zone.Identifier"), b"[ZoneTransfer]".to_vec());
    streams.insert(Name::from("big"), vec![7; 70_000]);
    let with = |streams| Options {
        streams,
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        run(&guest, dir.path(), &with(Streams::None)).0.streams_left,
        2
    );
    let dir = tempfile::tempdir().unwrap();
    run(&guest, dir.path(), &with(Streams::Files));
    assert_eq!(tree(dir.path()), ["f", "f:Zone.Identifier", "f:big"]);
    assert_eq!(fs::read(dir.path().join("f:big")).unwrap(), [7; 70_000]);
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &with(Streams::Xattr));
    assert!(log.lines("failed /f:big")[0].contains("--streams files"));
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"main");
    let mut value = [0; 100];
    match rustix::fs::getxattr(dir.path().join("f"), "user.Zone.Identifier", &mut value) {
        Ok(n) => assert_eq!((&value[..n], summary.failed), (&b"[ZoneTransfer]"[..], 1)),
        Err(e) => eprintln!("skipped: no extended attributes in the temporary directory: {e}"),
    }
}

#[test]
fn a_dry_run_does_nothing() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    guest.file(a, "f", b"12345");
    guest.file(0, "g", b"1");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("g"), b"there").unwrap();
    let dry = Options {
        dry_run: true,
        ..Options::default()
    };
    let (summary, log) = run(&guest, dir.path(), &dry);
    assert_eq!(tree(dir.path()), ["g"]);
    assert_eq!((summary.files, summary.bytes, summary.skipped), (1, 5, 1));
    assert_eq!(log.lines("restored"), ["restored /a/f 5"]);
}

#[test]
fn stopped_leaves_no_temporary_names() {
    let mut guest = Guest::new();
    for f in 0..50 {
        guest.file(0, format!("f{f}"), vec![1; 10_000]);
    }
    let dir = tempfile::tempdir().unwrap();
    let log = Log {
        stop_after: Some(20),
        ..Log::default()
    };
    let options = Options {
        recursive: true,
        ..Options::default()
    };
    let (summary, result) = restore(&guest, dir.path(), &[whole()], &options, &log);
    assert_eq!(summary.failed, 0);
    assert!(result.is_ok() || crate::pipeline::is_cancelled(&result.unwrap_err()));
    assert_eq!(tree(dir.path()), [""; 0]);
}

#[test]
fn directories_need_recursion() {
    let mut guest = Guest::new();
    let a = guest.dir(0, "a");
    let item = Item {
        path: b"/a".to_vec(),
        node: a,
        to: vec!["a".into()],
    };
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let (summary, _) = restore(&guest, dir.path(), &[item], &Options::default(), &log);
    assert_eq!(summary.failed, 1);
    assert!(
        log.lines("failed")[0].contains("-r"),
        "{:?}",
        log.lines("failed")
    );
}

#[test]
fn owners_are_kept_and_set_id_bits_only_with_them() {
    let mut guest = Guest::new();
    let names = ["theirs", "nobodys", "minus"];
    let owners = [Some((1234, 1235)), None, Some((u32::MAX, 0))];
    for (name, owner) in names.into_iter().zip(owners) {
        let file = guest.file(0, name, b"x");
        guest.at(file).mode = Some(0o6755);
        guest.at(file).owner = owner;
    }
    let dir = guest.dir(0, "dir");
    guest.at(dir).mode = Some(0o3770);
    guest.at(dir).owner = owners[0];
    let mut link = Object::new(NodeKind::Symlink);
    link.target = Name::from("theirs");
    link.owner = owners[0];
    guest.add(0, "link", link);
    let place = tempfile::tempdir().unwrap();
    let preserve = Options {
        preserve: true,
        ..Options::default()
    };
    let (summary, log) = run(&guest, place.path(), &preserve);
    let found = |name: &str| {
        let m = fs::symlink_metadata(place.path().join(name)).unwrap();
        (m.mode() & 0o7777, (m.uid(), m.gid()))
    };
    assert_eq!(found("nobodys").0, 0o755);
    assert_eq!(found("minus").0, 0o755);
    if !rustix::process::geteuid().is_root() {
        assert_eq!(found("theirs").0, 0o755);
        assert_eq!(found("dir").0, 0o1770);
        eprintln!("skipped: only root can give files away");
        return;
    }
    assert_eq!(found("theirs"), (0o6755, (1234, 1235)));
    assert_eq!(found("dir"), (0o3770, (1234, 1235)));
    assert_eq!(found("link").1, (1234, 1235));
    // It is there, and what it lacks is said.
    assert_eq!((summary.files, summary.failed), (3, 1));
    assert!(log.lines("failed /minus")[0].contains("not wholly"));
}

/// Contents whose reader looks at the modes of all files in a directory.
#[derive(Debug)]
struct Peeks(std::path::PathBuf, Arc<Mutex<Vec<u32>>>);

impl Disk for Peeks {
    fn len(&self) -> u64 {
        1
    }
    fn read_exact_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        let modes = fs::read_dir(&self.0).unwrap();
        let modes = modes.map(|e| e.unwrap().metadata().unwrap().mode() & 0o777);
        self.1.lock().unwrap().extend(modes);
        buf.fill(1);
        Ok(())
    }
    fn run_at(&self, _offset: u64) -> Result<disk_io::Run> {
        Ok(disk_io::Run {
            len: 1,
            kind: disk_io::RunKind::Data,
        })
    }
}

#[test]
fn nobody_else_reads_what_is_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let mut guest = Guest::new();
    let file = guest.file(0, "f", b"");
    guest.at(file).contents = Arc::new(Peeks(dir.path().to_path_buf(), seen.clone()));
    assert_eq!(run(&guest, dir.path(), &Options::default()).0.failed, 0);
    assert_eq!(*seen.lock().unwrap(), [0o600]);
    fs::write(dir.path().join("usual"), b"").unwrap();
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().mode();
    assert_eq!(mode("f"), mode("usual"));
}

#[test]
fn what_cannot_be_kept_beside_the_contents_does_not_cost_them() {
    let mut guest = Guest::new();
    let file = guest.file(0, "f", b"contents");
    guest.at(file).loses_streams = true;
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        streams: Streams::Files,
        ..Options::default()
    };
    let (summary, log) = run(&guest, dir.path(), &options);
    assert_eq!((summary.files, summary.failed), (1, 1));
    assert!(log.lines("failed /f")[0].contains("not wholly"));
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"contents");
}

#[test]
fn a_file_that_cannot_be_opened_again_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let host = host::HostDir::root(dir.path(), false).unwrap();
    let pending = || {
        let (temp, file) = crate::place::create_temp(host.fd().unwrap()).unwrap();
        fs::remove_file(dir.path().join(&temp)).unwrap();
        batch::Pending::<u64> {
            kept: None,
            dir: host.clone(),
            temp,
            name: "f".into(),
            replace: false,
            path: Vec::new(),
            bytes: 0,
            node: None,
            file: Some(file),
            id: None,
        }
    };
    for count in [1, 4, 5, 9] {
        let batch = batch::Batch::default();
        for _ in 0..count {
            assert!(batch.push(pending()).is_none());
        }
        let all = batch.take();
        assert_eq!(all.iter().any(|p| p.file.is_some()), count <= 4);
        batch::sync(&all).unwrap();
    }
}

#[test]
fn a_panic_costs_one_file() {
    let (done, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut guest = Guest::new();
        for i in 0..200 {
            let file = guest.file(0, format!("{i}"), b"x");
            guest.at(file).panics = i % 2 == 0;
        }
        let bad = guest.dir(0, "bad");
        guest.at(bad).panics = true;
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            workers: 2,
            ..Options::default()
        };
        let (summary, log) = run(&guest, dir.path(), &options);
        let left = tree(dir.path()).iter().any(|n| n.contains("vmdkit"));
        let _ = done.send((summary, log.lines("failed"), left));
    });
    let (summary, failed, left) = came
        .recv_timeout(std::time::Duration::from_secs(60))
        .expect("it hangs");
    assert_eq!((summary.files, summary.failed), (100, 101));
    assert!(failed[0].contains("panicked") && !left);
}

#[test]
fn streams_of_directories_lie_beside_them() {
    let mut guest = Guest::new();
    let dir = guest.dir(0, "d");
    guest.file(dir, "f", b"x");
    for node in [0, dir] {
        let streams = &mut guest.at(node).streams;
        streams.insert(Name::from("s"), b"stream".to_vec());
    }
    for (streams, left) in [(Streams::None, 2), (Streams::Files, 1), (Streams::Xattr, 1)] {
        let place = tempfile::tempdir().unwrap();
        let options = Options {
            streams,
            ..Options::default()
        };
        let (summary, _) = run(&guest, place.path(), &options);
        assert_eq!(summary.streams_left, left, "{streams:?}");
        let mut expected = vec!["d/", "d/f"];
        if streams == Streams::Files {
            expected.push("d:s");
        }
        assert_eq!(tree(place.path()), expected);
        let mut value = [0; 100];
        assert!(rustix::fs::getxattr(place.path(), "user.s", &mut value).is_err());
    }
}

#[test]
fn two_names_for_one_place() {
    let mut guest = Guest::new();
    guest.file(0, "twin", b"1");
    guest.file(0, "twin", b"2");
    let (a, b) = (guest.dir(0, "a"), guest.dir(0, "b"));
    for (dir, bytes) in [(a, b"a"), (b, b"b")] {
        guest.file(dir, "f", bytes);
        let mut link = Object::new(NodeKind::Symlink);
        link.target = Name::from_bytes(bytes);
        guest.add(dir, "link", link);
    }
    let options = Options {
        overwrite: Overwrite::Always,
        recursive: true,
        workers: 1,
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &options);
    assert_eq!(summary.failed, 1);
    assert!(log.lines("failed /twin")[0].contains("second"));
    assert_eq!(fs::read(dir.path().join("twin")).unwrap(), b"1");
    // The contents of two directories into one, over what a run before has left.
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let log = Log::default();
        let item = |path: &str, node| Item {
            path: path.as_bytes().to_vec(),
            node,
            to: Vec::new(),
        };
        let items = [item("/a", a), item("/b", b)];
        let (summary, result) = restore(&guest, dir.path(), &items, &options, &log);
        result.unwrap();
        assert_eq!((summary.files, summary.failed), (1, 2));
        assert_eq!(log.lines("failed /b").len(), 2, "{:?}", log.lines(""));
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"a");
        assert_eq!(
            fs::read_link(dir.path().join("link")).unwrap(),
            Path::new("a")
        );
    }
}

/// Forty directories with two names each for the next: 2^40 paths, and forty directories.
#[test]
fn a_directory_under_two_names_is_restored_once() {
    let mut guest = Guest::new();
    let mut at = 0;
    for n in 0..40 {
        guest.file(at, "file", format!("{n}"));
        let next = guest.dir(at, "x");
        guest.name(at, "y", next);
        at = next;
    }
    let dir = tempfile::tempdir().unwrap();
    let (summary, log) = run(&guest, dir.path(), &Options::default());
    assert_eq!((summary.files, summary.directories), (40, 40));
    assert_eq!(summary.failed, 40);
    let failed = log.lines("failed");
    assert!(
        failed
            .iter()
            .any(|l| l.contains("/x/y") && l.contains("/x/x,")),
        "{failed:?}"
    );
    assert!(!dir.path().join("y").exists());
}
