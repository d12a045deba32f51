use super::{GlobalAvgPool, GlobalAvgPoolDx};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

impl Run<Naive> for GlobalAvgPool {
    fn run(&self, call: &Call<'_, Naive>) {
        let x = call.input(0);
        let [images, height, width, channels] = x.four();
        let mut y = Array::zeros([images, channels]);
        for n in 0..images {
            for c in 0..channels {
                for i in 0..height {
                    for j in 0..width {
                        y[[n, c]] += x[[n, i, j, c]] / (height * width) as f64;
                    }
                }
            }
        }
        call.output(0, y);
    }
}

impl Run<Naive> for GlobalAvgPoolDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (dy, mut dx) = (call.input(0), Array::zeros(call.shape(0)));
        let [images, height, width, channels] = dx.four();
        for n in 0..images {
            for i in 0..height {
                for j in 0..width {
                    for c in 0..channels {
                        dx[[n, i, j, c]] = dy[[n, c]] / (height * width) as f64;
                    }
                }
            }
        }
        call.output(0, dx);
    }
}
