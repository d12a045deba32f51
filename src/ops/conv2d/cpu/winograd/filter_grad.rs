use super::tiles::{self, Team, Tiles, transform_input};
use super::filter::taps;
use super::transform::gradient;
use super::{Scheme, block_tiles, plane_floats, plane_pitch};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, Outer, Tile, even_runs, outer, share};
use crate::device::cpu::{Cpu, Dst, Isa, Src};
use crate::ops::conv2d::cpu::input::Input;
use crate::ops::conv2d::cpu::pack::panel_columns;
use crate::ops::conv2d::cpu::pass::Pass;
use std::ops::Range;

/// Floats of planes that fit a thread's second-level cache beside its copy of the filter.
const CACHE: usize = 128 * 1024;
/// Floats of planes of a block that all threads share.
const SHARED: usize = 10 * 1024 * 1024;
/// Floats of the largest filter that each thread sums into a copy of its own.
const FILTER: usize = 36 * 128 * 128;

/// `dw = correlation(x, dy)`, planned: `u = sum over tiles of (B^T x B) . (A dy A^T)` plane by plane, then `dw = G^T u G`.
///
/// A small filter is summed by each thread over tiles of its own, in a copy of its own, and the copies are added in order. For a
/// large one all threads share blocks of tiles as large as memory allows, since the sums are read and written for every block.
pub(in crate::ops::conv2d::cpu) struct WinogradFilterGrad {
    scheme: Scheme,
    tiles: Tiles,
    tile: Tile,
    cin: usize,
    cout: usize,
    blocks: usize,
    /// Copies of the sums, one for each thread that has blocks of its own; or one for all.
    copies: usize,
    alone: bool,
    isa: Isa,
}

/// What is multiplied, with the zeros that stand for padding.
pub(super) struct Operands<'a> {
    pub input: Input<'a>,
    pub dy: Src<'a>,
    pub zeros: *const f32,
}

// SAFETY: `zeros` is read alone.
unsafe impl Sync for Operands<'_> {}

/// The buffers of a block: planes of inputs and of gradients, and the sums.
#[derive(Clone, Copy)]
pub(super) struct Buffers {
    pub v: *mut f32,
    pub z: *mut f32,
    pub u: *mut f32,
}

// SAFETY: parts of a block write disjoint rows of the planes, and disjoint rows of the sums.
unsafe impl Sync for Buffers {}

impl WinogradFilterGrad {
    pub fn new(cpu: &Cpu, scheme: Scheme, pass: &Pass, cin: usize, cout: usize) -> Self {
        let (tiles, tile, threads) = (Tiles::new(*pass, scheme), Tile::of(cpu.isa), cpu.threads());
        let count = tiles.count();
        let alone = scheme.planes() * cin * cout <= FILTER && count >= 16 * threads;
        let most = if alone { block_tiles(scheme, cin + cout, CACHE, 32) } else { block_tiles(scheme, cin + cout, SHARED, 32) };
        let blocks = if alone { count.div_ceil(most).next_multiple_of(threads) } else { count.div_ceil(most) };
        let copies = if alone { threads.min(blocks) } else { 1 };
        WinogradFilterGrad { scheme, tiles, tile, cin, cout, blocks, copies, alone, isa: cpu.isa }
    }

    /// Floats of a plane of inputs and of one of gradients.
    fn planes(&self) -> [usize; 2] {
        let most = self.tiles.count().div_ceil(self.blocks);
        [self.cin, self.cout].map(|channels| plane_floats(most, plane_pitch(channels)))
    }

    /// Floats from one copy of the sums, with the planes they are made from, to the next.
    fn each(&self) -> usize {
        self.scheme.planes() * self.planes().iter().sum::<usize>() + self.sums()
    }

    /// Floats of the sums: `[planes, in, out]`.
    fn sums(&self) -> usize {
        (self.scheme.planes() * self.cin * self.cout).next_multiple_of(16)
    }

    fn zeros(&self) -> usize {
        plane_pitch(self.cin.max(self.cout))
    }

    /// Floats of working memory.
    pub fn scratch(&self) -> usize {
        self.zeros() + self.copies * self.each()
    }

