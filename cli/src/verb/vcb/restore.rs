//! `vcb restore`: below a directory, as another catalog says, over a machine that is there.

use super::{
    Flags, Selected, one,
    replaced::{Own, exchange, is_lock, remove_machine},
    run, words,
};
use crate::{
    args::Global,
    exit::{Exit, Failure},
    names::component,
    output::{Out, warn},
};
use convert::place::TEMP_PREFIX;
use disk_io::DiskError;
use inventory::Dictionary;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Longest catalog that is read.
const MOST: u64 = 1 << 20;
const DOING: &str = "restoring over a machine that is there";

pub(super) fn restore(flags: &Flags, global: &Global) -> Result<Exit, Failure> {
    let overwrite = match (flags.get('b'), flags.text('b')) {
        (None, _) | (_, Some("preserve")) => false,
        (_, Some("overwrite")) => true,
        _ => return Err(Failure::usage("-b: expected preserve or overwrite")),
    };
    let backup = Path::new(flags.need('s', "the backup's directory")?);
    let below = PathBuf::from(flags.need('h', "the directory to restore below")?);
    let machine = one(backup.as_os_str(), "any:", global)?;
    let mut plan = Plan {
        backup,
        dir: component(&machine.name),
        name: None,
        machine,
    };
    if let Some(file) = flags.get('a') {
        plan.take(Path::new(file))?;
    }
    fs::create_dir_all(&below)
        .map_err(|e| DiskError::io("making the directory", &e).file(below.display()))?;
    let dest = below.join(&plan.dir);
    match dest.symlink_metadata() {
        Err(_) => run(plan.line(&dest), global),
        Ok(_) if is_empty(&dest) => run(plan.line(&dest), global),
        Ok(_) if overwrite => plan.replace(&below, &dest, global),
        Ok(_) => Err(DiskError::refused("restoring the machine")
            .file(dest.display())
            .expected("nothing of that name")
            .found("something that is there already")
            .hint("-b overwrite replaces a machine; or restore below another directory")
            .into()),
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut all| all.next().is_none())
}

/// What goes where.
struct Plan<'a> {
    backup: &'a Path,
    machine: Selected,
    /// Name of its directory.
    dir: String,
    /// What the machine is to be called, if not as it was.
    name: Option<String>,
}

