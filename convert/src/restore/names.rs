//! Names that the host's file system does not take.

use crate::digest::sha256;
use std::fmt::Write;

/// The longest name that Linux file systems take, in bytes.
const MAX: usize = 255;

/// The name to use on any Linux file system: `/` and NUL as `%2F` and `%00`, `.` and `..`
/// as `%2E` and `%2E%2E`, an empty name as `%`, and one that is too long cut, with eight
/// digits of its SHA-256 and its extension. `None` if the name can stay.
pub fn host_name(name: &[u8]) -> Option<Vec<u8>> {
    let escaped = match name {
        b"" => b"%".to_vec(),
        b"." => b"%2E".to_vec(),
        b".." => b"%2E%2E".to_vec(),
        _ if name.iter().any(|b| matches!(b, b'/' | 0)) => escape(name, |b| matches!(b, b'/' | 0)),
        _ => name.to_vec(),
    };
    let fitted = shorten(name, escaped);
    (fitted != name).then_some(fitted)
}

/// The name for file systems with Windows' rules (FAT, exFAT, CIFS): also `<>:"\|?*`,
/// control characters, and a space or dot at the end.
pub fn strict_name(name: &[u8]) -> Vec<u8> {
    let mut out = escape(name, |b| {
        b < 0x20
            || matches!(
                b,
                b'/' | b'<' | b'>' | b':' | b'"' | b'\\' | b'|' | b'?' | b'*'
            )
    });
    if let Some(last @ (b'.' | b' ')) = out.last().copied() {
        out.pop();
        out.extend_from_slice(format!("%{last:02X}").as_bytes());
    }
    shorten(name, out)
}

fn escape(name: &[u8], illegal: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 8);
    for b in name.iter().copied() {
        if illegal(b) {
            out.extend_from_slice(format!("%{b:02X}").as_bytes());
        } else {
            out.push(b);
        }
    }
    out
}

/// Cuts `escaped` to [`MAX`] bytes, between characters; `name` tells equal cuts apart.
fn shorten(name: &[u8], escaped: Vec<u8>) -> Vec<u8> {
    if escaped.len() <= MAX {
        return escaped;
    }
    let mut mark = String::from("~");
    for b in sha256(name).iter().take(4) {
        let _ = write!(mark, "{b:02x}");
    }
    let extension: &[u8] = match escaped.iter().rposition(|b| *b == b'.') {
        Some(dot) if dot > 0 && escaped.len() - dot <= 16 => escaped.get(dot..).unwrap_or_default(),
        _ => b"",
    };
    let mut cut = MAX - mark.len() - extension.len();
    while cut > 0 && escaped.get(cut).is_some_and(|b| b & 0xc0 == 0x80) {
        cut -= 1;
    }
    let mut out = escaped.get(..cut).unwrap_or_default().to_vec();
    out.extend_from_slice(mark.as_bytes());
    out.extend_from_slice(extension);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_and_long_names() {
        assert_eq!(host_name(b"plain \xff name"), None);
        assert_eq!(host_name(b"..").unwrap(), b"%2E%2E");
        assert_eq!(
            host_name(b"../../etc/passwd").unwrap(),
            b"..%2F..%2Fetc%2Fpasswd"
        );
        assert_eq!(host_name(b"a\0b").unwrap(), b"a%00b");
        assert_eq!(host_name(b"").unwrap(), b"%");
        // 255 UTF-16 units of three bytes each, as NTFS allows.
        let long = format!("{}.docx", "あ".repeat(250));
        let short = host_name(long.as_bytes()).unwrap();
        assert!(short.len() <= 255 && short.ends_with(b".docx"));
        assert!(std::str::from_utf8(&short).is_ok());
        let other = format!("{}い.docx", "あ".repeat(249));
        assert_ne!(short, host_name(other.as_bytes()).unwrap());
        assert_eq!(strict_name(b"a:b?."), b"a%3Ab%3F%2E");
    }
}
