//! Code pages of 8.3 names. Every byte comes out as something: what a page does not define
//! becomes a private-use character of its own, so that different names stay different.

use oem_cp::code_table::DECODING_TABLE_CP_MAP;
use oem_cp::code_table_type::TableType;

/// MS-DOS's own, and what FAT means if nothing is said.
pub const DEFAULT: u16 = 437;

/// Pages of two bytes and Windows' pages, which one crate has; DOS pages, which the other has.
fn windows(page: u16) -> Option<&'static encoding_rs::Encoding> {
    Some(match page {
        932 => encoding_rs::SHIFT_JIS,
        936 => encoding_rs::GBK,
        949 => encoding_rs::EUC_KR,
        950 => encoding_rs::BIG5,
        1250 => encoding_rs::WINDOWS_1250,
        1251 => encoding_rs::WINDOWS_1251,
        1252 => encoding_rs::WINDOWS_1252,
        1253 => encoding_rs::WINDOWS_1253,
        1254 => encoding_rs::WINDOWS_1254,
        1255 => encoding_rs::WINDOWS_1255,
        1256 => encoding_rs::WINDOWS_1256,
        1257 => encoding_rs::WINDOWS_1257,
        1258 => encoding_rs::WINDOWS_1258,
        65001 => encoding_rs::UTF_8,
        _ => return None,
    })
}

/// Whether a page is known; `None` is 437.
pub fn known(page: Option<u16>) -> bool {
    let page = page.unwrap_or(DEFAULT);
    windows(page).is_some() || DECODING_TABLE_CP_MAP.contains_key(&page)
}

/// The text of some bytes; an unknown page is read as 437.
pub fn decode(page: Option<u16>, bytes: &[u8]) -> String {
    let page = page.unwrap_or(DEFAULT);
    if bytes.is_ascii() {
        return bytes.iter().map(|b| char::from(*b)).collect();
    }
    if let Some(encoding) = windows(page) {
        return several(encoding, bytes);
    }
    let table = DECODING_TABLE_CP_MAP
        .get(&page)
        .or_else(|| DECODING_TABLE_CP_MAP.get(&DEFAULT));
    bytes.iter().map(|b| one(table, *b)).collect()
}

fn one(table: Option<&TableType>, byte: u8) -> char {
    let Some(high) = byte.checked_sub(128) else {
        return char::from(byte);
    };
    let found = match table {
        Some(TableType::Complete(t)) => t.get(usize::from(high)).copied(),
        Some(TableType::Incomplete(t)) => t.get(usize::from(high)).copied().flatten(),
        None => None,
    };
    found.unwrap_or_else(|| undefined(byte))
}

fn undefined(byte: u8) -> char {
    char::from_u32(0xf000 | u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Character by character, so that one bad byte costs no more than itself.
fn several(encoding: &'static encoding_rs::Encoding, bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    while let Some((&first, more)) = rest.split_first() {
        if first.is_ascii() {
            out.push(char::from(first));
            rest = more;
            continue;
        }
        let longest = if encoding == encoding_rs::UTF_8 { 4 } else { 2 };
        let whole = (1..=longest.min(rest.len())).find_map(|n| {
            let (now, later) = rest.split_at_checked(n)?;
            let text = encoding.decode_without_bom_handling_and_without_replacement(now)?;
            Some((text, later))
        });
        match whole {
            Some((text, later)) => {
                out.push_str(&text);
                rest = later;
            }
            None => {
                out.push(undefined(first));
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn double_bytes_and_damage() {
        assert_eq!(decode(Some(932), b"\x83e\x83X\x83g"), "テスト");
        assert_eq!(decode(Some(936), b"\xb2\xe2A"), "测A");
        assert_eq!(decode(Some(949), b"\xb0\xa1"), "가");
        assert_eq!(decode(Some(950), b"\xb4\xfa"), "測");
        assert_eq!(decode(Some(932), b"a\x83"), "a\u{f083}");
        assert_eq!(decode(Some(850), b"\x81"), "ü");
        assert_eq!(decode(None, b"\xe5"), "σ");
        assert!(known(None) && known(Some(866)) && !known(Some(12)));
    }

    #[test]
    fn different_bytes_stay_different() {
        for page in [437, 850, 852, 866, 874, 932, 1252] {
            let mut all: Vec<_> = (0..=255u8).map(|b| decode(Some(page), &[b])).collect();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 256, "code page {page}");
        }
    }
}
