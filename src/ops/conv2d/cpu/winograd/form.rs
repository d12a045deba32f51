//! The matrices of Winograd's minimal filtering F(m, 3) (Lavin and Gray 2015), and the same as vector arithmetic.
//!
//! With `a = m + 2`, m results of a filter of three taps on a inputs are `y = A^T [(G g) . (B^T d)]`: a multiplications instead
//! of 3 m. Points of interpolation are 0, 1, -1, infinity for m = 2, and 2, -2 as well for m = 4.

use crate::device::cpu::simd::Vector;

/// One form: `M` results from `A = M + 2` inputs.
///
/// # Safety
/// The vector arithmetic needs the instruction set of `V`.
#[allow(clippy::missing_safety_doc)] // one contract for all methods, stated above
pub trait Form<const M: usize, const A: usize> {
    /// B^T.
    const INPUT: [[f64; A]; A];
    /// G.
    const FILTER: [[f64; 3]; A];
    /// A^T.
    const OUTPUT: [[f64; A]; M];

    /// B^T d.
    unsafe fn input<V: Vector>(d: [V; A]) -> [V; A];
    /// G g.
    unsafe fn filter<V: Vector>(g: [V; 3]) -> [V; A];
    /// A^T p.
    unsafe fn output<V: Vector>(p: [V; A]) -> [V; M];
    /// A dy, the transpose of `output`.
    unsafe fn gradient<V: Vector>(dy: [V; M]) -> [V; A];
    /// G^T u, the transpose of `filter`.
    unsafe fn taps<V: Vector>(u: [V; A]) -> [V; 3];

    /// By how much the transforms enlarge rounding errors against a plain sum, as root mean square over the results of a tile.
    ///
    /// On independent inputs and taps of variance 1, product `x` of one axis has the variance `b_x g_x` of squared row norms, and an
    /// error in proportion enters result `o` with the weight `A^T[o][x]`. A result itself has variance 3 for each axis. So along one
    /// axis `k_o^2 = sum over x of A^T[o][x]^2 b_x g_x / 3`, and over both the mean of `k^2` is the square of that of one.
    fn amplification() -> f64 {
        let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>();
        let product = |x: usize| norm(&Self::INPUT[x]) * norm(&Self::FILTER[x]);
        let result = |o: &[f64; A]| (0..A).map(|x| o[x] * o[x] * product(x)).sum::<f64>() / 3.0;
        Self::OUTPUT.iter().map(result).sum::<f64>() / M as f64
    }
}

/// F(2, 3): 16 multiplications for the 36 of 2 x 2 results.
pub struct Two;
/// F(4, 3): 36 multiplications for the 144 of 4 x 4 results.
pub struct Four;

impl Form<2, 4> for Two {
    const INPUT: [[f64; 4]; 4] = [[1., 0., -1., 0.], [0., 1., 1., 0.], [0., -1., 1., 0.], [0., 1., 0., -1.]];
    const FILTER: [[f64; 3]; 4] = [[1., 0., 0.], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0., 0., 1.]];
    const OUTPUT: [[f64; 4]; 2] = [[1., 1., 1., 0.], [0., 1., -1., -1.]];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 4]) -> [V; 4] {
        // SAFETY: the caller has the instruction set; likewise below.
        unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])] }
    }

    #[inline(always)]
    unsafe fn filter<V: Vector>(g: [V; 3]) -> [V; 4] {
        // SAFETY: as for `input`.
        unsafe {
            let half = V::splat(0.5);
            let (even, odd) = (g[0].add(g[2]).mul(half), g[1].mul(half));
            [g[0], even.add(odd), even.sub(odd), g[2]]
        }
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

    #[inline(always)]
    unsafe fn taps<V: Vector>(u: [V; 4]) -> [V; 3] {
        // SAFETY: as for `input`.
        unsafe {
            let half = V::splat(0.5);
            let even = u[1].add(u[2]).mul(half);
            [u[0].add(even), u[1].sub(u[2]).mul(half), even.add(u[3])]
        }
    }
}

const S: f64 = 1.0 / 6.0;
const T: f64 = 1.0 / 12.0;
const U: f64 = 1.0 / 24.0;

