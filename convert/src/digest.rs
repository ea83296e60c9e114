//! Digests of virtual contents.
//!
//! The digest that every conversion prints is SHA-256 over the length (64 bits, little
//! endian) and the SHA-256 of every MiB in order. Unlike the flat hash it can be computed
//! by all cores at once, and a MiB of zeros is a constant, so holes cost nothing.

use disk_io::{DiskError, Result};
use sha2::{Digest as _, Sha256, digest::common::hazmat::SerializableState};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::OnceLock};

/// The unit of the digest, in bytes. The last unit of a disk may be shorter.
pub const UNIT: u64 = 1 << 20;

/// A SHA-256.
pub type Hash = [u8; 32];

/// Which digest to compute on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestKind {
    /// SHA-256 over the length and the SHA-256 of every MiB.
    #[default]
    Vmdkit,
    /// SHA-256 of the contents as one sequence: what `sha256sum` prints for a raw image.
    Sha256,
    /// None.
    None,
}

impl FromStr for DigestKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "vmdkit" => Ok(Self::Vmdkit),
            "sha256" => Ok(Self::Sha256),
            "none" => Ok(Self::None),
            other => Err(format!(
                "{other:?} is not a digest; expected vmdkit, sha256 or none"
            )),
        }
    }
}

/// A digest and what kind it is. Shown as `vmdkit:…` or `sha256:…` in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// [`DigestKind::Vmdkit`] or [`DigestKind::Sha256`].
    pub kind: DigestKind,
    /// The hash.
    pub hash: Hash,
}

impl Digest {
    /// The hash in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        self.hash.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The name of its kind.
    pub fn name(&self) -> &'static str {
        match self.kind {
            DigestKind::Vmdkit => "vmdkit",
            DigestKind::Sha256 => "sha256",
            DigestKind::None => "none",
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name(), self.hex())
    }
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// What a SHA-256 has come to, to be gone on with by [`hasher_from`].
pub(crate) fn hasher_state(hasher: &Sha256) -> Vec<u8> {
    hasher.serialize().to_vec()
}

pub(crate) fn hasher_from(state: &[u8]) -> Result<Sha256> {
    let bad = || DiskError::corrupt("going on with a digest").found("a state that is none");
    let state = state.try_into().map_err(|_| bad())?;
    Sha256::deserialize(&state).map_err(|_| bad())
}

/// How many independent pieces [`sha256_each`] hashes at once at its best: the lanes of the
/// widest vector registers.
pub(crate) const LANES: u64 = 16;

/// How many independent pieces this processor hashes at once.
pub(crate) fn lanes() -> u64 {
    (tape_sha256::lane_width() as u64).clamp(1, LANES)
}

/// SHA-256 of every part. One hash cannot be made faster than its chain of rounds, but
/// independent ones go through vector registers side by side: measured without SHA
/// instructions, 16 at once pass 16 times as many bytes a second as one after another.
pub fn sha256_each(parts: &[&[u8]]) -> Vec<Hash> {
    let mut hashes = vec![[0; 32]; parts.len()];
    tape_sha256::hash_many(parts, &mut hashes);
    hashes
}

/// SHA-256 of `len` zeros, at most [`UNIT`].
pub fn zero_hash(len: u64) -> Hash {
    static WHOLE: OnceLock<Hash> = OnceLock::new();
    let compute = || sha256(zeros(len));
    if len == UNIT {
        *WHOLE.get_or_init(compute)
    } else {
        compute()
    }
}

/// `len` zeros, at most [`UNIT`].
pub(crate) fn zeros(len: u64) -> &'static [u8] {
    static ZEROS: [u8; UNIT as usize] = [0; UNIT as usize];
    ZEROS.get(..len as usize).unwrap_or(&ZEROS)
}

