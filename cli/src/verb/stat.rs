//! `stat`: everything that is known of one object.

use crate::{
    args::{Global, GuestArgs, SourceArgs},
    exit::{Exit, Failure, tell_doubts, tell_path_error},
    names::{NameJson, check_path},
    output::{Out, human},
    source::open_tree,
    verb::{
        entry::{
            EntryJson, ErrorJson, FactsJson, StreamJson, attribute_names, kind_name, special_type,
        },
        ls::join,
    },
};
use clap::Args;
use guest_fs::{Extent, Link, Metadata, Name, NodeKind, Security, Stream};
use proxy::{Node, Tree};
use serde::Serialize;
use std::{ffi::OsString, os::unix::ffi::OsStrExt};

/// Show everything that is known of a file or directory
///
/// Times to 100 ns, attributes, streams, extended attributes, the security descriptor as
/// SDDL, link target, every hard link, and where the contents lie on the volume.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit stat web01.vmdk /p1/Users/anna/report.docx
  vmdkit stat --json web01.vmdk /p1/pagefile.sys | jq .extents")]
pub(crate) struct Stat {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    guest: GuestArgs,
    /// A path in the tree
    #[arg(value_name = "PATH")]
    path: OsString,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    #[serde(flatten)]
    entry: EntryJson,
    /// The named stream whose size and extents these are.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<NameJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_sort: Option<&'static str>,
    hard_links: Vec<NameJson>,
    /// The security descriptor as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    sddl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<XattrJson>,
    extents: Vec<ExtentJson>,
}

#[derive(Serialize)]
struct XattrJson {
    #[serde(flatten)]
    name: NameJson,
    /// The value as text, where it is text without control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    value_hex: String,
}

impl XattrJson {
    fn new((name, value): &(Name, Vec<u8>)) -> Self {
        Self {
            name: NameJson::new(name.as_bytes()),
            value: printable(value).map(str::to_owned),
            value_hex: value.iter().map(|b| format!("{b:02x}")).collect(),
        }
    }
}

