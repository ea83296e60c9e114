//! VMFS-5 and VMFS-6: datastores on one device with LVM, made by the builder of `vmfs-reader`;
//! where the structures lie is asked of the reader before anything is damaged.

use super::{
    Base, Bytes, Damage, Files,
    Severity::{Damage as Lost, Note, Warning},
    Spot, at,
};
use anyhow::{Context, Result};
use disk_io::{
    Disk, MemDisk, Run, RunKind, SparseMemDisk,
    disk::{check_range, check_run_offset},
};
use std::sync::Arc;
use vmfs_reader::{
    FdAddress, OpenOptions, Place, Volume,
    build::{Builder, FileSpec, Provision},
};

const V: &str = "lun.img";
const ONE: &str = "/p0/one.bin";
const TWO: &str = "/p0/two.bin";
const LARGE: &str = "/p0/large.bin";
const DIR: &str = "/p0/d";
/// Where the volume begins on its device.
const DATA: u64 = 0x110_0000;
const MIB: u64 = 1 << 20;

const FIVE: &Base = &Base {
    name: "VMFS-5",
    programs: &[],
    make: || make(Builder::five("ds")),
};
const SIX: &Base = &Base {
    name: "VMFS-6",
    programs: &[],
    make: || make(Builder::six("ds")),
};

fn make(mut b: Builder) -> Result<Files> {
    let thick = |provision| FileSpec {
        provision,
        ..FileSpec::default()
    };
    for (name, byte) in [("one.bin", 1), ("two.bin", 2)] {
        let contents = Arc::new(MemDisk::new(vec![byte; 3 << 20]));
        b.file(name, contents, thick(Provision::Thick));
    }
    // Longer than the pointers of a descriptor reach.
    let mut large = SparseMemDisk::new(400 * MIB);
    large.put(0, &[3; 4096]);
    large.put(399 * MIB, &[4; 4096]);
    b.file("large.bin", Arc::new(large), thick(Provision::Thin));
    for i in 0..30u8 {
        b.bytes(&format!("d/{i:02}"), &[i; 7000]);
    }
    let host = vmfs_reader::Uuid([9; 16]);
    b.heartbeat(host, 7);
    let disk = b.disks().pop().context("a device")?;
    Ok(Files::one(V, Bytes::of_disk(&*disk)?))
}

/// The device as a disk.
#[derive(Debug)]
struct Device(Bytes);

impl Disk for Device {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> disk_io::Result<()> {
        check_range(self.0.len(), offset, buf.len())?;
        buf.copy_from_slice(&self.0.get(offset, buf.len()));
        Ok(())
    }

    fn run_at(&self, offset: u64) -> disk_io::Result<Run> {
        check_run_offset(self.0.len(), offset)?;
        Ok(Run {
            len: self.0.len() - offset,
            kind: RunKind::Data,
        })
    }
}

/// A sound datastore by its structures; places are those of the device.
struct Vmfs<'a> {
    bytes: &'a mut Bytes,
    volume: Volume,
    six: bool,
}

/// A bit of a bitmap, and the header that it is in.
struct Bit {
    header: u64,
    byte: u64,
    mask: u8,
}

