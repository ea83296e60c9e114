//! NTFS: volumes made by mkntfs and ntfscp.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Warning},
    Spot, on_disk,
};
use crate::{fixtures, tools};
use anyhow::{Context, Result};
use std::ops::Range;

const V: &str = "v.img";
const ONE: &str = "/p0/one.bin";
const TWO: &str = "/p0/two.bin";
const ROOT: &str = "/p0";
/// Attributes.
const FILE_NAME: u32 = 0x30;
const DATA: u32 = 0x80;
const INDEX_ROOT: u32 = 0x90;
const INDEX_ALLOCATION: u32 = 0xa0;
const BITMAP: u32 = 0xb0;

fn make() -> Result<Files> {
    let dir = tempfile::tempdir()?;
    let (image, from) = (dir.path().join(V), dir.path().join("file"));
    std::fs::File::create(&image)?.set_len(16 << 20)?;
    let [image, from] = [image, from].map(|p| p.to_str().map(str::to_owned));
    let (image, from) = (image.context("a name")?, from.context("a name")?);
    tools::run("mkntfs", ["-F", "-q", "-Q", &image])?;
    for (name, byte, len) in [("one.bin", 1, 50_000), ("two.bin", 2, 50_000)] {
        std::fs::write(&from, vec![byte; len])?;
        tools::run("ntfscp", ["-f", &image, &from, name])?;
    }
    // Enough names for an index of several blocks.
    std::fs::write(&from, b"small")?;
    for n in 0..100 {
        let name = format!("name-{n:03}");
        tools::run("ntfscp", ["-f", &image, &from, &name])?;
    }
    Ok(Files::one(V, Bytes::new(&std::fs::read(&image)?)))
}

const PLAIN: &Base = &Base {
    name: "NTFS",
    programs: &["mkntfs", "ntfscp"],
    make,
};
const SPLIT: &Base = &Base {
    name: "NTFS, a file over several records",
    programs: &["mkntfs", "ntfs-3g"],
    make: || {
        let made = fixtures::get("ntfs-fragmented").context("no FUSE here")?;
        Ok(Files::one(V, Bytes::new(&std::fs::read(&made.image)?)))
    },
};

fn utf16(name: &str) -> Vec<u8> {
    name.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The volume's structures by their places.
struct Ntfs<'a>(&'a mut Bytes);

