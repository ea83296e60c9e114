//! The built `vmdkit`, run as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod check;
mod common;
mod convert;
mod cp;
mod datastore;
mod esx2;
mod evidence;
mod generations;
mod guard;
mod guests;
mod help;
mod list;
mod machine;
mod memory;
mod merge;
mod mount;
mod once;
mod package;
mod proven;
mod repair;
mod replicate;
mod schema;
mod several;
mod since;
mod state;
mod tar;
mod vcb;
mod verify;
mod which_disk;
