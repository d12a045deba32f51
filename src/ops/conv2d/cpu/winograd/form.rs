//! The matrices of Winograd's minimal filtering F(m, r) (Lavin and Gray 2015), and the same as vector arithmetic.
//!
//! With `a = m + r - 1`, m results of a filter of r taps on a inputs are `y = A^T [(G g) . (B^T d)]`: a multiplications instead of
//! m r. Inputs and taps are polynomials, multiplied by their values at a points. F(2, 3) takes 0, 1, -1 and infinity; F(4, 3) and
//! F(2, 5) take 0, two pairs and infinity. The pairs decide how much is rounded: [`NEAR`] and [`FAR`] are exact in few bits and within
//! 2% of the best there are, where 1 and 2, with integers for matrices, round 2.3 times as much (in two dimensions).
//!
//! No closure holds a vector: the compiler would give it a function of its own, without the instruction set.

#![allow(clippy::needless_range_loop)] // the counters are coordinates of the matrices as well

use crate::device::cpu::simd::Vector;

/// One form along one axis: `M` results from `A = M + R - 1` inputs and `R` taps.
///
/// # Safety
/// The vector arithmetic needs the instruction set of `V`.
#[allow(clippy::missing_safety_doc)] // one contract for all methods, stated above
pub trait Form<const M: usize, const A: usize, const R: usize> {
    /// B^T.
    const INPUT: [[f64; A]; A];
    /// G.
    const FILTER: [[f64; R]; A];
    /// A^T.
    const OUTPUT: [[f64; A]; M];

    /// B^T d.
    unsafe fn input<V: Vector>(d: [V; A]) -> [V; A];
    /// A^T p.
    unsafe fn output<V: Vector>(p: [V; A]) -> [V; M];
    /// A dy, the transpose of `output`.
    unsafe fn gradient<V: Vector>(dy: [V; M]) -> [V; A];

    /// G^T u, term by term: filters are small.
    #[inline(always)]
    unsafe fn taps<V: Vector>(u: [V; A]) -> [V; R] {
        // SAFETY: the caller has the instruction set.
        unsafe {
            let mut g = [V::zero(); R];
            for x in 0..A {
                for t in 0..R {
                    g[t] = u[x].fma(V::splat(Self::FILTER[x][t] as f32), g[t]);
                }
            }
            g
        }
    }

    /// By how much the transforms enlarge the variance of rounding errors against a plain sum, as mean over the results of a tile.
    ///
    /// On independent inputs and taps of variance 1, product `x` has the variance `b_x g_x` of squared row norms, and an error in
    /// proportion enters result `o` with the weight `A^T[o][x]`. A result itself has variance R. So
    /// `k_o^2 = sum over x of A^T[o][x]^2 b_x g_x / R`.
    fn amplification() -> f64 {
        let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>();
        let product = |x: usize| norm(&Self::INPUT[x]) * norm(&Self::FILTER[x]);
        let result = |o: &[f64; A]| (0..A).map(|x| o[x] * o[x] * product(x)).sum::<f64>() / R as f64;
        Self::OUTPUT.iter().map(result).sum::<f64>() / M as f64
    }
}

/// F(1, 1), of the axis along which a filter has one tap.
pub struct F11;
/// F(2, 3): 4 multiplications for 6.
pub struct F23;
/// F(4, 3): 6 multiplications for 12, 36 for 144 in two dimensions.
pub struct F43;
/// F(2, 5): 6 multiplications for 10, 36 for 100.
pub struct F25;

impl Form<1, 1, 1> for F11 {
    const INPUT: [[f64; 1]; 1] = [[1.]];
    const FILTER: [[f64; 1]; 1] = [[1.]];
    const OUTPUT: [[f64; 1]; 1] = [[1.]];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 1]) -> [V; 1] {
        d
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(p: [V; 1]) -> [V; 1] {
        p
    }

    #[inline(always)]
    unsafe fn gradient<V: Vector>(dy: [V; 1]) -> [V; 1] {
        dy
    }
}

