//! Everything that a place holds: its machines, what they share, and what no machine uses.

use crate::{
    config::Config,
    place::{Listing, Place},
    redo,
    vm::Vm,
};
use disk_io::{DiskError, Purpose, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// Levels of directories that are looked through.
const DEEPEST: usize = 32;
/// Directories in all.
const MOST_DIRECTORIES: usize = 200_000;
/// How much of a file is looked at to tell a configuration.
const HEAD: u64 = 64 << 10;

/// What a place holds.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The machines, by directory and configuration.
    pub vms: Vec<Vm>,
    /// Directories with their listings, the place's own (the empty path) among them.
    pub directories: BTreeMap<PathBuf, Listing>,
    /// What could not be read, one sentence each.
    pub warnings: Vec<String>,
}

impl Inventory {
    /// Looks through `place`.
    ///
    /// # Errors
    /// If the place itself cannot be listed, or has too many directories.
    pub fn scan(place: &dyn Place) -> Result<Self> {
        let mut found = Self::default();
        let mut left = vec![(PathBuf::new(), 0usize)];
        while let Some((dir, depth)) = left.pop() {
            let listing = match place.list(&dir) {
                Ok(listing) => listing,
                Err(e) if depth == 0 => return Err(e),
                Err(e) => {
                    found.warnings.push(e.to_string());
                    continue;
                }
            };
            if found.directories.len() >= MOST_DIRECTORIES {
                return Err(DiskError::refused("looking for virtual machines")
                    .file(place.describe())
                    .expected(format!("at most {MOST_DIRECTORIES} directories"))
                    .found("more"));
            }
            if depth < DEEPEST {
                let below = listing.directories.iter().map(|d| (dir.join(d), depth + 1));
                left.extend(below);
            } else if !listing.directories.is_empty() {
                found.warnings.push(format!(
                    "{}: directories more than {DEEPEST} levels down are not looked at",
                    dir.display()
                ));
            }
            found.directory(place, &dir, &listing);
            found.directories.insert(dir, listing);
        }
        found
            .vms
            .sort_by(|a, b| (&a.dir, &a.config_file).cmp(&(&b.dir, &b.config_file)));
        Ok(found)
    }

    fn directory(&mut self, place: &dyn Place, dir: &Path, listing: &Listing) {
        for (name, _) in &listing.files {
            let is_named = name
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("vmx") || e.eq_ignore_ascii_case("vmtx"));
            if !is_named {
                continue;
            }
            let read = is_config(place, dir, name).and_then(|is| match is {
                true => Vm::read(place, dir, name, listing).map(Some),
                false => Ok(None),
            });
            match read {
                Ok(Some(vm)) => self.vms.push(vm),
                Ok(None) => self.warnings.push(format!(
                    "{}: has the name of a configuration and is none: it has no line with any of {}",
                    dir.join(name).display(),
                    Config::MARKS.join(", ")
                )),
                Err(e) => self.warnings.push(e.to_string()),
            }
        }
    }

    /// The machine that a selector means: `name:TEXT`, `uuid:TEXT` (the BIOS', or vCenter's),
    /// `any:`, or a bare name,
    /// uuid or path of a configuration. All that fit.
    pub fn select(&self, selector: &str) -> Vec<&Vm> {
        let plain = |u: &str| {
            u.chars()
                .filter(char::is_ascii_hexdigit)
                .collect::<String>()
                .to_ascii_lowercase()
        };
        let by_uuid = |vm: &&Vm, wanted: &str| {
            // That of the BIOS, or the one by which vCenter knows it.
            let own = [&vm.config.uuid, &vm.config.instance_uuid];
            let mut own = own.into_iter().flatten().map(|u| plain(u));
            own.any(|own| own == plain(wanted))
        };
        let all = self.vms.iter();
        match selector.split_once(':') {
            Some(("name", name)) => all.filter(|vm| vm.name() == name).collect(),
            Some(("uuid", uuid)) => all.filter(|vm| by_uuid(vm, uuid)).collect(),
            Some(("any", _)) => all.collect(),
            _ => all
                .filter(|vm| {
                    vm.name() == selector
                        || by_uuid(vm, selector)
                        || vm.dir.join(&vm.config_file) == Path::new(selector)
                        || (vm.dir == Path::new(selector) && !selector.is_empty())
                })
                .collect(),
        }
    }

    /// Descriptors that several machines name, with those machines' indices.
    pub fn shared_disks(&self) -> BTreeMap<PathBuf, BTreeSet<usize>> {
        let mut users: BTreeMap<PathBuf, BTreeSet<usize>> = BTreeMap::new();
        for (index, vm) in self.vms.iter().enumerate() {
            for disk in vm.points.iter().flat_map(|p| &p.disks) {
                let path = in_place(&vm.dir, &disk.file);
                users.entry(path).or_default().insert(index);
            }
        }
        users.retain(|_, vms| vms.len() > 1);
        users
    }

    /// Files called `.vmdk` that are not among `used` (paths relative to the place).
    pub fn unused(&self, used: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let mut unused = Vec::new();
        for (dir, listing) in &self.directories {
            for (name, _) in &listing.files {
                let lower = name.to_string_lossy().to_ascii_lowercase();
                let is_disk = lower.ends_with(".vmdk") && !lower.ends_with("-ctk.vmdk")
                    || redo::is_redo(name);
                let path = dir.join(name);
                if is_disk && !used.contains(&path) {
                    unused.push(path);
                }
            }
        }
        unused
    }
}

