//! libFuzzer over one target, which `VMDKIT_FUZZ` names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use vmdkit_fuzz::{Target, find};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("VMDKIT_FUZZ").expect("VMDKIT_FUZZ names a target");
        find(&name).expect("a target of that name")
    });
    (target.run)(data);
});
