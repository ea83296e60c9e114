//! The process that serves: its end, its bounds, its long life.

use super::*;

#[test]
fn a_busy_mount_says_so_and_can_be_detached() {
    let Some(mut here) = Here::new(odd(), &MountOptions::default()) else {
        return;
    };
    let mut file = File::open(here.at("p1/Users/Bob/big")).unwrap();
    let e = umount::umount(here.place.path(), false).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
    let begin = Instant::now();
    here.mounted.take().unwrap().unmount().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert!(table::at(&here.place.path().canonicalize().unwrap()).is_none());
    // Whoever has it open goes on reading while this process lives.
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == pattern(3_000_001, 1));
    let e = umount::umount(here.place.path(), false).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
}

/// Not a test of its own: the process that the next test starts and ends.
#[test]
fn child_that_serves() {
    let Some(dir) = std::env::var_os("VMDKIT_TEST_SERVE") else {
        return;
    };
    if std::env::var_os("VMDKIT_TEST_CLEANUP").is_some() {
        for done in umount::cleanup() {
            println!("cleaned {} {:?}", done.dir.display(), done.error);
        }
        return;
    }
    let confined = std::env::var_os("VMDKIT_TEST_SANDBOX").is_some();
    let options = MountOptions {
        signals: true,
        sandbox: confined.then(|| Sandbox {
            read: Vec::new(),
            detach: Detach::new(|_| Err(DiskError::refused("unmounting"))),
        }),
        ..MountOptions::default()
    };
    let mounted = mount(Arc::new(odd()), Path::new(&dir), &options).unwrap();
    let ended = mounted.serve().unwrap();
    println!("ended {ended:?}");
}

fn child(dir: &Path, runtime: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "mount::tests::serving::child_that_serves",
            "--nocapture",
        ])
        .env("VMDKIT_TEST_SERVE", dir)
        .env("XDG_RUNTIME_DIR", runtime)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

fn wait_for_ready(child: &mut std::process::Child, dir: &Path) {
    let begin = Instant::now();
    while table::at(dir).is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended early");
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read(dir.join("p1/Users/Bob/a.txt")).unwrap(), b"hello");
}

#[test]
fn signals_and_sudden_death_leave_nothing_behind() {
    if !available() {
        return;
    }
    use rustix::process::{Pid, Signal, kill_process};
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("mount point");
    let runtime = place.path().join("runtime");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&runtime).unwrap();
    let dir = dir.canonicalize().unwrap();
    let states = || fs::read_dir(runtime.join("vmdkit")).map_or(0, |d| d.count());
    let pid = |c: &std::process::Child| Pid::from_raw(c.id() as i32).unwrap();

    // Asked to end, with a file open.
    for signal in [Signal::TERM, Signal::INT] {
        let mut serving = child(&dir, &runtime).spawn().unwrap();
        wait_for_ready(&mut serving, &dir);
        let open = File::open(dir.join("p1/Users/Bob/big")).unwrap();
        assert_eq!(states(), 1);
        kill_process(pid(&serving), signal).unwrap();
        let output = serving.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("ended Signal"), "{text}");
        assert!(table::at(&dir).is_none(), "still mounted");
        assert_eq!(states(), 0);
        let mut buf = vec![0; 4096];
        assert_eq!(os_error(open.read_at(&mut buf, 2 << 20)), ENOTCONN);
    }

    // Unmounted by somebody: the process ends by itself.
    let mut serving = child(&dir, &runtime).spawn().unwrap();
    wait_for_ready(&mut serving, &dir);
    umount::umount(&dir, false).unwrap();
    let output = serving.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ended Unmounted"), "{text}");
    assert_eq!(states(), 0);

    // Killed: `umount` works on what is left, and a new mount says what to do.
    let mut serving = child(&dir, &runtime).spawn().unwrap();
    wait_for_ready(&mut serving, &dir);
    serving.kill().unwrap();
    serving.wait().unwrap();
    assert_eq!(os_error(fs::metadata(&dir)), ENOTCONN);
    let e = mount(Arc::new(odd()), &dir, &MountOptions::default()).unwrap_err();
    assert!(e.to_string().contains("vmdkit umount"), "{e}");
    umount::umount(&dir, false).unwrap();
    assert!(fs::metadata(&dir).is_ok());

    // Killed, and cleaned up by another process that knows only the state files.
    let mut serving = child(&dir, &runtime).spawn().unwrap();
    wait_for_ready(&mut serving, &dir);
    serving.kill().unwrap();
    serving.wait().unwrap();
    let output = child(&dir, &runtime)
        .env("VMDKIT_TEST_CLEANUP", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains(&format!("cleaned {} None", dir.display())),
        "{text}"
    );
    assert!(fs::metadata(&dir).is_ok());
    assert_eq!(states(), 0, "{text}");
}

