//! A batch has a few thousand logits at most: f64 within a row costs nothing that shows.

use super::{Softmax, SoftmaxDx};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::rows_per_share;
use crate::ops::Run;

/// The largest logit of a row, and the logarithm of the sum of `exp(logit - largest)`.
pub fn log_sum_exp(row: &[f32]) -> (f64, f64) {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    (max, sum.ln())
}

/// Writes a number to an element, or adds it.
pub fn set(to: &mut f32, value: f64, add: bool) {
    *to = if add { *to + value as f32 } else { value as f32 };
}

impl Run<Cpu> for Softmax {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (x, y, adds) = (call.src(0), call.dst(0), call.dst(0).adds());
        call.device.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            for r in rows {
                let (max, log_sum) = log_sum_exp(x.row(r));
                // SAFETY: row `r` belongs to this thread.
                let row = unsafe { y.row(r) };
                row.iter_mut().zip(x.row(r)).for_each(|(y, &x)| set(y, (f64::from(x) - max - log_sum).exp(), adds));
            }
        });
    }
}

impl Run<Cpu> for SoftmaxDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (dy, y, dx) = (call.src(0), call.src(1), call.dst(0));
        call.device.pool.ranges(dx.rows, rows_per_share(dx.cols), |rows| {
            for r in rows {
                let pairs = || dy.row(r).iter().zip(y.row(r)).map(|(&dy, &y)| (f64::from(dy), f64::from(y)));
                let inner: f64 = pairs().map(|(dy, y)| dy * y).sum();
                // SAFETY: row `r` belongs to this thread.
                let row = unsafe { dx.row(r) };
                row.iter_mut().zip(pairs()).for_each(|(dx_at, (dy, y))| set(dx_at, y * (dy - inner), dx.adds()));
            }
        });
    }
}
