use super::{Softmax, SoftmaxDx};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

impl Run<Naive> for Softmax {
    fn run(&self, call: &Call<'_, Naive>) {
        let x = call.input(0);
        let mut y = Array::zeros(x.shape);
        for i in 0..x.shape.rows() {
            let row = &x.data[i * x.shape.cols()..][..x.shape.cols()];
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
            for k in 0..row.len() {
                y[[i, k]] = (row[k] - max).exp() / sum;
            }
        }
        call.output(0, y);
    }
}

impl Run<Naive> for SoftmaxDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut dx, y) = (call.input(0), call.input(1));
        let classes = y.shape.cols();
        for i in 0..y.shape.rows() {
            let inner: f64 = (0..classes).map(|k| dx[[i, k]] * y[[i, k]]).sum();
            for k in 0..classes {
                dx[[i, k]] = y[[i, k]] * (dx[[i, k]] - inner);
            }
        }
        call.output(0, dx);
    }
}
