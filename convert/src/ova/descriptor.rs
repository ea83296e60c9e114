//! The OVF descriptor of a package.

use super::PackagedDisk;
use crate::backup::Parts;
use inventory::{Bus, Dictionary, Slot, guest_os};
use quick_xml::escape::escape;
use std::collections::{BTreeMap, BTreeSet};

/// What VMware's own packages name a streamOptimized VMDK.
const FORMAT: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// Not one of CIM's, and after all of them.
const CORES: &str = "~CoresPerSocket";

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
            // VMware's own come after those of the standard, as its names come after.
            let (key, prefix, optional) = match *key {
                CORES => ("CoresPerSocket", "vmw", " ovf:required=\"false\""),
                key => (key, "rasd", ""),
            };
            out.push_str(&format!(
                "        <{prefix}:{key}{optional}>{}</{prefix}:{key}>\n",
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
         {4}\x20   <OperatingSystemSection ovf:id=\"{1}\" vmw:osType=\"{2}\">\n      <Info>The guest's system</Info>\n    </OperatingSystemSection>\n\
         \x20   <VirtualHardwareSection>\n      <Info>The hardware</Info>\n      <System>\n\
         \x20       <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n\
         \x20       <vssd:InstanceID>0</vssd:InstanceID>\n\
         \x20       <vssd:VirtualSystemIdentifier>{0}</vssd:VirtualSystemIdentifier>\n\
         \x20       <vssd:VirtualSystemType>vmx-{3:02}</vssd:VirtualSystemType>\n      </System>\n",
        escape(name),
        guest_os::number(os),
        escape(guest_os::in_package(os)),
        hardware(config),
        annotation(config),
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
    if config.flag("uefi.secureBoot.enabled") == Some(true) {
        out.push_str(
            "      <vmw:Config ovf:required=\"false\" vmw:key=\"bootOptions.efiSecureBootEnabled\" vmw:value=\"true\"/>\n",
        );
    }
    out.push_str("    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n");
    out
}

/// What the user wrote of the machine.
fn annotation(config: &Dictionary) -> String {
    let Some(notes) = config.text("annotation") else {
        return String::new();
    };
    format!(
        "    <AnnotationSection>\n      <Info>Notes</Info>\n      <Annotation>{}</Annotation>\n    </AnnotationSection>\n",
        escape(notes)
    )
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
    let cores = config.number("cpuid.coresPerSocket").unwrap_or(1).max(1);
    let memory = config.number("memsize").unwrap_or(1024).max(4).to_string();
    let mut all = vec![
        Item::new(resource::CPU, 1, &format!("{cpus} virtual CPU(s)"))
            .with("AllocationUnits", "hertz * 10^6")
            .with("Description", "Number of virtual CPUs")
            .with("VirtualQuantity", &cpus)
            .with(CORES, &cores.to_string()),
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
