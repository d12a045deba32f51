use super::input::{Input, View};
use super::pack::panel_columns;
use super::pass::{Block, Blocks, Pass};
use crate::base::Math;
use crate::device::cpu::tile::{Ahead, LINE, Strip, Tile, ask, even_runs, share, strip};
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::activation::Act;
use crate::ops::activation::cpu::apply;
use crate::simd;
use std::ops::Range;

/// Floats of input that a thread works on at a time: with a panel of weights they fit its share of the second-level cache.
pub(super) const BLOCK: usize = 96 * 1024;

/// Strips for which a thread fetches the weights, at the least.
const STRIPS: usize = 4;

/// The longest sum that is formed in one go.
const TERMS: usize = 256;

/// Steps of a tile in which memory answers.
const PATIENCE: usize = 48;

/// What happens to a sum before it is written: `act(sum * scale + bias)`.
pub(in crate::ops) struct Finish<'a> {
    pub scale: Option<Src<'a>>,
    pub bias: Option<Src<'a>>,
    pub act: Act,
}

impl Finish<'_> {
    /// The sum itself.
    pub const NONE: Finish<'static> = Finish { scale: None, bias: None, act: Act::Linear };

    fn is_none(&self) -> bool {
        self.scale.is_none() && self.bias.is_none() && self.act == Act::Linear
    }
}

/// Floats (or words of two channels, where pairs are multiplied) from pixel to pixel in a row buffer: few lie without gaps, so that the
/// taps of a row are one run; many are an odd number of vectors apart, so that the pixels of a strip fall into different sets of the cache.
pub(super) fn buffer_pitch(words: usize) -> usize {
    if words < 16 { words } else { 16 * (words.div_ceil(16) | 1) }
}

/// Cuts a pass so that the input of a block fits [`BLOCK`] floats; a single row so that threads can share it evenly, as long as blocks
/// have [`STRIPS`] strips.
fn blocks(cpu: &Cpu, pass: &Pass, words: usize) -> Blocks {
    let (tile, threads, pitch) = (Tile::of(cpu.isa), cpu.threads(), buffer_pitch(words));
    if pass.is_flat() {
        let shared = pass.size[1].div_ceil(tile.rows).div_ceil(4 * threads).max(STRIPS);
        let strips = (BLOCK / pitch / tile.rows).clamp(1, shared);
        let blocks = Blocks::new(pass, [1, 1, strips * tile.rows]);
        return if blocks.count() > threads { blocks.for_threads(threads) } else { blocks };
    }
    let rows = BLOCK / (pitch * pass.extent(1, pass.size[1]).max(1));
    Blocks::new(pass, [1, rows.saturating_sub(pass.taps[0]) / pass.buffered_step(0) + 1, usize::MAX])
}

/// Floats of one thread's row buffer, and of its strip of sums.
fn per_thread(cpu: &Cpu, pass: &Pass, words: usize) -> (usize, usize) {
    let ([_, rows, cols], tile) = (blocks(cpu, pass, words).largest(), Tile::of(cpu.isa));
    let buffer = pass.extent(0, rows) * pass.extent(1, cols) * buffer_pitch(words);
    (buffer.next_multiple_of(16), tile.rows * tile.width())
}

/// Floats of working memory of [`convolve`], for an input of so many words a pixel.
pub(in crate::ops) fn convolve_scratch(cpu: &Cpu, pass: &Pass, words: usize) -> usize {
    let (buffer, sums) = per_thread(cpu, pass, words);
    cpu.threads() * (buffer + sums)
}

/// Whether a pass reads its input where it lies: no row of results needs padding, and the pitch does not fill a few cache
/// sets over and over; nor is the input changed on the way in.
fn reads_in_place(pass: &Pass, input: Input) -> bool {
    let x = input.x;
    let aliases = x.pitch.is_multiple_of(512);
    let gaps = x.cols < 16 && x.pitch != x.cols;
    pass.is_unpadded_in_width() && !aliases && !gaps && input.pre.is_none() && input.math == Math::Full
}