impl Plan<'_> {
    /// What an edited copy of the catalog says.
    fn take(&mut self, file: &Path) -> Result<(), Failure> {
        let doing = "reading the catalog";
        let fail = |e: &io::Error| DiskError::io(doing, e).file(file.display());
        let len = fs::metadata(file).map_err(|e| fail(&e))?.len();
        if len > MOST {
            return Err(DiskError::refused(doing)
                .file(file.display())
                .expected(format!("at most {MOST} bytes"))
                .found(len.to_string())
                .into());
        }
        let bytes = fs::read(file).map_err(|e| fail(&e))?;
        let catalog = Dictionary::parse(&bytes).map_err(|e| e.file(file.display()))?;
        let config = catalog.text("config.vmx");
        let name = catalog.text("display_name");
        if config.is_none() && name.is_none() {
            return Err(DiskError::corrupt(doing)
                .file(file.display())
                .expected("a line config.vmx= \"…\" or display_name= \"…\"")
                .found("neither")
                .hint("take a copy of the file 'catalog' in the backup and change that")
                .into());
        }
        self.check_disks(file, &catalog)?;
        if let Some(name) = name.filter(|name| *name != self.machine.name) {
            self.dir = component(name);
            self.name = Some(name.to_owned());
        }
        if let Some(dir) = config.and_then(directory) {
            self.dir = component(dir);
        }
        let host = ["host", "resourcepool", "folderpath"];
        let host: Vec<&str> = host
            .into_iter()
            .filter(|key| catalog.text(key).is_some())
            .collect();
        if !host.is_empty() {
            warn(format!(
                "{} of the catalog ignored: there is no host to register the machine on",
                host.join(", ")
            ));
        }
        Ok(())
    }

    /// Disks that the catalog names must be those of the backup.
    fn check_disks(&self, file: &Path, catalog: &Dictionary) -> Result<(), Failure> {
        for (key, _) in catalog.entries() {
            let key = key.to_ascii_lowercase();
            let is_disk = key.starts_with("disk.") && key.ends_with(".filename");
            let Some(name) = catalog.text(&key).filter(|_| is_disk) else {
                continue;
            };
            let base = name.rsplit(['/', '\\', ']']).next().unwrap_or(name).trim();
            if self.backup.is_dir() && !self.backup.join(base).exists() {
                return Err(DiskError::not_found("restoring as the catalog says")
                    .file(file.display())
                    .expected(format!("disks of the backup {}", self.backup.display()))
                    .found(format!("{key}= {name:?}, which is not there"))
                    .hint("the catalog may say where a machine goes, not which disks it has")
                    .into());
            }
        }
        Ok(())
    }

    /// Our own verb.
    fn line(&self, dest: &Path) -> Vec<std::ffi::OsString> {
        let mut line = words(["restore"]);
        if let Some(name) = &self.name {
            // One that begins with a dash is a name all the same.
            line.push(format!("--name={name}").into());
        }
        line.push(self.backup.into());
        line.push(dest.into());
        line
    }

    /// Writes the whole backup beside what is there, and then changes the two over.
    fn replace(&self, below: &Path, dest: &Path, global: &Global) -> Result<Exit, Failure> {
        let refused = |found: String, hint: &str| {
            let e = DiskError::refused(DOING).file(dest.display());
            Err(Failure::Disk(
                e.expected(format!(
                    "the machine {} and nothing else",
                    self.machine.name
                ))
                .found(found)
                .hint(hint),
            ))
        };
        let elsewhere = "move it away, or restore below another directory";
        if !dest.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            return refused("no directory of its own".into(), elsewhere);
        }
        let inside = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a.starts_with(b),
            _ => true,
        };
        if inside(self.backup, dest) || inside(dest, self.backup) {
            return refused("the backup itself".into(), "restore it somewhere else");
        }
        let there = match one(dest.as_os_str(), "any:", global) {
            Ok(there) => there,
            Err(_) => return refused("no machine, or several".into(), elsewhere),
        };
        let called = [Some(&self.machine.name), self.name.as_ref()];
        let same_uuid = there.uuid.is_some() && there.uuid == self.machine.uuid;
        if there.config.parent() != Some(dest)
            || !(same_uuid || called.contains(&Some(&there.name)))
        {
            let found = format!("another machine, {}", there.name);
            return refused(found, elsewhere);
        }
        let listed = |e: io::Error| DiskError::io(DOING, &e).file(dest.display());
        for entry in fs::read_dir(dest).map_err(listed)? {
            let name = entry.map_err(listed)?.file_name();
            if is_lock(&name) {
                let found = format!("{}, a host's lock: it may be running", name.display());
                return refused(found, "shut the machine down first");
            }
        }
        let own = Own::of(below, dest, global)?;
        if let Some((disk, other)) = &own.shared {
            let found = format!("the disk {}, which {other} has too", disk.display());
            return refused(found, elsewhere);
        }
        let beside = |what: &str| {
            let name = format!(
                "{TEMP_PREFIX}{what}-{}-{}.tmp",
                self.dir,
                std::process::id()
            );
            below.join(name)
        };
        let new = beside("new");
        let quiet = Global {
            quiet: true,
            ..global.clone()
        };
        match run(self.line(&new), &quiet) {
            Ok(Exit::Done) => {}
            // Half a machine replaces none.
            other => {
                let _ = fs::remove_dir_all(&new);
                warn(format!("{} is as it was", dest.display()));
                return other;
            }
        }
        let failed = |e: io::Error| DiskError::io(DOING, &e).file(dest.display());
        let old = exchange(&new, dest, &beside("old")).map_err(|e| {
            let _ = fs::remove_dir_all(&new);
            failed(e)
        })?;
        let directory = fs::File::open(below).map_err(failed)?;
        directory.sync_all().map_err(failed)?;
        let left = remove_machine(&old, &own).unwrap_or(true);
        if left {
            let kept = dest.with_file_name(format!("{}.replaced-{}", self.dir, std::process::id()));
            let kept = match fs::rename(&old, &kept) {
                Ok(()) => kept,
                Err(_) => old,
            };
            warn(format!(
                "what was there held more than a machine's files: it is kept as {}",
                kept.display()
            ));
        }
        let mut out = Out::new();
        if !global.quiet {
            out.line(format!("replaced {}", dest.display()))?;
        }
        out.finish()?;
        Ok(Exit::Done)
    }
}

/// The directory in `[datastore] dir/name.vmx`.
fn directory(config: &str) -> Option<&str> {
    let path = config.rsplit(']').next().unwrap_or(config).trim();
    let (above, _) = path.rsplit_once(['/', '\\'])?;
    let dir = above.rsplit(['/', '\\']).next()?;
    (!dir.is_empty()).then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_catalog_puts_a_machine() {
        assert_eq!(directory("[ds 1] web 02/web.vmx"), Some("web 02"));
        assert_eq!(directory("/vmfs/volumes/ds/web/web.vmx"), Some("web"));
        assert_eq!(directory("[] web.vmx"), None);
        assert_eq!(directory("web.vmx"), None);
        // It is one component, whatever it says.
        assert_eq!(
            directory("[ds] ../web.vmx").map(component).as_deref(),
            Some("machine")
        );
    }
}
