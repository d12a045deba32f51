//! The matrix products of `kernels/product.cuh`: which tile of which arithmetic, on how many blocks.
//!
//! All three ops of the family are one product with other operands; see the formula at the head of each `.cu`. A kernel exists
//! for each arithmetic and each of five tiles, the last for operands that cannot be read in vectors of 16 bytes.

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
}

impl Arithmetic {
    fn of(dtype: DType, math: Math) -> Self {
        match (dtype, math) {
            (DType::Bf16, _) => Arithmetic::Bf16,
            (_, Math::Tf32) => Arithmetic::Tf32,
            (_, Math::Full) => Arithmetic::Exact,
            (_, Math::Bf16) => unreachable!("this device stores bf16; nothing is rounded on the way to a product"),
        }
    }

    /// Bytes of an operand's element, steps of k of a slab, and elements by which a row of a slab is padded where k is the outer
    /// index: `Math` in product.cuh.
    fn slab(self) -> (usize, usize, usize) {
        match self {
            Arithmetic::Exact => (4, 16, 4),
            Arithmetic::Tf32 => (4, 16, 8),
            Arithmetic::Bf16 => (2, 32, 8),
        }
    }
}

/// A block's share of the results: `Tile` in product.cuh.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    rows: usize,
    cols: usize,
    /// Threads and slabs in flight, in the exact arithmetic and on tensor cores.
    threads: [u32; 2],
    stages: [usize; 2],
    /// Speed per result against that of the largest tile when all processors are busy: small tiles read more for each result.
    speed: f64,
}

const TILES: [Tile; 5] = [
    Tile { rows: 128, cols: 128, threads: [256, 128], stages: [3, 3], speed: 1.0 },
    Tile { rows: 128, cols: 64, threads: [128, 128], stages: [3, 4], speed: 0.85 },
    Tile { rows: 128, cols: 32, threads: [128, 128], stages: [4, 4], speed: 0.65 },
    Tile { rows: 64, cols: 32, threads: [128, 128], stages: [4, 4], speed: 0.5 },
    Tile { rows: 64, cols: 32, threads: [128, 128], stages: [4, 4], speed: 0.5 },
];

/// The tile for operands without vectors.
const ANY: usize = 4;

/// The tile that computes `layers` matrices of `rows` x `cols` results soonest on so many processors, each busy with one tile at
/// a time: a whole number of rounds. Tiles differ in speed alone: the sum behind a result always goes over k in the same order.
fn pick([rows, cols, layers]: [usize; 3], vectors: bool, processors: usize) -> usize {
    if !vectors {
        return ANY;
    }
    let time = |t: &Tile| {
        let rounds = (layers * rows.div_ceil(t.rows) * cols.div_ceil(t.cols)).div_ceil(processors);
        (rounds * t.rows * t.cols) as f64 / t.speed
    };
    (0..ANY).min_by(|&a, &b| time(&TILES[a]).total_cmp(&time(&TILES[b]))).expect("there are tiles")
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
        Product { arithmetic: Arithmetic::of(operands[0].dtype, math), tile: pick(size, vectors, cuda.processors()) }
    }

    /// The kernel of a table `[arithmetic][tile]`.
    fn kernel<K: Copy>(&self, table: &[[K; TILES.len()]; 3]) -> K {
        table[self.arithmetic as usize][self.tile]
    }

    fn variant(&self) -> usize {
        usize::from(self.arithmetic != Arithmetic::Exact)
    }

    /// Threads of a block.
    fn threads(&self) -> u32 {
        TILES[self.tile].threads[self.variant()]
    }

    /// Blocks that cover `rows` x `cols` results.
    fn blocks(&self, rows: usize, cols: usize) -> usize {
        rows.div_ceil(TILES[self.tile].rows) * cols.div_ceil(TILES[self.tile].cols)
    }

    /// Bytes of shared memory of a block: the ring of slabs or the tile of results, whichever is larger. `k_inner` says of either
    /// operand whether neighbours in memory differ in k.
    fn shared(&self, k_inner: [bool; 2]) -> usize {
        let (tile, (size, depth, pad)) = (&TILES[self.tile], self.arithmetic.slab());
        let slab = |extent: usize, k_inner: bool| if k_inner { extent * (depth + 16 / size) } else { depth * (extent + pad) };
        let stage = (slab(tile.rows, k_inner[0]) + slab(tile.cols, k_inner[1])) * size;
        (stage * tile.stages[self.variant()]).max(tile.rows * (tile.cols + 4) * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_products_get_small_tiles() {
        let tile = |rows, cols, vectors| pick([rows, cols, 1], vectors, 132);
        assert_eq!(tile(100_000, 512, true), 0);
        assert_eq!(tile(100_000, 64, true), 1);
        assert_eq!(tile(100_000, 32, true), 2);
        assert_eq!(tile(784, 32, true), 3);
        assert_eq!(tile(100_000, 512, false), ANY);
        // On one processor, as the emulated driver has, cases of modest size reach every tile.
        let tile = |rows, cols| pick([rows, cols, 1], true, 1);
        assert_eq!([tile(144, 104), tile(130, 56), tile(70, 32), tile(9, 32)], [0, 1, 2, 3]);
    }
}
