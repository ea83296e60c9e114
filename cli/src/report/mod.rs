//! Evidence of a verification, in files for people and for programs.

mod html;
mod junit;
mod metrics;
mod runbook;
pub(crate) mod signature;
mod text;

use crate::{exit::Failure, verb::verify::document::Json};
use convert::{backup::manifest, place::Partial};
use disk_io::{DiskError, output::write_error};
use proxy::SourceSpec;
use serde::Serialize;
use std::{
    io::Write,
    path::{Path, PathBuf},
};
use verify::backup::{Picture, Verified};

/// What a file of evidence is written as, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Text,
    Html,
    Junit,
    Metrics,
}

impl Form {
    fn of(path: &Path) -> Option<Self> {
        let end = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match end.as_str() {
            "json" => Self::Json,
            "txt" | "text" => Self::Text,
            "html" | "htm" => Self::Html,
            "xml" => Self::Junit,
            "prom" => Self::Metrics,
            _ => return None,
        })
    }
}

/// A file that evidence goes to.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
    form: Form,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        match Form::of(&path) {
            Some(form) => Ok(Self { path, form }),
            None => Err("the name must end in .json, .txt, .html, .xml (JUnit) or .prom".into()),
        }
    }
}

/// All that is known of a verification.
#[derive(Serialize)]
pub(crate) struct Evidence<'a> {
    format: &'static str,
    version: u32,
    program: String,
    /// Where it was verified.
    host: String,
    began: String,
    ended: String,
    seconds: f64,
    verify: &'a Json,
    disks: Vec<DiskJson<'a>>,
    recovery: Recovery,
    runbook: Vec<runbook::Step>,
}

/// A disk at a glance.
#[derive(Serialize)]
struct DiskJson<'a> {
    name: &'a str,
    virtual_size: u64,
    data_bytes: u64,
    /// Length of a cell in bytes.
    cell: u64,
    /// Of every cell how much is data, in thousandths.
    cells: &'a [u16],
    volumes: Vec<AreaJson<'a>>,
    starts: Option<&'static str>,
}

#[derive(Serialize)]
struct AreaJson<'a> {
    path: &'a str,
    offset: Option<u64>,
    len: u64,
    holds: &'a str,
    used: Option<u64>,
}

/// How old the point is, and how long getting it back would take.
#[derive(Serialize)]
struct Recovery {
    /// When the backup was made.
    point: Option<String>,
    /// Seconds from then to the end of the verification.
    age_seconds: Option<i64>,
    /// Bytes of disks and guest files that were read.
    read_bytes: u64,
    /// Bytes a second while they were read.
    read_rate: u64,
    /// Bytes that a restore writes into disks that grow.
    data_bytes: u64,
    /// Bytes of the disks, written thick.
    virtual_bytes: u64,
    /// What writing the data takes at that rate.
    restore_seconds: Option<u64>,
}

/// When it was done.
pub(crate) struct Run {
    pub(crate) began: jiff::Timestamp,
    pub(crate) ended: jiff::Timestamp,
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(
        source: &Path,
        document: &'a Json,
        verified: &'a Verified,
        run: &Run,
    ) -> Self {
        let seconds = run.ended.duration_since(run.began).as_secs_f64();
        let sum = |f: fn(&Picture) -> u64| verified.pictures.iter().map(f).sum::<u64>();
        let data = sum(|p| p.data);
        // Holes cost nothing, and are not counted.
        let read = data.saturating_add(verified.guests.bytes);
        let rate = (read as f64 / seconds.max(0.001)) as u64;
        let point = verified.created.clone();
        let made = point
            .as_ref()
            .and_then(|p| p.parse::<jiff::Timestamp>().ok());
        let recovery = Recovery {
            age_seconds: made.map(|made| run.ended.duration_since(made).as_secs()),
            point,
            read_bytes: read,
            read_rate: rate,
            data_bytes: data,
            virtual_bytes: sum(|p| p.len),
            restore_seconds: data.checked_div(rate),
        };
        let runbook = runbook::steps(source, verified, &recovery);
        let name = rustix::system::uname();
        Self {
            format: "vmdkit-evidence",
            version: 1,
            program: format!("vmdkit {}", env!("CARGO_PKG_VERSION")),
            host: name.nodename().to_string_lossy().into_owned(),
            began: run.began.to_string(),
            ended: run.ended.to_string(),
            seconds,
            verify: document,
            disks: verified.pictures.iter().map(disk).collect(),
            recovery,
            runbook,
        }
    }

    /// Writes one file of evidence.
    pub(crate) fn write(&self, place: &Place) -> Result<(), Failure> {
        let bytes = match place.form {
            Form::Json => {
                let mut text = serde_json::to_vec_pretty(self)?;
                text.push(b'\n');
                text
            }
            Form::Text => text::render(self).into_bytes(),
            Form::Html => html::render(self).into_bytes(),
            Form::Junit => junit::render(self)?,
            Form::Metrics => metrics::render(self).into_bytes(),
        };
        // Reports are made again and again under the same name.
        let partial = Partial::create(&place.path, true)?;
        partial
            .file()
            .write_all(&bytes)
            .map_err(|e| write_error("writing the report", &place.path, &e))?;
        Ok(partial.finish()?)
    }
}

fn disk(picture: &Picture) -> DiskJson<'_> {
    let volumes = picture.areas.iter().map(|a| AreaJson {
        path: &a.path,
        offset: a.range.as_ref().map(|r| r.start),
        len: a.len,
        holds: &a.what,
        used: a.used,
    });
    DiskJson {
        name: &picture.name,
        virtual_size: picture.len,
        data_bytes: picture.data,
        cell: picture.cell,
        cells: &picture.cells,
        volumes: volumes.collect(),
        starts: picture.boot,
    }
}

/// Every file of evidence; none of them may be part of what was verified.
pub(crate) fn write_all(
    evidence: &Evidence<'_>,
    places: &[Place],
    sources: &[PathBuf],
    key: Option<&signature::Key>,
) -> Result<(), Failure> {
    for place in places {
        let sources = sources.iter().map(PathBuf::as_path);
        convert::place::check_not_source(&place.path, sources)?;
        evidence.write(place)?;
        if let Some(key) = key {
            key.sign(&place.path)?;
        }
    }
    Ok(())
}

/// A report that was asked for and cannot be, known before anything is read.
pub(crate) fn check_places(places: &[Place], spec: &SourceSpec) -> Result<(), Failure> {
    for place in places {
        check_beside(&place.path, spec)?;
        drop(Partial::create(&place.path, true)?);
    }
    Ok(())
}

/// In a backup a report would be a file that its manifest does not know: this run could write it,
/// and every later one would call the backup unproven.
fn check_beside(report: &Path, spec: &SourceSpec) -> Result<(), Failure> {
    let backup = &spec.path;
    let is_backup = spec.datastores.is_empty() && backup.join(manifest::NAME).is_file();
    let above = match report.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let real = |path: &Path| path.canonicalize().ok();
    if !is_backup || real(above).is_none() || real(above) != real(backup) {
        return Ok(());
    }
    Err(DiskError::refused("writing the report")
        .file(report.display())
        .expected("a place beside the backup")
        .found("one in it, whose files its manifest lists")
        .hint("give it a name outside of the backup's directory")
        .into())
}
