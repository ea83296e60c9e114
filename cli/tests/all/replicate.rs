//! `replicate`: a copy follows its source, by changed blocks, and never holds a mix.

use crate::common::{Fixture, LEN};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

fn change(f: &Fixture, ranges: &[(usize, usize)]) {
    let mut bytes = f.raw();
    for (at, n) in ranges {
        for byte in &mut bytes[*at..at + n] {
            *byte = byte.wrapping_add(1);
        }
    }
    fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
}

fn replicate(f: &Fixture, args: &[&str]) -> Value {
    let args = [&["replicate", "--json", "--verify"], args].concat();
    f.run(&args).code(0).json()
}

#[test]
fn a_copy_follows_a_disk() {
    let f = Fixture::new();
    f.noise();
    let said = replicate(&f, &["disk.vmdk", "hot.raw"]);
    assert_eq!(said["found_by"], "whole");
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
    // Nothing changed, the files are known: nothing is read.
    let said = replicate(&f, &["disk.vmdk", "hot.raw"]);
    assert_eq!(
        (&said["found_by"], &said["read_bytes"]),
        (&"chain".into(), &0.into())
    );
    assert_eq!(said["changed_units"], 0);
    // Written in place: one pass finds it, across the end of a MiB too.
    change(&f, &[(6_000_000, 1), ((3 << 20) - 10, 20)]);
    let mut bytes = f.raw();
    bytes[5 << 20..(5 << 20) + (64 << 10)].fill(0);
    bytes[7 << 20..].fill(0);
    fs::write(f.path("disk-flat.vmdk"), bytes).unwrap();
    let said = replicate(&f, &["disk.vmdk", "hot.raw"]);
    assert_eq!(said["found_by"], "hashes");
    assert_eq!(said["changed_units"], 4, "{said}");
    assert_eq!(said["changed_bytes"], (4 << 16) + (1 << 20), "{said}");
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
    f.run(&["verify", "hot.raw", "--against", "disk.vmdk"])
        .code(0);
    assert!(!f.path("hot.raw.replica.journal").exists());
    // A list of what changed.
    change(&f, &[(1_500_000, 10)]);
    let list = r#"[{"start": 1500000, "length": 10}]"#;
    fs::write(f.path("list.json"), list).unwrap();
    let said = replicate(
        &f,
        &["disk.vmdk", "hot.raw", "--changed-blocks", "list.json"],
    );
    assert_eq!(
        (&said["found_by"], &said["read_bytes"]),
        (&"list".into(), &(1 << 20).into())
    );
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
}

#[test]
fn by_the_deltas_into_a_vmdk() {
    let f = Fixture::new();
    f.noise();
    let text = f.run(&["replicate", "disk.vmdk", "hot.vmdk"]).code(0);
    assert!(
        text.text().contains("found by      whole"),
        "{}",
        text.text()
    );
    let cid = |f: &Fixture| {
        let text = fs::read_to_string(f.path("hot.vmdk")).unwrap();
        let mut lines = text.lines();
        lines.find(|l| l.starts_with("CID=")).unwrap().to_owned()
    };
    let before = cid(&f);
    f.run(&["create", "delta.vmdk", "--child-of", "disk.vmdk"])
        .code(0);
    let mut bytes = f.raw();
    bytes[4_000_000..4_000_100].fill(3);
    fs::write(f.path("other.raw"), &bytes).unwrap();
    f.run(&[
        "rebase",
        "--force",
        "other.raw",
        "delta.vmdk",
        "--onto",
        "disk.vmdk",
    ])
    .code(0);
    let said = replicate(&f, &["delta.vmdk", "hot.vmdk"]);
    assert_eq!(said["found_by"], "chain", "{said}");
    assert!(said["read_bytes"].as_u64().unwrap() <= 1 << 20, "{said}");
    assert_eq!(fs::read(f.path("hot-flat.vmdk")).unwrap(), bytes);
    assert_ne!(cid(&f), before, "children must see that it changed");
    f.run(&["check", "hot.vmdk"]).code(0);
    // Nothing to do leaves the content id.
    let now = cid(&f);
    replicate(&f, &["delta.vmdk", "hot.vmdk"]);
    assert_eq!(cid(&f), now);
}

