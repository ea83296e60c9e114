//! Whether a path that leads nowhere is absent, or was only not found.

use crate::{
    path,
    tree::{Tree, own_node},
    volume::Volume,
};
use disk_io::DiskError;
use guest_fs::Name;

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
        Ok(None) => !volume.is_blank(),
        Ok(Some(_)) | Err(_) => true,
    }
}
