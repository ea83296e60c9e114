//! Nothing is found in volumes that their own tools made and call sound, whatever features they
//! have: a false alarm is worse than a gap.

use std::{fs, path::Path};
use tests::{damages::run, tools};

const EXT: &[&[&str]] = &[
    &["-t", "ext2"],
    &["-t", "ext2", "-b", "1024"],
    &["-t", "ext2", "-r", "0"],
    &["-t", "ext2", "-O", "^filetype"],
    &["-t", "ext3"],
    &["-t", "ext3", "-b", "1024"],
    &["-O", "^metadata_csum,uninit_bg"],
    &["-b", "1024", "-O", "^metadata_csum,uninit_bg,^64bit"],
    &["-b", "1024", "-O", "^metadata_csum,uninit_bg,64bit"],
    &["-b", "1024"],
    &["-I", "128"],
    &["-O", "inline_data"],
    &["-b", "1024", "-O", "inline_data"],
    &["-O", "bigalloc"],
    &["-O", "bigalloc", "-C", "65536"],
    &["-O", "ea_inode"],
    &["-O", "meta_bg,^resize_inode"],
    &["-O", "sparse_super2"],
    &["-b", "1024", "-O", "^sparse_super,^resize_inode"],
    &["-b", "1024", "-O", "^flex_bg"],
    &["-O", "^64bit"],
    &["-O", "metadata_csum_seed"],
    &["-O", "casefold"],
    &["-O", "mmp"],
    &["-O", "orphan_file"],
    &["-O", "^dir_index"],
    &["-O", "^extent,^64bit"],
    &["-O", "^has_journal"],
    &["-O", "large_dir"],
];

fn tree(root: &Path) {
    fs::create_dir_all(root.join("deep/a/b")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for n in 0..300 {
        fs::write(
            root.join(format!("many/name-with-a-tail-{n}")),
            n.to_string(),
        )
        .unwrap();
    }
    fs::write(root.join("big.bin"), vec![7; 3_000_000]).unwrap();
    fs::write(root.join("tiny"), b"inside").unwrap();
    fs::hard_link(root.join("big.bin"), root.join("deep/hard")).unwrap();
    std::os::unix::fs::symlink("x", root.join("link")).unwrap();
    let holes = fs::File::create(root.join("holes")).unwrap();
    holes.set_len(5_000_000).unwrap();
}

#[test]
fn ext_volumes_of_every_kind() {
    if !tools::have(&["mke2fs", "debugfs", "e2fsck"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, image) = (dir.path().join("root"), dir.path().join("v.img"));
    tree(&root);
    let value = dir.path().join("value");
    fs::write(&value, vec![b'a'; 700]).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut made = 0;
    for options in EXT {
        let _ = fs::remove_file(&image);
        fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
        let (of, into) = (text(&root), text(&image));
        let args = [&["-q", "-F", "-t", "ext4"], *options, &["-d", &of, &into]].concat();
        // Older tools do not have the newest features.
        if tools::run("mke2fs", &args).is_err() {
            continue;
        }
        let set = format!("ea_set -f {} /tiny user.long", text(&value));
        let _ = tools::run("debugfs", ["-w", "-R", &set, &into]);
        tools::run("e2fsck", ["-f", "-n", &into]).unwrap();
        let report = run::check_path(&image).unwrap();
        let found: Vec<String> = report.findings.iter().map(run::Finding::line).collect();
        assert!(found.is_empty(), "{options:?}: {}", found.join("\n"));
        made += 1;
    }
    assert!(made > 20, "{made}");
}
