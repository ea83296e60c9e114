//! Every input that found something once, and a moment of mutation for each target.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used
)]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use vmdkit_fuzz::{ALL, Target};

/// For each target; VMDKIT_FUZZ_MS says otherwise.
const MOMENT: u64 = 400;

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut files: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|f| fs::read(f).unwrap()).collect()
}

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// A new input: an old one changed, or operations out of nothing.
fn mutate(old: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = match old.is_empty() || chance.below(3) == 0 {
        true => vec![chance.next() as u8],
        false => old[chance.below(old.len())].clone(),
    };
    for _ in 0..=chance.below(4) {
        match chance.below(3) {
            0 if !input.is_empty() => {
                let at = chance.below(input.len());
                input[at] = chance.next() as u8;
            }
            1 if !input.is_empty() => {
                let at = chance.below(input.len());
                input.truncate(at);
            }
            _ => {
                // An operation: see `patch`.
                input.push(chance.next() as u8);
                input.extend((chance.next() as u32).to_le_bytes());
                let n = [1, 2, 4, 8, 40][chance.below(5)];
                input.push(n);
                let fill = [0, 0xff, chance.next() as u8][chance.below(3)];
                input.extend(std::iter::repeat_n(fill, usize::from(n)));
            }
        }
    }
    input
}

#[test]
fn nothing_breaks_a_rule() {
    let moment = std::env::var("VMDKIT_FUZZ_MS")
        .ok()
        .and_then(|ms| ms.parse().ok());
    let moment = Duration::from_millis(moment.unwrap_or(MOMENT));
    let only = std::env::var("VMDKIT_FUZZ").ok();
    // The same inputs every time: what fails in CI fails at home.
    for target in ALL
        .iter()
        .filter(|t| only.as_ref().is_none_or(|o| o == t.name))
    {
        let old = inputs(target);
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        let feed = |input: &[u8]| {
            let begun = Instant::now();
            let run = std::panic::catch_unwind(|| (target.run)(input));
            let took = begun.elapsed();
            if run.is_err() || took > Duration::from_secs(20) {
                let path = std::env::temp_dir().join(format!("vmdkit-fuzz-{}", target.name));
                fs::write(&path, input).unwrap();
                panic!("{}: {took:?}; the input is {}", target.name, path.display());
            }
        };
        feed(&[]);
        old.iter().for_each(|input| feed(input));
        let until = Instant::now() + moment;
        while Instant::now() < until {
            feed(&mutate(&old, &mut chance));
        }
    }
}

/// The sound images themselves are read without an error.
#[test]
fn bases_are_sound() {
    use vmdkit_fuzz::{bases, patch::Patched};
    for volumes in [bases::ntfs(), bases::fat(), bases::exfat(), bases::ext()] {
        for base in volumes {
            let disk: std::sync::Arc<dyn disk_io::Disk> = std::sync::Arc::new(Patched::sound(base));
            let options = guest_fs::OpenOptions::default();
            let fs = guest_fs::volume::open(&disk, &options).unwrap();
            let mut bad = 0;
            fs.check(&mut |_| bad += 1).unwrap();
            assert_eq!(bad, 0, "{:?}", fs.info());
        }
    }
    // Without changes every image opens: what is changed gets somewhere.
    for target in ALL {
        (target.run)(&[0]);
    }
    assert!(vmdkit_fuzz::images::opens(
        bases::cowd_descriptor(),
        &bases::cowd()[0]
    ));
    assert!(vmdkit_fuzz::images::opens(
        bases::sesparse_descriptor(),
        &bases::sesparse()[0]
    ));
    for base in bases::vmfs() {
        let disk: std::sync::Arc<dyn disk_io::Disk> = std::sync::Arc::new(Patched::sound(base));
        let options = vmfs_reader::OpenOptions::default();
        vmfs_reader::Volume::open(&[disk], &options).unwrap();
    }
}

/// Every reader on a source that fails at one operation after another.
#[test]
fn sources_that_fail() {
    use vmdkit_fuzz::faults::{Fault, READERS};
    for reader in READERS {
        for fault in [Fault::Passing, Fault::Lasting, Fault::Changing] {
            let survived = reader.torture(fault, 40, 10);
            println!("{} {fault:?}: {survived:?}", reader.name);
            assert!(survived.injected > 0);
            // Tables have copies, and other bytes in what nothing depends on change nothing.
            assert!(fault == Fault::Changing || survived.errors > 0);
        }
    }
}
