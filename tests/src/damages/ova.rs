//! Packages: the manifest, the members, the disks in them.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Note, Warning},
    file,
    guest::{self, BIG, LEN, SECTORS, guest},
    hosted::descriptor,
};
use crate::guest::sha256;
use std::collections::BTreeMap;
use vmdk::write::stream;

const D: &str = "web.ova";
const NAMES: [&str; 3] = ["web.ovf", "web.mf", "web-disk1.vmdk"];

fn ovf(capacity: u64) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"><References><File ovf:id=\"f\" \
         ovf:href=\"web-disk1.vmdk\"/></References><DiskSection><Info/><Disk ovf:diskId=\"d\" \
         ovf:fileRef=\"f\" ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\" ovf:capacity=\"{capacity}\"/></DiskSection></Envelope>\n"
    )
}

fn stream() -> Vec<u8> {
    let options = stream::Options {
        layout: stream::Layout::Footer,
        version: 3,
        grain_size: 128,
        descriptor: descriptor("streamOptimized", "SPARSE", NAMES[2]),
        pad_last: false,
        level: 1,
    };
    stream::encode(&options, SECTORS, &guest::grains(65_536))
}

type Members = BTreeMap<&'static str, Vec<u8>>;

fn members() -> Members {
    let mut members = Members::from([(NAMES[0], ovf(LEN).into_bytes()), (NAMES[2], stream())]);
    seal(&mut members);
    members
}

/// Writes the manifest.
fn seal(members: &mut Members) {
    members.remove(NAMES[1]);
    let lines = members
        .iter()
        .map(|(name, bytes)| format!("SHA256({name})= {}\n", sha256(bytes)));
    let text: String = lines.collect();
    members.insert(NAMES[1], text.into_bytes());
}

fn pack(members: &Members) -> Bytes {
    let mut tar = tar::Builder::new(Vec::new());
    for name in NAMES {
        let Some(bytes) = members.get(name) else {
            continue;
        };
        let mut head = tar::Header::new_ustar();
        head.set_size(bytes.len() as u64);
        head.set_mode(0o644);
        tar.append_data(&mut head, name, &**bytes).unwrap();
    }
    Bytes::new(&tar.into_inner().unwrap())
}

const BASE: &Base = &Base {
    name: "OVA",
    programs: &[],
    make: || Ok(Files::one(D, pack(&members()))),
};

fn with(f: &mut Files, change: impl Fn(&mut Members)) {
    let mut all = members();
    change(&mut all);
    *f.main() = pack(&all);
}

/// The manifest is made again: only the damage itself is left.
fn sealed(f: &mut Files, change: impl Fn(&mut Members)) {
    with(f, |all| {
        change(all);
        seal(all);
    });
}

/// A byte of the compressed grain in the middle.
fn spoil(members: &mut Members) {
    let disk = members.get_mut(NAMES[2]).unwrap();
    let bytes = Bytes::new(disk);
    let lba = guest().mid / 65_536 * 128;
    let marker = bytes.find_by(&lba.to_le_bytes(), 65_536, 512).unwrap();
    disk[marker as usize + 40] ^= 0x55;
}

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        BASE,
        "a byte of a disk in the package",
        (Lost, "grain-not-inflated"),
        &[BIG],
        |f| {
            with(f, spoil);
            file(NAMES[2]).touching(guest().mid)
        },
    )
    .with(&["digest-differs"]),
    Damage::new(
        BASE,
        "a byte of a disk, and a manifest made after it",
        (Lost, "grain-not-inflated"),
        &[BIG],
        |f| {
            sealed(f, spoil);
            file(NAMES[2]).touching(guest().mid)
        },
    ),
    Damage::new(
        BASE,
        "a descriptor that was changed",
        (Lost, "digest-differs"),
        &[],
        |f| {
            with(f, |all| all.get_mut(NAMES[0]).unwrap().push(b'\n'));
            file(NAMES[0])
        },
    ),
    Damage::new(BASE, "no manifest", (Note, "manifest-missing"), &[], |f| {
        with(f, |all| drop(all.remove(NAMES[1])));
        file(D)
    }),
    Damage::new(
        BASE,
        "a manifest that is no text",
        (Lost, "manifest-unreadable"),
        &[],
        |f| {
            with(f, |all| all.get_mut(NAMES[1]).unwrap().fill(0xff));
            file(NAMES[1])
        },
    ),
    Damage::new(
        BASE,
        "a disk that is not in the package",
        (Lost, "member-missing"),
        &[],
        |f| {
            with(f, |all| drop(all.remove(NAMES[2])));
            file(NAMES[2])
        },
    ),
    Damage::new(
        BASE,
        "a disk that is none",
        (Lost, "member-unusable"),
        &[],
        |f| {
            sealed(f, |all| all.get_mut(NAMES[2]).unwrap()[..512].fill(0));
            file(NAMES[2])
        },
    ),
    Damage::new(
        BASE,
        "a descriptor that gives another capacity",
        (Warning, "capacity-differs"),
        &[],
        |f| {
            sealed(f, |all| {
                *all.get_mut(NAMES[0]).unwrap() = ovf(LEN * 2).into_bytes()
            });
            file(NAMES[2])
        },
    ),
    Damage::new(
        BASE,
        "a descriptor that is no XML",
        (Lost, "package-unusable"),
        &[],
        |f| {
            sealed(f, |all| all.get_mut(NAMES[0]).unwrap()[..40].fill(b'<'));
            file(NAMES[0])
        },
    ),
    Damage::new(
        BASE,
        "a package that is cut short",
        (Lost, "package-unusable"),
        &[],
        |f| {
            let len = f.main().len() - 200_000;
            f.main().set_len(len);
            file(D)
        },
    ),
];
