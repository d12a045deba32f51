use super::{CrossEntropy, CrossEntropyDx};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

fn smooth(targets: &Array, s: f64) -> Array {
    targets.map(|t| t * (1.0 - s) + s / targets.shape.cols() as f64)
}

impl Run<Naive> for CrossEntropy {
    fn run(&self, call: &Call<'_, Naive>) {
        let (x, t, w) = (call.input(0), smooth(&call.input(1), self.label_smoothing), call.input(2));
        let (samples, classes) = (x.shape.rows(), x.shape.cols());
        let (mut loss, mut p, mut losses) = (Array::zeros([1]), Array::zeros(x.shape), Array::zeros([samples]));
        for i in 0..samples {
            let max = (0..classes).map(|k| x[[i, k]]).fold(f64::NEG_INFINITY, f64::max);
            let log_sum = (0..classes).map(|k| (x[[i, k]] - max).exp()).sum::<f64>().ln();
            for k in 0..classes {
                let log_p = x[[i, k]] - max - log_sum;
                p[[i, k]] = log_p.exp();
                losses[i] -= w[i] * t[[i, k]] * log_p;
            }
            loss[0] += losses[i] / samples as f64;
        }
        call.output(0, loss);
        call.output(1, p);
        call.output(2, losses);
    }
}

impl Run<Naive> for CrossEntropyDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (dloss, p, w) = (call.input(0), call.input(1), call.input(3));
        let t = smooth(&call.input(2), self.label_smoothing);
        let (samples, classes) = (p.shape.rows(), p.shape.cols());
        let mut dx = Array::zeros(p.shape);
        for i in 0..samples {
            let sum: f64 = (0..classes).map(|k| t[[i, k]]).sum();
            for k in 0..classes {
                dx[[i, k]] = dloss[0] * w[i] / samples as f64 * (p[[i, k]] * sum - t[[i, k]]);
            }
        }
        call.output(0, dx);
    }
}
