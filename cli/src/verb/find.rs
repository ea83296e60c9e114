//! `find`: objects by name, size, time and type.

use crate::{
    args::{Global, GuestArgs, SourceArgs},
    exit::{Exit, Failure, tell_doubts, tell_error},
    names::check_path,
    output::{Out, warn},
    source::open_tree,
    times::Zone,
    verb::entry::{EntryJson, ErrorJson, FactsJson},
};
use clap::{Args, ValueEnum};
use disk_io::DiskError;
use globset::{GlobBuilder, GlobMatcher};
use guest_fs::{Metadata, Name, NodeKind, Timestamp};
use proxy::{Below, Tree};
use std::{
    ffi::{OsStr, OsString},
    ops::ControlFlow,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// Find files and directories by name, size, time and type
///
/// What is found below PATH (or on all volumes) is printed with its full path, as cp takes
/// it, in no particular order. All conditions must hold. A whole NTFS volume is answered by
/// reading its file table once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit find web01.vmdk --iname '*.docx'
  vmdkit find web01.vmdk /p1/Users -name 'report*' -type f -size +1M
  vmdkit find web01.vmdk /p1 --newer 2026-03-01 --older '2026-03-02 12:00'
  vmdkit find web01.vmdk --iname '*.pst' -0 |
      vmdkit cp --files-from - -0 web01.vmdk ./out
  vmdkit find --json web01.vmdk --size +1G | jq -r .path

--size counts bytes, or with k, M, G, T units of 1024: +N is more than that, -N less, and N
alone what takes N units, the last begun one counted. The spellings of find(1) with one dash
(-name, -iname, -size, -newer, -type, -print0) are taken too.")]
pub(crate) struct Find {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    guest: GuestArgs,
    /// A directory in the tree
    #[arg(value_name = "PATH", default_value = "/")]
    path: OsString,
    /// The name matches this pattern (*, ?, [a-z]); in quotes, for the shell's sake
    #[arg(long, value_name = "GLOB")]
    name: Vec<String>,
    /// The same without regard to case
    #[arg(long, value_name = "GLOB")]
    iname: Vec<String>,
    /// Files of more (+), less (-) or exactly so many bytes
    #[arg(long, value_name = "[+-]N[kMGT]", value_parser = Size::parse, allow_hyphen_values = true)]
    size: Vec<Size>,
    /// Modified after this time, or after this file of the host was
    #[arg(long, value_name = "TIME|FILE")]
    newer: Option<String>,
    /// Modified before this time, or before this file of the host was
    #[arg(long, value_name = "TIME|FILE")]
    older: Option<String>,
    /// Only files (f), directories (d) or links (l); several may be given, with commas
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    kind: Vec<Kind>,
    /// End each path with a zero byte instead of a new line
    #[arg(short = '0', long = "print0")]
    zero: bool,
    /// Print JSON, one object a line
    #[arg(long, conflicts_with = "zero")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(name = "f")]
    File,
    #[value(name = "d")]
    Directory,
    #[value(name = "l")]
    Link,
}

/// A condition on the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    More(u64),
    Less(u64),
    Units(u64, u64),
}

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?}: expected a number, with + or - before and k, M, G or T behind it if wanted"
            )
        };
        let (sign, rest) = match text.as_bytes().first() {
            Some(sign @ (b'+' | b'-')) => (Some(*sign), text.get(1..).unwrap_or_default()),
            _ => (None, text),
        };
        let (number, unit) = match rest.as_bytes().last() {
            Some(b'k' | b'K') => (rest.get(..rest.len() - 1), 1u64 << 10),
            Some(b'M') => (rest.get(..rest.len() - 1), 1 << 20),
            Some(b'G') => (rest.get(..rest.len() - 1), 1 << 30),
            Some(b'T') => (rest.get(..rest.len() - 1), 1 << 40),
            // Bytes, as find(1) spells them.
            Some(b'c') => (rest.get(..rest.len() - 1), 1),
            _ => (Some(rest), 1),
        };
        let number: u64 = number.and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        let bytes = number.checked_mul(unit).ok_or_else(wrong)?;
        Ok(match sign {
            Some(b'+') => Self::More(bytes),
            Some(_) => Self::Less(bytes),
            None => Self::Units(number, unit),
        })
    }

    fn holds(self, size: u64) -> bool {
        match self {
            Self::More(n) => size > n,
            Self::Less(n) => size < n,
            Self::Units(n, unit) => size.div_ceil(unit) == n,
        }
    }
}

/// The conditions, ready to be asked.
struct Conditions<'a> {
    find: &'a Find,
    names: Vec<GlobMatcher>,
    newer: Option<(i64, u32)>,
    older: Option<(i64, u32)>,
    zone: Zone,
    zone_given: bool,
}

