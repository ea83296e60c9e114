//! Whether an image, a chain or a backup would restore.
//!
//! [`mod@check`] looks at structure: everything that the files of an image say about
//! themselves and each other, without trusting any of it. What it finds is typed
//! ([`disk_io::Finding`]), placed, and mapped to the guest's files.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@check`] | one SOURCE with its chain: what is wrong with it |
//! | [`backup`] | a backup from end to end |
//! | [`diff`] | what differs between two disks, in blocks and in guest files |
//! | [`layer`] | one layer of a disk, walked through its block map |
//! | [`places`] | which stored ranges overlap |
//! | [`owners`] | which guest files lie in given ranges of a disk |
//! | [`repair`] | a mended copy of an image |
//! | [`volumes`] | the structures of the guests' file systems |
//! | [`explain`] | what each kind of finding means and what to do about it |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod backup;
pub mod check;
pub mod diff;
pub mod explain;
pub mod layer;
pub mod owners;
pub mod places;
pub mod repair;
pub mod volumes;

pub use check::{Options, Report, Reported, check};
pub use owners::Owner;
