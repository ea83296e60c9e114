//! What went wrong in other programs that read virtual disks, and what a safe reader must keep:
//! one test by name for each, through the real program.
//!
//! | module | holds |
//! |---|---|
//! | [`advisories`] | published vulnerabilities and review findings |
//! | [`findings`] | wrong bytes, hangs and silence seen in current tools |
//! | [`names`] | rules 1 to 4: what is opened, what it is taken for, how much is believed |
//! | [`bytes`] | rules 5 to 9 and 13: places, inflation, chains, footers, journals |
//! | [`packages`] | rule 10: packages |
//! | [`output`] | rules 11, 12 and 14: what is written, mounts, what is printed |

mod advisories;
mod bytes;
mod findings;
mod names;
mod output;
mod packages;

use crate::hostile::{Watch, limited};
use std::{fs, path::PathBuf, process::Command, time::Duration};
use tests::{
    damages::{self, Files},
    tools,
};

/// Far more than is needed, for debug builds on a busy machine. What hangs is killed later.
const AT_MOST: Duration = Duration::from_secs(15);
/// What the program may have of address space, in KiB: what a hostile claim asks for is more.
const MEMORY: u32 = 1 << 20;

/// A directory for images, and beside it a file that nothing may open.
struct Place {
    top: tempfile::TempDir,
    watch: Watch,
}

/// What a run came to.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let secret = top.path().join("secret.bin");
        fs::write(&secret, "SECRET..".repeat(512)).unwrap();
        fs::create_dir(top.path().join("dir")).unwrap();
        Self {
            watch: Watch::new(&secret),
            top,
        }
    }

    /// With the files of an image.
    fn of(files: &Files) -> Self {
        let place = Self::new();
        for (name, bytes) in &files.files {
            bytes.write(&place.path(name)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join("dir").join(name)
    }

    /// The path of the file that nothing may open.
    fn secret(&self) -> String {
        self.top.path().join("secret.bin").display().to_string()
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The names in the directory.
    fn names(&self) -> Vec<std::ffi::OsString> {
        let all = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = all.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    }

    /// Runs the program in the directory, bounded in time and memory.
    fn run(&self, args: &[&str]) -> Ran {
        let limit = format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &limit])
            .arg(tools::vmdkit().unwrap())
            .args(args)
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir(self.path(""));
        let (code, out, err, took) = limited(&mut command);
        assert!(code.is_some(), "{args:?}: killed after {took:?}: {err}");
        assert!(took < AT_MOST, "{args:?}: {took:?}");
        for bad in ["panicked", "allocation of", "overflow"] {
            assert!(!err.contains(bad), "{args:?}: {err}");
        }
        Ran { code, out, err }
    }

    /// Runs it and expects success.
    #[track_caller]
    fn done(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}{}", ran.out, ran.err);
        ran
    }

    /// Every verb refuses this image, says all of `says`, opens nothing outside of the
    /// directory, gives nothing out and leaves nothing behind.
    #[track_caller]
    fn refused(&self, source: &str, says: &[&str]) {
        let before = self.names();
        let verbs: [&[&str]; 5] = [
            &["info", source],
            &["ls", source, "/"],
            &["convert", source, "out.raw", "--to", "raw"],
            &["convert", source, "-", "--to", "raw"],
            &["export", source, "backup"],
        ];
        for args in verbs {
            let Ran { code, out, err } = self.run(args);
            assert_eq!(code, Some(1), "{args:?}: {out}{err}");
            assert_eq!(out, "", "{args:?}: {err}");
            for word in says {
                assert!(err.contains(word), "{args:?} does not say '{word}': {err}");
            }
            assert!(!err.contains("SECRET"), "{args:?}: {err}");
            assert_eq!(self.names(), before, "{args:?} left something");
        }
        let check = self.run(&["check", source]);
        assert!(
            matches!(check.code, Some(1 | 4)),
            "check: {:?}: {}{}",
            check.code,
            check.out,
            check.err
        );
        assert!(!check.out.contains("SECRET"), "{}", check.out);
        assert!(!self.watch.was_opened(), "{source}: opened the secret");
    }

    /// It may open; its contents cannot be copied, which is said with all of `says`, and
    /// nothing that looks like contents is left.
    #[track_caller]
    fn not_copied(&self, source: &str, says: &[&str]) {
        let before = self.names();
        let args = ["convert", source, "out.raw", "--to", "raw"];
        let Ran { code, err, .. } = self.run(&args);
        assert_eq!(code, Some(1), "{err}");
        for word in says {
            assert!(err.contains(word), "does not say '{word}': {err}");
        }
        assert_eq!(self.names(), before, "convert left something: {err}");
        assert!(!self.watch.was_opened(), "{source}: opened the secret");
    }

    /// Its contents are these.
    #[track_caller]
    fn copied(&self, source: &str, contents: &[u8]) {
        self.done(&["convert", source, "copy.raw", "--to", "raw", "--force"]);
        let found = self.get("copy.raw");
        let differs = found.iter().zip(contents).position(|(a, b)| a != b);
        assert!(
            found.len() == contents.len() && differs.is_none(),
            "{source}: {} bytes, expected {}; byte {differs:?} differs",
            found.len(),
            contents.len()
        );
        fs::remove_file(self.path("copy.raw")).unwrap();
    }
}

/// An image with a fault that [`tests::damages`] plants.
#[track_caller]
fn planted(group: &str, name: &str) -> Files {
    let mut all = damages::all().filter(|(g, d)| *g == group && d.name == name);
    let (_, damage) = all.next().unwrap_or_else(|| panic!("no {group}: {name}"));
    let mut files = damage.base.files();
    (damage.plant)(&mut files);
    files
}
