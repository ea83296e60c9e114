//! Bytes to text: the character set is named inside the text itself.

use encoding_rs::{BIG5, Encoding, GBK, SHIFT_JIS, UTF_8, WINDOWS_1252};

/// Text with the character set that it was in.
#[derive(Clone, Debug)]
pub struct Text {
    /// The text.
    pub text: String,
    /// What it was decoded from.
    pub encoding: &'static Encoding,
    /// What was odd, one sentence each.
    pub warnings: Vec<String>,
}

/// Decodes up to the first NUL (embedded descriptors are padded with them). What is not
/// named is UTF-8, and where that fails windows-1252 (fact sheet, VMDK 2.2: what VMware
/// assumes is not known).
///
/// `keys` are those that name the character set, the first found of the earliest wins.
pub fn decode(bytes: &[u8], keys: &[&str]) -> Text {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let bytes = bytes.get(..end).unwrap_or_default();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut warnings = Vec::new();
    let named = named_encoding(bytes, keys);
    let encoding = match named.as_deref().map(|label| (label, for_label(label))) {
        Some((_, Some(encoding))) => Some(encoding),
        Some((label, None)) => {
            warnings.push(format!(
                "the encoding {} is not known here",
                disk_io::error::escape(label)
            ));
            None
        }
        None => None,
    };
    if let Some(encoding) = encoding {
        let (text, bad) = encoding.decode_without_bom_handling(bytes);
        if !bad {
            return Text {
                text: text.into_owned(),
                encoding,
                warnings,
            };
        }
        warnings.push(format!("the text is not valid {}", encoding.name()));
    }
    let (text, bad) = UTF_8.decode_without_bom_handling(bytes);
    if !bad {
        return Text {
            text: text.into_owned(),
            encoding: UTF_8,
            warnings,
        };
    }
    let (text, _) = WINDOWS_1252.decode_without_bom_handling(bytes);
    Text {
        text: text.into_owned(),
        encoding: WINDOWS_1252,
        warnings,
    }
}

/// The value of the first line of the first key that there is. Every
/// character set in use keeps ASCII where it is, so the line can be found in the bytes.
fn named_encoding(bytes: &[u8], keys: &[&str]) -> Option<String> {
    let mut found: Option<(usize, String)> = None;
    // It stands near the top; a text of megabytes is not searched for it.
    let head = bytes.get(..65_536).unwrap_or(bytes);
    for line in head.split(|b| *b == b'\n') {
        let Some(at) = line.iter().position(|b| *b == b'=') else {
            continue;
        };
        let (key, value) = line.split_at(at);
        let key = key.trim_ascii();
        let value = || {
            let value: Vec<u8> = value
                .iter()
                .skip(1)
                .copied()
                .filter(|b| *b != b'"' && !b.is_ascii_whitespace())
                .collect();
            String::from_utf8_lossy(&value).into_owned()
        };
        let rank = keys
            .iter()
            .position(|k| key.eq_ignore_ascii_case(k.as_bytes()));
        if let Some(rank) = rank
            && found.as_ref().is_none_or(|(best, _)| rank < *best)
        {
            found = Some((rank, value()));
        }
    }
    found.map(|(_, value)| value)
}

/// The names that descriptors carry, and those of the code pages they stand for.
fn for_label(label: &str) -> Option<&'static Encoding> {
    match label.to_ascii_lowercase().as_str() {
        "cp936" | "windows-936" | "ms936" => Some(GBK),
        "cp950" | "windows-950" | "ms950" => Some(BIG5),
        "cp932" | "windows-932" | "ms932" => Some(SHIFT_JIS),
        "cp65001" => Some(UTF_8),
        // Encodings that move ASCII cannot have been used: the label was read as ASCII.
        _ => Encoding::for_label(label.as_bytes()).filter(|e| e.is_ascii_compatible()),
    }
}
