//! Flat disks on a file system that shares blocks between files: what is converted to raw or
//! flat costs no room, and is the same bytes.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};
use tests::tools;

/// XFS over a file; it goes when it is dropped.
pub(crate) struct Xfs(PathBuf);

impl Xfs {
    pub(crate) fn new(dir: &Path) -> Option<Self> {
        if !tools::have(&["mkfs.xfs", "mount"]) {
            return None;
        }
        let (image, at) = (dir.join("xfs.img"), dir.join("xfs"));
        fs::create_dir(&at).unwrap();
        // The smallest that mkfs.xfs makes.
        File::create(&image).unwrap().set_len(320 << 20).unwrap();
        tools::run("mkfs.xfs", ["-q".as_ref(), image.as_os_str()]).unwrap();
        let args = [
            "-o".as_ref(),
            "loop".as_ref(),
            image.as_os_str(),
            at.as_os_str(),
        ];
        match tools::run("mount", args) {
            Ok(_) => Some(Self(at)),
            Err(e) => {
                // Root alone may, and not every kernel has it.
                tests::say!("skipped: XFS cannot be mounted: {e:#}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes in use.
    fn used(&self) -> u64 {
        tools::run("sync", ["-f".as_ref(), self.0.as_os_str()]).unwrap();
        let out = tools::run("df", ["-B1", "--output=used", self.0.to_str().unwrap()]).unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().last().unwrap().trim().parse().unwrap()
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = tools::run("umount", [self.0.as_os_str()]);
    }
}

#[test]
fn what_is_flat_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(xfs) = Xfs::new(dir.path()) else {
        return;
    };
    // 64 MiB that do not compress but for holes, and an end that no block fits.
    let source = xfs.0.join("source.raw");
    let file = File::create(&source).unwrap();
    file.set_len((64 << 20) + 1536).unwrap();
    let mut state = 5u32;
    for unit in (0..65u64).filter(|n| n % 4 != 1) {
        let len = if unit == 64 { 1536 } else { 1 << 20 };
        let bytes: Vec<u8> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        file.write_all_at(&bytes, unit << 20).unwrap();
    }
    drop(file);
    let convert = |from: &Path, name: &str, args: &[&str]| {
        let to = xfs.0.join(name);
        let before = xfs.used();
        let out = Command::new(tools::vmdkit().unwrap())
            .args(["convert", "--verify"])
            .args(args)
            .args([from, &to])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        (to, xfs.used().saturating_sub(before))
    };
    let raw = ["--format", "raw"];
    let (flat, cost) = convert(
        &source,
        "flat.vmdk",
        &[&raw[..], &["--to", "vmdk", "--subformat", "monolithicFlat"]].concat(),
    );
    assert!(cost < 4 << 20, "flat: {cost}");
    let (back, cost) = convert(&flat, "back.raw", &["--to", "raw"]);
    assert!(cost < 4 << 20, "raw: {cost}");
    assert!(fs::read(&back).unwrap() == fs::read(&source).unwrap());
    // What shares nothing costs what it holds.
    let (_, cost) = convert(&flat, "sparse.vmdk", &["--to", "vmdk"]);
    assert!(cost > 40 << 20, "sparse: {cost}");
    // Writing to the copy leaves the source alone.
    let before = fs::read(&source).unwrap();
    File::options()
        .write(true)
        .open(&back)
        .unwrap()
        .write_all_at(&[1; 4096], 2 << 20)
        .unwrap();
    assert!(fs::read(&source).unwrap() == before);
}
