//! `cargo xtask fuzz`: libFuzzer over every target, and the table of what was executed.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::tools;
use vmdkit_fuzz::ALL;

/// What the compiler adds for coverage: stable options, as cargo-fuzz gives them.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Of a process that is fed a few MiB at most.
const MEMORY_MIB: u32 = 768;
const ONE_MIB: u32 = 384;

/// What to fuzz and how long.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Targets (default: all); `list` names them.
    targets: Vec<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Make the images in fuzz/bases that only other tools make.
    #[arg(long)]
    bases: bool,
    /// Add what was executed to docs/fuzzing.md.
    #[arg(long)]
    write: bool,
}

/// What was executed of a target, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    seconds: u64,
    executions: u64,
    /// Edges that were reached, and inputs that reach them.
    edges: u64,
    inputs: u64,
    peak_mib: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.targets.iter().any(|t| t == "list") {
        for target in ALL {
            println!("{:<12} {}", target.name, target.what);
        }
        return Ok(());
    }
    if options.bases {
        return crate::bases::make();
    }
    for name in &options.targets {
        if vmdkit_fuzz::find(name).is_none() {
            bail!("no target is called {name}; `cargo xtask fuzz list` names them");
        }
    }
    let engine = build()?;
    let page = tools::project().join("docs/fuzzing.md");
    let mut found = Vec::new();
    for target in ALL {
        let wanted = options.targets.is_empty() || options.targets.iter().any(|t| t == target.name);
        if !wanted {
            continue;
        }
        let (done, bad) = one(&engine, target.name, options.seconds)?;
        println!(
            "{:<12} {:>10} executions, {} edges, {} inputs, {} MiB",
            target.name, done.executions, done.edges, done.inputs, done.peak_mib
        );
        if options.write {
            // At once: a long campaign may be cut off.
            add(&page, target.name, done)?;
        }
        found.extend(bad);
    }
    for path in &found {
        println!("found: {}", path.display());
    }
    ensure!(found.is_empty(), "{} inputs break a rule", found.len());
    Ok(())
}

fn build() -> Result<PathBuf> {
    let dir = tools::target_dir().join("fuzz");
    let manifest = tools::project().join("fuzz/engine/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--target", TRIPLE])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&dir)
        .env("RUSTFLAGS", COVERAGE)
        .status()
        .context("cargo")?;
    ensure!(status.success(), "the engine was not built");
    Ok(dir.join(TRIPLE).join("release/vmdkit-fuzz-engine"))
}

fn one(engine: &Path, target: &str, seconds: u64) -> Result<(Done, Vec<PathBuf>)> {
    let place = tools::target_dir().join("fuzz");
    let corpus = place.join("corpus").join(target);
    let artifacts = place.join("artifacts").join(target);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let kept = tools::project().join("fuzz/corpus").join(target);
    let mut command = Command::new(engine);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-malloc_limit_mb={ONE_MIB}"))
        .args([
            "-timeout=20",
            "-print_final_stats=1",
            "-max_len=8192",
            "-len_control=20",
        ])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus);
    if kept.is_dir() {
        command.arg(kept);
    }
    let before = children_seconds()?;
    let out = command
        .env("VMDKIT_FUZZ", target)
        .stdin(Stdio::null())
        .output()
        .context("the engine")?;
    let said = String::from_utf8_lossy(&out.stderr);
    let stat = |name: &str| -> u64 {
        let mut lines = said.lines().filter_map(|l| l.strip_prefix(name));
        lines
            .next_back()
            .and_then(|l| l.trim().parse().ok())
            .unwrap_or(0)
    };
    // `#123 REDUCE cov: 99 ft: 200 corp: 7/1Kb …`
    let last = |key: &str| -> u64 {
        let mut lines = said
            .lines()
            .filter(|l| l.starts_with('#') && l.contains(" cov: "));
        let words: Vec<&str> = lines
            .next_back()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let at = words.iter().position(|w| *w == key);
        let value = at.and_then(|at| words.get(at + 1)).unwrap_or(&"0");
        value
            .split('/')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    };
    let done = Done {
        seconds: (children_seconds()? - before).round() as u64,
        executions: stat("stat::number_of_executed_units:"),
        edges: last("cov:"),
        inputs: last("corp:"),
        peak_mib: stat("stat::peak_rss_mb:"),
    };
    let mut found = Vec::new();
    if !out.status.success() {
        let log = artifacts.join("log");
        fs::write(&log, said.as_bytes())?;
        for entry in fs::read_dir(&artifacts)? {
            let path = entry?.path();
            if path != log {
                found.push(path);
            }
        }
        if found.is_empty() {
            bail!(
                "{target}: the engine ended with {}: {}",
                out.status,
                log.display()
            );
        }
    }
    Ok((done, found))
}

/// Processor seconds of the children that ended (proc(5), `cutime` and `cstime`): on a busy machine
/// a minute on the clock is less than a minute of fuzzing.
fn children_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in brackets, of any bytes; after it comes the third.
    let rest = stat.rsplit_once(')').context("/proc/self/stat")?.1;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(|t| t.parse::<u64>())
        .sum::<Result<u64, _>>()?;
    // USER_HZ, which is 100 wherever Linux runs this.
    Ok(ticks as f64 / 100.0)
}

const HEAD: &str = "\
# Fuzzing

`cargo xtask fuzz` feeds every parser hostile bytes, led by coverage (libFuzzer): sound images with some bytes changed, most of them
where something is. What must hold is more than that nothing panics (`fuzz/src`): what opens has runs that cover it and stay
inside, reads as zeros where it says so, and gives the same bytes at once and in parts; free space, findings and extents stay
inside their volume; 768 MiB and 20 seconds are enough for every input, with checks of overflow on. `cargo test` replays what
was found (`fuzz/corpus`) and mutates for a moment.

Found so far, and mended: an $MFT of holes and a VMFS resource file of holes, 2^40 records and 2^32 clusters long, whose walks did
not end.

Processor seconds and executions add up over campaigns; edges, inputs that reach them and memory are of the one that reached most.

| target | fed with | seconds | executions | edges | inputs | peak MiB |
|---|---|---|---|---|---|---|
";

fn read(page: &Path) -> BTreeMap<String, Done> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, seconds, executions, edges, inputs, peak_mib, _] = cells.as_slice() else {
            return None;
        };
        let number = |text: &str| text.replace(',', "").parse::<u64>().ok();
        let done = Done {
            seconds: number(seconds)?,
            executions: number(executions)?,
            edges: number(edges)?,
            inputs: number(inputs)?,
            peak_mib: number(peak_mib)?,
        };
        Some(((*name).to_owned(), done))
    });
    rows.collect()
}

fn add(page: &Path, target: &str, new: Done) -> Result<()> {
    let mut rows = read(page);
    let row = rows.entry(target.to_owned()).or_default();
    let most = if new.edges > row.edges { new } else { *row };
    *row = Done {
        seconds: row.seconds + new.seconds,
        executions: row.executions + new.executions,
        ..most
    };
    let old = fs::read_to_string(page).unwrap_or_default();
    // What is written below the table by hand stays.
    let below = match old.find("\n\n## ") {
        Some(at) => &old[at + 1..],
        None => "",
    };
    let mut text = HEAD.to_owned();
    for target in ALL {
        if let Some(d) = rows.get(target.name) {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                target.name, target.what, d.seconds, d.executions, d.edges, d.inputs, d.peak_mib
            )?;
        }
    }
    text.push_str(below);
    fs::write(page, text)?;
    Ok(())
}
