use super::{BiasAdd, ColumnSum};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

impl Run<Naive> for BiasAdd {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut x, b) = (call.input(0), call.input(1));
        for i in 0..x.data.len() {
            x[i] += b[i % x.shape.cols()];
        }
        call.output(0, x);
    }
}

impl Run<Naive> for ColumnSum {
    fn run(&self, call: &Call<'_, Naive>) {
        let x = call.input(0);
        let mut y = Array::zeros([x.shape.cols()]);
        for i in 0..x.data.len() {
            y[i % x.shape.cols()] += x[i];
        }
        call.output(0, y);
    }
}
