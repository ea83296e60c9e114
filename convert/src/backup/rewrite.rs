//! The configuration of a machine, made to fit where its disks go.

use inventory::{Config, Dictionary, Slot};

/// Whether a machine stays the same one for its guest and its network, or becomes another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// It is the same one: it was lost, or is moved.
    #[default]
    Keep,
    /// It is a copy beside the original: the host gives it a new one.
    New,
}

/// What changes besides the disks.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// What it is called.
    pub name: Option<String>,
    /// Its uuid.
    pub uuid: Identity,
    /// The addresses of its network adapters.
    pub mac: Identity,
    /// The file, taken along, from which it goes on where it was.
    pub resume: Option<String>,
}

/// Rewrites `config`: the disks at their places are `disks`; every other disk that it names
/// is taken out, and so is what only the original's place and history gave it.
pub fn rewrite(config: &mut Dictionary, disks: &[(Slot, String)], changes: &Changes) {
    let named = Config::new(config.clone()).disks;
    for disk in named {
        if !disks.iter().any(|(slot, _)| *slot == disk.slot) {
            let prefix = format!("{}.", disk.slot).to_ascii_lowercase();
            config.remove(|key| key.to_ascii_lowercase().starts_with(&prefix));
        }
    }
    for (slot, file) in disks {
        config.set(&format!("{slot}.fileName"), file);
        config.set(&format!("{slot}.present"), "TRUE");
        // ESX 2 had the name there.
        let old = format!("{slot}.name");
        config.remove(|key| key.eq_ignore_ascii_case(&old));
    }
    // What tracked changes, redo logs, swap files and saved states is not taken along.
    config.remove(|key| {
        let key = key.to_ascii_lowercase();
        let field = key.rsplit('.').next().unwrap_or_default();
        matches!(field, "redo" | "ctkenabled")
            || matches!(
                key.as_str(),
                "sched.swap.derivedname"
                    | "checkpoint.vmstate"
                    | "checkpoint.vmstate.readonly"
                    | "vmx.buildtype"
                    | "migrate.hostlog"
                    | "migrate.migrationid"
                    | "cleanshutdown"
                    | "softpoweroff"
            )
    });
    if let Some(state) = &changes.resume {
        config.set("checkpoint.vmState", state);
    }
    if let Some(name) = &changes.name {
        config.set("displayName", name);
    }
    match changes.uuid {
        Identity::Keep => config.set("uuid.action", "keep"),
        Identity::New => {
            config.set("uuid.action", "create");
            config.remove(|key| {
                let key = key.to_ascii_lowercase();
                matches!(key.as_str(), "uuid.bios" | "uuid.location" | "vc.uuid")
            });
        }
    }
    if changes.mac == Identity::New {
        let adapters: Vec<String> = config
            .entries()
            .filter_map(|(key, _)| {
                let (device, field) = key.split_once('.')?;
                let adapter = device.to_ascii_lowercase().starts_with("ethernet");
                (adapter && field.eq_ignore_ascii_case("present")).then(|| device.to_owned())
            })
            .collect();
        config.remove(|key| {
            let key = key.to_ascii_lowercase();
            let adapter = key.starts_with("ethernet");
            let field = key.split_once('.').map_or("", |(_, f)| f);
            adapter
                && matches!(
                    field,
                    "address" | "generatedaddress" | "generatedaddressoffset" | "checkmacaddress"
                )
        });
        for adapter in adapters {
            config.set(&format!("{adapter}.addressType"), "generated");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#".encoding = "UTF-8"
config.version = "8"
displayName = "web01"
scsi0.present = "TRUE"
scsi0:0.fileName = "web01-000002.vmdk"
scsi0:0.redo = ""
scsi0:0.ctkEnabled = "TRUE"
scsi0:1.fileName = "gone.vmdk"
scsi0:1.mode = "independent-persistent"
ctkEnabled = "TRUE"
uuid.bios = "56 4d 81 3c dd d8 88 2c-f1 42 bf 58 f5 7c 2d 9f"
ethernet0.present = "TRUE"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:00:00:01"
checkpoint.vmState = "web01-Snapshot1.vmsn"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "x.iso"
"#;

    fn rewritten(changes: &Changes) -> Dictionary {
        let mut d = Dictionary::parse(TEXT.as_bytes()).unwrap();
        let slot = "scsi0:0".parse().unwrap();
        rewrite(&mut d, &[(slot, "web01.vmdk".into())], changes);
        d
    }

    #[test]
    fn the_same_machine() {
        let d = rewritten(&Changes::default());
        assert_eq!(d.get("scsi0:0.fileName"), Some("web01.vmdk"));
        for gone in [
            "scsi0:0.redo",
            "scsi0:1.fileName",
            "scsi0:1.mode",
            "ctkEnabled",
        ] {
            assert_eq!(d.get(gone), None, "{gone}");
        }
        assert_eq!(d.get("checkpoint.vmState"), None);
        assert_eq!(d.get("ethernet0.address"), Some("00:50:56:00:00:01"));
        assert_eq!(d.get("uuid.action"), Some("keep"));
        assert_eq!(d.get("ide1:0.fileName"), Some("x.iso"));
    }

    #[test]
    fn a_copy_of_it() {
        let d = rewritten(&Changes {
            name: Some("copy \"2\"".into()),
            uuid: Identity::New,
            mac: Identity::New,
            resume: Some("web01-Snapshot1.vmsn".into()),
        });
        assert_eq!(d.get("checkpoint.vmState"), Some("web01-Snapshot1.vmsn"));
        assert_eq!(d.get("displayName"), Some("copy \"2\""));
        assert_eq!(d.get("uuid.bios"), None);
        assert_eq!(d.get("uuid.action"), Some("create"));
        assert_eq!(d.get("ethernet0.address"), None);
        assert_eq!(d.get("ethernet0.addressType"), Some("generated"));
    }
}
