use super::filter_grad::{SMALL_FILTER, in_copies};
use super::input::Input;
use super::pack::panel_columns;
use super::pairs::{Piece, PixelRow, piece_pairs};
use super::pass::{Block, Blocks, Pass};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, LINE, Outer, Tile, even_runs, outer, share};
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::activation::Act;
use crate::ops::scale_shift::cpu::Coefficients;
use crate::simd;
use std::ops::Range;

/// Words of `x` that a thread works on at a time: with `dy` and what it asks for meanwhile they fit its second-level cache.
const BLOCK: usize = 48 * 1024;
/// Words along the sum of a block: enough that reading and writing the sums costs little, few enough that a panel of `dy` and a run of `x`
/// stay in the first-level cache.
const DEPTH: [usize; 2] = [96, 256];
/// Input channels that a thread works on at a time.
const CHANNELS: usize = 512;

/// `dw[k, c] = sum over pixels of x[.., k] * dy[.., c]`, planned: the filter gradient of a 1x1 convolution, and of a dense layer.
///
/// A thread takes a block of pixels. It copies their channels in the order of memory, those of a group of `x` run by run of a register tile
/// and those of `dy` panel by panel, so that tiles walk along memory; it multiplies each panel with all runs. Meanwhile it asks for the next
/// block, a cache line with each step of a tile: operands come from memory while it computes. Where nothing is done to `x` on the way, no
/// rounding to words and no normalisation, tiles read it where it lies.
///
/// A large filter is dealt out to the threads in groups of input channels, each of which sees all pixels in order. For a small one the
/// pixels are dealt out; each thread sums into its own copy, and the copies are added in order.
pub(in crate::ops) struct ProductGrad {
    tile: Tile,
    math: Math,
    pass: Pass,
    cin: usize,
    cout: usize,
    blocks: Blocks,
    /// Groups of runs of input channels.
    groups: usize,
    /// Copies of the filter.
    copies: usize,
    threads: usize,
    /// Whether `x` is read where it lies.
    in_place: bool,
}

impl ProductGrad {
    /// For a pass of one tap that reads no padding, [`Pass::has_one_real_tap`]; `normalised`: whether the input is changed on the way in.
    pub fn new(cpu: &Cpu, math: Math, pass: Pass, cin: usize, cout: usize, normalised: bool) -> Self {
        let (tile, threads) = (Tile::of(cpu.isa), cpu.threads());
        let (runs, small) = (cin.div_ceil(tile.rows), cin * cout <= SMALL_FILTER);
        let groups = cin.div_ceil(CHANNELS);
        let groups = if small { groups } else { groups.next_multiple_of(threads) }.min(runs);
        let in_place = math == Math::Full && !normalised && pass.is_flat();
        let blocks = Blocks::new(&pass, [1; 3]);
        let mut plan = ProductGrad { tile, math, pass, cin, cout, blocks, groups, copies: 1, threads, in_place };
        let [least, most] = DEPTH;
        let pixels = plan.pixels_of_word() * (BLOCK / plan.widths()[0]).clamp(least, most);
        let [rows, cols] = pass.size;
        let (of_row, of_image) = (pixels / cols.max(1), pixels / (rows * cols).max(1));
        plan.blocks = Blocks::new(&pass, [of_image.max(1), of_row.max(1), pixels]);
        if small {
            plan.blocks = plan.blocks.for_threads(threads);
            plan.copies = threads.min(plan.blocks.count()).max(1);
        }
        plan
    }

    /// Pixels of a row that a word holds: the last one of an odd row is paired with a zero.
    fn pixels_of_word(&self) -> usize {
        if self.math == Math::Bf16 { 2 } else { 1 }
    }

    /// Words of a pixel (or two): of the largest group, a vector for each run, and of all panels.
    fn widths(&self) -> [usize; 2] {
        let runs = self.cin.div_ceil(self.tile.rows);
        [runs.div_ceil(self.groups) * self.tile.lanes, self.cout.next_multiple_of(self.tile.width())]
    }

    /// Words along the sum of a block.
    fn depth(&self, [images, rows, cols]: [usize; 3]) -> usize {
        images * rows * cols.div_ceil(self.pixels_of_word())
    }