#[test]
fn what_is_not_ours_is_not_written_to() {
    let f = Fixture::new();
    // Somebody's disk.
    fs::copy(f.path("disk-flat.vmdk"), f.path("other.raw")).unwrap();
    let err = f.run(&["replicate", "disk.vmdk", "other.raw"]).code(1).err;
    assert!(
        err.contains("--force") && err.contains("nothing is known"),
        "{err}"
    );
    change(&f, &[(6_000_000, 1)]);
    let said = replicate(&f, &["--force", "disk.vmdk", "other.raw"]);
    assert_eq!(said["changed_bytes"], 1 << 16);
    assert_eq!(fs::read(f.path("other.raw")).unwrap(), f.raw());
    // It ran since.
    let mut bytes = f.raw();
    bytes[100_000] ^= 1;
    fs::write(f.path("other.raw"), &bytes).unwrap();
    let err = f.run(&["replicate", "disk.vmdk", "other.raw"]).code(1).err;
    assert!(err.contains("written to since"), "{err}");
    assert_eq!(fs::read(f.path("other.raw")).unwrap(), bytes);
    f.run(&["replicate", "--have", "other.raw"]).code(1);
    // Back again: what differs goes the other way.
    let said = replicate(&f, &["--force", "other.raw", "disk.vmdk"]);
    assert_eq!(said["changed_units"], 1);
    assert_eq!(f.raw(), bytes);
    // The disk itself, a disk of another length, one that is no raw disk.
    f.run(&["replicate", "--force", "disk.vmdk", "disk-flat.vmdk"])
        .code(1);
    f.run(&["replicate", "--force", "disk.vmdk", "disk.vmdk"])
        .code(1);
    f.run(&["convert", "disk.vmdk", "d.qcow2", "--to", "qcow2"])
        .code(0);
    f.run(&["replicate", "--force", "disk.vmdk", "d.qcow2"])
        .code(1);
    f.run(&["convert", "disk.vmdk", "s.vmdk", "--to", "vmdk"])
        .code(0);
    f.run(&["replicate", "--force", "disk.vmdk", "s.vmdk"])
        .code(1);
    fs::write(f.path("short.raw"), &bytes[..LEN - 512]).unwrap();
    f.run(&["replicate", "--force", "disk.vmdk", "short.raw"])
        .code(1);
    assert_eq!(fs::read(f.path("short.raw")).unwrap(), bytes[..LEN - 512]);
    f.run(&["replicate", "disk.vmdk"]).code(2);
    f.run(&["replicate", "--send", "disk.vmdk", "x"]).code(2);
}

/// One line of ssh, and what it does when it breaks off.
#[test]
fn over_a_pipe() {
    let f = Fixture::new();
    f.noise();
    let step = |f: &Fixture, cut: Option<usize>| -> (usize, Value) {
        let have = f.run(&["replicate", "--have", "hot.raw"]).code(0).out;
        let sent = f
            .run_with(
                &["replicate", "--json", "--send", "disk.vmdk", "--since", "-"],
                &have,
            )
            .code(0);
        let report: Value = serde_json::from_str(sent.err.trim()).unwrap();
        let stream = &sent.out[..cut.unwrap_or(sent.out.len()).min(sent.out.len())];
        let code = if cut.is_some() { 1 } else { 0 };
        f.run_with(&["replicate", "--receive", "hot.raw"], stream)
            .code(code);
        (sent.out.len(), report)
    };
    // The first copy breaks off twice: what came is not sent again.
    let (whole, _) = step(&f, Some(2_000_000));
    assert!(!f.path("hot.raw").exists());
    let (second, report) = step(&f, Some(1_000_000));
    assert!(second < whole, "{second} {whole}");
    assert!(report["kept_units"].as_u64().unwrap() > 0, "{report}");
    step(&f, None);
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
    // Changes, cut at every kind of place; meanwhile the source goes on, and back.
    let old = f.raw();
    for cut in [0, 5, 20, 300, 100_000, 1_000_000] {
        change(&f, &[(6_000_000 + cut, 1), (7_500_000, 1000)]);
        step(&f, Some(cut));
        assert_eq!(fs::read(f.path("hot.raw")).unwrap(), old, "cut at {cut}");
    }
    fs::write(f.path("disk-flat.vmdk"), &old).unwrap();
    change(&f, &[(5_900_000, 1)]);
    let (_, report) = step(&f, None);
    assert_eq!(report["changed_units"], 1);
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
    let (_, report) = step(&f, None);
    assert_eq!(
        (&report["changed_units"], &report["read_bytes"]),
        (&0.into(), &0.into())
    );
    // A stream for another state, and a damaged one, change nothing.
    let have = f.run(&["replicate", "--have", "hot.raw"]).code(0).out;
    let send = ["replicate", "--send", "disk.vmdk", "--since", "-"];
    change(&f, &[(5_000_000, 1)]);
    let old_stream = f.run_with(&send, &have).code(0).out;
    change(&f, &[(4_000_000, 1)]);
    step(&f, None);
    let now = f.raw();
    let err = f
        .run_with(&["replicate", "--receive", "hot.raw"], &old_stream)
        .code(1)
        .err;
    assert!(err.contains("--have"), "{err}");
    let have = f.run(&["replicate", "--have", "hot.raw"]).code(0).out;
    change(&f, &[(3_000_000, 1)]);
    let stream = f.run_with(&send, &have).code(0).out;
    for at in (0..stream.len()).step_by(stream.len() / 20) {
        let mut bad = stream.clone();
        bad[at] ^= 0x40;
        f.run_with(&["replicate", "--receive", "hot.raw"], &bad)
            .code(1);
        assert_eq!(fs::read(f.path("hot.raw")).unwrap(), now, "damage at {at}");
    }
    let args = ["replicate", "--receive", "--verify", "hot.raw"];
    f.run_with(&args, &stream).code(0);
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
    f.run(&["replicate", "--send", "disk.vmdk", "--since", "disk.vmdk"])
        .code(1);
}

