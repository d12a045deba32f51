use super::{ChannelStats, ChannelStatsDx};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

/// Mean and variance of each channel.
pub(in crate::ops) fn moments(x: &Array) -> [Array; 2] {
    let (pixels, channels) = (x.shape.rows(), x.shape.cols());
    let (mut mean, mut var) = (Array::zeros([channels]), Array::zeros([channels]));
    for i in 0..x.data.len() {
        mean[i % channels] += x[i] / pixels as f64;
    }
    for i in 0..x.data.len() {
        var[i % channels] += (x[i] - mean[i % channels]).powi(2) / pixels as f64;
    }
    [mean, var]
}

impl Run<Naive> for ChannelStats {
    fn run(&self, call: &Call<'_, Naive>) {
        let [mean, var] = moments(&call.input(0));
        call.output(0, mean);
        call.output(1, var);
    }
}

impl Run<Naive> for ChannelStatsDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (x, mean, dmean, dvar) = (call.input(0), call.input(1), call.input(2), call.input(3));
        let (pixels, channels) = (x.shape.rows() as f64, x.shape.cols());
        let mut dx = Array::zeros(x.shape);
        for i in 0..x.data.len() {
            let c = i % channels;
            dx[i] = dmean[c] / pixels + 2.0 * dvar[c] * (x[i] - mean[c]) / pixels;
        }
        call.output(0, dx);
    }
}
