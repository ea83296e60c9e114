//! Network adapters that a Windows guest knows, by its SYSTEM hive: those that it has, and those
//! that it had and still keeps addresses for.
//!
//! A machine that gets another adapter (another model, another slot, sometimes another address)
//! starts with a new one, while the fixed addresses stay with the old: it is not reached, and the
//! address cannot be given to the new one without a warning.

use super::text;
use regf::{RegistryHive, hive::RegistryKey};
use std::collections::BTreeMap;

/// Devices that are network adapters.
const CLASS: &str = "{4d36e972-e325-11ce-bfc1-08002be10318}";
/// Times of a device's arrival and removal.
const TIMES: &str = "{83da6326-97a6-4088-9453-a1923f573b29}";
/// Devices of one hive that are looked at.
const DEVICES: usize = 20_000;

/// An adapter with addresses that do not come from DHCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapter {
    /// What the guest knows it by.
    pub id: String,
    /// What its user calls it.
    pub name: Option<String>,
    /// The device, in words.
    pub device: Option<String>,
    /// PCI numbers of vendor and device.
    pub pci: Option<(u16, u16)>,
    /// Whether the guest does not have it any more; `None` where its hive does not say.
    pub absent: Option<bool>,
    /// Its addresses.
    pub addresses: Vec<String>,
}

impl Adapter {
    /// For people.
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// What configurations call such a device, where it is one of a virtual machine's.
    pub fn model(&self) -> Option<&'static str> {
        Some(match self.pci? {
            (0x15ad, 0x07b0) => "vmxnet3",
            (0x15ad, 0x0720) => "vmxnet",
            (0x8086, 0x100f) => "e1000",
            (0x8086, 0x10d3) => "e1000e",
            (0x1022, 0x2000) => "vlance",
            _ => return None,
        })
    }
}

/// A network device of the hive.
#[derive(Default)]
struct Device {
    words: Option<String>,
    pci: Option<(u16, u16)>,
    absent: Option<bool>,
}

/// The adapters with fixed addresses; `control` is the control set.
pub(super) fn of(hive: &RegistryHive, control: &str) -> Vec<Adapter> {
    let place = format!("{control}\\Services\\Tcpip\\Parameters\\Interfaces");
    let Some(interfaces) = hive.open_key(&place).ok().and_then(|k| k.subkeys().ok()) else {
        return Vec::new();
    };
    let devices = devices(hive, control);
    let mut all = Vec::new();
    for interface in interfaces {
        let addresses = addresses(&interface);
        if addresses.is_empty() {
            continue;
        }
        let id = interface.name();
        let connection = format!("{control}\\Control\\Network\\{CLASS}\\{id}\\Connection");
        let connection = hive.open_key(&connection).ok();
        let device = devices.get(&id.to_ascii_lowercase());
        all.push(Adapter {
            name: connection.and_then(|key| text(&key, "Name")),
            device: device.and_then(|d| d.words.clone()),
            pci: device.and_then(|d| d.pci),
            // Of one that no device stands for there is nothing left but its addresses; where no
            // devices are known at all, nothing can be said.
            absent: match device {
                Some(device) => device.absent,
                None => (!devices.is_empty()).then_some(true),
            },
            id,
            addresses,
        });
    }
    all
}

/// Addresses that do not come from DHCP.
fn addresses(interface: &RegistryKey<'_>) -> Vec<String> {
    let raw = |name: &str| interface.value(name).ok()?.raw_data().ok();
    let dhcp = raw("EnableDHCP").and_then(|v| v.first_chunk().map(|b| u32::from_le_bytes(*b)));
    if dhcp == Some(1) {
        return Vec::new();
    }
    let Some(data) = raw("IPAddress") else {
        return Vec::new();
    };
    // UTF-16, several with a zero after each.
    let units: Vec<u16> = data
        .chunks_exact(2)
        .filter_map(|p| Some(u16::from_le_bytes(p.try_into().ok()?)))
        .collect();
    let text = String::from_utf16_lossy(&units);
    let some = text.split('\0').map(str::trim);
    some.filter(|a| !a.is_empty() && *a != "0.0.0.0")
        .map(str::to_owned)
        .collect()
}

/// Network devices, by the id of their adapter in lower case: `Enum\BUS\DEVICE\INSTANCE` names
/// the driver's key below the class, and that the adapter.
fn devices(hive: &RegistryHive, control: &str) -> BTreeMap<String, Device> {
    let mut found = BTreeMap::new();
    let mut seen = 0usize;
    let all = hive.open_key(&format!("{control}\\Enum"));
    let buses = all.and_then(|key| key.subkeys()).unwrap_or_default();
    for bus in buses {
        for kind in bus.subkeys().unwrap_or_default() {
            for instance in kind.subkeys().unwrap_or_default() {
                seen = seen.saturating_add(1);
                if seen > DEVICES {
                    return found;
                }
                let Some(driver) = text(&instance, "Driver") else {
                    continue;
                };
                if !driver.to_ascii_lowercase().starts_with(CLASS) {
                    continue;
                }
                let key = hive.open_key(&format!("{control}\\Control\\Class\\{driver}"));
                let Ok(key) = key else { continue };
                let Some(id) = text(&key, "NetCfgInstanceId") else {
                    continue;
                };
                let device = Device {
                    words: text(&key, "DriverDesc"),
                    pci: pci(&kind.name()),
                    absent: absent(&instance),
                };
                found.insert(id.to_ascii_lowercase(), device);
            }
        }
    }
    found
}

/// `VEN_15AD&DEV_07B0&SUBSYS_…`.
fn pci(name: &str) -> Option<(u16, u16)> {
    let upper = name.to_ascii_uppercase();
    let number = |key: &str| {
        let rest = upper.split(key).nth(1)?;
        u16::from_str_radix(rest.get(..4)?, 16).ok()
    };
    Some((number("VEN_")?, number("DEV_")?))
}

/// Whether a device was removed after it last arrived. Windows before 8 does not note it.
fn absent(instance: &RegistryKey<'_>) -> Option<bool> {
    let properties = instance.open_subkey("Properties").ok()?;
    let times = properties.open_subkey(TIMES).ok()?;
    let time = |property: &str| {
        let key = times.open_subkey(property).ok()?;
        let value = key.default_value().ok()?.raw_data().ok()?;
        value.first_chunk().map(|b| u64::from_le_bytes(*b))
    };
    let (arrived, removed) = (time("0066"), time("0067"));
    match (arrived, removed) {
        (None, None) => None,
        (arrived, removed) => Some(removed > arrived),
    }
}
