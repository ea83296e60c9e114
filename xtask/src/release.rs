//! `cargo xtask release`: the program as it is given out, built twice in two places and the same
//! both times, with what it is built from.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tests::tools;

/// How to build.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Where the program, its sums and the list go.
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
    let commit = git(&["rev-parse", "HEAD"])?;
    let time = git(&["log", "-1", "--format=%ct"])?;
    ensure!(
        git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty(),
        "what is not committed would not be in it"
    );
    let work = tempfile::tempdir()?;
    let mut built = Vec::new();
    // The names have different lengths, so that nothing of them can be alike by chance.
    for name in ["a", "another-place"]
        .iter()
        .take(if options.once { 1 } else { 2 })
    {
        let dir = work.path().join(name);
        unpack(&dir)?;
        println!("building {commit} in {}", dir.display());
        built.push(build(&dir, &time)?);
    }
    let sums: Vec<String> = built.iter().map(|b| sum(b)).collect::<Result<_>>()?;
    if sums.windows(2).any(|s| s[0] != s[1]) {
        bail!("the two builds differ: {}", sums.join(" and "));
    }
    let program = built.first().context("a build")?;
    fs::copy(program, to.join("vmdkit"))?;
    let mut list = format!("{}  vmdkit\n", sums[0]);
    if let Some(bom) = bill_of_materials(&work.path().join("a"))? {
        fs::write(to.join("vmdkit.cdx.json"), bom)?;
        list += &format!("{}  vmdkit.cdx.json\n", sum(&to.join("vmdkit.cdx.json"))?);
    }
    fs::write(to.join("SHA256SUMS"), &list)?;
    print!("{list}");
    println!("{} of commit {commit}", to.display());
    if !options.once {
        println!("both builds are the same");
    }
    Ok(())
}

fn git(args: &[&str]) -> Result<String> {
    let out = Command::new("git")
        .args(args)
        .current_dir(tools::project())
        .output()?;
    ensure!(out.status.success(), "git {args:?}");
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

/// What is committed, in an empty directory.
fn unpack(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let archive = dir.with_extension("tar");
    let archive = archive.to_str().context("a name")?;
    git(&["archive", "-o", archive, "HEAD"])?;
    let dir = dir.to_str().context("a name")?;
    tools::run("tar", ["-xf", archive, "-C", dir])?;
    Ok(())
}

/// The program built there; no path of this machine gets into it.
fn build(dir: &Path, time: &str) -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))?;
    let maps = [
        format!("--remap-path-prefix={}=/vmdkit", dir.display()),
        format!("--remap-path-prefix={home}=/cargo"),
    ];
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--package", "vmdkit", "--bin", "vmdkit"])
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("CARGO_ENCODED_RUSTFLAGS", maps.join("\u{1f}"))
        .env(
            "CFLAGS",
            format!(
                "-ffile-prefix-map={home}=/cargo -ffile-prefix-map={}=/vmdkit",
                dir.display()
            ),
        )
        .env("SOURCE_DATE_EPOCH", time)
        .env_remove("RUSTFLAGS")
        .status()?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(dir.join("target/release/vmdkit"))
}

fn sum(path: &Path) -> Result<String> {
    let out = tools::run("sha256sum", [path])?;
    let text = String::from_utf8(out.stdout)?;
    Ok(text.split_whitespace().next().context("a sum")?.to_owned())
}

/// What it is built from, as CycloneDX has it; `None` where the tool for that is not installed.
fn bill_of_materials(dir: &Path) -> Result<Option<Vec<u8>>> {
    if tools::find("cargo-cyclonedx").is_none() {
        println!("no list of materials: cargo install --locked cargo-cyclonedx");
        return Ok(None);
    }
    let status = Command::new("cargo-cyclonedx")
        .args([
            "cyclonedx",
            "--format",
            "json",
            "--describe",
            "binaries",
            "--quiet",
        ])
        .args(["--manifest-path", "cli/Cargo.toml"])
        .current_dir(dir)
        .status()?;
    ensure!(status.success(), "cargo cyclonedx: {status}");
    let made = fs::read_dir(dir.join("cli"))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .find(|p| p.to_string_lossy().ends_with(".cdx.json"));
    Ok(Some(fs::read(made.context("a list")?)?))
}
