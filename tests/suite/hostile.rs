//! Descriptors that ask for what they may not have. Each is refused within moments, by a
//! sentence that says why, and the file that it asks for is not even opened.

use rustix::fs::inotify;
use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tests::{say, tools};

/// Far more than is needed, for debug builds on a busy machine; a hang or a walk over
/// millions of things takes longer.
const AT_MOST: Duration = Duration::from_secs(2);

struct Case {
    name: &'static str,
    /// Puts what is needed into the directory and names the file to open.
    make: fn(&Path) -> PathBuf,
    /// All of these must be in the sentence.
    says: &'static [&'static str],
}

pub(crate) fn descriptor(extents: &str) -> String {
    with_parent("ffffffff", "", extents)
}

pub(crate) fn with_parent(parent_cid: &str, hint: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID={parent_cid}\n{hint}\
         createType=\"custom\"\n\n# Extent description\n{extents}\n\n#DDB\nddb.adapterType = \"ide\"\n"
    )
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn extent(dir: &Path, line: &str) -> PathBuf {
    write(dir, "disk.vmdk", &descriptor(line))
}

/// A hosted sparse delta with nothing in it: every byte is its parent's.
pub(crate) fn delta(dir: &Path, name: &str, parent: &str) -> PathBuf {
    let hint = format!("parentFileNameHint=\"{parent}\"\n");
    let text = with_parent("12345678", &hint, &format!("RW 2048 SPARSE \"{name}\""));
    let path = dir.join(name);
    let made = sparse(dir, |b| {
        b[512..512 + 20 * 512].fill(0);
        b[512..512 + text.len()].copy_from_slice(text.as_bytes());
    });
    if made != path {
        fs::rename(made, &path).unwrap();
    }
    path
}

/// A hosted sparse header with the given fields changed.
pub(crate) fn sparse(dir: &Path, change: impl FnOnce(&mut [u8])) -> PathBuf {
    let mut bytes = vec![0u8; 65_536 * 4];
    bytes[..4].copy_from_slice(b"KDMV");
    let mut put = |at: usize, v: &[u8]| bytes[at..at + v.len()].copy_from_slice(v);
    put(4, &1u32.to_le_bytes());
    put(8, &3u32.to_le_bytes());
    put(12, &2048u64.to_le_bytes()); // capacity
    put(20, &128u64.to_le_bytes()); // grain size
    put(28, &1u64.to_le_bytes()); // descriptor at sector 1
    put(36, &20u64.to_le_bytes()); // of 20 sectors
    put(44, &512u32.to_le_bytes()); // entries in a table
    put(48, &26u64.to_le_bytes()); // redundant directory
    put(56, &21u64.to_le_bytes()); // directory
    put(64, &128u64.to_le_bytes()); // overhead
    put(73, b"\n \r\n");
    put(512, descriptor("RW 2048 SPARSE \"disk.vmdk\"").as_bytes());
    put(21 * 512, &22u32.to_le_bytes());
    put(26 * 512, &27u32.to_le_bytes());
    change(&mut bytes);
    let path = dir.join("disk.vmdk");
    fs::write(&path, bytes).unwrap();
    path
}

