//! `mount`, `umount`, `cleanup`.

use crate::common::{Fixture, names, skipped};
use std::{fs, os::unix::fs::MetadataExt};

pub(crate) fn no_fuse() -> bool {
    let missing = !std::path::Path::new("/dev/fuse").exists();
    if missing {
        skipped("fuse", "no /dev/fuse");
    }
    missing
}

#[test]
fn there_when_it_returns_and_gone_afterwards() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    fs::create_dir(f.path("mnt")).unwrap();
    f.run(&["mount", "disk.vmdk", "mnt"]).code(0);
    let read = fs::read(f.path("mnt/p0/dir/b.txt"));
    let listed = names(&f.path("mnt/p0")).len();
    let again = f.run(&["mount", "disk.vmdk", "mnt"]);
    f.run(&["umount", "mnt"]).code(0);
    assert_eq!(read.unwrap(), b"there\n");
    assert_eq!(listed, 4);
    again.code(1).says("nothing is mounted");
    assert!(names(&f.path("mnt")).is_empty());
    f.run(&["umount", "mnt"]).code(1);
    f.run(&["mount", "--layout", "raw", "disk.vmdk", "mnt"])
        .code(0);
    let disk = fs::read(f.path("mnt/disk.img"));
    f.run(&["umount", "mnt"]).code(0);
    assert!(disk.unwrap() == f.raw());
}

/// Where SOURCE itself is below the mount point: nothing is looked up by a name that leads into the
/// mount before that is served.
#[test]
fn over_the_directory_of_its_source() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    fs::create_dir_all(f.path("above/own")).unwrap();
    for name in ["disk.vmdk", "disk-flat.vmdk"] {
        fs::copy(f.path(name), f.path("above/own").join(name)).unwrap();
    }
    for at in ["above/own", "above"] {
        f.run(&["mount", "above/own/disk.vmdk", at]).code(0);
        let read = fs::read(f.path(at).join("p0/dir/b.txt"));
        f.run(&["umount", at]).code(0);
        assert_eq!(read.unwrap(), b"there\n");
    }
}

/// FAT stores local times: a named zone, whose offset changes over the year, settles them.
#[test]
fn times_in_a_named_zone() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    fs::create_dir(f.path("mnt")).unwrap();
    let shown = |zone: &str| {
        f.run(&["mount", "--tz", zone, "disk.vmdk", "mnt"]).code(0);
        let modified = fs::metadata(f.path("mnt/p0/a.txt")).map(|m| m.mtime());
        f.run(&["umount", "mnt"]).code(0);
        modified.unwrap()
    };
    let utc = shown("UTC");
    assert!([3600, 7200].contains(&(utc - shown("Europe/Berlin"))));
    assert_eq!(utc - shown("+05:00"), 5 * 3600);
}

#[test]
fn a_clean_end_says_nothing() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    fs::create_dir(f.path("mnt")).unwrap();
    f.run(&["mount", "--log", "log", "disk.vmdk", "mnt"])
        .code(0);
    f.run(&["umount", "mnt"]).code(0);
    // The process that serves ends a moment after the mount.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(fs::read_to_string(f.path("log")).unwrap(), "");
}

#[test]
fn errors_of_the_serving_process_are_shown() {
    let f = Fixture::new();
    f.run(&["mount", "disk.vmdk", "nowhere"])
        .code(1)
        .says("mkdir -p");
    f.run(&["mount", "nothing.vmdk", "."])
        .code(1)
        .says("nothing.vmdk");
    f.run(&["mount", "--umask", "9", "disk.vmdk", "."]).code(2);
    f.run(&["cleanup"]).code(0);
}

/// As mount(8) calls its helper for a line of /etc/fstab.
#[test]
fn a_helper_for_fstab() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    std::fs::create_dir(f.path("mnt")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vmdkit"), f.path("mount.vmdkit")).unwrap();
    let mount = |options: &str| {
        std::process::Command::new("./mount.vmdkit")
            .args(["disk.vmdk", "mnt", "-o", options])
            .current_dir(f.dir.path())
            .output()
            .unwrap()
    };
    let out = mount("ro,nofail,umask=077,x-systemd.automount");
    assert!(out.status.success(), "{out:?}");
    let text = std::fs::read(f.path("mnt/p0/a.txt")).unwrap();
    assert_eq!(text, b"hello\n");
    f.run(&["umount", "mnt"]).code(0);
    let out = mount("rw");
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("read-only"));
}

