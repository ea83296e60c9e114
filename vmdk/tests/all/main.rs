//! Tests of the `vmdk` crate against its public face.

mod build;
mod common;
mod images;
mod kinds;
