//! The transforms of one tile, all channels, a vector of them at a time.
//!
//! A transform in two dimensions is one along the rows and one along the columns. Results of a product `x` of the tile lie in plane
//! `x` of a buffer, `plane` floats after those of the one before.
//!
//! Loops count over rows and columns of a tile, whose length is a constant: the compiler unrolls them, and the arrays are registers.

#![allow(clippy::needless_range_loop)] // the counters are coordinates of planes and pixels as well

use super::Size;
use super::form::{Form, Four, Two};
use super::tiles::Pixels;
use crate::device::cpu::Src;
use crate::device::cpu::simd::Vector;
use crate::ops::activation::Act;
use crate::ops::activation::cpu::apply;
use crate::ops::conv2d::cpu::forward::Finish;
use crate::ops::scale_shift::cpu::Coefficients;
use crate::simd;

/// `act(sum * scale + bias)` of some columns; absent vectors are null.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub scale: *const f32,
    pub bias: *const f32,
    pub act: Act,
}

impl Ending {
    /// That of a pass.
    pub fn of(finish: &Finish) -> Self {
        let vector = |v: Option<Src>| v.map_or(std::ptr::null(), |v| v.ptr());
        Ending { scale: vector(finish.scale), bias: vector(finish.bias), act: finish.act }
    }

    /// Scale and bias of the `n` columns from `c` on.
    ///
    /// # Safety
    /// The vectors that exist have `c + n` floats; the instruction set of `V` must be there.
    #[inline(always)]
    pub unsafe fn vectors<V: Vector>(&self, c: usize, n: usize) -> (V, V) {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = if self.scale.is_null() { V::splat(1.0) } else { V::take(self.scale.add(c), n) };
            (scale, if self.bias.is_null() { V::zero() } else { V::take(self.bias.add(c), n) })
        }
    }
}

/// Where a tile's results go: its first, the floats to the next row and column, and the rows and columns that exist.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub first: *mut f32,
    pub apart: [usize; 2],
    pub extent: [usize; 2],
    pub add: bool,
}

simd! {
    /// Plane x gets `(B^T d B)[x]` of a tile's inputs, `channels` floats each; whole vectors are written.
    pub(super) unsafe fn input<V>(size: Size, from: &Pixels, channels: usize, to: *mut f32, plane: usize) {
        match size {
            Size::Two => spread::<V, TwoInput, Plain, 4, 4>(from, Plain, channels, to, plane),
            Size::Four => spread::<V, FourInput, Plain, 6, 6>(from, Plain, channels, to, plane),
        }
    }

    /// The same of inputs that are normalised on the way in, all of which exist.
    pub(super) unsafe fn input_inside<V>(size: Size, from: &Pixels, pre: Coefficients, channels: usize, to: *mut f32, plane: usize) {
        match size {
            Size::Two => spread::<V, TwoInput, Inside, 4, 4>(from, Inside(pre), channels, to, plane),
            Size::Four => spread::<V, FourInput, Inside, 6, 6>(from, Inside(pre), channels, to, plane),
        }
    }

    /// The same of inputs that are normalised on the way in, but for the pixels at `zeros`, which stay zero.
    pub(super) unsafe fn input_edge<V>(size: Size, from: &Pixels, pre: Coefficients, zeros: *const f32, channels: usize, to: *mut f32, plane: usize) {
        match size {
            Size::Two => spread::<V, TwoInput, Edge, 4, 4>(from, Edge(pre, zeros), channels, to, plane),
            Size::Four => spread::<V, FourInput, Edge, 6, 6>(from, Edge(pre, zeros), channels, to, plane),
        }
    }

    /// Plane x gets `(A dy A^T)[x]` of the gradients of a tile's results, `channels` floats each; whole vectors are written.
    pub(super) unsafe fn gradient<V>(size: Size, from: &Pixels, channels: usize, to: *mut f32, plane: usize) {
        match size {
            Size::Two => spread::<V, TwoGradient, Plain, 2, 4>(from, Plain, channels, to, plane),
            Size::Four => spread::<V, FourGradient, Plain, 4, 6>(from, Plain, channels, to, plane),
        }
    }

    /// A tile's results (+)= act((A^T p A) scale + bias) of the `cols` columns of the planes.
    pub(super) unsafe fn output<V>(size: Size, from: *const f32, plane: usize, cols: usize, to: Target, ending: Ending) {
        match size {
            Size::Two => gather::<V, Two, 2, 4>(from, plane, cols, to, ending),
            Size::Four => gather::<V, Four, 4, 6>(from, plane, cols, to, ending),
        }
    }

    /// `(G g G^T)[x]` in plane x of `floats` floats from `at` on, where the last nine planes hold the taps g.
    pub(super) unsafe fn filter<V>(size: Size, at: *mut f32, plane: usize, floats: usize) {
        match size {
            Size::Two => raise::<V, Two, 2, 4>(at, plane, floats),
            Size::Four => raise::<V, Four, 4, 6>(at, plane, floats),
        }
    }

    /// Taps `(G^T u G)`, `tap` floats apart, (+)= of the sum of `copies` buffers of planes, `copy` floats apart, over `floats` floats.
    pub(super) unsafe fn taps<V>(size: Size, from: *const f32, plane: usize, copies: usize, copy: usize, floats: usize, to: *mut f32, tap: usize, add: bool) {
        match size {
            Size::Two => lower::<V, Two, 2, 4>(from, plane, copies, copy, floats, to, tap, add),
            Size::Four => lower::<V, Four, 4, 6>(from, plane, copies, copy, floats, to, tap, add),
        }
    }
}