/// Runs one pass: `y = finish(conv(x, w))` at the pixels the pass writes, `w` packed.
///
/// A result is one sum over taps and channels in a fixed order, whatever tile, block and thread it falls to.
pub(in crate::ops) fn convolve<'a>(cpu: &Cpu, pass: &Pass, input: impl Into<Input<'a>>, w: Src, y: Dst, finish: &Finish, scratch: Dst) {
    let (input, tile): (Input, Tile) = (input.into(), Tile::of(cpu.isa));
    let words = input.words();
    let blocks = blocks(cpu, pass, words);
    let panels = y.cols.div_ceil(tile.width());
    // With few blocks, each is given to several threads, a share of the output channels to each.
    let groups = (4 * cpu.threads()).div_ceil(blocks.count().max(1)).min(panels);
    let (buffer, sums) = per_thread(cpu, pass, words);
    cpu.pool.parts(blocks.count() * groups, |part, thread| {
        let block = blocks.get(part / groups);
        let start = thread * (buffer + sums);
        // SAFETY: each thread has its own part of the scratch memory.
        let (buffer, sums) = unsafe { scratch.part(start..start + buffer + sums) }.split_at_mut(buffer);
        let view = match reads_in_place(pass, input) {
            true => View::in_place(pass, input.x, &block),
            false => View::copied(cpu.isa, pass, input, 0, &block, buffer, buffer_pitch(words)),
        };
        let strips = Strips { cpu, tile, pass, view, math: input.math, words, w, y, finish, sums, later: None };
        strips.run(&block, share(panels, groups, part % groups));
    });
}

/// The strips of one block.
pub(super) struct Strips<'a> {
    pub cpu: &'a Cpu,
    pub tile: Tile,
    pub pass: &'a Pass,
    pub view: View,
    pub math: Math,
    /// Floats or words of a pixel.
    pub words: usize,
    pub w: Src<'a>,
    pub y: Dst<'a>,
    pub finish: &'a Finish<'a>,
    pub sums: &'a mut [f32],
    /// What the thread reads when it is done with the block.
    pub later: Option<Later>,
}

/// Cache lines one after the other that are not needed yet.
pub(super) struct Later {
    pub first: *const f32,
    pub lines: usize,
}

impl Later {
    /// A tile of so many steps asks for the next of them.
    fn ask(&mut self, steps: usize) -> Ahead {
        let ahead = Ahead::new(self.first, if self.lines > 0 { LINE } else { 0 });
        let lines = steps.min(self.lines);
        (self.first, self.lines) = (self.first.wrapping_add(lines * LINE), self.lines - lines);
        ahead
    }
}

/// Panels before the end of a block in which its strips ask for what comes later: early enough for all of it, late enough that it is still
/// in the cache.
const LAST: usize = 2;

