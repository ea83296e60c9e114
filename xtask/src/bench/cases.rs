//! The benches themselves.

mod backup;
mod chain;
mod check;
pub(crate) mod child;
mod convert;
mod copy;
mod formats;
mod guest;
mod memory;
mod mount;
pub(crate) mod points;
mod synthetic;
mod vmfs;

use super::Bench;
use anyhow::Result;

/// A bench that can be asked for by name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&mut Bench) -> Result<()>,
}

/// All of them, in an order that keeps few data sets on the disk at once.
pub(crate) const ALL: &[Case] = &[
    Case {
        name: "sparse-to-raw",
        what: "convert --to raw from monolithicSparse",
        run: convert::sparse_to_raw,
    },
    Case {
        name: "stream-to-raw",
        what: "convert --to raw from streamOptimized",
        run: convert::stream_to_raw,
    },
    Case {
        name: "to-formats",
        what: "convert from monolithicSparse to every other format",
        run: formats::formats,
    },
    Case {
        name: "to-formats-empty",
        what: "convert a mostly empty disk of 2 TiB",
        run: formats::empty,
    },
    Case {
        name: "mount-read",
        what: "sequential read through --layout raw, warm and cold",
        run: mount::sequential,
    },
    Case {
        name: "mount-random",
        what: "random reads of a guest file through a mount, by one and by 16 readers",
        run: points::random_reads,
    },
    Case {
        name: "mount-points",
        what: "what mounting a machine of 32 snapshots reads",
        run: points::snapshots,
    },
    Case {
        name: "large-file",
        what: "cp of one large file",
        run: copy::large,
    },
    Case {
        name: "small-file",
        what: "cp of one small file out of many",
        run: copy::small,
    },
    Case {
        name: "files-100k",
        what: "listing, searching and copying 100,000 files in NTFS",
        run: guest::hundred_thousand,
    },
    Case {
        name: "files-1m",
        what: "listing and searching a million files in NTFS",
        run: guest::million,
    },
    Case {
        name: "contents",
        what: "cat of one large file, and of one that LZNT1 compressed",
        run: guest::contents,
    },
    Case {
        name: "fat-random",
        what: "random reads in a file on FAT",
        run: guest::random_fat,
    },
    Case {
        name: "check",
        what: "structure of a monolithicSparse disk",
        run: check::structure,
    },
    Case {
        name: "diff",
        what: "changed blocks between two snapshots of a chain",
        run: check::changed,
    },
    Case {
        name: "check-volume",
        what: "structure of an NTFS volume of a million files",
        run: check::volume,
    },
    Case {
        name: "verify",
        what: "a backup end to end, against hashing as many bytes",
        run: check::contents,
    },
    Case {
        name: "diff-files",
        what: "changed guest files between two states, few and many",
        run: check::changed_files,
    },
    Case {
        name: "export-since",
        what: "a backup of what changed, against a whole one",
        run: backup::since,
    },
    Case {
        name: "replicate",
        what: "a copy brought up to date by what changed, against a whole export",
        run: backup::replicate,
    },
    Case {
        name: "vmfs-read",
        what: "a thick disk out of VMFS-5 and VMFS-6",
        run: vmfs::read,
    },
    Case {
        name: "vmfs-list",
        what: "10,000 files in a directory of VMFS-5",
        run: vmfs::list,
    },
    Case {
        name: "vmfs-open",
        what: "what opening 64 TiB of VMFS reads and holds",
        run: vmfs::open,
    },
    Case {
        name: "chain-rewritten",
        what: "reading warm chains whose links rewrite 1 % of the grains each",
        run: chain::rewritten,
    },
    Case {
        name: "chain-empty",
        what: "reading warm chains of empty deltas",
        run: chain::empty,
    },
    Case {
        name: "memory",
        what: "resident memory with every table of a 2 TiB disk of 255 links touched",
        run: memory::tables,
    },
];
