//! Canonical Huffman codes over 16-bit words, as XPRESS and LZX share them.

/// What is wrong with coded bytes.
pub(crate) type Problem = &'static str;

/// Bits from little-endian 16-bit words, the highest first. At least 16 are at hand at any
/// time; behind the end they are zeros, and [`Bits::overrun`] tells.
pub(crate) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    buffer: u32,
    left: u32,
}

impl<'a> Bits<'a> {
    /// Begins at byte `at`.
    pub(crate) fn new(data: &'a [u8], at: usize) -> Self {
        let mut bits = Self {
            data,
            at,
            buffer: 0,
            left: 0,
        };
        bits.refill();
        bits.refill();
        bits
    }

    fn refill(&mut self) {
        let word = match self.data.get(self.at..) {
            Some([a, b, ..]) => u16::from_le_bytes([*a, *b]),
            Some([a]) => u16::from(*a),
            _ => 0,
        };
        self.at = self.at.saturating_add(2);
        self.buffer |= u32::from(word)
            .checked_shl(16u32.saturating_sub(self.left))
            .unwrap_or(0);
        self.left = self.left.saturating_add(16);
    }

    /// The next 16 bits.
    fn peek(&self) -> u16 {
        (self.buffer >> 16) as u16
    }

    fn skip(&mut self, n: u32) {
        self.buffer = self.buffer.checked_shl(n).unwrap_or(0);
        self.left = self.left.saturating_sub(n);
        if self.left < 16 {
            self.refill();
        }
    }

    /// Takes up to 16 bits.
    pub(crate) fn take(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let value = u32::from(self.peek())
            .checked_shr(16u32.saturating_sub(n))
            .unwrap_or(0);
        self.skip(n);
        value
    }

    /// Takes a whole byte from behind the words at hand (XPRESS).
    pub(crate) fn byte(&mut self) -> u32 {
        let byte = self.data.get(self.at).copied().unwrap_or(0);
        self.at = self.at.saturating_add(1);
        u32::from(byte)
    }

    /// Whether more was taken than there is.
    pub(crate) fn overrun(&self) -> bool {
        self.byte_position() > self.data.len().saturating_add(1)
    }

    fn byte_position(&self) -> usize {
        self.at.saturating_sub((self.left / 8) as usize)
    }

    /// Drops the rest of the current word, or a whole one at a boundary, and gives the byte
    /// position behind it (LZX).
    pub(crate) fn align(&mut self) -> usize {
        let odd = self.left % 16;
        self.skip(if odd == 0 { 16 } else { odd });
        self.byte_position()
    }

    /// Goes on at byte `at`.
    pub(crate) fn resume(&mut self, at: usize) {
        *self = Self::new(self.data, at);
    }
}

/// Codes of up to this many bits are looked up in one step.
const FAST: u32 = 10;
/// The longest code of either format.
const LONGEST: usize = 16;

/// A code, made from the lengths of its code words.
pub(crate) struct Code {
    /// By the next `FAST` bits: symbol and length, or length 0.
    fast: Vec<(u16, u8)>,
    /// Symbols in canonical order.
    symbols: Vec<u16>,
    /// For each length: the code word behind the last one of that length, left-aligned in
    /// 16 bits, and what to add to a code word's number to get its symbol's place.
    limits: [(u32, i32); LONGEST + 1],
}

impl Code {
    /// Makes a code; lengths of 0 are symbols without a code word. Codes that leave bit
    /// patterns over are taken: meeting such a pattern is the error.
    pub(crate) fn new(lengths: &[u8]) -> Result<Self, Problem> {
        let mut counts = [0u32; LONGEST + 1];
        for len in lengths {
            match counts.get_mut(usize::from(*len)) {
                Some(count) => *count = count.saturating_add(1),
                None => return Err("a code word that is too long"),
            }
        }
        let mut places = [0usize; LONGEST + 2];
        let mut limits = [(0u32, 0i32); LONGEST + 1];
        let (mut next, mut place) = (0u32, 0u32);
        for (len, count) in counts.iter().enumerate().skip(1) {
            // `next` is the first code word of this length, left-aligned in 16 bits.
            let step = (1u32 << LONGEST).checked_shr(len as u32).unwrap_or(0);
            let first = next.checked_div(step).unwrap_or(0);
            if let Some(p) = places.get_mut(len) {
                *p = place as usize;
            }
            next = next.saturating_add(step.saturating_mul(*count));
            if next > 1 << LONGEST {
                return Err("a code with too many words");
            }
            if let Some(limit) = limits.get_mut(len) {
                *limit = (
                    next,
                    place.cast_signed().saturating_sub(first.cast_signed()),
                );
            }
            place = place.saturating_add(*count);
        }
        let mut symbols = vec![0u16; place as usize];
        for (symbol, len) in lengths.iter().enumerate().filter(|(_, len)| **len > 0) {
            if let Some(p) = places.get_mut(usize::from(*len)) {
                if let Some(slot) = symbols.get_mut(*p) {
                    *slot = symbol as u16;
                }
                *p = p.saturating_add(1);
            }
        }
        let mut fast = Vec::with_capacity(1 << FAST);
        for symbol in &symbols {
            let len = lengths.get(usize::from(*symbol)).copied().unwrap_or(0);
            if u32::from(len) > FAST {
                break;
            }
            let width = 1usize << FAST.saturating_sub(u32::from(len));
            fast.resize(fast.len().saturating_add(width), (*symbol, len));
        }
        fast.resize(1 << FAST, (0, 0));
        Ok(Self {
            fast,
            symbols,
            limits,
        })
    }

