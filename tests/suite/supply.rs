//! What the product is built from: licences that may be in it, one registry, locked versions.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::Command,
};
use tests::tools;

/// None of them asks anything of whoever uses the program. Others need a decision first.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Everything that the program is built from, on this platform.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(tools::project())
        .output()
        .expect("cargo metadata");
    assert!(
        out.status.success(),
        "is Cargo.lock as Cargo.toml wants it? {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let all: Value = serde_json::from_slice(&out.stdout).expect("JSON from cargo");
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let by_id: HashMap<String, Value> = list(&all["packages"])
        .into_iter()
        .map(|p| (text(&p["id"]), p))
        .collect();
    let nodes: HashMap<String, Value> = list(&all["resolve"]["nodes"])
        .into_iter()
        .map(|n| (text(&n["id"]), n))
        .collect();
    let root = by_id.values().find(|p| p["name"] == "vmdkit");
    let mut todo = vec![text(&root.expect("the program")["id"])];
    let mut seen = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for needed in list(&nodes[&id]["deps"]) {
            // What only tests need is not in it.
            let kinds = list(&needed["dep_kinds"]);
            if kinds.iter().any(|k| k["kind"] != "dev") {
                todo.push(text(&needed["pkg"]));
            }
        }
    }
    seen.iter().map(|id| by_id[id].clone()).collect()
}

/// `MIT OR (Apache-2.0 AND ISC)`: one alternative all of whose parts may be there.
fn fits(expression: &str) -> bool {
    // The crates that still write it so mean "or".
    let text = expression.replace('/', " OR ");
    let trimmed = text.trim();
    if let Some((left, right)) = split(trimmed, " OR ") {
        return fits(left) || fits(right);
    }
    if let Some((left, right)) = split(trimmed, " AND ") {
        return fits(left) && fits(right);
    }
    match trimmed.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        Some(inner) => fits(inner),
        None => LICENCES.contains(&trimmed),
    }
}

/// At the first word outside of parentheses.
fn split<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ' ' if depth == 0 && text[at..].starts_with(word) => {
                return Some((&text[..at], &text[at + word.len()..]));
            }
            _ => {}
        }
    }
    None
}

#[test]
fn licences_sources_and_locks() {
    let packages = packages();
    assert!(packages.len() > 50);
    for package in &packages {
        let name = &package["name"];
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(fits(licence), "{name}: {licence:?}");
        // Ours, or the one registry: nothing from a branch somewhere.
        let source = package["source"].as_str();
        let registry = source.is_none_or(|s| s.starts_with("registry+"));
        assert!(registry, "{name} comes from {source:?}");
    }
}

/// docs/dependencies.md says of each library that a crate of the program names what it is for, who
/// uses it, and under which licence it is.
#[test]
fn every_library_has_its_reason() {
    let packages = packages();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ours in packages.iter().filter(|p| p["source"].is_null()) {
        let name = match text(&ours["name"]).as_str() {
            "vmdkit" => "cli".to_owned(),
            name => name.to_owned(),
        };
        for needed in ours["dependencies"].as_array().unwrap() {
            if needed["kind"].is_null() && !needed["source"].is_null() {
                let users = used.entry(text(&needed["name"])).or_default();
                users.insert(name.clone());
            }
        }
    }
    let page = tools::project().join("docs/dependencies.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in page.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, why, users, licence, _, _] = cells.as_slice() else {
            panic!("{row}");
        };
        let name = name.trim_matches('`');
        assert!(!why.is_empty(), "{name}");
        let mut same = packages.iter().filter(|p| p["name"] == name);
        assert!(same.any(|p| p["license"] == *licence), "{name}: {licence}");
        let users = users.split(", ").map(str::to_owned);
        told.insert(name.to_owned(), users.collect());
    }
    assert_eq!(told, used);
}

/// cargo-deny is told the same.
#[test]
fn two_lists_of_licences() {
    let text = std::fs::read_to_string(tools::project().join("deny.toml")).unwrap();
    let (_, rest) = text.split_once("allow = [").unwrap();
    let (list, _) = rest.split_once(']').unwrap();
    let theirs: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(theirs, LICENCES);
}

#[test]
fn expressions() {
    assert!(fits("MIT OR GPL-3.0") && fits("MIT/Apache-2.0"));
    assert!(fits("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!fits("GPL-3.0-only") && !fits("MIT AND AGPL-3.0") && !fits(""));
}