impl Vmfs<'_> {
    fn find(&self, path: &str) -> FdAddress {
        let start = self.volume.root();
        path.split('/').fold(start, |dir, name| {
            let found = self.volume.lookup(dir, name.as_bytes()).unwrap();
            found.unwrap_or_else(|| panic!("no {path}")).address
        })
    }

    /// Where a byte of a file lies.
    fn of(&self, path: &str, offset: u64) -> u64 {
        let file = self.volume.open_file(self.find(path)).unwrap();
        match file.extent_at(offset).unwrap().place {
            Place::Stored(place) => place + DATA,
            other => panic!("{other:?}"),
        }
    }

    fn descriptor(&self, path: &str) -> u64 {
        self.volume.stat(self.find(path)).unwrap().place + DATA
    }

    /// The fields of a descriptor.
    fn fields(&self, path: &str) -> u64 {
        self.descriptor(path) + self.align()
    }

    fn align(&self) -> u64 {
        if self.six { 4096 } else { 512 }
    }

    /// Where a pointer of a descriptor stands.
    fn pointer(&self, path: &str, n: u64) -> u64 {
        match self.six {
            true => self.descriptor(path) + 0x1600 + 8 * n,
            false => self.descriptor(path) + 0x400 + 4 * n,
        }
    }

    fn get(&self, at: u64) -> u64 {
        match self.six {
            true => self.bytes.u64(at),
            false => self.bytes.u32(at).into(),
        }
    }

    fn set(&mut self, at: u64, value: u64) {
        match self.six {
            true => self.bytes.set_u64(at, value),
            false => self.bytes.set_u32(at, value as u32),
        }
    }

    /// The address of a file block by its number.
    fn block(&self, n: u64) -> u64 {
        match self.six {
            true => (n % 512) << 51 | (n / 512) << 15 | 1,
            false => n << 6 | 1,
        }
    }

    /// A resource by cluster and item.
    fn bit(&self, name: &str, cluster: u64, item: u64) -> Bit {
        let header_len = 2 * self.align();
        let wide = self.six && name == ".fbb.sf";
        // The clusters of small blocks stand behind those of the large ones.
        let first = if wide { 0x1_0000 + 65536 } else { 0x1_0000 };
        let header = self.of(name, first + cluster * header_len);
        let map = header + self.align() + if self.six { 0x80 } else { 0x10 };
        let (byte, mask) = match wide {
            true => (item % 256 / 4 + item / 256 * 0x100, 1 << (item % 4 * 2)),
            false => (item / 8, 1 << (item % 8)),
        };
        Bit {
            header,
            byte: map + byte,
            mask,
        }
    }

    fn bit_of_block(&self, n: u64) -> Bit {
        let per = if self.six { 512 } else { 200 };
        self.bit(".fbb.sf", n / per, n % per)
    }

    fn bit_of_descriptor(&self, path: &str) -> Bit {
        let address = u64::from(self.find(path).0);
        self.bit(".fdc.sf", address >> 6 & 0xffff, address >> 22)
    }

    /// The bit of a sub-block or pointer block, by its address.
    fn bit_of(&self, raw: u64) -> Bit {
        let name = if raw & 7 == 3 { ".pbc.sf" } else { ".sbc.sf" };
        match self.six {
            true => self.bit(name, raw >> 6 & 0xf_ffff_ffff, raw >> 56),
            false => {
                let low = if raw & 7 == 2 { raw >> 3 & 3 } else { 0 };
                self.bit(name, raw >> 6 & 0x3f_ffff, raw >> 28 | low << 4)
            }
        }
    }

    /// The number of a file's first block.
    fn first_block(&self, path: &str) -> u64 {
        (self.of(path, 0) - DATA) / MIB
    }

    fn set_free(&mut self, bit: &Bit) -> Spot {
        let old = self.bytes.u8(bit.byte);
        assert_eq!(old & bit.mask, 0);
        self.bytes.set_u8(bit.byte, old | bit.mask);
        self.told(bit.header, 1)
    }

    /// A place of the volume, as findings tell it.
    fn told(&self, device: u64, len: u64) -> Spot {
        at("", device - DATA, len)
    }

    /// Where an entry of a directory stands.
    fn entry(&self, dir: &str, name: &str) -> u64 {
        let dir = match dir {
            "" => self.volume.root(),
            dir => self.find(dir),
        };
        let file = self.volume.open_file(dir).unwrap();
        let mut bytes = vec![0; file.len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let name = [name.as_bytes(), &[0]].concat();
        let (step, at) = if self.six { (8, 0x18) } else { (4, 12) };
        let found = bytes.windows(name.len()).enumerate().skip(at);
        let mut found = found.filter(|(i, w)| (i - at) % step == 0 && **w == *name);
        let (offset, _) = found.next_back().unwrap();
        let Place::Stored(place) = file.extent_at((offset - at) as u64).unwrap().place else {
            panic!("an entry that is not stored");
        };
        place + DATA
    }
}

