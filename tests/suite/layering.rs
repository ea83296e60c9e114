//! Dependencies point one way, and what must hold for every crate of ours holds.

use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, process::Command};
use tests::tools;

/// Crates in layers: a crate may depend on those of lower numbers only.
const LAYERS: &[(&str, u32)] = &[
    ("disk-io", 0),
    ("vmdk", 1),
    ("vmfs-reader", 2),
    ("disk-image", 2),
    ("guest-fs", 3),
    ("inventory", 3),
    ("proxy", 4),
    ("convert", 4),
    ("verify", 5),
    ("vmdkit", 6),
];

/// Members that are not part of the product.
const DEVELOPMENT: &[&str] = &["tests", "xtask", "fuzz", "vmdkit-fuzz"];

/// Dependencies inside one layer or against the numbers that are meant.
const ALSO: &[(&str, &str)] = &[];

/// Only these crates may know those libraries.
const ONLY: &[(&str, &[&str])] = &[
    ("clap", &["vmdkit", "xtask"]),
    ("fuser", &["proxy", "tests"]),
    ("ntfs", &["tests", "verify"]),
    ("fatfs", &["tests", "verify", "vmdkit-fuzz", "xtask"]),
    ("indicatif", &["vmdkit"]),
];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(tools::project())
        .output()
        .expect("cargo metadata");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("JSON from cargo")
}

/// Direct dependencies of every member, those for development left out.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|p| {
            let name = p["name"].as_str().unwrap_or_default().to_owned();
            let needs = p["dependencies"].as_array().cloned().unwrap_or_default();
            let needs = needs
                .iter()
                .filter(|d| d["kind"] != "dev" || DEVELOPMENT.contains(&name.as_str()))
                .filter_map(|d| d["name"].as_str().map(str::to_owned))
                .collect();
            (name, needs)
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let layer = |name: &str| LAYERS.iter().find(|(n, _)| *n == name).map(|(_, l)| *l);
    for (name, needs) in dependencies() {
        if DEVELOPMENT.contains(&name.as_str()) {
            continue;
        }
        let own = layer(&name).unwrap_or_else(|| panic!("{name} has no layer"));
        for needed in &needs {
            assert!(
                !DEVELOPMENT.contains(&needed.as_str()),
                "{name} is part of the product and depends on {needed}"
            );
            let Some(other) = layer(needed) else { continue };
            let meant = ALSO.contains(&(name.as_str(), needed.as_str()));
            assert!(
                other < own || meant,
                "{name} (layer {own}) depends on {needed} (layer {other})"
            );
        }
    }
}

#[test]
fn libraries_stay_where_they_belong() {
    for (name, needs) in dependencies() {
        for (library, allowed) in ONLY {
            assert!(
                !needs.iter().any(|n| n == library) || allowed.contains(&name.as_str()),
                "{name} depends on {library}, which only {allowed:?} may"
            );
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let root = fs::read_to_string(tools::project().join("Cargo.toml")).expect("Cargo.toml");
    assert!(
        root.contains("unsafe_code = \"forbid\""),
        "the workspace no longer forbids unsafe code"
    );
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let text = fs::read_to_string(manifest).expect(manifest);
        let flat: String = text.split_whitespace().collect();
        assert!(
            flat.contains("[lints]workspace=true"),
            "{manifest} does not take the workspace's lints"
        );
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!", "unimplemented!", "dbg!", "FIXME", "XXX"].map(|w| {
        // So that this file does not find itself.
        w.to_owned() + if w.ends_with('!') { "(" } else { ":" }
    });
    let mut found = Vec::new();
    for_each_source(&tools::project(), &mut |path, text| {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|w| line.contains(w.as_str())) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_index_of_test_images_is_current() {
    let path = tools::project().join("testdata/INDEX.md");
    let text = fs::read_to_string(path).expect("testdata/INDEX.md");
    assert_eq!(text, tests::fixtures::index(), "run `cargo xtask index`");
}

fn for_each_source(dir: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .expect("reading a directory")
        .map(|e| e.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                for_each_source(&path, visit);
            }
        } else if name.ends_with(".rs") {
            visit(&path, &fs::read_to_string(&path).expect("a source file"));
        }
    }
}
