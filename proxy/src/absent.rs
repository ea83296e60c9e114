//! Whether a path that leads nowhere is absent, or was only not found.

use crate::{
    path,
    tree::{Tree, own_node},
    volume::Volume,
};
use disk_io::DiskError;
use guest_fs::Name;

/// Runs of a volume that are looked at to tell whether it was ever written to.
const RUNS: usize = 4096;

impl Tree {
    /// Why it is not known that nothing has `path`, which was not found: the first disk or volume
    /// that could not be looked through, a registry that does not tell the drive. `None` where it
    /// is absent.
    pub fn unsearched(&self, path: &[u8]) -> Option<DiskError> {
        let point = self.default_point();
        let drive = path::drive(path).map(|(letter, _)| letter).or_else(|| {
            path::components(path)
                .next()
                .and_then(path::drive_component)
        });
        let known = drive.map(|letter| (letter, self.letters_at(point)));
        // Through what is here: what cannot be entered there is an error itself.
        let leads = match &known {
            Some((letter, known)) => known.of(*letter).is_some(),
            None => {
                let first = path::components(path).next()?;
                matches!(
                    self.lookup(self.root(), &Name::from_bytes(first)),
                    Ok(Some(_))
                )
            }
        };
        if leads {
            return None;
        }
        let doing = |what: Name, e: DiskError| e.context(format!("looking on {what}"));
        if let Some((disk, e)) = self.closed_at(point).into_iter().next() {
            return Some(doing(self.own.path(disk), e));
        }
        let mut volumes = self.volumes_at(point).into_iter();
        let unreadable = volumes.find_map(|(volume, door)| {
            let e = self.enter(own_node(door)).err()?;
            may_hold_files(&volume).then(|| doing(self.own.path(door), e))
        });
        if unreadable.is_some() {
            return unreadable;
        }
        let (letter, known) = known?;
        let told = !known.letters.is_empty() && known.remarks.is_empty();
        (!told || known.elsewhere.contains(&letter)).then(|| self.no_letter(path, letter, point))
    }
}

/// Whether files can be on a volume that cannot be entered.
fn may_hold_files(volume: &Volume) -> bool {
    match volume.recognised() {
        Ok(None) => !is_blank(volume),
        Ok(Some(_)) | Err(_) => true,
    }
}

/// Whether nothing was ever written to a volume, as far as a look at so many runs tells.
fn is_blank(volume: &Volume) -> bool {
    let (disk, mut at) = (volume.disk(), 0u64);
    for _ in 0..RUNS {
        if at >= disk.len() {
            return true;
        }
        match disk.run_at(at) {
            Ok(run) if run.kind.reads_as_zero() && run.len > 0 => at = at.saturating_add(run.len),
            _ => return false,
        }
    }
    false
}
