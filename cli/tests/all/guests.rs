//! Guest file systems made by their own tools.

use crate::common::{Fixture, skipped};
use std::{fs, path::Path, process::Command};

fn tool(name: &str, args: &[&str]) -> bool {
    let done = Command::new(name).args(args).output();
    let done = done.is_ok_and(|d| d.status.success());
    if !done {
        skipped("peers", &format!("{name} is not there or does not work"));
    }
    done
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn special_files_of_linux_are_told_apart() {
    let f = Fixture::new();
    let tree = f.path("tree");
    fs::create_dir(&tree).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let image = f.path("ext.img");
    fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    if !tool("mkfifo", &[text(&tree.join("pipe"))])
        || !tool("mkfs.ext4", &["-q", "-d", text(&tree), text(&image)])
    {
        return;
    }
    let long = f.run(&["ls", "-l", "ext.img", "/p0"]).code(0);
    let letter = |name: &str| {
        let line = long.text().lines().find(|l| l.ends_with(name)).unwrap();
        line.chars().next().unwrap()
    };
    assert_eq!((letter(" pipe"), letter(" socket")), ('p', 's'));
    let stat = f.run(&["stat", "--json", "ext.img", "/p0/pipe"]).code(0);
    assert_eq!(stat.json()["special_type"], "fifo");
    assert_eq!(stat.json()["mode"].as_str().unwrap().len(), 4);
    let said = f.run(&["stat", "ext.img", "/p0/pipe"]).code(0);
    assert!(said.text().contains("a named pipe"), "{}", said.text());
    let no = f.run(&["cat", "ext.img", "/p0/pipe"]).code(1);
    assert!(
        no.err.contains("/p0/pipe") && no.err.contains("a named pipe"),
        "{}",
        no.err
    );
}

/// A volume with a stream, two names that differ by case, and a name with a newline.
fn ntfs(f: &Fixture) -> bool {
    let image = f.path("ntfs.img");
    let at = f.path("at");
    fs::create_dir(&at).unwrap();
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    if !tool("mkntfs", &["-F", "-Q", "-q", text(&image)])
        || !tool(
            "ntfs-3g",
            &["-o", "streams_interface=windows", text(&image), text(&at)],
        )
    {
        return false;
    }
    fs::write(at.join("a.txt"), "hello\n").unwrap();
    fs::write(at.join("a.txt:long"), vec![7u8; 300_000]).unwrap();
    fs::write(at.join("CaseFile"), "upper").unwrap();
    fs::write(at.join("casefile"), "lower").unwrap();
    fs::write(at.join("new\nline"), "").unwrap();
    assert!(tool("umount", &[text(&at)]));
    true
}

#[test]
fn streams_names_and_case_of_ntfs() {
    let f = Fixture::new();
    if !ntfs(&f) {
        return;
    }
    let stat = f.run(&["stat", "--json", "ntfs.img", "/p0/a.txt:long"]);
    let stat = stat.code(0).json();
    assert_eq!(stat["size"], 300_000);
    assert_eq!(stat["path"], "/p0/a.txt:long");
    assert_eq!(stat["stream"]["name"], "long");
    let lens = stat["extents"].as_array().unwrap().iter();
    let stored: u64 = lens.map(|e| e["length"].as_u64().unwrap()).sum();
    assert!(stored >= 300_000, "{stat}");
    assert!(stat["extents"][0]["volume_offset"].is_u64());
    let whole = f.run(&["stat", "--json", "ntfs.img", "/p0/a.txt"]).json();
    assert_eq!(whole["size"], 6);
    assert!(whole.get("stream").is_none());
    let listed = f.run(&["ls", "--json", "ntfs.img", "/p0/a.txt:long"]);
    assert_eq!(listed.code(0).json()["entries"][0]["size"], 300_000);

    assert_eq!(f.run(&["cat", "ntfs.img", "/p0/CaseFile"]).out, b"upper");
    assert_eq!(f.run(&["cat", "ntfs.img", "/p0/casefile"]).out, b"lower");
    for verb in ["cat", "stat", "ls"] {
        f.run(&[verb, "ntfs.img", "/p0/CASEFILE"])
            .code(2)
            .says("/p0/CaseFile and /p0/casefile");
    }
    f.run(&["cp", "ntfs.img", "/p0/CASEFILE", "out"]).code(2);
    assert!(!f.path("out").exists());
    assert_eq!(f.run(&["cat", "ntfs.img", "/p0/A.TXT"]).out, b"hello\n");

    let odd = f.run(&["stat", "ntfs.img", "/p0/new\nline"]).code(0);
    assert!(!odd.text().lines().any(|l| l == "line"), "{}", odd.text());
    f.run(&["ls", "ntfs.img", "/p9"])
        .code(1)
        .says("there is no volume /p9");
}
