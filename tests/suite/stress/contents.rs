//! Reads at random places in every way there is, over ends of files and over holes.

use super::{Guest, Luck, drop_pages, leave, open_direct, reader, times, told, within};
use std::{
    fs::File,
    io::IoSliceMut,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tests::tools;

const THREADS: usize = 8;

/// What must be read at an offset with room for `len`.
fn expected(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    let from = at.min(bytes.len());
    &bytes[from..bytes.len().min(from + len)]
}

/// An offset: mostly inside, often near the end, now and then past it.
fn place(luck: &mut Luck, len: usize) -> usize {
    match luck.below(8) {
        0 => len.saturating_sub(luck.below(5000)),
        1 => len + luck.below(10_000),
        _ => luck.below(len.max(1)),
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], at: usize) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match file
            .read_at(&mut buffer[done..], (at + done) as u64)
            .unwrap()
        {
            0 => break,
            n => done += n,
        }
    }
    done
}

fn pread(file: &File, bytes: &[u8], luck: &mut Luck) -> usize {
    let at = place(luck, bytes.len());
    let mut buffer = vec![0xa5; 1 + luck.below(300_000)];
    let n = fill(file, &mut buffer, at);
    let right = expected(bytes, at, buffer.len());
    assert!(buffer[..n] == *right, "{n} bytes at {at}");
    // What lies behind the end is left as it was.
    assert!(buffer[n..].iter().all(|b| *b == 0xa5), "past the end");
    n
}

fn readv(file: &File, bytes: &[u8], luck: &mut Luck) -> usize {
    let at = place(luck, bytes.len());
    let mut parts: Vec<Vec<u8>> = (0..1 + luck.below(9))
        .map(|_| vec![0xa5; luck.below(20_000)])
        .collect();
    let mut slices: Vec<_> = parts.iter_mut().map(|p| IoSliceMut::new(p)).collect();
    let n = rustix::io::preadv(file, &mut slices, at as u64).unwrap();
    let all = parts.concat();
    // It may stop early, but not at nothing before the end.
    let right = expected(bytes, at, all.len());
    assert!(n <= right.len() && (n > 0 || right.is_empty()));
    assert!(all[..n] == right[..n], "{n} bytes at {at} in parts");
    n
}

/// Past the page cache, at offsets and with memory as that wants it.
fn direct(path: &Path, bytes: &[u8], luck: &mut Luck) -> usize {
    let (file, _) = open_direct(path);
    let at = place(luck, bytes.len()) & !4095;
    let len = (1 + luck.below(70)) * 4096;
    let mut buffer = vec![0xa5; len + 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let buffer = &mut buffer[skip..skip + len];
    let n = file.read_at(buffer, at as u64).unwrap();
    let right = expected(bytes, at, len);
    assert!(n <= right.len() && (n > 0 || right.is_empty()));
    assert!(buffer[..n] == right[..n], "{n} bytes at {at}, directly");
    n
}

/// A file from front to back in odd steps, which is what is read ahead.
fn stream(file: &File, bytes: &[u8], luck: &mut Luck) -> usize {
    let mut buffer = vec![0; 1 + luck.below(400_000)];
    let mut at = 0;
    loop {
        let n = fill(file, &mut buffer, at);
        assert!(buffer[..n] == *expected(bytes, at, buffer.len()), "{at}");
        at += n;
        if n < buffer.len() {
            return at;
        }
    }
}

/// What is called a hole reads as zeros, and holes and data follow each other up to the end.
fn holes(file: &File, bytes: &[u8]) {
    use rustix::fs::{SeekFrom, seek};
    let mut at = 0u64;
    while at < bytes.len() as u64 {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => bytes.len() as u64,
            Err(e) => panic!("{e}"),
        };
        assert!(bytes[at as usize..data as usize].iter().all(|b| *b == 0));
        if data == bytes.len() as u64 {
            break;
        }
        at = seek(file, SeekFrom::Hole(data)).unwrap();
        assert!(at > data);
    }
}

