//! Winograd's algorithm along one axis, for filters of 1x7 and 7x1 and stride 1: 11 multiplications for the 21 of three results.
//!
//! Seven taps are four and three: `y = F(3,4)` of taps 0..4 on pixels 0..6 of a tile's nine, and `F(3,3)` of taps 4..7 on pixels 4..9.
//! Both interpolate at 0, two points with both signs and infinity, the second without one of them. Where both have a point, one product sums over the
//! channels of both, so that six planes of products are left of eleven of inputs.
//!
//! [`pass`] is the forward pass and the input gradient, [`filter_grad`] the transposed map; [`transform`] goes from pixels to planes
//! and back.

mod filter_grad;
mod pass;
mod transform;

pub(in crate::ops::conv2d::cpu) use filter_grad::LineFilterGrad;
pub(in crate::ops::conv2d::cpu) use pass::Line;

use super::TRANSFORM;
use super::form::{FAR_SQUARE, F43, FAR, Form, NEAR_SQUARE, NEAR, six_points};
use crate::device::cpu::{Cpu, Src};
use crate::ops::conv2d::cpu::pass::Pass;

/// Results of a tile, the pixels that they read, and the taps of the first part.
const RESULTS: usize = 3;
const PIXELS: usize = 9;
const LONG: usize = 4;
/// Planes of products, a point each: 0, near, -near, far, -far, infinity. A tile's inputs have as many for each part.
const POINTS: usize = 6;
/// Point -far, which the part of three taps does not have.
const ALONE: usize = 4;
/// Matrices of the transformed filter: two for each point but one.
const FILTERS: usize = 11;

/// G of F(3,4), and of F(3,3), whose row for the lone point is not used.
const FILTER: [[[f64; LONG]; POINTS]; 2] = [
    six_points(),
    [
        short(1.0 / (NEAR_SQUARE * FAR), 0.0),
        short(0.5 / (NEAR_SQUARE * (NEAR - FAR)), NEAR),
        short(-0.5 / (NEAR_SQUARE * (NEAR + FAR)), -NEAR),
        short(1.0 / (FAR * (FAR_SQUARE - NEAR_SQUARE)), FAR),
        [0.; LONG],
        [0., 0., 1., 0.],
    ],
];
/// B^T of F(3,3), likewise; that of F(3,4) is that of F(4,3).
const SHORT_INPUT: [[f64; 5]; POINTS] = [
    [NEAR_SQUARE * FAR, -NEAR_SQUARE, -FAR, 1., 0.],
    [0., -NEAR * FAR, NEAR - FAR, 1., 0.],
    [0., NEAR * FAR, -NEAR - FAR, 1., 0.],
    [0., -NEAR_SQUARE, 0., 1., 0.],
    [0.; 5],
    [0., NEAR_SQUARE * FAR, -NEAR_SQUARE, -FAR, 1.],
];
/// A^T of both.
const OUTPUT: [[f64; POINTS]; RESULTS] = [[1., 1., 1., 1., 1., 0.], [0., NEAR, -NEAR, FAR, -FAR, 0.], [0., NEAR_SQUARE, NEAR_SQUARE, FAR_SQUARE, FAR_SQUARE, 1.]];

/// Row of G of F(3,3): three powers of a point, scaled.
const fn short(scale: f64, point: f64) -> [f64; LONG] {
    [scale, scale * point, scale * point * point, 0.]
}

/// By how much rounding errors are enlarged; see [`Form::amplification`].
pub(in crate::ops::conv2d::cpu) fn line_amplification() -> f64 {
    let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>();
    let product = |x: usize| norm(&F43::INPUT[x]) * norm(&FILTER[0][x]) + norm(&SHORT_INPUT[x]) * norm(&FILTER[1][x]);
    let result = |o: &[f64; POINTS]| (0..POINTS).map(|x| o[x] * o[x] * product(x)).sum::<f64>() / 7.0;
    (OUTPUT.iter().map(result).sum::<f64>() / RESULTS as f64).sqrt()
}

/// The first matrix of point `x` in a transformed filter, and how many it has.
fn filters(x: usize) -> (usize, usize) {
    (2 * x - usize::from(x > ALONE), if x == ALONE { 1 } else { 2 })
}

