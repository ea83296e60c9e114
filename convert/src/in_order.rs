//! Work on many items at once, whose results are taken in order.

use crate::pipeline::panicked;
use disk_io::Result;
use std::sync::mpsc::sync_channel;

/// Calls `work` for every item, on `workers` threads that each keep a scratch of their own.
/// `take` gets the results in order, on the caller's thread, while the next ones are made. Of
/// every worker one result waits at most.
///
/// # Errors
/// The first of `work` and `take`, in order; nothing is taken behind it.
pub(crate) fn in_order<T: Sync, S: Default, R: Send>(
    items: &[T],
    workers: usize,
    work: &(dyn Fn(&T, &mut S) -> Result<R> + Sync),
    take: &mut dyn FnMut(R) -> Result<()>,
) -> Result<()> {
    let workers = workers.clamp(1, items.len().max(1));
    if workers == 1 {
        let mut scratch = S::default();
        return items
            .iter()
            .try_for_each(|item| take(work(item, &mut scratch)?));
    }
    std::thread::scope(|scope| {
        let (mut threads, mut queues) = (Vec::new(), Vec::new());
        for first in 0..workers {
            let (send, receive) = sync_channel(1);
            queues.push(receive);
            threads.push(scope.spawn(move || {
                let mut scratch = S::default();
                for item in items.iter().skip(first).step_by(workers) {
                    // Nobody takes it: something failed before.
                    if send.send(work(item, &mut scratch)).is_err() {
                        return;
                    }
                }
            }));
        }
        let died = || panicked("working on several parts at once");
        let turns = queues.iter().cycle().take(items.len());
        let mut taken = Ok(());
        for queue in turns {
            taken = match queue.recv() {
                Ok(result) => result.and_then(&mut *take),
                Err(_) => Err(died()),
            };
            if taken.is_err() {
                break;
            }
        }
        drop(queues);
        // A thread that is not asked how it ended ends the program if it panicked.
        for thread in threads {
            if thread.join().is_err() && taken.is_ok() {
                taken = Err(died());
            }
        }
        taken
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::DiskError;

    #[test]
    fn results_come_in_order_and_nothing_behind_a_failure() {
        let items: Vec<u32> = (0..100).collect();
        for workers in [1, 2, 3, 200] {
            for bad in [0, 1, 50, 99, 100] {
                let mut got = Vec::new();
                let done = in_order(
                    &items,
                    workers,
                    &|item, seen: &mut u32| {
                        *seen += 1;
                        match *item == bad {
                            true => Err(DiskError::refused("working").found("a bad one")),
                            false => Ok(item * 2),
                        }
                    },
                    &mut |result| {
                        got.push(result);
                        Ok(())
                    },
                );
                assert_eq!(done.is_err(), bad < 100);
                assert_eq!(got, (0..bad).map(|n| n * 2).collect::<Vec<_>>());
            }
            let failed = in_order(
                &items,
                workers,
                &|item, _: &mut ()| Ok(*item),
                &mut |n| match n {
                    40 => Err(DiskError::refused("taking")),
                    _ => Ok(()),
                },
            );
            assert!(failed.is_err());
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let done = in_order(
            &[1, 2, 3],
            2,
            &|item, _: &mut ()| match item {
                2 => panic!("on purpose"),
                _ => Ok(()),
            },
            &mut |()| Ok(()),
        );
        assert!(done.is_err());
    }
}
