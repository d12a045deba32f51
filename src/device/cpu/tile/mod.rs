//! Register tiles: the innermost loops of convolution and matrix product.
//!
//! A tile keeps `rows` x `vectors` running sums in registers and never touches memory for them. [`strip`] sums over
//! channels (results: pixels x output channels); [`outer`] sums over pixels (results: input channels x output channels).
//! Each is compiled for every tile size up to the instruction set's own, so that an edge costs no wasted arithmetic.
//!
//! The sums are an array indexed by literals alone: an index the compiler does not see through would put the whole array
//! on the stack, at a third of the speed and without a warning. Hence the macro [`unroll`].

mod outer;
mod strip;

pub use outer::{Outer, outer};
pub use strip::{Strip, strip};

use super::Isa;
use super::simd::{Vector, prefetch};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};

/// The largest tile of an instruction set: as many sums as its registers hold beside the operands.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Pixels of a strip, input channels of an outer product.
    pub rows: usize,
    /// Vectors of output channels.
    pub vectors: usize,
    /// Floats of a vector.
    pub lanes: usize,
}

impl Tile {
    /// 28 of AVX-512's 32 registers, 12 of AVX2's 16; eight floats are two of SSE's 16.
    pub fn of(isa: Isa) -> Self {
        let (rows, vectors) = match isa {
            Isa::Avx512 => (14, 2),
            Isa::Avx2 => (6, 2),
            Isa::Portable => (4, 1),
        };
        Tile { rows, vectors, lanes: isa.lanes() }
    }

    /// Output channels of a whole tile.
    pub fn width(self) -> usize {
        self.vectors * self.lanes
    }
}

/// Floats of a cache line.
pub const LINE: usize = 16;

/// Cache lines that a tile asks for while it is at work, one with each step of its sum: operands that come next. They need not be valid.
#[derive(Clone, Copy)]
pub struct Ahead {
    pub first: *const f32,
    /// Floats from one to the next.
    pub step: usize,
    /// For an outer product, lines up to the end of a row, at least one, of the first one and of the others, and the floats that it skips then.
    pub left: usize,
    pub row: usize,
    pub gap: usize,
}

impl Ahead {
    /// Lines `step` floats apart.
    pub fn new(first: *const f32, step: usize) -> Self {
        Ahead { first, step, left: usize::MAX, row: usize::MAX, gap: 0 }
    }

    /// The line at `p` again and again, which a tile reads anyway.
    pub fn nothing(p: *const f32) -> Self {
        Self::new(p, 0)
    }

    /// Of strips of `rows` pixels of `words`, what the second strip from the one at `x` reads, if pixels lie one after the other.
    pub fn strips(x: *const f32, pixel: usize, words: usize, rows: usize) -> Self {
        match pixel <= words + LINE {
            true => Self::new(x.wrapping_add(2 * rows * pixel), LINE),
            false => Self::nothing(x),
        }
    }

    /// Of an operand of an outer product, what it reads some pixels later: the third-level cache answers in about the time of eight pixels
    /// of a large tile.
    pub fn pixels(x: *const f32, pixel: usize) -> Self {
        Self::new(x.wrapping_add(8 * pixel), pixel)
    }
}

/// Asks for `rows` rows of `cols` floats, `pitch` apart, all at once before a tile: what its results are added to or become. The lines are
/// there when its sums are done, and come while it computes. They need not be valid.
pub fn ask(p: *const f32, pitch: usize, rows: usize, cols: usize) {
    for row in 0..rows {
        for col in (0..cols).step_by(LINE) {
            prefetch(p.wrapping_add(row * pitch + col));
        }
    }
}

/// Splits `count` into the fewest runs of at most `most`, as even as they can be: 35 by 14 is 12, 12, 11.
pub fn even_runs(count: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let runs = count.div_ceil(most);
    (0..runs).map(move |i| share(count, runs, i))
}

/// Share `i` of `count` things dealt out to `shares`, the first ones getting one more where it does not come out even.
pub fn share(count: usize, shares: usize, i: usize) -> std::ops::Range<usize> {
    let (each, more) = (count / shares, count % shares);
    let start = i * each + i.min(more);
    start..start + each + usize::from(i < more)
}

