//! The OVF descriptor of a package.

use super::PackagedDisk;
use crate::backup::Parts;
use inventory::{Bus, Dictionary, Slot};
use quick_xml::escape::escape;
use std::collections::{BTreeMap, BTreeSet};

/// What VMware's own packages name a streamOptimized VMDK.
const FORMAT: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// Numbers of resource types (CIM).
mod resource {
    pub(super) const CPU: u32 = 3;
    pub(super) const MEMORY: u32 = 4;
    pub(super) const IDE: u32 = 5;
    pub(super) const SCSI: u32 = 6;
    pub(super) const NETWORK: u32 = 10;
    pub(super) const DISK: u32 = 17;
    pub(super) const OTHER_STORAGE: u32 = 20;
}

/// An `Item`: its elements in the order of the alphabet, which strict readers want.
#[derive(Default)]
struct Item(BTreeMap<&'static str, String>);

impl Item {
    fn new(kind: u32, id: u32, name: &str) -> Self {
        Self::default()
            .with("ResourceType", &kind.to_string())
            .with("InstanceID", &id.to_string())
            .with("ElementName", name)
    }

    fn with(mut self, key: &'static str, value: &str) -> Self {
        self.0.insert(key, value.to_owned());
        self
    }

    fn text(&self) -> String {
        let mut out = "      <Item>\n".to_owned();
        for (key, value) in &self.0 {
            out.push_str(&format!(
                "        <rasd:{key}>{}</rasd:{key}>\n",
                escape(value)
            ));
        }
        out.push_str("      </Item>\n");
        out
    }
}

/// The descriptor.
pub(super) fn text(parts: &Parts, disks: &[PackagedDisk]) -> String {
    let machine = parts.machine.as_ref();
    let empty = Dictionary::default();
    let config = machine.map_or(&empty, |m| &m.config);
    let name = machine.map_or(parts.stem.as_str(), |m| m.entry.name.as_str());
    let os = machine.and_then(|m| m.entry.guest_os.as_deref());
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" \
         xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\" \
         xmlns:vmw=\"http://www.vmware.com/schema/ovf\">\n  <References>\n",
    );
    for (n, disk) in disks.iter().enumerate() {
        out.push_str(&format!(
            "    <File ovf:href=\"{}\" ovf:id=\"file{}\" ovf:size=\"{}\"/>\n",
            escape(&disk.name),
            n + 1,
            disk.size
        ));
    }
    out.push_str("  </References>\n  <DiskSection>\n    <Info>The disks</Info>\n");
    for (n, disk) in disks.iter().enumerate() {
        out.push_str(&format!(
            "    <Disk ovf:capacity=\"{}\" ovf:capacityAllocationUnits=\"byte\" \
             ovf:diskId=\"vmdisk{1}\" ovf:fileRef=\"file{1}\" ovf:format=\"{FORMAT}\" \
             ovf:populatedSize=\"{2}\"/>\n",
            disk.virtual_size,
            n + 1,
            disk.populated
        ));
    }
    out.push_str("  </DiskSection>\n");
    let adapters = adapters(config);
    if !adapters.is_empty() {
        out.push_str("  <NetworkSection>\n    <Info>The networks</Info>\n");
        let networks: BTreeSet<&str> = adapters.iter().map(|a| a.network.as_str()).collect();
        for network in networks {
            out.push_str(&format!(
                "    <Network ovf:name=\"{0}\">\n      <Description>{0}</Description>\n    </Network>\n",
                escape(network)
            ));
        }
        out.push_str("  </NetworkSection>\n");
    }
    out.push_str(&format!(
        "  <VirtualSystem ovf:id=\"{0}\">\n    <Info>A virtual machine</Info>\n    <Name>{0}</Name>\n\
         \x20   <OperatingSystemSection ovf:id=\"{1}\" vmw:osType=\"{2}\">\n      <Info>The guest's system</Info>\n    </OperatingSystemSection>\n\
         \x20   <VirtualHardwareSection>\n      <Info>The hardware</Info>\n      <System>\n\
         \x20       <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n\
         \x20       <vssd:InstanceID>0</vssd:InstanceID>\n\
         \x20       <vssd:VirtualSystemIdentifier>{0}</vssd:VirtualSystemIdentifier>\n\
         \x20       <vssd:VirtualSystemType>vmx-{3:02}</vssd:VirtualSystemType>\n      </System>\n",
        escape(name),
        os_number(os),
        escape(os_type(os)),
        hardware(config),
    ));
    for item in items(parts, disks, config, &adapters) {
        out.push_str(&item.text());
    }
    if config
        .text("firmware")
        .is_some_and(|f| f.eq_ignore_ascii_case("efi"))
    {
        out.push_str(
            "      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\n",
        );
    }
    out.push_str("    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n");
    out
}

/// The hardware version; 7 is what everything takes that is in use.
fn hardware(config: &Dictionary) -> i64 {
    let version = config.number("virtualHW.version").unwrap_or(7);
    version.clamp(4, 99)
}

