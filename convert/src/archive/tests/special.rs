//! Pipes, device nodes and sockets.

use super::*;

/// Five of them, by the bits of their type; of the last the device's numbers are lost.
const MODES: [(&[u8], u32); 5] = [
    (b"pipe", 0o010_640),
    (b"null", 0o020_666),
    (b"disk", 0o060_660),
    (b"socket", 0o140_777),
    (b"lost", 0o020_600),
];

struct Dev;

impl Source for Dev {
    type Node = u64;

    fn metadata(&self, node: u64) -> Result<Metadata> {
        let Some((name, mode)) = MODES.get(node as usize) else {
            return Ok(Metadata::new(NodeId::plain(node), NodeKind::Directory));
        };
        let is_device = matches!(mode & 0o170_000, 0o020_000 | 0o060_000);
        Ok(Metadata {
            mode: Some(*mode),
            device: (is_device && *name != b"lost").then_some((259, 1_048_575)),
            ..Metadata::new(NodeId::plain(node), NodeKind::Special)
        })
    }

    fn read_dir(
        &self,
        _: u64,
        visit: &mut dyn FnMut(Result<Entry<u64>>) -> ControlFlow<()>,
    ) -> Result<()> {
        for ((name, _), node) in MODES.into_iter().zip(0..) {
            let _ = visit(Ok(Entry {
                name: Name::from_bytes(name),
                node,
                kind: NodeKind::Special,
            }));
        }
        Ok(())
    }

    fn directory(&self, node: u64) -> u64 {
        node
    }

    fn open(&self, _: u64, _: Option<&Name>) -> Result<Arc<dyn Disk>> {
        Err(DiskError::unsupported("opening"))
    }

    fn streams(&self, _: u64) -> Result<Vec<Stream>> {
        Ok(Vec::new())
    }

    fn read_link(&self, _: u64) -> Result<Link> {
        Err(DiskError::unsupported("reading a link"))
    }
}

fn of(format: Format) -> (Summary, Vec<u8>) {
    let item = Item {
        path: b"/p1/dev".to_vec(),
        name: b"dev".to_vec(),
        node: 99,
        doubts: Vec::new(),
    };
    let options = Options {
        format,
        ..Options::default()
    };
    let (summary, out) = archive(&Dev, &[item], Vec::new(), "out", &options, &NoProgress);
    (summary, out.unwrap())
}

#[test]
fn tar_has_them_as_they_are() {
    let (summary, bytes) = of(Format::Tar);
    assert_eq!((summary.files, summary.failed), (3, 1));
    let mut found = Vec::new();
    for entry in tar_crate(&bytes).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        found.push((
            name,
            header.as_bytes()[156],
            header.mode().unwrap(),
            // Others have no number there at all.
            header.device_major().ok().flatten().unwrap_or(0),
            header.device_minor().ok().flatten().unwrap_or(0),
        ));
    }
    let wanted = [
        ("dev/disk", b'4', 0o660, 259, 1_048_575),
        ("dev/null", b'3', 0o666, 259, 1_048_575),
        ("dev/pipe", b'6', 0o640, 0, 0),
    ];
    let wanted =
        wanted.map(|(name, kind, mode, major, minor)| (name.to_owned(), kind, mode, major, minor));
    assert_eq!(found[1..4], wanted);
    assert_eq!(found.len(), 5, "the directory and what failed: {found:?}");
}

/// zip has none of them.
#[test]
fn zip_names_them() {
    let (summary, _) = of(Format::Zip);
    assert_eq!((summary.files, summary.failed), (0, 4));
}
