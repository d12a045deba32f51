//! The learning rate of every step.
//!
//! Steps t = 0, 1, .. of a run of T; epochs e = 0, 1, ..; a base rate lr; a warm-up of W steps:
//!
//! ```text
//! constant   s = lr
//! step       s = lr gamma^floor(e / N)                                         PyTorch's StepLR
//! cosine     s = min + (lr - min) (1 + cos(pi (t - W) / (T - W))) / 2          Loshchilov and Hutter 2017; Keras's CosineDecay
//! plateau    s = max(min, lr gamma^r) after r epochs' ends without progress    Keras's ReduceLROnPlateau
//! rate       s min(1, (t + 1) / W)                                             linear warm-up: Goyal et al. 2017, section 2.2
//! ```
//!
//! The only state is the plateau's, a few numbers that a resumed run takes over.

use serde::{Deserialize, Serialize};

/// How the rate moves over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    Constant,
    /// Times `gamma` after every so many epochs.
    Step {
        epochs: usize,
        gamma: f64,
    },
    /// Half a cosine from the end of the warm-up to the end of the run.
    Cosine,
    Plateau(Plateau),
}

/// When the rate falls for want of progress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plateau {
    pub gamma: f64,
    /// Epochs without progress before the rate falls.
    pub patience: usize,
    /// Epochs after a fall that do not count.
    pub cooldown: usize,
    /// A change of the score up to this much is no progress.
    pub min_delta: f64,
    /// Whether the score is better when larger (accuracy) or smaller (loss).
    pub larger: bool,
}

/// What the plateau remembers from epoch to epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    best: Option<f64>,
    waited: usize,
    cooldown: usize,
    falls: usize,
}

/// The rates of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    pub lr: f64,
    /// The base rate from this epoch on (from 0): a backbone that is thawed then wants a smaller one.
    pub later: Option<(usize, f64)>,
    /// The rate falls no lower by itself.
    pub min: f64,
    /// Steps of the warm-up.
    pub warmup: usize,
    pub steps_per_epoch: usize,
    /// Steps of the whole run.
    pub steps: usize,
}

impl Schedule {
    /// The rate of step `t`, counted from 0.
    pub fn rate(&self, t: usize, progress: &Progress) -> f64 {
        let epoch = t / self.steps_per_epoch;
        let lr = self.later.filter(|&(from, _)| epoch >= from).map_or(self.lr, |(_, lr)| lr);
        let settled = match self.shape {
            Shape::Constant => lr,
            Shape::Step { epochs, gamma } => (lr * gamma.powi((epoch / epochs) as i32)).max(self.min),
            Shape::Cosine => {
                let done = t.saturating_sub(self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
                self.min + (lr - self.min) * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()) / 2.0
            }
            Shape::Plateau(p) => (lr * p.gamma.powi(progress.falls as i32)).max(self.min),
        };
        settled * ((t + 1) as f64 / self.warmup.max(1) as f64).min(1.0)
    }

    /// Notes the score of epoch `epoch` (from 0) for a plateau; whether the rate falls. Epochs of the warm-up are not judged.
    pub fn judge(&self, epoch: usize, score: f64, progress: &mut Progress) -> bool {
        let Shape::Plateau(p) = self.shape else { return false };
        if (epoch + 1) * self.steps_per_epoch <= self.warmup {
            return false;
        }
        if progress.cooldown > 0 {
            progress.cooldown -= 1;
            progress.waited = 0;
        }
        let better = |best: f64| if p.larger { score - p.min_delta > best } else { score + p.min_delta < best };
        if progress.best.is_none_or(better) {
            progress.best = Some(score);
            progress.waited = 0;
            return false;
        }
        if progress.cooldown > 0 {
            return false;
        }
        progress.waited += 1;
        let now = self.lr * p.gamma.powi(progress.falls as i32);
        if progress.waited < p.patience || now <= self.min {
            return false;
        }
        (progress.falls, progress.cooldown, progress.waited) = (progress.falls + 1, p.cooldown, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: Shape) -> Schedule {
        Schedule { shape, lr: 0.1, later: None, min: 0.0, warmup: 0, steps_per_epoch: 4, steps: 40 }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-15 * b.abs().max(1.0), "{a} {b}");
    }

    #[test]
    fn rates_follow_their_formulas() {
        let none = Progress::default();
        let step = schedule(Shape::Step { epochs: 3, gamma: 0.5 });
        // PyTorch's StepLR(step_size=3, gamma=0.5): 0.1 x3, 0.05 x3, 0.025 x3, 0.0125.
        for (epoch, rate) in [(0, 0.1), (2, 0.1), (3, 0.05), (5, 0.05), (6, 0.025), (9, 0.0125)] {
            close(step.rate(4 * epoch, &none), rate);
            close(step.rate(4 * epoch + 3, &none), rate);
        }
        let cosine = Schedule { min: 0.01, warmup: 8, ..schedule(Shape::Cosine) };
        close(cosine.rate(0, &none), 0.1 / 8.0);
        close(cosine.rate(7, &none), 0.1);
        close(cosine.rate(8, &none), 0.1);
        close(cosine.rate(24, &none), 0.055);
        close(cosine.rate(40, &none), 0.01);
        let warm = Schedule { warmup: 5, ..schedule(Shape::Constant) };
        (0..8).for_each(|t| close(warm.rate(t, &none), 0.1 * ((t + 1) as f64 / 5.0).min(1.0)));
        let thawed = Schedule { later: Some((2, 0.001)), ..schedule(Shape::Constant) };
        close(thawed.rate(7, &none), 0.1);
        close(thawed.rate(8, &none), 0.001);
    }

    #[test]
    fn a_plateau_falls_where_keras_falls() {
        // keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_delta=0.01, min_lr=0.02), lr 0.1, val_loss.
        let losses = [1.0, 0.9, 0.895, 0.893, 0.95, 0.95, 0.95, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7];
        let keras = [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025, 0.025, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02];
        let p = Plateau { gamma: 0.5, patience: 2, cooldown: 1, min_delta: 0.01, larger: false };
        let s = Schedule { min: 0.02, ..schedule(Shape::Plateau(p)) };
        for (p, sign) in [(p, 1.0), (Plateau { larger: true, ..p }, -1.0)] {
            let s = Schedule { shape: Shape::Plateau(p), ..s.clone() };
            let mut progress = Progress::default();
            for (epoch, (loss, rate)) in losses.into_iter().zip(keras).enumerate() {
                s.judge(epoch, sign * loss, &mut progress);
                close(s.rate(4 * epoch + 4, &progress), rate);
            }
        }
    }

    #[test]
    fn epochs_of_the_warm_up_are_not_judged() {
        let p = Plateau { gamma: 0.5, patience: 1, cooldown: 0, min_delta: 0.0, larger: false };
        let s = Schedule { warmup: 8, ..schedule(Shape::Plateau(p)) };
        let mut progress = Progress::default();
        let falls: Vec<bool> = [1.0, 2.0, 3.0, 4.0].into_iter().enumerate().map(|(e, loss)| s.judge(e, loss, &mut progress)).collect();
        assert_eq!(falls, [false, false, false, true], "the third epoch sets the mark, the fourth misses it");
    }
}