    /// Words along the sum from one run or panel to the next in the buffers: an odd number, so that those of a pixel do not meet in a few
    /// cache sets.
    fn room(&self) -> usize {
        self.depth(self.blocks.largest()) | 1
    }

    /// Floats of one thread's copies, of `x` and of `dy`.
    fn buffers(&self) -> [usize; 2] {
        let [x, dy] = self.widths().map(|width| self.room() * width);
        [if self.in_place { 0 } else { x }, dy]
    }

    fn filter(&self) -> usize {
        self.cin * self.cout
    }

    /// Pixel `i` of a block: which one it is of `x` and of `dy`.
    fn pixel(&self, block: &Block, i: usize) -> [usize; 2] {
        let (pass, rows, cols) = (&self.pass, block.rows.len(), block.cols.len());
        // Most blocks are of one row; a division takes as long as a tile's step.
        let (row, col) = if i < cols { (0, i) } else { (i / cols, i % cols) };
        let (image, row) = if row < rows { (0, row) } else { (row / rows, row % rows) };
        let (image, row, col) = (block.images.start + image, block.rows.start + row, block.cols.start + col);
        let x = (image * pass.input[0] + row * pass.step[0]) * pass.input[1] + col * pass.step[1];
        [x, (image * pass.size[0] + row) * pass.size[1] + col]
    }

    /// Floats of working memory.
    pub fn scratch(&self) -> usize {
        let copies = if self.copies > 1 { self.copies * self.filter() } else { 0 };
        self.threads * self.buffers().iter().sum::<usize>() + copies
    }

    pub fn run<'a>(&self, cpu: &Cpu, input: impl Into<Input<'a>>, dy: Src, dw: Dst, scratch: Dst) {
        let (input, [x_floats, dy_floats]): (Input, _) = (input.into(), self.buffers());
        assert!(!self.in_place || input.pre.is_none(), "planned for an input that is not normalised");
        let each = x_floats + dy_floats;
        let group = |i: usize, thread: usize, blocks: Range<usize>, into: *mut f32, add: bool| {
            // SAFETY: each thread has its own part of the scratch memory.
            let (x_buffer, dy_buffer) = unsafe { scratch.part(thread * each..(thread + 1) * each) }.split_at_mut(x_floats);
            let runs = share(self.cin.div_ceil(self.tile.rows), self.groups, i);
            let runs = even_runs(self.cin, self.tile.rows).skip(runs.start).take(runs.len()).collect();
            Sum { plan: self, cpu, input, dy, into, x_buffer, dy_buffer, runs }.run(blocks, add);
        };
        if self.copies == 1 {
            return cpu.pool.parts(self.groups, |i, thread| group(i, thread, 0..self.blocks.count(), dw.ptr(), dw.adds()));
        }
        let rest = scratch.slice(self.threads * each..scratch.cols);
        in_copies(cpu, rest, [self.copies, self.filter()], dw, |c, thread, into| {
            (0..self.groups).for_each(|i| group(i, thread, share(self.blocks.count(), self.copies, c), into, false));
        });
    }
}

/// The sums of one group of channels, in the hands of one thread.
struct Sum<'a> {
    plan: &'a ProductGrad,
    cpu: &'a Cpu,
    input: Input<'a>,
    dy: Src<'a>,
    /// A whole filter `[in, out]`.
    into: *mut f32,
    /// `[runs, room, vector]`; nothing if `x` is read in place.
    x_buffer: &'a mut [f32],
    /// `[panels, room, panel width]`.
    dy_buffer: &'a mut [f32],
    /// Its input channels.
    runs: Vec<Range<usize>>,
}

