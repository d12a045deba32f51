//! What the machine can do at best: fused multiply-adds that never leave the registers, and bytes through memory.

use crate::base::Math;
use crate::device::cpu::{Cpu, Isa, Pool};
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Peak arithmetic of an instruction set, a multiply-add counted as two operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    pub isa: Isa,
    /// What is multiplied: f32, or pairs of bf16.
    pub math: Math,
    pub threads: usize,
    pub flops_per_s: f64,
}

/// Bytes per second through memory, of operands far larger than the caches. A copy counts the bytes read and the bytes
/// written, but not those that the processor reads in order to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    pub threads: usize,
    pub read: f64,
    pub copy: f64,
}

/// Floats of the widest vector.
const WIDEST: usize = 16;
/// Independent sums: enough to hide the latency of a multiply-add on two units, few enough for sixteen registers.
const SUMS: usize = 12;

crate::simd! {
    /// `rounds` times `SUMS` independent multiply-adds of one vector each, from `SUMS` vectors of floats at `start`; their sum, a
    /// vector, goes to `result`.
    unsafe fn multiply_adds<V>(rounds: usize, start: *const f32, result: *mut f32) {
        let (factor, term) = (V::splat(black_box(0.999)), V::splat(black_box(0.001)));
        let at = |sum: usize| V::load(start.add(sum * V::N));
        // Named one by one, because an array of registers is one only as long as the compiler sees through every index.
        let (mut a, mut b, mut c, mut d, mut e, mut f) = (at(0), at(1), at(2), at(3), at(4), at(5));
        let (mut g, mut h, mut i, mut j, mut k, mut l) = (at(6), at(7), at(8), at(9), at(10), at(11));
        for _ in 0..rounds {
            (a, b, c, d) = (a.fma(factor, term), b.fma(factor, term), c.fma(factor, term), d.fma(factor, term));
            (e, f, g, h) = (e.fma(factor, term), f.fma(factor, term), g.fma(factor, term), h.fma(factor, term));
            (i, j, k, l) = (i.fma(factor, term), j.fma(factor, term), k.fma(factor, term), l.fma(factor, term));
        }
        let sum = a.add(b).add(c.add(d)).add(e.add(f).add(g.add(h))).add(i.add(j).add(k.add(l)));
        sum.store(result);
    }

    /// The sum of the vectors of `n` floats, `n` a multiple of four vectors, goes to `result`.
    unsafe fn total<V>(x: *const f32, n: usize, result: *mut f32) {
        let [mut a, mut b, mut c, mut d] = [V::zero(); 4];
        let mut i = 0;
        while i < n {
            a = a.add(V::load(x.add(i)));
            b = b.add(V::load(x.add(i + V::N)));
            c = c.add(V::load(x.add(i + 2 * V::N)));
            d = d.add(V::load(x.add(i + 3 * V::N)));
            i += 4 * V::N;
        }
        a.add(b).add(c.add(d)).store(result);
    }
}

/// `rounds` times `SUMS` independent sums of two products of bf16 more in each lane, from `SUMS` vectors of floats at `start`; their sum, a
/// vector, goes to `result`.
///
/// # Safety
/// The processor has the instructions, `start` holds the vectors and `result` one.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs_of_products(rounds: usize, start: *const f32, result: *mut f32) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise; a vector of floats and one of pairs of bf16 are the same 64 bytes.
    unsafe {
        // Both halves of a word are about 0.03, so that sums stay small for as many rounds as are measured.
        let factor: __m512bh = std::mem::transmute(_mm512_set1_epi32(black_box(0x3d00_3d00)));
        let mut sums: [__m512; SUMS] = std::array::from_fn(|sum| _mm512_loadu_ps(start.add(16 * sum)));
        for _ in 0..rounds {
            // As many as `SUMS`, with indices that the compiler sees through.
            macro_rules! each { ($($i:literal)*) => { $(sums[$i] = _mm512_dpbf16_ps(sums[$i], factor, factor);)* } }
            each!(0 1 2 3 4 5 6 7 8 9 10 11);
        }
        let total = sums.into_iter().fold(_mm512_setzero_ps(), |total, sum| _mm512_add_ps(total, sum));
        _mm512_storeu_ps(result, total);
    }
}

/// The fastest of some runs, in seconds.
fn fastest(runs: usize, mut f: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(time).fold(f64::INFINITY, f64::min)
}

