//! Redo logs of ESX 2: while there is one, what the machine wrote last is in it and not in the
//! disk that the configuration names (`web.vmdk` and `web.vmdk.REDO`; fact sheet, VMDK 7.1).

use crate::{config::ConfigDisk, place::Listing};
use std::path::Path;

/// Whether a name is that of a redo log.
pub(crate) fn is_redo(name: &Path) -> bool {
    vmdk::redo_base(name).is_some()
}

/// Whether a file is a redo log on a disk, or a log on such a log.
fn lies_on(name: &str, disk: &str) -> bool {
    let mut at = name.to_owned();
    while let Some(base) = vmdk::redo_base(Path::new(&at)) {
        if base.eq_ignore_ascii_case(disk) {
            return true;
        }
        at = base;
    }
    false
}

/// Takes the newest redo log of each disk that has one for the disk. What was done is said.
pub(crate) fn attach(disks: &mut [ConfigDisk], listing: &Listing, warnings: &mut Vec<String>) {
    for disk in disks {
        let names = listing.files.iter().filter_map(|(n, _)| n.to_str());
        let mut logs: Vec<&str> = names.filter(|n| lies_on(n, &disk.file)).collect();
        logs.sort_by_key(|n| n.len());
        let Some(newest) = logs.last() else { continue };
        let mode = disk.mode.as_deref().unwrap_or_default();
        if mode.to_ascii_lowercase().contains("nonpersistent") {
            warnings.push(format!(
                "{}: {newest} is what the guest wrote to {} and loses when it is switched off \
                 (the disk is {mode}): the state WITHOUT it is shown",
                disk.slot, disk.file
            ));
            continue;
        }
        // A log on a log has the longer name: any two that are not so are rivals.
        let one_line = logs.iter().all(|n| newest.starts_with(n));
        match one_line {
            true => {
                warnings.push(format!(
                    "{}: {} is a redo log on {}: the state with it is the present one",
                    disk.slot, newest, disk.file
                ));
                disk.file = (*newest).to_owned();
            }
            false => warnings.push(format!(
                "{}: {} has several redo logs ({}), and nothing says which is in use: the state \
                 WITHOUT them is shown; open the one that is wanted by its name",
                disk.slot,
                disk.file,
                logs.join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, dictionary::Dictionary};

    fn disks(files: &[&str]) -> (String, usize) {
        of_mode("persistent", files)
    }

    fn of_mode(mode: &str, files: &[&str]) -> (String, usize) {
        let text = format!(
            "config.version = \"6\"\nscsi0:0.name = \"vmhba0:0:0:1:web.vmdk\"\n\
             scsi0:0.mode = \"{mode}\"\n"
        );
        let mut config = Config::new(Dictionary::parse(text.as_bytes()).unwrap());
        let listing = Listing {
            files: files.iter().map(|f| (f.into(), 1)).collect(),
            ..Listing::default()
        };
        let mut warnings = Vec::new();
        attach(&mut config.disks, &listing, &mut warnings);
        (config.disks[0].file.clone(), warnings.len())
    }

    #[test]
    fn the_newest_log_is_the_disk() {
        let name = |s: &str| s.to_owned();
        assert_eq!(disks(&["web.vmdk"]), (name("web.vmdk"), 0));
        assert_eq!(
            disks(&["web.vmdk", "web.vmdk.REDO", "web2.vmdk.REDO"]),
            (name("web.vmdk.REDO"), 1)
        );
        assert_eq!(
            disks(&["web.vmdk.REDO.REDO", "web.vmdk.REDO"]),
            (name("web.vmdk.REDO.REDO"), 1)
        );
        // Rivals: none is taken, and it is said.
        assert_eq!(
            disks(&["web.vmdk.REDO_aa", "web.vmdk.REDO_bb"]),
            (name("web.vmdk"), 1)
        );
        assert_eq!(disks(&["web.vmdk.REDOUBT"]), (name("web.vmdk"), 0));
        // What the guest loses is not its state.
        for mode in ["nonpersistent", "independent-nonpersistent"] {
            let got = of_mode(mode, &["web.vmdk", "web.vmdk.REDO"]);
            assert_eq!(got, (name("web.vmdk"), 1), "{mode}");
        }
    }
}
