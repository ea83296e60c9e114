//! Disks that belong together, and the volumes that lie over them.
//!
//! Windows dynamic disks, physical volumes of LVM2 and devices of VMFS are members of sets.
//! SOURCE is one member; `--with` gives others, and so does the machine that SOURCE is a disk of.
//! What the sets hold is put together here, from the members that are there.
//!
//! | module | holds |
//! |---|---|
//! | `member` | disks that were given, and the other disks of SOURCE's machine |
//! | `identity` | which of two that are the same member is read, and with which disk volumes are shown |
//! | `ldm` | volumes of Windows dynamic disks |
//! | `lvm2` | volumes of LVM2 |

mod identity;
mod ldm;
mod lvm2;
mod member;

use member::Class;
pub use member::Member;
pub(crate) use member::{Hung, Seat, Siblings};

use crate::{
    source::SourceSpec,
    volume::{Members, Volume},
};
use disk_io::{Disk, DiskError, Result, error::escape};
use guest_fs::{
    FsKind, Name,
    partition::{Partition, Scheme, Table},
    vmfs,
    volume::{
        backward::ranges_in,
        mapped::{Layout, Mapped, Piece},
    },
};
use inventory::Slot;
use std::{ops::Range, path::Path, sync::Arc};

/// How many names an error or warning lists.
const SHOWN: usize = 8;

/// What errors advise where a member of a set is not there.
const GIVE_IT: &str = "give it with --with DISK, or go on without it by --allow-missing";

/// A volume over one or more members, and where the tree has it.
#[derive(Clone, Debug)]
pub struct Logical {
    /// The directories that lead to it, such as `lvm` and the group's name.
    pub directories: Vec<Name>,
    /// The volume.
    pub volume: Arc<Volume>,
    /// What it is made of, and what of that lies on SOURCE: partitions or all of it, each with the
    /// place where it begins.
    pieces: Arc<[Piece]>,
    under: Under,
}

/// Places of SOURCE, each with its beginning.
type Under = Arc<[(u64, Arc<dyn Disk>)]>;

impl Logical {
    /// Ranges of the volume whose bytes lie in `range` of SOURCE.
    pub fn ranges_in(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let under = self.under.iter().flat_map(|(start, disk)| {
            let place = |at: u64| at.saturating_sub(*start).min(disk.len());
            ranges_in(&self.pieces, disk, &(place(range.start)..place(range.end)))
        });
        under.collect()
    }

    /// Its path in the tree of its disk, such as `/lvm/GROUP/VOLUME`.
    pub fn path(&self) -> String {
        let parts = self.directories.iter().chain([self.volume.name()]);
        parts.map(|part| format!("/{part}")).collect()
    }
}

/// Everything that lies on SOURCE and the other members.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    /// SOURCE's own partitions, or the whole disk, as volumes.
    pub(crate) volumes: Vec<Arc<Volume>>,
    /// Volumes over several disks, or over parts of one.
    pub(crate) logical: Vec<Logical>,
    /// What the user should be told.
    pub(crate) warnings: Vec<String>,
    /// SOURCE, or another disk that is here, is or has a member of a set.
    pub(crate) member: bool,
    /// A set that SOURCE belongs to has members that are not here.
    pub(crate) lacking: bool,
    seat: Seat,
}

/// A disk on which members of sets may be. The first is SOURCE.
struct Whole<'a> {
    disk: &'a Arc<dyn Disk>,
    table: Option<&'a Table>,
    /// Where it hangs in SOURCE's machine.
    hung: Option<&'a Hung>,
    class: Class,
    /// Its name, but for SOURCE.
    path: Option<&'a Path>,
}

/// A place where a file system or a member can be.
struct Part {
    disk: Arc<dyn Disk>,
    partition: Option<Partition>,
    /// The disk it is on: 0 is SOURCE.
    on: usize,
    role: Role,
    /// Where the volumes are that lie on it, among others.
    shown: Shown,
}

