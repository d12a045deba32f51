//! The input gradient of a 1x1 convolution together with that of the batch norm and ReLU before it, a few pixels at a time.
//!
//! `da = dy w^T` for [`BLOCK`] pixels stays in the cache; from it come `dz = da act'(x scale + shift)`, the sums `dscale` and `dshift`,
//! and `dx = dz scale`. So `da` is never written to memory, and `x` is read once instead of twice.

use super::pack::panel_columns;
use crate::base::Ty;
use crate::device::Call;
use crate::device::cpu::columns::{BLOCK, row_sums_scratch, row_sums_with};
use crate::device::cpu::tile::{Strip, Tile, even_runs, strip};
use crate::device::cpu::{Cpu, Src};
use crate::ops::activation::Act;
use crate::ops::scale_shift::cpu::{Coefficients, backward, sums};
use std::ops::Range;

/// Floats from pixel to pixel of `da`: an odd number of vectors, so that pixels fall into different sets of the cache.
fn pitch(cols: usize) -> usize {
    16 * (cols.div_ceil(16) | 1)
}

/// Bytes of working memory, for an input gradient of type `dx`.
pub(super) fn scratch(dx: Ty) -> usize {
    let (rows, cols) = (dx.shape.rows(), dx.shape.cols());
    row_sums_scratch(rows, cols, 2, BLOCK * pitch(cols))
}

/// Runs a call with ins `dy, w, x, scale, shift` and outs `dx, dscale, dshift`; `w` is packed.
pub(super) fn run(call: &Call<'_, Cpu>, act: Act) {
    let (cpu, [dy, _, x, scale, shift]) = (call.device, [0, 1, 2, 3, 4].map(|i| call.src(i)));
    let (dx, w, pitch) = (call.dst(0), call.derived().src(), pitch(x.cols));
    row_sums_with(cpu, x.rows, call.scratch(), [call.dst(1), call.dst(2)], BLOCK * pitch, |rows, totals, da| {
        product(cpu, dy, rows.clone(), w, x.cols, da, pitch);
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

/// `da[r][c] = sum over k of dy[r][k] * w[k][c]` for some rows, `cols` columns, `w` packed.
fn product(cpu: &Cpu, dy: Src, rows: Range<usize>, w: Src, cols: usize, da: &mut [f32], pitch: usize) {
    let tile = Tile::of(cpu.isa);
    for panel in 0..cols.div_ceil(tile.width()) {
        let (columns, width) = panel_columns(tile, panel, cols);
        for run in even_runs(rows.len(), tile.rows) {
            let args = Strip {
                x: dy.ptr().wrapping_add((rows.start + run.start) * dy.pitch),
                pixel: dy.pitch,
                rows: 1,
                row: 0,
                taps: 1,
                tap: 0,
                depth: dy.cols,
                w: w.ptr().wrapping_add(panel * tile.width() * dy.cols),
                y: da[run.start * pitch + columns.start..].as_mut_ptr(),
                y_pixel: pitch,
                cols: columns.len(),
                add: false,
            };
            // SAFETY: the rows lie in `dy`, the panel in the packed weights, the results in this thread's buffer.
            unsafe { strip(cpu.isa, run.len(), width / tile.lanes)(&args) }
        }
    }
}
