//! One file a verb.

pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod convert;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod docs;
pub(crate) mod drill;
pub(crate) mod entry;
pub(crate) mod export;
pub(crate) mod find;
pub(crate) mod history;
pub(crate) mod info;
mod journal;
mod kept;
pub(crate) mod ls;
pub(crate) mod map;
pub(crate) mod merge;
pub(crate) mod mount;
pub(crate) mod replicate;
pub(crate) mod restore;
pub(crate) mod stat;
pub(crate) mod tar;
pub(crate) mod umount;
pub(crate) mod vcb;
pub(crate) mod verify;
pub(crate) mod vm;
