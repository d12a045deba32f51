use super::Constant;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::rows_per_share;
use crate::ops::Run;

impl Run<Cpu> for Constant {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (y, value) = (call.dst(0), self.value as f32);
        call.device.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            for r in rows {
                // SAFETY: row `r` belongs to this thread, and the op has no inputs.
                let row = unsafe { y.row(r) };
                if y.adds() { row.iter_mut().for_each(|y| *y += value) } else { row.fill(value) }
            }
        });
    }
}
