//! Which of two disks that are the same member is read, and with which disk of a machine the volumes
//! of a set are shown.

use super::{
    Sets, Shown, Whole,
    member::{Class, Seat},
};
use disk_io::error::escape;
use inventory::Slot;

/// Of members of one identity, which are left aside: a disk of the machine is read and not one that
/// was given, which may be of another time, and SOURCE is read and not a copy of it in the same
/// machine. `all` are the disks that members lie on, with their identities.
fn set_aside(seat: Seat, wholes: &[Whole<'_>], all: &[(usize, String)]) -> Vec<bool> {
    let class = |on: usize| wholes.get(on).map_or(Class::Given, |whole| whole.class);
    let has = |wanted: Class, id: &String| {
        all.iter()
            .any(|(on, other)| class(*on) == wanted && other == id)
    };
    let aside = all.iter().map(|(on, id)| match class(*on) {
        Class::Source => false,
        Class::Machine => has(Class::Source, id),
        Class::Given if seat == Seat::Lone => false,
        Class::Given => has(Class::Machine, id) || has(Class::Source, id),
    });
    aside.collect()
}

/// The disk of the machine that is the same member as SOURCE is.
pub(super) fn copy_of(wholes: &[Whole<'_>], all: &[(usize, String)], id: &String) -> Option<Slot> {
    let of_machine = |on: usize| {
        let whole = wholes.get(on).filter(|w| w.class == Class::Machine);
        whole.and_then(|w| w.hung).map(|hung| hung.slot)
    };
    let mut same = all.iter().filter(|(_, other)| other == id);
    same.find_map(|(on, _)| of_machine(*on))
}

/// What to say of a volume where SOURCE has a copy in its machine, and the others may be of either.
pub(super) fn doubt_of_copy(slot: Slot) -> String {
    format!(
        "{slot} is the same member as this disk: which of the two belongs to the others nothing tells"
    )
}

impl Sets {
    /// Where the volumes of a set are shown that has members on the disks `on`.
    pub(super) fn shown(&self, wholes: &[Whole<'_>], on: &[usize]) -> Shown {
        let own = on.contains(&0);
        let of_machine = |on: &usize| {
            let whole = wholes.get(*on);
            whole.is_some_and(|w| w.class == Class::Machine)
        };
        match self.seat {
            Seat::Lone => Shown::Here,
            Seat::Asked if own || !on.iter().any(of_machine) => Shown::Here,
            Seat::Asked => Shown::Nowhere,
            Seat::InTurn(hung) => {
                let all = on
                    .iter()
                    .filter_map(|on| Some((*on, wholes.get(*on)?.hung?)));
                match all.min_by_key(|(_, hung)| hung.order) {
                    Some((0, _)) => Shown::Here,
                    Some((_, first)) => Shown::With(first.slot),
                    // No disk of the machine has a part of it.
                    None if hung.order == 0 => Shown::Here,
                    None => Shown::Nowhere,
                }
            }
        }
    }

    /// Tells which members that were given are left aside ([`set_aside`]).
    pub(super) fn set_aside(&mut self, wholes: &[Whole<'_>], all: &[(usize, String)]) -> Vec<bool> {
        let aside = set_aside(self.seat, wholes, all);
        for ((on, _), aside) in all.iter().zip(&aside) {
            let given = wholes
                .get(*on)
                .filter(|w| *aside && w.class == Class::Given);
            if let Some(path) = given.and_then(|w| w.path) {
                let told = format!(
                    "--with {}: a disk of the machine is the same member, and is read instead",
                    escape(&path.display().to_string())
                );
                if !self.warnings.contains(&told) {
                    self.warnings.push(told);
                }
            }
        }
        aside
    }
}
