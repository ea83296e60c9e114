use super::*;
use crate::digest::{Hash, sha256};
use crate::{Discard, NoProgress, RawFile, Stream};
use disk_io::{
    MemDisk, SparseMemDisk,
    faults::{FailAfter, FailRange},
};
use proptest::prelude::*;
use std::{fs, io::Write, os::unix::fs::MetadataExt, sync::Arc};

fn options(workers: usize, digest: DigestKind, sparse: Sparse) -> CopyOptions {
    CopyOptions {
        workers,
        digest,
        sparse,
    }
}

/// The digest, the slow and obvious way.
fn digest_of(bytes: &[u8]) -> Hash {
    let mut all = Vec::from((bytes.len() as u64).to_le_bytes());
    for unit in bytes.chunks(UNIT as usize) {
        all.extend(sha256(unit));
    }
    sha256(&all)
}

fn through_a_file(disk: &dyn Disk, options: CopyOptions) -> (Vec<u8>, Copied, u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let file = fs::File::create_new(&path).unwrap();
    let target = RawFile::new(&file, &path, disk.len()).unwrap();
    let copied = copy(disk, &target, options, &NoProgress).unwrap();
    let blocks = fs::metadata(&path).unwrap().blocks();
    (fs::read(&path).unwrap(), copied, blocks * 512)
}

fn check(disk: &dyn Disk, bytes: &[u8]) {
    for workers in [1, 3] {
        for sparse in [Sparse::Auto, Sparse::Always, Sparse::Never] {
            let (out, copied, _) =
                through_a_file(disk, options(workers, DigestKind::Vmdkit, sparse));
            assert!(out == bytes, "{workers} workers, {sparse:?}");
            assert_eq!(copied.digest.unwrap().hash, digest_of(bytes));
            assert_eq!(copied.written + copied.zeros, bytes.len() as u64);
            if sparse == Sparse::Never {
                assert_eq!(copied.zeros, 0);
            }
        }
        let flat = options(workers, DigestKind::Sha256, Sparse::Always);
        let (out, copied, _) = through_a_file(disk, flat);
        assert!(out == bytes);
        assert_eq!(copied.digest.unwrap().hash, sha256(bytes));
        let mut streamed = Vec::new();
        copy(disk, &Stream::new(&mut streamed, "s"), flat, &NoProgress).unwrap();
        assert!(streamed == bytes, "{workers} workers, streamed");
        let none = options(workers, DigestKind::None, Sparse::Always);
        let copied = copy(disk, &Discard, none, &NoProgress).unwrap();
        assert_eq!(copied.digest, None);
    }
}