/// A name as a configuration in `dir` has it, as a path of the place, as far as the text
/// alone tells.
pub fn in_place(dir: &Path, name: &str) -> PathBuf {
    let name = name.replace('\\', "/");
    // `/vmfs/volumes/<volume>/…` is a path of some datastore: of this one, as far as known.
    let relative = match name.strip_prefix("/vmfs/volumes/") {
        Some(rest) => return PathBuf::from(rest.split_once('/').map_or("", |(_, path)| path)),
        None => name,
    };
    let mut path = dir.to_path_buf();
    for part in Path::new(&relative).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// Whether a file is a configuration, by its contents.
fn is_config(place: &dyn Place, dir: &Path, name: &Path) -> Result<bool> {
    let opened = place.gate(dir)?.open(name, Purpose::Member)?;
    let len = opened.disk.len().min(HEAD);
    let mut head = vec![0; usize::try_from(len).unwrap_or(0)];
    opened.disk.read_exact_at(&mut head, 0)?;
    Ok(Config::is_one(&head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::HostPlace;

    #[test]
    fn a_tree_of_machines() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "web01/web01.vmx",
            "config.version = \"8\"\ndisplayName = \"web 01\"\nuuid.bios = \"56 4d 81 3c dd d8 88 2c-f1 42 bf 58 f5 7c 2d 9f\"\n\
             scsi0:0.fileName = \"web01-000001.vmdk\"\nscsi0:1.fileName = \"../shared/q.vmdk\"\n",
        );
        put(
            "web01/web01.vmsd",
            "snapshot.numSnapshots = \"1\"\nsnapshot0.uid = \"1\"\nsnapshot0.displayName = \"a\"\n\
             snapshot0.numDisks = \"1\"\nsnapshot0.disk0.fileName = \"web01.vmdk\"\nsnapshot0.disk0.node = \"scsi0:0\"\n",
        );
        put(
            "db/db.vmx",
            "config.version = \"8\"\nscsi0:0.fileName = \"..\\shared\\q.vmdk\"\n",
        );
        put("db/no.vmx", "hello");
        put("shared/q.vmdk", "");
        put("db/left.vmdk", "");
        let place = HostPlace::new(dir.path(), &Default::default()).unwrap();
        let found = Inventory::scan(&place).unwrap();
        let names: Vec<_> = found.vms.iter().map(Vm::name).collect();
        assert_eq!(names, ["db", "web 01"]);
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
        let shared: Vec<_> = found.shared_disks().into_keys().collect();
        assert_eq!(shared, [PathBuf::from("shared/q.vmdk")]);
        assert_eq!(
            found.unused(&BTreeSet::from(["shared/q.vmdk".into()])),
            [PathBuf::from("db/left.vmdk")]
        );
        let web = found.select("uuid:564d813cddd8882cf142bf58f57c2d9f");
        assert_eq!(web.len(), 1);
        assert_eq!(web[0].points.len(), 2);
        assert_eq!(web[0].point("name:a").unwrap().disks[0].file, "web01.vmdk");
        assert!(web[0].point("b").is_err());
        assert_eq!(web[0].point("current").unwrap().disks.len(), 2);
        assert_eq!(found.select("any:").len(), 2);
    }
}
