//! Descriptor text, in the form that every reader takes (fact sheet, VMDK 14).

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
    /// The text.
    pub fn encode(&self) -> String {
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
        text.push_str("\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n");
        let _ = writeln!(text, "ddb.longContentID = \"{:032x}\"", self.cid);
        text.push_str("ddb.virtualHWVersion = \"7\"\n");
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
