//! Journals made by hand: where the log ends, and fast commits behind it.

use super::{
    super::{
        file::FileDisk,
        layout::{BlockNumber, FileBlock},
        mapping::BlockRun,
        sums::crc,
    },
    MAGIC, Outcome, replay,
};
use disk_io::{Disk, MemDisk};
use std::sync::Arc;

const BLOCK: usize = 1024;
/// Of the journal: 64 of them are for fast commits.
const BLOCKS: usize = 1088;
const FAST_COMMIT: u32 = 0x20;

struct Journal(Vec<u8>);

impl Journal {
    /// With a log that begins at `start`, with transaction `sequence`.
    fn new(start: u32, sequence: u32, incompat: u32) -> Self {
        let mut journal = Self(vec![0; BLOCK * BLOCKS]);
        let fields = [
            (0, MAGIC),
            (4, 4),
            (0xc, 1024),
            (0x10, 1088),
            (0x14, 1),
            (0x18, sequence),
            (0x1c, start),
            (0x28, incompat),
            (0x54, 64),
        ];
        for (at, value) in fields {
            journal.put(0, at, &value.to_be_bytes());
        }
        journal
    }

    fn put(&mut self, block: usize, at: usize, bytes: &[u8]) {
        self.0[block * BLOCK + at..][..bytes.len()].copy_from_slice(bytes);
    }

    fn header(&mut self, block: usize, kind: u32, sequence: u32) {
        for (at, value) in [(0, MAGIC), (4, kind), (8, sequence)] {
            self.put(block, at, &value.to_be_bytes());
        }
    }

    /// A transaction of one block of the volume in three blocks of the log.
    fn transaction(&mut self, at: [usize; 3], sequence: u32, target: u32, byte: u8) {
        let [descriptor, data, commit] = at;
        self.header(descriptor, 1, sequence);
        self.put(descriptor, 12, &target.to_be_bytes());
        // The last tag, and no UUID behind it.
        self.put(descriptor, 18, &[0, 0xa]);
        self.put(data, 0, &[byte; BLOCK]);
        self.header(commit, 2, sequence);
    }

    /// A fast commit of one change in a block of its own; gives its running sum.
    fn fast(&mut self, block: usize, sequence: u32, is_first: bool) {
        let mut bytes = Vec::new();
        if is_first {
            bytes.extend([9, 0, 8, 0, 0, 0, 0, 0]);
            bytes.extend(sequence.to_le_bytes());
        }
        bytes.extend([5, 0, 12, 0, 2, 0, 0, 0, 12, 0, 0, 0, b'n', b'a', b'm', b'e']);
        let len = (BLOCK - bytes.len() - 4) as u16;
        bytes.extend([8, 0]);
        bytes.extend(len.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        let sum = crc(0, &bytes);
        bytes.extend(sum.to_le_bytes());
        self.put(block, 0, &bytes);
    }

    fn replay(&self) -> Outcome {
        let volume: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![0; 64 * BLOCK]));
        let run = BlockRun {
            first: FileBlock(0),
            len: BLOCKS as u64,
            at: Some(BlockNumber(0)),
        };
        let journal = FileDisk {
            volume: Arc::new(MemDisk::new(self.0.clone())),
            runs: vec![run],
            size: (BLOCKS * BLOCK) as u64,
            block_size: BLOCK as u64,
            name: "the journal".into(),
        };
        replay(volume, journal, 1024).unwrap()
    }
}

fn byte_of(outcome: &Outcome, block: u64) -> u8 {
    let mut byte = [0];
    let at = block * BLOCK as u64;
    outcome.disk.read_exact_at(&mut byte, at).unwrap();
    byte[0]
}

#[test]
fn the_log_ends_before_the_fast_commits() {
    for (features, last) in [(FAST_COMMIT, 1023), (0, 1087)] {
        let mut journal = Journal::new(last as u32, 7, features);
        journal.transaction([last, 1, 2], 7, 20, 1);
        journal.transaction([3, 4, 5], 8, 21, 2);
        let outcome = journal.replay();
        assert_eq!(outcome.transactions, 2);
        assert_eq!((byte_of(&outcome, 20), byte_of(&outcome, 21)), (1, 2));
        assert_eq!(outcome.doubts, [""; 0]);
    }
}

#[test]
fn fast_commits_that_are_complete_are_told() {
    let told = |edit: &dyn Fn(&mut Journal)| {
        let mut journal = Journal::new(1, 7, FAST_COMMIT);
        journal.transaction([1, 2, 3], 7, 20, 1);
        edit(&mut journal);
        let outcome = journal.replay();
        assert_eq!(outcome.transactions, 1);
        outcome.doubts
    };
    let doubts = told(&|journal| {
        journal.fast(1025, 8, true);
        journal.fast(1026, 8, false);
    });
    assert!(doubts[0].contains("of 2 fast commits"), "{doubts:?}");
    // Behind a whole commit that has them, and one that was being written.
    assert_eq!(told(&|journal| journal.fast(1025, 7, true)), [""; 0]);
    let torn = told(&|journal| {
        journal.fast(1025, 8, true);
        journal.put(1025, 24, b"other");
    });
    assert_eq!(torn, [""; 0]);
}

#[test]
fn a_log_without_transactions_is_one_that_was_used_up() {
    let mut journal = Journal::new(4, 8, 0);
    journal.transaction([1, 2, 3], 7, 20, 1);
    let outcome = journal.replay();
    assert_eq!((outcome.transactions, outcome.doubts.len()), (0, 0));
    // Or one that cannot be read: its first transaction has another number.
    let mut journal = Journal::new(1, 8, 0);
    journal.transaction([1, 2, 3], 7, 20, 1);
    let doubts = journal.replay().doubts;
    assert!(doubts[0].contains("no complete transaction"), "{doubts:?}");
}
