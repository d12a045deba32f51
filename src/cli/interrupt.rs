//! Ctrl-C. Before the first step nothing can be lost, and the program leaves at once; then the run finishes its step and
//! saves; a second Ctrl-C leaves at once, with the state that was saved before.

#[cfg(unix)]
use super::output::tell;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a signal means now.
struct Wish {
    /// Whether a run is under way that can save itself.
    held: bool,
    since: Option<Instant>,
}

static WISH: Mutex<Wish> = Mutex::new(Wish { held: false, since: None });

fn wish() -> std::sync::MutexGuard<'static, Wish> {
    WISH.lock().unwrap_or_else(|e| e.into_inner())
}

/// For how long the user has been waiting.
pub fn waiting() -> Option<Duration> {
    wish().since.map(|since| since.elapsed())
}

/// From now on a run can save itself (`true`), or there is nothing to be saved (`false`).
pub fn hold(held: bool) {
    wish().held = held;
}

/// Starts to listen for SIGINT and SIGTERM, once for the program. SIGHUP keeps its meaning, so that `nohup` works.
#[cfg(unix)]
pub fn listen() {
    use signal_hook::consts::{SIGINT, SIGTERM};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // Without a handler a signal ends the program, and resuming starts from the state saved last: nothing to report.
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
        std::thread::spawn(move || signals.forever().for_each(|_| interrupt()));
    });
}

#[cfg(unix)]
fn interrupt() {
    let mut wish = wish();
    match (wish.held, wish.since) {
        (true, None) => {
            wish.since = Some(Instant::now());
            tell("\nstopping: the state is saved after this step; once more to leave at once");
        }
        (true, Some(_)) => leave("left at once; the state saved before is whole"),
        (false, _) => leave("interrupted before the first step"),
    }
}

#[cfg(unix)]
fn leave(words: &str) {
    tell(&format!("\n{words}"));
    signal_hook::low_level::exit(130);
}

/// Nothing to listen for: a Ctrl-C ends the program, and the state saved last is whole.
#[cfg(not(unix))]
pub fn listen() {}