fn items(
    parts: &Parts,
    disks: &[PackagedDisk],
    config: &Dictionary,
    adapters: &[Adapter],
) -> Vec<Item> {
    let cpus = config.number("numvcpus").unwrap_or(1).max(1).to_string();
    let memory = config.number("memsize").unwrap_or(1024).max(4).to_string();
    let mut all = vec![
        Item::new(resource::CPU, 1, &format!("{cpus} virtual CPU(s)"))
            .with("AllocationUnits", "hertz * 10^6")
            .with("Description", "Number of virtual CPUs")
            .with("VirtualQuantity", &cpus),
        Item::new(resource::MEMORY, 2, &format!("{memory}MB of memory"))
            .with("AllocationUnits", "byte * 2^20")
            .with("Description", "Memory size")
            .with("VirtualQuantity", &memory),
    ];
    let mut next = 3;
    let slots: Vec<Slot> = parts
        .disks
        .iter()
        .enumerate()
        .map(|(n, part)| {
            part.slot.unwrap_or(Slot {
                bus: Bus::Scsi,
                controller: 0,
                unit: n as u32,
            })
        })
        .collect();
    let controllers: BTreeSet<(Bus, u32)> = slots.iter().map(|s| (s.bus, s.controller)).collect();
    let mut numbers = BTreeMap::new();
    for (bus, number) in controllers {
        numbers.insert((bus, number), next);
        all.push(controller(bus, number, next, config));
        next += 1;
    }
    for (n, (slot, disk)) in slots.iter().zip(disks).enumerate() {
        let parent = numbers.get(&(slot.bus, slot.controller)).copied();
        all.push(
            Item::new(resource::DISK, next, &format!("disk{}", n + 1))
                .with("AddressOnParent", &slot.unit.to_string())
                .with("HostResource", &format!("ovf:/disk/vmdisk{}", n + 1))
                .with("Parent", &parent.unwrap_or(0).to_string())
                .with("Description", &disk.name),
        );
        next += 1;
    }
    for (n, adapter) in adapters.iter().enumerate() {
        all.push(
            Item::new(resource::NETWORK, next, &format!("ethernet{n}"))
                .with("AddressOnParent", &(7 + n).to_string())
                .with("AutomaticAllocation", "true")
                .with("Connection", &adapter.network)
                .with("ResourceSubType", adapter.kind),
        );
        next += 1;
    }
    all
}

fn controller(bus: Bus, number: u32, id: u32, config: &Dictionary) -> Item {
    let name = format!("{}{number}", bus.as_str());
    let address = number.to_string();
    match bus {
        Bus::Ide => Item::new(resource::IDE, id, &name).with("Address", &address),
        Bus::Scsi => {
            let kind = config.text(&format!("{name}.virtualDev"));
            let kind = kind.map(|k| k.to_ascii_lowercase()).unwrap_or_default();
            let kind = match kind.as_str() {
                "buslogic" => "buslogic",
                "lsisas1068" => "lsilogicsas",
                "pvscsi" => "VirtualSCSI",
                _ => "lsilogic",
            };
            Item::new(resource::SCSI, id, &name)
                .with("Address", &address)
                .with("ResourceSubType", kind)
        }
        Bus::Sata => Item::new(resource::OTHER_STORAGE, id, &name)
            .with("Address", &address)
            .with("ResourceSubType", "vmware.sata.ahci"),
        Bus::Nvme => Item::new(resource::OTHER_STORAGE, id, &name)
            .with("Address", &address)
            .with("ResourceSubType", "vmware.nvme.controller"),
    }
}

struct Adapter {
    network: String,
    kind: &'static str,
}

fn adapters(config: &Dictionary) -> Vec<Adapter> {
    (0..10)
        .filter(|n| config.flag(&format!("ethernet{n}.present")) == Some(true))
        .map(|n| {
            let text = |field: &str| config.text(&format!("ethernet{n}.{field}"));
            let kind = text("virtualDev").map(|k| k.to_ascii_lowercase());
            Adapter {
                network: text("networkName")
                    .filter(|n| !n.is_empty())
                    .unwrap_or("VM Network")
                    .to_owned(),
                kind: match kind.as_deref() {
                    Some("vmxnet3") => "VmxNet3",
                    Some("vmxnet") => "VmxNet2",
                    Some("vlance") => "PCNet32",
                    Some("e1000e") => "E1000e",
                    _ => "E1000",
                },
            }
        })
        .collect()
}

/// VMware's name of a guest system in packages, from that in configurations:
/// `rhel7-64` is `rhel7_64Guest`.
fn os_type(os: Option<&str>) -> String {
    let os = os.unwrap_or_default();
    let (base, wide) = match os.strip_suffix("-64") {
        Some(base) => (base, true),
        None => (os, false),
    };
    let base = match base.to_ascii_lowercase().as_str() {
        "" | "other" if wide => return "otherGuest64".into(),
        "" | "other" => return "otherGuest".into(),
        "otherlinux" => "otherLinux".to_owned(),
        lower => match lower.strip_suffix("srv") {
            Some(windows) => format!("{windows}Server"),
            None => base.to_owned(),
        },
    };
    match (wide, base.ends_with(|c: char| c.is_ascii_digit())) {
        (false, _) => format!("{base}Guest"),
        (true, true) => format!("{base}_64Guest"),
        (true, false) => format!("{base}64Guest"),
    }
}

/// CIM's number: Linux, Linux of 64 bits, another of 64 bits, another.
fn os_number(os: Option<&str>) -> u32 {
    let os = os.unwrap_or_default().to_ascii_lowercase();
    let wide = os.contains("64");
    let linux = [
        "linux", "ubuntu", "debian", "centos", "rhel", "sles", "suse", "fedora", "oracle", "photon",
    ];
    match (linux.iter().any(|l| os.contains(l)), wide) {
        (true, true) => 101,
        (true, false) => 36,
        (false, true) => 102,
        (false, false) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_guest_systems() {
        for (config, package) in [
            ("ubuntu-64", "ubuntu64Guest"),
            ("rhel7-64", "rhel7_64Guest"),
            ("windows9srv-64", "windows9Server64Guest"),
            ("windows9-64", "windows9_64Guest"),
            ("winNetStandard", "winNetStandardGuest"),
            ("otherlinux-64", "otherLinux64Guest"),
            ("other", "otherGuest"),
            ("other-64", "otherGuest64"),
        ] {
            assert_eq!(os_type(Some(config)), package);
        }
        assert_eq!(os_type(None), "otherGuest");
    }
}