fn volume(f: &mut Files) -> Vmfs<'_> {
    let bytes = f.of(V);
    let disk: Arc<dyn Disk> = Arc::new(Device(bytes.clone()));
    let volume = Volume::open(&[disk], &OpenOptions::default()).unwrap();
    let six = volume.superblock().generation() == 6;
    Vmfs { bytes, volume, six }
}

const FREE: &[&str] = &["vmfs-free-count-wrong"];

const fn of(base: &'static Base) -> [Damage; 28] {
    [
        Damage::new(
            base,
            "a file's block that the bitmap calls free",
            (Warning, "vmfs-bitmap-free"),
            &[ONE],
            |f| {
                let mut v = volume(f);
                let block = v.first_block("one.bin") + 1;
                let bit = v.bit_of_block(block);
                v.set_free(&bit).touching(DATA + block * MIB)
            },
        )
        .with(FREE),
        Damage::new(
            base,
            "a file's sub-block that the bitmap calls free",
            (Warning, "vmfs-bitmap-free"),
            &["/p0/d/05"],
            |f| {
                let mut v = volume(f);
                let bit = v.bit_of(v.get(v.pointer("d/05", 0)));
                v.set_free(&bit)
            },
        )
        .with(FREE),
        Damage::new(
            base,
            "a pointer block that the bitmap calls free",
            (Warning, "vmfs-bitmap-free"),
            &[LARGE],
            |f| {
                let mut v = volume(f);
                let bit = v.bit_of(v.get(v.pointer("large.bin", 0)));
                v.set_free(&bit)
            },
        )
        .with(FREE),
        Damage::new(
            base,
            "a descriptor that the bitmap calls free",
            (Warning, "vmfs-descriptor-called-free"),
            &[TWO],
            |f| {
                let mut v = volume(f);
                let bit = v.bit_of_descriptor("two.bin");
                v.set_free(&bit)
            },
        )
        .with(FREE),
        Damage::new(
            base,
            "a free count",
            (Warning, "vmfs-free-count-wrong"),
            &[],
            |f| {
                let v = volume(f);
                let header = v.bit_of_block(0).header;
                let at = header + v.align() + if v.six { 0x22 } else { 8 };
                v.bytes.flip(at, 1);
                v.told(header, 2 * v.align())
            },
        ),
        Damage::new(
            base,
            "a block in use that no file has",
            (Note, "vmfs-space-lost"),
            &[],
            |f| {
                let v = volume(f);
                // Behind all files.
                let block = 1023;
                let bit = v.bit_of_block(block);
                v.bytes.flip(bit.byte, bit.mask);
                let at = bit.header + v.align() + if v.six { 0x22 } else { 8 };
                let free = v.bytes.u16(at);
                v.bytes.set_u16(at, free - 1);
                v.told(bit.header, 1)
            },
        ),
        Damage::new(
            base,
            "a bitmap without its lock",
            (Warning, "vmfs-bitmap-damaged"),
            &[],
            |f| {
                let v = volume(f);
                let header = v.bit_of_block(0).header;
                v.bytes.set_u32(header, 0);
                v.told(header, v.align())
            },
        ),
        Damage::new(
            base,
            "a bitmap that is another cluster's",
            (Warning, "vmfs-bitmap-damaged"),
            &[],
            |f| {
                let v = volume(f);
                let header = v.bit_of_descriptor("one.bin").header;
                let at = header + v.align() + if v.six { 0x18 } else { 0 };
                v.bytes.set_u32(at, 77);
                v.told(header, 2 * v.align())
            },
        ),
        Damage::new(
            base,
            "two files in the same block",
            (Lost, "vmfs-blocks-shared"),
            &[ONE, TWO],
            |f| {
                let mut v = volume(f);
                let other = v.get(v.pointer("one.bin", 1));
                let at = v.pointer("two.bin", 0);
                v.set(at, other);
                let touched = DATA + (v.first_block("one.bin") + 1) * MIB;
                Spot::default().touching(touched)
            },
        ),
        Damage::new(
            base,
            "two files in the same sub-block",
            (Lost, "vmfs-blocks-shared"),
            &["/p0/d/03", "/p0/d/04"],
            |f| {
                let mut v = volume(f);
                let other = v.get(v.pointer("d/03", 0));
                let at = v.pointer("d/04", 0);
                v.set(at, other);
                Spot::default()
            },
        ),
        Damage::new(
            base,
            "a file in the blocks of a bitmap",
            (Lost, "vmfs-blocks-shared"),
            &["/p0/.fbb.sf", ONE],
            |f| {
                let mut v = volume(f);
                let other = v.get(v.pointer(".fbb.sf", 0));
                let at = v.pointer("one.bin", 0);
                v.set(at, other);
                Spot::default()
            },
        ),
        Damage::new(
            base,
            "a block behind the end of the volume",
            (Lost, "vmfs-descriptor-damaged"),
            &[ONE],
            |f| {
                let mut v = volume(f);
                let (at, outside) = (v.pointer("one.bin", 2), v.block(5000));
                v.set(at, outside);
                let place = v.descriptor("one.bin");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a pointer that is no block's",
            (Lost, "vmfs-descriptor-damaged"),
            &[ONE],
            |f| {
                let mut v = volume(f);
                let at = v.pointer("one.bin", 2);
                v.set(at, 0x0040_0004);
                let place = v.descriptor("one.bin");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a sub-block that is not there",
            (Lost, "vmfs-descriptor-damaged"),
            &["/p0/d/09"],
            |f| {
                let mut v = volume(f);
                let at = v.pointer("d/09", 0);
                v.set(at, 60_000 << 6 | 2);
                let place = v.descriptor("d/09");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a pointer block that is not there",
            (Lost, "vmfs-descriptor-damaged"),
            &[LARGE],
            |f| {
                let mut v = volume(f);
                let at = v.pointer("large.bin", 0);
                let raw = 60_000 << 6 | if v.six { 2 } else { 3 };
                v.set(at, raw);
                let place = v.descriptor("large.bin");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a pointer block that leads behind the end",
            (Lost, "vmfs-descriptor-damaged"),
            &[LARGE],
            |f| {
                let mut v = volume(f);
                let raw = v.get(v.pointer("large.bin", 0));
                let outside = v.block(5000);
                let at = v.pointer_block(raw);
                v.set(at, outside);
                let place = v.descriptor("large.bin");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a file that is longer than its pointers reach",
            (Lost, "vmfs-descriptor-damaged"),
            &[ONE],
            |f| {
                let v = volume(f);
                let at = v.fields("one.bin");
                v.bytes.set_u64(at + 0x14, 1 << 40);
                let place = v.descriptor("one.bin");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a descriptor without its lock",
            (Lost, "vmfs-descriptor-damaged"),
            &[ONE],
            |f| {
                let v = volume(f);
                let place = v.descriptor("one.bin");
                v.bytes.fill(place, 16, 0);
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a descriptor that is another one's",
            (Lost, "vmfs-descriptor-damaged"),
            &[ONE],
            |f| {
                let v = volume(f);
                let at = v.fields("one.bin");
                v.bytes.flip(at + 2, 0x40);
                v.told(at, 4)
            },
        ),
        Damage::new(
            base,
            "a descriptor of no known kind",
            (Lost, "vmfs-descriptor-damaged"),
            &[ONE],
            |f| {
                let v = volume(f);
                let at = v.fields("one.bin") + 0xc;
                v.bytes.set_u32(at, 99);
                v.told(at, 4)
            },
        ),
        Damage::new(
            base,
            "a descriptor that was given to another file",
            (Lost, "vmfs-entry-stray"),
            &[ONE],
            |f| {
                let v = volume(f);
                let at = v.fields("one.bin");
                v.bytes.set_u32(at + 4, 9);
                let place = v.descriptor("one.bin");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "an entry of an older generation",
            (Lost, "vmfs-entry-stray"),
            &["/p0/d/12"],
            |f| {
                let v = volume(f);
                let at = v.entry("d", "12");
                v.bytes.set_u32(at + 8, 0);
                let place = v.descriptor("d/12");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "an entry that says another kind",
            (Lost, "vmfs-entry-stray"),
            &["/p0/d/12"],
            |f| {
                let v = volume(f);
                let at = v.entry("d", "12");
                v.bytes.set_u32(at, 6);
                let place = v.descriptor("d/12");
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "an entry that leads to another file",
            (Lost, "vmfs-entry-stray"),
            // Which of two names is the right one cannot be told.
            &["/p0/d/12"],
            |f| {
                let v = volume(f);
                let other = v.find("d/12").0;
                let at = v.entry("d", "13");
                v.bytes.set_u32(at + 4, other);
                let place = v.descriptor("d/12");
                v.told(place, 1)
            },
        )
        .with(&["vmfs-name-lost"]),
        Damage::new(
            base,
            "an entry that leads to a free descriptor",
            (Lost, "vmfs-entry-stray"),
            &["/p0/d/13"],
            |f| {
                let v = volume(f);
                let at = v.entry("d", "13");
                // The last but one of its cluster.
                let item: u32 = if v.six { 254 } else { 198 };
                v.bytes.set_u32(at + 4, item << 22 | 4);
                Spot::default()
            },
        )
        .with(&["vmfs-name-lost"]),
        Damage::new(
            base,
            "an entry of no known kind",
            (Lost, "vmfs-directory-damaged"),
            &[DIR],
            |f| {
                let v = volume(f);
                let at = v.entry("d", "13");
                v.bytes.set_u32(at, 99);
                Spot::default()
            },
        )
        .with(&["vmfs-name-lost"]),
        Damage::new(
            base,
            "a damaged heartbeat",
            (Warning, "vmfs-heartbeat-damaged"),
            &[],
            |f| {
                let v = volume(f);
                let place = DATA + 0x30_0000 + 3 * v.align();
                v.bytes.set_u32(place, 0x1234_5678);
                v.told(place, 1)
            },
        ),
        Damage::new(
            base,
            "a file system that was made on another volume",
            (Warning, "datastore-odd"),
            &[],
            |f| {
                let v = volume(f);
                v.bytes.flip(DATA + 0x20_0000 + 0xb1, 1);
                Spot::default()
            },
        ),
    ]
}

impl Vmfs<'_> {
    /// Where a pointer block lies, by its address; all of a small volume's are in one group.
    fn pointer_block(&self, raw: u64) -> u64 {
        match self.six {
            true => {
                let n = raw >> 56;
                self.of(".sbc.sf", 0x1_0000 + 8 * 8192 + n * 65536)
            }
            false => {
                let n = raw >> 28;
                self.of(".pbc.sf", 0x1_0000 + 64 * 1024 + n * 4096)
            }
        }
    }
}

/// What cannot be opened any more.
const fn unusable(base: &'static Base) -> [Damage; 4] {
    [
        Damage::new(
            base,
            "an LVM table without its entry",
            (Lost, "datastore-unusable"),
            &[],
            |f| {
                let v = volume(f);
                let table = if v.six { 0x18_2000 } else { 0x18_0600 };
                v.bytes.set_u8(table, 0);
                Spot::default()
            },
        ),
        Damage::new(
            base,
            "an LVM volume of more devices than there are",
            (Lost, "datastore-unusable"),
            &[],
            |f| {
                let v = volume(f);
                let entry = 0x10_0000 + v.align();
                v.bytes.set_u32(entry + 0x90, 2);
                Spot::default()
            },
        ),
        Damage::new(
            base,
            "a volume without its superblock",
            (Lost, "datastore-unusable"),
            &[],
            |f| {
                volume(f).bytes.set_u32(DATA + 0x20_0000, 0);
                Spot::default()
            },
        ),
        Damage::new(
            base,
            "the descriptor of the descriptors is damaged",
            (Lost, "datastore-unusable"),
            &[],
            |f| {
                let v = volume(f);
                let place = v.descriptor(".fdc.sf");
                v.bytes.set_u32(place, 0);
                Spot::default()
            },
        ),
    ]
}

const OF_FIVE: &[Damage] = &[
    Damage::new(
        FIVE,
        "a file that no directory has",
        (Warning, "vmfs-name-lost"),
        &["/p0/(record 100663300)"],
        |f| {
            let v = volume(f);
            let at = v.entry("d", "12");
            v.bytes.set_u32(at + 4, 0);
            let place = v.descriptor("d/12");
            v.told(place, 1)
        },
    ),
    Damage::new(
        FIVE,
        "the header of the pointer blocks is damaged",
        (Lost, "vmfs-resource-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let at = v.of(".pbc.sf", 0);
            v.bytes.set_u32(at, 0);
            Spot::default()
        },
    )
    .with(&["vmfs-descriptor-damaged"]),
];

const OF_SIX: &[Damage] = &[
    Damage::new(
        SIX,
        "a letter of a name",
        (Lost, "vmfs-directory-damaged"),
        &[DIR],
        |f| {
            let v = volume(f);
            let at = v.entry("d", "13");
            v.bytes.set_u8(at + 0x18, b'7');
            Spot::default()
        },
    )
    .with(&["vmfs-name-lost"]),
    Damage::new(
        SIX,
        "an entry that is another place's",
        (Lost, "vmfs-directory-damaged"),
        &[DIR],
        |f| {
            let v = volume(f);
            let at = v.entry("d", "13");
            v.bytes.flip(at + 0x11, 1);
            Spot::default()
        },
    )
    .with(&["vmfs-name-lost"]),
    Damage::new(
        SIX,
        "a directory whose table leads to nothing",
        (Warning, "vmfs-name-misplaced"),
        &["/p0/d/07"],
        |f| {
            let mut v = volume(f);
            let slot = v.slot("d/07");
            v.bytes.set_u32(slot, 0);
            Spot::default()
        },
    ),
    Damage::new(
        SIX,
        "a directory that says it is in another one",
        (Warning, "vmfs-directory-damaged"),
        &[DIR],
        |f| {
            let v = volume(f);
            let at = v.of("d", 0x4d8);
            v.bytes.set_u32(at + 4, 0x0040_0004);
            Spot::default()
        },
    ),
    Damage::new(
        SIX,
        "a directory's map without its header",
        (Lost, "vmfs-directory-damaged"),
        &[DIR],
        |f| {
            let v = volume(f);
            let at = v.of("d", 0x1_0000);
            v.bytes.set_u16(at + 2, 0);
            Spot::default()
        },
    )
    .with(&["vmfs-name-lost"]),
    Damage::new(
        SIX,
        "the header of the second pointer blocks is damaged",
        (Lost, "vmfs-resource-damaged"),
        &[],
        |f| {
            let v = volume(f);
            let at = v.of(".pb2.sf", 0x20);
            v.bytes.set_u32(at, 0);
            Spot::default()
        },
    ),
    Damage::new(
        SIX,
        "a descriptor without its signature",
        (Lost, "vmfs-descriptor-damaged"),
        &[ONE],
        |f| {
            let v = volume(f);
            let at = v.fields("one.bin") + 0x64;
            v.bytes.set_u32(at, 0);
            v.told(at, 4)
        },
    ),
];

impl Vmfs<'_> {
    /// The slot of the directory's table that leads to a name: the only one in use that holds
    /// its place.
    fn slot(&mut self, path: &str) -> u64 {
        let (dir, name) = path.rsplit_once('/').unwrap();
        let place = self.entry(dir, name);
        let table = self.of(dir, 0x5f8);
        // Block 0 is the map; 14 entries in each behind it.
        let file = self.volume.open_file(self.find(dir)).unwrap();
        let mut found = None;
        for block in 1..4u64 {
            for slot in 0..14u64 {
                let offset = 0x1_0000 + block * 4096 + 64 + slot * 288;
                if offset >= file.len() {
                    continue;
                }
                if let Place::Stored(p) = file.extent_at(offset).unwrap().place
                    && p + DATA == place
                {
                    found = Some((slot << 24 | block << 2 | 1) as u32);
                }
            }
        }
        let wanted = found.unwrap();
        let slots = (0..16001u64).map(|n| table + 4 * n);
        let mut hits = slots.filter(|at| self.bytes.u32(*at) == wanted);
        hits.next().unwrap()
    }
}

pub(super) const DAMAGES: [&[Damage]; 6] = [
    &of(FIVE),
    OF_FIVE,
    &unusable(FIVE),
    &of(SIX),
    OF_SIX,
    &unusable(SIX),
];