/// Two at once: one of them is refused.
/// The three commands in one pipeline, as docs/backup.md has them: three processes at once.
#[test]
fn the_pipe_of_the_documentation() {
    let f = Fixture::new();
    f.noise();
    f.run(&["replicate", "disk.vmdk", "hot.raw"]).code(0);
    let docs = include_str!("../../../docs/backup.md");
    let (_, after) = docs
        .split_once("    $ ssh hot vmdkit replicate --have")
        .unwrap();
    let (lines, _) = after.split_once("\n\n").unwrap();
    let line = format!("ssh hot vmdkit replicate --have{lines}");
    let line = line.replace("web01.vmdk", "disk.vmdk");
    let line = line.replace("web01.raw", "hot.raw");
    let line = line.replace("ssh hot ", "").replace("vmdkit ", "\"$V\" ");
    assert_eq!(line.matches("\"$V\" replicate --").count(), 3, "{line}");
    let pipe = |line: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -o pipefail; {line}")]);
        shell.env("V", env!("CARGO_BIN_EXE_vmdkit"));
        shell.current_dir(f.dir.path()).output().unwrap()
    };
    for ranges in [
        &[(1_000_000, 5), (6_000_000, 70_000)][..],
        &[(3 << 20, 1)],
        &[],
    ] {
        change(&f, ranges);
        let out = pipe(&line);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(0), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        assert!(fs::read(f.path("hot.raw")).unwrap() == f.raw());
        assert!(!f.path("hot.raw.replica.journal").exists());
    }
    // A sender that fails leaves the copy as it was, and the pipeline fails.
    let before = fs::read(f.path("hot.raw")).unwrap();
    let out = pipe(&line.replace("disk.vmdk", "missing.vmdk"));
    assert!(!out.status.success());
    assert!(fs::read(f.path("hot.raw")).unwrap() == before);
    change(&f, &[(2_000_000, 9)]);
    assert!(pipe(&line).status.success());
    assert!(fs::read(f.path("hot.raw")).unwrap() == f.raw());
}

#[test]
fn one_at_a_time() {
    let f = Fixture::new();
    f.run(&["replicate", "disk.vmdk", "hot.raw"]).code(0);
    let mut first = Command::new(env!("CARGO_BIN_EXE_vmdkit"))
        .args(["replicate", "--receive", "hot.raw"])
        .current_dir(f.dir.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It takes the target when something comes.
    first.stdin.as_mut().unwrap().write_all(b"v").unwrap();
    let refused = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        f.run(&["replicate", "disk.vmdk", "hot.raw"]).code == Some(1)
    });
    drop(first.stdin.take());
    first.wait().unwrap();
    assert!(refused);
    f.run(&["replicate", "disk.vmdk", "hot.raw"]).code(0);
}

/// What is noted of a target is believed only as far as it fits.
#[test]
fn notes_that_do_not_fit() {
    let f = Fixture::new();
    f.noise();
    let hot = ["replicate", "disk.vmdk", "hot.raw"];
    f.run(&hot).code(0);
    // The hashes say that it has what it will get: it would be left out.
    let (units, old) = (f.path("hot.raw.replica.units"), f.raw());
    change(&f, &[(6_000_000, 1)]);
    f.run(&["export", "disk.vmdk", "bk"]).code(0);
    fs::copy(f.path("bk/disk.vmdk.units"), &units).unwrap();
    let err = f.run(&hot).code(1).err;
    assert!(err.contains("--force"), "{err}");
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), old);
    let said = replicate(&f, &["--force", "disk.vmdk", "hot.raw"]);
    assert_eq!(said["changed_units"], 1);
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
    fs::remove_file(&units).unwrap();
    f.run(&hot).code(1);
    replicate(&f, &["--force", "disk.vmdk", "hot.raw"]);
    // The target is gone: what is sent is all of it.
    fs::remove_file(f.path("hot.raw")).unwrap();
    let have = f.run(&["replicate", "--have", "hot.raw"]).code(0).out;
    let send = ["replicate", "--send", "disk.vmdk", "--since", "-"];
    let stream = f.run_with(&send, &have).code(0).out;
    f.run_with(&["replicate", "--receive", "hot.raw"], &stream)
        .code(0);
    assert_eq!(fs::read(f.path("hot.raw")).unwrap(), f.raw());
    // No directory, a directory.
    let err = f.run(&["replicate", "disk.vmdk", "no/hot.raw"]).code(1).err;
    assert!(err.contains("mkdir -p no"), "{err}");
    let err = f
        .run(&["replicate", "--force", "disk.vmdk", "bk"])
        .code(1)
        .err;
    assert!(err.contains("a directory"), "{err}");
}

