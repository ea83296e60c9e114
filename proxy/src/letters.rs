//! Drive letters: from the registry of a Windows installation on SOURCE.
//!
//! `HKLM\SYSTEM\MountedDevices` says for every letter and mount point which partition it
//! means: by disk signature and offset on MBR disks, by the partition's GUID on GPT disks.
//! The hive is read by the crate `regf`; letters of what is not here (other disks, CD-ROMs)
//! are left out.

use crate::{
    own::{OwnId, OwnTree},
    tree::{Node, Tree, own_node},
    volume::Volume,
};
use disk_io::{Disk, DiskError, Result, guarded::guarded};
use guest_fs::{FileSystem, FsKind, Name, partition::types::guid};
use regf::RegistryHive;
use std::sync::Arc;

/// Longest hive that is read into memory; they are of some 20 MiB.
const MOST: u64 = 256 << 20;
/// Characters of a GUID; what MBR disks give their partitions is shorter.
const GUID: usize = 36;
/// Where Windows keeps the hive, newest first.
const PLACES: [&[&str]; 2] = [
    &["Windows", "System32", "config", "SYSTEM"],
    &["WINNT", "system32", "config", "system"],
];

/// What a registry names partitions by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// Disk signature, and offset of the partition in bytes.
    Mbr(u32, u64),
    /// The partition's GUID.
    Gpt(String),
}

/// The names of the volumes that are here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Letters {
    pub(crate) letters: Vec<(u8, OwnId)>,
    /// Letters that more than one volume may have, with these: a disk and its clone, two Windows.
    pub(crate) disputed: Vec<(u8, Vec<OwnId>)>,
    /// Letters of volumes that are not here.
    pub(crate) elsewhere: Vec<u8>,
    /// Mount points: `Volume{guid}`, in lower case.
    pub(crate) mounts: Vec<(String, OwnId)>,
    /// Why a registry could not be read, one sentence each.
    pub(crate) unread: Vec<String>,
    /// The same, and which letters are disputed.
    pub(crate) remarks: Vec<String>,
}

impl Letters {
    /// Looks through `volumes` for registries.
    pub(crate) fn find(volumes: &[(Arc<Volume>, OwnId)], own: &OwnTree) -> Self {
        let mut found = Self::default();
        // Whatever disk was opened first.
        let mut volumes = volumes.to_vec();
        volumes.sort_by_cached_key(|(_, door)| own.path(*door));
        for (volume, door) in &volumes {
            let kind = volume.recognised().as_ref().ok().and_then(Option::as_ref);
            if kind.is_none_or(|k| k.kind != FsKind::Ntfs) {
                continue;
            }
            let Ok(fs) = volume.file_system() else {
                continue;
            };
            match hive(&**fs) {
                Ok(Some(bytes)) => match mounted_devices(bytes) {
                    Ok(entries) => found.take(entries, &volumes, own, own.parent(*door)),
                    Err(e) => found.unread.push(format!("{}: {e}", own.path(*door))),
                },
                Ok(None) => {}
                Err(e) => found.unread.push(format!("{}: {e}", own.path(*door))),
            }
        }
        found.remarks.extend(found.unread.iter().cloned());
        found.letters.sort_unstable();
        for (letter, doors) in &found.disputed {
            let doors: Vec<String> = doors.iter().map(|d| own.path(*d).to_string()).collect();
            found.remarks.push(format!(
                "{}: may be {}, and is none of them here: name the volume",
                char::from(*letter),
                doors.join(" or ")
            ));
        }
        // On GPT disks Windows may name a volume by its partition, and say so nowhere.
        for (volume, door) in &volumes {
            let uuid = volume.partition().and_then(|p| p.uuid.as_deref());
            if let Some(uuid) = uuid.filter(|uuid| uuid.len() == GUID) {
                let name = format!("volume{{{}}}", uuid.to_ascii_lowercase());
                found.mounts.push((name, *door));
            }
        }
        found
    }

    /// The volume that has a letter.
    pub(crate) fn of(&self, letter: u8) -> Option<OwnId> {
        let found = self.letters.iter().find(|(l, _)| *l == letter);
        found.map(|(_, door)| *door)
    }

