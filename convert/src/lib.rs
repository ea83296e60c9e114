//! The copy pipeline: disks to other disks, and files out of disks.
//!
//! | module | holds |
//! |---|---|
//! | [`checkpoint`] | going on with a conversion that was cut off |
//! | `crc` | the CRC-32 of a file, by all workers |
//! | [`create`] | empty images, children, descriptors for flat files |
//! | [`delta`] | children with what differs from a parent, and the way back into it |
//! | [`device`] | disks onto block devices |
//! | [`pipeline`] | one reader of runs, workers on every core, holes stay holes |
//! | [`target`] | what the pipeline writes to: a file, a stream, nothing |
//! | [`digest`] | digests of virtual contents, computed on the way |
//! | [`to_image`](mod@to_image) | a whole disk as an image of another format |
//! | `in_order` | work on several items at once, results in order |
//! | [`used`] | disks without what their file systems mark as free |
//! | [`place`] | temporary names, and the rename that makes a result appear |
//! | [`progress`] | how far a copy is, and whether it should stop |
//! | [`backup`] | machines and disks into a directory, with a manifest |
//! | [`archive`] | files and trees as a tar or zip archive |
//! | [`ova`] | machines and disks as OVA packages |
//! | [`restore`] | files and trees out of a guest file system |

pub mod archive;
pub mod backup;
pub mod checkpoint;
mod crc;
pub mod create;
pub mod delta;
pub mod device;
pub mod digest;
mod in_order;
pub mod ova;
pub mod pipeline;
pub mod place;
pub mod progress;
pub mod replicate;
pub mod restore;
pub mod target;
pub mod to_image;
mod touched;
pub mod used;

pub use digest::{Digest, DigestKind};
pub use pipeline::{Copied, CopyOptions, Sparse};
pub use progress::{NoProgress, Progress};
pub use target::{Discard, RawFile, Stream, Target};
pub use to_image::{Destination, ImageFormat, ImageOptions, Report, to_image, verify};
