//! The hash of names in VMFS-6 directories: Bob Jenkins's lookup8 for 64-bit words over a
//! padded name of 256 bytes (fact sheet, VMFS 10).

use byteorder::{ByteOrder, LittleEndian};

const PAD: u64 = 0x739A_75C2_8E61_B017;
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C13;

/// Slots of the table; of a root directory some are kept for the system's files.
pub(crate) const SLOTS: u64 = 16001;
pub(crate) const ROOT_SLOTS: u64 = 15973;

fn mix(a: &mut u64, b: &mut u64, c: &mut u64) {
    macro_rules! step {
        ($x:ident, $y:ident, $z:ident, $shift:expr) => {
            *$x = $x.wrapping_sub(*$y).wrapping_sub(*$z) ^ $shift;
        };
    }
    step!(a, b, c, *c >> 43);
    step!(b, c, a, *a << 9);
    step!(c, a, b, *b >> 8);
    step!(a, b, c, *c >> 38);
    step!(b, c, a, *a << 23);
    step!(c, a, b, *b >> 5);
    step!(a, b, c, *c >> 35);
    step!(b, c, a, *a << 49);
    step!(c, a, b, *b >> 11);
    step!(a, b, c, *c >> 12);
    step!(b, c, a, *a << 18);
    step!(c, a, b, *b >> 22);
}

/// The hash of a name; of names longer than 127 bytes, which ESX refuses, the hash of their
/// first 127 bytes.
pub(crate) fn hash(name: &[u8]) -> u64 {
    let mut key = [0u8; 256];
    let len = name.len().min(127);
    if let (Some(to), Some(from)) = (key.get_mut(..len), name.get(..len)) {
        to.copy_from_slice(from);
    }
    // The pad begins at a whole word and repeats while it begins before byte 127.
    let start = len.saturating_add(8) & !7;
    for (i, word) in key.chunks_mut(8).enumerate() {
        let at = i.saturating_mul(8);
        if at >= start && at < 127 {
            word.copy_from_slice(&PAD.to_le_bytes());
        }
    }
    let mut words = [0u64; 32];
    LittleEndian::read_u64_into(&key, &mut words);
    let (mut a, mut b, mut c) = (42u64, 42u64, GOLDEN);
    for triple in words.chunks(3) {
        match triple {
            [x, y, z] => {
                a = a.wrapping_add(*x);
                b = b.wrapping_add(*y);
                c = c.wrapping_add(*z);
            }
            [x, y] => {
                // The last words; the count of words, not of bytes, goes into c.
                c = c.wrapping_add(32);
                a = a.wrapping_add(*x);
                b = b.wrapping_add(*y);
            }
            _ => {}
        }
        mix(&mut a, &mut b, &mut c);
    }
    c
}

/// The slot of a name in the table of a directory.
pub(crate) fn slot(hash: u64, root: bool) -> u64 {
    if root {
        hash % ROOT_SLOTS
    } else {
        hash % SLOTS
    }
}
