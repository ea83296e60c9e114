//! Calls into readers that are not ours, on bytes that nobody vouches for: some panic where they
//! should fail.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `call` gives, or nothing if it panics.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(before);
    done.ok()
}

/// Whether this thread is in such a call: a panic hook has nothing to tell then.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_the_next_call_goes_on() {
        assert_eq!(guarded(|| 5), Some(5));
        assert!(guarded(|| assert!(!is_guarded(), "inside")).is_none());
        assert!(!is_guarded());
        assert_eq!(guarded(is_guarded), Some(true));
    }
}
