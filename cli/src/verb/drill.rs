//! `drill`: the machine is started from its backup, and what it shows is kept.

mod machine;
mod qmp;

use crate::{
    args::{Global, SourceArgs},
    exit::{Exit, Failure},
    output::{Out, warn},
    signals,
    source::spec_of,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use convert::place::Partial;
use disk_io::{Disk, DiskError, error::escape, output::write_error};
use machine::{Bus, Guest, Plan, program};
use proxy::{Layout, MountOptions, Mounted, Source, SourceSpec, Tree, mount};
use qmp::Monitor;
use serde::Serialize;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Start a machine from its backup on a throw-away overlay, and take a picture of its screen
///
/// Nothing is written to SOURCE: its disks are mounted read-only, and what the guest writes goes
/// into temporary files without a name. The machine has no network. It is emulated if the
/// processor cannot help, which is slow.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit drill /backups/web01-2026-11-26
  vmdkit drill web01 --snapshot id:3 --until serial='login:' --timeout 15m
  vmdkit drill disk.vmdk --report drill.html

Without --until it has started when its screen shows something else than firmware and boot
loader and has been quiet for a while. Messages of boot sectors that find no system end the
drill as failed. Exit code 0: started; 4: not. Needs qemu-system-x86_64 and /dev/fuse.")]
pub(crate) struct Drill {
    #[command(flatten)]
    source: SourceArgs,
    /// It has started when its serial port (serial=TEXT) or its screen in text mode (screen=TEXT)
    /// shows this
    #[arg(long, value_name = "WHERE=TEXT")]
    until: Option<Until>,
    /// Give up after this time (90s, 5m)
    #[arg(long, value_name = "TIME", value_parser = crate::times::span, default_value = "5m")]
    timeout: Duration,
    /// The controller that disks hang on
    #[arg(long, value_enum, default_value_t = Bus::Ide)]
    bus: Bus,
    /// Memory of the machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u64,
    /// The picture of the screen, as PNG
    #[arg(long, value_name = "FILE")]
    screenshot: Option<PathBuf>,
    /// Write evidence: .json or .html
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a start is known by.
#[derive(Clone, Debug)]
enum Until {
    Serial(String),
    Screen(String),
}

impl std::str::FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("serial", text)) if !text.is_empty() => Ok(Self::Serial(text.into())),
            Some(("screen", text)) if !text.is_empty() => Ok(Self::Screen(text.into())),
            _ => Err("expected serial=TEXT or screen=TEXT".into()),
        }
    }
}

/// What boot sectors and firmware say when there is no system.
const FAILURES: [&str; 12] = [
    "No bootable device",
    "Boot failed: not a bootable disk",
    "Operating System not found",
    "Missing operating system",
    "Error loading operating system",
    "Invalid partition table",
    "NTLDR is missing",
    "BOOTMGR is missing",
    "Non-System disk or disk error",
    "A disk read error occurred",
    "grub rescue>",
    "Kernel panic",
];
/// What firmware and loaders show on the way.
const ON_THE_WAY: [&str; 4] = ["SeaBIOS", "iPXE", "Booting from", "GRUB"];
/// A screen that has not changed for so long has come to rest.
const QUIET: Duration = Duration::from_secs(10);
/// How often is looked.
const EACH: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Json {
    format: &'static str,
    version: u32,
    source: String,
    began: String,
    /// `started`, `failed`, `timeout`, `ended`.
    result: &'static str,
    /// What it was known by.
    seen: Option<String>,
    seconds: f64,
    disks: Vec<String>,
    firmware: &'static str,
    screen_text: String,
    serial: String,
    screenshot: Option<String>,
}

/// How it went.
struct Went {
    result: &'static str,
    seen: Option<String>,
    seconds: f64,
    screen: String,
    serial: String,
    picture: Option<Vec<u8>>,
}

/// The end of the serial output that is kept.
const SERIAL: usize = 16 << 10;