impl Form<2, 4, 3> for F23 {
    const INPUT: [[f64; 4]; 4] = [[1., 0., -1., 0.], [0., 1., 1., 0.], [0., -1., 1., 0.], [0., 1., 0., -1.]];
    const FILTER: [[f64; 3]; 4] = [[1., 0., 0.], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0., 0., 1.]];
    const OUTPUT: [[f64; 4]; 2] = [[1., 1., 1., 0.], [0., 1., -1., -1.]];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 4]) -> [V; 4] {
        // SAFETY: the caller has the instruction set; likewise below.
        unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])] }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(p: [V; 4]) -> [V; 2] {
        // SAFETY: as for `input`.
        unsafe { [p[0].add(p[1].add(p[2])), p[1].sub(p[2]).sub(p[3])] }
    }

    #[inline(always)]
    unsafe fn gradient<V: Vector>(dy: [V; 2]) -> [V; 4] {
        // SAFETY: as for `input`.
        unsafe { [dy[0], dy[0].add(dy[1]), dy[0].sub(dy[1]), V::zero().sub(dy[1])] }
    }
}

/// The points of interpolation of a form of six: 0, these two with both signs, and infinity.
pub(super) const NEAR: f64 = 0.625;
pub(super) const FAR: f64 = 1.5;

/// Their squares, and what the matrices make of them.
pub(super) const NEAR_SQUARE: f64 = NEAR * NEAR;
pub(super) const FAR_SQUARE: f64 = FAR * FAR;
const BOTH: f64 = NEAR_SQUARE + FAR_SQUARE;
const PRODUCT: f64 = NEAR_SQUARE * FAR_SQUARE;

/// Scales of the rows of G: `1 / (product of the distances to the other points)` at zero, near and far.
const SCALE: [f64; 3] = [1.0 / PRODUCT, 0.5 / (NEAR_SQUARE * (NEAR_SQUARE - FAR_SQUARE)), 0.5 / (FAR_SQUARE * (FAR_SQUARE - NEAR_SQUARE))];

/// Row of G of a point: its powers, scaled.
const fn powers<const R: usize>(scale: f64, point: f64) -> [f64; R] {
    let (mut row, mut term, mut t) = ([0.0; R], scale, 0);
    while t < R {
        row[t] = term;
        term *= point;
        t += 1;
    }
    row
}

/// Row of G of infinity: the last tap.
const fn last<const R: usize>() -> [f64; R] {
    let mut row = [0.0; R];
    row[R - 1] = 1.0;
    row
}

/// G of R taps at six points.
pub(super) const fn six_points<const R: usize>() -> [[f64; R]; 6] {
    let [zero, near, far] = SCALE;
    [powers(zero, 0.0), powers(near, NEAR), powers(near, -NEAR), powers(far, FAR), powers(far, -FAR), last()]
}

/// B^T of six points: the coefficients of the polynomials that vanish at all finite points but one, and at all of them.
const SIX_INPUT: [[f64; 6]; 6] = [
    [PRODUCT, 0., -BOTH, 0., 1., 0.],
    [0., -NEAR * FAR_SQUARE, -FAR_SQUARE, NEAR, 1., 0.],
    [0., NEAR * FAR_SQUARE, -FAR_SQUARE, -NEAR, 1., 0.],
    [0., -FAR * NEAR_SQUARE, -NEAR_SQUARE, FAR, 1., 0.],
    [0., FAR * NEAR_SQUARE, -NEAR_SQUARE, -FAR, 1., 0.],
    [0., PRODUCT, 0., -BOTH, 0., 1.],
];