    /// The volumes that a mount point names as `Volume{guid}`: of a disk and its clone both.
    pub(crate) fn mounted(&self, name: &str) -> Vec<OwnId> {
        let named = self
            .mounts
            .iter()
            .filter(|(guid, _)| guid.eq_ignore_ascii_case(name));
        let mut doors: Vec<OwnId> = named.map(|(_, door)| *door).collect();
        doors.sort_unstable();
        doors.dedup();
        doors
    }

    /// Takes over what one registry says. `disk` is the directory of the disk that it lies on: of
    /// a disk and its clone it means itself. A letter that then may still be several volumes is
    /// none.
    fn take(
        &mut self,
        entries: Entries,
        volumes: &[(Arc<Volume>, OwnId)],
        own: &OwnTree,
        disk: OwnId,
    ) {
        for (name, identity) in entries {
            let fitting = volumes.iter().filter(|(v, _)| is(v, &identity));
            let mut doors: Vec<OwnId> = fitting.map(|(_, door)| *door).collect();
            if let Some(same) = doors.iter().find(|door| own.parent(**door) == disk) {
                doors = vec![*same];
            }
            match (name, doors.as_slice()) {
                (Named::Letter(letter), []) => self.elsewhere.push(letter),
                (Named::Letter(letter), doors) => self.letter(letter, doors),
                (Named::Mount(guid), doors) => {
                    let doors = doors.iter().map(|door| (guid.clone(), *door));
                    self.mounts.extend(doors);
                }
            }
        }
    }

    /// A letter, and the volumes that it may be by one registry.
    fn letter(&mut self, letter: u8, doors: &[OwnId]) {
        let mut all = doors.to_vec();
        if let Some((_, known)) = self.disputed.iter_mut().find(|(l, _)| *l == letter) {
            all.retain(|door| !known.contains(door));
            known.extend(all);
            return;
        }
        if let Some(known) = self.of(letter) {
            if all == [known] {
                return;
            }
            all.retain(|door| *door != known);
            all.insert(0, known);
            self.letters.retain(|(l, _)| *l != letter);
        }
        match all.as_slice() {
            [only] => self.letters.push((letter, *only)),
            _ => self.disputed.push((letter, all)),
        }
    }
}

enum Named {
    Letter(u8),
    Mount(String),
}

type Entries = Vec<(Named, Identity)>;

fn is(volume: &Volume, identity: &Identity) -> bool {
    let Some(partition) = volume.partition() else {
        return false;
    };
    let Some(uuid) = partition.uuid.as_deref() else {
        return false;
    };
    match identity {
        Identity::Gpt(guid) => uuid.eq_ignore_ascii_case(guid),
        Identity::Mbr(signature, offset) => {
            partition.start == *offset
                && uuid.split('-').next() == Some(&format!("{signature:08x}"))
        }
    }
}

/// The bytes of the hive, if there is one.
fn hive(fs: &dyn FileSystem) -> Result<Option<Vec<u8>>> {
    for place in PLACES {
        let found = place.iter().try_fold(Some(fs.root()), |at, name| match at {
            Some(dir) => fs.lookup(dir, &Name::from(*name)),
            None => Ok(None),
        });
        // What is there instead of a directory is no Windows.
        let Ok(Some(node)) = found else { continue };
        let file = fs.open(node, None)?;
        if file.len() > MOST {
            return Err(DiskError::refused("reading the registry")
                .expected(format!("a hive of at most {MOST} bytes"))
                .found(file.len().to_string()));
        }
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        return Ok(Some(bytes));
    }
    Ok(None)
}

fn mounted_devices(bytes: Vec<u8>) -> Result<Entries> {
    let bad =
        |found: String| DiskError::corrupt("reading the registry for drive letters").found(found);
    // The hive is the guest's, and the crate is not ours.
    let read = guarded(|| -> regf::Result<Entries> {
        let hive = RegistryHive::from_bytes(bytes)?;
        let mut entries = Vec::new();
        for value in hive.open_key("MountedDevices")?.values()? {
            let (name, data) = (value.name(), value.raw_data()?);
            if let (Some(named), Some(identity)) = (named(&name), identity(&data)) {
                entries.push((named, identity));
            }
        }
        Ok(entries)
    });
    match read {
        Some(Ok(entries)) => Ok(entries),
        Some(Err(e)) => Err(bad(e.to_string())),
        None => Err(bad("a hive that its reader cannot take".into())),
    }
}

