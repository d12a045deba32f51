//! The input gradient of a 1x1 convolution together with that of the batch norm and ReLU before it, a few pixels at a time.
//!
//! `da = dy w^T` for [`BLOCK`] pixels stays in the cache; from it come `dz = da act'(x scale + shift)`, the sums `dscale` and `dshift`,
//! and `dx = dz scale`. So `da` is never written to memory, and `x` is read once instead of twice.

use super::pack::panel_columns;
use super::pairs::{channel_pairs, words};
use crate::base::{Math, Ty};
use crate::device::Call;
use crate::device::cpu::columns::{BLOCK, row_sums_scratch, row_sums_with};
use crate::device::cpu::tile::{Ahead, Strip, Tile, even_runs, strip};
use crate::device::cpu::{Cpu, Src};
use crate::ops::activation::Act;
use crate::ops::scale_shift::cpu::{Coefficients, backward, sums};

/// Floats from pixel to pixel of `da`: an odd number of vectors, so that pixels fall into different sets of the cache.
fn pitch(cols: usize) -> usize {
    16 * (cols.div_ceil(16) | 1)
}

/// Floats of a block's working memory: `da`, and `dy` in words if pairs are multiplied.
fn buffers(math: Math, dy: usize, dx: usize) -> [usize; 2] {
    [BLOCK * pitch(dx), if math == Math::Bf16 { BLOCK * pitch(words(math, dy)) } else { 0 }]
}

/// Bytes of working memory, for gradients of types `dy` and `dx`.
pub(super) fn scratch(math: Math, dy: Ty, dx: Ty) -> usize {
    let (rows, cols) = (dx.shape.rows(), dx.shape.cols());
    row_sums_scratch(rows, cols, 2, buffers(math, dy.shape.cols(), cols).iter().sum())
}

/// Runs a call with ins `dy, w, x, scale, shift` and outs `dx, dscale, dshift`; `w` is packed.
pub(super) fn run(call: &Call<'_, Cpu>, act: Act, math: Math) {
    let (cpu, [dy, _, x, scale, shift]) = (call.device, [0, 1, 2, 3, 4].map(|i| call.src(i)));
    let (dx, w, pitch) = (call.dst(0), call.derived().src(), pitch(x.cols));
    let [da_floats, dy_words] = buffers(math, dy.cols, x.cols);
    row_sums_with(cpu, x.rows, call.scratch(), [call.dst(1), call.dst(2)], da_floats + dy_words, |rows, totals, extra| {
        let (da, dy_buffer) = extra.split_at_mut(da_floats);
        let from = left(dy, rows.start, rows.len(), math, dy_buffer);
        product(cpu, math, from, rows.len(), words(math, dy.cols), w, x.cols, da);
        let k = Coefficients::new(scale, shift, act);
        let (dscale, dshift) = totals.split_at_mut(x.cols);
        // SAFETY: the rows lie in the matrices and belong to this thread; all vectors have `x.cols` elements.
        unsafe {
            let (of, from) = ((da.as_ptr(), pitch), (x.ptr().add(rows.start * x.pitch), x.pitch));
            let to = (dx.ptr().add(rows.start * dx.pitch), dx.pitch);
            sums(cpu.isa, of, from, k, dscale.as_mut_ptr(), dshift.as_mut_ptr(), rows.len(), x.cols);
            backward(cpu.isa, of, from, k, to, rows.len(), x.cols, dx.adds());
        }
    });
}

/// Some rows of `dy` as the product reads them, where they lie or as words in `buffer`: the first element and the pitch.
fn left(dy: Src, first: usize, rows: usize, math: Math, buffer: &mut [f32]) -> (*const f32, usize) {
    let from = (dy.ptr().wrapping_add(first * dy.pitch), dy.pitch);
    if math != Math::Bf16 {
        return from;
    }
    let to = pitch(words(math, dy.cols));
    // SAFETY: the rows lie in `dy`, and their words in the buffer.
    unsafe { channel_pairs(from, None, (buffer.as_mut_ptr(), to), rows, dy.cols) };
    (buffer.as_ptr(), to)
}

/// `da[r][c] = sum over k of dy[r][k] * w[k][c]` for some rows of `depth` words, `cols` columns, `w` packed.
#[allow(clippy::too_many_arguments)] // two matrices, their sizes, and how they are multiplied
fn product(cpu: &Cpu, math: Math, dy: (*const f32, usize), rows: usize, depth: usize, w: Src, cols: usize, da: &mut [f32]) {
    let (tile, pitch) = (Tile::of(cpu.isa), pitch(cols));
    for panel in 0..cols.div_ceil(tile.width()) {
        let (columns, width) = panel_columns(tile, panel, cols);
        for run in even_runs(rows, tile.rows) {
            let x = dy.0.wrapping_add(run.start * dy.1);
            let args = Strip {
                x,
                pixel: dy.1,
                rows: 1,
                row: 0,
                taps: 1,
                tap: 0,
                depth,
                w: w.ptr().wrapping_add(panel * tile.width() * depth),
                y: da[run.start * pitch + columns.start..].as_mut_ptr(),
                y_pixel: pitch,
                cols: columns.len(),
                add: false,
                ahead: if panel == 0 { Ahead::strips(x, dy.1, depth, tile.rows) } else { Ahead::nothing(x) },
            };
            // SAFETY: the rows lie in `dy` or the buffer, the panel in the packed weights, the results in this thread's buffer.
            unsafe { strip(cpu.isa, math, run.len(), width / tile.lanes)(&args) }
        }
    }
}