#[test]
fn odd_lengths() {
    for len in [
        0,
        1,
        511,
        512,
        4095,
        4097,
        UNIT - 1,
        UNIT,
        UNIT + 1,
        5 * UNIT + 512,
    ] {
        let bytes: Vec<u8> = (0..len).map(|i| (i / 4096 % 5) as u8).collect();
        check(&MemDisk::new(bytes.clone()), &bytes);
        check(&MemDisk::sparse(bytes.clone()), &bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_sparse_disks(
        len in 1u64..6 * UNIT,
        pieces in prop::collection::vec((0u64..6 * UNIT, 1usize..300_000, any::<u8>()), 0..12),
    ) {
        let mut disk = SparseMemDisk::new(len);
        let mut bytes = vec![0; len as usize];
        for (at, n, value) in pieces {
            let at = at % len;
            let n = n.min((len - at) as usize);
            disk.put(at, &vec![value; n]);
            bytes[at as usize..at as usize + n].fill(value);
        }
        check(&disk, &bytes);
    }
}

#[test]
fn zeros_inside_data_become_holes() {
    let mut bytes = vec![0; 8 * UNIT as usize];
    bytes[5 * UNIT as usize + 10_000] = 1;
    let disk = MemDisk::new(bytes.clone());
    let all = options(2, DigestKind::Vmdkit, Sparse::Always);
    let (out, copied, on_disk) = through_a_file(&disk, all);
    assert!(out == bytes);
    assert_eq!(copied.written, 4096);
    assert!(on_disk <= 64 << 10, "{on_disk} bytes allocated");
}

#[test]
fn a_mostly_empty_disk_of_2_tib_takes_no_time() {
    let mut disk = SparseMemDisk::new(2 << 40);
    disk.put((1 << 40) + 5, b"here");
    let begin = std::time::Instant::now();
    let copied = copy(&disk, &Discard, CopyOptions::default(), &NoProgress).unwrap();
    assert_eq!(copied.written, 4);
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}

#[test]
fn the_first_bad_byte_is_named() {
    let good = Arc::new(MemDisk::new(vec![1; 9 * UNIT as usize]));
    let disk = FailRange::new(good.clone(), 3 * UNIT + 77..3 * UNIT + 78);
    for digest in [DigestKind::Vmdkit, DigestKind::Sha256] {
        let e = copy(
            &disk,
            &Discard,
            options(4, digest, Sparse::Always),
            &NoProgress,
        )
        .unwrap_err();
        assert_eq!(e.at(), Some(3 * UNIT + 77), "{e}");
    }
    for n in 0..12 {
        let disk = FailAfter::new(good.clone(), n);
        copy(&disk, &Discard, CopyOptions::default(), &NoProgress).unwrap_err();
        let out = Stream::new(Vec::new(), "s");
        let disk = FailAfter::new(good.clone(), n);
        copy(&disk, &out, CopyOptions::default(), &NoProgress).unwrap_err();
    }
}

/// A pipe whose reader goes away.
struct Closes(usize);

impl Write for Closes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_target_that_fails_stops_every_worker() {
    let disk = MemDisk::new(vec![1; 40 * UNIT as usize]);
    for room in [0, UNIT as usize, 7 * UNIT as usize] {
        let target = Stream::new(Closes(room), "pipe");
        let e = copy(&disk, &target, CopyOptions::default(), &NoProgress).unwrap_err();
        assert_eq!(e.offset(u64::MAX).at(), Some(room as u64));
    }
}

struct StopAfter(AtomicU64);

impl Progress for StopAfter {
    fn advance(&self, bytes: u64) {
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(old.saturating_sub(bytes), Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn a_wish_to_stop_is_an_error_of_its_own() {
    let disk = MemDisk::new(vec![1; 20 * UNIT as usize]);
    for digest in [DigestKind::Vmdkit, DigestKind::Sha256] {
        let stop = StopAfter(AtomicU64::new(3 * UNIT));
        let e = copy(&disk, &Discard, options(2, digest, Sparse::Always), &stop).unwrap_err();
        assert!(is_cancelled(&e), "{e}");
    }
}

/// Zeros, whose first run `first` is called for.
struct Odd<F>(u64, F);

impl<F> std::fmt::Debug for Odd<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Odd({})", self.0)
    }
}

impl<F: Fn(u64) + Send + Sync> Disk for Odd<F> {
    fn len(&self) -> u64 {
        self.0
    }
    fn read_exact_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn run_at(&self, offset: u64) -> Result<disk_io::Run> {
        (self.1)(offset);
        Ok(disk_io::Run {
            len: self.0 - offset,
            kind: disk_io::RunKind::Zero,
        })
    }
}

/// A target that panics.
#[derive(Debug)]
struct Bad(bool);

impl Target for Bad {
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> Result<()> {
        panic!("a test's own panic")
    }
    fn zero_at(&self, _offset: u64, _len: u64) -> Result<()> {
        panic!("a test's own panic")
    }
    fn in_order(&self) -> bool {
        self.0
    }
}

#[test]
fn a_panic_is_an_error_and_no_hang() {
    let (done, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let bad = Odd(200 * UNIT, |at| {
            assert!(at != 50 * UNIT, "a test's own panic")
        });
        let good = SparseMemDisk::new(200 * UNIT);
        for workers in [1, 3] {
            for digest in [DigestKind::Vmdkit, DigestKind::Sha256, DigestKind::None] {
                let how = options(workers, digest, Sparse::Always);
                for result in [
                    copy(&bad, &Discard, how, &NoProgress),
                    copy(&bad, &Stream::new(std::io::sink(), "s"), how, &NoProgress),
                    copy(&good, &Bad(false), how, &NoProgress),
                    copy(&good, &Bad(true), how, &NoProgress),
                ] {
                    let _ = done.send(result);
                }
            }
        }
    });
    for _ in 0..24 {
        let result = came.recv_timeout(std::time::Duration::from_secs(60));
        let e = result.expect("it hangs").unwrap_err();
        assert!(e.to_string().contains("panicked"), "{e}");
    }
}

/// Counts what comes.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    zeros: AtomicU64,
}

impl Target for Counts {
    fn write_at(&self, bytes: &[u8], _offset: u64) -> Result<()> {
        self.written
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
    fn zero_at(&self, _offset: u64, len: u64) -> Result<()> {
        self.zeros.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn every_digest_gives_the_target_every_byte() {
    let disk = SparseMemDisk::new(3 * UNIT + 5);
    for digest in [DigestKind::Vmdkit, DigestKind::Sha256, DigestKind::None] {
        for (sparse, data) in [(Sparse::Always, 0), (Sparse::Never, disk.len())] {
            let target = Counts::default();
            let copied = copy(&disk, &target, options(2, digest, sparse), &NoProgress).unwrap();
            assert_eq!(copied.written, data, "{digest:?} {sparse:?}");
            assert_eq!(target.written.into_inner(), data, "{digest:?} {sparse:?}");
            assert_eq!(target.zeros.into_inner(), disk.len() - data);
        }
    }
}

#[test]
fn a_slow_worker_is_not_left_far_behind() {
    let pieces = 3 * AHEAD;
    let seen = Arc::new(AtomicU64::new(0));
    let (far, most) = (seen.clone(), Arc::new(AtomicU64::new(0)));
    let most_seen = most.clone();
    // The first piece takes until the others have come to rest.
    let disk = Odd(pieces * UNIT, move |at| {
        far.fetch_max(at / UNIT, Ordering::Relaxed);
        if at == 0 {
            let mut last = u64::MAX;
            while std::mem::replace(&mut last, far.load(Ordering::Relaxed)) != last {
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
            most_seen.store(last, Ordering::Relaxed);
        }
    });
    let how = options(2, DigestKind::Vmdkit, Sparse::Always);
    copy(&disk, &Discard, how, &NoProgress).unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!(most < AHEAD + BATCH, "{most} pieces ahead");
    assert_eq!(seen.load(Ordering::Relaxed), pieces - 1);
}
