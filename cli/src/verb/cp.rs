//! `cp`: files and trees out of a guest.

use crate::{
    args::{FilterArgs, Global, GuestArgs, SourceArgs},
    exit::{Exit, Failure, split_hint, tell_doubt, tell_path_error},
    guard,
    names::{NameJson, check_path, hex_if_needed, shown},
    output::{Out, human, say},
    paths,
    progress::Bar,
    signals,
    source::{Restorable, open_tree},
    verb::{entry::ErrorJson, kept::Kept},
};
use clap::{Args, ValueEnum};
use convert::{
    Progress, Sparse,
    restore::{
        self, Acl, Destination, Event, Observer, Options, Overwrite, Record, Streams, Summary,
    },
};
use disk_io::DiskError;
use guest_fs::Name;
use serde::Serialize;
use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    sync::Mutex,
};

/// Restore files and directories
///
/// DEST is as in cp: a directory that exists receives the last component of every PATH,
/// otherwise it is the new name of the only PATH. Times are kept, holes stay holes, hard
/// links and symbolic links stay links. Files appear under their names when they are
/// complete. What cannot be restored is named, and the rest goes on.
#[derive(Debug, Args)]
#[command(override_usage = "vmdkit cp [OPTIONS] <SOURCE> <PATH>... <DEST>")]
#[command(after_help = "\
Examples:
  vmdkit cp web01.vmdk /p1/Users/anna/report.docx .
  vmdkit cp -r web01-000002.vmdk /p1/Users/anna ./restored
  vmdkit cp -r --include '*.docx' --ignore-case web01.vmdk /p1/Users ./docs
  vmdkit cp -r --dry-run --overwrite if-changed web01.vmdk /p1/data /srv/data
  vmdkit cp -a --acl sddl --streams files --manifest files.json web01.vmdk /p1/data /srv
  vmdkit ls -R web01.vmdk /p1 | grep invoice | vmdkit cp --files-from - web01.vmdk ./out

A PATH is literal, never a pattern. A pattern with a '/' is matched against whole paths as
ls prints them (or their ends), any other against the last component; * and ? do not match
'/', ** does. Exit code 3: something was skipped or could not be restored, and was named.")]
pub(crate) struct Cp {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    guest: GuestArgs,
    /// Paths in the tree, as ls prints them, and at last the destination
    #[arg(value_name = "PATH DEST", required = true, num_args = 1.., trailing_var_arg = false)]
    paths: Vec<OsString>,
    /// Directories too, with everything in them
    #[arg(long, short, visible_short_alias = 'R')]
    recursive: bool,
    /// Files that exist: never, if-newer, if-changed or always replaced
    #[arg(long, value_name = "WHEN")]
    overwrite: Option<Overwrite>,
    /// Say what would be restored, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// auto: holes stay holes; always: zeros in data become holes too; never: all is written
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = sparse)]
    sparse: Sparse,
    /// NTFS streams: as extended attributes user.NAME, as files FILE:NAME, or left behind
    #[arg(long, value_name = "xattr|files|none", default_value = "none", value_parser = streams)]
    streams: Streams,
    /// NTFS access control: left behind; written as SDDL and for icacls /restore into DEST
    /// (vmdkit-acl.jsonl and .icacls); or set, where DEST is mounted by ntfs-3g
    #[arg(long, value_enum, value_name = "none|sddl|xattr", default_value_t = AclArg::None, hide_default_value = true, hide_possible_values = true)]
    acl: AclArg,
    /// Write what was restored to FILE as JSON: SHA-256, all times to 100 ns, attributes …
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Paths from FILE, one a line; - is standard input
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
    /// Paths of --files-from end in NUL instead of a newline
    #[arg(short = '0', long, requires = "files_from")]
    null: bool,
    /// Keep the directories of each PATH below DEST
    #[arg(long)]
    parents: bool,
    /// As -r -p
    #[arg(long, short)]
    archive: bool,
    /// Keep owners (as root), set-id bits and the read-only attribute too
    #[arg(long, short)]
    preserve: bool,
    /// As --overwrite never, and what exists is no reason for exit code 3
    #[arg(long, short, conflicts_with = "overwrite")]
    no_clobber: bool,
    /// As --overwrite if-newer
    #[arg(long, short, conflicts_with_all = ["overwrite", "no_clobber"])]
    update: bool,
    /// Threads; one for every core if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Name every file
    #[arg(long, short)]
    verbose: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AclArg {
    None,
    Sddl,
    Xattr,
}

