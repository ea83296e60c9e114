//! `--datastore`: a whole chain inside a VMFS-6 volume on a partitioned LUN.

use crate::common::{Fixture, contents_of_c};
use disk_io::{Disk, MemDisk, RunKind};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::Arc,
};
use vmdk::write::{
    Cell, cowd,
    descriptor::{Text, extent},
    sesparse,
};
use vmfs_reader::{
    Uuid,
    build::{Builder, FileSpec, Provision},
};

/// Where the volume begins on the LUN.
const START: u64 = 2048 * 512;

fn descriptor(cid: u32, parent: Option<(u32, &str)>, kind: &str, line: String) -> Vec<u8> {
    let text = Text {
        cid,
        parent,
        create_type: kind,
        extents: vec![line],
    };
    text.encode().into_bytes()
}

/// The machine of those disks, with a snapshot of each state before the last.
const VMX: &str = "config.version = \"8\"\nvirtualHW.version = \"14\"\n\
    displayName = \"web 01\"\nscsi0:0.fileName = \"web01-000002.vmdk\"\n";
const VMSD: &str = "snapshot.numSnapshots = \"2\"\nsnapshot.current = \"2\"\n\
    snapshot0.uid = \"1\"\nsnapshot0.displayName = \"first\"\nsnapshot0.numDisks = \"1\"\n\
    snapshot0.disk0.fileName = \"web01.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n\
    snapshot1.uid = \"2\"\nsnapshot1.parent = \"1\"\nsnapshot1.displayName = \"second\"\n\
    snapshot1.numDisks = \"1\"\nsnapshot1.disk0.node = \"scsi0:0\"\n\
    snapshot1.disk0.fileName = \"/vmfs/volumes/store1/web01/web01-000001.vmdk\"\n";

