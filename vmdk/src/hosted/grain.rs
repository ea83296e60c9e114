//! A compressed grain: a marker, then a zlib stream (fact sheet, VMDK 6.1).

use disk_io::{Disk, DiskError, Result};
use libdeflater::Decompressor;
use std::cell::RefCell;

/// Guest sector (8 bytes) and length of the data (4 bytes).
pub(super) const MARKER_LEN: usize = 12;
/// What is read first where the table does not tell how long the grain is.
const GUESS: usize = 32 << 10;
/// Larger buffers are not kept.
const KEPT: usize = 1 << 20;

/// Where a grain is and what is expected of it.
pub(super) struct Packed {
    /// Byte offset of the marker.
    pub(super) offset: u64,
    /// Byte offset of the next grain, if the table knows one.
    pub(super) next: Option<u64>,
    /// The guest sector that the marker must name.
    pub(super) lba: u64,
    /// Bytes that the grain must hold at least: fewer than a grain at the disk's end.
    pub(super) needed: usize,
}

struct Scratch {
    packed: Vec<u8>,
    decompressor: Decompressor,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        packed: Vec::new(),
        decompressor: Decompressor::new(),
    });
}

/// Decodes a grain into `out`, whose length is a whole grain.
pub(super) fn decode(disk: &dyn Disk, name: &str, grain: &Packed, out: &mut [u8]) -> Result<()> {
    SCRATCH
        .with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => decode_with(&mut scratch, disk, grain, out),
            // Only if reading `disk` came back here: a stream inside a stream.
            Err(_) => decode_with(
                &mut Scratch {
                    packed: Vec::new(),
                    decompressor: Decompressor::new(),
                },
                disk,
                grain,
                out,
            ),
        })
        .map_err(|e| e.file(name))
}

fn decode_with(
    scratch: &mut Scratch,
    disk: &dyn Disk,
    grain: &Packed,
    out: &mut [u8],
) -> Result<()> {
    let bad = |what: &str| {
        DiskError::corrupt(format!(
            "decoding the grain of sector {}: {what}",
            grain.lba
        ))
        .offset(grain.offset)
    };
    let rest = usize::try_from(disk.len().saturating_sub(grain.offset)).unwrap_or(usize::MAX);
    // Readers and writers agree that a grain stays below two (fact sheet, VMDK 12).
    let most = out.len().saturating_mul(2).saturating_add(MARKER_LEN);
    let first = grain
        .next
        .and_then(|next| next.checked_sub(grain.offset))
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| (MARKER_LEN..=most).contains(n))
        .unwrap_or(GUESS)
        .min(rest);
    let packed = &mut scratch.packed;
    packed.clear();
    packed.resize(first, 0);
    disk.read_exact_at(packed, grain.offset)?;
    let (Some(lba), Some(size)) = (
        packed.first_chunk().map(|b| u64::from_le_bytes(*b)),
        packed
            .get(8..)
            .and_then(|b| b.first_chunk())
            .map(|b| u32::from_le_bytes(*b)),
    ) else {
        return Err(bad("reading its marker").found("the end of the file"));
    };
    if lba != grain.lba {
        return Err(bad("reading its marker")
            .code("grain-marker-wrong")
            .expected(format!("sector {}", grain.lba))
            .found(format!("sector {lba}")));
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let end = MARKER_LEN.saturating_add(size);
    if size == 0 || end > most || end > rest {
        return Err(bad("reading its length")
            .code("grain-size-invalid")
            .expected(format!(
                "1 to {} bytes",
                most.min(rest).saturating_sub(MARKER_LEN)
            ))
            .found(size.to_string()));
    }
    if end > packed.len() {
        let have = packed.len();
        packed.resize(end, 0);
        if let Some(more) = packed.get_mut(have..) {
            disk.read_exact_at(more, grain.offset.saturating_add(have as u64))?;
        }
    }
    let data = packed.get(MARKER_LEN..end).unwrap_or_default();
    // The Adler checksum of the stream is checked by the decoder.
    let n = scratch
        .decompressor
        .zlib_decompress(data, out)
        .map_err(|e| {
            bad("inflating it")
                .code("grain-not-inflated")
                .expected(format!("a zlib stream of at most {} bytes", out.len()))
                .found(e.to_string())
        })?;
    if n < grain.needed {
        return Err(bad("inflating it")
            .code("grain-short")
            .expected(format!("{} bytes", grain.needed))
            .found(n.to_string()));
    }
    // The last grain of a disk: VirtualBox pads it, others cut it (fact sheet, VMDK 6.1).
    if let Some(tail) = out.get_mut(n..) {
        tail.fill(0);
    }
    if scratch.packed.capacity() > KEPT {
        scratch.packed = Vec::new();
    }
    Ok(())
}
