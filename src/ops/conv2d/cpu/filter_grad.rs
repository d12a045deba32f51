use super::input::{Input, View, real_rows};
use super::pack::panel_columns;
use super::pairs::{PixelRow, pixel_pairs};
use super::pass::{Block, Blocks, Pass};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, Outer, Tile, even_runs, outer, share};
use crate::device::cpu::{Cpu, Dst, Src};
use std::ops::Range;

/// Floats of `x`, and as many of `dy`, that a thread works on at a time: together they fit its second-level cache.
const BLOCK: usize = 64 * 1024;
/// Input channels and panels of output channels that a thread works on at a time.
const CHANNELS: usize = 112;
const PANELS: usize = 4;
/// Floats of the largest filter that each thread sums into a copy of its own.
pub(super) const SMALL_FILTER: usize = 64 * 1024;

/// `dw[i, j, k, c] = sum over pixels of x[.., k] * dy[.., c]`, planned, for filters of several taps: one alone is a [`ProductGrad`](super::ProductGrad).
///
/// A thread takes a block of pixels that its cache holds for a group of input channels and some panels of output channels, and
/// sums over it in register tiles, tap by tap, over the pixels whose tap is real. `x` is read where it lies, but for few
/// channels: those are copied with their padding, so that the taps of a row fold into one.
///
/// Under bf16 both are copied, to words of two result pixels (see [`Lengths`]), the padding of rows included: each tap has the same pairs.
///
/// A large filter is dealt out to the threads in groups of channels, each of which sees all pixels in order. For a small one
/// the pixels are dealt out; each thread sums into its own copy, and the copies are added in order.
pub(in crate::ops) struct FilterGrad {
    tile: Tile,
    math: Math,
    pass: Pass,
    cin: usize,
    cout: usize,
    blocks: Blocks,
    /// Groups of input channels and of panels.
    groups: [usize; 2],
    /// Copies of the filter.
    copies: usize,
    threads: usize,
    normalised: bool,
}

/// How a row of some result pixels lies in the buffers of a thread, in floats or words of a channel.
///
/// In words, `dy` has one for every two results `2 p` and `2 p + 1`. Tap `j` reads the buffered pixels `2 p step + j` and one step on: `x` has
/// a word of every pixel with the one a step on; of every second pixel if there is no other tap.
struct Lengths {
    /// Of `x`, of `dy`.
    x: usize,
    dy: usize,
    /// Pixels of `x` from one word to the next.
    each: usize,
    /// From one result (or pair of results) to the next, in `x`.
    step: usize,
}

impl FilterGrad {
    /// `normalised`: whether the input is changed on the way in.
    pub fn new(cpu: &Cpu, math: Math, pass: Pass, cin: usize, cout: usize, normalised: bool) -> Self {
        let (tile, threads) = (Tile::of(cpu.isa), cpu.threads());
        let panels = cout.div_ceil(tile.width());
        let mut groups = [cin.div_ceil(CHANNELS), panels.div_ceil(PANELS)];
        let filter = pass.taps[0] * pass.taps[1] * cin * cout;
        let shares_pixels = filter <= SMALL_FILTER;
        if !shares_pixels && groups[0] * groups[1] < 8 * threads {
            groups[0] = groups[0].next_multiple_of(threads).min(cin.div_ceil(tile.rows));
        }
        let blocks = Blocks::new(&pass, [1; 3]);
        let mut plan = FilterGrad { tile, math, pass, cin, cout, blocks, groups, copies: 1, threads, normalised };
        plan.blocks = plan.cut();
        if shares_pixels {
            plan.blocks = plan.blocks.for_threads(threads);
            plan.copies = threads.min(plan.blocks.count()).max(1);
        }
        plan
    }

    /// Few channels are copied without gaps and with the padding, so that the taps of a row count as channels.
    fn folds(&self) -> bool {
        self.cin < 16
    }

    fn in_pairs(&self) -> bool {
        self.math == Math::Bf16
    }

    /// Whether a thread copies its channels of `x`.
    fn copies_x(&self) -> bool {
        self.folds() || self.normalised || self.in_pairs()
    }

    /// Floats of a pixel that a thread works on: of `x` and of `dy`.
    fn widths(&self) -> [usize; 2] {
        let panels = self.cout.div_ceil(self.tile.width()).div_ceil(self.groups[1]);
        [self.cin.div_ceil(self.groups[0]), panels * self.tile.width()]
    }

