//! What is written here, read by qemu-img.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(unreachable_pub)]
mod common;

use common::{Numbers, have, run};
use disk_image::{
    Format,
    write::{Compress, WriteOptions, Writer},
};
use std::fs::File;

#[test]
fn qemu_reads_the_same_bytes() {
    if !have("qemu-img") {
        return;
    }
    let plain = WriteOptions::new;
    let cases = [
        ("vpc", plain(Format::Vhd)),
        (
            "vpc",
            WriteOptions {
                fixed: true,
                ..plain(Format::Vhd)
            },
        ),
        ("vdi", plain(Format::Vdi)),
        (
            "vdi",
            WriteOptions {
                fixed: true,
                ..plain(Format::Vdi)
            },
        ),
        ("vhdx", plain(Format::Vhdx)),
        (
            "vhdx",
            WriteOptions {
                fixed: true,
                ..plain(Format::Vhdx)
            },
        ),
        ("qcow2", plain(Format::Qcow2)),
        (
            "qcow2",
            WriteOptions {
                compress: Some(Compress::Zlib(6)),
                ..plain(Format::Qcow2)
            },
        ),
        (
            "qcow2",
            WriteOptions {
                compress: Some(Compress::Zstd(3)),
                ..plain(Format::Qcow2)
            },
        ),
    ];
    // Words, noise and holes, and an odd end.
    let mut numbers = Numbers(7);
    let mut contents = vec![0u8; (9 << 20) + 512 * 3];
    for (n, cluster) in contents.chunks_mut(65536).enumerate() {
        match n % 5 {
            0 | 1 => cluster.chunks_mut(16).for_each(|c| {
                c.copy_from_slice(&format!("{:016}", numbers.below(900)).as_bytes()[..c.len()])
            }),
            2 => cluster
                .iter_mut()
                .for_each(|b| *b = numbers.below(256) as u8),
            _ => {}
        }
    }
    for (name, options) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = File::create(&path).unwrap();
        let writer = Writer::create(&file, &path, contents.len() as u64, &options).unwrap();
        for (n, piece) in contents.chunks(1 << 20).enumerate() {
            writer.write_at(piece, (n as u64) << 20).unwrap();
        }
        writer.finish().unwrap();
        println!("{options:?}: {} bytes", file.metadata().unwrap().len());
        if name != "vpc" {
            let said = run(dir.path(), "qemu-img", &["check", "-f", name, "a"]);
            assert!(said.contains("No errors"), "{said}");
        }
        run(
            dir.path(),
            "qemu-img",
            &["convert", "-f", name, "-O", "raw", "a", "raw"],
        );
        let read = std::fs::read(dir.path().join("raw")).unwrap();
        assert!(read == contents, "{name}: {} bytes", read.len());
    }
}
