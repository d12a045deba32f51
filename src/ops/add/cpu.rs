use super::{Add, MOST};
use crate::device::Call;
use crate::device::cpu::columns::rows_per_share;
use crate::device::cpu::{Cpu, Src};
use crate::ops::Run;
use crate::simd;

simd! {
    /// y (+)= sum of all xs over `n` floats of each; `y` may be the first x.
    unsafe fn sum<V>(xs: &[*const f32], y: *mut f32, n: usize, add: bool) {
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            let mut s = V::take(xs[0].add(i), k);
            for x in &xs[1..] {
                s = s.add(V::take(x.add(i), k));
            }
            s.put(y.add(i), k, add);
        }
    }
}

impl Run<Cpu> for Add {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, y, count) = (call.device, call.dst(0), call.ins.len());
        let xs: [Src; MOST] = std::array::from_fn(|i| call.src(i.min(count - 1)));
        cpu.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            let mut row = [std::ptr::null(); MOST];
            for r in rows {
                // SAFETY: row `r` of all matrices lies in its arena and belongs to this thread. An element of every input
                // is read before it is written, so `y` may be the first input, even one that is listed twice.
                unsafe {
                    row.iter_mut().zip(&xs[..count]).for_each(|(row, x)| *row = x.ptr().add(r * x.pitch));
                    sum(cpu.isa, &row[..count], y.ptr().add(r * y.pitch), y.cols, y.adds());
                }
            }
        });
    }
}
