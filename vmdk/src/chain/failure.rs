//! Why no parent was found: what every candidate answered, as one error.

use super::Wanted;
use crate::{descriptor::Descriptor, extent::head::Head};
use disk_io::{DiskError, ErrorKind, Opened};
use std::path::PathBuf;

/// Why a file is not the parent.
pub(super) enum Unfit {
    /// It is a link that is already in the chain.
    Seen(PathBuf),
    /// Its content id is another one.
    Cid(Opened, Box<Head>),
    /// Anything else.
    Other(DiskError),
}

pub(super) fn show(cid: Option<u32>) -> String {
    cid.map_or("none".into(), |c| format!("{c:08x}"))
}

/// What went wrong while looking for a parent; becomes one error.
pub(super) struct Failure {
    child: String,
    looked_for: String,
    wanted: Option<u32>,
    pub(super) tried: Vec<String>,
    pub(super) mismatch: Option<(Opened, Box<Head>)>,
    seen: Option<PathBuf>,
    /// The file was there and could not be taken.
    unusable: Option<DiskError>,
    refused: Option<DiskError>,
}

impl Failure {
    pub(super) fn new(child: &Opened, wanted: &Wanted) -> Self {
        Self {
            child: child.path.display().to_string(),
            looked_for: match &wanted.hint {
                Some(hint) => hint.clone(),
                None => "a parent that the descriptor does not name".into(),
            },
            wanted: wanted.cid,
            tried: Vec::new(),
            mismatch: None,
            seen: None,
            unusable: None,
            refused: None,
        }
    }

    pub(super) fn add(&mut self, unfit: Unfit) {
        match unfit {
            Unfit::Seen(path) => {
                self.seen.get_or_insert(path);
            }
            Unfit::Cid(opened, head) => {
                self.mismatch.get_or_insert((opened, head));
            }
            Unfit::Other(e) => match e.kind() {
                ErrorKind::NotFound => {}
                ErrorKind::Refused => {
                    self.refused.get_or_insert(e);
                }
                _ => {
                    self.unusable.get_or_insert(e);
                }
            },
        }
    }

    pub(super) fn error(self) -> DiskError {
        const HINT: &str = "--parent FILE uses another file as the parent";
        let doing = format!("looking for the parent disk {}", self.looked_for);
        if let Some((opened, head)) = self.mismatch {
            let cid = head.descriptor.as_ref().and_then(Descriptor::cid);
            return DiskError::corrupt(doing)
                .code("parent-cid-differs")
                .file(self.child)
                .expected(format!("content id {}", show(self.wanted)))
                .found(format!("{} in {}", show(cid), opened.path.display()))
                .hint(format!(
                    "the parent was changed after this delta was made, or is another disk; \
                     {HINT}, --ignore-cid goes on regardless"
                ));
        }
        if let Some(e) = self.unusable {
            return e.file(&self.child).context(doing).hint(HINT);
        }
        if let Some(path) = self.seen {
            return DiskError::corrupt(doing)
                .code("chain-endless")
                .file(self.child)
                .expected("another disk")
                .found(format!(
                    "{}, which is above it in the chain",
                    path.display()
                ))
                .hint(HINT);
        }
        if let Some(e) = self.refused {
            return e.context(format!("{}: {doing}", self.child));
        }
        DiskError::not_found(doing)
            .code("parent-missing")
            .file(self.child)
            .expected(format!("one of {}", self.tried.join(", ")))
            .found("none of them")
            .hint(format!("put it beside its child, or: {HINT}"))
    }
}
