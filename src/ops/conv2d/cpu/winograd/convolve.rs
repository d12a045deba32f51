use super::tiles::{self, Team, Tiles, transform_input};
use super::transform::{Ending, Target, output};
use super::{Scheme, block_tiles, filter, plane_floats, plane_pitch};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, Strip, Tile, even_runs, share, strip};
use crate::device::cpu::{Cpu, Dst, Isa, Src};
use crate::ops::conv2d::cpu::forward::Finish;
use crate::ops::conv2d::cpu::input::Input;
use crate::ops::conv2d::cpu::pack::{packed_floats, panel_columns};
use crate::ops::conv2d::cpu::pass::Pass;
use std::ops::Range;

/// Floats of planes that fit a thread's second-level cache beside some of the filter.
const CACHE: usize = 160 * 1024;
/// Floats of a filter that a thread can read again and again: larger ones are read by all threads together.
const FILTER: usize = 36 * 128 * 128;

/// One pass, `y = finish(conv(x, w))`, planned.
pub(in crate::ops::conv2d::cpu) struct Winograd {
    scheme: Scheme,
    tiles: Tiles,
    tile: Tile,
    cin: usize,
    cout: usize,
    /// Blocks of tiles; each goes through all three steps before the next.
    blocks: usize,
    /// Whether each thread has blocks of its own.
    alone: bool,
    threads: usize,
    /// Floats of a plane of the filter.
    filter_plane: usize,
    isa: Isa,
}

/// The operands of a run.
struct Operands<'a> {
    input: Input<'a>,
    u: Src<'a>,
    y: Dst<'a>,
    finish: &'a Finish<'a>,
    zeros: *const f32,
}

// SAFETY: `zeros` is read alone.
unsafe impl Sync for Operands<'_> {}

/// The buffers of a block: planes of transformed inputs and of products.
#[derive(Clone, Copy)]
struct Buffers {
    v: *mut f32,
    p: *mut f32,
}

// SAFETY: parts of a block write disjoint rows and columns of the planes.
unsafe impl Sync for Buffers {}

impl Winograd {
    pub fn new(cpu: &Cpu, scheme: Scheme, pass: &Pass, cin: usize, cout: usize) -> Self {
        let (tiles, tile, threads) = (Tiles::new(*pass, scheme), Tile::of(cpu.isa), cpu.threads());
        let count = tiles.count();
        let alone = scheme.planes() * cin * cout <= FILTER && count >= threads * tile.rows;
        let most = block_tiles(scheme, cin + cout, CACHE, if alone { 2 * tile.rows } else { 8 * tile.rows });
        let blocks = if alone { count.div_ceil(most).next_multiple_of(threads) } else { count.div_ceil(most) };
        Winograd { scheme, tiles, tile, cin, cout, blocks, alone, threads, filter_plane: packed_floats(cpu, cin, cout), isa: cpu.isa }
    }

    /// How results are tiled.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Floats of the transformed filter: a packed matrix for each plane.
    pub fn filter_floats(&self) -> usize {
        self.scheme.planes() * self.filter_plane
    }

    /// Transforms a filter for the forward pass.
    pub fn prepare(&self, cpu: &Cpu, w: Src, packed: Dst) {
        filter::prepare(cpu, self.scheme, w, packed);
    }

    /// Transforms a filter for the input gradient.
    pub fn prepare_transposed(&self, cpu: &Cpu, w: Src, packed: Dst) {
        filter::prepare_transposed(cpu, self.scheme, w, packed);
    }

    /// Tiles of the largest block.
    fn most(&self) -> usize {
        self.tiles.count().div_ceil(self.blocks)
    }

    /// Floats of a plane of inputs and of one of products.
    fn planes(&self) -> [usize; 2] {
        [self.cin, self.cout].map(|channels| plane_floats(self.most(), plane_pitch(channels)))
    }

    fn buffers(&self) -> usize {
        self.scheme.planes() * self.planes().iter().sum::<usize>()
    }

    /// Floats of working memory.
    pub fn scratch(&self) -> usize {
        plane_pitch(self.cin) + self.buffers() * if self.alone { self.threads } else { 1 }
    }

