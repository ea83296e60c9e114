//! Called as `mount.vmdkit`: what mount(8) gives a helper, for /etc/fstab and systemd's
//! automounts.

use std::{ffi::OsString, path::Path};

/// What other programs read in the same field, or what goes without saying for a mount that
/// cannot be written to.
const IGNORED: &[&str] = &[
    "ro",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "strictatime",
    "sync",
    "async",
    "dirsync",
    "loud",
    "silent",
];
/// Options of `vmdkit mount` without a value.
const FLAGS: &[&str] = &[
    "allow_other",
    "direct_io",
    "exact_case",
    "guests",
    "ignore_cid",
    "allow_missing",
    "meta",
    "no_sandbox",
];
/// Options with one.
const VALUES: &[&str] = &[
    "uid",
    "gid",
    "umask",
    "layout",
    "snapshot",
    "disk",
    "idle_timeout",
    "log",
    "audit",
    "format",
    "tz",
    "datastore",
    "with",
    "parent",
    "allow_dir",
    "allow_device",
    "code_page",
];

/// Whether the program was called as the helper.
pub(crate) fn is_helper(program: &OsString) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|n| n == "mount.vmdkit" || n == "mount.fuse.vmdkit")
}

/// The command line of `vmdkit mount` that a helper's means; why there is none. No line if there
/// is nothing to do (`-f`).
pub(crate) fn translate(args: &[OsString]) -> Result<Option<Vec<OsString>>, String> {
    let mut line: Vec<OsString> = vec!["vmdkit".into(), "mount".into()];
    let mut places = Vec::new();
    let (mut sloppy, mut fake, mut options) = (false, false, Vec::new());
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some("-o") => {
                let text = rest.next().and_then(|o| o.to_str());
                let text = text.ok_or("-o: a list of options is missing")?;
                options.extend(text.split(',').map(str::to_owned));
            }
            Some("-t" | "-N") => drop(rest.next()),
            Some(flags) if flags.starts_with('-') && flags.len() > 1 => {
                for flag in flags.chars().skip(1) {
                    match flag {
                        's' => sloppy = true,
                        'f' => fake = true,
                        'n' | 'v' | 'r' => {}
                        _ => return Err(format!("{flags}: no option of a mount helper")),
                    }
                }
            }
            _ => places.push(arg.clone()),
        }
    }
    let [source, dir] = places.as_slice() else {
        return Err("expected SOURCE and DIR, as mount(8) gives them".into());
    };
    for option in options.iter().filter(|o| !o.is_empty()) {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option.as_str(), None),
        };
        let long = || OsString::from(format!("--{}", key.replace('_', "-")));
        match value {
            None if IGNORED.contains(&key) => {}
            None if FLAGS.contains(&key) => line.push(long()),
            Some(value) if VALUES.contains(&key) => line.extend([long(), value.into()]),
            _ if key.starts_with("x-") || key == "comment" || key == "context" => {}
            None if key == "rw" => {
                return Err("rw: it can only be mounted read-only; write ro".into());
            }
            _ if sloppy => {}
            _ => return Err(format!("{option}: no option of vmdkit mount")),
        }
    }
    line.extend(["--".into(), source.clone(), dir.clone()]);
    Ok((!fake).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Option<String>, String> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let line = translate(&args)?;
        let text = |line: Vec<OsString>| line.join(std::ffi::OsStr::new(" ")).into_string();
        Ok(line.map(|l| text(l).unwrap()))
    }

    #[test]
    fn as_mount_calls_it() {
        let line = "mount.vmdkit web.vmdk /mnt -o ro,nofail,allow_other,uid=5,x-systemd.automount";
        let done = of(line).unwrap().unwrap();
        assert_eq!(done, "vmdkit mount --allow-other --uid 5 -- web.vmdk /mnt");
        let done = of("mount.vmdkit -n -v a b -o layout=vcb,idle_timeout=10m -t vmdkit");
        let done = done.unwrap().unwrap();
        assert_eq!(done, "vmdkit mount --layout vcb --idle-timeout 10m -- a b");
        assert_eq!(of("mount.vmdkit -f a b -o ro"), Ok(None));
        assert!(of("mount.vmdkit a b -o rw").is_err());
        assert!(of("mount.vmdkit a b -o colour=red").is_err());
        assert!(of("mount.vmdkit -s a b -o colour=red").is_ok());
        assert!(of("mount.vmdkit a").is_err());
        assert!(is_helper(&"/sbin/mount.vmdkit".into()) && !is_helper(&"vmdkit".into()));
    }
}
