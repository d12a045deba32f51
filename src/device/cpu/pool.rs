//! A few threads that live as long as the device and meet at every step.
//!
//! A training step is a thousand short parallel loops, so a loop must start in microseconds: workers spin for a moment
//! after each one before they sleep. The caller works too; a pool of one thread starts none. Every thread flushes
//! denormals to zero while it works (a convolution over denormals is 20 to 50 times slower).
//!
//! Which thread runs which part may vary from run to run, so a loop never lets a result depend on it: parts write
//! disjoint memory, and partial sums have fixed parts that are added in a fixed order.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// How often a thread looks for work before it sleeps: some tens of microseconds.
const SPINS: usize = 20_000;

type Task = dyn Fn(usize) + Sync;

struct Shared {
    /// Counts the loops started; a worker that sees a new number runs `task` once.
    round: AtomicU64,
    /// The body of the current loop; valid from the start of a round until `busy` is zero.
    task: UnsafeCell<Option<*const Task>>,
    busy: AtomicUsize,
    stop: AtomicBool,
    asleep: Mutex<usize>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `task` is written by the caller alone, before `round` is released, and read by workers after they acquired it.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed while the caller waits in `run`.
unsafe impl Send for Shared {}

/// The threads. Dropping the pool ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Loops are started by one thread at a time.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the caller of each loop included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            round: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            busy: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let worker = |index: usize| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("defrost-{index}"));
            thread.spawn(move || work(&shared, index)).expect("the system starts a thread")
        };
        let workers = (1..threads.max(1)).map(worker).collect();
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body(thread)` once on every thread and waits for all of them. A panic in one is raised again here.
    ///
    /// A body must not start another loop on the same pool.
    pub fn run(&self, body: &(dyn Fn(usize) + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let flush = FlushToZero::on();
        if self.workers.is_empty() {
            body(0);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: no round is running (`turn`), so no worker reads `task`; the lifetime is erased, and the pointer is
        // not followed after this function returns, because it waits for `busy` to reach zero, even when `body` panics.
        unsafe { *shared.task.get() = Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(body)) };
        shared.busy.store(self.workers.len(), Relaxed);
        shared.round.fetch_add(1, SeqCst);
        if *shared.asleep.lock().expect("no worker panics with the lock") > 0 {
            shared.wake.notify_all();
        }
        let mine = catch_unwind(AssertUnwindSafe(|| body(0)));
        let mut spins = 0usize;
        while shared.busy.load(Acquire) > 0 {
            spins += 1;
            if spins > SPINS { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        drop(flush);
        let theirs = shared.panic.lock().expect("no worker panics with the lock").take();
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Runs `body(part, thread)` for every part in `0..parts`, handing parts out as threads get free. For parts of unequal cost
    /// that write disjoint memory; `thread` picks a buffer.
    pub fn parts(&self, parts: usize, body: impl Fn(usize, usize) + Sync) {
        if parts == 0 {
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(&|thread| {
            loop {
                let part = next.fetch_add(1, Relaxed);
                if part >= parts {
                    break;
                }
                body(part, thread);
            }
        });
    }

    /// Splits `0..count` into one contiguous range per thread, in multiples of `grain`, and runs `body(range)` on each. The split
    /// depends on `count`, `grain` and the number of threads alone.
    pub fn ranges(&self, count: usize, grain: usize, body: impl Fn(Range<usize>) + Sync) {
        let grains = count.div_ceil(grain.max(1));
        let each = grains.div_ceil(self.threads()) * grain.max(1);
        if count <= each {
            let _flush = FlushToZero::on();
            return body(0..count);
        }
        self.run(&|thread| {
            let range = (thread * each).min(count)..((thread + 1) * each).min(count);
            if !range.is_empty() {
                body(range);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.round.fetch_add(1, SeqCst);
        drop(self.shared.asleep.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panic was already raised by `run`.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, thread: usize) {
    let _flush = FlushToZero::on();
    let mut seen = 0;
    loop {
        wait(shared, seen);
        seen += 1;
        if shared.stop.load(SeqCst) {
            return;
        }
        // SAFETY: this round's `task` was written before `round` was released, and lives until `busy` reaches zero.
        let task = unsafe { &*(*shared.task.get()).expect("a round has a task") };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(thread))) {
            shared.panic.lock().expect("no worker panics with the lock").get_or_insert(panic);
        }
        shared.busy.fetch_sub(1, Release);
    }
}

/// Returns when `round` has passed `seen`: spins first, then sleeps.
fn wait(shared: &Shared, seen: u64) {
    for _ in 0..SPINS {
        if shared.round.load(Acquire) > seen {
            return;
        }
        std::hint::spin_loop();
    }
    let mut asleep = shared.asleep.lock().expect("no worker panics with the lock");
    *asleep += 1;
    // The caller raises `round` before it asks for the lock, so a wake-up cannot fall between this test and the wait.
    while shared.round.load(SeqCst) <= seen {
        asleep = shared.wake.wait(asleep).expect("no worker panics with the lock");
    }
    *asleep -= 1;
}

/// While it lives, the thread's SSE and AVX arithmetic treats denormal operands and results as zero.
struct FlushToZero {
    #[cfg(target_arch = "x86_64")]
    before: u32,
}

#[cfg(target_arch = "x86_64")]
impl FlushToZero {
    fn on() -> Self {
        let mut before = 0u32;
        // SAFETY: reads and writes the control register of this thread's floating-point unit; bits 6 (denormals are
        // zero) and 15 (flush to zero) change results below 1e-38 alone, which no code here relies on.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut before, options(nostack));
            let after = before | 0x8040;
            std::arch::asm!("ldmxcsr [{}]", in(reg) &after, options(nostack, readonly));
        }
        FlushToZero { before }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for FlushToZero {
    fn drop(&mut self) {
        // SAFETY: restores what `on` found.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &self.before, options(nostack, readonly)) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl FlushToZero {
    fn on() -> Self {
        FlushToZero {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_and_ranges_cover_the_count() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for count in [0, 1, 7, 64, 1000] {
                let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.parts(count, |part, thread| {
                    assert!(thread < threads);
                    hits[part].fetch_add(1, Relaxed);
                });
                pool.ranges(count, 16, |range| {
                    range.for_each(|i| {
                        hits[i].fetch_add(1, Relaxed);
                    })
                });
                assert!(hits.iter().all(|h| h.load(Relaxed) == 2), "{threads} threads, {count} parts");
            }
        }
    }

    #[test]
    fn a_sleeping_pool_wakes_and_a_panic_reaches_the_caller() {
        let pool = Pool::new(2);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let caught = catch_unwind(AssertUnwindSafe(|| pool.parts(8, |part, _| assert!(part != 5, "part five"))));
        assert!(caught.is_err());
        let sum = AtomicUsize::new(0);
        pool.parts(10, |part, _| {
            sum.fetch_add(part, Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn denormals_are_zero_while_a_loop_runs() {
        let pool = Pool::new(2);
        let tiny = std::hint::black_box(1e-38f32);
        let flushed = AtomicUsize::new(0);
        pool.run(&|_| {
            flushed.fetch_add(usize::from(std::hint::black_box(tiny * 0.1) == 0.0), Relaxed);
        });
        assert_eq!(flushed.into_inner(), 2);
        assert!(std::hint::black_box(tiny * 0.1) > 0.0, "the caller's own mode is restored");
    }
}
