//! What a mount that is served can no longer do.
//!
//! Its threads read images that may be made to take them over, often as root. So before the first
//! of them starts they give up everything but reading what was named: privileges that are gained
//! by running programs, root's capabilities but the one to read, every file but those below the
//! given places (Landlock), and every system call that serving does not need (seccomp).
//!
//! Unmounting needs privileges again (`fusermount3` is setuid, and a process under Landlock may not
//! change mounts at all), so somebody outside does it: [`Detach`].

use disk_io::Result;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Who unmounts.
#[derive(Clone)]
pub struct Detach(Arc<dyn Fn(bool) -> Result<()> + Send + Sync>);

impl Detach {
    /// By a function that unmounts: at once and whoever uses it, if its argument is `true`.
    pub fn new(detach: impl Fn(bool) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(detach))
    }

    pub(super) fn ask(&self, lazy: bool) -> Result<()> {
        (self.0)(lazy)
    }
}

impl fmt::Debug for Detach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Detach")
    }
}

/// How a mount is locked down.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Files, and directories with all below them, that may be read.
    pub read: Vec<PathBuf>,
    /// Who unmounts.
    pub detach: Detach,
}

/// Why something is left out.
const ABSENT: &str = "this system does not have it";

/// What may be read, looked up before there is a mount: afterwards a name may lead into it, and
/// nobody serves it yet.
#[derive(Debug)]
pub(super) struct Readable(std::result::Result<RulesetCreated, String>);

impl Readable {
    pub(super) fn look_up(sandbox: &Sandbox) -> Self {
        Self(readable(sandbox).map_err(|e| e.to_string()))
    }
}

/// Locks the calling thread down, and so every thread that it starts. What does not work or is not
/// there is told, one sentence each, and the rest is done.
pub(super) fn enter(readable: Readable, state: Option<&Path>) -> Vec<String> {
    let mut told = Vec::new();
    let mut step = |what: &str, result: std::result::Result<String, String>| match result {
        Ok(how) => tracing::debug!("{what}: {how}"),
        Err(e) => told.push(format!("the mount is not confined by {what}: {e}")),
    };
    step(
        "no_new_privs",
        set_no_new_privs(true).map_or_else(|e| Err(e.to_string()), |()| Ok("set".into())),
    );
    step("capabilities", keep_reading());
    step("Landlock", landlock(readable, state));
    step("seccomp", seccomp());
    told
}

/// Root keeps nothing of root but that it may read every file: that is what it was started for.
fn keep_reading() -> std::result::Result<String, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok("not root".into());
    }
    let keep = CapabilitySet::DAC_READ_SEARCH;
    let now = rustix::thread::capabilities(None).map_err(|e| e.to_string())?;
    let sets = CapabilitySets {
        effective: now.effective & keep,
        permitted: now.permitted & keep,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(|e| e.to_string())?;
    Ok("dropped".into())
}

fn readable(sandbox: &Sandbox) -> std::result::Result<RulesetCreated, landlock::RulesetError> {
    const NEWEST: ABI = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Lengths of block devices are asked for by ioctl.
    let device = BitFlags::from(AccessFs::ReadFile) | AccessFs::IoctlDev;
    let write = device | AccessFs::WriteFile;
    let devices = sandbox.read.iter().filter(|p| !p.is_dir());
    // The session opens its device once more for each thread.
    let own = ["/dev/fuse", "/dev/null"];
    let zones = ["/usr/share/zoneinfo", "/etc/localtime"];
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&sandbox.read, read))?
        .add_rules(path_beneath_rules(devices, device))?
        .add_rules(path_beneath_rules(zones, read))?
        .add_rules(path_beneath_rules(own, write))
}

fn landlock(readable: Readable, state: Option<&Path>) -> std::result::Result<String, String> {
    let state = state.and_then(Path::parent);
    let status = || {
        readable
            .0?
            .add_rules(path_beneath_rules(state, AccessFs::RemoveFile))
            .and_then(RulesetCreated::restrict_self)
            .map_err(|e| e.to_string())
    };
    let status = status()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok("enforced".into()),
        RulesetStatus::PartiallyEnforced => Ok("enforced, as far as this kernel can".into()),
        RulesetStatus::NotEnforced => Err(ABSENT.into()),
    }
}

