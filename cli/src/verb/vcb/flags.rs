//! VCB's commands with the flags of each, and what a script gave.

use crate::{exit::Failure, output};
use std::ffi::{OsStr, OsString};

/// A command of VCB.
#[derive(Debug)]
pub(super) struct Command {
    /// As our verb has it.
    pub(super) name: &'static str,
    /// As VCB's program was called.
    program: &'static str,
    /// Flags with a value.
    values: &'static str,
    /// The same where they say nothing without a host: accounts, transports, log levels.
    ignored: &'static str,
    help: &'static str,
}

/// Flags without a value that mean nothing here: `-y` (no question), `-q`, `-v`.
const ALONE: &str = "yqv";

pub(super) const COMMANDS: [Command; 7] = [
    Command {
        name: "mounter",
        program: "vcbMounter",
        values: "harUtMF",
        ignored: "upmL",
        help: "\
Mount a machine's volumes, or export the whole machine

Usage: vmdkit vcb mounter -h SOURCE [-a SELECTOR] -r DIR [-t file|fullvm] [-M 0|1] [-F 0|1]
       vmdkit vcb mounter -U DIR

  -h SOURCE    a directory, datastore or LUN in the place of the host
  -a SELECTOR  which machine: name:TEXT, uuid:TEXT, any: (the only one)
  -r DIR       where to
  -t file      mount at DIR: letters/C …, digits/1 …
  -t fullvm    export to DIR (without -t too)
  -M 1         one file a disk; pieces of 2 GiB without
  -F 1         disks with all their bytes; sparse without
  -U DIR       unmount. An export stays: DIR is not touched

Examples:
  vmdkit vcb mounter -h /vms -a name:web01 -r /mnt/web01 -t file
  vmdkit vcb mounter -U /mnt/web01
  vcbMounter -h /vms -u root -p secret -a name:web01 -r /backups/web01 -t fullvm -M 1 -F 0",
    },
    Command {
        name: "export",
        program: "vcbExport",
        values: "sdMF",
        ignored: "uphmL",
        help: "\
Export a machine

Usage: vmdkit vcb export -s MACHINE -d DIR [-M 0|1] [-F 0|1]

  -s MACHINE  its directory or configuration
  -d DIR      where to
  -M 1        one file a disk; pieces of 2 GiB without
  -F 1        disks with all their bytes; sparse without

Examples:
  vmdkit vcb export -s /vms/web01 -d /backups/web01
  vcbExport -s /vms/web01/web01.vmx -d /backups/web01 -M 1",
    },
    Command {
        name: "restore",
        program: "vcbRestore",
        values: "shab",
        ignored: "upmL",
        help: "\
Restore a machine from a backup

Usage: vmdkit vcb restore -s BACKUP -h DIR [-a CATALOGFILE] [-b preserve|overwrite]

  -s BACKUP       the directory of a backup, of VCB's or ours
  -h DIR          in the place of the host: the machine goes into a directory below DIR
  -a CATALOGFILE  an edited copy of the backup's catalog: its display_name is the machine's
                  name, and the directory in its config.vmx is what the one below DIR is
                  called. Host, folder and resource pool in it are not looked at
  -b preserve     a machine that is there already stays (without -b too)
  -b overwrite    it is replaced, once all of the backup is written

Examples:
  vmdkit vcb restore -s /backups/web01 -h /vms
  vcbRestore -h /vms -s /backups/web01 -a /tmp/catalog-edited
  vcbRestore -h /vms -u root -p secret -s /backups/web01 -b overwrite",
    },
    Command {
        name: "vmname",
        program: "vcbVmName",
        values: "hs",
        ignored: "upmL",
        help: "\
Name, uuid and place of machines

Usage: vmdkit vcb vmname -h SOURCE [-s SELECTOR]

  -h SOURCE    a directory, datastore or LUN in the place of the host
  -s SELECTOR  name:TEXT, uuid:TEXT, any: (all; without -s too)

Examples:
  vmdkit vcb vmname -h /vms -s any:
  vcbVmName -h /vms -s name:web01 | grep uuid:",
    },
    Command {
        name: "snapall",
        program: "vcbSnapAll",
        values: "harMF",
        ignored: "upmL",
        help: "\
Export several machines

Usage: vmdkit vcb snapall -h SOURCE [-a SELECTOR]… -r DIR [-M 0|1] [-F 0|1]

  -h SOURCE    a directory, datastore or LUN in the place of the host
  -a SELECTOR  name:TEXT, uuid:TEXT, any: (all; without -a too). Repeated: whatever one of
               them means, once
  -r DIR       each machine is exported to DIR/NAME
  -M 1         one file a disk; pieces of 2 GiB without
  -F 1         disks with all their bytes; sparse without

Examples:
  vmdkit vcb snapall -h /vms -r /backups/tonight
  vcbSnapAll -h /vms -a name:web01 -a name:db01 -r /backups/tonight -M 1",
    },
    Command {
        name: "mountvm",
        program: "mountvm",
        values: "du",
        ignored: "",
        help: "\
Mount a disk's volumes

Usage: vmdkit vcb mountvm -d DISK [-cycleId] DIR
       vmdkit vcb mountvm -u DIR

  -d DISK   a disk of any format
  -cycleId  ignored: no disk is attached to anything
  -u DIR    unmount

Examples:
  vmdkit vcb mountvm -d /backups/web01/scsi0-0-0-web01.vmdk /mnt
  mountvm -u /mnt",
    },
    Command {
        name: "cleanup",
        program: "vcbCleanup",
        values: "",
        ignored: "",
        help: "\
Take mounts away whose process died

Usage: vmdkit vcb cleanup [-y]

Examples:
  vmdkit vcb cleanup
  vcbCleanup -y",
    },
];