fn sparse(text: &str) -> Result<Sparse, String> {
    match text {
        "auto" => Ok(Sparse::Auto),
        "always" => Ok(Sparse::Always),
        "never" => Ok(Sparse::Never),
        _ => Err("expected auto, always or never".into()),
    }
}

pub(crate) fn streams(text: &str) -> Result<Streams, String> {
    match text {
        "xattr" => Ok(Streams::Xattr),
        "files" => Ok(Streams::Files),
        "none" => Ok(Streams::None),
        _ => Err("expected xattr, files or none".into()),
    }
}

#[derive(Serialize)]
struct Json<'a> {
    destination: String,
    dry_run: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    bytes: u64,
    streams_left: u64,
    skipped: Vec<PathJson>,
    failed: Vec<PathJson>,
    doubtful: Vec<PathJson>,
    /// Not restored, since there is nothing to them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<PathJson>,
    renamed: Vec<PathJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    restored: Vec<PathJson>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct PathJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "as")]
    renamed: Option<NameJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

impl PathJson {
    fn new(path: &[u8]) -> Self {
        Self {
            path: shown(path),
            path_hex: hex_if_needed(path),
            reason: None,
            error: None,
            renamed: None,
            size: None,
        }
    }
}

/// Tells events as they come, and keeps them for JSON.
struct Teller<'a> {
    cp: &'a Cp,
    quiet: bool,
    bar: Bar,
    lists: Mutex<Lists>,
    kept: Option<Mutex<Kept>>,
}

#[derive(Default)]
struct Lists {
    skipped: Vec<PathJson>,
    failed: Vec<PathJson>,
    doubtful: Vec<PathJson>,
    left: Vec<PathJson>,
    renamed: Vec<PathJson>,
    restored: Vec<PathJson>,
    /// Why a line of standard output was lost.
    output: Option<io::Error>,
}

impl Progress for Teller<'_> {
    fn advance(&self, bytes: u64) {
        self.bar.advance(bytes);
    }
    fn cancelled(&self) -> bool {
        self.bar.cancelled()
    }
}

impl Observer for Teller<'_> {
    fn found(&self, bytes: u64) {
        self.bar.grow(bytes);
    }

    fn kept(&self, record: &Record<'_>) {
        if let Some(kept) = &self.kept {
            kept.lock().unwrap_or_else(|e| e.into_inner()).add(record);
        }
    }

    fn event(&self, event: Event<'_>) {
        let mut lists = self.lists.lock().unwrap_or_else(|e| e.into_inner());
        let json = self.cp.json;
        let name = |p: &[u8]| Name::from_bytes(p).to_string();
        match event {
            Event::Restored { path, bytes } => {
                if json && (self.cp.verbose || self.cp.dry_run) {
                    let mut one = PathJson::new(path);
                    one.size = Some(bytes);
                    lists.restored.push(one);
                } else if self.cp.verbose || (self.cp.dry_run && !self.quiet) {
                    self.bar.above(|| {
                        let line = format!("{}\n", name(path));
                        if let Err(e) = io::stdout().write_all(line.as_bytes()) {
                            lists.output.get_or_insert(e);
                        }
                    });
                }
            }
            Event::Skipped { path, reason } => {
                if json {
                    let mut one = PathJson::new(path);
                    one.reason = Some(reason.to_owned());
                    lists.skipped.push(one);
                } else if !self.quiet {
                    self.bar
                        .above(|| say(format_args!("skipped {}: {reason}", name(path))));
                }
            }
            Event::Failed { path, error } => {
                self.bar.above(|| tell_path_error(path, error));
                if json {
                    let mut one = PathJson::new(path);
                    one.error = Some(ErrorJson::new(error));
                    lists.failed.push(one);
                }
            }
            Event::Left { path, why } => {
                if json {
                    let mut one = PathJson::new(path);
                    one.reason = Some(why.to_owned());
                    lists.left.push(one);
                } else if !self.quiet {
                    self.bar
                        .above(|| say(format_args!("note: {}: {why}", name(path))));
                }
            }
            Event::Doubtful { path, why } => {
                self.bar.above(|| tell_doubt(path, why));
                if json {
                    let mut one = PathJson::new(path);
                    one.reason = Some(why.to_owned());
                    lists.doubtful.push(one);
                }
            }
            Event::Renamed { path, name: to } => {
                if json {
                    let mut one = PathJson::new(path);
                    one.renamed = Some(NameJson::new(to));
                    lists.renamed.push(one);
                } else {
                    self.bar
                        .above(|| say(format_args!("renamed {} to {}", name(path), name(to))));
                }
            }
        }
    }
}

