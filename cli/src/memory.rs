//! `--max-memory`: a limit that the user sets.
//!
//! What vmdkit holds is bounded anyway; this is for a machine where even that is too much, and for
//! whoever wants to be sure. A watcher looks at what is really in use and ends the command with a
//! reason; what is unfinished has no final name then, as after any other end. A mount, whose process
//! may not have threads from before it locked itself down, gets the kernel's own limit.

use crate::{
    exit::{Exit, Failure},
    output::say,
};
use disk_io::DiskError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs::File, os::unix::fs::FileExt, process, thread, time::Duration};

/// How often is looked.
const EVERY: Duration = Duration::from_millis(20);

/// The kernel ends what wants more; for this process and those that it starts.
pub(crate) fn limit(bytes: u64) -> Result<(), Failure> {
    let old = getrlimit(Resource::Data);
    let most = old.maximum.map_or(bytes, |m| m.min(bytes));
    let new = Rlimit {
        current: Some(most),
        maximum: old.maximum,
    };
    setrlimit(Resource::Data, new).map_err(|e| DiskError::io("limiting memory", &e.into()).into())
}

/// Ends this process when it has more than `bytes` in memory.
pub(crate) fn watch(bytes: u64) -> Result<(), Failure> {
    let io = |e| Failure::from(DiskError::io("watching memory", &e).file("/proc/self/statm"));
    let statm = File::open("/proc/self/statm").map_err(io)?;
    let page = rustix::param::page_size() as u64;
    end_above(bytes, resident(&statm, page).map_err(io)?);
    let look = move || {
        loop {
            thread::sleep(EVERY);
            // It could be read before.
            end_above(bytes, resident(&statm, page).unwrap_or(0));
        }
    };
    let named = thread::Builder::new().name("memory".into());
    named.spawn(look).map_err(io)?;
    Ok(())
}

fn end_above(bytes: u64, used: u64) {
    if used <= bytes {
        return;
    }
    let mib = |n: u64| n.div_ceil(1 << 20);
    say(format_args!(
        "vmdkit: {} MiB of memory are in use, and --max-memory allows {} MiB; nothing unfinished was \
         given its final name\n  hint: give it more, or fewer --jobs",
        mib(used),
        mib(bytes)
    ));
    process::exit(Exit::Failed.code().into());
}

/// Bytes that are in memory now; what other processes share with this one is not counted.
fn resident(statm: &File, page: u64) -> std::io::Result<u64> {
    let mut text = [0; 128];
    let n = statm.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    let mut numbers = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(all)), Some(Ok(shared))) => Ok(all.saturating_sub(shared).saturating_mul(page)),
        _ => Err(std::io::Error::other(format!("no numbers in {text:?}"))),
    }
}
