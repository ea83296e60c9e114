//! What a restore keeps beside the bytes, read back by other tools: access control and
//! times on ntfs-3g, streams as attributes of the mount, manifests, zip, deleted files.

use serde_json::Value;
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tests::{
    mount::{Mount, ntfs_3g},
    tools,
};

fn vmdkit<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let vmdkit = tools::vmdkit().unwrap();
    let out = Command::new(vmdkit).args(args).output().unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

fn args<'a>(words: &[&'a str], paths: &[&'a Path]) -> Vec<&'a OsStr> {
    let words = words.iter().map(|w| OsStr::new(*w));
    let mut paths = paths.iter();
    words
        .map(|w| match w.to_str() {
            Some("@") => paths.next().unwrap().as_os_str(),
            _ => w,
        })
        .collect()
}

/// A value as getfattr prints it in hexadecimal.
fn attribute(file: &Path, name: &str) -> Option<String> {
    let out = Command::new("getfattr")
        .args(["--absolute-names", "-e", "hex", "-n", name])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .find_map(|l| l.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

struct Guest {
    dir: tempfile::TempDir,
}

/// A volume with owners, a stream, a hidden file, and what was deleted.
fn guest() -> Option<Guest> {
    if !tools::have(&["mkntfs", "ntfs-3g", "setfattr", "getfattr"]) || !tools::have_fuse() {
        return None;
    }
    let guest = Guest {
        dir: tempfile::tempdir().unwrap(),
    };
    guest.format("guest.img");
    let mount = guest.mount("guest.img", "permissions");
    let at = mount.path();
    fs::create_dir_all(at.join("data/sub")).unwrap();
    for (name, uid) in [("one.txt", 1000), ("sub/two.txt", 1001)] {
        let path = at.join("data").join(name);
        fs::write(&path, name).unwrap();
        std::os::unix::fs::chown(&path, Some(uid), Some(100)).unwrap();
    }
    fs::hard_link(at.join("data/one.txt"), at.join("data/again.txt")).unwrap();
    for (file, name, value) in [
        ("sub/two.txt", "system.ntfs_attrib", "0x22000000"),
        ("one.txt", "user.mark", "of the stream"),
    ] {
        let file = at.join("data").join(file);
        let words = ["-n", name, "-v", value].map(OsStr::new);
        tools::run("setfattr", words.into_iter().chain([file.as_os_str()])).unwrap();
    }
    mount.unmount().unwrap();
    Some(guest)
}

impl Guest {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn format(&self, name: &str) {
        let image = self.path(name);
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let image = image.to_str().unwrap();
        tools::run("mkntfs", ["-F", "-q", "-Q", image]).unwrap();
    }

    fn mount(&self, image: &str, options: &str) -> Mount {
        let at = self.path("mnt");
        fs::create_dir_all(&at).unwrap();
        ntfs_3g(&self.path(image), &at, options).unwrap()
    }
}

/// Onto a volume of ntfs-3g and read from there by ntfs-3g: descriptors, attributes, times.
#[test]
fn access_control_reaches_ntfs_3g() {
    let Some(guest) = guest() else { return };
    guest.format("target.img");
    let target = guest.mount("target.img", "permissions");
    vmdkit(args(
        &[
            "cp",
            "-a",
            "--acl",
            "xattr",
            "--streams",
            "xattr",
            "@",
            "/p0/data",
            "@",
        ],
        &[&guest.path("guest.img"), target.path()],
    ));
    let facts = |at: &Path| {
        ["data/one.txt", "data/sub/two.txt", "data/sub", "data"].map(|name| {
            let path = at.join(name);
            let names = ["ntfs_acl", "ntfs_attrib", "ntfs_crtime"];
            let all = names.map(|n| attribute(&path, &format!("system.{n}")).unwrap());
            let m = fs::metadata(&path).unwrap();
            (name, all, m.mtime(), m.mtime_nsec(), m.uid())
        })
    };
    let restored = facts(target.path());
    assert_eq!(
        attribute(&target.path().join("data/one.txt"), "user.mark").unwrap(),
        "0x6f66207468652073747265616d"
    );
    target.unmount().unwrap();
    let source = guest.mount("guest.img", "permissions");
    assert_eq!(restored, facts(source.path()));
    source.unmount().unwrap();
}

#[test]
fn the_mount_has_streams_and_access_control_as_attributes() {
    let Some(guest) = guest() else { return };
    let source = guest.mount("guest.img", "permissions");
    let theirs = |name: &str| attribute(&source.path().join("data/one.txt"), name);
    let at = guest.path("ours");
    fs::create_dir(&at).unwrap();
    let mut command = Command::new(tools::vmdkit().unwrap());
    command.args(args(
        &["mount", "-f", "@", "@"],
        &[&guest.path("guest.img"), &at],
    ));
    let ours = Mount::start(command, &at).unwrap();
    let file = at.join("p0/data/one.txt");
    for name in [
        "system.ntfs_acl",
        "system.ntfs_attrib",
        "system.ntfs_crtime",
        "user.mark",
    ] {
        assert_eq!(attribute(&file, name), theirs(name), "{name}");
        assert!(theirs(name).is_some(), "{name}");
    }
    assert_eq!(attribute(&file, "user.other"), None);
    let listed = tools::run("getfattr", ["--absolute-names".as_ref(), file.as_os_str()]).unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("user.mark") && listed.lines().count() <= 3,
        "{listed}"
    );
    // Names in another case are found, as in the guest.
    assert!(at.join("p0/DATA/One.TXT").exists());
    ours.unmount().unwrap();
    let mut command = Command::new(tools::vmdkit().unwrap());
    command.args(args(
        &["mount", "-f", "--exact-case", "@", "@"],
        &[&guest.path("guest.img"), &at],
    ));
    let exact = Mount::start(command, &at).unwrap();
    assert!(!at.join("p0/DATA").exists() && at.join("p0/data/one.txt").exists());
    exact.unmount().unwrap();
    source.unmount().unwrap();
}

#[test]
fn manifest_and_access_control_as_text() {
    let Some(guest) = guest() else { return };
    let (out, manifest) = (guest.path("out"), guest.path("files.json"));
    fs::create_dir(&out).unwrap();
    vmdkit(args(
        &[
            "cp",
            "-r",
            "--acl",
            "sddl",
            "--manifest",
            "@",
            "--streams",
            "files",
            "@",
            "/p0/data",
            "@",
        ],
        &[&manifest, &guest.path("guest.img"), &out],
    ));
    let said: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let entries = said["entries"].as_array().unwrap();
    let mut seen = 0;
    for entry in entries {
        let place = out.join(entry["place"].as_str().unwrap());
        assert!(place.symlink_metadata().is_ok(), "{entry}");
        if let Some(sha256) = entry["sha256"].as_str() {
            let out = tools::run("sha256sum", [place.as_os_str()]).unwrap();
            assert!(
                String::from_utf8_lossy(&out.stdout).starts_with(sha256),
                "{entry}"
            );
            seen += 1;
        }
        assert!(entry["created"].as_str().unwrap().ends_with('Z'));
    }
    // Two files and the stream; one further link; two directories.
    assert_eq!((seen, entries.len()), (3, 6));
    assert!(entries.iter().any(|e| e["hard_link_to"].is_string()));
    let hidden = entries
        .iter()
        .find(|e| e["place"] == "data/sub/two.txt")
        .unwrap();
    assert_eq!(
        hidden["attributes"],
        serde_json::json!(["hidden", "archive"])
    );

    let lines = fs::read_to_string(out.join("vmdkit-acl.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
    let bytes = fs::read(out.join("vmdkit-acl.icacls")).unwrap();
    let units: Vec<u16> = bytes
        .chunks(2)
        .map(|c| u16::from_le_bytes([c[0], c[1]]))
        .collect();
    let text = String::from_utf16(&units).unwrap();
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(lines.len(), 9);
    let at = lines
        .iter()
        .position(|l| *l == r"data\sub\two.txt")
        .unwrap();
    assert!(lines[at + 1].starts_with("D:") && !lines[at + 1].contains("S:"));
    // A second restore leaves the first one's files alone.
    vmdkit(args(
        &[
            "cp",
            "-r",
            "--acl",
            "sddl",
            "--overwrite",
            "always",
            "@",
            "/p0/data",
            "@",
        ],
        &[&guest.path("guest.img"), &out],
    ));
    assert!(out.join("vmdkit-acl-2.icacls").exists());
}

#[test]
fn zip_is_read_by_unzip_and_7zz() {
    let Some(guest) = guest() else { return };
    if !tools::have(&["7zz"]) {
        return;
    }
    let out = vmdkit(args(
        &["tar", "--as", "zip", "@", "/p0/data"],
        &[&guest.path("guest.img")],
    ));
    let zip = guest.path("data.zip");
    fs::write(&zip, out.stdout).unwrap();
    let to = guest.path("unzipped");
    tools::run("7zz", ["t".as_ref(), zip.as_os_str()]).unwrap();
    let option = format!("-o{}", to.display());
    tools::run("7zz", ["x".as_ref(), option.as_ref(), zip.as_os_str()]).unwrap();
    assert_eq!(fs::read(to.join("data/one.txt")).unwrap(), b"one.txt");
    assert_eq!(fs::read(to.join("data/again.txt")).unwrap(), b"one.txt");
    let source = guest.mount("guest.img", "ro");
    let time = |p: &Path| {
        fs::metadata(p)
            .map(|m| (m.mtime(), m.mtime_nsec()))
            .unwrap()
    };
    assert_eq!(
        time(&to.join("data/sub/two.txt")),
        time(&source.path().join("data/sub/two.txt"))
    );
    source.unmount().unwrap();
}

/// FAT forgets the first letter and where the clusters are; both are guessed.
#[test]
fn deleted_files_of_fat() {
    if !tools::have(&["mkfs.fat", "mmd", "mcopy", "mdel"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fat.img");
    fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let img = image.to_str().unwrap();
    tools::run("mkfs.fat", ["-F", "12", img]).unwrap();
    let (long, short) = (dir.path().join("a long name.txt"), dir.path().join("X.TXT"));
    let bytes: Vec<u8> = (0..9000u32).map(|i| (i * 7) as u8).collect();
    fs::write(&long, &bytes).unwrap();
    fs::write(&short, "short").unwrap();
    tools::run("mmd", ["-i", img, "::dir"]).unwrap();
    for file in [&long, &short] {
        tools::run("mcopy", ["-i", img, file.to_str().unwrap(), "::dir/"]).unwrap();
    }
    for name in ["::dir/a long name.txt", "::dir/X.TXT"] {
        tools::run("mdel", ["-i", img, name]).unwrap();
    }
    let list = vmdkit(["ls", "-R", "--meta", img, "/p0/$deleted"]);
    assert_eq!(
        String::from_utf8(list.stdout).unwrap(),
        "/p0/$deleted/dir\n/p0/$deleted/dir/_.TXT\n/p0/$deleted/dir/a long name.txt\n"
    );
    // Where more than its first cluster lay is a guess, and that is said.
    let mut cat = Command::new(tools::vmdkit().unwrap());
    cat.args(["cat", "--meta", img, "/p0/$deleted/dir/a long name.txt"]);
    let out = cat.output().unwrap();
    assert_eq!(out.stdout, bytes);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("only its first cluster is known"), "{said}");
    assert_eq!(out.status.code(), Some(3), "{said}");
    let short = vmdkit(["cat", "--meta", img, "/p0/$deleted/dir/_.TXT"]);
    assert_eq!(short.stdout, b"short");
}

/// What a restore cannot prove it says: a name that the file's own record does not have, and
/// clusters about which the copies of the allocation table differ.
#[test]
fn doubts_are_told() {
    let base = tools::project().join("fuzz/bases/ntfs-files.zst");
    let sound = zstd::decode_all(fs::read(base).unwrap().as_slice()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("n.img");
    let img = image.to_str().unwrap();
    let utf16 = |s: &str| {
        s.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>()
    };
    let find = |bytes: &[u8], what: &[u8]| -> Vec<usize> {
        let all = bytes.windows(what.len()).enumerate();
        all.filter(|(_, w)| *w == what).map(|(at, _)| at).collect()
    };
    let run = |words: &[&str]| {
        let out = Command::new(tools::vmdkit().unwrap()).args(words).output();
        out.unwrap()
    };

    // The directory spells a name otherwise: everything there is, and the name is told.
    let mut bytes = sound.clone();
    let places = find(&bytes, &utf16("a longer name 5"));
    let index = *places.last().unwrap();
    assert!(places.len() > 1, "in the record and in the index");
    bytes[index + 4] ^= 2;
    fs::write(&image, &bytes).unwrap();
    let to = dir.path().join("to");
    let out = run(&["cp", "-r", "--json", img, "/p0/.", to.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    let doubtful = json["doubtful"].as_array().unwrap();
    assert_eq!(doubtful.len(), 1, "{json}");
    assert_eq!(doubtful[0]["path"], "/p0/a nonger name 5");
    let why = doubtful[0]["reason"].as_str().unwrap();
    assert!(why.contains("'a longer name 5'"), "{why}");
    assert!(to.join("a nonger name 5").exists());
    let out = run(&["cat", img, "/p0/a nonger name 5"]);
    assert_eq!(out.status.code(), Some(3));
    let out = run(&["tar", img, "/p0/."]);
    assert_eq!(out.status.code(), Some(3));
    let text = b"doubtful: its directory calls it";
    assert!(!find(&out.stdout, text).is_empty());
    // Its neighbours, and its own name in another case of letters, are nobody's doubt.
    assert!(run(&["cat", img, "/p0/a longer name 4"]).status.success());
    fs::write(&image, &sound).unwrap();
    assert!(run(&["cat", img, "/p0/A LONGER NAME 5"]).status.success());

    // The directory leads to a metafile: the name does not vanish, and what is there is told.
    let mut bytes = sound.clone();
    let entry = index - 66 - 16;
    bytes[entry..entry + 8].copy_from_slice(&(1u64 | 1 << 48).to_le_bytes());
    fs::write(&image, &bytes).unwrap();
    let out = run(&["ls", img, "/p0"]);
    assert!(!find(&out.stdout, b"a longer name 5").is_empty());
    let out = run(&["cat", img, "/p0/a longer name 5"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("$MFTMirr"), "{said}");
    assert_eq!(out.status.code(), Some(3));

    if !tools::have(&["mkfs.fat", "mcopy"]) {
        return;
    }
    let image = dir.path().join("f.img");
    let img = image.to_str().unwrap();
    fs::File::create(&image).unwrap().set_len(9 << 20).unwrap();
    tools::run("mkfs.fat", ["-F", "16", "-s", "1", img]).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, vec![7; 5000]).unwrap();
    for name in ["::one", "::two"] {
        tools::run("mcopy", ["-i", img, file.to_str().unwrap(), name]).unwrap();
    }
    assert!(run(&["cat", img, "/p0/one"]).status.success());
    let mut bytes = fs::read(&image).unwrap();
    let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let second = 512 * (word(14) + word(22));
    bytes[second + 2 * 4] ^= 4;
    fs::write(&image, &bytes).unwrap();
    let out = run(&["cat", img, "/p0/one"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("allocation table 1"), "{said}");
    assert_eq!(out.status.code(), Some(3));
    assert!(run(&["cat", img, "/p0/two"]).status.success());
}

/// Extended attributes of a Linux guest, by cp and by tar.
#[test]
fn attributes_of_a_linux_guest() {
    if !tools::have(&["mkfs.ext4", "debugfs", "getfattr", "setfattr", "tar"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (image, file) = (at("e.img"), at("file"));
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    fs::write(&file, "contents").unwrap();
    let img = image.to_str().unwrap();
    tools::run("mkfs.ext4", ["-q", "-F", img]).unwrap();
    for request in [
        format!("write {} file", file.display()),
        "ea_set file user.comment kept".into(),
        "mkdir dir".into(),
        "ea_set dir user.of.dir too".into(),
    ] {
        tools::run("debugfs", ["-w", "-R", &request, img]).unwrap();
    }
    // Where the tests' own directory takes none there is nothing to see.
    let takes = Command::new("setfattr")
        .args(["-n", "user.x", "-v", "x"])
        .arg(&file)
        .status();
    if !takes.unwrap().success() {
        tests::say!(
            "skipped: no extended attributes in {}",
            dir.path().display()
        );
        return;
    }
    let (out, tarred) = (at("out"), at("tarred"));
    for dir in [&out, &tarred] {
        fs::create_dir(dir).unwrap();
    }
    vmdkit(args(&["cp", "-a", "@", "/p0/.", "@"], &[&image, &out]));
    let tar = vmdkit(args(&["tar", "@", "/p0/."], &[&image]));
    fs::write(at("t.tar"), tar.stdout).unwrap();
    let (archive, to) = (at("t.tar"), tarred.to_str().unwrap().to_owned());
    let words = ["--xattrs", "-xf", archive.to_str().unwrap(), "-C", &to];
    tools::run("tar", words).unwrap();
    for dir in [&out, &tarred] {
        let comment = attribute(&dir.join("file"), "user.comment");
        assert_eq!(comment.as_deref(), Some("0x6b657074"), "{}", dir.display());
        assert_eq!(fs::read(dir.join("file")).unwrap(), b"contents");
    }
    let of_dir = attribute(&out.join("dir"), "user.of.dir");
    assert_eq!(of_dir.as_deref(), Some("0x746f6f"));
    // Without -p or -a nothing of the kind is set.
    vmdkit(args(&["cp", "@", "/p0/file", "@"], &[&image, &at("plain")]));
    assert_eq!(attribute(&at("plain"), "user.comment"), None);
}

/// Sums of ext4 that are wrong are told, and what they stand beside is restored all the same;
/// the root is read though its inode says that it was freed.
#[test]
fn doubts_of_ext4() {
    if !tools::have(&["mkfs.ext4", "debugfs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, file) = (dir.path().join("e.img"), dir.path().join("file"));
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    fs::write(&file, vec![5; 30_000]).unwrap();
    let img = image.to_str().unwrap();
    tools::run(
        "mkfs.ext4",
        ["-q", "-b", "1024", "-O", "metadata_csum", img],
    )
    .unwrap();
    let request = format!("write {} file", file.display());
    tools::run("debugfs", ["-w", "-R", &request, img]).unwrap();
    let run = |words: &[&str]| {
        let out = Command::new(tools::vmdkit().unwrap()).args(words).output();
        let out = out.unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code(), said, out.stdout)
    };
    assert_eq!(run(&["cat", img, "/p0/file"]).0, Some(0));
    let imap = |inode: &str| {
        let mut debugfs = Command::new("debugfs");
        let out = debugfs.args(["-R", &format!("imap {inode}"), img]).output();
        let text = String::from_utf8(out.unwrap().stdout).unwrap();
        // "Inode 12 is part of block group 0\n\tlocated at block 35, offset 0x0b00"
        let (_, rest) = text.split_once("block ").unwrap();
        let (_, rest) = rest.split_once("located at block ").unwrap();
        let (block, offset) = rest.trim().split_once(", offset 0x").unwrap();
        1024 * block.parse::<usize>().unwrap() + usize::from_str_radix(offset, 16).unwrap()
    };
    let sound = fs::read(&image).unwrap();

    // The time of the last change: not what is refused, and not what is right.
    let mut bytes = sound.clone();
    bytes[imap("file") + 0x10] ^= 1;
    fs::write(&image, &bytes).unwrap();
    let (code, said, out) = run(&["cat", img, "/p0/file"]);
    assert_eq!(out, fs::read(&file).unwrap());
    assert!(said.contains("checksum of its inode"), "{said}");
    assert_eq!(code, Some(3));

    // A letter of the label: all of the superblock may be wrong, and that is told once.
    let mut bytes = sound.clone();
    bytes[1024 + 0x78] ^= 1;
    fs::write(&image, &bytes).unwrap();
    let to = dir.path().join("all");
    for words in [
        &["cat", img, "/p0/file", "/p0/file"][..],
        &["cp", img, "/p0/file", "/p0/file", to.to_str().unwrap()],
        &["cp", "-r", img, "/p0/.", to.to_str().unwrap()],
        &["tar", img, "/p0/file", "/p0/lost+found"],
        &["ls", img, "/p0"],
    ] {
        if words[0] == "cp" {
            let _ = fs::remove_dir_all(&to);
            fs::create_dir(&to).unwrap();
        }
        let (code, said, _) = run(words);
        let times = said.matches("the checksum of the superblock").count();
        assert_eq!((times, code), (1, Some(3)), "{words:?}: {said}");
    }

    // No links, and a mode that says it is a file.
    for (n, (at, value)) in [(0x1a, [0, 0]), (0, [0xa4, 0x81])].into_iter().enumerate() {
        let mut bytes = sound.clone();
        bytes[imap("<2>") + at..][..2].copy_from_slice(&value);
        fs::write(&image, &bytes).unwrap();
        let to = dir.path().join(format!("to{n}"));
        let (code, said, _) = run(&["cp", "-r", img, "/p0/.", to.to_str().unwrap()]);
        assert!(said.contains("the root's inode says"), "{said}");
        assert_eq!(code, Some(3));
        assert_eq!(fs::read(to.join("file")).unwrap(), fs::read(&file).unwrap());
        let (code, said, out) = run(&["check", "--guests", img]);
        let out = String::from_utf8_lossy(&out);
        assert!(
            out.contains("the inode of the root directory"),
            "{out} {said}"
        );
        assert_eq!(code, Some(4));
    }
}

/// A directory about whose clusters the copies of the table differ, and one of ext4 that leads to
/// another file: told whole, and by the path of what is in it.
#[test]
fn doubts_of_directories() {
    let dir = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let out = Command::new(tools::vmdkit().unwrap()).args(words).output();
        let out = out.unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code(), said, out.stdout)
    };
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, image, to) = (at("file"), at("v.img"), at("to"));
    fs::write(&file, "a file\n").unwrap();
    if tools::have(&["mkfs.fat", "mcopy", "mmd"]) {
        fs::File::create(&image).unwrap().set_len(40 << 20).unwrap();
        tools::run("mkfs.fat", ["-F", "32", "-s", "1", &image]).unwrap();
        tools::run("mmd", ["-i", &image, "::sub"]).unwrap();
        for n in 0..60 {
            let name = format!("::sub/a long name of a file {n}");
            tools::run("mcopy", ["-i", &image, &file, &name]).unwrap();
        }
        assert_eq!(run(&["cp", "-r", &image, "/p0/.", &to]).0, Some(0));
        let mut bytes = fs::read(&image).unwrap();
        let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let table = 512 * word(14);
        let entry = bytes.windows(11).position(|w| w == b"SUB        ").unwrap();
        let mut cluster = word(entry + 26);
        for _ in 0..3 {
            let next = bytes[table + 4 * cluster..][..4].try_into().unwrap();
            cluster = u32::from_le_bytes(next) as usize;
        }
        let end = 0x0fff_ffffu32.to_le_bytes();
        bytes[table + 4 * cluster..][..4].copy_from_slice(&end);
        fs::write(&image, &bytes).unwrap();
        let again = at("again");
        let (code, said, _) = run(&["cp", "-r", &image, "/p0/.", &again]);
        assert!(said.contains("/p0/sub is doubtful"), "{said}");
        assert_eq!(code, Some(3));
        // Who looks for a name that is not listed must not be told that all is well.
        for words in [
            &["ls", &image, "/p0/sub"][..],
            &["ls", "-R", "--json", &image],
            &["find", &image, "/p0", "--iname", "*59"],
        ] {
            let (code, said, _) = run(words);
            assert!(said.contains("allocation table 1"), "{words:?}: {said}");
            assert_eq!(code, Some(3), "{words:?}");
        }
        let (code, said, _) = run(&["cat", &image, "/p0/sub/a long name of a file 0"]);
        assert!(said.contains("allocation table 1"), "{said}");
        assert_eq!(code, Some(3));
    }
    if tools::have(&["mkfs.ext4", "debugfs"]) {
        let image = at("e.img");
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        tools::run("mkfs.ext4", ["-q", "-O", "metadata_csum", &image]).unwrap();
        for name in ["one", "two"] {
            let request = format!("write {file} {name}");
            tools::run("debugfs", ["-w", "-R", &request, &image]).unwrap();
        }
        let mut bytes = fs::read(&image).unwrap();
        // Inode, length of the entry, length of the name, a file.
        let entries = |name: &[u8; 3]| {
            let found = bytes
                .windows(5)
                .position(|w| w[..2] == [3, 1] && w[2..] == name[..]);
            found.unwrap() - 6
        };
        let (one, two) = (entries(b"one"), entries(b"two"));
        bytes.copy_within(one..one + 4, two);
        fs::write(&image, &bytes).unwrap();
        let (code, said, _) = run(&["cat", &image, "/p0/two"]);
        assert!(said.contains("checksums of its blocks are wrong"), "{said}");
        assert_eq!(code, Some(3));
        let (code, _, archive) = run(&["tar", &image, "/p0/two"]);
        assert_eq!(code, Some(3));
        let told = b"/p0: doubtful: ";
        assert!(archive.windows(told.len()).any(|w| w == told));
    }
}

/// Two grains in one place: the copy is made, and not called good.
#[test]
fn places_that_share_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = |words: &[&str]| {
        let out = Command::new(tools::vmdkit().unwrap()).args(words).output();
        let out = out.unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code(), said)
    };
    let mut raw = vec![1; 1 << 20];
    raw[512..].fill(2);
    fs::write(at("d.raw"), raw).unwrap();
    let (raw, disk) = (at("d.raw"), at("d.vmdk"));
    let made = ["convert", "-q", "--format", "raw", "--to", "vmdk"];
    let made = [&made[..], &["--subformat", "vmfsSparse", &raw, &disk]].concat();
    assert_eq!(run(&made).0, Some(0));
    assert_eq!(run(&["export", "-q", &disk, &at("first")]).0, Some(0));
    let delta = at("d-delta.vmdk");
    let mut bytes = fs::read(&delta).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let table = 512 * number(512 * number(20));
    bytes.copy_within(table..table + 4, table + 4 * 100);
    fs::write(&delta, &bytes).unwrap();
    let first = at("first");
    let (delta, other, twice) = (at("c.vmdk"), at("o.vmdk"), at("t.vmdk"));
    assert_eq!(run(&["create", "--child-of", &disk, &delta]).0, Some(0));
    let made = ["convert", "-q", "--format", "raw", "--to", "vmdk"];
    assert_eq!(run(&[&made[..], &[&raw, &other]].concat()).0, Some(0));
    // A descriptor that was pasted together, over one file.
    fs::write(
        &twice,
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"twoGbMaxExtentFlat\"\n\
         RW 1024 FLAT \"d.raw\" 0\nRW 1024 FLAT \"d.raw\" 512\n",
    )
    .unwrap();
    for words in [
        vec!["commit", &delta, &at("committed.vmdk")],
        vec!["rebase", &disk, &at("rebased.vmdk"), "--onto", &other],
        vec!["restore", "-q", &disk, &at("restored")],
        vec!["convert", "-q", "--to", "qcow2", &twice, &at("t.qcow2")],
        vec!["convert", "-q", "--to", "qcow2", &disk, &at("d.qcow2")],
        vec!["export", "-q", &disk, &at("second")],
        vec!["export", "-q", "--since", &first, &disk, &at("third")],
        vec!["export", "-q", "--to", "ova", &disk, &at("d.ova")],
        vec!["replicate", "-q", "--raw-target", &disk, &at("d.img")],
    ] {
        let (code, said) = run(&words);
        assert!(
            said.contains("stored in the same place"),
            "{words:?}: {said}"
        );
        assert_eq!(code, Some(3), "{words:?}: {said}");
    }
    // Nothing is overwritten by it.
    let before = fs::read(&disk).unwrap();
    let (code, said) = run(&["commit", "--in-place", &delta]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stay as they are"), "{said}");
    assert_eq!(fs::read(&disk).unwrap(), before);
    // Scripts have it too.
    let mut json = Command::new(tools::vmdkit().unwrap());
    json.args(["convert", "--json", "--to", "raw", &disk, "/dev/null"]);
    let json: Value = serde_json::from_slice(&json.output().unwrap().stdout).unwrap();
    let warnings = json["warnings"].as_array().unwrap();
    let shared = |w: &Value| w.as_str().unwrap().contains("in the same place");
    assert!(warnings.iter().any(shared), "{json}");
}

/// A link whose inode has a wrong checksum leads where nobody said.
#[test]
fn a_link_in_a_damaged_inode_is_told() {
    if !tools::have(&["mke2fs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(at("tree")).unwrap();
    std::os::unix::fs::symlink("target-one", at("tree") + "/link").unwrap();
    let image = at("e.img");
    fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-O", "metadata_csum", "-d"])
        .args([&at("tree"), &image])
        .status();
    assert!(made.unwrap().success());
    let cp = |to: &str| {
        let out = Command::new(tools::vmdkit().unwrap())
            .args(["cp", "-r", &image, "/p0/link", to])
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    assert_eq!(cp(&at("one")).0, Some(0));
    let mut bytes = fs::read(&image).unwrap();
    let place = bytes.windows(10).position(|w| w == b"target-one").unwrap();
    bytes[place] = b'T';
    fs::write(&image, bytes).unwrap();
    let (code, said) = cp(&at("two"));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("/p0/link is doubtful"), "{said}");
    let link = fs::read_link(at("two")).unwrap();
    assert_eq!(link.to_str(), Some("Target-one"));
}
