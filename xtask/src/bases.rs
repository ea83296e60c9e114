//! Small volumes that only other tools make, compressed, for `fuzz/bases`.

use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};
use tests::tools;

fn empty(path: &Path, mib: u64) -> Result<()> {
    File::create(path)?.set_len(mib << 20)?;
    Ok(())
}

fn shell(script: &str, image: &Path) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).arg(image);
    tools::output(&mut command)?;
    Ok(())
}

/// Name, MiB, and what makes it of an empty file.
const ALL: &[(&str, u64, &str)] = &[
    (
        "ntfs-files",
        3,
        "mkntfs -qQF -c 512 -L base \"$1\" >/dev/null
         t=$(mktemp -d); printf hello >$t/a; seq 1 3000 >$t/b
         ntfscp -f \"$1\" $t/a a.txt; ntfscp -f \"$1\" $t/b b.txt
         ntfscp -f -N stream \"$1\" $t/a a.txt
         i=0; while [ $i -lt 30 ]; do ntfscp -f \"$1\" $t/a \"a longer name $i\"; i=$((i+1)); done
         rm -r $t",
    ),
    (
        "ntfs-4k",
        4,
        "mkntfs -qQF -s 4096 -c 4096 \"$1\" >/dev/null; t=$(mktemp); seq 1 500 >$t; ntfscp -f \"$1\" $t c; rm $t",
    ),
    (
        "exfat-files",
        8,
        "mkfs.exfat -c 4K \"$1\" >/dev/null 2>&1; d=$(mktemp -d)
         if mount.exfat-fuse \"$1\" $d >/dev/null 2>&1; then
           mkdir $d/dir; printf hello >$d/dir/a.txt; seq 1 3000 >$d/b; fusermount3 -u $d || umount $d
         fi; rmdir $d",
    ),
    (
        "ext-4",
        2,
        "t=$(mktemp -d); mkdir $t/d; printf hello >$t/d/a; seq 1 3000 >$t/b; ln -s d/a $t/l
         mke2fs -q -F -t ext4 -b 1024 -d $t \"$1\"; rm -r $t",
    ),
    (
        "ext-2",
        1,
        "t=$(mktemp -d); printf hello >$t/a; seq 1 9000 >$t/b; mke2fs -q -F -t ext2 -b 1024 -d $t \"$1\"; rm -r $t",
    ),
    (
        "partitions-mbr",
        4,
        "printf 'label: dos\\n,1M\\n,1M,e\\n' | sfdisk -q \"$1\"",
    ),
    (
        "partitions-gpt",
        4,
        "printf 'label: gpt\\n,1M\\n,1M\\n' | sfdisk -q \"$1\"",
    ),
];

/// Makes them all.
pub(crate) fn make() -> Result<()> {
    let dir = tools::project().join("fuzz/bases");
    fs::create_dir_all(&dir)?;
    let scratch = tempfile::tempdir()?;
    for (name, mib, script) in ALL {
        let image = scratch.path().join(name);
        empty(&image, *mib)?;
        shell(script, &image).with_context(|| (*name).to_owned())?;
        keep(&dir, name, &fs::read(&image)?)?;
    }
    groups(&dir)
}

fn keep(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let packed = zstd::encode_all(bytes, 19)?;
    println!("{name}: {} of {} bytes", packed.len(), bytes.len());
    fs::write(dir.join(format!("{name}.zst")), packed)?;
    Ok(())
}

/// Volume groups, out of the real images.
fn groups(dir: &Path) -> Result<()> {
    let images = tests::images::images().context("the real images")?;
    for (name, path) in [
        ("lvm2-0", "partition/dissect/lvm.bin"),
        ("lvm2-1", "partition/dissect/lvm-mirror-1.bin"),
        ("ldm-0", "partition/libldm/ldm-2003r2-simple-1.img"),
        ("ldm-1", "partition/libldm/ldm-2003r2-spanned-1.img"),
    ] {
        keep(dir, name, &fs::read(images.root.join(path))?)?;
    }
    Ok(())
}
