//! Running processes and taking down what they cost.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Seconds by the clock.
    pub(crate) wall: f64,
    /// Seconds of processor time, of servers too.
    pub(crate) cpu: f64,
    /// Bytes that read calls returned, of servers too.
    pub(crate) read: u64,
}

impl Cost {
    /// Adds what a server did meanwhile.
    pub(crate) fn with_server(mut self, before: Used, after: Used) -> Self {
        self.cpu += after.cpu - before.cpu;
        self.read += after.read.saturating_sub(before.read);
        self
    }
}

/// What a process has used up to now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    cpu: f64,
    read: u64,
}

impl Used {
    /// Bytes that read calls returned.
    pub(crate) fn bytes_read(self) -> u64 {
        self.read
    }
}

/// What a process and its children that have ended have used up to now. Works for one
/// that has ended and was not waited for.
pub(crate) fn used(pid: u32) -> Result<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name is in parentheses and may hold blanks; fields are counted behind it.
    let (_, fields) = stat.rsplit_once(')').context("a line of /proc")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = (11..15)
        .filter_map(|i| fields.get(i)?.parse::<u64>().ok())
        .sum();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let read = io
        .lines()
        .find_map(|l| l.strip_prefix("rchar: ")?.parse().ok())
        .unwrap_or(0);
    Ok(Used {
        cpu: ticks as f64 / 100.0,
        read,
    })
}

/// Runs a command to its end and takes down what it cost.
pub(crate) fn run(command: &mut Command) -> Result<Cost> {
    command.stdout(Stdio::null());
    run_for(command)
}

/// The same, with what it printed on standard output.
pub(crate) fn run_output(command: &mut Command) -> Result<(Cost, String)> {
    let out = tempfile::tempfile()?;
    command.stdout(out.try_clone()?);
    let cost = run_for(command)?;
    Ok((cost, read_all(out)?))
}

fn read_all(mut file: fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn run_for(command: &mut Command) -> Result<Cost> {
    let log = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stderr(log.try_clone()?);
    let begun = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let pid = Pid::from_child(&child);
    // Ended, but still there to be asked what it used.
    waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    let wall = begun.elapsed().as_secs_f64();
    let used = used(child.id())?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?} ended with {status}: {}", read_all(log)?);
    }
    Ok(Cost {
        wall,
        cpu: used.cpu,
        read: used.read,
    })
}

/// Empties the page cache, if we may.
pub(crate) fn drop_caches() -> Result<bool> {
    let _ = Command::new("sync").status()?;
    Ok(fs::write("/proc/sys/vm/drop_caches", "3").is_ok())
}

/// Reads a file once, so that the page cache has it.
pub(crate) fn warm(path: &Path) -> Result<()> {
    let mut file = fs::File::open(path)?;
    std::io::copy(&mut file, &mut std::io::sink())?;
    Ok(())
}

/// One contestant of a race.
pub(crate) struct Contestant<'a> {
    pub(crate) name: &'static str,
    /// Before each run, not timed.
    pub(crate) prepare: Box<dyn FnMut() -> Result<()> + 'a>,
    /// The run.
    pub(crate) run: Box<dyn FnMut() -> Result<Cost> + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant with nothing to prepare.
    pub(crate) fn new(name: &'static str, run: impl FnMut() -> Result<Cost> + 'a) -> Self {
        Self {
            name,
            prepare: Box::new(|| Ok(())),
            run: Box::new(run),
        }
    }

    /// What has to be done before each run.
    pub(crate) fn prepared(mut self, prepare: impl FnMut() -> Result<()> + 'a) -> Self {
        self.prepare = Box::new(prepare);
        self
    }
}

/// What a contestant's runs cost, round by round.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    pub(crate) name: &'static str,
    pub(crate) costs: Vec<Cost>,
}

/// Lets the contestants take turns: A B … B A, A B … B A; the first round does not count.
/// A contestant that fails drops out, with the reason.
pub(crate) fn race(
    rounds: usize,
    mut contestants: Vec<Contestant<'_>>,
) -> Result<(Vec<Runs>, Vec<String>)> {
    let mut runs: Vec<Runs> = contestants
        .iter()
        .map(|c| Runs {
            name: c.name,
            costs: Vec::new(),
        })
        .collect();
    let mut out = vec![None; contestants.len()];
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            if out[i].is_some() {
                continue;
            }
            let contestant = &mut contestants[i];
            let result = (contestant.prepare)().and_then(|()| (contestant.run)());
            match result {
                Ok(cost) => {
                    eprintln!(
                        "   round {round} {:<28} {:.3} s, {:.2} CPU s, {} MiB read",
                        contestant.name,
                        cost.wall,
                        cost.cpu,
                        cost.read >> 20
                    );
                    if round > 0 {
                        runs[i].costs.push(cost);
                    }
                }
                Err(e) if i == 0 => return Err(e.context(contestant.name)),
                Err(e) => out[i] = Some(format!("{} dropped out: {e:#}", contestant.name)),
            }
        }
    }
    let mut kept = Vec::new();
    for (run, out) in runs.into_iter().zip(&out) {
        if out.is_none() {
            kept.push(run);
        }
    }
    Ok((kept, out.into_iter().flatten().collect()))
}

/// The middle of some numbers.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Waits until something holds; half a minute at most.
pub(crate) fn wait_until(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while !done()? {
        if Instant::now() > until {
            bail!("waited half a minute in vain");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