impl Cp {
    pub(crate) fn run(mut self, global: &Global) -> Result<Exit, Failure> {
        let Some(dest) = self.paths.pop().map(PathBuf::from) else {
            return Err(Failure::usage("no destination is given"));
        };
        for path in &self.paths {
            check_path(path)?;
        }
        if let Some(list) = &self.files_from {
            self.paths.extend(read_list(list, self.null)?);
            if self.paths.is_empty() {
                say(format_args!(
                    "vmdkit: {}: nothing to restore: the list has no paths",
                    list.display()
                ));
                return Ok(Exit::Failed);
            }
        }
        if self.paths.is_empty() {
            return Err(Failure::usage_with(
                format!("no destination is given after {}", dest.display()),
                format!(
                    "vmdkit cp {} {} .",
                    self.source.source.display(),
                    dest.display()
                ),
            ));
        }
        let filter = self.filter.filter()?;
        let place =
            Destination::new(&dest, self.paths.len(), self.parents).map_err(|e| usage(&e))?;
        let tree = open_tree(&self.source, global, self.guest)?;
        signals::watch();
        allow_many_files();

        let protected = guard::protected_tree(&tree);
        if let Some(manifest) = &self.manifest {
            guard::check_tree(manifest, &tree)?;
        }
        if self.acl == AclArg::Xattr && !is_fuse(&place.root) {
            return Err(Failure::usage_with(
                format!(
                    "{} is not on a file system that ntfs-3g mounted: it takes no access control of Windows",
                    place.root.display()
                ),
                "--acl sddl writes it to a file instead",
            ));
        }
        let sddl = self.acl == AclArg::Sddl;
        let kept = match (self.manifest.is_some() || sddl) && !self.dry_run {
            true => Some(Mutex::new(Kept::create(
                self.manifest.as_deref(),
                &self.source.source,
                &place.root,
                sddl,
                global.zone(),
            )?)),
            false => None,
        };
        let teller = Teller {
            kept,
            quiet: global.quiet,
            bar: Bar::new(global, 0),
            lists: Mutex::default(),
            cp: &self,
        };
        let mut unresolved = 0;
        let named = paths::resolve(&tree, &self.paths, "restoring", &mut |path, error| {
            teller.event(Event::Failed { path, error });
            unresolved += 1;
        })?;
        let mut doubtful = 0;
        for (path, why) in named.iter().flat_map(|n| &n.doubts) {
            let path = path.as_bytes();
            teller.event(Event::Doubtful { path, why });
            doubtful += 1;
        }
        let (items, left) = place.place(named.into_iter().map(|n| (n.path, n.node, n.contents)));
        for (path, error) in &left {
            teller.event(Event::Failed { path, error });
        }
        let options = Options {
            recursive: self.recursive || self.archive,
            overwrite: match (self.overwrite, self.update) {
                (Some(when), _) => when,
                (None, true) => Overwrite::IfNewer,
                (None, false) => Overwrite::Never,
            },
            dry_run: self.dry_run,
            sparse: self.sparse,
            streams: self.streams,
            preserve: self.preserve || self.archive,
            filter,
            workers: self.jobs,
            acl: match self.acl {
                AclArg::None => Acl::None,
                AclArg::Sddl => Acl::Told,
                AclArg::Xattr => Acl::Xattr,
            },
            records: teller.kept.is_some(),
            protected,
        };
        let source = Restorable {
            tree: &tree,
            zone: global.zone(),
            zone_given: global.tz.is_some(),
        };
        let (mut summary, result) =
            restore::restore(&source, &place.root, &items, &options, &teller);
        let was_told = summary.failed > 0;
        summary.failed += unresolved + left.len() as u64;
        summary.doubtful += doubtful;
        let Teller {
            bar, lists, kept, ..
        } = teller;
        drop(bar);
        // What could not be kept is a failure of its own, after all others are told.
        let kept = kept.filter(|_| signals::caught().is_none()).map(|kept| {
            let kept = kept.into_inner().unwrap_or_else(|e| e.into_inner());
            kept.finish(&summary)
        });
        let mut lists = lists.into_inner().unwrap_or_else(|e| e.into_inner());
        let lost = lists.output.take();
        self.tell(global, &dest, &summary, lists, tree.warnings())?;
        match result {
            // It was named with the file that met it.
            Err(_) if was_told && signals::caught().is_none() => {
                say("vmdkit: nothing more could be restored after that");
                return Ok(Exit::Failed);
            }
            result => result?,
        }
        if let Some(e) = lost.filter(|e| e.kind() != io::ErrorKind::BrokenPipe) {
            return Err(e.into());
        }
        if let Some(n) = signals::caught() {
            return Ok(Exit::Signal(n));
        }
        if let Some(Err(e)) = kept {
            return Err(e.into());
        }
        let explicit = self.overwrite.is_some() || self.no_clobber || self.update;
        let partial = summary.failed + summary.doubtful > 0 || (summary.skipped > 0 && !explicit);
        let nothing = summary.files + summary.directories + summary.symlinks + summary.skipped == 0;
        Ok(match (summary.failed > 0, nothing) {
            (true, true) => Exit::Failed,
            _ => Exit::partial_if(partial),
        })
    }

