//! The descriptor of an appliance: its files, its disks, its machines.

use super::hardware::{self, Item, System};
use disk_io::{Disk, DiskError, Result};
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

/// Descriptors are tens of kilobytes long.
const MAX_LEN: u64 = 16 << 20;
const MAX_DEPTH: usize = 128;
/// How many files, disks or pieces of hardware one descriptor may have.
const MAX_ITEMS: usize = 65_536;
/// How many machines, and how many files or disks: hosts have far fewer, and whoever looks at machines
/// compares each with all.
const MAX_SYSTEMS: usize = 1024;
const MAX_DISKS: usize = 4096;
/// Bytes of a text that are kept: notes on a machine are the longest.
const MAX_TEXT: usize = 64 << 10;

/// A file of the package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// What disks call it.
    pub id: String,
    /// Its name.
    pub href: String,
    /// Length in bytes as the package has it, if the descriptor says.
    pub size: Option<u64>,
    /// `gzip`, `bzip2`, … or nothing.
    pub compression: Option<String>,
    /// Length in bytes of the pieces it is cut into, if it is.
    pub chunk_size: Option<u64>,
}

/// A disk of the package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualDisk {
    /// What hardware items call it.
    pub id: String,
    /// The file that holds it; none for a blank disk.
    pub file: Option<String>,
    /// Length of the disk in bytes, if the descriptor says in a way that is understood.
    pub capacity: Option<u64>,
    /// The disk that this one is a delta of.
    pub parent: Option<String>,
    /// The format's URI.
    pub format: Option<String>,
}

/// What an OVF descriptor says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// The files of the package.
    pub files: Vec<File>,
    /// The disks.
    pub disks: Vec<VirtualDisk>,
    /// The machines, in the order of the descriptor.
    pub systems: Vec<System>,
}

impl Descriptor {
    /// Reads a descriptor. Document types and entities of its own are refused.
    pub fn read(disk: &dyn Disk) -> Result<Self> {
        if disk.len() > MAX_LEN {
            return Err(DiskError::refused("reading the OVF descriptor")
                .expected(format!("at most {MAX_LEN} bytes"))
                .found(disk.len().to_string()));
        }
        let mut bytes = vec![0; usize::try_from(disk.len()).unwrap_or(0)];
        disk.read_exact_at(&mut bytes, 0)?;
        Self::parse(&decode(bytes)?)
    }

    /// Reads a descriptor's text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser::default();
        let mut reader = Reader::from_str(text);
        loop {
            let at = reader.buffer_position();
            let fail = |found: String| {
                DiskError::corrupt("reading the OVF descriptor")
                    .offset(at)
                    .expected("well-formed XML")
                    .found(found)
            };
            match reader.read_event().map_err(|e| fail(e.to_string()))? {
                Event::Start(e) => parser.start(&e).map_err(fail)?,
                Event::Empty(e) => {
                    parser.start(&e).map_err(fail)?;
                    parser.end();
                }
                Event::End(_) => parser.end(),
                Event::Text(t) => parser.text(&t.xml10_content()),
                Event::CData(t) => parser.text(&t.xml10_content()),
                Event::GeneralRef(r) => {
                    let name = r.xml10_content();
                    let c = entity(&name)
                        .ok_or_else(|| fail(format!("the unknown entity &{name};")))?;
                    parser.text(c.encode_utf8(&mut [0; 4]));
                }
                Event::DocType(_) => {
                    return Err(DiskError::refused("reading the OVF descriptor")
                        .offset(at)
                        .found("a document type, which could name other files"));
                }
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            }
        }
        if !parser.seen_envelope || !parser.path.is_empty() {
            return Err(DiskError::corrupt("reading the OVF descriptor")
                .expected("a complete Envelope")
                .found("none"));
        }
        Ok(parser.found)
    }

    /// Every disk at its place, machine by machine.
    pub fn drives(&self) -> impl Iterator<Item = &hardware::Drive> {
        self.systems.iter().flat_map(|s| &s.drives)
    }

    /// The file of a disk.
    pub fn file_of(&self, disk: &VirtualDisk) -> Option<&File> {
        let id = disk.file.as_deref()?;
        self.files.iter().find(|f| f.id == id)
    }
}

/// UTF-8, or UTF-16 with a byte order mark.
fn decode(bytes: Vec<u8>) -> Result<String> {
    let wide = |join: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).skip(1).map(|c| {
            join([
                c.first().copied().unwrap_or(0),
                c.get(1).copied().unwrap_or(0),
            ])
        });
        char::decode_utf16(units)
            .collect::<std::result::Result<String, _>>()
            .ok()
    };
    let text = match bytes.get(..2) {
        Some([0xff, 0xfe]) => wide(u16::from_le_bytes),
        Some([0xfe, 0xff]) => wide(u16::from_be_bytes),
        _ => {
            let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            std::str::from_utf8(body).ok().map(str::to_owned)
        }
    };
    text.ok_or_else(|| {
        DiskError::corrupt("reading the OVF descriptor")
            .expected("UTF-8 or UTF-16")
            .found("other bytes")
    })
}

