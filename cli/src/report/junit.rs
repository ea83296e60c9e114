//! Evidence for whatever reads the results of tests.

use super::Evidence;
use crate::{exit::Failure, verb::verify::document::ItemJson};
use quick_xml::{
    Writer,
    events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event},
};
use std::io;

/// One test: its name, what is wrong with it, or why it was not done.
struct Case {
    suite: &'static str,
    name: String,
    problem: Option<String>,
    skipped: Option<String>,
}

impl Case {
    fn new(suite: &'static str, name: impl Into<String>, problem: Option<String>) -> Self {
        Self {
            suite,
            name: name.into(),
            problem,
            skipped: None,
        }
    }
}

fn cases(e: &Evidence<'_>) -> Vec<Case> {
    let v = e.verify;
    let mut cases = Vec::new();
    let mut add = |suite, items: &[ItemJson]| {
        let items = items.iter();
        cases.extend(items.map(|i| Case::new(suite, &i.what, i.problem.clone())));
    };
    add("files", &v.files);
    add("contents", &v.contents);
    add("baseline", &v.baseline);
    add("restorable", &v.restorable);
    let s = &v.structure;
    let bad: Vec<_> = s.findings.iter().filter(|f| f.severity != "note").collect();
    if bad.is_empty() {
        cases.push(Case::new("structure", format!("{} links", s.layers), None));
    }
    for f in bad {
        cases.push(Case::new("structure", f.code, Some(f.said.clone())));
    }
    let g = &v.guests;
    let name = format!("{} files of {} volumes", g.files, g.volumes);
    cases.push(Case::new("guests", name, None));
    for f in g.structure.iter().filter(|f| f.severity != "note") {
        let name = format!("{} {}", f.volume, f.code);
        cases.push(Case::new("guests", name, Some(f.said.clone())));
    }
    for f in &g.failed {
        cases.push(Case::new("guests", &f.path, Some(f.problem.clone())));
    }
    for f in g.cross_check.iter().flat_map(|s| &s.differ) {
        cases.push(Case::new("cross-check", &f.path, Some(f.problem.clone())));
    }
    for why in &v.unproven {
        let mut case = Case::new("unproven", why, None);
        case.skipped = Some(why.clone());
        cases.push(case);
    }
    cases
}

pub(super) fn render(e: &Evidence<'_>) -> Result<Vec<u8>, Failure> {
    let cases = cases(e);
    let failures = cases.iter().filter(|c| c.problem.is_some()).count();
    let skipped = cases.iter().filter(|c| c.skipped.is_some()).count();
    let mut out = Writer::new_with_indent(Vec::new(), b' ', 2);
    let mut write = || -> io::Result<()> {
        out.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let mut suite = BytesStart::new("testsuite");
        let (tests, failures, skipped) = (
            cases.len().to_string(),
            failures.to_string(),
            skipped.to_string(),
        );
        let time = format!("{:.3}", e.seconds);
        let name = format!("vmdkit verify {}", clean(&e.verify.source));
        for (key, value) in [
            ("name", name.as_str()),
            ("hostname", &e.host),
            ("timestamp", &e.began),
            ("time", &time),
            ("tests", &tests),
            ("failures", &failures),
            ("errors", "0"),
            ("skipped", &skipped),
        ] {
            suite.push_attribute((key, value));
        }
        out.write_event(Event::Start(suite))?;
        for case in &cases {
            let mut test = BytesStart::new("testcase");
            test.push_attribute(("classname", case.suite));
            test.push_attribute(("name", clean(&case.name).as_str()));
            out.write_event(Event::Start(test))?;
            if let Some(problem) = &case.problem {
                let problem = clean(problem);
                let mut failure = BytesStart::new("failure");
                let first = problem.lines().next().unwrap_or_default();
                failure.push_attribute(("message", first));
                out.write_event(Event::Start(failure))?;
                out.write_event(Event::Text(BytesText::new(&problem)))?;
                out.write_event(Event::End(BytesEnd::new("failure")))?;
            }
            if let Some(why) = &case.skipped {
                let mut skipped = BytesStart::new("skipped");
                skipped.push_attribute(("message", clean(why).as_str()));
                out.write_event(Event::Empty(skipped))?;
            }
            out.write_event(Event::End(BytesEnd::new("testcase")))?;
        }
        out.write_event(Event::End(BytesEnd::new("testsuite")))
    };
    write()?;
    let mut bytes = out.into_inner();
    bytes.push(b'\n');
    Ok(bytes)
}

/// XML has no place for most control characters, escaped or not.
fn clean(text: &str) -> String {
    let keep = |c: char| matches!(c, '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'..);
    text.chars()
        .map(|c| if keep(c) { c } else { '\u{fffd}' })
        .collect()
}