    pub fn run(&self, cpu: &Cpu, input: Input, u: Src, y: Dst, finish: &Finish, scratch: Dst) {
        let (zeros, buffers) = (plane_pitch(self.cin), self.buffers());
        // SAFETY: nothing else runs yet.
        unsafe { scratch.part(0..zeros) }.fill(0.0);
        let operands = Operands { input, u, y, finish, zeros: scratch.ptr() };
        let of = |i: usize| {
            let v = scratch.slice(zeros + i * buffers..zeros + (i + 1) * buffers).ptr();
            Buffers { v, p: v.wrapping_add(self.scheme.planes() * self.planes()[0]) }
        };
        let tiles = |block: usize| share(self.tiles.count(), self.blocks, block);
        if self.alone {
            cpu.pool.parts(self.blocks, |block, thread| self.block(&operands, tiles(block), of(thread), Team::Alone));
        } else {
            (0..self.blocks).for_each(|block| self.block(&operands, tiles(block), of(0), Team::All(&cpu.pool)));
        }
    }

    /// Transforms the inputs of some tiles, multiplies plane by plane, and transforms back.
    fn block(&self, operands: &Operands, tiles: Range<usize>, buffers: Buffers, team: Team) {
        let (shares, count) = (team.shares().min(tiles.len()), tiles.len());
        let each_tile = |body: &(dyn Fn(usize, tiles::Tile) + Sync)| {
            team.each(shares, |part| {
                let mine = share(count, shares, part);
                let places = self.tiles.walk(tiles.start + mine.start);
                mine.zip(places).for_each(|(t, tile)| body(t, tile));
            });
        };
        each_tile(&|t, tile| self.input(operands, t, tile, buffers));
        let panels = self.cout.div_ceil(self.tile.width());
        let groups = panels.min(team.shares().div_ceil(8));
        team.each(self.scheme.planes() * groups, |part| {
            self.products(operands, part / groups, share(panels, groups, part % groups), count, buffers);
        });
        each_tile(&|t, tile| self.output(operands, t, tile, buffers));
    }

    fn input(&self, operands: &Operands, t: usize, tile: tiles::Tile, buffers: Buffers) {
        let to = buffers.v.wrapping_add(t * plane_pitch(self.cin));
        // SAFETY: the zeros have `cin` floats; row `t` of every plane belongs to this part.
        unsafe { transform_input(self.isa, &self.tiles, &operands.input, tile, operands.zeros, to, self.planes()[0]) }
    }

    /// Plane `x` of the products: `p[t][c] = sum over k of v[t][k] * u[k][c]` for `count` tiles and the columns of some panels.
    fn products(&self, operands: &Operands, x: usize, panels: Range<usize>, count: usize, buffers: Buffers) {
        let ([v_plane, p_plane], [v_pitch, p_pitch]) = (self.planes(), [plane_pitch(self.cin), plane_pitch(self.cout)]);
        let filter = x * self.filter_plane;
        for panel in panels {
            let (columns, width) = panel_columns(self.tile, panel, self.cout);
            for run in even_runs(count, self.tile.rows) {
                let first = buffers.v.wrapping_add(x * v_plane + run.start * v_pitch);
                let args = Strip {
                    x: first,
                    pixel: v_pitch,
                    rows: 1,
                    row: 0,
                    taps: 1,
                    tap: 0,
                    depth: self.cin,
                    w: operands.u.ptr().wrapping_add(filter + panel * self.tile.width() * self.cin),
                    y: buffers.p.wrapping_add(x * p_plane + run.start * p_pitch + columns.start),
                    y_pixel: p_pitch,
                    cols: columns.len(),
                    add: false,
                    ahead: Ahead::nothing(first),
                };
                // SAFETY: the rows lie in the planes, the panel in the filter; these products belong to this part.
                unsafe { strip(self.isa, Math::Full, run.len(), width / self.tile.lanes)(&args) }
            }
        }
    }

    fn output(&self, operands: &Operands, t: usize, tile: tiles::Tile, buffers: Buffers) {
        let (y, pass) = (operands.y, &self.tiles.pass);
        let from = buffers.p.wrapping_add(t * plane_pitch(self.cout));
        let first = y.ptr().wrapping_add(pass.target(tile.image, tile.row, tile.col) * y.pitch);
        let target = Target { first, apart: [pass.output[1] * y.pitch, y.pitch], extent: self.tiles.extent(tile), add: y.adds() };
        let ending = Ending::of(operands.finish);
        // SAFETY: the products of row `t` are done; a tile's results belong to this part.
        unsafe { output(self.isa, self.scheme, from, self.planes()[1], self.cout, target, ending) }
    }
}
