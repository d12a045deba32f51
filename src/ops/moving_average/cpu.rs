use super::MovingAverage;
use crate::device::Call;
use crate::device::cpu::Cpu;
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
        let (stay, enter) = (self.momentum as f32, (1.0 - self.momentum) as f32);
        for out in 0..call.outs.len() {
            let (moving, batch, y) = (call.src(2 * out).flat(), call.src(2 * out + 1).flat(), call.dst(out));
            // SAFETY: the three vectors are equally long, by shape inference; one thread writes the result, and an element is
            // read before it is written, so `y` may be `moving`.
            unsafe { blend(call.device.isa, moving.as_ptr(), batch.as_ptr(), y.ptr(), y.cols, stay, enter, y.adds()) };
        }
    }
}
