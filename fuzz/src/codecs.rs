//! Decompressors: they fill what they are given, or fail; the same bytes twice.

use guest_fs::codecs;

fn twice(input: &[u8], decode: fn(&[u8], &mut [u8]) -> bool) {
    let (size, coded) = match input {
        [a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        _ => return,
    };
    let (mut first, mut second) = (vec![0xa5; size], vec![0x5a; size]);
    let done = decode(coded, &mut first);
    assert_eq!(decode(coded, &mut second), done);
    if done {
        assert!(first == second, "bytes that nothing was written to");
    }
}

/// LZNT1.
pub fn lznt1(input: &[u8]) {
    twice(input, codecs::lznt1);
}

/// XPRESS Huffman.
pub fn xpress(input: &[u8]) {
    twice(input, codecs::xpress);
}

/// LZX.
pub fn lzx(input: &[u8]) {
    twice(input, codecs::lzx);
}