    fn tell(
        &self,
        global: &Global,
        dest: &std::path::Path,
        s: &Summary,
        lists: Lists,
        warnings: &[String],
    ) -> Result<(), Failure> {
        if self.json {
            let mut out = Out::new();
            out.document(&Json {
                destination: dest.display().to_string(),
                dry_run: self.dry_run,
                files: s.files,
                directories: s.directories,
                symlinks: s.symlinks,
                bytes: s.bytes,
                streams_left: s.streams_left,
                skipped: lists.skipped,
                failed: lists.failed,
                doubtful: lists.doubtful,
                left: lists.left,
                renamed: lists.renamed,
                restored: lists.restored,
                warnings,
            })?;
            return out.finish();
        }
        if global.quiet {
            return Ok(());
        }
        let many = s.files + s.directories + s.symlinks > 1;
        let some = s.files + s.directories + s.symlinks + s.skipped > 0;
        if many || self.dry_run || (s.failed + s.skipped + s.doubtful > 0 && some) {
            let verb = if self.dry_run {
                "would restore"
            } else {
                "restored"
            };
            let mut parts = vec![format!(
                "{} ({})",
                count(s.files, "file", "files"),
                human(s.bytes)
            )];
            if s.directories > 0 {
                parts.push(count(s.directories, "directory", "directories"));
            }
            if s.symlinks > 0 {
                parts.push(count(s.symlinks, "symbolic link", "symbolic links"));
            }
            let mut line = format!("{verb} {}", parts.join(", "));
            if s.skipped > 0 {
                line.push_str(&format!("; skipped {}", s.skipped));
            }
            if s.failed > 0 {
                line.push_str(&format!("; failed {}", s.failed));
            }
            if s.doubtful > 0 {
                line.push_str(&format!("; doubtful {}", s.doubtful));
            }
            say(line);
        }
        if s.skipped > 0 && self.overwrite.is_none() && !self.no_clobber && !self.update {
            say("  hint: --overwrite if-newer, if-changed or always replaces what exists");
        }
        if s.streams_left > 0 {
            say(format_args!(
                "{} left behind; --streams xattr or files keeps them",
                count(s.streams_left, "named stream", "named streams")
            ));
        }
        Ok(())
    }
}

/// Whether a directory may be ntfs-3g's.
fn is_fuse(dir: &std::path::Path) -> bool {
    const FUSE: rustix::fs::FsWord = 0x6573_5546;
    rustix::fs::statfs(dir).is_ok_and(|s| s.f_type == FUSE)
}

/// Directories that files still go into are held open: as many as the system allows.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, most);
}

pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A destination that cannot be meant is wrong usage.
fn usage(e: &DiskError) -> Failure {
    let (said, hint) = split_hint(e);
    Failure::Usage {
        said,
        hint: hint.map(str::to_owned),
    }
}

fn read_list(list: &std::path::Path, nul: bool) -> Result<Vec<OsString>, Failure> {
    let mut bytes = Vec::new();
    let read = if list.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(list).and_then(|mut f| f.read_to_end(&mut bytes))
    };
    read.map_err(|e| DiskError::io("reading the list of paths", &e).file(list.display()))?;
    let end = if nul { 0 } else { b'\n' };
    Ok(bytes
        .split(|b| *b == end)
        .filter(|path| !path.is_empty())
        .map(|path| OsStr::from_bytes(path).to_owned())
        .map(|path| OsString::from_vec(path.into_vec()))
        .collect())
}
