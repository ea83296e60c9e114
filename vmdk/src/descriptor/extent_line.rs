//! One extent: `access sectors type ["file" [offset [partition uuid] [device]]]`.

use disk_io::{DiskError, Result};

/// What the guest may do with the extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read and write.
    Rw,
    /// Read.
    ReadOnly,
    /// Neither: reading it is an error.
    NoAccess,
}

impl Access {
    /// As it is written in a descriptor.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rw => "RW",
            Self::ReadOnly => "RDONLY",
            Self::NoAccess => "NOACCESS",
        }
    }
}

/// How the extent is stored (fact sheet, VMDK 2.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExtentType {
    /// Bytes as they are, of a file or a device.
    Flat,
    /// A hosted sparse extent.
    Sparse,
    /// Zeros, with no file.
    Zero,
    /// Bytes as they are, of a file on VMFS.
    Vmfs,
    /// ESX sparse (COWD).
    VmfsSparse,
    /// A raw device mapping.
    VmfsRdm,
    /// A raw device.
    VmfsRaw,
    /// Space-efficient sparse.
    SeSparse,
    /// The delta format of vSAN 6.
    VsanSparse,
    /// Not known here.
    Other(String),
}

impl ExtentType {
    /// As it is written in a descriptor.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Flat => "FLAT",
            Self::Sparse => "SPARSE",
            Self::Zero => "ZERO",
            Self::Vmfs => "VMFS",
            Self::VmfsSparse => "VMFSSPARSE",
            Self::VmfsRdm => "VMFSRDM",
            Self::VmfsRaw => "VMFSRAW",
            Self::SeSparse => "SESPARSE",
            Self::VsanSparse => "VSANSPARSE",
            Self::Other(name) => name,
        }
    }

    /// Whether every byte of the extent is in it, so that a parent is never asked.
    pub fn is_complete(&self) -> bool {
        matches!(
            self,
            Self::Flat | Self::Vmfs | Self::Zero | Self::VmfsRdm | Self::VmfsRaw
        )
    }

    pub(super) fn parse(word: &str) -> Self {
        match word.to_ascii_uppercase().as_str() {
            "FLAT" => Self::Flat,
            "SPARSE" => Self::Sparse,
            "ZERO" => Self::Zero,
            "VMFS" => Self::Vmfs,
            "VMFSSPARSE" => Self::VmfsSparse,
            "VMFSRDM" => Self::VmfsRdm,
            "VMFSRAW" => Self::VmfsRaw,
            "SESPARSE" => Self::SeSparse,
            "VSANSPARSE" => Self::VsanSparse,
            _ => Self::Other(word.to_owned()),
        }
    }
}

/// A parsed extent line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentLine {
    /// What the guest may do.
    pub access: Access,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// How it is stored.
    pub kind: ExtentType,
    /// The file or device, as written.
    pub file: Option<String>,
    /// Where the extent begins in it, in sectors of 512 bytes. Not every writer gives one.
    pub offset: Option<u64>,
    /// What follows: a partition's uuid and a device id, on Windows.
    pub extra: Option<String>,
}

impl ExtentLine {
    /// Parses a line without surrounding blanks; `None` if it is no extent line.
    ///
    /// A line that has the shape of one and cannot be understood is an error: leaving it
    /// out would move every later byte of the disk.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        let Some((first, rest)) = word(line) else {
            return Ok(None);
        };
        let bad = |what: &str, found: &str| {
            DiskError::corrupt(format!("reading {what} of an extent"))
                .found(found.chars().take(200).collect::<String>())
        };
        let access = match first.to_ascii_uppercase().as_str() {
            "RW" => Access::Rw,
            "RDONLY" => Access::ReadOnly,
            "NOACCESS" => Access::NoAccess,
            _ => {
                // `XX 123 YYYY`: an access this program does not know.
                let shape = word(rest).is_some_and(|(n, after)| {
                    n.bytes().all(|b| b.is_ascii_digit()) && word(after).is_some()
                });
                if shape && !first.contains('=') {
                    return Err(bad("the access", first).expected("RW, RDONLY or NOACCESS"));
                }
                return Ok(None);
            }
        };
        let Some((sectors, rest)) = word(rest) else {
            return Err(bad("the length", line).expected("a number of sectors"));
        };
        if sectors.starts_with('=') {
            return Ok(None);
        }
        let sectors = number(sectors)
            .ok_or_else(|| bad("the length", sectors).expected("a number of sectors"))?;
        let Some((kind, rest)) = word(rest) else {
            return Err(bad("the type", line).expected("FLAT, SPARSE, ZERO, VMFS …"));
        };
        let mut extent = Self {
            access,
            sectors,
            kind: ExtentType::parse(kind),
            file: None,
            offset: None,
            extra: None,
        };
        let (file, rest) = name(rest.trim_start())?;
        extent.file = file;
        if let Some((offset, rest)) = word(rest) {
            let value = number(offset)
                .ok_or_else(|| bad("the offset", offset).expected("a number of sectors"))?;
            extent.offset = Some(value);
            let rest = rest.trim();
            extent.extra = (!rest.is_empty()).then(|| rest.to_owned());
        }
        if extent.file.is_none() && extent.kind != ExtentType::Zero && access != Access::NoAccess {
            return Err(bad("the file name", line).expected("a name in double quotes"));
        }
        Ok(Some(extent))
    }
}

/// The first word and what follows it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    if text.is_empty() {
        return None;
    }
    Some(text.split_once(char::is_whitespace).unwrap_or((text, "")))
}

fn number(text: &str) -> Option<u64> {
    // `parse` alone would take a plus sign.
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// A name in double quotes. There is no way to escape a quote in one (fact sheet, VMDK 2.1),
/// so what follows the second quote must be a blank or nothing.
fn name(text: &str) -> Result<(Option<String>, &str)> {
    let bad = |found: &str| {
        DiskError::corrupt("reading the file name of an extent")
            .expected("a name in double quotes, without quotes and control characters in it")
            .found(found.chars().take(200).collect::<String>())
    };
    if text.is_empty() {
        return Ok((None, ""));
    }
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or_else(|| bad(text))?,
        None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
    };
    if name.is_empty() && !rest.trim().is_empty() {
        return Err(bad(text));
    }
    if name.chars().any(|c| c.is_control() || c == '"')
        || !(rest.is_empty() || rest.starts_with(char::is_whitespace))
    {
        return Err(bad(text));
    }
    Ok(((!name.is_empty()).then(|| name.to_owned()), rest))
}
