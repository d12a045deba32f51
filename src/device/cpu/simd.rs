//! One vector type per instruction set, and the macro that compiles a loop for all of them.
//!
//! A loop is written once over [`Vector`]; [`simd!`](crate::simd) makes a function that picks the instruction set at
//! run time. Every method is `inline(always)`, so that it ends up inside a function compiled for that instruction set.

use crate::error::{Error, Result};
use std::fmt;

/// An instruction set of the CPU device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// 512-bit vectors, 32 registers, masks.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// Arrays of eight floats; whatever the compiler makes of them. Multiplies and adds are rounded separately.
    Portable,
}

impl Isa {
    /// All of them, best first.
    pub const ALL: [Isa; 3] = [Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f") && Isa::Avx2.available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The best this machine has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|isa| isa.available()).unwrap_or(Isa::Portable)
    }

    /// The one called `name`.
    ///
    /// # Errors
    /// When the name is unknown or the machine lacks it.
    pub fn named(name: &str) -> Result<Self> {
        let isa = Self::ALL.into_iter().find(|isa| isa.to_string() == name);
        let isa = isa.ok_or_else(|| Error::input(format!("{name:?} is none of avx512, avx2, portable")).at("DEFROST_ISA"))?;
        if isa.available() { Ok(isa) } else { Err(Error::machine(format!("this processor has no {isa}")).at("DEFROST_ISA")) }
    }

    /// Floats in one of its vectors.
    pub fn lanes(self) -> usize {
        if self == Isa::Avx512 { 16 } else { 8 }
    }

    /// Whether this machine has products of bf16 for its vectors, two to a lane (AVX512_BF16).
    pub fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Isa::Avx512 && is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        })
    }
}

/// Asks for the cache line at `p`, which need not be valid.
#[inline(always)]
pub fn prefetch(p: *const f32) {
    // SAFETY: a hint, which touches no memory that the program can see.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// A vector of `N` floats.
///
/// # Safety
/// Methods that take pointers need `N` (or `n`) valid floats there; all methods need the instruction set to exist on this
/// machine, which holds inside a function made by [`simd!`](crate::simd).
#[allow(clippy::missing_safety_doc)] // one contract for all methods, stated above
pub unsafe trait Vector: Copy {
    /// Number of floats.
    const N: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// The first `n < N` floats; the others are zero.
    unsafe fn load_n(p: *const f32, n: usize) -> Self;
    /// Stores the first `n < N` floats.
    unsafe fn store_n(self, p: *mut f32, n: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// `self * a + b`.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// `self` where `gate > 0`, else zero.
    unsafe fn where_positive(self, gate: Self) -> Self;
    /// All zeros.
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self::splat(0.0) }
    }
    /// The first `n <= N` floats: a whole vector in the body of a loop, a partial one at its end.
    #[inline(always)]
    unsafe fn take(p: *const f32, n: usize) -> Self {
        unsafe { if n == Self::N { Self::load(p) } else { Self::load_n(p, n) } }
    }
    /// Stores the first `n <= N` floats, or adds them to what lies there.
    #[inline(always)]
    unsafe fn put(self, p: *mut f32, n: usize, add: bool) {
        unsafe {
            let sum = if add { self.add(Self::take(p, n)) } else { self };
            if n == Self::N { sum.store(p) } else { sum.store_n(p, n) }
        }
    }
}

/// Eight floats in an array: the portable vector.
#[derive(Clone, Copy)]
pub struct Eight([f32; 8]);

macro_rules! lanewise {
    ($a:expr, $b:expr, $f:expr) => {{
        let (a, b) = ($a.0, $b.0);
        let mut out = [0.0; 8];
        let mut i = 0;
        while i < 8 {
            out[i] = $f(a[i], b[i]);
            i += 1;
        }
        Eight(out)
    }};
}

