//! The crates `ntfs` 0.4.0 and `fatfs` 0.3.6 as second readers: what both can read agrees,
//! and each known disagreement is a test that names their fault and shows who is right.

mod fat;
mod ntfs;
