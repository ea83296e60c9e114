//! ENOSPC, EIO and losses of power at every operation of every writer: the destination is absent,
//! resumable or right.
//!
//! Each writer runs once into [`tests::crash_fs`], on a disk of 4 MiB. From the log of that run
//! states are made as a loss of power after any operation may leave them, and compared with what
//! was there before and after; from some the same is run again. Then it runs with operation n
//! failing, for some n, each in one of four ways. With `VMDKIT_CRASH=N` every n fails in all four, and N
//! states by luck are made for every operation instead of two, with the same run again from up to
//! 64 N of them.

mod engine;
mod place;
mod sweep;

use engine::{Files, Writer, killed, no_more, prove, said, same_disk};
use place::{GUEST, Place, contents, strings};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tests::{crash_fs::tree::Tree, tools};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn nothing(_: &str) -> bool {
    false
}

/// A conversion to `to` with these arguments; with `resume` it is gone on with, and `old` is
/// what is replaced.
fn convert(place: &Place, args: &[&str], resume: bool, old: bool) -> Result<(), String> {
    let format: &[&str] = match args {
        ["raw", ..] => &["--format", "raw"],
        _ => &[],
    };
    let mut all = vec!["convert", "-q", "--jobs", "1", "--format", "raw", "--to"];
    all.extend(args);
    if old {
        let mut first = all.clone();
        first.extend([text(&place.later), "@/disk.img"]);
        place.make(&first);
    }
    let base = place.base();
    all.extend(["--checkpoint", if resume { "0" } else { "3600" }]);
    if resume {
        // Hashed in order: there is a checkpoint for every MiB.
        all.extend(["--resume", "--digest", "sha256"]);
    }
    if old {
        all.push("--force");
    }
    all.extend([text(&place.disk), "@/disk.img"]);
    let mut again = vec![strings(&all)];
    if !old && format.is_empty() {
        // Extents may be left that no descriptor names.
        all.insert(1, "--force");
        again.push(
            strings(&all)
                .into_iter()
                .filter(|a| a != "--resume")
                .collect(),
        );
        all.remove(1);
    }
    let name = format!("convert {args:?}, resume {resume}, over another {old}");
    prove(
        &place.fs,
        &base,
        &Writer {
            name: &name,
            args: strings(&all),
            again,
            replaces: old,
            goes_on: resume,
            main: Some("disk.img"),
            aside: nothing,
            also: no_more,
            right: Box::new(|at| same_disk(&at.join("disk.img"), format, &place.disk)),
        },
    )
}

const FORMATS: &[&[&str]] = &[
    &["raw"],
    &["vmdk"],
    &["vmdk", "--subformat", "monolithicFlat"],
    &[
        "vmdk",
        "--subformat",
        "twoGbMaxExtentSparse",
        "--split-size",
        "1M",
    ],
    &[
        "vmdk",
        "--subformat",
        "twoGbMaxExtentFlat",
        "--split-size",
        "1M",
    ],
    &["vmdk", "--subformat", "streamOptimized"],
    &["vmdk", "--subformat", "seSparse"],
    &["qcow2"],
    &["qcow2", "--compress"],
    &["vhd"],
    &["vhdx"],
    &["vdi"],
];

