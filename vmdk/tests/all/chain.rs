//! Parents: found, compared, refused.

use crate::{
    build::{Chain, Kind},
    common::{MemDir, read_all},
};
use disk_io::{DiskError, ErrorKind, HostDir, host_dir::Allowed};
use std::path::Path;
use vmdk::{
    Image, OpenOptions, newer_children,
    write::{descriptor::Text, descriptor::extent, hosted},
};

fn two() -> Chain {
    let mut chain = Chain::new(512);
    chain.add_regular(Kind::Vmfs, 1);
    chain.add_regular(Kind::SeSparse, 3);
    chain
}

/// The child's text with something replaced.
fn child(chain: &Chain, from: &str, to: &str) -> MemDir {
    let mut dir = chain.dir.clone();
    let (name, bytes) = chain.files.last().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(from), "{text}");
    dir.put(name, text.replace(from, to));
    dir
}

fn fails(result: disk_io::Result<Image>) -> DiskError {
    let e = result.unwrap_err();
    println!("{e}");
    e
}

const HINT: &str = "parentFileNameHint=\"disk-000000.vmdk\"";

#[test]
fn hints_of_every_spelling() {
    let chain = two();
    for hint in [
        "disk-000000.vmdk",
        "./disk-000000.vmdk",
        r"C:\vms\w2k\disk-000000.vmdk",
        r"..\other\disk-000000.vmdk",
        "/vmfs/volumes/5e0f-1/w2k/disk-000000.vmdk",
        "[datastore1] w2k/disk-000000.vmdk",
    ] {
        let dir = child(&chain, HINT, &format!("parentFileNameHint=\"{hint}\""));
        let image = dir
            .image(chain.name())
            .unwrap_or_else(|e| panic!("{hint}: {e}"));
        assert!(image.warnings().is_empty());
        assert!(read_all(&*image.disk()).unwrap() == chain.bytes, "{hint}");
    }
    // Renamed: found by its content id, and said.
    for replaced in ["parentFileNameHint=\"gone.vmdk\"", "x=\"1\""] {
        let dir = child(&chain, HINT, replaced);
        let image = dir.image(chain.name()).unwrap();
        assert_eq!(image.warnings().len(), 1, "{:?}", image.warnings());
        assert!(read_all(&*image.disk()).unwrap() == chain.bytes);
    }
}

#[test]
fn content_ids_are_compared_before_anything_is_read() {
    let chain = two();
    let dir = child(&chain, "parentCID=10000000", "parentCID=12345678");
    let e = fails(dir.image(chain.name()));
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    for word in ["12345678", "10000000", "--ignore-cid", "--parent"] {
        assert!(e.to_string().contains(word), "{word}");
    }
    let options = OpenOptions {
        ignore_cid: true,
        ..Default::default()
    };
    let image = dir.image_with(chain.name(), &options).unwrap();
    assert!(image.warnings()[0].contains("IGNORED"));
    assert!(read_all(&*image.disk()).unwrap() == chain.bytes);
    // A hint without parentCID, and one that contradicts it.
    for to in ["", "parentCID=ffffffff"] {
        let dir = child(&chain, "parentCID=10000000", to);
        assert_eq!(fails(dir.image(chain.name())).kind(), ErrorKind::Corrupt);
        let image = dir.image_with(chain.name(), &options).unwrap();
        assert!(read_all(&*image.disk()).unwrap() == chain.bytes);
    }
    // Not a number: nobody knows whether there is a parent.
    let dir = child(&chain, "parentCID=10000000", "parentCID=zzz");
    assert_eq!(fails(dir.image(chain.name())).kind(), ErrorKind::Corrupt);
}

#[test]
fn a_missing_parent_says_where_it_was_looked_for() {
    let chain = two();
    let mut dir = MemDir::default();
    for (name, bytes) in &chain.files[2..] {
        dir.put(name, bytes.clone());
    }
    let e = fails(dir.image(chain.name()));
    assert_eq!(e.kind(), ErrorKind::NotFound);
    for word in [
        "disk-000000.vmdk",
        "disk-000001.vmdk",
        "in memory",
        "--parent",
    ] {
        assert!(e.to_string().contains(word), "{word}");
    }
    // No hint at all: not zeros either.
    let text = String::from_utf8(chain.files.last().unwrap().1.clone()).unwrap();
    dir.put(chain.name(), text.replace(HINT, ""));
    assert_eq!(fails(dir.image(chain.name())).kind(), ErrorKind::NotFound);
}

#[test]
fn two_files_with_the_wanted_content_id_are_not_guessed_between() {
    let chain = two();
    let mut dir = child(&chain, HINT, "parentFileNameHint=\"gone.vmdk\"");
    dir.put("copy.vmdk", chain.files[1].1.clone());
    let e = fails(dir.image(chain.name()));
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("copy.vmdk"));
    // Content ids that are not random identify nothing.
    for cid in ["00000000", "fffffffe"] {
        let mut dir = MemDir::default();
        for (name, bytes) in &chain.files {
            let text = String::from_utf8_lossy(bytes).into_owned();
            if text.starts_with('#') {
                let text = text
                    .replace("CID=10000000", &format!("CID={cid}"))
                    .replace(HINT, "parentFileNameHint=\"gone.vmdk\"");
                dir.put(name, text);
            } else {
                dir.put(name, bytes.clone());
            }
        }
        assert_eq!(fails(dir.image(chain.name())).kind(), ErrorKind::NotFound);
    }
}

