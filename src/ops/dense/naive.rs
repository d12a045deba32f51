use super::{Dense, DenseDw, DenseDx};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

impl Run<Naive> for Dense {
    fn run(&self, call: &Call<'_, Naive>) {
        let (x, w, mut y) = (call.input(0), call.input(1), Array::zeros(call.shape(0)));
        for n in 0..x.shape.rows() {
            for k in 0..w.shape.rows() {
                for c in 0..w.shape.cols() {
                    y[[n, c]] += x[[n, k]] * w[[k, c]];
                }
            }
        }
        call.output(0, y);
    }
}

impl Run<Naive> for DenseDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (dy, w, mut dx) = (call.input(0), call.input(1), Array::zeros(call.shape(0)));
        for n in 0..dy.shape.rows() {
            for k in 0..w.shape.rows() {
                for c in 0..w.shape.cols() {
                    dx[[n, k]] += dy[[n, c]] * w[[k, c]];
                }
            }
        }
        call.output(0, dx);
    }
}

impl Run<Naive> for DenseDw {
    fn run(&self, call: &Call<'_, Naive>) {
        let (x, dy, mut dw) = (call.input(0), call.input(1), Array::zeros(call.shape(0)));
        for n in 0..x.shape.rows() {
            for k in 0..x.shape.cols() {
                for c in 0..dy.shape.cols() {
                    dw[[k, c]] += x[[n, k]] * dy[[n, c]];
                }
            }
        }
        call.output(0, dw);
    }
}
