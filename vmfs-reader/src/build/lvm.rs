//! LVM 5 and 6 metadata (fact sheet, VMFS 1).

use super::{Builder, Bytes, store::Device, store::Store};
use crate::lvm::{MAGIC, UNIT};
use disk_io::SparseMemDisk;
use std::sync::Arc;

const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x110_0000;
const PER_MAP: u64 = 8192;
const MAP: u64 = 0x10_0400;

/// The devices of a volume, in its order. Devices over 16 TiB are not made.
pub(super) fn devices(b: &Builder, store: &Arc<Store>) -> Vec<Device> {
    let mut first = 0;
    let mut out = Vec::new();
    for (index, units) in b.units.iter().enumerate() {
        let head = head(b, index, first, *units);
        let len = DATA + units * UNIT;
        out.push(Device::with_head(head, store.clone(), first * UNIT, len));
        first += units;
    }
    out
}

/// The 78 bytes that identify a SCSI device.
pub(super) fn scsi(index: usize) -> Bytes {
    let mut scsi = Bytes::new(78);
    scsi.put(0, &[1, 26]);
    scsi.put(34, format!("VMDK{index:05}           MADE  ").as_bytes());
    scsi
}

fn head(b: &Builder, index: usize, first: u64, units: u64) -> SparseMemDisk {
    let mut disk = SparseMemDisk::new(DATA);
    let volume = b.uuid(0x11);
    let count = b.units.len() as u64;
    let maps = units.div_ceil(PER_MAP);
    assert!(maps <= 8, "devices of at most 16 TiB are made");
    let entries = if b.six { 1 } else { units };

    let mut h = Bytes::new(512);
    h.u32(0, MAGIC.into())
        .u32(4, if b.six { 6 } else { 5 })
        .u32(8, 21);
    h.put(0xC, &scsi(index).0).u32(0x5A, 512);
    h.u64(0x5E, DATA + units * UNIT).u32(0x66, 1);
    h.u32(0x6A, entries)
        .u32(0x6E, entries - 1)
        .u64(0x72, 3)
        .u64(0x7A, DATA);
    h.put(0x82, &b.uuid(0x100 + index as u32).0);
    h.u64(0x92, 1_751_270_799_848_010)
        .u64(0x9A, 1_751_270_799_892_520);
    if b.six {
        h.u32(0xCA, 4096).u32(0xCE, units);
    } else {
        h.u32(0xBE, maps);
    }
    disk.put(HEADER, &h.0);

    let mut v = Bytes::new(512);
    let size = b.size();
    v.u64(0, size).u64(8, size / UNIT + count).u32(0x10, 1);
    v.put(0x14, volume.to_string().as_bytes())
        .put(0x54, &volume.0);
    v.u32(0x64, 1).u64(0x68, 1_751_270_799_000_000).u32(0x70, 0);
    v.u32(0x74, units)
        .u64(0x78, first)
        .u64(0x80, first + units - 1);
    v.u64(0x88, 1_751_270_799_000_000).u32(0x90, count);
    if b.six {
        v.u32(0x110, 1);
    }
    let table = if b.six {
        HEADER + 0x1000
    } else {
        HEADER + 0x200
    };
    disk.put(table, &v.0);

    if first == 0 {
        let names = if b.six { 0x17_F000 } else { 0x17_E200 };
        for i in 0..b.units.len() {
            let name = format!("t10.ATA_____MADE_HARDDISK____VMDK{i:05}:1");
            disk.put(names + i as u64 * 256, name.as_bytes());
        }
    }
    let entry = |number: u64, physical: u64, logical: u64, len: u64| {
        let mut e = Bytes::new(128);
        e.0[0] = 1;
        e.u32(1, number)
            .u64(9, physical)
            .u64(0x11, logical)
            .u64(0x19, len)
            .u32(0x21, 1);
        e.0
    };
    if b.six {
        disk.put(0x18_1000, &[1]);
        disk.put(0x18_2000, &entry(0, DATA, first * UNIT, units * UNIT));
        return disk;
    }
    for map in 0..maps {
        let here = (units - map * PER_MAP).min(PER_MAP);
        let mut bitmap = vec![0u8; 1024];
        let mut table = Vec::new();
        for i in 0..here {
            bitmap[i as usize / 8] |= 1 << (i % 8);
            let n = map * PER_MAP + i;
            table.extend(entry(n, DATA + n * UNIT, (first + n) * UNIT, UNIT));
        }
        disk.put(0x18_0200 + map * MAP, &bitmap);
        disk.put(0x18_0600 + map * MAP, &table);
    }
    disk
}