impl Ntfs<'_> {
    fn cluster(&self) -> u64 {
        512 * u64::from(self.0.u8(0x0d))
    }

    /// Where the record of a number is; the $MFT of a small volume lies in one piece.
    fn record(&self, number: u64) -> u64 {
        self.0.u64(0x30) * self.cluster() + number * 1024
    }

    /// The record of the file with this name.
    fn named(&self, name: &str) -> u64 {
        let wide = utf16(name);
        let found = (24..400).find(|n| {
            let bytes = self.0.get(self.record(*n), 1024);
            bytes.starts_with(b"FILE") && bytes.windows(wide.len()).any(|w| w == wide)
        });
        found.unwrap()
    }

    /// Where an attribute of a record begins.
    #[track_caller]
    fn attribute(&self, record: u64, kind: u32) -> u64 {
        let start = self.record(record);
        let mut at = start + u64::from(self.0.u16(start + 20));
        while self.0.u32(at) != kind {
            assert!(self.0.u32(at) < kind, "no attribute {kind:#x}");
            at += u64::from(self.0.u32(at + 4));
        }
        at
    }

    /// The place in an attribute's first run, and the cluster that it names.
    fn run(&self, record: u64, kind: u32) -> (Range<u64>, u64) {
        let attribute = self.attribute(record, kind);
        let at = attribute + u64::from(self.0.u16(attribute + 32));
        let head = self.0.u8(at);
        let (len, place) = (u64::from(head & 15), u64::from(head >> 4));
        let at = at + 1 + len;
        let bytes = self.0.get(at, place as usize);
        let lcn = bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        (at..at + place, lcn)
    }

    /// Where the contents of an attribute begin.
    fn contents(&self, record: u64, kind: u32) -> u64 {
        self.run(record, kind).1 * self.cluster()
    }

    /// The entries of an index node by their places; its header is at `header`.
    fn entries(&self, header: u64) -> Vec<u64> {
        let mut at = header + u64::from(self.0.u32(header));
        let mut all = vec![at];
        while self.0.u16(at + 12) & 2 == 0 {
            let len = u64::from(self.0.u16(at + 8));
            assert!(len >= 16 && at < header + 4096, "no entry at {at}");
            at += len;
            all.push(at);
        }
        all
    }

    /// The header of the root directory's index root.
    fn index_root(&self) -> u64 {
        let root = self.attribute(5, INDEX_ROOT);
        root + u64::from(self.0.u16(root + 20)) + 16
    }

    /// Where an entry keeps the block below it.
    fn child(&self, entry: u64) -> u64 {
        entry + u64::from(self.0.u16(entry + 8)) - 8
    }

    /// Where the root directory's index block of a number is; its pieces lie apart.
    fn block(&self, vcn: u64) -> Option<u64> {
        let attribute = self.attribute(5, INDEX_ALLOCATION);
        let mut at = attribute + u64::from(self.0.u16(attribute + 32));
        let (mut lcn, mut left) = (0i64, vcn);
        loop {
            let head = self.0.u8(at);
            if head == 0 {
                return None;
            }
            let [len, place] = [head & 15, head >> 4].map(usize::from);
            let number = |at, n: usize| {
                let mut bytes = self.0.get(at, n);
                let sign = if bytes[n - 1] & 0x80 == 0 { 0 } else { 0xff };
                bytes.resize(8, sign);
                i64::from_le_bytes(bytes.try_into().unwrap())
            };
            let clusters = number(at + 1, len) as u64;
            lcn += number(at + 1 + len as u64, place);
            if left < clusters {
                return Some((lcn as u64 + left) * self.cluster());
            }
            left -= clusters;
            at += 1 + (len + place) as u64;
        }
    }

    /// Index blocks of the root directory; a cluster is as long as a block.
    fn blocks(&self) -> Vec<u64> {
        assert_eq!(self.cluster(), 4096);
        let all = (0..).map_while(|vcn| self.block(vcn));
        all.filter(|at| self.0.get(*at, 4) == b"INDX").collect()
    }

    /// Entries that lie in one sector each, so that no fix-up is in them.
    fn leaves(&self) -> Vec<u64> {
        let all = self.blocks().into_iter().flat_map(|b| self.entries(b + 24));
        let len = |e: u64| u64::from(self.0.u16(e + 8));
        all.filter(|e| len(*e) > 90 && e % 512 + len(*e) <= 510)
            .filter(|e| self.0.u16(e + 12) == 0)
            .collect()
    }

    /// Where an index entry of a name of the many is.
    fn entry(&self) -> u64 {
        let wide = utf16("name-");
        let is_one = |e: &u64| self.0.get(e + 82, wide.len()) == wide;
        self.leaves().into_iter().filter(is_one).nth(20).unwrap()
    }

    /// The index block that holds an entry.
    fn block_of(&self, entry: u64) -> u64 {
        entry / 4096 * 4096
    }
}

fn volume(f: &mut Files) -> Ntfs<'_> {
    Ntfs(f.of(V))
}

/// Damages the record of the second file at `at` in it.
fn in_two(f: &mut Files, at: u64, bits: u8) -> Spot {
    let v = volume(f);
    let at = v.record(v.named("two.bin")) + at;
    v.0.flip(at, bits);
    Spot::default()
}

