//! The one error type of every layer below the command line.
//!
//! There are few answers to "cannot read this", and they are told apart because a user
//! acts differently on each: the hardware failed ([`ErrorKind::Io`]), the image is damaged
//! ([`ErrorKind::Corrupt`]), the image is sound but uses something not read here
//! ([`ErrorKind::Unsupported`]), it asks for a file it may not have
//! ([`ErrorKind::Refused`]), or what it needs is not there ([`ErrorKind::NotFound`]).
//! Each says what was being done, to which file, at which offset, what was expected, what
//! was found, and where it helps what to try.

use std::{fmt, io, sync::Arc};

/// The result of everything that touches a disk.
pub type Result<T, E = DiskError> = std::result::Result<T, E>;

/// Which of the few answers an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system failed to read: hardware, network, a file that shrank.
    Io,
    /// The bytes were read and contradict the format: damage, or an attack.
    Corrupt,
    /// Recognised, sound as far as looked at, and not read by this program. The error names it.
    Unsupported,
    /// The gate does not let the image have this file, or a limit was exceeded.
    Refused,
    /// A file, parent or guest name that is needed does not exist.
    NotFound,
    /// A read outside the disk: a bug of the caller, or a structure that points outside.
    OutOfRange,
    /// A name that fits more than one thing: the user has to say which. Wrong usage, not a
    /// fault of the image.
    Ambiguous,
}

impl ErrorKind {
    /// Every kind, for tables that must be complete.
    pub const ALL: [Self; 7] = [
        Self::Io,
        Self::Corrupt,
        Self::Unsupported,
        Self::Refused,
        Self::NotFound,
        Self::OutOfRange,
        Self::Ambiguous,
    ];

    /// A stable lower-case word, as used in JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::OutOfRange => "out_of_range",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// An error with its place. Cheap to clone, so a bad range can be remembered and told again.
#[derive(Clone)]
pub struct DiskError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    doing: String,
    file: Option<String>,
    offset: Option<u64>,
    expected: Option<String>,
    found: Option<String>,
    hint: Option<String>,
    code: Option<&'static str>,
    os: Option<(io::ErrorKind, Option<i32>, String)>,
}

impl DiskError {
    /// A new error: `doing` completes the sentence "…" + " failed", for example
    /// `"reading the grain directory"`.
    pub fn new(kind: ErrorKind, doing: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            doing: escape(&doing.into()),
            file: None,
            offset: None,
            expected: None,
            found: None,
            hint: None,
            code: None,
            os: None,
        }))
    }

    /// Damage: see [`ErrorKind::Corrupt`].
    pub fn corrupt(doing: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, doing)
    }

    /// Recognised and not read here: see [`ErrorKind::Unsupported`].
    pub fn unsupported(doing: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, doing)
    }

    /// Not allowed: see [`ErrorKind::Refused`].
    pub fn refused(doing: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, doing)
    }

    /// Not there: see [`ErrorKind::NotFound`].
    pub fn not_found(doing: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, doing)
    }

    /// A failure of the operating system; a missing file becomes [`ErrorKind::NotFound`].
    pub fn io(doing: impl Into<String>, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        let os = Some((error.kind(), error.raw_os_error(), error.to_string()));
        Self::new(kind, doing).with(|i| i.os = os)
    }

    /// A read of `len` bytes at `offset` of something that is `size` bytes long.
    pub fn out_of_range(offset: u64, len: u64, size: u64) -> Self {
        Self::new(ErrorKind::OutOfRange, "reading past the end")
            .offset(offset)
            .expected(format!("a range inside {size} bytes"))
            .found(format!("{len} bytes at {offset}"))
    }

    fn with(mut self, set: impl FnOnce(&mut Inner)) -> Self {
        set(Arc::make_mut(&mut self.0));
        self
    }

    /// Names the file (image, device or guest path). The innermost name wins: a layer that
    /// passes an error on does not overwrite it.
    pub fn file(self, file: impl fmt::Display) -> Self {
        if self.0.file.is_some() {
            return self;
        }
        let file = escape(&file.to_string());
        self.with(|i| i.file = Some(file))
    }

    /// The offset in that file, in bytes. The innermost offset wins.
    pub fn offset(self, offset: u64) -> Self {
        if self.0.offset.is_some() {
            return self;
        }
        self.with(|i| i.offset = Some(offset))
    }

    /// What a sound image would have had there.
    pub fn expected(self, expected: impl Into<String>) -> Self {
        let expected = escape(&expected.into());
        self.with(|i| i.expected = Some(expected))
    }

    /// What was there.
    pub fn found(self, found: impl Into<String>) -> Self {
        let found = escape(&found.into());
        self.with(|i| i.found = Some(found))
    }

    /// What the user can try next.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        let hint = escape(&hint.into());
        self.with(|i| i.hint = Some(hint))
    }

    /// Which kind of damage this is, for reports that count and explain kinds
    /// ([`crate::Finding::code`]). The innermost code wins.
    pub fn code(self, code: &'static str) -> Self {
        if self.0.code.is_some() {
            return self;
        }
        self.with(|i| i.code = Some(code))
    }

    /// See [`Self::code`].
    pub fn code_text(&self) -> Option<&'static str> {
        self.0.code
    }

    /// Puts what an outer layer was doing in front: `"opening the parent: reading …"`.
    pub fn context(self, doing: impl fmt::Display) -> Self {
        let doing = escape(&doing.to_string());
        self.with(|i| i.doing = format!("{doing}: {}", i.doing))
    }

    /// The same as another answer: what was not found on the way to something that is there.
    pub fn of_kind(self, kind: ErrorKind) -> Self {
        self.with(|i| i.kind = kind)
    }

    /// Which of the few answers this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done.
    pub fn doing(&self) -> &str {
        &self.0.doing
    }

    /// The file it was done to, escaped for display.
    pub fn file_name(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// The byte offset in that file.
    pub fn at(&self) -> Option<u64> {
        self.0.offset
    }

    /// What to try next, if anything helps.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The operating system's error number, where one was the cause.
    pub fn os_error(&self) -> Option<i32> {
        self.0.os.as_ref().and_then(|o| o.1)
    }

    /// Expected and found, for reports that want them apart.
    pub fn difference(&self) -> (Option<&str>, Option<&str>) {
        (self.0.expected.as_deref(), self.0.found.as_deref())
    }
}

