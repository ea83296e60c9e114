//! `info`, `ls`, `stat`, `cat`, `map`.

use crate::common::{Fixture, LEN, contents_of_c};
use std::{
    fs,
    io::Read,
    os::unix::fs::FileExt,
    process::Stdio,
    time::{Duration, UNIX_EPOCH},
};

#[test]
fn volumes_and_directories() {
    let f = Fixture::new();
    let volumes = f.run(&["ls", "disk.vmdk"]).code(0);
    assert!(volumes.text().contains("p0") && volumes.text().contains("RESTORE"));
    assert!(volumes.text().contains("fat16"));
    let root = f.run(&["ls", "disk.vmdk", "/p0"]).code(0);
    assert_eq!(root.text(), "Long name of a file.dat\na.txt\ndir\nempty\n");
    let long = f.run(&["ls", "-la", "disk.vmdk", "/p0/a.txt"]).code(0);
    assert!(long.text().contains(" 6 "), "{}", long.text());
    let all = f.run(&["ls", "-R", "disk.vmdk"]).code(0);
    assert_eq!(
        all.text(),
        "/p0\n/p0/Long name of a file.dat\n/p0/a.txt\n/p0/dir\n/p0/dir/b.txt\n/p0/dir/sub\n\
         /p0/dir/sub/c.bin\n/p0/empty\n"
    );
    // What ls prints is what cat takes; so is the path without a volume, in any case.
    for path in ["/p0/dir/b.txt", "/dir/b.txt", "/P0/DIR/B.TXT", "dir/b.txt"] {
        let ran = f.run(&["cat", "disk.vmdk", path]);
        if path.starts_with("/P0") {
            ran.code(1);
        } else {
            assert_eq!(ran.code(0).text(), "there\n", "{path}");
        }
    }
}

#[test]
fn contents() {
    let f = Fixture::new();
    let c = contents_of_c();
    let path = "/p0/dir/sub/c.bin";
    assert!(f.run(&["cat", "disk.vmdk", path]).code(0).out == c);
    let part = f.run(&["cat", "disk.vmdk", path, "--offset", "70001", "--len", "99"]);
    assert!(part.code(0).out == c[70_001..70_100]);
    let two = f.run(&["cat", "disk.vmdk", "/a.txt", "/dir/b.txt"]).code(0);
    assert_eq!(two.text(), "hello\nthere\n");
    let some = f.run(&["cat", "disk.vmdk", "/a.txt", "/p0/nope"]).code(3);
    assert_eq!(some.says("/p0/nope").text(), "hello\n");
    f.run(&["cat", "disk.vmdk", "/p0/dir"])
        .code(1)
        .says("cp -r");
    f.run(&["cat", "disk.vmdk", path, "--offset", "400000"])
        .code(1);
}

#[test]
fn what_is_wrong_is_said() {
    let f = Fixture::new();
    f.run(&["ls", "nowhere.vmdk"]).code(1).says("nowhere.vmdk");
    f.run(&["ls", "disk.vmdk", "/p0/dirr"])
        .code(1)
        .says("'dir'");
    f.run(&["ls", "disk.vmdk", "C:/x"]).code(1).says("registry");
    f.run(&["ls"]).code(2);
    f.run(&["ls", "--format", "vmdq", "disk.vmdk"])
        .code(2)
        .says("vmdk, raw");
    f.run(&["ls", "--tz", "Nowhere", "disk.vmdk"])
        .code(2)
        .says("zone");
    std::fs::write(f.path("noise"), [7; 5000]).unwrap();
    f.run(&["info", "noise"]).code(1).says("--format raw");
    f.run(&["info", "--format", "raw", "noise"]).code(0);
    std::fs::remove_file(f.path("disk-flat.vmdk")).unwrap();
    f.run(&["info", "disk.vmdk"]).code(1).says("disk-flat.vmdk");
}

#[test]
fn times_without_a_zone_say_so() {
    let f = Fixture::new();
    let none = f
        .run(&["stat", "--json", "disk.vmdk", "/p0/a.txt"])
        .code(0)
        .json();
    assert_eq!(none["time_zone"], "unknown");
    assert!(!none["modified"].as_str().unwrap().ends_with('Z'));
    let zone = ["stat", "--json", "--tz", "+02:00", "disk.vmdk", "/p0/a.txt"];
    let given = f.run(&zone).code(0).json();
    assert_eq!(given["time_zone"], "utc");
    assert!(given["modified"].as_str().unwrap().ends_with("+02:00"));
    assert_eq!(
        given["modified"].as_str().unwrap()[..19],
        none["modified"].as_str().unwrap()[..19]
    );
}

