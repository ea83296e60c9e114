//! A day of a proxy's life, hour by hour by an injected clock: two machines that go on being written,
//! a backup of both every hour that builds on the one before, the oldest expired, a hot copy kept
//! current; and every third hour the power goes in the middle of the work.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tests::{
    guest::{Fill, contents, sha256},
    sample::sparse_file,
    tools,
};

const LEN: u64 = 24 << 20;
const KEPT: usize = 6;

/// Files of a machine as of an hour.
fn file(machine: &str, hour: usize) -> Vec<u8> {
    contents(
        &format!("{machine} {hour}"),
        60_000 + hour * 900,
        if hour.is_multiple_of(2) {
            Fill::Text
        } else {
            Fill::Noise
        },
    )
}

struct Proxy {
    dir: PathBuf,
    now: String,
}

impl Proxy {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tools::vmdkit().unwrap());
        command
            .args(args)
            .current_dir(&self.dir)
            .env("VMDKIT_NOW", &self.now);
        command
    }

    fn run(&self, args: &[&str]) -> Vec<u8> {
        let out = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{}: {args:?}: {said}", self.now);
        out.stdout
    }

    /// The same, killed after some time; whether that came before its end.
    fn killed(&self, args: &[&str], after: Duration) -> bool {
        let mut child = self
            .command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(after);
        let _ = child.kill();
        child.wait().unwrap().signal() == Some(9)
    }
}

/// A machine on a flat disk that is one FAT volume, and on a delta where it has a snapshot.
fn machine(dir: &Path, name: &str) {
    let at = dir.join("vms").join(name);
    fs::create_dir_all(&at).unwrap();
    let flat = at.join(format!("{name}-flat.vmdk"));
    sparse_file(&flat, LEN).unwrap();
    tools::run("mkfs.fat", ["-F", "16", flat.to_str().unwrap()]).unwrap();
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\
         RW {} VMFS \"{name}-flat.vmdk\"\n",
        LEN / 512
    );
    fs::write(at.join(format!("{name}.vmdk")), descriptor).unwrap();
    let config = format!(
        "config.version = \"8\"\ndisplayName = \"{name}\"\nguestOS = \"other\"\n\
         uuid.bios = \"{}\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"{name}.vmdk\"\n",
        sha256(name.as_bytes()).get(..32).unwrap()
    );
    fs::write(at.join(format!("{name}.vmx")), config).unwrap();
}

/// The guest writes its file of an hour over that of the hour before.
fn write(dir: &Path, name: &str, hour: usize) {
    let flat = dir.join(format!("vms/{name}/{name}-flat.vmdk"));
    let text = dir.join("text");
    fs::write(&text, file(name, hour)).unwrap();
    let words = [
        "-D",
        "o",
        "-i",
        flat.to_str().unwrap(),
        text.to_str().unwrap(),
    ];
    tools::run("mcopy", words.into_iter().chain(["::log.bin"])).unwrap();
    // Old ones stay for a while; freed blocks keep what they had.
    let extra = format!("::h{}.bin", hour % 5);
    let words = [
        "-D",
        "o",
        "-i",
        flat.to_str().unwrap(),
        text.to_str().unwrap(),
    ];
    tools::run("mcopy", words.into_iter().chain([extra.as_str()])).unwrap();
}

#[test]
fn twenty_four_hours() {
    if !tools::have(&["mkfs.fat", "mcopy"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let names = ["web", "db"];
    for name in names {
        machine(dir, name);
    }
    let night = [
        "export", "vms", "bk", "--select", "any:", "--since", "newest",
    ];
    let night = [&night[..], &["--keep", "6", "--merge", "--json"]].concat();
    let hot = ["replicate", "vms/web/web.vmdk", "hot.raw"];
    let mut killed = 0;
    for hour in 0..24usize {
        let mut proxy = Proxy {
            dir: dir.to_path_buf(),
            now: format!("2026-11-01T{hour:02}:00:00Z"),
        };
        for name in names {
            write(dir, name, hour);
        }
        if hour % 3 == 2 {
            // The moments differ, and are the same in every run as far as a clock can make them so.
            let after = Duration::from_millis((hour as u64 * 37) % 170 + 10);
            killed += usize::from(proxy.killed(&night, after));
            killed += usize::from(proxy.killed(&hot, after / 2));
            // Whatever became of it, nothing that has a name is wrong.
            all_restore(&proxy, hour);
            // Whoever looks after it begins again later.
            proxy.now = format!("2026-11-01T{hour:02}:20:00Z");
        }
        let said: Value = serde_json::from_slice(&proxy.run(&night)).unwrap();
        for one in said["machines"].as_array().unwrap() {
            assert_eq!(one["result"], "done", "{hour}: {said}");
        }
        proxy.run(&hot);
        let now = fs::read(dir.join("vms/web/web-flat.vmdk")).unwrap();
        assert!(fs::read(dir.join("hot.raw")).unwrap() == now, "{hour}");
        if hour % 6 == 5 {
            all_restore(&proxy, hour);
        }
    }
    assert!(killed > 4, "{killed} were cut off");
    let end = Proxy {
        dir: dir.to_path_buf(),
        now: "2026-11-02T00:00:00Z".into(),
    };
    let left = all_restore(&end, 23);
    for name in names {
        // An export that was cut off when its backup was complete made one more of that hour.
        let mut hours = left[name].clone();
        assert_eq!(hours.len(), KEPT, "{name}: {hours:?}");
        hours.dedup();
        let newest: Vec<usize> = (24 - hours.len()..24).collect();
        assert_eq!(hours, newest, "{name}");
    }
}

/// Every backup that has a name gives the file of its hour, or of the hour in which it was made
/// again; the hours that there are, by machine.
fn all_restore(proxy: &Proxy, until: usize) -> BTreeMap<String, Vec<usize>> {
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for name in ["web", "db"] {
        let Ok(all) = fs::read_dir(proxy.dir.join("bk").join(name)) else {
            continue;
        };
        let mut dates: Vec<String> = all
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.starts_with("2026"))
            .collect();
        dates.sort();
        for date in dates {
            let hour: usize = date.get(11..13).unwrap().parse().unwrap();
            assert!(hour <= until);
            let source = format!("bk/{name}/{date}");
            let read = proxy.run(&["cat", &source, "/log.bin"]);
            assert_eq!(sha256(&read), sha256(&file(name, hour)), "{source}");
            proxy.run(&["check", "-q", &source]);
            found.entry(name.to_owned()).or_default().push(hour);
        }
    }
    found
}
