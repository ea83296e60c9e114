mod special;
mod twins;

use super::*;
use crate::{NoProgress, restore::Entry};
use disk_io::{MemDisk, SparseMemDisk, faults::FailAfter};
use guest_fs::{Link, NodeId, Stream, Timestamp};
use std::{io::Read, sync::Arc};

/// `tree/` with a plain file, a sparse one of 2 GiB, one that breaks, a link, twins, a
/// stream, and a name of 200 bytes that is not UTF-8.
struct Guest;

const LONG: usize = 200;

fn long() -> Vec<u8> {
    let mut name = vec![b'n'; LONG];
    name[150] = 0xff;
    name
}

fn sparse() -> SparseMemDisk {
    let mut disk = SparseMemDisk::new(2 << 30);
    disk.put(5 << 20, b"middle");
    disk.put((2 << 30) - 3, b"end");
    disk
}

impl Source for Guest {
    type Node = u64;

    fn metadata(&self, node: u64) -> Result<Metadata> {
        let kind = match node {
            0 => NodeKind::Directory,
            4 => NodeKind::Symlink,
            _ => NodeKind::File,
        };
        Ok(Metadata {
            links: if node == 5 { 2 } else { 1 },
            modified: Some(Timestamp::from_unix(1_000_000_000, 123_456_700)),
            attributes: Some(attributes::READONLY),
            ..Metadata::new(NodeId::plain(node), kind)
        })
    }

    fn read_dir(
        &self,
        _: u64,
        visit: &mut dyn FnMut(Result<Entry<u64>>) -> ControlFlow<()>,
    ) -> Result<()> {
        let long = long();
        for (name, node) in [
            (&b"plain"[..], 1),
            (b"sparse", 2),
            (b"broken", 3),
            (b"link", 4),
            (b"twin1", 5),
            (b"twin2", 5),
            (&long, 6),
        ] {
            let _ = visit(Ok(Entry {
                name: Name::from_bytes(name),
                node,
                kind: if node == 4 {
                    NodeKind::Symlink
                } else {
                    NodeKind::File
                },
            }));
        }
        Ok(())
    }

    fn directory(&self, node: u64) -> u64 {
        node
    }

    fn open(&self, node: u64, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        if stream.is_some() {
            return Ok(Arc::new(MemDisk::new(b"of the stream".to_vec())));
        }
        Ok(match node {
            2 => Arc::new(sparse()),
            3 => Arc::new(FailAfter::new(Arc::new(MemDisk::new(vec![7; 3 << 20])), 2)),
            n => Arc::new(MemDisk::new(vec![n as u8; 1000])),
        })
    }

    fn streams(&self, node: u64) -> Result<Vec<Stream>> {
        let stream = Stream {
            name: Name::from("s"),
            size: 13,
            allocated: 0,
        };
        Ok(if node == 1 { vec![stream] } else { Vec::new() })
    }

    fn read_link(&self, _: u64) -> Result<Link> {
        Ok(Link {
            sort: "symlink",
            stored: Name::from("plain"),
            target: Name::from("plain"),
        })
    }
}

fn write(streams: Streams) -> (Summary, Vec<u8>) {
    write_as(streams, Format::Tar)
}

fn write_as(streams: Streams, format: Format) -> (Summary, Vec<u8>) {
    let item = Item {
        path: b"/p1/tree".to_vec(),
        name: b"tree".to_vec(),
        node: 0,
        doubts: Vec::new(),
    };
    let options = Options {
        streams,
        format,
        // Two GiB of zeros take their time where holes are none.
        filter: match format {
            Format::Tar => Filter::default(),
            Format::Zip => Filter::new(&[], &["sparse".into()], false).unwrap(),
        },
    };
    let (summary, out) = archive(&Guest, &[item], Vec::new(), "out", &options, &NoProgress);
    (summary, out.unwrap())
}

