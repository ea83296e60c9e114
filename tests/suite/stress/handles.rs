//! Thousands of open files, and readers that are killed: what was held for them is given back.

use super::{Guest, Luck, NAMES, held, leave, name, reader, times, told, until, within};
use std::{
    ffi::OsStr,
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Files that are open at once.
const OPEN: usize = 4_000;
/// Bytes by which a server's memory may differ: what is kept of directories and tables.
const SLACK: u64 = 12 << 20;

/// Lets this process have that many files open; skips if it may not.
fn raise_limit() -> bool {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = OPEN as u64 + 1000;
    if limit.current.is_some_and(|n| n < wanted) {
        limit.current = Some(wanted);
        // Root may raise what it may be raised to.
        limit.maximum = limit.maximum.map(|n| n.max(wanted));
        if setrlimit(Resource::Nofile, limit).is_err() {
            tests::say!("skipped: no more than {:?} open files", limit.maximum);
            return false;
        }
    }
    true
}

/// Opens all, reads the beginning of each, and closes them in random order.
fn open_all(files: &[(PathBuf, Vec<u8>)], seed: usize) {
    let mut luck = Luck::new(seed);
    let mut open: Vec<(File, &[u8])> = files
        .iter()
        .map(|(path, begin)| (File::open(path).unwrap(), begin.as_slice()))
        .collect();
    assert_eq!(open.len(), OPEN);
    while !open.is_empty() {
        let (file, begin) = open.swap_remove(luck.below(open.len()));
        let mut buffer = vec![0; begin.len()];
        file.read_exact_at(&mut buffer, 0).unwrap();
        assert!(buffer == begin);
    }
}

#[test]
fn thousands_of_open_files_leave_nothing_behind() {
    let Some(guest) = Guest::new(true).filter(|_| raise_limit()) else {
        return;
    };
    guest.convert("monolithicSparse", "disk.vmdk");
    // One handle of most files, and many of a large one.
    let large = (guest.at("large-1"), guest.files["large-1"][..9001].to_vec());
    let small = (0..OPEN - 200).map(|n| (guest.at(&name(n)), name(n).into_bytes()));
    let files: Vec<_> = small.chain(std::iter::repeat_n(large, 200)).collect();
    let files = Arc::new(files);
    for options in [&[][..], &["--direct-io"]] {
        let mount = guest.mount("disk.vmdk", options);
        let before = held(&mount).0;
        let mut after = Vec::new();
        for round in 0..3 * times() {
            let files = files.clone();
            within(20, move || open_all(&files, round));
            after.push(held(&mount));
        }
        println!("before: {before} descriptors; after each round: {after:?}");
        let (first, last) = (after[0], after[after.len() - 1]);
        assert!(last.0 <= before + 8, "descriptors: {before}, {after:?}");
        assert!(last.1 <= first.1 + SLACK, "memory: {after:?}");
        told("open files", &[("files opened", OPEN * after.len())]);
        leave(mount);
    }
}

/// Directories that are open keep a window of their names each, and give it back.
#[test]
fn open_directories_give_their_names_back() {
    let Some(guest) = Guest::new(true) else {
        return;
    };
    let mount = guest.mount("disk.raw", &[]);
    let mut after = Vec::new();
    for _ in 0..3 * times() {
        let at = guest.at("many");
        within(20, move || {
            let mut open = Vec::new();
            for _ in 0..100 {
                // The first few names, so that the listing is never complete in the kernel.
                let mut dir = std::fs::read_dir(&at).unwrap();
                assert!(dir.by_ref().take(3).all(|e| e.is_ok()));
                open.push(dir);
            }
            for dir in open {
                assert_eq!(dir.filter(|e| e.is_ok()).count(), NAMES - 3);
            }
        });
        after.push(held(&mount));
    }
    println!("descriptors and bytes after each round: {after:?}");
    assert!(after[after.len() - 1].1 <= after[0].1 + SLACK, "{after:?}");
    told(
        "open directories",
        &[("directories listed", 100 * after.len())],
    );
    leave(mount);
}

#[test]
fn readers_that_are_killed_leave_nothing_behind() {
    let Some(guest) = Guest::new(true) else {
        return;
    };
    guest.convert("streamOptimized", "disk.vmdk");
    // Every read is asked of the server: a killed one has something under way there.
    let mount = guest.mount("disk.vmdk", &["--direct-io"]);
    let (large, many) = (guest.at("large-2"), guest.at("many"));
    let again: Vec<&OsStr> = std::iter::repeat_n(large.as_os_str(), 2000).collect();
    let lists: Vec<&OsStr> = std::iter::once("-lR".as_ref())
        .chain(std::iter::repeat_n(many.as_os_str(), 200))
        .collect();
    let mut luck = Luck::new(5);
    let mut first = (0, 0);
    let kills = 50 * times();
    for n in 0..kills {
        let mut readers: Vec<_> = (0..3)
            .map(|k| match (n + k) % 3 {
                0 => reader("ls", &lists),
                _ => reader("cat", &again),
            })
            .map(|mut command| command.spawn().unwrap())
            .collect();
        std::thread::sleep(Duration::from_micros(luck.below(60_000) as u64));
        for reader in &mut readers {
            assert!(reader.try_wait().unwrap().is_none(), "it ended by itself");
            reader.kill().unwrap();
        }
        let killed = Instant::now();
        within(10, move || {
            for mut reader in readers {
                reader.wait().unwrap();
            }
        });
        assert!(killed.elapsed() < Duration::from_secs(5), "it did not die");
        if n == 9 {
            first = held(&mount);
        }
    }
    guest.check();
    let mut last = held(&mount);
    until(10, "descriptors are left", || {
        last = held(&mount);
        last.0 <= first.0 + 4
    });
    println!("after 10 rounds of three: {first:?}, after {kills}: {last:?}");
    assert!(last.1 <= first.1 + SLACK, "memory: {first:?} {last:?}");
    told("readers that are killed", &[("readers killed", 3 * kills)]);
    // Were a file open, this would be refused.
    leave(mount);
}
