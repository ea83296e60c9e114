//! Own read-ahead: one open file, read from front to back, is fetched ahead of the reader.
//!
//! The kernel's read-ahead through FUSE is small (128 KiB without root) and there is none
//! with direct I/O. Two things can be slow, and they are told apart by the clock of the
//! thread and the clock on the wall:
//!
//! * a source that waits (a cold disk) is told early what comes, and fetches it itself;
//! * one that computes (decompression) is read ahead by a few threads into a bounded
//!   number of buffers.
//!
//! What comes quickly is left alone: a copy through a buffer would only cost.

use disk_io::{Disk, Result};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once, PoisonError,
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
const ALL_PIECES: usize = 24;
/// Requests of a stream may overtake each other by this much.
const SLACK: u64 = 4 << 20;
/// Bytes read in sequence before anything is fetched ahead.
const WARM_UP: u64 = 512 << 10;
/// A thread that computes for longer than this over a MiB decodes: a copy out of the page
/// cache takes about 0.1 ms.
const DECODES: u64 = 450_000;
/// A source that takes longer than this for a MiB is worth telling what comes.
const WAITS: u64 = 450_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads that fetch, and how much they may hold. They end with the pool.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    threads: usize,
    started: Once,
    buffers: Arc<Buffers>,
}

/// Buffers that are in use, and those that can be used again.
#[derive(Debug, Default)]
struct Buffers {
    held: AtomicUsize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = lock(&self.free).pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut free = lock(&self.free);
        if free.len() < ALL_PIECES / 2 {
            free.push(buffer);
        }
    }
}

#[derive(Debug)]
struct Job {
    stream: Arc<Stream>,
    piece: u64,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Self {
        let (jobs, queue) = channel::<Job>();
        Self {
            jobs,
            queue: Arc::new(Mutex::new(queue)),
            threads: threads.max(1),
            started: Once::new(),
            buffers: Arc::default(),
        }
    }

    /// Threads are started by the first job, so that they are confined as what serves it is.
    fn start(&self) {
        self.started.call_once(|| {
            for n in 0..self.threads {
                let queue = self.queue.clone();
                // Without its threads the pool is idle and every read is direct.
                let _ = std::thread::Builder::new()
                    .name(format!("read-ahead-{n}"))
                    .spawn(move || work(&queue));
            }
        });
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.buffers.held.load(Ordering::Relaxed)
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
    buffers: Arc<Buffers>,
}

/// Nanoseconds for a MiB.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    thread: u64,
    wall: u64,
}

#[derive(Debug, Default)]
struct State {
    /// End of the furthest read of the run.
    frontier: u64,
    /// Bytes read in sequence so far.
    run: u64,
    /// What direct reads cost, averaged.
    cost: Cost,
    /// Requests that are being answered right now.
    busy: u32,
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
            buffers: pool.buffers.clone(),
        })
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Fills `buf` from `offset`; the range lies inside the file.
    pub(crate) fn read(self: &Arc<Self>, pool: &Pool, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let (fetch, tell) = self.begin(offset, end);
        if tell {
            self.disk.will_read(end, DEPTH * PIECE);
        }
        if fetch {
            self.want(pool, end);
        }
        let read = self.fill(buf, offset);
        self.finish();
        read
    }

    /// Notes a read, and says whether to fetch what comes after it and whether to tell the
    /// source of it.
    fn begin(&self, offset: u64, end: u64) -> (bool, bool) {
        let mut state = lock(&self.state);
        state.busy += 1;
        let near = offset.saturating_add(SLACK) >= state.frontier
            && offset <= state.frontier.saturating_add(SLACK);
        if !near {
            self.drop_pieces(&mut state, |_| true);
            state.run = 0;
            state.frontier = end;
            state.told = end;
            return (false, false);
        }
        state.run = state.run.saturating_add(end - offset);
        state.frontier = state.frontier.max(end);
        if state.run < WARM_UP {
            return (false, false);
        }
        // Where the kernel has several requests under way, they are decoded side by side
        // as it is.
        let fetch = state.cost.thread > DECODES && state.busy == 1;
        let tell = state.cost.wall > WAITS && state.told < end.saturating_add(DEPTH * PIECE / 2);
        if tell {
            state.told = end.saturating_add(DEPTH * PIECE);
        }
        (fetch, tell)
    }

    fn finish(&self) {
        let mut state = lock(&self.state);
        state.busy = state.busy.saturating_sub(1);
        // Pieces wholly behind the slowest reader of the run will not be asked for again.
        if !state.pieces.is_empty() {
            let behind = state.frontier.saturating_sub(SLACK) / PIECE;
            self.drop_pieces(&mut state, |piece| piece < behind);
        }
    }

    fn fill(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if lock(&self.state).pieces.is_empty() {
            return self.read_direct(buf, offset);
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
        Ok(())
    }

    fn read_direct(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (wall, thread) = (Instant::now(), thread_nanos());
        self.disk.read_exact_at(buf, offset)?;
        let thread = thread_nanos().saturating_sub(thread);
        let wall = u64::try_from(wall.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Small reads cost more for reasons of their own.
        if buf.len() >= 32 << 10 {
            let per_mib = |nanos: u64| nanos.saturating_mul(PIECE) / buf.len() as u64;
            let mean = |old: u64, new: u64| (old.saturating_mul(3)).saturating_add(new) / 4;
            let mut state = lock(&self.state);
            state.cost = Cost {
                thread: mean(state.cost.thread, per_mib(thread)),
                wall: mean(state.cost.wall, per_mib(wall)),
            };
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
            if self.buffers.held.fetch_add(1, Ordering::Relaxed) >= ALL_PIECES {
                self.buffers.held.fetch_sub(1, Ordering::Relaxed);
                break;
            }
            let job = Job {
                stream: self.clone(),
                piece,
            };
            state.pieces.insert(piece, Piece::Wanted);
            pool.start();
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
            // At most a piece, which fits.
            let mut bytes = self.buffers.take(n as usize);
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
        let mut dropped = 0;
        state.pieces.retain(|number, piece| {
            let goes = which(*number);
            if goes {
                dropped += 1;
                if let Piece::Ready(bytes) = piece {
                    self.buffers.give_back(std::mem::take(bytes));
                }
            }
            !goes
        });
        if dropped > 0 {
            self.buffers.held.fetch_sub(dropped, Ordering::Relaxed);
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

/// How long this thread has computed.
fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::{MemDisk, Run, faults::FailRange};

    /// Computes for 2 ms over a MiB: worth fetching ahead.
    #[derive(Debug)]
    struct Slow(Arc<dyn Disk>, AtomicUsize);

    impl Disk for Slow {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let begin = thread_nanos();
            while thread_nanos() - begin < buf.len() as u64 * 2 {
                std::hint::spin_loop();
            }
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
            largest = largest.max(pool.held());
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
        assert_eq!(pool.held(), 0);
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
        assert_eq!(pool.held(), 0);
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
