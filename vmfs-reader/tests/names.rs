//! Names by which files of datastores find each other.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{ErrorKind, Purpose};
use std::path::Path;
use support::*;
use vmfs_reader::{Datastores, build::Builder};

const GIB: u64 = 1 << 30;

#[test]
fn names_of_other_files() {
    let mut one = Builder::five("one");
    one.bytes("web/web.vmdk", b"descriptor");
    one.bytes("web/web-flat.vmdk", b"flat");
    one.bytes("base/base.vmdk", b"base");
    one.symlink("web/short", "../base");
    one.symlink("loop", "loop");
    one.symlink("web/far", "/vmfs/volumes/two/x");
    one.rdm("web/raw-rdm.vmdk", GIB);
    let mut two = Builder::six("two").seed(2);
    two.bytes("x/y.vmdk", b"elsewhere");
    let (one, two) = (open(&one.disks()), open(&two.disks()));
    let uuid = one.superblock().uuid.to_string();
    let stores = Datastores::new(vec![(None, one), (Some("b".into()), two)]);
    let opened = stores.open(0, b"/web/web.vmdk").unwrap();
    assert_eq!(opened.path, Path::new("[one] web/web.vmdk"));
    assert_eq!(opened.base_name(), Path::new("web.vmdk"));
    let read = |name: &str| {
        let found = opened
            .dir
            .open(Path::new(name), Purpose::Extent)
            .unwrap_or_else(|e| panic!("{e}"));
        (all(&found.disk).unwrap(), found)
    };
    for (name, contents) in [
        ("web-flat.vmdk", "flat"),
        ("./web-flat.vmdk", "flat"),
        ("../base/base.vmdk", "base"),
        ("../../../base/base.vmdk", "base"),
        ("/base/base.vmdk", "base"),
        ("short/base.vmdk", "base"),
        ("/vmfs/volumes/one/base/base.vmdk", "base"),
        (&format!("/vmfs/volumes/{uuid}/base/base.vmdk"), "base"),
        ("[one] base/base.vmdk", "base"),
        ("[two] x/y.vmdk", "elsewhere"),
        ("[b] x/y.vmdk", "elsewhere"),
        ("/vmfs/volumes/two/x/y.vmdk", "elsewhere"),
        ("far/y.vmdk", "elsewhere"),
    ] {
        assert_eq!(read(name).0, contents.as_bytes(), "{name}");
    }
    // A file is the same by every name, and not the same as any other.
    let (_, a) = read("/vmfs/volumes/one/base/base.vmdk");
    let (_, b) = read("short/base.vmdk");
    assert_eq!(a.id, b.id);
    assert_ne!(a.id, opened.id);
    assert_eq!(a.dir.list(10).unwrap(), [Path::new("base.vmdk")]);
    assert_eq!(a.dir.describe(), "[one] base");
    for (name, kind) in [
        ("nothing.vmdk", ErrorKind::NotFound),
        ("web.vmdk/x", ErrorKind::NotFound),
        ("/loop", ErrorKind::Refused),
        ("[three] x", ErrorKind::NotFound),
        ("/vmfs/volumes/three/x", ErrorKind::NotFound),
        ("../web", ErrorKind::Refused),
        ("raw-rdm.vmdk", ErrorKind::Unsupported),
    ] {
        let e = opened
            .dir
            .open(Path::new(name), Purpose::Extent)
            .unwrap_err();
        assert_eq!(e.kind(), kind, "{name}: {e}");
    }
}