/// Where the volumes of a set are in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Nowhere, as far as is known.
    Nowhere,
    /// With SOURCE.
    Here,
    /// With another disk of the machine, which is the first that the set lies on: so that each
    /// volume is in a machine once.
    With(Slot),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A volume of its own, as far as is known.
    Plain,
    /// A part of a dynamic disk.
    Ldm,
    /// A physical volume of LVM2.
    Lvm2,
}

/// Puts together what lies on SOURCE and the other members. `table` is SOURCE's; `None`
/// where it cannot be read, and then SOURCE has no volumes here.
pub(crate) fn assemble(
    disk: &Arc<dyn Disk>,
    table: Option<&Table>,
    seat: Seat,
    members: &[Member],
    spec: &SourceSpec,
) -> Result<Sets> {
    let mut sets = Sets {
        seat,
        ..Sets::default()
    };
    let mut wholes = vec![Whole {
        disk,
        table,
        hung: match &seat {
            Seat::InTurn(hung) => Some(hung),
            Seat::Lone | Seat::Asked => None,
        },
        class: Class::Source,
        path: None,
    }];
    wholes.extend(members.iter().map(Member::whole));
    let mut parts = Vec::new();
    for (on, whole) in wholes.iter().enumerate() {
        let Some(table) = whole.table else { continue };
        match parts_of(on, whole.disk, table) {
            Ok(more) => parts.extend(more),
            Err(e) if whole.class == Class::Machine => sets.warnings.push(e.to_string()),
            Err(e) => return Err(e),
        }
    }
    sets.ldm(&wholes, &mut parts, spec);
    sets.lvm2(&wholes, &mut parts, spec);
    sets.unused(&wholes, &parts, members);

    sets.member = parts.iter().any(|p| p.role != Role::Plain);
    let others: Arc<[Arc<dyn Disk>]> = parts
        .iter()
        .filter(|p| p.role == Role::Plain)
        .map(|p| p.disk.clone())
        .collect();
    for part in parts.iter().filter(|p| p.on == 0) {
        let volume = sets.volume(part, &others, spec);
        sets.volumes.push(Arc::new(volume));
    }
    Ok(sets)
}

fn parts_of(on: usize, disk: &Arc<dyn Disk>, table: &Table) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    if table.scheme == Scheme::None {
        parts.push(Part {
            disk: disk.clone(),
            partition: None,
            on,
            role: Role::Plain,
            shown: Shown::Nowhere,
        });
    }
    for partition in table.partitions.iter().filter(|p| !p.extended) {
        let role = match table.dynamic && is_ldm(partition) {
            true => Role::Ldm,
            false => Role::Plain,
        };
        parts.push(Part {
            disk: partition.open(disk)?,
            partition: Some(partition.clone()),
            on,
            role,
            shown: Shown::Nowhere,
        });
    }
    Ok(parts)
}

fn is_ldm(partition: &Partition) -> bool {
    partition.type_id == "0x42" || partition.type_name.contains("(LDM)")
}

impl Sets {
    /// Tells what is odd about a group, each thing once.
    fn group(&mut self, what: &str, remarks: &[String], missing: &[String]) {
        for remark in remarks {
            let told = format!("{what}: {remark}");
            if !self.warnings.contains(&told) {
                self.warnings.push(told);
            }
        }
        if !missing.is_empty() {
            self.warnings.push(format!(
                "{what}: {} is not here: give it with --with DISK",
                list(missing)
            ));
        }
    }

    fn logical(&mut self, place: Place, opened: Result<Arc<dyn Disk>>, spec: &SourceSpec) {
        let volume = match opened {
            Ok(disk) => {
                Volume::new(place.name, disk, None, spec.guest.clone()).doubtful(place.doubts)
            }
            Err(e) => {
                Volume::unreadable(place.name, refusing(place.len, &e), None, e).holding(place.kind)
            }
        };
        self.logical.push(Logical {
            directories: place.directories,
            volume: Arc::new(volume),
            pieces: place.pieces.into(),
            under: place.under,
        });
    }

