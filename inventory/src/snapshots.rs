//! The snapshots of a machine (`.vmsd`; fact sheet, VMDK 10.2).

use crate::{config::Slot, dictionary::Dictionary};

/// Most snapshots that are read; products stop at some hundreds.
const MOST: usize = 4096;
/// Most disks of one.
const DISKS: usize = 512;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number.
    pub uid: i64,
    /// The snapshot that it was made on; none for a root.
    pub parent: Option<i64>,
    /// What the user called it.
    pub name: String,
    /// What the user said of it.
    pub description: Option<String>,
    /// When it was taken: microseconds since 1970, UTC.
    pub created: Option<i64>,
    /// Where the machine's state is (`.vmsn`).
    pub state_file: Option<String>,
    /// Whether the machine's memory was saved with it: `type` 1 is a snapshot of a running
    /// machine with its memory.
    pub kind: Option<i64>,
    /// The disks as they were then: opening the file shows that state.
    pub disks: Vec<SnapshotDisk>,
    /// Disks of which it is not said what they are, one sentence each.
    pub lost: Vec<String>,
}

/// A disk of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDisk {
    /// Where it hung, if that is said in a known way.
    pub slot: Option<Slot>,
    /// The place as written.
    pub node: String,
    /// The descriptor.
    pub file: String,
}

/// All snapshots of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// The one that the machine is running on now.
    pub current: Option<i64>,
    /// In the order in which they are stored, which is not the hierarchy.
    pub all: Vec<Snapshot>,
    /// The product wants to merge what it could not merge before.
    pub needs_consolidation: bool,
    /// What was odd, one sentence each.
    pub warnings: Vec<String>,
}

impl Snapshots {
    /// Takes them out of a dictionary. `is_gone` says whether nothing is left of one.
    pub fn new(d: &Dictionary, is_gone: &dyn Fn(&Snapshot) -> bool) -> Self {
        let mut found = Self {
            current: d.number("snapshot.current").filter(|n| *n != 0),
            needs_consolidation: d.flag("snapshot.needConsolidate") == Some(true),
            warnings: d.warnings.clone(),
            ..Self::default()
        };
        // The count may be stale, so entries are taken as long as there are any.
        let said = d.number("snapshot.numSnapshots");
        let indices = d.entries().filter_map(|(key, _)| {
            let rest = key.strip_prefix("snapshot")?;
            rest.split_once('.')?.0.parse::<usize>().ok()
        });
        let mut indices: Vec<usize> = indices.collect();
        indices.sort_unstable();
        indices.dedup();
        for index in indices.into_iter().take(MOST) {
            match one(d, index) {
                Some(snapshot) => match found.get(snapshot.uid) {
                    None => found.all.push(snapshot),
                    // Which of them is meant by its number nobody knows.
                    Some(first) => {
                        let told = format!(
                            "snapshot{index} ({}) has the number {} of another, {}, and is left out",
                            snapshot.name, snapshot.uid, first.name
                        );
                        found.warnings.push(told);
                    }
                },
                None => found
                    .warnings
                    .push(format!("snapshot{index} has no number and is left out")),
            }
        }
        found.hold_against(said, is_gone);
        found
    }

    /// What the list says of their number. One that counts none, and that no current snapshot
    /// contradicts, may keep the entries of snapshots that were all deleted.
    fn hold_against(&mut self, said: Option<i64>, is_gone: &dyn Fn(&Snapshot) -> bool) {
        let described = self.all.len();
        let none = said == Some(0) && self.current.is_none();
        if none && described > 0 && self.all.iter().all(is_gone) {
            self.all.clear();
            self.warnings.push(format!(
                "says that there are no snapshots; {described} of which nothing is left are passed over"
            ));
        } else if usize::try_from(said.unwrap_or(0)).ok() != Some(described) {
            self.warnings.push(format!(
                "says that there are {} snapshots, and describes {described}",
                said.unwrap_or(0)
            ));
        }
    }

    /// A snapshot by its number.
    pub fn get(&self, uid: i64) -> Option<&Snapshot> {
        self.all.iter().find(|s| s.uid == uid)
    }

    /// Roots first, each followed by what was made on it: (depth, snapshot). One whose
    /// parent is not there, or that is its own ancestor, stands as a root.
    pub fn tree(&self) -> Vec<(usize, &Snapshot)> {
        let mut out = Vec::new();
        let is_root = |s: &&Snapshot| s.parent.is_none_or(|p| p == s.uid || self.get(p).is_none());
        for root in self.all.iter().filter(is_root) {
            self.below(root, 0, &mut out);
        }
        for left in &self.all {
            if !out.iter().any(|(_, s)| s.uid == left.uid) {
                self.below(left, 0, &mut out);
            }
        }
        out
    }

