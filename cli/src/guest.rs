//! What a guest says of itself, as verbs tell it.

use crate::{
    exit::Failure,
    output::{Out, warn},
};
use disk_io::error::escape;
use inventory::Dictionary;
use proxy::{GuestState, Source, Tree, TreeOptions};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
pub(crate) struct GuestJson {
    /// What it calls itself.
    host: Option<String>,
    system: Option<String>,
    /// Addresses that do not come from DHCP.
    addresses: Vec<String>,
    /// Their adapters, where a registry tells more of them.
    adapters: Vec<AdapterJson>,
    domain_controller: bool,
    databases: Vec<DatabaseJson>,
    /// Volumes that were not closed.
    dirty: Vec<String>,
    /// What should be known before it is put back.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct AdapterJson {
    /// What the guest knows it by.
    id: String,
    name: Option<String>,
    device: Option<String>,
    /// What configurations call such a device.
    model: Option<&'static str>,
    /// Whether it is not there any more.
    absent: Option<bool>,
    addresses: Vec<String>,
}

#[derive(Serialize)]
struct DatabaseJson {
    what: &'static str,
    path: String,
    /// Whether a lock file says that it was running.
    open: Option<bool>,
}

impl From<&GuestState> for GuestJson {
    fn from(state: &GuestState) -> Self {
        let databases = state.databases.iter().map(|d| DatabaseJson {
            what: d.what,
            path: d.path.clone(),
            open: d.open,
        });
        let adapters = state.adapters.iter().map(|a| AdapterJson {
            id: a.id.clone(),
            name: a.name.clone(),
            device: a.device.clone(),
            model: a.model(),
            absent: a.absent,
            addresses: a.addresses.clone(),
        });
        Self {
            adapters: adapters.collect(),
            host: state.host.clone(),
            system: state.system.clone(),
            addresses: state.addresses.clone(),
            domain_controller: state.is_domain_controller(),
            databases: databases.collect(),
            dirty: state.dirty.clone(),
            warnings: state.warnings(),
        }
    }
}

/// Of all disks of a machine. What cannot be looked at is left out.
pub(crate) fn of<'a>(sources: impl IntoIterator<Item = &'a Arc<Source>>) -> GuestState {
    let mut all = GuestState::default();
    for source in sources {
        if let Ok(tree) = Tree::new(source.clone(), TreeOptions::default()) {
            all.add(GuestState::of(&tree));
        }
    }
    all
}

/// Of a machine: its adapters are compared with those of its configuration.
pub(crate) fn of_machine<'a>(
    sources: impl IntoIterator<Item = &'a Arc<Source>>,
    config: &Dictionary,
) -> GuestState {
    let mut state = of(sources);
    let present = |n: &u32| config.flag(&format!("ethernet{n}.present")) == Some(true);
    let model = |n| config.text(&format!("ethernet{n}.virtualDev"));
    let models: Option<Vec<String>> = (0..10)
        .filter(present)
        .map(|n| model(n).map(str::to_owned))
        .collect();
    // Where it leaves a model to the host, nothing is known.
    if let Some(models) = models {
        state.compare_adapters(&models);
    }
    state
}

/// Says what should be known before it is put back.
pub(crate) fn tell(state: &GuestState) {
    for warning in state.warnings() {
        warn(escape(&warning));
    }
}

/// Lines of text, if anything is known.
pub(crate) fn lines(out: &mut Out, state: &GuestState, indent: &str) -> Result<(), Failure> {
    for (what, value) in [("guest", &state.host), ("system", &state.system)] {
        if let Some(value) = value {
            out.line(format!("{indent}{what:<13} {}", escape(value)))?;
        }
    }
    if !state.addresses.is_empty() {
        let addresses = escape(&state.addresses.join(", "));
        out.line(format!("{indent}addresses     {addresses}"))?;
    }
    if !state.dirty.is_empty() {
        let dirty = escape(&state.dirty.join(", "));
        out.line(format!("{indent}not closed    {dirty}"))?;
    }
    for database in &state.databases {
        let open = match database.open {
            Some(true) => ", running when it was copied",
            _ => "",
        };
        let path = escape(&database.path);
        out.line(format!(
            "{indent}database      {}: {path}{open}",
            database.what
        ))?;
    }
    Ok(())
}
