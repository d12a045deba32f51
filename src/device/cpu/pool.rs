//! A few threads that live as long as the device and meet at every step.
//!
//! A training step is a thousand short parallel loops, so a loop must start in microseconds: workers spin for a moment
//! after each one before they sleep. The caller works too; a pool of one thread starts none. Every thread flushes
//! denormals to zero while it works (a convolution over denormals is 20 to 50 times slower).
//!
//! A loop does not wait for workers to come. Its parts are handed out, and when none is left the caller closes it and waits
//! only for those that are inside; on a machine whose cores are busy with something else, a worker that gets no core then
//! costs its help and no more. Where there are more threads than cores, nobody spins.
//!
//! Which thread runs which part may vary from run to run, so a loop never lets a result depend on it: parts write
//! disjoint memory, and partial sums have fixed parts that are added in a fixed order.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for work, or for the end of others' work, before it sleeps: several times as long as a sleeper
/// takes to wake up.
const SPIN: Duration = Duration::from_micros(300);

type Task = dyn Fn(usize) + Sync;

/// The state of the current loop in one word: its number, whether it is closed, and how many workers are inside.
///
/// ```text
/// bits 16..64 number | bit 15 closed | bits 0..15 workers inside
/// ```
mod gate {
    pub const CLOSED: u64 = 1 << 15;
    pub const NEXT: u64 = 1 << 16;

    pub fn inside(state: u64) -> u64 {
        state & (CLOSED - 1)
    }

    pub fn number(state: u64) -> u64 {
        state / NEXT
    }

    /// Whether there is a loop to enter for a worker whose last one was `seen`.
    pub fn invites(state: u64, seen: u64) -> bool {
        state & CLOSED == 0 && number(state) != seen
    }
}

