use super::*;
use disk_io::{ErrorKind, MemDisk};
use proptest::prelude::*;

fn of(bytes: &[u8]) -> Option<Format> {
    probe(&MemDisk::new(bytes)).unwrap()
}

#[test]
fn every_signature_is_found_even_when_nothing_follows() {
    for m in MAGICS {
        let mut bytes = vec![0; m.0];
        bytes.extend_from_slice(m.1);
        assert_eq!(of(&bytes), Some(m.2), "{:?}", m.2);
        bytes.resize(70_000, 0x11);
        assert_eq!(of(&bytes), Some(m.2), "{:?}", m.2);
        // One bit off is not it.
        bytes[m.0] ^= 0x80;
        assert_eq!(of(&bytes), None, "{:?}", m.2);
    }
}

#[test]
fn versions_tails_and_texts() {
    assert_eq!(of(b"QFI\xfb\0\0\0\x01"), Some(Format::Qcow1));
    assert_eq!(of(b"QFI\xfb\0\0\0\x03"), Some(Format::Qcow2));
    assert_eq!(of(b"QFI\xfb\0\0\0\x09"), Some(Format::Qcow2));
    assert_eq!(of(b"QFI\xfb"), Some(Format::Qcow2));
    assert_eq!(of(b"BZh91AY&SY"), Some(Format::Bzip2));
    assert_eq!(of(b""), None);
    assert_eq!(of(&[0; 40_000]), None);
    let mut vhd = vec![0; 1024 + 512];
    vhd[1024..1032].copy_from_slice(b"conectix");
    assert_eq!(of(&vhd), Some(Format::Vhd));
    vhd.pop();
    assert_eq!(of(&vhd), Some(Format::Vhd), "a footer of 511 bytes");
    let xml = "<?xml version='1.0'?>\n<ovf:Envelope xmlns:ovf='x'/>";
    assert_eq!(of(xml.as_bytes()), Some(Format::Ovf));
    let wide: Vec<u8> = std::iter::once(0xfeff)
        .chain(xml.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(of(&wide), Some(Format::Ovf));
    assert_eq!(of(b"<html></html>"), None);
    assert_eq!(
        of(b".encoding = \"UTF-8\"\nconfig.version = \"8\"\n"),
        Some(Format::Vmx)
    );
    let mut iso = vec![0; 40_000];
    iso[32769..32774].copy_from_slice(b"CD001");
    assert_eq!(of(&iso), Some(Format::Iso));
    iso[510..512].copy_from_slice(b"\x55\xaa");
    assert_eq!(of(&iso), None, "a hybrid disc is a disk");
}

#[test]
fn what_a_vmdk_is() {
    for head in [
        &b"KDMV\x01\0\0\0"[..],
        b"COWD\x01\0\0\0",
        b"# Disk DescriptorFile\nversion=1\n",
    ] {
        let mut bytes = head.to_vec();
        bytes.resize(1024, 0);
        assert_eq!(of(&bytes), Some(Format::Vmdk));
    }
}

#[test]
fn a_read_error_is_an_error() {
    let disk = disk_io::faults::FailAfter::new(std::sync::Arc::new(MemDisk::new(vec![1; 600])), 0);
    assert_eq!(probe(&disk).unwrap_err().kind(), ErrorKind::Io);
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = of(&bytes);
    }
}
