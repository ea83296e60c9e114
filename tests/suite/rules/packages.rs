//! Rule 10: packages.

use super::Place;
use std::os::unix::fs::symlink;
use tar::{EntryType, Header};
use tests::guest::sha256;
use vmdk::write::{
    Cell,
    descriptor::{Text, extent},
    stream,
};

const GRAIN: usize = 65_536;

/// One disk of a grain.
fn disk(byte: u8) -> Vec<u8> {
    let text = Text {
        cid: 1,
        parent: None,
        create_type: "streamOptimized",
        extents: vec![extent(128, "SPARSE", "d.vmdk")],
    };
    let options = stream::Options {
        layout: stream::Layout::Footer,
        version: 3,
        grain_size: 128,
        descriptor: text.encode(),
        pad_last: false,
        level: 1,
    };
    stream::encode(&options, 128, &[(0, Cell::Data(vec![byte; GRAIN]))])
}

fn ovf(prologue: &str, href: &str) -> Vec<u8> {
    let format = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
    format!(
        "<?xml version=\"1.0\"?>\n{prologue}<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"><References><File ovf:id=\"f\" \
         ovf:href=\"{href}\"/></References><DiskSection><Info/><Disk ovf:diskId=\"d\" \
         ovf:fileRef=\"f\" ovf:format=\"{format}\" ovf:capacity=\"{GRAIN}\"/></DiskSection></Envelope>\n"
    )
    .into_bytes()
}

/// A member: its name as it is, its kind, where a link leads, its bytes.
type Member<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

fn file<'a>(name: &'a str, bytes: &'a [u8]) -> Member<'a> {
    (name, EntryType::Regular, "", bytes)
}

fn pack(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, link, bytes) in members {
        let mut head = Header::new_ustar();
        let raw = head.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        head.set_entry_type(*kind);
        head.set_size(bytes.len() as u64);
        head.set_mode(0o644);
        head.set_cksum();
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A package's descriptor names files as a disk's does: of the host, behind links, on the net.
/// Here a name is that of a regular member, or of a file beneath the descriptor's directory.
#[test]
fn rule_10_a_package_names_files_outside_of_it() {
    let place = Place::new();
    let d = disk(7);
    place.put(
        "web.ova",
        pack(&[file("web.ovf", &ovf("", "d.vmdk")), file("d.vmdk", &d)]),
    );
    place.copied("web.ova", &[7; GRAIN]);
    let secret = place.secret();
    symlink(&secret, place.path("link.vmdk")).unwrap();
    for href in [
        secret.as_str(),
        "../secret.bin",
        "link.vmdk",
        "http://127.0.0.1:1/d.vmdk",
        "https://127.0.0.1:1/d.vmdk",
        &format!("file://{secret}"),
    ] {
        let text = ovf("", href);
        place.put(
            "web.ova",
            pack(&[file("web.ovf", &text), file("d.vmdk", &d)]),
        );
        place.refused("web.ova", &["web.ova"]);
        place.put("web.ovf", &text);
        let last = href.rsplit('/').next().unwrap();
        place.refused("web.ovf", &[last]);
    }
}

/// An archive's links and devices are made when it is unpacked, and lead out when they are read.
/// Here nothing is unpacked, and a member that is no file is refused by what it is.
#[test]
fn rule_10_members_that_are_not_files() {
    let place = Place::new();
    let (text, secret) = (ovf("", "d.vmdk"), place.secret());
    for (kind, says) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::Directory, "a directory"),
    ] {
        let member = ("d.vmdk", kind, secret.as_str(), &b""[..]);
        place.put("web.ova", pack(&[file("web.ovf", &text), member]));
        place.refused("web.ova", &["d.vmdk", says]);
    }
    assert_eq!(place.names(), ["web.ova"], "something was unpacked");
}

/// Of two members of one name one reader takes the first and another the last: what was looked at
/// is not what is used. Here such an archive is refused.
#[test]
fn rule_10_two_members_of_one_name() {
    let place = Place::new();
    let (text, good, bad) = (ovf("", "d.vmdk"), disk(7), disk(8));
    for members in [
        [
            file("web.ovf", &text),
            file("d.vmdk", &good),
            file("d.vmdk", &bad),
        ],
        [
            file("web.ovf", &text),
            file("d.vmdk", &good),
            file("./d.vmdk", &bad),
        ],
        [
            file("web.ovf", &text),
            file("web.ovf", &text),
            file("d.vmdk", &bad),
        ],
    ] {
        place.put("web.ova", pack(&members));
        place.refused("web.ova", &["web.ova", "two that are called"]);
    }
}

