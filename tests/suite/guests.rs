//! Every file of every NTFS and FAT volume: fixtures against the truth of what was
//! written and against ntfs-3g, real images against The Sleuth Kit.

use crate::{tsk, walk};
use disk_image::Format;
use disk_io::{Disk, RunKind};
use guest_fs::Name;
use std::{fs::File, os::unix::fs::FileExt, path::Path};
use tests::{
    fixtures::{self, Sort},
    guest::{Entry, Fill, contents, differences, read_dir, sha256},
    images::{self, Image},
    mount, say, tools,
};

/// What the tree shows of a fixture, with paths as its truth has them.
fn walk_fixture(image: &Path, sort: Sort) -> walk::Walked {
    let tree = walk::open(image);
    walk::below(&tree, if sort == Sort::Disk { "/" } else { "/p0" })
}

#[test]
fn fixtures_come_back_as_they_were_written() {
    let mut wrong = Vec::new();
    let mut read = 0;
    for fixture in fixtures::all() {
        let Some(made) = fixtures::get(fixture.name) else {
            continue;
        };
        let mut walked = walk_fixture(&made.image, fixture.sort);
        if fixture.sort == Sort::Disk {
            // The volumes themselves.
            walked.truth.retain(|path, _| path.contains('/'));
        }
        for (path, e) in &walked.refused {
            wrong.push(format!("{}: {path}: {e}", fixture.name));
        }
        for line in differences(&made.truth, &walked.truth).into_iter().take(10) {
            wrong.push(format!("{}: {line}", fixture.name));
        }
        read += walked.truth.len();
    }
    say!("fixtures: {read} files and directories equal what was written");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn ntfs_3g_reads_the_same() {
    if !tools::have(&["ntfs-3g"]) || !tools::have_fuse() {
        return;
    }
    for fixture in fixtures::all().filter(|f| f.sort == Sort::Ntfs) {
        let Some(made) = fixtures::get(fixture.name) else {
            continue;
        };
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("mnt");
        let mounted = mount::ntfs_3g(&made.image, &at, "ro").unwrap();
        let theirs = read_dir(&at).unwrap();
        mounted.unmount().unwrap();
        let ours = walk_fixture(&made.image, Sort::Ntfs);
        let lines = differences(&theirs, &ours.truth);
        assert!(lines.is_empty(), "{}:\n{}", fixture.name, lines.join("\n"));
    }
}

#[test]
fn streams_links_and_holes() {
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let tree = walk::open(&made.image);
    let file = tree.resolve("/p0/streams.txt").unwrap().node;
    let mut streams = tree.streams(file).unwrap();
    streams.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<_> = streams
        .iter()
        .map(|s| (s.name.to_string(), s.size))
        .collect();
    assert_eq!(found, [("large".into(), 30_000), ("small".into(), 40)]);
    for (name, len) in [("large", 30_000), ("small", 40)] {
        let expected = contents(&format!("streams.txt:{name}"), len, Fill::Text);
        let entry = walk::read(&tree, file, Some(&Name::from(name))).unwrap();
        let sha256 = sha256(&expected);
        assert_eq!(
            entry,
            Entry::File {
                size: len as u64,
                sha256
            },
            "{name}"
        );
        let by_path = tree.resolve(format!("/p0/streams.txt:{name}")).unwrap();
        assert_eq!(
            (by_path.node, by_path.stream),
            (file, Some(Name::from(name)))
        );
    }

    let one = tree.resolve("/p0/names/linked.txt").unwrap().node;
    let two = tree.resolve("/p0/a/second name.txt").unwrap().node;
    assert_eq!(one, two);
    assert_eq!(tree.inode(one), tree.inode(two));
    assert_eq!(tree.metadata(one).unwrap().links, 2);
    assert_eq!(tree.names(one).unwrap().len(), 2);

    // 10 MiB, of which 100 KiB at 5 MiB exist (16 clusters are the unit of holes).
    let holes = tree.resolve("/p0/holes.bin").unwrap().node;
    let disk = tree.open(holes, None).unwrap();
    let mut data = 0;
    let mut at = 0;
    while at < disk.len() {
        let run = disk.run_at(at).unwrap();
        if run.kind == RunKind::Data {
            data += run.len;
            assert!(at >= 4 << 20 && at + run.len <= 6 << 20, "data at {at}");
        }
        at += run.len;
    }
    assert!(
        (100 << 10..=256 << 10).contains(&data),
        "{data} bytes of data"
    );
    let metadata = tree.metadata(holes).unwrap();
    assert!(
        metadata.allocated < 1 << 20,
        "{} allocated",
        metadata.allocated
    );
}

#[test]
fn names_that_differ_by_case_are_two_files() {
    let Some(made) = fixtures::get("ntfs-basic") else {
        return;
    };
    let tree = walk::open(&made.image);
    for name in ["UPPER.TXT", "upper.txt"] {
        let path = format!("names/{name}");
        let node = tree.resolve(format!("/p0/{path}")).unwrap().node;
        assert_eq!(made.truth[&path], walk::read(&tree, node, None).unwrap());
    }
    // One that exists in no such spelling is found without regard to case.
    let found = tree
        .resolve("/P0/NAMES/LINKED.TXT")
        .or_else(|_| tree.resolve("/p0/NAMES/LINKED.TXT"));
    assert_eq!(found.unwrap().path.to_string(), "/p0/names/linked.txt");
}

/// Writes a virtual disk as a sparse raw file for tools that read nothing else.
fn as_raw(disk: &dyn Disk, to: &Path) {
    let file = File::create(to).unwrap();
    file.set_len(disk.len()).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.len() {
        let run = disk.run_at(at).unwrap();
        let n = run.len.min(buffer.len() as u64);
        if run.kind != RunKind::Data {
            at += run.len;
            continue;
        }
        let part = &mut buffer[..n as usize];
        disk.read_exact_at(part, at).unwrap();
        file.write_all_at(part, at).unwrap();
        at += n;
    }
}

/// Differences from The Sleuth Kit that are its own, or that we explain.
struct Explained {
    image: &'static str,
    /// Paths that begin with this.
    path: &'static str,
    why: &'static str,
}

const EXPLAINED: &[Explained] = &[
    Explained {
        image: "fat/hoho-os/floppy.img",
        path: "file.txt",
        why: "a long name whose checksum is not that of the short name behind it: mtools says PROC too",
    },
    Explained {
        image: "fat/hoho-os/floppy.img",
        path: "PROC",
        why: "the same file",
    },
    Explained {
        image: "fat/fatcat/repair.img",
        path: "unallocated/file.txt",
        why: "its directory's cluster is marked free on purpose: The Sleuth Kit takes it for deleted",
    },
    Explained {
        image: "fat/fatcat/repair.img",
        path: "fat1_broken/file.txt",
        why: "its cluster is free in the first table only, on purpose",
    },
    Explained {
        image: "partition/libldm/ldm-2003r2-spanned-2.img",
        path: "",
        why: "half of a spanned volume: the root directory's index is on the other disk, which we \
              say, while The Sleuth Kit finds names through the records",
    },
];

/// Images that must be told to be raw, with the reason.
const FORCED_RAW: &[(&str, &str)] = &[(
    "ntfs/dissect/ntfs.bin",
    "a partition cut out of a fixed VHD with the VHD's footer still behind it",
)];

/// Volumes of an image that are NTFS or FAT, by the sector they begin at.
fn volumes(image: &Image) -> Vec<u64> {
    let wanted = |tsk: &str| tsk == "ntfs" || (tsk.starts_with("fat") && tsk != "fat");
    image
        .filesystems
        .iter()
        .filter(|f| f.tsk.as_deref().is_some_and(wanted))
        .map(|f| f.start.unwrap_or(0))
        .collect()
}

#[test]
fn real_volumes_read_as_the_sleuth_kit_reads_them() {
    let Some(images) = images::images() else {
        return;
    };
    if !tools::have(tsk::PROGRAMS) {
        return;
    }
    let mut wrong = Vec::new();
    let mut rows = Vec::new();
    for image in &images.index {
        // A part of a dynamic volume is not a volume, whatever its first sector looks like.
        // The volumes are read from /ldm, and compared in the tests of the tree.
        let starts = volumes(image);
        if starts.is_empty() || image.path.starts_with("partition/libldm/") {
            continue;
        }
        let raw = FORCED_RAW.iter().any(|(path, _)| *path == image.path);
        let tree = match walk::try_open_as(&images.path(image), raw.then_some(Format::Raw)) {
            Ok(tree) => tree,
            Err(e) => {
                wrong.push(format!("{}: {e}", image.path));
                continue;
            }
        };
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("disk.raw");
        let raw = if image.format == "raw" {
            images.path(image)
        } else {
            as_raw(&**tree.source().unwrap().disk(), &copy);
            copy
        };
        for start in starts {
            let (row, faults) = compare(image, &tree, &raw, start);
            rows.push(row);
            wrong.extend(faults);
        }
    }
    say!("real volumes: {}\n{}", rows.len(), rows.join("\n"));
    assert!(rows.len() > 60, "only {} NTFS and FAT volumes", rows.len());
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn compare(image: &Image, tree: &proxy::Tree, raw: &Path, start: u64) -> (String, Vec<String>) {
    let mut wrong = Vec::new();
    let partitions = &tree.source().unwrap().table().partitions;
    let volume = partitions
        .iter()
        .find(|p| p.start == start * 512)
        .map_or_else(|| "/p0".to_owned(), |p| format!("/p{}", p.number));
    let ours = walk::below(tree, &volume);
    let theirs = tsk::list(raw, start).unwrap();
    let explained = |path: &str| {
        EXPLAINED
            .iter()
            .find(|e| e.image == image.path && path.starts_with(e.path))
            .map(|e| e.why)
    };
    let (mut same, mut refused, mut known) = (0, 0, 0);
    let mut fault = |path: &str, what: String| match explained(path) {
        Some(_) => known += 1,
        None => wrong.push(format!("{}{volume}: {path}: {what}", image.path)),
    };
    for (path, item) in &theirs {
        if path.contains(':') {
            continue;
        }
        if ours.links.contains_key(path) {
            same += 1;
            continue;
        }
        if let Some(e) = ours.refused.get(path) {
            refused += 1;
            if e.to_string().is_empty() {
                fault(path, "refused without a reason".into());
            }
            continue;
        }
        match ours.truth.get(path) {
            None => fault(path, "The Sleuth Kit lists it, we do not".into()),
            Some(Entry::Dir) if item.is_dir => same += 1,
            Some(Entry::Dir) => fault(path, "a directory for us only".into()),
            Some(_) if item.is_dir => fault(path, "a file for us only".into()),
            Some(file) => match tsk::read(raw, start, item) {
                Ok(other) if other == *file => same += 1,
                Ok(other) => fault(path, format!("ours {file:?}, theirs {other:?}")),
                Err(e) => fault(path, format!("icat: {e:#}")),
            },
        }
    }
    let ours_only: Vec<_> = ours
        .truth
        .keys()
        .filter(|p| !theirs.contains_key(*p))
        .collect();
    for path in ours_only {
        fault(path, "we list it, The Sleuth Kit does not".into());
    }
    let row = format!(
        "{:<56} {volume}: {same} the same, {refused} refused by name, {known} explained",
        image.path
    );
    let reasons = ours
        .refused
        .iter()
        .take(5)
        .map(|(p, e)| format!("    {p}: {e}"));
    let row = std::iter::once(row)
        .chain(reasons)
        .collect::<Vec<_>>()
        .join("\n");
    (row, wrong)
}
