//! vmdkit against real images and other tools: one binary, a module per theme.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod layering;