fn seccomp() -> std::result::Result<String, String> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Err(ABSENT.into());
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let limited = limited().map_err(|e| e.to_string())?;
    rules.extend(limited);
    // A call that is not known fails as if the kernel did not have it: what libraries try first
    // and can do without goes on, and everything else ends in an error, not in a dead mount.
    let other = SeccompAction::Errno(libc::ENOSYS as u32);
    let program = SeccompFilter::new(rules, other, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|e| e.to_string())?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok("applied".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// Calls that are let through with some arguments only: signals to this process itself, and what is
/// asked of a terminal but to take typing that nobody did.
fn limited() -> std::result::Result<[(i64, Vec<SeccompRule>); 2], seccompiler::BackendError> {
    let is = |at, how, value| SeccompCondition::new(at, SeccompCmpArgLen::Dword, how, value);
    let own = u64::from(std::process::id());
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|call| is(1, SeccompCmpOp::Ne, call));
    let [push, linux] = typing;
    Ok([
        (
            libc::SYS_tgkill,
            vec![SeccompRule::new(vec![is(0, SeccompCmpOp::Eq, own)?])?],
        ),
        (
            libc::SYS_ioctl,
            vec![SeccompRule::new(vec![push?, linux?])?],
        ),
    ])
}

/// What serving a mount needs: reading, memory, threads, time, the ends of pipes it has.
const CALLS: &[i64] = &[
    // Files.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_unlinkat,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_splice,
    libc::SYS_flock,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mincore,
    // Threads and signals.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_setsid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_membarrier,
    libc::SYS_capget,
    // Waiting and time.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // A pair of sockets without a name wakes the thread that waits for signals.
    libc::SYS_socketpair,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    // The older forms that only this processor has.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::{fs, io::ErrorKind, net::TcpListener, process::Command, thread};

    fn nobody() -> Detach {
        Detach::new(|_| Ok(()))
    }

    /// Runs `work` in a thread that is locked down and then gone.
    fn inside(read: PathBuf, work: impl FnOnce() + Send + 'static) {
        let sandbox = Sandbox {
            read: vec![read],
            detach: nobody(),
        };
        let thread = thread::spawn(move || {
            let told = enter(Readable::look_up(&sandbox), None);
            // Only what the system does not have may be left out, and then nothing can be shown.
            assert!(told.iter().all(|t| t.contains(ABSENT)), "{told:?}");
            if told.is_empty() {
                work();
            } else {
                eprintln!("skipped: {}", told.join("; "));
            }
        });
        thread.join().unwrap();
    }

    #[test]
    fn only_what_is_named_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (in_it, beside) = (dir.path().join("in"), dir.path().join("beside"));
        fs::create_dir(&in_it).unwrap();
        fs::write(in_it.join("file"), "yes").unwrap();
        fs::write(&beside, "no").unwrap();
        let place = in_it.clone();
        inside(in_it, move || {
            assert_eq!(fs::read(place.join("file")).unwrap(), b"yes");
            assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
            // So can threads that it starts.
            let file = place.join("file");
            thread::spawn(move || fs::read(file).unwrap())
                .join()
                .unwrap();
            assert_eq!(
                fs::read(&beside).unwrap_err().kind(),
                ErrorKind::PermissionDenied
            );
            assert!(fs::write(place.join("file"), "changed").is_err());
            assert!(fs::write(place.join("new"), "").is_err());
            assert!(fs::remove_file(place.join("file")).is_err());
        });
    }

    #[test]
    fn nothing_is_run_or_sent() {
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&other);
        inside("/".into(), move || {
            assert!(rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_err());
            assert!(Command::new("true").status().is_err());
            assert!(TcpListener::bind("127.0.0.1:0").is_err());
            // Libraries ask for random bytes, the time and the number of processors.
            assert!(thread::available_parallelism().is_ok());
            let _ = std::time::SystemTime::now();
            thread::sleep(std::time::Duration::from_millis(1));
        });
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn root_can_only_read() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        inside("/".into(), || {
            let left = rustix::thread::capabilities(None).unwrap();
            assert_eq!(
                left.effective - CapabilitySet::DAC_READ_SEARCH,
                CapabilitySet::empty()
            );
            assert_eq!(left.effective, left.permitted);
        });
        // Others are as they were.
        assert!(
            !rustix::thread::capabilities(None)
                .unwrap()
                .effective
                .is_empty()
        );
    }
}
