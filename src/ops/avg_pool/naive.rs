use super::{AvgPool, AvgPoolDx, count, geom};
use crate::base::Geom;
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

/// Calls `meet(output, input, 1 / count)` for every output element and every real pixel of its window.
fn every_tap(geom: &Geom, count_padding: bool, [images, channels]: [usize; 2], mut meet: impl FnMut([usize; 4], [usize; 4], f64)) {
    for n in 0..images {
        for (i, j) in (0..geom.output[0]).flat_map(|i| (0..geom.output[1]).map(move |j| (i, j))) {
            let share = 1.0 / (count(geom, count_padding, 0, i) * count(geom, count_padding, 1, j)) as f64;
            for (p, q) in (0..geom.kernel[0]).flat_map(|p| (0..geom.kernel[1]).map(move |q| (p, q))) {
                let (Some(row), Some(col)) = (geom.source(0, i, p), geom.source(1, j, q)) else { continue };
                (0..channels).for_each(|c| meet([n, i, j, c], [n, row, col, c], share));
            }
        }
    }
}

impl Run<Naive> for AvgPool {
    fn run(&self, call: &Call<'_, Naive>) {
        let x = call.input(0);
        let [images, height, width, channels] = x.four();
        let geom = geom(&self.window, self.count_padding, [height, width]).expect("shape inference admits the window");
        let mut y = Array::zeros(call.shape(0));
        every_tap(&geom, self.count_padding, [images, channels], |o, i, share| y[o] += x[i] * share);
        call.output(0, y);
    }
}

impl Run<Naive> for AvgPoolDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let dy = call.input(0);
        let [images, _, _, channels] = dy.four();
        let geom = geom(&self.window, self.count_padding, self.input).expect("shape inference admits the window");
        let mut dx = Array::zeros(call.shape(0));
        every_tap(&geom, self.count_padding, [images, channels], |o, i, share| dx[i] += dy[o] * share);
        call.output(0, dx);
    }
}
