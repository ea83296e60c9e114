//! Machines as ESX 2 left them: flat disks without descriptors, redo logs on them, `name` in the
//! configuration.

use crate::common::{Fixture, LEN};
use std::fs;
use vmdk::write::{Cell, cowd};

/// A redo log on `parent` with one changed sector; a name in its header only if `named`.
fn redo(number: u64, fill: u8, parent: &str, generations: (u32, u32), named: bool) -> Vec<u8> {
    let sector = vec![fill; 512];
    let cells = [(number, Cell::Data(sector))];
    let mut log = cowd::encode((LEN / 512) as u32, 1, &cells);
    if named {
        log[32..32 + parent.len()].copy_from_slice(parent.as_bytes());
    }
    log[1056..1060].copy_from_slice(&generations.0.to_le_bytes());
    log[1060..1064].copy_from_slice(&generations.1.to_le_bytes());
    log
}

/// A sector of the file `c.bin`, and of the free space at the end.
fn machine(f: &Fixture) -> (u64, u64) {
    let dir = f.path("web");
    fs::create_dir(&dir).unwrap();
    let raw = f.raw();
    let c = crate::common::contents_of_c();
    let at = raw.windows(512).position(|w| w == &c[..512]).unwrap() as u64 / 512;
    let free = (LEN / 512 - 1) as u64;
    fs::write(dir.join("web.vmdk"), raw).unwrap();
    fs::write(
        dir.join("web.vmx"),
        "config.version = \"6\"\nvirtualHW.version = \"2\"\ndisplayName = \"web\"\n\
         scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
         scsi0:0.name = \"vmhba0:0:0:5:web.vmdk\"\nscsi0:0.mode = \"persistent\"\n",
    )
    .unwrap();
    (at, free)
}

#[test]
fn the_present_state_is_in_the_redo_log() {
    let f = Fixture::new();
    let (at, free) = machine(&f);
    let dir = f.path("web");
    // Without a log it is the disk.
    let c = f.run(&["cat", "web", "/dir/sub/c.bin"]).code(0);
    assert_eq!(c.out, crate::common::contents_of_c());
    fs::write(dir.join("web.vmdk.REDO"), redo(at, 7, "", (0, 5), false)).unwrap();
    let second = redo(free, 9, "web.vmdk.REDO", (5, 1), true);
    fs::write(dir.join("web.vmdk.REDO.REDO"), &second).unwrap();
    let mut wanted = crate::common::contents_of_c();
    wanted[..512].fill(7);
    let c = f.run(&["cat", "web", "/dir/sub/c.bin"]).code(0);
    assert_eq!(c.out, wanted);
    c.says("redo log of ESX 2");
    let vm = f.run(&["vm", "--json", "web"]).code(0).json();
    let disk = &vm["places"][0]["vms"][0]["points"][0]["disks"][0];
    assert_eq!(disk["file"], "web.vmdk.REDO.REDO");
    assert_eq!(disk["chain"].as_array().unwrap().len(), 3);
    assert_eq!(vm["places"][0]["unused"].as_array().unwrap().len(), 0);
    // A log by itself, and what the disk was before.
    let c = f
        .run(&["cat", "web/web.vmdk.REDO", "/dir/sub/c.bin"])
        .code(0);
    assert_eq!(c.out, wanted);
    let c = f.run(&["cat", "web/web.vmdk", "/dir/sub/c.bin"]).code(0);
    assert_eq!(c.out, crate::common::contents_of_c());
    c.says("newer data exists in web.vmdk.REDO.REDO");
    // Put back as a machine of today.
    f.run(&["restore", "web", "new", "--subformat", "monolithicFlat"])
        .code(0);
    let config = fs::read_to_string(f.path("new/web.vmx")).unwrap();
    assert!(
        config.contains("scsi0:0.fileName = \"web.vmdk\""),
        "{config}"
    );
    assert!(!config.contains("scsi0:0.name"), "{config}");
    let mut all = f.raw();
    all[at as usize * 512..][..512].fill(7);
    all[free as usize * 512..][..512].fill(9);
    assert!(fs::read(f.path("new/web-flat.vmdk")).unwrap() == all);
    // The lower log was written to after the upper one was made.
    fs::write(dir.join("web.vmdk.REDO"), redo(at, 7, "", (0, 6), false)).unwrap();
    f.run(&["cat", "web", "/a.txt"])
        .code(1)
        .says("generation 5");
}

