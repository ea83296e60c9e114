//! `create`: new images.

use crate::{
    args::{Global, HowArgs, SourceArgs},
    exit::{Exit, Failure},
    image_format::{Format, FormatArgs, size},
    output::{Out, human},
    progress::Bar,
    signals, source,
};
use clap::Args;
use convert::create;
use disk_io::{Disk, DiskError};
use serde::Serialize;
use std::path::{Path, PathBuf};
use vmdk::writer::{Options, Subformat};

/// Create an empty image, a child of another, or a descriptor for a lone flat file
///
/// A child holds nothing of its own: what is written to it later hides what the parent has.
/// The parent must not be changed from then on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit create new.vmdk 40G
  vmdkit create new.qcow2 40G --to qcow2
  vmdkit create new.vmdk 40G --subformat vmfs             for ESXi, with new-flat.vmdk
  vmdkit create web01.vmdk --over web01-flat.vmdk         the descriptor was lost
  vmdkit create work.vmdk --child-of web01.vmdk           a delta, to start the VM from")]
pub(crate) struct Create {
    /// File to create
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// Size of the disk: bytes, or with K, M, G, T
    #[arg(value_name = "SIZE", value_parser = size, required_unless_present_any = ["over", "child_of"])]
    size: Option<u64>,
    /// Write the descriptor of this flat file, which lies beside DEST and is not touched
    #[arg(long, value_name = "FLAT", conflicts_with_all = ["size", "child_of"])]
    over: Option<PathBuf>,
    /// Create a child of this VMDK
    #[arg(long, value_name = "PARENT", conflicts_with = "size")]
    child_of: Option<PathBuf>,
    /// Format to write
    #[arg(long, short = 'O', value_name = "FORMAT", default_value = "vmdk")]
    to: Format,
    #[command(flatten)]
    format: FormatArgs,
    /// Replace DEST if it exists
    #[arg(long, short)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Serialize)]
struct Json {
    destination: String,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subformat: Option<&'static str>,
    virtual_size: u64,
    files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    warnings: Vec<String>,
}

impl Create {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        let only_vmdk = self.over.is_some() || self.child_of.is_some();
        if only_vmdk && self.to != Format::Vmdk {
            return Err(Failure::usage(format!(
                "--over and --child-of are for vmdk, not for {}",
                self.to.name()
            )));
        }
        signals::watch();
        let mut vmdk = match self.to {
            Format::Vmdk => Some(self.format.vmdk(false)?),
            _ => None,
        };
        let mut json = Json {
            destination: self.dest.display().to_string(),
            format: self.to.name(),
            subformat: None,
            virtual_size: 0,
            files: Vec::new(),
            cid: None,
            parent: None,
            warnings: Vec::new(),
        };
        let files = match (&self.over, &self.child_of, &mut vmdk) {
            (Some(flat), _, Some(options)) => {
                if self.format.subformat.is_none() {
                    options.subformat = Subformat::MonolithicFlat;
                }
                json.virtual_size = create::over(&self.dest, flat, options.clone(), self.force)?;
                vec![self.dest.clone()]
            }
            (_, Some(parent), Some(options)) => self.child(parent, options, global, &mut json)?,
            _ => {
                let size = self.size.unwrap_or(0);
                json.virtual_size = size;
                let format = match &vmdk {
                    Some(options) => convert::ImageFormat::Vmdk(options.clone()),
                    None => self.format.format(self.to, 512, false)?,
                };
                let bar = Bar::new(global, size);
                create::empty(&self.dest, size, format, self.force, &bar)?.files
            }
        };
        json.files = files.iter().map(|f| f.display().to_string()).collect();
        if let Some(options) = &vmdk {
            json.subformat = Some(options.subformat.name());
            json.cid = Some(format!("{:08x}", options.identity.cid));
        }
        let mut out = Out::new();
        if self.json {
            out.document(&json)?;
        } else if !global.quiet {
            let n = json.virtual_size;
            out.line(format!("virtual size  {n} ({})", human(n)))?;
            for file in &files {
                let name = guest_fs::Name::from_bytes(file.as_os_str().as_encoded_bytes());
                out.line(format!("created       {name}"))?;
            }
            if let Some(parent) = &json.parent {
                out.line(format!("parent        {parent}"))?;
            }
        }
        out.finish()?;
        Ok(Exit::Done)
    }

    fn child(
        &self,
        parent: &Path,
        options: &mut Options,
        global: &Global,
        json: &mut Json,
    ) -> Result<Vec<PathBuf>, Failure> {
        let args = SourceArgs {
            source: parent.to_path_buf(),
            how: self.how.clone(),
        };
        let source = source::open(&args, global)?;
        let top = source.image().vmdk.as_ref().and_then(|v| v.links().first());
        let Some(cid) = top.and_then(|link| link.cid) else {
            return Err(DiskError::refused("creating a child")
                .file(parent.display())
                .expected("a VMDK with a content id, which the child can name")
                .found(source.image().format.title())
                .into());
        };
        let hint = parent_hint(&self.dest, parent)?;
        options.identity.parent = Some((cid, hint.clone()));
        json.virtual_size = source.disk().len();
        json.parent = Some(hint);
        json.warnings = source.warnings().to_vec();
        Ok(create::child(
            &self.dest,
            source.disk().len(),
            options.clone(),
            self.force,
            source::files(&source),
        )?)
    }
}

/// How the child names its parent: by the name alone where it lies beside it, which every
/// reader finds also when both are moved.
pub(crate) fn parent_hint(dest: &Path, parent: &Path) -> Result<String, Failure> {
    let refused = || {
        DiskError::refused("creating a child")
            .file(parent.display())
            .expected("a name in UTF-8 without quotes: the descriptor says it")
    };
    let dir = match dest.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let whole = parent
        .canonicalize()
        .map_err(|e| DiskError::io("looking at the parent", &e).file(parent.display()))?;
    let beside = dir
        .canonicalize()
        .is_ok_and(|dir| whole.parent() == Some(&dir));
    let name = if beside {
        whole.file_name().map(PathBuf::from)
    } else {
        Some(whole)
    };
    name.as_deref()
        .and_then(Path::to_str)
        .filter(|n| !n.contains('"') && !n.contains(char::is_control))
        .map(str::to_owned)
        .ok_or_else(|| refused().into())
}
