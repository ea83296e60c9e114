//! An image that is cut short, and a server that is killed, while they are read.

use super::{Guest, Luck, drop_pages, held, is_gone, leave, until, within};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{mount::is_mount_point, tools};

/// Length of what is read at once, which is a block of the guest's.
const BLOCK: usize = 4096;

/// How reads went.
#[derive(Debug, Default)]
struct Told {
    right: usize,
    failed: usize,
}

impl Told {
    /// Reads a block: it is right, or fails with EIO, and never anything else.
    fn read(&mut self, file: &File, bytes: &[u8], block: usize) -> bool {
        let at = block * BLOCK;
        let right = &bytes[at..bytes.len().min(at + BLOCK)];
        let mut buffer = vec![0xa5; right.len()];
        match file.read_exact_at(&mut buffer, at as u64) {
            Ok(()) => {
                assert!(buffer == right, "wrong bytes at {at}");
                self.right += 1;
                true
            }
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EIO), "{e} at {at}");
                self.failed += 1;
                false
            }
        }
    }
}

type Files = Vec<(PathBuf, Arc<Vec<u8>>)>;

/// Reads blocks by luck until it is told to stop.
fn read_on(files: &[(PathBuf, Arc<Vec<u8>>)], seed: usize, stop: &AtomicBool) -> Told {
    let mut luck = Luck::new(seed);
    let mut told = Told::default();
    let open: Vec<_> = files.iter().map(|f| File::open(&f.0).unwrap()).collect();
    while !stop.load(Ordering::Relaxed) {
        let n = luck.below(files.len());
        let blocks = files[n].1.len().div_ceil(BLOCK).max(1);
        told.read(&open[n], &files[n].1, luck.below(blocks));
        drop_pages(&open[n]);
    }
    told
}

/// Cuts `image` while the first `most` files are read; then reads all of them, from descriptors
/// that were open before, and says how that went.
fn cut_while_read(files: Files, most: usize, image: &Path, len: u64) -> Told {
    let image = image.to_path_buf();
    within(30, move || {
        let open: Vec<_> = files.iter().map(|f| File::open(&f.0).unwrap()).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (files, stop) = (&files[..most.min(files.len())], &stop);
                scope.spawn(move || read_on(files, n, stop));
            }
            std::thread::sleep(Duration::from_millis(300));
            let file = File::options().write(true).open(&image).unwrap();
            file.set_len(len).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
        });
        let mut told = Told::default();
        for (file, (_, bytes)) in open.iter().zip(&files) {
            drop_pages(file);
            for block in 0..bytes.len().div_ceil(BLOCK) {
                told.read(file, bytes, block);
            }
        }
        told
    })
}

/// The log says which file, and not with a line for each read.
fn is_told(guest: &Guest, image: &str, told: &Told) {
    let log = fs::read_to_string(guest.path("log")).unwrap();
    assert!(log.contains(image), "{log}");
    assert!(log.contains("cut short"), "{log}");
    let lines = log.lines().count();
    println!("{image}: {told:?}, {lines} lines in the log");
    // For a file so many, however many reads fail, and the words that there are more.
    assert!(lines <= 101 * guest.files.len(), "{lines} lines");
    assert!(lines < 500 || log.contains("there are more errors"));
    fs::remove_file(guest.path("log")).unwrap();
}

#[test]
fn an_image_that_is_cut_short_while_it_is_read() {
    let Some(guest) = Guest::new(false) else {
        return;
    };
    guest.convert("streamOptimized", "stream.vmdk");
    guest.convert("monolithicFlat", "flat.vmdk");
    for (image, data, most, options) in [
        ("disk.raw", "disk.raw", 99, &["--direct-io"][..]),
        ("flat.vmdk", "flat-flat.vmdk", 99, &[]),
        // What was decompressed is kept, and still right: most of it is not read before.
        ("stream.vmdk", "stream.vmdk", 1, &["--direct-io"]),
    ] {
        let whole = fs::read(guest.path(data)).unwrap();
        // In the middle of what is stored, and of a block.
        let stored = whole.iter().rposition(|b| *b != 0).unwrap_or(0) as u64;
        let mount = guest.mount(image, options);
        let files = guest.some();
        let blocks: usize = files.iter().map(|f| f.1.len().div_ceil(BLOCK)).sum();
        let told = cut_while_read(files, most, &guest.path(data), stored / 2 - 77);
        assert_eq!(told.right + told.failed, blocks);
        super::told(
            "an image that is cut short",
            &[("blocks right", told.right), ("blocks EIO", told.failed)],
        );
        assert!(told.right > 100 && told.failed > 100, "{told:?}");
        leave(mount);
        is_told(&guest, data, &told);
        fs::write(guest.path(data), whole).unwrap();
    }
}