/// The results of a pass as tiles of [`RESULTS`] along the axis of the taps; those at its end may stick out.
#[derive(Clone, Copy)]
struct Tiles {
    pass: Pass,
    axis: usize,
    grid: [usize; 2],
}

impl Tiles {
    /// For a pass of seven taps along one axis, where it is cheaper than a direct one; see [`super::Scheme::choose`].
    fn choose(cpu: &Cpu, pass: &Pass, cin: usize, cout: usize) -> Option<Tiles> {
        let axis = usize::from(pass.taps == [1, 7]);
        let fits = pass.taps[axis] == 7 && pass.taps[1 - axis] == 1 && pass.step == [1; 2] && pass.apart == [1; 2];
        if cpu.exact || !fits || cin.min(cout) < 16 {
            return None;
        }
        let mut grid = pass.size;
        grid[axis] = grid[axis].div_ceil(RESULTS);
        let [tiles, results] = [grid, pass.size].map(|size| size[0] * size[1]);
        let cost = tiles * (FILTERS * cin * cout + TRANSFORM * (FILTERS * cin + POINTS * cout));
        (cost < 7 * results * cin * cout).then_some(Tiles { pass: *pass, axis, grid })
    }

    fn count(&self) -> usize {
        self.pass.images * self.grid[0] * self.grid[1]
    }

    /// The image and the first result of a tile.
    fn place(&self, tile: usize) -> (usize, [usize; 2]) {
        let [rows, cols] = self.grid;
        let mut at = [tile / cols % rows, tile % cols];
        at[self.axis] *= RESULTS;
        (tile / cols / rows, at)
    }

    /// The input pixels that a tile's results read; those that do not exist are zeros.
    fn sources(&self, x: Src, tile: usize, zeros: *const f32) -> [*const f32; PIXELS] {
        let (image, at) = self.place(tile);
        self.pixels(x, image, self.pass.input, [0, 1].map(|i| self.pass.source(i, at[i], 0)), zeros)
    }

    /// The results of a tile in a matrix of results, likewise.
    fn results(&self, dy: Src, tile: usize, zeros: *const f32) -> [*const f32; RESULTS] {
        let (image, at) = self.place(tile);
        self.pixels(dy, image, self.pass.size, at.map(|u| u as isize), zeros)
    }

    /// `N` pixels along the axis.
    fn pixels<const N: usize>(
        &self,
        x: Src,
        image: usize,
        size: [usize; 2],
        [row, col]: [isize; 2],
        zeros: *const f32,
    ) -> [*const f32; N] {
        let (axis, [height, width]) = (self.axis, size);
        let (along, across) = if axis == 0 { (row, col) } else { (col, row) };
        let apart = if axis == 0 { width } else { 1 };
        let first = (image * height * width).wrapping_add_signed(row * width as isize + col);
        let exists = |axis: usize, at: isize| (0..size[axis] as isize).contains(&at);
        let inside = exists(1 - axis, across);
        std::array::from_fn(|i| match inside && exists(axis, along + i as isize) {
            true => x.ptr().wrapping_add(first.wrapping_add(i * apart) * x.pitch),
            false => zeros,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_a_convolution_of_seven_taps() {
        let d: [f64; PIXELS] = std::array::from_fn(|i| (i * i) as f64 - 2.5);
        let g = [0.3, -1.1, 2.0, 0.7, -0.2, 1.3, -0.9, 0.0];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let product = |x: usize| {
            dot(&F43::INPUT[x], &d[..6]) * dot(&FILTER[0][x], &g[..4]) + dot(&SHORT_INPUT[x], &d[4..]) * dot(&FILTER[1][x], &g[4..])
        };
        let products: [f64; POINTS] = std::array::from_fn(product);
        for (o, row) in OUTPUT.iter().enumerate() {
            let expected = dot(&d[o..o + 7], &g[..7]);
            assert!((dot(row, &products) - expected).abs() < 1e-10, "result {o}: {}, not {expected}", dot(row, &products));
        }
    }

    #[test]
    fn amplification_is_that_of_one_axis() {
        assert!((2.19..2.2).contains(&line_amplification()), "{}", line_amplification());
    }
}