    fn below<'a>(&'a self, at: &'a Snapshot, depth: usize, out: &mut Vec<(usize, &'a Snapshot)>) {
        if depth > 256 || out.iter().any(|(_, s)| s.uid == at.uid) {
            return;
        }
        out.push((depth, at));
        for child in self.all.iter().filter(|s| s.parent == Some(at.uid)) {
            self.below(child, depth + 1, out);
        }
    }
}

fn one(d: &Dictionary, index: usize) -> Option<Snapshot> {
    let key = |field: &str| format!("snapshot{index}.{field}");
    let text = |field: &str| d.text(&key(field)).map(str::to_owned);
    let number = |field: &str| d.number(&key(field));
    let uid = number("uid")?;
    let created = number("createTimeHigh")
        .zip(number("createTimeLow"))
        .map(|(high, low)| high << 32 | (low & 0xffff_ffff));
    // The count may be stale here too.
    let prefix = format!("snapshot{index}.disk");
    let named = d.entries().filter_map(|(key, _)| {
        let (number, _) = key.strip_prefix(&prefix)?.split_once('.')?;
        number.parse::<usize>().ok()
    });
    let mut named: Vec<usize> = named.filter(|n| *n < DISKS).collect();
    named.sort_unstable();
    named.dedup();
    let (mut disks, mut lost) = (Vec::new(), Vec::new());
    for n in &named {
        let node = text(&format!("disk{n}.node")).unwrap_or_default();
        match text(&format!("disk{n}.fileName")) {
            Some(file) => disks.push(SnapshotDisk {
                file,
                slot: node.parse().ok(),
                node,
            }),
            None => lost.push(format!("the file of disk {n} ({node}) is not named")),
        }
    }
    let said = number("numDisks").and_then(|n| usize::try_from(n).ok());
    if let Some(said) = said.filter(|said| *said != named.len()) {
        lost.push(format!(
            "says that it has {said} disks, and names {}",
            named.len()
        ));
    }
    Some(Snapshot {
        uid,
        parent: number("parent").filter(|p| *p != 0),
        name: text("displayName").unwrap_or_else(|| format!("snapshot {uid}")),
        description: text("description"),
        created,
        state_file: text("filename"),
        kind: number("type"),
        disks,
        lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, gone: bool) -> Snapshots {
        Snapshots::new(&Dictionary::parse(text.as_bytes()).unwrap(), &|_| gone)
    }

    #[test]
    fn entries_of_deleted_snapshots_are_passed_over() {
        let text = |current, count| {
            format!(
                "snapshot.current = \"{current}\"\nsnapshot.numSnapshots = \"{count}\"\n\
                 snapshot0.uid = \"3\"\n"
            )
        };
        let told = |s: &Snapshots, part: &str| s.warnings.join("; ").contains(part);
        let none = read(&text(0, 0), true);
        assert!(none.all.is_empty() && told(&none, "nothing is left"));
        // Something of it is there, it is the current one, or it is counted.
        assert_eq!(read(&text(0, 0), false).all.len(), 1);
        assert_eq!(read(&text(3, 0), true).all.len(), 1);
        let counted = read(&text(0, 1), true);
        assert!(counted.all.len() == 1 && counted.warnings.is_empty());
    }

    #[test]
    fn trees_and_times() {
        let text = r#"
snapshot.current = "3"
snapshot.numSnapshots = "3"
snapshot0.uid = "1"
snapshot0.displayName = "base"
snapshot0.createTimeHigh = "388801"
snapshot0.createTimeLow = "-814770620"
snapshot0.numDisks = "1"
snapshot0.disk0.fileName = "a.vmdk"
snapshot0.disk0.node = "scsi0:0"
snapshot7.uid = "3"
snapshot7.parent = "2"
snapshot7.displayName = "top"
snapshot2.uid = "2"
snapshot2.parent = "1"
"#;
        let s = read(text, false);
        assert!(s.warnings.is_empty(), "{:?}", s.warnings);
        let tree: Vec<_> = s.tree().iter().map(|(d, s)| (*d, s.uid)).collect();
        assert_eq!(tree, [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(s.all[0].created, Some(1_669_891_059_848_772));
        assert_eq!(
            s.get(1).unwrap().disks[0].slot.unwrap().to_string(),
            "scsi0:0"
        );
    }

    #[test]
    fn loops_end() {
        let text = "snapshot.numSnapshots=\"2\"\nsnapshot0.uid=\"1\"\nsnapshot0.parent=\"2\"\n\
                    snapshot1.uid=\"2\"\nsnapshot1.parent=\"1\"\n";
        let s = read(text, false);
        assert_eq!(s.tree().len(), 2);
    }
}
