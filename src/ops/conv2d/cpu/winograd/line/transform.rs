//! The transforms of one tile, all channels, a vector of them at a time.

#![allow(clippy::needless_range_loop)] // the counters are pixels, taps and planes as well

use super::{ALONE, FILTER, FILTERS, LONG, PIXELS, POINTS, RESULTS, filters};
use crate::device::cpu::simd::Vector;
use crate::ops::activation::cpu::apply;
use crate::ops::conv2d::cpu::winograd::filter::Doubles;
use crate::ops::conv2d::cpu::winograd::form::{FAR_SQUARE, F43, FAR, Form, NEAR_SQUARE, NEAR};
use crate::ops::conv2d::cpu::winograd::transform::{Edge, Ending, Plain, Read};
use crate::ops::scale_shift::cpu::Coefficients;
use crate::simd;

simd! {
    /// Planes 0 to 5 get B^T d of pixels 0 to 5, planes 6 to 11 that of pixels 4 to 8, plane 10 nothing; whole vectors are written.
    pub(super) unsafe fn spread<V>(
        from: &[*const f32; PIXELS], pre: Option<Coefficients>, zeros: *const f32, channels: usize, to: *mut f32, plane: usize,
    ) {
        match pre {
            None => spread_by::<V, Plain>(from, Plain, channels, to, plane),
            Some(pre) => spread_by::<V, Edge>(from, Edge(pre, zeros), channels, to, plane),
        }
    }

    /// `count` results, `apart` floats from one to the next, (+)= act((A^T p) scale + bias) of the `cols` columns of the planes.
    pub(super) unsafe fn gather<V>(from: *const f32, plane: usize, cols: usize, to: *mut f32, apart: usize, count: usize, add: bool, ending: Ending) {
        for c in (0..cols).step_by(V::N) {
            let n = V::N.min(cols - c);
            let (scale, bias) = ending.vectors::<V>(c, n);
            let p = from.add(c);
            let (near, less_near) = (V::load(p.add(plane)), V::load(p.add(2 * plane)));
            let (far, less_far) = (V::load(p.add(3 * plane)), V::load(p.add(4 * plane)));
            let (near_even, near_odd) = (near.add(less_near), near.sub(less_near));
            let (far_even, far_odd) = (far.add(less_far), far.sub(less_far));
            let y = [
                V::load(p).add(near_even.add(far_even)),
                far_odd.fma(V::splat(FAR as f32), near_odd.mul(V::splat(NEAR as f32))),
                far_even.fma(V::splat(FAR_SQUARE as f32), near_even.fma(V::splat(NEAR_SQUARE as f32), V::load(p.add(5 * plane)))),
            ];
            for i in 0..RESULTS {
                if i < count {
                    apply(ending.act, y[i].fma(scale, bias)).put(to.add(i * apart + c), n, add);
                }
            }
        }
    }

    /// Plane x gets `(A dy)[x]` of the gradients of a tile's results, `channels` floats each; whole vectors are written.
    pub(super) unsafe fn gradient<V>(from: &[*const f32; RESULTS], channels: usize, to: *mut f32, plane: usize) {
        for c in (0..channels).step_by(V::N) {
            let n = V::N.min(channels - c);
            let (first, second, third) = (V::take(from[0].add(c), n), V::take(from[1].add(c), n), V::take(from[2].add(c), n));
            let (near, far) = (third.fma(V::splat(NEAR_SQUARE as f32), first), third.fma(V::splat(FAR_SQUARE as f32), first));
            let z = [
                first,
                second.fma(V::splat(NEAR as f32), near),
                second.fma(V::splat(-NEAR as f32), near),
                second.fma(V::splat(FAR as f32), far),
                second.fma(V::splat(-FAR as f32), far),
                third,
            ];
            for x in 0..POINTS {
                z[x].store(to.add(x * plane + c));
            }
        }
    }

    /// The matrices of a panel in place, `G g` of the taps g: `matrix` floats each, the last seven hold the taps. In double precision, rounded
    /// once, since every pixel sees the same filter.
    pub(super) unsafe fn raise<V>(at: *mut f32, matrix: usize) {
        for c in (0..matrix).step_by(V::N) {
            let mut u = [Doubles::ZERO; FILTERS];
            for t in 0..7 {
                let (part, tap) = (t / LONG, Doubles::load::<V>(at.add((FILTERS - 7 + t) * matrix + c)));
                for x in 0..POINTS {
                    if part < filters(x).1 {
                        u[filters(x).0 + part].add::<V>(FILTER[part][x][t % LONG], &tap);
                    }
                }
            }
            for i in 0..FILTERS {
                u[i].store::<V>(at.add(i * matrix + c));
            }
        }
    }

    /// The seven taps `G^T u`, `tap` floats apart, (+)= of the sum of `copies` buffers of matrices, `copy` floats apart, over `floats`
    /// floats.
    pub(super) unsafe fn taps<V>(from: *const f32, matrix: usize, copies: usize, copy: usize, floats: usize, to: *mut f32, tap: usize, add: bool) {
        for c in (0..floats).step_by(V::N) {
            let n = V::N.min(floats - c);
            let mut u = [V::zero(); FILTERS];
            for i in 0..FILTERS {
                for k in 0..copies {
                    u[i] = u[i].add(V::take(from.add(i * matrix + k * copy + c), n));
                }
            }
            for t in 0..7 {
                let part = t / LONG;
                let mut sum = V::zero();
                for x in (0..POINTS).filter(|&x| part == 0 || x != ALONE) {
                    sum = u[filters(x).0 + part].fma(V::splat(FILTER[part][x][t % LONG] as f32), sum);
                }
                sum.put(to.add(t * tap + c), n, add);
            }
        }
    }
}