/// A descriptor with a document type can read files, call servers and grow without end while it is
/// parsed. Here it has none.
#[test]
fn rule_10_entities_of_a_descriptor() {
    let place = Place::new();
    let secret = place.secret();
    let mut bomb = String::from("<!DOCTYPE e [<!ENTITY a0 \"ha\">");
    for n in 1..40 {
        bomb += &format!("<!ENTITY a{n} \"&a{0};&a{0};\">", n - 1);
    }
    bomb += "]>\n";
    let read = format!("<!DOCTYPE e [<!ENTITY x SYSTEM \"file://{secret}\">]>\n");
    let net = "<!DOCTYPE e SYSTEM \"http://127.0.0.1:1/x.dtd\">\n";
    let d = disk(7);
    for (prologue, href) in [(bomb.as_str(), "&a39;"), (&read, "&x;"), (net, "d.vmdk")] {
        let text = ovf(prologue, href);
        place.put(
            "web.ova",
            pack(&[file("web.ovf", &text), file("d.vmdk", &d)]),
        );
        place.refused("web.ova", &["web.ovf"]);
    }
    // Without a document type an entity is not known.
    let text = ovf("", "&x;");
    place.put(
        "web.ova",
        pack(&[file("web.ovf", &text), file("d.vmdk", &d)]),
    );
    place.refused("web.ova", &["web.ova"]);
}

/// Sizes in an archive are believed, and a member is longer than its archive. Here each is held
/// against the file.
#[test]
fn rule_10_sizes_that_are_not_there() {
    let place = Place::new();
    let d = disk(7);
    let sound = pack(&[file("web.ovf", &ovf("", "d.vmdk")), file("d.vmdk", &d)]);
    let header = (0..sound.len() / 512).find(|n| sound[n * 512..].starts_with(b"d.vmdk\0"));
    let header = header.unwrap() * 512;
    for size in [u64::MAX, 1 << 62, 1 << 40, sound.len() as u64] {
        let mut bytes = sound.clone();
        let mut head = Header::new_ustar();
        head.as_old_mut().name[..6].copy_from_slice(b"d.vmdk");
        head.set_entry_type(EntryType::Regular);
        head.set_size(size);
        head.set_cksum();
        bytes[header..header + 512].copy_from_slice(head.as_bytes());
        place.put("web.ova", &bytes);
        place.refused("web.ova", &["web.ova"]);
    }
    let mut bytes = sound;
    bytes[header + 1] ^= 1;
    place.put("web.ova", &bytes);
    place.refused("web.ova", &["web.ova"]);
}

/// A manifest that nobody compares protects nothing. Here a disk that is not what the manifest
/// says is not copied, `check` names it, and to go on has to be asked for.
#[test]
fn rule_10_a_disk_that_is_not_what_the_manifest_says() {
    let place = Place::new();
    let (text, good, bad) = (ovf("", "d.vmdk"), disk(7), disk(8));
    let lines = |d: &[u8]| {
        format!(
            "SHA256(web.ovf)= {}\nSHA256(d.vmdk)= {}\n",
            sha256(&text),
            sha256(d)
        )
    };
    let manifest = lines(&good);
    let package = |d: &[u8]| {
        let manifest = file("web.mf", manifest.as_bytes());
        pack(&[file("web.ovf", &text), manifest, file("d.vmdk", d)])
    };
    place.put("web.ova", package(&good));
    place.copied("web.ova", &[7; GRAIN]);
    place.put("web.ova", package(&bad));
    place.not_copied("web.ova", &["d.vmdk", &sha256(&bad), &sha256(&good)]);
    let check = place.run(&["check", "web.ova", "--json"]);
    assert_eq!(check.code, Some(4));
    assert!(check.out.contains("digest-differs"), "{}", check.out);
    let args = ["convert", "web.ova", "out.raw", "--to", "raw"];
    place.done(&[&args[..], &["--ignore-manifest"]].concat());
    assert!(place.get("out.raw") == [8; GRAIN]);
}
