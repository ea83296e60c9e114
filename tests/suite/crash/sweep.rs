//! How much is tried.

/// What `VMDKIT_CRASH` says.
fn wanted() -> Option<u64> {
    let text = std::env::var("VMDKIT_CRASH").ok()?;
    let n = text.parse().unwrap_or(8);
    (n > 0).then_some(n)
}

/// Whether every operation and every way to fail is tried.
pub(super) fn is_deep() -> bool {
    wanted().is_some()
}

/// States by luck, for every operation.
pub(super) fn seeds() -> u64 {
    wanted().unwrap_or(2)
}

/// How operation `at` fails: with which error, and whether those behind it fail too.
pub(super) fn kinds(at: usize) -> Vec<(i32, bool)> {
    let all = [
        (libc::ENOSPC, true),
        (libc::EIO, false),
        (libc::ENOSPC, false),
        (libc::EIO, true),
    ];
    match is_deep() {
        true => all.to_vec(),
        false => vec![all[at % all.len()]],
    }
}

/// Operations that are made to fail.
pub(super) fn faults() -> usize {
    if is_deep() { usize::MAX } else { 18 }
}

/// States from which the same is run again.
pub(super) fn again() -> usize {
    match wanted() {
        Some(n) => usize::try_from(n).unwrap_or(1).saturating_mul(64),
        None => 6,
    }
}

/// At most so many of `0..len`: the first, the last, and an even spread between.
pub(super) fn spread(len: usize, most: usize) -> Vec<usize> {
    if len <= most {
        return (0..len).collect();
    }
    let edge = most / 3;
    let middle = len - 2 * edge;
    let some = most - 2 * edge;
    let mut all: Vec<usize> = (0..edge).collect();
    all.extend((0..some).map(|n| edge + n * middle / some));
    all.extend(len - edge..len);
    all
}
