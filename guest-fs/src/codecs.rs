//! The decompressors of NTFS, on their own: for tests that feed them anything. Each fills the
//! whole output, or says that it could not.

use crate::ntfs;

/// A unit of a file that NTFS compressed. What the input does not reach is zeros.
pub fn lznt1(coded: &[u8], out: &mut [u8]) -> bool {
    out.fill(0);
    ntfs::lznt1::decode(coded, out).is_ok()
}

/// A chunk that WOF compressed by XPRESS with Huffman codes.
pub fn xpress(coded: &[u8], out: &mut [u8]) -> bool {
    ntfs::wof::xpress::decode(coded, out).is_ok()
}

/// A chunk that WOF compressed by LZX.
pub fn lzx(coded: &[u8], out: &mut [u8]) -> bool {
    ntfs::wof::lzx::decode(coded, out).is_ok()
}
