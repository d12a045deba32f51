//! Which learning rate? A sweep over rates, one step each, and what its losses suggest.
//!
//! The learning-rate range test (Smith 2017, "Cyclical learning rates", section 3.3) with the exponential rates and the smoothing of
//! fastai's `lr_find`: `lr_i = from (to / from)^(i / (n - 1))`, a running mean of the losses with a memory of 0.98, its start corrected as
//! Adam corrects its moments, and an end where it exceeds four times its lowest value.

use crate::report::Trial;

const MEMORY: f64 = 0.98;
const DIVERGED: f64 = 4.0;

/// A sweep under way.
#[derive(Clone, Debug)]
pub struct Sweep {
    from: f64,
    to: f64,
    steps: usize,
    mean: f64,
    lowest: f64,
    /// What was tried so far.
    pub trials: Vec<Trial>,
}

/// What a sweep suggests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggestion {
    /// In the middle third of the longest valley: fastai's default.
    pub valley: f64,
    /// Where the loss falls fastest over the logarithm of the rate; beyond the lowest loss, falls mean nothing.
    pub steepest: f64,
}

impl Sweep {
    /// A sweep of `steps` rates from `from` to `to`.
    pub fn new(from: f64, to: f64, steps: usize) -> Self {
        Sweep { from, to, steps, mean: 0.0, lowest: f64::INFINITY, trials: Vec::with_capacity(steps) }
    }

    /// How many rates there are.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The next rate; `None` at the end.
    pub fn next(&self) -> Option<f64> {
        let done = self.trials.len();
        (done < self.steps).then(|| self.from * (self.to / self.from).powf(done as f64 / (self.steps.max(2) - 1) as f64))
    }

    /// Notes the loss of a step at [`Sweep::next`]; whether the sweep goes on. A loss that is not a number is not noted.
    pub fn note(&mut self, loss: f64) -> bool {
        let Some(lr) = self.next().filter(|_| loss.is_finite()) else { return false };
        self.mean = MEMORY * self.mean + (1.0 - MEMORY) * loss;
        let smoothed = self.mean / (1.0 - MEMORY.powi(self.trials.len() as i32 + 1));
        self.trials.push(Trial { lr, loss, smoothed });
        self.lowest = self.lowest.min(smoothed);
        smoothed <= DIVERGED * self.lowest && self.trials.len() < self.steps
    }

    /// What the losses suggest. As in fastai, the first tenth of the rates and the last five count for nothing; `None` where too
    /// few are left or the loss never falls.
    pub fn suggestion(&self) -> Option<Suggestion> {
        let trials = self.trials.get(self.steps / 10..self.trials.len().saturating_sub(5)).filter(|t| t.len() >= 3)?;
        let slope = |i: usize| (trials[i + 1].smoothed - trials[i].smoothed) / (trials[i + 1].lr / trials[i].lr).ln();
        let lowest = (0..trials.len()).min_by(|&a, &b| trials[a].smoothed.total_cmp(&trials[b].smoothed))?;
        let steepest = (0..lowest).min_by(|&a, &b| slope(a).total_cmp(&slope(b)))?;
        if slope(steepest) >= 0.0 {
            return None;
        }
        let losses: Vec<f64> = trials.iter().map(|t| t.smoothed).collect();
        Some(Suggestion { valley: trials[valley(&losses)].lr, steepest: trials[steepest].lr })
    }
}

/// fastai's `valley` (fastai/callback/schedule.py): the longest falling subsequence is cut into thirds; the point lies in the
/// middle of the second.
fn valley(losses: &[f64]) -> usize {
    let mut falling = vec![1usize; losses.len()];
    // `start` may lie one before the first.
    let (mut start, mut end) = (0isize, 0usize);
    for i in 1..losses.len() {
        for j in 0..i {
            if losses[i] < losses[j] && falling[i] < falling[j] + 1 {
                falling[i] = falling[j] + 1;
            }
            if falling[end] < falling[i] {
                end = i;
                start = end as isize - falling[end] as isize;
            }
        }
    }
    let third = (end as isize - start) as f64 / 3.0;
    (start + third as isize + (third / 2.0) as isize).max(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_grow_by_a_factor_and_losses_are_smoothed() {
        let mut sweep = Sweep::new(1e-7, 10.0, 100);
        let mut rates = Vec::new();
        while let Some(lr) = sweep.next() {
            rates.push(lr);
            // 2 falls to 1 and rises again, as losses do.
            let at = lr.log10();
            if !sweep.note(1.5 - 0.5 * (at + 5.0).tanh() + (at + 0.5).max(0.0).powi(2)) {
                break;
            }
        }
        assert!((rates[0] - 1e-7).abs() < 1e-20 && (rates[99] - 10.0).abs() < 1e-12);
        assert!((rates[1] / rates[0] - 10f64.powf(8.0 / 99.0)).abs() < 1e-12);
        let third =
            (0.02 * (0.98 * 0.98 * sweep.trials[0].loss + 0.98 * sweep.trials[1].loss + sweep.trials[2].loss)) / (1.0 - 0.98f64.powi(3));
        assert!((sweep.trials[2].smoothed - third).abs() < 1e-12);
        let found = sweep.suggestion().unwrap();
        // fastai's functions on these smoothed losses.
        assert!(
            (found.valley / 5.214008287999684e-4 - 1.0).abs() < 1e-9 && (found.steepest / 3.199267137797385e-5 - 1.0).abs() < 1e-9,
            "{found:?}"
        );
    }

    #[test]
    fn a_sweep_ends_when_training_falls_apart() {
        let mut sweep = Sweep::new(1e-4, 1.0, 50);
        assert!(sweep.note(1.0) && sweep.note(0.9));
        assert!(!sweep.note(1e6), "four times the lowest");
        let mut sweep = Sweep::new(1e-4, 1.0, 50);
        assert!(sweep.note(1.0) && !sweep.note(f64::NAN) && sweep.trials.len() == 1);
        assert_eq!(sweep.suggestion(), None);
        let mut rising = Sweep::new(1e-4, 1.0, 50);
        (0..50).for_each(|i| assert!(rising.note(1.0 + f64::from(i) * 1e-3) || i == 49));
        assert_eq!(rising.suggestion(), None, "nothing was learnt");
    }
}
