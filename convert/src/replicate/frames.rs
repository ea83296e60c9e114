//! The form of what replication writes: a stream between two hosts, the journal beside a
//! target, and the list of what a target has.
//!
//! Eight bytes of magic; then frames: a kind (one byte), the length of the body and its CRC-32
//! with the kind (four bytes each, little endian), the body. What is cut off or damaged is known
//! at the first frame that it touches.

use disk_io::{DiskError, Result};
use std::io::{ErrorKind, Read};

pub(super) const MAGIC: &[u8; 8] = b"vmdkrep1";
/// Longest body: a unit that does not compress, with what is said of it.
const MAX: usize = 4 << 20;
const HEAD: usize = 9;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the stream is for: JSON.
    Head = b'H' as isize,
    /// Hashes of consecutive units: index of the first, then 32 bytes each.
    Hashes = b'A' as isize,
    /// Units that were received and not applied: index and hash each.
    Pending = b'P' as isize,
    /// New contents of a unit.
    Unit = b'U' as isize,
    /// A unit that came before does not count any more: its index.
    Drop = b'D' as isize,
    /// All of it: JSON.
    End = b'E' as isize,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Head,
        Self::Hashes,
        Self::Pending,
        Self::Unit,
        Self::Drop,
        Self::End,
    ];

    fn byte(self) -> u8 {
        self as u8
    }
}

/// One frame as it is written.
pub(super) fn encode(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.push(kind.byte());
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(sum(kind.byte(), body).to_le_bytes());
    out.extend(body);
    out
}

fn sum(kind: u8, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(body);
    crc.finalize()
}

pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    /// Where the body begins in the stream.
    pub(super) at: u64,
}

/// Reads frames.
pub(super) struct Frames<R> {
    inner: R,
    name: String,
    at: u64,
}

impl<R: Read> Frames<R> {
    /// Of a stream that begins here; `name` is for messages.
    ///
    /// # Errors
    /// `Corrupt` if it does not begin as such streams do.
    pub(super) fn new(mut inner: R, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let mut magic = [0; MAGIC.len()];
        let got = fill(&mut inner, &mut magic).map_err(|e| reading(&e, &name, 0))?;
        if got != magic.len() || &magic != MAGIC {
            return Err(DiskError::corrupt("reading what a replica has or gets")
                .file(&name)
                .offset(0)
                .expected("the beginning of a stream of vmdkit replicate")
                .found(match got {
                    0 => "nothing: see what the command before says".to_owned(),
                    _ => "something else".to_owned(),
                }));
        }
        Ok(Self {
            inner,
            name,
            at: MAGIC.len() as u64,
        })
    }

    /// The next frame; none where the stream ends between two.
    ///
    /// # Errors
    /// `Corrupt` where it ends within one, or one is damaged.
    pub(super) fn next(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; HEAD];
        let at = self.at;
        let got = fill(&mut self.inner, &mut head).map_err(|e| reading(&e, &self.name, at))?;
        if got == 0 {
            return Ok(None);
        }
        let bad = |found: &str| {
            DiskError::corrupt("reading what a replica has or gets")
                .file(&self.name)
                .offset(at)
                .expected("a whole frame")
                .found(found)
        };
        if got < HEAD {
            return Err(bad("the end"));
        }
        let [kind, a, b, c, d, e, f, g, h] = head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let crc = u32::from_le_bytes([e, f, g, h]);
        let known = Kind::ALL.into_iter().find(|k| k.byte() == kind);
        let Some(known) = known.filter(|_| len <= MAX) else {
            return Err(bad("none of the kinds there are"));
        };
        let mut body = vec![0; len];
        let got = fill(&mut self.inner, &mut body).map_err(|e| reading(&e, &self.name, at))?;
        if got < len {
            return Err(bad("the end"));
        }
        if sum(kind, &body) != crc {
            return Err(bad("another CRC-32 than it is said to have"));
        }
        let begins = at + HEAD as u64;
        self.at = begins + len as u64;
        Ok(Some(Frame {
            kind: known,
            body,
            at: begins,
        }))
    }

    /// Where the next frame begins.
    pub(super) fn position(&self) -> u64 {
        self.at
    }
}

fn reading(e: &std::io::Error, name: &str, at: u64) -> DiskError {
    DiskError::io("reading what a replica has or gets", e)
        .file(name)
        .offset(at)
}

/// Reads until the buffer is full or the stream ends; how much came.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(encode(Kind::Head, b"{}"));
        bytes.extend(encode(Kind::Unit, &[7; 100]));
        bytes.extend(encode(Kind::End, b""));
        bytes
    }

    fn kinds(bytes: &[u8]) -> (Vec<Kind>, bool) {
        let mut kinds = Vec::new();
        let Ok(mut frames) = Frames::new(bytes, "s") else {
            return (kinds, true);
        };
        loop {
            match frames.next() {
                Ok(Some(frame)) => kinds.push(frame.kind),
                Ok(None) => return (kinds, false),
                Err(_) => return (kinds, true),
            }
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let bytes = stream();
        let whole = vec![Kind::Head, Kind::Unit, Kind::End];
        assert_eq!(kinds(&bytes), (whole.clone(), false));
        for cut in 0..bytes.len() {
            let (kinds, _) = kinds(&bytes[..cut]);
            assert!(kinds.len() < 3, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (kinds, failed) = kinds(&bytes);
            assert!(failed && kinds.len() < 3, "bit {bit}");
        }
    }
}
