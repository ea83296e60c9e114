//! Free space as ranges, from bitmaps.

use std::ops::Range;

/// Called with each range of free bytes of a volume, in order.
pub type Visit<'a> = &'a mut dyn FnMut(Range<u64>);

/// Joins neighbouring free units and hands them over.
pub(crate) struct Free<'v> {
    visit: Visit<'v>,
    /// Where unit 0 begins, in bytes, and how long each is.
    base: u64,
    unit: u64,
    open: Option<Range<u64>>,
}

impl<'v> Free<'v> {
    pub(crate) fn new(visit: Visit<'v>, base: u64, unit: u64) -> Self {
        Self {
            visit,
            base,
            unit,
            open: None,
        }
    }

    /// Units `first..first + count` are free. They come in order.
    pub(crate) fn add(&mut self, first: u64, count: u64) {
        match &mut self.open {
            Some(open) if open.end == first => open.end = first.saturating_add(count),
            _ => {
                self.close();
                self.open = Some(first..first.saturating_add(count));
            }
        }
    }

    /// Bits of a map, the lowest of each byte first, set for what is in use; bit 0 is unit
    /// `first`, and `count` of them count.
    pub(crate) fn bits(&mut self, bits: &[u8], first: u64, count: u64) {
        let mut at = 0u64;
        for byte in bits {
            if at >= count {
                break;
            }
            let here = count.saturating_sub(at).min(8);
            match byte {
                0xff => {}
                0 => self.add(first.saturating_add(at), here),
                _ => {
                    for bit in 0..here {
                        if byte >> bit & 1 == 0 {
                            self.add(first.saturating_add(at).saturating_add(bit), 1);
                        }
                    }
                }
            }
            at = at.saturating_add(8);
        }
    }

    /// Hands over what is left.
    pub(crate) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let place = |n: u64| self.base.saturating_add(n.saturating_mul(self.unit));
            (self.visit)(place(open.start)..place(open.end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_ranges() {
        let mut all = Vec::new();
        let mut visit = |r| all.push(r);
        let mut free = Free::new(&mut visit, 1000, 10);
        free.bits(&[0b1111_0000, 0xff, 0, 0b0000_0001], 0, 29);
        free.add(29, 1);
        free.close();
        assert_eq!(all, [1000..1040, 1160..1240, 1250..1300]);
    }
}