/// What happens along an axis on the way from pixels to planes.
trait Along<const N: usize, const A: usize> {
    /// # Safety
    /// The instruction set of `V` must be there.
    unsafe fn along<V: Vector>(d: [V; N]) -> [V; A];
}

/// Names one transform of one form.
macro_rules! along {
    ($($name:ident: $form:ident::$method:ident, $n:literal to $a:literal;)*) => {$(
        struct $name;
        impl Along<$n, $a> for $name {
            #[inline(always)]
            unsafe fn along<V: Vector>(d: [V; $n]) -> [V; $a] {
                // SAFETY: the caller's promise.
                unsafe { $form::$method(d) }
            }
        }
    )*};
}
along! {
    TwoInput: Two::input, 4 to 4;
    FourInput: Four::input, 6 to 6;
    TwoGradient: Two::gradient, 2 to 4;
    FourGradient: Four::gradient, 4 to 6;
}

/// How a pixel is read: the first `n` channels from `c` on at `pixel`.
pub(super) trait Read: Copy {
    /// # Safety
    /// The pixel has `c + n` floats; the instruction set of `V` must be there.
    unsafe fn read<V: Vector, const WHOLE: bool>(self, pixel: *const f32, c: usize, n: usize) -> V;
}

/// As it lies.
#[derive(Clone, Copy)]
pub(super) struct Plain;
/// Normalised.
#[derive(Clone, Copy)]
struct Inside(Coefficients);
/// Normalised, unless it is the pixel of zeros.
#[derive(Clone, Copy)]
pub(super) struct Edge(pub Coefficients, pub *const f32);

impl Read for Plain {
    #[inline(always)]
    unsafe fn read<V: Vector, const WHOLE: bool>(self, pixel: *const f32, c: usize, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { if WHOLE { V::load(pixel.add(c)) } else { V::load_n(pixel.add(c), n) } }
    }
}

impl Read for Inside {
    #[inline(always)]
    unsafe fn read<V: Vector, const WHOLE: bool>(self, pixel: *const f32, c: usize, n: usize) -> V {
        // SAFETY: the caller's promise. Lanes beyond `n` hold act(0), which nothing uses.
        unsafe { self.0.apply(Plain.read::<V, WHOLE>(pixel, c, n), c, if WHOLE { V::N } else { n }) }
    }
}

impl Read for Edge {
    #[inline(always)]
    unsafe fn read<V: Vector, const WHOLE: bool>(self, pixel: *const f32, c: usize, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { if pixel == self.1 { V::zero() } else { Inside(self.0).read::<V, WHOLE>(pixel, c, n) } }
    }
}

/// `N x N` pixels to `A x A` planes.
#[inline(always)]
unsafe fn spread<V: Vector, F: Along<N, A>, R: Read, const N: usize, const A: usize>(
    from: &Pixels,
    read: R,
    channels: usize,
    to: *mut f32,
    plane: usize,
) {
    let whole = channels - channels % V::N;
    // SAFETY: the caller's pixels have `channels` floats, its planes as many and whole vectors.
    unsafe {
        for c in (0..whole).step_by(V::N) {
            spread_vector::<V, F, R, N, A, true>(from, read, c, V::N, to.add(c), plane);
        }
        if whole < channels {
            spread_vector::<V, F, R, N, A, false>(from, read, whole, channels - whole, to.add(whole), plane);
        }
    }
}

