//! SOURCE from standard input: kept in a file, or a directory of files, beside the output,
//! since disks are read at any place.

use crate::{exit::Failure, signals};
use disk_io::{DiskError, output::write_error, zero::is_zero};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
};

/// Zeros in pieces of this become holes.
const PIECE: usize = 64 << 10;

/// Reads standard input to its end into a file in `dir`, which goes when it is dropped.
pub(crate) fn standard_input(dir: &Path) -> Result<tempfile::NamedTempFile, Failure> {
    let temp = tempfile::Builder::new()
        .prefix(".vmdkit-")
        .tempfile_in(dir)
        .map_err(|e| write_error("creating a file for standard input in", dir, &e))?;
    copy(&mut Waiting(io::stdin()), temp.as_file(), temp.path())?;
    Ok(temp)
}

/// Where standard input is kept for an output: where there is room for that too.
pub(crate) fn beside(dest: &Path) -> PathBuf {
    match dest.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Reads a backup that comes as a tar archive into a directory in `dir`, which goes when it is
/// dropped. Only plain files with plain names are taken.
pub(crate) fn archive(dir: &Path) -> Result<tempfile::TempDir, Failure> {
    let temp = tempfile::Builder::new()
        .prefix(".vmdkit-")
        .tempdir_in(dir)
        .map_err(|e| write_error("creating a directory for standard input in", dir, &e))?;
    unpack(&mut Waiting(io::stdin()), temp.path())?;
    Ok(temp)
}

fn unpack(from: &mut impl Read, dir: &Path) -> Result<(), Failure> {
    let fail = |e: io::Error| {
        DiskError::io("reading a backup", &e)
            .file("standard input")
            .expected("the tar archive that export - writes")
    };
    let mut tar = tar::Archive::new(from);
    let mut found = false;
    for entry in tar.entries().map_err(fail)? {
        let mut entry = entry.map_err(fail)?;
        let name = entry.path().map_err(fail)?.into_owned();
        let mut parts = name.components();
        let plain = matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        );
        if !plain || !entry.header().entry_type().is_file() {
            return Err(DiskError::refused("reading a backup")
                .file("standard input")
                .expected("plain files, as export - writes them")
                .found(format!("the member {}", name.display()))
                .into());
        }
        let path = dir.join(&name);
        let keep = |e: io::Error| write_error("keeping standard input in", &path, &e);
        let mut file = File::create_new(&path).map_err(keep)?;
        io::copy(&mut entry, &mut file).map_err(keep)?;
        found = true;
    }
    match found {
        true => Ok(()),
        false => Err(DiskError::corrupt("reading a backup")
            .file("standard input")
            .expected("the tar archive that export - writes")
            .found("nothing")
            .into()),
    }
}

/// Standard input, which a wish to stop ends while it is waited for.
struct Waiting(io::Stdin);

impl Read for Waiting {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        loop {
            if signals::caught().is_some() {
                return Err(io::Error::other("a wish to stop"));
            }
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                _ => return rustix::io::read(&self.0, out).map_err(io::Error::from),
            }
        }
    }
}

fn copy(from: &mut impl Read, to: &File, name: &Path) -> Result<(), Failure> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0u64;
    loop {
        let n = fill(from, &mut buffer).map_err(|e| {
            DiskError::io("reading", &e)
                .file("standard input")
                .offset(at)
        })?;
        if n == 0 {
            break;
        }
        for (i, piece) in buffer
            .get(..n)
            .unwrap_or_default()
            .chunks(PIECE)
            .enumerate()
        {
            if !is_zero(piece) {
                to.write_all_at(piece, at + (i * PIECE) as u64)
                    .map_err(|e| write_error("keeping standard input in", name, &e))?;
            }
        }
        at += n as u64;
    }
    to.set_len(at)
        .map_err(|e| write_error("keeping standard input in", name, &e).into())
}

/// As much as there is: pipes give little at a time.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives three bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(out.len()).min(3);
            let (now, rest) = self.0.split_at(n);
            out[..n].copy_from_slice(now);
            self.0 = rest;
            Ok(n)
        }
    }

    #[test]
    fn bytes_arrive_and_zeros_are_holes() {
        let mut bytes = vec![0; 3_000_001];
        bytes[5] = 1;
        bytes[2_000_000..2_000_010].fill(7);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create_new(&path).unwrap();
        copy(&mut Slow(&bytes), &file, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        use std::os::unix::fs::MetadataExt;
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}
