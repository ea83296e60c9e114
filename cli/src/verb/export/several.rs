//! Several machines of one place, some of them at once.

use super::{Export, is_newest, shared::Shared};
use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure},
    names::component,
    output::{self, Out},
    signals,
    source::spec_of,
};
use disk_io::{DiskError, error::escape};
use inventory::{Inventory, Vm};
use proxy::machine::{Scanned, scan};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

#[derive(Serialize)]
struct Json {
    destination: String,
    machines: Vec<MachineJson>,
}

#[derive(Serialize)]
struct MachineJson {
    name: String,
    directory: String,
    /// `done`, `partial` or `failed`.
    result: &'static str,
    error: Option<String>,
}

/// How the export of one machine ended.
struct End {
    exit: Exit,
    error: Option<String>,
}

/// A machine and where it goes.
struct Job {
    name: String,
    export: Export,
    /// The machine's number in its place, and that place.
    place: (usize, usize),
}

impl Export {
    /// Exports every machine of SOURCE that is selected into a directory of its name below DEST.
    pub(super) fn several(&self, global: &Global) -> Result<Exit, Failure> {
        let one_only = self.source.how.disk.is_some()
            || self.dest.as_os_str() == "-"
            || !self.changed_blocks.is_empty();
        if one_only {
            return Err(Failure::usage_with(
                "--changed-blocks, --disk and - are for one machine",
                "leave out --select, and name the machine's configuration",
            ));
        }
        if let Some(since) = &self.since
            && (!is_newest(since) || self.keep.is_none())
        {
            return Err(Failure::usage_with(
                "of several machines each builds on its own newest backup",
                "say --since newest, and --keep N, which gives each backup a directory of its own",
            ));
        }
        signals::watch();
        let jobs = self.jobs_of(global)?;
        if jobs.is_empty() {
            return Err(DiskError::not_found("looking for virtual machines")
                .file(self.source.source.display())
                .expected(self.select.join(", "))
                .found("none that fits")
                .hint("vmdkit vm lists them")
                .into());
        }
        std::fs::create_dir_all(&self.dest)
            .map_err(|e| DiskError::io("making the directory", &e).file(self.dest.display()))?;
        let next = AtomicUsize::new(0);
        let ends: Mutex<Vec<(usize, End)>> = Mutex::default();
        let quiet = Global {
            quiet: true,
            ..global.clone()
        };
        std::thread::scope(|scope| {
            for _ in 0..self.at_once.min(jobs.len()) {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(n) else { return };
                        if signals::caught().is_some() {
                            return;
                        }
                        let end = output::about(&job.name, || job.run(&quiet, global.quiet));
                        ends.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((n, end));
                    }
                });
            }
        });
        if let Some(n) = signals::caught() {
            return Ok(Exit::Signal(n));
        }
        let mut ends = ends.into_inner().unwrap_or_else(PoisonError::into_inner);
        ends.sort_by_key(|(n, _)| *n);
        let exits = || ends.iter().map(|(_, end)| end.exit);
        let done = exits().filter(|e| *e == Exit::Done).count();
        let some = exits().any(|e| matches!(e, Exit::Done | Exit::Partial));
        if self.json {
            let machines = ends.iter().filter_map(|(n, end)| {
                let job = jobs.get(*n)?;
                Some(MachineJson {
                    name: job.name.clone(),
                    directory: job.export.dest.display().to_string(),
                    result: match end.exit {
                        Exit::Done => "done",
                        Exit::Partial => "partial",
                        _ => "failed",
                    },
                    error: end.error.clone(),
                })
            });
            let mut out = Out::new();
            out.document(&Json {
                destination: self.dest.display().to_string(),
                machines: machines.collect(),
            })?;
            out.finish()?;
        }
        if !global.quiet {
            output::say(format_args!("{done} of {} machines exported", jobs.len()));
        }
        Ok(match (done == jobs.len(), some) {
            (true, _) => Exit::Done,
            // Those that are there are whole.
            (false, true) => Exit::Partial,
            (false, false) => Exit::Failed,
        })
    }

    fn jobs_of(&self, global: &Global) -> Result<Vec<Job>, Failure> {
        let mut jobs = Vec::new();
        let mut names = BTreeSet::new();
        for (place, scanned) in scan(&spec_of(&self.source, global)?)?.iter().enumerate() {
            for warning in &scanned.inventory.warnings {
                output::warn(warning);
            }
            // The order of the list is that of the inventory, each once.
            let chosen = |vm: &Vm| {
                let is = |s: &String| {
                    let found = scanned.inventory.select(s);
                    found.iter().any(|v| std::ptr::eq(*v, vm))
                };
                self.select.iter().any(is)
            };
            let all = &scanned.inventory.vms;
            let chosen: Vec<usize> = (0..all.len())
                .filter(|n| all.get(*n).is_some_and(chosen))
                .collect();
            for n in &chosen {
                let Some(vm) = all.get(*n) else { continue };
                let name = unused(&mut names, &component(&vm.name()));
                let export = Self {
                    source: self.source_of(scanned, vm),
                    dest: self.destination(&name),
                    jobs: self.jobs.max(1),
                    select: Vec::new(),
                    json: false,
                    ..self.clone()
                };
                jobs.push(Job {
                    name,
                    export,
                    place: (place, *n),
                });
            }
            share(&mut jobs, place, &scanned.inventory);
        }
        Ok(jobs)
    }

    /// With generations, each in a directory of its time.
    fn destination(&self, name: &str) -> PathBuf {
        match (self.keep, self.to.format()) {
            (Some(_), _) => {
                let now = crate::clock::now().strftime("%Y-%m-%dT%H%M%SZ");
                self.dest.join(name).join(now.to_string())
            }
            (None, None) => self.dest.join(format!("{name}.ova")),
            (None, Some(_)) => self.dest.join(name),
        }
    }

    /// How a machine of the place is named as SOURCE.
    fn source_of(&self, scanned: &Scanned, vm: &Vm) -> SourceArgs {
        let inside = vm.dir.join(&vm.config_file);
        let mut how = self.source.how.clone();
        let own = &self.source.source;
        let source = match scanned.datastores() {
            Some(stores) => {
                how.datastore = stores.to_vec();
                inside
            }
            // A configuration itself.
            None if own.is_file() => own.clone(),
            // The directory was named: everything in it is meant, disks that machines share too.
            None => {
                how.allow_dir.push(own.clone());
                own.join(inside)
            }
        };
        SourceArgs { source, how }
    }
}

