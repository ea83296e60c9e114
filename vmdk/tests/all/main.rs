//! Tests of the `vmdk` crate against its public face.

#![allow(clippy::unwrap_used, clippy::panic)]

mod build;
mod chain;
mod common;
mod damage;
mod forms;
mod hostile;
mod images;
mod kinds;
mod lost;
mod remains;
