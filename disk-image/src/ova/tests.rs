//! Packages made here, with a small writer of tar that knows every dialect.

use super::*;
use crate::{Format, OpenOptions};
use disk_io::{Disk, ErrorKind, FileId, Locate, MemDisk, NoFiles, Opened, Purpose, Result};
use proptest::prelude::*;
use std::{io::Write, path::Path, sync::Arc};

/// A header with a right checksum.
fn header(name: &str, size: &[u8], kind: u8, magic: &[u8]) -> Vec<u8> {
    let mut h = vec![0; 512];
    h[..name.len()].copy_from_slice(name.as_bytes());
    h[100..107].copy_from_slice(b"0000644");
    h[124..124 + size.len()].copy_from_slice(size);
    h[156] = kind;
    h[257..257 + magic.len()].copy_from_slice(magic);
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    h
}

fn octal(n: usize) -> Vec<u8> {
    format!("{n:011o}\0").into_bytes()
}

fn pad(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn member(name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = header(name, &octal(data.len()), b'0', b"ustar\x0000");
    out.extend(pad(data.to_vec()));
    out
}

fn opened(bytes: Vec<u8>) -> Opened {
    Opened {
        disk: Arc::new(MemDisk::new(bytes)),
        path: "a.ova".into(),
        id: FileId {
            container: 1,
            file: 2,
        },
        dir: Arc::new(NoFiles),
    }
}

fn archive(parts: &[Vec<u8>]) -> Result<Archive> {
    let mut all = parts.concat();
    all.extend([0; 1024]);
    Archive::open(&opened(all))
}

fn bytes_of(place: &dyn Locate, name: &str) -> Result<Vec<u8>> {
    let file = place.open(Path::new(name), Purpose::Member)?;
    let mut all = vec![0; file.disk.len() as usize];
    file.disk.read_exact_at(&mut all, 0)?;
    Ok(all)
}

#[test]
fn every_dialect_of_tar() {
    let mut base256 = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    let mut big = header("big", &base256, b'0', b"ustar  \0");
    big.extend(pad(b"bytes".to_vec()));
    let mut long = header("././@LongLink", &octal(121), b'L', b"ustar  \0");
    long.extend(pad([vec![b'n'; 120], vec![0]].concat()));
    let pax_records = b"16 path=p/q.ovf\n9 size=3\n";
    let mut pax = header("x", &octal(pax_records.len()), b'x', b"ustar\x0000");
    pax.extend(pad(pax_records.to_vec()));
    let mut hidden = header("hidden", &octal(0), b'0', b"ustar\x0000");
    hidden.extend(pad(b"abc".to_vec()));
    let old = {
        let mut out = header("old", &octal(2), 0, b"");
        out.extend(pad(b"v7".to_vec()));
        out
    };
    let link = header("link", &octal(0), b'2', b"ustar\x0000");
    let dir = header("dir/", &octal(0), b'5', b"ustar\x0000");
    let a = archive(&[
        member("./plain", b"x"),
        big,
        long,
        member("cut", b"long"),
        pax,
        hidden,
        old,
        link,
        dir,
    ])
    .unwrap();
    assert_eq!(bytes_of(&a, "plain").unwrap(), b"x");
    assert_eq!(bytes_of(&a, "./plain").unwrap(), b"x");
    assert_eq!(bytes_of(&a, "big").unwrap(), b"bytes");
    assert_eq!(bytes_of(&a, &"n".repeat(120)).unwrap(), b"long");
    assert_eq!(bytes_of(&a, "p/q.ovf").unwrap(), b"abc");
    assert_eq!(bytes_of(&a, "old").unwrap(), b"v7");
    assert_eq!(bytes_of(&a, "link").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(bytes_of(&a, "dir/").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(
        bytes_of(&a, "../plain").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(a.list(100).unwrap().len(), 5);
    // A size that no archive can have.
    base256[1] = 0x7f;
    let huge = header("big", &base256, b'0', b"ustar  \0");
    assert_eq!(archive(&[huge]).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn damage_is_named() {
    let corrupt = |parts: &[Vec<u8>]| {
        let e = archive(parts).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
        e.to_string()
    };
    assert!(corrupt(&[member("a", b"1"), member("a", b"2")]).contains("called a"));
    let mut wrong = member("a", b"1");
    wrong[0] = b'b';
    assert!(corrupt(&[wrong]).contains("checksum"));
    let beyond = header("a", &octal(1 << 20), b'0', b"ustar\x0000");
    assert!(corrupt(&[beyond]).contains("end of the archive"));
    let bomb = header("x", &octal(1 << 30), b'x', b"ustar\x0000");
    assert!(corrupt(&[bomb]).contains("end of the archive"));
}

fn descriptor(files: &str, disks: &str) -> Vec<u8> {
    format!(
        "<Envelope><References>{files}</References><DiskSection>{disks}</DiskSection></Envelope>"
    )
    .into_bytes()
}

/// A VHD is the smallest disk there is to make: its bytes and a footer.
fn vhd(contents: &[u8]) -> Vec<u8> {
    crate::vhd::fixed_for_tests(contents)
}

fn open(parts: &[Vec<u8>], disk: Option<&str>) -> Result<crate::Image> {
    let mut all = parts.concat();
    all.extend([0; 1024]);
    let options = OpenOptions {
        disk: disk.map(str::to_owned),
        ..OpenOptions::default()
    };
    crate::open(opened(all), &options)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn plain_packed_and_in_pieces() {
    let contents: Vec<u8> = (0..300_032u32).map(|i| (i / 512) as u8).collect();
    let disk = vhd(&contents);
    let d = r#"<Disk diskId="d" fileRef="f" capacity="300032"/>"#;
    let plain = descriptor(r#"<File id="f" href="d.vhd"/>"#, d);
    let image = open(&[member("a.ovf", &plain), member("d.vhd", &disk)], None).unwrap();
    assert_eq!(image.format, Format::Ova);
    assert!(image.believed && image.warnings.is_empty());
    disk_io::conformance::check(&*image.disk, &contents);

    let packed = descriptor(r#"<File id="f" href="d.gz" compression="gzip"/>"#, d);
    let parts = [member("a.ovf", &packed), member("d.gz", &gz(&disk))];
    let image = open(&parts, Some("d")).unwrap();
    disk_io::conformance::check(&*image.disk, &contents);

    let pieces = descriptor(r#"<File id="f" href="d" chunkSize="100000"/>"#, d);
    let mut parts = vec![member("sub/a.ovf", &pieces)];
    for (n, piece) in disk.chunks(100_000).enumerate() {
        parts.push(member(&format!("sub/d.{n:09}"), piece));
    }
    let image = open(&parts, None).unwrap();
    disk_io::conformance::check(&*image.disk, &contents);
    parts.remove(2);
    assert!(open(&parts, None).is_err(), "a piece is missing");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let one = r#"<Disk diskId="d" fileRef="f"/>"#;
    let file = r#"<File id="f" href="d.vhd"/>"#;
    let disk = member("d.vhd", &vhd(&[7; 1024]));
    let kind = |parts: &[Vec<u8>], text: &str| {
        let e = open(parts, None).unwrap_err();
        assert!(e.to_string().contains(text), "{e}");
        e.kind()
    };
    let ovf = |files: &str, disks: &str| member("a.ovf", &descriptor(files, disks));
    assert_eq!(
        kind(&[member("x", b"1")], "tar archive"),
        ErrorKind::Unsupported
    );
    assert_eq!(kind(&[ovf(file, one)], "d.vhd"), ErrorKind::NotFound);
    assert_eq!(
        kind(&[ovf("", one), disk.clone()], "the id f"),
        ErrorKind::NotFound
    );
    let two = r#"<Disk diskId="d" fileRef="f"/><Disk diskId="e" fileRef="f"/>"#;
    assert_eq!(
        kind(&[ovf(file, two), disk.clone()], "--disk"),
        ErrorKind::Ambiguous
    );
    let blank = r#"<Disk diskId="d"/>"#;
    assert_eq!(
        kind(&[ovf(file, blank), disk.clone()], "blank"),
        ErrorKind::NotFound
    );
    let delta = r#"<Disk diskId="d" fileRef="f" parentRef="p"/>"#;
    assert_eq!(
        kind(&[ovf(file, delta), disk.clone()], "delta"),
        ErrorKind::Unsupported
    );
    let bz = r#"<File id="f" href="d.vhd" compression="bzip2"/>"#;
    assert_eq!(
        kind(&[ovf(bz, one), disk.clone()], "bzip2"),
        ErrorKind::Unsupported
    );
    let short = r#"<File id="f" href="d.vhd" size="99999"/>"#;
    assert_eq!(
        kind(&[ovf(short, one), disk.clone()], "99999"),
        ErrorKind::Corrupt
    );
    let raw = [ovf(file, one), member("d.vhd", &[1; 4096])];
    assert_eq!(kind(&raw, "format that is known"), ErrorKind::Unsupported);
    let torn = gz(&vhd(&[7; 100_352]));
    let torn = [ovf(file, one), member("d.vhd", &torn[..torn.len() - 9])];
    assert_eq!(kind(&torn, "gzip"), ErrorKind::Corrupt);
}

#[test]
fn a_manifest_is_compared_with_the_files() {
    let ovf = descriptor(
        r#"<File id="f" href="d"/>"#,
        r#"<Disk diskId="d" fileRef="f"/>"#,
    );
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mf = format!(
        "SHA256(d)= {empty}\nSHA1(e)= {}\nSHA256(gone)= {empty}\n",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709"
    );
    let archive = [
        member("a.ovf", &ovf),
        member("a.mf", mf.as_bytes()),
        member("d", b""),
        member("e", b"x"),
    ];
    let mut all = archive.concat();
    all.extend([0; 1024]);
    let package = Package::open(&opened(all), Format::Ova).unwrap();
    let checked = package.verify_manifest(&mut |_, _| {}).unwrap().unwrap();
    let kinds: Vec<_> = checked
        .iter()
        .map(|c| c.problem.as_ref().map(|e| e.kind()))
        .collect();
    assert_eq!(
        kinds,
        [None, Some(ErrorKind::Corrupt), Some(ErrorKind::NotFound)]
    );
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let disk = vhd(&vec![0; 4 << 20]);
    let ovf = descriptor(
        r#"<File id="f" href="d"/>"#,
        r#"<Disk diskId="d" fileRef="f"/>"#,
    );
    let mut all = [member("a.ovf", &ovf), member("d", &gz(&disk))].concat();
    all.extend([0; 1024]);
    let options = OpenOptions {
        unpack_limit: Some(1 << 20),
        ..OpenOptions::default()
    };
    let e = crate::open(opened(all), &options).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
}

proptest! {
    #[test]
    fn members_are_found_again(files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..8)) {
        let parts: Vec<_> = files.iter().enumerate().map(|(n, f)| member(&format!("m{n}"), f)).collect();
        let a = archive(&parts).unwrap();
        for (n, f) in files.iter().enumerate() {
            prop_assert_eq!(&bytes_of(&a, &format!("m{n}")).unwrap(), f);
        }
    }

    #[test]
    fn damaged_archives_never_panic(at in 0usize..4096, bit in 0u8..8, cut in 0usize..5000) {
        let ovf = descriptor(r#"<File id="f" href="d.vhd"/>"#, r#"<Disk diskId="d" fileRef="f"/>"#);
        let mut all = [member("a.ovf", &ovf), member("d.vhd", &vhd(&[5; 1024]))].concat();
        all.extend([0; 1024]);
        let at = at % all.len();
        all[at] ^= 1 << bit;
        all.truncate(cut.max(512));
        if let Ok(image) = crate::open(opened(all), &OpenOptions::default()) {
            let mut buf = vec![0; image.disk.len().min(1 << 20) as usize];
            let _ = image.disk.read_exact_at(&mut buf, 0);
        }
    }
}
