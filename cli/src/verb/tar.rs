//! `tar`: files and trees out of a guest, as a stream.

use crate::{
    args::{FilterArgs, Global, GuestArgs, SourceArgs},
    background::Background,
    exit::{Exit, Failure, STDOUT, tell_doubt, tell_path_error},
    guard,
    names::check_path,
    output::{human, say},
    paths::{self, Named},
    progress::Bar,
    signals,
    source::{Restorable, open_tree},
    verb::cp,
};
use clap::{Args, ValueEnum};
use convert::{
    Progress,
    archive::{self, Item},
    restore::{Event, Observer, Streams, Summary},
};
use disk_io::DiskError;
use guest_fs::Name;
use proxy::Node;
use std::{
    ffi::OsString,
    io::{self, BufWriter, IsTerminal, Write},
};

/// Write files and directories as an archive to standard output: tar, or zip
///
/// The same files that cp -r restores, as one stream in the pax format: times to 100 ns,
/// holes (as GNU tar and libarchive read them), hard and symbolic links, streams as extended
/// attributes; or as a zip with 64-bit sizes and times to 100 ns. Each PATH becomes a member of its last component, with everything in it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmdkit tar web01.vmdk /p1/Users/anna > anna.tar
  vmdkit tar --zstd web01-000002.vmdk /p1/Users > users.tar.zst
  vmdkit tar web01.vmdk /p1/etc | ssh host 'tar -xf - -C /srv/restored'
  vmdkit tar --as zip web01.vmdk /p1/Users/anna > anna.zip
  vmdkit tar --streams xattr web01.vmdk /p1/data | tar -xf - --xattrs

A file that turns out to be unreadable after it was begun has zeros from there on; it is
named, and listed in a last member of the archive, vmdkit-failures.txt. Exit code 3 then.")]
pub(crate) struct Tar {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    guest: GuestArgs,
    /// Paths in the tree, as ls prints them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
    /// The archive's format; zip has no holes and no hard links, and is deflated
    #[arg(long = "as", value_enum, value_name = "FORMAT", default_value_t = Format::Tar)]
    kind: Format,
    /// Compress with Zstandard; levels 1 to 19
    #[arg(
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3",
        value_parser = clap::value_parser!(i32).range(1..=19)
    )]
    zstd: Option<i32>,
    /// NTFS streams: as extended attributes user.NAME, as members FILE:NAME, or left behind
    #[arg(long, value_name = "xattr|files|none", default_value = "none", value_parser = cp::streams)]
    streams: Streams,
    #[command(flatten)]
    filter: FilterArgs,
    /// Name every member on standard error
    #[arg(long, short)]
    verbose: bool,
}

struct Teller {
    verbose: bool,
    quiet: bool,
    bar: Bar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Tar,
    Zip,
}

impl Progress for Teller {
    fn advance(&self, bytes: u64) {
        self.bar.advance(bytes);
    }
    fn cancelled(&self) -> bool {
        self.bar.cancelled()
    }
}

impl Observer for Teller {
    fn found(&self, bytes: u64) {
        self.bar.grow(bytes);
    }

    fn event(&self, event: Event<'_>) {
        match event {
            Event::Restored { path, .. } if self.verbose => {
                self.bar.above(|| say(Name::from_bytes(path)));
            }
            Event::Renamed { path, name } => self.bar.above(|| {
                say(format_args!(
                    "renamed {} to {}",
                    Name::from_bytes(path),
                    Name::from_bytes(name)
                ));
            }),
            Event::Left { path, why } if !self.quiet => self.bar.above(|| {
                say(format_args!("note: {}: {why}", Name::from_bytes(path)));
            }),
            Event::Failed { path, error } => self.bar.above(|| tell_path_error(path, error)),
            Event::Doubtful { path, why } => self.bar.above(|| tell_doubt(path, why)),
            _ => {}
        }
    }
}

