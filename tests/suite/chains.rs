//! Deep and mixed chains, against qemu-img.

use crate::walk;
use disk_image::OpenOptions;
use disk_io::{Disk, HostDir, host_dir::Allowed};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tests::{
    guest::{Fill, contents, sha256},
    sample, say, tools,
};
use vmdk::write::{self, Cell, descriptor::Text};

const QEMU: &[&str] = &["qemu-img", "qemu-io"];

fn open(path: &Path) -> Arc<dyn Disk> {
    let opened = HostDir::open_source(path, &Allowed::default()).unwrap();
    let image = disk_image::open(opened, &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    image.disk
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0)
        .unwrap_or_else(|e| panic!("{e}"));
    bytes
}

/// The whole disk as qemu-img reads it.
fn by_qemu(path: &Path, scratch: &Path) -> Vec<u8> {
    let raw = scratch.join("by-qemu.raw");
    let args = ["convert", "-f", "vmdk", "-O", "raw"].map(OsStr::new);
    tools::run(
        "qemu-img",
        args.into_iter().chain([path.as_os_str(), raw.as_os_str()]),
    )
    .unwrap();
    let bytes = fs::read(&raw).unwrap();
    fs::remove_file(&raw).unwrap();
    bytes
}

#[test]
fn the_sample_at_each_of_its_points() {
    if !tools::have(sample::PROGRAMS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sample = sample::make(dir.path()).unwrap();
    for (link, version) in sample.links.iter().zip(&sample.versions) {
        assert!(
            all(&*open(link)) == by_qemu(link, dir.path()),
            "{}",
            link.display()
        );
        let tree = walk::open(link);
        let path = format!("/p1/{}", sample::CHANGING);
        let node = tree.resolve(&path).unwrap_or_else(|e| panic!("{e}")).node;
        let disk = tree.open(node, None).unwrap();
        assert_eq!(
            all(&*disk),
            fs::read(version).unwrap(),
            "{}",
            link.display()
        );
    }
}

/// A chain being built, and what it must read as.
struct Chain {
    dir: tempfile::TempDir,
    model: Vec<u8>,
    top: PathBuf,
    cid: u32,
}

const LEN: usize = 4 << 20;
const SECTORS: u64 = (LEN / 512) as u64;

impl Chain {
    /// A flat base.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = contents("base", LEN, Fill::Noise);
        fs::write(dir.path().join("base-flat.vmdk"), &model).unwrap();
        let mut chain = Self {
            top: PathBuf::new(),
            model,
            cid: 0xc0de_0000,
            dir,
        };
        chain.describe("base.vmdk", "monolithicFlat", "FLAT", "base-flat.vmdk");
        chain
    }

    /// Writes the descriptor of a new top link.
    fn describe(&mut self, name: &str, create_type: &str, kind: &str, file: &str) {
        let text = self.descriptor(create_type, kind, file);
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        self.top = path;
    }

    fn descriptor(&mut self, create_type: &str, kind: &str, file: &str) -> String {
        let parent = self
            .top
            .file_name()
            .map(|n| n.to_string_lossy().into_owned());
        let parent = parent.map(|name| (self.cid, name));
        self.cid = self.cid.wrapping_add(1);
        Text {
            cid: self.cid,
            parent: parent.as_ref().map(|(cid, name)| (*cid, name.as_str())),
            create_type,
            extents: vec![write::descriptor::extent(SECTORS, kind, file)],
        }
        .encode()
    }

    /// Grains of `sectors` that link `n` rewrites: one of data and one of zeros.
    fn change(&mut self, n: usize, sectors: u64) -> Vec<(u64, Cell)> {
        let grains = SECTORS / sectors;
        let len = (sectors * 512) as usize;
        let first = (n as u64 * 7919) % grains;
        let second = (first + 1 + n as u64 % 5) % grains;
        let data = contents(&format!("link {n}"), len, Fill::Noise);
        let at = first as usize * len;
        self.model[at..at + len].copy_from_slice(&data);
        let at = second as usize * len;
        self.model[at..at + len].fill(0);
        vec![
            (first, Cell::Data(data)),
            (second, Cell::Data(vec![0; len])),
        ]
    }

    /// A link of the `n`th kind in turn, by our own encoders.
    fn add_ours(&mut self, n: usize) {
        let name = format!("link-{n:03}.vmdk");
        match n % 3 {
            0 => {
                let cells = self.change(n, 1);
                let extent = write::cowd::encode(SECTORS as u32, 1, &cells);
                let file = format!("link-{n:03}-delta.vmdk");
                fs::write(self.dir.path().join(&file), extent).unwrap();
                self.describe(&name, "vmfsSparse", "VMFSSPARSE", &file);
            }
            1 => {
                let mut cells = self.change(n, 8);
                // What this format has a word for.
                cells[1].1 = Cell::Zero;
                let extent = write::sesparse::encode(SECTORS, &cells, false);
                let file = format!("link-{n:03}-sesparse.vmdk");
                fs::write(self.dir.path().join(&file), extent).unwrap();
                self.describe(&name, "seSparse", "SESPARSE", &file);
            }
            _ => {
                let mut cells = self.change(n, 128);
                cells[1].1 = Cell::Zero;
                let text = self.descriptor("monolithicSparse", "SPARSE", &name);
                let options = write::hosted::Options {
                    version: 2,
                    zeroed_grains: true,
                    descriptor: Some(text),
                    ..write::hosted::Options::default()
                };
                let path = self.dir.path().join(&name);
                fs::write(&path, write::hosted::encode(&options, SECTORS, &cells)).unwrap();
                self.top = path;
            }
        }
    }

    /// A link by qemu-img and qemu-io.
    fn add_qemu(&mut self, n: usize) {
        let child = self.dir.path().join(format!("qemu-{n:03}.vmdk"));
        let parent = self.top.file_name().unwrap();
        let create = ["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b"];
        let mut command = tools::command("qemu-img");
        command
            .current_dir(self.dir.path())
            .args(create)
            .arg(parent)
            .arg(&child);
        tools::output(&mut command).unwrap();
        let at = (n * 104_729) % (LEN / 65_536) * 65_536;
        let pattern = (n % 255 + 1) as u8;
        self.model[at..at + 65_536].fill(pattern);
        let write = format!("write -P {pattern} {at} 65536");
        let args = ["-f", "vmdk", "-c", &write];
        tools::output(tools::command("qemu-io").args(args).arg(&child)).unwrap();
        self.cid = cid_of(&child);
        self.top = child;
    }

    fn check(&self) {
        self.compare(&all(&*open(&self.top)), "ours");
    }

    fn check_by_qemu(&self) {
        self.compare(&by_qemu(&self.top, self.dir.path()), "qemu-img");
    }

    fn compare(&self, found: &[u8], who: &str) {
        assert_eq!(found.len(), LEN, "{who}");
        if let Some(at) = found.iter().zip(&self.model).position(|(a, b)| a != b) {
            panic!(
                "{who}: {} differs from the model at {at}: {:?}, expected {:?}",
                self.top.display(),
                String::from_utf8_lossy(&found[at..at + 40]),
                String::from_utf8_lossy(&self.model[at..at + 40])
            );
        }
    }
}

