//! Things that would have one name.

use super::*;
use std::collections::BTreeMap;

/// Directories by node; 0 is the root. Node 100 and more are files, 200 and more links.
#[derive(Default)]
struct Small(BTreeMap<u64, Vec<(&'static [u8], u64)>>);

impl Small {
    fn kind(&self, node: u64) -> NodeKind {
        match node {
            200.. => NodeKind::Symlink,
            100.. => NodeKind::File,
            _ => NodeKind::Directory,
        }
    }
}

impl Source for Small {
    type Node = u64;

    fn metadata(&self, node: u64) -> Result<Metadata> {
        let mut metadata = Guest.metadata(1)?;
        metadata.kind = self.kind(node);
        Ok(metadata)
    }

    fn read_dir(
        &self,
        node: u64,
        visit: &mut dyn FnMut(Result<Entry<u64>>) -> ControlFlow<()>,
    ) -> Result<()> {
        for (name, node) in &self.0[&node] {
            let _ = visit(Ok(Entry {
                name: Name::from_bytes(*name),
                node: *node,
                kind: self.kind(*node),
            }));
        }
        Ok(())
    }

    fn directory(&self, node: u64) -> u64 {
        node
    }

    fn open(&self, node: u64, _: Option<&Name>) -> Result<Arc<dyn Disk>> {
        Ok(Arc::new(MemDisk::new(vec![node as u8; 10])))
    }

    fn streams(&self, node: u64) -> Result<Vec<Stream>> {
        Guest.streams(u64::from(node == 101))
    }

    fn read_link(&self, node: u64) -> Result<Link> {
        Guest.read_link(node)
    }
}

fn item(path: &str, name: &str, node: u64) -> Item<u64> {
    Item {
        path: path.into(),
        name: name.into(),
        node,
        doubts: Vec::new(),
    }
}

/// What went wrong, and the names of the members as the formats' own readers tell them.
fn names(guest: &Small, items: &[Item<u64>], format: Format) -> (Summary, Vec<String>) {
    let options = Options {
        format,
        streams: Streams::Files,
        ..Options::default()
    };
    let (summary, out) = archive(guest, items, Vec::new(), "out", &options, &NoProgress);
    let bytes = out.unwrap();
    let names = match format {
        Format::Tar => {
            let mut archive = tar_crate(&bytes);
            let names = archive.entries().unwrap().map(|e| {
                let e = e.unwrap();
                String::from_utf8_lossy(&e.path_bytes()).into_owned()
            });
            names.collect()
        }
        Format::Zip => {
            let archive = ::zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
            let names = archive.file_names().map(|n| n.unwrap().into_owned());
            names.collect()
        }
    };
    (summary, names)
}

/// A link and a directory, a link and a file: what comes first stays, and of the other there is
/// nothing, also not what is in it.
#[test]
fn of_two_of_one_name_one_is_kept() {
    let entries: Vec<(&[u8], u64)> = vec![
        (b"dir", 200),
        (b"file", 201),
        (b"dir", 1),
        (b"file", 100),
        (b"last", 102),
    ];
    let guest = Small(BTreeMap::from([(0, entries), (1, vec![(b"planted", 103)])]));
    for format in [Format::Tar, Format::Zip] {
        let (summary, names) = names(&guest, &[item("/p0", "p0", 0)], format);
        let expected = ["p0/", "p0/dir", "p0/file", "p0/last", FAILURES];
        assert_eq!(names, expected, "{format:?}");
        assert_eq!((summary.failed, summary.symlinks), (2, 2));
        assert_eq!((summary.files, summary.directories), (1, 1));
    }
}

/// What a zip spells alike is one name, also of directories; in a tar they are two.
#[test]
fn names_that_only_a_zip_spells_alike() {
    let entries: Vec<(&[u8], u64)> = vec![(b"x\xfe", 200), (b"x\xff", 1)];
    let guest = Small(BTreeMap::from([(0, entries), (1, vec![(b"planted", 103)])]));
    let items = [item("/p0", "p0", 0)];
    let (summary, zip) = names(&guest, &items, Format::Zip);
    assert_eq!(zip, ["p0/", "p0/x\u{fffd}", FAILURES]);
    assert_eq!(summary.failed, 1);
    let (summary, tar) = names(&guest, &items, Format::Tar);
    assert_eq!((summary.failed, tar.len()), (0, 4), "{tar:?}");
}

/// PATHs that end alike, the contents of a directory beside them, and a stream's member.
#[test]
fn the_level_of_the_paths() {
    let entries: Vec<(&[u8], u64)> = vec![(b"a", 101), (b"a:s", 104), (b"b", 105)];
    let guest = Small(BTreeMap::from([(0, entries)]));
    let items = [
        item("/p0/x/b", "b", 106),
        item("/p0/y/b", "b", 107),
        item("/p0/z", "", 0),
        item("/p0/z", "z", 0),
    ];
    for format in [Format::Tar, Format::Zip] {
        let (summary, names) = names(&guest, &items, format);
        let expected = ["b", "a", "a:s", "z/", "z/a", "z/a:s", "z/b", FAILURES];
        assert_eq!(names, expected, "{format:?}");
        assert_eq!(summary.failed, 4);
    }
}

/// The guest's own file, or link, does not stand where the list of failures goes.
#[test]
fn the_guest_has_a_list_of_failures() {
    let entries: Vec<(&[u8], u64)> = vec![
        (FAILURES.as_bytes(), 200),
        (b"vmdkit-failures-2.txt", 100),
        (b"twice", 102),
        (b"twice", 103),
    ];
    let guest = Small(BTreeMap::from([(0, entries)]));
    for format in [Format::Tar, Format::Zip] {
        let (summary, names) = names(&guest, &[item("/p0", "", 0)], format);
        assert_eq!(summary.failed, 1);
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names.last().unwrap(), "vmdkit-failures-3.txt");
    }
}

/// Forty directories with two names each for the next: 2^40 paths, and forty directories. What
/// is asked for by itself is taken all the same.
#[test]
fn a_directory_under_two_names_is_archived_once() {
    let level = |n: u64| vec![(&b"f"[..], 103), (&b"x"[..], n + 1), (&b"y"[..], n + 1)];
    let mut guest = Small((0..40).map(|n| (n, level(n))).collect());
    guest.0.insert(40, vec![(b"last", 104)]);
    let items = [item("/p0", "p0", 0), item("/p0/x", "x", 1)];
    for format in [Format::Tar, Format::Zip] {
        let (summary, names) = names(&guest, &items, format);
        assert_eq!(summary.files, 41 + 40);
        assert_eq!((summary.failed, summary.directories), (40 + 39, 41 + 40));
        assert!(names.contains(&"x/x/f".into()) && !names.contains(&"p0/y/".into()));
    }
}
