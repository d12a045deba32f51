//! Winograd's algorithm for filters of 3 x 3 and 5 x 5, of 3 and 7 along one axis, and stride 1: up to 4 times fewer multiplications.
//!
//! Results are made in tiles; along each axis, m of them from a = m + r - 1 inputs for r taps. With [`form`]'s matrices, those of the columns on
//! the left and those of the rows on the right, over input channels k:
//!
//! `y = A^T [sum over k of (G w_k G^T) . (B^T x_k B)] A`, and transposed `dw = G^T [sum over tiles of (B^T x B) . (A dy A^T)] G`.
//!
//! So each of the places of a transformed tile is a matrix product of its own, tiles x channels by channels x channels, done by
//! the same register tiles as everywhere. [`convolve`] is the forward pass and the input gradient (a convolution of `dy` with the
//! rotated filter), [`filter_grad`] the other; [`line`] does the same for seven taps along one axis. [`transform`] goes from pixels to
//! planes and back, a plane for each place.
//!
//! The transforms enlarge rounding errors; [`Scheme::amplification`] says by how much, and the self-test holds results to it. What is
//! chosen depends on the layer's shape alone, so that an image has the same bits in every batch.
//! All of it is in f32, under bf16 as well: what the transforms make of values rounded to eight bits has few of them left.

mod convolve;
mod filter;
mod filter_grad;
mod form;
mod line;
mod tiles;
mod transform;

pub(super) use convolve::Winograd;
pub(super) use filter_grad::WinogradFilterGrad;
pub(super) use line::{Line, LineFilterGrad, line_amplification};

use super::pass::Pass;
use crate::base::Math;
use crate::device::cpu::Cpu;
use form::{F11, F23, F25, F43, Form};

/// The forms along both axes of a tile. A filter of one tap along an axis has tiles of one result there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// F(4, 3) both ways.
    F43,
    /// F(2, 3) along columns, F(4, 3) along rows: a third more multiplications than F(4, 3) both ways, 0.6 of its rounding errors.
    F23x43,
    /// F(2, 5) both ways.
    F25,
    /// F(4, 3) along rows: filters of 1x3.
    Rows43,
    /// F(4, 3) along columns: filters of 3x1.
    Columns43,
}

/// What the transforms of a value cost, in multiplications of the products: measured on layers whose planes fit the caches.
const TRANSFORM: usize = 16;

impl Scheme {
    /// Every scheme.
    pub const ALL: [Scheme; 5] = [Scheme::F43, Scheme::F23x43, Scheme::F25, Scheme::Rows43, Scheme::Columns43];

    /// The cheapest of some for a pass, if it is cheaper than a direct one: `planes x tiles x (in x out + TRANSFORM (in + out))`
    /// against `taps x results x in x out`, of which a direct pass in bf16 does two at a time.
    pub fn choose(cpu: &Cpu, math: Math, pass: &Pass, [cin, cout]: [usize; 2], schemes: &[Scheme]) -> Option<Scheme> {
        if cpu.exact || pass.step != [1, 1] || pass.apart != [1, 1] || cin < 16 || cout < 16 {
            return None;
        }
        let products = cin * cout;
        let cost = |scheme: Scheme| {
            let tiles: usize = pass.size.iter().zip(scheme.results()).map(|(s, m)| s.div_ceil(m)).product();
            scheme.planes() * tiles * (products + TRANSFORM * (cin + cout))
        };
        let direct = pass.taps[0] * pass.taps[1] * pass.size[0] * pass.size[1] * products / if math == Math::Bf16 { 2 } else { 1 };
        let fitting = schemes.iter().copied().filter(|scheme| scheme.taps() == pass.taps);
        fitting.min_by_key(|&scheme| cost(scheme)).filter(|&scheme| cost(scheme) < direct)
    }

    /// Results along each axis.
    pub fn results(self) -> [usize; 2] {
        match self {
            Scheme::F25 => [2, 2],
            Scheme::F43 => [4, 4],
            Scheme::F23x43 => [2, 4],
            Scheme::Rows43 => [1, 4],
            Scheme::Columns43 => [4, 1],
        }
    }

    /// Taps along each axis.
    pub fn taps(self) -> [usize; 2] {
        match self {
            Scheme::F43 | Scheme::F23x43 => [3, 3],
            Scheme::F25 => [5, 5],
            Scheme::Rows43 => [1, 3],
            Scheme::Columns43 => [3, 1],
        }
    }

    /// Taps of a filter.
    pub fn taps_total(self) -> usize {
        self.taps().iter().product()
    }

    /// Inputs along each axis.
    pub fn inputs(self) -> [usize; 2] {
        [0, 1].map(|axis| self.results()[axis] + self.taps()[axis] - 1)
    }

    /// Planes: places of a transformed tile.
    pub fn planes(self) -> usize {
        self.inputs().iter().product()
    }

    /// By how much rounding errors are enlarged against plain sums: see [`Form::amplification`], whose factors along both axes multiply.
    pub fn amplification(self) -> f64 {
        let [rows, columns] = match self {
            Scheme::F43 => [F43::amplification(); 2],
            Scheme::F23x43 => [F43::amplification(), F23::amplification()],
            Scheme::F25 => [F25::amplification(); 2],
            Scheme::Rows43 | Scheme::Columns43 => [F43::amplification(), F11::amplification()],
        };
        (rows * columns).sqrt()
    }
}

/// Floats from row to row of a plane: whole vectors, an odd number of them, so that neighbouring rows fall into different sets of
/// the cache.
fn plane_pitch(channels: usize) -> usize {
    16 * (channels.div_ceil(16) | 1)
}

/// Floats from plane to plane of `rows` rows, an odd number of cache lines.
fn plane_floats(rows: usize, pitch: usize) -> usize {
    16 * ((rows * pitch).div_ceil(16) | 1)
}

/// Tiles of a block: at least enough for a filter of `products` = in x out channels, read again for every block, not to hold the
/// products up, and no more than that if the planes of `channels` = in + out floats a tile then overflow the cache.
fn block_tiles(scheme: Scheme, channels: usize, cache: usize, least: usize) -> usize {
    (cache / (scheme.planes() * channels)).max(least)
}
