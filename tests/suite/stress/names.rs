//! Large directories with small buffers and from any position, and names that the kernel forgets
//! while they are looked up.

use super::{Guest, Luck, NAMES, forget, held, leave, name, times, told, within};
use rustix::fs::{RawDir, SeekFrom, seek};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    mem::MaybeUninit,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// A name of the directory, its inode, and the position behind it.
type Listed = (String, u64, u64);

/// Reads on from where `dir` stands, with a buffer of so many bytes, until there are so many names
/// and the buffer is used up.
fn list(dir: &File, buffer: usize, least: usize) -> Vec<Listed> {
    let mut buffer = vec![MaybeUninit::uninit(); buffer];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut out = Vec::new();
    while (out.len() < least || !entries.is_buffer_empty())
        && let Some(entry) = entries.next()
    {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        out.push((name, entry.ino(), entry.next_entry_cookie()));
    }
    out
}

fn rewind(dir: &File, position: u64) {
    assert_eq!(seek(dir, SeekFrom::Start(position)), Ok(position));
}

/// The names there must be, with `.` and `..`.
fn right() -> BTreeSet<String> {
    let names = (0..NAMES).map(|n| name(n).replacen("many/", "", 1));
    names.chain([".".into(), "..".into()]).collect()
}

fn each_once(listed: &[Listed]) {
    let names: BTreeSet<_> = listed.iter().map(|l| l.0.clone()).collect();
    assert_eq!(names.len(), listed.len(), "a name came twice");
    assert!(names == right());
}

/// Reads a directory in every way; `known` is an earlier listing of it.
fn read_about(at: &Path, known: &[Listed], seed: usize) {
    let mut luck = Luck::new(seed);
    // From positions that another descriptor, or another mount, gave, before anything is known.
    let jumper = File::open(at).unwrap();
    for _ in 0..20 {
        let n = luck.below(known.len());
        rewind(&jumper, known[n].2);
        let some = list(&jumper, 100 + luck.below(900), 1 + luck.below(60));
        assert!(some == known[n + 1..known.len().min(n + 1 + some.len())]);
        assert!(!some.is_empty() || n + 1 == known.len());
    }
    // Back to the beginning in the middle of it.
    let dir = File::open(at).unwrap();
    list(&dir, 200, 1 + luck.below(NAMES));
    rewind(&dir, 0);
    assert!(list(&dir, 64 + luck.below(5_000), usize::MAX) == known);
    assert!(list(&dir, 4096, 1).is_empty(), "more after the end");
    // Two that stand at different places.
    let two = [File::open(at).unwrap(), File::open(at).unwrap()];
    let mut seen = [Vec::new(), Vec::new()];
    loop {
        let which = luck.below(2);
        let some = list(&two[which], 64, 1);
        if some.is_empty() {
            break;
        }
        seen[which].extend(some);
    }
    for (dir, seen) in two.iter().zip(&mut seen) {
        seen.extend(list(dir, 1 << 15, usize::MAX));
        assert!(seen == known);
    }
}

/// Threads that share one descriptor get each name once between them.
fn share(at: &Path) {
    let dir = &File::open(at).unwrap();
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let start = |_| scope.spawn(move || list(dir, 300, usize::MAX));
        let threads: Vec<_> = (0..4).map(start).collect();
        for thread in threads {
            all.extend(thread.join().unwrap());
        }
    });
    each_once(&all);
}

#[test]
fn a_large_directory_from_any_position_in_any_pieces() {
    let Some(guest) = Guest::new(true) else {
        return;
    };
    let mut known = Vec::new();
    for options in [&[][..], &["--direct-io"]] {
        // A new mount: the kernel has no listing, and positions are what they were.
        let mount = guest.mount("disk.raw", options);
        let at = guest.at("many");
        let before = known.clone();
        known = within(30, move || {
            if !before.is_empty() {
                read_about(&at, &before, 99);
            }
            let dir = File::open(&at).unwrap();
            let known = list(&dir, 1 << 15, usize::MAX);
            assert!(before.is_empty() || before == known);
            each_once(&known);
            for buffer in [64, 96, 300, 1000, 4096, 1 << 20] {
                rewind(&dir, 0);
                assert!(list(&dir, buffer, usize::MAX) == known, "{buffer}");
            }
            for round in 0..times() {
                share(&at);
                std::thread::scope(|scope| {
                    for n in 0..4 {
                        let (at, known) = (&at, &known);
                        scope.spawn(move || read_about(at, known, round * 4 + n));
                    }
                });
            }
            known
        });
        leave(mount);
    }
}

/// Looks names up, opens and lists, until it is told to stop.
fn look_up(at: &Path, inodes: &BTreeMap<String, u64>, seed: usize, stop: &AtomicBool) -> usize {
    let mut luck = Luck::new(seed);
    let names: Vec<_> = inodes.keys().collect();
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        // The same few for all threads for a while, so that they meet.
        let from = luck.below(20) * 100;
        for _ in 0..50 {
            let name = names[from + luck.below(20)];
            let path = at.join(name);
            if luck.below(2) == 0 {
                assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inodes[name]);
            } else {
                assert_eq!(fs::read(&path).unwrap(), format!("many/{name}").as_bytes());
            }
            assert!(fs::symlink_metadata(at.join(format!("no {name}"))).is_err());
            asked += 2;
        }
        if seed % 4 == 3 {
            let dir = File::open(at).unwrap();
            let listed = list(&dir, 1 << 15, usize::MAX);
            assert_eq!(listed.len(), NAMES + 2);
            for (name, inode, _) in listed.iter().filter(|l| !l.0.starts_with('.')) {
                assert_eq!(inodes[name], *inode, "{name}");
            }
            asked += listed.len();
        }
    }
    asked
}

#[test]
fn names_that_are_forgotten_while_they_are_looked_up() {
    let Some(guest) = Guest::new(true) else {
        return;
    };
    let mount = guest.mount("disk.raw", &[]);
    let at: PathBuf = guest.at("many");
    let first = {
        let at = at.clone();
        within(20, move || {
            let of = |e: fs::DirEntry| {
                let inode = e.metadata().unwrap().ino();
                (e.file_name().into_string().unwrap(), inode)
            };
            fs::read_dir(at).unwrap().map(|e| of(e.unwrap())).collect()
        })
    };
    let inodes: Arc<BTreeMap<String, u64>> = Arc::new(first);
    let different: BTreeSet<_> = inodes.values().collect();
    assert_eq!((different.len(), inodes.len()), (NAMES, NAMES));
    let before = held(&mount);
    let (asked, forgot) = within(30, move || {
        let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut forgot = 0;
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (at, inodes, stop, asked) = (&at, &inodes, &stop, &asked);
                scope.spawn(move || {
                    let n = look_up(at, inodes, n, stop);
                    asked.fetch_add(n, Ordering::Relaxed);
                });
            }
            for _ in 0..40 * times() {
                std::thread::sleep(std::time::Duration::from_millis(50));
                forgot += usize::from(forget().is_ok());
            }
            stop.store(true, Ordering::Relaxed);
        });
        (asked.into_inner(), forgot)
    });
    told("names", &[("lookups", asked), ("times forgotten", forgot)]);
    if forgot == 0 {
        tests::say!("names were not forgotten: only root may ask for that");
    }
    guest.check();
    let after = held(&mount);
    assert!(after.0 <= before.0 + 4, "{before:?} {after:?}");
    assert!(after.1 <= before.1 + (24 << 20), "{before:?} {after:?}");
    leave(mount);
}
