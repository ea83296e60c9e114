//! What is mutated: disk images of every format, and volumes.

use crate::{
    guest::{Fill, contents},
    tools,
};
use anyhow::{Context, Result};
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

/// An image and what it must read as.
#[derive(Debug)]
pub struct Image {
    /// Its kind.
    pub name: &'static str,
    /// The file that is opened, and its other files, in memory.
    pub files: Vec<(String, Vec<u8>)>,
    /// The one that is opened.
    pub opened: String,
    /// Where contents lie in the largest file.
    pub payload: Vec<Range<usize>>,
    /// What qemu-img calls the format.
    pub qemu: &'static str,
    /// What 7-Zip calls it; empty if it does not know it.
    pub seven: &'static str,
    /// What it must read as.
    pub wanted: Vec<u8>,
}

/// (name, format, subformat, qemu's name, 7-Zip's name)
const KINDS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "monolithicSparse",
        "vmdk",
        "monolithicSparse",
        "vmdk",
        "VMDK",
    ),
    ("streamOptimized", "vmdk", "streamOptimized", "vmdk", "VMDK"),
    (
        "twoGbMaxExtentSparse",
        "vmdk",
        "twoGbMaxExtentSparse",
        "vmdk",
        "",
    ),
    ("vmfsSparse", "vmdk", "vmfsSparse", "vmdk", ""),
    ("seSparse", "vmdk", "seSparse", "vmdk", ""),
    ("monolithicFlat", "vmdk", "monolithicFlat", "vmdk", ""),
    ("qcow2", "qcow2", "", "qcow2", "QCOW"),
    ("VHD", "vhd", "", "vpc", "VHD"),
    ("VHDX", "vhdx", "", "vhdx", "VHDX"),
    ("VDI", "vdi", "", "vdi", "VDI"),
];

/// 5 MiB: noise, text and holes, an odd end.
fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 5 * (1 << 20) + 3 * 512];
    let mut fill = |at: usize, len: usize, fill| {
        bytes[at..at + len].copy_from_slice(&contents(&format!("at {at}"), len, fill));
    };
    fill(0, 200 << 10, Fill::Text);
    fill(1 << 20, 700 << 10, Fill::Noise);
    fill(3 << 20, 100 << 10, Fill::Noise);
    fill((4 << 20) + 512, 4096, Fill::Text);
    fill(5 << 20, 3 * 512, Fill::Text);
    bytes
}

/// Makes all of them with `vmdkit`.
pub fn all(vmdkit: &Path, dir: &Path) -> Result<Vec<Image>> {
    let wanted = disk();
    let raw = dir.join("disk.raw");
    fs::write(&raw, &wanted)?;
    let mut made = Vec::new();
    for (name, format, subformat, qemu, seven) in KINDS {
        let place = dir.join(name);
        fs::create_dir_all(&place)?;
        let opened = format!("disk.{format}");
        let mut convert = Command::new(vmdkit);
        convert.args(["-q", "convert", "--format", "raw"]).arg(&raw);
        convert.arg(place.join(&opened)).args(["--to", format]);
        if !subformat.is_empty() {
            convert.args(["--subformat", subformat]);
        }
        tools::output(&mut convert)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&place)? {
            let entry = entry?;
            let file = entry.file_name().into_string().ok().context("a name")?;
            files.push((file, fs::read(entry.path())?));
        }
        // The one that is mutated most comes first.
        files.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
        let largest = &files.first().context("a file")?.1;
        made.push(Image {
            name,
            payload: stored(largest, &wanted),
            opened,
            files,
            qemu,
            seven,
            wanted: wanted.clone(),
        });
    }
    Ok(made)
}

/// Where blocks of the contents lie as they are in a file.
fn stored(file: &[u8], wanted: &[u8]) -> Vec<Range<usize>> {
    let blocks: std::collections::HashSet<&[u8]> = wanted
        .chunks_exact(512)
        .filter(|b| b.iter().any(|b| *b != 0))
        .collect();
    let mut found: Vec<Range<usize>> = Vec::new();
    for (n, block) in file.chunks_exact(512).enumerate() {
        if blocks.contains(block) {
            match found.last_mut() {
                Some(last) if last.end == n * 512 => last.end += 512,
                _ => found.push(n * 512..n * 512 + 512),
            }
        }
    }
    found
}

/// A volume and the files in it.
#[derive(Debug)]
pub struct Volume {
    /// Its kind.
    pub name: &'static str,
    /// The volume.
    pub bytes: Vec<u8>,
    /// What it holds, as `vmdkit` copies it out of the sound volume.
    pub reference: PathBuf,
}

/// Volumes: those that the fuzz targets begin with, and one of FAT.
pub fn volumes(vmdkit: &Path, dir: &Path) -> Result<Vec<Volume>> {
    let bases = tools::project().join("fuzz/bases");
    let mut all = Vec::new();
    for name in ["ntfs-files", "ntfs-4k", "exfat-files", "ext-2", "ext-4"] {
        let packed = fs::read(bases.join(name).with_extension("zst"))?;
        all.push((name, zstd::decode_all(packed.as_slice())?));
    }
    if tools::have(&["mkfs.fat", "mcopy"]) {
        all.push(("fat16", fat(dir)?));
    }
    let mut made = Vec::new();
    for (name, bytes) in all {
        let image = dir.join(name);
        fs::write(&image, &bytes)?;
        let reference = dir.join(format!("{name}.tree"));
        fs::create_dir_all(&reference)?;
        let mut copy = Command::new(vmdkit);
        copy.args(["-q", "cp", "-r"]).arg(&image);
        tools::output(copy.arg("/p0/.").arg(&reference))?;
        made.push(Volume {
            name,
            bytes,
            reference,
        });
    }
    Ok(made)
}

fn fat(dir: &Path) -> Result<Vec<u8>> {
    let image = dir.join("fat.raw");
    crate::sample::sparse_file(&image, 9 << 20)?;
    tools::run(
        "mkfs.fat",
        ["-F".as_ref(), "16".as_ref(), image.as_os_str()],
    )?;
    let tree = dir.join("fat.files");
    fs::create_dir_all(tree.join("a directory/below"))?;
    for (n, name) in [
        "a.txt",
        "a directory/a long name.bin",
        "a directory/below/last",
    ]
    .iter()
    .enumerate()
    {
        let bytes = contents(name, 3000 + n * 70_000, Fill::Text);
        fs::write(tree.join(name), bytes)?;
    }
    for entry in fs::read_dir(&tree)? {
        let path = entry?.path();
        let words = ["-s".as_ref(), "-i".as_ref(), image.as_os_str()];
        let words = words.into_iter().chain([path.as_os_str(), "::".as_ref()]);
        tools::run("mcopy", words)?;
    }
    Ok(fs::read(&image)?)
}
