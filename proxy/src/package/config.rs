//! A machine of a package as the text of a configuration.

use super::disks::Disks;
use disk_image::ova::{
    Drive, System,
    hardware::{Item, kind},
};
use inventory::{Dictionary, guest_os};
use std::collections::{BTreeMap, BTreeSet};

/// Hardware that everything takes which is in use; NVMe and SATA want 13 and 10.
const HARDWARE: u32 = 10;

/// The configuration of `system`.
///
/// What a package does not say is left out, so that the host chooses: identity, addresses.
/// Lines for the configuration that the package carries along (`ExtraConfig`) are taken, but for
/// those that would name files or devices of the host.
pub(super) fn text(all: &mut Disks<'_>, system: &System) -> String {
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in &system.extra {
        if is_harmless(key) {
            lines.insert(key.clone(), value.clone());
        }
    }
    let mut set = |key: &str, value: &str| {
        lines.insert(key.to_owned(), value.to_owned());
    };
    set("config.version", "8");
    set(
        "virtualHW.version",
        &hardware(system.hardware.as_deref()).to_string(),
    );
    set("displayName", system.name.as_deref().unwrap_or(&system.id));
    if let Some(notes) = &system.annotation {
        set("annotation", notes);
    }
    let os = system.os_type.as_deref().and_then(guest_os::in_config);
    let nearest = || guest_os::nearest(system.os_number, system.os_description.as_deref());
    set("guestOS", os.as_deref().unwrap_or_else(nearest));
    of_kind(system, kind::CPU).for_each(|cpu| {
        if let Some(n) = cpu.quantity {
            set("numvcpus", &n.to_string());
        }
        if let Some(n) = cpu.cores_per_socket {
            set("cpuid.coresPerSocket", &n.to_string());
        }
    });
    of_kind(system, kind::MEMORY).for_each(|memory| {
        // Packages give it in MiB; those that say nothing mean that too.
        let bytes = memory
            .quantity
            .and_then(|n| n.checked_mul(memory.unit_bytes.unwrap_or(1 << 20)));
        if let Some(bytes) = bytes {
            set("memsize", &(bytes >> 20).to_string());
        }
    });
    for (key, value) in &system.settings {
        match (key.as_str(), value.as_str()) {
            ("firmware", firmware) if !firmware.is_empty() => set("firmware", firmware),
            ("bootOptions.efiSecureBootEnabled", "true") => {
                set("uefi.secureBoot.enabled", "TRUE");
            }
            _ => {}
        }
    }
    // Bridges that devices of newer hardware hang on; a host adds none of its own accord.
    set("pciBridge0.present", "TRUE");
    for n in 4..8 {
        set(&format!("pciBridge{n}.present"), "TRUE");
        set(&format!("pciBridge{n}.virtualDev"), "pcieRootPort");
        set(&format!("pciBridge{n}.functions"), "8");
    }
    disks(all, system, &mut set);
    adapters(system, &mut set);
    lines.into_iter().collect::<Dictionary>().to_text()
}

fn of_kind<'a>(system: &'a System, kind: &'static str) -> impl Iterator<Item = &'a Item> {
    system.items.iter().filter(move |i| i.kind == kind)
}

/// `vmx-13` is 13; of several the newest.
fn hardware(text: Option<&str>) -> u32 {
    let words = text.unwrap_or_default().split([' ', ',']);
    let versions = words.filter_map(|w| w.strip_prefix("vmx-")?.parse().ok());
    versions.max().unwrap_or(HARDWARE)
}

/// Whether a line that a package wants in the configuration names nothing of the host, and is one
/// line.
fn is_harmless(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    let lower = key.to_ascii_lowercase();
    let names_something = [
        "filename",
        "file",
        "path",
        "dir",
        "directory",
        "nvram",
        "devicetype",
        "name",
        "guestos",
    ];
    let devices = [
        "scsi",
        "ide",
        "sata",
        "nvme",
        "floppy",
        "serial",
        "parallel",
        "ethernet",
        "usb",
        "sound",
        "encryption",
        "log",
        "workingdir",
        "checkpoint",
        "migrate",
        "pcipassthru",
    ];
    !key.is_empty()
        && key.chars().all(plain)
        && !names_something.iter().any(|n| lower.ends_with(n))
        && !devices.iter().any(|d| lower.starts_with(d))
}