impl Drill {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        // What is missing is known before anything is mounted.
        program()?;
        for report in &self.report {
            let end = report.extension().and_then(|e| e.to_str());
            if !matches!(end, Some("json" | "html")) {
                return Err(Failure::usage(
                    "the name of a report ends in .json or .html",
                ));
            }
        }
        let spec = spec_of(&self.source, global)?;
        let (sources, efi) = disks(&spec)?;
        let most = match self.bus {
            Bus::Ide => 4,
            Bus::Sata => 6,
            Bus::Scsi => 8,
            Bus::Virtio => 16,
        };
        if sources.len() > most {
            return Err(Failure::usage_with(
                format!(
                    "the machine has {} disks, and this bus takes {most}",
                    sources.len()
                ),
                "try --bus virtio, or one disk with --disk",
            ));
        }
        signals::watch();
        let fail = |e: std::io::Error| DiskError::io("making a directory for the drill", &e);
        let scratch = tempfile::tempdir().map_err(fail)?;
        let mut mounts: Vec<Mounted> = Vec::new();
        let mut paths = Vec::new();
        let mut names = Vec::new();
        for (n, (name, source)) in sources.into_iter().enumerate() {
            let dir = scratch.path().join(format!("disk{n}"));
            fs::create_dir(&dir).map_err(fail)?;
            let options = MountOptions {
                layout: Layout::Raw,
                ..MountOptions::default()
            };
            mounts.push(mount(Arc::new(Tree::raw(source)), &dir, &options)?);
            paths.push(dir.join("disk.img"));
            names.push(name);
        }
        let plan = Plan {
            disks: paths,
            bus: self.bus,
            efi,
            memory: self.memory,
            scratch: scratch.path().to_path_buf(),
        };
        let began = crate::clock::now().to_string();
        let went = self.watch(&plan);
        for mounted in mounts {
            mounted.unmount()?;
        }
        let went = went?;
        let json = Json {
            format: "vmdkit-drill",
            version: 1,
            source: self.source.source.display().to_string(),
            began,
            result: went.result,
            seen: went.seen.clone(),
            seconds: went.seconds,
            disks: names,
            firmware: if efi { "efi" } else { "bios" },
            screen_text: went.screen.clone(),
            serial: went.serial.clone(),
            screenshot: self.screenshot.as_ref().map(|p| p.display().to_string()),
        };
        self.keep(&json, went.picture.as_deref())?;
        self.tell(global, &json)?;
        Ok(match went.result {
            "started" => Exit::Done,
            _ => Exit::Bad,
        })
    }

    /// Starts it and looks until something has come of it.
    fn watch(&self, plan: &Plan) -> Result<Went, Failure> {
        let begun = Instant::now();
        let mut guest = Guest::start(plan)?;
        let mut monitor = Monitor::connect(&guest.socket)?;
        let scratch = plan.scratch.join("text");
        let picture = plan.scratch.join("screen.png");
        let (mut last, mut since) = (Vec::new(), Instant::now());
        let (result, seen, screen) = loop {
            if let Some(signal) = signals::caught() {
                return Err(DiskError::refused("waiting for the guest")
                    .found(format!("signal {signal}"))
                    .into());
            }
            let ended = guest.ended();
            let serial = guest.serial();
            if let Some(Until::Serial(text)) = &self.until
                && serial.contains(text.as_str())
            {
                let screen = monitor.text(&scratch).unwrap_or_default();
                break ("started", Some(format!("serial: {text}")), screen);
            }
            if ended {
                break ("ended", None, String::new());
            }
            let screen = match monitor.text(&scratch) {
                // It may have switched itself off just now.
                Err(_) if guest.ended() => break ("ended", None, String::new()),
                other => other?,
            };
            let failed = FAILURES
                .iter()
                .find(|f| screen.contains(*f) || serial.contains(*f));
            if let Some(failure) = failed {
                break ("failed", Some((*failure).to_owned()), screen);
            }
            match &self.until {
                Some(Until::Screen(text)) if screen.contains(text.as_str()) => {
                    break ("started", Some(format!("screen: {text}")), screen);
                }
                Some(_) => {}
                None => {
                    monitor.picture(&picture)?;
                    let shown = fs::read(&picture).unwrap_or_default();
                    // The cursor of a screen in text mode blinks.
                    let now = match is_text(&shown) {
                        true => screen.clone().into_bytes(),
                        false => shown,
                    };
                    if now != last {
                        (last, since) = (now, Instant::now());
                    }
                    let waits = ON_THE_WAY
                        .iter()
                        .any(|w| screen.lines().next_back().is_some_and(|l| l.contains(w)));
                    if since.elapsed() > QUIET && !waits && !screen.is_empty() {
                        break ("started", Some("the screen came to rest".into()), screen);
                    }
                }
            }
            if begun.elapsed() > self.timeout {
                break ("timeout", None, screen);
            }
            std::thread::sleep(EACH);
        };
        let seconds = begun.elapsed().as_secs_f64();
        let pictured = monitor.picture(&picture);
        if let Err(e) = &pictured
            && result != "ended"
        {
            warn(e.to_string());
        }
        monitor.quit();
        let serial = guest.serial();
        let cut = serial.len().saturating_sub(SERIAL);
        let cut = (cut..=serial.len()).find(|n| serial.is_char_boundary(*n));
        Ok(Went {
            result,
            seen,
            seconds,
            screen,
            serial: serial
                .get(cut.unwrap_or(0)..)
                .unwrap_or_default()
                .to_owned(),
            picture: pictured.ok().and_then(|()| fs::read(&picture).ok()),
        })
    }

    fn keep(&self, json: &Json, picture: Option<&[u8]>) -> Result<(), Failure> {
        if let (Some(path), Some(picture)) = (&self.screenshot, picture) {
            write(path, picture)?;
        }
        for report in &self.report {
            let is_html = report.extension().is_some_and(|e| e == "html");
            match is_html {
                true => write(report, page(json, picture).as_bytes())?,
                false => {
                    let mut text = serde_json::to_vec_pretty(json)?;
                    text.push(b'\n');
                    write(report, &text)?;
                }
            }
        }
        Ok(())
    }

    fn tell(&self, global: &Global, json: &Json) -> Result<(), Failure> {
        let mut out = Out::new();
        if self.json {
            out.document(json)?;
            return out.finish();
        }
        if !global.quiet {
            out.line(format!("firmware    {}", json.firmware))?;
            out.line(format!("disks       {}", escape(&json.disks.join(", "))))?;
            for line in json.screen_text.lines() {
                out.line(format!("screen    | {}", escape(line)))?;
            }
        }
        let after = format!("after {:.1} s", json.seconds);
        let seen = escape(json.seen.as_deref().unwrap_or_default());
        out.line(match json.result {
            "started" => format!("STARTED {after}: {seen}"),
            "failed" => format!("NOT STARTED {after}: {seen}"),
            "ended" => format!("NOT STARTED: the machine switched itself off {after}"),
            _ => format!("NOT STARTED {after}: what was waited for did not come"),
        })?;
        out.finish()
    }
}

