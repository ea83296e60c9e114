//! Security descriptors as text, in Microsoft's security descriptor definition language.

use disk_io::{DiskError, Fields, Result};
use std::fmt::Write;

/// Control bits.
const DACL_PRESENT: u16 = 0x0004;
const SACL_PRESENT: u16 = 0x0010;

/// The text of a self-relative descriptor.
pub(crate) fn text(raw: &[u8]) -> Result<String> {
    let f = Fields::new(raw, 0, "security descriptor");
    let control = f.u16_le(2)?;
    let mut out = String::new();
    for (at, letter) in [(4, 'O'), (8, 'G')] {
        let offset = f.u32_le(at)? as usize;
        if offset != 0 {
            let _ = write!(out, "{letter}:{}", sid(&f, offset)?);
        }
    }
    for (present, at, letter, bits) in [
        // Protected, auto-inherit required, auto-inherited.
        (
            DACL_PRESENT,
            16,
            'D',
            [(0x1000, "P"), (0x0100, "AR"), (0x0400, "AI")],
        ),
        (
            SACL_PRESENT,
            12,
            'S',
            [(0x2000, "P"), (0x0200, "AR"), (0x0800, "AI")],
        ),
    ] {
        if control & present == 0 {
            continue;
        }
        let _ = write!(out, "{letter}:");
        for (bit, text) in bits {
            if control & bit != 0 {
                out.push_str(text);
            }
        }
        let offset = f.u32_le(at)? as usize;
        if offset == 0 {
            out.push_str("NO_ACCESS_CONTROL");
        } else {
            list(&f, offset, &mut out)?;
        }
    }
    Ok(out)
}

/// The entries of an access control list.
fn list(f: &Fields<'_>, offset: usize, out: &mut String) -> Result<()> {
    let len = usize::from(f.u16_le(offset.saturating_add(2))?);
    let acl = f.sub(offset, len, "access control list")?;
    let count = acl.u16_le(4)?;
    let mut at = 8usize;
    for _ in 0..count {
        let len = usize::from(acl.u16_le(at.saturating_add(2))?);
        if len < 8 {
            return Err(acl
                .corrupt(at, "an entry")
                .expected("a length of 8 or more")
                .found(len.to_string()));
        }
        entry(&acl.sub(at, len, "access control entry")?, out)?;
        at = at.saturating_add(len);
    }
    Ok(())
}

fn entry(e: &Fields<'_>, out: &mut String) -> Result<()> {
    let kind = e.u8(0)?;
    let (name, object) = match kind {
        0 => ("A", false),
        1 => ("D", false),
        2 => ("AU", false),
        3 => ("AL", false),
        5 => ("OA", true),
        6 => ("OD", true),
        7 => ("OU", true),
        8 => ("OL", true),
        9 => ("XA", false),
        10 => ("XD", false),
        11 => ("ZA", true),
        13 => ("XU", false),
        17 => ("ML", false),
        18 => ("RA", false),
        19 => ("SP", false),
        20 => ("TL", false),
        other => {
            return Err(
                DiskError::unsupported("writing a security descriptor as text")
                    .found(format!("an access control entry of type {other}")),
            );
        }
    };
    let _ = write!(out, "({name};");
    let flags = e.u8(1)?;
    for (bit, text) in [
        (0x01, "OI"),
        (0x02, "CI"),
        (0x04, "NP"),
        (0x08, "IO"),
        (0x10, "ID"),
        (0x40, "SA"),
        (0x80, "FA"),
    ] {
        if flags & bit != 0 {
            out.push_str(text);
        }
    }
    out.push(';');
    let mask = e.u32_le(4)?;
    if kind == 17 {
        label_rights(mask, out);
    } else {
        rights(mask, out);
    }
    out.push(';');
    let mut at = 8usize;
    if object {
        let present = e.u32_le(8)?;
        at = 12;
        for (bit, end) in [(1, ";"), (2, ";")] {
            if present & bit != 0 {
                out.push_str(&guid(e.bytes(at, 16)?));
                at = at.saturating_add(16);
            }
            out.push_str(end);
        }
    } else {
        out.push_str(";;");
    }
    out.push_str(&sid(e, at)?);
    let sid_len = usize::from(e.u8(at.saturating_add(1))?)
        .saturating_mul(4)
        .saturating_add(8);
    let rest = e
        .all()
        .get(at.saturating_add(sid_len)..)
        .unwrap_or_default();
    // Conditions and resource attributes: shown as bytes, so that nothing is lost quietly.
    if matches!(kind, 9 | 10 | 11 | 13 | 18) && !disk_io::zero::is_zero(rest) {
        out.push_str(";#");
        for byte in rest {
            let _ = write!(out, "{byte:02x}");
        }
    }
    out.push(')');
    Ok(())
}

fn label_rights(mask: u32, out: &mut String) {
    let names = [(1, "NW"), (2, "NR"), (4, "NX")];
    if mask & !7 != 0 {
        let _ = write!(out, "{mask:#x}");
        return;
    }
    for (bit, name) in names {
        if mask & bit != 0 {
            out.push_str(name);
        }
    }
}

