//! The configuration of a virtual machine (`.vmx`; fact sheet, VMDK 10.1).

use crate::dictionary::Dictionary;
use disk_io::{DiskError, Result};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Where a disk hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Which kind of bus.
    pub bus: Bus,
    /// Which controller of that kind.
    pub controller: u32,
    /// Which place on it.
    pub unit: u32,
}

/// A kind of bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bus {
    /// IDE.
    Ide,
    /// SCSI.
    Scsi,
    /// SATA.
    Sata,
    /// NVMe.
    Nvme,
}

impl Bus {
    /// As configurations call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::Scsi => "scsi",
            Self::Sata => "sata",
            Self::Nvme => "nvme",
        }
    }
}

impl fmt::Display for Slot {
    /// `scsi0:1`, as configurations write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", self.bus.as_str(), self.controller, self.unit)
    }
}

impl Slot {
    /// `scsi0-1`, as paths have it.
    pub fn in_path(&self) -> String {
        format!("{}{}-{}", self.bus.as_str(), self.controller, self.unit)
    }
}

impl FromStr for Slot {
    type Err = DiskError;

    /// `scsi0:1` or `scsi0-1`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            DiskError::not_found("reading the place of a disk")
                .expected("a place such as scsi0:0, ide1:0, sata0:1 or nvme0:0")
                .found(text.to_owned())
        };
        let lower = text.to_ascii_lowercase();
        let (bus, rest) = [Bus::Ide, Bus::Scsi, Bus::Sata, Bus::Nvme]
            .into_iter()
            .find_map(|bus| Some((bus, lower.strip_prefix(bus.as_str())?)))
            .ok_or_else(wrong)?;
        let (controller, unit) = rest.split_once([':', '-']).ok_or_else(wrong)?;
        let number = |n: &str| -> Result<u32> {
            let digits = !n.is_empty() && n.len() < 5 && n.bytes().all(|b| b.is_ascii_digit());
            n.parse().ok().filter(|_| digits).ok_or_else(wrong)
        };
        Ok(Self {
            bus,
            controller: number(controller)?,
            unit: number(unit)?,
        })
    }
}

/// A disk of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDisk {
    /// Where it hangs.
    pub slot: Slot,
    /// The descriptor, as it is written: beside the configuration, or a full name.
    pub file: String,
    /// `persistent`, `independent-persistent`, …, where it says.
    pub mode: Option<String>,
    /// `deviceType`, where it says.
    pub device_type: Option<String>,
    /// Whether other machines may have it too (`sharing`, `scsiN.sharedBus`).
    pub shared: bool,
}

impl ConfigDisk {
    /// Whether snapshots leave it out.
    pub fn is_independent(&self) -> bool {
        let mode = self.mode.as_deref().unwrap_or_default();
        mode.to_ascii_lowercase().starts_with("independent")
    }
}

/// What a configuration says.
#[derive(Clone, Debug)]
pub struct Config {
    /// All of it.
    pub dictionary: Dictionary,
    /// `displayName`.
    pub name: Option<String>,
    /// The BIOS uuid, as 8-4-4-4-12 digits.
    pub uuid: Option<String>,
    /// The uuid by which vCenter knows it, likewise.
    pub instance_uuid: Option<String>,
    /// `guestOS`, as written.
    pub guest_os: Option<String>,
    /// Version of the virtual hardware.
    pub hardware: Option<i64>,
    /// The disks, by place.
    pub disks: Vec<ConfigDisk>,
    /// `EFI` machines start another way.
    pub firmware: Option<String>,
    /// Whether the real configuration is hidden by encryption.
    pub encrypted: bool,
    /// What was odd, one sentence each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Keys of which a configuration has one at least. An encrypted one has none of the first.
    pub const MARKS: &[&str] = &[
        "config.version",
        "virtualHW.version",
        "guestOS",
        "displayName",
        "encryption.keySafe",
        "encryption.data",
    ];

    /// Whether a text looks like a configuration: it has one of [`Self::MARKS`].
    pub fn is_one(head: &[u8]) -> bool {
        let text = String::from_utf8_lossy(head).to_ascii_lowercase();
        text.lines().take(4000).any(|line| {
            let key = line.split('=').next().unwrap_or_default().trim();
            line.contains('=')
                && Self::MARKS
                    .iter()
                    .any(|mark| key.eq_ignore_ascii_case(mark))
        })
    }

    /// Takes what matters out of a dictionary.
    pub fn new(dictionary: Dictionary) -> Self {
        let mut warnings = dictionary.warnings.clone();
        let encrypted = dictionary.get("encryption.data").is_some()
            || dictionary.get("encryption.keySafe").is_some();
        let disks = disks(&dictionary, &mut warnings);
        let text = |key| dictionary.text(key).map(str::to_owned);
        Self {
            name: text("displayName"),
            uuid: text("uuid.bios").and_then(|u| plain_uuid(&u)),
            instance_uuid: text("vc.uuid").and_then(|u| plain_uuid(&u)),
            guest_os: text("guestOS"),
            hardware: dictionary.number("virtualHW.version"),
            firmware: text("firmware"),
            disks,
            encrypted,
            warnings,
            dictionary,
        }
    }
}