/// The process that serves the mount at `dir`.
fn serving(dir: &std::path::Path) -> u32 {
    let wanted = dir.file_name().unwrap().to_str().unwrap().to_owned();
    let of = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let words: Vec<&str> = line.split('\0').collect();
        let is = words.contains(&"--foreground") && words.contains(&wanted.as_str());
        is.then_some(pid)
    };
    let all = fs::read_dir("/proc").unwrap();
    let found: Vec<u32> = all.filter_map(|e| of(e.unwrap())).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

/// Whether every thread of a process is filtered.
fn filtered(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .map(|t| fs::read_to_string(t.unwrap().path().join("status")).unwrap())
        .all(|status| status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"))
}

#[test]
fn what_serves_is_locked_down_and_its_death_leaves_no_mount() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    let name = format!("mnt-{}", std::process::id());
    let at = f.path(&name);
    fs::create_dir(&at).unwrap();
    f.run(&["mount", "--no-sandbox", "disk.vmdk", &name])
        .code(0);
    let free = filtered(serving(&at));
    f.run(&["umount", &name]).code(0);
    assert!(!free);
    f.run(&["mount", "disk.vmdk", &name]).code(0);
    let pid = serving(&at);
    // Everything can be read, by all threads that read ahead too.
    let read = fs::read(at.join("p0/dir/sub/c.bin"));
    let confined = filtered(pid);
    // What ends a service ends all of its processes; the keeper stays for its work.
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if line.contains("keep-mount") && line.contains(&name) {
            let keeper = entry.file_name().to_str().unwrap().parse().unwrap();
            let keeper = rustix::process::Pid::from_raw(keeper).unwrap();
            rustix::process::kill_process(keeper, rustix::process::Signal::TERM).unwrap();
        }
    }
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let begin = std::time::Instant::now();
    // Dead, the directory cannot be asked; gone, it is empty.
    while fs::read_dir(&at).is_err() || fs::read_dir(&at).unwrap().count() > 0 {
        assert!(begin.elapsed() < std::time::Duration::from_secs(20));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(confined);
    assert_eq!(read.unwrap(), crate::common::contents_of_c());
}

/// Who waits is told which process serves, and when; the file goes with the process, however it
/// ends.
#[test]
fn a_file_with_the_number_of_the_process_and_readiness() {
    if no_fuse() {
        return;
    }
    let f = Fixture::new();
    let name = format!("pid-{}", std::process::id());
    let at = f.path(&name);
    fs::create_dir(&at).unwrap();
    let gone = |path: &str| {
        let begin = std::time::Instant::now();
        while f.path(path).exists() {
            assert!(begin.elapsed() < std::time::Duration::from_secs(20));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let socket = std::os::unix::net::UnixDatagram::bind(f.path("notify")).unwrap();
    for sandbox in [&[][..], &["--no-sandbox"]] {
        let args = ["mount", "disk.vmdk", &name, "--pid-file", "pid"];
        let args = [&args[..], sandbox].concat();
        let out = f
            .command(&args)
            .env("NOTIFY_SOCKET", f.path("notify"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        let pid = serving(&at);
        assert_eq!(
            fs::read_to_string(f.path("pid")).unwrap(),
            format!("{pid}\n")
        );
        let mut said = [0; 100];
        let n = socket.recv(&mut said).unwrap();
        let said = String::from_utf8_lossy(&said[..n]).into_owned();
        assert_eq!(said, format!("READY=1\nMAINPID={pid}\n"));
        // Nobody takes it from a process that runs.
        let other = f.path("other");
        fs::create_dir_all(&other).unwrap();
        f.run(&["mount", "disk.vmdk", "other", "--pid-file", "pid"])
            .code(1)
            .says("which runs");
        f.run(&["umount", &name]).code(0);
        gone("pid");
    }
    f.run(&["mount", "disk.vmdk", &name, "--pid-file", "pid"])
        .code(0);
    let pid = rustix::process::Pid::from_raw(serving(&at) as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    gone("pid");
    // What is no such file is left.
    fs::write(f.path("pid"), "notes\n").unwrap();
    f.run(&["mount", "disk.vmdk", &name, "--pid-file", "pid"])
        .code(1)
        .says("something else");
    f.run(&["mount", "disk.vmdk", &name, "--pid-file", "disk-flat.vmdk"])
        .code(1);
    assert_eq!(fs::read_to_string(f.path("pid")).unwrap(), "notes\n");
}
