//! Guest time stamps.

/// A moment, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00, in UTC or, if not [`Self::zoned`], in the guest's
    /// local time.
    pub seconds: i64,
    /// Nanoseconds after that, 0 to 999,999,999.
    pub nanos: u32,
    /// Whether the moment is known in UTC. FAT stores local time without a zone.
    pub zoned: bool,
}

/// Seconds from 1601-01-01 (Windows' FILETIME) to 1970-01-01.
const FILETIME_TO_UNIX: i64 = 11_644_473_600;

impl Timestamp {
    /// From Windows' count of 100 ns since 1601-01-01 UTC. Any value is a moment.
    pub fn from_filetime(ticks: u64) -> Self {
        let seconds = (ticks / 10_000_000).cast_signed();
        Self {
            seconds: seconds.saturating_sub(FILETIME_TO_UNIX),
            nanos: (ticks % 10_000_000) as u32 * 100,
            zoned: true,
        }
    }

    /// As Windows counts it, in 100 ns since 1601-01-01 UTC; `None` where no FILETIME says it.
    pub fn to_filetime(&self) -> Option<u64> {
        let seconds = self.seconds.checked_add(FILETIME_TO_UNIX)?;
        let ticks = seconds.checked_mul(10_000_000)?;
        u64::try_from(ticks.checked_add(i64::from(self.nanos / 100))?).ok()
    }

    /// From Unix seconds and nanoseconds, in UTC.
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        Self {
            seconds,
            nanos: nanos.min(999_999_999),
            zoned: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn filetime_ends() {
        let zero = Timestamp::from_filetime(0);
        assert_eq!((zero.seconds, zero.nanos), (-11_644_473_600, 0));
        let unix = Timestamp::from_filetime(116_444_736_000_000_001);
        assert_eq!((unix.seconds, unix.nanos), (0, 100));
        for ticks in [0, 1, 116_444_736_000_000_001, i64::MAX.cast_unsigned()] {
            assert_eq!(Timestamp::from_filetime(ticks).to_filetime(), Some(ticks));
        }
        assert_eq!(Timestamp::from_unix(i64::MIN, 0).to_filetime(), None);
        assert_eq!(Timestamp::from_unix(i64::MAX, 0).to_filetime(), None);
        assert!(Timestamp::from_filetime(u64::MAX).seconds > 0);
    }
}
