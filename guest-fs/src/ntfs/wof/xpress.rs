//! XPRESS with Huffman codes ([MS-XCA] 2.2), one block of at most 64 KiB.
//!
//! Our own, because the crate made for it stops as soon as the last word has been fetched,
//! which loses the symbols that are still in it (1 of 904 chunks in the tests), and takes
//! bit patterns without a symbol for zeros. It is the second opinion of the tests.

use super::huffman::{Bits, Code, Problem, copy};

/// Bytes of code lengths before the bits: 512 of four bits.
const LENGTHS: usize = 256;

/// Decodes `coded` so that it fills `out`.
pub(crate) fn decode(coded: &[u8], out: &mut [u8]) -> Result<(), Problem> {
    let table = coded.get(..LENGTHS).ok_or("a code that is cut off")?;
    let lengths: Vec<u8> = table.iter().flat_map(|b| [b & 15, b >> 4]).collect();
    let code = Code::new(&lengths)?;
    let mut bits = Bits::new(coded, LENGTHS);
    let mut at = 0;
    while at < out.len() {
        let symbol = code.take(&mut bits)?;
        if let Ok(literal) = u8::try_from(symbol) {
            if let Some(byte) = out.get_mut(at) {
                *byte = literal;
            }
            at = at.saturating_add(1);
            continue;
        }
        let mut len = u32::from(symbol & 15);
        if len == 15 {
            len = len.saturating_add(bits.byte());
            if len == 15 + 255 {
                len = bits.byte() | bits.byte() << 8;
                if len == 0 {
                    len = bits.byte() | bits.byte() << 8 | bits.byte() << 16 | bits.byte() << 24;
                }
                if len < 15 {
                    return Err("a match length that is written too long");
                }
            }
        }
        let width = u32::from(symbol >> 4 & 15);
        let distance = (1u32 << width) | bits.take(width);
        at = copy(out, at, distance as usize, len.saturating_add(3) as usize)?;
        if bits.overrun() {
            break;
        }
    }
    if bits.overrun() {
        return Err("an end that is cut off");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::decode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics(coded in prop::collection::vec(any::<u8>(), 0..2000), len in 0usize..16_384) {
            let _ = decode(&coded, &mut vec![0; len]);
        }
    }
}
