//! The disks of a package by the names that its machines' configurations have for them: files of the
//! package, and names for disks that have none.

use disk_image::ova::{Descriptor, File, VirtualDisk};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a name stands for that no file of the package has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// A text: a configuration, or the descriptor of a blank disk.
    Text(String),
    /// Nothing: a disk that a machine has and the package does not, and why.
    Missing(String),
}

/// The disks of a package.
pub(super) struct Disks<'a> {
    by_id: HashMap<&'a str, &'a VirtualDisk>,
    files: HashMap<&'a str, &'a File>,
    /// Names that are in use.
    taken: HashSet<String>,
    /// Names of those without a file, by their ids.
    named: HashMap<String, String>,
    /// What stands behind such names.
    pub(super) stands: BTreeMap<String, Stand>,
    /// From which number on names are tried.
    tried: HashMap<String, u32>,
}

impl<'a> Disks<'a> {
    pub(super) fn of(descriptor: &'a Descriptor) -> Self {
        let mut all = Self {
            by_id: HashMap::new(),
            files: HashMap::new(),
            taken: HashSet::new(),
            named: HashMap::new(),
            stands: BTreeMap::new(),
            tried: HashMap::new(),
        };
        // Of two with one id the first is meant, as everywhere.
        for disk in &descriptor.disks {
            all.by_id.entry(&disk.id).or_insert(disk);
        }
        for file in &descriptor.files {
            all.files.entry(&file.id).or_insert(file);
            all.taken.insert(file.href.clone());
        }
        all
    }

    /// The file of a disk.
    pub(super) fn file(&self, disk: &VirtualDisk) -> Option<&'a File> {
        self.files.get(disk.file.as_deref()?).copied()
    }

    /// What a configuration calls the disk `id`.
    pub(super) fn name(&mut self, id: &str) -> String {
        let disk = self.by_id.get(id).copied();
        if let Some(file) = disk.and_then(|d| self.file(d)) {
            return file.href.clone();
        }
        if let Some(name) = self.named.get(id) {
            return name.clone();
        }
        let stand = match disk {
            None => Stand::Missing(format!("no disk with the id {id}")),
            Some(disk) => match (&disk.file, disk.capacity) {
                (Some(file), _) => Stand::Missing(format!("no file with the id {file}")),
                (None, Some(bytes)) => Stand::Text(blank(bytes)),
                (None, None) => Stand::Missing("a blank disk of no known size".into()),
            },
        };
        let name = self.unused(&plain(id, "disk"), "vmdk");
        self.named.insert(id.to_owned(), name.clone());
        self.stands.insert(name.clone(), stand);
        name
    }

    /// `BASE.EXTENSION`, or where something has that name the first with a number that nothing has.
    pub(super) fn unused(&mut self, base: &str, extension: &str) -> String {
        let mut name = format!("{base}.{extension}");
        let next = self.tried.entry(name.clone()).or_insert(2);
        while !self.taken.insert(name.clone()) {
            name = format!("{base} ({next}).{extension}");
            *next = next.saturating_add(1);
        }
        name
    }
}

/// An id as part of a name; `other` where nothing is left of it.
pub(super) fn plain(id: &str, other: &str) -> String {
    let plain: String = id
        .chars()
        .map(|c| match c {
            '/' | '\\' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect();
    match plain.trim() {
        "" | "." | ".." => other.to_owned(),
        plain => plain.to_owned(),
    }
}

/// The descriptor of a disk of zeros.
fn blank(bytes: u64) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"monolithicFlat\"\nRW {} ZERO\n",
        bytes.div_ceil(512)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_what_has_no_file() {
        let disk = |id: &str, file: Option<&str>, capacity| VirtualDisk {
            id: id.into(),
            file: file.map(str::to_owned),
            capacity,
            ..VirtualDisk::default()
        };
        let descriptor = Descriptor {
            files: vec![File {
                id: "f".into(),
                href: "b.vmdk".into(),
                ..File::default()
            }],
            disks: vec![
                disk("a", Some("f"), None),
                disk("b", None, Some(1000)),
                disk("c", Some("none"), Some(1)),
            ],
            systems: Vec::new(),
        };
        let mut disks = Disks::of(&descriptor);
        assert_eq!(disks.name("a"), "b.vmdk");
        for _ in 0..2 {
            assert_eq!(disks.name("b"), "b (2).vmdk");
        }
        assert_eq!(
            (disks.name("c"), disks.name("../d")),
            ("c.vmdk".into(), ".._d.vmdk".into())
        );
        let stands: Vec<_> = disks.stands.values().collect();
        assert!(matches!(stands[1], Stand::Text(text) if text.contains("RW 2 ZERO")));
        assert_eq!(stands.len(), 3);
        assert!(matches!(stands[2], Stand::Missing(why) if why.contains("none")));
    }

    /// However many of one name there are.
    #[test]
    fn names_are_soon_found() {
        let descriptor = Descriptor::default();
        let mut disks = Disks::of(&descriptor);
        let last = (0..60_000).map(|_| disks.unused("vm", "vmx")).last();
        assert_eq!(last.unwrap(), "vm (60000).vmx");
    }
}
