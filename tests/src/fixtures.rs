//! Images made by real tools, each with the path that it exercises and with the truth of
//! what is in it. Made once per target directory, on first use.

mod disk;
mod fat;
mod ntfs;

use crate::{guest::Truth, tools};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

/// What sort of image a fixture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A bare NTFS volume.
    Ntfs,
    /// A bare FAT volume.
    Fat,
    /// A whole disk; the truth's paths begin with `p1/` and so on.
    Disk,
}

/// An image that code can make.
#[derive(Debug)]
pub struct Fixture {
    /// Its name, and its file's name without the ending.
    pub name: &'static str,
    /// What it is.
    pub sort: Sort,
    /// Which path of the readers it exercises.
    pub exercises: &'static str,
    /// Programs that make it.
    pub programs: &'static [&'static str],
    /// Whether it has to be mounted while it is made.
    fuse: bool,
    build: fn(&mut Build) -> Result<()>,
}

/// A fixture being made.
struct Build {
    /// The image to write.
    image: PathBuf,
    /// A directory for whatever is needed on the way.
    scratch: PathBuf,
    /// What is in it.
    truth: Truth,
}

/// A fixture that was made.
#[derive(Debug)]
pub struct Made {
    /// The image (for VMDKs of several files, the one to open).
    pub image: PathBuf,
    /// Everything in it.
    pub truth: Truth,
}

/// Every fixture.
pub fn all() -> impl Iterator<Item = &'static Fixture> {
    ntfs::FIXTURES
        .iter()
        .chain(fat::FIXTURES)
        .chain(disk::FIXTURES)
}

/// Counted up when a fixture changes, so that none made by older code is used.
const VERSION: u32 = 1;

/// The fixture called `name`, made if need be; skips if that needs what is not here.
///
/// # Panics
/// If there is no such fixture or it cannot be made.
#[allow(clippy::panic)]
pub fn get(name: &str) -> Option<Arc<Made>> {
    let fixture = all()
        .find(|f| f.name == name)
        .unwrap_or_else(|| panic!("no fixture is called {name}"));
    if !tools::have(fixture.programs) || (fixture.fuse && !tools::have_fuse()) {
        return None;
    }
    let dir = tools::target_dir().join("fixtures");
    match make(fixture, &dir) {
        Ok(made) => Some(made),
        Err(e) => panic!("making the fixture {name}: {e:#}"),
    }
}

/// Makes a fixture below `dir` unless it is there already.
pub fn make(fixture: &Fixture, dir: &Path) -> Result<Arc<Made>> {
    type Cache = Mutex<BTreeMap<PathBuf, Arc<OnceLock<Result<Arc<Made>, String>>>>>;
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let home = dir.join(format!("{}-v{VERSION}", fixture.name));
    let slot = match CACHE.get_or_init(Mutex::default).lock() {
        Ok(mut cache) => cache.entry(home.clone()).or_default().clone(),
        Err(_) => bail!("a thread that made a fixture panicked"),
    };
    slot.get_or_init(|| {
        make_or_load(fixture, &home)
            .map(Arc::new)
            .map_err(|e| format!("{e:#}"))
    })
    .clone()
    .map_err(|e| anyhow::anyhow!("{e}"))
}

fn make_or_load(fixture: &Fixture, home: &Path) -> Result<Made> {
    let parent = home.parent().context("a directory for fixtures")?;
    fs::create_dir_all(parent)?;
    // Several processes may want it at once.
    let lock = fs::File::create(home.with_extension("lock"))?;
    lock.lock()?;
    let truth = home.join("truth.json");
    if !truth.exists() {
        let work = tempfile::tempdir_in(parent)?;
        let made = work.path().join("made");
        fs::create_dir(&made)?;
        let scratch = work.path().join("scratch");
        fs::create_dir(&scratch)?;
        let mut build = Build {
            image: made.join(fixture.file()),
            scratch,
            truth: Truth::new(),
        };
        (fixture.build)(&mut build)?;
        fs::write(made.join("truth.json"), serde_json::to_vec(&build.truth)?)?;
        let _ = fs::remove_dir_all(home);
        fs::rename(&made, home)?;
    }
    Ok(Made {
        image: home.join(fixture.file()),
        truth: serde_json::from_slice(&fs::read(&truth)?)?,
    })
}

impl Fixture {
    /// The file that is opened.
    pub fn file(&self) -> String {
        let ending = if self.name.starts_with("vmdk-") {
            "vmdk"
        } else {
            "img"
        };
        format!("{}.{ending}", self.name)
    }
}

/// The table of testdata/INDEX.md.
pub fn index() -> String {
    let mut out = String::from(
        "# Test images\n\n\
         `cargo xtask fixtures` makes all of these in `target/fixtures`; the tests make what they need.\n\
         Contents describe themselves: block *i* of a file says which file it is and that it is block *i*.\n\
         This table is written by `cargo xtask index` and checked by the suite.\n\n\
         | image | exercises | made by |\n|---|---|---|\n",
    );
    for f in all() {
        let mount = if f.fuse { " (mounted)" } else { "" };
        let by = f.programs.join(", ");
        out += &format!("| `{}` | {} | {by}{mount} |\n", f.file(), f.exercises);
    }
    out += "\nDescriptors that must be refused are written by the suite itself (`tests/suite/hostile.rs`).\n";
    out
}
