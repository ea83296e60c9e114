//! What must hold of a disk, whatever it was made of.

use disk_io::{Disk, ErrorKind, RunKind};

/// Runs that are looked at.
const RUNS: usize = 200;
/// What is read of each.
const READ: u64 = 8192;
/// Runs in a row may not go on for ever without getting anywhere.
const FAR: u64 = 1 << 62;

/// Runs cover the disk and stay inside; what is said to be zeros reads as zeros; two ways of
/// reading agree; outside is an error of its own kind. Errors of other kinds are fine.
pub fn disk(disk: &dyn Disk) {
    let len = disk.len();
    for offset in [len, u64::MAX] {
        let e = disk.read_exact_at(&mut [0], offset).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfRange, "a read at {offset}");
        assert!(disk.run_at(offset).is_err());
    }
    let (mut at, mut runs) = (0, 0);
    while at < len && runs < RUNS {
        runs += 1;
        let Ok(run) = disk.run_at(at) else {
            at = (at | 0xffff) + 1;
            continue;
        };
        assert!(run.len > 0 && run.len <= len - at, "a run at {at}");
        let n = run.len.min(READ);
        for from in [at, at + run.len - n] {
            agree(disk, from, n as usize, run.kind);
        }
        at += run.len;
        if at > FAR {
            break;
        }
    }
    let n = len.min(READ);
    agree(disk, len - n, n as usize, RunKind::Data);
}

/// Reads the same bytes at once and in two parts.
fn agree(disk: &dyn Disk, at: u64, n: usize, kind: RunKind) {
    let (mut whole, mut parts) = (vec![0xa5; n], vec![0x5a; n]);
    let first = disk.read_exact_at(&mut whole, at);
    let (a, b) = parts.split_at_mut(n / 3);
    let second = disk
        .read_exact_at(a, at)
        .and_then(|()| disk.read_exact_at(b, at + (n / 3) as u64));
    match (first, second) {
        (Ok(()), Ok(())) => {
            assert!(whole == parts, "two ways of reading differ at {at}");
            if kind.reads_as_zero() {
                assert!(whole.iter().all(|b| *b == 0), "zeros that are none at {at}");
            }
        }
        // Both fail, if for different bytes first.
        (Err(_), Err(_)) => {}
        (first, second) => panic!("one way of reading fails at {at}: {first:?} {second:?}"),
    }
}