    /// The paths of the logical volumes below `/top`, for errors about their members.
    fn below(&self, top: &str) -> String {
        let top = Name::from(top);
        let paths: Vec<String> = self
            .logical
            .iter()
            .filter(|l| l.directories.first() == Some(&top))
            .map(Logical::path)
            .collect();
        match paths.is_empty() {
            true => format!("its logical volumes would be under /{top}, and there are none"),
            false => format!("the logical volumes are {}", list(&paths)),
        }
    }

    fn volume(&self, part: &Part, others: &Arc<[Arc<dyn Disk>]>, spec: &SourceSpec) -> Volume {
        let name = match &part.partition {
            Some(p) => Name::from(format!("p{}", p.number).as_str()),
            None => Name::from("p0"),
        };
        let (disk, partition) = (part.disk.clone(), part.partition.clone());
        let member = |found: &str, top: &str| {
            DiskError::unsupported("entering the volume")
                .expected("a file system")
                .found(found)
                .hint(match part.shown {
                    Shown::With(slot) => format!(
                        "the logical volumes are with {slot}, the first disk that they lie on"
                    ),
                    _ => self.below(top),
                })
        };
        let spread = part.shown != Shown::Nowhere;
        let with = match part.shown {
            Shown::With(slot) => Some(slot),
            _ => None,
        };
        match part.role {
            Role::Plain => {
                let members = Members {
                    disks: others.clone(),
                    allow_missing: spec.allow_missing,
                };
                Volume::new(name, disk, partition, spec.guest.clone()).with_members(members)
            }
            // A stripe of one may look like the whole of a file system.
            Role::Ldm => {
                let e = member("a part of a Windows dynamic disk (LDM)", "ldm");
                Volume::unreadable(name, disk, partition, e)
                    .holding(FsKind::Ldm)
                    .spread(spread, with)
            }
            Role::Lvm2 => {
                let e = member("a physical volume of LVM2", "lvm");
                Volume::unreadable(name, disk, partition, e)
                    .holding(FsKind::Lvm2)
                    .spread(spread, with)
            }
        }
    }

    /// Says which `--with` is no member of anything.
    fn unused(&mut self, wholes: &[Whole<'_>], parts: &[Part], members: &[Member]) {
        for (member, on) in members.iter().zip(1usize..) {
            let whole = wholes.get(on).filter(|w| w.class == Class::Given);
            let Some(whole) = whole else { continue };
            let table = whole.table;
            let dynamic = table.is_some_and(|t| t.dynamic);
            let mut here = parts.iter().filter(|p| p.on == on);
            let used = dynamic
                || here.any(|p| p.role != Role::Plain || vmfs::is_member(&p.disk).unwrap_or(true));
            if !used {
                self.warnings.push(format!(
                    "--with {}: no member of an LVM2, LDM or VMFS set",
                    escape(&member.path.display().to_string())
                ));
            }
        }
    }
}

/// Where a logical volume goes, and what it is if it cannot be read.
struct Place {
    kind: FsKind,
    directories: Vec<Name>,
    name: Name,
    len: u64,
    doubts: Vec<String>,
    pieces: Vec<Piece>,
    under: Under,
}

/// Whether a volume can be opened: it has no refusal, and its members are there.
fn checked(
    what: &str,
    refusal: Option<DiskError>,
    missing: &[String],
    spec: &SourceSpec,
) -> Result<()> {
    if let Some(e) = refusal {
        return Err(e);
    }
    if missing.is_empty() || spec.allow_missing {
        return Ok(());
    }
    // Not `NotFound`: that would say that a path is not on it.
    Err(DiskError::refused("entering the volume")
        .expected("all disks that it lies on")
        .found(format!("{} of {what} is not here", list(missing)))
        .hint(GIVE_IT))
}

/// A disk whose reads fail with `e`.
fn refusing(len: u64, e: &DiskError) -> Arc<dyn Disk> {
    let piece = Piece {
        start: 0,
        len,
        layout: Layout::Refused(e.clone()),
    };
    match Mapped::new(len, vec![piece]) {
        Ok(mapped) => Arc::new(mapped),
        Err(_) => Arc::new(disk_io::MemDisk::new(Vec::new())),
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|n| escape(n)).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
