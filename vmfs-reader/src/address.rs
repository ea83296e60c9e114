//! Block addresses (fact sheet, VMFS 7): the low three bits are the kind, the rest depends
//! on it and on the layout.

use crate::superblock::{Geometry, Layout};
use disk_io::{DiskError, Result};
use std::fmt;

/// Names a file: the address of its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdAddress(pub u32);

impl FdAddress {
    /// The address of item `item` in cluster `cluster` of the descriptor file.
    pub(crate) fn new(cluster: u32, item: u32) -> Option<Self> {
        (cluster < 1 << 16 && item < 1 << 10).then_some(Self(item << 22 | cluster << 6 | 4))
    }

    pub(crate) fn item(self) -> Item {
        Item {
            cluster: u64::from(self.0 >> 6 & 0xFFFF),
            item: u64::from(self.0 >> 22),
        }
    }
}

impl fmt::Display for FdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Which resource of a resource file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) cluster: u64,
    pub(crate) item: u64,
}

/// An address taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Nothing is stored.
    Null,
    /// A file block, by number; VMFS-6 calls it a small file block.
    File { block: u64, zero: bool, cow: bool },
    /// A large file block of VMFS-6, by number.
    Large { block: u64, zero: bool, cow: bool },
    /// A sub-block.
    Sub { item: Item, cow: bool },
    /// A pointer block.
    Pointer(Item),
    /// A pointer block of the second kind.
    Pointer2(Item),
    /// A file descriptor.
    Descriptor(FdAddress),
    /// A journal block.
    Journal(Item),
}

fn bits(raw: u64, from: u32, to: u32) -> u64 {
    let width = to.saturating_sub(from).saturating_add(1);
    let mask = u64::MAX
        .checked_shr(64u32.saturating_sub(width))
        .unwrap_or(0);
    raw.checked_shr(from).unwrap_or(0) & mask
}

fn unknown(raw: u64, what: &str) -> DiskError {
    DiskError::unsupported("reading a block address")
        .expected(format!("{what} without unknown bits"))
        .found(format!("{raw:#x}"))
}

impl Address {
    /// Takes `raw` apart. Bits without a known meaning are refused: they could mean that the
    /// block is to be read in another way.
    pub(crate) fn parse(raw: u64, g: &Geometry) -> Result<Self> {
        if raw == 0 {
            return Ok(Self::Null);
        }
        match g.layout {
            Layout::Five => Self::parse_five(raw, g),
            Layout::Six => Self::parse_six(raw, g),
        }
    }

    fn parse_five(raw: u64, g: &Geometry) -> Result<Self> {
        let item = Item {
            cluster: bits(raw, 6, 27),
            item: bits(raw, 28, 31),
        };
        Ok(match raw & 7 {
            1 if raw & 8 != 0 => return Err(unknown(raw, "a file block")),
            1 => Self::File {
                block: bits(raw, 6, 31),
                zero: raw & 0x20 != 0,
                cow: raw & 0x10 != 0,
            },
            2 if !g.dense && raw & 0x18 != 0 => return Err(unknown(raw, "a sub-block")),
            2 => Self::Sub {
                item: Item {
                    // Bits 3 and 4 continue the item where sub-blocks are dense.
                    item: item.item | bits(raw, 3, 4) << 4,
                    ..item
                },
                cow: raw & 0x20 != 0,
            },
            3 => Self::Pointer(item),
            4 => Self::Descriptor(FdAddress(raw as u32)),
            5 => Self::Pointer2(item),
            _ => return Err(unknown(raw, "a kind of block")),
        })
    }

