//! `ls`: what is in a directory of the tree.

use super::{
    gather::{Found, Gather, Item, Walker},
    journal,
};
use crate::{
    args::{Global, GuestArgs, SourceArgs},
    exit::{Exit, Failure, tell_path_error},
    names::{check_path, hex_if_needed, shown},
    output::{Out, human, table},
    source::open_tree,
    times::Zone,
    verb::entry::{EntryJson, ErrorJson, FactsJson, StreamJson, mode_text},
};
use clap::Args;
use disk_io::DiskError;
use guest_fs::{Metadata, Name, NodeKind, Stream};
use proxy::{Node, Tree, VolumeReport};
use serde::Serialize;
use std::{ffi::OsString, fmt::Write, os::unix::ffi::OsStrExt};

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
            missing: false,
            stream: None,
        };
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
            }
            lister.only(&path, found.node, kind)?;
        } else if self.recursive {
            lister.below(&path, found.node)?;
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

impl<'a> Lister<'a> {
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

    fn tell(&mut self, path: &[u8], e: &DiskError) {
        self.missing = true;
        tell_path_error(path, e);
    }

    fn directory(&mut self, path: &[u8], node: Node) -> Result<(), Failure> {
        let gather = self.gather();
        let (entries, errors) = gather.entries(node)?;
        for e in &errors {
            self.tell(path, e);
        }
        if self.ls.json {
            let mut all = Vec::with_capacity(entries.len());
            for entry in &entries {
                let path = join(path, entry.name.as_bytes());
                all.push(self.json(&gather.found(path, entry)));
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
            self.text(&gather.found(path, entry), entry.name.as_bytes())?;
        }
        Ok(())
    }

    /// Everything below a directory, in full paths. One thread reads and another prints.
    fn below(&mut self, path: &[u8], node: Node) -> Result<(), Failure> {
        let (walker, receiver) = Walker::new(self.gather());
        std::thread::scope(|scope| {
            let walking = scope.spawn(move || walker.run(path, node));
            let mut printed = Ok(());
            for item in receiver.iter().flatten() {
                printed = match item {
                    Item::Found(found) => self.one(&found),
                    Item::Lost(path, e) => {
                        self.tell(&path, &e);
                        Ok(())
                    }
                };
                if printed.is_err() {
                    break;
                }
            }
            // The walker stops when nobody takes what it finds.
            drop(receiver);
            match walking.join() {
                Ok(()) => printed,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn gather(&self) -> Gather<'a> {
        Gather {
            tree: self.tree,
            links: self.ls.json || self.ls.long,
            metadata: self.ls.json || self.ls.long,
            streams: self.ls.streams,
        }
    }

    /// What is no directory, asked for by itself.
    fn only(&mut self, path: &[u8], node: Node, kind: NodeKind) -> Result<(), Failure> {
        let found = self.gather().object(path.to_vec(), node, kind, None);
        if !self.ls.json || self.ls.recursive {
            return self.one(&found);
        }
        let listing = Listing {
            path: shown(path),
            path_hex: hex_if_needed(path),
            volumes: None,
            entries: Some(vec![self.json(&found)]),
            errors: Vec::new(),
        };
        self.out.document(&listing)
    }

    /// One object by its full path.
    fn one(&mut self, found: &Found) -> Result<(), Failure> {
        if self.ls.json {
            let json = self.json(found);
            return self.out.object(&json);
        }
        self.text(found, &found.path)
    }

    /// What is known of an object, as it is shown.
    fn settled(&self, metadata: &Metadata) -> Metadata {
        let mut metadata = metadata.clone();
        self.zone.settle_all(&mut metadata, self.zone_given);
        if let Some(stream) = &self.stream {
            metadata.kind = NodeKind::File;
            (metadata.size, metadata.allocated) = (stream.size, stream.allocated);
        }
        metadata
    }

    fn json(&mut self, found: &Found) -> EntryJson {
        let mut json = EntryJson::new(&found.path, found.kind);
        json.short(found.short.as_ref());
        match &found.metadata {
            Some(Ok(metadata)) => {
                let metadata = self.settled(metadata);
                let inode = self.tree.inode(found.node);
                json.facts = Some(FactsJson::new(&metadata, inode, &self.zone));
                json.error = metadata.refusal.as_ref().map(ErrorJson::new);
            }
            Some(Err(e)) => {
                self.tell(&found.path, e);
                json.error = Some(ErrorJson::new(e));
            }
            None => {}
        }
        match &found.link {
            Some(Ok(link)) => json.link(link),
            Some(Err(e)) => json.error = Some(ErrorJson::new(e)),
            None => {}
        }
        match &found.streams {
            Some(Ok(streams)) => {
                json.streams = Some(streams.iter().map(StreamJson::new).collect());
            }
            Some(Err(e)) => self.tell(&found.path, e),
            None => {}
        }
        json
    }

    /// A line, and one for each stream; `name` is what the object is called in it.
    fn text(&mut self, found: &Found, name: &[u8]) -> Result<(), Failure> {
        let mut before = String::new();
        match &found.metadata {
            Some(Ok(metadata)) if self.ls.long => {
                let m = self.settled(metadata);
                let time = m
                    .modified
                    .map_or_else(|| "-".into(), |t| self.zone.short(t));
                before.reserve(64);
                let mode = mode_text(&m);
                let written = write!(
                    before,
                    "{mode:<10} {:>3} {:>14} {time:>20}  ",
                    m.links, m.size
                );
                debug_assert!(written.is_ok());
            }
            Some(Err(e)) if self.ls.long => {
                self.tell(&found.path, e);
                before = format!("{:<10} {:>3} {:>14} {:>20}  ", "?", "?", "?", "?");
            }
            _ => {}
        }
        let after = match &found.link {
            Some(Ok(link)) if self.ls.long => format!(" -> {}", link.target),
            _ => String::new(),
        };
        if self.ls.short_names {
            let short = found.short.as_ref().map(ToString::to_string);
            before.push_str(&format!("{:<12}  ", short.unwrap_or_default()));
        }
        self.out.name(&before, name, &after)?;
        match &found.streams {
            Some(Ok(streams)) => {
                for stream in streams {
                    let full = [name, b":", stream.name.as_bytes()].concat();
                    let before = match self.ls.long {
                        true => {
                            format!("{:<10} {:>3} {:>14} {:>20}  ", "", "", stream.size, "")
                        }
                        false => String::new(),
                    };
                    self.out.name(&before, &full, "")?;
                }
            }
            Some(Err(e)) => self.tell(&found.path, e),
            None => {}
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
