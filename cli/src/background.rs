//! A writer whose work (compressing, writing to a pipe) is done by a thread of its own.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

/// Bytes that are handed over at once.
const BUFFER: usize = 256 << 10;
/// Buffers on their way.
const AHEAD: usize = 4;

/// Writes to `W` in the background. What fails there is told by the next call.
pub(crate) struct Background<W> {
    buffer: Vec<u8>,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<W>>>,
}

impl<W: Write + Send + 'static> Background<W> {
    pub(crate) fn new(mut inner: W) -> Self {
        let (full, taken) = sync_channel::<Vec<u8>>(AHEAD);
        let (back, empty) = sync_channel(AHEAD + 2);
        let thread = std::thread::spawn(move || {
            for mut buffer in taken {
                inner.write_all(&buffer)?;
                buffer.clear();
                // Nobody waits for it if writing has ended.
                let _ = back.try_send(buffer);
            }
            inner.flush()?;
            Ok(inner)
        });
        Self {
            buffer: Vec::with_capacity(BUFFER),
            full: Some(full),
            empty,
            thread: Some(thread),
        }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv();
        let next = next.unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        let buffer = std::mem::replace(&mut self.buffer, next);
        match self.full.as_ref().map(|full| full.send(buffer)) {
            Some(Ok(())) => Ok(()),
            // The thread has ended: why, it says itself.
            _ => Err(self.end().err().unwrap_or(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn end(&mut self) -> io::Result<Option<W>> {
        drop(self.full.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done.map(Some),
            Some(Err(_)) => Err(io::Error::other("the writing thread failed")),
            None => Ok(None),
        }
    }

    /// Waits until everything is written, and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.hand_over()?;
        self.end()?.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl<W: Write + Send + 'static> Write for Background<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BUFFER - self.buffer.len().min(BUFFER));
        self.buffer
            .extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.buffer.len() >= BUFFER {
            self.hand_over()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then fails.
    struct Full(usize, Vec<u8>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1.len() + bytes.len() > self.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_arrives_in_order() {
        let mut out = Background::new(Full(usize::MAX, Vec::new()));
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        for piece in bytes.chunks(70_001) {
            out.write_all(piece).unwrap();
        }
        assert_eq!(out.finish().unwrap().1, bytes);
    }

    #[test]
    fn a_failure_is_told() {
        let mut out = Background::new(Full(1 << 20, Vec::new()));
        let piece = vec![1; 100_000];
        let failed = (0..100).find_map(|_| out.write_all(&piece).err());
        assert_eq!(failed.unwrap().kind(), io::ErrorKind::StorageFull);
        let mut late = Background::new(Full(10, Vec::new()));
        late.write_all(&piece).unwrap();
        assert_eq!(
            late.finish().err().unwrap().kind(),
            io::ErrorKind::StorageFull
        );
    }
}
