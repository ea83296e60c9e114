//! `history`: the versions of one guest file over all restore points.

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure, tell_doubts, tell_path_error},
    names::{check_path, hex_if_needed, shown},
    output::{Out, table, warn},
    since,
    source::spec_of,
    times::Zone,
};
use clap::Args;
use convert::backup::digest_of;
use disk_io::{DiskError, ErrorKind};
use guest_fs::{Metadata, NodeKind};
use inventory::vm::rfc3339;
use proxy::{Machines, SourceSpec, Tree, TreeOptions, Warn};
use serde::Serialize;
use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStrExt, sync::Arc};

/// List the versions of one guest file over all snapshots and dated backups
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit history web01 /Users/anna/budget.xls
  vmdkit history /backups/web01 /scsi0-0/p1/etc/fstab
  vmdkit history --json web01 PATH | jq -r '.versions[] | select(.changed) | .point'

Then: vmdkit cp web01 --snapshot id:3 PATH DEST. The oldest is first. A version is marked
where size, time or contents are not those of the one before.")]
pub(crate) struct History {
    #[command(flatten)]
    source: SourceArgs,
    /// The file, as of any state
    #[arg(value_name = "PATH")]
    path: OsString,
    /// Do not read the contents: versions are told apart by size and time
    #[arg(long)]
    no_hash: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    versions: Vec<Version>,
}

#[derive(Serialize)]
struct Version {
    /// Name of the restore point.
    point: String,
    /// What `--snapshot` takes.
    selector: String,
    /// When it was taken.
    taken: Option<String>,
    exists: bool,
    size: Option<u64>,
    modified: Option<String>,
    sha256: Option<String>,
    /// Not the same as in the point before.
    changed: bool,
    error: Option<String>,
}

impl History {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        check_path(&self.path)?;
        let spec = spec_of(&self.source, global)?;
        let Some(machines) = spec.machines()? else {
            // What is not there has no state at all.
            spec.locate()?;
            return Err(Failure::usage_with(
                "SOURCE is one disk, which has one state",
                "name a machine (.vmx or directory) or a directory of dated backups",
            ));
        };
        let points = points(&spec, &machines)?;
        let zone = global.zone();
        let mut versions: Vec<Version> = Vec::new();
        let (mut doubtful, mut said) = (false, BTreeSet::new());
        for OnePoint {
            name,
            selector,
            taken,
            at,
        } in points
        {
            let mut version = Version {
                point: name,
                selector,
                taken,
                exists: false,
                size: None,
                modified: None,
                sha256: None,
                changed: false,
                error: None,
            };
            match at.and_then(|at| self.look(&at, &zone, global, &mut version, &mut said)) {
                Ok(found) => doubtful |= found,
                Err(e) if e.kind() == ErrorKind::Ambiguous => return Err(e.into()),
                Err(e) => {
                    let said = version.point.clone();
                    tell_path_error(said.as_bytes(), &e);
                    version.error = Some(e.to_string());
                }
            }
            let facts = |v: &Version| (v.exists, v.size, v.modified.clone(), v.sha256.clone());
            version.changed = versions.last().is_none_or(|b| facts(b) != facts(&version));
            versions.push(version);
        }
        let failed = versions.iter().any(|v| v.error.is_some());
        if !versions.iter().any(|v| v.exists) && !failed {
            let e = DiskError::not_found("looking for the file in every restore point")
                .file(guest_fs::Name::from_bytes(self.path.as_bytes()))
                .found(format!("none of {} has it", versions.len()));
            return Err(e.into());
        }
        let mut out = Out::new();
        if self.json {
            out.document(&Json {
                path: shown(self.path.as_bytes()),
                path_hex: hex_if_needed(self.path.as_bytes()),
                versions,
            })?;
        } else {
            for line in lines(&versions) {
                out.line(line)?;
            }
        }
        out.finish()?;
        Ok(Exit::partial_if(failed || doubtful))
    }

    /// Looks at one point, and tells whether something there speaks against what was found; an
    /// error where it cannot be told whether the file is there.
    fn look(
        &self,
        at: &At,
        zone: &Zone,
        global: &Global,
        version: &mut Version,
        said: &mut BTreeSet<String>,
    ) -> disk_io::Result<bool> {
        let mut spec = at.spec.clone();
        since::allow(&mut spec)?;
        let tree = Tree::of(
            &spec,
            TreeOptions {
                warn: Some(Warn(Arc::new(|told: &str| warn(told)))),
                ..TreeOptions::default()
            },
        )?;
        // What is said of the machine is said at each of its points.
        for told in tree.warnings() {
            if said.insert(told.clone()) {
                warn(told);
            }
        }
        let path = self.path.as_bytes();
        let found = match tree.resolve(path) {
            // It may be where nothing could be looked for: that is not the same as absent.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if let Some(why) = tree.unsearched(path) {
                    return Err(why);
                }
                return match at.lost.as_slice() {
                    [] => Ok(false),
                    lost => Err(e.found(format!("a restore point of which {}", lost.join("; ")))),
                };
            }
            found => found?,
        };
        let mut doubtful = tell_doubts(&found);
        for why in tree.doubts(found.node) {
            warn(format!("{}: {}: {why}", version.point, found.path));
            doubtful = true;
        }
        let mut metadata: Metadata = tree.metadata(found.node)?;
        zone.settle_all(&mut metadata, global.tz.is_some());
        if metadata.kind == NodeKind::Directory {
            warn(format!(
                "{}: {} is a directory: what is in it is not compared",
                version.point, found.path
            ));
        }
        version.exists = true;
        version.size = Some(metadata.size);
        version.modified = metadata.modified.map(|t| zone.rfc3339(t));
        if metadata.kind == NodeKind::File && !self.no_hash {
            let file = tree.open(found.node, found.stream.as_ref())?;
            version.size = Some(file.len());
            let digest = digest_of(&file, convert::DigestKind::Sha256, 0, &convert::NoProgress)?;
            version.sha256 = Some(digest.hex());
        }
        Ok(doubtful)
    }
}

