//! What `--json` prints is what the published schemas say.

use crate::common::Fixture;
use serde_json::Value;
use std::{fs, path::Path};

/// The part of JSON Schema that the published ones use.
pub(crate) fn check(schema: &Value, root: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        return check(&root["$defs"][name], root, value, at);
    }
    let known = [
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "description",
        "additionalProperties",
        "$schema",
        "$id",
        "title",
        "$defs",
        "pattern",
    ];
    for key in schema.as_object().unwrap().keys() {
        assert!(
            known.contains(&key.as_str()),
            "{at}: the checker does not know {key}"
        );
    }
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_u64() || n.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |t: &Value| t == is || (t == "number" && is == "integer");
    match &schema["type"] {
        Value::Array(types) => assert!(types.iter().any(fits), "{at}: {is}"),
        one => assert!(fits(one), "{at}: {is}, expected {one}"),
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value}");
    }
    if let Some(object) = value.as_object() {
        for key in schema["required"].as_array().into_iter().flatten() {
            assert!(object.contains_key(key.as_str().unwrap()), "{at}: no {key}");
        }
        for (key, value) in object {
            let property = &schema["properties"][key];
            assert!(property.is_object(), "{at}: {key} is not in the schema");
            check(property, root, value, &format!("{at}.{key}"));
        }
    }
    if let Some(array) = value.as_array() {
        for (i, value) in array.iter().enumerate() {
            check(&schema["items"], root, value, &format!("{at}[{i}]"));
        }
    }
}

pub(crate) fn schema(name: &str) -> Value {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    let text = fs::read_to_string(dir.join(format!("{name}.schema.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn documents() {
    let f = Fixture::new();
    fs::write(f.path("there"), "").unwrap();
    crate::machine::machine(&f, "web");
    crate::verify::changed(&f, "other");
    let descriptor = fs::read_to_string(f.path("disk.vmdk")).unwrap();
    fs::write(
        f.path("short.vmdk"),
        descriptor.replace("disk-flat", "short-flat"),
    )
    .unwrap();
    fs::write(f.path("short-flat.vmdk"), &f.raw()[..200_000]).unwrap();
    for (name, code, args) in [
        ("info", 0, &["info", "disk.vmdk"][..]),
        ("info", 0, &["info", "disk-flat.vmdk"]),
        ("ls", 0, &["ls", "disk.vmdk"]),
        (
            "ls",
            0,
            &["ls", "disk.vmdk", "/p0", "--short-names", "--streams"],
        ),
        ("stat", 0, &["stat", "disk.vmdk", "/p0/dir/sub/c.bin"]),
        ("ls", 0, &["ls", "disk.vmdk", "/p0/a.txt"]),
        ("stat", 0, &["stat", "disk.vmdk", "/p0"]),
        (
            "convert",
            0,
            &["convert", "disk.vmdk", "x.raw", "--to", "raw"],
        ),
        ("export", 0, &["export", "web", "bk"]),
        ("export", 0, &["export", "disk.vmdk", "bk2"]),
        (
            "export-ova",
            0,
            &["export", "web", "web.ova", "--to", "ova"],
        ),
        ("export", 0, &["export", "web", "bk3", "--snapshot", "id:1"]),
        (
            "export-several",
            0,
            &["export", "--select", "any:", "web", "several"],
        ),
        ("restore", 0, &["restore", "bk", "back", "--dry-run"]),
        ("restore", 0, &["restore", "bk", "back"]),
        ("history", 0, &["history", "web", "/a.txt"]),
        ("verify", 0, &["verify", "bk"]),
        ("verify", 3, &["verify", "disk.vmdk"]),
        ("diff", 0, &["diff", "disk.vmdk", "web"]),
        (
            "diff",
            4,
            &["diff", "--files", "--blocks", "disk.vmdk", "other.vmdk"],
        ),
        ("vm", 0, &["vm", "web", "--guest"]),
        ("vm", 0, &["vm", "bk3"]),
        ("check", 0, &["check", "web"]),
        ("check", 4, &["check", "short.vmdk"]),
        ("create", 0, &["create", "new.vmdk", "1M"]),
        (
            "create",
            0,
            &["create", "c.vmdk", "--child-of", "disk.vmdk"],
        ),
        ("commit", 0, &["commit", "c.vmdk", "whole.vmdk"]),
        (
            "rebase",
            0,
            &["rebase", "other.vmdk", "--onto", "disk.vmdk", "--verify"],
        ),
        ("cp", 0, &["cp", "-rv", "disk.vmdk", "/p0", "out"]),
        ("cp", 3, &["cp", "disk.vmdk", "/p0/a.txt", "there"]),
        ("cp", 1, &["cp", "disk.vmdk", "/p0/dir", "new"]),
        ("replicate", 0, &["replicate", "disk.vmdk", "hot.raw"]),
        ("replicate", 0, &["replicate", "disk.vmdk", "hot.raw"]),
        (
            "repair",
            0,
            &["check", "disk.vmdk", "--repair", "mended.vmdk"],
        ),
        ("cleanup", 0, &["cleanup"]),
    ] {
        let mut args = args.to_vec();
        args.push("--json");
        let value = f.run(&args).code(code).json();
        let schema = schema(name);
        check(&schema, &schema, &value, name);
    }
}

#[test]
fn sockets_that_cp_leaves() {
    let f = Fixture::new();
    fs::create_dir(f.path("root")).unwrap();
    std::os::unix::net::UnixListener::bind(f.path("root/socket")).unwrap();
    let made = std::process::Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d", "root", "e.img", "8M"])
        .current_dir(f.path(""))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        crate::common::skipped("peers", "mke2fs is not installed");
        return;
    }
    let args = ["cp", "-r", "--json", "e.img", "/p0", "e"];
    let value = f.run(&args).code(0).json();
    let schema = schema("cp");
    check(&schema, &schema, &value, "cp");
    assert_eq!(value["left"][0]["path"], "/p0/socket", "{value}");
    f.run(&["tar", "e.img", "/p0"])
        .code(0)
        .says("/p0/socket: a socket, which only");
}

#[test]
fn files_that_cp_writes() {
    let f = Fixture::new();
    let args = [
        "cp",
        "-r",
        "--manifest",
        "m.json",
        "disk.vmdk",
        "/p0",
        "out",
    ];
    f.run(&args).code(0);
    let value = serde_json::from_slice(&fs::read(f.path("m.json")).unwrap()).unwrap();
    let schema = schema("files");
    check(&schema, &schema, &value, "files");
    // It is refused where it exists.
    f.run(&args).code(1);
}

#[test]
fn lines() {
    let f = Fixture::new();
    for (name, args) in [
        (
            "ls-line",
            &["ls", "-R", "--json", "--streams", "disk.vmdk"][..],
        ),
        ("find-line", &["find", "--json", "disk.vmdk"]),
        ("map-line", &["map", "--json", "disk.vmdk"]),
    ] {
        let ran = f.run(args).code(0);
        let schema = schema(name);
        assert!(!ran.text().is_empty());
        for line in ran.text().lines() {
            let value = serde_json::from_str(line).unwrap();
            check(&schema, &schema, &value, name);
        }
    }
}
