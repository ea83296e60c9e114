//! LZX as in WIM files: a window of 32 KiB that begins anew with every chunk, no header for
//! the translation of x86 calls, which is always on, and a short form of block lengths.

use super::huffman::{Bits, Code, Problem, copy};

/// Slots of match distances for a window of 32 KiB.
const SLOTS: usize = 30;
/// Symbols of the main code: literals, then distance slot and length header together.
const MAIN: usize = 256 + 8 * SLOTS;
/// Symbols of the length code.
const LENGTHS: usize = 249;
/// Block length that is written as one bit.
const USUAL: usize = 32_768;
/// The file size that call translation pretends.
const CALL_LIMIT: i32 = 12_000_000;

/// First formatted distance of a slot, and how many bits follow.
fn slot(number: usize) -> (u32, u32) {
    let n = number as u32;
    if n < 4 {
        (n, 0)
    } else {
        let extra = (n / 2).saturating_sub(1);
        ((2 | (n & 1)).checked_shl(extra).unwrap_or(0), extra)
    }
}

/// Decodes `coded` so that it fills `out` (at most 32 KiB).
pub(crate) fn decode(coded: &[u8], out: &mut [u8]) -> Result<(), Problem> {
    let mut bits = Bits::new(coded, 0);
    let mut main = [0u8; MAIN];
    let mut lengths = [0u8; LENGTHS];
    let mut recent = [1u32; 3];
    let mut at = 0usize;
    while at < out.len() {
        let kind = bits.take(3);
        let len = if bits.take(1) == 1 {
            USUAL
        } else {
            bits.take(16) as usize
        };
        let end = at.saturating_add(len);
        if len == 0 || end > out.len() {
            return Err("a block of a wrong length");
        }
        match kind {
            1 | 2 => {
                let aligned = if kind == 2 {
                    let mut lengths = [0; 8];
                    lengths.fill_with(|| bits.take(3) as u8);
                    Some(Code::new(&lengths)?)
                } else {
                    None
                };
                let (literals, matches) = main.split_at_mut(256);
                code_lengths(&mut bits, literals)?;
                code_lengths(&mut bits, matches)?;
                code_lengths(&mut bits, &mut lengths)?;
                let codes = Codes {
                    main: Code::new(&main)?,
                    lengths: Code::new(&lengths)?,
                    aligned,
                };
                codes.block(&mut bits, &mut recent, out, at, end)?;
            }
            3 => {
                let from = bits.align();
                for (value, at) in recent.iter_mut().zip([0usize, 4, 8]) {
                    let bytes = coded.get(from.saturating_add(at)..);
                    *value = bytes
                        .and_then(|b| b.first_chunk())
                        .map(|b| u32::from_le_bytes(*b))
                        .ok_or("a plain block that is cut off")?;
                }
                let from = from.saturating_add(12);
                let stop = from.saturating_add(len);
                match (out.get_mut(at..end), coded.get(from..stop)) {
                    (Some(to), Some(plain)) => to.copy_from_slice(plain),
                    _ => return Err("a plain block that is cut off"),
                }
                // Blocks begin at words.
                bits.resume(stop.saturating_add(len & 1));
            }
            _ => return Err("a block of an unknown kind"),
        }
        if bits.overrun() {
            return Err("an end that is cut off");
        }
        at = end;
    }
    calls(out);
    Ok(())
}

struct Codes {
    main: Code,
    lengths: Code,
    aligned: Option<Code>,
}

impl Codes {
    /// Decodes one block into `out[at..end]`.
    fn block(
        &self,
        bits: &mut Bits<'_>,
        recent: &mut [u32; 3],
        out: &mut [u8],
        mut at: usize,
        end: usize,
    ) -> Result<(), Problem> {
        while at < end {
            let symbol = self.main.take(bits)?;
            if let Ok(literal) = u8::try_from(symbol) {
                if let Some(byte) = out.get_mut(at) {
                    *byte = literal;
                }
                at = at.saturating_add(1);
                continue;
            }
            let symbol = usize::from(symbol).saturating_sub(256);
            let mut len = (symbol & 7).saturating_add(2);
            if symbol & 7 == 7 {
                len = len.saturating_add(usize::from(self.lengths.take(bits)?));
            }
            let distance = self.distance(symbol >> 3, bits, recent)?;
            at = copy(out, at, distance as usize, len)?;
            if at > end {
                return Err("a match beyond its block");
            }
            if bits.overrun() {
                return Err("an end that is cut off");
            }
        }
        Ok(())
    }

