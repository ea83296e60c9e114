//! ext4: volumes made by mke2fs.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Warning},
    Spot, on_disk,
};
use crate::tools;
use anyhow::{Context, Result};
use std::{os::unix::fs::FileExt, path::Path};

const V: &str = "v.img";
const ONE: &str = "/p0/one.bin";
const TWO: &str = "/p0/two.bin";
const HOLES: &str = "/p0/holes.bin";
const MANY: &str = "/p0/many";
const BLOCK: u64 = 1024;

fn make(features: &str) -> Result<Files> {
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("many"))?;
    std::fs::write(root.join("one.bin"), vec![1; 50_000])?;
    std::fs::write(root.join("two.bin"), vec![2; 50_000])?;
    let holes = std::fs::File::create(root.join("holes.bin"))?;
    for n in 0..60 {
        holes.write_all_at(&[3; 4096], n * 16_384)?;
    }
    for n in 0..100 {
        std::fs::write(root.join(format!("many/name-{n:03}")), b"small")?;
    }
    format(features, &root)
}

/// A volume with what is in a directory.
fn format(features: &str, root: &Path) -> Result<Files> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join(V);
    std::fs::File::create(&image)?.set_len(16 << 20)?;
    let [image, root] = [&image, root].map(|p| p.to_str().map(str::to_owned));
    let (image, root) = (image.context("a name")?, root.context("a name")?);
    let args = [
        "-q", "-F", "-t", "ext4", "-b", "1024", "-O", features, "-d", &root, &image,
    ];
    tools::run("mke2fs", args)?;
    Ok(Files::one(V, Bytes::new(&std::fs::read(&image)?)))
}

const PLAIN: &Base = &Base {
    name: "ext4",
    programs: &["mke2fs"],
    make: || make("^metadata_csum,^has_journal,^dir_index"),
};
/// With one file only, whose inode is the first that is free.
const LONE: &Base = &Base {
    name: "ext4, with one file",
    programs: &["mke2fs"],
    make: || {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("lone.bin"), vec![1; 50_000])?;
        format("^metadata_csum,^has_journal,^dir_index", dir.path())
    },
};
const SUMS: &Base = &Base {
    name: "ext4, with checksums",
    programs: &["mke2fs"],
    make: || make("metadata_csum,^has_journal,^dir_index"),
};

/// Descriptors with a CRC-16, as before metadata_csum.
const LAZY: &Base = &Base {
    name: "ext4, with uninit_bg",
    programs: &["mke2fs"],
    make: || make("^metadata_csum,uninit_bg,^has_journal,^dir_index"),
};
/// An attribute that has no room in its inode.
fn with_attribute(features: &str) -> Result<Files> {
    let made = make(features)?;
    let dir = tempfile::tempdir()?;
    let (image, value) = (dir.path().join(V), dir.path().join("value"));
    made.files.get(V).context("the volume")?.write(&image)?;
    std::fs::write(&value, vec![b'a'; 700])?;
    let [image_name, value] = [&image, &value].map(|p| p.to_str().map(str::to_owned));
    let (name, value) = (image_name.context("a name")?, value.context("a name")?);
    let set = format!("ea_set -f {value} /one.bin user.long");
    tools::run("debugfs", ["-w", "-R", &set, &name])?;
    tools::run("e2fsck", ["-f", "-n", &name])?;
    Ok(Files::one(V, Bytes::new(&std::fs::read(&image)?)))
}
const ATTRIBUTES: &Base = &Base {
    name: "ext4, with an attribute block",
    programs: &["mke2fs", "debugfs", "e2fsck"],
    make: || with_attribute("metadata_csum,^has_journal,^dir_index"),
};
const ATTRIBUTES_PLAIN: &Base = &Base {
    name: "ext4, with an attribute block and no checksums",
    programs: &["mke2fs", "debugfs", "e2fsck"],
    make: || with_attribute("^metadata_csum,^has_journal,^dir_index"),
};
/// A file whose blocks were never written.
const UNWRITTEN: &Base = &Base {
    name: "ext4, with blocks that were never written",
    programs: &["mke2fs", "debugfs", "e2fsck"],
    make: || {
        let made = make("^metadata_csum,^has_journal,^dir_index")?;
        let dir = tempfile::tempdir()?;
        let (image, empty) = (dir.path().join(V), dir.path().join("empty"));
        made.files.get(V).context("the volume")?.write(&image)?;
        std::fs::File::create(&empty)?.set_len(0)?;
        let [image_name, empty] = [&image, &empty].map(|p| p.to_str().map(str::to_owned));
        let (name, empty) = (image_name.context("a name")?, empty.context("a name")?);
        for command in [
            format!("write {empty} empty.bin"),
            "fallocate /empty.bin 0 49".into(),
            "set_inode_field /empty.bin size 51200".into(),
        ] {
            tools::run("debugfs", ["-w", "-R", &command, &name])?;
        }
        tools::run("e2fsck", ["-f", "-n", &name])?;
        Ok(Files::one(V, Bytes::new(&std::fs::read(&image)?)))
    },
};

