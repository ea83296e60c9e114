//! Internal snapshots: each is another L1 table in the same file.

use super::header::Header;
use disk_io::{Disk, DiskError, Fields, Result};

/// qemu's own limit.
const MAX_SNAPSHOTS: u32 = 65_536;
/// How long the whole table may be, in bytes.
const MAX_TABLE: u64 = 16 << 20;

/// An internal snapshot of a qcow2 image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number, as text.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was taken: seconds and nanoseconds since 1970, UTC.
    pub date: (u32, u32),
    /// Length of the disk at that time in bytes.
    pub len: u64,
    /// Length of the saved memory in bytes, 0 without.
    pub vm_state: u64,
    pub(super) l1_table_offset: u64,
    pub(super) l1_size: u32,
}

/// Reads the table of snapshots.
pub(super) fn read(disk: &dyn Disk, header: &Header) -> Result<Vec<Snapshot>> {
    let mut found = Vec::new();
    if header.nb_snapshots == 0 {
        return Ok(found);
    }
    let fail = |at: u64| DiskError::corrupt("reading the table of snapshots").offset(at);
    if header.nb_snapshots > MAX_SNAPSHOTS {
        return Err(fail(60)
            .expected(format!("at most {MAX_SNAPSHOTS} snapshots"))
            .found(header.nb_snapshots.to_string()));
    }
    if !header
        .snapshots_offset
        .is_multiple_of(header.cluster_size())
    {
        return Err(fail(64)
            .expected("an offset at a cluster's beginning")
            .found(header.snapshots_offset.to_string()));
    }
    let mut at = header.snapshots_offset;
    for number in 0..header.nb_snapshots {
        if at.saturating_sub(header.snapshots_offset) > MAX_TABLE {
            return Err(fail(at).expected(format!("a table of at most {MAX_TABLE} bytes")));
        }
        let (snapshot, len) =
            one(disk, at, header.size).map_err(|e| e.context(format_args!("snapshot {number}")))?;
        found.push(snapshot);
        at = at.saturating_add(len);
    }
    Ok(found)
}

/// Length of the table in bytes; `None` without snapshots.
pub(super) fn table_len(disk: &dyn Disk, header: &Header) -> Result<Option<u64>> {
    let mut at = header.snapshots_offset;
    for _ in 0..header.nb_snapshots.min(MAX_SNAPSHOTS) {
        let (_, len) = one(disk, at, header.size)?;
        at = at.saturating_add(len);
    }
    let len = at.saturating_sub(header.snapshots_offset);
    Ok((header.nb_snapshots > 0).then_some(len))
}

/// The entry at `at`, and its padded length.
fn one(disk: &dyn Disk, at: u64, size_now: u64) -> Result<(Snapshot, u64)> {
    const FIXED: usize = 40;
    let mut fixed = [0; FIXED];
    read(disk, &mut fixed, at)?;
    let f = Fields::new(&fixed, at, "snapshot table entry");
    let extra_len = f.u32_be(36)?;
    if extra_len > 1024 {
        return Err(f
            .corrupt(36, "the length of extra data")
            .expected("at most 1024 bytes")
            .found(extra_len.to_string()));
    }
    let extra = usize::try_from(extra_len).unwrap_or(0);
    let (id_len, name_len) = (usize::from(f.u16_be(12)?), usize::from(f.u16_be(14)?));
    let mut rest = vec![0; extra.saturating_add(id_len).saturating_add(name_len)];
    read(disk, &mut rest, at.saturating_add(FIXED as u64))?;
    let r = Fields::new(
        &rest,
        at.saturating_add(FIXED as u64),
        "snapshot table entry",
    );
    let text = |at: usize, len: usize| -> Result<String> {
        Ok(String::from_utf8_lossy(r.bytes(at, len)?).into_owned())
    };
    let small_state = u64::from(f.u32_be(32)?);
    let snapshot = Snapshot {
        l1_table_offset: f.u64_be(0)?,
        l1_size: f.u32_be(8)?,
        id: text(extra, id_len)?,
        name: text(extra.saturating_add(id_len), name_len)?,
        date: (f.u32_be(16)?, f.u32_be(20)?),
        vm_state: if extra >= 8 {
            r.u64_be(0)?
        } else {
            small_state
        },
        // Only in newer files: then a disk may have been resized since.
        len: if extra >= 16 { r.u64_be(8)? } else { size_now },
    };
    let len = (FIXED.saturating_add(rest.len())).next_multiple_of(8);
    return Ok((snapshot, len as u64));

    fn read(disk: &dyn Disk, buf: &mut [u8], at: u64) -> Result<()> {
        super::read_table(disk, buf, at, "the table of snapshots")
    }
}

/// Finds the one that the user means: `id:N`, `name:TEXT`, or a bare word that is either.
pub(super) fn find<'s>(all: &'s [Snapshot], wanted: &str) -> Result<&'s Snapshot> {
    let matches: Vec<&Snapshot> = if let Some(id) = wanted.strip_prefix("id:") {
        all.iter().filter(|s| s.id == id).collect()
    } else if let Some(name) = wanted.strip_prefix("name:") {
        all.iter().filter(|s| s.name == name).collect()
    } else {
        let either = |s: &&Snapshot| s.id == wanted || s.name == wanted;
        all.iter().filter(either).collect()
    };
    let list = |some: &[&Snapshot]| -> String {
        let some: Vec<_> = some
            .iter()
            .take(20)
            .map(|s| format!("id:{} name:{}", s.id, s.name))
            .collect();
        some.join(", ")
    };
    match matches.as_slice() {
        [one] => Ok(one),
        [] if all.is_empty() => Err(DiskError::not_found("choosing a snapshot")
            .expected(wanted.to_string())
            .found("an image without internal snapshots")),
        [] => Err(DiskError::not_found("choosing a snapshot")
            .expected(wanted.to_string())
            .found(list(&all.iter().collect::<Vec<_>>()))),
        several => Err(
            DiskError::new(disk_io::ErrorKind::Ambiguous, "choosing a snapshot")
                .expected(format!("one snapshot that fits {wanted}"))
                .found(list(several))
                .hint("say id:N"),
        ),
    }
}
