//! Decoders of others, on files of anybody: one that panics must not take the program with it, nor print a backtrace at a user.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The result of `work`, or `None` if it panicked, in silence. Panics elsewhere are told as ever.
pub(super) fn shielded<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_here() {
        assert_eq!(shielded(|| 7), Some(7));
        assert_eq!(shielded(|| shielded(|| -> u8 { panic!("inner") }).is_none()), Some(true));
        assert_eq!(shielded(|| -> u8 { [1u8][std::hint::black_box(1)] }), None);
        assert!(!QUIET.get());
    }
}
