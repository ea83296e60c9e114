//! `cargo xtask release`: the program as it is given out, built twice and the same both times,
//! with what it is built from (SECURITY.md says how others do the same).
//!
//! Compilers write the places of what they compile into what they make. So everything that goes
//! into a build lies below one directory whose name is always the same ([`PLACE`]): the committed
//! tree, the sources of all libraries, what comes out. What then still differs from one machine to
//! the next (who builds, from where, when, in which language) must not matter, and the second build
//! has all of that otherwise than the first.

mod materials;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};
use tests::tools;

/// Where everything is built.
const PLACE: &str = "/var/tmp/vmdkit-release";

/// How to build.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Where the program, its sums and the lists go.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Build once only.
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let to = options
        .to
        .clone()
        .unwrap_or_else(|| tools::target_dir().join("dist"));
    fs::create_dir_all(&to)?;
    materials::check()?;
    let commit = git(&["rev-parse", "HEAD"])?;
    let time = git(&["log", "-1", "--format=%ct"])?;
    ensure!(
        git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty(),
        "what is not committed would not be in it"
    );
    let kept = tempfile::tempdir()?;
    let mut sums = Vec::new();
    for how in [How::Plain, How::Otherwise]
        .into_iter()
        .take(if options.once { 1 } else { 2 })
    {
        let place = Place::new()?;
        place.unpack(&commit)?;
        println!("building {commit}: {}", how.name());
        place.build(how, kept.path())?;
        let program = place.0.join("target/release/vmdkit");
        sums.push(sum(&program)?);
        fs::copy(&program, kept.path().join(how.name()))?;
        if how == How::Plain {
            let list = materials::list(&place.source(), &time)?;
            fs::write(to.join("vmdkit.cdx.json"), list)?;
        }
    }
    if sums.windows(2).any(|s| s[0] != s[1]) {
        for how in [How::Plain, How::Otherwise] {
            fs::copy(kept.path().join(how.name()), to.join(how.name()))?;
        }
        bail!(
            "the two builds differ: {}; both are in {}",
            sums.join(" and "),
            to.display()
        );
    }
    fs::copy(kept.path().join(How::Plain.name()), to.join("vmdkit"))?;
    fs::write(to.join("BUILT-WITH"), built_with(&commit)?)?;
    let mut list = String::new();
    for name in ["vmdkit", "vmdkit.cdx.json", "BUILT-WITH"] {
        list += &format!("{}  {name}\n", sum(&to.join(name))?);
    }
    fs::write(to.join("SHA256SUMS"), &list)?;
    print!("{list}");
    println!("{} of commit {commit}", to.display());
    if !options.once {
        println!("both builds are the same");
    }
    Ok(())
}

/// What a build has around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Plain,
    Otherwise,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "first",
            Self::Otherwise => "second",
        }
    }
}

