//! ReLU by vectors; the sigmoid, which heads of two classes alone have, lane by lane.

use super::{Act, Activation, ActivationDx};
use crate::device::Call;
use crate::device::cpu::simd::Vector;
use crate::device::cpu::view::put;
use crate::device::cpu::{Cpu, Dst};
use crate::ops::Run;
use crate::simd;

/// Floats per thread below which a loop is not worth sharing out.
const GRAIN: usize = 4096;

simd! {
    /// y (+)= max(x, 0) over `n` floats; `y` may be `x`. Of two operands, `max` returns the second if one is not a number: it stays.
    unsafe fn relu<V>(x: *const f32, y: *mut f32, n: usize, add: bool) {
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            V::zero().max(V::take(x.add(i), k)).put(y.add(i), k, add);
        }
    }

    /// dx (+)= dy where y > 0, over `n` floats; `dx` may be `dy`.
    unsafe fn relu_dx<V>(dy: *const f32, y: *const f32, dx: *mut f32, n: usize, add: bool) {
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            V::take(dy.add(i), k).where_positive(V::take(y.add(i), k)).put(dx.add(i), k, add);
        }
    }
}

/// act(z), for ops that fuse it.
///
/// # Safety
/// As for all of [`Vector`].
#[inline(always)]
pub(in crate::ops) unsafe fn apply<V: Vector>(act: Act, z: V) -> V {
    // SAFETY: the caller's promise; no vector is wider than sixteen floats.
    unsafe {
        match act {
            Act::Linear => z,
            Act::Relu => V::zero().max(z),
            Act::Sigmoid => {
                let mut lanes = [0f32; 16];
                z.store(lanes.as_mut_ptr());
                lanes[..V::N].iter_mut().for_each(|z| *z = 1.0 / (1.0 + (-*z).exp()));
                V::load(lanes.as_ptr())
            }
        }
    }
}

/// Rows handed to a thread at a time, so that a part has some [`GRAIN`] floats.
fn rows_per_part(dst: &Dst) -> usize {
    GRAIN.div_ceil(dst.cols.max(1))
}

impl Run<Cpu> for Activation {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y) = (call.device, call.src(0), call.dst(0));
        cpu.pool.ranges(y.rows, rows_per_part(&y), |rows| {
            for r in rows {
                // SAFETY: row `r` of both lies in its arena and belongs to this thread; `relu` and the scalar loop read
                // an element before they write it, so `y` may be `x`.
                unsafe {
                    let (from, to) = (x.ptr().add(r * x.pitch), y.ptr().add(r * y.pitch));
                    match self.act {
                        Act::Relu => relu(cpu.isa, from, to, y.cols, y.adds()),
                        Act::Linear => (0..y.cols).for_each(|c| put(to.add(c), *from.add(c), y.adds())),
                        Act::Sigmoid => (0..y.cols).for_each(|c| put(to.add(c), 1.0 / (1.0 + (-*from.add(c)).exp()), y.adds())),
                    }
                }
            }
        });
    }
}

impl Run<Cpu> for ActivationDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, dy, y, dx) = (call.device, call.src(0), call.src(1), call.dst(0));
        cpu.pool.ranges(dx.rows, rows_per_part(&dx), |rows| {
            for r in rows {
                // SAFETY: as in the forward op; `dx` may be `dy`.
                unsafe {
                    let (from, of, to) = (dy.ptr().add(r * dy.pitch), y.ptr().add(r * y.pitch), dx.ptr().add(r * dx.pitch));
                    match self.act {
                        Act::Relu => relu_dx(cpu.isa, from, of, to, dx.cols, dx.adds()),
                        Act::Linear => (0..dx.cols).for_each(|c| put(to.add(c), *from.add(c), dx.adds())),
                        Act::Sigmoid => (0..dx.cols).for_each(|c| {
                            let y = *of.add(c);
                            put(to.add(c), *from.add(c) * y * (1.0 - y), dx.adds());
                        }),
                    }
                }
            }
        });
    }
}