/// A restore point.
struct OnePoint {
    name: String,
    /// What `--snapshot` takes.
    selector: String,
    taken: Option<String>,
    /// How to open it; the error where it cannot be.
    at: disk_io::Result<At>,
}

struct At {
    spec: SourceSpec,
    /// Disks of it that are not known.
    lost: Vec<String>,
}

/// Every restore point, the oldest first as far as that is known; the present state last.
fn points(spec: &SourceSpec, machines: &Machines) -> Result<Vec<OnePoint>, Failure> {
    match machines {
        Machines::One(machine) => {
            let mut points: Vec<_> = machine.vm().points.iter().collect();
            points.sort_by_key(|p| (p.uid.is_none(), p.created, p.uid));
            let points = points.into_iter().map(|p| {
                let selector = match p.uid {
                    Some(uid) => format!("id:{uid}"),
                    None => "current".into(),
                };
                let spec = SourceSpec {
                    snapshot: Some(selector.clone()),
                    ..spec.clone()
                };
                OnePoint {
                    name: p.name.clone(),
                    selector,
                    taken: p.created.map(rfc3339),
                    at: Ok(At {
                        spec,
                        lost: p.lost.clone(),
                    }),
                }
            });
            Ok(points.collect())
        }
        Machines::Dated(backups) => {
            let points = backups.in_order().into_iter().map(|(name, machine)| {
                let spec = SourceSpec {
                    path: spec.path.join(name),
                    snapshot: None,
                    ..spec.clone()
                };
                let lost = Vec::new();
                OnePoint {
                    name: name.to_owned(),
                    selector: format!("date:{name}"),
                    taken: None,
                    at: machine.map(|_| At { spec, lost }),
                }
            });
            Ok(points.collect())
        }
        // Whose file is meant is not known.
        Machines::Forest(_) => Err(match machines.only(None) {
            Err(e) => e.into(),
            Ok(_) => Failure::usage("SOURCE has several machines"),
        }),
    }
}

fn lines(versions: &[Version]) -> Vec<String> {
    let mut rows = vec![
        ["", "POINT", "SELECTOR", "SIZE", "MODIFIED", "SHA-256"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for v in versions {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        rows.push(vec![
            if v.changed { "*" } else { "" }.to_owned(),
            disk_io::error::escape(&v.point),
            v.selector.clone(),
            match (v.size, &v.error) {
                (Some(size), _) => size.to_string(),
                (None, Some(_)) => "unknown".into(),
                (None, None) => "absent".into(),
            },
            or(&v.modified),
            v.sha256
                .as_deref()
                .map_or_else(|| "-".into(), |h| h.chars().take(16).collect()),
        ]);
    }
    table(&rows, &[3])
}
