//! Tests of the `vmdk` crate against its public face.

mod common;
mod images;
