//! Squares are summed in f32 within [`BLOCK`] elements, in f64 across, in an order that depends on the length alone.

use super::{ClipNorm, ClipValue};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::{GRAIN, Parts, Slots};
use crate::device::cpu::view::put;
use crate::ops::Run;
use crate::simd;

/// Elements that are summed in f32: 64 to a lane of the widest vector.
const BLOCK: usize = 1024;

simd! {
    /// The sum of `n` squares.
    unsafe fn squares<V>(x: *const f32, n: usize) -> f64 {
        let mut sum = V::zero();
        for i in (0..n).step_by(V::N) {
            let x = V::take(x.add(i), V::N.min(n - i));
            sum = x.fma(x, sum);
        }
        let mut lanes = [0.0; 16];
        sum.put(lanes.as_mut_ptr(), V::N, false);
        lanes.iter().map(|&l| f64::from(l)).sum()
    }

    /// y (+)= scale x over `n` floats; `y` may be `x`.
    unsafe fn scaled<V>(scale: f32, x: *const f32, y: *mut f32, n: usize, add: bool) {
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            V::take(x.add(i), k).mul(V::splat(scale)).put(y.add(i), k, add);
        }
    }

    /// y (+)= max(-limit, min(limit, x)) over `n` floats; `y` may be `x`. Of two operands, `max` returns the second if one is
    /// not a number.
    unsafe fn clamped<V>(limit: f32, x: *const f32, y: *mut f32, n: usize, add: bool) {
        let (low, zero) = (V::splat(-limit), V::zero());
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            let above = low.max(V::take(x.add(i), k));
            zero.sub(low.max(zero.sub(above))).put(y.add(i), k, add);
        }
    }
}

/// Blocks are dealt to parts as rows are in a sum over rows.
fn parts(len: usize) -> (usize, Parts) {
    let blocks = len.div_ceil(BLOCK);
    (blocks, Parts::of(blocks))
}

impl Run<Cpu> for ClipNorm {
    fn scratch(&self, _: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        Slots::bytes(parts(ins[0].shape.len()).0, 1, 0)
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y, len) = (call.device, call.src(0), call.dst(0), call.src(0).cols);
        let (blocks, parts) = parts(len);
        let slots = Slots::new(call.scratch(), blocks, 1, 0);
        cpu.pool.parts(parts.count(), |part, _| {
            // SAFETY: this thread alone works on the part; a block lies in the vector.
            unsafe {
                let block = |b: usize| squares(cpu.isa, x.ptr().add(b * BLOCK), BLOCK.min(len - b * BLOCK));
                slots.part(part).0[0] = parts.rows(part).map(block).sum();
            }
        });
        // SAFETY: the loop is over, this thread alone holds the parts.
        let norm = (0..parts.count()).map(|part| unsafe { slots.part(part).0[0] }).sum::<f64>().sqrt();
        let scale = if norm.is_finite() { f64::min(1.0, self.limit / norm) as f32 } else { f32::NAN };
        cpu.pool.ranges(len, GRAIN, |range| {
            // SAFETY: the range lies in both vectors and belongs to this thread.
            unsafe { scaled(cpu.isa, scale, x.ptr().add(range.start), y.ptr().add(range.start), range.len(), y.adds()) }
        });
        // SAFETY: the loops are over, this thread alone writes the norm.
        unsafe { put(call.dst(1).ptr(), norm as f32, call.dst(1).adds()) };
    }
}

impl Run<Cpu> for ClipValue {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y, limit) = (call.device, call.src(0), call.dst(0), self.limit as f32);
        cpu.pool.ranges(x.cols, GRAIN, |range| {
            // SAFETY: the range lies in both vectors and belongs to this thread.
            unsafe { clamped(cpu.isa, limit, x.ptr().add(range.start), y.ptr().add(range.start), range.len(), y.adds()) }
        });
    }
}
