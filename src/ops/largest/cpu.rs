//! Without their sign bit the bits of floats are in the order of their magnitudes, infinity above every finite number and what is
//! not a number above infinity: the maximum of whole numbers is the answer, NaN included.

use super::Largest;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::GRAIN;
use crate::device::cpu::view::put;
use crate::ops::Run;
use crate::simd;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

simd! {
    /// The largest bits of `x` without their signs.
    unsafe fn magnitude<V>(x: &[f32]) -> u32 {
        x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff))
    }
}

impl Run<Cpu> for Largest {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y) = (call.device, call.src(0).flat(), call.dst(0));
        let most = AtomicU32::new(0);
        cpu.pool.ranges(x.len(), GRAIN, |range| {
            // SAFETY: slices know their lengths; the device's instruction set is available.
            most.fetch_max(unsafe { magnitude(cpu.isa, &x[range]) }, Relaxed);
        });
        // SAFETY: the loop is over, this thread alone writes the result.
        unsafe { put(y.ptr(), f32::from_bits(most.into_inner()), y.adds()) };
    }
}