/// What a tile multiplies: the sum with one more term.
trait Product<V> {
    /// `sum + value * weights`.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn add(value: V, weights: V, sum: V) -> V;
}

/// A float in each lane.
struct Floats;

impl<V: Vector> Product<V> for Floats {
    #[inline(always)]
    unsafe fn add(value: V, weights: V, sum: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { value.fma(weights, sum) }
    }
}

/// A word of two bf16 in each lane: both products are added.
#[cfg(target_arch = "x86_64")]
struct Pairs;

#[cfg(target_arch = "x86_64")]
impl Product<__m512> for Pairs {
    #[inline(always)]
    unsafe fn add(value: __m512, weights: __m512, sum: __m512) -> __m512 {
        // SAFETY: the caller's promise; the types name the same 64 bytes.
        unsafe { _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512, __m512bh>(weights), std::mem::transmute::<__m512, __m512bh>(value)) }
    }
}

/// Repeats a block for the constant index 0, 1, .. below `M` rows or `N` vectors of a tile.
macro_rules! unroll {
    ($m:ident < M, $block:block) => { unroll!(@ $m M $block 0 1 2 3 4 5 6 7 8 9 10 11 12 13) };
    ($n:ident < N, $block:block) => { unroll!(@ $n N $block 0 1) };
    (@ $m:ident $count:ident $block:block $($i:literal)*) => {{$(
        if $i < $count {
            #[allow(non_upper_case_globals)]
            const $m: usize = $i;
            $block
        }
    )*}};
}
use unroll;

/// The table of a kernel's sizes: `[rows - 1][vectors - 1]`.
macro_rules! sizes {
    ($kernel:ident: $($m:literal)*) => { [$([$kernel::<$m, 1> as Kernel, $kernel::<$m, 2>]),*] };
}
use sizes;

