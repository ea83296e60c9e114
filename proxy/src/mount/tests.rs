//! The mount as programs see it. Needs /dev/fuse; skips visibly without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod refused;
mod serving;
mod whole;

use super::*;
use crate::{
    SourceSpec, TreeOptions,
    mock::{MockFs, odd_volume, pattern, tree},
    own::{Own, OwnTree},
    source::Source,
};
use disk_io::{Disk, ErrorKind};
use guest_fs::{Name, NodeKind};
use rustix::fs::{SeekFrom, seek, statvfs};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    ops::ControlFlow,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    process::{Command, Stdio},
    time::Instant,
};

/// A mount in a directory of its own; unmounted before the directory goes.
struct Here {
    mounted: Option<Mounted>,
    tree: Arc<Tree>,
    place: tempfile::TempDir,
}

impl Here {
    fn new(tree: Tree, options: &MountOptions) -> Option<Self> {
        if !available() {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let tree = Arc::new(tree);
        let mounted = mount(tree.clone(), place.path(), options).unwrap();
        Some(Self {
            mounted: Some(mounted),
            tree,
            place,
        })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place.path().join(path)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        drop(self.mounted.take());
    }
}

fn available() -> bool {
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    let required = std::env::var("VMDKIT_REQUIRE").is_ok_and(|r| r.split(',').any(|r| r == "fuse"));
    match device {
        Ok(_) => true,
        Err(e) if required => {
            panic!("VMDKIT_REQUIRE has fuse, and /dev/fuse cannot be opened: {e}")
        }
        Err(e) => {
            eprintln!("skipped: /dev/fuse cannot be opened: {e}");
            false
        }
    }
}

fn odd() -> Tree {
    tree(vec![odd_volume(), MockFs::new()], TreeOptions::default())
}

fn os_error<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

const EIO: i32 = 5;
const ENOTCONN: i32 = 107;
