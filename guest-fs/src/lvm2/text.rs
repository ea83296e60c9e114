//! The metadata's text: `key = value`, `section { … }`, lists, comments.

use disk_io::{DiskError, Result};

/// Sections nest three deep in real metadata.
const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Number(u64),
    /// Text in quotes, or anything else that is not a number.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

/// What is between two braces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// Values by key, in order.
    pub values: Vec<(String, Value)>,
    /// Sections by name, in order.
    pub sections: Vec<(String, Section)>,
}

impl Section {
    /// A value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(t) => Some(t),
            _ => None,
        }
    }

    /// A list.
    pub fn list(&self, key: &str) -> &[Value] {
        match self.get(key) {
            Some(Value::List(l)) => l,
            _ => &[],
        }
    }

    /// A section.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, s)| s)
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Mark(u8),
}

struct Lexer<'a> {
    rest: &'a [u8],
    all: usize,
}

impl Lexer<'_> {
    fn bad(&self, expected: &str) -> DiskError {
        DiskError::corrupt("parsing LVM2 metadata")
            .expected(expected)
            .found(format!(
                "something else at byte {} of the text",
                self.all.saturating_sub(self.rest.len())
            ))
    }

    fn next(&mut self) -> Result<Option<Token>> {
        loop {
            let Some((&first, more)) = self.rest.split_first() else {
                return Ok(None);
            };
            match first {
                0 => return Ok(None),
                b if b.is_ascii_whitespace() => self.rest = more,
                b'#' => {
                    let end = self.rest.iter().position(|b| *b == b'\n');
                    self.rest = end.and_then(|n| self.rest.get(n..)).unwrap_or_default();
                }
                b'{' | b'}' | b'[' | b']' | b'=' | b',' => {
                    self.rest = more;
                    return Ok(Some(Token::Mark(first)));
                }
                b'"' => {
                    let mut text = Vec::new();
                    let mut bytes = more.iter();
                    loop {
                        match bytes.next() {
                            Some(b'"') => break,
                            Some(b'\\') => text.extend(bytes.next()),
                            Some(b) => text.push(*b),
                            None => return Err(self.bad("a closing quote")),
                        }
                    }
                    self.rest = bytes.as_slice();
                    return Ok(Some(Token::Quoted(String::from_utf8_lossy(&text).into())));
                }
                _ => {
                    let ends = |b: &u8| b.is_ascii_whitespace() || b"{}[]=,#\"\0".contains(b);
                    let n = self.rest.iter().position(ends).unwrap_or(self.rest.len());
                    let (word, rest) = self.rest.split_at(n);
                    self.rest = rest;
                    return Ok(Some(Token::Word(String::from_utf8_lossy(word).into())));
                }
            }
        }
    }

    fn value(&mut self) -> Result<Value> {
        match self.next()? {
            Some(Token::Mark(b'[')) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        Some(Token::Mark(b']')) => return Ok(Value::List(list)),
                        Some(Token::Mark(b',')) => {}
                        Some(Token::Word(w)) => list.push(word(w)),
                        Some(Token::Quoted(t)) => list.push(Value::Text(t)),
                        _ => return Err(self.bad("a list")),
                    }
                }
            }
            Some(Token::Word(w)) => Ok(word(w)),
            Some(Token::Quoted(t)) => Ok(Value::Text(t)),
            _ => Err(self.bad("a value")),
        }
    }

    fn section(&mut self, depth: usize) -> Result<Section> {
        let mut section = Section::default();
        if depth > MAX_DEPTH {
            return Err(self.bad("fewer nested sections"));
        }
        loop {
            let name = match self.next()? {
                None if depth == 0 => return Ok(section),
                Some(Token::Mark(b'}')) if depth > 0 => return Ok(section),
                Some(Token::Word(name)) => name,
                _ => return Err(self.bad("a name or the end of a section")),
            };
            match self.next()? {
                Some(Token::Mark(b'=')) => {
                    let value = self.value()?;
                    section.values.push((name, value));
                }
                Some(Token::Mark(b'{')) => {
                    let inner = self.section(depth.saturating_add(1))?;
                    section.sections.push((name, inner));
                }
                _ => return Err(self.bad("= or {")),
            }
        }
    }
}

fn word(word: String) -> Value {
    word.parse().map_or(Value::Text(word), Value::Number)
}

/// Parses a text.
pub fn parse(text: &[u8]) -> Result<Section> {
    let mut lexer = Lexer {
        rest: text,
        all: text.len(),
    };
    lexer.section(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_metadata_apart() {
        let s = parse(b"vg {\nid = \"a\\\"b\" # x\nn = 12\nl = [\n\"pv0\", 0, -1 ]\nlvs {\n a { } }\n}\n\0junk{").unwrap();
        let vg = s.section("vg").unwrap();
        assert_eq!(vg.text("id"), Some("a\"b"));
        assert_eq!(vg.number("n"), Some(12));
        assert_eq!(vg.list("l").len(), 3);
        assert!(vg.section("lvs").unwrap().section("a").is_some());
        assert!(parse(b"a {").is_err());
        assert!(parse(&b"a {".repeat(100)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text);
        }
    }
}
