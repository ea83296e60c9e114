//! Directories that VMware Consolidated Backup's `fullvm` exports left (facts: field notes on
//! restoring, A2): disks are called by their place, `scsi0-0-0-web01.vmdk`, while the configuration
//! may still have the names that they had on the host. The `catalog` beside them says which is which.

use crate::{config::ConfigDisk, dictionary::Dictionary, place::Listing};

/// The catalog's name.
pub(crate) const CATALOG: &str = "catalog";

/// Gives each disk that is not there under the configuration's name the file that the catalog, or
/// else its own name, says it is. What was done is said.
pub(crate) fn attach(
    disks: &mut [ConfigDisk],
    catalog: Option<&Dictionary>,
    listing: &Listing,
    warnings: &mut Vec<String>,
) {
    let names = || listing.files.iter().filter_map(|(n, _)| n.to_str());
    let there = |name: &str| names().any(|n| n.eq_ignore_ascii_case(name));
    for disk in disks {
        if there(base(&disk.file)) {
            continue;
        }
        let keys = ["filename", "diskname"].map(|field| format!("disk.{}.{field}", disk.slot));
        let said = keys
            .iter()
            .filter_map(|key| catalog?.text(key))
            .map(base)
            .find(|name| there(name));
        let by_place = || {
            // The last number is the LUN behind the controller and the target.
            let prefix = format!("{}-0-", disk.slot.in_path());
            let fits = |n: &&str| {
                let n = n.to_ascii_lowercase();
                n.starts_with(&prefix) && n.ends_with(".vmdk") && !is_piece(&n)
            };
            let mut all = names().filter(fits);
            all.next().filter(|_| all.next().is_none())
        };
        let Some((file, how)) = said
            .map(|name| (name, "the catalog"))
            .or_else(|| by_place().map(|name| (name, "its name")))
        else {
            continue;
        };
        warnings.push(format!(
            "{}: {} is not there; {file} is used, as {how} says",
            disk.slot, disk.file
        ));
        disk.file = file.to_owned();
    }
}

/// The last component of a name, of a path or of `[datastore] dir/name`.
pub fn base(name: &str) -> &str {
    name.rsplit(['/', '\\', ']'])
        .next()
        .unwrap_or(name)
        .trim_start()
}

/// `-flat.vmdk`, `-s001.vmdk`, `-f001.vmdk`: what a descriptor names.
fn is_piece(name: &str) -> bool {
    let stem = name.strip_suffix(".vmdk").unwrap_or(name);
    let Some((_, end)) = stem.rsplit_once('-') else {
        return false;
    };
    let number = end.strip_prefix(['s', 'f']);
    end == "flat" || number.is_some_and(|n| n.len() >= 3 && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn disk(catalog: &str, files: &[&str]) -> String {
        let text = b"config.version = \"8\"\nscsi0:0.fileName = \"web.vmdk\"\n";
        let mut config = Config::new(Dictionary::parse(text).unwrap());
        let catalog = Dictionary::parse(catalog.as_bytes()).unwrap();
        let listing = Listing {
            files: files.iter().map(|f| (f.into(), 1)).collect(),
            ..Listing::default()
        };
        attach(&mut config.disks, Some(&catalog), &listing, &mut Vec::new());
        config.disks[0].file.clone()
    }

    #[test]
    fn which_file_is_the_disk() {
        let said = "disk.scsi0:0.filename= \"[ds 1] web/scsi0-0-0-web.vmdk\"\n";
        let pair = ["scsi0-0-0-web.vmdk", "scsi0-0-0-old.vmdk"];
        assert_eq!(disk(said, &pair), "scsi0-0-0-web.vmdk");
        // Two, and nothing says which.
        assert_eq!(disk("", &pair), "web.vmdk");
        let pieces = ["scsi0-0-0-web.vmdk", "scsi0-0-0-web-s001.vmdk"];
        assert_eq!(disk("", &pieces), "scsi0-0-0-web.vmdk");
        // The configuration's own name goes first.
        assert_eq!(disk(said, &["web.vmdk", pair[0]]), "web.vmdk");
        assert_eq!(disk("", &["scsi0-1-0-web.vmdk"]), "web.vmdk");
    }
}
