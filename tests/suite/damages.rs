//! Planted damage is found, named, placed and mapped to the guest's files; what it is planted in
//! is sound.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};
use tests::{
    damages::{self, Base, Damage, run},
    tools,
};

/// Works on all of `items` with the processors there are.
fn side_by_side<T: Sync>(items: &[T], work: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let start = |_| {
            scope.spawn(|| {
                let mut wrong = Vec::new();
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    wrong.extend(work(item));
                }
                wrong
            })
        };
        let workers: Vec<_> = (0..workers).map(start).collect();
        for worker in workers {
            wrong.extend(worker.join().unwrap());
        }
    });
    wrong
}

/// Those that can be made here; `VMDKIT_DAMAGE` picks by name.
fn here() -> Vec<&'static Damage> {
    let only = std::env::var("VMDKIT_DAMAGE").unwrap_or_default();
    damages::all()
        .filter(|(group, d)| format!("{group}: {}", d.name).contains(&only))
        .map(|(_, d)| d)
        .filter(|d| tools::have(d.base.programs))
        .collect()
}

#[test]
fn each_is_found_named_placed_and_mapped() {
    let wrong = side_by_side(&here(), |damage| {
        let faults = run::faults_of(damage).unwrap_or_else(|e| vec![format!("{e:#}")]);
        (!faults.is_empty()).then(|| {
            format!(
                "{}: {}:\n  {}",
                damage.base.name,
                damage.name,
                faults.join("\n  ")
            )
        })
    });
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_they_are_planted_in_is_sound() {
    let mut bases: Vec<&Base> = here().iter().map(|d| d.base).collect();
    bases.sort_by_key(|b| b.name);
    bases.dedup_by_key(|b| b.name);
    let wrong = side_by_side(&bases, |base| {
        let report = run::check(&base.files()).unwrap_or_else(|e| panic!("{}: {e:#}", base.name));
        (!report.findings.is_empty()).then(|| {
            let all = report.findings.iter().map(run::Finding::line);
            format!("{}: {}", base.name, all.collect::<Vec<_>>().join("\n  "))
        })
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_are_many_and_each_is_another() {
    let names: BTreeSet<_> = damages::all().map(|(group, d)| (group, d.name)).collect();
    assert_eq!(names.len(), damages::all().count(), "two have one name");
    assert!(names.len() >= 180, "{}", names.len());
}

/// `docs/damages.md` lists them; `VMDKIT_WRITE=1` writes it.
#[test]
fn the_docs_list_them() {
    let mut text = String::from(
        "# Planted damage\n\n\
         Each of these faults is planted by code (`tests/src/damages`) in a sound image, one at a \
         time, and `check --guests` must find it: under this code, at the right place, and with \
         exactly the guest files that it touches. On the sound images nothing may be found. The \
         file systems in them are formatted by their own tools, and found sound by them or by us.\n",
    );
    for (group, all) in damages::ALL {
        text += &format!(
            "\n## {group}\n\n| fault | found as | severity | guest files |\n|---|---|---|---|\n"
        );
        for d in *all {
            let files = d.files.iter().map(|f| format!("`{f}`"));
            let files = files.collect::<Vec<_>>().join(", ");
            text += &format!(
                "| {} | `{}` | {} | {files} |\n",
                d.name,
                d.code,
                d.severity.as_str()
            );
        }
    }
    let path = tools::project().join("docs/damages.md");
    if std::env::var_os("VMDKIT_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let docs = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(docs == text, "run it again with VMDKIT_WRITE=1");
}