/// `lun.img` with the datastore `store1`: `web01/web01.vmdk` (flat), `web01-000001.vmdk` over
/// it (COWD), `web01-000002.vmdk` over that (seSparse). `a.txt` says hello, HELLO, third.
fn lun(f: &Fixture, in_use: bool) {
    let raw = f.raw();
    let at = raw.windows(6).position(|w| w == b"hello\n").unwrap();
    let sectors = (raw.len() / 512) as u64;
    let changed = |text: &[u8], grain: usize| {
        let start = at / grain * grain;
        let mut bytes = raw[start..start + grain].to_vec();
        bytes[at - start..at - start + 6].copy_from_slice(text);
        [((start / grain) as u64, Cell::Data(bytes))]
    };
    let cowd = cowd::encode(sectors as u32, 1, &changed(b"HELLO\n", 512));
    let sesparse = sesparse::encode(sectors, &changed(b"third\n", 4096), false);
    let mut builder = Builder::six("store1");
    let host = builder.heartbeat(Uuid([7; 16]), 3);
    let mut flat = FileSpec {
        provision: Provision::Thin,
        ..FileSpec::default()
    };
    if in_use {
        flat.lock = Some((host, 1));
    }
    builder
        .bytes(
            "web01/web01.vmdk",
            &descriptor(1, None, "vmfs", extent(sectors, "VMFS", "web01-flat.vmdk")),
        )
        .bytes(
            "web01/web01-000001.vmdk",
            &descriptor(
                2,
                Some((1, "web01.vmdk")),
                "vmfsSparse",
                extent(sectors, "VMFSSPARSE", "web01-000001-delta.vmdk"),
            ),
        )
        .bytes(
            "web01/web01-000002.vmdk",
            &descriptor(
                3,
                Some((2, "/vmfs/volumes/store1/web01/web01-000001.vmdk")),
                "seSparse",
                extent(sectors, "SESPARSE", "web01-000002-sesparse.vmdk"),
            ),
        )
        .bytes("web01/web01.vmx", VMX.as_bytes())
        .bytes("web01/web01.vmsd", VMSD.as_bytes())
        .bytes("web01/web01-000001-delta.vmdk", &cowd)
        .bytes("web01/web01-000002-sesparse.vmdk", &sesparse)
        .file(
            "web01/web01-flat.vmdk",
            Arc::new(MemDisk::new(raw.clone())),
            flat,
        );
    let [volume] = builder.disks().try_into().unwrap();
    let file = File::create(f.path("lun.img")).unwrap();
    file.set_len(START + volume.len()).unwrap();
    let mut mbr = [0u8; 512];
    mbr[446 + 4] = 0xfb;
    mbr[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    let len = (volume.len() / 512) as u32;
    mbr[446 + 12..446 + 16].copy_from_slice(&len.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&mbr, 0).unwrap();
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    while at < volume.len() {
        let run = volume.run_at(at).unwrap();
        let n = run.len.min(buffer.len() as u64) as usize;
        if run.kind == RunKind::Data {
            volume.read_exact_at(&mut buffer[..n], at).unwrap();
            file.write_all_at(&buffer[..n], START + at).unwrap();
        }
        at += n as u64;
    }
}

#[test]
fn a_guest_file_out_of_a_chain_on_a_lun() {
    let f = Fixture::new();
    lun(&f, false);
    // Nothing on the host helps.
    fs::remove_file(f.path("disk.vmdk")).unwrap();
    let cat = |disk: &str, store: &str| {
        let ran = f.run(&["cat", "-D", store, disk, "/p0/a.txt"]).code(0);
        ran.text().trim_end().to_owned()
    };
    assert_eq!(cat("web01/web01.vmdk", "lun.img"), "hello");
    assert_eq!(cat("web01/web01-000001.vmdk", "lun.img"), "HELLO");
    assert_eq!(cat("web01/web01-000002.vmdk", "lun.img#p1"), "third");
    assert_eq!(cat("[store1] web01/web01-000002.vmdk", "lun.img"), "third");
    assert_eq!(
        cat("/vmfs/volumes/store1/web01/web01-000002.vmdk", "lun.img"),
        "third"
    );
    assert_eq!(
        cat("[mine] web01/web01-000001.vmdk", "mine=lun.img"),
        "HELLO"
    );
    let top = "web01/web01-000002.vmdk";
    let c = f
        .run(&["cat", "-D", "lun.img", top, "/p0/dir/sub/c.bin"])
        .code(0);
    assert!(c.out == contents_of_c());
    let map = f.run(&["map", "-D", "lun.img", top]).code(0);
    assert!(map.text().contains("web01-flat.vmdk"), "{}", map.text());
    let info = f.run(&["info", "-D", "lun.img", top]).code(0);
    assert!(
        info.text().contains("[store1] web01/web01-000001.vmdk"),
        "{}",
        info.text()
    );
    f.run(&["cp", "-r", "-D", "lun.img", top, "/p0/dir", "out"])
        .code(0);
    assert!(fs::read(f.path("out/sub/c.bin")).unwrap() == contents_of_c());
    let convert = [
        "convert",
        "-D",
        "lun.img",
        top,
        "flat.qcow2",
        "--to",
        "qcow2",
        "--verify",
    ];
    f.run(&convert).code(0);
    assert_eq!(
        f.run(&["cat", "flat.qcow2", "/p0/a.txt"]).code(0).text(),
        "third\n"
    );
    if std::path::Path::new("/dev/fuse").exists() {
        fs::create_dir(f.path("mnt")).unwrap();
        f.run(&["mount", "-D", "lun.img", top, "mnt"]).code(0);
        let read = fs::read(f.path("mnt/p0/a.txt"));
        f.run(&["umount", "mnt"]).code(0);
        assert_eq!(read.unwrap(), b"third\n");
    }
    // The LUN as SOURCE shows the datastore's own files.
    let listing = f.run(&["ls", "lun.img", "/p1/web01"]).code(0);
    assert!(listing.text().contains("web01-000002-sesparse.vmdk"));
}

/// A machine on a LUN: listed, every state of it read, backed up, verified, restored, and
/// browsed through a mount.
#[test]
fn a_machine_on_a_lun() {
    let f = Fixture::new();
    lun(&f, false);
    fs::remove_file(f.path("disk.vmdk")).unwrap();
    for args in [
        &["vm", "--json", "-D", "lun.img"][..],
        &["vm", "--json", "lun.img"],
    ] {
        let vm = f.run(args).code(0).json();
        let place = &vm["places"][0];
        assert_eq!(place["place"], "[store1]");
        assert_eq!(place["unused"].as_array().unwrap().len(), 0, "{place}");
        let web = &place["vms"][0];
        assert_eq!(web["name"], "web 01");
        let chain = web["points"][0]["disks"][0]["chain"].as_array().unwrap();
        assert_eq!(chain.len(), 3, "{web}");
    }
    let states = [
        ("/snapshots/first/scsi0-0/p0/a.txt", "hello\n"),
        ("/snapshots/second/scsi0-0/p0/a.txt", "HELLO\n"),
        ("/current/scsi0-0/p0/a.txt", "third\n"),
    ];
    for source in ["web01", "web01/web01.vmx", "[store1] web01/web01.vmx"] {
        for (path, says) in states {
            let cat = f.run(&["cat", "-D", "lun.img", source, path]).code(0);
            assert_eq!(cat.text(), says, "{source} {path}");
        }
    }
    let history = ["history", "--json", "-D", "lun.img", "web01", "/a.txt"];
    let history = f.run(&history).code(0).json();
    let changed = history["versions"].as_array().unwrap().iter();
    assert!(
        changed.into_iter().all(|v| v["changed"] == true),
        "{history}"
    );

    f.run(&["check", "-D", "lun.img", "web01"]).code(0);
    f.run(&["export", "-D", "lun.img", "web01", "out"]).code(0);
    f.run(&["verify", "out"]).code(0);
    f.run(&["verify", "out", "--against", "out"]).code(0);
    f.run(&["restore", "out", "back"]).code(0);
    let cat = f.run(&["cat", "back", "/a.txt"]).code(0);
    assert_eq!(cat.text(), "third\n");

    if crate::mount::no_fuse() {
        return;
    }
    fs::create_dir(f.path("mnt")).unwrap();
    f.run(&["mount", "--guests", "lun.img", "mnt"]).code(0);
    let results: Vec<_> = states
        .iter()
        .map(|(path, says)| {
            let path = f
                .path("mnt/guests/web 01")
                .join(path.trim_start_matches('/'));
            (fs::read_to_string(path), *says)
        })
        .collect();
    let own = fs::metadata(f.path("mnt/p1/web01/web01.vmx"));
    f.run(&["umount", "mnt"]).code(0);
    for (read, says) in results {
        assert_eq!(read.unwrap(), says);
    }
    assert_eq!(own.unwrap().len(), VMX.len() as u64);
}

#[test]
fn what_a_datastore_has_not() {
    let f = Fixture::new();
    lun(&f, true);
    let used = f
        .run(&["ls", "-D", "lun.img", "web01/web01-000002.vmdk"])
        .code(0);
    used.says("in use by host").says("power failure");
    let fail = |args: &[&str], said: &str| {
        let mut all = vec!["ls"];
        all.extend(args);
        f.run(&all).code(1).says(said);
    };
    fail(&["-D", "lun.img", "web02/web02.vmdk"], "web02");
    fail(&["-D", "lun.img", "[store9] web01/web01.vmdk"], "store1");
    fail(&["-D", "lun.img#p2", "web01/web01.vmdk"], "p2");
    fail(&["-D", "disk-flat.vmdk", "web01/web01.vmdk"], "expected");
    fail(&["-D", "nothing.img", "web01/web01.vmdk"], "nothing.img");
    // The host's files are not the datastore's, and the device is never the destination.
    fail(&["-D", "lun.img", "disk.vmdk"], "disk.vmdk");
    let top = "web01/web01-000002.vmdk";
    let over = [
        "convert", "-D", "lun.img", top, "lun.img", "--to", "raw", "--force",
    ];
    f.run(&over).code(1).says("source");
    // The same name in two datastores is one name too many.
    let twice = ["ls", "-D", "a=lun.img", "-D", "b=lun.img", top];
    f.run(&twice).code(2).says("[label]");
    f.run(&["ls", "-D", ",", top]).code(2);
}

#[test]
fn a_directory_as_a_datastore() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("vms/web01")).unwrap();
    for name in ["disk.vmdk", "disk-flat.vmdk"] {
        fs::rename(f.path(name), f.path("vms/web01").join(name)).unwrap();
    }
    let ran = f
        .run(&["cat", "-D", "vms", "web01/disk.vmdk", "/p0/a.txt"])
        .code(0);
    assert_eq!(ran.text(), "hello\n");
    f.run(&["ls", "-D", "vms", "../secret.vmdk"]).code(1);
    f.run(&["ls", "-D", "vms", "/etc/passwd"]).code(1);
}

