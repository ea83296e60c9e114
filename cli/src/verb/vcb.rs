//! `vcb`: the commands of VMware Consolidated Backup, with its own flags.
//!
//! `-h` names a directory, a datastore or a LUN in the place of a host. What has no meaning
//! without one (accounts, transports) is accepted and said to be ignored; nothing of it is
//! ever shown. Each command becomes one of our own verbs.

mod flags;
mod replaced;
mod restore;

use self::flags::{COMMANDS, Command, Flags};
use crate::{
    args::{self, Cli, Global, HowArgs, SourceArgs},
    exit::{Exit, Failure},
    names::component,
    output::{self, Out},
    source::spec_of,
};
use clap::{Args, FromArgMatches};
use disk_io::{DiskError, error::escape};
use inventory::Vm;
use proxy::machine::scan;
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// Commands of VMware Consolidated Backup, as old backup scripts call them
#[derive(Debug, Args)]
#[command(override_usage = "vmdkit vcb <COMMAND> [VCB'S OWN FLAGS]")]
#[command(after_help = "\
Commands:
  mounter -h SOURCE -a SELECTOR -r DIR -t file      mount a machine's volumes at DIR
  mounter -h SOURCE -a SELECTOR -r DIR -t fullvm    export it to DIR; -M 1: one file a disk,
                                                    -F 1: with all bytes
  mounter -U DIR                                    unmount
  export -s MACHINE -d DIR                          export a machine
  restore -s BACKUP -h DIR                          restore below the directory DIR;
                                                    -b overwrite: over what is there
  vmname -h SOURCE -s SELECTOR                      name, uuid and place of machines
  snapall -h SOURCE -a SELECTOR -r DIR              export each to DIR/NAME
  mountvm -d DISK DIR, mountvm -u DIR               mount a disk's volumes; unmount
  cleanup                                           mounts whose process died

SOURCE is a directory, a datastore or its LUN; selectors are name:TEXT, uuid:TEXT and any:.
vmdkit vcb COMMAND --help has all flags of a command, and examples. -u, -p, -m, -L and -y are
accepted and ignored, others that a command does not know are refused. Called through a link of VCB's names
(vcbMounter, vcbExport, vcbRestore, vcbVmName, vcbSnapAll, mountvm, vcbCleanup), vmdkit is
that command.

Examples:
  vmdkit vcb mounter -h /vms -a name:web01 -r /mnt/web01 -t file
  ls /mnt/web01/letters/C
  vmdkit vcb mounter -U /mnt/web01")]
pub(crate) struct Vcb {
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        hide = true
    )]
    words: Vec<OsString>,
}

/// The command that a program's name stands for.
pub(crate) fn by_name(program: &OsStr) -> Option<&'static str> {
    let name = Path::new(program)
        .file_name()?
        .to_str()?
        .to_ascii_lowercase();
    let name = name.strip_suffix(".bat").unwrap_or(&name);
    let name = name.strip_suffix(".exe").unwrap_or(name);
    Command::of_program(name).map(|c| c.name)
}

/// A machine that a selector means: how our own verbs name it.
struct Selected {
    name: String,
    uuid: Option<String>,
    /// `-D HOST`, where it is in a datastore.
    datastore: Option<OsString>,
    /// The directory that was named: everything in it is meant, disks that machines share too.
    root: Option<OsString>,
    config: PathBuf,
}

impl Selected {
    /// SOURCE, and its datastore.
    fn source(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Some(datastore) = &self.datastore {
            words.extend(["-D".into(), datastore.clone()]);
        }
        if let Some(root) = &self.root {
            words.extend(["--allow-dir".into(), root.clone()]);
        }
        words.push(self.config.clone().into());
        words
    }
}

/// The machines below `host` that `selector` means.
fn select(host: &OsStr, selector: &str, global: &Global) -> Result<Vec<Selected>, Failure> {
    let selector = match selector.to_ascii_lowercase().as_str() {
        // As scripts write it.
        "any" | "any:" => "any:",
        _ => selector,
    };
    for kind in ["ipaddr:", "moref:", "powerstate:"] {
        if selector.starts_with(kind) && selector != "powerstate:any" {
            return Err(Failure::usage_with(
                format!("{kind} can be asked of a running host only"),
                "use name:, uuid: or any:",
            ));
        }
    }
    let dir = Path::new(host).is_dir();
    let mut how = HowArgs::default();
    let mut source = PathBuf::from(host);
    if !dir && !is_config(&source) {
        let spec = host.to_string_lossy().parse();
        let spec = spec.map_err(|e| Failure::usage(format!("-h {}: {e}", source.display())))?;
        how.datastore = vec![spec];
        source = PathBuf::new();
    }
    let in_datastore = !how.datastore.is_empty();
    let spec = spec_of(&SourceArgs { source, how }, global)?;
    let mut found = Vec::new();
    for scanned in scan(&spec)? {
        // A package in the directory is a datastore of its own.
        let package = scanned
            .datastores()
            .filter(|_| dir)
            .map(|_| scanned.place.describe());
        for vm in scanned.inventory.select(selector) {
            found.push(match &package {
                Some(path) => selected(vm, OsStr::new(path), false, true),
                None => selected(vm, host, dir, in_datastore),
            });
        }
    }
    Ok(found)
}

