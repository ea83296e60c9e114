//! Mounts SOURCE at DIR until it is unmounted or a signal comes:
//! `cargo run -p proxy --example mount -- SOURCE DIR [raw] [direct]`
#![allow(clippy::expect_used, clippy::unwrap_used)]

use proxy::{Layout, MountOptions, Source, SourceSpec, Tree, TreeOptions};
use std::{path::PathBuf, sync::Arc};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let source = PathBuf::from(args.next().ok_or("SOURCE is missing")?);
    let dir = PathBuf::from(args.next().ok_or("DIR is missing")?);
    let mut options = MountOptions {
        signals: true,
        ..MountOptions::default()
    };
    for word in args {
        match word.to_str() {
            Some("raw") => options.layout = Layout::Raw,
            Some("direct") => options.direct_io = true,
            Some(n) => options.threads = n.parse().ok(),
            None => {}
        }
    }
    let spec = SourceSpec {
        path: source,
        ..SourceSpec::default()
    };
    let source = Arc::new(Source::open(&spec)?);
    for warning in source.warnings() {
        eprintln!("warning: {warning}");
    }
    let tree = Tree::new(source, TreeOptions::default())?;
    let mounted = proxy::mount(Arc::new(tree), &dir, &options)?;
    for warning in mounted.warnings() {
        eprintln!("warning: {warning}");
    }
    eprintln!("ready");
    println!("{:?}", mounted.serve()?);
    Ok(())
}