impl Command {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().find(|c| c.name == name)
    }

    /// The command that a program of VCB is, `.exe` or not, in any case.
    pub(super) fn of_program(name: &str) -> Option<&'static Self> {
        COMMANDS
            .iter()
            .find(|c| c.program.eq_ignore_ascii_case(name))
    }

    /// All that `--help` prints.
    pub(super) fn help(&self) -> String {
        let mut text = self.help.to_owned();
        let mut ignored: Vec<String> = self.flags(self.ignored);
        ignored.extend(self.flags(ALONE));
        text.push_str(&format!(
            "\n\n{} are accepted and ignored. {} is a name for the same through a link.",
            ignored.join(", "),
            self.program
        ));
        text
    }

    fn flags(&self, letters: &str) -> Vec<String> {
        letters.chars().map(|l| format!("-{l}")).collect()
    }

    /// What it knows, for who gave another.
    fn known(&self) -> String {
        let mut all = self.flags(self.values);
        all.extend(self.flags(self.ignored));
        all.extend(self.flags(ALONE));
        format!(
            "it knows {}; vmdkit vcb {} --help says what they mean",
            all.join(", "),
            self.name
        )
    }
}

/// VCB's flags as they were given.
#[derive(Debug)]
pub(super) struct Flags {
    command: &'static Command,
    values: Vec<(char, OsString)>,
    pub(super) rest: Vec<OsString>,
}

impl Flags {
    /// `-a VALUE` and `-aVALUE`. No message shows a value: it may be a password whose flag
    /// was misspelt.
    pub(super) fn parse(command: &'static Command, words: &[OsString]) -> Result<Self, Failure> {
        let mut flags = Self {
            command,
            values: Vec::new(),
            rest: Vec::new(),
        };
        let program = command.program;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let bytes = word.as_encoded_bytes();
            if bytes.len() < 2 || !bytes.starts_with(b"-") {
                flags.rest.push(word.clone());
                continue;
            }
            let unknown = |letter: &str| {
                Failure::usage_with(
                    format!("{program} has no flag -{letter} here"),
                    command.known(),
                )
            };
            // The flag of a value that is not text is.
            let text = word.to_string_lossy();
            let mut letters = text.chars().skip(1);
            let Some(letter) = letters.next() else {
                continue;
            };
            if ALONE.contains(letter) && letters.next().is_none() {
                flags.values.push((letter, OsString::new()));
                continue;
            }
            if !command.values.contains(letter) && !command.ignored.contains(letter) {
                return Err(unknown(&letter.to_string()));
            }
            let value = match text.chars().nth(2) {
                Some(_) => glued(word),
                None => words
                    .next()
                    .cloned()
                    .ok_or_else(|| Failure::usage(format!("-{letter} needs a value")))?,
            };
            flags.values.push((letter, value));
        }
        Ok(flags)
    }

    /// Refuses words that belong to no flag, past `most`.
    pub(super) fn no_more_than(&self, most: usize) -> Result<(), Failure> {
        match self.rest.len() > most {
            false => Ok(()),
            // It may be the rest of a password with a space in it.
            true => Err(Failure::usage_with(
                format!("{} words belong to no flag", self.rest.len() - most),
                format!("values with spaces need quotes; {}", self.command.known()),
            )),
        }
    }

    /// The value that was given last.
    pub(super) fn get(&self, letter: char) -> Option<&OsStr> {
        self.all(letter).last()
    }

    pub(super) fn all(&self, letter: char) -> impl Iterator<Item = &OsStr> {
        let all = self.values.iter().filter(move |(l, _)| *l == letter);
        all.map(|(_, v)| v.as_os_str())
    }

    pub(super) fn need(&self, letter: char, what: &str) -> Result<&OsStr, Failure> {
        self.get(letter).ok_or_else(|| {
            let hint = format!("vmdkit vcb {} --help", self.command.name);
            Failure::usage_with(format!("-{letter} is missing: {what}"), hint)
        })
    }

    pub(super) fn text(&self, letter: char) -> Option<&str> {
        self.get(letter).and_then(OsStr::to_str)
    }

    /// A flag that is 0 or 1.
    pub(super) fn on(&self, letter: char) -> Result<bool, Failure> {
        match (self.get(letter), self.text(letter)) {
            (None, _) | (_, Some("0")) => Ok(false),
            (_, Some("1")) => Ok(true),
            _ => Err(Failure::usage(format!("-{letter}: expected 0 or 1"))),
        }
    }

    /// Says what is ignored: which flags, never their values.
    pub(super) fn tell_ignored(&self) {
        let mut given = String::new();
        for letter in self.command.ignored.chars().chain(ALONE.chars()) {
            if self.get(letter).is_some() {
                let comma = if given.is_empty() { "" } else { ", " };
                given.push_str(&format!("{comma}-{letter}"));
            }
        }
        if !given.is_empty() {
            output::warn(format!(
                "{given} ignored: there is no host to log in to, no transport and no log level of VCB"
            ));
        }
    }
}