/// Makes control characters visible: names come from images and end up on terminals.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A name as one word of a shell command: names in hints come from images, and a hint is
/// made to be copied.
pub fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &*self.0;
        if let Some(file) = &i.file {
            write!(f, "{file}: ")?;
        }
        f.write_str(&i.doing)?;
        if let Some(offset) = i.offset {
            write!(f, " at offset {offset}")?;
        }
        if let Some(expected) = &i.expected {
            write!(f, ": expected {expected}")?;
        }
        if let Some(found) = &i.found {
            let joint = if i.expected.is_some() { "," } else { ":" };
            write!(f, "{joint} found {found}")?;
        }
        if let Some((_, _, text)) = &i.os {
            write!(f, ": {text}")?;
        }
        if let Some(hint) = &i.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for DiskError {}

impl From<DiskError> for io::Error {
    fn from(e: DiskError) -> Self {
        let kind = match e.kind() {
            ErrorKind::Io => e.0.os.as_ref().map_or(io::ErrorKind::Other, |o| o.0),
            ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Refused => io::ErrorKind::PermissionDenied,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::OutOfRange => io::ErrorKind::UnexpectedEof,
            ErrorKind::Ambiguous => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_once_and_keeps_the_innermost_place() {
        let e = DiskError::corrupt("reading the grain directory")
            .file("a\u{1b}[31m.vmdk")
            .offset(512)
            .expected("a sector inside the file")
            .found("sector 99")
            .hint("try --ignore-cid")
            .file("outer")
            .offset(7)
            .context("opening the parent");
        assert_eq!(
            e.to_string(),
            "a\\u{1b}[31m.vmdk: opening the parent: reading the grain directory at offset 512: \
             expected a sector inside the file, found sector 99 (try --ignore-cid)"
        );
        assert_eq!(e.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn nothing_from_an_image_reaches_a_terminal_or_a_shell_as_it_is() {
        let evil = "\u{1b}]0;x\u{7}\u{202e}";
        let e = DiskError::not_found(evil)
            .file(evil)
            .expected(evil)
            .found(evil)
            .hint(evil)
            .context(evil);
        assert!(!e.to_string().contains(['\u{1b}', '\u{7}', '\u{202e}']));
        assert_eq!(shell_word("a';x"), "'a'\\'';x'");
    }
}
