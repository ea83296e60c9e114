//! Own read-ahead: one open file, read from front to back, is fetched ahead of the reader.
//!
//! The kernel's read-ahead through FUSE is small (128 KiB without root) and there is none
//! with direct I/O. What must be decoded, or comes from a cold disk, is read ahead here by a
//! few threads into a bounded number of buffers. What comes quickly is left alone: a copy
//! through a buffer would only cost.

use disk_io::{Disk, Result};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Instant,
};

/// Length of a piece that is fetched at once.
const PIECE: u64 = 1 << 20;
/// Pieces ahead of one reader.
const DEPTH: u64 = 6;
/// Pieces of all readers together.
const ALL_PIECES: usize = 32;
/// Requests of a stream may overtake each other by this much.
const SLACK: u64 = 4 << 20;
/// Bytes read in sequence before anything is fetched ahead.
const WARM_UP: u64 = 512 << 10;
/// A source that gives a MiB in less time than this needs no help: 0.6 ms, 1.7 GB/s.
const QUICK_NANOS_PER_MIB: u64 = 600_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads that fetch, and how much they may hold. They end with the pool.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Sender<Job>,
    held: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Job {
    stream: Arc<Stream>,
    piece: u64,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..threads.max(1) {
            let queue = queue.clone();
            // Without its threads the pool is idle and every read is direct.
            let _ = std::thread::Builder::new()
                .name(format!("read-ahead-{n}"))
                .spawn(move || work(&queue));
        }
        Self {
            jobs,
            held: Arc::new(AtomicUsize::new(0)),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(job) = lock(queue).recv() else {
            return;
        };
        job.stream.fetch(job.piece);
    }
}

#[derive(Debug)]
enum Piece {
    Wanted,
    Ready(Vec<u8>),
    /// It could not be read: the reader asks itself and gets the error of its own range.
    Failed,
}

/// One open file.
#[derive(Debug)]
pub(crate) struct Stream {
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    arrived: Condvar,
    held: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    /// End of the furthest read of the run.
    frontier: u64,
    /// Bytes read in sequence so far.
    run: u64,
    /// Nanoseconds a MiB of direct reads, averaged.
    cost: u64,
    /// Where the source was last told of what comes.
    told: u64,
    pieces: BTreeMap<u64, Piece>,
    /// No more jobs: the file is closed.
    closed: bool,
}