/// The loop of [`spread`].
///
/// # Safety
/// As for [`spread`].
#[inline(always)]
unsafe fn spread_by<V: Vector, R: Read>(from: &[*const f32; PIXELS], read: R, channels: usize, to: *mut f32, plane: usize) {
    let whole = channels - channels % V::N;
    // SAFETY: the caller's pixels have `channels` floats, its planes as many and whole vectors.
    unsafe {
        for c in (0..whole).step_by(V::N) {
            spread_vector::<V, R, true>(from, read, c, V::N, to.add(c), plane);
        }
        if whole < channels {
            spread_vector::<V, R, false>(from, read, whole, channels - whole, to.add(whole), plane);
        }
    }
}

/// One vector of channels from `c` on, `n` of which exist.
///
/// # Safety
/// As for [`spread`].
#[inline(always)]
unsafe fn spread_vector<V: Vector, R: Read, const WHOLE: bool>(
    from: &[*const f32; PIXELS],
    read: R,
    c: usize,
    n: usize,
    to: *mut f32,
    plane: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut d = [V::zero(); PIXELS];
        for i in 0..PIXELS {
            d[i] = read.read::<V, WHOLE>(from[i], c, n);
        }
        let long = F43::input([d[0], d[1], d[2], d[3], d[4], d[5]]);
        for x in 0..POINTS {
            long[x].store(to.add(x * plane));
        }
        let short = short_input([d[4], d[5], d[6], d[7], d[8]]);
        for x in 0..5 {
            short[x].store(to.add((POINTS + if x < ALONE { x } else { x + 1 }) * plane));
        }
    }
}

/// B^T d of F(3,3), without the row that is not used.
///
/// # Safety
/// The instruction set of `V` must be there.
#[inline(always)]
unsafe fn short_input<V: Vector>(d: [V; 5]) -> [V; 5] {
    // SAFETY: the caller's promise.
    unsafe {
        let (near, less_near) = (V::splat(NEAR as f32), V::splat(-NEAR as f32));
        let (less_square, less_far) = (V::splat(-NEAR_SQUARE as f32), V::splat(-FAR as f32));
        let far = d[1].fma(less_square, d[3]);
        let (even, odd) = (d[2].fma(less_far, d[3]), d[1].fma(less_far, d[2]));
        [
            d[0].fma(less_square, d[2]).fma(less_far, far),
            odd.fma(near, even),
            odd.fma(less_near, even),
            far,
            far.fma(less_far, d[2].fma(less_square, d[4])),
        ]
    }
}
