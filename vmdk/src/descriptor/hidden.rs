//! Extents that a damaged byte has hidden: in a comment, behind another line, behind the end of the
//! text. Leaving one out would move every later byte of the disk, so it is an error.

use super::{ExtentLine, ExtentType};
use crate::text;

/// Whether a line that is taken for something else has an extent in it.
///
/// An extent line as the whole of a comment is one that somebody left out on purpose.
pub(super) fn in_line(line: &str) -> bool {
    let line = line.trim();
    let whole = line.trim_start_matches('#').trim_start();
    let on_purpose = line.starts_with('#') && matches!(ExtentLine::parse(whole), Ok(Some(_)));
    !on_purpose && has_extent(line)
}

/// Whether a text has `… LENGTH TYPE "NAME` in it, or `ACCESS LENGTH ZERO`.
pub(super) fn has_extent(text: &str) -> bool {
    let named = text.match_indices('"').any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        // What is quoted before is a name or a value.
        let words = before.rsplit('"').next().unwrap_or_default();
        let mut words = self::words(words).rev();
        words.next().is_some_and(is_type) && words.next().is_some_and(ends_with_digit)
    });
    let mut last = ["", ""];
    named
        || words(text).any(|word| {
            let [access, length] = last;
            let zeros = word.eq_ignore_ascii_case("ZERO")
                && ends_with_digit(length)
                && ["RW", "RDONLY", "NOACCESS"]
                    .iter()
                    .any(|a| access.ends_with(a));
            last = [length, word];
            zeros
        })
}

/// Words between blanks and what a blank may have become.
fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
}

fn is_type(word: &str) -> bool {
    !matches!(ExtentType::parse(word), ExtentType::Other(_))
}

fn ends_with_digit(word: &str) -> bool {
    word.ends_with(|c: char| c.is_ascii_digit())
}

/// What the text of a file of its own has behind its end, which is its first NUL: `None` if nothing,
/// else whether an extent or a parent is in it.
pub(super) fn behind_the_end(bytes: &[u8]) -> Option<bool> {
    let end = bytes.iter().position(|b| *b == 0)?;
    let rest: Vec<u8> = bytes
        .get(end..)?
        .iter()
        .map(|b| if *b == 0 { b' ' } else { *b })
        .collect();
    let rest = text::decode(rest.trim_ascii(), &[]).text;
    (!rest.is_empty()).then(|| {
        let lower = rest.to_ascii_lowercase();
        lower.contains("parentcid")
            || lower.contains("parentfilenamehint")
            || rest.lines().any(|line| {
                has_extent(line) || matches!(ExtentLine::parse(line.trim()), Ok(Some(_)))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_found_wherever_they_are() {
        for line in [
            "# Extent descriptionRW 8192 FLAT \"a\" 0",
            "# Extent description\u{b}RW 8192 SPARSE \"a b.vmdk\"",
            "RW02048 FLAT \"f1.vmdk\" 0",
            "RW 02048\u{1f} VMFS \"f1.vmdk",
            "createType=\"twoGbMaxExtentFlat\"RW 8192 flat \"a\" 0",
            "# Extent descriptionRW 8192 ZERO",
            "\u{b}RW 8192 SESPARSE \"a\"",
        ] {
            assert!(in_line(line), "{line}");
        }
        for line in [
            "",
            "# Extent description",
            "# RW 8192 FLAT \"a\" 0",
            "#RW 8192 ZERO",
            "createType=\"monolithicFlat\"",
            "ddb.comment = \"of 4 flat \\\"disks\\\"\"",
            "parentFileNameHint=\"a 5 flat one.vmdk\"",
            "changeTrackPath=\"a-ctk.vmdk\"",
            "# The Disk Data Base ",
            "# two zero",
        ] {
            assert!(!in_line(line), "{line}");
        }
    }

    #[test]
    fn what_is_behind_the_end() {
        for (bytes, found) in [
            (&b"a\nb"[..], None),
            (b"a\nb\0\0\0", None),
            (b"a\0 \n", None),
            (b"a\0b", Some(false)),
            (b"a\0RW 8 FLAT \"x\" 0\n", Some(true)),
            (b"a\0W 8\0FLAT \"x\" 0\n", Some(true)),
            (b"a\0\nRW 8 ZERO\n", Some(true)),
            (b"a\0\nparentCID=12345678", Some(true)),
        ] {
            assert_eq!(behind_the_end(bytes), found, "{bytes:?}");
        }
    }
}