/// A name that promises another format than what is written is a mistake.
#[test]
fn a_target_is_called_what_it_is() {
    let f = Fixture::new();
    f.run(&["replicate", "disk.vmdk", "hot.qcow2"])
        .code(2)
        .says("--raw-target");
    assert!(!f.path("hot.qcow2").exists());
    f.run(&["replicate", "disk.vmdk", "hot.qcow2", "--raw-target"])
        .code(0);
}

/// A first replication that was cut off is ended if its files are what it noted; other files that
/// have their names now are somebody's.
#[test]
fn a_first_one_that_was_cut_off() {
    let f = Fixture::new();
    f.noise();
    let hot = ["replicate", "disk.vmdk", "hot.vmdk"];
    let [target, flat] = ["hot.vmdk", "hot-flat.vmdk"].map(|name| f.path(name));
    let names = ["hot.vmdk", "hot-flat.vmdk", "hot.vmdk.replica"];
    // As it is when the note lasts that comes before the names.
    let cut = |f: &Fixture| {
        for name in names {
            let _ = fs::remove_file(f.path(name));
        }
        f.run(&hot).code(0);
        let note = f.path("hot.vmdk.replica");
        let mut text: Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
        assert_eq!(text["making"], Value::Null);
        text["making"] = true.into();
        fs::write(&note, text.to_string()).unwrap();
    };
    let ended = |without: &[&str]| {
        cut(&f);
        for name in without {
            fs::remove_file(f.path(name)).unwrap();
        }
        let ran = f.run(&["replicate", "--json", "--verify", "disk.vmdk", "hot.vmdk"]);
        let ran = ran.code(0);
        f.run(&["verify", "hot.vmdk", "--against", "disk.vmdk"])
            .code(0);
        (ran.json()["recovered"] == true, ran.err)
    };
    for without in [&[][..], &["hot.vmdk"]] {
        let (recovered, said) = ended(without);
        assert!(recovered && said.contains("complete now"), "{said}");
    }
    let (recovered, said) = ended(&["hot.vmdk", "hot-flat.vmdk"]);
    assert!(!recovered && said.contains("made anew"), "{said}");
    // Its data was written to since; with and without its descriptor.
    for without in [false, true] {
        cut(&f);
        let mut bytes = f.raw();
        bytes[5_000_000] ^= 1;
        fs::write(&flat, &bytes).unwrap();
        if without {
            fs::remove_file(&target).unwrap();
        }
        let err = f.run(&hot).code(1).err;
        assert!(err.contains("--force"), "{err}");
        assert_eq!(fs::read(&flat).unwrap(), bytes);
    }
    f.run(&["replicate", "--force", "disk.vmdk", "hot.vmdk"])
        .code(0);
    assert_eq!(fs::read(&flat).unwrap(), f.raw());
    // The target is the descriptor of another file.
    cut(&f);
    fs::copy(f.path("disk.vmdk"), &target).unwrap();
    let err = f.run(&hot).code(1).err;
    assert!(err.contains("nothing is known"), "{err}");
    // A raw one that is shorter now.
    let raw = ["replicate", "disk.vmdk", "hot.raw"];
    f.run(&raw).code(0);
    let note = f.path("hot.raw.replica");
    let text = fs::read_to_string(&note).unwrap();
    let text = text.replacen("\"version\"", "\"making\": true, \"version\"", 1);
    fs::write(&note, &text).unwrap();
    f.run(&raw).code(0).says("complete now");
    fs::write(&note, &text).unwrap();
    fs::write(f.path("hot.raw"), &f.raw()[..LEN - 512]).unwrap();
    let err = f.run(&raw).code(1).err;
    assert!(err.contains("nothing is known"), "{err}");
}
