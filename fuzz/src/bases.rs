//! Sound images that inputs are patches of. What our own writers can make is made here; volumes
//! that only other tools make are kept compressed in `fuzz/bases` (`cargo xtask fuzz --bases`).

use crate::patch::Base;
use convert::{Destination, DigestKind, ImageFormat, ImageOptions, NoProgress, to_image};
use disk_image::{
    Format,
    write::{Compress, WriteOptions},
};
use disk_io::{Disk, MemDisk};
use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use vmdk::writer::{self, StreamLayout, Subformat};
use vmfs_reader::build::{Builder, FileSpec, Provision};

type Cell = OnceLock<Vec<Base>>;

/// Some data, some zeros, some text, in a disk of odd length.
fn disk() -> Arc<dyn Disk> {
    let mut bytes = vec![0; 700 * 512];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = match n / 65536 {
            0 => b"vmdkit "[n % 7],
            2 | 4 => (n * n / 7) as u8,
            _ => 0,
        };
    }
    Arc::new(MemDisk::new(bytes))
}

/// The files of an image of that disk, the largest last.
fn files(format: ImageFormat) -> Vec<Vec<u8>> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("disk");
    let options = ImageOptions {
        format,
        workers: 1,
        digest: DigestKind::None,
        ..ImageOptions::default()
    };
    let report = to_image(&disk(), Destination::File(&path), &options, &NoProgress).unwrap();
    let mut files: Vec<Vec<u8>> = report.files.iter().map(|f| fs::read(f).unwrap()).collect();
    files.sort_by_key(Vec::len);
    files
}

fn image(format: ImageFormat) -> Arc<dyn Disk> {
    // Deltas have a descriptor beside: the data is what matters.
    in_memory(files(format).pop().unwrap())
}

/// What stands beside the extent.
fn descriptor_of(subformat: Subformat) -> String {
    let options = writer::Options::new(subformat, writer::Identity::new(7));
    let files = files(ImageFormat::Vmdk(options));
    String::from_utf8(files[0].clone()).unwrap()
}

/// Of a COWD.
pub fn cowd_descriptor() -> &'static str {
    static CELL: OnceLock<String> = OnceLock::new();
    CELL.get_or_init(|| descriptor_of(Subformat::VmfsSparse))
}

/// Of an seSparse disk.
pub fn sesparse_descriptor() -> &'static str {
    static CELL: OnceLock<String> = OnceLock::new();
    CELL.get_or_init(|| descriptor_of(Subformat::SeSparse))
}

fn vmdk_of(subformat: Subformat, layout: StreamLayout) -> Arc<dyn Disk> {
    let mut options = writer::Options::new(subformat, writer::Identity::new(7));
    options.layout = layout;
    image(ImageFormat::Vmdk(options))
}

fn portable(format: Format, fixed: bool, compress: Option<Compress>) -> Arc<dyn Disk> {
    image(ImageFormat::Portable(WriteOptions {
        format,
        fixed,
        compress,
        sector_size: 512,
    }))
}

fn made(cell: &'static Cell, make: impl FnOnce() -> Vec<Arc<dyn Disk>>) -> &'static [Base] {
    cell.get_or_init(|| make().iter().map(|d| Base::new(&**d)).collect())
}

fn in_memory(bytes: Vec<u8>) -> Arc<dyn Disk> {
    Arc::new(MemDisk::new(bytes))
}

/// A hive with everything that is asked for: of SYSTEM and of SOFTWARE.
fn hive_bytes() -> Vec<u8> {
    use regf::DataType::{Binary, Dword, MultiString, String as Text};
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let mut hive = regf::HiveBuilder::new().unwrap();
    let root = hive.root_offset();
    let values: [(&str, &str, regf::DataType, Vec<u8>); 8] = [
        ("Select", "Current", Dword, vec![1, 0, 0, 0]),
        ("MountedDevices", r"\DosDevices\C:", Binary, vec![7; 12]),
        (
            "MountedDevices",
            r"\??\Volume{ab}",
            Binary,
            [&b"DMIO:ID:"[..], &[1; 16]].concat(),
        ),
        (
            "ControlSet001/Control/ComputerName/ComputerName",
            "ComputerName",
            Text,
            utf16("WEB01\0"),
        ),
        (
            "ControlSet001/Services/Tcpip/Parameters/Interfaces/{a}",
            "EnableDHCP",
            Dword,
            vec![0; 4],
        ),
        (
            "ControlSet001/Services/Tcpip/Parameters/Interfaces/{a}",
            "IPAddress",
            MultiString,
            utf16("10.0.0.5\0\0"),
        ),
        (
            "Microsoft/Windows NT/CurrentVersion",
            "ProductName",
            Text,
            utf16("Windows\0"),
        ),
        (
            "Microsoft/Windows NT/CurrentVersion",
            "CurrentBuild",
            Text,
            utf16("9600\0"),
        ),
    ];
    let mut keys = std::collections::HashMap::new();
    for (path, name, kind, data) in values {
        let (mut at, mut upto) = (root, String::new());
        for part in path.split('/') {
            upto = format!("{upto}/{part}");
            at = *keys
                .entry(upto.clone())
                .or_insert_with(|| hive.add_key(at, part).unwrap());
        }
        hive.add_value(at, name, kind, &data).unwrap();
    }
    hive.to_bytes().unwrap()
}

macro_rules! bases {
    ($($(#[$doc:meta])* $name:ident => $make:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name() -> &'static [Base] {
            static CELL: Cell = OnceLock::new();
            made(&CELL, || $make)
        }
    )*};
}

bases! {
    /// monolithicSparse.
    hosted => vec![vmdk_of(Subformat::MonolithicSparse, StreamLayout::Header)];
    /// streamOptimized in both layouts.
    stream => vec![
        vmdk_of(Subformat::StreamOptimized, StreamLayout::Header),
        vmdk_of(Subformat::StreamOptimized, StreamLayout::Footer),
    ];
    /// COWD.
    cowd => vec![vmdk_of(Subformat::VmfsSparse, StreamLayout::Header)];
    /// seSparse.
    sesparse => vec![vmdk_of(Subformat::SeSparse, StreamLayout::Header)];
    /// qcow2, plain and compressed.
    qcow2 => vec![
        portable(Format::Qcow2, false, None),
        portable(Format::Qcow2, false, Some(Compress::Zlib(6))),
        portable(Format::Qcow2, false, Some(Compress::Zstd(3))),
    ];
    /// VHD, dynamic and fixed.
    vhd => vec![portable(Format::Vhd, false, None), portable(Format::Vhd, true, None)];
    /// VHDX.
    vhdx => vec![portable(Format::Vhdx, false, None)];
    /// VDI.
    vdi => vec![portable(Format::Vdi, false, None), portable(Format::Vdi, true, None)];
    /// A package.
    ova => vec![package()];
    /// Partition tables.
    partitions => kept("partitions");
    /// LVM2.
    lvm2 => kept("lvm2");
    /// LDM.
    ldm => kept("ldm");
    /// NTFS.
    ntfs => kept("ntfs");
    /// FAT of every width.
    fat => vec![fat_of(fatfs::FatType::Fat12, 1), fat_of(fatfs::FatType::Fat16, 5), fat_of(fatfs::FatType::Fat32, 34)];
    /// exFAT.
    exfat => kept("exfat");
    /// ext.
    ext => kept("ext");
    /// A registry hive.
    hive => vec![in_memory(hive_bytes())];
    /// VMFS-5 and VMFS-6.
    vmfs => vec![datastore(Builder::five("base")), datastore(Builder::six("base"))];
}

/// Where what other tools made is kept.
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bases")
}

