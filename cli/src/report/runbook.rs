//! How to get it back: the order, the room, the exact commands.

use super::Recovery;
use crate::output::human;
use disk_io::error::shell_word;
use serde::Serialize;
use std::path::Path;
use verify::backup::Verified;

/// One step.
#[derive(Serialize)]
pub(super) struct Step {
    pub(super) what: String,
    pub(super) command: Option<String>,
}

pub(super) fn steps(source: &Path, verified: &Verified, recovery: &Recovery) -> Vec<Step> {
    let from = shell_word(&source.display().to_string());
    let name = source.file_stem().unwrap_or_default().to_string_lossy();
    let new = shell_word(&format!("./{name}-restored"));
    let step = |what: String, command: Option<String>| Step { what, command };
    let mut steps = Vec::new();
    if verified.is_bad() {
        steps.push(step(
            "it is BAD: take another copy if there is one; what follows gives what is left".into(),
            None,
        ));
    }
    if let Some(since) = &verified.since {
        steps.push(step(
            format!("it holds only what changed: keep {since} and what that builds on beside it"),
            None,
        ));
    }
    steps.push(step(
        "prove it once more, if it was moved since this report".into(),
        Some(format!("vmdkit verify {from}")),
    ));
    steps.push(step(
        format!(
            "make room: {} for disks that grow, {} for thick ones",
            human(recovery.data_bytes),
            human(recovery.virtual_bytes)
        ),
        Some("df -h .".into()),
    ));
    if verified.is_machine {
        steps.push(step(
            "write the machine; what it prints last is how to register it".into(),
            Some(format!("vmdkit restore {from} {new}")),
        ));
    } else {
        for picture in &verified.pictures {
            let disk = match source.is_dir() {
                true => source.join(&picture.name),
                false => source.to_path_buf(),
            };
            let file = Path::new(&picture.name).file_stem().unwrap_or_default();
            let out = format!("./{}-restored.vmdk", file.display());
            steps.push(step(
                format!("write the disk {}", picture.name),
                Some(format!(
                    "vmdkit convert {} {} --to vmdk --verify",
                    shell_word(&disk.display().to_string()),
                    shell_word(&out)
                )),
            ));
        }
    }
    steps.push(step(
        "or single files: look for them, then copy".into(),
        Some(format!("vmdkit find {from} --iname 'PATTERN'")),
    ));
    steps.push(step(
        "PATH is what find prints".into(),
        Some(format!("vmdkit cp {from} PATH .")),
    ));
    steps
}