#[test]
fn lengths_must_agree() {
    let mut chain = two();
    let small = {
        let mut small = Chain::new(256);
        small.add_regular(Kind::Vmfs, 1);
        small
    };
    for (name, bytes) in &small.files {
        chain.dir.put(name, bytes.clone());
    }
    let e = fails(chain.dir.image(chain.name()));
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("262144") && e.to_string().contains("131072"));
}

#[test]
fn circles_end() {
    for (name, hint) in [("a.vmdk", "a.vmdk"), ("a.vmdk", "b.vmdk")] {
        let mut dir = MemDir::default();
        for (own, parent) in [(name, hint), (hint, name)] {
            let text = Text {
                cid: 0x77,
                parent: Some((0x77, parent)),
                create_type: "monolithicSparse",
                extents: vec![extent(512, "SPARSE", own)],
            };
            let options = hosted::Options {
                descriptor: Some(text.encode()),
                ..Default::default()
            };
            dir.put(own, hosted::encode(&options, 512, &[]));
        }
        let e = fails(dir.image(name));
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        assert!(e.to_string().contains("above it in the chain"));
    }
}

#[test]
fn hundreds_of_links() {
    let mut chain = Chain::new(128 * 40);
    chain.add_regular(Kind::Flat, 1);
    let kinds = [
        Kind::Sparse,
        Kind::Cowd8,
        Kind::SeSparse,
        Kind::StreamFooter,
    ];
    for n in 0..300u64 {
        let kind = kinds[n as usize % kinds.len()];
        let grains = chain.capacity.div_ceil(kind.grain());
        let data = vmdk::write::Cell::Data(chain.data(kind, n * 7 % grains));
        chain.add(kind, &[(n * 7 % grains, data)]);
    }
    let image = chain.dir.image(chain.name()).unwrap();
    assert_eq!(image.links().len(), 301);
    assert!(read_all(&*image.disk()).unwrap() == chain.bytes);
}

#[test]
fn on_a_host_directory() {
    let chain = two();
    let top = tempfile::tempdir().unwrap();
    let (here, there) = (top.path().join("here"), top.path().join("there"));
    std::fs::create_dir_all(&here).unwrap();
    std::fs::create_dir_all(&there).unwrap();
    for (number, (name, bytes)) in chain.files.iter().enumerate() {
        let dir = if number < 2 { &there } else { &here };
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    let hint = "/vmfs/volumes/5e0f/there/disk-000000.vmdk";
    let text = String::from_utf8(chain.files[3].1.clone()).unwrap();
    let source = here.join(chain.name());
    std::fs::write(&source, text.replace("disk-000000.vmdk", hint)).unwrap();
    let open = |allowed: &Allowed, options: &OpenOptions| {
        Image::open(HostDir::open_source(&source, allowed)?, options)
    };
    // The parent is outside, so the gate says how to let it in.
    let e = fails(open(&Allowed::default(), &OpenOptions::default()));
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.to_string().contains("--allow-dir"));
    let allowed = Allowed {
        dirs: vec![there.clone()],
        ..Default::default()
    };
    let image = open(&allowed, &OpenOptions::default()).unwrap();
    assert!(read_all(&*image.disk()).unwrap() == chain.bytes);
    // Or the user names it.
    let options = OpenOptions {
        parent: Some(there.join("disk-000000.vmdk")),
        ..Default::default()
    };
    let image = open(&Allowed::default(), &options).unwrap();
    assert!(image.warnings()[0].contains("as asked"));
    assert!(read_all(&*image.disk()).unwrap() == chain.bytes);
    let image = open(&allowed, &options).unwrap();
    assert!(image.warnings()[0].contains("not needed"));
    // The wrong one is refused, unless told twice.
    std::fs::write(there.join("other.vmdk"), {
        let text = String::from_utf8(chain.files[1].1.clone()).unwrap();
        text.replace("CID=10000000", "CID=0badc1d0")
    })
    .unwrap();
    let options = OpenOptions {
        parent: Some(there.join("other.vmdk")),
        ..Default::default()
    };
    let e = fails(open(&Allowed::default(), &options));
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    let options = OpenOptions {
        ignore_cid: true,
        ..options
    };
    let image = open(&Allowed::default(), &options).unwrap();
    assert!(image.warnings().iter().any(|w| w.contains("IGNORED")));
}

#[test]
fn newer_disks_are_found() {
    let mut chain = two();
    chain.add_regular(Kind::Sparse, 2);
    let base = chain.dir.source("disk-000000.vmdk");
    let found = newer_children(&base).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|c| (c.path.as_path(), c.depth, c.cid_matches, c.newest))
        .collect();
    assert_eq!(
        names,
        [
            (Path::new("disk-000002.vmdk"), 2, true, true),
            (Path::new("disk-000001.vmdk"), 1, true, false)
        ]
    );
    let newest = chain.dir.source("disk-000002.vmdk");
    assert!(newer_children(&newest).unwrap().is_empty());
}