/// The value in `-aVALUE`, whose flag is one byte.
fn glued(word: &OsStr) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(word.as_bytes().get(2..).unwrap_or_default()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: &str, line: &str) -> Result<Flags, Failure> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Flags::parse(Command::named(command).unwrap(), &words)
    }

    fn said(failure: &Failure) -> String {
        format!("{failure:?}")
    }

    #[test]
    fn flags_as_scripts_write_them() {
        let flags = parse("mounter", "-h /vms -aname:web01 -r /d -L 6 -y more").unwrap();
        assert_eq!(flags.text('h'), Some("/vms"));
        assert_eq!(flags.text('a'), Some("name:web01"));
        assert_eq!(flags.text('L'), Some("6"));
        assert!(flags.get('y').is_some() && flags.rest == ["more"]);
        assert!(flags.no_more_than(1).is_ok() && flags.no_more_than(0).is_err());
        assert!(parse("mounter", "-r").is_err());
        let several = parse("snapall", "-a name:a -a name:b").unwrap();
        assert_eq!(several.all('a').collect::<Vec<_>>(), ["name:a", "name:b"]);
        assert!(parse("mounter", "-M 1").unwrap().on('M').unwrap());
        assert!(!parse("mounter", "-F 0").unwrap().on('F').unwrap());
        assert!(parse("mounter", "-F yes").unwrap().on('F').is_err());
    }

    #[test]
    fn what_a_command_does_not_know_is_refused_and_never_shown() {
        for (command, line) in [
            ("mounter", "-x secret"),
            ("mounter", "-Psecret"),
            ("mounter", "-b secret"),
            ("snapall", "-t secret"),
            ("vmname", "-rsecret"),
            ("cleanup", "-psecret"),
            ("mounter", "-ysecret"),
        ] {
            let e = parse(command, line).unwrap_err();
            let text = said(&e);
            assert!(
                text.contains("has no flag -") && text.contains("it knows -"),
                "{text}"
            );
            assert!(!text.contains("secret"), "{text}");
        }
        let text = said(&parse("mounter", "-x 1").unwrap_err());
        assert!(
            text.contains("-h, -a, -r, -U, -t, -M, -F, -u, -p, -m, -L"),
            "{text}"
        );
        let e = parse("mounter", "-p a secret").unwrap().no_more_than(0);
        assert!(!said(&e.unwrap_err()).contains("secret"));
    }

    #[test]
    fn every_command_has_help_with_examples_and_all_its_flags() {
        for command in &COMMANDS {
            let help = command.help();
            assert!(help.contains("Usage: vmdkit vcb ") && help.contains("Examples:\n"));
            assert!(
                help.contains(&format!("vmdkit vcb {} ", command.name))
                    || command.values.is_empty()
            );
            assert!(help.contains(command.program));
            for flag in command.values.chars().chain(command.ignored.chars()) {
                assert!(
                    help.contains(&format!("-{flag}")),
                    "{} -{flag}",
                    command.name
                );
            }
        }
    }
}