/// Puts the hashes of units together. They arrive in any order; those that come early are
/// held, so whoever sends them sees to it that none comes much too early.
#[derive(Debug)]
pub struct UnitFold {
    hasher: Sha256,
    next: u64,
    units: u64,
    early: BTreeMap<u64, Hash>,
}

impl UnitFold {
    /// For contents of `len` bytes.
    pub fn new(len: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(len.to_le_bytes());
        Self {
            hasher,
            next: 0,
            units: len.div_ceil(UNIT),
            early: BTreeMap::new(),
        }
    }

    /// Goes on behind unit `next`, from what [`Self::state`] gave then.
    ///
    /// # Errors
    /// `Corrupt` if that is not such a state.
    pub(crate) fn resume(len: u64, next: u64, state: &[u8]) -> Result<Self> {
        Ok(Self {
            hasher: hasher_from(state)?,
            next,
            units: len.div_ceil(UNIT),
            early: BTreeMap::new(),
        })
    }

    /// The state behind the units that came in order.
    pub(crate) fn state(&self) -> Vec<u8> {
        hasher_state(&self.hasher)
    }

    /// Takes the hash of unit `index`.
    pub fn put(&mut self, index: u64, hash: Hash) {
        if index != self.next {
            self.early.insert(index, hash);
            return;
        }
        self.hasher.update(hash);
        self.next += 1;
        while let Some(hash) = self.early.remove(&self.next) {
            self.hasher.update(hash);
            self.next += 1;
        }
    }

    /// How many units have come, counted up to the first that is missing.
    pub(crate) fn in_order(&self) -> u64 {
        self.next
    }

    /// The digest, once every unit has come.
    pub fn finish(self) -> Result<Digest> {
        if self.next != self.units {
            return Err(DiskError::corrupt("computing the digest")
                .expected(format!("{} units", self.units))
                .found(format!("{} in order", self.next)));
        }
        Ok(Digest {
            kind: DigestKind::Vmdkit,
            hash: self.hasher.finalize().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_arrival_does_not_matter() {
        let len = 3 * UNIT + 5;
        let hash = |i: u64| sha256(&i.to_le_bytes());
        let mut sorted = UnitFold::new(len);
        (0..4).for_each(|i| sorted.put(i, hash(i)));
        let mut mixed = UnitFold::new(len);
        for i in [2, 1, 3, 0] {
            mixed.put(i, hash(i));
        }
        assert_eq!(sorted.finish().unwrap(), mixed.finish().unwrap());
        let mut short = UnitFold::new(len);
        short.put(0, hash(0));
        assert!(short.finish().is_err());
    }

    proptest::proptest! {
        /// Any number of parts of any lengths, against the independent crate.
        #[test]
        fn side_by_side_is_one_by_one(
            lens in proptest::collection::vec(0..300usize, 0..40),
            same in proptest::option::of(0..5000usize),
            seed: u8,
        ) {
            let parts: Vec<Vec<u8>> = lens
                .iter()
                .enumerate()
                .map(|(i, len)| {
                    let byte = |j: usize| (i * 31 + j * 7 + usize::from(seed)) as u8;
                    (0..same.unwrap_or(*len)).map(byte).collect()
                })
                .collect();
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let expected: Vec<Hash> = slices.iter().map(|p| sha256(p)).collect();
            proptest::prop_assert_eq!(sha256_each(&slices), expected);
        }
    }

    #[test]
    fn known_value() {
        // Two MiB of zeros and one byte: computed with sha256sum and printf.
        let mut all = Vec::from((2 * UNIT + 1).to_le_bytes());
        all.extend(sha256(&vec![0; UNIT as usize]));
        all.extend(sha256(&vec![0; UNIT as usize]));
        all.extend(sha256(&[7]));
        let mut fold = UnitFold::new(2 * UNIT + 1);
        fold.put(0, zero_hash(UNIT));
        fold.put(1, zero_hash(UNIT));
        fold.put(2, sha256(&[7]));
        assert_eq!(fold.finish().unwrap().hash, sha256(&all));
    }
}
