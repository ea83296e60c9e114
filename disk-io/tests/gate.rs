//! The gate over host directories: what an image may name, and what it may not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use disk_io::{Disk, ErrorKind, HostDir, Locate, Purpose, RunKind, conformance, host_dir::Allowed};
use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::symlink,
    path::Path,
};

fn refused(dir: &HostDir, name: &str) -> String {
    let e = dir
        .open(Path::new(name), Purpose::Extent)
        .expect_err(&format!("{name} was opened"));
    assert_eq!(e.kind(), ErrorKind::Refused, "{name}: {e}");
    e.to_string()
}

#[test]
fn only_regular_files_beneath_the_directory() {
    let tmp = tempfile::tempdir().unwrap();
    let vm = tmp.path().join("vm");
    fs::create_dir_all(vm.join("sub")).unwrap();
    fs::write(vm.join("a.vmdk"), b"inside").unwrap();
    fs::write(vm.join("sub/b.vmdk"), b"deeper").unwrap();
    fs::write(tmp.path().join("secret"), b"outside").unwrap();
    symlink("../secret", vm.join("link.vmdk")).unwrap();
    symlink("sub", vm.join("linkdir")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        vm.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let dir = HostDir::new(&vm, &Allowed::default()).unwrap();

    for good in ["a.vmdk", "./a.vmdk", "sub/../a.vmdk", "sub/b.vmdk"] {
        let opened = dir.open(Path::new(good), Purpose::Extent).unwrap();
        assert_eq!(opened.disk.len(), 6, "{good}");
    }
    let absolute = vm.canonicalize().unwrap().join("a.vmdk");
    dir.open(&absolute, Purpose::Extent).unwrap();

    for bad in [
        "../secret",
        "/etc/passwd",
        "sub/../../secret",
        "../vm2/x",
        "",
    ] {
        refused(&dir, bad);
    }
    assert!(refused(&dir, "../secret").contains("--allow-dir '"));
    assert!(refused(&dir, "link.vmdk").contains("symbolic link"));
    assert!(refused(&dir, "linkdir/b.vmdk").contains("symbolic link"));
    // A pipe would hang an open that waits for a writer.
    assert!(refused(&dir, "pipe").contains("pipe"));
    refused(&dir, "sub");
    refused(&dir, "/dev/null");

    let missing = dir
        .open(Path::new("gone.vmdk"), Purpose::Parent)
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("gone.vmdk"), "{missing}");
}

#[test]
fn an_allowed_directory_opens_by_either_spelling() {
    let tmp = tempfile::tempdir().unwrap();
    let real = tmp.path().join("real");
    fs::create_dir_all(&real).unwrap();
    fs::create_dir_all(tmp.path().join("vm")).unwrap();
    fs::write(real.join("base.vmdk"), b"base").unwrap();
    symlink(&real, tmp.path().join("alias")).unwrap();
    let allowed = Allowed {
        dirs: vec![tmp.path().join("alias")],
        ..Allowed::default()
    };
    let dir = HostDir::new(&tmp.path().join("vm"), &allowed).unwrap();
    for name in ["../alias/base.vmdk", "../real/base.vmdk"] {
        let opened = dir.open(Path::new(name), Purpose::Parent).unwrap();
        assert_eq!(opened.disk.len(), 4);
        // Names inside that file are looked up beside it.
        let again = opened.dir.open(Path::new("base.vmdk"), Purpose::Extent);
        assert_eq!(again.unwrap().id, opened.id);
    }
}

#[test]
fn source_may_be_a_link_and_names_are_looked_up_where_it_leads() {
    let tmp = tempfile::tempdir().unwrap();
    let real = tmp.path().join("real");
    fs::create_dir_all(&real).unwrap();
    fs::write(real.join("d.vmdk"), b"descriptor").unwrap();
    fs::write(real.join("d-flat.vmdk"), b"flat").unwrap();
    symlink("real/d.vmdk", tmp.path().join("link")).unwrap();
    let opened = HostDir::open_source(&tmp.path().join("link"), &Allowed::default()).unwrap();
    let flat = opened.dir.open(Path::new("d-flat.vmdk"), Purpose::Extent);
    assert_eq!(flat.unwrap().disk.len(), 4);
    let e = HostDir::open_source(tmp.path(), &Allowed::default()).unwrap_err();
    assert!(e.to_string().contains("a directory"), "{e}");
}

#[test]
fn a_file_keeps_the_contract_and_shows_its_holes() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("sparse");
    let mut file = File::create(&path).unwrap();
    let mut expected = vec![0; 3 << 20];
    for at in [0, 1 << 20, (3 << 20) - 5] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"12345").unwrap();
        expected[at as usize..at as usize + 5].copy_from_slice(b"12345");
    }
    let opened = HostDir::open_source(&path, &Allowed::default()).unwrap();
    conformance::check(&opened.disk, &expected);
    assert_eq!(
        opened.disk.run_at(512 << 10).unwrap().kind,
        RunKind::Unallocated
    );
}

#[test]
fn a_file_that_shrinks_is_an_error_not_zeros() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("f");
    fs::write(&path, vec![7; 10_000]).unwrap();
    let opened = HostDir::open_source(&path, &Allowed::default()).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(5_000)
        .unwrap();
    let e = opened.disk.read_exact_at(&mut [0; 4096], 4096).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Io);
    assert!(e.to_string().contains("cut short"), "{e}");
    // Nor is what is gone a hole: whoever asks before reading would write zeros.
    for at in [0, 4096, 5_000, 9_999] {
        let run = opened.disk.run_at(at).unwrap();
        assert_eq!(run.kind, RunKind::Data, "{at}");
    }
}

#[test]
fn many_files_share_few_descriptors() {
    let tmp = tempfile::tempdir().unwrap();
    for i in 0..300u32 {
        fs::write(tmp.path().join(format!("f{i}")), i.to_le_bytes()).unwrap();
    }
    let allowed = Allowed {
        open_files: 8,
        ..Allowed::default()
    };
    let dir = HostDir::new(tmp.path(), &allowed).unwrap();
    let files: Vec<_> = (0..300)
        .map(|i| {
            dir.open(Path::new(&format!("f{i}")), Purpose::Extent)
                .unwrap()
        })
        .collect();
    let ours = || {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|e| fs::read_link(e.unwrap().path()).ok())
            .filter(|to| to.starts_with(tmp.path()))
            .count()
    };
    // The directory itself is open too, once.
    assert!(ours() <= 9, "{} open", ours());
    for round in 0..2 {
        for (i, f) in files.iter().enumerate() {
            let mut buf = [0; 4];
            f.disk.read_exact_at(&mut buf, 0).unwrap();
            assert_eq!(u32::from_le_bytes(buf) as usize, i, "round {round}");
        }
    }
    assert!(ours() <= 9, "{} open", ours());
    // A file replaced behind our back is noticed when it is opened again, even if it got
    // the old one's inode. Time stamps have the resolution of the kernel's tick.
    std::thread::sleep(std::time::Duration::from_millis(30));
    fs::remove_file(tmp.path().join("f0")).unwrap();
    fs::write(tmp.path().join("f0"), b"evil").unwrap();
    let e = files[0].disk.read_exact_at(&mut [0; 4], 0).unwrap_err();
    assert!(e.to_string().contains("replaced"), "{e}");
}