/// The entities that XML itself has.
fn entity(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

#[derive(Default)]
struct Parser {
    path: Vec<String>,
    text: String,
    found: Descriptor,
    /// Machines that are being read, the innermost last.
    system: Vec<System>,
    item: Option<Item>,
    /// Hardware and settings of all machines, counted.
    pieces: usize,
    seen_envelope: bool,
}

impl Parser {
    fn start(&mut self, e: &BytesStart<'_>) -> std::result::Result<(), String> {
        let name: &str = e.local_name().into_inner();
        if self.path.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels"));
        }
        let total = self
            .found
            .files
            .len()
            .saturating_add(self.found.disks.len())
            .saturating_add(self.pieces);
        if total > MAX_ITEMS {
            return Err(format!("more than {MAX_ITEMS} items"));
        }
        let systems = self.found.systems.len().saturating_add(self.system.len());
        for (count, most, what) in [
            (systems, MAX_SYSTEMS, "machines"),
            (self.found.files.len(), MAX_DISKS, "files"),
            (self.found.disks.len(), MAX_DISKS, "disks"),
        ] {
            if count > most {
                return Err(format!("more than {most} {what}"));
            }
        }
        let parent = self.path.last().map_or("", String::as_str);
        match (parent, name) {
            ("", "Envelope") => self.seen_envelope = true,
            ("References", "File") => {
                let mut file = File::default();
                attributes(e, |key, value| match key {
                    "id" => file.id = value,
                    "href" => file.href = value,
                    "size" => file.size = value.trim().parse().ok(),
                    "compression" if value != "identity" => file.compression = Some(value),
                    "chunkSize" => file.chunk_size = value.trim().parse().ok(),
                    _ => {}
                })?;
                self.found.files.push(file);
            }
            ("DiskSection", "Disk") => {
                let mut disk = VirtualDisk::default();
                let (mut count, mut units) = (None, None);
                attributes(e, |key, value| match key {
                    "diskId" => disk.id = value,
                    "fileRef" => disk.file = Some(value),
                    "parentRef" => disk.parent = Some(value),
                    "format" => disk.format = Some(value),
                    "capacity" => count = value.trim().parse::<u64>().ok(),
                    "capacityAllocationUnits" => units = Some(value),
                    _ => {}
                })?;
                let unit = units.as_deref().map_or(Some(1), unit);
                disk.capacity = count.zip(unit).and_then(|(n, u)| n.checked_mul(u));
                self.found.disks.push(disk);
            }
            (_, "VirtualSystem") => {
                let mut system = System::default();
                attributes(e, |key, value| {
                    if key == "id" {
                        system.id = value;
                    }
                })?;
                self.pieces = self.pieces.saturating_add(1);
                self.system.push(system);
            }
            (_, "OperatingSystemSection") => {
                let mut unused = System::default();
                let system = self.system.last_mut().unwrap_or(&mut unused);
                attributes(e, |key, value| match key {
                    "id" => system.os_number = value.trim().parse().ok(),
                    "osType" => system.os_type = Some(value),
                    _ => {}
                })?;
            }
            (_, "ExtraConfig" | "Config") if self.item.is_none() => {
                let (mut key, mut text) = (String::new(), String::new());
                attributes(e, |name, value| match name {
                    "key" => key = value,
                    "value" => text = value,
                    _ => {}
                })?;
                if let Some(system) = self.system.last_mut() {
                    self.pieces = self.pieces.saturating_add(1);
                    match name {
                        "Config" => system.settings.push((key, text)),
                        _ => system.extra.push((key, text)),
                    }
                }
            }
            (_, "Item" | "StorageItem") => self.item = Some(Item::default()),
            _ => {}
        }
        self.enter(name);
        Ok(())
    }

    fn enter(&mut self, name: &str) {
        self.path.push(name.to_string());
        self.text.clear();
    }

    fn text(&mut self, text: &str) {
        if self.text.len() < MAX_TEXT {
            self.text.push_str(text);
        }
    }

    fn end(&mut self) {
        let name = self.path.pop().unwrap_or_default();
        let text = std::mem::take(&mut self.text).trim().to_string();
        if let Some(item) = &mut self.item {
            match name.as_str() {
                "InstanceID" => item.instance = text,
                "Parent" => item.parent = text,
                "ResourceType" => item.kind = text,
                "ResourceSubType" => item.subtype = text,
                "HostResource" => item.host = text,
                "AddressOnParent" => item.unit = text,
                "Address" => item.address = text,
                "VirtualQuantity" => item.quantity = text.parse().ok(),
                "AllocationUnits" => item.unit_bytes = unit(&text),
                "Connection" => item.connection = text,
                "AutomaticAllocation" => item.at_start = text.eq_ignore_ascii_case("true"),
                "CoresPerSocket" => item.cores_per_socket = text.parse().ok(),
                "Item" | "StorageItem" => {
                    self.pieces = self.pieces.saturating_add(1);
                    let item = self.item.take();
                    if let Some(system) = self.system.last_mut() {
                        system.items.extend(item);
                    }
                }
                _ => {}
            }
            return;
        }
        let parent = self.path.last().map_or("", String::as_str);
        if name == "VirtualSystem" {
            let mut system = self.system.pop().unwrap_or_default();
            system.drives = hardware::drives(&system.items);
            self.found.systems.push(system);
        } else if let Some(system) = self.system.last_mut() {
            let some = Some(text).filter(|t| !t.is_empty());
            match (parent, name.as_str()) {
                ("VirtualSystem", "Name") => system.name = some,
                ("AnnotationSection", "Annotation") => system.annotation = some,
                ("OperatingSystemSection", "Description") => system.os_description = some,
                ("System", "VirtualSystemType") => system.hardware = some,
                _ => {}
            }
        }
    }
}