/// [`PLACE`], as long as it is built there.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let dir = PathBuf::from(PLACE);
        // Not one that somebody else has made ready.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| {
                format!("making {PLACE}: if no other build runs there, remove it first")
            })?;
        Ok(Self(dir))
    }

    fn source(&self) -> PathBuf {
        self.0.join("vmdkit")
    }

    /// What is committed, and the sources of what it is built from.
    fn unpack(&self, commit: &str) -> Result<()> {
        let archive = self.0.join("vmdkit.tar");
        let archive = archive.to_str().context("a name")?;
        git(&["archive", "-o", archive, commit])?;
        let source = self.source();
        fs::create_dir(&source)?;
        tools::run(
            "tar",
            ["-xf", archive, "-C", source.to_str().context("a name")?],
        )?;
        let libraries = self.0.join("libraries");
        tools::output(
            Command::new(cargo())
                .args(["vendor", "--locked", "--quiet"])
                .arg(&libraries)
                .current_dir(&source),
        )?;
        fs::create_dir(self.0.join(".cargo"))?;
        let config = format!(
            "[source.crates-io]\nreplace-with = \"libraries\"\n[source.libraries]\ndirectory = {libraries:?}\n"
        );
        fs::write(self.0.join(".cargo/config.toml"), config)?;
        Ok(())
    }

    fn build(&self, how: How, other: &Path) -> Result<()> {
        let rustc = sysroot()?.join("bin/rustc");
        // Sources of the standard library, where they are installed, in the place that it has
        // where they are not.
        let version = tools::output(Command::new(&rustc).arg("-vV"))?;
        let version = String::from_utf8(version.stdout)?;
        let hash = version
            .lines()
            .find_map(|l| l.strip_prefix("commit-hash: "))
            .context("the compiler's commit")?;
        let maps = [
            format!("--remap-path-prefix={PLACE}=/vmdkit"),
            format!(
                "--remap-path-prefix={}/lib/rustlib/src/rust=/rustc/{hash}",
                sysroot()?.display()
            ),
        ];
        let mut command = match how {
            How::Otherwise if may_rename_host() => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "--uts", "sh", "-c"]);
                command.arg("hostname elsewhere && umask 077 && exec \"$0\" \"$@\"");
                command
            }
            How::Otherwise => {
                let mut command = Command::new("sh");
                command.args(["-c", "umask 077 && exec \"$0\" \"$@\""]);
                command
            }
            How::Plain => {
                let mut command = Command::new("sh");
                command.args(["-c", "umask 022 && exec \"$0\" \"$@\""]);
                command
            }
        };
        command
            .arg(cargo())
            .args(["build", "--release", "--locked", "--offline", "--quiet"])
            .args(["--package", "vmdkit", "--bin", "vmdkit"])
            .current_dir(self.source())
            // Nothing that a user has set gets in.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RUSTC", rustc)
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            .env("CARGO_ENCODED_RUSTFLAGS", maps.join("\u{1f}"))
            .env("CFLAGS", format!("-ffile-prefix-map={PLACE}=/vmdkit"));
        match how {
            How::Plain => {
                let home = std::env::var_os("HOME").context("HOME")?;
                command
                    .env("HOME", home)
                    .env("LC_ALL", "C")
                    .env("TZ", "UTC");
            }
            How::Otherwise => {
                let home = other.join("another home");
                fs::create_dir_all(&home)?;
                command
                    .env("HOME", &home)
                    .env("CARGO_HOME", home.join("of cargo"))
                    .env("TMPDIR", &home)
                    .env("USER", "somebody")
                    .env("LOGNAME", "somebody")
                    .env("LC_ALL", "C.UTF-8")
                    .env("TZ", "Pacific/Chatham")
                    .env("CARGO_BUILD_JOBS", "3");
            }
        }
        let status = command.status()?;
        ensure!(status.success(), "cargo build: {status}");
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {e}", self.0.display());
        }
    }
}

/// Whether a process may have a name of the machine of its own.
fn may_rename_host() -> bool {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--uts",
        "hostname",
        "elsewhere",
    ]);
    tools::output(&mut command).is_ok()
}

fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

fn sysroot() -> Result<PathBuf> {
    let out = tools::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(String::from_utf8(out.stdout)?.trim().into())
}

/// The tools that have a part in the bytes of the program: with others it comes out otherwise.
fn built_with(commit: &str) -> Result<String> {
    let mut text = format!("commit {commit}\nplace {PLACE}\n");
    let first = |program: &Path, arg: &str| -> Result<String> {
        let out = tools::output(Command::new(program).arg(arg).env("LC_ALL", "C"))?;
        let text = String::from_utf8(out.stdout)?;
        Ok(text.lines().next().unwrap_or_default().to_owned() + "\n")
    };
    text += &first(&sysroot()?.join("bin/rustc"), "--version")?;
    text += &first(&cargo(), "--version")?;
    text += &first(Path::new("cc"), "--version")?;
    text += &first(Path::new("ld"), "--version")?;
    text += &first(Path::new("ldd"), "--version")?;
    Ok(text)
}

fn git(args: &[&str]) -> Result<String> {
    let out = Command::new("git")
        .args(args)
        .current_dir(tools::project())
        .output()?;
    ensure!(out.status.success(), "git {args:?}");
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

fn sum(path: &Path) -> Result<String> {
    let out = tools::run("sha256sum", [path])?;
    let text = String::from_utf8(out.stdout)?;
    Ok(text.split_whitespace().next().context("a sum")?.to_owned())
}