fn disks(all: &mut Disks<'_>, system: &System, set: &mut impl FnMut(&str, &str)) {
    let mut used: BTreeSet<(&str, u32, u32)> = BTreeSet::new();
    let mut next: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for drive in &system.drives {
        let (bus, controller) = (drive.bus.unwrap_or("scsi"), drive.controller.unwrap_or(0));
        let mut unit = drive.unit.unwrap_or(0);
        // A package that gives two disks one place means two places.
        if used.contains(&(bus, controller, unit)) {
            let next = next.entry((bus, controller)).or_default();
            let free = |unit: &u32| !used.contains(&(bus, controller, *unit));
            unit = (*next..).find(free).unwrap_or(unit);
            *next = unit.saturating_add(1);
        }
        used.insert((bus, controller, unit));
        let name = format!("{bus}{controller}");
        if bus != "ide" {
            set(&format!("{name}.present"), "TRUE");
        }
        if let Some(model) = model(bus, drive) {
            set(&format!("{name}.virtualDev"), model);
        }
        let place = format!("{name}:{unit}");
        set(&format!("{place}.present"), "TRUE");
        set(&format!("{place}.fileName"), &all.name(&drive.disk));
        if bus == "scsi" {
            set(&format!("{place}.deviceType"), "scsi-hardDisk");
        }
    }
}

/// What configurations call the model of a controller.
fn model(bus: &str, drive: &Drive) -> Option<&'static str> {
    let model = drive.model.to_ascii_lowercase();
    (bus == "scsi").then_some(match model.as_str() {
        "virtualscsi" | "pvscsi" => "pvscsi",
        "lsilogicsas" | "lsisas1068" => "lsisas1068",
        "buslogic" => "buslogic",
        _ => "lsilogic",
    })
}

fn adapters(system: &System, set: &mut impl FnMut(&str, &str)) {
    for (n, adapter) in of_kind(system, kind::NETWORK).enumerate() {
        let mut set = |field: &str, value: &str| set(&format!("ethernet{n}.{field}"), value);
        set("present", "TRUE");
        set(
            "virtualDev",
            match adapter.subtype.to_ascii_lowercase().as_str() {
                "vmxnet3" => "vmxnet3",
                "vmxnet" | "vmxnet2" => "vmxnet",
                "pcnet32" => "vlance",
                "e1000e" => "e1000e",
                _ => "e1000",
            },
        );
        set("addressType", "generated");
        // `none` is how vCloud Director writes that there is no network.
        if !matches!(adapter.connection.as_str(), "" | "none") {
            set("networkName", &adapter.connection);
        }
        set(
            "startConnected",
            if adapter.at_start { "TRUE" } else { "FALSE" },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_a_package_brings_along() {
        for yes in [
            "svga.vramSize",
            "guestinfo.role",
            "disk.EnableUUID",
            "tools.syncTime",
        ] {
            assert!(is_harmless(yes), "{yes}");
        }
        for no in [
            "scsi0:1.fileName",
            "serial0.fileType",
            "nvram",
            "workingDir",
            "a\nb",
            "a = \"b\"",
            "",
            "config.vmPath",
        ] {
            assert!(!is_harmless(no), "{no}");
        }
    }

    #[test]
    fn hardware_versions() {
        assert_eq!(hardware(Some("vmx-13")), 13);
        assert_eq!(hardware(Some("vmx-07 vmx-09")), 9);
        assert_eq!(hardware(Some("virtualbox-2.2")), HARDWARE);
        assert_eq!(hardware(None), HARDWARE);
    }
}