    /// A row of `cols` results in the buffers.
    fn lengths(&self, cols: usize) -> Lengths {
        let (step, taps) = (self.pass.buffered_step(1), self.pass.taps[1]);
        if !self.in_pairs() {
            return Lengths { x: self.pass.extent(1, cols), dy: cols, each: 1, step };
        }
        let (pairs, each) = (cols.div_ceil(2), if taps == 1 { 2 * step } else { 1 });
        let x = if pairs == 0 { 0 } else { (2 * (pairs - 1) * step + taps - 1) / each + 1 };
        Lengths { x, dy: pairs, each, step: 2 * step / each }
    }

    /// Blocks whose pixels have at most [`BLOCK`] floats of each.
    fn cut(&self) -> Blocks {
        let (pass, [x, dy]) = (&self.pass, self.widths());
        let row = self.lengths(pass.size[1]);
        let x_row = x * row.x;
        let x_image = x_row * pass.extent(0, pass.size[0]);
        let dy_row = dy * row.dy;
        let images = (BLOCK / x_image.max(1)).min(BLOCK / (dy_row * pass.size[0]).max(1));
        if images > 0 {
            return Blocks::new(pass, [images, usize::MAX, usize::MAX]);
        }
        let rows = (BLOCK / x_row).saturating_sub(pass.taps[0]) / pass.buffered_step(0) + 1;
        Blocks::new(pass, [1, rows.min((BLOCK / dy_row).max(1)), usize::MAX])
    }

    /// Floats of one thread's two buffers: a copy of `x` where taps fold, it is normalised or becomes words, and one of `dy` for panels not
    /// read in place.
    fn buffers(&self) -> [usize; 2] {
        let ([images, rows, cols], [x, dy]) = (self.blocks.largest(), self.widths());
        let row = self.lengths(cols);
        let x = if self.copies_x() { images * self.pass.extent(0, rows) * row.x * x } else { 0 };
        [x.next_multiple_of(16), (images * rows * row.dy * dy).next_multiple_of(16)]
    }

    fn filter(&self) -> usize {
        self.pass.taps[0] * self.pass.taps[1] * self.cin * self.cout
    }

    /// Floats of working memory.
    pub fn scratch(&self) -> usize {
        let copies = if self.copies > 1 { self.copies * self.filter() } else { 0 };
        self.threads * self.buffers().iter().sum::<usize>() + copies
    }

    pub fn run<'a>(&self, cpu: &Cpu, input: impl Into<Input<'a>>, dy: Src, dw: Dst, scratch: Dst) {
        let input = input.into();
        let [x_floats, dy_floats] = self.buffers();
        let each = x_floats + dy_floats;
        let panels = self.cout.div_ceil(self.tile.width());
        let ([channel_groups, panel_groups], copies) = (self.groups, self.copies);
        let unit = |i: usize, thread: usize, blocks: Range<usize>, into: *mut f32, add: bool| {
            // SAFETY: each thread has its own part of the scratch memory.
            let (x_buffer, dy_buffer) = unsafe { scratch.part(thread * each..(thread + 1) * each) }.split_at_mut(x_floats);
            let channels = share(self.cin, channel_groups, i % channel_groups);
            let panels = share(panels, panel_groups, i / channel_groups);
            Sum { plan: self, cpu, input, dy, into, x_buffer, dy_buffer }.run(blocks, channels, panels, add);
        };
        let units = channel_groups * panel_groups;
        if copies == 1 {
            return cpu.pool.parts(units, |i, thread| unit(i, thread, 0..self.blocks.count(), dw.ptr(), dw.adds()));
        }
        let rest = scratch.slice(self.threads * each..scratch.cols);
        in_copies(cpu, rest, [copies, self.filter()], dw, |c, thread, into| {
            (0..units).for_each(|i| unit(i, thread, share(self.blocks.count(), copies, c), into, false));
        });
    }
}

/// Runs `sum(i, thread, into)` for each of `count` copies of a filter of `floats` floats at the start of `scratch`, then
/// `dw (+)= the sum of the copies`, in order.
pub(super) fn in_copies(cpu: &Cpu, scratch: Dst, [count, floats]: [usize; 2], dw: Dst, sum: impl Fn(usize, usize, *mut f32) + Sync) {
    let copy = |i: usize| scratch.slice(i * floats..(i + 1) * floats);
    cpu.pool.parts(count, |i, thread| sum(i, thread, copy(i).ptr()));
    let copies: Vec<&[f32]> = (0..count).map(|i| copy(i).src().flat()).collect();
    cpu.pool.ranges(floats, 1024, |range| {
        // SAFETY: each range of the filter is written by one thread.
        let out = unsafe { std::slice::from_raw_parts_mut(dw.ptr().add(range.start), range.len()) };
        for (k, out) in range.zip(out) {
            let sum = copies.iter().fold(0.0, |sum, copy| sum + copy[k]);
            *out = if dw.adds() { *out + sum } else { sum };
        }
    });
}

