//! Descriptor text, in the form that every reader takes (fact sheet, VMDK 14).

use crate::writer::Identity;
use std::fmt::Write;

/// What a descriptor says.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    /// Content id.
    pub cid: u32,
    /// The parent's content id and file.
    pub parent: Option<(u32, &'a str)>,
    /// `createType`.
    pub create_type: &'a str,
    /// Extent lines.
    pub extents: Vec<String>,
}

impl Text<'_> {
    /// The text, for a disk of which no more is known.
    pub fn encode(&self) -> String {
        let mut text = self.head();
        text.push_str("ddb.adapterType = \"lsilogic\"\n");
        let _ = writeln!(text, "ddb.longContentID = \"{:032x}\"", self.cid);
        text.push_str("ddb.virtualHWVersion = \"7\"\n");
        text
    }

    /// The text of a disk of `sectors` with this identity.
    pub(crate) fn encode_for(&self, identity: &Identity, sectors: u64) -> String {
        let mut text = self.head();
        let _ = writeln!(text, "ddb.adapterType = \"{}\"", identity.adapter);
        // BIOSes count in these (fact sheet, VMDK 2.5).
        let (heads, per_track): (u64, u64) = match identity.adapter.as_str() {
            "ide" => (16, 63),
            _ => (255, 63),
        };
        let cylinders = sectors / (heads * per_track);
        let _ = writeln!(
            text,
            "ddb.geometry.cylinders = \"{}\"",
            cylinders.clamp(1, 65535)
        );
        let _ = writeln!(text, "ddb.geometry.heads = \"{heads}\"");
        let _ = writeln!(text, "ddb.geometry.sectors = \"{per_track}\"");
        let _ = writeln!(text, "ddb.longContentID = \"{:032x}\"", self.cid);
        if let Some(uuid) = identity.uuid {
            let hex: Vec<String> = uuid.iter().map(|b| format!("{b:02x}")).collect();
            let (first, second) = hex.split_at(8);
            let _ = writeln!(
                text,
                "ddb.uuid = \"{}-{}\"",
                first.join(" "),
                second.join(" ")
            );
        }
        let _ = writeln!(text, "ddb.virtualHWVersion = \"{}\"", identity.hardware);
        text
    }

    fn head(&self) -> String {
        let mut text = String::from("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\n");
        let (parent_cid, hint) = self.parent.unwrap_or((u32::MAX, ""));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "CID={:08x}\nparentCID={parent_cid:08x}", self.cid);
        let _ = writeln!(text, "createType=\"{}\"", self.create_type);
        if !hint.is_empty() {
            let _ = writeln!(text, "parentFileNameHint=\"{hint}\"");
        }
        text.push_str("\n# Extent description\n");
        for extent in &self.extents {
            text.push_str(extent);
            text.push('\n');
        }
        text.push_str("\n# The Disk Data Base\n#DDB\n\n");
        text
    }
}

/// An extent line: `RW 8 SPARSE "name"`, with an offset for FLAT.
pub fn extent(sectors: u64, kind: &str, file: &str) -> String {
    match kind {
        "ZERO" => format!("RW {sectors} ZERO"),
        "FLAT" => format!("RW {sectors} FLAT \"{file}\" 0"),
        _ => format!("RW {sectors} {kind} \"{file}\""),
    }
}