const CASES: &[Case] = &[
    Case {
        name: "an absolute path",
        make: |d| extent(d, "RW 8 FLAT \"/etc/passwd\" 0"),
        says: &["/etc/passwd", "--allow-dir"],
    },
    Case {
        name: "a path that leads out",
        make: |d| extent(d, "RW 8 FLAT \"../secret.bin\" 0"),
        says: &["secret.bin", "--allow-dir"],
    },
    Case {
        name: "a path that leads out and in again",
        make: |d| extent(d, "RW 8 FLAT \"../../../../../../../../etc/passwd\" 0"),
        says: &["passwd", "--allow-dir"],
    },
    Case {
        name: "a path of Windows' that leads out",
        make: |d| extent(d, "RW 8 FLAT \"..\\..\\secret.bin\" 0"),
        says: &["secret.bin"],
    },
    Case {
        name: "a symbolic link",
        make: |d| {
            symlink(d.join("../secret.bin"), d.join("link.bin")).unwrap();
            extent(d, "RW 8 FLAT \"link.bin\" 0")
        },
        says: &["link.bin", "symbolic link"],
    },
    Case {
        name: "a symbolic link to a directory",
        make: |d| {
            symlink(d.join(".."), d.join("sub")).unwrap();
            extent(d, "RW 8 FLAT \"sub/secret.bin\" 0")
        },
        says: &["secret.bin", "link"],
    },
    Case {
        name: "a device",
        make: |d| extent(d, "RW 8 FLAT \"/dev/zero\" 0"),
        says: &["/dev/zero"],
    },
    Case {
        name: "a directory",
        make: |d| {
            fs::create_dir(d.join("sub")).unwrap();
            extent(d, "RW 8 FLAT \"sub\" 0")
        },
        says: &["sub", "directory"],
    },
    Case {
        name: "a process' memory",
        make: |d| extent(d, "RW 8 FLAT \"/proc/self/mem\" 0"),
        says: &["/proc/self/mem"],
    },
    Case {
        name: "a pipe",
        make: |d| {
            let done = Command::new("mkfifo").arg(d.join("pipe")).status();
            assert!(done.unwrap().success());
            extent(d, "RW 8 FLAT \"pipe\" 0")
        },
        says: &["pipe"],
    },
    Case {
        name: "an empty name",
        make: |d| extent(d, "RW 8 FLAT \"\" 0"),
        says: &["disk.vmdk"],
    },
    Case {
        name: "a parent that leads out",
        make: |d| delta(d, "disk.vmdk", "../../../../../../../../etc/passwd"),
        says: &["passwd", "--allow-dir"],
    },
    Case {
        name: "a parent that is a device",
        make: |d| delta(d, "disk.vmdk", "/dev/zero"),
        says: &["/dev/zero"],
    },
    Case {
        name: "a parent that is a link",
        make: |d| {
            symlink(d.join("../secret.bin"), d.join("base.vmdk")).unwrap();
            delta(d, "disk.vmdk", "base.vmdk")
        },
        says: &["base.vmdk", "symbolic link"],
    },
    Case {
        name: "a parent that is not there",
        make: |d| delta(d, "disk.vmdk", "base.vmdk"),
        says: &["base.vmdk"],
    },
    Case {
        name: "a chain that names itself",
        make: |d| delta(d, "disk.vmdk", "disk.vmdk"),
        says: &["disk.vmdk", "above it in the chain"],
    },
    Case {
        name: "a chain of two that name each other",
        make: |d| {
            delta(d, "other.vmdk", "disk.vmdk");
            delta(d, "disk.vmdk", "other.vmdk")
        },
        says: &["disk.vmdk", "other.vmdk"],
    },
    Case {
        name: "an extent of 2^63 sectors",
        make: |d| extent(d, "RW 9223372036854775808 ZERO"),
        says: &["disk.vmdk", "9223372036854775808"],
    },
    Case {
        name: "extents that add up to more than 2^64",
        make: |d| {
            extent(
                d,
                "RW 18014398509481984 ZERO\nRW 18014398509481984 ZERO\nRW 18014398509481984 ZERO",
            )
        },
        says: &["disk.vmdk"],
    },
    Case {
        name: "more sectors than a number can hold",
        make: |d| extent(d, "RW 99999999999999999999999999 ZERO"),
        says: &["disk.vmdk"],
    },
    Case {
        name: "ten million extents",
        make: |d| {
            let path = d.join("disk.vmdk");
            let mut out = std::io::BufWriter::new(fs::File::create(&path).unwrap());
            out.write_all(descriptor("RW 1 ZERO").as_bytes()).unwrap();
            for _ in 0..10_000_000 {
                out.write_all(b"RW 1 ZERO\n").unwrap();
            }
            path
        },
        says: &["disk.vmdk"],
    },
    Case {
        name: "seventy thousand extents",
        make: |d| extent(d, &"RW 1 ZERO\n".repeat(70_000)),
        says: &["disk.vmdk", "65536"],
    },
    Case {
        name: "no extents",
        make: |d| extent(d, ""),
        says: &["disk.vmdk", "extent"],
    },
    Case {
        name: "a header that claims 2^63 sectors",
        make: |d| {
            sparse(d, |b| {
                b[12..20].copy_from_slice(&(1u64 << 63).to_le_bytes())
            })
        },
        says: &["disk.vmdk"],
    },
    Case {
        name: "a grain of no sectors",
        make: |d| sparse(d, |b| b[20..28].fill(0)),
        says: &["disk.vmdk", "grain"],
    },
    Case {
        name: "a grain of 2^62 sectors",
        make: |d| {
            sparse(d, |b| {
                b[20..28].copy_from_slice(&(1u64 << 62).to_le_bytes())
            })
        },
        says: &["disk.vmdk", "grain"],
    },
    Case {
        name: "tables of no entries",
        make: |d| sparse(d, |b| b[44..48].fill(0)),
        says: &["disk.vmdk"],
    },
    Case {
        name: "a directory far outside the file",
        make: |d| {
            sparse(d, |b| {
                b[48..56].copy_from_slice(&(u64::MAX - 4).to_le_bytes());
                b[56..64].copy_from_slice(&(u64::MAX - 4).to_le_bytes());
            })
        },
        says: &["disk.vmdk", "directory"],
    },
    Case {
        name: "an encrypted disk",
        make: |d| {
            let text =
                descriptor("RW 8 ZERO").replace("version=1\n", "version=2\nencoding=\"UTF-8\"\n");
            let text = text.replace(
                "createType",
                "keyID=\"vmware:key/list/(pair/(fqid/<x>))\"\ncreateType",
            );
            write(d, "disk.vmdk", &text)
        },
        says: &["disk.vmdk", "ncrypt"],
    },
];

