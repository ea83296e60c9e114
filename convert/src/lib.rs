//! The copy pipeline: disks to other disks, and files out of disks.
//!
//! | module | holds |
//! |---|---|
//! | [`pipeline`] | one reader of runs, workers on every core, holes stay holes |
//! | [`target`] | what the pipeline writes to: a file, a stream, nothing |
//! | [`digest`] | digests of virtual contents, computed on the way |
//! | [`to_raw`](mod@to_raw) | a whole disk as a raw image |
//! | [`place`] | temporary names, and the rename that makes a result appear |
//! | [`progress`] | how far a copy is, and whether it should stop |
//! | [`restore`] | files and trees out of a guest file system |

pub mod digest;
pub mod pipeline;
pub mod place;
pub mod progress;
pub mod restore;
pub mod target;
pub mod to_raw;

pub use digest::{Digest, DigestKind};
pub use pipeline::{Copied, CopyOptions, Sparse};
pub use progress::{NoProgress, Progress};
pub use target::{Discard, RawFile, Stream, Target};
pub use to_raw::{Destination, RawOptions, Report, to_raw};
