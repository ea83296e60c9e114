//! `verify` beyond a manifest: known files, samples, a second reader, evidence.

use crate::{common::Fixture, machine::machine, verify::changed};
use serde_json::Value;
use std::fs;

fn verify(f: &Fixture, code: i32, args: &[&str]) -> Value {
    f.run(&[&["verify", "--json"], args].concat())
        .code(code)
        .json()
}

#[test]
fn known_files() {
    let f = Fixture::new();
    f.run(&["export", "disk.vmdk", "bk"]).code(0);
    let sums = f
        .run(&[
            "cp",
            "-r",
            "--manifest",
            "m.json",
            "disk.vmdk",
            "/p0/.",
            ".",
        ])
        .code;
    assert_eq!(sums, Some(0));
    // What cp wrote, and what it wrote down.
    fs::create_dir(f.path("known")).unwrap();
    for name in ["a.txt", "dir", "Long name of a file.dat"] {
        fs::rename(f.path(name), f.path("known").join(name)).unwrap();
    }
    for baseline in ["m.json", "known"] {
        let said = verify(&f, 0, &["bk", "--baseline", baseline]);
        let items = said["baseline"].as_array().unwrap();
        assert!(items.len() >= 4, "{said}");
        assert!(items.iter().all(|i| i["ok"] == true), "{said}");
    }
    let hash = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    fs::write(
        f.path("sums"),
        format!("{hash}  a.txt\n{hash} *./dir/b.txt\n{hash}  gone\n"),
    )
    .unwrap();
    let said = verify(&f, 4, &["bk", "--baseline", "sums"]);
    let ok: Vec<_> = said["baseline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["ok"] == true)
        .collect();
    assert_eq!(ok, [true, false, false], "{said}");
    let text = f.run(&["verify", "bk", "--baseline", "sums"]).code(4);
    assert!(
        text.text().contains("BAD baseline /gone"),
        "{}",
        text.text()
    );
    // A disk without a manifest is as good.
    fs::write(f.path("known/a.txt"), "other\n").unwrap();
    verify(&f, 4, &["disk.vmdk", "--baseline", "known"]);
    fs::write(f.path("sums"), "nothing of the kind\n").unwrap();
    f.run(&["verify", "bk", "--baseline", "sums"]).code(1);
}

#[test]
fn a_part_of_it() {
    let f = Fixture::new();
    f.noise();
    f.run(&["export", "disk.vmdk", "bk"]).code(0);
    let said = verify(&f, 3, &["bk", "--sample", "50"]);
    assert!(
        said["unproven"]
            .to_string()
            .contains("50 % of its contents"),
        "{said}"
    );
    let all = verify(&f, 3, &["bk", "--sample", "100%"]);
    assert_eq!(all["guests"]["left"], 0);
    let few = verify(&f, 3, &["bk", "--sample", "0.01", "--seed", "3"]);
    assert_eq!(few["guests"]["files"], 0, "{few}");
    // Damage is found if the MiB with it is looked at.
    f.run(&["convert", "bk/disk.vmdk", "d.raw", "--to", "raw"])
        .code(0);
    let mut bytes = fs::read(f.path("d.raw")).unwrap();
    bytes[6_000_000] ^= 1;
    fs::write(f.path("d.raw"), bytes).unwrap();
    f.run(&[
        "convert",
        "--force",
        "d.raw",
        "bk/disk.vmdk",
        "--to",
        "vmdk",
    ])
    .code(0);
    let said = verify(&f, 4, &["bk", "--sample", "100"]);
    assert_eq!(
        said["contents"][0]["ranges"][0]["offset"],
        5 << 20,
        "{said}"
    );
    // No time at all: nothing is wrong, nothing is proven.
    f.run(&["export", "disk.vmdk", "bk2"]).code(0);
    let said = verify(&f, 3, &["bk2", "--budget", "0s"]);
    assert!(
        said["unproven"].to_string().contains("the time was up"),
        "{said}"
    );
    let said = verify(&f, 0, &["bk2", "--budget", "1h"]);
    assert_eq!(said["result"], "proven");
    f.run(&["verify", "bk2", "--budget", "soon"]).code(2);
    f.run(&["verify", "bk2", "--sample", "0"]).code(2);
}

#[test]
fn every_difference() {
    let f = Fixture::new();
    changed(&f, "other");
    let said = verify(&f, 4, &["disk.vmdk", "--against", "other.vmdk"]);
    let item = &said["contents"][0];
    assert!(item["ranges"].as_array().unwrap().len() > 2, "{said}");
    let touched = item["touched"].to_string();
    assert!(touched.contains("/p0/a.txt"), "{touched}");
    let said = verify(&f, 4, &["disk.vmdk", "--against", "other.vmdk", "--first"]);
    assert_eq!(said["contents"][0]["ranges"].as_array().unwrap().len(), 1);
}

#[test]
fn a_second_reader() {
    let f = Fixture::new();
    f.run(&["export", "disk.vmdk", "bk"]).code(0);
    let said = verify(&f, 0, &["bk", "--cross-check"]);
    let second = &said["guests"]["cross_check"];
    assert_eq!(second["same"], said["guests"]["files"], "{said}");
    assert!(said["guests"]["files"].as_u64().unwrap() >= 5);
    assert!(verify(&f, 0, &["bk"])["guests"]["cross_check"].is_null());
}

#[test]
fn evidence() {
    let f = Fixture::new();
    machine(&f, "web & <co>");
    f.run(&["export", "web & <co>", "bk"]).code(0);
    let reports = ["e.json", "e.txt", "e.html", "e.xml", "e.prom"];
    let mut args = vec!["bk", "--target", "."];
    for report in &reports {
        args.extend(["--report", report]);
    }
    let printed = verify(&f, 0, &args);
    let read = |name: &str| fs::read_to_string(f.path(name)).unwrap();
    let json: Value = serde_json::from_str(&read("e.json")).unwrap();
    assert_eq!(json["verify"], printed);
    let (mut json, verify_schema) = (json, crate::schema::schema("verify"));
    crate::schema::check(&verify_schema, &verify_schema, &printed, "verify");
    json["verify"] = serde_json::json!({});
    let schema = crate::schema::schema("evidence");
    crate::schema::check(&schema, &schema, &json, "evidence");
    assert!(
        json["recovery"]["age_seconds"].as_i64().unwrap() >= 0,
        "{json}"
    );
    assert_eq!(json["disks"][0]["virtual_size"], 8 << 20);
    let runbook = json["runbook"].to_string();
    assert!(
        runbook.contains("vmdkit restore 'bk' './bk-restored'"),
        "{runbook}"
    );
    assert!(read("e.txt").starts_with("PROVEN: this backup would restore\n"));
    let html = read("e.html");
    assert!(html.contains("<svg") && !html.contains("<script") && !html.contains("http"));
    assert!(read("e.prom").contains("vmdkit_verify_result{source=\"bk\",result=\"proven\"} 1\n"));
    let xml = read("e.xml");
    assert!(
        xml.contains("failures=\"0\"") && !xml.contains("<failure"),
        "{xml}"
    );
    // One that is bad says so everywhere; it is written over.
    let manifest: Value = serde_json::from_str(&read("bk/vmdkit-manifest.json")).unwrap();
    let file = manifest["disks"][0]["file"].as_str().unwrap();
    let disk = f.path("bk").join(file);
    let mut bytes = fs::read(&disk).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    fs::write(&disk, bytes).unwrap();
    verify(&f, 4, &args);
    assert!(read("e.txt").starts_with("BAD"));
    assert!(!read("e.html").contains("<co>") && !read("e.html").contains("& "));
    assert!(read("e.xml").contains("<failure message="));
    assert!(read("e.prom").contains("result=\"bad\"} 1\n"));
    // A name that is taken, a report over the backup, a kind that is none.
    fs::create_dir(f.path("there")).unwrap();
    fs::create_dir(f.path("there/web 01")).unwrap();
    let said = verify(&f, 4, &["web & <co>", "--target", "there"]);
    assert!(
        said["restorable"]
            .to_string()
            .contains("restore-name-taken")
            || said["restorable"].to_string().contains("machine's name"),
        "{said}"
    );
    let manifest = fs::read(f.path("bk/vmdkit-manifest.json")).unwrap();
    f.run(&["verify", "bk", "--report", "bk/vmdkit-manifest.json"])
        .code(1);
    assert_eq!(
        fs::read(f.path("bk/vmdkit-manifest.json")).unwrap(),
        manifest
    );
    // A report in the backup would be what its manifest does not know.
    f.run(&["verify", "bk", "--report", "bk/report.html"])
        .code(1)
        .says("a place beside the backup");
    assert!(!f.path("bk/report.html").exists());
    f.run(&["verify", "bk", "--report", "e.doc"]).code(2);
    // Known before anything is read.
    let ran = f.run(&["verify", "bk", "--report", "no/e.txt"]).code(1);
    assert!(
        ran.err.contains("mkdir -p no") && ran.out.is_empty(),
        "{}",
        ran.err
    );
    let said = verify(&f, 4, &["web & <co>", "--target", "no"]);
    assert!(
        said["restorable"].to_string().contains("No such file"),
        "{said}"
    );
}

#[test]
fn signed() {
    let f = Fixture::new();
    f.run(&["export", "disk.vmdk", "bk"]).code(0);
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let public = pair.pk.to_box().unwrap();
    // As minisign -G -W writes it.
    let mut bytes = pair.sk.to_bytes();
    bytes[2..4].fill(0);
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    fs::write(f.path("key"), format!("untrusted comment: key\n{text}\n")).unwrap();
    fs::write(f.path("key.pub"), public.into_string()).unwrap();
    let line = pair.pk.to_base64();
    let args = [
        "bk", "--report", "r.json", "--report", "r.html", "--sign", "key",
    ];
    verify(&f, 0, &args);
    for key in ["key.pub", line.as_str()] {
        let said = f.run(&["verify-report", "r.html", "--key", key]).code(0);
        assert!(
            said.text().starts_with("GOOD: file:r.html"),
            "{}",
            said.text()
        );
    }
    // Changed, signed by somebody else, not signed.
    let said = f
        .run(&["verify-report", "r.json", "--key", &line, "--json"])
        .code(0)
        .json();
    let schema = crate::schema::schema("verify-report");
    crate::schema::check(&schema, &schema, &said, "verify-report");
    let text = fs::read_to_string(f.path("r.json")).unwrap();
    fs::write(f.path("r.json"), text.replace("proven", "PROVEN")).unwrap();
    let said = f
        .run(&["verify-report", "r.json", "--key", &line, "--json"])
        .code(4)
        .json();
    assert_eq!(said["good"], false);
    let other = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let other = other.pk.to_base64();
    f.run(&["verify-report", "r.html", "--key", &other]).code(4);
    f.run(&["verify-report", "bk/disk.vmdk", "--key", &line])
        .code(1);
    f.run(&["verify", "bk", "--report", "r.json", "--sign", "key.pub"])
        .code(1);
    f.run(&["verify", "bk", "--sign", "key"]).code(2);
}

/// A verification in pieces: what was proven is not read again, what is bad is always found.
#[test]
fn a_verification_in_pieces() {
    let f = Fixture::new();
    f.noise();
    f.run(&["export", "disk.vmdk", "bk", "--subformat", "monolithicFlat"])
        .code(0);
    let args = ["bk", "--state", "state", "--budget"];
    let said = verify(&f, 3, &[&args[..], &["0s"]].concat());
    assert!(said["unproven"].to_string().contains("the time was up"));
    let kept: Value = serde_json::from_slice(&fs::read(f.path("state")).unwrap()).unwrap();
    assert_eq!(kept["units"], serde_json::json!({}));
    // As if a run had come half of the way.
    let half = serde_json::json!({
        "key": kept["key"], "runs": 2, "files": {"disk-flat.vmdk": true},
        "units": {"disk.vmdk": 4}, "guests": {"disk.vmdk": 6},
    });
    let put = || fs::write(f.path("state"), half.to_string()).unwrap();
    let remarks = |said: &Value| said["guests"]["remarks"].to_string();
    put();
    let said = verify(&f, 0, &["bk", "--state", "state"]);
    // Of five files and their directories.
    assert!(said["guests"]["files"].as_u64().unwrap() < 5, "{said}");
    assert!(remarks(&said).contains("2 earlier runs proved a part"));
    assert!(!f.path("state").exists());
    // What is asked for is another thing.
    put();
    let said = verify(&f, 0, &["bk", "--state", "state", "--cross-check"]);
    assert!(said["guests"]["files"].as_u64().unwrap() >= 5, "{said}");
    assert!(remarks(&said).contains("does not count"), "{said}");
    // A file has changed, and its length and time of change are what they were.
    let flat = f.path("bk/disk-flat.vmdk");
    let good = fs::read(&flat).unwrap();
    let modified = fs::metadata(&flat).unwrap().modified().unwrap();
    let mut bad = good.clone();
    bad[1 << 20] ^= 1;
    fs::write(&flat, bad).unwrap();
    let file = fs::File::options().write(true).open(&flat).unwrap();
    file.set_modified(modified).unwrap();
    put();
    let said = verify(&f, 4, &["bk", "--state", "state"]);
    assert!(remarks(&said).contains("does not count"), "{said}");
    fs::write(&flat, &good).unwrap();
    // Not a file of ours, and no backup.
    fs::write(f.path("letter"), "dear").unwrap();
    f.run(&["verify", "bk", "--state", "letter"]).code(1);
    assert_eq!(fs::read(f.path("letter")).unwrap(), b"dear");
    f.run(&["verify", "disk.vmdk", "--state", "new"])
        .code(1)
        .says("a backup with a manifest");
}

/// A limit on memory is kept, and nothing is left under the name of the output.
#[test]
fn no_more_memory_than_allowed() {
    let f = Fixture::new();
    let mut noise = 1u64;
    let mut next = || {
        noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (noise >> 32) as u32
    };
    let bytes: Vec<u8> = (0..8 << 20).flat_map(|_| next().to_le_bytes()).collect();
    fs::write(f.path("big.raw"), bytes).unwrap();
    let args = [
        "convert",
        "big.raw",
        "out.qcow2",
        "--to",
        "qcow2",
        "--compress",
    ];
    let args = [&args[..], &["--format", "raw", "--max-memory"]].concat();
    f.run(&[&args[..], &["5M"]].concat())
        .code(1)
        .says("--max-memory allows 5 MiB");
    assert!(!f.path("out.qcow2").exists());
    f.run(&[&args[..], &["1G"]].concat()).code(0);
    f.run(&["info", "big.raw", "--max-memory", "much"]).code(2);
}
