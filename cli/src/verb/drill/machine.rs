//! The machine that a drill starts: qemu, without a network, over disks that cannot be written.

use disk_io::{DiskError, Result};
use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How the machine is built.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Raw disks, the first one to start from.
    pub(super) disks: Vec<PathBuf>,
    /// What they hang on.
    pub(super) bus: Bus,
    /// Whether firmware is EFI.
    pub(super) efi: bool,
    /// MiB of memory.
    pub(super) memory: u64,
    /// A directory for everything that it writes.
    pub(super) scratch: PathBuf,
}

/// Controllers that old and new systems have drivers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bus {
    /// Every system has a driver for it; four disks at most
    Ide,
    /// AHCI, six disks at most
    Sata,
    /// LSI SAS 1068, as VMware has it
    Scsi,
    /// For Linux
    Virtio,
}

/// Firmware for EFI, where distributions put it.
const EFI: [&str; 4] = [
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
];

/// A running machine; it ends when this is dropped.
pub(super) struct Guest {
    child: Child,
    pub(super) serial: PathBuf,
    pub(super) socket: PathBuf,
    log: PathBuf,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, or what to install.
pub(super) fn program() -> Result<PathBuf> {
    let name = "qemu-system-x86_64";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file());
    found.ok_or_else(|| {
        DiskError::refused("starting a drill")
            .file(name)
            .expected("the program in PATH")
            .found("none")
            .hint("install it: apt-get install qemu-system-x86")
    })
}

impl Guest {
    /// # Errors
    /// `Refused` where qemu does not start, with what it said.
    pub(super) fn start(plan: &Plan) -> Result<Self> {
        let at = |name: &str| plan.scratch.join(name);
        let (serial, socket, log) = (at("serial"), at("monitor"), at("log"));
        let fail = |e: &std::io::Error| DiskError::io("starting qemu", e);
        let said = File::create(&log).map_err(|e| fail(&e))?;
        let mut command = Command::new(program()?);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            // A network would let it reach the machine that it is a copy of.
            .args([
                "-nic",
                "none",
                "-vga",
                "std",
                "-m",
                &plan.memory.to_string(),
            ])
            .args(["-machine", "pc,accel=kvm:tcg", "-smp", "2"])
            .args(["-serial", &format!("file:{}", serial.display())])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", socket.display()),
            ])
            .env("TMPDIR", &plan.scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::from(said.try_clone().map_err(|e| fail(&e))?))
            .stderr(Stdio::from(said));
        if plan.efi {
            let firmware = EFI.iter().find(|f| Path::new(f).is_file());
            let firmware = firmware.ok_or_else(|| {
                DiskError::refused("starting a drill")
                    .expected("firmware for a machine that starts by EFI")
                    .found("none")
                    .hint("install it: apt-get install ovmf")
            })?;
            command.args(["-bios", firmware]);
        }
        match plan.bus {
            Bus::Sata => command.args(["-device", "ahci,id=bus"]),
            Bus::Scsi => command.args(["-device", "mptsas1068,id=bus"]),
            Bus::Ide | Bus::Virtio => &mut command,
        };
        for (n, disk) in plan.disks.iter().enumerate() {
            // Everything that is written goes into a file of qemu's own, without a name.
            let mut drive = OsString::from(format!("id=d{n},format=raw,snapshot=on,if=none,file="));
            drive.push(disk.to_string_lossy().replace(',', ",,"));
            let boot = n + 1;
            let device = match plan.bus {
                Bus::Ide => format!("ide-hd,bus=ide.{},unit={}", n / 2, n % 2),
                Bus::Sata => format!("ide-hd,bus=bus.{n}"),
                Bus::Scsi => format!("scsi-hd,bus=bus.0,scsi-id={n}"),
                Bus::Virtio => "virtio-blk-pci".into(),
            };
            command.arg("-drive").arg(drive);
            command.args(["-device", &format!("{device},drive=d{n},bootindex={boot}")]);
        }
        let child = command.spawn().map_err(|e| fail(&e))?;
        let mut guest = Self {
            child,
            serial,
            socket,
            log,
        };
        let until = Instant::now() + Duration::from_secs(60);
        while !guest.socket.exists() {
            if guest.ended() || Instant::now() > until {
                return Err(DiskError::refused("starting qemu")
                    .expected("a running machine")
                    .found(guest.said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(guest)
    }

    /// Whether it has ended by itself.
    pub(super) fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|s| s.is_some())
    }

    /// What qemu itself had to say.
    pub(super) fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        match text.is_empty() {
            true => "nothing from it".into(),
            false => text,
        }
    }

    /// What the guest wrote to its first serial port.
    pub(super) fn serial(&self) -> String {
        let bytes = std::fs::read(&self.serial).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