fn kept(name: &str) -> Vec<Arc<dyn Disk>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir())
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            let file = p.file_name().unwrap().to_string_lossy().into_owned();
            file.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['-', '.']))
        })
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "fuzz/bases has no {name}: cargo xtask fuzz --bases"
    );
    files
        .iter()
        .map(|file| in_memory(zstd::decode_all(&*fs::read(file).unwrap()).unwrap()))
        .collect()
}

fn package() -> Arc<dyn Disk> {
    // The order of members, and a manifest; the disk is a stream.
    let stream = vmdk_of(Subformat::StreamOptimized, StreamLayout::Header);
    let mut disk = vec![0; stream.len() as usize];
    stream.read_exact_at(&mut disk, 0).unwrap();
    let ovf = "<?xml version=\"1.0\"?><Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
        xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"><References><File ovf:id=\"f\" \
        ovf:href=\"d.vmdk\"/></References><DiskSection><Disk ovf:diskId=\"d\" ovf:fileRef=\"f\" \
        ovf:capacity=\"358400\"/></DiskSection></Envelope>";
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [("a.ovf", ovf.as_bytes()), ("d.vmdk", &disk)] {
        let mut head = tar::Header::new_ustar();
        head.set_size(bytes.len() as u64);
        head.set_mode(0o644);
        tar.append_data(&mut head, name, bytes).unwrap();
    }
    in_memory(tar.into_inner().unwrap())
}

fn fat_of(kind: fatfs::FatType, mib: usize) -> Arc<dyn Disk> {
    let mut disk = Cursor::new(vec![0; mib << 20]);
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(kind)
        .bytes_per_cluster(512);
    fatfs::format_volume(&mut disk, options).unwrap();
    {
        let volume = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
        let root = volume.root_dir();
        root.create_dir("dir").unwrap();
        for (name, size) in [
            ("a.txt", 6),
            ("dir/Long name of a file.dat", 5000),
            ("empty", 0),
        ] {
            let mut file = root.create_file(name).unwrap();
            file.write_all(&vec![7; size]).unwrap();
        }
        root.create_file("gone")
            .unwrap()
            .write_all(b"gone")
            .unwrap();
        root.remove("gone").unwrap();
    }
    in_memory(disk.into_inner())
}

fn datastore(mut builder: Builder) -> Arc<dyn Disk> {
    let thin = FileSpec {
        provision: Provision::Thin,
        ..FileSpec::default()
    };
    let mut sparse = disk_io::SparseMemDisk::new(40 << 20);
    sparse.put(3 << 20, b"three");
    sparse.put(39 << 20, b"thirty-nine");
    builder.bytes("vm/vm.vmx", b"displayName = \"vm\"\n");
    builder.file("vm/thin-flat.vmdk", Arc::new(sparse), thin);
    for n in 0..40 {
        builder.bytes(&format!("many/file {n}"), &[n; 700]);
    }
    builder.symlink("link", "vm/vm.vmx");
    builder.rdm("vm/rdm.vmdk", 1 << 30);
    Arc::new(builder.build().pop().unwrap())
}
