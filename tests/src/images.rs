//! Real images that nobody on this project made. They are never part of the project: they
//! are looked for in `$VMDKIT_IMAGES` (unpacked), else in `../shared/images` beside the
//! project, from where they are unpacked into the target directory.

use crate::tools;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// One line of the index.
#[derive(Clone, Debug, Deserialize)]
pub struct Image {
    /// Path below the images' directory.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is, as its collector saw it.
    #[serde(default)]
    pub format: String,
    /// Length of the virtual disk in bytes.
    pub virtual_size: Option<u64>,
    /// SHA-256 of the virtual disk as raw.
    pub virtual_sha256: Option<String>,
    /// Who computed that, if not qemu-img.
    pub virtual_sha256_by: Option<String>,
    /// SHA-256 of the file.
    pub sha256: Option<String>,
    /// What The Sleuth Kit saw in it.
    #[serde(default)]
    pub filesystems: Vec<FileSystem>,
    /// What else is to be known.
    pub notes: Option<String>,
}

/// A file system inside an image.
#[derive(Clone, Debug, Deserialize)]
pub struct FileSystem {
    /// blkid's word for it.
    pub blkid: Option<String>,
    /// The Sleuth Kit's word for it.
    pub tsk: Option<String>,
    /// First sector of its partition.
    pub start: Option<u64>,
    /// Number of files counted.
    pub files: Option<u64>,
}

/// The images and where they are.
#[derive(Debug)]
pub struct Images {
    /// Their directory.
    pub root: PathBuf,
    /// The index.
    pub index: Vec<Image>,
}

impl Images {
    /// Where one is.
    pub fn path(&self, image: &Image) -> PathBuf {
        self.root.join(&image.path)
    }
}

/// The images, if they are on this machine; skips if not.
pub fn images() -> Option<&'static Images> {
    static IMAGES: OnceLock<Result<Images, String>> = OnceLock::new();
    match IMAGES.get_or_init(|| locate().map_err(|e| format!("{e:#}"))) {
        Ok(images) => Some(images),
        Err(e) => {
            tools::skip(tools::Need::Images, e);
            None
        }
    }
}

fn locate() -> Result<Images> {
    let beside = tools::project().join("../shared/images");
    let root = match std::env::var_os("VMDKIT_IMAGES") {
        Some(dir) => PathBuf::from(dir),
        None => unpack(&beside)?,
    };
    let index = [root.join("index.json"), beside.join("index.json")]
        .into_iter()
        .find(|p| p.is_file())
        .with_context(|| format!("no index.json in {} or beside the project", root.display()))?;
    let text = fs::read_to_string(&index).with_context(|| index.display().to_string())?;
    let index: Vec<Image> = serde_json::from_str(&text).context("reading the image index")?;
    Ok(Images { root, index })
}

/// Unpacks once per target directory.
fn unpack(packed: &Path) -> Result<PathBuf> {
    let script = packed.join("unpack");
    if !script.is_file() {
        anyhow::bail!(
            "real images: neither $VMDKIT_IMAGES nor ../shared/images beside the project"
        );
    }
    let to = tools::target_dir().join("images");
    fs::create_dir_all(&to)?;
    let lock = fs::File::create(to.join(".lock"))?;
    lock.lock()?;
    if !to.join(".complete").exists() {
        tools::output(std::process::Command::new(script).arg(&to))?;
        fs::write(to.join(".complete"), "")?;
    }
    Ok(to)
}
