//! Help, completions, manual pages.

use crate::common::{Fixture, names};

#[test]
fn every_verb_has_help_with_examples() {
    let f = Fixture::new();
    let help = f.run(&["--help"]).code(0);
    for verb in [
        "info",
        "vm",
        "ls",
        "stat",
        "cat",
        "cp",
        "map",
        "mount",
        "umount",
        "cleanup",
        "convert",
        "create",
        "export",
        "restore",
        "check",
        "verify",
        "diff",
        "find",
        "history",
        "tar",
        "completions",
        "man",
    ] {
        assert!(help.text().contains(&format!("\n  {verb} ")), "{verb}");
        let own = f.run(&[verb, "--help"]).code(0);
        assert!(own.text().contains("Examples:"), "{verb}");
    }
    // Arguments and options of the verb are not lost among those of SOURCE.
    let cp = f.run(&["cp", "--help"]).code(0);
    let (own, shared) = cp.text().split_once("How SOURCE is opened:").unwrap();
    for part in ["PATH", "--recursive", "--overwrite", "--json"] {
        assert!(own.contains(part), "{part}");
    }
    assert!(shared.contains("--allow-dir"));
    f.run(&["--version"]).code(0);
    f.run(&["nonsense"]).code(2);
}

#[test]
fn completions_and_pages() {
    let f = Fixture::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            f.run(&["completions", shell])
                .code(0)
                .text()
                .contains("umount")
        );
    }
    assert!(f.run(&["man"]).code(0).text().contains(".TH vmdkit"));
    std::fs::create_dir(f.path("man")).unwrap();
    f.run(&["man", "man"]).code(0);
    let pages = names(&f.path("man"));
    assert!(pages.contains(&"vmdkit.1".into()) && pages.contains(&"vmdkit-cp.1".into()));
    f.run(&["man", "nowhere"]).code(1);
}