fn each(formats: &[&[&str]], resume: bool, old: bool) {
    let mut wrong = String::new();
    for args in formats {
        let Some(place) = Place::new() else { return };
        wrong.extend(convert(&place, args, resume, old).err());
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn conversions() {
    each(FORMATS, false, false);
}

#[test]
fn conversions_that_are_gone_on_with() {
    each(&FORMATS[..6], true, false);
}

#[test]
fn more_conversions_that_are_gone_on_with() {
    each(&FORMATS[6..], true, false);
}

#[test]
fn conversions_over_another() {
    each(&FORMATS[..5], false, true);
}

/// A machine, its disk one of ours.
fn machine(place: &Place, disk: &Path) -> PathBuf {
    let dir = place.dir.path().join(disk.file_stem().unwrap());
    fs::create_dir(&dir).unwrap();
    let config = "config.version = \"8\"\ndisplayName = \"web\"\nscsi0.present = \"TRUE\"\n\
                  scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"web.vmdk\"\n\
                  uuid.bios = \"56 4d 81 3c dd d8 88 2c-f1 42 bf 58 f5 7c 2d 9f\"\n";
    fs::write(dir.join("web.vmx"), config).unwrap();
    let out = Command::new(tools::vmdkit().unwrap())
        .args(["convert", "-q", "--format", "raw", "--to", "vmdk"])
        .args([disk, &dir.join("web.vmdk")])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", said(&out));
    dir
}

/// Into a new directory: by `args`, with the disk of `source` in it at last.
fn directory(place: &Place, args: &[&str], dir: &str, source: &Path) {
    let base = place.base();
    let disk = format!("{dir}/web.vmdk");
    prove(
        &place.fs,
        &base,
        &Writer {
            name: &args.join(" "),
            args: strings(args),
            again: vec![strings(args)],
            replaces: false,
            goes_on: false,
            main: Some(dir),
            aside: nothing,
            also: no_more,
            right: Box::new(|at| {
                let allowed = ["--allow-dir", text(at)];
                same_disk(&at.join(&disk), &allowed, source)
            }),
        },
    )
    .unwrap();
}

#[test]
fn backups() {
    let Some(place) = Place::new() else { return };
    let (old, new) = (machine(&place, &place.disk), machine(&place, &place.later));
    let export = ["export", "-q", "--jobs", "1"];
    let first = [&export[..], &[text(&old), "@/first"]].concat();
    directory(&place, &first, "first", &place.disk);
    place.fs.load(&Tree::default(), None);
    place.make(&first);
    let second = [&export[..], &["--since", "@/first", text(&new), "@/second"]].concat();
    directory(&place, &second, "second", &place.later);
    let backup = place.dir.path().join("backup");
    let out = [&export[..], &[text(&old), text(&backup)]].concat();
    place.fs.load(&Tree::default(), None);
    place.make(&out);
    let restore = ["restore", "-q", text(&backup), "@/machine"];
    directory(&place, &restore, "machine", &place.disk);
}

/// Each backup that has its manifest is whole, as it was or as it becomes; one that is as it was
/// and builds on another has that one as it was.
fn generations(now: &Files, before: &Files, end: &Files) -> Result<(), String> {
    let part = |files: &Files, dir: &str| -> Files {
        // That it was proven is noted later.
        let inside =
            |path: &String| path.starts_with(&format!("all/{dir}/")) && !path.ends_with("/.done");
        let of = files.iter().filter(|(path, _)| inside(path));
        of.map(|(path, kind)| (path.clone(), kind.clone()))
            .collect()
    };
    let is = |dir: &str, when: &Files| {
        let there = part(when, dir);
        !there.is_empty() && part(now, dir) == there
    };
    for dir in ["first", "second", "third"] {
        let has_manifest = now.contains_key(&format!("all/{dir}/vmdkit-manifest.json"));
        if has_manifest && !is(dir, before) && !is(dir, end) {
            return Err(format!("{dir} has a manifest and is neither old nor new"));
        }
    }
    if is("second", before) && !is("first", before) {
        return Err("second builds on first, which is gone".to_owned());
    }
    if !is("second", before) && !is("second", end) {
        return Err("second is gone".to_owned());
    }
    Ok(())
}

/// A chain expires: the third backup is written, the second is made whole, the first goes.
#[test]
fn backups_that_are_made_whole() {
    let Some(place) = Place::new() else { return };
    let (old, new) = (machine(&place, &place.disk), machine(&place, &place.later));
    let export = &["export", "-q", "--jobs", "1"][..];
    fs::create_dir(place.fs.path().join("all")).unwrap();
    let keep = |n| [export, &["--since", "newest", "--merge", "--keep", n]].concat();
    // Which one is older is told in seconds.
    let second = std::time::Duration::from_millis(1100);
    place.make(&[&keep("9")[..], &[text(&old), "@/all/first"]].concat());
    std::thread::sleep(second);
    place.make(&[&keep("9")[..], &[text(&new), "@/all/second"]].concat());
    std::thread::sleep(second);
    let args = strings(&[&keep("2")[..], &[text(&old), "@/all/third"]].concat());
    // Where the third is there already another one makes good what was not done.
    let more = strings(&[&keep("2")[..], &[text(&old), "@/all/fourth"]].concat());
    let base = place.base();
    prove(
        &place.fs,
        &base,
        &Writer {
            name: "export --keep --merge",
            args: args.clone(),
            again: vec![args.clone(), more],
            replaces: true,
            goes_on: false,
            main: None,
            aside: |path| path.ends_with("/.done"),
            also: generations,
            right: Box::new(|at| {
                let allowed = ["--allow-dir", text(at)];
                let (one, other) = (&place.disk, &place.later);
                for (dir, disk) in [("first", one), ("second", other), ("third", one)] {
                    let disk_there = at.join("all").join(dir).join("web.vmdk");
                    if disk_there.exists() {
                        same_disk(&disk_there, &allowed, disk)?;
                    }
                }
                Ok(())
            }),
        },
    )
    .unwrap();
    place.fs.load(&base, None);
    place.make(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!place.fs.path().join("all/first").exists());
}

fn is_replicas(path: &str) -> bool {
    path.contains(".replica")
}

/// Brings `hot` to the later disk with `args`; whatever cuts it off, one of `again` ends it.
fn replica(place: &Place, name: &str, hot: &str, args: &[&str], again: &[&[&str]]) -> String {
    let format: &[&str] = match hot.ends_with(".img") {
        true => &["--format", "raw"],
        false => &[],
    };
    let writer = Writer {
        name,
        args: strings(args),
        again: again.iter().map(|args| strings(args)).collect(),
        replaces: true,
        goes_on: true,
        main: Some(hot),
        aside: is_replicas,
        also: no_more,
        right: Box::new(|at| same_disk(&at.join(hot), format, &place.later)),
    };
    let base = place.base();
    let mut wrong = prove(&place.fs, &base, &writer).err().unwrap_or_default();
    wrong.extend(killed(&place.fs, &base, &writer).err());
    wrong
}

const REPLICAS: [(&str, &[&str]); 2] = [("hot.img", &["--raw-target"]), ("hot.vmdk", &[])];

#[test]
fn replicas() {
    let mut wrong = String::new();
    for (hot, args) in REPLICAS {
        for first in [true, false] {
            let Some(place) = Place::new() else { return };
            let at = format!("@/{hot}");
            let all = ["replicate", "-q", "--format", "raw", "--jobs", "1"];
            let mut all = [&all[..], args].concat();
            if !first {
                place.make(&[&all[..], &[text(&place.disk), &at]].concat());
            }
            all.extend([text(&place.later), &at]);
            let name = format!("replicate {hot}, first {first}");
            wrong += &replica(&place, &name, hot, &all, &[&all]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn replicas_that_are_received() {
    let mut wrong = String::new();
    for (hot, args) in REPLICAS {
        let Some(place) = Place::new() else { return };
        let stream = place.dir.path().join("stream");
        let sent = Command::new(tools::vmdkit().unwrap())
            .args(["replicate", "-q", "--format", "raw", "--send"])
            .arg(&place.later)
            .output()
            .unwrap();
        assert!(sent.status.success(), "{}", said(&sent));
        fs::write(&stream, &sent.stdout).unwrap();
        let at = format!("@/{hot}");
        let of = |mode| [&["replicate", "-q", "--jobs", "1", mode, &at][..], args].concat();
        let receive = [&of("--receive")[..], &["<", text(&stream)]].concat();
        // What ended it has all that the stream is for, and the stream is for another state.
        let name = format!("replicate --receive {hot}");
        wrong += &replica(&place, &name, hot, &receive, &[&receive, &of("--have")]);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn files_that_are_restored() {
    let Some(place) = Place::new() else { return };
    fs::create_dir(place.fs.path().join("to")).unwrap();
    fs::write(place.fs.path().join("to/a.txt"), "an old one").unwrap();
    let base = place.base();
    let args = strings(&[
        "cp",
        "-q",
        "-r",
        "--jobs",
        "1",
        "--overwrite",
        "always",
        text(&place.disk),
        "/p0/.",
        "@/to",
    ]);
    prove(
        &place.fs,
        &base,
        &Writer {
            name: "cp -r",
            args: args.clone(),
            again: vec![args],
            replaces: true,
            goes_on: false,
            main: None,
            aside: nothing,
            also: no_more,
            right: Box::new(|at| {
                let wrong = |(n, (name, len)): &(usize, &(&str, usize))| {
                    fs::read(at.join("to").join(name)).ok() != Some(contents(*n as u64, *len))
                };
                match GUEST.iter().enumerate().find(wrong) {
                    Some((_, (name, _))) => Err(format!("{name} has wrong bytes")),
                    None => Ok(()),
                }
            }),
        },
    )
    .unwrap();
}

#[test]
fn mended_copies() {
    let Some(place) = Place::new() else { return };
    let broken = place.dir.path().join("broken.vmdk");
    let args = ["convert", "-q", "--format", "raw", "--to", "vmdk"];
    place.make(&[&args[..], &[text(&place.disk), text(&broken)]].concat());
    let mut bytes = fs::read(&broken).unwrap();
    let rgd = u64::from_le_bytes(bytes[48..56].try_into().unwrap()) as usize * 512;
    bytes[rgd..rgd + 4].fill(0xff);
    fs::write(&broken, bytes).unwrap();
    let args = ["check", "-q", text(&broken), "--repair", "@/mended.vmdk"];
    prove(
        &place.fs,
        &place.base(),
        &Writer {
            name: "check --repair",
            args: strings(&args),
            again: vec![strings(&args)],
            replaces: false,
            goes_on: false,
            main: Some("mended.vmdk"),
            aside: nothing,
            also: no_more,
            right: Box::new(|at| same_disk(&at.join("mended.vmdk"), &[], &place.disk)),
        },
    )
    .unwrap();
}
