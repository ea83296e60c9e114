//! Embedded descriptors that are damaged: the right bytes or an error, never other bytes.

use crate::{
    build::{Chain, Kind},
    common::{MemDir, read_all},
};
use disk_io::{DiskError, ErrorKind, MemDisk, Result};
use std::sync::Arc;
use vmdk::{Image, Salvaged, write::Cell};

/// Where the text begins.
const TEXT: usize = 512;

/// A disk of 512 sectors with the link `kind` on top of `below`.
fn chain(below: Option<Kind>, kind: Kind) -> Chain {
    let mut chain = Chain::new(512);
    if let Some(below) = below {
        chain.add(below, &[(1, Cell::Data(chain.data(below, 1)))]);
    }
    chain.add(kind, &[(2, Cell::Data(chain.data(kind, 2)))]);
    chain
}

fn text(chain: &Chain) -> String {
    let (_, bytes) = chain.files.last().unwrap();
    let text = bytes[TEXT..].split(|b| *b == 0).next().unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

/// Opens the newest link after `change` of its text: what came of it, and no other bytes.
fn opened(chain: &Chain, change: impl FnOnce(&mut [u8])) -> Result<Image> {
    let (name, bytes) = chain.files.last().unwrap();
    let mut bytes = bytes.clone();
    let room = 10_240.min(bytes.len() - TEXT);
    change(&mut bytes[TEXT..][..room]);
    let mut dir = chain.dir.clone();
    let text = String::from_utf8_lossy(&bytes[TEXT..][..400]).into_owned();
    dir.put(name, bytes);
    let image = dir.image(name)?;
    let read = read_all(&*image.disk())?;
    assert!(
        read == chain.bytes,
        "other bytes ({} of {}), {:?}, with {text:?}",
        read.len(),
        chain.bytes.len(),
        image.warnings()
    );
    Ok(image)
}

fn is_by_header(image: &Image) -> bool {
    image.warnings().iter().any(|w| w.contains("DAMAGED"))
}

const BASES: [Kind; 3] = [Kind::Sparse, Kind::SparseV2, Kind::StreamFooter];

/// Every byte of the text, one at a time, to each value that could mean something and some that
/// mean nothing.
#[test]
fn no_byte_of_the_text_can_change_the_disk() {
    for (below, kind) in [
        (None, Kind::Sparse),
        (None, Kind::StreamFooter),
        (Some(Kind::Sparse), Kind::Sparse),
    ] {
        let chain = chain(below, kind);
        let (mut right, mut by_header, mut wrong) = (0, 0, 0);
        for at in 0..text(&chain).len() + 2 {
            for value in b"\0\n\r\t #\"=/.0159aAfFRWPpXx~\x01\x7f\x80\xc3\xff" {
                match opened(&chain, |t| t[at] = *value) {
                    Ok(image) if is_by_header(&image) => by_header += 1,
                    Ok(_) => right += 1,
                    Err(_) => wrong += 1,
                }
            }
        }
        println!("{below:?} {kind:?}: {right} {by_header} {wrong}");
        assert_eq!(by_header > 0, below.is_none());
    }
}

/// The same with runs of bytes, as of a bad block or a text that was cut off.
#[test]
fn no_hole_in_the_text_can_change_the_disk() {
    for (below, kind) in [
        (None, Kind::Sparse),
        (Some(Kind::StreamFooter), Kind::Sparse),
        (Some(Kind::Sparse), Kind::StreamFooter),
    ] {
        let chain = chain(below, kind);
        let len = text(&chain).len();
        let (mut by_header, mut wrong) = (0, 0);
        for at in 0..len {
            for hole in [2, 3, 7, 16, 40, 120, len - at] {
                for value in [0, 0xff] {
                    let end = len.min(at + hole);
                    match opened(&chain, |t| t[at..end].fill(value)) {
                        Ok(image) => by_header += u32::from(is_by_header(&image)),
                        Err(_) => wrong += 1,
                    }
                }
            }
        }
        println!("{below:?} {kind:?}: {by_header} {wrong}");
        assert_eq!(by_header > 0, below.is_none());
        assert!(wrong > 0);
    }
}

fn change(text: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = text.windows(from.len()).position(|w| w == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("no {from}"));
    text[at..at + to.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn holes_that_only_the_header_bridges() {
    for kind in BASES {
        let chain = chain(None, kind);
        for (from, to) in [
            ("# E", "\0\0\0"),
            ("SPARSE", "SP\0\0SE"),
            ("SPARSE", "SPAQSE"),
            ("RW 512", "RW 5x2"),
            ("RW 512", "#W 500"),
            ("CID=1000", "\0\0\0\0\0\0\0\0"),
        ] {
            let image = opened(&chain, |t| change(t, from, to));
            let image = image.unwrap_or_else(|e| panic!("{kind:?} {from}: {e}"));
            assert!(is_by_header(&image), "{kind:?} {from}");
            assert_eq!(image.remarks().len(), 1);
            let link = &image.links()[0];
            let cid = (from != "CID=1000").then_some(0x1000_0000);
            assert_eq!((link.cid, link.parent_cid), (cid, None));
        }
        // A length of nothing is not followed either.
        let image = opened(&chain, |t| change(t, "RW 512", "RW 000")).unwrap();
        assert_eq!(image.warnings().len(), 1, "{:?}", image.warnings());
    }
}

fn refused(e: &DiskError, says: &str) {
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    let hint = e.hint_text().unwrap_or_default();
    assert!(hint.contains(says), "{e}");
}

#[test]
fn what_is_refused_says_why() {
    let base = chain(None, Kind::Sparse);
    let no = |change: fn(&mut [u8]), says| refused(&opened(&base, change).unwrap_err(), says);
    no(|t| t.fill(0), "qemu-img");
    no(
        |t| change(t, "\nparentCID=ffffffff", "\0OtherWord=ffffffff"),
        "qemu-img",
    );
    no(
        |t| {
            change(
                t,
                "# Extent description\nRW 512",
                "\0 Extent description\nRW 900",
            )
        },
        "longer",
    );
    no(
        |t| {
            change(t, "# Extent", "\0 Extent");
            change(t, "createType", "createTypX");
            change(t, "disk-000000", "disk-000009");
        },
        "renamed",
    );
    let delta = chain(Some(Kind::Sparse), Kind::Sparse);
    let e = opened(&delta, |t| change(t, "# Extent", "\0 Extent")).unwrap_err();
    refused(&e, "delta");
}

/// Content ids tell a parent, so its text must be sound: only SOURCE itself is read by its header.
#[test]
fn parents_are_not_read_by_their_headers() {
    let chain = chain(Some(Kind::Sparse), Kind::Sparse);
    let mut dir: MemDir = chain.dir.clone();
    let (name, bytes) = &chain.files[0];
    let mut bytes = bytes.clone();
    change(&mut bytes[TEXT..], "# Extent", "\0 Extent");
    dir.put(name, bytes);
    assert!(is_by_header(&dir.image(name).unwrap()));
    assert!(dir.image(chain.name()).is_err());
}

/// Where a delta has no grain its parent may have one: its markers are no disk.
#[test]
fn a_stream_that_is_a_delta_is_not_salvaged() {
    for (below, salvaged) in [(None, true), (Some(Kind::Sparse), false)] {
        for hole in ["\0 Extent", "# Extent"] {
            let chain = chain(below, Kind::StreamFooter);
            let mut bytes = chain.files.last().unwrap().1.clone();
            change(&mut bytes[TEXT..], "# Extent", hole);
            let file = Arc::new(MemDisk::new(bytes));
            let done = Salvaged::open(file, "x", &mut |_| {});
            assert_eq!(done.is_ok(), salvaged, "{below:?} {hole}: {done:?}");
        }
    }
}
