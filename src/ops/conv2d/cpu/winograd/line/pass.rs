use super::transform::{gather, raise, spread};
use super::{FILTERS, POINTS, RESULTS, Tiles, filters};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, Strip, Tile, even_runs, share, strip};
use crate::device::cpu::{Cpu, Dst, Isa, Src};
use crate::ops::conv2d::cpu::forward::Finish;
use crate::ops::conv2d::cpu::input::Input;
use crate::ops::conv2d::cpu::pack::{pack_transposed, packed_floats, panel_columns};
use crate::ops::conv2d::cpu::pass::Pass;
use crate::ops::conv2d::cpu::winograd::transform::Ending;
use crate::ops::conv2d::cpu::winograd::{plane_floats, plane_pitch};
use std::ops::Range;

/// Floats of planes that fit a thread's second-level cache beside some of the filter.
const CACHE: usize = 160 * 1024;

/// One pass, `y = finish(conv(x, w))`, planned.
pub(in crate::ops::conv2d::cpu) struct Line {
    tiles: Tiles,
    tile: Tile,
    cin: usize,
    cout: usize,
    /// Blocks of tiles; each thread has its own.
    blocks: usize,
    threads: usize,
    /// Floats of the transformed filter.
    filter: usize,
    isa: Isa,
}

/// The operands of a run.
struct Operands<'a> {
    input: Input<'a>,
    u: Src<'a>,
    y: Dst<'a>,
    ending: Ending,
    zeros: *const f32,
}

// SAFETY: `zeros` and the vectors of `ending` are read alone.
unsafe impl Sync for Operands<'_> {}

impl Line {
    /// For a pass of seven taps along one axis, where it is cheaper than a direct one.
    pub fn choose(cpu: &Cpu, pass: &Pass, cin: usize, cout: usize) -> Option<Line> {
        let (tiles, tile, threads) = (Tiles::choose(cpu, pass, cin, cout)?, Tile::of(cpu.isa), cpu.threads());
        let most = (CACHE / (POINTS * (2 * cin + cout))).max(2 * tile.rows);
        let blocks = tiles.count().div_ceil(most).next_multiple_of(threads);
        Some(Line { tiles, tile, cin, cout, blocks, threads, filter: packed_floats(cpu, FILTERS * cin, cout), isa: cpu.isa })
    }

    /// Floats of the transformed filter.
    pub fn filter_floats(&self) -> usize {
        self.filter
    }

    /// Transforms a filter `[7 in, out]` for the forward pass.
    pub fn prepare(&self, cpu: &Cpu, w: Src, packed: Dst) {
        cpu.pool.parts(self.cout.div_ceil(self.tile.width()), |panel, _| {
            let (columns, width) = panel_columns(self.tile, panel, self.cout);
            let taps = self.panel(panel) + (FILTERS - 7) * self.cin * width;
            // SAFETY: each panel is written by one thread.
            let out = unsafe { packed.part(taps..taps + 7 * self.cin * width) };
            for (k, row) in out.chunks_exact_mut(width).enumerate() {
                row[..columns.len()].copy_from_slice(&w.row(k)[columns.clone()]);
                row[columns.len()..].fill(0.0);
            }
        });
        self.raise(cpu, packed);
    }

    /// Transforms the turned filter, `[7 out, in]` of this pass, with the channels exchanged, for the input gradient.
    pub fn prepare_transposed(&self, cpu: &Cpu, w: Src, packed: Dst) {
        pack_transposed(cpu, w, self.cout, &|t| (FILTERS - 1 - t).min(6), FILTERS, packed);
        self.raise(cpu, packed);
    }

    /// Where a panel of columns begins in the transformed filter: in each, matrix by matrix, `[in, panel width]`.
    fn panel(&self, panel: usize) -> usize {
        panel * self.tile.width() * FILTERS * self.cin
    }

    /// Makes the matrices of every panel from its taps, which are the last seven of them.
    fn raise(&self, cpu: &Cpu, packed: Dst) {
        cpu.pool.parts(self.cout.div_ceil(self.tile.width()), |panel, _| {
            let matrix = self.cin * panel_columns(self.tile, panel, self.cout).1;
            // SAFETY: each panel is one thread's; a row of it is whole vectors.
            unsafe { raise(self.isa, packed.ptr().wrapping_add(self.panel(panel)), matrix) }
        });
    }

