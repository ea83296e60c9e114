//! Evidence as one page that needs nothing else: no script, no network.

use super::{
    AreaJson, DiskJson, Evidence,
    text::{duration, problems, verdict},
};
use crate::{output::human, verb::verify::document::ItemJson};
use quick_xml::escape::escape;
use std::{fmt::Write, ops::Range};

const STYLE: &str = "\
:root{--ink:#1c1e21;--dim:#5f6670;--line:#d9dce1;--page:#fff;--soft:#f4f5f7;--data:#2f6db3;--bad:#b3261e;--good:#1b7f3b;--odd:#8a5a00}\
@media(prefers-color-scheme:dark){:root{--ink:#e8e9eb;--dim:#a0a6b0;--line:#3a3f47;--page:#16181b;--soft:#1f2226;--data:#6ea8e8;--bad:#ff8a80;--good:#6fd08c;--odd:#e0b45a}}\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
main{max-width:64rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}\
.verdict{border-left:.4rem solid var(--odd);background:var(--soft);padding:.8rem 1rem;font-weight:600}.proven{border-color:var(--good)}.bad{border-color:var(--bad)}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line)}th{color:var(--dim);font-weight:500;white-space:nowrap}\
code,pre{font:13px/1.5 ui-monospace,monospace}pre{background:var(--soft);padding:.4rem .7rem;margin:.3rem 0;overflow-x:auto}td{overflow-wrap:anywhere}\
svg{display:block;width:100%;height:auto;margin:.4rem 0}.no{color:var(--bad)}.ok{color:var(--good)}.dim{color:var(--dim)}ol,ul{padding-left:1.3rem}li{margin:.3rem 0;overflow-wrap:anywhere}";

pub(super) fn render(e: &Evidence<'_>) -> String {
    let mut out = String::new();
    // Writing into a String does not fail.
    let _ = page(&mut out, e);
    out
}

fn page(out: &mut String, e: &Evidence<'_>) -> std::fmt::Result {
    let v = e.verify;
    let title = escape(v.source.as_str());
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}: {}</title><style>{STYLE}</style></head>\n<body><main>\
         <h1>{title}</h1><p class=\"verdict {}\">{}</p>\n",
        v.result,
        v.result,
        verdict(v.result)
    )?;
    summary(out, e)?;
    let wrong = problems(v);
    if !wrong.is_empty() {
        list(out, "What is wrong", &wrong)?;
    }
    if !v.unproven.is_empty() {
        list(out, "What is not proven", &v.unproven)?;
    }
    if !v.guests.remarks.is_empty() {
        list(out, "What to know", &v.guests.remarks)?;
    }
    for disk in &e.disks {
        let found = ranges(e, disk);
        writeln!(out, "<h2>Disk {}</h2>", escape(disk.name))?;
        picture(out, disk, &found)?;
    }
    writeln!(out, "<h2>How to restore</h2><ol>")?;
    for step in &e.runbook {
        write!(out, "<li>{}", escape(step.what.as_str()))?;
        if let Some(command) = &step.command {
            write!(out, "<pre>{}</pre>", escape(command.as_str()))?;
        }
        writeln!(out, "</li>")?;
    }
    writeln!(out, "</ol>")?;
    for (title, items) in [
        ("Files of the backup", &v.files),
        ("Contents", &v.contents),
        ("Baseline", &v.baseline),
        ("Restorable", &v.restorable),
    ] {
        if !items.is_empty() {
            table(out, title, items)?;
        }
    }
    writeln!(
        out,
        "<p class=\"dim\">{}, format {} version {}</p></main></body></html>",
        escape(e.program.as_str()),
        e.format,
        e.version
    )
}

fn summary(out: &mut String, e: &Evidence<'_>) -> std::fmt::Result {
    let (v, r) = (e.verify, &e.recovery);
    writeln!(out, "<table>")?;
    let mut row = |name: &str, value: String| {
        writeln!(
            out,
            "<tr><th>{name}</th><td>{}</td></tr>",
            escape(value.as_str())
        )
    };
    row("Verified", format!("{} on {}", e.ended, e.host))?;
    if let (Some(point), Some(age)) = (&r.point, r.age_seconds) {
        let age = duration(age.unsigned_abs());
        row("Backup of", format!("{point}, {age} old"))?;
    }
    let (read, rate) = (human(r.read_bytes), human(r.read_rate));
    row(
        "Read",
        format!("{read}, {rate} a second, in {:.1} s", e.seconds),
    )?;
    if let Some(seconds) = r.restore_seconds {
        let data = human(r.data_bytes);
        let time = duration(seconds);
        row("To restore", format!("{data}, {time} at that rate"))?;
    }
    let s = &v.structure;
    row(
        "Structure",
        format!(
            "{} links: {} damage, {} warnings, {} notes",
            s.layers, s.damage, s.warnings, s.notes
        ),
    )?;
    let g = &v.guests;
    row(
        "Guest files",
        format!(
            "{} of {} volumes read to their end, {}; {} not readable",
            g.files,
            g.volumes,
            human(g.bytes),
            (g.failed.len() as u64).saturating_add(g.dropped)
        ),
    )?;
    if let Some(second) = &g.cross_check {
        row(
            "Second reader",
            format!(
                "{} files the same, {} otherwise",
                second.same,
                second.differ.len()
            ),
        )?;
    }
    writeln!(out, "</table>")
}

