//! The data sets: disks with real files in NTFS, made by code.

use super::{Bench, text};
use anyhow::{Context, Result, bail};
use disk_io::{Disk, HostDir, RunKind, host_dir::Allowed};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tests::{
    guest::{Fill, contents},
    mount::ntfs_3g,
    sample::{mbr, sparse_file, splice},
    tools,
};

/// Names in the directory of the data sets.
const OURS: &[&str] = &[
    "disk.raw",
    "sparse.vmdk",
    "stream.vmdk",
    "many.vmdk",
    "million.vmdk",
    "packed.vmdk",
    "chain",
    "work",
    "scale",
];

/// Removes what the benches made.
pub(crate) fn remove_all(dir: &Path) -> Result<()> {
    for name in OURS {
        let path = dir.join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if path.exists() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes data sets of another scale than this, and remembers which these are.
pub(crate) fn only_of_scale(dir: &Path, scale: f64) -> Result<()> {
    let mark = dir.join("scale");
    let text = scale.to_string();
    if fs::read_to_string(&mark).is_ok_and(|known| known == text) {
        return Ok(());
    }
    remove_all(dir)?;
    Ok(fs::write(mark, text)?)
}

/// Sector at which the one partition begins.
pub(crate) const START: u64 = 2048;

/// The large file of [`raw`], and its length at full scale.
pub(crate) const LARGE: &str = "large.bin";

impl Bench {
    /// A path for what a run writes; the directory is made.
    pub(crate) fn work(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("work");
        fs::create_dir_all(&dir)?;
        Ok(dir.join(name))
    }

    /// The raw disk: one NTFS partition with real files and the large one.
    pub(crate) fn raw(&self) -> Result<PathBuf> {
        let path = self.dir.join("disk.raw");
        if path.exists() {
            return Ok(path);
        }
        eprintln!("   making {}", path.display());
        let len = self.scaled(10 << 30);
        let budget = self.scaled(5 << 30);
        let large = self.scaled(512 << 20);
        self.make_disk(&path, len, |dir| {
            let file = File::create(dir.join(LARGE))?;
            write_large(&file, large)?;
            copy_real_files(dir, budget - large)
        })?;
        Ok(path)
    }

    /// The raw disk in a subformat of VMDK, by qemu-img.
    fn vmdk(&self, name: &str, subformat: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        if path.exists() {
            return Ok(path);
        }
        let raw = self.raw()?;
        eprintln!("   making {}", path.display());
        // Under its own name from the start: it is written into the descriptor.
        let part = self.work(name)?;
        let options = format!("subformat={subformat}");
        let args = ["convert", "-f", "raw", "-O", "vmdk", "-o", &options];
        tools::output(tools::command("qemu-img").args(args).arg(&raw).arg(&part))?;
        fs::rename(&part, &path)?;
        Ok(path)
    }

    /// As monolithicSparse.
    pub(crate) fn sparse(&self) -> Result<PathBuf> {
        self.vmdk("sparse.vmdk", "monolithicSparse")
    }

    /// As streamOptimized.
    pub(crate) fn stream(&self) -> Result<PathBuf> {
        self.vmdk("stream.vmdk", "streamOptimized")
    }

    /// Makes room: these are made again when they are wanted.
    pub(crate) fn forget(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = self.dir.join(name);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// A volume of many small files as monolithicSparse, and the path of one of them.
    pub(crate) fn many(&self) -> Result<(PathBuf, String)> {
        let path = self.dir.join("many.vmdk");
        let count = ((100_000.0 * self.scale) as usize).max(1000);
        let name = |i: usize| format!("dir{:03}/sub{:02}/file {i:06}.txt", i / 1000, i / 100 % 10);
        let wanted = name(count * 2 / 3);
        self.made(&path, 2 << 30, |dir| {
            for i in 0..count {
                let file = dir.join(name(i));
                if i % 100 == 0 {
                    fs::create_dir_all(file.parent().context("a directory")?)?;
                }
                fs::write(&file, contents(&name(i), 200 + i % 9000, Fill::Text))?;
            }
            Ok(())
        })?;
        Ok((path, wanted))
    }

    /// A volume of a million files of a few bytes as monolithicSparse, and its length.
    pub(crate) fn million(&self) -> Result<(PathBuf, u64)> {
        const LEN: u64 = 4 << 30;
        let path = self.dir.join("million.vmdk");
        let count = ((1_000_000.0 * self.scale) as usize).max(1000);
        self.made(&path, LEN, |dir| {
            for i in 0..count {
                let at = dir.join(format!("dir{:04}/sub{:02}", i / 1000, i / 100 % 10));
                if i % 100 == 0 {
                    fs::create_dir_all(&at)?;
                }
                fs::write(at.join(format!("file {i:07}.txt")), format!("number {i}"))?;
            }
            Ok(())
        })?;
        Ok((path, LEN))
    }

    /// A file of text that NTFS compresses, `packed/text`; and the length of its disk.
    pub(crate) fn packed(&self) -> Result<(PathBuf, u64)> {
        const LEN: u64 = 1 << 30;
        let path = self.dir.join("packed.vmdk");
        let size = self.scaled(256 << 20) as usize;
        self.made(&path, LEN, |dir| {
            let dir = dir.join("packed");
            fs::create_dir(&dir)?;
            // What is made in a compressed directory is compressed.
            let words = ["-h", "-n", "system.ntfs_attrib", "-v", "0x00080000"];
            let words = words.map(std::ffi::OsStr::new).into_iter();
            tools::run("setfattr", words.chain([dir.as_os_str()]))?;
            Ok(fs::write(
                dir.join("text"),
                contents("packed", size, Fill::Text),
            )?)
        })?;
        Ok((path, LEN))
    }

    /// A VMDK of one NTFS partition that `fill` fills, unless it is there already.
    fn made(&self, path: &Path, len: u64, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        eprintln!("   making {}", path.display());
        let raw = self.dir.join("work.raw");
        self.make_disk(&raw, len, fill)?;
        let args = ["convert", "-f", "raw", "-O", "vmdk"];
        tools::output(tools::command("qemu-img").args(args).arg(&raw).arg(path))?;
        Ok(fs::remove_file(&raw)?)
    }

    /// A disk of `len` bytes with one NTFS partition that `fill` fills.
    fn make_disk(
        &self,
        path: &Path,
        len: u64,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let sectors = len / 512 - START;
        let volume = self.dir.join("work.ntfs");
        sparse_file(&volume, sectors * 512)?;
        let start = START.to_string();
        let args = ["-q", "-F", "-Q", "-L", "bench", "-s", "512", "-p", &start];
        tools::output(tools::command("mkntfs").args(args).arg(&volume))?;
        let at = self.work("filling")?;
        let mount = ntfs_3g(&volume, &at, "big_writes,compression")?;
        let filled = fill(&at);
        mount.unmount()?;
        filled?;
        let part = path.with_extension("part");
        let disk = sparse_file(&part, len)?;
        disk.write_all_at(&mbr(&[(START, sectors, 7)]), 0)?;
        splice(&volume, &disk, START * 512)?;
        fs::remove_file(&volume)?;
        fs::rename(&part, path)?;
        Ok(())
    }

    /// A chain on the sparse disk, made link by link.
    pub(crate) fn chain(&self, rewrite: bool) -> Result<Chain> {
        let dir = self.dir.join("chain");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let base = self.sparse()?;
        let top = dir.join("base.vmdk");
        fs::hard_link(&base, &top)?;
        Ok(Chain {
            grains: if rewrite {
                stored_grains(&top)?
            } else {
                Vec::new()
            },
            rewrite,
            dir,
            top,
            depth: 0,
            seed: 42,
        })
    }
}

/// A delta chain that grows.
pub(crate) struct Chain {
    pub(crate) top: PathBuf,
    pub(crate) depth: u32,
    dir: PathBuf,
    /// Grains that the base stores: only these are rewritten, so that a deep chain gives
    /// as many bytes out as a shallow one.
    grains: Vec<u64>,
    rewrite: bool,
    seed: u64,
}

const GRAIN: u64 = 65_536;

impl Chain {
    /// Adds links by qemu-img until the chain has `depth` of them above the base; each
    /// rewrites a random 1 % of the grains that the base stores, or nothing.
    pub(crate) fn grow(&mut self, depth: u32) -> Result<()> {
        while self.depth < depth {
            self.depth += 1;
            let child = self.dir.join(format!("link-{:03}.vmdk", self.depth));
            let parent = self.top.file_name().context("a name")?;
            let create = ["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b"];
            let mut command = tools::command("qemu-img");
            command
                .current_dir(&self.dir)
                .args(create)
                .arg(parent)
                .arg(&child);
            tools::output(&mut command)?;
            if self.rewrite {
                self.rewrite(&child)?;
            }
            self.top = child;
        }
        Ok(())
    }

    fn rewrite(&mut self, child: &Path) -> Result<()> {
        let mut commands = String::new();
        for _ in 0..self.grains.len().div_ceil(100) {
            // A plain linear generator: the same grains in every run.
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let pick = (self.seed >> 20) as usize % self.grains.len();
            let at = self.grains.get(pick).context("a grain")? * GRAIN;
            commands += &format!("write -q -P {} {at} {GRAIN}\n", 1 + self.depth % 254);
        }
        commands += "quit\n";
        let script = child.with_extension("commands");
        fs::write(&script, commands)?;
        let mut qemu_io = tools::command("qemu-io");
        qemu_io.args(["-f", "vmdk", "-t", "unsafe"]).arg(child);
        tools::output(qemu_io.stdin(File::open(&script)?))?;
        fs::remove_file(&script)?;
        Ok(())
    }
}

/// Numbers of the grains that an image stores.
fn stored_grains(image: &Path) -> Result<Vec<u64>> {
    let opened = HostDir::open_source(image, &Allowed::default())?;
    let disk = disk_image::open(opened, &disk_image::OpenOptions::default())?.disk;
    let mut grains = Vec::new();
    let mut at = 0;
    while at < disk.len() {
        let run = disk.run_at(at)?;
        let end = at + run.len;
        if run.kind == RunKind::Data {
            grains.extend(at / GRAIN..end / GRAIN);
        }
        at = end;
    }
    Ok(grains)
}

/// Half of it compresses, half does not.
fn write_large(mut file: &File, len: u64) -> Result<()> {
    let mut done = 0u64;
    while done < len {
        let n = (len - done).min(1 << 20) as usize;
        let fill = if (done >> 20).is_multiple_of(2) {
            Fill::Noise
        } else {
            Fill::Text
        };
        file.write_all(&contents(&format!("{LARGE} MiB {}", done >> 20), n, fill))?;
        done += n as u64;
    }
    Ok(())
}

/// Copies real files of this machine, again and again until `budget` bytes are there.
fn copy_real_files(to: &Path, budget: u64) -> Result<()> {
    let mut left = budget;
    for round in 0.. {
        let before = left;
        let top = to.join(format!("copy {round}"));
        for source in ["/usr/lib", "/usr/share", "/usr/bin", "/usr/include"] {
            let name = source.trim_start_matches('/').replace('/', "-");
            copy_tree(Path::new(source), &top.join(name), &mut left)?;
            if left == 0 {
                return Ok(());
            }
        }
        if left == before {
            bail!("no real files to copy");
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path, left: &mut u64) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut entries: Vec<_> = fs::read_dir(from)?.filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let target = to.join(entry.file_name());
        if metadata.is_dir() {
            copy_tree(&entry.path(), &target, left)?;
        } else if metadata.is_file() {
            if metadata.len() > *left {
                *left = 0;
                return Ok(());
            }
            if fs::copy(entry.path(), &target).is_ok() {
                *left -= metadata.len();
            }
        }
        if *left == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// A path as an argument of qemu's, which takes commas apart.
pub(crate) fn qemu_path(path: &Path) -> String {
    text(path).replace(',', ",,")
}
