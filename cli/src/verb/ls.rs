//! `ls`: what is in a directory of the tree.

use super::journal;
use crate::{
    args::{Global, GuestArgs, SourceArgs},
    exit::{Exit, Failure, tell_doubts, tell_path_error},
    names::{check_path, hex_if_needed, shown},
    output::{Out, human, table},
    source::open_tree,
    times::Zone,
    verb::entry::{EntryJson, ErrorJson, FactsJson, StreamJson, mode_text},
};
use clap::Args;
use disk_io::{DiskError, Result};
use guest_fs::{Entered, Metadata, Name, NodeKind, Stream};
use proxy::{Entry, Node, Tree, VolumeReport};
use serde::Serialize;
use std::{ffi::OsString, fmt::Write, ops::ControlFlow, os::unix::ffi::OsStrExt};

/// List volumes and directories
///
/// Without PATH the volumes are listed: name, drive letter, label, file system, size, used.
/// With -R every path below is printed in full, as cp takes it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit ls web01.vmdk                        the volumes
  vmdkit ls -l web01.vmdk /p1/Users
  vmdkit ls -R web01.vmdk /p1 | grep -i '\\.docx$'
  vmdkit ls -R --json web01.vmdk /p1 | jq -r 'select(.size > 1e9) | .path'
  vmdkit ls -R --meta web01.vmdk '/p1/$deleted'
  vmdkit ls --journal web01.vmdk /p1          what happened to files lately

Names that are not text are escaped on a terminal and in JSON (with name_hex beside), and
given out as they are to a pipe.")]
pub(crate) struct Ls {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    guest: GuestArgs,
    /// A path in the tree
    #[arg(value_name = "PATH", default_value = "/")]
    path: OsString,
    /// Attributes or mode, links, size, time of modification
    #[arg(short)]
    long: bool,
    /// Everything below, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// As in ls; hidden files are always shown
    #[arg(short, hide = true)]
    all: bool,
    /// The 8.3 names beside the long ones
    #[arg(long)]
    short_names: bool,
    /// Named streams under each file
    #[arg(long)]
    streams: bool,
    /// What the change journal of PATH's volume still tells (NTFS' $UsnJrnl), oldest first
    #[arg(long, conflicts_with_all = ["long", "recursive", "short_names", "streams"])]
    journal: bool,
    /// Print JSON: one document, with -R or --journal one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listing {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<Vec<VolumeJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<EntryJson>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorJson>,
}

#[derive(Serialize)]
pub(crate) struct VolumeJson {
    pub(crate) name: String,
    path: String,
    letter: Option<char>,
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label_hex: Option<String>,
    file_system: Option<&'static str>,
    pub(crate) uuid: Option<String>,
    size: u64,
    used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

impl VolumeJson {
    pub(crate) fn new(v: &VolumeReport) -> Self {
        let path = shown(v.path.as_bytes());
        let label = v.label.as_ref().map(Name::as_bytes);
        Self {
            name: path.trim_start_matches('/').to_owned(),
            path,
            letter: v.letter,
            label: label.map(shown),
            label_hex: label.and_then(hex_if_needed),
            file_system: v.kind.map(guest_fs::FsKind::as_str),
            uuid: v.uuid.clone(),
            size: v.len,
            used: v.used,
            error: v.why_not.as_ref().map(ErrorJson::new),
        }
    }
}

/// Lists and remembers whether something was missing.
struct Lister<'a> {
    ls: &'a Ls,
    tree: &'a Tree,
    zone: Zone,
    zone_given: bool,
    out: Out,
    missing: bool,
    /// The stream that the only thing listed is.
    stream: Option<Stream>,
}

impl Ls {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        check_path(&self.path)?;
        let tree = open_tree(&self.source, global, self.guest)?;
        let found = tree.resolve(self.path.as_bytes())?;
        for remark in &found.remarks {
            crate::output::warn(remark);
        }
        if self.journal {
            return journal::list(&tree, found.node, self.json, global);
        }
        let mut lister = Lister {
            ls: &self,
            tree: &tree,
            zone: global.zone(),
            zone_given: global.tz.is_some(),
            out: Out::new(),
            missing: tell_doubts(&found),
            stream: None,
        };
        if let Some(e) = tree.without_files(found.node) {
            return Err(e.into());
        }
        let metadata = tree.metadata(found.node)?;
        let mut path = found.path.as_bytes().to_vec();
        if metadata.kind != NodeKind::Directory || found.stream.is_some() {
            let mut kind = metadata.kind;
            if let Some(stream) = &found.stream {
                let streams = tree.streams(found.node)?;
                lister.stream = streams.into_iter().find(|s| s.name == *stream);
                path.push(b':');
                path.extend_from_slice(stream.as_bytes());
                kind = NodeKind::File;
            } else if let Some(remark) = tree.mount_point_remark(found.node) {
                crate::output::warn(format!("{remark}; PATH/ lists that"));
            }
            lister.only(&path, found.node, kind)?;
        } else if self.recursive {
            lister.below(&path, found.node, &mut Entered::default())?;
        } else if let Some(volumes) = tree.volume_level(found.node)? {
            lister.volumes(&path, &volumes)?;
        } else {
            lister.directory(&path, found.node)?;
        }
        let missing = lister.missing;
        lister.out.finish()?;
        Ok(Exit::partial_if(missing))
    }
}

