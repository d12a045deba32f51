use super::{Ahead, Floats, Product, instantiate, unroll};
use crate::base::Math;
use crate::device::cpu::simd::{Vector, prefetch};

/// `M` neighbouring result pixels of one image row x one panel of `N` vectors of output channels:
///
/// `y[m][n] = sum over i < rows, j < taps, c < depth of x[i * row + m * pixel + j * tap + c] * w[i][j][c][n]`.
pub struct Strip {
    /// First input float of pixel 0.
    pub x: *const f32,
    /// Floats from the input of one result pixel to that of the next: input pitch x stride.
    pub pixel: usize,
    /// Rows of taps, and the floats between two rows of input.
    pub rows: usize,
    pub row: usize,
    /// Taps of a row, and the floats between two of them.
    pub taps: usize,
    pub tap: usize,
    /// Contiguous floats of one tap: input channels (or taps x channels where they are contiguous).
    pub depth: usize,
    /// Packed weights `[rows, taps, depth, N vectors]`.
    pub w: *const f32,
    /// First result, floats between result pixels, and output channels that exist (the last vector may be partial).
    pub y: *mut f32,
    pub y_pixel: usize,
    pub cols: usize,
    /// Add the sums to what lies at `y`.
    pub add: bool,
    pub ahead: Ahead,
}

#[inline(always)]
unsafe fn body<V: Vector, P: Product<V>, const M: usize, const N: usize>(a: &Strip) {
    // SAFETY: the caller's promise: `x`, `w` and `y` are valid over the extents that `Strip` names; stores of the last
    // vector are limited to `cols`.
    unsafe {
        let last = a.cols - (N - 1) * V::N;
        let mut sums = [[V::zero(); 2]; 14];
        let (mut w, mut ahead, pixel) = (a.w, a.ahead.first, a.pixel);
        for i in 0..a.rows {
            for j in 0..a.taps {
                // Every third pixel has a pointer of its own; the processor's addressing reaches the two after it.
                let x = a.x.add(i * a.row + j * a.tap);
                let x = [x, x.wrapping_add(3 * pixel), x.wrapping_add(6 * pixel), x.wrapping_add(9 * pixel), x.wrapping_add(12 * pixel)];
                for c in 0..a.depth {
                    prefetch(ahead);
                    ahead = ahead.wrapping_add(a.ahead.step);
                    let mut weights = [V::zero(); 2];
                    unroll!(n < N, { weights[n] = V::load(w.add(n * V::N)) });
                    w = w.add(N * V::N);
                    unroll!(m < M, {
                        let value = V::splat(*x[m / 3].add((m % 3) * pixel + c));
                        unroll!(n < N, { sums[m][n] = P::add(value, weights[n], sums[m][n]) })
                    });
                }
            }
        }
        unroll!(m < M, {
            unroll!(n < N, { sums[m][n].put(a.y.add(m * a.y_pixel + n * V::N), if n + 1 == N { last } else { V::N }, a.add) })
        });
    }
}

instantiate! {
    /// The kernel for `rows` pixels and `vectors` vectors of output channels.
    strip of Strip
}