/// `56 4d 81 3c dd d8 88 2c-f1 42 bf 58 f5 7c 2d 9f` as `564d813c-ddd8-882c-f142-bf58f57c2d9f`.
fn plain_uuid(written: &str) -> Option<String> {
    let hex: String = written
        .chars()
        .filter(char::is_ascii_hexdigit)
        .collect::<String>()
        .to_ascii_lowercase();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    let parts: Option<Vec<&str>> = parts.into_iter().map(|r| hex.get(r)).collect();
    (hex.len() == 32).then_some(())?;
    Some(parts?.join("-"))
}

/// Devices of a bus: keys such as `scsi0:0.fileName`.
fn disks(dictionary: &Dictionary, warnings: &mut Vec<String>) -> Vec<ConfigDisk> {
    let mut slots: BTreeMap<Slot, BTreeMap<String, &str>> = BTreeMap::new();
    for (key, value) in dictionary.entries() {
        if let Some((device, field)) = key.split_once('.')
            && let Ok(slot) = device.parse::<Slot>()
            // `:` only: a `-` is this program's own spelling.
            && device.contains(':')
        {
            let fields = slots.entry(slot).or_default();
            fields.entry(field.to_ascii_lowercase()).or_insert(value);
        }
    }
    let mut found = Vec::new();
    for (slot, fields) in slots {
        let written = |field: &str| fields.get(field).copied();
        let get = |field: &str| written(field).map(str::trim);
        let present = get("present").is_none_or(|p| !p.eq_ignore_ascii_case("false"));
        // ESX 2 writes `name`, with the volume before a colon.
        // A file's name may begin with a blank.
        let file = written("filename").or_else(|| get("name").map(after_volume));
        let kind = get("devicetype").unwrap_or_default().to_ascii_lowercase();
        let is_disk = !kind.contains("cdrom") && !kind.contains("passthru");
        let Some(file) = file.filter(|f| present && is_disk && !f.trim().is_empty()) else {
            continue;
        };
        let lower = file.to_ascii_lowercase();
        if lower.ends_with(".iso") || lower == "auto detect" || lower == "emptybackingstring" {
            continue;
        }
        if kind == "rawdisk" || kind == "plaindisk" {
            warnings.push(format!("{slot}: is a disk of the host ({file})"));
        }
        let controller = format!("{}{}.sharedBus", slot.bus.as_str(), slot.controller);
        let bus = dictionary.get(&controller).unwrap_or("none");
        let shared = get("sharing").is_some_and(|s| s.to_ascii_lowercase().contains("multi"))
            || !bus.eq_ignore_ascii_case("none");
        found.push(ConfigDisk {
            slot,
            file: file.to_owned(),
            mode: get("mode").filter(|m| !m.is_empty()).map(str::to_owned),
            device_type: get("devicetype").map(str::to_owned),
            shared,
        });
    }
    found
}

/// `vmhba0:0:0:5:web.vmdk` or `VOLUME:web.vmdk`: the file alone.
fn after_volume(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots() {
        let slot: Slot = "SCSI0:15".parse().unwrap();
        assert_eq!(
            (slot.to_string(), slot.in_path()),
            ("scsi0:15".into(), "scsi0-15".into())
        );
        assert_eq!("nvme1-0".parse::<Slot>().unwrap().to_string(), "nvme1:0");
        for bad in [
            "scsi",
            "scsi0",
            "scsi0:",
            "scsi:0",
            "usb0:0",
            "scsi0:-1",
            "scsi99999:0",
        ] {
            assert!(bad.parse::<Slot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_a_disk_and_what_not() {
        let text = br#"
config.version = "8"
displayName = "web01"
uuid.bios = "56 4d 81 3c dd d8 88 2c-f1 42 bf 58 f5 7c 2d 9f"
ide0:0.fileName = "hda.vmdk"
ide1:0.present = "FALSE"
ide1:0.fileName = "gone.vmdk"
ide0:1.fileName = "..\..\x.iso"
ide0:1.deviceType = "cdrom-image"
ide1:1.fileName = "auto detect"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
SCSI0:0.filename = "web01-000002.vmdk"
scsi0:0.mode = "independent-persistent"
scsi0:1.name = "vmfs1:esx2.vmdk"
sched.scsi0:0.shares = "normal"
sata0:0.fileName = "/vmfs/volumes/ds1/web01/data.vmdk"
sata0:0.sharing = "multi-writer"
"#;
        assert!(Config::is_one(text));
        let c = Config::new(Dictionary::parse(text).unwrap());
        let disks: Vec<_> = c
            .disks
            .iter()
            .map(|d| {
                (
                    d.slot.to_string(),
                    d.file.as_str(),
                    d.is_independent(),
                    d.shared,
                )
            })
            .collect();
        assert_eq!(
            disks,
            [
                ("ide0:0".into(), "hda.vmdk", false, false),
                ("scsi0:0".into(), "web01-000002.vmdk", true, false),
                ("scsi0:1".into(), "esx2.vmdk", false, false),
                (
                    "sata0:0".into(),
                    "/vmfs/volumes/ds1/web01/data.vmdk",
                    false,
                    true
                ),
            ]
        );
        assert_eq!(
            c.uuid.as_deref(),
            Some("564d813c-ddd8-882c-f142-bf58f57c2d9f")
        );
        assert!(!Config::is_one(b"# Disk DescriptorFile\nversion=1\n"));
    }
}
