//! Hostile files: mutates sound ones and reads them. No panic, no hang over a second, no allocation over 256 MB.
//!
//! ```sh
//! cargo run --release --example fuzz -- h5 --seconds 30 --seed 1       # or keras, safetensors, config
//! cargo run --release --example fuzz -- h5 --seed 1 --only 12345      # one input again
//! ```
//!
//! An input is a function of target, seed and its number, so that a failure is repeated from the line that reports it. An
//! allocation that is refused ends the process; so does a hang, which the watchdog finds.

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets.rs"]
mod targets;

use mutate::Random;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use targets::Target;

/// Bytes that reading one input may hold at a time.
const MOST: usize = 256 << 20;
/// How long it may take, of the processor's time.
const LONGEST: Duration = Duration::from_secs(1);

/// Counts what is allocated and refuses what is too much.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Bytes that were live before the input was read.
static BASE: AtomicUsize = AtomicUsize::new(0);
static READING: AtomicBool = AtomicBool::new(false);
static INPUT: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator with the arguments it came with, or returns null, which the contract of
// `GlobalAlloc` allows; the counters touch no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        if READING.load(Relaxed) && live.saturating_sub(BASE.load(Relaxed)) > MOST {
            READING.store(false, Relaxed);
            report(format_args!("an allocation of {} bytes beside {} is too much", layout.size(), live - layout.size()));
            return std::ptr::null_mut();
        }
        // SAFETY: the layout is the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `at` came from `alloc` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A line on stderr without allocating: the allocator may have refused.
fn report(what: std::fmt::Arguments) {
    struct Line([u8; 512], usize);
    impl std::fmt::Write for Line {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let len = text.len().min(self.0.len() - self.1);
            self.0[self.1..self.1 + len].copy_from_slice(&text.as_bytes()[..len]);
            self.1 += len;
            Ok(())
        }
    }
    let mut line = Line([0; 512], 0);
    let _ = writeln!(line, "FAILED: input {} of seed {}: {what}", INPUT.load(Relaxed), SEED.load(Relaxed));
    let _ = std::io::stderr().write_all(&line.0[..line.1]);
}

/// Processor time of this process so far, where the system tells it; a machine that is busy with others is no hang.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // Fields 14 and 15, user and system time in hundredths of a second; the first two are cut off.
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// Ends the process when one input takes too long.
fn watch() {
    let (mut input, mut since, mut used) = (u64::MAX, Instant::now(), processor_time());
    loop {
        std::thread::sleep(Duration::from_millis(50));
        if input != INPUT.load(Relaxed) || !READING.load(Relaxed) {
            (input, since, used) = (INPUT.load(Relaxed), Instant::now(), processor_time());
            continue;
        }
        let spent = match (processor_time(), used) {
            (Some(now), Some(then)) => now.saturating_sub(then),
            _ => since.elapsed(),
        };
        if spent > LONGEST {
            report(format_args!("reading it takes longer than {LONGEST:?}"));
            std::process::exit(1);
        }
    }
}

/// What became of the inputs.
#[derive(Default)]
struct Tally {
    inputs: u64,
    accepted: u64,
    peak: usize,
    longest: Duration,
}

fn try_input(target: &Target, seed: u64, number: u64, tally: &mut Tally) -> Result<(), String> {
    INPUT.store(number, Relaxed);
    let bytes = target.input(&mut Random::new(seed, number));
    BASE.store(LIVE.load(Relaxed), Relaxed);
    PEAK.store(LIVE.load(Relaxed), Relaxed);
    let start = Instant::now();
    READING.store(true, Relaxed);
    let outcome = std::panic::catch_unwind(|| target.read(&bytes));
    READING.store(false, Relaxed);
    tally.inputs += 1;
    tally.longest = tally.longest.max(start.elapsed());
    tally.peak = tally.peak.max(PEAK.load(Relaxed).saturating_sub(BASE.load(Relaxed)));
    match outcome {
        Ok(accepted) => tally.accepted += u64::from(accepted),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            report(format_args!("panic: {}", text.unwrap_or("without a text")));
            return Err(format!("repeat it with: --seed {seed} --only {number}"));
        }
    }
    Ok(())
}

fn main() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let (mut name, mut seconds, mut seed, mut only) = (None, 10, 1, None);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("{arg} needs a number"));
        match arg.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = number()?,
            "--only" => only = Some(number()?),
            _ => name = Some(arg),
        }
    }
    let target =
        name.as_deref().and_then(Target::new).ok_or("usage: fuzz h5|keras|safetensors|config [--seconds N] [--seed N] [--only N]")?;
    SEED.store(seed, Relaxed);
    target.check_corpus()?;
    let mut tally = Tally::default();
    std::thread::spawn(watch);
    if let Some(number) = only {
        return try_input(&target, seed, number, &mut tally);
    }
    std::panic::set_hook(Box::new(|_| {}));
    let end = Instant::now() + Duration::from_secs(seconds);
    for number in 0.. {
        if Instant::now() >= end {
            break;
        }
        try_input(&target, seed, number, &mut tally)?;
    }
    let Tally { inputs, accepted, peak, longest } = tally;
    let mut line = format!("{}: {inputs} inputs of seed {seed}, {accepted} still read", name.unwrap_or_default());
    let _ = write!(line, "; at most {:.1} MB at a time, {} ms", peak as f64 / 1e6, longest.as_millis());
    println!("{line}");
    if inputs == 0 || accepted == inputs { Err("the mutations changed nothing".into()) } else { Ok(()) }
}