/// Whether a picture has the size of a screen in text mode: 80 by 25 characters of 9 by 16.
fn is_text(png: &[u8]) -> bool {
    let size = [720u32.to_be_bytes(), 400u32.to_be_bytes()].concat();
    png.get(16..24) == Some(&size)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let partial = Partial::create(path, true)?;
    partial
        .file()
        .write_all(bytes)
        .map_err(|e| write_error("writing the report", path, &e))?;
    Ok(partial.finish()?)
}

type Disks = Vec<(String, Arc<Source>)>;

/// The disks of the machine, the one it starts from first, and whether it starts by EFI.
fn disks(spec: &SourceSpec) -> Result<(Disks, bool), Failure> {
    let machines = match spec.disk.is_some() {
        true => None,
        false => match spec.machines()? {
            Some(machines) => Some(machines),
            None => spec.packaged()?,
        },
    };
    let Some(machines) = machines else {
        let source = Arc::new(Source::open(spec)?);
        let name = source.path().display().to_string();
        let efi = has_efi(&source)?;
        return Ok((vec![(name, source)], efi));
    };
    let (machine, date_used) = machines.only(spec.snapshot.as_deref())?;
    let wanted = spec.snapshot.clone().filter(|_| !date_used);
    let point = machine.point(wanted.as_deref())?;
    let mut disks = Vec::new();
    for disk in &point.disks {
        if machine.raw_device(disk).is_some() {
            warn(format!(
                "{}: its data is on a LUN, and is not there",
                disk.slot
            ));
            continue;
        }
        let spec = SourceSpec {
            disk: Some(disk.slot.to_string()),
            ..spec.clone()
        };
        disks.push((disk.slot.to_string(), Arc::new(Source::open(&spec)?)));
    }
    if disks.is_empty() {
        return Err(DiskError::refused("starting a drill")
            .file(spec.path.display())
            .expected("a machine with a disk")
            .found("none")
            .into());
    }
    let firmware = machine.vm().config.firmware.as_deref();
    let efi = firmware.is_some_and(|f| f.eq_ignore_ascii_case("efi"));
    Ok((disks, efi))
}

/// Whether a lone disk can only be started by EFI.
fn has_efi(source: &Arc<Source>) -> Result<bool, Failure> {
    let table = source.table();
    let system = |p: &guest_fs::partition::Partition| {
        p.type_id
            .eq_ignore_ascii_case("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
    };
    let mut code = [0; 4];
    source.disk().read_exact_at(&mut code, 0)?;
    Ok(table.partitions.iter().any(system) && code == [0; 4])
}

/// One page, with the picture in it.
fn page(json: &Json, picture: Option<&[u8]>) -> String {
    let text = |s: &str| quick_xml::escape::escape(s.to_owned()).into_owned();
    let picture = match picture {
        Some(bytes) => format!(
            "<img alt=\"the screen\" src=\"data:image/png;base64,{}\">",
            STANDARD.encode(bytes)
        ),
        None => "<p>There is no picture of its screen.</p>".into(),
    };
    let seen = json.seen.clone().unwrap_or_default();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>drill of {0}</title>\
         <style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         img{{max-width:100%;border:1px solid #999}}pre{{background:#f4f5f7;color:#1c1e21;padding:.6rem;overflow-x:auto}}</style></head>\
         <body><h1>Drill of {0}</h1><p><strong>{1}</strong> after {2:.1} s: {3}</p>\
         <p>{4}, {5}; disks: {6}</p>{7}<h2>Screen</h2><pre>{8}</pre><h2>Serial port</h2><pre>{9}</pre></body></html>\n",
        text(&json.source),
        json.result,
        json.seconds,
        text(&seen),
        text(&json.began),
        json.firmware,
        text(&json.disks.join(", ")),
        picture,
        text(&json.screen_text),
        text(&json.serial)
    )
}
