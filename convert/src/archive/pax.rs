//! The extended headers of pax: what the old header cannot say.

use guest_fs::{Metadata, Timestamp};
use tar::Header;

/// Records for one member.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax(Vec<(String, Vec<u8>)>);

impl Pax {
    /// All times of an object, to the nanosecond.
    pub(super) fn of(metadata: &Metadata) -> Self {
        let mut pax = Self::default();
        for (key, time) in [
            ("mtime", metadata.modified),
            ("atime", metadata.accessed),
            ("ctime", metadata.changed),
            ("LIBARCHIVE.creationtime", metadata.created),
        ] {
            if let Some(time) = time {
                pax.0.push((key.into(), seconds(time).into_bytes()));
            }
        }
        pax
    }

    /// Puts the name into the header, and here too where it does not fit or is not ASCII.
    pub(super) fn name(&mut self, header: &mut Header, name: &[u8]) {
        // A sparse member says its name otherwise.
        let sparse = self.0.iter().any(|(key, _)| key == "GNU.sparse.name");
        if let Some(ustar) = header.as_ustar_mut() {
            put(&mut ustar.name, name);
            if !sparse && !fits(&ustar.name, name) {
                self.text("path", name);
            }
        }
    }

    /// The same for where a link leads.
    pub(super) fn link(&mut self, header: &mut Header, target: &[u8]) {
        if let Some(ustar) = header.as_ustar_mut() {
            put(&mut ustar.linkname, target);
            if !fits(&ustar.linkname, target) {
                self.text("linkpath", target);
            }
        }
    }

    /// An extended attribute with its prefix, as GNU tar and libarchive keep them.
    pub(super) fn xattr(&mut self, name: &[u8], value: &[u8]) {
        // An equals sign would end the key.
        let name = String::from_utf8_lossy(name).replace('=', "%3D");
        let key = format!("SCHILY.xattr.{name}");
        self.0.push((key, value.to_vec()));
    }

    /// The member is sparse (GNU's format 1.0), with this name and length.
    pub(super) fn sparse(&mut self, name: &[u8], len: u64) {
        let number = |n: u64| n.to_string().into_bytes();
        self.0.push(("GNU.sparse.major".into(), number(1)));
        self.0.push(("GNU.sparse.minor".into(), number(0)));
        self.text("GNU.sparse.name", name);
        self.0.push(("GNU.sparse.realsize".into(), number(len)));
    }

    fn text(&mut self, key: &str, value: &[u8]) {
        if std::str::from_utf8(value).is_err() && self.0.iter().all(|(k, _)| k != "hdrcharset") {
            self.0.insert(0, ("hdrcharset".into(), b"BINARY".to_vec()));
        }
        self.0.push((key.into(), value.to_vec()));
    }

    pub(super) fn records(self) -> Vec<(String, Vec<u8>)> {
        self.0
    }
}

fn put(field: &mut [u8], text: &[u8]) {
    field.fill(0);
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
}

fn fits(field: &[u8], text: &[u8]) -> bool {
    text.len() < field.len() && text.is_ascii()
}

/// Decimal seconds. What lies before 1970 counts down.
fn seconds(time: Timestamp) -> String {
    match (time.seconds, time.nanos) {
        (s, 0) => s.to_string(),
        (s, n) if s < 0 => {
            let (whole, part) = (-(s + 1), 1_000_000_000 - n);
            format!("-{whole}.{part:09}")
        }
        (s, n) => format!("{s}.{n:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let text = |s, n| seconds(Timestamp::from_unix(s, n));
        assert_eq!(text(0, 0), "0");
        assert_eq!(text(5, 100), "5.000000100");
        assert_eq!(text(-1, 0), "-1");
        assert_eq!(text(-1, 500_000_000), "-0.500000000");
        assert_eq!(text(-2, 250_000_000), "-1.750000000");
    }
}
