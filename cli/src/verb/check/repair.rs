//! `check --repair`: a mended copy.

use super::{Check, OwnerJson, RangeJson};
use crate::{
    args::Global,
    exit::{Exit, Failure},
    image_format::{Format, FormatArgs, subformat_like},
    names::{hex_if_needed, shown},
    output::{Out, human, warn},
    progress::Bar,
    signals,
    verb::create::parent_hint,
};
use convert::ImageFormat;
use disk_io::error::escape;
use guest_fs::Name;
use proxy::SourceSpec;
use serde::Serialize;
use std::path::Path;
use verify::{
    Options,
    repair::{Broken, Mended, writable},
};
use vmdk::writer::Subformat;

/// Ranges and files that are shown; --json has all of them.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct Json {
    source: String,
    destination: String,
    format: &'static str,
    /// Whether everything that SOURCE had is in the copy.
    complete: bool,
    virtual_size: u64,
    written: u64,
    files: Vec<String>,
    /// The parent that the copy has.
    parent: Option<String>,
    /// What could not be read, and is zeros.
    lost: Vec<RangeJson>,
    /// What is in the copy as SOURCE gives it, and cannot be told to be right.
    doubtful: Vec<RangeJson>,
    guest_files: Vec<OwnerJson>,
    how: Vec<String>,
    /// What `check` says of the copy.
    result: &'static str,
}

impl Check {
    pub(super) fn repair(
        &self,
        spec: &SourceSpec,
        out: &Path,
        global: &Global,
    ) -> Result<Exit, Failure> {
        signals::watch();
        let broken = Broken::open(spec, &mut |_| {})?;
        writable(broken.format, &spec.path)?;
        for how in &broken.how {
            warn(escape(how));
        }
        let (format, parent) = as_it_was(&broken, out)?;
        let bar = Bar::new(global, broken.len());
        let mended = broken.mend(out, &format, (self.force, self.jobs), &bar)?;
        drop(bar);
        // It has to be as sound as what we write always is.
        let copy = SourceSpec {
            path: out.to_path_buf(),
            allow_dirs: broken.dirs().to_vec(),
            ..SourceSpec::default()
        };
        let options = Options {
            decode: true,
            files: false,
            guests: false,
            jobs: self.jobs,
        };
        let report = verify::check(&copy, &options, &mut |_| {})?;
        let result = if report.is_bad() { "bad" } else { "sound" };
        self.tell(&broken, &mended, out, parent, result, global)?;
        Ok(match (report.is_bad(), mended.is_complete()) {
            (true, _) => Exit::Bad,
            (false, true) => Exit::Done,
            (false, false) => Exit::Partial,
        })
    }

    fn tell(
        &self,
        broken: &Broken,
        mended: &Mended,
        dest: &Path,
        parent: Option<String>,
        result: &'static str,
        global: &Global,
    ) -> Result<(), Failure> {
        let mut out = Out::new();
        let files = mended.files.iter().map(|f| f.display().to_string());
        if self.json {
            let touched = mended.touched.iter().map(|t| OwnerJson {
                path: shown(&t.path),
                path_hex: hex_if_needed(&t.path),
                bytes: t.bytes,
            });
            let range = |r: &std::ops::Range<u64>| RangeJson {
                offset: r.start,
                length: r.end.saturating_sub(r.start),
            };
            out.document(&Json {
                source: self.source.source.display().to_string(),
                destination: dest.display().to_string(),
                format: broken.format.name(),
                complete: mended.is_complete(),
                virtual_size: mended.len,
                written: mended.written,
                files: files.collect(),
                parent,
                lost: mended.lost.iter().map(range).collect(),
                doubtful: mended.doubtful.iter().map(range).collect(),
                guest_files: touched.collect(),
                how: broken.how.clone(),
                result,
            })?;
            return out.finish();
        }
        if !global.quiet {
            for file in files {
                out.line(format!("created       {file}"))?;
            }
            if let Some(parent) = parent {
                out.line(format!("parent        {parent}"))?;
            }
            out.line(format!("check of it   {result}"))?;
        }
        if mended.is_complete() {
            out.line("everything that SOURCE had could be read")?;
        }
        for (ranges, what) in [
            (&mended.lost, "LOST: # could not be read, and are zeros now"),
            (
                &mended.doubtful,
                "DOUBTFUL: # are as SOURCE gives them, and cannot be told to be right",
            ),
        ] {
            if ranges.is_empty() {
                continue;
            }
            let bytes: u64 = ranges.iter().map(|r| r.end - r.start).sum();
            out.line(what.replace('#', &human(bytes)))?;
            for range in ranges.iter().take(SHOWN) {
                let len = human(range.end - range.start);
                out.line(format!("  at {}, {len}", range.start))?;
            }
        }
        for touched in mended.touched.iter().take(SHOWN) {
            let path = Name::from_bytes(touched.path.clone());
            out.line(format!("  touches {path}"))?;
        }
        let most = mended.lost.len().max(mended.doubtful.len());
        if most.max(mended.touched.len()) > SHOWN {
            out.line("  and more: --json has all of them")?;
        }
        out.finish()
    }
}

/// Written as SOURCE is, and the parent's name.
fn as_it_was(broken: &Broken, out: &Path) -> Result<(ImageFormat, Option<String>), Failure> {
    let args = FormatArgs::default();
    let format = match broken.format {
        disk_image::Format::Raw => Format::Raw,
        disk_image::Format::Qcow2 => Format::Qcow2,
        disk_image::Format::Vhd => Format::Vhd,
        disk_image::Format::Vhdx => Format::Vhdx,
        disk_image::Format::Vdi => Format::Vdi,
        _ => Format::Vmdk,
    };
    let mut chosen = args.format(format, broken.sector_size(), false)?;
    let mut named = None;
    if let ImageFormat::Vmdk(options) = &mut chosen {
        let create_type = broken.top.as_ref().and_then(|t| t.create_type.as_deref());
        // The same parent, with the content id that it has: what is read is read through it.
        let parent = broken.parent.as_ref().and_then(|p| Some((p, p.cid?)));
        options.subformat = match create_type.and_then(|t| t.parse().ok()) {
            Some(stream @ Subformat::StreamOptimized) if parent.is_none() => stream,
            _ => subformat_like(create_type, parent.is_some()),
        };
        if let Some((parent, cid)) = parent {
            let name = parent_hint(out, &parent.path)?;
            options.identity.parent = Some((cid, name.clone()));
            named = Some(name);
        }
    }
    Ok((chosen, named))
}
