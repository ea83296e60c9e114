//! `convert`.

use crate::common::{Fixture, names, skipped};
use std::{fs, process::Stdio, time::Duration};

#[test]
fn the_bytes_of_the_disk() {
    let f = Fixture::new();
    let ran = f
        .run(&["convert", "disk.vmdk", "x.raw", "--to", "raw", "--json"])
        .code(0);
    assert!(fs::read(f.path("x.raw")).unwrap() == f.raw());
    let json = ran.json();
    assert_eq!(json["virtual_size"], f.raw().len());
    assert_eq!(json["digest"]["kind"], "vmdkit");
    let streamed = f
        .run(&["convert", "-O", "raw", "-p", "disk.vmdk", "-"])
        .code(0);
    assert!(streamed.out == f.raw());
    assert!(
        streamed
            .err
            .contains(json["digest"]["hash"].as_str().unwrap())
    );
    let null = [
        "convert",
        "disk.vmdk",
        "/dev/null",
        "--to",
        "raw",
        "--digest",
        "none",
    ];
    assert!(!f.run(&null).code(0).text().contains("digest"));
}

#[test]
fn refusals() {
    let f = Fixture::new();
    let raw = f.raw();
    let convert = |dest: &str, more: &[&str]| {
        let mut args = vec!["convert", "disk.vmdk", dest, "--to", "raw"];
        args.extend(more);
        f.run(&args)
    };
    fs::write(f.path("there"), "mine").unwrap();
    convert("there", &[]).code(1).says("--force");
    assert_eq!(fs::read(f.path("there")).unwrap(), b"mine");
    convert("there", &["--force"]).code(0);
    assert!(fs::read(f.path("there")).unwrap() == raw);
    // An extent of the source, by whatever name.
    fs::hard_link(f.path("disk-flat.vmdk"), f.path("twin")).unwrap();
    for dest in ["disk.vmdk", "disk-flat.vmdk", "twin"] {
        convert(dest, &["--force"]).code(1).says("source");
    }
    assert!(f.raw() == raw);
    convert("no/such/dir", &[]).code(1).says("mkdir -p no/such");
    convert(".", &["--force"]).code(1);
    convert("x", &["--digest", "md5"]).code(2).says("sha256");
    f.run(&["convert", "disk.vmdk", "x", "--to", "qcow7"])
        .code(2);
    f.run(&["convert", "disk.vmdk", "x"]).code(2);
    let left: Vec<_> = names(f.dir.path());
    assert!(!left.iter().any(|n| n.starts_with(".vmdkit")), "{left:?}");
}

/// A big disk, mostly holes, with a MiB of data every 4: long enough to be interrupted.
fn big(f: &Fixture) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(f.path("big.raw")).unwrap();
    file.set_len(2 << 30).unwrap();
    for i in 0..512u64 {
        file.write_all_at(&vec![i as u8 | 1; 1 << 20], i << 22)
            .unwrap();
    }
}

#[test]
fn interrupted_it_leaves_nothing_that_looks_finished() {
    let f = Fixture::new();
    big(&f);
    let args = [
        "convert", "--format", "raw", "big.raw", "out.raw", "--to", "raw",
    ];
    for signal in ["INT", "TERM", "KILL"] {
        let mut child = f.command(&args).stdout(Stdio::null()).spawn().unwrap();
        // Until the temporary file is there.
        for _ in 0..2000 {
            if names(f.dir.path()).iter().any(|n| n.starts_with(".vmdkit")) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let id = child.id().to_string();
        let kill = std::process::Command::new("kill")
            .args(["-s", signal, &id])
            .status();
        assert!(kill.unwrap().success());
        let code = child.wait().unwrap().code();
        assert!(!f.path("out.raw").exists(), "{signal}");
        let left = names(f.dir.path()).iter().any(|n| n.starts_with(".vmdkit"));
        match signal {
            "INT" => assert_eq!((code, left), (Some(130), false)),
            "TERM" => assert_eq!((code, left), (Some(143), false)),
            _ => assert_eq!(code, None),
        }
    }
}

#[test]
fn a_full_disk_is_named() {
    let f = Fixture::new();
    let small = f.path("small");
    fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "none"])
        .arg(&small)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|s| s.success()) {
        skipped("root", "a small tmpfs cannot be mounted");
        return;
    }
    let convert = f.run(&["convert", "disk.vmdk", "small/x.raw", "--to", "raw"]);
    let copy = f.run(&["cp", "-r", "disk.vmdk", "/p0", "small"]);
    let left = names(&small);
    let _ = std::process::Command::new("umount").arg(&small).status();
    convert.code(1).says("No space left").says("make room");
    copy.code(1).says("No space left");
    assert!(
        !left
            .iter()
            .any(|n| n.starts_with(".vmdkit") || n == "x.raw"),
        "{left:?}"
    );
}

