//! The transforms of one tile, all channels, a vector of them at a time.
//!
//! A transform in two dimensions is one along the rows and one along the columns. Results of a product `x` of the tile lie in plane
//! `x` of a buffer, `plane` floats after those of the one before.
//!
//! Loops count over rows and columns of a tile, whose length is a constant: the compiler unrolls them, and the arrays are registers.

#![allow(clippy::needless_range_loop)] // the counters are coordinates of planes and pixels as well

use super::Scheme;
use super::form::{F11, F23, F25, F43, Form};
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
    pub(super) unsafe fn input<V>(scheme: Scheme, from: &Pixels, channels: usize, to: *mut f32, plane: usize) {
        inputs::<V, Plain>(scheme, from, Plain, channels, to, plane);
    }

    /// The same of inputs that are normalised on the way in, all of which exist.
    pub(super) unsafe fn input_inside<V>(scheme: Scheme, from: &Pixels, pre: Coefficients, channels: usize, to: *mut f32, plane: usize) {
        inputs::<V, Inside>(scheme, from, Inside(pre), channels, to, plane);
    }

    /// The same of inputs that are normalised on the way in, but for the pixels at `zeros`, which stay zero.
    pub(super) unsafe fn input_edge<V>(scheme: Scheme, from: &Pixels, pre: Coefficients, zeros: *const f32, channels: usize, to: *mut f32, plane: usize) {
        inputs::<V, Edge>(scheme, from, Edge(pre, zeros), channels, to, plane);
    }

    /// Plane x gets `(A dy A^T)[x]` of the gradients of a tile's results, `channels` floats each; whole vectors are written.
    pub(super) unsafe fn gradient<V>(scheme: Scheme, from: &Pixels, channels: usize, to: *mut f32, plane: usize) {
        match scheme {
            Scheme::F43 => spread::<V, F43Gradient, F43Gradient, Plain, _, _, _, _>(from, Plain, channels, to, plane),
            Scheme::F23x43 => spread::<V, F23Gradient, F43Gradient, Plain, _, _, _, _>(from, Plain, channels, to, plane),
            Scheme::F25 => spread::<V, F25Gradient, F25Gradient, Plain, _, _, _, _>(from, Plain, channels, to, plane),
            Scheme::Rows43 => spread::<V, F11Gradient, F43Gradient, Plain, _, _, _, _>(from, Plain, channels, to, plane),
            Scheme::Columns43 => spread::<V, F43Gradient, F11Gradient, Plain, _, _, _, _>(from, Plain, channels, to, plane),
        }
    }

    /// A tile's results (+)= act((A^T p A) scale + bias) of the `cols` columns of the planes.
    pub(super) unsafe fn output<V>(scheme: Scheme, from: *const f32, plane: usize, cols: usize, to: Target, ending: Ending) {
        match scheme {
            Scheme::F43 => gather::<V, F43, F43, _, _, _, _, _, _>(from, plane, cols, to, ending),
            Scheme::F23x43 => gather::<V, F23, F43, _, _, _, _, _, _>(from, plane, cols, to, ending),
            Scheme::F25 => gather::<V, F25, F25, _, _, _, _, _, _>(from, plane, cols, to, ending),
            Scheme::Rows43 => gather::<V, F11, F43, _, _, _, _, _, _>(from, plane, cols, to, ending),
            Scheme::Columns43 => gather::<V, F43, F11, _, _, _, _, _, _>(from, plane, cols, to, ending),
        }
    }

}

/// The inputs of a tile, however they are read.
///
/// # Safety
/// As for [`input`].
#[inline(always)]
unsafe fn inputs<V: Vector, R: Read>(scheme: Scheme, from: &Pixels, read: R, channels: usize, to: *mut f32, plane: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match scheme {
            Scheme::F43 | Scheme::F25 => spread::<V, F43Input, F43Input, R, _, _, _, _>(from, read, channels, to, plane),
            Scheme::F23x43 => spread::<V, F23Input, F43Input, R, _, _, _, _>(from, read, channels, to, plane),
            Scheme::Rows43 => spread::<V, F11Input, F43Input, R, _, _, _, _>(from, read, channels, to, plane),
            Scheme::Columns43 => spread::<V, F43Input, F11Input, R, _, _, _, _>(from, read, channels, to, plane),
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
    F11Input: F11::input, 1 to 1;
    F23Input: F23::input, 4 to 4;
    F43Input: F43::input, 6 to 6;
    F11Gradient: F11::gradient, 1 to 1;
    F23Gradient: F23::gradient, 2 to 4;
    F43Gradient: F43::gradient, 4 to 6;
    F25Gradient: F25::gradient, 2 to 6;
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

/// `NR x NC` pixels to `AR x AC` planes, with what happens along columns of pixels, and along rows.
#[inline(always)]
unsafe fn spread<V: Vector, Fr: Along<NR, AR>, Fc: Along<NC, AC>, R: Read, const NR: usize, const AR: usize, const NC: usize, const AC: usize>(
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
            spread_vector::<V, Fr, Fc, R, NR, AR, NC, AC, true>(from, read, c, V::N, to.add(c), plane);
        }
        if whole < channels {
            spread_vector::<V, Fr, Fc, R, NR, AR, NC, AC, false>(from, read, whole, channels - whole, to.add(whole), plane);
        }
    }
}

/// One vector of channels from `c` on, `n` of which exist.
#[inline(always)]
unsafe fn spread_vector<
    V: Vector,
    Fr: Along<NR, AR>,
    Fc: Along<NC, AC>,
    R: Read,
    const NR: usize,
    const AR: usize,
    const NC: usize,
    const AC: usize,
    const WHOLE: bool,
>(
    from: &Pixels,
    read: R,
    c: usize,
    n: usize,
    to: *mut f32,
    plane: usize,
) {
    // SAFETY: as for `spread`.
    unsafe {
        let mut rows = [[V::zero(); NC]; AR];
        for j in 0..NC {
            let mut column = [V::zero(); NR];
            for i in 0..NR {
                column[i] = read.read::<V, WHOLE>(from[i * NC + j], c, n);
            }
            let column = Fr::along(column);
            for i in 0..AR {
                rows[i][j] = column[i];
            }
        }
        for i in 0..AR {
            let row = Fc::along(rows[i]);
            for j in 0..AC {
                row[j].store(to.add((i * AC + j) * plane));
            }
        }
    }
}

/// `AR x AC` planes to `MR x MC` results.
#[inline(always)]
unsafe fn gather<
    V: Vector,
    Fr: Form<MR, AR, RR>,
    Fc: Form<MC, AC, RC>,
    const MR: usize,
    const AR: usize,
    const RR: usize,
    const MC: usize,
    const AC: usize,
    const RC: usize,
>(
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
            let mut rows = [[V::zero(); AC]; MR];
            for j in 0..AC {
                let mut column = [V::zero(); AR];
                for i in 0..AR {
                    column[i] = V::load(from.add((i * AC + j) * plane + c));
                }
                let column = Fr::output(column);
                for i in 0..MR {
                    rows[i][j] = column[i];
                }
            }
            for i in 0..MR {
                if i >= to.extent[0] {
                    break;
                }
                let row = Fc::output(rows[i]);
                for j in 0..MC {
                    if j < to.extent[1] {
                        let result = apply(ending.act, row[j].fma(scale, bias));
                        result.put(to.first.add(i * to.apart[0] + j * to.apart[1] + c), n, to.add);
                    }
                }
            }
        }
    }
}
