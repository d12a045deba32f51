use super::filter_grad::{SMALL_FILTER, in_copies};
use super::input::Input;
use super::pack::panel_columns;
use super::pairs::{PixelRow, pixel_pairs, run_pairs};
use super::pass::{Block, Blocks, Pass};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, LINE, Outer, Tile, even_runs, outer, share};
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::activation::Act;
use crate::ops::scale_shift::cpu::Coefficients;
use crate::simd;
use std::ops::Range;

/// Words of `x` that a thread works on at a time: with what it asks for meanwhile they fit its second-level cache.
const BLOCK: usize = 64 * 1024;
/// Words along the sum of a block: enough that reading and writing the sums costs little, few enough that a panel of `dy` and a run of `x`
/// stay in the first-level cache.
const DEPTH: [usize; 2] = [128, 256];
/// Input channels that a thread works on at a time.
const CHANNELS: usize = 256;

/// `dw[k, c] = sum over pixels of x[.., k] * dy[.., c]`, planned: the filter gradient of a 1x1 convolution, and of a dense layer.
///
/// A thread copies a block of pixels of its input channels, run by run of a register tile, and of the output channels, panel by panel, so
/// that tiles walk along memory; it multiplies each panel with all runs. Meanwhile it asks for the next panel and the next block, a cache
/// line with each step of a tile: the operands come from memory while it computes.
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
}

impl ProductGrad {
    /// For a pass of one tap that reads no padding, [`Pass::has_one_real_tap`].
    pub fn new(cpu: &Cpu, math: Math, pass: Pass, cin: usize, cout: usize) -> Self {
        let (tile, threads) = (Tile::of(cpu.isa), cpu.threads());
        let (runs, small) = (cin.div_ceil(tile.rows), cin * cout <= SMALL_FILTER);
        let groups = cin.div_ceil(CHANNELS);
        let groups = if small { groups } else { groups.next_multiple_of(threads) }.min(runs);
        let mut plan = ProductGrad { tile, math, pass, cin, cout, blocks: Blocks::new(&pass, [1; 3]), groups, copies: 1, threads };
        let [least, most] = DEPTH;
        let pixels = plan.pixels_of_word() * (BLOCK / plan.x_row()).clamp(least, most);
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

    /// Words of the largest group's runs, each of which takes a vector.
    fn x_row(&self) -> usize {
        self.cin.div_ceil(self.tile.rows).div_ceil(self.groups) * self.tile.lanes
    }

    /// Words along the sum of a block.
    fn depth(&self, [images, rows, cols]: [usize; 3]) -> usize {
        images * rows * cols.div_ceil(self.pixels_of_word())
    }

    /// Floats of one thread's copies, of `x` and of a panel of `dy`.
    fn buffers(&self) -> [usize; 2] {
        let depth = self.depth(self.blocks.largest());
        [run_words(depth) * self.x_row(), depth * self.tile.width()]
    }

    fn filter(&self) -> usize {
        self.cin * self.cout
    }

    /// Floats of working memory.
    pub fn scratch(&self) -> usize {
        let copies = if self.copies > 1 { self.copies * self.filter() } else { 0 };
        self.threads * self.buffers().iter().sum::<usize>() + copies
    }

    pub fn run<'a>(&self, cpu: &Cpu, input: impl Into<Input<'a>>, dy: Src, dw: Dst, scratch: Dst) {
        let (input, [x_floats, dy_floats]) = (input.into(), self.buffers());
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
    /// `[runs, depth, vector]`.
    x_buffer: &'a mut [f32],
    /// `[depth, panel width]`.
    dy_buffer: &'a mut [f32],
    /// Its input channels.
    runs: Vec<Range<usize>>,
}

impl Sum<'_> {
    fn run(&mut self, blocks: Range<usize>, add: bool) {
        let (plan, first) = (self.plan, blocks.start);
        for i in blocks.clone() {
            let block = plan.blocks.get(i);
            let next = if i + 1 < blocks.end { plan.blocks.get(i + 1) } else { plan.blocks.get(i) };
            let depth = plan.depth([block.images.len(), block.rows.len(), block.cols.len()]);
            self.copy_x(&block, depth);
            let panels = plan.cout.div_ceil(plan.tile.width());
            for panel in 0..panels {
                self.copy_dy(&block, panel);
                self.multiply(&block, &next, depth, panel, add || i > first);
            }
        }
    }