/// Peak arithmetic of an instruction set (of the portable one if this machine lacks it), on every thread of `pool`: in f32, or in bf16 where
/// the instruction set has that.
///
/// All threads compute at the same time and each has its own clock; the rates of their fastest runs are added. The runs are
/// short and many, so that each thread meets one in which nothing else wanted its core.
pub fn arithmetic(isa: Isa, math: Math, pool: &Pool) -> Arithmetic {
    let isa = if isa.available() { isa } else { Isa::Portable };
    let math = if math == Math::Bf16 && isa.has_bf16() { math } else { Math::Full };
    let products = if math == Math::Bf16 { 2 } else { 1 };
    let (rounds, runs) = (100_000, 100);
    // Lanes that differ, or the compiler would compute one of them and copy it.
    let start: Vec<f32> = (0..SUMS * isa.lanes()).map(|i| i as f32).collect();
    let total = Mutex::new(0.0);
    pool.run(&|_| {
        let seconds = fastest(runs, || {
            let mut result = [0f32; WIDEST];
            // SAFETY: `start` holds `SUMS` vectors, `result` one, and `isa` was found to be available, with its products of bf16.
            unsafe {
                match math {
                    #[cfg(target_arch = "x86_64")]
                    Math::Bf16 => pairs_of_products(rounds, start.as_ptr(), result.as_mut_ptr()),
                    _ => multiply_adds(isa, rounds, start.as_ptr(), result.as_mut_ptr()),
                }
            }
            // Every lane is looked at, or the compiler would leave out those that are not.
            black_box(result);
        });
        let flops = (2 * products * SUMS * isa.lanes() * rounds) as f64;
        *total.lock().unwrap_or_else(PoisonError::into_inner) += flops / seconds;
    });
    let flops_per_s = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    Arithmetic { isa, math, threads: pool.threads(), flops_per_s }
}

/// Bandwidth of memory, on every thread of the device.
pub fn bandwidth(cpu: &Cpu) -> Bandwidth {
    let floats = 32 << 20; // 128 MiB, several times the last cache of most machines
    let grain = 64;
    let (x, mut y) = (vec![1f32; floats], vec![0f32; floats]);
    let read = fastest(10, || {
        cpu.pool.ranges(floats, grain, |range| {
            let (part, mut result) = (&x[range], [0f32; WIDEST]);
            // SAFETY: `part` holds that many floats, a multiple of 64, which is four vectors of any instruction set.
            unsafe { total(cpu.isa, part.as_ptr(), part.len(), result.as_mut_ptr()) };
            black_box(result);
        });
    });
    let each = floats.div_ceil(cpu.threads());
    let parts: Vec<Mutex<&mut [f32]>> = y.chunks_mut(each).map(Mutex::new).collect();
    let copy = fastest(10, || {
        cpu.pool.parts(parts.len(), |part, _| {
            if let Ok(mut target) = parts[part].lock() {
                let start = part * each;
                let len = target.len();
                target.copy_from_slice(&x[start..start + len]);
            }
        });
    });
    let bytes = (floats * size_of::<f32>()) as f64;
    Bandwidth { threads: cpu.threads(), read: bytes / read, copy: 2.0 * bytes / copy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn pairs_are_added_twice_in_each_round() {
        if !Isa::best().has_bf16() {
            return println!("left out: this processor has no products of bf16");
        }
        let mut sums = [0f32; WIDEST];
        // SAFETY: there are twelve vectors and one, and the processor has the instruction.
        unsafe { pairs_of_products(64, [0f32; SUMS * WIDEST].as_ptr(), sums.as_mut_ptr()) };
        // 1/32 squared is 2^-10, two of them in each of 64 rounds and 12 sums: exact.
        assert!(sums.iter().all(|&sum| sum == 1.5), "{sums:?}");
    }

    #[test]
    fn the_loops_compute_what_they_are_timed_for() {
        let x: Vec<f32> = (0..128).map(|i| (i % 7) as f32).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            // A sum s becomes 0.999 s + 0.001, which leaves 1 where it is and draws the others towards it.
            let start = vec![3f32; SUMS * isa.lanes()];
            let mut drawn = [0f32; WIDEST];
            // SAFETY: `start` holds twelve vectors, `drawn` one, and the instruction set is available.
            unsafe { multiply_adds(isa, 20_000, start.as_ptr(), drawn.as_mut_ptr()) };
            assert!(drawn[..isa.lanes()].iter().all(|x| (x - SUMS as f32).abs() < 1e-2), "{isa}: {drawn:?}");
            // Lane 0 sums every element at a multiple of the vector's length.
            let lane: f32 = x.iter().step_by(isa.lanes()).sum();
            let mut sums = [0f32; WIDEST];
            // SAFETY: `x` holds 128 floats, `sums` a vector.
            unsafe { total(isa, x.as_ptr(), x.len(), sums.as_mut_ptr()) };
            assert_eq!(sums[0], lane, "{isa}");
        }
    }
}
