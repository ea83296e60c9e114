//! What happens to files that exist.

use guest_fs::{Metadata, Timestamp};
use rustix::fs::Stat;
use std::str::FromStr;

/// When a file that exists is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Never: it is skipped, and listed.
    #[default]
    Never,
    /// If the guest's file was modified later.
    IfNewer,
    /// If length or time of modification differ.
    IfChanged,
    /// Always.
    Always,
}

impl FromStr for Overwrite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self::Never),
            "if-newer" => Ok(Self::IfNewer),
            "if-changed" => Ok(Self::IfChanged),
            "always" => Ok(Self::Always),
            other => Err(format!(
                "{other:?}: expected never, if-newer, if-changed or always"
            )),
        }
    }
}

impl Overwrite {
    /// Why the file that exists as `there` stays, if it does.
    pub fn keeps(self, source: &Metadata, there: &Stat) -> Option<&'static str> {
        let here = source.modified.map(key);
        let there_time = (
            there.st_mtime,
            u32::try_from(there.st_mtime_nsec).unwrap_or(0),
        );
        match self {
            Self::Never => Some("it exists already"),
            Self::IfNewer => here
                .is_none_or(|t| t <= there_time)
                .then_some("the one that exists is not older"),
            Self::IfChanged => (source.size == there.st_size.cast_unsigned()
                && here == Some(there_time))
            .then_some("the one that exists has the same length and time"),
            Self::Always => None,
        }
    }
}

fn key(t: Timestamp) -> (i64, u32) {
    (t.seconds, t.nanos)
}
