//! The one table from error kinds to what a program sees.

use disk_io::ErrorKind;
use fuser::Errno;

/// What a system call on the mount fails with.
pub(crate) fn errno(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::Io | ErrorKind::Corrupt => Errno::EIO,
        // Told apart from damage: `cp` says "Operation not supported".
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::Refused => Errno::EACCES,
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::OutOfRange | ErrorKind::Ambiguous => Errno::EINVAL,
        // The kinds may grow; the test below fails until the table has grown too.
        _ => Errno::ENOTRECOVERABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for kind in ErrorKind::ALL {
            assert_ne!(
                errno(kind).code(),
                Errno::ENOTRECOVERABLE.code(),
                "{} has no errno",
                kind.as_str()
            );
        }
    }
}