/// The content id in a hosted sparse file's embedded descriptor.
fn cid_of(path: &Path) -> u32 {
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes[512..512 + 10_240]);
    let cid = text.lines().find_map(|l| l.strip_prefix("CID=")).unwrap();
    u32::from_str_radix(cid, 16).unwrap()
}

#[test]
fn mixed_kinds_of_our_own_encoders_255_deep() {
    let mut chain = Chain::new();
    chain.check();
    for n in 0..254 {
        chain.add_ours(n);
        if n % 50 == 0 {
            chain.check();
        }
    }
    chain.check();
    say!("a chain of 255 links of COWD, seSparse and hosted sparse reads as its model");
}

#[test]
fn qemu_reads_what_our_encoders_write() {
    if !tools::have(QEMU) {
        return;
    }
    let mut chain = Chain::new();
    for n in 0..12 {
        chain.add_ours(n);
        assert!(
            by_qemu(&chain.top, chain.dir.path()) == chain.model,
            "link {n}"
        );
    }
}

#[test]
fn links_by_qemu_on_links_of_ours() {
    if !tools::have(QEMU) {
        return;
    }
    let mut chain = Chain::new();
    for n in 0..60 {
        match n % 4 {
            // qemu checks the parent's CID in a hosted sparse file only where it is one.
            0 => chain.add_ours(n * 3 + 2),
            _ => chain.add_qemu(n),
        }
    }
    chain.check_by_qemu();
    chain.check();
}

#[test]
fn one_link_more_than_the_limit_is_said() {
    let mut chain = Chain::new();
    for n in 0..400 {
        chain.add_ours(n);
    }
    let opened = HostDir::open_source(&chain.top, &Allowed::default()).unwrap();
    match disk_image::open(opened, &OpenOptions::default()) {
        // More than 255 may work, but then it must be right.
        Ok(image) => assert!(all(&*image.disk) == chain.model),
        Err(e) => assert!(e.to_string().contains("links"), "{e}"),
    }
}

#[test]
fn a_parent_that_was_written_to_is_refused() {
    let mut chain = Chain::new();
    chain.add_ours(2);
    let base = chain.dir.path().join("base.vmdk");
    let text = fs::read_to_string(&base).unwrap();
    let cid = text
        .lines()
        .find(|l| l.starts_with("CID="))
        .unwrap()
        .to_owned();
    fs::write(&base, text.replace(&cid, "CID=00000bad")).unwrap();
    let opened = HostDir::open_source(&chain.top, &Allowed::default()).unwrap();
    let e = disk_image::open(opened, &OpenOptions::default())
        .unwrap_err()
        .to_string();
    for word in ["base.vmdk", "00000bad", "--ignore-cid"] {
        assert!(e.contains(word), "'{word}' is missing: {e}");
    }
    // Told to go on, it does, and says so.
    let mut options = OpenOptions::default();
    options.vmdk.ignore_cid = true;
    let opened = HostDir::open_source(&chain.top, &Allowed::default()).unwrap();
    let image = disk_image::open(opened, &options).unwrap_or_else(|e| panic!("{e}"));
    assert!(all(&*image.disk) == chain.model);
    assert!(
        image.warnings.iter().any(|w| w.contains("base.vmdk")),
        "{:?}",
        image.warnings
    );
    assert_ne!(sha256(&chain.model), sha256(&[]));
}
