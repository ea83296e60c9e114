//! Other programs: finding them, running them, and what happens where one is missing.
//!
//! A test that needs something which is not there says so and passes, unless the variable
//! `VMDKIT_REQUIRE` (a list of `peers`, `images`, `fuse`) makes that a failure.

use anyhow::{Context, Result, bail};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

/// What a test may need from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Reference tools.
    Peers,
    /// Real images.
    Images,
    /// `/dev/fuse` and the right to mount.
    Fuse,
}

impl Need {
    fn word(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Images => "images",
            Self::Fuse => "fuse",
        }
    }
}

/// Reports that something cannot be tested here. A skip is visible, and where
/// `VMDKIT_REQUIRE` lists what is missing it is a failure.
#[allow(clippy::panic)]
pub fn skip(need: Need, why: &str) {
    let required = std::env::var("VMDKIT_REQUIRE").unwrap_or_default();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    if required.split([',', ' ']).any(|w| w == need.word()) {
        panic!("{test} needs what is not here: {why} (VMDKIT_REQUIRE={required})");
    }
    crate::say!("skipped: {test}: {why}");
}

/// Where a program is, looking also where Debian keeps those of the administrator.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|p| p.is_file())
}

/// Whether all of `programs` are here; skips if not.
pub fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .copied()
        .filter(|p| find(p).is_none())
        .collect();
    if missing.is_empty() {
        return true;
    }
    skip(
        Need::Peers,
        &format!("not installed: {}", missing.join(" ")),
    );
    false
}

/// Whether we run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.uid() == 0
    })
}

/// Whether something can be mounted through FUSE; skips if not.
pub fn have_fuse() -> bool {
    if can_fuse() {
        return true;
    }
    skip(Need::Fuse, "no usable /dev/fuse");
    false
}

/// Whether something can be mounted through FUSE.
pub fn can_fuse() -> bool {
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    device.is_ok() && (is_root() || find("fusermount3").is_some())
}

/// A command by name, wherever it is.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a command to its end; anything but success is an error with what it printed.
pub fn output(command: &mut Command) -> Result<Output> {
    let out = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !out.status.success() {
        bail!(
            "{command:?} ended with {}:\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(out)
}

/// Runs `program` with `args`; see [`output`].
pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(program: &str, args: I) -> Result<Output> {
    output(command(program).args(args))
}

/// The project's top directory.
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where everything built goes.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => project().join(dir),
        None => project().join("target"),
    }
}

/// The `vmdkit` binary: `$VMDKIT_BIN`, or built now in the profile of the tests.
pub fn vmdkit() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| build_vmdkit().map_err(|e| format!("{e:#}")))
        .as_deref()
        .map_err(|e| anyhow::anyhow!("{e}"))
}

fn build_vmdkit() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VMDKIT_BIN") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "vmdkit", "--bin", "vmdkit"])
        .current_dir(project());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    output(&mut command)?;
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    Ok(target_dir().join(profile).join("vmdkit"))
}