    /// The distance of a match, from the three last ones or new.
    fn distance(
        &self,
        number: usize,
        bits: &mut Bits<'_>,
        recent: &mut [u32; 3],
    ) -> Result<u32, Problem> {
        if number < 3 {
            recent.swap(0, number);
        } else {
            let (base, extra) = slot(number);
            let low = match &self.aligned {
                Some(aligned) if extra >= 3 => {
                    let high = bits.take(extra.saturating_sub(3)) << 3;
                    high | u32::from(aligned.take(bits)?)
                }
                _ => bits.take(extra),
            };
            let [first, second, _] = *recent;
            *recent = [base.saturating_add(low).saturating_sub(2), first, second];
        }
        let [distance, _, _] = *recent;
        Ok(distance)
    }
}

/// Reads code lengths, written as differences to those of the block before.
fn code_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Result<(), Problem> {
    let mut pre = [0u8; 20];
    pre.fill_with(|| bits.take(4) as u8);
    let pre = Code::new(&pre)?;
    // Differences count modulo 17.
    let minus = |old: u8, code: u16| -> u8 {
        let code = code.min(17) as u8;
        old.saturating_add(17).saturating_sub(code) % 17
    };
    let mut at = 0usize;
    while let Some(&old) = lengths.get(at) {
        let code = pre.take(bits)?;
        let (run, value) = match code {
            0..=16 => (1, minus(old, code)),
            17 => (bits.take(4).saturating_add(4), 0),
            18 => (bits.take(5).saturating_add(20), 0),
            _ => {
                let run = bits.take(1).saturating_add(4);
                let code = pre.take(bits)?;
                if code > 16 {
                    return Err("a run of runs in a code");
                }
                (run, minus(old, code))
            }
        };
        // A run may reach over the end: the rest of it counts for nothing.
        let end = at.saturating_add(run as usize).min(lengths.len());
        if let Some(part) = lengths.get_mut(at..end) {
            part.fill(value);
        }
        at = end;
        if bits.overrun() {
            return Err("a code that is cut off");
        }
    }
    Ok(())
}

/// Undoes the translation of x86 calls: absolute targets become relative again. The last
/// ten bytes are left alone.
fn calls(out: &mut [u8]) {
    let Some(last) = out.len().checked_sub(10) else {
        return;
    };
    let mut at = 0usize;
    while let Some(skip) = out
        .get(at..last)
        .and_then(|rest| rest.iter().position(|b| *b == 0xe8))
    {
        at = at.saturating_add(skip);
        let place = at as i32;
        let target = out
            .get_mut(at.saturating_add(1)..)
            .and_then(|t| t.first_chunk_mut::<4>());
        if let Some(target) = target {
            let absolute = i32::from_le_bytes(*target);
            let relative = if (0..CALL_LIMIT).contains(&absolute) {
                Some(absolute.wrapping_sub(place))
            } else if absolute < 0 && absolute >= place.saturating_neg() {
                Some(absolute.wrapping_add(CALL_LIMIT))
            } else {
                None
            };
            if let Some(relative) = relative {
                *target = relative.to_le_bytes();
            }
        }
        at = at.saturating_add(5);
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, slot};
    use proptest::prelude::*;

    #[test]
    fn slots_follow_each_other() {
        let mut next = 0;
        for number in 0..30 {
            let (base, extra) = slot(number);
            assert_eq!(base, next, "slot {number}");
            next = base + (1 << extra);
        }
        assert_eq!(next, 32_768);
    }

    proptest! {
        #[test]
        fn never_panics(coded in prop::collection::vec(any::<u8>(), 0..2000), len in 0usize..32_769) {
            let _ = decode(&coded, &mut vec![0; len]);
        }
    }
}
