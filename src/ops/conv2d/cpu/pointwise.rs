//! The input gradient of a 1x1 convolution together with that of the batch norm and ReLU before it, a few pixels at a time.
//!
//! `da = dy w^T` for [`BLOCK`] pixels and a panel of input channels stays in the first-level cache; from it come `dz = da act'(x scale + shift)`,
//! the sums `dscale` and `dshift`, and `dx = dz scale`. So `da` is never written to memory, and `x` is read once instead of twice. The tiles
//! of a panel ask for its `x` and `dx`, which come from memory while they compute.

use super::pack::panel_columns;
use super::pairs::{channel_pairs, words};
use crate::base::{Math, Ty};
use crate::device::Call;
use crate::device::cpu::columns::{BLOCK, row_sums_scratch, row_sums_with};
use crate::device::cpu::tile::{Ahead, Strip, Tile, ask, even_runs, strip};
use crate::device::cpu::{Cpu, Src};
use crate::ops::activation::Act;
use crate::ops::scale_shift::cpu::{Coefficients, backward_and_sums};
use std::ops::Range;

/// Words from pixel to pixel of `dy`: an odd number of vectors, so that pixels fall into different sets of the cache.
fn pitch(words: usize) -> usize {
    16 * (words.div_ceil(16) | 1)
}

/// Floats of a block's working memory: a panel of `da`, and `dy` in words if pairs are multiplied.
fn buffers(cpu: &Cpu, math: Math, dy: usize) -> [usize; 2] {
    [BLOCK * Tile::of(cpu.isa).width(), if math == Math::Bf16 { BLOCK * pitch(words(math, dy)) } else { 0 }]
}

/// Bytes of working memory, for gradients of types `dy` and `dx`.
pub(super) fn scratch(cpu: &Cpu, math: Math, dy: Ty, dx: Ty) -> usize {
    row_sums_scratch(dx.shape.rows(), dx.shape.cols(), 2, buffers(cpu, math, dy.shape.cols()).iter().sum())
}

/// Runs a call with ins `dy, w, x, scale, shift` and outs `dx, dscale, dshift`; `w` is packed.
pub(super) fn run(call: &Call<'_, Cpu>, act: Act, math: Math) {
    let (cpu, [dy, _, x, scale, shift]) = (call.device, [0, 1, 2, 3, 4].map(|i| call.src(i)));
    let (dx, w, tile) = (call.dst(0), call.derived().src(), Tile::of(cpu.isa));
    let [da_floats, dy_words] = buffers(cpu, math, dy.cols);
    row_sums_with(cpu, x.rows, call.scratch(), [call.dst(1), call.dst(2)], da_floats + dy_words, |rows, totals, extra| {
        let (da, dy_buffer) = extra.split_at_mut(da_floats);
        let dy = Left::new(dy, &rows, math, dy_buffer);
        let k = Coefficients::new(scale, shift, act);
        for panel in 0..x.cols.div_ceil(tile.width()) {
            let (columns, width) = panel_columns(tile, panel, x.cols);
            let from = (x.ptr().wrapping_add(rows.start * x.pitch + columns.start), x.pitch);
            let to = (dx.ptr().wrapping_add(rows.start * dx.pitch + columns.start), dx.pitch);
            for run in even_runs(rows.len(), tile.rows) {
                ask(from.0.wrapping_add(run.start * from.1), from.1, run.len(), columns.len());
                ask(to.0.wrapping_add(run.start * to.1), to.1, run.len(), columns.len());
                dy.product(cpu, math, run, w, panel, columns.len(), &mut da[..rows.len() * width]);
            }
            let (dscale, dshift) = totals.split_at_mut(x.cols);
            let sums = [dscale, dshift].map(|sums| sums[columns.start..].as_mut_ptr());
            // SAFETY: the rows lie in the matrices and belong to this thread, the columns in all of them and in the vectors.
            unsafe { backward_and_sums(cpu.isa, (da.as_ptr(), width), from, k.from(columns.start), to, sums, rows.len(), columns.len(), dx.adds()) }
        }
    });
}

/// Some rows of `dy` as the product reads them, where they lie or as words in a buffer: the first element, and elements from row to row and
/// in a row.
struct Left {
    first: *const f32,
    pitch: usize,
    depth: usize,
}

impl Left {
    fn new(dy: Src, rows: &Range<usize>, math: Math, buffer: &mut [f32]) -> Self {
        let (first, depth) = (dy.ptr().wrapping_add(rows.start * dy.pitch), words(math, dy.cols));
        if math != Math::Bf16 {
            return Left { first, pitch: dy.pitch, depth };
        }
        let to = (buffer.as_mut_ptr(), pitch(depth));
        // SAFETY: the rows lie in `dy`, and their words in the buffer.
        unsafe { channel_pairs((first, dy.pitch), None, to, rows.len(), dy.cols) };
        Left { first: to.0, pitch: to.1, depth }
    }

    /// `da[r][c] = sum over k of dy[r][k] * w[k][c]` for the rows of one tile and `cols` columns of one panel of `w`, which is packed.
    #[allow(clippy::too_many_arguments)] // one tile of a product, and how it is multiplied
    fn product(&self, cpu: &Cpu, math: Math, run: Range<usize>, w: Src, panel: usize, cols: usize, da: &mut [f32]) {
        let (tile, width) = (Tile::of(cpu.isa), cols.next_multiple_of(Tile::of(cpu.isa).lanes));
        let x = self.first.wrapping_add(run.start * self.pitch);
        let args = Strip {
            x,
            pixel: self.pitch,
            rows: 1,
            row: 0,
            taps: 1,
            tap: 0,
            depth: self.depth,
            w: w.ptr().wrapping_add(panel * tile.width() * self.depth),
            y: da[run.start * width..run.end * width].as_mut_ptr(),
            y_pixel: width,
            cols,
            add: false,
            ahead: if panel == 0 { Ahead::strips(x, self.pitch, self.depth, tile.rows) } else { Ahead::nothing(x) },
        };
        // SAFETY: the rows lie in `dy` or the buffer, the panel in the packed weights, the results in this thread's buffer.
        unsafe { strip(cpu.isa, math, run.len(), width / tile.lanes)(&args) }
    }
}
