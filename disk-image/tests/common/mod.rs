//! What the tests of this crate share: opening, hashing, tools that may be absent.
#![allow(dead_code)]

use disk_image::{Image, OpenOptions};
use disk_io::{Disk, HostDir, Result, host_dir::Allowed};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Whether a skip of `kind` has to be a failure.
pub fn required(kind: &str) -> bool {
    std::env::var("VMDKIT_REQUIRE").is_ok_and(|all| all.split(',').any(|k| k.trim() == kind))
}

/// Says that a test is skipped, or fails where it may not be.
pub fn skip(kind: &str, why: &str) {
    assert!(!required(kind), "{kind} are required: {why}");
    eprintln!("skipped: {why}");
}

/// Whether a tool is there.
pub fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        skip("peers", &format!("{tool} is not installed"));
    }
    found
}

/// The directory of the shared images, unpacked, with its index.
pub fn images() -> Option<(PathBuf, serde_json::Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/images");
    let Ok(index) = std::fs::read(root.join("index.json")) else {
        skip("images", "no shared images beside the project");
        return None;
    };
    let dir = match std::env::var_os("VMDKIT_IMAGES") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("images");
            let ready = target.join("qcow2").exists()
                || Command::new(root.join("unpack"))
                    .arg(&target)
                    .args(["qcow2", "vhd", "vhdx", "vdi", "ova"])
                    .status()
                    .is_ok_and(|s| s.success());
            if !ready {
                skip("images", "the shared images cannot be unpacked");
                return None;
            }
            target
        }
    };
    Some((dir, serde_json::from_slice(&index).expect("index.json")))
}

pub fn open(path: &Path) -> Result<Image> {
    open_with(path, &OpenOptions::default())
}

pub fn open_with(path: &Path, options: &OpenOptions) -> Result<Image> {
    disk_image::open(HostDir::open_source(path, &Allowed::default())?, options)
}

/// SHA-256 of a whole disk, in hex.
pub fn sha256(disk: &dyn Disk) -> Result<String> {
    let mut hash = Sha256::new();
    let zeros = vec![0; 4 << 20];
    let mut buf = vec![0; 4 << 20];
    let mut at = 0;
    while at < disk.len() {
        let run = disk.run_at(at)?;
        let n = run.len.min(buf.len() as u64) as usize;
        if run.kind.reads_as_zero() {
            hash.update(&zeros[..n]);
        } else {
            disk.read_exact_at(&mut buf[..n], at)?;
            hash.update(&buf[..n]);
        }
        at += n as u64;
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// All bytes of a small disk.
pub fn bytes(disk: &dyn Disk) -> Result<Vec<u8>> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut all, 0)?;
    Ok(all)
}

/// Runs a tool in `dir`; its failure is the test's.
pub fn run(dir: &Path, tool: &str, args: &[&str]) -> String {
    let out = Command::new(tool)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|e| panic!("{tool}: {e}"));
    assert!(
        out.status.success(),
        "{tool} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A small generator of numbers: the same ones every time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 24) % limit
    }
}
