//! Directories of backups: which machines they are of, and in which order.

use super::{Backups, Machine, Machines, configs, one_of};
use disk_io::{DiskError, Purpose, Result};
use inventory::{Listing, Place, Vm};
use std::path::Path;

/// What a backup says of itself (`convert::backup::Manifest`).
const MANIFEST: &str = "vmdkit-manifest.json";
/// Manifests are some kilobytes long.
const MAX_MANIFEST: u64 = 64 << 20;
/// Directories below which dated backups of several machines are looked for.
const MOST_DIRECTORIES: usize = 20_000;

/// The machine of a directory, or its dated backups.
pub(super) fn directory(
    place: &dyn Place,
    dir: &Path,
    listing: &Listing,
    machine: &dyn Fn(Vm) -> Machine,
) -> Result<Machines> {
    let here = configs(place, dir, listing)?;
    let shown = || match dir.as_os_str().is_empty() {
        true => place.describe(),
        false => dir.display().to_string(),
    };
    let several = |names: Vec<String>| {
        let doing = "opening the directory as a machine";
        one_of(
            doing,
            &shown(),
            names,
            "name one of them; vmdkit vm lists all",
        )
    };
    match here.as_slice() {
        [only] => {
            let vm = Vm::read(place, dir, only, listing)?;
            return Ok(Machines::One(Box::new(machine(vm))));
        }
        [] => {}
        names => {
            let names = names.iter().map(|n| n.display().to_string());
            return Err(several(names.collect()));
        }
    }
    let mut found = Found::default();
    for name in &listing.directories {
        found.look(place, &dir.join(name), name.display().to_string())?;
    }
    if found.vms.is_empty() {
        let below = dated_below(place, dir, listing)?;
        if !below.vms.is_empty() {
            return Ok(below.machines(machine));
        }
    }
    match found.vms.as_slice() {
        [] => Err(DiskError::not_found("opening the directory as a machine")
            .file(shown())
            .expected("a configuration (*.vmx) in it, or dated directories with one each")
            .found(format!("{} files, none of them one", listing.files.len()))
            .hint("name a disk in it")),
        all if all.iter().all(|(name, _)| date_of(name).is_some()) && found.is_one_each() => {
            Ok(found.machines(machine))
        }
        [(_, only)] => Ok(Machines::One(Box::new(machine(only.clone())))),
        all => {
            let names = all
                .iter()
                .take(32)
                .map(|(_, vm)| vm.dir.join(&vm.config_file).display().to_string());
            Err(several(names.collect()))
        }
    }
}

/// What was found in directories of backups, by their names.
#[derive(Default)]
struct Found {
    vms: Vec<(String, Vm)>,
    lost: Vec<(String, DiskError)>,
}

impl Backups {
    /// All of them, those that cannot be read too, the oldest first.
    pub fn in_order(&self) -> Vec<(&str, Result<&Machine>)> {
        let read = self.all.iter().map(|(name, m)| (name.as_str(), Ok(m)));
        let lost = self
            .lost
            .iter()
            .map(|(name, e)| (name.as_str(), Err(e.clone())));
        let mut all: Vec<_> = read.chain(lost).collect();
        all.sort_by_cached_key(|(name, _)| (date_of(name), (*name).to_owned()));
        all
    }
}

