//! Evidence for a terminal or a mail.

use super::Evidence;
use crate::{
    output::human,
    verb::verify::document::{ItemJson, Json, TouchedJson},
};
use disk_io::error::escape;
use std::fmt::Write;

pub(super) fn render(e: &Evidence<'_>) -> String {
    let mut out = String::new();
    // Writing into a String does not fail.
    let _ = write(&mut out, e);
    out
}

/// The result in a few words.
pub(super) fn verdict(result: &str) -> &'static str {
    match result {
        "proven" => "PROVEN: this backup would restore",
        "bad" => "BAD: do not rely on this backup",
        _ => "no damage was found, and not everything is proven",
    }
}

/// Seconds for people.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        s if s < 120 => format!("{s} s"),
        s if s < 2 * 3600 => format!("{} min", s / 60),
        s if s < 48 * 3600 => format!("{} h {} min", s / 3600, s / 60 % 60),
        s => format!("{} days", s / 86_400),
    }
}

/// Guest files that are named in a line.
const NAMED: usize = 10;

/// Which guest files something touches.
fn touches(files: &[TouchedJson]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let named: Vec<&str> = files.iter().take(NAMED).map(|f| f.path.as_str()).collect();
    let more = match files.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("; touches {}{more}", named.join(", "))
}

/// What is wrong, a line each.
pub(super) fn problems(v: &Json) -> Vec<String> {
    let items = |items: &[ItemJson]| -> Vec<String> {
        items
            .iter()
            .filter_map(|i| {
                let problem = i.problem.as_ref()?;
                Some(format!("{}: {problem}{}", i.what, touches(&i.touched)))
            })
            .collect()
    };
    let mut all = items(&v.files);
    let findings = v.structure.findings.iter().filter(|f| f.severity != "note");
    all.extend(findings.map(|f| format!("{}: {}: {}", f.severity, f.code, f.said)));
    all.extend(items(&v.contents));
    let volumes = v.guests.structure.iter().filter(|f| f.severity != "note");
    all.extend(volumes.map(|f| {
        let (place, touches) = (&f.volume, touches(&f.touched));
        format!("{place}: {}: {}: {}{touches}", f.severity, f.code, f.said)
    }));
    let failed = v.guests.failed.iter();
    all.extend(failed.map(|f| format!("{}: {}", f.path, f.problem)));
    all.extend(items(&v.baseline));
    all.extend(items(&v.restorable));
    if let Some(second) = &v.guests.cross_check {
        let differ = second.differ.iter();
        all.extend(differ.map(|f| format!("{}: {}", f.path, f.problem)));
    }
    all
}

fn write(out: &mut String, e: &Evidence<'_>) -> std::fmt::Result {
    let v = e.verify;
    writeln!(out, "{}", verdict(v.result))?;
    writeln!(out)?;
    writeln!(out, "source      {}", escape(&v.source))?;
    writeln!(out, "verified    {} to {}", e.began, e.ended)?;
    writeln!(out, "by          {} on {}", e.program, escape(&e.host))?;
    let r = &e.recovery;
    if let (Some(point), Some(age)) = (&r.point, r.age_seconds) {
        let age = duration(age.unsigned_abs());
        writeln!(out, "backup of   {} ({age} old)", escape(point))?;
    }
    writeln!(
        out,
        "read        {} at {} a second",
        human(r.read_bytes),
        human(r.read_rate)
    )?;
    if let Some(seconds) = r.restore_seconds {
        let data = human(r.data_bytes);
        writeln!(
            out,
            "restore     {data} in {} at that rate",
            duration(seconds)
        )?;
    }
    for disk in &e.disks {
        writeln!(
            out,
            "disk        {}: {}, {} of it data",
            escape(disk.name),
            human(disk.virtual_size),
            human(disk.data_bytes)
        )?;
        for volume in &disk.volumes {
            let (path, holds) = (escape(volume.path), escape(volume.holds));
            writeln!(out, "            {path}: {holds}, {}", human(volume.len))?;
        }
    }
    let g = &v.guests;
    writeln!(
        out,
        "guests      {} files of {} volumes read to their end, {}",
        g.files,
        g.volumes,
        human(g.bytes)
    )?;
    let problems = problems(v);
    if !problems.is_empty() {
        writeln!(out, "\nWrong\n")?;
        for line in &problems {
            writeln!(out, "* {}", escape(line))?;
        }
    }
    if !v.unproven.is_empty() {
        writeln!(out, "\nUnproven\n")?;
        for line in &v.unproven {
            writeln!(out, "* {}", escape(line))?;
        }
    }
    if !g.remarks.is_empty() {
        writeln!(out, "\nTo know\n")?;
        for line in &g.remarks {
            writeln!(out, "* {}", escape(line))?;
        }
    }
    writeln!(out, "\nTo restore\n")?;
    for (n, step) in e.runbook.iter().enumerate() {
        writeln!(out, "{}. {}", n + 1, escape(&step.what))?;
        if let Some(command) = &step.command {
            writeln!(out, "       {}", escape(command))?;
        }
    }
    Ok(())
}