    fn parse_six(raw: u64, g: &Geometry) -> Result<Self> {
        let item = Item {
            cluster: bits(raw, 6, 41),
            item: bits(raw, 56, 63),
        };
        let spare = |ranges: &[(u32, u32)], what| {
            if ranges.iter().any(|(from, to)| bits(raw, *from, *to) != 0) {
                return Err(unknown(raw, what));
            }
            Ok(())
        };
        let zero = |large: bool| match bits(raw, 7, 14) {
            0 => Ok(false),
            0xFF => Ok(true),
            // A small block is no larger than what one bit stands for (fact sheet, VMFS 3:
            // granularity), so its only bit is the first.
            1 if !large => Ok(true),
            map => Err(
                DiskError::unsupported("reading a block that is partly to be zeroed")
                    .expected("all of a block or none of it")
                    .found(format!("zero map {map:#04x} of address {raw:#x}")),
            ),
        };
        Ok(match raw & 7 {
            1 => {
                spare(&[(3, 4), (6, 6), (46, 50)], "a small file block")?;
                let (cluster, item) = (bits(raw, 15, 45), bits(raw, 51, 63));
                if item >= g.per_cluster {
                    return Err(DiskError::corrupt("reading a block address")
                        .expected(format!("an item below {}", g.per_cluster))
                        .found(format!("item {item} of address {raw:#x}")));
                }
                Self::File {
                    block: cluster.saturating_mul(g.per_cluster).saturating_add(item),
                    zero: zero(false)?,
                    cow: raw & 0x20 != 0,
                }
            }
            2 => {
                spare(&[(3, 4), (42, 55)], "a sub-block")?;
                Self::Sub {
                    item,
                    cow: raw & 0x20 != 0,
                }
            }
            3 => Self::Pointer(item),
            4 => Self::Descriptor(FdAddress(
                u32::try_from(raw).map_err(|_| unknown(raw, "a descriptor"))?,
            )),
            5 => Self::Pointer2(item),
            6 => Self::Journal(Item {
                cluster: bits(raw, 3, 15),
                item: bits(raw, 26, 31),
            }),
            7 => {
                spare(&[(3, 4), (6, 6), (46, 63)], "a large file block")?;
                Self::Large {
                    block: bits(raw, 15, 45),
                    zero: zero(true)?,
                    cow: raw & 0x20 != 0,
                }
            }
            _ => return Err(unknown(raw, "a kind of block")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::Superblock;

    fn superblock(major: u32) -> Superblock {
        Superblock {
            local: false,
            major,
            minor: 0,
            uuid: Default::default(),
            config: 6,
            label: String::new(),
            device_block: 512,
            block_size: 1 << 20,
            created: 0,
            snapshot: 1,
            lvm_uuid: Default::default(),
            lvm_snapshot: 0,
            fdc_group: 0x10000,
            fdc_clusters: 8,
            sub_block: 8192,
            pb2: 0,
            sdd: 0,
            host: Default::default(),
            checksums: 0,
            alignment: if major >= 24 { 4096 } else { 512 },
            sector: 0,
        }
    }

    fn file(block: u64) -> Address {
        Address::File {
            block,
            zero: false,
            cow: false,
        }
    }

    /// The examples of the fact sheet, VMFS 7.
    #[test]
    fn known_addresses() {
        let five = superblock(14).geometry();
        let six = superblock(24).geometry();
        let zero = Address::File {
            block: 603,
            zero: true,
            cow: false,
        };
        assert_eq!(Address::parse(0x96E1, &five).unwrap(), zero);
        assert_eq!(
            Address::parse(0x0B18_0000_0000_8001, &six).unwrap(),
            file(0x3630_0000 >> 20)
        );
        let item = Item {
            cluster: 18,
            item: 1,
        };
        assert_eq!(
            Address::parse(0x0100_0000_0000_0482, &six).unwrap(),
            Address::Sub { item, cow: false }
        );
        let item = Item {
            cluster: 2,
            item: 0,
        };
        assert_eq!(Address::parse(0x16, &six).unwrap(), Address::Journal(item));
        let item = Item {
            cluster: 0x1112,
            item: 2,
        };
        assert_eq!(
            Address::parse(0x2004_4483, &five).unwrap(),
            Address::Pointer(item)
        );
        assert_eq!(Address::parse(0, &six).unwrap(), Address::Null);
    }

    #[test]
    fn unknown_is_refused() {
        let five = superblock(14).geometry();
        let six = superblock(24).geometry();
        for raw in [6u64, 7, 8, 0x40, 9] {
            assert!(Address::parse(raw, &five).is_err(), "{raw:#x}");
        }
        // A partial zero map, an item past its cluster, a spare bit.
        for raw in [
            1 | 0x0F << 7,
            1 | 512 << 51,
            1 | 1 << 46,
            7 | 1 << 7,
            2 | 1 << 50,
        ] {
            assert!(Address::parse(raw, &six).is_err(), "{raw:#x}");
        }
    }
}
