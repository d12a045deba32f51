use super::MovingAverage;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::rows_per_share;
use crate::ops::Run;
use crate::simd;

simd! {
    /// y (+)= moving * stay + batch * enter over `n` floats; `y` may be `moving`.
    unsafe fn blend<V>(moving: *const f32, batch: *const f32, y: *mut f32, n: usize, stay: f32, enter: f32, add: bool) {
        let (stay, enter) = (V::splat(stay), V::splat(enter));
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            let entering = V::take(batch.add(i), k).mul(enter);
            V::take(moving.add(i), k).fma(stay, entering).put(y.add(i), k, add);
        }
    }
}

impl Run<Cpu> for MovingAverage {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, moving, batch, y) = (call.device, call.src(0), call.src(1), call.dst(0));
        let (stay, enter) = (self.momentum as f32, (1.0 - self.momentum) as f32);
        cpu.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            for r in rows {
                // SAFETY: row `r` of all three lies in its arena and belongs to this thread; an element is read before it
                // is written, so `y` may be `moving`.
                unsafe {
                    let (from, with) = (moving.ptr().add(r * moving.pitch), batch.ptr().add(r * batch.pitch));
                    blend(cpu.isa, from, with, y.ptr().add(r * y.pitch), y.cols, stay, enter, y.adds());
                }
            }
        });
    }
}
