use super::*;
use disk_io::ErrorKind;

fn parse(text: &str) -> Descriptor {
    Descriptor::parse(text.as_bytes(), "t.vmdk").unwrap()
}

#[test]
fn tolerates_every_form_seen_in_the_field() {
    let text = "\u{feff}# disk descriptorfile\r\nVersion = 1\r\n\r\nCID = 0172E8A4 \r\nparentCID=ffffffff\r\n\
        createType=monolithicFlat\r\n\t\r\n# Extent description\r\nrw\t4096   flat\t\"a b.vmdk\"\t0\r\n\
        RDONLY 8 ZERO\r\n\r\nNOACCESS 0 ZERO\r\nRW 1 VMFS \"x-flat.vmdk\"\r\n\
        RW 63 FLAT \"\\\\.\\PhysicalDrive2\" 63 \"uuid\" dev\r\nsomeKey=\"some \"quoted\" value\"\r\n\
        ddb.adapterType = \"lsilogic\"\r\n#ddb.x = \"no\"\r\n\0\0garbage";
    let d = parse(text);
    assert_eq!(d.cid(), Some(0x0172_e8a4));
    assert_eq!(d.parent_cid().unwrap(), None);
    assert_eq!(d.create_type(), Some("monolithicFlat"));
    assert_eq!(d.ddb("adaptertype"), Some("lsilogic"));
    assert_eq!(d.get("somekey"), Some("some \"quoted\" value"));
    assert_eq!(d.ddb("x"), None);
    let e: Vec<_> = d.extents().cloned().collect();
    assert_eq!(e.len(), 5);
    assert_eq!(e[0].file.as_deref(), Some("a b.vmdk"));
    assert_eq!((e[0].sectors, e[0].offset), (4096, Some(0)));
    assert_eq!(e[1].access, Access::ReadOnly);
    assert_eq!(e[2].access, Access::NoAccess);
    assert_eq!((e[3].kind.clone(), e[3].offset), (ExtentType::Vmfs, None));
    assert_eq!(e[4].file.as_deref(), Some(r"\\.\PhysicalDrive2"));
    assert_eq!(e[4].offset, Some(63));
    assert!(d.warnings().is_empty(), "{:?}", d.warnings());
    // Every line is kept as it was.
    assert_eq!(d.lines().len(), 17);
}

#[test]
fn encodings() {
    for (label, encoding, name) in [
        ("UTF-8", encoding_rs::UTF_8, "диск-磁碟.vmdk"),
        ("windows-1252", encoding_rs::WINDOWS_1252, "Größe.vmdk"),
        ("GBK", encoding_rs::GBK, "磁盘.vmdk"),
        ("cp936", encoding_rs::GBK, "磁盘.vmdk"),
        ("Big5", encoding_rs::BIG5, "功能.vmdk"),
        ("Shift_JIS", encoding_rs::SHIFT_JIS, "表ソ.vmdk"),
    ] {
        let text = format!("version=1\nencoding=\"{label}\"\nRW 1 FLAT \"{name}\" 0\n");
        let (bytes, _, bad) = encoding.encode(&text);
        assert!(!bad);
        let d = Descriptor::parse(&bytes, "t").unwrap();
        assert_eq!(d.encoding(), encoding, "{label}");
        let first = d.extents().next().unwrap().file.clone();
        assert_eq!(first.as_deref(), Some(name), "{label}");
    }
    // Not named: UTF-8, else windows-1252.
    let d = Descriptor::parse(b"RW 1 FLAT \"Gr\xf6\xdfe\" 0\n", "t").unwrap();
    assert_eq!(d.extents().next().unwrap().file.as_deref(), Some("Größe"));
    let d = Descriptor::parse(b"encoding=\"klingon\"\nRW 1 ZERO\n", "t").unwrap();
    assert_eq!(d.warnings().len(), 1);
}

#[test]
fn strict_where_it_matters() {
    for bad in [
        "RW x FLAT \"a\" 0",
        "RW -1 FLAT \"a\" 0",
        "RW +1 FLAT \"a\" 0",
        "RW 99999999999999999999 FLAT \"a\" 0",
        "RW 1 FLAT",
        "RW 1 FLAT \"\" 0",
        "RW 1",
        "RW",
        "RW 1 FLAT \"a",
        "RW 1 FLAT \"a\"b\" 0",
        "RW 1 FLAT \"a\u{1}\" 0",
        "RW 1 FLAT \"a\" x",
        "WO 1 FLAT \"a\" 0",
    ] {
        let e = Descriptor::parse(bad.as_bytes(), "t").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{bad}: {e}");
    }
    let d = parse("parentCID=xyz\nRW 1 ZERO");
    assert_eq!(d.parent_cid().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(parse("CID=-1\n").cid(), None);
    assert_eq!(parse("what is this\n").warnings().len(), 1);
}

#[test]
fn limits() {
    let many = "RW 1 ZERO\n".repeat(MAX_EXTENTS);
    assert_eq!(parse(&many).extent_count(), MAX_EXTENTS);
    let more = "RW 1 ZERO\n".repeat(MAX_EXTENTS + 1);
    let e = Descriptor::parse(more.as_bytes(), "t").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
    let e = Descriptor::parse("\n".repeat(MAX_LINES + 1).as_bytes(), "t").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
}

#[test]
fn recognised_by_content() {
    for yes in [
        "# Disk DescriptorFile\n",
        "#Disk descriptorfile \r\n",
        "\u{feff}# Disk DescriptorFile\n",
        "\n\nversion=1\nCID=1\n",
        "# x\nversion = 1\nRW 1 ZERO\n",
        "encoding=\"GBK\"\nversion=1\ncreateType=\"vmfs\"",
    ] {
        assert!(looks_like_one(yes.as_bytes()), "{yes:?}");
    }
    for no in [
        "",
        "\0\0\0\0",
        "version=1\n",
        "[x]\nversion=1\nCID=2",
        ".encoding = \"UTF-8\"\nconfig.version = \"8\"\n",
        "<!DOCTYPE html>",
        "MZ",
    ] {
        assert!(!looks_like_one(no.as_bytes()), "{no:?}");
    }
}
