//! Texts, and the registry's hives.

use crate::{bases, patch::apply};
use disk_image::ova::Descriptor as Ovf;
use inventory::{Config, Dictionary, Snapshots};
use vmdk::Descriptor;

/// What is parsed is parsed in the same way again.
pub fn descriptor(bytes: &[u8]) {
    if let Ok(descriptor) = Descriptor::parse(bytes, "input") {
        let again = Descriptor::parse(bytes, "input").unwrap();
        assert_eq!(format!("{descriptor:?}"), format!("{again:?}"));
    }
}

fn dictionary(bytes: &[u8]) -> Option<Dictionary> {
    let found = Dictionary::parse(bytes).ok()?;
    // What we write ourselves says the same.
    let text = found.to_text();
    let again = Dictionary::parse(text.as_bytes()).expect("our own text");
    // Which encoding it has is not the same.
    let of = |d: &Dictionary| -> Vec<(String, String)> {
        let entries = d.entries().map(|(k, v)| (k.to_owned(), v.to_owned()));
        entries
            .filter(|(k, _)| !k.eq_ignore_ascii_case(".encoding"))
            .collect()
    };
    assert_eq!(of(&found), of(&again), "{text}");
    Some(found)
}

/// A configuration.
pub fn vmx(bytes: &[u8]) {
    if let Some(found) = dictionary(bytes) {
        let config = Config::new(found);
        for disk in &config.disks {
            assert!(!disk.slot.to_string().is_empty());
        }
    }
}

/// A list of snapshots: its tree has every one of them once.
pub fn vmsd(bytes: &[u8]) {
    if let Some(found) = dictionary(bytes) {
        let snapshots = Snapshots::new(&found, &|_| false);
        let tree = snapshots.tree();
        let mut seen: Vec<_> = tree.iter().map(|(_, s)| s.uid).collect();
        seen.sort_unstable();
        let n = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), n, "a snapshot twice");
    }
}

/// The descriptor of a package.
pub fn ovf(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Ovf::parse(text);
    }
}

/// A hive: the same answer twice, within bounds.
pub fn hive(input: &[u8]) {
    let disk = apply(bases::hive(), input);
    let mut bytes = vec![0; disk.len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    let first = proxy::guest_state::all_of_hive(&bytes);
    assert_eq!(first, proxy::guest_state::all_of_hive(&bytes));
    if input.is_empty() {
        // The sound one.
        let all = ["Ok(2)", "WEB01", "10.0.0.5", "Windows, build 9600"];
        assert!(all.iter().all(|a| first.contains(a)), "{first}");
    }
    assert!(first.len() <= 16 * bytes.len() + 4096, "{}", first.len());
}
