//! A small FAT disk as SOURCE, and the program run on it.

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A directory with `disk.vmdk` over `disk-flat.vmdk`, in which are `a.txt`, `dir/b.txt`,
/// `dir/sub/c.bin`, `Long name of a file.dat` and `empty`.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
}

/// What `c.bin` holds.
pub(crate) fn contents_of_c() -> Vec<u8> {
    (0..300_000u32).map(|i| (i / 7 % 251) as u8).collect()
}

pub(crate) const LEN: usize = 8 << 20;

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Cursor::new(vec![0; LEN]);
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat16)
            .volume_label(*b"RESTORE    ");
        fatfs::format_volume(&mut disk, options).unwrap();
        {
            let fs = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
            let root = fs.root_dir();
            let file = |path: &str, bytes: &[u8]| {
                root.create_file(path).unwrap().write_all(bytes).unwrap();
            };
            root.create_dir("dir").unwrap();
            root.create_dir("dir/sub").unwrap();
            file("a.txt", b"hello\n");
            file("dir/b.txt", b"there\n");
            file("dir/sub/c.bin", &contents_of_c());
            file("Long name of a file.dat", b"long");
            file("empty", b"");
        }
        fs::write(dir.path().join("disk-flat.vmdk"), disk.into_inner()).unwrap();
        let descriptor = format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
             createType=\"monolithicFlat\"\n\n# Extent description\n\
             RW {} FLAT \"disk-flat.vmdk\" 0\n",
            LEN / 512
        );
        fs::write(dir.path().join("disk.vmdk"), descriptor).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn raw(&self) -> Vec<u8> {
        fs::read(self.path("disk-flat.vmdk")).unwrap()
    }

    /// Runs `vmdkit` in the directory.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        Ran::new(args, output)
    }

    /// The same with something on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // It may end before it has read everything.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        Ran::new(args, output)
    }

    /// Fills the end of the disk, which no file has, with what does not compress.
    pub(crate) fn noise(&self) {
        let mut bytes = self.raw();
        let mut state = 1u32;
        for byte in &mut bytes[LEN - (3 << 20)..] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        fs::write(self.path("disk-flat.vmdk"), bytes).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmdkit"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }
}

/// What a run gave.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
    what: String,
}

impl Ran {
    fn new(args: &[&str], output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8(output.stderr).unwrap(),
            what: args.join(" "),
        }
    }

    /// The exit code is `code`; whatever happens, nobody sees a panic.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}: {}", self.what, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        assert!(!self.err.contains("internal error"), "{}", self.err);
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    #[track_caller]
    pub(crate) fn quiet(self) -> Self {
        assert!(self.err.is_empty(), "{}: {}", self.what, self.err);
        self
    }

    /// Standard error has `part`.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(
            self.err.contains(part),
            "{}: no {part:?} in {}",
            self.what,
            self.err
        );
        self
    }
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

/// Says that a test did not run; a failure where that kind is required.
pub(crate) fn skipped(kind: &str, why: &str) {
    let required = std::env::var("VMDKIT_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|k| k == kind), "required: {why}");
    eprintln!("skipped: {why}");
}
