//! The steps of a program carried out: one by one, or, on a device that records them, all at once.

use super::{Program, Session};
use crate::device::{Arena, Call};
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

impl<D: Backend> Session<D> {
    /// Runs the steps before the first that replaces something (half 0), or the others: replayed, if the device has recorded
    /// them on this memory. Returns whether they ran: `go_on` is asked before each step, or before all that are replayed.
    pub(super) fn half(&self, program: &mut Program<D>, half: usize, stale: bool, go_on: &dyn Fn() -> bool) -> bool {
        let (compute, update) = program.plan.steps.split_at(program.updates);
        let steps = [compute, update][half];
        let now = &mut program.recorded[half];
        *now = match std::mem::take(now) {
            Recorded::Warm(memory) if memory == self.memory => {
                // A recording packs nothing but what every run must pack; the rest is packed before it is replayed, when it is stale.
                match self.device.record(&mut || steps.iter().for_each(|step| self.step(step, false))) {
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
                steps.iter().filter(|_| stale).for_each(|step| self.pack(step));
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

    /// Whether what a program keeps from run to run must be made anew.
    pub(super) fn stale(&self, program: &Program<D>) -> bool {
        self.packed_for != program.id || program.packed != (self.loaded, self.trained)
    }

    pub(super) fn call<'a>(&'a self, step: &'a Step) -> Call<'a, D> {
        let Step { ins, outs, scratch, derived, .. } = step;
        Call { device: &self.device, arenas: &self.arenas, ins, outs, scratch: *scratch, derived: *derived }
    }

    /// Makes anew what a step keeps from run to run: its results, or its packed weights.
    fn pack(&self, step: &Step) {
        if step.kept {
            D::run(&step.op, &self.call(step));
        } else if step.derived.is_some_and(|(arena, ..)| arena != Arena::Temps) {
            D::prepare(&step.op, &self.call(step));
        }
    }

    /// Runs one step; packed weights that are not kept are made before, and what is kept if it is stale.
    pub(super) fn step(&self, step: &Step, stale: bool) {
        if stale {
            self.pack(step);
        }
        if step.derived.is_some_and(|(arena, ..)| arena == Arena::Temps) {
            D::prepare(&step.op, &self.call(step));
        }
        if !step.kept {
            D::run(&step.op, &self.call(step));
        }
    }

    /// Notes that all steps of a program ran.
    pub(super) fn ran(&mut self, program: &mut Program<D>) {
        // What a program trains, it packs anew for every run; what it keeps is packed from weights that it leaves as they are.
        self.trained += u64::from(program.trains);
        program.packed = (self.loaded, self.trained);
        self.packed_for = program.id;
    }
}