/// Rights by their file names if one fits the whole mask, else by letters, else as a number.
fn rights(mask: u32, out: &mut String) {
    for (value, name) in [
        (0x001f_01ff, "FA"),
        (0x0012_0089, "FR"),
        (0x0012_0116, "FW"),
        (0x0012_00a0, "FX"),
    ] {
        if mask == value {
            out.push_str(name);
            return;
        }
    }
    const LETTERS: [(u32, &str); 17] = [
        (0x1000_0000, "GA"),
        (0x2000_0000, "GX"),
        (0x4000_0000, "GW"),
        (0x8000_0000, "GR"),
        (0x0001, "CC"),
        (0x0002, "DC"),
        (0x0004, "LC"),
        (0x0008, "SW"),
        (0x0010, "RP"),
        (0x0020, "WP"),
        (0x0040, "DT"),
        (0x0080, "LO"),
        (0x0100, "CR"),
        (0x0001_0000, "SD"),
        (0x0002_0000, "RC"),
        (0x0004_0000, "WD"),
        (0x0008_0000, "WO"),
    ];
    let known = LETTERS.iter().fold(0, |all, (bit, _)| all | bit);
    // File masks nearly always hold SYNCHRONIZE, which has no letters.
    if mask & !known != 0 {
        let _ = write!(out, "{mask:#x}");
        return;
    }
    for (bit, name) in LETTERS {
        if mask & bit != 0 {
            out.push_str(name);
        }
    }
}

/// A security identifier: by its two letters if it is well known.
fn sid(f: &Fields<'_>, offset: usize) -> Result<String> {
    let head = f.bytes(offset, 8)?;
    let [revision, count, high @ ..] = head else {
        return Err(f.corrupt(offset, "a SID"));
    };
    let authority = high.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let mut text = if authority < 1 << 32 {
        format!("S-{revision}-{authority}")
    } else {
        format!("S-{revision}-{authority:#x}")
    };
    let len = usize::from(*count).saturating_mul(4);
    let parts = f.bytes(offset.saturating_add(8), len)?;
    for part in parts.as_chunks::<4>().0 {
        let _ = write!(text, "-{}", u32::from_le_bytes(*part));
    }
    Ok(well_known(&text).map_or(text.clone(), Into::into))
}

fn well_known(sid: &str) -> Option<&'static str> {
    Some(match sid {
        "S-1-1-0" => "WD",
        "S-1-3-0" => "CO",
        "S-1-3-1" => "CG",
        "S-1-3-4" => "OW",
        "S-1-5-2" => "NU",
        "S-1-5-4" => "IU",
        "S-1-5-6" => "SU",
        "S-1-5-7" => "AN",
        "S-1-5-9" => "ED",
        "S-1-5-10" => "PS",
        "S-1-5-11" => "AU",
        "S-1-5-12" => "RC",
        "S-1-5-18" => "SY",
        "S-1-5-19" => "LS",
        "S-1-5-20" => "NS",
        "S-1-5-32-544" => "BA",
        "S-1-5-32-545" => "BU",
        "S-1-5-32-546" => "BG",
        "S-1-5-32-547" => "PU",
        "S-1-5-32-548" => "AO",
        "S-1-5-32-549" => "SO",
        "S-1-5-32-550" => "PO",
        "S-1-5-32-551" => "BO",
        "S-1-5-32-552" => "RE",
        "S-1-5-32-554" => "RU",
        "S-1-5-32-555" => "RD",
        "S-1-5-32-556" => "NO",
        "S-1-15-2-1" => "AC",
        "S-1-16-4096" => "LW",
        "S-1-16-8192" => "ME",
        "S-1-16-12288" => "HI",
        "S-1-16-16384" => "SI",
        _ => return None,
    })
}

fn guid(bytes: &[u8]) -> String {
    let mut out = String::new();
    // The first three fields are little-endian.
    for (i, at) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
        .into_iter()
        .enumerate()
    {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{:02x}", bytes.get(at).copied().unwrap_or(0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::text;
    use proptest::prelude::*;

    fn sid(parts: &[u32]) -> Vec<u8> {
        let mut out = vec![1, parts.len() as u8, 0, 0, 0, 0, 0, 5];
        parts.iter().for_each(|p| out.extend(p.to_le_bytes()));
        out
    }

    #[test]
    fn a_usual_descriptor() {
        let mut acl = Vec::new();
        for (flags, mask, who) in [
            (3u8, 0x001f_01ffu32, sid(&[32, 544])),
            (0x10, 0x0012_0089, sid(&[21, 1, 2, 3, 1001])),
            (0, 0x0012_00a9, sid(&[18])),
        ] {
            acl.extend([0, flags]);
            acl.extend((8 + who.len() as u16).to_le_bytes());
            acl.extend(mask.to_le_bytes());
            acl.extend(who);
        }
        let (owner, group) = (sid(&[32, 544]), sid(&[18]));
        let mut raw = vec![1, 0, 0x04, 0x94];
        let at = 20 + owner.len() as u32;
        for v in [20, at, 0, at + group.len() as u32] {
            raw.extend(u32::to_le_bytes(v));
        }
        raw.extend(&owner);
        raw.extend(&group);
        raw.extend([2, 0]);
        raw.extend((8 + acl.len() as u16).to_le_bytes());
        raw.extend([3, 0, 0, 0]);
        raw.extend(acl);
        assert_eq!(
            text(&raw).unwrap(),
            "O:BAG:SYD:PAI(A;OICI;FA;;;BA)(A;ID;FR;;;S-1-5-21-1-2-3-1001)(A;;0x1200a9;;;SY)"
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = text(&bytes);
        }
    }
}
