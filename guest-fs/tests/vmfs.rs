//! VMFS as a guest file system, on volumes made for it; the images of real hosts are read
//! through the whole tree, in the crate `proxy`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use disk_io::{Disk, MemDisk, RunKind};
use guest_fs::{
    DirEntry, ErrorKind, FileSystem, FsKind, Name, NodeId, NodeKind, OpenOptions, vmfs::Vmfs,
    volume,
};
use std::{ops::ControlFlow, sync::Arc};
use vmfs_reader::{
    Uuid,
    build::{Builder, FileSpec},
};

const MIB: u64 = 1 << 20;

fn list(fs: &dyn FileSystem, dir: NodeId) -> Vec<DirEntry> {
    let mut found = Vec::new();
    fs.read_dir(dir, &mut |e| {
        found.push(e.unwrap());
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn find(fs: &dyn FileSystem, path: &str) -> NodeId {
    path.split('/').fold(fs.root(), |at, name| {
        fs.lookup(at, &Name::from(name)).unwrap().unwrap()
    })
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0xa5; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A file of 5 MiB with data at its begin and end only.
fn sparse() -> Arc<dyn Disk> {
    let mut bytes = vec![0; 5 * MIB as usize];
    bytes[..3].copy_from_slice(b"abc");
    *bytes.last_mut().unwrap() = 7;
    Arc::new(MemDisk::sparse(bytes))
}

fn filled(mut builder: Builder) -> Builder {
    let host = builder.heartbeat(Uuid([7; 16]), 42);
    builder.bytes("web01/web01.vmx", b"displayName = \"web01\"\n");
    builder.symlink("web01/link", "../elsewhere/x");
    builder.rdm("web01/raw-rdm.vmdk", 3 << 30);
    builder.file(
        "web01/running-flat.vmdk",
        sparse(),
        FileSpec {
            lock: Some((host, 1)),
            ..FileSpec::default()
        },
    );
    builder
}

#[test]
fn everything_of_a_made_volume() {
    for builder in [Builder::five("store 5"), Builder::six("store 6")] {
        let builder = filled(builder);
        let disk = builder.disks().remove(0);
        let seen = volume::recognise(&disk).unwrap().unwrap();
        assert_eq!((seen.kind, seen.readable), (FsKind::Vmfs, true));
        let fs = volume::open(&disk, &OpenOptions::default()).unwrap();
        let fs = &*fs;

        let info = fs.info();
        assert_eq!(info.kind, FsKind::Vmfs);
        assert!(info.label.unwrap().to_string().starts_with("store"));
        assert_eq!(info.dirty, Some(true));
        assert!(
            info.remarks.iter().any(|r| r.contains("mounted by host")),
            "{:?}",
            info.remarks
        );

        let names = |dir| -> Vec<String> {
            let mut names: Vec<_> = list(fs, dir).iter().map(|e| e.name.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(names(fs.root()), ["web01"]);
        assert_eq!(
            names(find(fs, "web01")),
            ["link", "raw-rdm.vmdk", "running-flat.vmdk", "web01.vmx"]
        );
        let metafiles: Vec<String> = fs.metafiles().iter().map(|m| m.name.to_string()).collect();
        assert!(metafiles.contains(&".fbb.sf".to_owned()), "{metafiles:?}");

        let vmx = find(fs, "web01/web01.vmx");
        let metadata = fs.metadata(vmx).unwrap();
        assert_eq!((metadata.kind, metadata.size), (NodeKind::File, 22));
        assert_eq!(metadata.remarks, Vec::<String>::new());
        assert_eq!(
            all(&*fs.open(vmx, None).unwrap()),
            b"displayName = \"web01\"\n"
        );

        let link = find(fs, "web01/link");
        assert_eq!(fs.metadata(link).unwrap().kind, NodeKind::Symlink);
        let link = fs.read_link(link).unwrap();
        assert_eq!(link.target.to_string(), "../elsewhere/x");

        let rdm = find(fs, "web01/raw-rdm.vmdk");
        let metadata = fs.metadata(rdm).unwrap();
        assert_eq!(metadata.size, 3 << 30);
        let refusal = metadata.refusal.unwrap();
        assert_eq!(refusal.kind(), ErrorKind::Unsupported);
        let e = fs.open(rdm, None).unwrap_err();
        assert_eq!(e.to_string(), refusal.to_string());

        // Holes are runs, and the extents cover the file without overlapping.
        let flat = find(fs, "web01/running-flat.vmdk");
        let disk = fs.open(flat, None).unwrap();
        assert!(all(&*disk) == all(&*sparse()));
        disk_io::conformance::check_rules(&*disk);
        assert!(disk.run_at(2 * MIB).unwrap().kind != RunKind::Data);
        let extents = fs.extents(flat, None).unwrap();
        let mut at = 0;
        for e in &extents {
            assert_eq!(e.offset, at);
            at += e.len;
        }
        assert_eq!(at, 5 * MIB);
        assert!(extents.iter().any(|e| e.place.is_none()));
        let remarks = fs.metadata(flat).unwrap().remarks;
        assert!(
            matches!(remarks.as_slice(), [one] if one.contains("in use by host")),
            "{remarks:?}"
        );

        // A name of the descriptor's earlier life opens nothing.
        let stale = NodeId {
            sequence: vmx.sequence.wrapping_add(1),
            ..vmx
        };
        assert_eq!(fs.open(stale, None).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(fs.metadata(NodeId::plain(u64::MAX >> 16)).is_err());
        assert!(fs.open(find(fs, "web01"), None).is_err());
        assert!(fs.open(vmx, Some(&Name::from("x"))).is_err());
    }
}

#[test]
fn spans_need_all_devices_or_a_word() {
    let builder = filled(Builder::six("span").devices(&[2, 2]));
    let disks = builder.disks();
    for disk in &disks {
        let e = volume::open(disk, &OpenOptions::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused);
        assert!(e.to_string().contains("--with"), "{e}");
        // A device of another volume does not help, and does not harm.
        let other = filled(Builder::five("other").seed(99)).disks().remove(0);
        let mut all_of_them = disks.clone();
        all_of_them.push(other.clone());
        assert!(Vmfs::open_among(disk, &[other], false).is_err());
        let fs = Vmfs::open_among(disk, &all_of_them, false).unwrap();
        let flat = find(&fs, "web01/running-flat.vmdk");
        assert!(all(&*fs.open(flat, None).unwrap()) == all(&*sparse()));
    }
    let fs = Vmfs::open_among(&disks[0], &[], true).unwrap();
    let remarks = fs.info().remarks;
    assert!(remarks.iter().any(|r| r.contains("missing")), "{remarks:?}");
}