/// Also the one that waits for signals, which are caught from before the mount on.
#[test]
fn every_thread_is_confined() {
    if !available() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().canonicalize().unwrap().join("mnt");
    let runtime = place.path().join("runtime");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&runtime).unwrap();
    let mut serving = child(&dir, &runtime)
        .env("VMDKIT_TEST_SANDBOX", "1")
        .spawn()
        .unwrap();
    wait_for_ready(&mut serving, &dir);
    let first = serving.id().to_string();
    let status = |thread: fs::DirEntry| {
        let thread = thread.path();
        let name = fs::read_to_string(thread.join("comm")).unwrap();
        let status = fs::read_to_string(thread.join("status")).unwrap();
        (name.trim_end().to_owned(), status)
    };
    let all = || {
        let threads = fs::read_dir(format!("/proc/{}/task", serving.id())).unwrap();
        let threads = threads
            .map(|t| t.unwrap())
            // The one that waits for the test to end was there before, and serves nothing.
            .filter(|t| t.file_name() != first.as_str());
        threads.map(status).collect::<Vec<_>>()
    };
    // A thread gives itself its name, some time after it began.
    let mut threads = all();
    for _ in 0..500 {
        if threads.iter().any(|(name, _)| name == "signals") {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        threads = all();
    }
    umount::umount(&dir, false).unwrap();
    let output = serving.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ended Unmounted"), "{text}");
    assert!(threads.len() >= 4, "{threads:?}");
    assert!(threads.iter().any(|(name, _)| name == "signals"));
    for (name, status) in threads {
        assert!(status.contains("Seccomp:\t2"), "{name}: {status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{name}: {status}");
    }
}

#[test]
fn an_idle_mount_goes_and_one_in_use_stays() {
    let options = MountOptions {
        idle: Some(Duration::from_millis(300)),
        ..MountOptions::default()
    };
    let Some(mut here) = Here::new(odd(), &options) else {
        return;
    };
    let file = File::open(here.at("p1/Users/Bob/a.txt")).unwrap();
    let mounted = here.mounted.take().unwrap();
    let began = Instant::now();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        drop(file);
    });
    assert_eq!(mounted.serve().unwrap(), Ended::Idle);
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    holder.join().unwrap();
    assert!(table::at(here.place.path()).is_none());
}

#[test]
fn every_opening_is_told() {
    let seen: Arc<Mutex<Vec<Opening>>> = Arc::default();
    let told = seen.clone();
    let options = MountOptions {
        audit: Some(Audit::new(move |o: &Opening| {
            told.lock().unwrap().push(o.clone());
        })),
        ..MountOptions::default()
    };
    let Some(here) = Here::new(odd(), &options) else {
        return;
    };
    fs::read(here.at("p1/Users/Bob/a.txt")).unwrap();
    fs::read_dir(here.at("p1/Users")).unwrap().count();
    let seen = seen.lock().unwrap();
    let me = rustix::process::getuid().as_raw();
    let find = |path: &str, directory: bool| {
        seen.iter()
            .any(|o| o.path == Name::from(path) && o.directory == directory && o.uid == me)
    };
    assert!(find("/p1/Users/Bob/a.txt", false), "{seen:?}");
    assert!(find("/p1/Users", true), "{seen:?}");
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A day in a moment: readers come every minute of a clock that is moved on, some files stay open
/// for hours, the kernel forgets what it knew; then nobody comes any more.
#[test]
fn a_day_of_readers_leaves_nothing_behind() {
    const MINUTE: u64 = 60_000;
    let now = Arc::new(AtomicU64::new(0));
    let clock = {
        let now = now.clone();
        Clock::new(move || Duration::from_millis(now.load(Ordering::Relaxed)))
    };
    let mut fs = MockFs::new();
    let mut data = Vec::new();
    for n in 0..200u32 {
        data.push(pattern(1000 + n as usize * 997, u64::from(n)));
        fs.file(0, format!("file {n}"), &data[n as usize]);
    }
    let options = MountOptions {
        idle: Some(Duration::from_secs(2 * 3600)),
        clock: Some(clock),
        ..MountOptions::default()
    };
    let Some(mut here) = Here::new(tree(vec![fs], TreeOptions::default()), &options) else {
        return;
    };
    let mounted = here.mounted.take().unwrap();
    let open_now = mounted.activity.clone();
    let server = std::thread::spawn(move || mounted.serve());
    // Forgetting is asked for where that is allowed; without it, entries only pile up.
    let forget = || drop(fs::write("/proc/sys/vm/drop_caches", "2"));
    let mut kept: std::collections::VecDeque<File> = Default::default();
    let mut after_an_hour = 0;
    for minute in 0..24 * 60u64 {
        now.fetch_add(MINUTE, Ordering::Relaxed);
        let n = (minute * 7919 % 200) as usize;
        let path = here.at(&format!("p1/file {n}"));
        let file = File::open(&path).unwrap();
        let mut read = vec![0; data[n].len() / 2];
        let from = data[n].len() - read.len();
        file.read_exact_at(&mut read, from as u64).unwrap();
        assert!(read == data[n][from..], "minute {minute}");
        if minute % 30 == 0 {
            assert_eq!(fs::read_dir(here.at("p1")).unwrap().count(), 200);
            kept.push_back(file);
        }
        if kept.len() > 8 {
            kept.pop_front();
        }
        if minute % 240 == 0 {
            forget();
        }
        if minute == 60 {
            after_an_hour = resident();
        }
    }
    // Other tests of this process have memory too, for a while.
    let mut grown = resident().saturating_sub(after_an_hour);
    for _ in 0..200 {
        if grown < 24 << 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        grown = grown.min(resident().saturating_sub(after_an_hour));
    }
    assert!(grown < 24 << 20, "{grown} bytes more after a day");
    // Open files keep it, however quiet it is.
    now.fetch_add(3 * 60 * MINUTE, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!server.is_finished());
    kept.clear();
    // Closing is told to the server a moment later, and is itself something that was asked.
    let begin = Instant::now();
    while open_now.held.load(Ordering::Relaxed) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "lost handles");
        std::thread::sleep(Duration::from_millis(5));
    }
    now.fetch_add(3 * 60 * MINUTE, Ordering::Relaxed);
    assert_eq!(server.join().unwrap().unwrap(), Ended::Idle);
    assert!(table::at(here.place.path()).is_none());
}