fn printable(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

/// A GUID as Windows writes it, from its mixed-endian bytes.
fn guid(b: &[u8; 16]) -> String {
    let [b0, b1, b2, b3, b4, b5, b6, b7, rest @ ..] = b;
    let mut text = format!(
        "{:08x}-{:04x}-{:04x}-",
        u32::from_le_bytes([*b0, *b1, *b2, *b3]),
        u16::from_le_bytes([*b4, *b5]),
        u16::from_le_bytes([*b6, *b7])
    );
    for (at, byte) in rest.iter().enumerate() {
        if at == 2 {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[derive(Serialize)]
struct ExtentJson {
    offset: u64,
    length: u64,
    volume_offset: Option<u64>,
}

struct Facts {
    metadata: Metadata,
    streams: Vec<Stream>,
    link: Option<Link>,
    names: Vec<Vec<u8>>,
    extents: Vec<Extent>,
    security: Option<Security>,
    object_id: Option<[u8; 16]>,
    xattrs: Vec<(Name, Vec<u8>)>,
    missing: bool,
}

impl Facts {
    fn gather(
        tree: &Tree,
        node: Node,
        path: &[u8],
        stream: Option<&Name>,
    ) -> disk_io::Result<Self> {
        let mut metadata = tree.metadata(node)?;
        metadata.refusal = metadata.refusal.or_else(|| tree.without_files(node));
        // A volume that cannot be entered: every question would give the same answer.
        let closed = || tree.enter(node).is_err() || tree.without_files(node).is_some();
        if metadata.refusal.is_some() && closed() {
            return Ok(Self {
                metadata,
                streams: Vec::new(),
                link: None,
                names: Vec::new(),
                extents: Vec::new(),
                security: None,
                object_id: None,
                xattrs: Vec::new(),
                missing: true,
            });
        }
        let mut missing = false;
        let mut note = |e: &disk_io::DiskError| {
            tell_path_error(path, e);
            missing = true;
        };
        let mut streams = tree
            .streams(node)
            .inspect_err(&mut note)
            .unwrap_or_default();
        if let Some(stream) = stream {
            streams.retain(|s| s.name == *stream);
            if let Some(this) = streams.pop() {
                (metadata.size, metadata.allocated) = (this.size, this.allocated);
            }
            metadata.kind = NodeKind::File;
        }
        let link = (metadata.kind == NodeKind::Symlink)
            .then(|| tree.read_link(node).inspect_err(&mut note).ok())
            .flatten();
        let names = tree.names(node).inspect_err(&mut note).unwrap_or_default();
        let extents = match tree.guest(node) {
            Ok(Some((fs, id))) => match fs.extents(id, stream) {
                Ok(extents) => extents,
                // What cannot be read may not say where it lies; `refusal` tells why. And not
                // every file system keeps its directories as it keeps files.
                Err(_) if metadata.refusal.is_some() || metadata.kind != NodeKind::File => {
                    Vec::new()
                }
                Err(e) => {
                    note(&e);
                    Vec::new()
                }
            },
            _ => Vec::new(),
        };
        let (mut security, mut object_id, mut xattrs) = (None, None, Vec::new());
        // They are the file's, not the stream's.
        if stream.is_none()
            && let Ok(Some((fs, id))) = tree.guest(node)
        {
            security = fs.security(id).inspect_err(&mut note).ok().flatten();
            object_id = fs.object_id(id).inspect_err(&mut note).ok().flatten();
            xattrs = fs.xattrs(id).inspect_err(&mut note).unwrap_or_default();
        }
        Ok(Self {
            security,
            object_id,
            xattrs,
            metadata,
            streams,
            link,
            names: names
                .iter()
                .map(|(dir, name)| join(tree.path_of(*dir).as_bytes(), name.as_bytes()))
                .collect(),
            extents,
            missing,
        })
    }
}

impl Stat {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        check_path(&self.path)?;
        let tree = open_tree(&self.source, global, self.guest)?;
        let found = tree.resolve(self.path.as_bytes())?;
        for remark in &found.remarks {
            crate::output::warn(remark);
        }
        let doubtful = tell_doubts(&found);
        let zone = global.zone();
        let stream = found.stream.as_ref();
        let mut path = found.path.as_bytes().to_vec();
        if let Some(stream) = stream {
            path.push(b':');
            path.extend_from_slice(stream.as_bytes());
        }
        let mut facts = Facts::gather(&tree, found.node, &path, stream)?;
        zone.settle_all(&mut facts.metadata, global.tz.is_some());
        let inode = tree.inode(found.node);
        let mut out = Out::new();
        if self.json {
            let mut entry = EntryJson::new(&path, facts.metadata.kind);
            entry.facts = Some(FactsJson::new(&facts.metadata, inode, &zone));
            entry.error = facts.metadata.refusal.as_ref().map(ErrorJson::new);
            entry.streams = Some(facts.streams.iter().map(StreamJson::new).collect());
            if let Some(link) = &facts.link {
                entry.link(link);
            }
            out.document(&Json {
                entry,
                stream: stream.map(|s| NameJson::new(s.as_bytes())),
                link_sort: facts.link.as_ref().map(|l| l.sort),
                hard_links: facts.names.iter().map(|n| NameJson::new(n)).collect(),
                sddl: facts.security.as_ref().map(|s| s.sddl.clone()),
                object_id: facts.object_id.as_ref().map(guid),
                xattrs: facts.xattrs.iter().map(XattrJson::new).collect(),
                extents: facts
                    .extents
                    .iter()
                    .map(|e| ExtentJson {
                        offset: e.offset,
                        length: e.len,
                        volume_offset: e.place,
                    })
                    .collect(),
            })?;
        } else {
            self.text(&mut out, &Name::from_bytes(path), inode, &facts, &zone)?;
        }
        out.finish()?;
        Ok(Exit::partial_if(facts.missing || doubtful))
    }

    fn text(
        &self,
        out: &mut Out,
        path: &Name,
        inode: u64,
        facts: &Facts,
        zone: &crate::times::Zone,
    ) -> Result<(), Failure> {
        let m = &facts.metadata;
        let mut row = |key: &str, value: String| out.line(format!("{key:<12}{value}"));
        row("path", path.to_string())?;
        row(
            "type",
            match special_type(m) {
                Some((_, _, what)) => format!("{} ({what})", kind_name(m.kind)),
                None => kind_name(m.kind).to_owned(),
            },
        )?;
        if m.kind == NodeKind::File {
            row("size", format!("{} ({})", m.size, human(m.size)))?;
            row("allocated", m.allocated.to_string())?;
        }
        row(
            "inode",
            format!(
                "{inode} (record {}, sequence {})",
                m.node.record, m.node.sequence
            ),
        )?;
        for (key, time) in [
            ("created", m.created),
            ("modified", m.modified),
            ("accessed", m.accessed),
            ("changed", m.changed),
        ] {
            if let Some(time) = time {
                let note = if time.zoned {
                    ""
                } else {
                    " (the guest's local time; --tz tells its zone)"
                };
                row(key, format!("{}{note}", zone.rfc3339(time)))?;
            }
        }
        if let Some(bits) = m.attributes {
            row(
                "attributes",
                format!("{bits:#x} {}", attribute_names(bits).join(" ")),
            )?;
        }
        if let Some(mode) = m.mode {
            row("mode", format!("{:04o}", mode & 0o7777))?;
        }
        if let Some((uid, gid)) = m.owner {
            row("owner", format!("{uid}:{gid}"))?;
        }
        if let Some(tag) = m.reparse_tag {
            row("reparse tag", format!("{tag:#010x}"))?;
        }
        if let Some(link) = &facts.link {
            row("target", format!("{} ({})", link.target, link.sort))?;
            if link.stored != link.target {
                row("  stored", link.stored.to_string())?;
            }
        }
        row("links", m.links.to_string())?;
        for name in &facts.names {
            row("  link", Name::from_bytes(name.as_slice()).to_string())?;
        }
        for stream in &facts.streams {
            row("stream", format!("{} ({} bytes)", stream.name, stream.size))?;
        }
        for (name, value) in &facts.xattrs {
            let shown = match printable(value) {
                Some(text) => format!("\"{text}\""),
                None => value.iter().take(32).map(|b| format!("{b:02x}")).collect(),
            };
            row("xattr", format!("{name} = {shown} ({} bytes)", value.len()))?;
        }
        if let Some(id) = &facts.object_id {
            row("object id", guid(id))?;
        }
        if let Some(security) = &facts.security {
            row("sddl", security.sddl.clone())?;
        }
        for e in facts.extents.iter().take(64) {
            let place = match e.place {
                Some(at) => format!("at {at} on the volume"),
                None => "a hole, or inside the record".to_owned(),
            };
            row("extent", format!("{} +{} {place}", e.offset, e.len))?;
        }
        if facts.extents.len() > 64 {
            row(
                "",
                format!(
                    "… {} extents in all; --json lists them",
                    facts.extents.len()
                ),
            )?;
        }
        for remark in &m.remarks {
            row("remark", remark.clone())?;
        }
        if let Some(e) = &m.refusal {
            row("unreadable", e.to_string())?;
        }
        Ok(())
    }
}
