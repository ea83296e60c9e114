//! A few mutants of every kind through every program: none ends us, and what differs from the
//! other programs, or from the truth, has a reason. Thousands: `cargo xtask torture`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};
use tests::{
    mutants::{
        account::{self, is_silent},
        images,
        outcome::Outcome,
        tried::Subject,
    },
    say, tools,
};

/// Of each kind. Other ones than those of the campaign.
const NUMBERS: std::ops::Range<u64> = 100_000..100_008;

fn all(subject: Subject<'_>) -> Vec<String> {
    let vmdkit = tools::vmdkit().unwrap();
    let mut wrong = Vec::new();
    for number in NUMBERS {
        let dir = tempfile::tempdir().unwrap();
        let Some(mutant) = subject.mutant(number, dir.path()).unwrap() else {
            continue;
        };
        let ours = subject.ours(vmdkit, &mutant).unwrap();
        let others = subject.others(&mutant).unwrap();
        let fine = match ours.outcome {
            Outcome::Right => true,
            Outcome::Named => {
                let refused = others.iter().any(|t| t.outcome == Outcome::Right);
                !refused || account::refusal(subject.name(), &ours.ran.said).is_some()
            }
            silent if is_silent(silent) => {
                let why = account::silent(subject, vmdkit, &mutant, &ours).unwrap();
                why.is_some()
            }
            _ => false,
        };
        if !fine {
            let (outcome, said) = (ours.outcome, &ours.ran.said);
            wrong.push(format!("{} {number}: {outcome:?}: {said}", subject.name()));
        }
    }
    wrong
}

#[test]
fn each_has_its_reason() {
    let scratch = tempfile::tempdir().unwrap();
    let vmdkit = tools::vmdkit().unwrap();
    let images = images::all(vmdkit, scratch.path()).unwrap();
    let volumes = images::volumes(vmdkit, scratch.path()).unwrap();
    let subjects: Vec<Subject<'_>> = (images.iter().map(Subject::Image))
        .chain(volumes.iter().map(Subject::Volume))
        .collect();
    let next = AtomicU64::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(subject) = subjects.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            wrong.extend(all(*subject));
        }
        wrong
    };
    let wrong = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut all = work();
        all.extend(other.join().unwrap());
        all
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let n = subjects.len() as u64 * (NUMBERS.end - NUMBERS.start);
    say!("mutants: at most {n}, each with its reason");
}

/// Every reason for a refusal is of use, and of one meaning.
#[test]
fn reasons_are_distinct() {
    let mut seen = BTreeMap::new();
    for (kind, words, why) in account::REFUSALS {
        assert!(!words.is_empty() && !why.is_empty());
        assert_eq!(seen.insert((kind, words), why), None, "{kind} {words}");
    }
}