    /// The rows of a block: each one's first pixel of `x`, and of `dy`.
    fn rows(&self, block: &Block) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (pass, rows, col) = (self.plan.pass, block.rows.clone(), block.cols.start);
        block.images.clone().flat_map(move |image| rows.clone().map(move |row| (image, row))).map(move |(image, row)| {
            let x = (image * pass.input[0] + row * pass.step[0]) * pass.input[1] + col * pass.step[1];
            (x, (image * pass.size[0] + row) * pass.size[1] + col)
        })
    }

    /// Copies the block's `x`, pixel by pixel as they lie in memory, each to the places of its runs.
    fn copy_x(&mut self, block: &Block, depth: usize) {
        let (plan, x, lanes, cols) = (self.plan, self.input.x, self.plan.tile.lanes, block.cols.len());
        let (pixel, words) = (plan.pass.step[1] * x.pitch, cols.div_ceil(plan.pixels_of_word()));
        let k = self.input.pre.map(|pre| pre.from(0));
        for (i, (first, _)) in self.rows(block).enumerate() {
            let from = x.ptr().wrapping_add(first * x.pitch);
            let to = (self.x_buffer[i * words * lanes..].as_mut_ptr(), run_words(depth) * lanes);
            // SAFETY: the pixels lie in the matrix, their copies in the buffer; the coefficients have a float per channel.
            unsafe {
                match plan.math {
                    Math::Bf16 => {
                        let row = PixelRow { first: from, pixel, real: 0..cols, each: 2, step: 1, words };
                        run_pairs(&row, k, to, &self.runs, plan.cin);
                    }
                    _ => copy_runs(self.cpu.isa, (from, pixel), k, to, cols, &self.runs, plan.cin),
                }
            }
        }
    }

    fn copy_dy(&mut self, block: &Block, panel: usize) {
        let (isa, dy, cols) = (self.cpu.isa, self.dy, block.cols.len());
        let (columns, padded) = panel_columns(self.plan.tile, panel, self.plan.cout);
        let words = cols.div_ceil(self.plan.pixels_of_word());
        for (i, (_, first)) in self.rows(block).enumerate() {
            let from = dy.ptr().wrapping_add(first * dy.pitch + columns.start);
            let to = self.dy_buffer[i * words * padded..][..words * padded].as_mut_ptr();
            // SAFETY: the pixels lie in the matrix, their copies in the buffer.
            unsafe {
                if self.plan.math == Math::Bf16 {
                    let row = PixelRow { first: from, pixel: dy.pitch, real: 0..cols, each: 2, step: 1, words };
                    pixel_pairs(&row, None, to, padded, columns.len(), padded);
                } else {
                    copy(isa, (from, dy.pitch), (to, padded), cols, columns.len(), padded);
                }
            }
        }
    }

    /// Adds the block's products of one panel with all runs.
    fn multiply(&self, block: &Block, next: &Block, depth: usize, panel: usize, add: bool) {
        let (plan, tile) = (self.plan, self.plan.tile);
        let (columns, padded) = panel_columns(tile, panel, plan.cout);
        for (i, run) in self.runs.iter().enumerate() {
            let args = Outer {
                images: 1,
                rows: 1,
                pixels: depth,
                x: self.x_buffer[i * run_words(depth) * tile.lanes..].as_ptr(),
                x_image: 0,
                x_row: 0,
                x_pixel: tile.lanes,
                dy: self.dy_buffer.as_ptr(),
                dy_image: 0,
                dy_row: 0,
                dy_pixel: padded,
                w: self.into.wrapping_add(run.start * plan.cout + columns.start),
                w_row: plan.cout,
                cols: columns.len(),
                add,
                ahead: self.ahead(block, next, panel, i),
            };
            // SAFETY: the operands lie in the buffers; the channels of the filter belong to this thread, or the filter is its own copy.
            unsafe { outer(self.cpu.isa, plan.math, run.len(), padded / tile.lanes)(&args) }
        }
    }

    /// What tile `i` of a panel asks for: the first ones the lines of the next panel of `dy`, the others, one after the other over all
    /// panels, the runs of `x` of the next block.
    fn ahead(&self, block: &Block, next: &Block, panel: usize, i: usize) -> Ahead {
        let (plan, each, width) = (self.plan, self.plan.pixels_of_word(), self.plan.tile.width());
        let lines = each * width.div_ceil(LINE);
        let last = (panel + 1) * width >= plan.cout;
        if i < lines {
            let (of, panel) = if last { (next, 0) } else { (block, panel + 1) };
            let (_, first) = self.rows(of).next().expect("a block has a row");
            let at = (first + i % each) * self.dy.pitch + panel * width + i / each * LINE;
            return Ahead { first: self.dy.ptr().wrapping_add(at), step: each * self.dy.pitch };
        }
        let (x, job) = (self.input.x, panel * self.runs.len().saturating_sub(lines) + i - lines);
        let (first, _) = self.rows(next).next().expect("a block has a row");
        let run = &self.runs[(job / each).min(self.runs.len() - 1)];
        let pixel = plan.pass.step[1] * x.pitch;
        Ahead { first: x.ptr().wrapping_add(first * x.pitch + job % each * pixel + run.start), step: each * pixel }
    }
}

/// Vectors from one run of `x` to the next: an odd number, so that those of a pixel do not meet in one cache set.
fn run_words(depth: usize) -> usize {
    depth | 1
}

simd! {
    /// `to[i][r] = x[r][..]` for the channels of each run `i`, normalised by `k`: a vector each, `to.1` from one run to the next. Rows have
    /// `cols` channels; lanes behind a run hold anything.
    unsafe fn copy_runs<V>(x: (*const f32, usize), k: Option<Coefficients>, to: (*mut f32, usize), rows: usize, runs: &[Range<usize>], cols: usize) {
        for r in 0..rows {
            for (i, run) in runs.iter().enumerate() {
                let n = V::N.min(cols - run.start);
                let x = V::take(x.0.wrapping_add(r * x.1 + run.start), n);
                let value = match k {
                    None => x,
                    Some(k) if k.is_relu() => k.with(Act::Relu).apply(x, run.start, n),
                    Some(k) => k.apply(x, run.start, n),
                };
                value.store(to.0.add(i * to.1 + r * V::N));
            }
        }
    }

    /// Copies `rows` x `cols`, each row with zeros behind it up to `padded` floats, which are whole vectors.
    unsafe fn copy<V>(x: (*const f32, usize), to: (*mut f32, usize), rows: usize, cols: usize, padded: usize) {
        for c in (0..padded).step_by(V::N) {
            let n = V::N.min(cols.saturating_sub(c));
            for r in 0..rows {
                V::take(x.0.wrapping_add(r * x.1 + c), n).store(to.0.add(r * to.1 + c));
            }
        }
    }
}
