//! JSON as it is printed: characters that a terminal obeys are escaped in it too.
//!
//! JSON asks for that below U+0020 only. Text of images can hold DEL, the controls of
//! ISO 6429 (U+009B begins the same sequences as ESC `[`) and marks that turn text around,
//! and JSON is looked at on terminals. What a program reads out of it is the same.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};

/// What `disk_io::error::escape` makes visible.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a document over several lines.
pub(crate) fn document<W: Write>(out: W, value: &impl Serialize) -> serde_json::Result<()> {
    let shape = Visible(PrettyFormatter::new());
    value.serialize(&mut Serializer::with_formatter(out, shape))
}

/// Writes a document in one line.
pub(crate) fn line<W: Write>(out: W, value: &impl Serialize) -> serde_json::Result<()> {
    let shape = Visible(CompactFormatter);
    value.serialize(&mut Serializer::with_formatter(out, shape))
}

/// A document over several lines, as text.
pub(crate) fn text(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::new();
    document(&mut out, value)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

struct Visible<F>(F);

macro_rules! as_before {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {$(
        fn $name<W: ?Sized + Write>(&mut self, out: &mut W, $($arg: $type),*) -> io::Result<()> {
            self.0.$name(out, $($arg),*)
        }
    )*};
}

impl<F: Formatter> Formatter for Visible<F> {
    as_before! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_obeyed(*c)) {
            let (before, after) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            // All of them fit into one unit.
            write!(out, "\\u{:04x}", u32::from(c))?;
            rest = after.strip_prefix(c).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_terminal_obeys_is_escaped_and_read_back() {
        let all = "a\u{1b}\u{7f}\u{80}\u{9b}31m\u{a0}é\u{202e}b\u{2066}\u{2069}\u{1f600}";
        let value = serde_json::json!({ all: [all, 1, null, {}], "b": [] });
        let pretty = super::text(&value).unwrap();
        let mut line = Vec::new();
        super::line(&mut line, &value).unwrap();
        let line = String::from_utf8(line).unwrap();
        for text in [&pretty, &line] {
            assert!(
                !text.chars().any(|c| super::is_obeyed(c) && c != '\n'),
                "{text:?}"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(text).unwrap(),
                value
            );
        }
        assert!(
            !line.contains('\n') && pretty.contains("\n  \"b\": []"),
            "{pretty}"
        );
        assert!(
            line.contains("\u{a0}é\\u202eb\\u2066\\u2069\u{1f600}"),
            "{line}"
        );
    }
}
