//! Compressed clusters.

use super::header::Compression;
use disk_io::{DiskError, Result};
use libdeflater::Decompressor;
use std::cell::RefCell;
use zstd::stream::raw::{Decoder, Operation};

thread_local! {
    /// Making one costs more than decoding a cluster.
    static INFLATE: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Where a compressed cluster lies, unpacked from its L2 entry: (offset, bytes to read).
/// Only whole sectors are counted, so whatever follows the stream is read too.
pub(super) fn place(descriptor: u64, cluster_bits: u32) -> (u64, u64) {
    let offset_bits = 62u32.saturating_sub(cluster_bits.saturating_sub(8));
    let mask = |bits: u32| 1u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
    let offset = descriptor & mask(offset_bits);
    let sectors = (descriptor & mask(62)) >> offset_bits;
    let len = sectors.saturating_add(1).saturating_mul(512);
    (offset, len.saturating_sub(offset % 512))
}

/// Fills `out`, which is one cluster, from `stored`, which may be followed by anything.
pub(super) fn decode(how: Compression, stored: &[u8], out: &mut [u8]) -> Result<()> {
    match how {
        Compression::Zlib => inflate(stored, out),
        Compression::Zstd => unzstd(stored, out),
    }
}

fn fail(found: impl Into<String>) -> DiskError {
    DiskError::corrupt("decompressing a cluster").found(found)
}

fn short(got: usize, out: usize) -> DiskError {
    fail(format!("{got} bytes")).expected(format!("{out} bytes"))
}

fn inflate(stored: &[u8], out: &mut [u8]) -> Result<()> {
    let len = out.len();
    let got = INFLATE
        .with_borrow_mut(|d| d.deflate_decompress(stored, out))
        .map_err(|e| fail(format!("deflate: {e}")))?;
    if got == len {
        Ok(())
    } else {
        Err(short(got, len))
    }
}

/// A cluster may consist of several frames, as qemu reads it.
fn unzstd(stored: &[u8], out: &mut [u8]) -> Result<()> {
    let len = out.len();
    let mut decoder = Decoder::new().map_err(|e| fail(format!("zstd: {e}")))?;
    let (mut from, mut to) = (0usize, 0usize);
    while to < len {
        let (Some(input), Some(output)) = (stored.get(from..), out.get_mut(to..)) else {
            break;
        };
        let step = decoder
            .run_on_buffers(input, output)
            .map_err(|e| fail(format!("zstd: {e}")))?;
        if step.bytes_read == 0 && step.bytes_written == 0 {
            return Err(short(to, len));
        }
        from = from.saturating_add(step.bytes_read);
        to = to.saturating_add(step.bytes_written);
        if step.remaining == 0 && to < len {
            decoder.reinit().map_err(|e| fail(format!("zstd: {e}")))?;
        }
    }
    if to == len {
        Ok(())
    } else {
        Err(short(to, len))
    }
}
