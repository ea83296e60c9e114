//! The one VMFS-3 volume that is at hand, of 2009, against vmfs-tools.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use disk_io::{Disk, RunKind, conformance};
use std::process::Command;
use support::*;

#[test]
fn a_volume_of_esx_3() {
    let Some((base, _)) = images() else { return };
    let path = base.join("vmfs-tools/test.img");
    if !path.exists() {
        return skip("images", "no VMFS-3 image");
    }
    let volume = open(&[host(&path)]);
    let sb = volume.superblock();
    assert_eq!(
        (sb.generation(), sb.version().as_str(), sb.label.as_str()),
        (3, "3.31", "toto")
    );
    assert_eq!(sb.uuid.to_string(), "49edf844-ebfc28f3-65cb-0021280083cf");
    assert_eq!(volume.warnings(), &[] as &[String]);
    let found = tree(&volume);
    assert_eq!(found.len(), 14);
    let mut findings = Vec::new();
    let checked = volume.check(&mut |f| findings.push(f)).unwrap();
    assert!(
        findings.is_empty() && checked.clusters > 50,
        "{findings:#?} {checked:?}"
    );
    for (name, address) in &found {
        let stat = volume.stat(*address).unwrap();
        if stat.kind != vmfs_reader::FileKind::File {
            continue;
        }
        let file = volume.open_file(*address).unwrap();
        conformance::check_rules(&file);
        if name == "/zeroedthick-flat.vmdk" {
            // Allocated and never written (fact sheet, VMFS 7).
            assert_eq!(stat.to_be_zeroed / stat.block_size, 199);
            assert!(file.run_at(0).unwrap().kind != RunKind::Unallocated);
        }
        match Command::new("debugvmfs")
            .arg(&path)
            .args(["cat", name])
            .output()
        {
            Ok(out) => {
                assert!(out.status.success());
                assert_eq!(out.stdout.len() as u64, file.len(), "{name}");
                let mut ours = vec![1; out.stdout.len()];
                file.read_exact_at(&mut ours, 0).unwrap();
                assert!(ours == out.stdout, "{name} differs");
            }
            Err(e) => return skip("peers", &format!("debugvmfs: {e}")),
        }
    }
}
