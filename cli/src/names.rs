//! Guest names in JSON, and as names of the host.

use crate::exit::Failure;
use serde::Serialize;
use std::ffi::OsStr;

/// An empty PATH is a variable that was not set, hardly the whole disk.
pub(crate) fn check_path(path: &OsStr) -> Result<(), Failure> {
    if path.is_empty() {
        return Err(Failure::usage_with(
            "a PATH is empty",
            "/ is the root of the tree, if that is meant",
        ));
    }
    Ok(())
}

/// A name as one component of a path of the host.
pub(crate) fn component(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    match name.as_str() {
        "" | "." | ".." => "machine".to_owned(),
        _ => name,
    }
}

/// A name or path: escaped where it is not all text, and then in hexadecimal beside.
#[derive(Debug, Serialize)]
pub(crate) struct NameJson {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
}

impl NameJson {
    pub(crate) fn new(name: &[u8]) -> Self {
        Self {
            name: shown(name),
            name_hex: hex_if_needed(name),
        }
    }
}

/// The text of a name, or its escaped form.
pub(crate) fn shown(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_owned(),
        Err(_) => guest_fs::Name::from_bytes(name).to_string(),
    }
}

/// The bytes in hexadecimal, if [`shown`] cannot give them back.
pub(crate) fn hex_if_needed(name: &[u8]) -> Option<String> {
    std::str::from_utf8(name)
        .is_err()
        .then(|| name.iter().map(|b| format!("{b:02x}")).collect())
}