#[test]
fn what_is_written_is_what_was_there() {
    let (summary, bytes) = write(Streams::Xattr);
    assert_eq!((summary.files, summary.failed, summary.symlinks), (5, 1, 1));
    // The holes take no room.
    assert!(bytes.len() < 6 << 20, "{}", bytes.len());
    let mut archive = tar_crate(&bytes);
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut records = Vec::new();
        if let Some(all) = entry.pax_extensions().unwrap() {
            for record in all {
                let record = record.unwrap();
                records.push((record.key_bytes().to_vec(), record.value_bytes().to_vec()));
            }
        }
        let value = |key: &[u8]| {
            records
                .iter()
                .find(|(k, _)| k == key)
                .map(|(_, v)| v.clone())
        };
        let name = value(b"GNU.sparse.name").unwrap_or_else(|| entry.path_bytes().to_vec());
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        match name.as_slice() {
            b"tree/plain" => {
                assert_eq!(contents, vec![1; 1000]);
                assert_eq!(value(b"mtime").unwrap(), b"1000000000.123456700");
                assert_eq!(value(b"SCHILY.xattr.user.s").unwrap(), b"of the stream");
                assert_eq!(entry.header().mode().unwrap(), 0o444);
            }
            b"tree/sparse" => {
                assert_eq!(
                    value(b"GNU.sparse.realsize").unwrap(),
                    (2u64 << 30).to_string().as_bytes()
                );
                assert!(
                    contents.starts_with(b"2\n5242880\n"),
                    "{:?}",
                    &contents[..40]
                );
                assert!(contents.ends_with(b"end"));
            }
            b"tree/broken" => assert_eq!(contents.len(), 3 << 20),
            b"tree/twin2" => {
                assert_eq!(entry.header().entry_type(), ::tar::EntryType::Link);
                assert_eq!(&*entry.link_name_bytes().unwrap(), b"tree/twin1");
            }
            b"tree/link" => assert_eq!(&*entry.link_name_bytes().unwrap(), b"plain"),
            b"vmdkit-failures.txt" => {
                assert!(contents.starts_with(b"/p1/tree/broken: "));
            }
            _ => {}
        }
        seen.push(name);
    }
    let expected = [b"tree/".to_vec(), [b"tree/", long().as_slice()].concat()];
    assert!(expected.iter().all(|e| seen.contains(e)), "{seen:?}");
    assert_eq!(seen.last().unwrap(), FAILURES.as_bytes());
}

fn tar_crate(bytes: &[u8]) -> ::tar::Archive<&[u8]> {
    ::tar::Archive::new(bytes)
}

/// GNU tar unpacks it: holes, links, the long name.
#[test]
fn gnu_tar_reads_it() {
    let (_, bytes) = write(Streams::Files);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.tar"), bytes).unwrap();
    let done = std::process::Command::new("tar")
        .args(["-xf", "a.tar"])
        .current_dir(dir.path())
        .output();
    let Ok(done) = done else {
        return;
    };
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let tree = dir.path().join("tree");
    let file = std::fs::File::open(tree.join("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 30);
    let mut end = [0; 6];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut end, (2 << 30) - 6).unwrap();
    assert_eq!(&end, b"\0\0\0end");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut end, 5 << 20).unwrap();
    assert_eq!(&end, b"middle");
    let meta = |name: &str| std::fs::metadata(tree.join(name)).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(meta("twin1").ino(), meta("twin2").ino());
    assert_eq!(
        (meta("plain").mtime(), meta("plain").mtime_nsec()),
        (1_000_000_000, 123_456_700)
    );
    assert_eq!(
        std::fs::read(tree.join("plain:s")).unwrap(),
        b"of the stream"
    );
    use std::os::unix::ffi::OsStrExt;
    assert!(tree.join(std::ffi::OsStr::from_bytes(&long())).exists());
}

/// Python's zipfile and Info-ZIP's unzip read it: contents, times, links, failures.
#[test]
fn others_read_the_zip() {
    let (summary, bytes) = write_as(Streams::Files, Format::Zip);
    assert_eq!((summary.files, summary.failed, summary.symlinks), (4, 1, 1));
    assert_eq!(summary.renamed, 1);
    let mut archive = ::zip::ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap();
    let mut read = |name: &str| {
        let mut member = archive.by_name(name).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        (member.unix_mode().unwrap(), bytes)
    };
    assert_eq!(read("tree/plain"), (0o100444, vec![1; 1000]));
    assert_eq!(read("tree/plain:s").1, b"of the stream");
    assert_eq!(read("tree/link"), (0o120777, b"plain".to_vec()));
    assert_eq!(read("tree/twin2").1, vec![5; 1000]);
    assert_eq!(read("tree/broken").1.len(), 3 << 20);
    assert!(read(FAILURES).1.starts_with(b"/p1/tree/broken: "));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.zip"), bytes).unwrap();
    let code = "import zipfile,sys; z=zipfile.ZipFile('a.zip'); assert z.testzip() is None; \
                print(len(z.namelist()), z.getinfo('tree/plain').date_time)";
    let Ok(done) = std::process::Command::new("python3")
        .args(["-c", code])
        .current_dir(dir.path())
        .output()
    else {
        return;
    };
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(text.trim(), "9 (2001, 9, 9, 1, 46, 40)", "{done:?}");
}