    /// Floats of a plane of inputs and of one of products.
    fn planes(&self) -> [usize; 2] {
        let most = self.tiles.count().div_ceil(self.blocks);
        [self.cin, self.cout].map(|channels| plane_floats(most, plane_pitch(channels)))
    }

    fn buffers(&self) -> usize {
        let [v, p] = self.planes();
        2 * POINTS * v + POINTS * p
    }

    /// Floats of working memory.
    pub fn scratch(&self) -> usize {
        plane_pitch(self.cin) + self.threads * self.buffers()
    }

    pub fn run(&self, cpu: &Cpu, input: Input, u: Src, y: Dst, finish: &Finish, scratch: Dst) {
        let (zeros, buffers) = (plane_pitch(self.cin), self.buffers());
        // SAFETY: nothing else runs yet.
        unsafe { scratch.part(0..zeros) }.fill(0.0);
        let operands = Operands { input, u, y, ending: Ending::of(finish), zeros: scratch.ptr() };
        cpu.pool.parts(self.blocks, |block, thread| {
            let v = scratch.slice(zeros + thread * buffers..zeros + (thread + 1) * buffers).ptr();
            let p = v.wrapping_add(2 * POINTS * self.planes()[0]);
            self.block(&operands, share(self.tiles.count(), self.blocks, block), v, p);
        });
    }

    /// Transforms the inputs of some tiles to `v`, multiplies point by point to `p`, and transforms back.
    fn block(&self, operands: &Operands, tiles: Range<usize>, v: *mut f32, p: *mut f32) {
        let ([v_plane, p_plane], [v_pitch, p_pitch]) = (self.planes(), [self.cin, self.cout].map(plane_pitch));
        let (input, y, zeros) = (operands.input, operands.y, operands.zeros);
        for (t, tile) in tiles.clone().enumerate() {
            let (from, to) = (self.tiles.sources(input.x, tile, zeros), v.wrapping_add(t * v_pitch));
            // SAFETY: the pixels lie in the matrix or are the zeros; row `t` of every plane is this thread's.
            unsafe { spread(self.isa, &from, input.pre.map(|pre| pre.from(0)), zeros, self.cin, to, v_plane) };
        }
        (0..POINTS).for_each(|x| self.products(operands.u, x, tiles.len(), v, p));
        let Tiles { pass, axis, .. } = &self.tiles;
        let apart = if *axis == 0 { pass.output[1] * y.pitch } else { y.pitch };
        for (t, tile) in tiles.enumerate() {
            let (image, at) = self.tiles.place(tile);
            let to = y.ptr().wrapping_add(pass.target(image, at[0], at[1]) * y.pitch);
            let count = RESULTS.min(pass.size[*axis] - at[*axis]);
            // SAFETY: the products of row `t` are done; a tile's results are this thread's.
            unsafe { gather(self.isa, p.wrapping_add(t * p_pitch), p_plane, self.cout, to, apart, count, y.adds(), operands.ending) };
        }
    }

    /// Point `x` of the products, for `count` tiles: `p[t][c] = sum over parts and k of v[part][t][k] * u[part][k][c]`.
    fn products(&self, u: Src, x: usize, count: usize, v: *mut f32, p: *mut f32) {
        let ([v_plane, p_plane], [v_pitch, p_pitch]) = (self.planes(), [self.cin, self.cout].map(plane_pitch));
        let (first, parts) = filters(x);
        for panel in 0..self.cout.div_ceil(self.tile.width()) {
            let (columns, width) = panel_columns(self.tile, panel, self.cout);
            for run in even_runs(count, self.tile.rows) {
                let from = v.wrapping_add(x * v_plane + run.start * v_pitch);
                let args = Strip {
                    x: from,
                    pixel: v_pitch,
                    rows: 1,
                    row: 0,
                    taps: parts,
                    tap: POINTS * v_plane,
                    depth: self.cin,
                    w: u.ptr().wrapping_add(self.panel(panel) + first * self.cin * width),
                    y: p.wrapping_add(x * p_plane + run.start * p_pitch + columns.start),
                    y_pixel: p_pitch,
                    cols: columns.len(),
                    add: false,
                    ahead: Ahead::nothing(from),
                };
                // SAFETY: the rows lie in the planes, the panel in the filter; the products are this thread's.
                unsafe { strip(self.isa, Math::Full, run.len(), width / self.tile.lanes)(&args) }
            }
        }
    }
}
