//! Batch norm as rows: statistics, coefficients, scale and shift.
//!
//! ```text
//! mean, var     = channel_stats(x)                        in training; else the moving ones
//! scale, shift  = gamma / sqrt(var + epsilon), beta - mean * scale
//! y             = x * scale + shift                        per channel
//! moving        = moving * momentum + batch * (1 - momentum)      variance is the biased one, as in Keras 3
//! ```
//!
//! The statistics of a concat are the concat of the statistics. With a memo per value, a DenseNet block computes each
//! channel's statistics once, although every later layer of the block normalises it again.

use super::layers::{Kind, Net, Tensor};
use crate::base::Val;
use crate::ir::Init;
use crate::ops::activation::Act;
use crate::ops::{BnCoefficients, ChannelStats, Concat, Emit, MovingAverage, ScaleShift};

impl Net {
    /// Batch normalization with gamma and beta.
    pub fn batch_norm(&mut self, name: &str, x: Tensor) -> Tensor {
        self.normalize(name, x, true)
    }

    /// Batch normalization without gamma (Keras's `scale=False`), unless the profile has one everywhere.
    pub fn batch_norm_unscaled(&mut self, name: &str, x: Tensor) -> Tensor {
        self.normalize(name, x, self.profile.gamma)
    }

    fn normalize(&mut self, name: &str, x: Tensor, gamma: bool) -> Tensor {
        self.begin(name, Kind::BatchNormalization, &[x]);
        let v = self.plain(x);
        let channels = self.builder.shape(v).cols();
        let gamma = gamma.then(|| self.param("gamma", [channels], Init::Ones));
        let beta = self.param("beta", [channels], Init::Zeros);
        let moving_mean = self.builder.state("moving_mean", [channels], Init::Zeros);
        let moving_variance = self.builder.state("moving_variance", [channels], Init::Ones);
        let layer = self.current();
        layer.states = vec![moving_mean, moving_variance];
        let trained = !layer.frozen && self.norm.batch;

        let (mean, variance) = if trained { self.statistics_of(v) } else { (moving_mean, moving_variance) };
        let ins: Vec<Val> = [mean, variance].into_iter().chain(gamma).chain([beta]).collect();
        let coefficients = BnCoefficients { epsilon: self.profile.epsilon, gamma: gamma.is_some() };
        let coefficients = self.builder.emit(coefficients.into(), &ins);
        let y = self.builder.op(ScaleShift { act: Act::Linear }, &[v, coefficients[0], coefficients[1]]);
        if trained {
            let momentum = self.norm.momentum;
            for (moving, batch) in [(moving_mean, mean), (moving_variance, variance)] {
                self.builder.update(MovingAverage { momentum }, &[moving, batch], moving);
            }
        }
        self.end(y)
    }

    /// Mean and variance per channel over the pixels of the batch.
    fn statistics_of(&mut self, v: Val) -> (Val, Val) {
        if let Some(&known) = self.statistics.get(&v) {
            return known;
        }
        let found = match self.parts.get(&v).cloned() {
            Some(parts) => {
                let (means, variances): (Vec<Val>, Vec<Val>) = parts.into_iter().map(|part| self.statistics_of(part)).unzip();
                (self.builder.op(Concat, &means), self.builder.op(Concat, &variances))
            }
            None => {
                let stats = self.builder.emit(ChannelStats.into(), &[v]);
                (stats[0], stats[1])
            }
        };
        self.statistics.insert(v, found);
        found
    }
}
