//! `check`, as a user sees it. What it finds is tested in its own crate.

use crate::common::Fixture;
use std::fs;

#[test]
fn sound_and_bad() {
    let f = Fixture::new();
    let text = f.run(&["check", "disk.vmdk"]).code(0);
    assert!(
        text.text().ends_with("sound: nothing found\n"),
        "{}",
        text.text()
    );
    let json = f.run(&["check", "--json", "disk.vmdk"]).code(0).json();
    assert_eq!(json["result"], "sound");
    assert_eq!(json["layers"][0]["stored"], 8 << 20);

    // The end of the disk is gone.
    let mut raw = f.raw();
    let at = raw.windows(6).position(|w| w == b"hello\n").unwrap();
    raw.truncate(at);
    fs::write(f.path("disk-flat.vmdk"), raw).unwrap();
    let text = f.run(&["check", "disk.vmdk"]).code(4);
    for part in [
        "damage: extent-cut-short: ",
        "disk-flat.vmdk",
        "guest file: /p0/a.txt",
        "means: ",
        "do: ",
        "BAD: 1 damage",
    ] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
    let json = f.run(&["check", "--json", "disk.vmdk"]).code(4).json();
    let finding = &json["findings"][0];
    assert_eq!(finding["code"], "extent-cut-short");
    assert_eq!(finding["offset"], at);
    assert_eq!(finding["ranges"][0]["offset"], at);
    let files = finding["guest_files"].as_array().unwrap();
    assert!(
        files.iter().any(|o| o["path"] == "/p0/dir/sub/c.bin"),
        "{files:?}"
    );
    let json = f
        .run(&["check", "--json", "--no-files", "disk.vmdk"])
        .code(4)
        .json();
    assert!(
        json["findings"][0]["guest_files"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_is_no_image() {
    let f = Fixture::new();
    fs::write(f.path("text"), "hello").unwrap();
    f.run(&["check", "text"]).code(1).says("nothing known");
    f.run(&["check", "nowhere"]).code(1);
    fs::write(f.path("a.E01"), b"EVF\x09\x0d\x0a\xff\x00 and more").unwrap();
    f.run(&["check", "a.E01"]).code(1).says("not read");
    // A raw disk has no structure of its own, and that is said.
    let raw = f.run(&["check", "disk-flat.vmdk"]).code(0);
    assert!(
        raw.text().contains("no structure of its own"),
        "{}",
        raw.text()
    );
}
