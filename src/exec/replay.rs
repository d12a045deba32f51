//! The steps of a program carried out: one by one, or, on a device that records them, all at once.

use super::{Program, Session};
use crate::device::Call;
use crate::ops::Backend;
use crate::pass::plan::Step;

/// What a device has recorded of some steps, and for which memory.
#[derive(Default)]
pub(super) enum Recorded<R> {
    #[default]
    No,
    /// The steps have run one by one on these arenas: whatever is done once was done, and the next run is recorded.
    Warm(u64),
    Ready(u64, R),
}

/// Which packed weights must be rebuilt: all, or those of weights that are trained.
#[derive(Clone, Copy)]
pub(super) struct Stale {
    pub all: bool,
    pub trained: bool,
}

impl<D: Backend> Session<D> {
    /// Runs the steps before the first that replaces something (half 0), or the others: replayed, if the device has recorded
    /// them on this memory. Returns whether they ran: `go_on` is asked before each step, or before all that are replayed.
    pub(super) fn half(&self, program: &mut Program<D>, half: usize, stale: Stale, go_on: &dyn Fn() -> bool) -> bool {
        let (compute, update) = program.plan.steps.split_at(program.updates);
        let steps = [compute, update][half];
        // What is packed once is packed before, so that a recording packs nothing but what every run must pack.
        let (always, now) = (Stale { all: false, trained: program.trains }, &mut program.recorded[half]);
        *now = match std::mem::take(now) {
            Recorded::Warm(memory) if memory == self.memory => {
                match self.device.record(&mut || steps.iter().for_each(|step| self.step(step, always))) {
                    Some(recording) => Recorded::Ready(memory, recording),
                    None => Recorded::Warm(memory),
                }
            }
            ready @ Recorded::Ready(memory, _) if memory == self.memory => ready,
            _ => Recorded::No,
        };
        if let Recorded::Ready(_, recording) = now {
            let go_on = go_on();
            if go_on {
                steps.iter().filter(|step| !(step.trained && always.trained)).for_each(|step| self.pack(step, stale));
                self.device.replay(recording);
            }
            return go_on;
        }
        let all = steps.iter().all(|step| {
            let go_on = go_on();
            if go_on {
                self.step(step, stale);
            }
            go_on
        });
        if all {
            *now = Recorded::Warm(self.memory);
        }
        all
    }

    pub(super) fn stale(&self, program: &Program<D>) -> Stale {
        let (loaded, trained) = program.packed;
        Stale { all: self.packed_for != program.id || loaded != self.loaded, trained: trained != self.trained }
    }

    pub(super) fn call<'a>(&'a self, step: &'a Step) -> Call<'a, D> {
        let Step { ins, outs, scratch, derived, .. } = step;
        Call { device: &self.device, arenas: &self.arenas, ins, outs, scratch: *scratch, derived: *derived }
    }

    /// Rebuilds what a step keeps from run to run, its results or its packed weights, if their source has changed.
    pub(super) fn pack(&self, step: &Step, stale: Stale) {
        if !(stale.all || (step.trained && stale.trained)) {
            return;
        }
        if step.kept {
            D::run(&step.op, &self.call(step));
        } else if step.derived.is_some() {
            D::prepare(&step.op, &self.call(step));
        }
    }

    /// Runs one step.
    pub(super) fn step(&self, step: &Step, stale: Stale) {
        self.pack(step, stale);
        if !step.kept {
            D::run(&step.op, &self.call(step));
        }
    }

    /// Notes that all steps of a program ran.
    pub(super) fn ran(&mut self, program: &mut Program<D>) {
        program.packed = (self.loaded, self.trained);
        self.packed_for = program.id;
        self.trained += u64::from(program.trains);
    }
}