/// Machines of a place that share disks with each other know what of them was written.
fn share(jobs: &mut [Job], place: usize, inventory: &Inventory) {
    let shared = Shared::default();
    for machines in inventory.shared_disks().values() {
        let has = |j: &Job| j.place.0 == place && machines.contains(&j.place.1);
        if jobs.iter().filter(|j| has(j)).count() > 1 {
            for job in jobs.iter_mut().filter(|j| has(j)) {
                job.export.shared = Some(shared.clone());
            }
        }
    }
}

impl Job {
    fn run(&self, quiet: &Global, silent: bool) -> End {
        let _turn = self.export.shared.as_ref().map(Shared::turn);
        match self.export(quiet) {
            Ok(exit) => {
                if !silent {
                    let how = if exit == Exit::Partial {
                        ", in part"
                    } else {
                        ""
                    };
                    let dest = self.export.dest.display().to_string();
                    let (name, dest) = (escape(&self.name), escape(&dest));
                    output::say(format_args!("{name}: {dest}{how}"));
                }
                End { exit, error: None }
            }
            // One machine that cannot be exported does not keep the others.
            Err(e) => {
                output::say(format_args!("{}: failed", escape(&self.name)));
                e.tell();
                End {
                    exit: Exit::Failed,
                    error: Some(e.text()),
                }
            }
        }
    }

    fn export(&self, quiet: &Global) -> Result<Exit, Failure> {
        if let Some(parent) = self.export.dest.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|e| DiskError::io("making the directory", &e).file(parent.display()))?;
        }
        self.export.clone().run(quiet)
    }
}

/// The name, or where another machine has it the first with a number that none has.
fn unused(names: &mut BTreeSet<String>, name: &str) -> String {
    let mut all = std::iter::once(name.to_owned()).chain((2u32..).map(|n| format!("{name} ({n})")));
    let free = all.find(|n| !names.contains(n)).unwrap_or_default();
    names.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_stay_in_the_directory_and_apart() {
        for name in ["web", "..", "a/b", "/etc", "", "x\0y"] {
            let path = Path::new("/d").join(component(name));
            assert_eq!(path.parent(), Some(Path::new("/d")), "{name}");
        }
        let mut names = BTreeSet::new();
        let got: Vec<_> = (0..3).map(|_| unused(&mut names, "web")).collect();
        assert_eq!(got, ["web", "web (2)", "web (3)"]);
    }
}