/// The disk itself as a file: what must fail is known to the block, and what is gone is no hole.
#[test]
fn what_is_cut_off_is_neither_zeros_nor_a_hole() {
    let Some(guest) = Guest::new(false) else {
        return;
    };
    let whole = Arc::new(fs::read(guest.path("disk.raw")).unwrap());
    let kept = 9 * (1 << 20) + 1234;
    let mount = guest.mount("disk.raw", &["--layout", "raw"]);
    let at = guest.path("mnt/disk.img");
    let disk = File::open(&at).unwrap();
    let told = cut_while_read(
        vec![(at.clone(), whole.clone())],
        1,
        &guest.path("disk.raw"),
        kept as u64,
    );
    let copy = guest.path("copy");
    let copied = {
        let to = copy.clone();
        within(20, move || {
            drop_pages(&disk);
            let mut told = Told::default();
            let mut luck = Luck::new(3);
            for block in (0..whole.len() / BLOCK).filter(|_| luck.below(8) == 0) {
                // The kernel asks for more than the block, and where that fails for the block.
                let right = told.read(&disk, &whole, block);
                assert_eq!(right, (block + 1) * BLOCK <= kept, "block {block}");
            }
            // The reader that looks for holes first, as cp does.
            use rustix::fs::{SeekFrom, seek};
            let first = (kept as u64).next_multiple_of(BLOCK as u64);
            assert_eq!(seek(&disk, SeekFrom::Data(first)), Ok(first));
            let mut cp = tools::command("cp");
            cp.args(["--sparse=auto", "--reflink=never"]);
            cp.arg(&at).arg(to).status().unwrap().success()
        })
    };
    assert!(!copied, "cp took what is gone for a hole");
    leave(mount);
    is_told(&guest, "disk.raw", &told);
}

/// Reads until there is an error, which it gives back.
fn read_to_the_end(files: &Files, seed: usize, read: &AtomicUsize) -> std::io::Error {
    let mut luck = Luck::new(seed);
    let open: Vec<_> = files.iter().map(|f| File::open(&f.0).unwrap()).collect();
    loop {
        let n = luck.below(files.len());
        let (path, bytes) = &files[n];
        let done = match seed % 3 {
            0 => fs::read(path).map(|all| assert!(all == **bytes)),
            1 => fs::symlink_metadata(path)
                .and_then(|_| fs::read_dir(path.parent().unwrap()).map(|d| d.count()))
                .map(|_| ()),
            _ => {
                let (at, end) = (luck.below(bytes.len() + 1), bytes.len());
                let mut buffer = vec![0; (end - at).min(100_000)];
                drop_pages(&open[n]);
                open[n]
                    .read_exact_at(&mut buffer, at as u64)
                    .map(|()| assert!(buffer == bytes[at..at + buffer.len()]))
            }
        };
        match done {
            Ok(()) => read.fetch_add(1, Ordering::Relaxed),
            Err(e) => return e,
        };
    }
}

#[test]
fn a_server_that_is_killed_leaves_no_reader_waiting_and_no_mount() {
    let Some(guest) = Guest::new(false) else {
        return;
    };
    guest.convert("streamOptimized", "disk.vmdk");
    let mut luck = Luck::new(8);
    let mut descriptors = Vec::new();
    for _ in 0..4 * super::times() {
        let mount = guest.mount("disk.vmdk", &["--direct-io"]);
        descriptors.push(held(&mount).0);
        let server = Pid::from_raw(mount.server_id() as i32).unwrap();
        let (files, after) = (guest.some(), luck.below(400) as u64);
        let at = mount.path().to_path_buf();
        // The kernel remembers this, and would still say so of a dead mount.
        assert!(fs::metadata(&at).unwrap().is_dir());
        let errors = within(20, move || {
            let read = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let start = |n| {
                    let (files, read) = (&files, &read);
                    scope.spawn(move || read_to_the_end(files, n, read))
                };
                let threads: Vec<_> = (0..9).map(start).collect();
                until(10, "nothing is read", || read.load(Ordering::Relaxed) > 20);
                std::thread::sleep(Duration::from_millis(after));
                kill_process(server, Signal::KILL).unwrap();
                let join = |t: std::thread::ScopedJoinHandle<_>| t.join().unwrap();
                threads.into_iter().map(join).collect::<Vec<_>>()
            })
        });
        for e in &errors {
            // Where the dead mount is away already, what is looked for by its path is not there.
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            assert!(is_gone(e) || missing, "{e}");
        }
        // Nobody unmounts it: it goes by itself.
        until(10, "a dead mount is left", || !is_mount_point(&at).unwrap());
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        mount.unmount().unwrap();
        // And the next is as if nothing had been.
        let mount = guest.mount("disk.vmdk", &[]);
        guest.check();
        leave(mount);
    }
    println!("descriptors at the start of each: {descriptors:?}");
    super::told(
        "a server that is killed",
        &[("servers killed", descriptors.len())],
    );
}