impl Lister<'_> {
    fn volumes(&mut self, path: &[u8], volumes: &[proxy::VolumeReport]) -> Result<(), Failure> {
        if self.ls.json {
            let listing = Listing {
                path: shown(path),
                path_hex: None,
                volumes: Some(volumes.iter().map(VolumeJson::new).collect()),
                entries: None,
                errors: Vec::new(),
            };
            return self.out.document(&listing);
        }
        for line in volume_lines(volumes, self.ls.long) {
            self.out.line(line)?;
        }
        Ok(())
    }

    /// The entries of a directory by name, and what could not be listed.
    fn entries(&mut self, node: Node) -> Result<(Vec<Entry>, Vec<DiskError>)> {
        let (mut entries, mut errors) = (Vec::new(), Vec::new());
        self.tree.read_dir(node, &mut |entry| {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(e) => errors.push(e),
            }
            ControlFlow::Continue(())
        })?;
        errors.extend(self.tree.doubts_of_listing(node));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((entries, errors))
    }

    fn tell(&mut self, path: &[u8], e: &DiskError) {
        self.missing = true;
        tell_path_error(path, e);
    }

    fn directory(&mut self, path: &[u8], node: Node) -> Result<(), Failure> {
        let (entries, errors) = self.entries(node)?;
        for e in &errors {
            self.tell(path, e);
        }
        if self.ls.json {
            let mut all = Vec::with_capacity(entries.len());
            for entry in &entries {
                let path = join(path, entry.name.as_bytes());
                all.push(self.json(&path, entry.node, entry.kind, entry.short_name.as_ref()));
            }
            let listing = Listing {
                path: shown(path),
                path_hex: hex_if_needed(path),
                volumes: None,
                entries: Some(all),
                errors: errors.iter().map(ErrorJson::new).collect(),
            };
            return self.out.document(&listing);
        }
        for entry in &entries {
            let path = join(path, entry.name.as_bytes());
            let short = entry.short_name.as_ref();
            self.text(&path, entry.name.as_bytes(), entry.node, entry.kind, short)?;
        }
        Ok(())
    }

    /// Everything below a directory, in full paths.
    fn below(&mut self, path: &[u8], node: Node, entered: &mut Entered) -> Result<(), Failure> {
        if let Err(e) = entered.enter(self.tree.directory(node), path) {
            self.tell(path, &e);
            return Ok(());
        }
        match self.entries(node) {
            Ok((entries, errors)) => {
                for e in &errors {
                    self.tell(path, e);
                }
                for entry in entries {
                    let path = join(path, entry.name.as_bytes());
                    self.one(&path, entry.node, entry.kind, entry.short_name.as_ref())?;
                    if entry.kind == NodeKind::Directory {
                        self.below(&path, entry.node, entered)?;
                    }
                }
            }
            Err(e) => {
                self.tell(path, &e);
                entered.leave_unlisted();
                return Ok(());
            }
        }
        entered.leave();
        Ok(())
    }

    /// What is no directory, asked for by itself.
    fn only(&mut self, path: &[u8], node: Node, kind: NodeKind) -> Result<(), Failure> {
        if !self.ls.json || self.ls.recursive {
            return self.one(path, node, kind, None);
        }
        let listing = Listing {
            path: shown(path),
            path_hex: hex_if_needed(path),
            volumes: None,
            entries: Some(vec![self.json(path, node, kind, None)]),
            errors: Vec::new(),
        };
        self.out.document(&listing)
    }

    /// One object by its full path.
    fn one(
        &mut self,
        path: &[u8],
        node: Node,
        kind: NodeKind,
        short: Option<&Name>,
    ) -> Result<(), Failure> {
        if self.ls.json {
            let json = self.json(path, node, kind, short);
            return self.out.object(&json);
        }
        self.text(path, path, node, kind, short)
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let mut metadata = self.tree.metadata(node)?;
        self.zone.settle_all(&mut metadata, self.zone_given);
        if let Some(stream) = &self.stream {
            metadata.kind = NodeKind::File;
            (metadata.size, metadata.allocated) = (stream.size, stream.allocated);
        }
        Ok(metadata)
    }

    fn json(&mut self, path: &[u8], node: Node, kind: NodeKind, short: Option<&Name>) -> EntryJson {
        let mut json = EntryJson::new(path, kind);
        json.short(short);
        match self.metadata(node) {
            Ok(metadata) => {
                json.facts = Some(FactsJson::new(&metadata, self.tree.inode(node), &self.zone));
                json.error = metadata.refusal.as_ref().map(ErrorJson::new);
            }
            Err(e) => {
                self.tell(path, &e);
                json.error = Some(ErrorJson::new(&e));
            }
        }
        if kind == NodeKind::Symlink {
            match self.tree.read_link(node) {
                Ok(link) => json.link(&link),
                Err(e) => json.error = Some(ErrorJson::new(&e)),
            }
        }
        if self.ls.streams {
            match self.tree.streams(node) {
                Ok(streams) => json.streams = Some(streams.iter().map(StreamJson::new).collect()),
                Err(e) => self.tell(path, &e),
            }
        }
        json
    }

    fn text(
        &mut self,
        path: &[u8],
        name: &[u8],
        node: Node,
        kind: NodeKind,
        short: Option<&Name>,
    ) -> Result<(), Failure> {
        let mut before = String::new();
        let mut after = String::new();
        if self.ls.long {
            match self.metadata(node) {
                Ok(m) => {
                    let time = m
                        .modified
                        .map_or_else(|| "-".into(), |t| self.zone.short(t));
                    before = String::with_capacity(64);
                    let mode = mode_text(&m);
                    let written = write!(
                        before,
                        "{mode:<10} {:>3} {:>14} {time:>20}  ",
                        m.links, m.size
                    );
                    debug_assert!(written.is_ok());
                }
                Err(e) => {
                    self.tell(path, &e);
                    before = format!("{:<10} {:>3} {:>14} {:>20}  ", "?", "?", "?", "?");
                }
            }
            if kind == NodeKind::Symlink
                && let Ok(link) = self.tree.read_link(node)
            {
                after = format!(" -> {}", link.target);
            }
        }
        if self.ls.short_names {
            let short = short.map(ToString::to_string).unwrap_or_default();
            before.push_str(&format!("{short:<12}  "));
        }
        self.out.name(&before, name, &after)?;
        if self.ls.streams {
            match self.tree.streams(node) {
                Ok(streams) => {
                    for stream in streams {
                        let mut full = name.to_vec();
                        full.push(b':');
                        full.extend_from_slice(stream.name.as_bytes());
                        let before = match self.ls.long {
                            true => {
                                format!("{:<10} {:>3} {:>14} {:>20}  ", "", "", stream.size, "")
                            }
                            false => String::new(),
                        };
                        self.out.name(&before, &full, "")?;
                    }
                }
                Err(e) => self.tell(path, &e),
            }
        }
        Ok(())
    }
}

/// The table of volumes.
pub(crate) fn volume_lines(volumes: &[VolumeReport], exact: bool) -> Vec<String> {
    let size = |n: u64| if exact { n.to_string() } else { human(n) };
    let mut rows = vec![
        ["NAME", "LETTER", "LABEL", "FILE SYSTEM", "SIZE", "USED", ""]
            .map(String::from)
            .to_vec(),
    ];
    for v in volumes {
        let dash = || "-".to_owned();
        rows.push(vec![
            shown(v.path.as_bytes()).trim_start_matches('/').to_owned(),
            v.letter.map_or_else(dash, |l| format!("{l}:")),
            v.label.as_ref().map_or_else(dash, ToString::to_string),
            v.kind.map_or_else(dash, |k| k.to_string()),
            size(v.len),
            v.used.map_or_else(dash, size),
            match &v.why_not {
                Some(e) => format!("cannot be entered: {}", reason(e)),
                None => String::new(),
            },
        ]);
    }
    table(&rows, &[4, 5])
}

/// The short reason why a volume cannot be entered.
fn reason(e: &DiskError) -> String {
    match e.difference() {
        (_, Some(found)) => found.to_owned(),
        _ => e.to_string(),
    }
}

pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    if out.last() != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(name);
    out
}
