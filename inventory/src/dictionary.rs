//! Dictionary files: `.vmx`, `.vmsd`, `.vmxf` and VCB's `catalog` are lines of
//! `key = "value"` (fact sheet, VMDK 10.1).

use disk_io::{Disk, DiskError, Result};

/// Configurations are some kilobytes long.
const MAX_LEN: u64 = 16 << 20;
/// Most lines.
const MAX_LINES: usize = 200_000;

/// A dictionary with its lines in order, so that it can be written again.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    lines: Vec<Line>,
    /// What was odd while reading, one sentence each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug)]
enum Line {
    Entry { key: String, value: String },
    Other(String),
}

impl FromIterator<(String, String)> for Dictionary {
    /// One line for each pair.
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        let entries = pairs.into_iter();
        Self {
            lines: entries
                .map(|(key, value)| Line::Entry { key, value })
                .collect(),
            warnings: Vec::new(),
        }
    }
}

impl Dictionary {
    /// Reads a whole file. `name` is for messages.
    pub fn read(disk: &dyn Disk, name: &str) -> Result<Self> {
        if disk.len() > MAX_LEN {
            return Err(DiskError::refused("reading the configuration")
                .file(name)
                .expected(format!("at most {MAX_LEN} bytes"))
                .found(disk.len().to_string()));
        }
        let mut bytes = vec![0; usize::try_from(disk.len()).unwrap_or(0)];
        disk.read_exact_at(&mut bytes, 0)?;
        Self::parse(&bytes).map_err(|e| e.file(name))
    }

    /// Takes the text apart.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = vmdk::text::decode(bytes, &[".encoding", "encoding"]);
        let mut lines = Vec::new();
        for line in text.text.lines() {
            if lines.len() >= MAX_LINES {
                return Err(DiskError::refused("reading the configuration")
                    .expected(format!("at most {MAX_LINES} lines")));
            }
            lines.push(line_of(line));
        }
        Ok(Self {
            lines,
            warnings: text.warnings,
        })
    }

    /// All entries in order, repeated keys included.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|l| match l {
            Line::Entry { key, value } => Some((key.as_str(), value.as_str())),
            Line::Other(_) => None,
        })
    }

    /// The value of a key, whose case does not matter; of a repeated one the first.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, v)| v)
    }

    /// A value that is not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.trim().is_empty())
    }

    /// `TRUE` and its like.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)?.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.get(key)?.trim().parse().ok()
    }

    /// Sets a value: in its place where the key is there, at the end otherwise.
    pub fn set(&mut self, key: &str, value: &str) {
        let mut done = false;
        self.lines.retain_mut(|line| match line {
            Line::Entry { key: k, value: v } if k.eq_ignore_ascii_case(key) => {
                if !done {
                    *v = value.to_owned();
                }
                !std::mem::replace(&mut done, true)
            }
            _ => true,
        });
        if !done {
            self.lines.push(Line::Entry {
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
    }

    /// Takes out every entry that `gone` says.
    pub fn remove(&mut self, gone: impl Fn(&str) -> bool) {
        self.lines.retain(|line| match line {
            Line::Entry { key, .. } => !gone(key),
            Line::Other(_) => true,
        });
    }

    /// The text again, in UTF-8 and saying so.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut said = false;
        for line in &self.lines {
            match line {
                Line::Entry { key, .. } if key.eq_ignore_ascii_case(".encoding") => {
                    said = true;
                    out.push_str(".encoding = \"UTF-8\"\n");
                }
                Line::Entry { key, value } => {
                    out.push_str(&format!("{key} = \"{}\"\n", escape(value)));
                }
                Line::Other(text) => {
                    out.push_str(text);
                    out.push('\n');
                }
            }
        }
        match said {
            true => out,
            false => format!(".encoding = \"UTF-8\"\n{out}"),
        }
    }
}

fn line_of(line: &str) -> Line {
    let trimmed = line.trim();
    let other = || Line::Other(line.to_owned());
    if trimmed.starts_with('#') {
        return other();
    }
    let Some((key, value)) = trimmed.split_once('=') else {
        return other();
    };
    let key = key.trim();
    if key.is_empty() {
        return other();
    }
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        // What follows the closing quote is a comment.
        Some(rest) => rest.rfind('"').map_or(rest, |end| &rest[..end]),
        None => value,
    };
    Line::Entry {
        key: key.to_owned(),
        value: unescape(value),
    }
}

/// `|XX` is the byte XX in hex; bytes together are UTF-8.
fn unescape(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'|', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escape(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        match c {
            '"' | '|' | '#' => out.push_str(&format!("|{:02X}", c as u32)),
            c if c.is_control() => {
                let mut utf8 = [0; 4];
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    out.push_str(&format!("|{byte:02X}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_products_write_them() {
        let d = Dictionary::parse(
            b".encoding = \"windows-1252\"\r\n# comment\r\ndisplayName = \"caf\xe9\"\r\n\
              DISPLAYNAME = \"second\"\r\nannotation = \"a|22b|22|0Ac|7C\"\r\nscsi0:0.present=true\n\
              bare = x y\nnonsense\n",
        )
        .unwrap();
        assert_eq!(d.get("displayname"), Some("café"));
        assert_eq!(d.get("annotation"), Some("a\"b\"\nc|"));
        assert_eq!(d.flag("scsi0:0.present"), Some(true));
        assert_eq!(d.get("bare"), Some("x y"));
        assert_eq!(d.get("gone"), None);
        let mut again = d.clone();
        again.set("DisplayName", "new");
        again.remove(|k| k == "bare");
        let text = again.to_text();
        assert!(text.starts_with(".encoding = \"UTF-8\"\n# comment\ndisplayName = \"new\"\n"));
        assert!(!text.contains("second") && text.contains("nonsense"));
        let again = Dictionary::parse(text.as_bytes()).unwrap();
        assert_eq!(again.get("annotation"), d.get("annotation"));
    }

    proptest! {
        #[test]
        fn any_value_survives(value in "\\PC*[\"|#\n\t]?\\PC*") {
            let mut d = Dictionary::default();
            d.set("k", &value);
            let again = Dictionary::parse(d.to_text().as_bytes()).unwrap();
            prop_assert_eq!(again.get("k"), Some(value.as_str()));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Dictionary::parse(&bytes).unwrap().to_text();
        }
    }
}
