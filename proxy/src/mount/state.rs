//! What is mounted by whom: one small file a mount, so that `umount` and `cleanup` find
//! what a dead process left behind.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// A mount as its state file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountState {
    /// The process that serves it.
    pub pid: u32,
    /// When that process began, in the kernel's ticks: a number used again is another.
    pub began: u64,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// What is mounted.
    pub source: PathBuf,
}

impl MountState {
    /// Whether the process is still there.
    pub fn is_alive(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// A state file that is removed with its mount.
#[derive(Debug)]
pub(crate) struct StateFile(PathBuf);

impl StateFile {
    pub(crate) fn create(dir: &Path, source: &Path) -> io::Result<Self> {
        let pid = std::process::id();
        let state = MountState {
            pid,
            began: began(pid).unwrap_or(0),
            dir: dir.to_path_buf(),
            source: source.to_path_buf(),
        };
        let place = directory()?;
        let mut n = 0u32;
        loop {
            let path = place.join(format!("mount-{pid}-{n}"));
            let opened = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match opened {
                Ok(mut file) => {
                    file.write_all(&write(&state))?;
                    return Ok(Self(path));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && n < 10_000 => n += 1,
                Err(e) => return Err(e),
            }
        }
    }
}

impl StateFile {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// All mounts that left a state file, with the file.
pub(crate) fn list() -> Vec<(PathBuf, MountState)> {
    let Ok(place) = directory() else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let state = read(&fs::read(&path).ok()?)?;
            Some((path, state))
        })
        .collect()
}

/// `$XDG_RUNTIME_DIR/vmdkit`, for root `/run/vmdkit`, else `/tmp/vmdkit-UID`; made if it is
/// not there, and taken only if it is ours alone.
fn directory() -> io::Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let mut places = Vec::new();
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
        places.push(PathBuf::from(dir).join("vmdkit"));
    }
    if uid == 0 {
        places.push(PathBuf::from("/run/vmdkit"));
    }
    places.push(std::env::temp_dir().join(format!("vmdkit-{uid}")));
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for place in places {
        match DirBuilder::new().mode(0o700).create(&place) {
            Ok(()) => return Ok(place),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                last = e;
                continue;
            }
        }
        match fs::symlink_metadata(&place) {
            Ok(m) if m.is_dir() && m.uid() == uid && m.mode() & 0o022 == 0 => return Ok(place),
            Ok(_) => last = io::Error::from(io::ErrorKind::PermissionDenied),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn write(state: &MountState) -> Vec<u8> {
    let mut out = format!("pid {}\nbegan {}\n", state.pid, state.began).into_bytes();
    for (key, path) in [("dir", &state.dir), ("source", &state.source)] {
        out.extend_from_slice(key.as_bytes());
        out.push(b' ');
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'\n' => out.extend_from_slice(b"%0A"),
                b'%' => out.extend_from_slice(b"%25"),
                other => out.push(*other),
            }
        }
        out.push(b'\n');
    }
    out
}

fn read(text: &[u8]) -> Option<MountState> {
    let field = |key: &str| {
        text.split(|b| *b == b'\n')
            .find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b" "))
    };
    let number = |key| std::str::from_utf8(field(key)?).ok()?.parse::<u64>().ok();
    let path = |key| {
        let mut out = Vec::new();
        let mut rest = field(key)?;
        while let Some((&first, more)) = rest.split_first() {
            match rest {
                [b'%', b'0', b'A', more @ ..] => {
                    out.push(b'\n');
                    rest = more;
                }
                [b'%', b'2', b'5', more @ ..] => {
                    out.push(b'%');
                    rest = more;
                }
                _ => {
                    out.push(first);
                    rest = more;
                }
            }
        }
        Some(PathBuf::from(OsString::from_vec(out)))
    };
    Some(MountState {
        pid: u32::try_from(number("pid")?).ok()?,
        began: number("began")?,
        dir: path("dir")?,
        source: path("source")?,
    })
}

/// When a process began: field 22 of its `stat`, counted after the name in parentheses.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // A zombie serves nothing.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_comes_back() {
        let state = MountState {
            pid: std::process::id(),
            began: began(std::process::id()).unwrap(),
            dir: "/mnt/a b\n100%0A".into(),
            source: "/x.vmdk".into(),
        };
        assert_eq!(read(&write(&state)), Some(state.clone()));
        assert!(state.is_alive());
        assert!(!MountState { began: 1, ..state }.is_alive());
        assert_eq!(read(b"pid x"), None);
        assert_eq!(read(b""), None);
    }
}
