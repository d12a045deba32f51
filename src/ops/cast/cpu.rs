//! The cpu device stores everything in f32: nothing is left of a cast but a copy.

use super::{Cast, WeightCast};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::rows_per_share;
use crate::ops::Run;

/// `y (+)= x`, for operand `i`.
fn copy(call: &Call<'_, Cpu>, i: usize) {
    let (x, y) = (call.src(i), call.dst(i));
    call.device.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
        for r in rows {
            // SAFETY: row `r` belongs to this thread, and the op does not run in place.
            let (x, y_row) = (x.row(r), unsafe { y.row(r) });
            if y.adds() { y_row.iter_mut().zip(x).for_each(|(y, x)| *y += x) } else { y_row.copy_from_slice(x) }
        }
    });
}

impl Run<Cpu> for Cast {
    fn run(&self, call: &Call<'_, Cpu>) {
        copy(call, 0);
    }
}

impl Run<Cpu> for WeightCast {
    fn run(&self, call: &Call<'_, Cpu>) {
        (0..call.ins.len()).for_each(|i| copy(call, i));
    }
}
