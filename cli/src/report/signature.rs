//! Signatures of evidence, as minisign makes them: who says so, and that it was not changed.

use crate::exit::Failure;
use base64::{Engine, engine::general_purpose::STANDARD};
use convert::place::Partial;
use disk_io::{DiskError, Result, output::write_error};
use minisign::{PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};
use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

/// The variable with the password of a key that has one.
const PASSWORD: &str = "VMDKIT_SIGN_PASSWORD";
/// Longest file of a key, a signature or evidence.
const MAX: u64 = 1 << 30;

fn fail(doing: &str, path: &Path, found: impl std::fmt::Display) -> DiskError {
    DiskError::refused(doing)
        .file(path.display())
        .found(found.to_string())
}

fn read(doing: &str, path: &Path) -> Result<Vec<u8>> {
    let io = |e: std::io::Error| DiskError::io(doing, &e).file(path.display());
    let len = fs::metadata(path).map_err(io)?.len();
    if len > MAX {
        return Err(fail(doing, path, format!("{len} bytes")));
    }
    fs::read(path).map_err(io)
}

fn text(doing: &str, path: &Path) -> Result<String> {
    String::from_utf8(read(doing, path)?).map_err(|_| fail(doing, path, "no text"))
}

/// A secret key, from the file that minisign made.
pub(crate) struct Key(SecretKey);

impl Key {
    /// # Errors
    /// `Refused` for what is no key, or a wrong password.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let doing = "reading the key to sign with";
        let kept = text(doing, path)?;
        let line = kept.lines().nth(1).unwrap_or_default().trim();
        let bytes = STANDARD.decode(line).map_err(|e| fail(doing, path, e))?;
        // Which way the key is kept: of one without a password these are zeros, and the crate
        // would ask for one.
        let key = match bytes.get(2..4) {
            Some([0, 0]) => SecretKey::from_bytes(&bytes),
            _ => {
                let password = std::env::var(PASSWORD).unwrap_or_default();
                SecretKeyBox::from_string(&kept).and_then(|b| b.into_secret_key(Some(password)))
            }
        };
        key.map(Self).map_err(|e| {
            fail(doing, path, e).hint(format!("the password of a key comes from {PASSWORD}"))
        })
    }

    /// Writes the signature of a file beside it.
    pub(super) fn sign(&self, path: &Path) -> Result<(), Failure> {
        let doing = "signing the report";
        let bytes = read(doing, path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let comment = format!("file:{name}\tprogram:vmdkit");
        let made = minisign::sign(None, &self.0, Cursor::new(bytes), Some(&comment), None);
        let made = made.map_err(|e| fail(doing, path, e))?;
        let beside = beside(path);
        let partial = Partial::create(&beside, true)?;
        partial
            .file()
            .write_all(made.into_string().as_bytes())
            .map_err(|e| write_error("writing the signature", &beside, &e))?;
        Ok(partial.finish()?)
    }
}

/// `FILE.minisig`.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".minisig");
    path.with_file_name(name)
}

/// A public key: the file that minisign made, or the line in it.
fn public(key: &str) -> Result<PublicKey> {
    let doing = "reading the public key";
    let path = Path::new(key);
    let made = match path.is_file() {
        false => PublicKey::from_base64(key),
        true => {
            let kept = text(doing, path)?;
            PublicKeyBox::from_string(&kept).and_then(PublicKeyBox::into_public_key)
        }
    };
    made.map_err(|e| {
        fail(doing, path, e).hint("a file that minisign wrote (minisign.pub), or its second line")
    })
}

/// Whether the signature beside a file is of this key and these bytes; what is said with it.
///
/// # Errors
/// `Corrupt` if it is not.
pub(crate) fn check(path: &Path, key: &str, signature: Option<&Path>) -> Result<String> {
    let doing = "checking the signature";
    let key = public(key)?;
    let place = signature.map_or_else(|| beside(path), Path::to_path_buf);
    let kept = text(doing, &place)?;
    let boxed = SignatureBox::from_string(&kept).map_err(|e| fail(doing, &place, e))?;
    let bytes = read(doing, path)?;
    minisign::verify(&key, &boxed, Cursor::new(bytes), true, false, false).map_err(|e| {
        DiskError::corrupt(doing)
            .code("signature-bad")
            .file(path.display())
            .expected(format!("what {} signs, by this key", place.display()))
            .found(e.to_string())
    })?;
    boxed.trusted_comment().map_err(|e| fail(doing, &place, e))
}
