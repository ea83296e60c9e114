//! The contract of [`Disk`] as a suite: every implementation calls it from its own tests.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use crate::{
    disk::{Disk, RunKind},
    error::ErrorKind,
    zero::is_zero,
};

/// Checks `disk` against `expected`, byte for byte and rule for rule. Panics with the rule
/// that was broken. `expected` should be at most some MiB.
pub fn check(disk: &dyn Disk, expected: &[u8]) {
    assert_eq!(disk.len(), expected.len() as u64, "length");
    check_rules(disk);
    let mut all = vec![0xa5; expected.len()];
    disk.read_exact_at(&mut all, 0).expect("reading everything");
    if let Some(at) = (0..all.len()).find(|i| all[*i] != expected[*i]) {
        panic!(
            "byte {at} of {} is {:#04x}, expected {:#04x}",
            expected.len(),
            all[at],
            expected[at]
        );
    }
    // Odd places and lengths, read on their own.
    let len = expected.len();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (seed >> 20) as usize % (len + 1);
        let n = ((seed >> 40) as usize % 70_000).min(len - at);
        let mut buf = vec![0x5a; n];
        disk.read_exact_at(&mut buf, at as u64)
            .unwrap_or_else(|e| panic!("{n} bytes at {at}: {e}"));
        assert!(buf == expected[at..at + n], "{n} bytes at {at} differ");
    }
}

/// The rules that need no expected contents: bounds, runs, zero runs, concurrency.
pub fn check_rules(disk: &dyn Disk) {
    let len = disk.len();
    for (offset, n) in [(len, 1), (u64::MAX, 1), (u64::MAX - 3, 16), (len, 4096)] {
        let mut buf = vec![0; n];
        let e = disk.read_exact_at(&mut buf, offset).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfRange, "read at {offset}: {e}");
        assert_eq!(
            disk.run_at(offset).unwrap_err().kind(),
            ErrorKind::OutOfRange,
            "run_at({offset})"
        );
    }
    if len > 0 {
        let e = disk.read_exact_at(&mut [0; 2], len - 1).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfRange, "read over the end");
    }
    disk.read_exact_at(&mut [], 0).expect("empty read at 0");
    disk.read_exact_at(&mut [], len)
        .expect("empty read at the end");
    disk.read_exact_at(&mut [], len.wrapping_add(1))
        .expect_err("empty read past the end");

    let mut at = 0;
    let mut runs = 0;
    while at < len && runs < 100_000 {
        let run = disk
            .run_at(at)
            .unwrap_or_else(|e| panic!("run_at({at}): {e}"));
        assert!(run.len > 0, "empty run at {at}");
        assert!(at + run.len <= len, "run at {at} reaches past the end");
        if run.kind != RunKind::Data {
            let n = run.len.min(1 << 20);
            for from in [at, at + run.len - n] {
                let mut buf = vec![0xff; n as usize];
                disk.read_exact_at(&mut buf, from)
                    .unwrap_or_else(|e| panic!("zero run at {from}: {e}"));
                assert!(is_zero(&buf), "a zero run at {from} has other bytes");
            }
        }
        at += run.len;
        runs += 1;
    }

    std::thread::scope(|scope| {
        for t in 0..4u64 {
            scope.spawn(move || {
                for i in 0..16u64 {
                    let n = len.min(5000);
                    let from = (len - n).min((t * 7919 + i * 104_729) % len.max(1));
                    disk.read_exact_at(&mut vec![0; n as usize], from)
                        .unwrap_or_else(|e| panic!("concurrent read at {from}: {e}"));
                }
            });
        }
    });
}