impl Form<4, 6> for Four {
    const INPUT: [[f64; 6]; 6] = [
        [4., 0., -5., 0., 1., 0.],
        [0., -4., -4., 1., 1., 0.],
        [0., 4., -4., -1., 1., 0.],
        [0., -2., -1., 2., 1., 0.],
        [0., 2., -1., -2., 1., 0.],
        [0., 4., 0., -5., 0., 1.],
    ];
    const FILTER: [[f64; 3]; 6] = [[0.25, 0., 0.], [-S, -S, -S], [-S, S, -S], [U, T, S], [U, -T, S], [0., 0., 1.]];
    const OUTPUT: [[f64; 6]; 4] =
        [[1., 1., 1., 1., 1., 0.], [0., 1., -1., 2., -2., 0.], [0., 1., 1., 4., 4., 0.], [0., 1., -1., 8., -8., 1.]];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 6]) -> [V; 6] {
        // SAFETY: the caller has the instruction set; likewise below.
        unsafe {
            let (four, less_four, less_five) = (V::splat(4.0), V::splat(-4.0), V::splat(-5.0));
            let (even, odd) = (d[2].fma(less_four, d[4]), d[1].fma(less_four, d[3]));
            let (wide, far) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(V::splat(2.0)));
            [
                d[0].fma(four, d[2].fma(less_five, d[4])),
                even.add(odd),
                even.sub(odd),
                wide.add(far),
                wide.sub(far),
                d[1].fma(four, d[3].fma(less_five, d[5])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn filter<V: Vector>(g: [V; 3]) -> [V; 6] {
        // SAFETY: as for `input`.
        unsafe {
            let (sixth, less_sixth) = (V::splat(S as f32), V::splat(-S as f32));
            let (even, odd) = (g[0].add(g[2]).mul(less_sixth), g[1].mul(less_sixth));
            let (wide, far) = (g[0].fma(V::splat(U as f32), g[2].mul(sixth)), g[1].mul(V::splat(T as f32)));
            [g[0].mul(V::splat(0.25)), even.add(odd), even.sub(odd), wide.add(far), wide.sub(far), g[2]]
        }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(p: [V; 6]) -> [V; 4] {
        // SAFETY: as for `input`.
        unsafe {
            let (even, odd) = (p[1].add(p[2]), p[1].sub(p[2]));
            let (wide, far) = (p[3].add(p[4]), p[3].sub(p[4]));
            [
                p[0].add(even.add(wide)),
                far.fma(V::splat(2.0), odd),
                wide.fma(V::splat(4.0), even),
                far.fma(V::splat(8.0), odd).add(p[5]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn gradient<V: Vector>(dy: [V; 4]) -> [V; 6] {
        // SAFETY: as for `input`.
        unsafe {
            let (even, odd) = (dy[0].add(dy[2]), dy[1].add(dy[3]));
            let wide = dy[2].fma(V::splat(4.0), dy[0]);
            let far = dy[3].fma(V::splat(4.0), dy[1]).mul(V::splat(2.0));
            [dy[0], even.add(odd), even.sub(odd), wide.add(far), wide.sub(far), dy[3]]
        }
    }

    #[inline(always)]
    unsafe fn taps<V: Vector>(u: [V; 6]) -> [V; 3] {
        // SAFETY: as for `input`.
        unsafe {
            let (sixth, less_sixth) = (V::splat(S as f32), V::splat(-S as f32));
            let (even, odd) = (u[1].add(u[2]).mul(less_sixth), u[2].sub(u[1]));
            let (wide, far) = (u[3].add(u[4]), u[3].sub(u[4]));
            [
                u[0].fma(V::splat(0.25), wide.fma(V::splat(U as f32), even)),
                far.fma(V::splat(T as f32), odd.mul(sixth)),
                wide.fma(sixth, even).add(u[5]),
            ]
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

    fn check<F: Form<M, A>, const M: usize, const A: usize>() {
        let (d, g, dy) = (std::array::from_fn(|i| (i * i) as f64 - 2.5), [0.3, -1.1, 2.0], std::array::from_fn(|i| 1.5 - i as f64));
        // SAFETY: the portable vector needs no instruction set.
        unsafe {
            close(&first(F::input(lanes::<A>(d))), &times(&F::INPUT, &d));
            close(&first(F::filter(lanes(g))), &times(&F::FILTER, &g));
            close(&first(F::output(lanes::<A>(d))), &times(&F::OUTPUT, &d));
            close(&first(F::gradient(lanes::<M>(dy))), &transposed(&F::OUTPUT, &dy));
            close(&first(F::taps(lanes::<A>(d))), &transposed(&F::FILTER, &d));
        }
        // y = A^T [(G g) . (B^T d)] is the correlation.
        let products: Vec<f64> = times(&F::FILTER, &g).iter().zip(times(&F::INPUT, &d)).map(|(u, v)| u * v).collect();
        let y: Vec<f64> = F::OUTPUT.iter().map(|row| row.iter().zip(&products).map(|(a, p)| a * p).sum()).collect();
        let expected: Vec<f64> = (0..M).map(|o| (0..3).map(|t| d[o + t] * g[t]).sum()).collect();
        close(&y, &expected);
    }

    #[test]
    fn arithmetic_is_that_of_the_matrices_and_they_are_a_convolution() {
        check::<Two, 2, 4>();
        check::<Four, 4, 6>();
    }
}
