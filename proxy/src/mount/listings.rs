//! Windows of names that open directories are listed from, all of them under one budget.
//!
//! A window can always be read again, at the same positions: images do not change. So what is kept
//! costs nothing but time to lose, and thousands of directories can be open at once. When all
//! of the budget is in use, the windows that listings are going on in stay and a new one is not
//! kept: taking them in turns would have every listing read its directory again for each answer.

use crate::tree::{Entry, Node};
use disk_io::DiskError;
use guest_fs::NodeKind;
use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Bytes of all windows together.
const BUDGET: usize = 64 << 20;
/// Names of one window, and their bytes.
const MOST_NAMES: usize = 1 << 16;
const MOST_BYTES: usize = 4 << 20;
/// What a window takes beside its names.
const OVERHEAD: usize = 512;
/// A listing that nobody went on with for so long may lose its window to another.
const IDLE: Duration = Duration::from_secs(5);

/// Some names of a directory, from the `start`th on.
#[derive(Debug)]
pub(crate) struct Window {
    start: usize,
    items: Vec<Item>,
    /// The names, one behind the other.
    names: Vec<u8>,
    /// Whether the directory ends with this window.
    pub(crate) last: bool,
    /// Why some names are missing.
    pub(crate) lost: Option<DiskError>,
}

#[derive(Debug)]
struct Item {
    node: Node,
    kind: NodeKind,
    /// Where its name ends.
    end: u32,
}

/// One name of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) name: &'a OsStr,
    pub(crate) node: Node,
    pub(crate) kind: NodeKind,
}

impl Window {
    pub(crate) fn new(start: usize) -> Self {
        Self {
            start,
            items: Vec::new(),
            names: Vec::new(),
            last: true,
            lost: None,
        }
    }

    /// Takes one more name; `false` where it is full.
    pub(crate) fn push(&mut self, entry: &Entry) -> bool {
        let end = self.names.len() + entry.name.as_bytes().len();
        let full = !self.items.is_empty() && end > MOST_BYTES;
        if full || self.items.len() == MOST_NAMES {
            self.last = false;
            return false;
        }
        self.names.extend_from_slice(entry.name.as_bytes());
        self.items.push(Item {
            node: entry.node,
            kind: entry.kind,
            // At most the limit and one name more.
            end: end as u32,
        });
        true
    }

    /// Nothing more comes.
    pub(crate) fn finish(mut self) -> Self {
        self.items.shrink_to_fit();
        self.names.shrink_to_fit();
        self
    }

    /// Whether it tells what comes at a position: a name, or that the directory has ended.
    pub(crate) fn covers(&self, position: usize) -> bool {
        position >= self.start && (self.last || position < self.start + self.items.len())
    }

    /// The names from a position on that it covers.
    pub(crate) fn from(&self, position: usize) -> impl Iterator<Item = Listed<'_>> {
        let first = position.saturating_sub(self.start);
        let mut begin = match first.checked_sub(1).map(|before| self.items.get(before)) {
            Some(Some(item)) => item.end as usize,
            _ => 0,
        };
        self.items.iter().skip(first).map(move |item| {
            let name = self.names.get(begin..item.end as usize);
            begin = item.end as usize;
            Listed {
                name: OsStr::from_bytes(name.unwrap_or_default()),
                node: item.node,
                kind: item.kind,
            }
        })
    }

    fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>() + self.names.capacity() + OVERHEAD
    }
}

/// The windows that are kept.
#[derive(Debug)]
pub(crate) struct Listings {
    budget: usize,
    idle: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    windows: BTreeMap<(Node, usize), Held>,
    /// Their keys, the one longest unused first.
    order: BTreeMap<u64, (Node, usize)>,
    bytes: usize,
    uses: u64,
    /// How often each directory is open, and the lock of who reads it.
    open: HashMap<Node, (usize, Arc<Mutex<()>>)>,
}

#[derive(Debug)]
struct Held {
    window: Arc<Window>,
    /// Its key in the order.
    use_: u64,
    used: Instant,
}

impl Default for Listings {
    fn default() -> Self {
        Self::new(BUDGET, IDLE)
    }
}