/// B^T d at six points.
///
/// # Safety
/// The instruction set of `V` must be there.
#[inline(always)]
unsafe fn six_input<V: Vector>(d: [V; 6]) -> [V; 6] {
    // SAFETY: the caller's promise.
    unsafe {
        let (product, less_both) = (V::splat(PRODUCT as f32), V::splat(-BOTH as f32));
        let (less_near_square, less_far_square) = (V::splat(-NEAR_SQUARE as f32), V::splat(-FAR_SQUARE as f32));
        let (near_even, near_odd) = (d[2].fma(less_far_square, d[4]), d[1].fma(less_far_square, d[3]));
        let (far_even, far_odd) = (d[2].fma(less_near_square, d[4]), d[1].fma(less_near_square, d[3]));
        [
            d[0].fma(product, d[2].fma(less_both, d[4])),
            near_odd.fma(V::splat(NEAR as f32), near_even),
            near_odd.fma(V::splat(-NEAR as f32), near_even),
            far_odd.fma(V::splat(FAR as f32), far_even),
            far_odd.fma(V::splat(-FAR as f32), far_even),
            d[1].fma(product, d[3].fma(less_both, d[5])),
        ]
    }
}

impl Form<4, 6, 3> for F43 {
    const INPUT: [[f64; 6]; 6] = SIX_INPUT;
    const FILTER: [[f64; 3]; 6] = six_points();
    const OUTPUT: [[f64; 6]; 4] = [
        [1., 1., 1., 1., 1., 0.],
        [0., NEAR, -NEAR, FAR, -FAR, 0.],
        [0., NEAR_SQUARE, NEAR_SQUARE, FAR_SQUARE, FAR_SQUARE, 0.],
        [0., NEAR * NEAR_SQUARE, -NEAR * NEAR_SQUARE, FAR * FAR_SQUARE, -FAR * FAR_SQUARE, 1.],
    ];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 6]) -> [V; 6] {
        // SAFETY: the caller has the instruction set; likewise below.
        unsafe { six_input(d) }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(p: [V; 6]) -> [V; 4] {
        // SAFETY: as for `input`.
        unsafe {
            let (even, odd) = (p[1].add(p[2]), p[1].sub(p[2]).mul(V::splat(NEAR as f32)));
            let (wide, far) = (p[3].add(p[4]), p[3].sub(p[4]).mul(V::splat(FAR as f32)));
            let (near, far_square) = (V::splat(NEAR_SQUARE as f32), V::splat(FAR_SQUARE as f32));
            [
                p[0].add(even.add(wide)),
                odd.add(far),
                wide.fma(far_square, even.mul(near)),
                far.fma(far_square, odd.fma(near, p[5])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn gradient<V: Vector>(dy: [V; 4]) -> [V; 6] {
        // SAFETY: as for `input`.
        unsafe {
            let (near, far) = (V::splat(NEAR_SQUARE as f32), V::splat(FAR_SQUARE as f32));
            let (near_even, near_odd) = (dy[2].fma(near, dy[0]), dy[3].fma(near, dy[1]));
            let (far_even, far_odd) = (dy[2].fma(far, dy[0]), dy[3].fma(far, dy[1]));
            [
                dy[0],
                near_odd.fma(V::splat(NEAR as f32), near_even),
                near_odd.fma(V::splat(-NEAR as f32), near_even),
                far_odd.fma(V::splat(FAR as f32), far_even),
                far_odd.fma(V::splat(-FAR as f32), far_even),
                dy[3],
            ]
        }
    }
}

impl Form<2, 6, 5> for F25 {
    const INPUT: [[f64; 6]; 6] = SIX_INPUT;
    const FILTER: [[f64; 5]; 6] = six_points();
    const OUTPUT: [[f64; 6]; 2] = [[1., 1., 1., 1., 1., 0.], [0., NEAR, -NEAR, FAR, -FAR, 1.]];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 6]) -> [V; 6] {
        // SAFETY: the caller has the instruction set; likewise below.
        unsafe { six_input(d) }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(p: [V; 6]) -> [V; 2] {
        // SAFETY: as for `input`.
        unsafe {
            let (odd, far) = (p[1].sub(p[2]), p[3].sub(p[4]));
            let even = p[1].add(p[2]).add(p[3].add(p[4]));
            [p[0].add(even), far.fma(V::splat(FAR as f32), odd.fma(V::splat(NEAR as f32), p[5]))]
        }
    }

    #[inline(always)]
    unsafe fn gradient<V: Vector>(dy: [V; 2]) -> [V; 6] {
        // SAFETY: as for `input`.
        unsafe {
            let (near, less_near) = (V::splat(NEAR as f32), V::splat(-NEAR as f32));
            let (far, less_far) = (V::splat(FAR as f32), V::splat(-FAR as f32));
            [dy[0], dy[1].fma(near, dy[0]), dy[1].fma(less_near, dy[0]), dy[1].fma(far, dy[0]), dy[1].fma(less_far, dy[0]), dy[1]]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::simd::Eight;

    /// One number in every lane, so that vectors can be held against the matrices.
    fn lanes<const N: usize>(values: [f64; N]) -> [Eight; N] {
        // SAFETY: the portable vector needs no instruction set.
        values.map(|v| unsafe { Eight::splat(v as f32) })
    }

    fn first<const N: usize>(vectors: [Eight; N]) -> [f64; N] {
        vectors.map(|v| {
            let mut out = [0f32; 8];
            // SAFETY: there is room for eight floats.
            unsafe { v.store(out.as_mut_ptr()) };
            f64::from(out[0])
        })
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}, not {expected:?}");
    }

    fn times<const C: usize>(matrix: &[[f64; C]], x: &[f64; C]) -> Vec<f64> {
        matrix.iter().map(|row| row.iter().zip(x).map(|(m, x)| m * x).sum()).collect()
    }

    fn transposed<const C: usize>(matrix: &[[f64; C]], x: &[f64]) -> Vec<f64> {
        (0..C).map(|c| matrix.iter().zip(x).map(|(row, x)| row[c] * x).sum()).collect()
    }

    fn check<F: Form<M, A, R>, const M: usize, const A: usize, const R: usize>() {
        let (d, dy) = (std::array::from_fn(|i| (i * i) as f64 - 2.5), std::array::from_fn(|i| 1.5 - i as f64));
        let g: [f64; R] = std::array::from_fn(|i| [0.3, -1.1, 2.0, 0.7, -0.4][i]);
        // SAFETY: the portable vector needs no instruction set.
        unsafe {
            close(&first(F::input(lanes::<A>(d))), &times(&F::INPUT, &d));
            close(&first(F::output(lanes::<A>(d))), &times(&F::OUTPUT, &d));
            close(&first(F::gradient(lanes::<M>(dy))), &transposed(&F::OUTPUT, &dy));
            close(&first(F::taps(lanes::<A>(d))), &transposed(&F::FILTER, &d));
        }
        // y = A^T [(G g) . (B^T d)] is the correlation.
        let products: Vec<f64> = times(&F::FILTER, &g).iter().zip(times(&F::INPUT, &d)).map(|(u, v)| u * v).collect();
        let y: Vec<f64> = F::OUTPUT.iter().map(|row| row.iter().zip(&products).map(|(a, p)| a * p).sum()).collect();
        let expected: Vec<f64> = (0..M).map(|o| (0..R).map(|t| d[o + t] * g[t]).sum()).collect();
        close(&y, &expected);
    }

    #[test]
    fn arithmetic_is_that_of_the_matrices_and_they_are_a_convolution() {
        check::<F11, 1, 1, 1>();
        check::<F23, 2, 4, 3>();
        check::<F43, 4, 6, 3>();
        check::<F25, 2, 6, 5>();
    }

    #[test]
    fn points_round_little() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 0.01, "{found}, not {expected}");
        close(F23::amplification(), 1.67);
        close(F43::amplification(), 4.78);
        close(F25::amplification(), 5.39);
    }
}
