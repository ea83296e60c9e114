//! What `convert` writes is read by other people's tools: every format and subformat, over
//! odd sizes; a table of who takes what is in the output, and in docs/formats.md.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};
use tests::{
    guest::sha256,
    say,
    tools::{self, have, have_fuse, output, vmdkit},
};

/// A kind of image, its options, qemu's name of the format, 7-Zip's, and who cannot read it.
struct Kind {
    to: &'static str,
    options: &'static [&'static str],
    qemu: &'static str,
    seven_zip: &'static str,
    /// Readers that refuse it, whoever wrote it.
    refuse: &'static [&'static str],
}

const fn kind(
    to: &'static str,
    options: &'static [&'static str],
    qemu: &'static str,
    seven_zip: &'static str,
    refuse: &'static [&'static str],
) -> Kind {
    Kind {
        to,
        options,
        qemu,
        seven_zip,
        refuse,
    }
}

/// 7-Zip does not know the sparse files of ESX; libvmdk 20200926 knows neither seSparse nor
/// monolithicFlat (nor does it read qemu-img's); 7-Zip 26 has no zstd in qcow2.
const KINDS: &[Kind] = &[
    kind(
        "vmdk",
        &["--subformat", "monolithicSparse"],
        "vmdk",
        "vmdk",
        &[],
    ),
    kind(
        "vmdk",
        &["--subformat", "monolithicFlat"],
        "vmdk",
        "vmdk",
        &["libvmdk"],
    ),
    kind(
        "vmdk",
        &["--subformat", "twoGbMaxExtentSparse", "--split-size", "1M"],
        "vmdk",
        "vmdk",
        &[],
    ),
    kind(
        "vmdk",
        &["--subformat", "twoGbMaxExtentFlat", "--split-size", "1M"],
        "vmdk",
        "vmdk",
        &[],
    ),
    kind(
        "vmdk",
        &["--subformat", "streamOptimized"],
        "vmdk",
        "vmdk",
        &[],
    ),
    kind(
        "vmdk",
        &[
            "--subformat",
            "streamOptimized",
            "--stream-layout",
            "footer",
        ],
        "vmdk",
        "vmdk",
        &[],
    ),
    kind("vmdk", &["--subformat", "vmfs"], "vmdk", "vmdk", &[]),
    kind(
        "vmdk",
        &["--subformat", "vmfsSparse"],
        "vmdk",
        "vmdk",
        &["7-Zip"],
    ),
    kind(
        "vmdk",
        &["--subformat", "seSparse"],
        "vmdk",
        "vmdk",
        &["7-Zip", "libvmdk"],
    ),
    kind("qcow2", &[], "qcow2", "qcow", &[]),
    kind("qcow2", &["--compress=9"], "qcow2", "qcow", &[]),
    kind(
        "qcow2",
        &["--compression", "zstd"],
        "qcow2",
        "qcow",
        &["7-Zip"],
    ),
    kind("vhd", &[], "vpc", "vhd", &[]),
    kind("vhd", &["--subformat", "fixed"], "vpc", "vhd", &[]),
    kind("vhdx", &[], "vhdx", "vhdx", &[]),
    kind("vhdx", &["--subformat", "fixed"], "vhdx", "vhdx", &[]),
    kind("vdi", &[], "vdi", "vdi", &[]),
    kind("vdi", &["--subformat", "fixed"], "vdi", "vdi", &[]),
];

/// A raw disk of `len` bytes: data at the beginning, in the middle, over the end of a grain
/// and at the very end; holes between.
fn raw(path: &Path, len: u64) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    let data: Vec<u8> = (0..70_000u64).map(|i| ((i * i) >> 7) as u8 | 1).collect();
    for at in [
        0,
        130_000,
        len / 2,
        (1 << 31) - 70_000,
        len.saturating_sub(600),
    ] {
        if at < len {
            let n = data.len().min((len - at) as usize);
            file.write_all_at(&data[..n], at).unwrap();
        }
    }
}

fn convert(dir: &Path, kind: &Kind, dest: &str) {
    let mut command = Command::new(vmdkit().unwrap());
    command.current_dir(dir);
    command.args(["convert", "--quiet", "--verify", "--format", "raw", "s.raw"]);
    output(command.arg(dest).args(["--to", kind.to]).args(kind.options)).unwrap();
}

/// qemu-img finds it whole, and the same as the raw disk.
fn qemu(dir: &Path, kind: &Kind, file: &str) {
    let mut compare = tools::command("qemu-img");
    compare.args(["compare", "-f", "raw", "-F", kind.qemu, "s.raw", file]);
    output(compare.current_dir(dir)).unwrap();
    // It checks no VHD.
    if kind.qemu != "vpc" {
        let mut check = tools::command("qemu-img");
        output(
            check
                .args(["check", "-f", kind.qemu, file])
                .current_dir(dir),
        )
        .unwrap();
    }
}