/// Watches a file for being opened.
pub(crate) struct Watch(rustix::fd::OwnedFd);

impl Watch {
    pub(crate) fn new(path: &Path) -> Self {
        use inotify::{CreateFlags, WatchFlags};
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&fd, path, WatchFlags::OPEN).unwrap();
        Self(fd)
    }

    pub(crate) fn was_opened(&self) -> bool {
        let mut buffer = [0u8; 4096];
        rustix::io::read(&self.0, &mut buffer).is_ok_and(|n| n > 0)
    }
}

/// Runs vmdkit with a time limit. Gives (exit code, standard output, standard error, time).
pub(crate) fn run_limited(args: &[&std::ffi::OsStr]) -> (Option<i32>, String, String, Duration) {
    limited(Command::new(tools::vmdkit().unwrap()).args(args))
}

/// Runs a command with a time limit; see [`run_limited`].
pub(crate) fn limited(command: &mut Command) -> (Option<i32>, String, String, Duration) {
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let read = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = read(Box::new(child.stdout.take().unwrap()));
    let err = read(Box::new(child.stderr.take().unwrap()));
    let mut code = None;
    while begun.elapsed() < Duration::from_secs(30) {
        if let Some(status) = child.try_wait().unwrap() {
            code = status.code();
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    (code, out.join().unwrap(), err.join().unwrap(), took)
}

#[test]
fn a_flat_extent_that_is_far_too_short_is_not_filled_up() {
    let top = tempfile::tempdir().unwrap();
    let path = extent(top.path(), "RW 16777216 FLAT \"disk.vmdk\" 0");
    let to = top.path().join("out.raw");
    let args = [
        "convert".as_ref(),
        path.as_os_str(),
        to.as_os_str(),
        "--to".as_ref(),
        "raw".as_ref(),
    ];
    let (code, _, err, took) = run_limited(&args);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cut short"), "{err}");
    assert!(took < AT_MOST, "{took:?}");
    assert!(!to.exists(), "something was left");
}

#[test]
fn are_refused_at_once_with_a_reason() {
    // The first start pays for reading the program itself.
    run_limited(&["--version".as_ref()]);
    let mut wrong = Vec::new();
    for case in CASES {
        let top = tempfile::tempdir().unwrap();
        let secret = top.path().join("secret.bin");
        fs::write(&secret, "SECRET".repeat(1000)).unwrap();
        let dir = top.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let path = (case.make)(&dir);
        let watch = Watch::new(&secret);
        let (code, out, err, took) = run_limited(&["info".as_ref(), path.as_os_str()]);
        let sentence = err.replace(&top.path().display().to_string(), "…");
        say!(
            "{}: {} ms: {}",
            case.name,
            took.as_millis(),
            sentence.trim()
        );
        let mut fault = |what: &str| wrong.push(format!("{}: {what}: {err}{out}", case.name));
        if code != Some(1) {
            fault(&format!("exit code {code:?} instead of 1"));
        }
        if took > AT_MOST {
            fault(&format!("took {took:?}"));
        }
        for word in case.says {
            if !err.contains(word) {
                fault(&format!("does not say '{word}'"));
            }
        }
        if err.contains("panicked") || out.contains("SECRET") || err.contains("SECRET") {
            fault("panicked, or shows what it may not");
        }
        if watch.was_opened() {
            fault("opened the file that it may not have");
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
