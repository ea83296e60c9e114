//! Many readers of a real mount at once, and what ends them: nobody gets a wrong byte, nobody
//! waits for ever, and nothing is left behind.
//!
//! The guest is an ext4 made for each test, with contents that say where they belong. Every part
//! has a bound of time, and one that is passed is a failure. `VMDKIT_STRESS=N` does N times as
//! much.
//!
//! | module | holds |
//! |---|---|
//! | [`contents`] | reads at random places in every way there is |
//! | [`handles`] | thousands of open files, readers that are killed |
//! | [`names`] | large directories, and names that the kernel forgets while they are looked up |
//! | [`deaths`] | an image that is cut short, a server that is killed |

mod contents;
mod deaths;
mod handles;
mod names;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tests::{
    guest::{self, Fill},
    mount::Mount,
    tools,
};

/// How much more than usual is done.
fn times() -> usize {
    std::env::var("VMDKIT_STRESS").map_or(1, |n| n.parse().unwrap())
}

/// Does `work` in a thread of its own; if that takes longer than `seconds` the test fails. The
/// mount that it may hang in belongs to the caller, who takes it away.
fn within<T: Send + 'static>(seconds: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    let time = Duration::from_secs(seconds * times() as u64);
    match result.recv_timeout(time) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done after {time:?}"),
        // It has panicked, and its words are told already.
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}

