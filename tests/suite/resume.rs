//! `convert --resume`: killed at any moment, a conversion leaves no output under its name, and
//! is gone on with to the same bytes.

use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};
use tests::tools;

const MIB: usize = 1 << 20;

/// A disk of so many MiB, some of them empty, some that compress, some that do not.
fn source(path: &Path, mib: usize) {
    let file = File::create(path).unwrap();
    file.set_len((mib * MIB + 512) as u64).unwrap();
    let mut state = 7u32;
    for n in (0..mib).filter(|n| n % 5 != 3) {
        let bytes: Vec<u8> = (0..MIB)
            .map(|at| {
                if n % 2 == 0 || at % 8192 < 4096 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                }
                (state >> 24) as u8
            })
            .collect();
        file.write_all_at(&bytes, (n * MIB) as u64).unwrap();
    }
}

/// Nothing in it says what it is.
fn raw_source(source: &Path) -> &'static [&'static str] {
    match source.extension() {
        Some(e) if e == "raw" => &["--format", "raw"],
        _ => &[],
    }
}

fn command(args: &[&str], source: &Path, dest: &Path) -> Command {
    let mut command = Command::new(tools::vmdkit().unwrap());
    command
        .args(["convert", "--json", "--checkpoint", "0"])
        .args(args)
        .args(raw_source(source))
        .args([source, dest])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finish(args: &[&str], source: &Path, dest: &Path) -> Value {
    let out = command(args, source, dest).output().unwrap();
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

fn has_checkpoint(dir: &Path) -> bool {
    let mut names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names.any(|n| n.as_encoded_bytes().ends_with(b".resume"))
}

#[test]
fn killed_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("source.raw");
    source(&from, 200);
    let whole = finish(&["--to", "raw"], &from, Path::new("/dev/null"));
    let formats: [&[&str]; 7] = [
        &["--to", "raw"],
        &["--to", "vmdk"],
        &[
            "--to",
            "vmdk",
            "--subformat",
            "twoGbMaxExtentSparse",
            "--split-size",
            "16M",
        ],
        &["--to", "vmdk", "--subformat", "streamOptimized"],
        &["--to", "vmdk", "--subformat", "seSparse"],
        &["--to", "qcow2", "--compress"],
        &["--to", "vhdx"],
    ];
    let mut moment = std::process::id();
    let (mut kills, mut resumed, mut trials) = (0, 0, 0);
    while kills < 20 || resumed < 4 {
        trials += 1;
        assert!(
            trials < 100,
            "{kills} kills and {resumed} gone on with in {trials} trials"
        );
        let mut args = formats[trials % formats.len()].to_vec();
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let dest = to.join("disk.vmdk");
        // The first run knows nothing of going on.
        for round in 0..3 {
            let mut child = command(&args, &from, &dest).spawn().unwrap();
            moment = moment.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Every other trial when there is something to go on from, however long that takes.
            match trials % 2 == 0 {
                true => {
                    while !has_checkpoint(&to) && child.try_wait().unwrap().is_none() {
                        sleep(Duration::from_micros(500));
                    }
                    sleep(Duration::from_millis(u64::from(moment >> 25)));
                }
                false => sleep(Duration::from_millis(30 + u64::from(moment >> 23))),
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            if dest.exists() {
                // Killed between the last step and the end of the process.
                break;
            }
            kills += 1;
            if round == 0 {
                args.push("--resume");
            }
        }
        if !dest.exists() {
            if !args.contains(&"--resume") {
                args.push("--resume");
            }
            let said = finish(&args, &from, &dest);
            assert_eq!(said["digest"], whole["digest"], "{args:?}: {said}");
            if said["resumed"].is_u64() {
                resumed += 1;
                assert_eq!(said["verified"], true);
            }
            let mut again = vec!["--to", "raw"];
            if args[1] == "raw" {
                again.extend(["--format", "raw"]);
            }
            let read = finish(&again, &dest, Path::new("/dev/null"));
            if read["virtual_size"] == whole["virtual_size"] {
                assert_eq!(read["digest"], whole["digest"], "{args:?}");
            }
            let left: Vec<_> = fs::read_dir(&to)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .filter(|n| n.as_encoded_bytes().ends_with(b".resume"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        fs::remove_dir_all(&to).unwrap();
    }
}

/// A full disk: with --resume it goes on when there is room, without it nothing is left.
#[test]
fn a_full_disk_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("source.raw"), dir.path().join("to"));
    source(&from, 100);
    fs::create_dir(&to).unwrap();
    let dest = to.join("disk.qcow2");
    // The limit on the length of files stands for a full disk.
    let limited = |args: &str| {
        let line = format!(
            "ulimit -f {}; exec \"$0\" convert --format raw --checkpoint 0 --to qcow2 --compress {args} \"$1\" \"$2\"",
            24 << 10
        );
        Command::new("sh")
            .args(["-c", &format!("trap '' XFSZ; {line}")])
            .arg(tools::vmdkit().unwrap())
            .args([&from, &dest])
            .output()
            .unwrap()
    };
    let out = limited("");
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    let out = limited("--resume");
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        said.contains("the same command goes on from there"),
        "{said}"
    );
    assert!(!dest.exists());
    let said = finish(&["--to", "qcow2", "--compress", "--resume"], &from, &dest);
    assert!(said["resumed"].as_u64().unwrap() > 0);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_gone_on_with_is_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("source.raw");
    source(&from, 1);
    for (args, dest, hint) in [
        (
            vec!["--to", "raw", "--resume"],
            "/dev/null",
            "--resume goes from",
        ),
        (
            vec!["--to", "raw", "--resume", "--digest", "none"],
            "out",
            "digest",
        ),
    ] {
        let out = command(&args, &from, Path::new(dest)).output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(hint), "{said}");
    }
}