/// The structures around a disk in a datastore: what touches its directory is told, what is of
/// others is counted.
#[test]
fn a_check_of_a_disk_looks_at_its_datastore() {
    let f = Fixture::new();
    let raw = f.raw();
    let mut builder = Builder::six("store1").without_lvm();
    let line = extent((raw.len() / 512) as u64, "VMFS", "web-flat.vmdk");
    builder
        .bytes("web/web.vmdk", &descriptor(1, None, "vmfs", line))
        .bytes("web/web-flat.vmdk", &raw)
        .bytes("mail/mail.vmx", b"x = \"1\"\n");
    let device = builder.build().pop().unwrap();
    device.write_to(&f.path("lun.img")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(device);
    let options = vmfs_reader::OpenOptions::default();
    let volume = vmfs_reader::Volume::open(&[disk], &options).unwrap();
    let stores = vmfs_reader::Datastores::one(volume);
    let lun = File::options().write(true).open(f.path("lun.img")).unwrap();
    let generation = |path: &str, value: u8| {
        let found = stores.resolve(0, path.as_bytes()).unwrap();
        let at = found.stat.place + 0x1004;
        lun.write_all_at(&[value], at).unwrap();
    };
    let check = || {
        let args = ["check", "--json", "-D", "lun.img", "web/web.vmdk"];
        let found = f.run(&args).json();
        let all = found["findings"].as_array().unwrap().clone();
        let code = |f: &serde_json::Value| f["code"].as_str().unwrap().to_owned();
        let codes: Vec<String> = all.iter().map(code).collect();
        (codes, found["remarks"].to_string())
    };
    assert_eq!(check(), (vec![], "[]".into()));
    generation("web/web-flat.vmdk", 9);
    let (codes, _) = check();
    assert!(codes.iter().any(|c| c == "vmfs-entry-stray"), "{codes:?}");
    generation("web/web-flat.vmdk", 1);
    generation("mail/mail.vmx", 9);
    let (codes, remarks) = check();
    assert_eq!(codes, [""; 0]);
    assert!(remarks.contains("1 findings are about other"), "{remarks}");
}
