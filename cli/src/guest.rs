//! What a guest says of itself, as verbs tell it.

use crate::{
    exit::Failure,
    output::{Out, warn},
};
use disk_io::error::escape;
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
    domain_controller: bool,
    databases: Vec<DatabaseJson>,
    /// Volumes that were not closed.
    dirty: Vec<String>,
    /// What should be known before it is put back.
    warnings: Vec<String>,
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
        Self {
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

/// Says what should be known before it is put back.
pub(crate) fn tell(state: &GuestState) {
    for warning in state.warnings() {
        warn(escape(&warning));
    }
}

/// Lines of text, if anything is known.
pub(crate) fn lines(out: &mut Out, state: &GuestState) -> Result<(), Failure> {
    for (what, value) in [("guest", &state.host), ("system", &state.system)] {
        if let Some(value) = value {
            out.line(format!("{what:<13} {}", escape(value)))?;
        }
    }
    if !state.addresses.is_empty() {
        let addresses = escape(&state.addresses.join(", "));
        out.line(format!("addresses     {addresses}"))?;
    }
    for database in &state.databases {
        let open = match database.open {
            Some(true) => ", running when it was copied",
            _ => "",
        };
        let path = escape(&database.path);
        out.line(format!("database      {}: {path}{open}", database.what))?;
    }
    Ok(())
}
