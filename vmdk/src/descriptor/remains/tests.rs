use super::*;

const HOST: Host<'_> = Host {
    name: "disk.vmdk",
    capacity: 2048,
    grain: 128,
};
const SOUND: &str = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=12345678\n\
    parentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n# Extent description\n\
    RW 2048 SPARSE \"disk.vmdk\"\n\n#DDB\nddb.adapterType = \"ide\"\n";

/// `text` with `from` replaced; zeros are written as `~`.
fn with(from: &str, to: &str) -> Result<Descriptor, Doubt> {
    assert!(SOUND.contains(from), "{from}");
    let text = SOUND.replacen(from, to, 1).replace('~', "\0");
    Descriptor::remains(text.as_bytes(), HOST)
}

#[test]
fn what_is_left_is_taken() {
    for (from, to) in [
        ("", ""),
        ("# E", "~~~"),
        ("# Disk DescriptorFile\nversion=1\nenc", "~~~"),
        ("12345678\n", "1234~~~~~"),
        ("\nparentCID=ffffffff\n", "~parentCID=ffffffff~"),
        ("parentCID=ffffffff\n", "ParentCid = \"FFFFFFFF\" \r\n"),
        ("createType", "~~~~~~~~~~"),
        ("Sparse\"\n\n", "~~~"),
        ("RW 2048 SPARSE \"disk.vmdk\"\n", "~"),
        ("RW 2048 SPARSE", "RW 2048 SP\u{7f}~SE"),
        ("RW 2048", "RW 204"),
        ("RW 2048", "RW 20x8"),
        ("SPARSE", "SPAQSE"),
        ("\"disk.vmdk\"", "\"di~k.vmdk\""),
        ("\"disk.vmdk\"", "\"disk.vmd\n"),
        ("\"disk.vmdk\"", "\"/old/place/DISK.vmdk\""),
        ("\"disk.vmdk\"", "\"generated-stream.vmdk\""),
        ("\"disk.vmdk\"", "\"sub/renamed.vmdk\""),
        ("#DDB", "#~"),
    ] {
        let d = with(from, to).unwrap_or_else(|e| panic!("{from} {to}: {e}"));
        let all: Vec<_> = d.extents().collect();
        assert_eq!((all.len(), d.extent_count()), (1, 1), "{from} {to}");
        assert_eq!(all[0].sectors, 2048);
        assert_eq!((d.parent_cid().unwrap(), d.parent_hint()), (None, None));
        assert_eq!(d.ddb("adapterType"), Some("ide"));
    }
    // A value that is cut is none.
    assert_eq!(with("12345678\n", "1234~~~~~").unwrap().cid(), None);
    let d = with("# E", "~").unwrap();
    assert_eq!(d.cid(), Some(0x1234_5678));
    assert_eq!(d.create_type(), Some("monolithicSparse"));
}

#[test]
fn bytes_that_are_no_text() {
    let mut bytes = SOUND.as_bytes().to_vec();
    let at = SOUND.find("# E").unwrap();
    bytes[at..at + 20].fill(0xff);
    bytes.extend([0; 4000]);
    assert!(Descriptor::remains(&bytes, HOST).is_ok());
    for byte in [0, 0xff, b'a', b'\n', 0x80] {
        assert!(Descriptor::remains(&[byte; 10_240], HOST).is_err());
    }
    assert!(Descriptor::remains(&[], HOST).is_err());
}

#[test]
fn a_parent_is_never_left_out() {
    for (from, to) in [
        ("parentCID=ffffffff", "parentCID=12345678"),
        ("parentCID=ffffffff", "parentCID=fffffff~"),
        ("parentCID=ffffffff", "parentCID=fffffffe"),
        ("parentCID=ffffffff", "parentCID=ffffffffX"),
        ("parentCID=ffffffff", "arentCID=ffffffff"),
        ("parentCID=ffffffff", "#parentCID=ffffffff"),
        ("parentCID=ffffffff", "~~~~~~~~~~~~~~~~~~"),
        ("\nparentCID", "XparentCID"),
        (
            "parentCID=ffffffff",
            "parentCID=ffffffff\nparentCID=12345678",
        ),
        ("# E", "parentCID=12345678\n#parentCID=ffffffff\n# E"),
        ("# E", "parentFileNameHint=\"b.vmdk\"\n~"),
        ("# E", "parentF~~~NameHint=\"b.vmdk\"\n~"),
        ("# E", "~arentFil~~~~~~eHint\n~parentfileN"),
        ("#DDB", "encryption.keySafe = \"x\""),
        ("#DDB", "ddb.iofilters = \"vmwarevmcrypt\""),
    ] {
        let done = with(from, to);
        assert!(done.is_err(), "{from} {to}: {done:?}");
    }
}

#[test]
fn a_part_is_never_taken_for_the_whole() {
    for (from, to) in [
        ("monolithicSparse", "twoGbMaxExtentSparse"),
        ("monolithicSparse\"", "twoGb~"),
        ("RW 2048 SPARSE \"disk", "RW 2047~SPARSE \"other"),
        ("RW 2048 SPARSE \"disk", "RW 204 SPARSE \"disk-s001"),
        (
            "monolithicSparse\"\n\n# Extent description\nRW 2048 SPARSE \"disk",
            "monolithic~\nRW 2048 SPARSE \"other",
        ),
        ("\n\n#DDB", "\nRW 2048 SPARSE \"other.vmdk\"\n"),
        ("\n\n#DDB", "\nRW 2048 SPARSE \"disk.vmdk\"\n"),
        ("\n\n#DDB", "\n~~ 2048 SPA~~E \"other.vmdk\"\n"),
        ("\n\n#DDB", "\n#W 2048 SPARSE \"x\"\n"),
        ("\n\n#DDB", "\nRW 8 ZERO\n"),
        ("RW 2048 SPARSE", "RW 2048 FLAT"),
        ("RW 2048", "NOACCESS 2048"),
        ("RW 2048", "RW 4096"),
        // Nothing of either is left.
        (
            "createType=\"monolithicSparse\"\n\n# Extent description\nRW",
            "~~",
        ),
    ] {
        let done = with(from, to);
        assert!(done.is_err(), "{from} {to}: {done:?}");
    }
}

#[test]
fn a_parent_is_spoken_of() {
    let speaks = |from: &str, to: &str| {
        assert!(SOUND.contains(from), "{from}");
        speaks_of_parent(SOUND.replacen(from, to, 1).replace('~', "\0").as_bytes())
    };
    assert!(!speaks("", ""));
    assert!(!speaks("parentCID=ffffffff", "~"));
    assert!(!speaks("# E", "~"));
    assert!(speaks("parentCID=ffffffff", "~parentCID=12345678"));
    assert!(speaks("# E", "~~FileNameHint=\"b.vmdk\"~"));
}
