//! A file that is written in pieces of limited size.

use super::shelf::Shelf;
use crate::digest::DigestKind;
use disk_io::{DiskError, Result, output::write_error, pieces};
use std::{
    fs::File,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

/// The pieces; a new one begins where one is full.
pub(super) struct Split<'a> {
    shelf: &'a Shelf<'a>,
    name: String,
    size: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The next piece.
    number: u32,
    open: Option<(File, u64)>,
    /// What went wrong, in full: a writer can only say it in the words of the system.
    failed: Option<DiskError>,
}

impl<'a> Split<'a> {
    pub(super) fn new(shelf: &'a Shelf<'a>, name: &str, size: u64) -> Self {
        Self {
            shelf,
            name: name.to_owned(),
            size: size.max(1),
            state: Mutex::default(),
        }
    }

    fn put(&self, state: &mut State, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let path = self.shelf.dir.join(pieces::name(&self.name, state.number));
            let fail = |e: io::Error| write_error("writing", &path, &e);
            let (file, len) = match &mut state.open {
                Some(open) => open,
                none => none.insert((File::create_new(&path).map_err(fail)?, 0)),
            };
            let room = self.size.saturating_sub(*len).min(bytes.len() as u64);
            let (now, later) = bytes.split_at(usize::try_from(room).unwrap_or(bytes.len()));
            file.write_all(now).map_err(fail)?;
            *len = len.saturating_add(room);
            bytes = later;
            if *len >= self.size {
                self.end(state)?;
            }
        }
        Ok(())
    }

    /// Closes the piece that is open.
    fn end(&self, state: &mut State) -> Result<()> {
        let Some((file, _)) = state.open.take() else {
            return Ok(());
        };
        let name = pieces::name(&self.name, state.number);
        let path = self.shelf.dir.join(&name);
        file.sync_all()
            .map_err(|e| write_error("syncing", &path, &e))?;
        drop(file);
        state.number = state.number.saturating_add(1);
        // What `sha256sum` says: each piece may lie on another medium.
        self.shelf.finished(&name, Some(DigestKind::Sha256))
    }

    /// Closes the last piece.
    ///
    /// # Errors
    /// What went wrong with any of them.
    pub(super) fn finish(self) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.failed.take() {
            Some(e) => Err(e),
            None => self.end(&mut state),
        }
    }
}

impl Write for &Split<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match self.put(&mut state, bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(e) => {
                let short = match e.os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::other(e.to_string()),
                };
                state.failed.get_or_insert(e);
                Err(short)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
