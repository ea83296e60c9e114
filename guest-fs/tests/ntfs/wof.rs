//! CompactOS files, with chunks that wimlib compressed.

use crate::{
    support::open_at,
    tools::{Volume, have, noise, run, set_attr, text},
};
use guest_fs::{FileSystem, Name};
use std::{fs, path::Path};
use tempfile::TempDir;

/// The chunk table and chunks of the only file of a WIM image made of `contents`; `None`
/// if wimlib stored it as it is.
fn resource(contents: &[u8], method: &str, chunk: &str) -> Option<Vec<u8>> {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("in/file"), contents).unwrap();
    let wim = dir.path().join("out.wim");
    run(
        "wimlib-imagex",
        [
            "capture".as_ref(),
            dir.path().join("in").as_os_str(),
            wim.as_os_str(),
            format!("--compress={method}").as_ref(),
            format!("--chunk-size={chunk}").as_ref(),
        ],
    );
    cut(&wim, contents.len() as u64)
}

/// Finds the resource of that size in a WIM file.
fn cut(wim: &Path, size: u64) -> Option<Vec<u8>> {
    let all = fs::read(wim).unwrap();
    let u64_at = |at: usize| u64::from_le_bytes(all[at..at + 8].try_into().unwrap());
    let len56 = |at: usize| u64_at(at) & 0xff_ffff_ffff_ffff;
    let (table, table_len) = (u64_at(56) as usize, u64_at(64) as usize);
    for at in (table..table + table_len).step_by(50) {
        if u64_at(at + 16) == size {
            let flags = all[at + 7];
            let start = u64_at(at + 8) as usize;
            return (flags & 4 != 0).then(|| all[start..start + len56(at) as usize].to_vec());
        }
    }
    panic!("no resource of {size} bytes");
}

/// Decodes the chunks of an XPRESS resource with the crate `xpress-huffman`: how many it
/// reads, and how many it leaves short. What it gives is always right as far as it goes.
fn second_opinion(coded: &[u8], contents: &[u8], chunk: usize) -> (usize, usize) {
    let count = contents.len().div_ceil(chunk);
    let (table, chunks) = coded.split_at((count - 1) * 4);
    let mut ends: Vec<usize> = table
        .chunks(4)
        .map(|e| u32::from_le_bytes(e.try_into().unwrap()) as usize)
        .collect();
    ends.push(chunks.len());
    let (mut start, mut whole, mut short) = (0, 0, 0);
    for (plain, end) in contents.chunks(chunk).zip(ends) {
        let coded = &chunks[start..end];
        start = end;
        if coded.len() == plain.len() {
            continue;
        }
        let out = xpress_huffman::decompress(coded, plain.len()).unwrap();
        if out.len() >= plain.len() {
            assert!(out == plain);
            whole += 1;
        } else {
            assert!(plain.starts_with(&out));
            short += 1;
        }
    }
    (whole, short)
}

/// Something like a program: calls, tables, text, zeros.
fn program(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let mut i = 0u32;
    while out.len() < len {
        i = i.wrapping_add(1);
        out.extend([0x55, 0x8b, 0xec, 0xe8]);
        out.extend(
            (0x1000 + i % 37 * 16)
                .wrapping_sub(out.len() as u32)
                .to_le_bytes(),
        );
        out.extend([0x8b, (i % 7) as u8, 0xc9, 0xc3]);
        if i.is_multiple_of(50) {
            out.extend(noise(u64::from(i), 40));
            out.extend([0; 30]);
        }
        if i.is_multiple_of(90) {
            out.extend(text(u64::from(i), 200));
        }
    }
    out.truncate(len);
    out
}

#[test]
fn every_method_reads_as_wimlib_wrote() {
    if !have(&["wimlib-imagex"]) {
        return;
    }
    let Some(volume) = Volume::make(64 << 20, &[]) else {
        return;
    };
    let mut long = program(700_000);
    long.extend(noise(4, 100_000));
    long.extend(text(5, 400_000));
    long.extend(vec![0; 90_000]);
    long.extend(program(33_333));
    let cases = [
        ("program", program(500_001)),
        ("text", text(1, 300_000)),
        ("long", long),
        ("one chunk", text(2, 4000)),
        ("exact", program(65_536)),
        ("tiny", text(3, 500)),
    ];
    let methods = [
        ("xpress4", "XPRESS", "4096", 0u32),
        ("lzx", "LZX", "32768", 1),
        ("xpress8", "XPRESS", "8192", 2),
        ("xpress16", "XPRESS", "16384", 3),
    ];
    let mut made = Vec::new();
    let (mut crate_whole, mut crate_short) = (0, 0);
    let mounted = volume.mount("streams_interface=windows");
    for (dir, method, chunk, algorithm) in methods {
        fs::create_dir(mounted.at.join(dir)).unwrap();
        for (name, contents) in &cases {
            let Some(coded) = resource(contents, method, chunk) else {
                continue;
            };
            if method == "XPRESS" {
                let (whole, short) = second_opinion(&coded, contents, chunk.parse().unwrap());
                crate_whole += whole;
                crate_short += short;
            }
            let path = mounted.at.join(dir).join(name);
            fs::File::create(&path)
                .unwrap()
                .set_len(contents.len() as u64)
                .unwrap();
            fs::write(
                mounted
                    .at
                    .join(dir)
                    .join(format!("{name}:WofCompressedData")),
                &coded,
            )
            .unwrap();
            let mut value = 0x8000_0017u32.to_le_bytes().to_vec();
            value.extend([16, 0, 0, 0]);
            for v in [1, 2, 1, algorithm] {
                value.extend(v.to_le_bytes());
            }
            set_attr(&path, "system.ntfs_reparse_data", &value);
            made.push((dir, *name, contents));
        }
    }
    drop(mounted);
    println!("the crate reads {crate_whole} chunks and cuts {crate_short} short");
    assert!(crate_whole + crate_short > 100);
    assert!(made.len() >= 20, "{}", made.len());
    let ours = open_at(&volume.image, 0, None).unwrap();
    for (dir, name, contents) in made {
        let at = ours.lookup(ours.root(), &Name::from(dir)).unwrap().unwrap();
        let node = ours.lookup(at, &Name::from(name)).unwrap().unwrap();
        let m = ours.metadata(node).unwrap();
        assert!(m.refusal.is_none(), "{dir}/{name}: {:?}", m.refusal);
        assert_eq!(m.size, contents.len() as u64);
        let disk = ours
            .open(node, None)
            .unwrap_or_else(|e| panic!("{dir}/{name}: {e}"));
        println!("{dir}/{name}: {} from {}", m.size, m.allocated);
        disk_io::conformance::check(&*disk, contents);
    }
}
