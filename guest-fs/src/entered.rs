//! The directories that a walk has entered: each once.
//!
//! None of the file systems that are read gives a directory a second name. Where one is met
//! again that is damage, or meant to be without end: 25 directories, each with two names for
//! the next, have 2^25 paths. Memory is some 60 bytes a directory, and its name.

use disk_io::{DiskError, Result};
use std::{cmp::Ordering, collections::HashMap};

use crate::Name;

/// Directories in each other that are followed.
pub const DEEPEST: usize = 512;

/// The directories of one walk, by [`FileSystem::directory`](crate::FileSystem::directory) or
/// what a tree of several volumes has in its place.
#[derive(Debug, Default)]
pub struct Entered {
    /// Where each is in `places`.
    numbers: HashMap<u64, u32>,
    places: Vec<Place>,
    /// Those that are being listed, the outermost first.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Place {
    /// The one that it was met in; of the first, itself.
    above: u32,
    /// The path from there; of the first, all of it.
    path: Box<[u8]>,
}

#[derive(Debug)]
struct Open {
    directory: u64,
    number: u32,
    /// Length of its path.
    len: usize,
}

impl Entered {
    /// Enters a directory that lies in the one that was entered last and not left.
    ///
    /// # Errors
    /// It was entered before, whether it is being listed now or under another name, or lies
    /// more than [`DEEPEST`] levels down. It must not be left then.
    pub fn enter(&mut self, directory: u64, path: &[u8]) -> Result<()> {
        if self.open.len() >= DEEPEST {
            return Err(DiskError::refused("entering the directory")
                .expected(format!("a tree of at most {DEEPEST} levels"))
                .found("a deeper one"));
        }
        let corrupt = || DiskError::corrupt("entering the directory");
        if let Some(number) = self.numbers.get(&directory) {
            let first = self.path(*number);
            return Err(match self.open.iter().any(|o| o.number == *number) {
                true => corrupt()
                    .expected("a tree without loops")
                    .found(format!("{first}, which it lies in")),
                false => corrupt()
                    .expected("a directory that has one name")
                    .found(format!("{first}, which was entered already"))
                    .hint("what is in it is there; by itself it can be asked for by either name"),
            });
        }
        // There are no 2^32 directories in memory.
        let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let (above, from) = match self.open.last() {
            Some(last) => (last.number, last.len),
            None => (number, 0),
        };
        let below = path.get(from..).unwrap_or(path);
        self.places.push(Place {
            above,
            path: below.into(),
        });
        self.numbers.insert(directory, number);
        self.open.push(Open {
            directory,
            number,
            len: path.len(),
        });
        Ok(())
    }

    /// Leaves the directory that was entered last.
    pub fn leave(&mut self) {
        self.open.pop();
    }

    /// Leaves it, where nothing of it could be listed: another name may lead to it rightly.
    pub fn leave_unlisted(&mut self) {
        if let Some(last) = self.open.pop() {
            self.numbers.remove(&last.directory);
        }
    }

    /// The path that a directory was entered by.
    fn path(&self, number: u32) -> Name {
        let mut parts = Vec::new();
        let mut at = number;
        while let Some(place) = self.places.get(at as usize) {
            parts.push(&place.path[..]);
            // Each lies in one that was entered before it.
            match place.above.cmp(&at) {
                Ordering::Less => at = place.above,
                _ => break,
            }
        }
        parts.reverse();
        Name::from_bytes(parts.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_and_by_which_path() {
        let mut entered = Entered::default();
        entered.enter(1, b"/").unwrap();
        entered.enter(2, b"/p1").unwrap();
        entered.enter(3, b"/p1/a").unwrap();
        let e = entered.enter(2, b"/p1/a/up").unwrap_err().to_string();
        assert!(e.contains("without loops") && e.contains("/p1,"), "{e}");
        entered.enter(4, b"/p1/a/b").unwrap();
        entered.leave();
        entered.leave();
        let e = entered.enter(4, b"/p1/c").unwrap_err().to_string();
        assert!(e.contains("one name") && e.contains("/p1/a/b,"), "{e}");
        // Not each level needs to be entered.
        entered.enter(5, b"/p1/not/entered").unwrap();
        entered.leave();
        let e = entered.enter(5, b"/p1/d").unwrap_err().to_string();
        assert!(e.contains("/p1/not/entered,"), "{e}");
        entered.leave();
        entered.leave();
        assert!(entered.open.is_empty());
    }

    #[test]
    fn what_could_not_be_listed_may_be_met_again() {
        let mut entered = Entered::default();
        entered.enter(1, b"/p1").unwrap();
        entered.enter(2, b"/p1/stale").unwrap();
        entered.leave_unlisted();
        entered.enter(2, b"/p1/right").unwrap();
        entered.leave();
        let e = entered.enter(2, b"/p1/again").unwrap_err().to_string();
        assert!(e.contains("/p1/right,"), "{e}");
    }

    #[test]
    fn not_too_deep() {
        let mut entered = Entered::default();
        for n in 0..DEEPEST as u64 {
            entered.enter(n, b"/").unwrap();
        }
        let e = entered.enter(1 << 20, b"/").unwrap_err();
        assert_eq!(e.kind(), disk_io::ErrorKind::Refused);
        entered.leave();
        entered.enter(1 << 20, b"/").unwrap();
    }
}
