//! What a guest had done when a point was taken, and its memory taken along.

use crate::{common::Fixture, machine::machine};
use std::fs;

/// The machine with a first snapshot with memory and a second one that was quiesced.
fn with_states(f: &Fixture) {
    machine(f, "web");
    let dir = f.path("web");
    let list = fs::read_to_string(dir.join("web.vmsd")).unwrap();
    let list = list
        + "snapshot0.type = \"1\"\nsnapshot0.filename = \"web-Snapshot1.vmsn\"\n\
           snapshot1.type = \"0\"\nsnapshot1.filename = \"web-Snapshot2.vmsn\"\n";
    fs::write(dir.join("web.vmsd"), list).unwrap();
    for (name, bytes) in [
        ("web-Snapshot1.vmsn", "state 1"),
        ("web-Snapshot1.vmem", "memory 1"),
        ("web-Snapshot2.vmsn", "state 2"),
        ("web-vss_manifests2.zip", "PK"),
    ] {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn how_consistent_each_point_is() {
    let f = Fixture::new();
    with_states(&f);
    let vm = f.run(&["vm", "--json", "web"]).code(0).json();
    let points = vm["places"][0]["vms"][0]["points"].as_array().unwrap();
    let said: Vec<_> = points.iter().map(|p| p["consistency"].clone()).collect();
    assert_eq!(said, ["unknown", "memory", "quiesced"]);
    fs::remove_file(f.path("web/web-vss_manifests2.zip")).unwrap();
    let vm = f.run(&["vm", "web"]).code(0);
    assert!(
        vm.text().contains("(id 2, crash-consistent)"),
        "{}",
        vm.text()
    );
    assert!(vm.text().contains("(id 1, with memory)"), "{}", vm.text());
}

#[test]
fn a_machine_that_goes_on_where_it_was() {
    let f = Fixture::new();
    with_states(&f);
    let export = ["export", "web", "--snapshot", "id:1", "--with-memory"];
    f.run(&[&export[..], &["backup"]].concat()).code(0);
    let config = |dir: &str| fs::read_to_string(f.path(dir).join("web.vmx")).unwrap();
    let line = "checkpoint.vmState = \"web-Snapshot1.vmsn\"";
    assert!(config("backup").contains(line));
    f.run(&["verify", "backup"]).code(0);
    f.run(&["restore", "backup", "new", "--with-memory"])
        .code(0);
    assert!(config("new").contains(line));
    for name in ["web-Snapshot1.vmsn", "web-Snapshot1.vmem"] {
        let wanted = fs::read(f.path("web").join(name)).unwrap();
        assert_eq!(fs::read(f.path("new").join(name)).unwrap(), wanted);
    }
    assert!(!f.path("new/web-Snapshot2.vmsn").exists());
    // Not asked for: a machine that starts anew.
    f.run(&["restore", "backup", "cold"]).code(0);
    assert!(!config("cold").contains("checkpoint.vmState"));
    assert!(!f.path("cold/web-Snapshot1.vmem").exists());
}

#[test]
fn memory_that_is_not_there() {
    let f = Fixture::new();
    with_states(&f);
    f.run(&["export", "web", "--with-memory", "backup"])
        .code(1)
        .says("points with memory: a/b");
    f.run(&["export", "disk.vmdk", "--with-memory", "backup"])
        .code(2)
        .says("no memory");
    fs::remove_file(f.path("web/web-Snapshot1.vmsn")).unwrap();
    f.run(&["export", "web", "--snapshot", "id:1", "--with-memory", "b"])
        .code(1)
        .says("web-Snapshot1.vmsn beside it");
    let new = ["restore", "web", "new", "--with-memory", "--uuid", "new"];
    f.run(&new).code(2);
    assert!(!f.path("backup").exists() && !f.path("b").exists());
}