impl Strips<'_> {
    /// All rows for one panel of weights before the next panel: the panel stays in the cache.
    pub fn run(mut self, block: &Block, panels: Range<usize>) {
        for panel in panels.clone() {
            for row in block.rows.clone() {
                for cols in even_runs(block.cols.len(), self.tile.rows) {
                    self.strip(block, row, cols, panel, panel + LAST >= panels.end);
                }
            }
        }
    }

    /// Result pixels `cols` of a row, counted from the block's first.
    fn strip(&mut self, block: &Block, row: usize, cols: Range<usize>, panel: usize, last: bool) {
        let (pass, view, depth) = (self.pass, self.view, self.words);
        let (columns, width) = panel_columns(self.tile, panel, self.y.cols);
        let taps = pass.real_taps(0, row);
        // Taps without gaps between them are one long tap.
        let folds = view.tap[1] == depth;
        let k = pass.taps[0] * pass.taps[1] * depth;
        let plain = self.finish.is_none();
        let y_pixel = pass.apart[1] * self.y.pitch;
        let y = self.y.ptr().wrapping_add(pass.target(block.images.start, row, block.cols.start + cols.start) * self.y.pitch + columns.start);
        let x = (row - block.rows.start) * view.result[0] + taps.start * view.tap[0] + cols.start * view.result[1];
        let x = view.first.wrapping_add(x);
        let args = Strip {
            x,
            pixel: view.result[1],
            rows: taps.len(),
            row: view.tap[0],
            taps: if folds { 1 } else { pass.taps[1] },
            tap: view.tap[1],
            depth: if folds { pass.taps[1] * depth } else { depth },
            w: self.w.ptr().wrapping_add(panel * self.tile.width() * k + taps.start * pass.taps[1] * depth * width),
            y: if plain { y } else { self.sums.as_mut_ptr() },
            y_pixel: if plain { y_pixel } else { width },
            cols: columns.len(),
            add: plain && self.y.adds(),
            ahead: match &mut self.later {
                Some(later) if last => later.ask(taps.len() * pass.taps[1] * depth),
                // The first panel finds the input in memory, the others in the cache.
                None if panel == 0 => Ahead::strips(x, view.result[1], depth, self.tile.rows),
                _ => Ahead::nothing(x),
            },
        };
        if self.y.adds() {
            // A short sum is done before what it is added to has come: there the strip asks for the next one.
            let short = args.rows * args.taps * args.depth < PATIENCE;
            let later = if short { cols.len() * y_pixel } else { 0 };
            ask(y.wrapping_add(later), y_pixel, cols.len(), columns.len());
        }
        // SAFETY: the taps lie in the image or the row buffer, the panel in the packed weights, and the results are pixels
        // and channels of `y` that belong to this part alone, or this thread's own sums.
        unsafe {
            in_parts(&args, width, strip(self.cpu.isa, self.math, cols.len(), width / self.tile.lanes));
            if !plain {
                let vector = |v: Option<Src>| v.map_or(std::ptr::null(), |v| v.ptr().wrapping_add(columns.start));
                let (scale, bias) = (vector(self.finish.scale), vector(self.finish.bias));
                let (sums, add) = (self.sums.as_ptr(), self.y.adds());
                finish(self.cpu.isa, sums, width, y, y_pixel, cols.len(), columns.len(), scale, bias, self.finish.act, add);
            }
        }
    }
}


/// Runs a strip as sums of at most [`TERMS`] terms, which are then added up: rounding errors grow with the length of a sum.
///
/// # Safety
/// That of the strip.
unsafe fn in_parts(args: &Strip, width: usize, kernel: unsafe fn(&Strip)) {
    let row = args.taps * args.depth;
    if args.rows == 0 || args.rows * row <= TERMS {
        // SAFETY: the caller's strip; one without taps writes zeros.
        return unsafe { kernel(args) };
    }
    let (rows, taps) = ((TERMS / row).max(1), (TERMS / args.depth).clamp(1, args.taps));
    let parts = if taps == 1 { args.depth.div_ceil(TERMS) } else { 1 };
    let (mut add, mut ahead) = (args.add, args.ahead);
    for i in (0..args.rows).step_by(rows) {
        for j in (0..args.taps).step_by(taps) {
            for depth in (0..parts).map(|part| share(args.depth, parts, part)) {
                let x = args.x.wrapping_add(i * args.row + j * args.tap + depth.start);
                let w = args.w.wrapping_add((i * row + j * args.depth + depth.start) * width);
                let (rows, taps) = (rows.min(args.rows - i), taps.min(args.taps - j));
                // SAFETY: a part of the caller's strip.
                unsafe { kernel(&Strip { x, w, rows, taps, depth: depth.len(), add, ahead, ..*args }) };
                add = true;
                ahead.first = ahead.first.wrapping_add(rows * taps * depth.len() * ahead.step);
            }
        }
    }
}

simd! {
    /// y (+)= act(sums * scale + bias) over `rows` x `cols`; `scale` and `bias` have `cols` floats or are null.
    unsafe fn finish<V>(sums: *const f32, pitch: usize, y: *mut f32, y_pitch: usize, rows: usize, cols: usize, scale: *const f32, bias: *const f32, act: Act, add: bool) {
        for c in (0..cols).step_by(V::N) {
            let n = V::N.min(cols - c);
            let scale = if scale.is_null() { V::splat(1.0) } else { V::take(scale.add(c), n) };
            let bias = if bias.is_null() { V::zero() } else { V::take(bias.add(c), n) };
            for r in 0..rows {
                let (from, to) = (sums.add(r * pitch + c), y.add(r * y_pitch + c));
                apply(act, V::take(from, n).fma(scale, bias)).put(to, n, add);
            }
        }
    }
}
