//! Long names: up to 20 entries of 13 UTF-16 units, last part first, right before the short
//! entry, each with the short name's checksum.

/// Parts of a name that are waiting for their short entry.
#[derive(Debug, Default)]
pub struct Long {
    /// Units by part, the name's beginning first.
    units: Vec<[u16; 13]>,
    /// The part expected next; 0 when all are there.
    next: u8,
    checksum: u8,
    begun: bool,
    broken: bool,
}

/// What the parts before a short entry amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There were none.
    None,
    /// The entry's long name.
    Name(Vec<u16>),
    /// Parts that are not this entry's: left over from a system that knew only short names.
    Orphan,
}

impl Long {
    /// Adds a part, the raw entry; whether parts of another name were waiting, whose short entry
    /// did not come.
    pub fn push(&mut self, raw: &[u8; 32]) -> bool {
        let (Some(&order), Some(&checksum)) = (raw.first(), raw.get(13)) else {
            return false;
        };
        let part = order & 0x3f;
        let mut left = false;
        if order & 0x40 != 0 {
            left = self.begun;
            *self = Self {
                next: part,
                checksum,
                begun: true,
                broken: !(1..=20).contains(&part),
                units: Vec::new(),
            };
        }
        self.begun = true;
        if self.broken || part == 0 || part != self.next || checksum != self.checksum {
            self.broken = true;
            return left;
        }
        self.units.insert(0, units(raw));
        self.next = self.next.saturating_sub(1);
        left
    }

    /// A part came that cannot be read as one: the name is not whole.
    pub fn spoil(&mut self) {
        (self.begun, self.broken) = (true, true);
    }

    /// Takes the name for a short entry with this checksum, and begins anew.
    pub fn take(&mut self, checksum: u8) -> Outcome {
        let parts = std::mem::take(self);
        if !parts.begun {
            return Outcome::None;
        }
        if parts.broken || parts.next != 0 || parts.checksum != checksum {
            return Outcome::Orphan;
        }
        let all = parts.units.concat();
        let end = all.iter().position(|u| *u == 0).unwrap_or(all.len());
        let name = all.get(..end).unwrap_or_default();
        if name.is_empty() {
            return Outcome::Orphan;
        }
        Outcome::Name(name.to_vec())
    }

    /// Forgets what was gathered; whether that was anything.
    pub fn drop_parts(&mut self) -> bool {
        std::mem::take(self).begun
    }
}

/// The 13 units of a part.
pub(super) fn units(raw: &[u8; 32]) -> [u16; 13] {
    const AT: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    AT.map(|at| {
        let pair = raw.get(at..).and_then(|r| r.first_chunk::<2>());
        pair.map_or(0, |p| u16::from_le_bytes(*p))
    })
}