#[test]
fn the_map_covers_the_disk() {
    let f = Fixture::new();
    let map = f.run(&["map", "--json", "disk.vmdk"]).code(0);
    let mut at = 0;
    for line in map.text().lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["offset"], at);
        at += row["length"].as_u64().unwrap();
    }
    assert_eq!(at, LEN as u64);
    assert!(
        f.run(&["map", "disk.vmdk"])
            .code(0)
            .text()
            .contains("disk-flat.vmdk:0")
    );
}

/// Whoever reads goes away: no error, exit code 0.
#[test]
fn a_broken_pipe_is_not_an_error() {
    let f = Fixture::new();
    for args in [
        &["ls", "-R", "--json", "disk.vmdk"][..],
        &["cat", "disk.vmdk", "/p0/dir/sub/c.bin"],
        &["convert", "disk.vmdk", "-", "--to", "raw", "-q"],
        &["info", "disk.vmdk"],
        &["--help"],
    ] {
        let mut child = f
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {err}");
        assert_eq!(err, "", "{args:?}");
    }
}

#[test]
fn find_by_name_size_time_and_type() {
    let f = Fixture::new();
    let find = |args: &str| {
        let mut all = vec!["find", "disk.vmdk"];
        all.extend(args.split(' ').filter(|a| !a.is_empty()));
        let ran = f.run(&all).code(0);
        let mut paths: Vec<String> = ran.text().lines().map(String::from).collect();
        paths.sort();
        paths.join(" ")
    };
    let everything = "/p0 /p0/Long name of a file.dat /p0/a.txt /p0/dir /p0/dir/b.txt \
                      /p0/dir/sub /p0/dir/sub/c.bin /p0/empty";
    assert_eq!(find(""), everything);
    assert_eq!(
        find("/p0/dir"),
        "/p0/dir/b.txt /p0/dir/sub /p0/dir/sub/c.bin"
    );
    assert_eq!(find("-name *.txt"), "/p0/a.txt /p0/dir/b.txt");
    assert_eq!(find("--name A.TXT"), "");
    assert_eq!(find("-iname A.* /p0"), "/p0/a.txt");
    assert_eq!(find("-type d"), "/p0 /p0/dir /p0/dir/sub");
    assert_eq!(find("--type f --size +1k"), "/p0/dir/sub/c.bin");
    assert_eq!(find("-size 0"), "/p0/empty");
    assert_eq!(
        find("-size -6 -type f"),
        "/p0/Long name of a file.dat /p0/empty"
    );
    assert_eq!(find("-size 6"), "/p0/a.txt /p0/dir/b.txt");
    assert_eq!(find("--type f --newer 2090-01-01"), "");
    assert_eq!(
        find("-iname a.txt --older 2090-01-01T00:00:00Z"),
        "/p0/a.txt"
    );
    let mark = fs::File::create(f.path("mark")).unwrap();
    let late = UNIX_EPOCH + Duration::from_secs(3_800_000_000);
    mark.set_modified(late).unwrap();
    assert_eq!(find("-iname a.txt --older mark"), "/p0/a.txt");
    assert_eq!(find("-iname a.txt -newer mark"), "");
    let zero = f
        .run(&["find", "disk.vmdk", "/p0/dir", "-0", "-type", "f"])
        .code(0);
    assert!(zero.out.ends_with(b"\0") && !zero.out.contains(&b'\n'));
    f.run(&["find", "disk.vmdk", "--newer", "yesterday"])
        .code(2)
        .says("2026-03-01");
    f.run(&["find", "disk.vmdk", "--size", "big"])
        .code(2)
        .says("expected a number");
    f.run(&["find", "disk.vmdk", "--name", "[a"])
        .code(2)
        .says("pattern");
    f.run(&["find", "disk.vmdk", "/p0/a.txt"])
        .code(1)
        .says("a directory");
}

