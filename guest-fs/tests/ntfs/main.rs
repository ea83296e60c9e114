//! NTFS: real volumes, volumes made by mkntfs and ntfs-3g, and damaged ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod images;
mod lost;
mod made;
mod raw;
mod support;
mod tools;
mod wof;