fn list(out: &mut String, title: &str, lines: &[String]) -> std::fmt::Result {
    writeln!(out, "<h2>{title}</h2><ul>")?;
    for line in lines {
        writeln!(out, "<li>{}</li>", escape(line.as_str()))?;
    }
    writeln!(out, "</ul>")
}

fn table(out: &mut String, title: &str, items: &[ItemJson]) -> std::fmt::Result {
    writeln!(out, "<h2>{title}</h2><table>")?;
    for item in items {
        let (class, word) = match &item.problem {
            None => ("ok", "as it should be".to_owned()),
            Some(problem) => ("no", problem.clone()),
        };
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"{class}\">{}</td></tr>",
            escape(item.what.as_str()),
            escape(word.as_str())
        )?;
    }
    writeln!(out, "</table>")
}

/// Ranges of a disk in which something is wrong.
fn ranges(e: &Evidence<'_>, disk: &DiskJson<'_>) -> Vec<Range<u64>> {
    let v = e.verify;
    let only = e.disks.len() == 1;
    let mine = |what: &str| only || what.split(' ').any(|word| word == disk.name);
    let items = v.contents.iter().filter(|i| mine(&i.what));
    let mut all: Vec<Range<u64>> = items
        .flat_map(|i| &i.ranges)
        .map(|r| r.offset..r.offset.saturating_add(r.len))
        .collect();
    // Of several disks a finding of the structure does not say which.
    let findings = v.structure.findings.iter().filter(|_| only);
    all.extend(
        findings
            .flat_map(|f| &f.ranges)
            .map(|r| r.offset..r.offset.saturating_add(r.len)),
    );
    all
}

const WIDTH: u64 = 1024;

/// A bar of what is data, what is wrong above it, and the volumes below.
fn picture(out: &mut String, disk: &DiskJson<'_>, wrong: &[Range<u64>]) -> std::fmt::Result {
    let rows = disk.volumes.len() as u64;
    let height = 62 + rows * 22;
    let len = disk.virtual_size.max(1);
    let x = |at: u64| (u128::from(at.min(len)) * u128::from(WIDTH) / u128::from(len)) as u64;
    let data = human(disk.data_bytes);
    let size = human(disk.virtual_size);
    writeln!(
        out,
        "<p class=\"dim\">{size}, {data} of it data. {}</p>",
        match disk.starts {
            Some(what) => format!("It starts from {what}."),
            None => "Nothing that it starts from is known.".to_owned(),
        }
    )?;
    writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{data} of {size} are data\" font-size=\"12\" font-family=\"system-ui,sans-serif\">\
         <rect x=\"0\" y=\"14\" width=\"{WIDTH}\" height=\"30\" fill=\"var(--soft)\" stroke=\"var(--line)\"/>"
    )?;
    for (n, filled) in (0u64..).zip(disk.cells) {
        if *filled == 0 {
            continue;
        }
        let from = x(n.saturating_mul(disk.cell));
        let to = x(n.saturating_add(1).saturating_mul(disk.cell)).max(from + 1);
        let shade = 0.25 + 0.75 * f64::from(*filled) / 1000.0;
        writeln!(
            out,
            "<rect x=\"{from}\" y=\"14\" width=\"{}\" height=\"30\" fill=\"var(--data)\" opacity=\"{shade:.2}\"/>",
            to - from
        )?;
    }
    for range in wrong {
        let (from, to) = (x(range.start), x(range.end));
        writeln!(
            out,
            "<rect x=\"{from}\" y=\"2\" width=\"{}\" height=\"54\" fill=\"var(--bad)\"><title>wrong at {}</title></rect>",
            to.saturating_sub(from).max(2),
            range.start
        )?;
    }
    for (n, volume) in (0u64..).zip(&disk.volumes) {
        area(out, volume, 62 + n * 22, &x)?;
    }
    writeln!(out, "</svg>")
}

fn area(
    out: &mut String,
    volume: &AreaJson<'_>,
    y: u64,
    x: &dyn Fn(u64) -> u64,
) -> std::fmt::Result {
    let (from, to) = match volume.offset {
        Some(start) => (x(start), x(start.saturating_add(volume.len))),
        // On several places, or several disks.
        None => (0, 0),
    };
    let width = to.saturating_sub(from).max(2);
    let used = match volume.used {
        Some(used) => format!(", {} used", human(used)),
        None => String::new(),
    };
    let text = format!(
        "{} {}, {}{used}",
        volume.path,
        volume.holds,
        human(volume.len)
    );
    // A label that begins near the right edge goes to the left of it.
    let (at, anchor) = match from > WIDTH / 2 {
        true => (to, "end"),
        false => (from, "start"),
    };
    writeln!(
        out,
        "<rect x=\"{from}\" y=\"{y}\" width=\"{width}\" height=\"4\" fill=\"var(--dim)\"/>\
         <text x=\"{at}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"var(--ink)\">{}</text>",
        y + 17,
        escape(text.as_str())
    )
}
