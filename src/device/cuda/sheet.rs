//! How the threads of an element-wise launch lie on a matrix or a vector; `kernels/elements.cuh` is the other side.

use super::{Cuda, Matrix, tiles};
use crate::base::DType;
use crate::kernel_struct;

/// Threads of every block of an element-wise kernel.
pub const THREADS: u32 = 256;

/// Blocks for each multiprocessor, beyond which a launch gives its threads more rows instead. With several rows on their way in each
/// thread they keep the memory busy, and each thread reads its per-channel vectors once.
const ENOUGH: usize = 4;

/// The most blocks that walk over a vector. The sums of a norm are cut by it, so it must not follow the chip.
const WALKERS: usize = 1024;

/// The most blocks in the second direction of a grid.
const TALLEST: usize = 65_535;

/// A block covers `2^across` packs of `width` columns times `THREADS / 2^across` rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Sheet {
    pub rows: i32,
    pub cols: i32,
    across: i32,
    /// Elements of a pack: 16 bytes of the narrowest type, or 1 where a matrix is not aligned for that.
    pub width: i32,
}
kernel_struct!(Sheet);

impl Sheet {
    /// The launch over matrices of the shape of the first.
    pub fn of(matrices: &[Matrix]) -> Self {
        let Matrix { rows, cols, .. } = matrices[0];
        let narrowest = matrices.iter().map(|m| m.dtype.size() as i32).min().unwrap_or(4);
        let width = 16 / narrowest;
        let width = if cols % width == 0 && matrices.iter().all(Matrix::packs) { width } else { 1 };
        Self::with_width(rows, cols, width)
    }

    /// The launch over rows of `cols` columns, taken `width` at a time.
    pub fn with_width(rows: i32, cols: i32, width: i32) -> Self {
        let across = tiles(cols, width).clamp(1, 32).next_power_of_two().trailing_zeros() as i32;
        Sheet { rows, cols, across, width }
    }

    /// Blocks along the columns and along the rows. It follows the chip: each row is computed by itself.
    pub fn grid(&self, device: &Cuda) -> (usize, usize) {
        let along = self.across_blocks();
        let down = (self.rows as usize).div_ceil(self.rows_of_block());
        // Few rows: one for each thread. Many: as many blocks as keep the chip busy, up to eight rows for each thread.
        (along, down.min((ENOUGH * device.processors()).div_ceil(along)).max(down.div_ceil(8)).clamp(1, TALLEST))
    }

    /// As [`Sheet::grid`], with a thread for each row and pack wherever there can be: for rows that are much work.
    pub fn grid_of_single_rows(&self) -> (usize, usize) {
        (self.across_blocks(), (self.rows as usize).div_ceil(self.rows_of_block()).clamp(1, TALLEST))
    }

    /// The same columns of as many rows.
    pub fn with_rows(self, rows: usize) -> Self {
        Sheet { rows: rows as i32, ..self }
    }

    /// Blocks along the columns.
    pub fn across_blocks(&self) -> usize {
        tiles(self.cols, self.width << self.across)
    }

    /// Rows that a block covers at a time.
    pub fn rows_of_block(&self) -> usize {
        THREADS as usize >> self.across
    }
}

/// A vector without gaps: its length, whether it and all others can be read in packs, and the blocks that walk over it.
pub struct Flat {
    pub len: u64,
    pub wide: i32,
    pub blocks: usize,
}

impl Flat {
    /// The launch over f32 vectors of the length of the first.
    pub fn of(vectors: &[Matrix]) -> Self {
        let len = vectors[0].rows as usize * vectors[0].cols as usize;
        let wide = vectors.iter().all(|v| v.floats().0.is_multiple_of(16));
        Flat { len: len as u64, wide: wide.into(), blocks: Self::most_blocks(len) }
    }

    /// The blocks of a launch over `len` elements: what scratch memory is sized for.
    pub fn most_blocks(len: usize) -> usize {
        len.div_ceil(4 * THREADS as usize).clamp(1, WALKERS)
    }
}

impl Matrix {
    /// Columns `start .. start + len`.
    pub fn columns(mut self, start: usize, len: usize) -> Self {
        self.ptr = self.ptr.offset(start * self.dtype.size());
        self.cols = len as i32;
        self
    }

    /// The address of an operand that is f32 under every policy: vectors, losses, parameters.
    pub fn floats(&self) -> super::DevicePtr {
        assert_eq!(self.dtype, DType::F32, "the precision pass keeps this operand in f32");
        self.ptr
    }
}