/// Compiles a body over `<V: Vector, P: Product<V>, const M: usize, const N: usize>` for every tile size of every instruction set, on
/// floats and, with AVX-512, on pairs of bf16, and defines the function that picks one.
macro_rules! instantiate {
    ($(#[$doc:meta])* $pick:ident of $args:ty) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx2,fma")]
        unsafe fn avx512<const M: usize, const N: usize>(args: &$args) {
            // SAFETY: the caller's promise; the instruction set is that of this function.
            unsafe { body::<std::arch::x86_64::__m512, Floats, M, N>(args) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx2,fma,avx512bf16")]
        unsafe fn pairs<const M: usize, const N: usize>(args: &$args) {
            // SAFETY: as above.
            unsafe { body::<std::arch::x86_64::__m512, $crate::device::cpu::tile::Pairs, M, N>(args) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<const M: usize, const N: usize>(args: &$args) {
            // SAFETY: as above.
            unsafe { body::<std::arch::x86_64::__m256, Floats, M, N>(args) }
        }

        unsafe fn portable<const M: usize, const N: usize>(args: &$args) {
            // SAFETY: as above.
            unsafe { body::<$crate::device::cpu::simd::Eight, Floats, M, N>(args) }
        }

        $(#[$doc])*
        /// Under [`Math::Bf16`], what counts floats of the operands counts words of two bf16.
        ///
        /// # Panics
        /// If the tile is larger than the instruction set's own, [`Tile::of`](super::Tile::of), or the machine does not multiply so.
        pub fn $pick(isa: $crate::device::cpu::Isa, math: Math, rows: usize, vectors: usize) -> unsafe fn(&$args) {
            type Kernel = unsafe fn(&$args);
            assert!(math == Math::Full || (math == Math::Bf16 && isa.has_bf16()), "{isa} does not multiply in {math:?}");
            match isa {
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::Isa::Avx512 => {
                    const SIZES: [[Kernel; 2]; 14] = $crate::device::cpu::tile::sizes!(avx512: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                    const PAIRS: [[Kernel; 2]; 14] = $crate::device::cpu::tile::sizes!(pairs: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                    let sizes = if math == Math::Bf16 { &PAIRS } else { &SIZES };
                    sizes[rows - 1][vectors - 1]
                }
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::Isa::Avx2 => {
                    const SIZES: [[Kernel; 2]; 6] = $crate::device::cpu::tile::sizes!(avx2: 1 2 3 4 5 6);
                    SIZES[rows - 1][vectors - 1]
                }
                _ => {
                    const SIZES: [[Kernel; 2]; 4] = $crate::device::cpu::tile::sizes!(portable: 1 2 3 4);
                    SIZES[rows - 1][vectors - 1]
                }
            }
        }
    };
}
use instantiate;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Math;
    use crate::device::cpu::Pool;

    #[test]
    fn runs_are_even_and_cover() {
        let lengths = |count, most| even_runs(count, most).map(|r| r.len()).collect::<Vec<_>>();
        assert_eq!(lengths(35, 14), [12, 12, 11]);
        assert_eq!(lengths(14, 14), [14]);
        assert_eq!(lengths(1, 14), [1]);
        assert!(lengths(0, 14).is_empty());
        assert_eq!((0..3).map(|i| share(8, 3, i)).collect::<Vec<_>>(), [0..3, 3..6, 6..8]);
    }

    /// Multiply-adds per second of the fastest of many short runs of `kernel`, one of which is `terms` multiply-adds: among so many is one in
    /// which nothing else wanted the core.
    fn rate(terms: usize, mut kernel: impl FnMut()) -> f64 {
        let calls = 5_000_000 / terms;
        let time = |_| {
            let start = std::time::Instant::now();
            (0..calls).for_each(|_| kernel());
            start.elapsed().as_secs_f64()
        };
        (calls * terms) as f64 / (0..300).map(time).fold(f64::INFINITY, f64::min)
    }

    /// Sums that the compiler left on the stack cost two thirds of the speed and nothing else shows it: operands in the first-level cache are
    /// multiplied at well over half of the peak.
    #[test]
    fn sums_stay_in_registers() {
        if cfg!(debug_assertions) {
            return println!("left out: this build is not optimized");
        }
        const DEPTH: usize = 128;
        for isa in [Isa::Avx512, Isa::Avx2].into_iter().filter(|isa| isa.available()) {
            let (tile, maths) = (Tile::of(isa), [Math::Full, Math::Bf16]);
            let [x, w] = [tile.rows, tile.width()].map(|width| vec![0f32; width * DEPTH]);
            let mut y = vec![0f32; tile.rows * tile.width()];
            for math in maths.into_iter().filter(|&math| math == Math::Full || isa.has_bf16()) {
                let peak = crate::profile::arithmetic(isa, math, &Pool::new(1)).flops_per_s / 2.0;
                let terms = DEPTH * tile.rows * tile.width() * if math == Math::Bf16 { 2 } else { 1 };
                let strip_args = Strip {
                    x: x.as_ptr(),
                    pixel: DEPTH,
                    rows: 1,
                    row: 0,
                    taps: 1,
                    tap: 0,
                    depth: DEPTH,
                    w: w.as_ptr(),
                    y: y.as_mut_ptr(),
                    y_pixel: tile.width(),
                    cols: tile.width(),
                    add: false,
                    ahead: Ahead::nothing(x.as_ptr()),
                };
                let outer_args = Outer {
                    images: 1,
                    rows: 1,
                    pixels: DEPTH,
                    x: x.as_ptr(),
                    x_image: 0,
                    x_row: 0,
                    x_pixel: tile.rows,
                    dy: w.as_ptr(),
                    dy_image: 0,
                    dy_row: 0,
                    dy_pixel: tile.width(),
                    w: y.as_mut_ptr(),
                    w_row: tile.width(),
                    cols: tile.width(),
                    add: false,
                    ahead: Ahead::nothing(x.as_ptr()),
                };
                let (strip, outer) = (strip(isa, math, tile.rows, tile.vectors), outer(isa, math, tile.rows, tile.vectors));
                // SAFETY: both read all of `x` and `w` and write all of `y`.
                let rates = unsafe { [rate(terms, || strip(&strip_args)), rate(terms, || outer(&outer_args))] };
                for (name, rate) in ["strip", "outer"].into_iter().zip(rates) {
                    println!("{isa} {name} {math:?}: {:.0}% of the peak", 100.0 * rate / peak);
                    assert!(rate > 0.6 * peak, "{isa} {name} in {math:?}: {:.0}% of the peak", 100.0 * rate / peak);
                }
            }
        }
    }
}