struct Shared {
    /// See [`gate`].
    state: AtomicU64,
    /// The body of the current loop; valid while the loop is open or a worker is inside.
    task: UnsafeCell<Option<*const Task>>,
    /// Workers that have entered the current loop.
    entered: AtomicUsize,
    /// How long threads spin.
    spin: Duration,
    stop: AtomicBool,
    /// Workers that sleep.
    asleep: Mutex<usize>,
    wake: Condvar,
    /// Whether the caller sleeps until the last worker leaves.
    waits: AtomicBool,
    caller: Mutex<()>,
    left: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `task` is written by the caller alone, while the loop is closed and nobody is inside, before `state` is released as
// open; workers read it after they acquired that state by entering.
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
        let threads = threads.clamp(1, (gate::CLOSED - 1) as usize);
        let cores = std::thread::available_parallelism().map_or(threads, |n| n.get());
        let shared = Arc::new(Shared::new(if threads > cores { Duration::ZERO } else { SPIN }));
        let worker = |index: usize| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("defrost-{index}"));
            thread.spawn(move || work(&shared, index)).expect("the system starts a thread")
        };
        let workers = (1..threads).map(worker).collect();
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
        self.start(body, self.workers.len());
    }

    /// Runs `body(0)` here and `body(thread)` on the workers that come in the meantime, at least on `wanted` of them.
    fn start(&self, body: &(dyn Fn(usize) + Sync), wanted: usize) {
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let flush = FlushToZero::on();
        if self.workers.is_empty() {
            body(0);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: the loop before is closed and nobody is inside (`turn`, `close`), so no worker reads `task`; the lifetime is
        // erased, and the pointer is not followed after this function returns, because `close` waits even when `body` panics.
        unsafe { *shared.task.get() = Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(body)) };
        shared.entered.store(0, Relaxed);
        let number = gate::number(shared.state.load(Relaxed));
        shared.state.store((number + 1) * gate::NEXT, SeqCst);
        if *shared.asleep.lock().expect("no worker panics with the lock") > 0 {
            shared.wake.notify_all();
        }
        let mine = catch_unwind(AssertUnwindSafe(|| body(0)));
        while shared.entered.load(Acquire) < wanted {
            std::thread::yield_now();
        }
        shared.close();
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
        let take = |thread| {
            loop {
                let part = next.fetch_add(1, Relaxed);
                if part >= parts {
                    break;
                }
                body(part, thread);
            }
        };
        self.start(&take, 0);
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
        self.parts(count.div_ceil(each), |part, _| body(part * each..((part + 1) * each).min(count)));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        drop(self.shared.asleep.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panic was already raised by `run`.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Before the first loop.
    fn new(spin: Duration) -> Self {
        Shared {
            state: AtomicU64::new(gate::CLOSED),
            task: UnsafeCell::new(None),
            entered: AtomicUsize::new(0),
            spin,
            stop: AtomicBool::new(false),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
            waits: AtomicBool::new(false),
            caller: Mutex::new(()),
            left: Condvar::new(),
            panic: Mutex::new(None),
        }
    }

    /// Lets nobody in any more and returns when everybody has left: spins first, then sleeps.
    fn close(&self) {
        let empty = |state| gate::inside(state) == 0;
        if empty(self.state.fetch_or(gate::CLOSED, AcqRel)) || spin(self.spin, || empty(self.state.load(Acquire))) {
            return;
        }
        let mut caller = lock(&self.caller);
        // Set before the test and read after a worker has left, so that one of the two sees the other.
        self.waits.store(true, SeqCst);
        while !empty(self.state.load(SeqCst)) {
            caller = self.left.wait(caller).unwrap_or_else(|e| e.into_inner());
        }
        self.waits.store(false, Relaxed);
    }

    /// Enters the next loop after number `seen` that is open, and returns its number: spins first, then sleeps. `None` at the
    /// end of the pool.
    fn enter(&self, seen: u64) -> Option<u64> {
        loop {
            let stopped = || self.stop.load(SeqCst);
            let invited = || gate::invites(self.state.load(SeqCst), seen);
            if !spin(self.spin, || invited() || stopped()) {
                let mut asleep = self.asleep.lock().expect("no worker panics with the lock");
                *asleep += 1;
                // The caller opens a loop before it asks for the lock, so a wake-up cannot fall between this test and the wait.
                while !invited() && !stopped() {
                    asleep = self.wake.wait(asleep).expect("no worker panics with the lock");
                }
                *asleep -= 1;
            }
            if stopped() {
                return None;
            }
            let come_in = |state| gate::invites(state, seen).then_some(state + 1);
            if let Ok(state) = self.state.fetch_update(AcqRel, Acquire, come_in) {
                self.entered.fetch_add(1, Release);
                return Some(gate::number(state));
            }
        }
    }

    fn leave(&self) {
        let before = self.state.fetch_sub(1, SeqCst);
        if gate::inside(before) == 1 && self.waits.load(SeqCst) {
            drop(lock(&self.caller));
            self.left.notify_one();
        }
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Whether something becomes true within a time.
fn spin(limit: Duration, is: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        for _ in 0..32 {
            if is() {
                return true;
            }
            std::hint::spin_loop();
        }
        if began.elapsed() >= limit {
            return false;
        }
    }
}

fn work(shared: &Shared, thread: usize) {
    let _flush = FlushToZero::on();
    let mut seen = 0;
    while let Some(number) = shared.enter(seen) {
        seen = number;
        // SAFETY: this loop's `task` was written before it was opened, and lives until this worker has left.
        let task = unsafe { &*(*shared.task.get()).expect("an open loop has a task") };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(thread))) {
            shared.panic.lock().expect("no worker panics with the lock").get_or_insert(panic);
        }
        shared.leave();
    }
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
    fn a_loop_does_not_wait_for_workers_that_get_no_core() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // One worker that never comes.
        let workers = vec![std::thread::spawn(move || _ = ended.recv())];
        let (told, hears) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let pool = Pool { shared: Arc::new(Shared::new(SPIN)), workers, turn: Mutex::new(()) };
            let done = AtomicUsize::new(0);
            pool.parts(5, |_, _| _ = done.fetch_add(1, Relaxed));
            pool.ranges(100, 1, |range| _ = done.fetch_add(range.len(), Relaxed));
            let _ = told.send(done.into_inner());
            drop(end);
        });
        assert_eq!(hears.recv_timeout(Duration::from_secs(20)), Ok(105));
    }

    #[test]
    fn a_loop_waits_for_a_worker_that_is_inside() {
        for threads in [2, 3] {
            let pool = Pool::new(threads);
            let (together, done) = (std::sync::Barrier::new(threads), AtomicUsize::new(0));
            pool.parts(threads, |_, thread| {
                together.wait();
                // Long enough for the caller to go to sleep.
                std::thread::sleep(Duration::from_millis(if thread == 0 { 0 } else { 20 }));
                done.fetch_add(1, Relaxed);
            });
            assert_eq!(done.into_inner(), threads);
        }
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