/// Every format and back: the same bytes, whichever way.
#[test]
fn to_every_format_and_back() {
    let f = Fixture::new();
    for (n, options) in [
        "vmdk",
        "vmdk --subformat monolithicFlat",
        "vmdk --subformat twoGbMaxExtentSparse --split-size 3M",
        "vmdk --subformat twogbmaxextentflat --split-size 3M",
        "vmdk --compress=1",
        "vmdk -c --stream-layout footer",
        "vmdk --subformat vmfs --adapter pvscsi --hw-version 19",
        "vmdk --subformat vmfsSparse",
        "vmdk --subformat seSparse --cid 0000beef",
        "qcow2",
        "qcow2 -c",
        "qcow2 -o compression_type=zstd",
        "vhd",
        "vpc --subformat fixed",
        "vhdx",
        "vdi --subformat static",
    ]
    .into_iter()
    .enumerate()
    {
        let (there, back) = (format!("x{n}"), format!("y{n}"));
        let mut args = vec!["convert", "disk.vmdk", &there, "--verify", "--json", "--to"];
        args.extend(options.split(' '));
        let json = f.run(&args).code(0).json();
        assert_eq!(json["verified"], true, "{options}");
        let files = json["files"].as_array().unwrap();
        assert_eq!(files.last().unwrap(), there.as_str());
        for file in files {
            assert!(f.path(file.as_str().unwrap()).exists());
        }
        f.run(&["convert", &there, &back, "--to", "raw"]).code(0);
        assert!(fs::read(f.path(&back)).unwrap() == f.raw(), "{options}");
        // Nothing beside it may be overwritten unasked.
        f.run(&args).code(1).says("--force");
        args.push("--force");
        f.run(&args).code(0);
    }
    let descriptor = fs::read_to_string(f.path("x6")).unwrap();
    assert!(
        descriptor.contains("ddb.adapterType = \"pvscsi\""),
        "{descriptor}"
    );
    assert!(descriptor.contains("ddb.virtualHWVersion = \"19\""));
    assert!(
        fs::read_to_string(f.path("x8"))
            .unwrap()
            .contains("CID=0000beef")
    );
    let left = names(f.dir.path());
    assert!(!left.iter().any(|n| n.starts_with(".vmdkit")), "{left:?}");
}

#[test]
fn a_vmdk_through_a_pipe() {
    let f = Fixture::new();
    let piped = f
        .run(&["convert", "disk.vmdk", "-", "--to", "vmdk"])
        .code(0);
    fs::write(f.path("piped.vmdk"), &piped.out).unwrap();
    f.run(&["convert", "piped.vmdk", "y", "--to", "raw"])
        .code(0);
    assert!(fs::read(f.path("y")).unwrap() == f.raw());
    for args in [
        "--to qcow2",
        "--to vmdk --subformat monolithicSparse",
        "--to vmdk --subformat streamOptimized --stream-layout header",
    ] {
        let mut all = vec!["convert", "disk.vmdk", "-"];
        all.extend(args.split(' '));
        let ran = f.run(&all).code(1);
        assert!(ran.out.is_empty(), "{args}");
        ran.says("hint");
    }
}

#[test]
fn options_of_another_format_are_mistakes() {
    let f = Fixture::new();
    for (args, said) in [
        ("--to raw --subformat fixed", "--subformat"),
        ("--to qcow2 --adapter ide", "for vmdk"),
        ("--to vhd --compress", "qcow2 and vmdk"),
        ("--to vmdk --compression zstd", "qcow2"),
        ("--to vmdk --subformat thin", "monolithicSparse"),
        ("--to vmdk --subformat vmfs --compress", "streamOptimized"),
        ("--to vmdk --stream-layout footer", "streamOptimized"),
        ("--to vdi --subformat thin", "dynamic and fixed"),
        ("--to qcow2 --compress=99", "1 to 9"),
        ("--to vmdk --adapter scsi", "lsilogic"),
        ("--to qcow2 -o cluster_size=4k", "known are"),
    ] {
        let mut all = vec!["convert", "disk.vmdk", "x"];
        all.extend(args.split(' '));
        f.run(&all).code(2).says(said);
        assert!(!f.path("x").exists());
    }
    f.run(&["convert", "disk.vmdk", "/dev/null", "--to", "qcow2"])
        .code(2)
        .says("--to raw");
    f.run(&["convert", "disk.vmdk", "-", "--to", "raw", "--verify"])
        .code(2);
}