    /// Takes one symbol.
    pub(crate) fn take(&self, bits: &mut Bits<'_>) -> Result<u16, Problem> {
        let next = bits.peek();
        let index = usize::from(next >> (16 - FAST));
        if let Some((symbol, len)) = self.fast.get(index)
            && *len > 0
        {
            bits.skip(u32::from(*len));
            return Ok(*symbol);
        }
        let next = u32::from(next);
        for (len, (limit, add)) in (0u32..).zip(&self.limits).skip(1) {
            if next < *limit {
                let word = next.checked_shr(16u32.saturating_sub(len)).unwrap_or(0);
                let place = usize::try_from(word.cast_signed().saturating_add(*add));
                let symbol = place.ok().and_then(|p| self.symbols.get(p));
                bits.skip(len);
                return symbol.copied().ok_or("a bit pattern without a symbol");
            }
        }
        Err("a bit pattern without a symbol")
    }
}

/// Copies a match of `len` bytes from `distance` before `at`; returns the place behind it.
pub(crate) fn copy(
    out: &mut [u8],
    at: usize,
    distance: usize,
    len: usize,
) -> Result<usize, Problem> {
    let from = at
        .checked_sub(distance)
        .filter(|_| distance > 0)
        .ok_or("a match from before its beginning")?;
    let end = at.saturating_add(len);
    if end > out.len() {
        return Err("a match beyond its end");
    }
    if distance >= len {
        out.copy_within(from..from.saturating_add(len), at);
    } else {
        // The match repeats itself: double what is there until it is long enough.
        let mut have = distance;
        let mut to = at;
        while to < end {
            let n = have.min(end.saturating_sub(to));
            out.copy_within(from..from.saturating_add(n), to);
            to = to.saturating_add(n);
            have = have.saturating_mul(2);
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::{Bits, Code, copy};

    #[test]
    fn codes_short_and_long() {
        // 0, 10, 110, ... and two words of 12 bits.
        let lengths: Vec<u8> = (1..12).chain([12, 12]).collect();
        let code = Code::new(&lengths).unwrap();
        for (symbol, len) in lengths.iter().enumerate() {
            let word: u16 = match symbol {
                11 => 0b1111_1111_1110 << 4,
                12 => 0b1111_1111_1111 << 4,
                _ => !(u16::MAX >> (len - 1)),
            };
            let data = word.to_le_bytes();
            let mut bits = Bits::new(&data, 0);
            assert_eq!(code.take(&mut bits), Ok(symbol as u16));
        }
    }

    #[test]
    fn refuses_bad_codes() {
        assert!(Code::new(&[1, 1, 1]).is_err());
        assert!(Code::new(&[17]).is_err());
        let empty = Code::new(&[0, 0]).unwrap();
        assert!(empty.take(&mut Bits::new(&[0, 0], 0)).is_err());
        let half = Code::new(&[1]).unwrap();
        assert_eq!(half.take(&mut Bits::new(&[0, 0], 0)), Ok(0));
        assert!(half.take(&mut Bits::new(&[0, 0x80], 0)).is_err());
    }

    #[test]
    fn copies_overlapping() {
        for distance in 1..9 {
            for len in 0..40 {
                let mut out = vec![0u8; 60];
                for (i, b) in out.iter_mut().enumerate().take(10) {
                    *b = i as u8 + 1;
                }
                let mut expected = out.clone();
                for i in 10..10 + len {
                    expected[i] = expected[i - distance];
                }
                assert_eq!(copy(&mut out, 10, distance, len), Ok(10 + len));
                assert_eq!(out, expected, "{distance} {len}");
            }
        }
        assert!(copy(&mut [0; 4], 1, 2, 1).is_err());
        assert!(copy(&mut [0; 4], 1, 0, 1).is_err());
        assert!(copy(&mut [0; 4], 1, 1, 4).is_err());
    }
}
