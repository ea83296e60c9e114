//! The hardware of a machine in an OVF descriptor.

use std::collections::HashMap;

/// A machine (`VirtualSystem`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// What the package calls it.
    pub id: String,
    /// What its user calls it.
    pub name: Option<String>,
    /// Notes on it.
    pub annotation: Option<String>,
    /// CIM's number of its guest system.
    pub os_number: Option<u32>,
    /// VMware's name of its guest system: `rhel7_64Guest`.
    pub os_type: Option<String>,
    /// The guest system in words.
    pub os_description: Option<String>,
    /// Kind of virtual hardware: `vmx-13`, `virtualbox-2.2`, or several with spaces between.
    pub hardware: Option<String>,
    /// Its hardware.
    pub items: Vec<Item>,
    /// Its disks at their places.
    pub drives: Vec<Drive>,
    /// Settings (`vmw:Config`) of the machine itself.
    pub settings: Vec<(String, String)>,
    /// Lines for a configuration (`vmw:ExtraConfig`).
    pub extra: Vec<(String, String)>,
}

/// A piece of hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Its number in the machine.
    pub instance: String,
    /// The number of what it hangs on.
    pub parent: String,
    /// CIM's number of its kind, one of [`kind`].
    pub kind: String,
    /// Which model.
    pub subtype: String,
    /// What backs it: `ovf:/disk/…`.
    pub host: String,
    /// Its own number among its kind.
    pub address: String,
    /// Its place on what it hangs on.
    pub unit: String,
    /// How many, how much.
    pub quantity: Option<u64>,
    /// Bytes of one of [`Self::quantity`], where it is a size.
    pub unit_bytes: Option<u64>,
    /// The network that it is on.
    pub connection: String,
    /// Whether it is connected when the machine starts.
    pub at_start: bool,
    /// Of processors.
    pub cores_per_socket: Option<u32>,
}

/// Numbers of kinds of hardware (CIM `ResourceType`).
pub mod kind {
    /// Processors.
    pub const CPU: &str = "3";
    /// Memory.
    pub const MEMORY: &str = "4";
    /// IDE controller.
    pub const IDE: &str = "5";
    /// SCSI controller.
    pub const SCSI: &str = "6";
    /// Network adapter.
    pub const NETWORK: &str = "10";
    /// Disk.
    pub const DISK: &str = "17";
    /// SATA or NVMe controller.
    pub const OTHER_STORAGE: &str = "20";
}

/// A disk at its place in a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drive {
    /// The disk.
    pub disk: String,
    /// `scsi`, `ide`, `sata` or `nvme`, if its controller is known.
    pub bus: Option<&'static str>,
    /// Which controller of that kind.
    pub controller: Option<u32>,
    /// Which place on the controller.
    pub unit: Option<u32>,
    /// The controller's model.
    pub model: String,
}

/// Which bus a controller is.
fn bus(item: &Item) -> Option<&'static str> {
    let subtype = item.subtype.to_ascii_lowercase();
    match item.kind.as_str() {
        kind::IDE => Some("ide"),
        kind::SCSI => Some("scsi"),
        kind::OTHER_STORAGE if subtype.contains("nvme") => Some("nvme"),
        kind::OTHER_STORAGE => Some("sata"),
        _ => None,
    }
}

/// Places have at most four digits in configurations; what says more says something else.
const MOST: u32 = 9999;

/// Disks with their controllers, which are numbered in their order for each bus.
pub(super) fn drives(items: &[Item]) -> Vec<Drive> {
    let mut controllers: HashMap<&str, (&Item, &'static str, u32)> = HashMap::new();
    let mut counted: HashMap<&'static str, u32> = HashMap::new();
    for item in items {
        let Some(bus) = bus(item) else { continue };
        let count = counted.entry(bus).or_default();
        // IDE channels say which they are; other controllers are counted.
        let own = item.address.parse().ok().filter(|n| *n <= MOST);
        let number = own.unwrap_or(*count);
        *count = count.saturating_add(1);
        controllers
            .entry(&item.instance)
            .or_insert((item, bus, number));
    }
    let mut into = Vec::new();
    for item in items.iter().filter(|i| i.kind == kind::DISK) {
        let resource = item.host.strip_prefix("ovf:").unwrap_or(&item.host);
        let Some(disk) = resource.strip_prefix("/disk/") else {
            continue;
        };
        let parent = controllers.get(item.parent.as_str());
        into.push(Drive {
            disk: disk.to_string(),
            bus: parent.map(|(_, bus, _)| *bus),
            controller: parent.map(|(_, _, number)| *number),
            unit: item.unit.parse().ok().filter(|n| *n <= MOST),
            model: parent
                .map(|(p, _, _)| p.subtype.clone())
                .unwrap_or_default(),
        });
    }
    into
}