fn is_config(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("vmx"))
}

fn selected(vm: &Vm, host: &OsStr, dir: bool, in_datastore: bool) -> Selected {
    let inside = vm.dir.join(&vm.config_file);
    Selected {
        name: vm.name(),
        uuid: vm.config.uuid.clone(),
        datastore: in_datastore.then(|| host.to_owned()),
        root: dir.then(|| host.to_owned()),
        config: match (dir, in_datastore) {
            (true, _) => Path::new(host).join(inside),
            (false, true) => inside,
            (false, false) => PathBuf::from(host),
        },
    }
}

/// The only machine that a selector means.
fn one(host: &OsStr, selector: &str, global: &Global) -> Result<Selected, Failure> {
    let mut found = select(host, selector, global)?;
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(DiskError::not_found("selecting a virtual machine")
            .file(Path::new(host).display())
            .expected(selector)
            .found("no machine that fits")
            .hint("vmdkit vcb vmname -h SOURCE -s any: lists them")
            .into()),
        (Some(last), false) => {
            let mut names: Vec<String> = found
                .iter()
                .map(|f| f.config.display().to_string())
                .collect();
            names.push(last.config.display().to_string());
            Err(Failure::Usage {
                said: format!("{selector} means several machines: {}", names.join(", ")),
                hint: Some("use uuid:".into()),
            })
        }
    }
}

/// Runs one of our own verbs.
fn run(words: Vec<OsString>, global: &Global) -> Result<Exit, Failure> {
    let mut line = vec![OsString::from("vmdkit")];
    if global.quiet {
        line.push("--quiet".into());
    }
    line.extend(words);
    args::stand_in(line.clone());
    let matches = match args::command().try_get_matches_from(line) {
        Ok(matches) => matches,
        // Help that was asked for is a result.
        Err(e) if !e.use_stderr() => {
            e.print()?;
            return Ok(Exit::Done);
        }
        Err(e) => return Err(Failure::usage(e.to_string())),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|e| Failure::usage(e.to_string()))?;
    cli.verb.run(&cli.global)
}

fn words<const N: usize>(all: [&str; N]) -> Vec<OsString> {
    all.iter().map(OsString::from).collect()
}

impl Vcb {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let (command, rest) = match self.words.split_first() {
            Some((command, rest)) => (command.to_string_lossy().into_owned(), rest),
            None => (String::new(), [].as_slice()),
        };
        let command = command.to_ascii_lowercase();
        if command.is_empty() || command == "--help" {
            return run(words(["vcb", "--help"]), global);
        }
        let Some(command) = Command::named(&command) else {
            let names: Vec<&str> = COMMANDS.iter().map(|c| c.name).collect();
            return Err(Failure::usage_with(
                format!("VCB has no command {command:?} here"),
                names.join(", "),
            ));
        };
        if rest.iter().any(|w| w == "--help") {
            let mut out = Out::new();
            out.line(command.help())?;
            out.finish()?;
            return Ok(Exit::Done);
        }
        // -cycleId lets VCB give disks new signatures; here nothing is attached.
        let rest: Vec<OsString> = match command.name {
            "mountvm" => rest.iter().filter(|w| *w != "-cycleId").cloned().collect(),
            _ => rest.to_vec(),
        };
        let flags = Flags::parse(command, &rest)?;
        flags.no_more_than(usize::from(command.name == "mountvm"))?;
        flags.tell_ignored();
        match command.name {
            "mounter" => mounter(&flags, global),
            "export" => export(&flags, global),
            "restore" => restore::restore(&flags, global),
            "vmname" => vmname(&flags, global),
            "snapall" => snapall(&flags, global),
            "mountvm" => mountvm(&flags, global),
            _ => run(words(["cleanup"]), global),
        }
    }
}

/// VCB made the directory that it mounted at.
fn mount(source: Vec<OsString>, dir: &Path, global: &Global) -> Result<Exit, Failure> {
    let made = !dir.exists();
    if made {
        std::fs::create_dir_all(dir)
            .map_err(|e| DiskError::io("making the mount point", &e).file(dir.display()))?;
    }
    let mut line = words(["mount", "--layout", "vcb"]);
    line.extend(source);
    line.push(dir.into());
    let done = run(line, global);
    if made && !matches!(done, Ok(Exit::Done)) {
        let _ = std::fs::remove_dir(dir);
    }
    done
}

