//! A chain, as far as it can be followed, with everything that is wrong between its links.

use super::{Chain, check_lengths};
use crate::{children, extent::head::Head, image::OpenOptions, link::Link};
use disk_io::{DiskError, FileId, Finding, Opened, finding::Visit};
use std::collections::HashSet;

/// What of a chain could be opened.
#[derive(Debug)]
pub struct Checked {
    /// The links, the newest first; one that cannot be opened is left out.
    pub links: Vec<Link>,
    /// Whether they are all that there are, down to a base. If not, together they are not the disk.
    pub whole: bool,
}

/// Opens `source` and every parent that can be opened, and visits what stands in the way.
pub(crate) fn check(source: Opened, options: &OpenOptions, visit: Visit<'_>) -> Checked {
    let going_on = OpenOptions {
        ignore_cid: true,
        ignore_dirty_journal: true,
        ..options.clone()
    };
    newer(&source, visit);
    let mut seen = HashSet::from([source.id]);
    let mut links: Vec<Link> = Vec::new();
    let mut whole = true;
    let mut next = Some(source.clone());
    while let Some(opened) = next.take() {
        if links.len() >= super::MAX_DEPTH {
            let e = DiskError::refused("following the chain of parents")
                .file(opened.path.display())
                .expected(format!("at most {} links", super::MAX_DEPTH));
            visit(Finding::damage("chain-endless", e));
            whole = false;
            break;
        }
        let read = match opened.id == source.id {
            true => Head::read_source,
            false => Head::read,
        };
        let head = match read(&opened) {
            Ok(head) => head,
            Err(e) => {
                visit(Finding::damage("link-unreadable", e));
                whole = false;
                break;
            }
        };
        let mut strict = of(options, &source, &seen);
        let mut lenient = of(&going_on, &source, &seen);
        let mut unknown = false;
        let wanted = strict.wanted(&opened, &head).or_else(|e| {
            unknown = true;
            visit(Finding::damage("parent-unknown", e));
            lenient.wanted(&opened, &head)
        });
        whole &= wanted.is_ok();
        if let Ok(Some(wanted)) = wanted {
            let capacity = head.capacity();
            strict.warnings.clear();
            let found = strict.find_parent(&opened, capacity, &wanted).or_else(|e| {
                // That it is not known to be the right one was said.
                if !(unknown && e.code_text() == Some("parent-cid-differs")) {
                    visit(Finding::damage("parent-unusable", e));
                }
                lenient.find_parent(&opened, capacity, &wanted)
            });
            for text in &strict.warnings {
                let name = format!("{}: ", opened.path.display());
                let e = DiskError::corrupt("looking for the parent disk")
                    .file(opened.path.display())
                    .found(text.strip_prefix(&name).unwrap_or(text));
                visit(Finding::warning("parent-misnamed", e));
            }
            match found {
                Ok((parent, _)) => {
                    seen.insert(parent.id);
                    next = Some(parent);
                }
                Err(_) => whole = false,
            }
        }
        // What was noticed while opening is told once more by the link itself.
        let mut opening = of(options, &source, &seen);
        let link = match read(&opened).and_then(|head| opening.link(&opened, head)) {
            Ok(link) => Some(link),
            Err(e) => {
                visit(Finding::damage("extent-unusable", e));
                lenient.link(&opened, head).ok()
            }
        };
        match link {
            Some(link) => links.push(link),
            None => whole = false,
        }
    }
    if let Err(e) = check_lengths(&links) {
        visit(Finding::damage("parent-length-differs", e));
    }
    Checked { links, whole }
}

/// One link's part of following a chain.
fn of<'a>(options: &'a OpenOptions, source: &Opened, seen: &HashSet<FileId>) -> Chain<'a> {
    Chain {
        options,
        seen: seen.clone(),
        explicit: options.parent.as_deref(),
        warnings: Vec::new(),
        dir: source.dir.clone(),
    }
}

/// Disks that were made on top of `source`: where one was made from another state of it,
/// `source` was changed since and that disk is lost.
fn newer(source: &Opened, visit: Visit<'_>) {
    let Ok(found) = children::newer_children(source) else {
        return;
    };
    for child in found.iter().filter(|c| c.depth == 1 && !c.cid_matches) {
        let e = DiskError::corrupt("comparing the disk with its children")
            .file(source.path.display())
            .expected(format!(
                "the content id that {} names",
                child.path.display()
            ))
            .found("another: the disk was changed after its child was made")
            .hint("the child is a mixture; restore it from a backup of both");
        visit(Finding::warning("child-stale", e));
    }
}
