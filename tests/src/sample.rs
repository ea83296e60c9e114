//! The sample of README's first command: a Windows-like disk as a monolithicSparse VMDK
//! with two snapshots on top, made by mkntfs, wimlib, ntfscp, mkfs.fat, mtools and qemu.
//! Nothing is mounted, so no root and no FUSE is needed.

use crate::{
    guest::{Fill, Writer, contents},
    tools,
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Programs that [`make`] runs.
pub const PROGRAMS: &[&str] = &[
    "mkntfs",
    "ntfscp",
    "wimlib-imagex",
    "mkfs.fat",
    "mcopy",
    "qemu-img",
    "qemu-io",
];

/// The guest file that changes from link to link.
pub const CHANGING: &str = "Users/anna/report.txt";

/// Sector where the NTFS partition begins.
pub const NTFS_START: u64 = 2048;
/// Length of the NTFS partition in sectors.
pub const NTFS_SECTORS: u64 = 40 * 2048;
/// Sector where the FAT partition begins.
pub const FAT_START: u64 = NTFS_START + NTFS_SECTORS;
/// Length of the FAT partition in sectors.
pub const FAT_SECTORS: u64 = 16 * 2048;

/// A sector of a partition table of the old kind: (start, length, type) in sectors.
pub fn mbr(parts: &[(u64, u64, u8)]) -> [u8; 512] {
    let mut sector = [0u8; 512];
    sector[440..444].copy_from_slice(&0x6b6d_6476_u32.to_le_bytes());
    for (i, (start, len, kind)) in parts.iter().take(4).enumerate() {
        let entry = &mut sector[446 + i * 16..462 + i * 16];
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[4] = *kind;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&(*start as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(*len as u32).to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// An empty file of `len` bytes.
pub fn sparse_file(path: &Path, len: u64) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("making {}", path.display()))?;
    file.set_len(len)?;
    Ok(file)
}

/// Copies the bytes of `from` into `to` at `offset`, leaving blocks of zeros out.
pub fn splice(from: &Path, to: &File, offset: u64) -> Result<()> {
    let source = File::open(from)?;
    let len = source.metadata()?.len();
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(block.len() as u64) as usize;
        source.read_exact_at(&mut block[..n], at)?;
        for (i, piece) in block[..n].chunks(4096).enumerate() {
            if piece.iter().any(|b| *b != 0) {
                to.write_all_at(piece, offset + at + (i * 4096) as u64)?;
            }
        }
        at += n as u64;
    }
    Ok(())
}

/// Puts a host directory's contents into an NTFS volume without mounting it.
pub fn fill_ntfs(volume: &Path, from: &Path, scratch: &Path) -> Result<()> {
    let wim = scratch.join("tree.wim");
    let _ = fs::remove_file(&wim);
    let none = "--compress=none".as_ref();
    let capture = ["capture".as_ref(), from.as_os_str(), wim.as_os_str(), none];
    tools::run("wimlib-imagex", capture)?;
    let apply = [
        "apply".as_ref(),
        wim.as_os_str(),
        "1".as_ref(),
        volume.as_os_str(),
    ];
    tools::run("wimlib-imagex", apply)?;
    fs::remove_file(&wim)?;
    Ok(())
}

/// A child of `parent` that holds exactly what changed from one raw disk to another.
pub fn delta(parent: &Path, child: &Path, before: &Path, after: &Path) -> Result<()> {
    let dir = parent.parent().context("the parent has a directory")?;
    let name = parent.file_name().context("the parent has a name")?;
    let create = ["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b"];
    tools::output(
        tools::command("qemu-img")
            .current_dir(dir)
            .args(create)
            .arg(name)
            .arg(child),
    )?;
    let (old, new) = (File::open(before)?, File::open(after)?);
    let len = new.metadata()?.len();
    let mut changed: Vec<(u64, Vec<u8>)> = Vec::new();
    let (mut a, mut b) = (vec![0; 65_536], vec![0; 65_536]);
    for at in (0..len).step_by(65_536) {
        let n = (len - at).min(65_536) as usize;
        old.read_exact_at(&mut a[..n], at)?;
        new.read_exact_at(&mut b[..n], at)?;
        if a[..n] != b[..n] {
            changed.push((at, b[..n].to_vec()));
        }
    }
    if changed.is_empty() {
        bail!("nothing changed between two links");
    }
    let pattern = child.with_extension("pattern");
    for (at, bytes) in changed {
        fs::write(&pattern, &bytes)?;
        let write = format!("write -s {} {at} {}", pattern.display(), bytes.len());
        let args = ["-f", "vmdk", "-c", &write];
        tools::output(tools::command("qemu-io").args(args).arg(child))?;
    }
    fs::remove_file(&pattern)?;
    Ok(())
}

/// The files of the sample.
#[derive(Debug)]
pub struct Sample {
    /// The disks: the base, then one per snapshot.
    pub links: Vec<PathBuf>,
    /// What [`CHANGING`] holds at each of them.
    pub versions: Vec<PathBuf>,
}

/// Makes the sample in `dir`, which is created.
pub fn make(dir: &Path) -> Result<Sample> {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|p| tools::find(p).is_none())
        .collect();
    if !missing.is_empty() {
        bail!("not installed: {missing:?}");
    }
    fs::create_dir_all(dir)?;
    // The tools are run in it, so a relative name would lead elsewhere.
    let dir = &dir.canonicalize()?;
    let expected = dir.join("expected");
    fs::create_dir_all(&expected)?;
    let scratch = tempfile::tempdir_in(dir)?;
    let scratch = scratch.path();

    let ntfs = scratch.join("ntfs.img");
    sparse_file(&ntfs, NTFS_SECTORS * 512)?;
    let format = ["-q", "-F", "-Q", "-L", "Windows", "-p", "2048", "-s", "512"];
    tools::output(tools::command("mkntfs").args(format).arg(&ntfs))?;
    let tree = scratch.join("tree");
    fs::create_dir(&tree)?;
    let mut w = Writer::new(&tree);
    for dir in [
        "Users",
        "Users/anna",
        "Users/anna/Pictures",
        "Program Files",
    ] {
        w.dir(dir)?;
    }
    for (name, len) in [
        ("small.txt", 300),
        ("letter.doc", 70_001),
        ("über.txt", 4096),
    ] {
        w.file(&format!("Users/anna/{name}"), len, Fill::Text)?;
    }
    w.file("Users/anna/Pictures/photo.jpg", 3_000_001, Fill::Noise)?;
    w.file("Program Files/program.exe", 500_000, Fill::Noise)?;
    let version = |n: usize| {
        contents(
            &format!("report, version {n}"),
            20_000 + n * 999,
            Fill::Text,
        )
    };
    w.bytes(CHANGING, &version(0))?;
    fill_ntfs(&ntfs, &tree, scratch)?;

    let fat = scratch.join("fat.img");
    sparse_file(&fat, FAT_SECTORS * 512)?;
    let format = ["-F", "16", "-n", "TOOLS", "-h", &FAT_START.to_string()].map(String::from);
    tools::output(tools::command("mkfs.fat").args(format).arg(&fat))?;
    let readme = scratch.join("Read me first.txt");
    fs::write(&readme, contents("read me", 1234, Fill::Text))?;
    let image = ["-i".as_ref(), fat.as_os_str()];
    let paths = [readme.as_os_str(), "::/".as_ref()];
    tools::run("mcopy", image.into_iter().chain(paths))?;

    let mut sample = Sample {
        links: Vec::new(),
        versions: Vec::new(),
    };
    let mut before = PathBuf::new();
    for n in 0..3 {
        let text = expected.join(format!("report-{n}.txt"));
        fs::write(&text, version(n))?;
        if n > 0 {
            let args = [
                "-q".as_ref(),
                ntfs.as_os_str(),
                text.as_os_str(),
                CHANGING.as_ref(),
            ];
            tools::run("ntfscp", args)?;
        }
        let raw = scratch.join(format!("{n}.raw"));
        let disk = sparse_file(&raw, (FAT_START + FAT_SECTORS + 2048) * 512)?;
        let table = mbr(&[(NTFS_START, NTFS_SECTORS, 7), (FAT_START, FAT_SECTORS, 6)]);
        disk.write_all_at(&table, 0)?;
        splice(&ntfs, &disk, NTFS_START * 512)?;
        splice(&fat, &disk, FAT_START * 512)?;
        let link = match n {
            0 => dir.join("guest.vmdk"),
            n => dir.join(format!("guest-{n:06}.vmdk")),
        };
        match sample.links.last() {
            None => {
                let convert = [
                    "convert",
                    "-q",
                    "-O",
                    "vmdk",
                    "-o",
                    "subformat=monolithicSparse",
                ];
                tools::output(
                    tools::command("qemu-img")
                        .args(convert)
                        .arg(&raw)
                        .arg(&link),
                )?;
            }
            Some(parent) => delta(parent, &link, &before, &raw)?,
        }
        sample.links.push(link);
        sample.versions.push(text);
        before = raw;
    }
    fs::copy(
        tree.join("Users/anna/Pictures/photo.jpg"),
        expected.join("photo.jpg"),
    )?;
    fs::copy(&readme, expected.join("Read me first.txt"))?;
    Ok(sample)
}
