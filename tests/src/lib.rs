//! What the test suite and `cargo xtask` share: reference tools, real images, fixtures.
//!
//! | module | holds |
//! |---|---|
//! | [`tools`] | finding and running other programs; what to do where one is missing |
//! | [`images`] | the index of real images that nobody on this project made |
//! | [`guest`] | guest trees whose contents describe themselves |
//! | [`mount`] | mounts by ntfs-3g and other peers that go away when dropped |
//! | [`fixtures`] | images made by real tools, each with the path that it exercises |
//! | [`crash_fs`] | a file system that fails when it is told to, and loses power |
//! | [`damages`] | planted damage, and what must be found |
//! | [`sample`] | the delta chain of README's first command |

pub mod crash_fs;
pub mod damages;
pub mod fixtures;
pub mod guest;
pub mod images;
pub mod mount;
pub mod mutants;
pub mod sample;
pub mod tools;

/// Says something to the person who runs the tests, past the test harness' own capture.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let line = format!("{}\n", format_args!($($arg)*));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}