fn at_place(place: u64) -> Spot {
    super::at("", place, 1)
}

/// The volume's structures by their places.
struct Ext<'a>(&'a mut Bytes);

impl Ext<'_> {
    /// A field of the descriptor of the first group.
    fn group(&self, at: u64) -> u64 {
        2 * BLOCK + at
    }

    /// Where an inode is; all used here are in the first group.
    fn inode(&self, number: u64) -> u64 {
        let size = u64::from(self.0.u16(BLOCK + 0x58));
        u64::from(self.0.u32(self.group(8))) * BLOCK + (number - 1) * size
    }

    /// The first block that holds this byte all over.
    fn block_of(&self, byte: u8) -> u64 {
        self.0.find_by(&[byte; 1024], 0, BLOCK).unwrap() / BLOCK
    }

    /// The inode whose first extent begins with this block.
    fn with(&self, block: u64) -> u64 {
        let all = 11..u64::from(self.0.u32(BLOCK + 0x28));
        let first = |n: &u64| u64::from(self.0.u32(self.inode(*n) + 0x28 + 20));
        all.into_iter().find(|n| first(n) == block).unwrap()
    }

    fn one(&self) -> u64 {
        self.with(self.block_of(1))
    }

    fn two(&self) -> u64 {
        self.with(self.block_of(2))
    }

    /// The inode of a name.
    fn named(&self, name: &str) -> u64 {
        self.0.u32(self.entry(name)).into()
    }

    /// Where the block of attributes of the first file is.
    fn attributes(&self) -> u64 {
        u64::from(self.0.u32(self.inode(self.one()) + 0x68)) * BLOCK
    }

    /// Where the entry of a name is.
    fn entry(&self, name: &str) -> u64 {
        let is_one = |at: &u64| usize::from(self.0.u8(at - 2)) == name.len();
        let mut at = 0;
        loop {
            at = self.0.find(name.as_bytes(), at).unwrap();
            if is_one(&at) && self.0.u16(at - 4) >= 8 && self.0.u32(at - 8) < 1000 {
                return at - 8;
            }
            at += 1;
        }
    }

    /// The block of the extent tree of the file with holes.
    fn extents(&self) -> u64 {
        let all = 11..u64::from(self.0.u32(BLOCK + 0x28));
        let deep = |n: &u64| {
            let at = self.inode(*n) + 0x28;
            self.0.u16(at) == 0xf30a && self.0.u16(at + 6) == 1
        };
        let inode = all.into_iter().find(deep).unwrap();
        u64::from(self.0.u32(self.inode(inode) + 0x28 + 16)) * BLOCK
    }
}

fn volume(f: &mut Files) -> Ext<'_> {
    Ext(f.of(V))
}

/// Clears the bit of a thing, counted from 0, in a bitmap whose block stands at `field`.
fn clear(v: &mut Ext<'_>, field: u64, bit: u64) {
    let at = u64::from(v.0.u32(v.group(field))) * BLOCK + bit / 8;
    assert!(v.0.u8(at) >> (bit % 8) & 1 == 1);
    v.0.flip(at, 1 << (bit % 8));
}