// SAFETY: plain array arithmetic; the pointer methods read and write exactly `N` or `n` floats.
unsafe impl Vector for Eight {
    const N: usize = 8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Eight([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { Eight(p.cast::<[f32; 8]>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> Self {
        let mut out = [0.0; 8];
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), n) };
        Eight(out)
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, n: usize) {
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), p, n) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| a / b)
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        lanewise!(self, self, |a: f32, _| a.sqrt())
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        lanewise!(self, other, |a: f32, b: f32| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        unsafe { self.mul(a).add(b) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        lanewise!(self, gate, |a: f32, g: f32| if g > 0.0 { a } else { 0.0 })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    // SAFETY: each method is one AVX-512F instruction (masked for partial vectors, so that no byte beyond `n` is touched).
    unsafe impl Vector for __m512 {
        const N: usize = 16;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn load_n(p: *const f32, n: usize) -> Self {
            unsafe { _mm512_maskz_loadu_ps((1u16 << n) - 1, p) }
        }
        #[inline(always)]
        unsafe fn store_n(self, p: *mut f32, n: usize) {
            unsafe { _mm512_mask_storeu_ps(p, (1u16 << n) - 1, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm512_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { _mm512_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { _mm512_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            unsafe { _mm512_div_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sqrt(self) -> Self {
            unsafe { _mm512_sqrt_ps(self) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { _mm512_max_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, a, b) }
        }
        #[inline(always)]
        unsafe fn where_positive(self, gate: Self) -> Self {
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), self) }
        }
    }

    #[inline(always)]
    unsafe fn first(n: usize) -> __m256i {
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }

    // SAFETY: each method is one AVX2 or FMA instruction (masked for partial vectors).
    unsafe impl Vector for __m256 {
        const N: usize = 8;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm256_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn load_n(p: *const f32, n: usize) -> Self {
            unsafe { _mm256_maskload_ps(p, first(n)) }
        }
        #[inline(always)]
        unsafe fn store_n(self, p: *mut f32, n: usize) {
            unsafe { _mm256_maskstore_ps(p, first(n), self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { _mm256_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { _mm256_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            unsafe { _mm256_div_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sqrt(self) -> Self {
            unsafe { _mm256_sqrt_ps(self) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { _mm256_max_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, a, b) }
        }
        #[inline(always)]
        unsafe fn where_positive(self, gate: Self) -> Self {
            unsafe { _mm256_and_ps(self, _mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps())) }
        }
    }
}

/// Defines a function whose body is compiled once per instruction set and picked by its first argument, `isa`.
///
/// ```ignore
/// simd! {
///     /// y = max(x, 0) over `n` floats.
///     pub unsafe fn relu<V>(x: *const f32, y: *mut f32, n: usize) { ... V::load(x.add(i)) ... }
/// }
/// ```
#[macro_export]
macro_rules! simd {
    ($($(#[$doc:meta])* $vis:vis unsafe fn $name:ident<$V:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// The pointers must be valid for the extents the text above names, and `isa` available on this machine.
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::device::cpu::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            // A loop over slices of f64 needs neither `unsafe` nor the vector type, only the instruction set.
            #[allow(clippy::extra_unused_type_parameters, clippy::macro_metavars_in_unsafe, unused_unsafe)]
            #[allow(clippy::too_many_arguments)]
            unsafe fn body<$V: $crate::device::cpu::simd::Vector>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise; each instantiation runs on a machine that has its instructions.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                unsafe { body::<std::arch::x86_64::__m512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                unsafe { body::<std::arch::x86_64::__m256>($($arg),*) }
            }
            // SAFETY: `isa` is available (the caller's promise), so the chosen function's instructions exist.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::device::cpu::Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::device::cpu::Isa::Avx2 => avx2($($arg),*),
                    _ => body::<$crate::device::cpu::simd::Eight>($($arg),*),
                }
            }
        }
    )+};
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::simd! {
        /// y = relu(2 x + 1) over `n` floats, partial vectors included.
        unsafe fn sample<V>(x: *const f32, y: *mut f32, n: usize) {
            let mut i = 0;
            while i < n {
                let k = V::N.min(n - i);
                let z = V::take(x.add(i), k).fma(V::splat(2.0), V::splat(1.0));
                z.where_positive(z).put(y.add(i), k, false);
                i += k;
            }
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same_and_stays_in_bounds() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for n in 0..40 {
                let x: Vec<f32> = (0..n).map(|i| i as f32 - 11.0).collect();
                let mut y = vec![7.0; n + 1];
                // SAFETY: both hold `n` floats.
                unsafe { sample(isa, x.as_ptr(), y.as_mut_ptr(), n) };
                for i in 0..n {
                    assert_eq!(y[i], (2.0 * x[i] + 1.0).max(0.0), "{isa}, {n} floats");
                }
                assert_eq!(y[n], 7.0);
            }
        }
    }
}
