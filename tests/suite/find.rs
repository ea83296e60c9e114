//! `find` reads the tables of a volume once and puts paths together from them; `ls -R`
//! walks the directories. Both must list the same, with the same facts.

use crate::walk;
use guest_fs::Metadata;
use proxy::{Node, Tree};
use std::{collections::BTreeMap, ops::ControlFlow};
use tests::{fixtures, images, say};

/// Path, and what must agree of the metadata.
type Listed = BTreeMap<Vec<u8>, String>;

fn facts(m: &Metadata) -> String {
    format!(
        "{:?} {} {} {:?} {:?} {:?}",
        m.kind, m.size, m.links, m.modified, m.created, m.attributes
    )
}

fn by_walking(tree: &Tree, dir: Node, path: &[u8], out: &mut Listed, errors: &mut u64) {
    let mut entries = Vec::new();
    let listed = tree.read_dir(dir, &mut |e| {
        entries.push(e);
        ControlFlow::Continue(())
    });
    *errors += u64::from(listed.is_err());
    for entry in entries {
        let Ok(entry) = entry else {
            *errors += 1;
            continue;
        };
        let mut path = path.to_vec();
        path.push(b'/');
        path.extend_from_slice(entry.name.as_bytes());
        match tree.metadata(entry.node) {
            Ok(m) => {
                out.insert(path.clone(), facts(&m));
                if m.kind == guest_fs::NodeKind::Directory && path.len() < 4096 {
                    by_walking(tree, entry.node, &path, out, errors);
                }
            }
            Err(_) => *errors += 1,
        }
    }
}

/// Differences of the two ways; `None` where one of them met damage.
fn compare(tree: &Tree) -> Option<(usize, Vec<String>)> {
    let (mut walked, mut found) = (Listed::new(), Listed::new());
    let mut errors = 0;
    by_walking(tree, tree.root(), b"", &mut walked, &mut errors);
    let _ = tree.find(tree.root(), b"/", &|_, _| true, &mut |below| {
        match below {
            Ok(below) => {
                let before = found.insert(below.path.clone(), facts(&below.metadata));
                assert!(before.is_none(), "{below:?} was found twice");
            }
            Err(_) => errors += 1,
        }
        ControlFlow::Continue(())
    });
    if errors > 0 {
        return None;
    }
    let mut lines = Vec::new();
    for path in walked.keys().chain(found.keys()) {
        let (a, b) = (walked.get(path), found.get(path));
        let line = format!("{}: {a:?} {b:?}", String::from_utf8_lossy(path));
        if a != b && !lines.contains(&line) {
            lines.push(line);
        }
    }
    Some((walked.len(), lines))
}

#[test]
fn one_scan_lists_what_a_walk_lists() {
    let mut wrong = Vec::new();
    let (mut objects, mut trees) = (0, 0);
    let mut check = |name: &str, tree: &Tree| {
        if let Some((count, lines)) = compare(tree) {
            objects += count;
            trees += 1;
            wrong.extend(lines.into_iter().take(5).map(|l| format!("{name}: {l}")));
        }
    };
    for fixture in fixtures::all() {
        if let Some(made) = fixtures::get(fixture.name) {
            check(fixture.name, &walk::open(&made.image));
        }
    }
    if let Some(images) = images::images() {
        for image in &images.index {
            if let Ok(tree) = walk::try_open(&images.path(image)) {
                check(&image.path, &tree);
            }
        }
    }
    say!("find: {objects} objects of {trees} trees as a walk lists them");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
