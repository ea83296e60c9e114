//! Finding one name in a directory.

use super::{
    super::{by_parent::Named, record::Reference, upcase::UpCase, volume::Volume},
    Directory, Entry, namespace,
    parse::Node,
};
use disk_io::Result;
use std::{
    cmp::Ordering,
    collections::HashSet,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering::Relaxed},
};

impl Directory {
    /// Finds the entry for a name: the exact one, else one that folds to the same.
    pub(crate) fn lookup(&self, volume: &Volume, name: &[u16]) -> Result<Option<Reference>> {
        let mut search = Search {
            upcase: volume.upcase(),
            name,
            exact: None,
            folded: None,
            unsorted: false,
        };
        let mut visited = HashSet::new();
        // Nodes still to be searched, and their damage.
        let mut todo = vec![(self.root.clone(), Bounds::default())];
        let mut damage = None;
        while let Some((node, bounds)) = todo.pop() {
            let mut children = Vec::new();
            search.node(&node, &bounds, &mut children);
            if search.exact.is_some() {
                break;
            }
            damage = damage.or_else(|| node.damage.clone());
            for (vcn, bounds) in children {
                if !visited.insert(vcn) {
                    damage = Some(self.fail().found(format!("a loop through block {vcn}")));
                    continue;
                }
                match self.node(volume, vcn) {
                    Ok(node) => todo.push((node, bounds)),
                    Err(e) => damage = Some(e),
                }
            }
        }
        if search.exact.is_none() && (damage.is_some() || search.unsorted) {
            // The way down is damaged. One file that says to have the name, and no other, has it;
            // that is found at once where damage was met before.
            let known = self.own.and_then(|own| volume.named_so_far(own, name));
            if let Some(known) = known.filter(|k| !k.several)
                && known.exact.is_some()
            {
                return Ok(known.exact);
            }
            // Else look at everything there is.
            let mut found = None;
            self.walk(volume, &mut |entry| {
                match entry {
                    Ok(Entry {
                        key: Some(key),
                        target,
                        ..
                    }) => {
                        if *key.units == *name {
                            search.exact = Some(*target);
                            return ControlFlow::Break(());
                        }
                        if search.upcase.compare(&key.units, name) == Ordering::Equal {
                            found = Some(*target);
                        }
                    }
                    Ok(_) => {}
                    Err(e) => {
                        damage.get_or_insert(e);
                    }
                }
                ControlFlow::Continue(())
            });
            search.folded = search.folded.or(found.map(|f| (0, f)));
        }
        // What a walk lists by the records must be found by its name, even where the way down
        // is sound.
        let mut lost = Named::default();
        if let Some(own) = self.own
            && search.exact.is_none()
            && (damage.is_some() || self.damaged.load(Relaxed))
        {
            lost = volume.named_by_records(own, name);
        }
        let folded = search.folded.map(|f| f.1).or(lost.folded);
        match (search.exact.or(lost.exact).or(folded), damage) {
            (Some(target), _) => Ok(Some(target)),
            // Not found, and part of the directory could not be read: it may be there.
            (None, Some(e)) => Err(e),
            (None, None) => Ok(None),
        }
    }
}

/// Between which names those of a block must be: a block that holds others is not the one that
/// was meant, even if it is sound.
#[derive(Clone, Debug, Default)]
struct Bounds {
    from: Option<(Arc<Node>, usize)>,
    to: Option<(Arc<Node>, usize)>,
}

impl Bounds {
    /// Those of the block below an entry of a node that has these.
    fn below(&self, node: &Arc<Node>, at: usize) -> Self {
        let has_key = node.entries.get(at).is_some_and(|e| e.key.is_some());
        let before = at.checked_sub(1);
        Self {
            from: before.map_or_else(|| self.from.clone(), |at| Some((node.clone(), at))),
            to: match has_key {
                true => Some((node.clone(), at)),
                false => self.to.clone(),
            },
        }
    }

    fn key(bound: &Option<(Arc<Node>, usize)>) -> Option<&[u16]> {
        let (node, at) = bound.as_ref()?;
        let key = node.entries.get(*at)?.key.as_ref()?;
        Some(&key.units)
    }
}

/// A lookup on its way down.
struct Search<'a> {
    upcase: &'a UpCase,
    name: &'a [u16],
    exact: Option<Reference>,
    /// (rank, target): long names before 8.3 names.
    folded: Option<(u8, Reference)>,
    /// Names out of order were met: the descent cannot be trusted.
    unsorted: bool,
}

impl Search<'_> {
    /// Looks at one node; adds the blocks where the name can be.
    fn node(&mut self, node: &Arc<Node>, bounds: &Bounds, children: &mut Vec<(u64, Bounds)>) {
        let mut before = Bounds::key(&bounds.from);
        let mut passed = false;
        let mut below = |at, entry: &Entry| {
            children.extend(entry.child.map(|vcn| (vcn, bounds.below(node, at))));
        };
        for (at, entry) in node.entries.iter().enumerate() {
            let Some(key) = &entry.key else {
                if !passed {
                    below(at, entry);
                }
                break;
            };
            self.in_order(before, &key.units);
            before = Some(&key.units);
            if passed {
                continue;
            }
            match self.upcase.compare(self.name, &key.units) {
                Ordering::Greater => {}
                Ordering::Less => {
                    below(at, entry);
                    passed = true;
                }
                Ordering::Equal => {
                    below(at, entry);
                    if *key.units == *self.name {
                        self.exact = Some(entry.target);
                        return;
                    }
                    let rank = u8::from(key.namespace == namespace::DOS);
                    if self.folded.is_none_or(|(r, _)| rank < r) {
                        self.folded = Some((rank, entry.target));
                    }
                }
            }
        }
        if let Some(to) = Bounds::key(&bounds.to) {
            self.in_order(before, to);
        }
    }

    fn in_order(&mut self, before: Option<&[u16]>, key: &[u16]) {
        let wrong = before.is_some_and(|b| self.upcase.compare(b, key) == Ordering::Greater);
        self.unsorted |= wrong;
    }
}
