//! The matrix products of `kernels/product.cuh`: which tile of which arithmetic, on how many blocks.
//!
//! All three ops of the family are one product with other operands; see the formula at the head of each `.cu`. A kernel exists
//! for each arithmetic and each of its tiles, one of them for operands that cannot be read in vectors of 16 bytes.

mod filter_grad;
mod forward;
mod input;
mod input_grad;

use super::geometry;
use crate::base::{DType, Geom, Math, Shape, Window};
use crate::device::cuda::driver::Declared;
use crate::device::cuda::{Cuda, Matrix};

/// The kernels of the family.
pub fn declared() -> Vec<Declared> {
    [forward::declared(), input::declared(), input_grad::declared(), filter_grad::declared()].concat()
}

/// The geometry of a window on images of `shape`, and the number of images.
fn on_images(window: &Window, shape: Shape) -> (Geom, i32) {
    (geometry(window, shape), shape.dims()[0] as i32)
}

/// How numbers are multiplied, as the tables of kernels are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Exact,
    Tf32,
    Bf16,
    /// bf16 on Hopper: `Warpgroup` in warpgroup.cuh.
    Warpgroup,
}

impl Arithmetic {
    fn of(cuda: &Cuda, dtype: DType, math: Math, vectors: bool) -> Self {
        match (dtype, math) {
            (DType::Bf16, _) if vectors && cuda.warpgroups() => Arithmetic::Warpgroup,
            (DType::Bf16, _) => Arithmetic::Bf16,
            (_, Math::Tf32) => Arithmetic::Tf32,
            (_, Math::Full) => Arithmetic::Exact,
            (_, Math::Bf16) => unreachable!("this device stores bf16; nothing is rounded on the way to a product"),
        }
    }

    fn tiles(self) -> &'static [Tile] {
        match self {
            Arithmetic::Exact => &EXACT,
            Arithmetic::Tf32 | Arithmetic::Bf16 => &TENSOR,
            Arithmetic::Warpgroup => &WARPGROUP,
        }
    }

    /// Bytes of `extent` x k elements in shared memory, where k is the inner index and where it is not: `Slab` in product.cuh and
    /// `SwizzledSlab` in warpgroup.cuh.
    fn slab(self, extent: usize, k_inner: bool) -> usize {
        let padded = |size: usize, depth: usize, pad: usize| {
            size * if k_inner { extent * (depth + 16 / size) } else { depth * (extent + pad) }
        };
        match self {
            Arithmetic::Exact => padded(4, 16, 4),
            Arithmetic::Tf32 => padded(4, 16, 8),
            Arithmetic::Bf16 => padded(2, 32, 8),
            Arithmetic::Warpgroup => 128 * if k_inner { extent } else { extent.div_ceil(64) * 64 },
        }
    }
}

/// A block's share of the results: `Tile` in product.cuh, `WarpgroupTile` in warpgroup.cuh.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    rows: usize,
    cols: usize,
    threads: u32,
    /// Slabs in flight.
    stages: usize,
    /// Speed per result against that of the largest tile when all processors are busy: small tiles read more for each result.
    speed: f64,
    /// Blocks that share a processor.
    together: usize,
}

const fn tile(rows: usize, cols: usize, threads: u32, stages: usize, speed: f64, together: usize) -> Tile {
    Tile { rows, cols, threads, stages, speed, together }
}

/// The last tile of these two serves operands without vectors.
const EXACT: [Tile; 5] = [
    tile(128, 128, 256, 3, 1.0, 1),
    tile(128, 64, 128, 3, 0.85, 1),
    tile(128, 32, 128, 4, 0.65, 1),
    tile(64, 32, 128, 4, 0.5, 1),
    tile(64, 32, 128, 4, 0.5, 1),
];
const TENSOR: [Tile; 5] = [
    tile(128, 128, 128, 3, 1.0, 1),
    tile(128, 64, 128, 4, 0.85, 1),
    tile(128, 32, 128, 4, 0.65, 1),
    tile(64, 32, 128, 4, 0.5, 1),
    tile(64, 32, 128, 4, 0.5, 1),
];
const WARPGROUP: [Tile; 6] = [
    tile(256, 128, 384, 4, 1.0, 1),
    tile(128, 128, 320, 3, 0.95, 2),
    tile(128, 64, 320, 4, 0.72, 2),
    tile(64, 64, 192, 4, 0.65, 3),
    tile(128, 32, 320, 4, 0.45, 2),
    tile(64, 32, 192, 4, 0.38, 3),
];