impl Sum<'_> {
    fn run(&mut self, blocks: Range<usize>, add: bool) {
        let (plan, first) = (self.plan, blocks.start);
        let pieces = [self.pieces_of_x(), self.pieces_of_dy()];
        for i in blocks.clone() {
            let block = plan.blocks.get(i);
            self.copy(&block, &pieces);
            let depth = plan.depth([block.images.len(), block.rows.len(), block.cols.len()]);
            let asks = (i + 1 < blocks.end).then(|| Asks::new(self, plan.blocks.get(i + 1), depth));
            self.multiply(&block, depth, asks, add || i > first);
        }
    }

    /// Where the channels of a pixel of `x` go: each run to a vector.
    fn pieces_of_x(&self) -> Vec<Piece> {
        let lanes = self.plan.tile.lanes;
        let piece = |(i, run): (usize, &Range<usize>)| Piece { channel: run.start, at: i * self.plan.room() * lanes, step: lanes };
        self.runs.iter().enumerate().map(piece).collect()
    }

    /// Where those of `dy` go: vector by vector to the panels.
    fn pieces_of_dy(&self) -> Vec<Piece> {
        let (lanes, width, room) = (self.plan.tile.lanes, self.plan.tile.width(), self.plan.room());
        let piece = |(i, channel): (usize, usize)| Piece { channel, at: i * lanes / width * room * width + i * lanes % width, step: width };
        (0..self.plan.cout).step_by(lanes).enumerate().map(piece).collect()
    }

    /// Copies a block of both operands, pixel by pixel as they lie in memory.
    fn copy(&mut self, block: &Block, [x_pieces, dy_pieces]: &[Vec<Piece>; 2]) {
        let (plan, isa, x, dy, cols) = (self.plan, self.cpu.isa, self.input.x, self.dy, block.cols.len());
        let (words, k) = (cols.div_ceil(plan.pixels_of_word()), self.input.pre.map(|pre| pre.from(0)));
        for row in 0..block.images.len() * block.rows.len() {
            let [x_at, dy_at] = plan.pixel(block, row * cols);
            let copy = |m: Src, at: usize, step: usize, k, to: &mut [f32], width: usize, pieces: &[Piece]| {
                let (first, pixel, to) = (m.ptr().wrapping_add(at * m.pitch), step * m.pitch, to[row * words * width..].as_mut_ptr());
                // SAFETY: the pixels lie in the matrix, their copies in the buffer; the coefficients have a float per channel.
                unsafe {
                    if plan.math == Math::Bf16 {
                        let row = PixelRow { first, pixel, real: 0..cols, each: 2, step: 1, words };
                        piece_pairs(&row, k, to, pieces, m.cols);
                    } else {
                        copy_pieces(isa, (first, pixel), k, to, pieces, cols, m.cols);
                    }
                }
            };
            copy(dy, dy_at, 1, None, self.dy_buffer, plan.tile.width(), dy_pieces);
            if !plan.in_place {
                copy(x, x_at, plan.pass.step[1], k, self.x_buffer, plan.tile.lanes, x_pieces);
            }
        }
    }

    /// Adds the block's products of all panels with all runs.
    fn multiply(&self, block: &Block, depth: usize, mut asks: Option<Asks>, add: bool) {
        let (plan, tile, room, x) = (self.plan, self.plan.tile, self.plan.room(), self.input.x);
        let in_place = x.ptr().wrapping_add(plan.pixel(block, 0)[0] * x.pitch);
        for panel in 0..plan.cout.div_ceil(tile.width()) {
            let (columns, padded) = panel_columns(tile, panel, plan.cout);
            for (i, run) in self.runs.iter().enumerate() {
                let (x, x_pixel) = match plan.in_place {
                    true => (in_place.wrapping_add(run.start), plan.pass.step[1] * x.pitch),
                    false => (self.x_buffer[i * room * tile.lanes..].as_ptr(), tile.lanes),
                };
                let args = Outer {
                    images: 1,
                    rows: 1,
                    pixels: depth,
                    x,
                    x_image: 0,
                    x_row: 0,
                    x_pixel,
                    dy: self.dy_buffer[panel * room * tile.width()..].as_ptr(),
                    dy_image: 0,
                    dy_row: 0,
                    dy_pixel: tile.width(),
                    w: self.into.wrapping_add(run.start * plan.cout + columns.start),
                    w_row: plan.cout,
                    cols: columns.len(),
                    add,
                    ahead: asks.as_mut().and_then(Asks::of_tile).unwrap_or(Ahead::nothing(x)),
                };
                // SAFETY: the operands lie in the buffers, `x` perhaps in place; the channels of the filter belong to this thread, or the filter is its own copy.
                unsafe { outer(self.cpu.isa, plan.math, run.len(), padded / tile.lanes)(&args) }
            }
        }
    }
}

