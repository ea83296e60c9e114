//! What the program is built from, as CycloneDX has it.
//!
//! `cargo cyclonedx` lists what any part of the workspace would switch on. What is not compiled into
//! the program is taken out again: by `cargo tree`, which decides as a build of the program alone
//! does. Macros and build scripts run when it is built, and are no part of it.

use super::cargo;
use ::tests::tools;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Command};

const TOOL: &str = "cargo-cyclonedx";

/// Whether the list can be made here.
pub(super) fn check() -> Result<()> {
    ensure!(
        tools::find(TOOL).is_some(),
        "for the list of materials: cargo install --locked {TOOL}"
    );
    Ok(())
}

/// The list for the tree in `dir`; the same for the same commit, whose time is `time`.
pub(super) fn list(dir: &Path, time: &str) -> Result<String> {
    let target = target()?;
    tools::output(
        Command::new(TOOL)
            .args(["cyclonedx", "--quiet", "--format", "json"])
            .args(["--describe", "binaries", "--spec-version", "1.5"])
            .args(["--no-build-deps", "--target", &target])
            .args(["--manifest-path", "cli/Cargo.toml"])
            .env("SOURCE_DATE_EPOCH", time)
            .current_dir(dir),
    )?;
    let made = fs::read_dir(dir.join("cli"))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .find(|p| p.to_string_lossy().ends_with(".cdx.json"));
    let mut all: Value = serde_json::from_slice(&fs::read(made.context("a list")?)?)?;
    let inside = inside(dir, &target)?;
    prune(&mut all, &inside)?;
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}

fn target() -> Result<String> {
    let out = tools::output(Command::new("rustc").arg("-vV"))?;
    let text = String::from_utf8(out.stdout)?;
    let host = text.lines().find_map(|l| l.strip_prefix("host: "));
    Ok(host.context("the compiler's target")?.to_owned())
}

type Inside = BTreeSet<(String, String)>;

/// Names and versions of what is compiled into the program.
fn inside(dir: &Path, target: &str) -> Result<Inside> {
    let out = tools::output(
        Command::new(cargo())
            .args([
                "tree",
                "--locked",
                "--package",
                "vmdkit",
                "--edges",
                "normal",
            ])
            .args(["--prefix", "none", "--target", target, "--format", "{p}"])
            .current_dir(dir),
    )?;
    Ok(read_tree(&String::from_utf8(out.stdout)?))
}

/// `serde v1.0.0`, `serde_derive v1.0.0 (proc-macro)`, one a line.
fn read_tree(text: &str) -> Inside {
    text.lines()
        .filter(|l| !l.contains("(proc-macro)"))
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            Some((name.to_owned(), version.to_owned()))
        })
        .collect()
}

/// Takes out what is not inside, and holds the rest to be complete.
fn prune(all: &mut Value, inside: &Inside) -> Result<()> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let key = |c: &Value| (text(&c["name"]), text(&c["version"]));
    let program = key(&all["metadata"]["component"]);
    let mut refs = BTreeSet::from([text(&all["metadata"]["component"]["bom-ref"])]);
    let mut seen = Inside::from([program]);
    let components = all["components"].as_array_mut().context("components")?;
    components.retain(|c| inside.contains(&key(c)));
    for c in components {
        ensure!(
            c["licenses"].as_array().is_some_and(|l| !l.is_empty()),
            "{:?} has no licence",
            key(c)
        );
        refs.insert(text(&c["bom-ref"]));
        seen.insert(key(c));
    }
    let missing: Vec<_> = inside.difference(&seen).collect();
    ensure!(missing.is_empty(), "not in the list: {missing:?}");
    let dependencies = all["dependencies"].as_array_mut().context("dependencies")?;
    dependencies.retain(|d| refs.contains(&text(&d["ref"])));
    for d in dependencies {
        // Indexing would put a null there.
        if let Some(on) = d.get_mut("dependsOn").and_then(Value::as_array_mut) {
            on.retain(|d| refs.contains(&text(d)));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_inside_stays() {
        let tree = "vmdkit v0.1.0 (/x/cli)\nserde v1.0.2\nserde_derive v1.0.2 (proc-macro)\nserde v1.0.2 (*)\n";
        let component = |name: &str| {
            json!({"name": name, "version": "1.0.2", "bom-ref": format!("r+{name}"),
                   "licenses": [{"expression": "MIT"}]})
        };
        let mut all = json!({
            "metadata": {"component": {"name": "vmdkit", "version": "0.1.0", "bom-ref": "p"}},
            "components": [component("serde"), component("serde_derive"), component("time")],
            "dependencies": [
                {"ref": "p", "dependsOn": ["r+serde", "r+time"]},
                {"ref": "r+time", "dependsOn": []},
                {"ref": "r+serde"},
            ],
        });
        prune(&mut all, &read_tree(tree)).unwrap();
        assert_eq!(all["components"], json!([component("serde")]));
        assert_eq!(
            all["dependencies"],
            json!([{"ref": "p", "dependsOn": ["r+serde"]}, {"ref": "r+serde"}])
        );
        let more = format!("{tree}zip v2.0.0\n");
        assert!(prune(&mut all, &read_tree(&more)).is_err());
    }
}