/// The tile for operands without vectors.
const ANY: usize = 4;

/// The tile that computes `layers` matrices of `rows` x `cols` results soonest on so many processors. A processor works through its
/// share in rounds of as many blocks as fit it together; a block of a round that is not full goes faster, at most by half for each
/// that is missing. Tiles differ in speed alone: the sum behind a result always goes over k in the same order.
fn pick(tiles: &[Tile], [rows, cols, layers]: [usize; 3], processors: usize) -> usize {
    let time = |t: &Tile| {
        let blocks = (layers * rows.div_ceil(t.rows) * cols.div_ceil(t.cols)).div_ceil(processors);
        let (rounds, rest, together) = (blocks / t.together, blocks % t.together, t.together as f64);
        let last = if rest > 0 { (rest as f64 / together).max(2.0 / (1.0 + together)) } else { 0.0 };
        (rounds as f64 + last) * together * (t.rows * t.cols) as f64 / t.speed
    };
    (0..tiles.len()).min_by(|&a, &b| time(&tiles[a]).total_cmp(&time(&tiles[b]))).expect("there are tiles")
}

/// One launch: the kernel's place in its table, and the numbers that follow from the tile.
struct Product {
    arithmetic: Arithmetic,
    tile: usize,
}

impl Product {
    /// The product of `[rows, cols, layers]` results. `operands` are all that it reads and writes in vectors.
    fn new(cuda: &Cuda, math: Math, size: [usize; 3], operands: &[&Matrix]) -> Self {
        let vectors = operands.iter().all(|m| m.packs());
        let arithmetic = Arithmetic::of(cuda, operands[0].dtype, math, vectors);
        let tiles = arithmetic.tiles();
        let tile = match (arithmetic, vectors) {
            (Arithmetic::Warpgroup, _) => pick(tiles, size, cuda.processors()),
            (_, true) => pick(&tiles[..ANY], size, cuda.processors()),
            (_, false) => ANY,
        };
        Product { arithmetic, tile }
    }

    /// The kernel of a table `[arithmetic][tile]`.
    fn kernel<K: Copy>(&self, table: &[&[K]; 4]) -> K {
        table[self.arithmetic as usize][self.tile]
    }

    fn tile(&self) -> &'static Tile {
        &self.arithmetic.tiles()[self.tile]
    }

    /// Threads of a block.
    fn threads(&self) -> u32 {
        self.tile().threads
    }

    /// Blocks that cover `rows` x `cols` results.
    fn blocks(&self, rows: usize, cols: usize) -> usize {
        rows.div_ceil(self.tile().rows) * cols.div_ceil(self.tile().cols)
    }

    /// Floats by which a row of the results is padded in shared memory.
    fn pad(&self) -> usize {
        if self.arithmetic == Arithmetic::Warpgroup { 8 } else { 4 }
    }

    /// Bytes of the barriers of a ring: two for each slab.
    fn barriers(&self) -> usize {
        if self.arithmetic == Arithmetic::Warpgroup { 16 * self.tile().stages } else { 0 }
    }

    /// Bytes of shared memory of a block: the ring of slabs or the tile of results, whichever is larger. `k_inner` says of either
    /// operand whether neighbours in memory differ in k.
    fn shared(&self, k_inner: [bool; 2]) -> usize {
        let tile = self.tile();
        let stage = self.arithmetic.slab(tile.rows, k_inner[0]) + self.arithmetic.slab(tile.cols, k_inner[1]);
        (stage * tile.stages).max(tile.rows * (tile.cols + self.pad()) * 4) + self.barriers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_products_get_small_tiles() {
        let tile = |rows, cols| pick(&TENSOR[..ANY], [rows, cols, 1], 132);
        assert_eq!([tile(100_000, 512), tile(100_000, 64), tile(100_000, 32), tile(784, 32)], [0, 1, 2, 3]);
        // On one processor, as the emulated driver has, cases of modest size reach every tile.
        let tile = |rows, cols| pick(&TENSOR[..ANY], [rows, cols, 1], 1);
        assert_eq!([tile(144, 104), tile(130, 56), tile(70, 32), tile(9, 32)], [0, 1, 2, 3]);
        // On Hopper: a large layer; one whose rounds are fuller with smaller tiles; few columns, many rows and few.
        let tile = |rows, cols| pick(&WARPGROUP, [rows, cols, 1], 132);
        assert_eq!([tile(200_000, 512), tile(3136, 512), tile(100_000, 32), tile(784, 32)], [0, 3, 4, 5]);
    }
}