#[test]
fn what_a_redo_log_must_agree_with() {
    let f = Fixture::new();
    let (at, _) = machine(&f);
    let dir = f.path("web");
    fs::write(dir.join("web.vmdk.REDO"), redo(at, 7, "", (0, 5), false)).unwrap();
    // A disk of another length is another disk.
    let mut long = f.raw();
    long.extend([0; 512]);
    fs::write(dir.join("web.vmdk"), long).unwrap();
    f.run(&["cat", "web", "/a.txt"])
        .code(1)
        .says("the log's length");
    fs::remove_file(dir.join("web.vmdk")).unwrap();
    f.run(&["cat", "web", "/a.txt"]).code(1).says("web.vmdk");
    // An extent that lost its descriptor names nothing, and is not opened alone.
    fs::rename(dir.join("web.vmdk.REDO"), dir.join("web-delta.vmdk")).unwrap();
    f.run(&["cat", "web/web-delta.vmdk", "/a.txt"])
        .code(1)
        .says("without its descriptor");
}

/// The first sector of the flat disk is the guest's: it cannot name another file.
#[test]
fn what_a_guest_writes_names_no_file() {
    let f = Fixture::new();
    let (at, _) = machine(&f);
    let dir = f.path("web");
    let mut raw = f.raw();
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\
         RW {} VMFS \"secret.bin\"\n",
        LEN / 512
    );
    raw[..text.len()].copy_from_slice(text.as_bytes());
    fs::write(dir.join("web.vmdk"), &raw).unwrap();
    fs::write(dir.join("secret.bin"), vec![0x53; LEN]).unwrap();
    fs::write(dir.join("web.vmdk.REDO"), redo(at, 7, "", (0, 5), false)).unwrap();
    f.run(&["convert", "web/web.vmdk.REDO", "out.raw", "--to", "raw"])
        .code(0);
    raw[at as usize * 512..][..512].fill(7);
    assert!(fs::read(f.path("out.raw")).unwrap() == raw);
}

#[test]
fn rival_logs_are_told() {
    let f = Fixture::new();
    let (at, _) = machine(&f);
    for name in ["web.vmdk.REDO_aaaa", "web.vmdk.REDO_bbbb"] {
        fs::write(f.path("web").join(name), redo(at, 7, "", (0, 1), false)).unwrap();
    }
    let vm = f.run(&["vm", "web"]).code(0);
    assert!(vm.text().contains("several redo logs"), "{}", vm.text());
    let c = f
        .run(&["cat", "web/web.vmdk.REDO_bbbb", "/dir/sub/c.bin"])
        .code(0);
    assert_eq!(c.out[..512], [7; 512]);
}

/// What VCB's `fullvm` left: disks by their places, the host's names in the configuration.
#[test]
fn a_fullvm_directory() {
    let f = Fixture::new();
    let dir = f.path("web");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("scsi0-0-0-web-flat.vmdk"), f.raw()).unwrap();
    let text = fs::read_to_string(f.path("disk.vmdk")).unwrap();
    let text = text.replace("disk-flat.vmdk", "scsi0-0-0-web-flat.vmdk");
    fs::write(dir.join("scsi0-0-0-web.vmdk"), text).unwrap();
    fs::write(
        dir.join("web.vmx"),
        "config.version = \"8\"\ndisplayName = \"web\"\nscsi0:0.present = \"TRUE\"\n\
         scsi0:0.fileName = \"web.vmdk\"\n",
    )
    .unwrap();
    fs::write(
        dir.join("catalog"),
        "version= \"ESX Server 3.0\"\ndisplay_name= \"web\"\nconfig.vmx= \"[ds] web/web.vmx\"\n\
         disk.scsi0:0.filename= \"scsi0-0-0-web.vmdk\"\ndisk.scsi0:0.diskname= \"[ds] web/web.vmdk\"\n",
    )
    .unwrap();
    for with_catalog in [true, false] {
        f.run(&["cat", "web", "/a.txt"]).code(0).says("is used, as");
        let new = format!("new-{with_catalog}");
        f.run(&["restore", "web", &new, "--subformat", "monolithicFlat"])
            .code(0);
        assert!(fs::read(f.path(&new).join("web-flat.vmdk")).unwrap() == f.raw());
        let _ = fs::remove_file(dir.join("catalog"));
    }
}