/// What the tiles of a block ask for: the lines of the next block, `dy` first, the same share of tiles all along.
struct Asks<'a> {
    plan: &'a ProductGrad,
    next: Block,
    operands: [Operand; 2],
    /// Lines that a tile can ask for: one with each step of its sum.
    steps: usize,
    /// `jobs` of so many lines are dealt out to `tiles` tiles; `owed / tiles` of them were due and have not been taken.
    jobs: usize,
    tiles: usize,
    owed: usize,
    /// Where the next job begins: in `x` or still in `dy`, the pixel of the block, and the line of that.
    of_x: bool,
    pixel: usize,
    line: usize,
}

/// Where an operand's channels lie that a thread works on.
struct Operand {
    /// The line of the first one, of pixel 0.
    first: *const f32,
    pitch: usize,
    /// Pixels from one that is read to the next.
    step: usize,
    /// Cache lines of a pixel.
    lines: usize,
}

impl Operand {
    fn new(matrix: Src, channels: Range<usize>, step: usize) -> Self {
        let first = matrix.ptr().wrapping_add(channels.start);
        let into_line = first as usize / size_of::<f32>() % LINE;
        let lines = (into_line + channels.len()).div_ceil(LINE);
        Operand { first: first.wrapping_sub(into_line), pitch: matrix.pitch, step, lines }
    }
}

impl<'a> Asks<'a> {
    fn new(sum: &Sum<'a>, next: Block, steps: usize) -> Self {
        let plan = sum.plan;
        let x = sum.runs[0].start..sum.runs[sum.runs.len() - 1].end;
        let operands = [Operand::new(sum.input.x, x, plan.pass.step[1]), Operand::new(sum.dy, 0..plan.cout, 1)];
        let pixels = next.images.len() * next.rows.len() * next.cols.len();
        let jobs = operands.iter().map(|operand| (pixels * operand.lines).div_ceil(steps)).sum();
        let tiles = plan.cout.div_ceil(plan.tile.width()) * sum.runs.len();
        Asks { plan, next, operands, steps, jobs, tiles, owed: 0, of_x: false, pixel: 0, line: 0 }
    }

    /// What the next tile asks for, if it is one that does.
    fn of_tile(&mut self) -> Option<Ahead> {
        self.owed += self.jobs;
        if self.owed < self.tiles {
            return None;
        }
        self.owed -= self.tiles;
        let pixels = self.next.images.len() * self.next.rows.len() * self.next.cols.len();
        if self.pixel >= pixels && !self.of_x {
            (self.of_x, self.pixel, self.line) = (true, 0, 0);
        }
        let which = usize::from(!self.of_x);
        let (operand, at) = (&self.operands[which], self.plan.pixel(&self.next, self.pixel)[which]);
        let first = operand.first.wrapping_add(at * operand.pitch + self.line * LINE);
        let gap = (operand.step * operand.pitch).wrapping_sub(operand.lines * LINE);
        let lines = Ahead { first, step: LINE, left: operand.lines - self.line, row: operand.lines, gap };
        self.line += self.steps;
        self.pixel += self.line / operand.lines;
        self.line %= operand.lines;
        Some(lines)
    }
}

simd! {
    /// A vector of channels here and one there (see [`Piece`]) of `rows` pixels of `cols` channels, normalised by `k`.
    unsafe fn copy_pieces<V>(x: (*const f32, usize), k: Option<Coefficients>, to: *mut f32, pieces: &[Piece], rows: usize, cols: usize) {
        for r in 0..rows {
            for piece in pieces {
                let (c, n) = (piece.channel, V::N.min(cols - piece.channel));
                let x = V::take(x.0.add(r * x.1 + c), n);
                let value = match k.map(|k| (k.act(), k)) {
                    None => x,
                    Some((Act::Relu, k)) => k.with(Act::Relu).apply(x, c, n),
                    Some((_, k)) => k.apply(x, c, n),
                };
                value.store(to.add(piece.at + r * piece.step));
            }
        }
    }
}
