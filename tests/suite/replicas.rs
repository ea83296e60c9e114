//! `replicate` killed at any moment: the target is the old disk or the new one, or has no name
//! until the same command ends it.

use crate::shared_blocks::Xfs;
use serde_json::Value;
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tests::tools;

const MIB: usize = 1 << 20;
const LEN: usize = 24 * MIB + 512;

struct Noise(u32);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }
}

/// Writes over some of the disk: noise mostly, and zeros.
fn change(path: &Path, noise: &mut Noise) {
    let file = File::options().write(true).open(path).unwrap();
    for n in 0..20 {
        let at = noise.next() as usize % (LEN - 2 * MIB);
        let len = noise.next() as usize % (3 * MIB / 2);
        let bytes: Vec<u8> = (0..len).map(|_| noise.next() as u8).collect();
        let zeros = vec![0; len];
        let bytes = if n % 5 == 4 { &zeros } else { &bytes };
        file.write_all_at(bytes, at as u64).unwrap();
    }
}

fn replicate(args: &[&str]) -> Command {
    let mut command = Command::new(tools::vmdkit().unwrap());
    command
        .args(["replicate", "--json", "--format", "raw"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Whether the journal is complete, so that the target is being written.
fn is_applying(dir: &Path) -> bool {
    let mut names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names.any(|n| {
        n.to_str()
            .is_some_and(|n| n.ends_with(".applying") || n.ends_with(".journal"))
    })
}

fn finish(args: &[&str]) -> Value {
    let out = replicate(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Kills replications into a directory until enough were, and enough of them while the target
/// was written.
fn kill(dir: &Path, kills: usize, written: usize) {
    let (source, target) = (dir.join("source.raw"), dir.join("hot.raw"));
    let mut noise = Noise(std::process::id());
    File::create(&source).unwrap().set_len(LEN as u64).unwrap();
    change(&source, &mut noise);
    let paths = [source.to_str().unwrap(), target.to_str().unwrap()];
    finish(&paths);
    let (mut killed, mut ended, mut trials) = (0, 0, 0);
    // How long one takes here and now: a machine that does other things is slow.
    let mut whole = Duration::from_millis(500);
    while killed < kills || ended < written {
        trials += 1;
        assert!(
            trials < 20 * kills,
            "{killed} kills, {ended} while it was written, in {trials} trials"
        );
        let old = fs::read(&target).unwrap();
        change(&source, &mut noise);
        let new = fs::read(&source).unwrap();
        for _ in 0..3 {
            let mut child = replicate(&paths).spawn().unwrap();
            // Every other one when the target is written, however long that takes to come.
            match trials % 2 == 0 {
                true => {
                    while !is_applying(dir) && child.try_wait().unwrap().is_none() {
                        sleep(Duration::from_micros(200));
                    }
                    sleep(Duration::from_micros(u64::from(noise.next() % 4000)));
                }
                false => sleep(whole.mul_f64(f64::from(noise.next() % 1000) / 1000.0)),
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            match fs::read(&target) {
                Ok(now) => assert!(now == old || now == new, "a mix"),
                Err(_) => assert!(dir.join("hot.raw.replica.applying").exists()),
            }
        }
        let begun = Instant::now();
        let said = finish(&paths);
        if said["changed_units"] != 0 {
            whole = (whole + begun.elapsed()) / 2;
        }
        ended += usize::from(said["recovered"] == true);
        assert!(fs::read(&target).unwrap() == new);
        let left = fs::read_dir(dir).unwrap();
        let left: Vec<_> = left
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.ends_with(".applying") || n.ends_with(".journal"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn killed_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    kill(dir.path(), 14, 1);
}

#[test]
fn killed_where_blocks_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let Some(xfs) = Xfs::new(dir.path()) else {
        return;
    };
    kill(xfs.path(), 6, 0);
}

/// The receiver is killed again and again: each attempt sends less, and the end is right.
#[test]
fn a_stream_that_breaks_off() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source.raw"), dir.path().join("hot.raw"));
    let mut noise = Noise(std::process::id());
    File::create(&source).unwrap().set_len(LEN as u64).unwrap();
    change(&source, &mut noise);
    let target_name = target.to_str().unwrap();
    let ran = |command: &mut Command, input: &[u8]| {
        command.stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (output.stdout, said)
    };
    for _ in 0..3 {
        let mut lengths = Vec::new();
        for attempt in 0..4 {
            let mut have = Command::new(tools::vmdkit().unwrap());
            have.args(["replicate", "--have", target_name])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let (have, _) = ran(&mut have, b"");
            let send = ["--send", source.to_str().unwrap(), "--since", "-"];
            let (stream, said) = ran(&mut replicate(&send), &have);
            let report: Value = serde_json::from_str(said.trim()).unwrap();
            lengths.push((stream.len(), report["kept_units"].as_u64().unwrap()));
            if attempt == 3 {
                ran(&mut replicate(&["--receive", target_name]), &stream);
                break;
            }
            let mut child = replicate(&["--receive", target_name])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            // So much has come, and no more will.
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(&stream[..stream.len() / 3]).unwrap();
            sleep(Duration::from_millis(300));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(lengths.windows(2).all(|w| w[1].0 < w[0].0), "{lengths:?}");
        assert!(lengths[3].1 > 0, "{lengths:?}");
        assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
        change(&source, &mut noise);
    }
}