impl Listings {
    pub(crate) fn new(budget: usize, idle: Duration) -> Self {
        Self {
            budget,
            idle,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory is opened. One thread at a time reads its names, under this lock; the others
    /// find what it kept.
    pub(crate) fn opened(&self, node: Node) -> Arc<Mutex<()>> {
        let mut kept = self.kept();
        let (count, lock) = kept.open.entry(node).or_default();
        *count += 1;
        lock.clone()
    }

    /// It is closed; the last time, its windows go.
    pub(crate) fn closed(&self, node: Node) {
        let kept = &mut *self.kept();
        match kept.open.get_mut(&node) {
            Some((count, _)) if *count > 1 => *count -= 1,
            _ => {
                kept.open.remove(&node);
                kept.drop_all(node);
            }
        }
    }

    /// The window that tells what comes at a position, if it is kept.
    pub(crate) fn get(&self, node: Node, position: usize) -> Option<Arc<Window>> {
        let kept = &mut *self.kept();
        let ahead = (node, 0)..=(node, position);
        let (key, held) = kept.windows.range_mut(ahead).next_back()?;
        if !held.window.covers(position) {
            return None;
        }
        kept.order.remove(&held.use_);
        kept.uses += 1;
        held.use_ = kept.uses;
        held.used = Instant::now();
        kept.order.insert(held.use_, *key);
        Some(held.window.clone())
    }

    /// Keeps a window if there is room, or can be made.
    pub(crate) fn keep(&self, node: Node, window: &Arc<Window>) {
        let kept = &mut *self.kept();
        let key = (node, window.start);
        let bytes = window.bytes();
        match kept.open.get(&node) {
            Some((count, _)) if *count > 1 => kept.drop_window(&key),
            // One reader has gone on: what came before is of no more use.
            _ => kept.drop_all(node),
        }
        while kept.bytes + bytes > self.budget {
            let Some((_, oldest)) = kept.order.first_key_value() else {
                return;
            };
            let oldest = *oldest;
            let held = kept.windows.get(&oldest);
            if held.is_some_and(|h| h.used.elapsed() < self.idle) {
                return;
            }
            kept.drop_window(&oldest);
        }
        kept.uses += 1;
        kept.bytes += bytes;
        kept.order.insert(kept.uses, key);
        kept.windows.insert(
            key,
            Held {
                window: window.clone(),
                use_: kept.uses,
                used: Instant::now(),
            },
        );
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let kept = self.kept();
        let all: usize = kept.windows.values().map(|h| h.window.bytes()).sum();
        assert_eq!(all, kept.bytes);
        assert_eq!(kept.windows.len(), kept.order.len());
        all
    }
}

impl Kept {
    fn drop_all(&mut self, node: Node) {
        let all = (node, 0)..=(node, usize::MAX);
        let keys: Vec<_> = self.windows.range(all).map(|(key, _)| *key).collect();
        for key in keys {
            self.drop_window(&key);
        }
    }

    fn drop_window(&mut self, key: &(Node, usize)) {
        if let Some(held) = self.windows.remove(key) {
            self.order.remove(&held.use_);
            self.bytes -= held.window.bytes();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::{
        mock::{MockFs, tree},
        mount::dir::{OpenDir, Step},
        tree::{Tree, TreeOptions},
    };
    use std::{collections::HashSet, ops::ControlFlow};

    /// `dirs` directories of `count` names each, and their nodes.
    fn large(dirs: usize, count: usize) -> (Tree, Vec<Node>) {
        let mut fs = MockFs::new();
        let mut nodes = Vec::new();
        for d in 0..dirs {
            let dir = fs.dir(0, format!("dir {d}"));
            for i in 0..count {
                fs.name(dir, &format!("directory {d}, name {i:06}"), dir);
            }
            nodes.push(format!("dir {d}"));
        }
        let tree = tree(vec![fs], TreeOptions::default());
        let volume = tree.lookup(tree.root(), &"p1".into()).unwrap().unwrap();
        let nodes = nodes
            .iter()
            .map(|name| {
                let name = name.as_str().into();
                tree.lookup(volume, &name).unwrap().unwrap()
            })
            .collect();
        (tree, nodes)
    }

    /// One answer: at most `most` names from a position on, and whether the end was reached.
    fn answer(dir: &OpenDir, tree: &Tree, at: usize, most: usize) -> (Vec<String>, bool) {
        let (mut names, mut ended) = (Vec::new(), false);
        dir.walk(tree, at, &mut |position, step| {
            assert_eq!(position, at + names.len());
            match step {
                Step::Entry(_) if names.len() == most => return ControlFlow::Break(()),
                Step::Entry(listed) => names.push(listed.name.to_str().unwrap().to_owned()),
                Step::End(lost) => {
                    assert!(lost.is_none());
                    ended = true;
                }
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        (names, ended)
    }

    /// Lists with all handles in turns, a piece each time; every listing is whole.
    fn in_turns(tree: &Tree, handles: &[OpenDir], count: usize, piece: usize, most: usize) {
        let mut at = vec![0; handles.len()];
        let mut seen = vec![HashSet::new(); handles.len()];
        let mut left = handles.len();
        while left > 0 {
            left = 0;
            for (n, handle) in handles.iter().enumerate() {
                let (names, ended) = answer(handle, tree, at[n], piece);
                at[n] += names.len();
                for name in names {
                    assert!(seen[n].insert(name), "given twice");
                }
                left += usize::from(!ended);
            }
            assert!(handles[0].listings.bytes() <= most);
        }
        assert!(seen.iter().all(|names| names.len() == count));
    }

    #[test]
    fn many_listings_in_turns_are_whole_and_stay_in_the_budget() {
        const BUDGET: usize = 1 << 20;
        let (tree, nodes) = large(40, 2000);
        for idle in [Duration::ZERO, Duration::from_secs(60)] {
            let listings = Arc::new(Listings::new(BUDGET, idle));
            // Forty directories have 5 MB of names.
            let handles: Vec<_> = nodes
                .iter()
                .map(|node| OpenDir::new(*node, listings.clone()))
                .collect();
            in_turns(&tree, &handles, 2000, 300, BUDGET);
            assert!(listings.bytes() > BUDGET / 2);
            drop(handles);
            assert_eq!(listings.bytes(), 0);
        }
    }

    #[test]
    fn handles_of_one_directory_share_its_windows() {
        const COUNT: usize = 200_000;
        let (tree, nodes) = large(1, COUNT);
        let listings = Arc::new(Listings::default());
        let open = || OpenDir::new(nodes[0], listings.clone());
        let alone = open();
        in_turns(&tree, std::slice::from_ref(&alone), COUNT, 1 << 16, BUDGET);
        let one = listings.bytes();
        let handles: Vec<_> = (0..500).map(|_| open()).collect();
        for handle in &handles {
            assert_eq!(answer(handle, &tree, 0, 10).0.len(), 10);
        }
        // Four windows, whoever listens.
        in_turns(&tree, &handles[..20], COUNT, 10_000, 5 << 22);
        assert!(listings.bytes() < 5 * one.max(1 << 22));
        // Positions stay, in any order.
        let name = |at: usize| answer(&handles[7], &tree, at, 1).0.remove(0);
        for at in [0, 65_535, 65_536, 199_999, 3, 131_072, 77_777] {
            assert_eq!(name(at), format!("directory 0, name {at:06}"));
        }
        assert_eq!(answer(&handles[3], &tree, COUNT, 1), (Vec::new(), true));
        drop((alone, handles));
        assert_eq!(listings.bytes(), 0);
    }

    #[test]
    fn a_window_that_is_going_on_stays_until_it_is_idle() {
        let (tree, nodes) = large(3, 2000);
        let size = {
            let listings = Arc::new(Listings::default());
            let dir = OpenDir::new(nodes[0], listings.clone());
            answer(&dir, &tree, 0, 1);
            listings.bytes()
        };
        let listings = Arc::new(Listings::new(size * 5 / 2, Duration::from_millis(200)));
        let handles: Vec<_> = nodes
            .iter()
            .map(|node| OpenDir::new(*node, listings.clone()))
            .collect();
        let has = |n: usize| listings.get(nodes[n], 0).is_some();
        for handle in &handles {
            assert_eq!(answer(handle, &tree, 1999, 9).0.len(), 1);
        }
        assert!(listings.bytes() <= size * 5 / 2);
        std::thread::sleep(Duration::from_millis(300));
        answer(&handles[2], &tree, 0, 1);
        assert!(has(2));
    }

    #[test]
    fn long_names_make_a_window_short() {
        let mut window = Window::new(7);
        let entry = Entry {
            name: guest_fs::Name::from_bytes(vec![b'x'; 1024]),
            node: Node {
                volume: 1,
                id: guest_fs::NodeId::plain(5),
            },
            kind: NodeKind::File,
            short_name: None,
        };
        let mut count = 0;
        while window.push(&entry) {
            count += 1;
        }
        let window = window.finish();
        assert_eq!(count, MOST_BYTES / 1024);
        assert!(window.covers(7) && window.covers(6 + count) && !window.covers(7 + count));
        assert_eq!(window.from(8).count(), count - 1);
        assert!(window.from(8).all(|l| l.name.len() == 1024));
    }
}
