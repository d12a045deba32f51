use super::transform::{gradient, spread, taps};
use super::{FILTERS, POINTS, Tiles, filters};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, Outer, Tile, even_runs, outer, share};
use crate::device::cpu::{Cpu, Dst, Isa, Src};
use crate::ops::conv2d::cpu::input::Input;
use crate::ops::conv2d::cpu::pack::panel_columns;
use crate::ops::conv2d::cpu::pass::Pass;
use crate::ops::conv2d::cpu::winograd::filter_grad::{Buffers, Operands};
use crate::ops::conv2d::cpu::winograd::{plane_floats, plane_pitch};
use std::ops::Range;

/// Floats of planes of a block. A product reads two planes at a time, which fit the second-level cache; the sums of all products, read
/// and written for every block, do not.
const BLOCK: usize = 384 * 1024;

/// `dw = correlation(x, dy)`, planned: `u = sum over tiles of (B^T x) . (A dy)` matrix by matrix, then `dw = G^T u`. Each thread sums over
/// tiles of its own, in a copy of its own, and the copies are added in order.
pub(in crate::ops::conv2d::cpu) struct LineFilterGrad {
    tiles: Tiles,
    tile: Tile,
    cin: usize,
    cout: usize,
    blocks: usize,
    copies: usize,
    isa: Isa,
}

impl LineFilterGrad {
    /// For a pass of seven taps along one axis, where it is cheaper than a direct one.
    pub fn choose(cpu: &Cpu, pass: &Pass, cin: usize, cout: usize) -> Option<LineFilterGrad> {
        let (tiles, tile, threads) = (Tiles::choose(cpu, pass, cin, cout)?, Tile::of(cpu.isa), cpu.threads());
        let most = (BLOCK / (POINTS * (2 * cin + cout))).max(32);
        let blocks = tiles.count().div_ceil(most).next_multiple_of(threads).min(tiles.count());
        Some(LineFilterGrad { tiles, tile, cin, cout, blocks, copies: threads.min(blocks), isa: cpu.isa })
    }

    /// Floats of a plane of inputs and of one of gradients.
    fn planes(&self) -> [usize; 2] {
        let most = self.tiles.count().div_ceil(self.blocks.max(1));
        [self.cin, self.cout].map(|channels| plane_floats(most, plane_pitch(channels)))
    }

    /// Floats of the sums: `[matrices, in, out]`.
    fn sums(&self) -> usize {
        (FILTERS * self.cin * self.cout).next_multiple_of(16)
    }

    /// Floats from one copy of the sums, with the planes they are made from, to the next.
    fn each(&self) -> usize {
        let [v, z] = self.planes();
        2 * POINTS * v + POINTS * z + self.sums()
    }

    fn zeros(&self) -> usize {
        plane_pitch(self.cin.max(self.cout))
    }

    /// Floats of working memory.
    pub fn scratch(&self) -> usize {
        self.zeros() + self.copies * self.each()
    }

    pub fn run(&self, cpu: &Cpu, input: Input, dy: Src, dw: Dst, scratch: Dst) {
        let (zeros, each) = (self.zeros(), self.each());
        // SAFETY: nothing else runs yet.
        unsafe { scratch.part(0..zeros) }.fill(0.0);
        let operands = Operands { input, dy, zeros: scratch.ptr() };
        cpu.pool.parts(self.copies, |copy, _| {
            let u = scratch.slice(zeros + copy * each..zeros + (copy + 1) * each).ptr();
            let v = u.wrapping_add(self.sums());
            let buffers = Buffers { v, z: v.wrapping_add(2 * POINTS * self.planes()[0]), u };
            let mine = share(self.blocks, self.copies, copy);
            mine.clone().for_each(|block| {
                self.block(&operands, share(self.tiles.count(), self.blocks, block), buffers, block > mine.start);
            });
        });
        let (sums, tap) = (scratch.slice(zeros..scratch.cols), self.cin * self.cout);
        cpu.pool.ranges(self.cin, 1, |rows| {
            let (at, floats) = (rows.start * self.cout, rows.len() * self.cout);
            // SAFETY: the sums are done; these rows of every tap belong to this thread.
            unsafe {
                let (from, to) = (sums.ptr().add(at), dw.ptr().add(at));
                taps(self.isa, from, tap, self.copies, each, floats, to, tap, dw.adds());
            }
        });
    }

    /// Transforms inputs and gradients of some tiles and adds their products to the sums.
    fn block(&self, operands: &Operands, tiles: Range<usize>, buffers: Buffers, add: bool) {
        let ([v_plane, z_plane], [v_pitch, z_pitch]) = (self.planes(), [self.cin, self.cout].map(plane_pitch));
        let Operands { input, dy, zeros } = operands;
        let pre = input.pre.map(|pre| pre.from(0));
        for (t, tile) in tiles.clone().enumerate() {
            let (x, dy) = (self.tiles.sources(input.x, tile, *zeros), self.tiles.results(*dy, tile, *zeros));
            // SAFETY: pixels and zeros have the channels' floats; row `t` of every plane is this thread's.
            unsafe {
                spread(self.isa, &x, pre, *zeros, self.cin, buffers.v.add(t * v_pitch), v_plane);
                gradient(self.isa, &dy, self.cout, buffers.z.add(t * z_pitch), z_plane);
            }
        }
        for x in 0..POINTS {
            let (first, parts) = filters(x);
            (0..parts).for_each(|part| self.products(x, part, first + part, tiles.len(), buffers, add));
        }
    }

    /// Matrix `u` of the sums: `u[k][c] (+)= sum over t of v[t][k] * z[t][c]` for `count` tiles, of point `x` in one part.
    fn products(&self, x: usize, part: usize, u: usize, count: usize, buffers: Buffers, add: bool) {
        let ([v_plane, z_plane], [v_pitch, z_pitch]) = (self.planes(), [self.cin, self.cout].map(plane_pitch));
        for panel in 0..self.cout.div_ceil(self.tile.width()) {
            let (columns, padded) = panel_columns(self.tile, panel, self.cout);
            for run in even_runs(self.cin, self.tile.rows) {
                let first = buffers.v.wrapping_add((part * POINTS + x) * v_plane + run.start);
                let args = Outer {
                    images: 1,
                    rows: 1,
                    pixels: count,
                    x: first,
                    x_image: 0,
                    x_row: 0,
                    x_pixel: v_pitch,
                    dy: buffers.z.wrapping_add(x * z_plane + columns.start),
                    dy_image: 0,
                    dy_row: 0,
                    dy_pixel: z_pitch,
                    w: buffers.u.wrapping_add((u * self.cin + run.start) * self.cout + columns.start),
                    w_row: self.cout,
                    cols: columns.len(),
                    add,
                    ahead: Ahead::pixels(first, v_pitch),
                };
                // SAFETY: the tiles lie in the planes, whose rows are whole vectors; the sums are this thread's.
                unsafe { outer(self.isa, Math::Full, run.len(), padded / self.tile.lanes)(&args) }
            }
        }
    }
}
