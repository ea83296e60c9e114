//! Images with a few bytes changed: where something is, and with values that mean something.

/// A plain linear generator: the same mutants in every run.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// A change: where, and how many bytes.
pub type Edit = (usize, usize);

/// Changes `image` in one to three places among `interesting` blocks of 64 bytes; says where.
pub fn mutate(image: &mut Vec<u8>, interesting: &[usize], dice: &mut Dice) -> Vec<Edit> {
    // Cut short, once in a while.
    if dice.below(16) == 0 {
        let len = image.len() - dice.below(image.len());
        image.truncate(len);
        return vec![(len, 0)];
    }
    let mut edits = Vec::new();
    for _ in 0..=dice.below(3) {
        let any = interesting[dice.below(interesting.len())];
        // Headers, markers and tables begin at sectors, and most of them in front.
        let block = match dice.below(4) {
            0 => any,
            1 => any / 8 * 8,
            2 => interesting[dice.below(interesting.len().min(256))],
            _ => interesting[interesting.len() - 1 - dice.below(interesting.len().min(64))],
        };
        let at = (block * 64 + dice.below(64)) & !(1 << dice.below(4)) & !1;
        let len = image.len() as u64;
        let special = [
            0,
            1,
            2,
            u64::from(u32::MAX),
            u64::MAX,
            1 << 31,
            1 << 63,
            len / 512,
            len / 512 + 1,
            len,
            len - 1,
            len / 65536,
        ];
        let value = special[dice.below(special.len())];
        let bytes: Vec<u8> = match dice.below(8) {
            0 | 1 => vec![image.get(at).copied().unwrap_or(0) ^ (1 << dice.below(8))],
            2 => vec![[0, 0xff][dice.below(2)]],
            3 => (value as u32).to_le_bytes().to_vec(),
            4 => (value as u32).to_be_bytes().to_vec(),
            5 => value.to_le_bytes().to_vec(),
            6 => vec![0; 512],
            _ => {
                // What stands elsewhere: a table's entry twice, a header in the place of another.
                let from = interesting[dice.below(interesting.len())] * 64;
                let some = image.get(from..(from + 64).min(image.len()));
                some.unwrap_or_default().to_vec()
            }
        };
        let Some(place) = image.get_mut(at..at + bytes.len()) else {
            continue;
        };
        if place != bytes {
            place.copy_from_slice(&bytes);
            edits.push((at, bytes.len()));
        }
    }
    edits
}

/// Blocks of 64 bytes that hold something, those near the beginning and the end more often.
pub fn interesting(image: &[u8], payload: &[std::ops::Range<usize>]) -> Vec<usize> {
    let filled = image.chunks(64).enumerate();
    let filled = filled.filter(|(_, b)| b.iter().any(|b| *b != 0));
    filled
        .map(|(n, _)| n)
        .filter(|n| !payload.iter().any(|r| r.contains(&(n * 64))))
        .collect()
}
