use super::{Ahead, Floats, Product, instantiate, unroll};
use crate::base::Math;
use crate::device::cpu::simd::{Vector, prefetch};

/// `M` neighbouring input channels x `N` vectors of output channels, summed over a block of pixels:
///
/// `w[m][n] += sum over images, rows, pixels of x[image * x_image + row * x_row + pixel * x_pixel + m] * dy[..][n]`.
pub struct Outer {
    pub images: usize,
    pub rows: usize,
    pub pixels: usize,
    /// First of the `M` channels at the first pixel, and the floats between images, rows and pixels.
    pub x: *const f32,
    pub x_image: usize,
    pub x_row: usize,
    pub x_pixel: usize,
    /// Gradients, `N` whole vectors a pixel, and the floats between images, rows and pixels.
    pub dy: *const f32,
    pub dy_image: usize,
    pub dy_row: usize,
    pub dy_pixel: usize,
    /// First result, floats between two input channels of it, and output channels that exist.
    pub w: *mut f32,
    pub w_row: usize,
    pub cols: usize,
    /// Start from what lies at `w` instead of from zero.
    pub add: bool,
    /// One line a pixel; of the next image and row, as far on as `x` is.
    pub ahead: Ahead,
}

#[inline(always)]
unsafe fn body<V: Vector, P: Product<V>, const M: usize, const N: usize>(a: &Outer) {
    // SAFETY: the caller's promise: `x`, `dy` and `w` are valid over the extents that `Outer` names; stores of the last
    // vector are limited to `cols`.
    unsafe {
        let last = a.cols - (N - 1) * V::N;
        let mut sums = [[V::zero(); 2]; 14];
        if a.add {
            unroll!(m < M, {
                unroll!(n < N, { sums[m][n] = V::take(a.w.add(m * a.w_row + n * V::N), if n + 1 == N { last } else { V::N }) })
            });
        }
        for image in 0..a.images {
            for row in 0..a.rows {
                let mut x = a.x.add(image * a.x_image + row * a.x_row);
                let mut dy = a.dy.add(image * a.dy_image + row * a.dy_row);
                let mut ahead = a.ahead.first.wrapping_add(image * a.x_image + row * a.x_row);
                let mut left = a.ahead.left;
                for _ in 0..a.pixels {
                    prefetch(ahead);
                    left -= 1;
                    let row_ends = left == 0;
                    ahead = ahead.wrapping_add(a.ahead.step).wrapping_add(if row_ends { a.ahead.gap } else { 0 });
                    left = if row_ends { a.ahead.row } else { left };
                    let mut gradients = [V::zero(); 2];
                    unroll!(n < N, { gradients[n] = V::load(dy.add(n * V::N)) });
                    unroll!(m < M, {
                        let value = V::splat(*x.add(m));
                        unroll!(n < N, { sums[m][n] = P::add(value, gradients[n], sums[m][n]) })
                    });
                    x = x.wrapping_add(a.x_pixel);
                    dy = dy.wrapping_add(a.dy_pixel);
                }
            }
        }
        unroll!(m < M, {
            unroll!(n < N, { sums[m][n].put(a.w.add(m * a.w_row + n * V::N), if n + 1 == N { last } else { V::N }, false) })
        });
    }
}

instantiate! {
    /// The kernel for `rows` input channels and `vectors` vectors of output channels.
    outer of Outer
}
