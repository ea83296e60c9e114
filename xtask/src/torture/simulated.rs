//! What the suite's crash simulation and its stress of the mount tell: how much they did. Both fail
//! where anything was not as it must be, so that numbers that are told are numbers of what held.

use ::tests::tools;
use anyhow::{Result, ensure};
use std::{collections::BTreeMap, path::Path, process::Command};

/// Sums by what is counted.
pub(crate) type Sums = BTreeMap<String, u64>;

/// What was told of one part.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Lines: cases of the part.
    pub(crate) cases: u64,
    pub(crate) sums: Sums,
}

impl Part {
    pub(crate) fn sum(&self, of: &str) -> u64 {
        self.sums.get(of).copied().unwrap_or(0)
    }

    /// `crash: NAME: 12 operations, 3 faults`.
    fn read(text: &str, part: &str) -> Self {
        let mut found = Self::default();
        let lines = text.lines().filter_map(|l| l.strip_prefix(part));
        for line in lines.filter_map(|l| l.strip_prefix(": ")) {
            let Some((_, numbers)) = line.rsplit_once(": ") else {
                continue;
            };
            found.cases += 1;
            for (number, of) in numbers.split(", ").filter_map(|n| n.split_once(' ')) {
                *found.sums.entry(of.to_owned()).or_default() += number.parse().unwrap_or(0);
            }
        }
        found
    }
}

/// Both parts.
#[derive(Debug, Default)]
pub(crate) struct Suite {
    pub(crate) crash: Part,
    pub(crate) stress: Part,
}

/// Runs both parts of the suite on a program.
pub(crate) fn run(vmdkit: &Path) -> Result<Suite> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--quiet", "--package", "tests", "--test", "suite"])
        .args(["--", "--nocapture", "crash::", "stress::"])
        .current_dir(tools::project())
        .env("VMDKIT_BIN", vmdkit)
        .env("VMDKIT_REQUIRE", "fuse,peers");
    println!("crash simulation and stress of the mount");
    let out = command.output()?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stdout)
    );
    Ok(Suite {
        crash: Part::read(&text, "crash"),
        stress: Part::read(&text, "stress"),
    })
}

/// Executions of all targets, and the most memory of one in MiB, as docs/fuzzing.md has them.
pub(crate) fn fuzzed() -> Result<(usize, u64, u64)> {
    let text = std::fs::read_to_string(tools::project().join("docs/fuzzing.md"))?;
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|l| l.starts_with('|'))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let head = rows.first().cloned().unwrap_or_default();
    let column = |name: &str| head.iter().position(|h| *h == name);
    let (Some(executions), Some(peak)) = (column("executions"), column("peak MiB")) else {
        anyhow::bail!("docs/fuzzing.md has no table of executions");
    };
    let numbers = |at: usize| -> Vec<u64> {
        let cells = rows.iter().skip(2).filter_map(|r| r.get(at));
        cells.filter_map(|c| c.parse().ok()).collect()
    };
    let all = numbers(executions);
    let most = numbers(peak).into_iter().max().unwrap_or(0);
    Ok((all.len(), all.iter().sum(), most))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_up() {
        let text = "running 3 tests\ncrash: a, b: over: 10 operations, 3 faults\n\
                    crash: c: 5 operations, 1 faults, 2 again\nstress: x: 7 MiB compared\n";
        let crash = Part::read(text, "crash");
        assert_eq!((crash.cases, crash.sum("operations")), (2, 15));
        assert_eq!((crash.sum("faults"), crash.sum("again")), (4, 2));
        assert_eq!(Part::read(text, "stress").sum("MiB compared"), 7);
    }

    #[test]
    fn the_table_of_fuzzing_is_read() {
        let (targets, executions, most) = fuzzed().unwrap();
        assert!(targets > 20 && executions > 1_000_000 && most > 10);
    }
}
