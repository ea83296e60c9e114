//! LVM2: logical volumes over physical ones.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

/// An identifier of 32 characters with the dashes that LVM's tools put in it.
pub(crate) fn dashed(id: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(id).ok()?;
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let mut out = String::with_capacity(38);
    for (n, c) in id.chars().enumerate() {
        if matches!(n, 6 | 10 | 14 | 18 | 22 | 26) {
            out.push('-');
        }
        out.push(c);
    }
    Some(out)
}
