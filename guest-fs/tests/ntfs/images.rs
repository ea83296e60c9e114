//! Volumes written by Windows and others.

use crate::support::{images, open_at, walk};
use guest_fs::{FileSystem, NodeKind};

/// Image, start in bytes, files and directories as counted here and checked against
/// `fls -ru` (differences are explained beside).
const VOLUMES: &[(&str, u64, usize, usize)] = &[];

#[test]
fn every_volume_lists_and_reads_as_recorded() {
    let Some(dir) = images() else { return };
    for &(name, start, files, dirs) in VOLUMES {
        let fs = open_at(&dir.join(name), start, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let info = fs.info();
        let walk = walk(&fs, 64 << 20);
        let of = |k: NodeKind| {
            walk.seen
                .values()
                .filter(|s| (s.metadata.kind == NodeKind::Directory) == (k == NodeKind::Directory))
                .count()
        };
        println!("{name}: {info:?}");
        for (path, e) in &walk.errors {
            println!("  error {}: {e}", String::from_utf8_lossy(path));
        }
        for (path, seen) in &walk.seen {
            if let Err(e) = &seen.contents {
                println!("  {}: {e}", String::from_utf8_lossy(path));
            }
        }
        assert_eq!(
            (of(NodeKind::File), of(NodeKind::Directory)),
            (files, dirs),
            "{name}"
        );
    }
}

#[test]
fn show() {
    let Ok(what) = std::env::var("SHOW") else {
        return;
    };
    for item in what.split(',') {
        let (path, start) = item.split_once('@').unwrap_or((item, "0"));
        let fs = match open_at(path.as_ref(), start.parse().unwrap(), None) {
            Ok(f) => f,
            Err(e) => {
                println!("{path}: OPEN {e}");
                continue;
            }
        };
        println!("{path}@{start}: {:?}", fs.info());
        let walk = walk(&fs, 64 << 20);
        for (path, e) in &walk.errors {
            println!("  error {}: {e}", String::from_utf8_lossy(path));
        }
        let d = walk
            .seen
            .values()
            .filter(|s| s.metadata.kind == NodeKind::Directory)
            .count();
        println!(
            "  {} files {} dirs, {} meta",
            walk.seen.len() - d,
            d,
            fs.metafiles().len()
        );
        if std::env::var("LONG").is_ok() {
            for (path, seen) in &walk.seen {
                println!(
                    "  {} {} {:?} {:?} {:?} {:?} {:?}",
                    String::from_utf8_lossy(path),
                    seen.metadata.size,
                    seen.metadata.kind,
                    seen.contents,
                    seen.streams,
                    seen.short_name,
                    seen.metadata.remarks
                );
            }
        } else {
            for (path, seen) in &walk.seen {
                if let Err(e) = &seen.contents {
                    println!("  {} {e}", String::from_utf8_lossy(path));
                }
                for s in &seen.streams {
                    if let Err(e) = &s.1 {
                        println!("  {}:{} {e}", String::from_utf8_lossy(path), s.0);
                    }
                }
            }
        }
    }
}