fn attributes(
    e: &BytesStart<'_>,
    mut take: impl FnMut(&str, String),
) -> std::result::Result<(), String> {
    for attribute in e.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let value = attribute
            .normalized_value(XmlVersion::default())
            .map_err(|e| e.to_string())?;
        take(attribute.key.local_name().into_inner(), value.into_owned());
    }
    Ok(())
}

/// `byte * 2^20` and the like, in bytes.
fn unit(text: &str) -> Option<u64> {
    match text.trim() {
        "KiloBytes" => return Some(1 << 10),
        "MegaBytes" => return Some(1 << 20),
        "GigaBytes" => return Some(1 << 30),
        _ => {}
    }
    let mut factors = text.split('*').map(str::trim);
    if !matches!(factors.next()?, "byte" | "bytes" | "Bytes") {
        return None;
    }
    factors.try_fold(1u64, |product, factor| {
        let n = match factor.split_once('^') {
            Some((base, power)) => {
                let base: u64 = base.trim().parse().ok()?;
                base.checked_pow(power.trim().parse().ok()?)?
            }
            None => factor.parse().ok()?,
        };
        product.checked_mul(n)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_capacity() {
        assert_eq!(unit("byte * 2^30"), Some(1 << 30));
        assert_eq!(unit("byte"), Some(1));
        assert_eq!(unit("byte*3*2^10"), Some(3072));
        assert_eq!(unit("MegaBytes"), Some(1 << 20));
        assert_eq!(unit("byte * 2^70"), None);
        assert_eq!(unit("hertz * 10^6"), None);
    }

    const SMALL: &str = r#"<?xml version="1.0"?>
<Envelope xmlns="x" xmlns:ovf="y" xmlns:rasd="z">
 <References><File ovf:id="f1" ovf:href="a&amp;b.vmdk" ovf:size="9" ovf:compression="gzip"/></References>
 <DiskSection><Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^20"/></DiskSection>
 <VirtualSystem ovf:id="vm">
  <VirtualHardwareSection>
   <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>3</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d1</rasd:HostResource>
    <rasd:InstanceID>9</rasd:InstanceID><rasd:Parent>2</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>"#;

    #[test]
    fn a_machine_with_one_disk() {
        let d = Descriptor::parse(SMALL).unwrap();
        assert_eq!(d.files[0].href, "a&b.vmdk");
        assert_eq!(d.files[0].compression.as_deref(), Some("gzip"));
        assert_eq!(d.disks[0].capacity, Some(2 << 20));
        let drive = &d.systems[0].drives[0];
        assert_eq!(
            (drive.bus, drive.controller, drive.unit),
            (Some("scsi"), Some(1), Some(3))
        );
        assert_eq!(d.systems[0].id, "vm");
        let wide: Vec<u8> = std::iter::once(0xfeff)
            .chain(SMALL.encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect();
        assert_eq!(Descriptor::read(&disk_io::MemDisk::new(wide)).unwrap(), d);
    }

    #[test]
    fn nothing_of_its_own_is_expanded() {
        let with = |from: &str, to: &str| Descriptor::parse(&SMALL.replace(from, to));
        let dtd = "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>";
        let e = with("<?xml version=\"1.0\"?>", dtd).unwrap_err();
        assert_eq!(e.kind(), disk_io::ErrorKind::Refused);
        assert!(with("a&amp;b", "a&e;b").is_err());
        assert!(with("ovf:/disk/d1", "ovf:/disk/&e;").is_err());
        assert!(with("</Envelope>", "").is_err());
        assert!(Descriptor::parse("").is_err());
        assert!(Descriptor::parse(&"<a>".repeat(1000)).is_err());
        let many = "<VirtualSystem ovf:id=\"vm\"></VirtualSystem>".repeat(2000);
        let e = with("</Envelope>", &format!("{many}</Envelope>")).unwrap_err();
        assert!(e.to_string().contains("machines"), "{e}");
    }
}
