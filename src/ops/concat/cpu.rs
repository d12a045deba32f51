use super::{Columns, Concat, PadColumns};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::rows_per_share;
use crate::ops::Run;

/// to (+)= from, element by element.
fn copy(from: &[f32], to: &mut [f32], add: bool) {
    if add { to.iter_mut().zip(from).for_each(|(to, from)| *to += from) } else { to.copy_from_slice(from) }
}

impl Run<Cpu> for Concat {
    fn run(&self, call: &Call<'_, Cpu>) {
        let y = call.dst(0);
        call.device.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            let mut start = 0;
            for x in (0..call.ins.len()).map(|i| call.src(i)) {
                for r in rows.clone() {
                    // SAFETY: row `r` belongs to this thread, which holds one reference to it at a time.
                    copy(x.row(r), unsafe { &mut y.row(r)[start..start + x.cols] }, y.adds());
                }
                start += x.cols;
            }
        });
    }
}

impl Run<Cpu> for Columns {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (x, y) = (call.src(0), call.dst(0));
        call.device.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            for r in rows {
                // SAFETY: row `r` belongs to this thread.
                copy(&x.row(r)[self.start..self.start + self.len], unsafe { y.row(r) }, y.adds());
            }
        });
    }
}

impl Run<Cpu> for PadColumns {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (x, y) = (call.src(0), call.dst(0));
        call.device.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            for r in rows {
                // SAFETY: row `r` belongs to this thread.
                let row = unsafe { y.row(r) };
                if !y.adds() {
                    row[..self.start].fill(0.0);
                    row[self.start + x.cols..].fill(0.0);
                }
                copy(x.row(r), &mut row[self.start..self.start + x.cols], y.adds());
            }
        });
    }
}