#[test]
fn create_an_empty_disk() {
    let f = Fixture::new();
    for options in [
        "",
        "--subformat twoGbMaxExtentFlat",
        "--subformat seSparse",
        "--to qcow2",
        "--to vhd",
        "--to raw",
    ] {
        let mut args = vec!["create", "new", "3M", "--force", "--json"];
        args.extend(options.split(' ').filter(|a| !a.is_empty()));
        let json = f.run(&args).code(0).json();
        assert_eq!(json["virtual_size"], 3 << 20, "{options}");
        let format = match options {
            "--to raw" => vec!["--format", "raw"],
            _ => vec![],
        };
        let mut args = vec!["convert", "new", "back", "--to", "raw", "--force"];
        args.extend(format);
        f.run(&args).code(0);
        assert!(
            fs::read(f.path("back")).unwrap() == vec![0; 3 << 20],
            "{options}"
        );
    }
    f.run(&["create", "new2"]).code(2).says("SIZE");
    f.run(&["create", "new2", "100"])
        .code(1)
        .says("whole sectors");
    f.run(&["create", "new", "1M"]).code(1).says("--force");
    assert!(!f.path("new2").exists());
}

#[test]
fn create_a_descriptor_for_a_lone_flat_file() {
    let f = Fixture::new();
    fs::remove_file(f.path("disk.vmdk")).unwrap();
    f.run(&["create", "disk.vmdk", "--over", "disk-flat.vmdk"])
        .code(0);
    assert!(
        f.run(&["ls", "disk.vmdk", "/p0"])
            .code(0)
            .text()
            .contains("a.txt")
    );
    let esx = [
        "create",
        "esx.vmdk",
        "--over",
        "disk-flat.vmdk",
        "--subformat",
        "vmfs",
    ];
    f.run(&esx).code(0);
    assert!(
        fs::read_to_string(f.path("esx.vmdk"))
            .unwrap()
            .contains("VMFS \"disk-flat.vmdk\"")
    );
    f.run(&[
        "create",
        "disk-flat.vmdk",
        "--over",
        "disk-flat.vmdk",
        "--force",
    ])
    .code(1);
    fs::create_dir(f.path("else")).unwrap();
    f.run(&["create", "else/d.vmdk", "--over", "disk-flat.vmdk"])
        .code(1)
        .says("beside the flat");
    let sparse = [
        "create",
        "d.vmdk",
        "--over",
        "disk-flat.vmdk",
        "--subformat",
        "seSparse",
    ];
    f.run(&sparse).code(1).says("monolithicFlat or vmfs");
    assert_eq!(f.raw().len(), crate::common::LEN);
}

#[test]
fn create_a_child() {
    let f = Fixture::new();
    for subformat in [
        "monolithicSparse",
        "twoGbMaxExtentSparse",
        "vmfsSparse",
        "seSparse",
    ] {
        let name = format!("{subformat}.vmdk");
        let args = [
            "create",
            &name,
            "--child-of",
            "disk.vmdk",
            "--subformat",
            subformat,
            "--json",
        ];
        let json = f.run(&args).code(0).json();
        assert_eq!(json["parent"], "disk.vmdk");
        assert!(
            f.run(&["ls", &name, "/p0"])
                .code(0)
                .text()
                .contains("a.txt")
        );
    }
    // Children of children, and from another directory.
    f.run(&["create", "second.vmdk", "--child-of", "seSparse.vmdk"])
        .code(0);
    assert!(f.run(&["cat", "second.vmdk", "/p0/a.txt"]).code(0).text() == "hello\n");
    fs::create_dir(f.path("else")).unwrap();
    f.run(&["create", "else/c.vmdk", "--child-of", "disk.vmdk"])
        .code(0);
    let dir = f.dir.path().to_str().unwrap();
    f.run(&["ls", "else/c.vmdk", "/p0", "--allow-dir", dir])
        .code(0);
    let flat = [
        "create",
        "x.vmdk",
        "--child-of",
        "disk.vmdk",
        "--subformat",
        "vmfs",
    ];
    f.run(&flat).code(1).says("monolithicSparse");
    f.run(&["create", "x", "--child-of", "disk.vmdk", "--to", "vhd"])
        .code(2);
    f.run(&[
        "create",
        "disk-flat.vmdk",
        "--child-of",
        "disk.vmdk",
        "--force",
    ])
    .code(1);
}
