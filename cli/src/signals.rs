//! Ctrl-C and its kin, for verbs that have something to tidy up.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

static CAUGHT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From now on a signal is only noted, for [`caught`]; a second one ends the process.
/// Verbs that only read do not call this: they end at once.
pub(crate) fn watch() {
    let flag = CAUGHT.get_or_init(Arc::default);
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let code = 128 + signal;
        let value = usize::try_from(signal).unwrap_or(0);
        let _ = signal_hook::flag::register_conditional_shutdown(signal, code, again.clone());
        let _ = signal_hook::flag::register(signal, again.clone());
        let _ = signal_hook::flag::register_usize(signal, flag.clone(), value);
    }
}

/// The signal that was caught, if any.
pub(crate) fn caught() -> Option<u8> {
    let n = CAUGHT.get()?.load(Ordering::Relaxed);
    u8::try_from(n).ok().filter(|n| *n != 0)
}