const LOST_NAME: &[&str] = &["ext-name-lost"];

pub(super) const DAMAGES: &[Damage] = &[
    Damage::new(
        SUMS,
        "a byte of the superblock",
        (Warning, "ext-superblock-damaged"),
        &[],
        |f| {
            volume(f).0.flip(BLOCK + 0x78, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "the copy of the superblock is gone",
        (Warning, "ext-superblock-copy-differs"),
        &[],
        |f| {
            volume(f).0.fill(8193 * BLOCK, 1024, 0);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "the copy of the superblock is another volume's",
        (Warning, "ext-superblock-copy-differs"),
        &[],
        |f| {
            volume(f).0.flip(8193 * BLOCK + 0x68, 1);
            Spot::default()
        },
    ),
    Damage::new(
        SUMS,
        "a byte of a group's descriptor",
        (Lost, "ext-group-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let at = v.group(0x0c);
            v.0.flip(at, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "an inode table outside the volume",
        (Lost, "ext-group-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let at = v.group(64 + 8);
            v.0.set_u32(at, 0x7fff_ffff);
            Spot::default()
        },
    ),
    Damage::new(
        SUMS,
        "a byte of an inode",
        (Lost, "ext-inode-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.inode(v.one());
            v.0.flip(at + 0x10, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "an extent outside the volume",
        (Lost, "ext-inode-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.inode(v.one()) + 0x28;
            v.0.set_u32(at + 20, 0x7fff_ffff);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "an extent tree without its magic",
        (Lost, "ext-inode-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.inode(v.one()) + 0x28;
            v.0.flip(at, 1);
            Spot::default()
        },
    ),
    Damage::new(
        SUMS,
        "a byte of a block of an extent tree",
        (Lost, "ext-inode-damaged"),
        &[HOLES],
        |f| {
            let v = volume(f);
            let at = v.extents();
            // The generation, which readers do not look at.
            v.0.flip(at + 8, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a block of an extent tree that is something else",
        (Lost, "ext-inode-damaged"),
        &[HOLES],
        |f| {
            let v = volume(f);
            let at = v.extents();
            v.0.fill(at, 1024, 3);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "two files in the same blocks",
        (Lost, "ext-blocks-shared"),
        &[ONE, TWO],
        |f| {
            let v = volume(f);
            let (at, block) = (v.inode(v.two()) + 0x28, v.block_of(1));
            v.0.set_u32(at + 20, block as u32);
            on_disk(block * BLOCK)
        },
    ),
    Damage::new(
        PLAIN,
        "a file in the volume's own structures",
        (Lost, "ext-blocks-shared"),
        &[ONE],
        |f| {
            let v = volume(f);
            let (at, block) = (v.inode(v.one()) + 0x28, v.0.u32(v.group(4)));
            v.0.set_u32(at + 20, block);
            on_disk(u64::from(block) * BLOCK)
        },
    ),
    Damage::new(
        PLAIN,
        "a file's block that the bitmap calls free",
        (Warning, "ext-bitmap-free"),
        &[ONE],
        |f| {
            let mut v = volume(f);
            let block = v.block_of(1) + 3;
            // Blocks of 1 KiB are counted from 1.
            clear(&mut v, 0, block - 1);
            on_disk(block * BLOCK)
        },
    ),
    Damage::new(
        SUMS,
        "a bit of a block bitmap",
        (Warning, "ext-bitmap-damaged"),
        &[],
        |f| {
            let mut v = volume(f);
            let block = v.block_of(1) + 3;
            clear(&mut v, 0, block - 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a file's inode that the bitmap calls free",
        (Warning, "ext-inode-called-free"),
        &[ONE],
        |f| {
            let mut v = volume(f);
            let inode = v.one();
            clear(&mut v, 4, inode - 1);
            Spot::default()
        },
    ),
    Damage::new(
        SUMS,
        "a bit of an inode bitmap",
        (Warning, "ext-bitmap-damaged"),
        &[],
        |f| {
            let mut v = volume(f);
            let inode = v.one();
            clear(&mut v, 4, inode - 1);
            Spot::default()
        },
    ),
    Damage::new(
        SUMS,
        "a letter of a name in a directory",
        (Lost, "ext-directory-sum-wrong"),
        &[MANY],
        |f| {
            let v = volume(f);
            let at = v.entry("name-050");
            v.0.flip(at + 9, 1);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "an entry of a directory that is too long",
        (Lost, "ext-directory-damaged"),
        &[MANY],
        |f| {
            let v = volume(f);
            let at = v.entry("name-050");
            v.0.set_u16(at + 4, 2000);
            Spot::default()
        },
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "an entry that leads to an inode that no file has",
        (Lost, "ext-entry-stray"),
        &[MANY, "/p0/many/name-050"],
        |f| {
            let v = volume(f);
            let at = v.entry("name-050");
            v.0.set_u32(at, 1900);
            Spot::default()
        },
    )
    .with(LOST_NAME),
    Damage::new(
        PLAIN,
        "a file's inode that is empty",
        (Lost, "ext-entry-stray"),
        &["/p0", ONE],
        |f| {
            let v = volume(f);
            let at = v.inode(v.one());
            v.0.fill(at, 128, 0);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a file that counts more names than it has",
        (Warning, "ext-links-wrong"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.inode(v.one());
            v.0.set_u16(at + 0x1a, 2);
            Spot::default()
        },
    ),
    Damage::new(
        LONE,
        "a file that no directory has",
        (Warning, "ext-name-lost"),
        &["/p0/(record 12)"],
        |f| {
            let v = volume(f);
            let at = v.entry("lone.bin");
            v.0.set_u32(at, 0);
            Spot::default()
        },
    ),
    Damage::new(
        PLAIN,
        "a directory that says it is in another one",
        (Warning, "ext-parent-wrong"),
        &[MANY],
        |f| {
            let v = volume(f);
            // "many" has a block of its own, which begins with "." and "..".
            let at = v.entry("name-000") / BLOCK * BLOCK;
            assert_eq!(v.0.get(at + 20, 2), b"..");
            v.0.set_u32(at + 12, 11);
            Spot::default()
        },
    ),
    Damage::new(
        LAZY,
        "a byte of a group's descriptor, under a CRC-16",
        (Lost, "ext-group-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let at = v.group(0x10);
            v.0.flip(at, 1);
            at_place(at - 0x10)
        },
    ),
    Damage::new(
        SUMS,
        "a later copy of the superblock is gone",
        (Warning, "ext-superblock-copy-differs"),
        &[],
        |f| {
            let v = volume(f);
            let place = BLOCK * (1 + 8192);
            assert_eq!(v.0.u16(place + 56), 0xef53);
            v.0.set_u16(place + 56, 0);
            Spot::default()
        },
    ),
    Damage::new(
        ATTRIBUTES,
        "a block of attributes without its header",
        (Lost, "ext-attributes-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.attributes();
            v.0.set_u32(at, 0);
            Spot::default()
        },
    ),
    Damage::new(
        ATTRIBUTES,
        "a byte of a block of attributes",
        (Lost, "ext-attributes-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.attributes();
            v.0.flip(at + 900, 1);
            Spot::default()
        },
    ),
    Damage::new(
        ATTRIBUTES_PLAIN,
        "a block of attributes that counts no file",
        (Warning, "ext-attributes-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.attributes();
            v.0.set_u32(at + 4, 0);
            at_place(at)
        },
    ),
    Damage::new(
        UNWRITTEN,
        "a file in blocks of another one that were never written",
        (Lost, "ext-blocks-shared"),
        &["/p0/empty.bin", ONE],
        |f| {
            let v = volume(f);
            let (one, empty) = (v.inode(v.one()), v.inode(v.named("empty.bin")));
            // The first extent of each stands in the inode.
            let block = v.0.u32(empty + 0x28 + 12 + 8);
            assert!(v.0.u16(empty + 0x28 + 12 + 4) > 32_768, "never written");
            v.0.set_u32(one + 0x28 + 12 + 8, block);
            on_disk(u64::from(block) * BLOCK)
        },
    ),
];