/// A disk with swap and a FAT volume, and, `unknown`, a partition of files of which nothing is known.
fn with_swap(f: &Fixture, unknown: bool) -> std::path::PathBuf {
    let fat = f.raw();
    let mib = 1 << 20;
    let mut disk = vec![0; 4 * mib + fat.len()];
    let partitions = [(0x82u8, 1, 1), (0x83, 2, 1), (6, 4, fat.len() / mib)];
    for (n, (kind, start, len)) in partitions.iter().enumerate() {
        if *kind == 0x83 && !unknown {
            continue;
        }
        let entry = &mut disk[446 + 16 * n..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&(*start as u32 * 2048).to_le_bytes());
        entry[12..].copy_from_slice(&(*len as u32 * 2048).to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[2 * mib..3 * mib].fill(0x5a);
    // As mkswap makes it, with a page of 4 KiB.
    disk[mib + 1024] = 1;
    disk[mib + 1028] = 255;
    disk[mib + 4086..mib + 4096].copy_from_slice(b"SWAPSPACE2");
    disk[4 * mib..].copy_from_slice(&fat);
    let path = f.path(if unknown { "unknown.raw" } else { "swap.raw" });
    std::fs::write(&path, disk).unwrap();
    path
}

/// Whoever asks for all of a disk misses nothing for a partition that has no files; whoever asks for
/// that partition is told.
#[test]
fn what_has_no_files_is_no_failure() {
    let f = Fixture::new();
    for (unknown, code) in [(false, 0), (true, 3)] {
        let disk = with_swap(&f, unknown);
        let disk = disk.to_str().unwrap();
        let out = f.path(&format!("out{code}"));
        let verbs: [&[&str]; 4] = [
            &["ls", "-R", disk],
            &["find", disk],
            &["cp", "-r", disk, "/", out.to_str().unwrap()],
            &["tar", disk, "/"],
        ];
        for args in verbs {
            let ran = f.run(args).code(code);
            assert_eq!(ran.err.contains("/p2"), unknown, "{args:?}: {}", ran.err);
        }
        assert_eq!(std::fs::read(out.join("p3/a.txt")).unwrap(), b"hello\n");
        // Nothing proves the contents.
        let verified = f.run(&["verify", disk]).code(3);
        let lost = if unknown {
            "1 not readable"
        } else {
            "0 not readable"
        };
        assert!(verified.text().contains(lost), "{}", verified.text());
    }
    let disk = with_swap(&f, false);
    let disk = disk.to_str().unwrap();
    f.run(&["cat", disk, "/a.txt"]).code(0).quiet();
    for args in [
        &["ls", disk, "/p1"][..],
        &["find", disk, "/p1"],
        &["cat", disk, "/p1"],
        &["cat", disk, "/p1/a.txt"],
        &["tar", disk, "/p1"],
    ] {
        f.run(args).code(1).says("swap");
    }
    let stat = f.run(&["stat", disk, "/p1"]).code(3);
    assert!(stat.text().contains("swap"), "{}", stat.text());
    // The type alone does not say that there is nothing: Solaris has the same.
    let mut bytes = std::fs::read(disk).unwrap();
    bytes[1 << 20..2 << 20].fill(0x5a);
    std::fs::write(disk, &bytes).unwrap();
    f.run(&["ls", "-R", disk]).code(3).says("/p1");
    // Never written to, it holds nothing.
    let sparse = std::fs::File::create(disk).unwrap();
    sparse.set_len(bytes.len() as u64).unwrap();
    sparse.write_all_at(&bytes[..512], 0).unwrap();
    sparse.write_all_at(&bytes[4 << 20..], 4 << 20).unwrap();
    f.run(&["ls", "-R", disk]).code(0);
}

/// What was on a disk before its partition table makes it doubtful, and not bad; so does a crash.
#[test]
fn doubtful_is_not_bad() {
    let f = Fixture::new();
    let disk = with_swap(&f, false);
    // A superblock of a Linux software RAID, of version 1.2, whose checksum is right.
    let mut bytes = std::fs::read(&disk).unwrap();
    let superblock = &mut bytes[4096..4096 + 256];
    for (at, n) in [(0, 0xa92b_4efcu32), (4, 1), (72, 5), (92, 2), (144, 8)] {
        superblock[at..at + 4].copy_from_slice(&n.to_le_bytes());
    }
    let words = superblock
        .chunks(4)
        .map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap())));
    let sum: u64 = words.sum();
    let sum = (sum & 0xffff_ffff) as u32 + (sum >> 32) as u32;
    superblock[216..220].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&disk, &bytes).unwrap();
    let disk = disk.to_str().unwrap();
    f.run(&["ls", "-R", disk])
        .code(3)
        .says("info shows the table");
    let checked = f.run(&["check", disk]).code(0);
    assert!(checked.text().contains("partitions-doubtful"));
    let verified = f.run(&["verify", disk]).code(3);
    assert!(!verified.text().contains("BAD"), "{}", verified.text());

    f.run(&["convert", "disk.vmdk", "open.vmdk", "--to", "vmdk"])
        .code(0);
    let mut bytes = std::fs::read(f.path("open.vmdk")).unwrap();
    bytes[72] = 1;
    std::fs::write(f.path("open.vmdk"), bytes).unwrap();
    f.run(&["check", "open.vmdk"]).code(4);
    let verified = f.run(&["verify", "open.vmdk"]).code(3);
    assert!(verified.text().contains("1 warnings"));
}
