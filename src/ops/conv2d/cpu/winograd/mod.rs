//! Winograd's algorithm for filters of 3 x 3 and stride 1: 2.25 or 4 times fewer multiplications.
//!
//! Results are made in tiles of m x m (m = 2 or 4), a = m + 2. With [`form`]'s matrices, over input channels k:
//!
//! `y = A^T [sum over k of (G w_k G^T) . (B^T x_k B)] A`, and transposed `dw = G^T [sum over tiles of (B^T x B) . (A dy A^T)] G`.
//!
//! So each of the a x a places of a transformed tile is a matrix product of its own, tiles x channels by channels x channels, done by
//! the same register tiles as everywhere. [`convolve`] is the forward pass and the input gradient (a convolution of `dy` with the
//! rotated filter), [`filter_grad`] the other; [`line`] does the same for filters along one axis. [`transform`] goes from pixels to
//! planes and back, a plane for each place.
//!
//! The transforms enlarge rounding errors; [`Size::amplification`] says by how much, and the self-test holds results to it. What is
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
use form::{Form, Four, Two};

/// Results of a tile along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Two,
    Four,
}

/// What the transforms of a value cost, in multiplications of the products: measured on layers whose planes fit the caches.
const TRANSFORM: usize = 16;

impl Size {
    /// Every size.
    pub const ALL: [Size; 2] = [Size::Four, Size::Two];

    /// The cheapest of some sizes for a pass, if it is cheaper than a direct one: `planes x tiles x (in x out + TRANSFORM (in + out))`
    /// against `9 x results x in x out`, of which a direct pass in bf16 does two at a time.
    pub fn choose(cpu: &Cpu, math: Math, pass: &Pass, cin: usize, cout: usize, sizes: &[Size]) -> Option<Size> {
        if cpu.exact || pass.taps != [3, 3] || pass.step != [1, 1] || pass.apart != [1, 1] || cin < 16 || cout < 16 {
            return None;
        }
        let products = cin * cout;
        let cost = |size: Size| {
            let tiles: usize = pass.size.iter().map(|s| s.div_ceil(size.results())).product();
            size.planes() * tiles * (products + TRANSFORM * (cin + cout))
        };
        let direct = 9 * pass.size[0] * pass.size[1] * products / if math == Math::Bf16 { 2 } else { 1 };
        sizes.iter().copied().min_by_key(|&size| cost(size)).filter(|&size| cost(size) < direct)
    }

    /// Results along an axis.
    pub fn results(self) -> usize {
        match self {
            Size::Two => 2,
            Size::Four => 4,
        }
    }

    /// Inputs along an axis.
    pub fn inputs(self) -> usize {
        self.results() + 2
    }

    /// Planes: places of a transformed tile.
    pub fn planes(self) -> usize {
        self.inputs() * self.inputs()
    }

    /// See [`Form::amplification`].
    pub fn amplification(self) -> f64 {
        match self {
            Size::Two => Two::amplification(),
            Size::Four => Four::amplification(),
        }
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
fn block_tiles(size: Size, channels: usize, cache: usize, least: usize) -> usize {
    (cache / (size.planes() * channels)).max(least)
}