const LOST_NAME: &[&str] = &["ntfs-name-lost"];
const STRAY: &[&str] = &["ntfs-index-entry-stray"];

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        PLAIN,
        "a file's cluster that $Bitmap calls free",
        (Warning, "ntfs-bitmap-free"),
        &[ONE],
        |f| {
            let v = volume(f);
            let lcn = v.run(v.named("one.bin"), DATA).1;
            let at = v.contents(6, DATA) + lcn / 8;
            v.0.flip(at, 1 << (lcn % 8));
            on_disk(lcn * v.cluster())
        },
    ),
    Damage::new(
        PLAIN,
        "two files in the same clusters",
        (Lost, "ntfs-clusters-shared"),
        &[ONE, TWO],
        |f| {
            let v = volume(f);
            let (place, _) = v.run(v.named("two.bin"), DATA);
            let (from, lcn) = v.run(v.named("one.bin"), DATA);
            assert_eq!(from.end - from.start, place.end - place.start);
            let bytes = v.0.get(from.start, (from.end - from.start) as usize);
            v.0.put(place.start, &bytes);
            on_disk(lcn * v.cluster())
        },
    ),
    Damage::new(
        PLAIN,
        "a run that leaves the volume",
        (Lost, "ntfs-record-damaged"),
        &[TWO],
        |f| {
            let v = volume(f);
            let (place, _) = v.run(v.named("two.bin"), DATA);
            v.0.fill(place.start, (place.end - place.start) as usize, 0x7f);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "runs that end before their attribute",
        (Lost, "ntfs-record-damaged"),
        &[TWO],
        |f| {
            let v = volume(f);
            let at = v.attribute(v.named("two.bin"), DATA) + 24;
            let last = v.0.u64(at);
            v.0.set_u64(at, last + 5);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "an attribute of no length",
        (Lost, "ntfs-record-damaged"),
        &[TWO],
        |f| {
            let v = volume(f);
            let at = v.attribute(v.named("two.bin"), DATA) + 4;
            v.0.set_u32(at, 0);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a record without its signature",
        (Lost, "ntfs-record-damaged"),
        &[TWO],
        |f| in_two(f, 0, 0x20),
    )
    .with(STRAY),
    Damage::new(
        PLAIN,
        "a record of which one sector was not written",
        (Lost, "ntfs-record-damaged"),
        &[TWO],
        |f| in_two(f, 510, 0xff),
    )
    .with(STRAY),
    Damage::new(
        PLAIN,
        "a file's record that is marked as deleted",
        (Lost, "ntfs-index-entry-stray"),
        &[ROOT],
        |f| in_two(f, 22, 1),
    ),
    Damage::new(
        PLAIN,
        "a file that counts more names than it has",
        (Warning, "ntfs-links-wrong"),
        &[TWO],
        |f| in_two(f, 18, 2),
    ),
    Damage::new(
        PLAIN,
        "a record that was given to another file",
        (Lost, "ntfs-index-entry-stray"),
        &[ROOT],
        |f| in_two(f, 16, 4),
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "a record that the map of records calls free",
        (Warning, "ntfs-record-called-free"),
        &[TWO],
        |f| {
            let v = volume(f);
            let number = v.named("two.bin");
            let at = v.contents(0, BITMAP) + number / 8;
            v.0.flip(at, 1 << (number % 8));
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a file whose record says that it is in another directory",
        (Warning, "ntfs-name-lost"),
        &["/p0/(record 300)/two.bin"],
        |f| {
            let v = volume(f);
            let name = v.attribute(v.named("two.bin"), FILE_NAME);
            v.0.set_u32(name + 24, 300);
            Spot::default()
        },
    )
    .with(STRAY),
    Damage::new(
        PLAIN,
        "an index block of which one sector was not written",
        (Lost, "ntfs-index-damaged"),
        &[ROOT],
        |f| {
            let v = volume(f);
            let block = v.block_of(v.entry());
            v.0.flip(block + 1022, 0xff);
            Spot::default()
        },
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "an index block without its signature",
        (Lost, "ntfs-index-damaged"),
        &[ROOT],
        |f| {
            let v = volume(f);
            let block = v.block_of(v.entry());
            v.0.fill(block, 4, 0);
            Spot::default()
        },
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "an index block that is another one's",
        (Lost, "ntfs-index-damaged"),
        &[ROOT],
        |f| {
            let v = volume(f);
            let block = v.block_of(v.entry());
            v.0.flip(block + 16, 1);
            Spot::default()
        },
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "an index entry that leads to another record",
        (Lost, "ntfs-index-entry-stray"),
        &[ROOT],
        |f| {
            let v = volume(f);
            let entry = v.entry();
            v.0.flip(entry, 1);
            Spot::default()
        },
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "a letter of a name in the index",
        (Lost, "ntfs-index-entry-stray"),
        &[ROOT],
        |f| {
            let v = volume(f);
            let entry = v.entry();
            v.0.set_u8(entry + 82, b'm');
            Spot::default()
        },
    )
    .with(&["ntfs-name-lost", "ntfs-index-unsorted"]),
    Damage::new(
        PLAIN,
        "two index entries that changed places",
        (Warning, "ntfs-index-unsorted"),
        &[ROOT],
        |f| {
            let v = volume(f);
            let leaves = v.leaves();
            let len = u64::from(v.0.u16(leaves[9] + 8));
            let next =
                |e: &&u64| leaves.contains(&(**e + len)) && v.0.u16(**e + 8 + len) == len as u16;
            let a = *leaves.iter().filter(next).nth(3).unwrap();
            let (b, len) = (a + len, len as usize);
            let (one, two) = (v.0.get(a, len), v.0.get(b, len));
            v.0.put(a, &two);
            v.0.put(b, &one);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a directory without the root of its index",
        (Lost, "ntfs-index-damaged"),
        &[ROOT],
        |f| {
            let v = volume(f);
            let at = v.attribute(5, INDEX_ROOT);
            v.0.set_u32(at, INDEX_ROOT + 1);
            Spot::default()
        },
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "an index that leads back to a block above",
        (Lost, "ntfs-index-damaged"),
        &[ROOT],
        |f| {
            let v = volume(f);
            // The node whose entries lead to blocks: the root, or the block below its only one.
            let mut node = v.index_root();
            while v.entries(node).len() == 1 {
                let vcn = v.0.u64(v.child(v.entries(node)[0]));
                node = v.block(vcn).unwrap() + 24;
            }
            let entries = v.entries(node);
            let vcn = v.0.u64(v.child(entries[1]));
            let at = v.child(entries[0]);
            v.0.set_u64(at, vcn);
            Spot::default()
        },
    )
    .with(&["ntfs-index-unsorted"]),
    Damage::new(
        PLAIN,
        "the copy of the first records differs",
        (Warning, "ntfs-mirror-differs"),
        &[],
        |f| {
            let v = volume(f);
            let mirror = v.0.u64(0x38) * v.cluster();
            v.0.flip(mirror + 1024 + 16, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "the $MFT's own record is damaged; its copy is sound",
        (Warning, "ntfs-mirror-differs"),
        &[],
        |f| {
            let v = volume(f);
            let at = v.record(0);
            v.0.fill(at, 4, 0xee);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "the boot sector and its copy differ",
        (Warning, "ntfs-boot-copy-differs"),
        &[],
        |f| {
            let v = volume(f);
            let copy = v.0.u64(0x28) * 512;
            v.0.flip(copy + 0x30, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "both records of the $MFT are damaged",
        (Lost, "volume-unusable"),
        &[],
        |f| {
            let v = volume(f);
            let (at, mirror) = (v.record(0), v.0.u64(0x38) * v.cluster());
            v.0.fill(at, 4, 0xee);
            v.0.fill(mirror, 4, 0xee);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "the runs of $Bitmap leave the volume",
        (Warning, "ntfs-bitmap-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let (place, _) = v.run(6, DATA);
            v.0.fill(place.start, (place.end - place.start) as usize, 0x7f);
            Spot::default()
        },
    )
    .with(&["ntfs-record-damaged"]),
    Damage::new(
        SPLIT,
        "one of the records of a file is gone",
        (Lost, "ntfs-record-damaged"),
        &["/p0/large.bin"],
        |f| {
            let v = volume(f);
            // An extension names its base record.
            let number = (24..400).find(|n| {
                let at = v.record(*n);
                v.0.get(at, 4) == b"FILE" && v.0.u16(at + 22) == 1 && v.0.u32(at + 32) != 0
            });
            let at = v.record(number.unwrap());
            v.0.set_u16(at + 22, 0);
            Spot::default()
        },
    )
    .with(&["ntfs-index-entry-stray", "ntfs-links-wrong"]),
];
