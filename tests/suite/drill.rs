//! `drill` starts a small disk of our own, and says so when there is nothing to start.
//!
//! Skipped without qemu-system-x86_64 even where peers are required: its package takes the place
//! of qemu-utils of another version, so the tests do not install it.

use serde_json::Value;
use std::{fs, path::Path, process::Command};
use tests::tools;

/// A disk whose boot sector writes a line to the screen and to the serial port, and halts.
fn bootable() -> Vec<u8> {
    // cli; xor ax,ax; mov ds,ax; mov es,ax; mov si,text
    let mut code = vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0xbe, 0, 0x7c];
    // next: lodsb; test al,al; jz halt
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x0f]);
    // push ax; int 10h, function 0Eh; pop ax; out to port 3F8h; jmp next
    code.extend([0x50, 0xb4, 0x0e, 0xbb, 7, 0, 0xcd, 0x10, 0x58]);
    code.extend([0xba, 0xf8, 0x03, 0xee, 0xeb, 0xec]);
    // halt: hlt; jmp halt
    code.extend([0xf4, 0xeb, 0xfd]);
    code[8] = code.len() as u8;
    code.extend(b"vmdkit drill: it lives\r\n\0");
    let mut disk = vec![0; 1 << 20];
    disk[..code.len()].copy_from_slice(&code);
    // One active partition of unknown kind.
    disk[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0xda, 0, 33, 0, 1, 0, 0, 0, 100, 0, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn drill(disk: &Path, args: &[&str], code: i32) -> Value {
    let out = Command::new(tools::vmdkit().unwrap())
        .args(["drill", "--json", "--format", "raw"])
        .arg(disk)
        .args(args)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(code), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn a_disk_of_our_own_starts() {
    if tools::find("qemu-system-x86_64").is_none() {
        tests::say!("drill not tried: qemu-system-x86_64 is not here");
        return;
    }
    if !tools::can_fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    fs::write(&disk, bootable()).unwrap();
    let (picture, page) = (dir.path().join("s.png"), dir.path().join("d.html"));
    let args = [
        "--until",
        "serial=it lives",
        "--screenshot",
        picture.to_str().unwrap(),
        "--report",
        page.to_str().unwrap(),
    ];
    let said = drill(&disk, &args, 0);
    assert_eq!(said["result"], "started");
    assert!(
        said["screen_text"].as_str().unwrap().contains("it lives"),
        "{said}"
    );
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    assert!(
        fs::read_to_string(&page)
            .unwrap()
            .contains("data:image/png;base64,")
    );
    // Nothing was written to it, and nothing stays mounted.
    assert!(fs::read(&disk).unwrap() == bootable());
    let said = drill(&disk, &["--until", "screen=it lives", "--bus", "virtio"], 0);
    assert_eq!(said["seen"], "screen: it lives");
    let said = drill(&disk, &["--until", "serial=never", "--timeout", "8s"], 4);
    assert_eq!(said["result"], "timeout");
    // Without a boot sector firmware finds nothing.
    let mut none = bootable();
    none[510] = 0;
    none[..446].fill(0);
    fs::write(&disk, none).unwrap();
    let said = drill(&disk, &["--timeout", "60s"], 4);
    assert_eq!(said["result"], "failed", "{said}");
}