/// One of the threads.
fn read_all_ways(files: &[(PathBuf, Arc<Vec<u8>>)], seed: usize, rounds: usize) -> usize {
    let mut luck = Luck::new(seed);
    let open: Vec<_> = files.iter().map(|f| File::open(&f.0).unwrap()).collect();
    let mut read = 0;
    for _ in 0..rounds {
        let n = luck.below(files.len());
        let (file, (path, bytes)) = (&open[n], &files[n]);
        read += match luck.below(12) {
            0..5 => pread(file, bytes, &mut luck),
            5..8 => readv(file, bytes, &mut luck),
            8 | 9 => direct(path, bytes, &mut luck),
            10 => stream(file, bytes, &mut luck),
            _ => {
                // Each descriptor has a position of its own, so this is not told to others.
                holes(&File::open(path).unwrap(), bytes);
                drop_pages(file);
                0
            }
        };
    }
    read
}

/// Two maps, of the mount's file and of one with what must be in it, compared at random places
/// and in the last, partial page.
const MAPPED: &str = "
import mmap, os, random, sys
luck = random.Random(int(sys.argv[1]))
for pair in range(int(sys.argv[2])):
    name = sys.argv[3 + luck.randrange(len(sys.argv) - 3)]
    right, shown = (open(os.path.join(d, name), 'rb') for d in ('files', 'mnt/p0'))
    right, shown = (mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) for f in (right, shown))
    assert len(right) == len(shown), name
    for _ in range(40):
        at = luck.randrange(len(right))
        end = at + luck.randrange(100000)
        assert right[at:end] == shown[at:end], (name, at, end)
    assert right[-4097:] == shown[-4097:], name
    if luck.randrange(4) == 0:
        shown.madvise(mmap.MADV_DONTNEED)
        assert right[:] == shown[:], name
";

fn mapped(guest: &Guest, seed: usize, rounds: usize) -> std::process::Child {
    // Nothing can be mapped of an empty file.
    let files = guest.files.iter().filter(|f| !f.1.is_empty());
    let names = files.map(|f| std::ffi::OsStr::new(f.0));
    let numbers = [seed.to_string(), rounds.to_string()];
    let mut args = vec!["-c".as_ref(), MAPPED.as_ref()];
    args.extend(numbers.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    args.extend(names);
    reader("python3", &args)
        .current_dir(guest.path(""))
        .stderr(std::process::Stdio::inherit())
        .spawn()
        .unwrap()
}

fn readers_of(guest: &Guest, image: &str, options: &[&str]) -> usize {
    let mount = guest.mount(image, options);
    let files = guest.some();
    let children = match tools::have(&["python3"]) {
        true => (0..2).map(|n| mapped(guest, n, 40 * times())).collect(),
        false => Vec::new(),
    };
    let read = within(40, move || {
        let rounds = 100 * times();
        let read = std::thread::scope(|scope| {
            let start = |n| {
                let files = &files;
                scope.spawn(move || read_all_ways(files, n, rounds))
            };
            let threads: Vec<_> = (0..THREADS).map(start).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        for mut child in children {
            assert!(child.wait().unwrap().success(), "a mapped file is wrong");
        }
        read
    });
    guest.check();
    leave(mount);
    assert_eq!(std::fs::read_to_string(guest.path("log")).unwrap(), "");
    read
}

#[test]
fn every_way_to_read_gives_what_is_there() {
    let Some(guest) = Guest::new(false) else {
        return;
    };
    guest.convert("streamOptimized", "stream.vmdk");
    guest.convert("monolithicSparse", "sparse.vmdk");
    let mut read = 0;
    for (image, options) in [
        ("disk.raw", &[][..]),
        ("stream.vmdk", &[]),
        ("stream.vmdk", &["--direct-io"]),
        ("sparse.vmdk", &["--direct-io"]),
    ] {
        read += readers_of(&guest, image, options);
    }
    told("reads in every way", &[("MiB compared", read >> 20)]);
}
