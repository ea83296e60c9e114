//! `--include` and `--exclude`.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// What to take and what to leave. A pattern with a `/` is matched against whole paths as
/// `ls` prints them (or the end of one, if it does not begin with `/`), any other against
/// the last component. `*` and `?` do not match `/`, `**` does.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

#[derive(Clone, Debug)]
struct Patterns {
    names: GlobSet,
    paths: GlobSet,
}

impl Patterns {
    fn new(patterns: &[String], ignore_case: bool) -> Result<Option<Self>, String> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let is_path = pattern.contains('/');
            let text = match pattern.strip_suffix('/').unwrap_or(pattern) {
                p if is_path && !p.starts_with('/') => format!("**/{p}"),
                p => p.to_owned(),
            };
            let glob = GlobBuilder::new(&text)
                .literal_separator(true)
                .case_insensitive(ignore_case)
                .build()
                .map_err(|e| format!("the pattern {pattern:?}: {}", e.kind()))?;
            if is_path { &mut paths } else { &mut names }.add(glob);
        }
        let build = |b: GlobSetBuilder| b.build().map_err(|e| e.to_string());
        Ok(Some(Self {
            names: build(names)?,
            paths: build(paths)?,
        }))
    }

    fn matches(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.paths.is_match(path)
            || path
                .file_name()
                .is_some_and(|name| self.names.is_match(Path::new(name)))
    }
}

impl Filter {
    /// From patterns as the user typed them; an error is a sentence.
    pub fn new(include: &[String], exclude: &[String], ignore_case: bool) -> Result<Self, String> {
        Ok(Self {
            include: Patterns::new(include, ignore_case)?,
            exclude: Patterns::new(exclude, ignore_case)?,
        })
    }

    /// Whether only some files are wanted, so that directories are made when needed.
    pub fn is_selective(&self) -> bool {
        self.include.is_some()
    }

    /// Whether a path is left out, a directory with everything in it.
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.exclude.as_ref().is_some_and(|p| p.matches(path))
    }

    /// Whether a path that is not excluded is wanted; what lies in an included directory is
    /// told by `inside`.
    pub fn includes(&self, path: &[u8], inside: bool) -> bool {
        inside || self.include.as_ref().is_none_or(|p| p.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let own = |p: &[&str]| p.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Filter::new(&own(include), &own(exclude), false).unwrap()
    }

    #[test]
    fn names_paths_and_ends_of_paths() {
        let f = filter(&["*.txt", "Users/*/Documents"], &["/p1/Windows", "~*"]);
        assert!(f.includes(b"/p1/a/b.txt", false));
        assert!(!f.includes(b"/p1/a/b.TXT", false));
        assert!(f.includes(b"/p1/Users/x/Documents", false));
        assert!(!f.includes(b"/p1/Users/x/y/Documents", false));
        assert!(f.includes(b"/p1/anything", true));
        assert!(f.excludes(b"/p1/Windows"));
        assert!(!f.excludes(b"/p2/Windows"));
        assert!(f.excludes(b"/p2/x/~lock"));
        assert!(Filter::new(&["a[".into()], &[], false).is_err());
        let any_case = Filter::new(&["*.txt".into()], &[], true).unwrap();
        assert!(any_case.includes(b"/p1/B.TXT", false));
    }
}