/// One vector of channels from `c` on, `n` of which exist.
#[inline(always)]
unsafe fn spread_vector<V: Vector, F: Along<N, A>, R: Read, const N: usize, const A: usize, const WHOLE: bool>(
    from: &Pixels,
    read: R,
    c: usize,
    n: usize,
    to: *mut f32,
    plane: usize,
) {
    // SAFETY: as for `spread`.
    unsafe {
        let mut rows = [[V::zero(); N]; A];
        for j in 0..N {
            let mut column = [V::zero(); N];
            for i in 0..N {
                column[i] = read.read::<V, WHOLE>(from[i * N + j], c, n);
            }
            let column = F::along(column);
            for i in 0..A {
                rows[i][j] = column[i];
            }
        }
        for i in 0..A {
            let row = F::along(rows[i]);
            for j in 0..A {
                row[j].store(to.add((i * A + j) * plane));
            }
        }
    }
}

/// `A x A` planes to `M x M` results.
#[inline(always)]
unsafe fn gather<V: Vector, F: Form<M, A>, const M: usize, const A: usize>(
    from: *const f32,
    plane: usize,
    cols: usize,
    to: Target,
    ending: Ending,
) {
    // SAFETY: the caller's planes have `cols` floats and whole vectors; its results as many, as far as they exist.
    unsafe {
        for c in (0..cols).step_by(V::N) {
            let n = V::N.min(cols - c);
            let (scale, bias) = ending.vectors::<V>(c, n);
            let mut rows = [[V::zero(); A]; M];
            for j in 0..A {
                let mut column = [V::zero(); A];
                for i in 0..A {
                    column[i] = V::load(from.add((i * A + j) * plane + c));
                }
                let column = F::output(column);
                for i in 0..M {
                    rows[i][j] = column[i];
                }
            }
            for i in 0..M {
                if i >= to.extent[0] {
                    break;
                }
                let row = F::output(rows[i]);
                for j in 0..M {
                    if j < to.extent[1] {
                        let result = apply(ending.act, row[j].fma(scale, bias));
                        result.put(to.first.add(i * to.apart[0] + j * to.apart[1] + c), n, to.add);
                    }
                }
            }
        }
    }
}

/// Nine taps to `A x A` planes, in place: the taps are the last nine of them.
#[inline(always)]
unsafe fn raise<V: Vector, F: Form<M, A>, const M: usize, const A: usize>(at: *mut f32, plane: usize, floats: usize) {
    // SAFETY: the caller's planes have `floats` floats, a multiple of a vector; an element's taps are read before it is written.
    unsafe {
        for c in (0..floats).step_by(V::N) {
            let mut rows = [[V::zero(); 3]; A];
            for j in 0..3 {
                let tap = |i: usize| V::load(at.add((A * A - 9 + 3 * i + j) * plane + c));
                let column = F::filter([tap(0), tap(1), tap(2)]);
                for i in 0..A {
                    rows[i][j] = column[i];
                }
            }
            for i in 0..A {
                let row = F::filter(rows[i]);
                for j in 0..A {
                    row[j].store(at.add((i * A + j) * plane + c));
                }
            }
        }
    }
}

/// `A x A` planes to nine taps.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // those of `taps`
unsafe fn lower<V: Vector, F: Form<M, A>, const M: usize, const A: usize>(
    from: *const f32,
    plane: usize,
    copies: usize,
    copy: usize,
    floats: usize,
    to: *mut f32,
    tap: usize,
    add: bool,
) {
    // SAFETY: the caller's planes and taps have `floats` floats.
    unsafe {
        for c in (0..floats).step_by(V::N) {
            let n = V::N.min(floats - c);
            let mut rows = [[V::zero(); A]; 3];
            for j in 0..A {
                let mut column = [V::zero(); A];
                for i in 0..A {
                    let at = from.add((i * A + j) * plane + c);
                    column[i] = V::take(at, n);
                    for k in 1..copies {
                        column[i] = column[i].add(V::take(at.add(k * copy), n));
                    }
                }
                let column = F::taps(column);
                for i in 0..3 {
                    rows[i][j] = column[i];
                }
            }
            for i in 0..3 {
                let row = F::taps(rows[i]);
                for j in 0..3 {
                    row[j].put(to.add((3 * i + j) * tap + c), n, add);
                }
            }
        }
    }
}
