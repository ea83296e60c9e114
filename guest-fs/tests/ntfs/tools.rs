//! Making volumes with mkntfs and ntfs-3g.

use crate::support::skip;
use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// Runs a program to its end; panics with its output if it fails.
pub(crate) fn run<I: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = I>) -> Vec<u8> {
    let out = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        out.status.success(),
        "{program}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

/// Whether these programs are here.
pub(crate) fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|p| {
        !["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|d| Path::new(d).join(p).exists())
    });
    if let Some(missing) = missing {
        skip("peers", &format!("no {missing}"));
    }
    missing.is_none()
}

/// A volume in a file.
pub(crate) struct Volume {
    dir: TempDir,
    pub(crate) image: PathBuf,
}

impl Volume {
    /// Formats `size` bytes.
    pub(crate) fn make(size: u64, args: &[&str]) -> Option<Self> {
        if !have(&["mkntfs", "ntfs-3g", "setfattr", "fusermount3"]) {
            return None;
        }
        if !Path::new("/dev/fuse").exists() {
            skip("fuse", "no /dev/fuse");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let image = dir.path().join("volume");
        File::create(&image).unwrap().set_len(size).unwrap();
        let mut all = vec!["-F", "-q", "-Q", "-L", "made"];
        all.extend(args);
        all.push(image.to_str().unwrap());
        run("mkntfs", &all);
        Some(Self { dir, image })
    }

    /// Mounts it with ntfs-3g.
    pub(crate) fn mount(&self, options: &str) -> Mounted {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        run(
            "ntfs-3g",
            [
                self.image.as_os_str(),
                at.as_os_str(),
                "-o".as_ref(),
                options.as_ref(),
            ],
        );
        Mounted { at }
    }
}

/// A mounted volume.
pub(crate) struct Mounted {
    pub(crate) at: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..50 {
            let done = Command::new("fusermount3")
                .args(["-u".as_ref(), self.at.as_os_str()])
                .stderr(Stdio::null())
                .status();
            if done.is_ok_and(|s| s.success()) {
                // The daemon writes until it is gone: wait for the image to be at rest.
                std::thread::sleep(std::time::Duration::from_millis(100));
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let at = self.at.display();
        assert!(std::thread::panicking(), "{at} cannot be unmounted");
    }
}

/// Sets an attribute to bytes.
pub(crate) fn set_attr(path: &Path, name: &str, value: &[u8]) {
    let hex = format!("0x{}", crate::support::hex(value));
    run(
        "setfattr",
        [
            "-h".as_ref(),
            "-n".as_ref(),
            name.as_ref(),
            "-v".as_ref(),
            hex.as_ref(),
            path.as_os_str(),
        ],
    );
}

/// Bytes that are their own address, and do not compress well.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Text that compresses.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 40);
    let mut i = seed;
    while out.len() < len {
        i = i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend(format!("line {} of {:x}; ", out.len(), i >> 52).bytes());
    }
    out.truncate(len);
    out
}