/// How many devices a hive names; for whoever feeds it hostile ones.
pub(crate) fn devices_of(bytes: Vec<u8>) -> Result<usize> {
    mounted_devices(bytes).map(|entries| entries.len())
}

/// `\DosDevices\C:` or `\??\Volume{guid}`.
fn named(name: &str) -> Option<Named> {
    if let Some(rest) = name.strip_prefix(r"\DosDevices\") {
        return match rest.as_bytes() {
            [letter, b':'] if letter.is_ascii_alphabetic() => {
                Some(Named::Letter(letter.to_ascii_uppercase()))
            }
            _ => None,
        };
    }
    let volume = name.strip_prefix(r"\??\")?;
    let is_volume = volume.starts_with("Volume{") && volume.ends_with('}');
    is_volume.then(|| Named::Mount(volume.to_ascii_lowercase()))
}

fn identity(data: &[u8]) -> Option<Identity> {
    if let Some(id) = data.strip_prefix(b"DMIO:ID:") {
        return (id.len() == 16).then(|| Identity::Gpt(guid(id)));
    }
    let (signature, offset) = data.split_first_chunk::<4>()?;
    let offset: [u8; 8] = offset.try_into().ok()?;
    Some(Identity::Mbr(
        u32::from_le_bytes(*signature),
        u64::from_le_bytes(offset),
    ))
}

impl Tree {
    /// Drive letters and mount points of the volumes that paths without a restore point
    /// mean. Reads registries the first time.
    pub(crate) fn letters(&self) -> &Letters {
        self.letters_at(self.default_point())
    }

    /// The root directory of the volume that carries a drive letter, as the registry of a
    /// guest on SOURCE says.
    pub fn letter(&self, letter: u8) -> Option<Node> {
        self.letters().of(letter).map(own_node)
    }

    /// The letter of the volume behind a door, by the registry of its own restore point.
    pub(crate) fn letter_of(&self, door: OwnId) -> Option<char> {
        let letters = &self.letters_at(self.point_above(door)).letters;
        let found = letters.iter().find(|(_, d)| *d == door);
        found.map(|(letter, _)| char::from(*letter))
    }
}

/// What stands where volumes are mounted in others, in the layout of VCB.
#[derive(Clone, Debug, Default)]
pub(crate) struct MountPoints(Vec<(String, Name)>);

impl MountPoints {
    /// The link from a mount point at `path` (from the root) to where its volume is, if its
    /// stored target `Volume{guid}/…` is one that is here.
    pub(crate) fn target(&self, path: &Name, target: &Name) -> Option<Name> {
        let text = target.as_str()?;
        let (volume, rest) = text.split_once('/').unwrap_or((text, ""));
        let (_, place) = self
            .0
            .iter()
            .find(|(guid, _)| guid.eq_ignore_ascii_case(volume))?;
        let depth = path.as_bytes().iter().filter(|b| **b == b'/').count();
        let mut out = "../".repeat(depth.saturating_sub(1)).into_bytes();
        out.extend_from_slice(place.as_bytes().strip_prefix(b"/").unwrap_or_default());
        if !rest.is_empty() {
            out.push(b'/');
            out.extend_from_slice(rest.as_bytes());
        }
        Some(Name::from_bytes(out))
    }
}

impl Tree {
    /// The layout of VMware Consolidated Backup: `letters/C` … where a guest's registry
    /// tells letters, and every volume as `digits/1` …, in the order of disks and partitions.
    pub fn vcb(&self) -> Result<Self> {
        let mut tree = Self::empty(self.options().clone());
        let digits = tree.add_directory(OwnTree::ROOT, &Name::from("digits"));
        let letters = tree.add_directory(OwnTree::ROOT, &Name::from("letters"));
        let known = self.letters();
        let mut mounts = Vec::new();
        let volumes = self.searched();
        if volumes.is_empty() {
            return Err(DiskError::not_found("mounting in the layout of VCB")
                .expected("volumes of one disk, or of one state of a machine")
                .found("none")
                .hint("of several dated backups name one with --snapshot date:NAME"));
        }
        for (n, (volume, door)) in volumes.into_iter().enumerate() {
            let name = Name::from((n + 1).to_string().as_str());
            tree.add_volume_as(digits, &name, volume.clone())?;
            let only = |guid: &str| known.mounted(guid) == [door];
            for (guid, _) in known.mounts.iter().filter(|(guid, _)| only(guid)) {
                mounts.push((guid.clone(), Name::from(format!("/digits/{name}").as_str())));
            }
            if let Some(letter) = self.letter_of(door) {
                let name = Name::from(letter.to_string().as_str());
                tree.add_volume_as(letters, &name, volume)?;
            }
        }
        tree.mount_points = MountPoints(mounts);
        tree.warn_more(&known.remarks);
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regf::{DataType, HiveBuilder};

    /// A SYSTEM hive with these devices.
    pub(crate) fn system_hive(devices: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut hive = HiveBuilder::new().unwrap();
        let root = hive.root_offset();
        let key = hive.add_key(root, "MountedDevices").unwrap();
        for (name, data) in devices {
            hive.add_value(key, name, DataType::Binary, data).unwrap();
        }
        hive.to_bytes().unwrap()
    }

    /// On GPT disks a mount point may name a partition of which no registry speaks.
    #[test]
    fn a_partition_is_known_by_its_own_guid() {
        let disk: Arc<dyn Disk> = Arc::new(disk_io::MemDisk::new(vec![0; 4096]));
        let volume = |uuid: &str| {
            let partition = guest_fs::partition::Partition {
                number: 1,
                start: 0,
                len: 4096,
                available: 4096,
                type_id: String::new(),
                type_name: String::new(),
                name: None,
                uuid: Some(uuid.into()),
                active: false,
                extended: false,
            };
            let volume = Volume::new(
                Name::from("p1"),
                disk.clone(),
                Some(partition),
                Default::default(),
            );
            (Arc::new(volume), OwnTree::ROOT)
        };
        let of = |uuid: &str| Letters::find(&[volume(uuid)], &OwnTree::default());
        let gpt = of("0f0e0d0c-1111-2222-3333-444455556666");
        assert!(
            gpt.mounted("Volume{0F0E0D0C-1111-2222-3333-444455556666}")
                .len()
                == 1
        );
        assert!(gpt.mounted("Volume{1}").is_empty());
        // What stands for one on MBR disks is none.
        assert!(of("1a2b3c4d-01").mounts.is_empty());
    }

    /// Two registries, or a disk and its clone: a letter that may be several volumes is none.
    #[test]
    fn letters_in_dispute() {
        let mut known = Letters::default();
        known.letter(b'C', &[1]);
        known.letter(b'C', &[1]);
        known.letter(b'D', &[2, 3]);
        assert_eq!((known.of(b'C'), known.of(b'D')), (Some(1), None));
        known.letter(b'C', &[2]);
        assert_eq!(known.of(b'C'), None);
        // Not the first that comes afterwards either.
        known.letter(b'C', &[1]);
        known.letter(b'D', &[4]);
        assert!(known.letters.is_empty());
        let disputed = vec![(b'D', vec![2, 3, 4]), (b'C', vec![1, 2])];
        assert_eq!(known.disputed, disputed);
    }

    #[test]
    fn what_the_registry_says() {
        let mut mbr = 0x1122_3344u32.to_le_bytes().to_vec();
        mbr.extend((1u64 << 20).to_le_bytes());
        let mut gpt = b"DMIO:ID:".to_vec();
        gpt.extend((0..16).map(|i| i as u8));
        let hive = system_hive(&[
            (r"\DosDevices\C:", mbr.clone()),
            (r"\DosDevices\d:", gpt),
            (r"\DosDevices\A:", b"\\\0?\0?\0".to_vec()),
            (r"\??\Volume{ABC}", mbr),
            (r"#{x}", vec![1; 12]),
        ]);
        let mut seen: Vec<String> = mounted_devices(hive)
            .unwrap()
            .into_iter()
            .map(|(name, identity)| match name {
                Named::Letter(l) => format!("{} {identity:?}", char::from(l)),
                Named::Mount(m) => format!("{m} {identity:?}"),
            })
            .collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "C Mbr(287454020, 1048576)",
                "D Gpt(\"03020100-0504-0706-0809-0a0b0c0d0e0f\")",
                "volume{abc} Mbr(287454020, 1048576)"
            ]
        );
        assert!(mounted_devices(vec![0; 4096]).is_err());
        assert!(mounted_devices(Vec::new()).is_err());
    }
}
