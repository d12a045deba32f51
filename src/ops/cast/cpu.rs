//! The cpu device stores everything in f32: what is left of a cast is its rounding.

use super::{Cast, WeightCast};
use crate::base::DType;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::rows_per_share;
use crate::ops::Run;
use half::bf16;

/// `y (+)= x` rounded, for operand `i`.
fn cast(call: &Call<'_, Cpu>, i: usize, to: DType) {
    let (x, y) = (call.src(i), call.dst(i));
    call.device.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
        for r in rows {
            // SAFETY: row `r` belongs to this thread, and the op does not run in place.
            for (y, &x) in unsafe { y.row(r) }.iter_mut().zip(x.row(r)) {
                let rounded = if to == DType::Bf16 { bf16::from_f32(x).to_f32() } else { x };
                *y = if call.dst(i).adds() { *y + rounded } else { rounded };
            }
        }
    });
}

impl Run<Cpu> for Cast {
    fn run(&self, call: &Call<'_, Cpu>) {
        cast(call, 0, self.to);
    }
}

impl Run<Cpu> for WeightCast {
    fn run(&self, call: &Call<'_, Cpu>) {
        (0..call.ins.len()).for_each(|i| cast(call, i, DType::Bf16));
    }
}
