//! Sums over the rows of a matrix, one per column, in two launches; `kernels/columns.cuh` is the other side.
//!
//! The first launch leaves the sums of every part of the rows in scratch memory, the second adds up the parts in order.

use super::sheet::{Sheet, THREADS};
use super::{Call, Cuda, DevicePtr, Matrix};
use crate::kernels;

kernels! { in "columns";
    fn finish_sums(partial: *const f32, parts: i32, sums: i32, cols: i32, y0: *mut f32, add0: i32, y1: *mut f32, add1: i32);
    fn gather_sums(partial: *const f32, parts: i32, cols: i32, parts_per_group: i32, group: *mut f32);
}

/// Columns of a block of the second launch.
pub const FINISHED: usize = 8;

/// The most parts of a matrix.
const MOST: usize = 512;

/// Blocks of the first launch that keep a chip busy.
const BUSY: usize = 1024;

/// Rows of a part for each of its threads, or a multiple: what a thread has on its way at once.
const FOR_A_THREAD: usize = 4;

/// The cut of a matrix's rows into parts. It follows from the shape alone.
#[derive(Clone, Copy)]
pub struct Parts {
    pub count: usize,
    pub rows_each: usize,
}

impl Parts {
    /// At most [`MOST`] parts, fewer for a matrix that is wide or low.
    pub fn of(rows: usize, cols: usize) -> Self {
        let wanted = BUSY.div_ceil(cols.div_ceil(128)).min(MOST);
        // Rows of a block that takes eight columns to a thread, at most 32 threads wide: what Sheet has for bf16.
        let at_a_time = (8 * THREADS as usize / cols.next_power_of_two()).clamp(THREADS as usize / 32, THREADS as usize);
        let rows_each = rows.div_ceil(wanted).next_multiple_of(FOR_A_THREAD * at_a_time);
        Parts { count: rows.div_ceil(rows_each).max(1), rows_each }
    }

    /// The cut of the matrix of a launch.
    pub fn of_sheet(sheet: &Sheet) -> Self {
        Self::of(sheet.rows as usize, sheet.cols as usize)
    }

    /// Blocks of the first launch.
    pub fn grid(&self, sheet: &Sheet) -> (usize, usize) {
        (sheet.across_blocks(), self.count)
    }
}

/// Bytes of scratch memory for `sums` sums of each column.
pub fn scratch(rows: usize, cols: usize, sums: usize) -> usize {
    4 * sums * cols * Parts::of(rows, cols).count
}

/// The second launch: `outs[k] (+)= sum over the parts of partial[part, k]`, for one or two sums.
pub fn finish(call: &Call<'_, Cuda>, partial: DevicePtr, parts: Parts, outs: &[Matrix]) {
    let (first, last) = (outs[0], outs[outs.len() - 1]);
    let arguments = (partial, parts.count as i32, outs.len() as i32, first.cols, first.floats(), first.add, last.floats(), last.add);
    call.launch(finish_sums, ((first.cols as usize).div_ceil(FINISHED), outs.len()), THREADS, 0, arguments);
}
