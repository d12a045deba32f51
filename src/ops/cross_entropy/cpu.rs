//! A batch has a few thousand logits at most: f64 within a row costs nothing that shows. Samples are shared out; their
//! losses are added up in order by one thread.

use super::{CrossEntropy, CrossEntropyDx};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::rows_per_share;
use crate::device::cpu::view::put;
use crate::ops::Run;
use crate::ops::softmax::cpu::{log_sum_exp, set};

/// One target after label smoothing.
fn smooth(t: f32, s: f64, classes: usize) -> f64 {
    f64::from(t) * (1.0 - s) + s / classes as f64
}

impl Run<Cpu> for CrossEntropy {
    fn scratch(&self, _: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * ins[0].shape.rows()
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (x, t, w) = (call.src(0), call.src(1), call.src(2).flat());
        let (loss, p, losses, scratch) = (call.dst(0), call.dst(1), call.dst(2), call.scratch());
        call.device.pool.ranges(x.rows, rows_per_share(x.cols), |rows| {
            for i in rows {
                let (max, log_sum) = log_sum_exp(x.row(i));
                // SAFETY: row `i` belongs to this thread.
                let (p_row, mut l) = (unsafe { p.row(i) }, 0.0);
                for (k, p_at) in p_row.iter_mut().enumerate() {
                    let log_p = f64::from(x.row(i)[k]) - max - log_sum;
                    l -= smooth(t.row(i)[k], self.label_smoothing, x.cols) * log_p;
                    set(p_at, log_p.exp(), p.adds());
                }
                let weighted = (l * f64::from(w[i])) as f32;
                // SAFETY: element `i` of both belongs to this thread.
                unsafe {
                    put(scratch.ptr().add(i), weighted, false);
                    put(losses.ptr().add(i), weighted, losses.adds());
                }
            }
        });
        let sum: f64 = scratch.src().flat()[..x.rows].iter().map(|&l| f64::from(l)).sum();
        // SAFETY: the loop is over, this thread alone writes the loss.
        unsafe { put(loss.ptr(), (sum / x.rows as f64) as f32, loss.adds()) };
    }
}

impl Run<Cpu> for CrossEntropyDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (dloss, p, t, w) = (call.src(0).flat()[0], call.src(1), call.src(2), call.src(3).flat());
        let dx = call.dst(0);
        call.device.pool.ranges(dx.rows, rows_per_share(dx.cols), |rows| {
            for i in rows {
                let factor = f64::from(dloss) * f64::from(w[i]) / dx.rows as f64;
                let targets = || t.row(i).iter().map(|&t| smooth(t, self.label_smoothing, dx.cols));
                let sum: f64 = targets().sum();
                // SAFETY: row `i` belongs to this thread.
                let row = unsafe { dx.row(i) };
                for ((to, &p), t) in row.iter_mut().zip(p.row(i)).zip(targets()) {
                    set(to, factor * (f64::from(p) * sum - t), dx.adds());
                }
            }
        });
    }
}