impl Found {
    /// Looks for machines in one directory. One that has a date and disks, and no machine that can
    /// be read, is not passed over: it would be a version less.
    fn look(&mut self, place: &dyn Place, path: &Path, name: String) -> Result<()> {
        let dated = date_of(&name).is_some();
        let listing = match place.list(path) {
            Ok(listing) => listing,
            Err(e) => {
                self.lost.extend(dated.then_some((name, e)));
                return Ok(());
            }
        };
        let configs = configs(place, path, &listing)?;
        if configs.is_empty() && dated && is_of_machine(place, path, &listing) {
            let e = DiskError::corrupt("looking for the machine of a backup")
                .file(path.display())
                .expected("a configuration (*.vmx)")
                .found("disks, and no configuration that can be read")
                .hint("name the disks in it one by one");
            self.lost.push((name.clone(), e));
        }
        for config in configs {
            match Vm::read(place, path, &config, &listing) {
                Ok(vm) => self.vms.push((name.clone(), vm)),
                Err(e) if dated => self.lost.push((name.clone(), e)),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Two machines in one directory are no backups of one.
    fn is_one_each(&self) -> bool {
        let mut names: Vec<&String> = self.vms.iter().map(|(name, _)| name).collect();
        names.sort();
        names.windows(2).all(|w| w.first() != w.last())
    }

    /// The oldest first, whatever else is in the names.
    fn machines(mut self, machine: &dyn Fn(Vm) -> Machine) -> Machines {
        self.vms
            .sort_by_cached_key(|(name, _)| (date_of(name), name.clone()));
        let of_one = self.vms.windows(2).all(|w| match w {
            [(_, a), (_, b)] => is_same(a, b),
            _ => true,
        });
        let backups = Backups {
            all: self
                .vms
                .into_iter()
                .map(|(name, vm)| (name, machine(vm)))
                .collect(),
            lost: self.lost,
        };
        match of_one {
            true => Machines::Dated(backups),
            false => Machines::Forest(backups),
        }
    }
}

/// Whether a directory without a configuration was a machine's backup: its manifest says so, or it
/// has none, and disks.
fn is_of_machine(place: &dyn Place, path: &Path, listing: &Listing) -> bool {
    let manifest = || -> Option<serde_json::Value> {
        let opened = place
            .gate(path)
            .ok()?
            .open(Path::new(MANIFEST), Purpose::Member)
            .ok()?;
        let mut text = vec![0; usize::try_from(opened.disk.len().min(MAX_MANIFEST)).ok()?];
        opened.disk.read_exact_at(&mut text, 0).ok()?;
        serde_json::from_slice(&text).ok()
    };
    let files = || listing.files.iter().map(|(name, _)| name);
    if files().any(|name| name == Path::new(MANIFEST)) {
        // One that cannot be read says nothing to the contrary.
        return manifest().is_none_or(|m| m.get("vm").is_some_and(|vm| !vm.is_null()));
    }
    files().any(|name| {
        let extension = name.extension();
        extension.is_some_and(|e| e.eq_ignore_ascii_case("vmdk") || e.eq_ignore_ascii_case("vmx"))
    })
}

/// Backups two levels down, `MACHINE/DATE` or `DATE/MACHINE`; none if one of them has no date.
fn dated_below(place: &dyn Place, dir: &Path, listing: &Listing) -> Result<Found> {
    let mut found = Found::default();
    let mut left = MOST_DIRECTORIES;
    for outer in &listing.directories {
        let Ok(between) = place.list(&dir.join(outer)) else {
            continue;
        };
        for inner in &between.directories {
            left = match left.checked_sub(1) {
                Some(left) => left,
                None => return Ok(Found::default()),
            };
            let name = [outer, inner].map(|n| n.display().to_string()).join("/");
            found.look(place, &dir.join(outer).join(inner), name)?;
        }
    }
    let dated = found.vms.iter().all(|(name, _)| date_of(name).is_some());
    Ok(match dated && found.is_one_each() {
        true => found,
        false => Found::default(),
    })
}

/// Whether two backups are of one machine.
fn is_same(a: &Vm, b: &Vm) -> bool {
    match (&a.config.uuid, &b.config.uuid) {
        (Some(a), Some(b)) => a == b,
        // A machine has none before it is first started.
        _ => a.name() == b.name(),
    }
}

/// The date in a name, and the digits behind it, which are a time: 20240131, 2024-01-31 and the
/// like, with the year first. In a path it is the first that one of its parts has.
fn date_of(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let number = |at: usize, len: usize| {
        let text = name.get(at..at.checked_add(len)?)?;
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u32>().ok()).flatten()
    };
    let starts = (0..bytes.len()).filter(|at| digit(*at) && (*at == 0 || !digit(at - 1)));
    for at in starts {
        // With a separator, the same twice, or without.
        let gap = match bytes.get(at + 4) {
            Some(b'-' | b'_' | b'.' | b' ') if bytes.get(at + 4) == bytes.get(at + 7) => 1,
            _ => 0,
        };
        let (month, day) = (at + 4 + gap, at + 6 + 2 * gap);
        let plausible = matches!(
            (number(at, 4), number(month, 2), number(day, 2)),
            (Some(1990..=2199), Some(1..=12), Some(1..=31))
        );
        let end = day + 2;
        let run = (at..).take_while(|n| digit(*n)).count();
        // Of digits alone there are a day's, an hour's, a minute's or a second's.
        let whole = match gap {
            0 => matches!(run, 8 | 10 | 12 | 14),
            _ => !digit(end),
        };
        if plausible && whole {
            let part = name.get(at..).and_then(|n| n.split('/').next());
            let digits = part.unwrap_or_default().bytes();
            let digits = digits.filter(u8::is_ascii_digit).take(20);
            return Some(digits.map(char::from).collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::date_of;

    #[test]
    fn dates_in_names() {
        for (name, date) in [
            ("20240131", "20240131"),
            ("web01-2024-01-31", "20240131"),
            ("2024-01-31_22-00-00", "20240131220000"),
            ("web.20240131T220000", "20240131220000"),
            ("web_01.2024_01_31", "20240131"),
            ("2024-01-31/web20", "20240131"),
            ("web20/20240131", "20240131"),
        ] {
            assert_eq!(date_of(name).as_deref(), Some(date), "{name}");
        }
        // Not those whose day comes first either: which is the month nobody knows.
        for no in [
            "web01",
            "12345",
            "2024-13-31",
            "db-9999999",
            "web-01-12-2024_1015",
            "1202401311",
            "2024-01-311",
        ] {
            assert_eq!(date_of(no), None, "{no}");
        }
    }
}
