//! One object of the tree, as JSON and as a line of a listing.

use crate::{
    names::{hex_if_needed, shown},
    times::Zone,
};
use disk_io::DiskError;
use guest_fs::{Link, Metadata, Name, NodeKind, Stream, fs::attributes};
use serde::Serialize;

/// What every verb tells of an object.
#[derive(Debug, Serialize)]
pub(crate) struct EntryJson {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name_hex: Option<String>,
    pub(crate) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_hex: Option<String>,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) short_name: Option<String>,
    #[serde(flatten)]
    pub(crate) facts: Option<FactsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_hex: Option<String>,
    /// As the guest stores it, where that is not the Unix path of `target`.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_stored: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_stored_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<Vec<StreamJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ErrorJson>,
}

/// From the object's own record.
#[derive(Debug, Serialize)]
pub(crate) struct FactsJson {
    size: u64,
    allocated: u64,
    links: u32,
    inode: u64,
    created: Option<String>,
    modified: Option<String>,
    accessed: Option<String>,
    changed: Option<String>,
    /// `utc`, or `unknown` where the guest stores local time without a zone.
    time_zone: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Vec<&'static str>>,
    /// Which kind of special file, where the guest's mode says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    special_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reparse_tag: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct StreamJson {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    size: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ErrorJson {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl ErrorJson {
    pub(crate) fn new(e: &DiskError) -> Self {
        Self {
            kind: e.kind().as_str(),
            message: e.to_string(),
        }
    }
}

impl StreamJson {
    pub(crate) fn new(stream: &Stream) -> Self {
        Self {
            name: shown(stream.name.as_bytes()),
            name_hex: hex_if_needed(stream.name.as_bytes()),
            size: stream.size,
        }
    }
}

impl EntryJson {
    pub(crate) fn new(path: &[u8], kind: NodeKind) -> Self {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        Self {
            name: shown(name),
            name_hex: hex_if_needed(name),
            path: shown(path),
            path_hex: hex_if_needed(path),
            kind: kind_name(kind),
            short_name: None,
            facts: None,
            target: None,
            target_hex: None,
            target_stored: None,
            target_stored_hex: None,
            streams: None,
            error: None,
        }
    }

    pub(crate) fn link(&mut self, link: &Link) {
        // What the mount and cp give it, too.
        self.target = Some(shown(link.target.as_bytes()));
        self.target_hex = hex_if_needed(link.target.as_bytes());
        if link.stored != link.target {
            self.target_stored = Some(shown(link.stored.as_bytes()));
            self.target_stored_hex = hex_if_needed(link.stored.as_bytes());
        }
    }

    pub(crate) fn short(&mut self, short_name: Option<&Name>) {
        self.short_name = short_name.map(|n| shown(n.as_bytes()));
    }
}

impl FactsJson {
    pub(crate) fn new(metadata: &Metadata, inode: u64, zone: &Zone) -> Self {
        let times = [
            metadata.created,
            metadata.modified,
            metadata.accessed,
            metadata.changed,
        ];
        let time = |t: Option<guest_fs::Timestamp>| t.map(|t| zone.rfc3339(t));
        Self {
            size: metadata.size,
            allocated: metadata.allocated,
            links: metadata.links,
            inode,
            created: time(metadata.created),
            modified: time(metadata.modified),
            accessed: time(metadata.accessed),
            changed: time(metadata.changed),
            time_zone: match times.iter().flatten().any(|t| !t.zoned) {
                true => "unknown",
                false => "utc",
            },
            attributes: metadata.attributes.map(attribute_names),
            special_type: special_type(metadata).map(|(_, name, _)| name),
            mode: metadata.mode.map(|m| format!("{:04o}", m & 0o7777)),
            uid: metadata.owner.map(|o| o.0),
            gid: metadata.owner.map(|o| o.1),
            reparse_tag: metadata.reparse_tag.map(|t| format!("{t:#010x}")),
            remarks: metadata.remarks.clone(),
        }
    }
}

pub(crate) fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Symlink => "symlink",
        NodeKind::Special => "special",
    }
}

const ATTRIBUTES: [(u32, char, &str); 8] = [
    (attributes::READONLY, 'r', "readonly"),
    (attributes::HIDDEN, 'h', "hidden"),
    (attributes::SYSTEM, 's', "system"),
    (attributes::ARCHIVE, 'a', "archive"),
    (attributes::COMPRESSED, 'c', "compressed"),
    (attributes::ENCRYPTED, 'e', "encrypted"),
    (attributes::SPARSE, 'p', "sparse"),
    (attributes::REPARSE, 'l', "reparse"),
];

pub(crate) fn attribute_names(bits: u32) -> Vec<&'static str> {
    let set = ATTRIBUTES.iter().filter(|(bit, _, _)| bits & bit != 0);
    set.map(|(_, _, name)| *name).collect()
}

/// What a special file is: its letter in a listing, its name in JSON, and for people.
pub(crate) fn special_type(metadata: &Metadata) -> Option<(char, &'static str, &'static str)> {
    if metadata.kind != NodeKind::Special {
        return None;
    }
    match metadata.mode? & 0o170_000 {
        0o010_000 => Some(('p', "fifo", "a named pipe")),
        0o020_000 => Some(('c', "char_device", "a character device")),
        0o060_000 => Some(('b', "block_device", "a block device")),
        0o140_000 => Some(('s', "socket", "a socket")),
        _ => None,
    }
}

/// `drwxr-xr-x` where the guest has modes, `d--ha---` (DOS attributes) else.
pub(crate) fn mode_text(metadata: &Metadata) -> String {
    let kind = match metadata.kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Special => special_type(metadata).map_or('s', |(letter, _, _)| letter),
    };
    let mut text = String::from(kind);
    if let Some(mode) = metadata.mode {
        for (shift, letters) in [(6, "rwx"), (3, "rwx"), (0, "rwx")] {
            for (i, letter) in letters.chars().enumerate() {
                let bit = 0o4 >> i << shift;
                text.push(if mode & bit != 0 { letter } else { '-' });
            }
        }
    } else {
        let bits = metadata.attributes.unwrap_or(0);
        for (bit, letter, _) in ATTRIBUTES {
            text.push(if bits & bit != 0 { letter } else { '-' });
        }
    }
    text
}