/// The sums of one group of channels, in the hands of one thread.
struct Sum<'a> {
    plan: &'a FilterGrad,
    cpu: &'a Cpu,
    input: Input<'a>,
    dy: Src<'a>,
    /// A whole filter `[taps, in, out]`.
    into: *mut f32,
    x_buffer: &'a mut [f32],
    dy_buffer: &'a mut [f32],
}

impl Sum<'_> {
    fn run(&mut self, blocks: Range<usize>, channels: Range<usize>, panels: Range<usize>, add: bool) {
        let first = blocks.start;
        for i in blocks {
            let block = self.plan.blocks.get(i);
            let x = match self.plan.copies_x() {
                true => self.copy_x(&block, &channels),
                false => View::in_place(&self.plan.pass, self.input.x, &block),
            };
            for panel in panels.clone() {
                if !self.in_place(panel) {
                    self.copy_dy(&block, panels.start, panel);
                }
            }
            for panel in panels.clone() {
                let dy = self.view_dy(&block, panels.start, panel);
                for tap in 0..self.plan.pass.taps[0] {
                    self.tap_row(&block, x, dy, &channels, panel, tap, add || i > first);
                }
            }
        }
    }

    /// Copies the group's channels of `x`, without gaps; the view counts channels as the matrix does.
    fn copy_x(&mut self, block: &Block, channels: &Range<usize>) -> View {
        let (cpu, pass) = (self.cpu, &self.plan.pass);
        let input = Input { x: self.input.x.columns(channels.clone()), ..self.input };
        let view = match self.plan.in_pairs() {
            true => self.copy_x_pairs(block, input, channels.start),
            false => View::copied(cpu.isa, pass, input, channels.start, block, self.x_buffer, channels.len()),
        };
        View { first: view.first.wrapping_sub(channels.start), ..view }
    }

    /// The same in words of two pixels; the view's columns of results are pairs.
    fn copy_x_pairs(&mut self, block: &Block, input: Input, channel: usize) -> View {
        let (pass, x) = (&self.plan.pass, input.x);
        let (row, pitch, left) = (self.plan.lengths(block.cols.len()), x.cols, pass.source(1, block.cols.start, 0));
        let real = pass.real_extent(1, left, pass.extent(1, block.cols.len()));
        for (i, start) in real_rows(pass, block) {
            let to = &mut self.x_buffer[i * row.x * pitch..(i + 1) * row.x * pitch];
            let first = x.ptr().wrapping_offset((start as isize + left) * x.pitch as isize);
            let (pixel, step) = (pass.skip(1) * x.pitch, pass.buffered_step(1));
            let from = PixelRow { first, pixel, real: real.clone(), each: row.each, step, words: row.x };
            // SAFETY: the real pixels lie in the matrix, the words in the buffer; the coefficients have a float per channel.
            unsafe { pixel_pairs(&from, input.pre.map(|pre| pre.from(channel)), to.as_mut_ptr(), pitch, pitch, pitch) }
        }
        let tap = [row.x * pitch, pitch];
        let result = [pass.buffered_step(0) * tap[0], row.step * pitch];
        View { first: self.x_buffer.as_ptr(), image: pass.extent(0, block.rows.len()) * tap[0], result, tap }
    }

    /// Whether a panel of `dy` is read where it lies: as floats, all its vectors are whole, and its pitch does not fill a few cache sets
    /// over and over.
    fn in_place(&self, panel: usize) -> bool {
        let (columns, padded) = panel_columns(self.plan.tile, panel, self.plan.cout);
        columns.len() == padded && !self.dy.pitch.is_multiple_of(256) && !self.plan.in_pairs()
    }

    /// Copies a panel of `dy` to its place in `[panels, images, rows, columns, panel width]`, the last vector padded with zeros.
    fn copy_dy(&mut self, block: &Block, first_panel: usize, panel: usize) {
        let (plan, dy, size) = (self.plan, self.dy, self.plan.pass.size);
        let (columns, padded) = panel_columns(plan.tile, panel, plan.cout);
        let row_floats = plan.lengths(block.cols.len()).dy * padded;
        let mut out = self.dy_buffer[dy_offset(plan, block, panel - first_panel)..].chunks_exact_mut(row_floats);
        for (image, row) in block.images.clone().flat_map(|n| block.rows.clone().map(move |row| (n, row))) {
            let first = (image * size[0] + row) * size[1] + block.cols.start;
            let to = out.next().expect("the buffer has a place for every row");
            if plan.in_pairs() {
                let from = dy.ptr().wrapping_add(first * dy.pitch + columns.start);
                let real = 0..block.cols.len();
                let from = PixelRow { first: from, pixel: dy.pitch, real, each: 2, step: 1, words: row_floats / padded };
                // SAFETY: the pixels lie in the matrix, the words in the buffer.
                unsafe { pixel_pairs(&from, None, to.as_mut_ptr(), padded, columns.len(), padded) }
                continue;
            }
            for (col, to) in to.chunks_exact_mut(padded).enumerate() {
                to[..columns.len()].copy_from_slice(&dy.row(first + col)[columns.clone()]);
                to[columns.len()..].fill(0.0);
            }
        }
    }

    /// Where a panel of the block's `dy` lies.
    fn view_dy(&self, block: &Block, first_panel: usize, panel: usize) -> View {
        let (plan, size) = (self.plan, self.plan.pass.size);
        let (columns, padded) = panel_columns(plan.tile, panel, plan.cout);
        let view = |first: *const f32, [rows, cols]: [usize; 2], pixel: usize| {
            let result = [cols * pixel, pixel];
            View { first, image: rows * result[0], result, tap: [0; 2] }
        };
        if self.in_place(panel) {
            let pixel = (block.images.start * size[0] + block.rows.start) * size[1] + block.cols.start;
            return view(self.dy.ptr().wrapping_add(pixel * self.dy.pitch + columns.start), size, self.dy.pitch);
        }
        let first = self.dy_buffer[dy_offset(plan, block, panel - first_panel)..].as_ptr();
        view(first, [block.rows.len(), plan.lengths(block.cols.len()).dy], padded)
    }

    /// Adds the block's products for one row of taps and one panel.
    #[allow(clippy::too_many_arguments)] // the loop variables of `run`
    fn tap_row(&mut self, block: &Block, x: View, dy: View, channels: &Range<usize>, panel: usize, tap: usize, add: bool) {
        let (plan, pass) = (self.plan, &self.plan.pass);
        let (columns, padded) = panel_columns(plan.tile, panel, plan.cout);
        let rows = pass.real_results(0, tap, block.rows.clone());
        // Folded taps are so many channels more of one tap; they read the zeros of the padding, as pairs do.
        let whole = plan.folds() || plan.in_pairs();
        let (taps, depth) = if plan.folds() { (1, pass.taps[1] * plan.cin) } else { (pass.taps[1], channels.len()) };
        for j in 0..taps {
            let cols = if whole { block.cols.clone() } else { pass.real_results(1, j, block.cols.clone()) };
            let (row, col) = (rows.start - block.rows.start, cols.start - block.cols.start);
            let x_at = row * x.result[0] + col * x.result[1] + tap * x.tap[0] + j * x.tap[1] + channels.start;
            for run in even_runs(depth, plan.tile.rows) {
                let k = (tap * pass.taps[1] + j) * plan.cin + channels.start + run.start;
                let first = x.first.wrapping_add(x_at + run.start);
                let args = Outer {
                    images: block.images.len(),
                    rows: rows.len(),
                    pixels: if whole { plan.lengths(cols.len()).dy } else { cols.len() },
                    x: first,
                    x_image: x.image,
                    x_row: x.result[0],
                    x_pixel: x.result[1],
                    dy: dy.first.wrapping_add(row * dy.result[0] + col * dy.result[1]),
                    dy_image: dy.image,
                    dy_row: dy.result[0],
                    dy_pixel: dy.result[1],
                    w: self.into.wrapping_add(k * plan.cout + columns.start),
                    w_row: plan.cout,
                    cols: columns.len(),
                    add,
                    ahead: Ahead::pixels(first, x.result[1]),
                };
                // SAFETY: rows and columns are those whose tap lies in the image or the buffer; the channels of the filter
                // belong to this thread, or the filter is its own copy.
                unsafe { outer(self.cpu.isa, plan.math, run.len(), padded / plan.tile.lanes)(&args) }
            }
        }
    }
}

/// Where panel `i` of a block starts in the buffer for `dy`.
fn dy_offset(plan: &FilterGrad, block: &Block, i: usize) -> usize {
    i * block.images.len() * block.rows.len() * plan.lengths(block.cols.len()).dy * plan.tile.width()
}