impl Stream {
    pub(crate) fn new(disk: Arc<dyn Disk>, pool: &Pool) -> Arc<Self> {
        Arc::new(Self {
            disk,
            state: Mutex::default(),
            arrived: Condvar::new(),
            held: pool.held.clone(),
        })
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Fills `buf` from `offset`; the range lies inside the file.
    pub(crate) fn read(self: &Arc<Self>, pool: &Pool, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let (ahead, tell) = {
            let mut state = lock(&self.state);
            let near = offset.saturating_add(SLACK) >= state.frontier
                && offset <= state.frontier.saturating_add(SLACK);
            if near {
                state.run = state.run.saturating_add(buf.len() as u64);
                state.frontier = state.frontier.max(end);
            } else {
                self.drop_pieces(&mut state, |_| true);
                state.run = 0;
                state.frontier = end;
                state.told = end;
            }
            let slow = state.cost > QUICK_NANOS_PER_MIB;
            let ahead = state.run >= WARM_UP && slow;
            let tell = ahead && state.told < end.saturating_add(DEPTH * PIECE / 2);
            if tell {
                state.told = end.saturating_add(DEPTH * PIECE);
            }
            (ahead, tell)
        };
        if ahead {
            if tell {
                self.disk.will_read(end, DEPTH * PIECE);
            }
            self.want(pool, end);
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let piece = at / PIECE;
            let here = ((piece + 1) * PIECE - at).min(rest.len() as u64);
            // Less than a piece, which fits.
            let (now, later) = rest.split_at_mut(here as usize);
            if !self.take(piece, (at % PIECE) as usize, now) {
                self.read_direct(now, at)?;
            }
            rest = later;
            at += here;
        }
        // Pieces wholly behind the slowest reader of the run will not be asked for again.
        let mut state = lock(&self.state);
        if !state.pieces.is_empty() {
            let behind = state.frontier.saturating_sub(SLACK) / PIECE;
            self.drop_pieces(&mut state, |piece| piece < behind);
        }
        Ok(())
    }

    fn read_direct(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let begin = Instant::now();
        self.disk.read_exact_at(buf, offset)?;
        let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(cost) = nanos.saturating_mul(PIECE).checked_div(buf.len() as u64) {
            let mut state = lock(&self.state);
            state.cost = (state.cost.saturating_mul(3)).saturating_add(cost) / 4;
        }
        Ok(())
    }

    /// Orders the pieces from `from` on that nobody has ordered yet.
    fn want(self: &Arc<Self>, pool: &Pool, from: u64) {
        let len = self.disk.len();
        let first = from.div_ceil(PIECE);
        let mut state = lock(&self.state);
        for piece in first..first.saturating_add(DEPTH) {
            if piece.saturating_mul(PIECE) >= len || state.closed {
                break;
            }
            if state.pieces.contains_key(&piece) {
                continue;
            }
            if self.held.fetch_add(1, Ordering::Relaxed) >= ALL_PIECES {
                self.held.fetch_sub(1, Ordering::Relaxed);
                break;
            }
            let job = Job {
                stream: self.clone(),
                piece,
            };
            state.pieces.insert(piece, Piece::Wanted);
            if pool.jobs.send(job).is_err() {
                self.drop_pieces(&mut state, |p| p == piece);
                break;
            }
        }
    }

    /// Copies from a piece that was ordered, waiting for it if need be.
    fn take(&self, piece: u64, from: usize, out: &mut [u8]) -> bool {
        let mut state = lock(&self.state);
        loop {
            match state.pieces.get(&piece) {
                None | Some(Piece::Failed) => return false,
                Some(Piece::Ready(bytes)) => {
                    return match bytes.get(from..from + out.len()) {
                        Some(bytes) => {
                            out.copy_from_slice(bytes);
                            true
                        }
                        None => false,
                    };
                }
                Some(Piece::Wanted) => {
                    state = self
                        .arrived
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// In a thread of the pool: reads one piece.
    fn fetch(&self, piece: u64) {
        let start = piece * PIECE;
        let n = self.disk.len().saturating_sub(start).min(PIECE);
        let still_wanted = matches!(lock(&self.state).pieces.get(&piece), Some(Piece::Wanted));
        if !still_wanted {
            return;
        }
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut bytes = vec![0; n as usize];
            self.disk.read_exact_at(&mut bytes, start).map(|()| bytes)
        }));
        let mut state = lock(&self.state);
        if let Some(slot) = state.pieces.get_mut(&piece) {
            *slot = match read {
                Ok(Ok(bytes)) => Piece::Ready(bytes),
                _ => Piece::Failed,
            };
        }
        drop(state);
        self.arrived.notify_all();
    }

    fn drop_pieces(&self, state: &mut State, which: impl Fn(u64) -> bool) {
        let before = state.pieces.len();
        state.pieces.retain(|piece, _| !which(*piece));
        let dropped = before - state.pieces.len();
        self.held.fetch_sub(dropped, Ordering::Relaxed);
        if dropped > 0 {
            // A reader may wait for one that nobody fetches any more.
            self.arrived.notify_all();
        }
    }

    /// The file was closed: lets go of everything.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.drop_pieces(&mut state, |_| true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::{MemDisk, Run, faults::FailRange};
    use std::time::Duration;

    /// Slow enough to be worth fetching ahead.
    #[derive(Debug)]
    struct Slow(Arc<dyn Disk>, AtomicUsize);

    impl Disk for Slow {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(1 + buf.len() as u64 / 200));
            self.0.read_exact_at(buf, offset)
        }
        fn run_at(&self, offset: u64) -> Result<Run> {
            self.0.run_at(offset)
        }
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 4096 * 31 + i) as u8).collect()
    }

    #[test]
    fn sequential_reads_give_the_same_bytes_and_everything_back() {
        let expected = pattern(20 * PIECE as usize + 12_345);
        let disk = Arc::new(Slow(
            Arc::new(MemDisk::new(expected.clone())),
            AtomicUsize::new(0),
        ));
        let pool = Pool::new(3);
        let stream = Stream::new(disk.clone(), &pool);
        let mut at = 0;
        let mut buf = vec![0; 128 << 10];
        let mut largest = 0;
        while at < expected.len() {
            let n = buf.len().min(expected.len() - at);
            stream.read(&pool, &mut buf[..n], at as u64).unwrap();
            assert!(buf[..n] == expected[at..at + n], "at {at}");
            largest = largest.max(pool.held.load(Ordering::Relaxed));
            at += n;
        }
        assert!(largest > 0, "nothing was fetched ahead");
        assert!(largest <= ALL_PIECES);
        assert!(
            disk.1.load(Ordering::Relaxed) < 60,
            "pieces were not used: {} reads",
            disk.1.load(Ordering::Relaxed)
        );
        stream.close();
        assert_eq!(pool.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn random_and_concurrent_reads_are_right() {
        let expected = Arc::new(pattern(9 * PIECE as usize + 77));
        let disk = Arc::new(Slow(
            Arc::new(MemDisk::new(expected.to_vec())),
            AtomicUsize::new(0),
        ));
        let pool = Pool::new(2);
        let stream = Stream::new(disk, &pool);
        std::thread::scope(|scope| {
            for t in 0..4usize {
                let (stream, pool, expected) = (&stream, &pool, &expected);
                scope.spawn(move || {
                    let mut buf = vec![0; 300_000];
                    for i in 0..40usize {
                        let at = match t {
                            // Two readers from front to back, two all over the place.
                            0 | 1 => i * 240_000,
                            _ => (i * 7_919_777 + t * 104_729) % expected.len(),
                        };
                        let n = buf.len().min(expected.len().saturating_sub(at));
                        stream.read(pool, &mut buf[..n], at as u64).unwrap();
                        assert!(buf[..n] == expected[at..at + n]);
                    }
                });
            }
        });
        stream.close();
        assert_eq!(pool.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_bad_range_fails_only_the_reads_that_touch_it() {
        let expected = pattern(8 * PIECE as usize);
        let bad = 5 * PIECE + 4096..5 * PIECE + 8192;
        let disk = Arc::new(Slow(
            Arc::new(FailRange::new(
                Arc::new(MemDisk::new(expected.clone())),
                bad.clone(),
            )),
            AtomicUsize::new(0),
        ));
        let pool = Pool::new(2);
        let stream = Stream::new(disk, &pool);
        let mut buf = vec![0; 64 << 10];
        for at in (0..expected.len()).step_by(buf.len()) {
            let touches = (at as u64) < bad.end && at as u64 + buf.len() as u64 > bad.start;
            match stream.read(&pool, &mut buf, at as u64) {
                Ok(()) => {
                    assert!(!touches, "a bad read at {at} went through");
                    assert!(buf == expected[at..at + buf.len()]);
                }
                Err(e) => assert!(touches, "{at}: {e}"),
            }
        }
    }
}