/// What 7-Zip unpacks.
fn seven_zip(dir: &Path, kind: &Kind, file: &str) -> Option<String> {
    let mut command = tools::command("7zz");
    let out = command
        .args(["x", "-so", &format!("-t{}", kind.seven_zip), file])
        .current_dir(dir)
        .output()
        .unwrap();
    out.status.success().then(|| sha256(&out.stdout))
}

/// What libvmdk or libvhdi mounts.
fn mounted(dir: &Path, file: &str, program: &str, name: &str) -> Option<String> {
    let at = dir.join("mnt");
    fs::create_dir_all(&at).unwrap();
    let done = tools::command(program)
        .arg(file)
        .arg(&at)
        .current_dir(dir)
        .output()
        .unwrap();
    if !done.status.success() || !at.join(name).exists() {
        return None;
    }
    let bytes = fs::read(at.join(name));
    // Whoever looks at all mounts of the machine keeps one busy for a moment.
    let mut unmount = tools::command("fusermount3");
    unmount.arg("-u").arg(&at);
    let mut tries = 0;
    while let Err(e) = output(&mut unmount) {
        tries += 1;
        assert!(tries < 50, "{e}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Some(sha256(&bytes.unwrap()))
}

#[test]
fn others_read_what_is_written() {
    if !have(&["qemu-img", "7zz", "vmdkmount", "vhdimount"]) || !have_fuse() {
        return;
    }
    // A sector, a grain less and more one, and an odd end behind several pieces.
    let sizes: [u64; 4] = [512, 65_024, 66_048, (3 << 20) + 512];
    say!("{:<8} {:<48} qemu-img  7-Zip  libvmdk/libvhdi", "", "");
    for kind in KINDS {
        let mut verdict = [true; 2];
        for len in sizes {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            raw(&dir.join("s.raw"), len);
            let expected = Some(sha256(&fs::read(dir.join("s.raw")).unwrap()));
            let file = format!("o.{}", kind.to);
            convert(dir, kind, &file);
            qemu(dir, kind, &file);
            let what = format!("{} {} of {len}", kind.to, kind.options.join(" "));
            let by_7z = seven_zip(dir, kind, &file);
            // It opens no VHDX that is not a multiple of a MiB, qemu-img's neither.
            let odd = kind.to == "vhdx" && len % (1 << 20) != 0;
            if kind.refuse.contains(&"7-Zip") || odd {
                assert_ne!(by_7z, expected, "{what}: 7-Zip has learned to read it");
                verdict[0] &= odd;
            } else {
                assert_eq!(by_7z, expected, "{what}: 7-Zip");
            }
            let by_mount = match kind.to {
                "vmdk" => mounted(dir, &file, "vmdkmount", "vmdk1"),
                "vhd" | "vhdx" => mounted(dir, &file, "vhdimount", "vhdi1"),
                _ => continue,
            };
            if kind.refuse.contains(&"libvmdk") {
                assert_ne!(by_mount, expected, "{what}: libvmdk has learned to read it");
                verdict[1] = false;
            } else {
                assert_eq!(by_mount, expected, "{what}: libvmdk or libvhdi");
            }
        }
        let word = |ok: bool| if ok { "reads" } else { "no" };
        let last = match kind.to {
            "vmdk" | "vhd" | "vhdx" => word(verdict[1]),
            _ => "–",
        };
        let options = kind.options.join(" ");
        say!(
            "{:<8} {options:<48} reads     {:<6} {last}",
            kind.to,
            word(verdict[0])
        );
    }
}

/// Around 2 GiB, where pieces of split disks and 32-bit numbers of bytes end.
#[test]
fn around_two_gigabytes() {
    if !have(&["qemu-img"]) {
        return;
    }
    for len in [(2 << 30) - 512, (2 << 30) + 512] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        raw(&dir.join("s.raw"), len);
        for kind in KINDS.iter().filter(|k| !k.options.contains(&"fixed")) {
            let options: Vec<&str> = kind
                .options
                .iter()
                .copied()
                .filter(|o| !matches!(*o, "--split-size" | "1M"))
                .collect();
            let options: &'static [&'static str] = options.leak();
            let kind = Kind { options, ..*kind };
            let name = kind.options.get(1).unwrap_or(&"plain").replace("--", "");
            let file = format!("{name}{}.{}", kind.options.len(), kind.to);
            convert(dir, &kind, &file);
            qemu(dir, &kind, &file);
        }
    }
}
