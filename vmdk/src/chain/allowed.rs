//! A parent whose name leads to a place of another host: it may be in a directory that the user
//! allowed.

use super::{Chain, Failure, Wanted};
use crate::{extent::head::Head, names};
use disk_io::{DiskError, Opened, Purpose, Result};
use std::path::Path;

impl Chain<'_> {
    /// The one file of the parent's name in the allowed directories that is the parent, where
    /// the place that the child names is not on this host.
    pub(super) fn in_allowed(
        &mut self,
        child: &Opened,
        capacity: Option<u64>,
        wanted: &Wanted,
        failure: &mut Failure,
    ) -> Result<Option<(Opened, Head)>> {
        let Some(hint) = wanted.hint.as_deref().filter(|hint| is_elsewhere(hint)) else {
            return Ok(None);
        };
        let Some(base) = names::base_name(hint) else {
            return Ok(None);
        };
        let mut fit = Vec::new();
        for opened in child.dir.in_allowed(Path::new(base), Purpose::Parent) {
            match self.fits(opened, capacity, wanted) {
                Ok(found) => fit.push(found),
                Err(unfit) => failure.add(unfit),
            }
        }
        if fit.len() > 1 {
            let all = fit
                .iter()
                .map(|(opened, _)| opened.path.display().to_string());
            return Err(DiskError::not_found("looking for the parent disk")
                .file(child.path.display())
                .expected(format!("one file that is {hint}"))
                .found(all.collect::<Vec<_>>().join(" and "))
                .hint("say which with --parent FILE"));
        }
        let found = fit.pop();
        if let Some((opened, _)) = &found {
            self.warnings.push(format!(
                "{}: the parent that it names, {hint}, is not on this host; {} is used",
                child.path.display(),
                opened.path.display()
            ));
        }
        Ok(found)
    }
}

/// Whether a name is absolute and leads to nothing here.
fn is_elsewhere(hint: &str) -> bool {
    names::is_absolute(hint) && matches!(Path::new(hint).try_exists(), Ok(false))
}