/// Standard output, plain or compressed.
enum Output {
    Plain(Background<io::Stdout>),
    Zstd(Background<zstd::Encoder<'static, BufWriter<io::Stdout>>>),
}

impl Output {
    fn new(zstd: Option<i32>) -> io::Result<Self> {
        Ok(match zstd {
            None => Self::Plain(Background::new(io::stdout())),
            Some(level) => {
                let out = BufWriter::with_capacity(1 << 20, io::stdout());
                Self::Zstd(Background::new(zstd::Encoder::new(out, level)?))
            }
        })
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.finish()?.flush(),
            Self::Zstd(out) => out.finish()?.finish()?.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Zstd(out) => out.flush(),
        }
    }
}

impl Tar {
    pub(crate) fn run(self, global: &Global) -> Result<Exit, Failure> {
        for path in &self.paths {
            check_path(path)?;
        }
        if io::stdout().is_terminal() {
            return Err(Failure::usage_with(
                "an archive is not written to a terminal",
                "redirect it to a file or pipe",
            ));
        }
        if self.kind == Format::Zip {
            if self.zstd.is_some() {
                return Err(Failure::usage(
                    "--zstd compresses tar; zip is compressed by itself",
                ));
            }
            if self.streams == Streams::Xattr {
                return Err(Failure::usage_with(
                    "zip has no extended attributes",
                    "--streams files makes streams members FILE:NAME",
                ));
            }
        }
        let filter = self.filter.filter()?;
        let tree = open_tree(&self.source, global, self.guest)?;
        guard::check_stdout_tree(&tree)?;
        signals::watch();
        let teller = Teller {
            verbose: self.verbose,
            quiet: global.quiet,
            bar: Bar::new(global, 0),
        };
        let mut lost = 0;
        let named = paths::resolve(&tree, &self.paths, "archiving", &mut |path, e| {
            tell_path_error(path, e);
            lost += 1;
        })?;
        let items: Vec<_> = named.into_iter().map(item).collect();
        let options = archive::Options {
            filter,
            streams: self.streams,
            format: match self.kind {
                Format::Tar => archive::Format::Tar,
                Format::Zip => archive::Format::Zip,
            },
        };
        let source = Restorable {
            tree: &tree,
            zone: global.zone(),
            zone_given: global.tz.is_some(),
        };
        let failed = |e: &io::Error| DiskError::io("writing the archive", e).file(STDOUT);
        let out = Output::new(self.zstd).map_err(|e| failed(&e))?;
        let (mut summary, written) =
            archive::archive(&source, &items, out, STDOUT, &options, &teller);
        drop(teller);
        written?.finish().map_err(|e| failed(&e))?;
        summary.failed += lost;
        if !global.quiet {
            tell(&summary);
        }
        let nothing = summary.files + summary.directories + summary.symlinks == 0;
        Ok(match (summary.failed > 0, nothing) {
            (true, true) => Exit::Failed,
            (failed, _) => Exit::partial_if(failed || summary.doubtful > 0),
        })
    }
}

/// Its member of the archive.
fn item(named: Named) -> Item<Node> {
    let name = match named.contents {
        true => Vec::new(),
        false => named
            .path
            .rsplit(|b| *b == b'/')
            .next()
            .unwrap_or_default()
            .to_vec(),
    };
    Item {
        path: named.path,
        name,
        node: named.node,
        doubts: named.doubts,
    }
}

fn tell(s: &Summary) {
    let mut line = format!(
        "archived {} ({})",
        cp::count(s.files, "file", "files"),
        human(s.bytes)
    );
    if s.directories > 0 {
        line.push_str(&format!(
            ", {}",
            cp::count(s.directories, "directory", "directories")
        ));
    }
    if s.symlinks > 0 {
        let links = cp::count(s.symlinks, "symbolic link", "symbolic links");
        line.push_str(&format!(", {links}"));
    }
    if s.failed > 0 {
        line.push_str(&format!("; failed {}", s.failed));
    }
    if s.doubtful > 0 {
        line.push_str(&format!("; doubtful {}", s.doubtful));
    }
    say(line);
    if s.streams_left > 0 {
        say(format_args!(
            "{} left behind; --streams xattr or files keeps them",
            cp::count(s.streams_left, "named stream", "named streams")
        ));
    }
}