/// Waits until something is so.
fn until(seconds: u64, what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(seconds), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says how much was done, for `cargo xtask torture`.
fn told(what: &str, numbers: &[(&str, usize)]) {
    let numbers: Vec<String> = numbers.iter().map(|(of, n)| format!("{n} {of}")).collect();
    tests::say!("stress: {what}: {}", numbers.join(", "));
}

/// Numbers that are the same in every run.
struct Luck(u64);

impl Luck {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// An ext4 with known files, in a raw image.
struct Guest {
    top: tempfile::TempDir,
    /// By path in the volume.
    files: BTreeMap<String, Arc<Vec<u8>>>,
}

/// Names in the large directory: a listing of them takes many buffers of any size.
const NAMES: usize = 5_003;

/// The name of a file in the large directory, which is also what it contains.
fn name(n: usize) -> String {
    let tail = "-and-on".repeat(n % 5);
    format!("many/{n:05}{tail}")
}

impl Guest {
    /// Four large files, some of awkward lengths, one with holes, and [`NAMES`] small ones if
    /// `many`.
    fn new(many: bool) -> Option<Self> {
        if !tools::have(&["mke2fs"]) || !tools::have_fuse() {
            return None;
        }
        let top = tempfile::tempdir().unwrap();
        let place = top.path().join("files");
        fs::create_dir(&place).unwrap();
        fs::create_dir(place.join("many")).unwrap();
        let mut files = BTreeMap::new();
        for n in 0..4usize {
            let len = (3 << 20) + n * 700_001;
            let fill = if n == 3 { Fill::Text } else { Fill::Noise };
            let path = format!("large-{n}");
            files.insert(path.clone(), guest::contents(&path, len, fill));
        }
        for len in [0, 1, 511, 4095, 4096, 4097, 131_073] {
            let path = format!("length-{len}");
            files.insert(path.clone(), guest::contents(&path, len, Fill::Noise));
        }
        for n in 0..if many { NAMES } else { 0 } {
            files.insert(name(n), name(n).into_bytes());
        }
        for (path, bytes) in &files {
            fs::write(place.join(path), bytes).unwrap();
        }
        let (path, mut holes) = ("holes", vec![0; (6 << 20) + 77]);
        let file = File::create(place.join(path)).unwrap();
        file.set_len(holes.len() as u64).unwrap();
        for n in 0..12usize {
            let (at, data) = (n * 520_192, guest::contents(path, 9_000 * n, Fill::Noise));
            file.write_all_at(&data, at as u64).unwrap();
            holes[at..at + data.len()].copy_from_slice(&data);
        }
        files.insert(path.into(), holes);
        let image = top.path().join("disk.raw");
        File::create(&image).unwrap().set_len(72 << 20).unwrap();
        let options = "-q -F -t ext4 -b 4096 -N 8192 -E nodiscard -d".split(' ');
        tools::output(
            tools::command("mke2fs")
                .args(options)
                .arg(&place)
                .arg(&image),
        )
        .unwrap();
        fs::create_dir(top.path().join("mnt")).unwrap();
        let files = files.into_iter().map(|(p, b)| (p, Arc::new(b))).collect();
        Some(Self { top, files })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// Where a file of the guest's is in the mount.
    fn at(&self, path: &str) -> PathBuf {
        self.path("mnt").join("p0").join(path)
    }

    /// The same disk as a VMDK, whose grains have to be decompressed if it is a stream.
    fn convert(&self, subformat: &str, name: &str) {
        let mut command = Command::new(tools::vmdkit().unwrap());
        let words = ["convert", "-q", "--to", "vmdk", "--subformat", subformat];
        let (from, to) = (self.path("disk.raw"), self.path(name));
        tools::output(command.args(words).args([from, to])).unwrap();
    }

    /// Mounts an image, by a child that stays in the foreground and tells what goes wrong in
    /// a file `log`.
    fn mount(&self, image: &str, options: &[&str]) -> Mount {
        let mut command = Command::new(tools::vmdkit().unwrap());
        command.args(["mount", "-q", "--foreground", "--log"]);
        command.arg(self.path("log")).args(options);
        command.arg(self.path(image)).arg(self.path("mnt"));
        Mount::start(command, &self.path("mnt")).unwrap()
    }

    /// The large files and those of awkward lengths, as places in the mount with contents.
    fn some(&self) -> Vec<(PathBuf, Arc<Vec<u8>>)> {
        let some = self.files.iter().filter(|(p, _)| !p.starts_with("many/"));
        some.map(|(p, bytes)| (self.at(p), bytes.clone())).collect()
    }

    /// That every file but the small ones is right, from beginning to end.
    fn check(&self) {
        let files = self.some();
        within(20, move || {
            for (path, bytes) in files {
                assert!(fs::read(&path).unwrap() == *bytes, "{}", path.display());
            }
        });
    }
}

/// Takes a mount away as `umount` does for one that nothing uses: what is still open, if only in
/// the kernel, makes that fail. Closing is told to the server a moment later.
fn leave(mount: Mount) {
    let at = mount.path().to_path_buf();
    let mut last = String::new();
    until(10, "it is still in use", || {
        let mut command = Command::new(tools::vmdkit().unwrap());
        let out = command.arg("umount").arg(&at).output().unwrap();
        last = String::from_utf8_lossy(&out.stderr).into_owned();
        out.status.success()
    });
    within(20, || mount.unmount().unwrap());
}

/// What a server holds: descriptors, and bytes of memory.
fn held(mount: &Mount) -> (usize, u64) {
    let id = mount.server_id();
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let text = fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    (descriptors, pages * 4096)
}

/// Opens past the page cache, so that the server is asked for every byte; as usual if the kernel
/// does not let.
fn open_direct(path: &Path) -> (File, bool) {
    let direct = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    match direct {
        Ok(file) => (file, true),
        Err(_) => (File::open(path).unwrap(), false),
    }
}

/// Has the kernel drop what it knows of a file's contents.
fn drop_pages(file: &File) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Has the kernel forget names and inodes that nobody uses; only root may.
fn forget() -> io::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "2")
}

/// Whether an error is what a system call on a mount without a server may fail with.
fn is_gone(e: &io::Error) -> bool {
    [libc::ENOTCONN, libc::EIO, libc::ECONNABORTED]
        .map(Some)
        .contains(&e.raw_os_error())
}

/// A program of the machine's on files, as a reader that knows nothing of this test.
fn reader(program: &str, args: &[&OsStr]) -> Command {
    let mut command = tools::command(program);
    command
        .args(args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command
}