    pub fn run(&self, cpu: &Cpu, input: Input, dy: Src, dw: Dst, scratch: Dst) {
        let (zeros, each, planes) = (self.zeros(), self.each(), self.scheme.planes());
        // SAFETY: nothing else runs yet.
        unsafe { scratch.part(0..zeros) }.fill(0.0);
        let operands = Operands { input, dy, zeros: scratch.ptr() };
        let of = |copy: usize| {
            let u = scratch.slice(zeros + copy * each..zeros + (copy + 1) * each).ptr();
            let v = u.wrapping_add(self.sums());
            Buffers { v, z: v.wrapping_add(planes * self.planes()[0]), u }
        };
        let tiles = |block: usize| share(self.tiles.count(), self.blocks, block);
        if self.alone {
            cpu.pool.parts(self.copies, |copy, _| {
                let mine = share(self.blocks, self.copies, copy);
                mine.clone().for_each(|block| self.block(&operands, tiles(block), of(copy), Team::Alone, block > mine.start));
            });
        } else {
            (0..self.blocks).for_each(|block| self.block(&operands, tiles(block), of(0), Team::All(&cpu.pool), block > 0));
        }
        let (sums, tap) = (scratch.slice(zeros..scratch.cols), self.cin * self.cout);
        cpu.pool.ranges(self.cin, 1, |rows| {
            let (at, floats) = (rows.start * self.cout, rows.len() * self.cout);
            // SAFETY: the sums are done; these rows of every tap belong to this thread.
            unsafe {
                let (from, to) = (sums.ptr().add(at), dw.ptr().add(at));
                taps(self.isa, self.scheme, from, tap, self.copies, each, floats, to, tap, dw.adds());
            }
        });
    }

    /// Transforms inputs and gradients of some tiles and adds their products to the sums.
    fn block(&self, operands: &Operands, tiles: Range<usize>, buffers: Buffers, team: Team, add: bool) {
        let (shares, count) = (team.shares().min(tiles.len()), tiles.len());
        team.each(shares, |part| {
            let mine = share(count, shares, part);
            let places = self.tiles.walk(tiles.start + mine.start);
            mine.zip(places).for_each(|(t, tile)| self.transform(operands, t, tile, buffers));
        });
        let runs = self.cin.div_ceil(self.tile.rows);
        let groups = runs.min(team.shares().div_ceil(8));
        team.each(self.scheme.planes() * groups, |part| {
            self.products(part / groups, share(runs, groups, part % groups), count, buffers, add);
        });
    }

    fn transform(&self, operands: &Operands, t: usize, tile: tiles::Tile, buffers: Buffers) {
        let ([v_plane, z_plane], zeros) = (self.planes(), operands.zeros);
        let dy = self.tiles.results(operands.dy, tile, zeros);
        // SAFETY: pixels and zeros have the channels' floats; row `t` of every plane belongs to this part.
        unsafe {
            let v = buffers.v.add(t * plane_pitch(self.cin));
            transform_input(self.isa, &self.tiles, &operands.input, tile, zeros, v, v_plane);
            gradient(self.isa, self.scheme, &dy, self.cout, buffers.z.add(t * plane_pitch(self.cout)), z_plane);
        }
    }

    /// Plane `x` of the sums: `u[k][c] (+)= sum over t of v[t][k] * z[t][c]` for some runs of input channels and `count` tiles.
    fn products(&self, x: usize, runs: Range<usize>, count: usize, buffers: Buffers, add: bool) {
        let ([v_plane, z_plane], [v_pitch, z_pitch]) = (self.planes(), [plane_pitch(self.cin), plane_pitch(self.cout)]);
        for panel in 0..self.cout.div_ceil(self.tile.width()) {
            let (columns, padded) = panel_columns(self.tile, panel, self.cout);
            for run in even_runs(self.cin, self.tile.rows).skip(runs.start).take(runs.len()) {
                let first = buffers.v.wrapping_add(x * v_plane + run.start);
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
                    w: buffers.u.wrapping_add((x * self.cin + run.start) * self.cout + columns.start),
                    w_row: self.cout,
                    cols: columns.len(),
                    add,
                    ahead: Ahead::pixels(first, v_pitch),
                };
                // SAFETY: the tiles lie in the planes, whose rows are whole vectors; these rows of the sums belong to this part.
                unsafe { outer(self.isa, Math::Full, run.len(), padded / self.tile.lanes)(&args) }
            }
        }
    }
}
