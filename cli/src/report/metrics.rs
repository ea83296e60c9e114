//! Evidence for Prometheus: a text file for the collector of node_exporter.

use super::Evidence;
use std::fmt::Write;

pub(super) fn render(e: &Evidence<'_>) -> String {
    let v = e.verify;
    let source = label(&v.source);
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, values: &[(&str, f64)]| {
        // Writing into a String does not fail.
        let _ = writeln!(out, "# HELP vmdkit_verify_{name} {help}");
        let _ = writeln!(out, "# TYPE vmdkit_verify_{name} gauge");
        for (more, value) in values {
            let _ = writeln!(
                out,
                "vmdkit_verify_{name}{{source=\"{source}\"{more}}} {value}"
            );
        }
    };
    let is = |result: &str| f64::from(u8::from(v.result == result));
    let results = [
        (",result=\"proven\"", is("proven")),
        (",result=\"unproven\"", is("unproven")),
        (",result=\"bad\"", is("bad")),
    ];
    gauge(
        "result",
        "1 for what the last verification came to.",
        &results,
    );
    let ended = e.ended.parse::<jiff::Timestamp>();
    if let Ok(ended) = ended {
        let help = "When the last verification ended, in seconds of the Unix epoch.";
        gauge("ended_seconds", help, &[("", ended.as_second() as f64)]);
    }
    gauge("duration_seconds", "How long it took.", &[("", e.seconds)]);
    let r = &e.recovery;
    if let Some(age) = r.age_seconds {
        let help = "Age of the backup when it was verified.";
        gauge("backup_age_seconds", help, &[("", age as f64)]);
    }
    let help = "Bytes of disks and guest files that were read.";
    gauge("read_bytes", help, &[("", r.read_bytes as f64)]);
    let help = "Bytes a second that were read.";
    gauge("read_bytes_per_second", help, &[("", r.read_rate as f64)]);
    if let Some(seconds) = r.restore_seconds {
        let help = "What restoring the data takes at that rate.";
        gauge("restore_seconds", help, &[("", seconds as f64)]);
    }
    gauge(
        "data_bytes",
        "Bytes that a restore writes.",
        &[("", r.data_bytes as f64)],
    );
    let s = &v.structure;
    let findings = [
        (",severity=\"damage\"", s.damage as f64),
        (",severity=\"warning\"", s.warnings as f64),
        (",severity=\"note\"", s.notes as f64),
    ];
    gauge(
        "findings",
        "Findings in the structure of images.",
        &findings,
    );
    let g = &v.guests;
    let unreadable = (g.failed.len() as u64).saturating_add(g.dropped);
    let files = [
        (",state=\"read\"", g.files as f64),
        (",state=\"unreadable\"", unreadable as f64),
    ];
    gauge("guest_files", "Guest files.", &files);
    out
}

/// A label's value, with what has a meaning there escaped.
fn label(text: &str) -> String {
    text.replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_are_escaped() {
        assert_eq!(super::label("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}
