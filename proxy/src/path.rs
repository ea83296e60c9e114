//! The text of paths: components, the drive form, streams.

/// Splits a path at `/`; empty components and `.` are left out, `..` is kept.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// Whether the path says that it names a directory: it ends in `/`, `/.` or `..`.
pub fn wants_directory(path: &[u8]) -> bool {
    matches!(path.rsplit(|b| *b == b'/').next(), Some(b"" | b"." | b".."))
}

/// The first component, if it has the form of a volume's name: `p` and a number.
pub fn volume_name(path: &[u8]) -> Option<&[u8]> {
    let first = components(path).next()?;
    let digits = first.strip_prefix(b"p")?;
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(first)
}

/// The drive form, `^[A-Za-z]:[/\]`: the letter in upper case, and the rest with
/// backslashes turned. Only there does a backslash separate.
pub fn drive(path: &[u8]) -> Option<(u8, Vec<u8>)> {
    match path {
        [letter, b':', b'/' | b'\\', rest @ ..] if letter.is_ascii_alphabetic() => {
            let rest = rest
                .iter()
                .map(|b| if *b == b'\\' { b'/' } else { *b })
                .collect();
            Some((letter.to_ascii_uppercase(), rest))
        }
        _ => None,
    }
}

/// The drive form as one component, `^[A-Za-z]:$`: the letter in upper case.
pub fn drive_component(part: &[u8]) -> Option<u8> {
    match part {
        [letter, b':'] if letter.is_ascii_alphabetic() => Some(letter.to_ascii_uppercase()),
        _ => None,
    }
}

/// Cuts `name:stream` at its last colon, `name:stream:$DATA` at the one before. An empty
/// stream is the unnamed one.
pub fn stream(name: &[u8]) -> Option<(&[u8], &[u8])> {
    const TYPE: &[u8] = b":$data";
    let cut = name.len().saturating_sub(TYPE.len());
    let (front, end) = name.split_at(cut);
    let name = if end.eq_ignore_ascii_case(TYPE) && front.contains(&b':') {
        front
    } else {
        name
    };
    let colon = name.iter().rposition(|b| *b == b':')?;
    let (base, rest) = name.split_at(colon);
    (!base.is_empty()).then_some((base, rest.get(1..).unwrap_or_default()))
}

/// How many edits (insert, delete, replace, case not counted) turn `a` into `b`; `None` if
/// more than `limit`. For "did you mean".
pub fn distance(a: &[u8], b: &[u8], limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit || a.len().max(b.len()) > 255 {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let replace = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = *cell;
            left = replace.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().filter(|d| *d <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        let parts = |p: &'static [u8]| components(p).collect::<Vec<_>>();
        assert_eq!(
            parts(b"//p1/./a/../b/"),
            [b"p1".as_slice(), b"a", b"..", b"b"]
        );
        assert_eq!(parts(b"/"), Vec::<&[u8]>::new());
        assert!(wants_directory(b"a/") && wants_directory(b"a/.") && wants_directory(b".."));
        assert!(!wants_directory(b"/a..") && !wants_directory(b"a"));
    }

    #[test]
    fn drive_form() {
        assert_eq!(drive(b"c:\\Users\\a"), Some((b'C', b"Users/a".to_vec())));
        assert_eq!(drive(b"D:/"), Some((b'D', Vec::new())));
        for not in [b"c:".as_slice(), b"cc:/x", b"1:/", b"/c:/x", b"c:x"] {
            assert_eq!(drive(not), None);
        }
        assert_eq!(drive_component(b"c:"), Some(b'C'));
        for not in [b"c".as_slice(), b"c:x", b"1:", b":", b"cc:"] {
            assert_eq!(drive_component(not), None);
        }
    }

    #[test]
    fn streams() {
        assert_eq!(
            stream(b"a.txt:s"),
            Some((b"a.txt".as_slice(), b"s".as_slice()))
        );
        assert_eq!(
            stream(b"a:s:$DATA"),
            Some((b"a".as_slice(), b"s".as_slice()))
        );
        assert_eq!(stream(b"a::$DATA"), Some((b"a".as_slice(), b"".as_slice())));
        assert_eq!(stream(b"a:b:s"), Some((b"a:b".as_slice(), b"s".as_slice())));
        assert_eq!(stream(b":s"), None);
        assert_eq!(stream(b"plain"), None);
        assert_eq!(stream(b":$DATA"), None);
    }

    #[test]
    fn near_names() {
        assert_eq!(distance(b"bob", b"Bob", 2), Some(0));
        assert_eq!(distance(b"setings", b"Settings", 2), Some(1));
        assert_eq!(distance(b"abc", b"xyz", 2), None);
        assert_eq!(distance(b"", b"ab", 2), Some(2));
    }
}