impl Conditions<'_> {
    fn hold(&self, name: &Name, metadata: &Metadata) -> bool {
        let kind = |k: &Kind| match k {
            Kind::File => metadata.kind == NodeKind::File,
            Kind::Directory => metadata.kind == NodeKind::Directory,
            Kind::Link => metadata.kind == NodeKind::Symlink,
        };
        if !self.find.kind.is_empty() && !self.find.kind.iter().any(kind) {
            return false;
        }
        let path = Path::new(OsStr::from_bytes(name.as_bytes()));
        if !self.names.iter().all(|glob| glob.is_match(path)) {
            return false;
        }
        if !self.find.size.is_empty()
            && (metadata.kind != NodeKind::File
                || !self.find.size.iter().all(|s| s.holds(metadata.size)))
        {
            return false;
        }
        if self.newer.is_none() && self.older.is_none() {
            return true;
        }
        let Some(time) = metadata.modified else {
            return false;
        };
        let time: Timestamp = self.zone.settle(time, self.zone_given);
        let time = (time.seconds, time.nanos);
        self.newer.is_none_or(|t| time > t) && self.older.is_none_or(|t| time < t)
    }
}

impl Find {
    fn conditions(&self, global: &Global) -> Result<Conditions<'_>, Failure> {
        let zone = global.zone();
        let mut names = Vec::new();
        for (globs, fold) in [(&self.name, false), (&self.iname, true)] {
            for glob in globs {
                let built = GlobBuilder::new(glob).case_insensitive(fold).build();
                let built = built
                    .map_err(|e| Failure::usage(format!("the pattern {glob:?}: {}", e.kind())))?;
                names.push(built.compile_matcher());
            }
        }
        let time = |text: &Option<String>| text.as_deref().map(|t| when(t, &zone)).transpose();
        Ok(Conditions {
            find: self,
            names,
            newer: time(&self.newer)?,
            older: time(&self.older)?,
            zone_given: global.tz.is_some(),
            zone,
        })
    }

    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        check_path(&self.path)?;
        let conditions = self.conditions(global)?;
        let tree = open_tree(&self.source, global, self.guest)?;
        let found = tree.resolve(self.path.as_bytes())?;
        for remark in &found.remarks {
            warn(remark);
        }
        if let Some(e) = tree.without_files(found.node) {
            return Err(e.into());
        }
        let path = found.path.as_bytes().to_vec();
        let metadata = tree.metadata(found.node)?;
        if found.stream.is_some() || metadata.kind != NodeKind::Directory {
            let e = DiskError::not_found("finding").file(found.path);
            let mut e = e.expected("a directory").found("something else");
            if let Some(remark) = tree.mount_point_remark(found.node) {
                e = e.hint(format!("{remark}; PATH/ begins there"));
            }
            return Err(e.into());
        }
        let mut printer = Printer {
            find: &self,
            tree: &tree,
            zone: &conditions.zone,
            zone_given: conditions.zone_given,
            out: Out::new(),
        };
        let mut missing = tell_doubts(&found);
        let mut failed = None;
        let wanted = |name: &Name, metadata: &Metadata| conditions.hold(name, metadata);
        let _ = tree.find(found.node, &path, &wanted, &mut |below| {
            let printed = match below {
                Ok(below) => printer.print(below),
                Err(e) => {
                    missing = true;
                    tell_error(&e);
                    Ok(())
                }
            };
            match printed {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(e) = failed {
            return Err(e);
        }
        printer.out.finish()?;
        Ok(Exit::partial_if(missing))
    }
}

struct Printer<'a> {
    find: &'a Find,
    tree: &'a Tree,
    zone: &'a Zone,
    zone_given: bool,
    out: Out,
}

impl Printer<'_> {
    fn print(&mut self, below: Below) -> Result<(), Failure> {
        if self.find.zero {
            return self.out.zero_ended(&below.path);
        }
        if !self.find.json {
            return self.out.name("", &below.path, "");
        }
        let mut metadata = below.metadata;
        self.zone.settle_all(&mut metadata, self.zone_given);
        let mut json = EntryJson::new(&below.path, metadata.kind);
        if metadata.kind == NodeKind::Symlink {
            match self.tree.read_link(below.node) {
                Ok(link) => json.link(&link),
                Err(e) => json.error = Some(ErrorJson::new(&e)),
            }
        }
        if let Some(e) = &metadata.refusal {
            json.error = Some(ErrorJson::new(e));
        }
        json.facts = Some(FactsJson::new(
            &metadata,
            self.tree.inode(below.node),
            self.zone,
        ));
        self.out.object(&json)
    }
}

/// A time as the user typed it, or of a file of the host: seconds since 1970 and
/// nanoseconds.
fn when(text: &str, zone: &Zone) -> Result<(i64, u32), Failure> {
    if let Some(time) = zone.parse(text) {
        return Ok(time);
    }
    match std::fs::metadata(text) {
        Ok(m) => Ok((m.mtime(), u32::try_from(m.mtime_nsec()).unwrap_or(0))),
        Err(_) => Err(Failure::usage_with(
            format!("{text:?} is neither a time nor a file that can be looked at"),
            "times are written 2026-03-01, '2026-03-01 12:30', 2026-03-01T12:30:00Z",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes() {
        let holds = |text: &str, size| Size::parse(text).unwrap().holds(size);
        assert!(holds("0", 0) && holds("5", 5) && !holds("5", 6));
        assert!(holds("+5", 6) && !holds("+5", 5) && holds("-5", 4) && !holds("-5", 5));
        // As find(1): what needs three units.
        assert!(holds("3k", 2049) && holds("3k", 3072) && !holds("3k", 3073));
        assert!(holds("+1M", (1 << 20) + 1) && !holds("+1M", 1 << 20) && holds("7c", 7));
        for bad in ["", "+", "k", "1x", "--1", "99999999999T"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
    }
}