fn mounter(flags: &Flags, global: &Global) -> Result<Exit, Failure> {
    if let Some(dir) = flags.get('U') {
        let place = Path::new(dir);
        if !proxy::is_mounted(place) && place.join(convert::backup::manifest::NAME).is_file() {
            // Scripts end with it after either kind of backup.
            output::warn(format!(
                "nothing is mounted at {}: the export there stays",
                place.display()
            ));
            return Ok(Exit::Done);
        }
        let line = vec!["umount".into(), dir.to_owned()];
        return run(line, global);
    }
    let host = flags.need(
        'h',
        "a directory, datastore or LUN in the place of the host",
    )?;
    let selector = flags.text('a').unwrap_or("any:");
    let dir = PathBuf::from(flags.need('r', "where to")?);
    let machine = one(host, selector, global)?;
    match flags.text('t').unwrap_or("fullvm") {
        "file" => mount(machine.source(), &dir, global),
        "fullvm" => full(machine.source(), &dir, flags, global),
        other => Err(Failure::usage(format!(
            "-t {other}: expected file or fullvm"
        ))),
    }
}

/// An export with VCB's names, in the subformat that -M and -F ask for.
fn full(
    source: Vec<OsString>,
    dir: &Path,
    flags: &Flags,
    global: &Global,
) -> Result<Exit, Failure> {
    let subformat = match (flags.on('M')?, flags.on('F')?) {
        (true, true) => "monolithicFlat",
        (true, false) => "monolithicSparse",
        (false, true) => "twoGbMaxExtentFlat",
        (false, false) => "twoGbMaxExtentSparse",
    };
    let mut line = words(["export", "--vcb-names", "--subformat", subformat]);
    line.extend(source);
    line.push(dir.into());
    run(line, global)
}

fn export(flags: &Flags, global: &Global) -> Result<Exit, Failure> {
    let source = vec![flags.need('s', "the machine")?.to_owned()];
    let dir = PathBuf::from(flags.need('d', "where to")?);
    full(source, &dir, flags, global)
}

fn vmname(flags: &Flags, global: &Global) -> Result<Exit, Failure> {
    let host = flags.need(
        'h',
        "a directory, datastore or LUN in the place of the host",
    )?;
    let selector = flags.text('s').unwrap_or("any:");
    let found = select(host, selector, global)?;
    let mut out = Out::new();
    for machine in &found {
        out.line("Found VM:")?;
        // What VCB has from the host; here the place names it.
        // A name with a line's end in it makes no line of its own.
        let config = machine.config.display().to_string();
        out.line(format!("moref:{}", escape(&config)))?;
        out.line(format!("name:{}", escape(&machine.name)))?;
        out.line(format!(
            "uuid:{}",
            machine.uuid.as_deref().unwrap_or_default()
        ))?;
    }
    out.finish()?;
    Ok(match found.is_empty() {
        true => Exit::Failed,
        false => Exit::Done,
    })
}

fn snapall(flags: &Flags, global: &Global) -> Result<Exit, Failure> {
    let host = flags.need(
        'h',
        "a directory, datastore or LUN in the place of the host",
    )?;
    let dest = PathBuf::from(flags.need('r', "where to")?);
    let mut found: Vec<Selected> = Vec::new();
    let mut unmet = 0;
    let mut selectors: Vec<_> = flags.all('a').map(OsStr::to_string_lossy).collect();
    if selectors.is_empty() {
        selectors.push("any:".into());
    }
    for selector in &selectors {
        let meant = select(host, selector, global)?;
        if meant.is_empty() {
            // The others are still backed up.
            output::warn(format!("no machine fits {selector}"));
            unmet += 1;
        }
        for machine in meant {
            // What two of them mean is exported once.
            if found.iter().all(|f| f.config != machine.config) {
                found.push(machine);
            }
        }
    }
    std::fs::create_dir_all(&dest)
        .map_err(|e| DiskError::io("making the directory", &e).file(dest.display()))?;
    let mut lost = 0;
    for machine in &found {
        let dir = dest.join(component(&machine.name));
        output::say(format_args!("{} to {}", machine.name, dir.display()));
        match full(machine.source(), &dir, flags, global) {
            Ok(Exit::Done) => {}
            Ok(_) => lost += 1,
            // One machine that cannot be exported does not keep the others.
            Err(e) => {
                e.tell();
                lost += 1;
            }
        }
    }
    // None at all, too.
    if lost == found.len() {
        return Ok(Exit::Failed);
    }
    Ok(Exit::partial_if(lost + unmet > 0))
}

fn mountvm(flags: &Flags, global: &Global) -> Result<Exit, Failure> {
    if let Some(dir) = flags.get('u') {
        return run(vec!["umount".into(), dir.to_owned()], global);
    }
    let disk = flags.need('d', "the disk")?.to_owned();
    let Some(dir) = flags.rest.first() else {
        return Err(Failure::usage("the mount point is missing"));
    };
    mount(vec![disk], Path::new(dir), global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_by_their_old_names() {
        for (name, command) in [
            ("/usr/bin/vcbMounter", "mounter"),
            ("vcbVmName", "vmname"),
            ("vcbCleanup.bat", "cleanup"),
            ("mountvm.exe", "mountvm"),
        ] {
            assert_eq!(by_name(OsStr::new(name)), Some(command));
        }
        assert_eq!(by_name(OsStr::new("vmdkit")), None);
    }
}
