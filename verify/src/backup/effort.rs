//! How much is looked at: a sample, or what can be done in a given time.

use convert::{Progress, digest::Hash, digest::sha256};
use std::time::{Duration, Instant};

/// Limits that the user sets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Of contents and guest files only so many of a hundred, chosen by `seed`.
    pub sample: Option<f64>,
    /// Another number chooses others.
    pub seed: u64,
    /// Nothing is begun after this time.
    pub budget: Option<Duration>,
}

/// The limits while the work is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Of a million.
    share: Option<u64>,
    seed: u64,
    until: Option<Instant>,
}

impl Effort {
    pub(super) fn begin(limits: &Limits) -> Self {
        Self {
            share: limits
                .sample
                .map(|p| (p.clamp(0.0, 100.0) * 10_000.0) as u64),
            seed: limits.seed,
            until: limits.budget.and_then(|b| Instant::now().checked_add(b)),
        }
    }

    /// Whether there is a sample at all.
    pub(super) fn is_sample(&self) -> bool {
        self.share.is_some()
    }

    /// Whether something is part of the sample: the same answer every time.
    pub(super) fn takes(&self, key: &[u8]) -> bool {
        let Some(share) = self.share else { return true };
        let mut text = self.seed.to_le_bytes().to_vec();
        text.extend_from_slice(key);
        let hash = sha256(&text);
        let number = hash.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        number % 1_000_000 < share
    }

    /// Whether the time is up.
    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Stops a computation when the time is up.
pub(super) struct Timed<'a> {
    pub(super) inner: &'a dyn Progress,
    pub(super) effort: Effort,
}

impl Progress for Timed<'_> {
    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
    }

    fn hashed(&self, unit: u64, hash: Option<&Hash>) {
        self.inner.hashed(unit, hash);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled() || self.effort.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_about_its_share_and_always_the_same() {
        let of = |sample, seed| {
            let effort = Effort::begin(&Limits {
                sample,
                seed,
                budget: None,
            });
            let keys = (0..10_000u32).map(|n| n.to_le_bytes());
            keys.filter(|k| effort.takes(k)).collect::<Vec<_>>()
        };
        assert_eq!(of(None, 0).len(), 10_000);
        assert_eq!(of(Some(100.0), 0).len(), 10_000);
        assert_eq!(of(Some(0.0), 0).len(), 0);
        let ten = of(Some(10.0), 1);
        assert!((800..1200).contains(&ten.len()), "{}", ten.len());
        assert_eq!(ten, of(Some(10.0), 1));
        assert_ne!(ten, of(Some(10.0), 2));
    }
}
