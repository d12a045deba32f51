use super::{Columns, Concat, PadColumns};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

/// Copies `len` columns of `x` from column `from` to column `to` of `y`.
fn copy(x: &Array, from: usize, y: &mut Array, to: usize, len: usize) {
    for r in 0..x.shape.rows() {
        for c in 0..len {
            let at = r * y.shape.cols() + to + c;
            y[at] = x[r * x.shape.cols() + from + c];
        }
    }
}

impl Run<Naive> for Concat {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut y, mut start) = (Array::zeros(call.shape(0)), 0);
        for i in 0..call.ins.len() {
            let x = call.input(i);
            copy(&x, 0, &mut y, start, x.shape.cols());
            start += x.shape.cols();
        }
        call.output(0, y);
    }
}

impl Run<Naive> for Columns {
    fn run(&self, call: &Call<'_, Naive>) {
        let mut y = Array::zeros(call.shape(0));
        copy(&call.input(0), self.start, &mut y, 0, self.len);
        call.output(0, y);
    }
}

impl Run<Naive> for PadColumns {
    fn run(&self, call: &Call<'_, Naive>) {
        let (x, mut y) = (call.input(0), Array::zeros(call.shape(0)));
        copy(&x, 0, &mut y, self.start, x.shape.cols());
        call.output(0, y);
    }
}
