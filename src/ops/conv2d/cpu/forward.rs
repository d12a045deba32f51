use super::pack::panel_columns;
use super::pass::{Block, Blocks, Pass};
use crate::device::cpu::tile::{Strip, Tile, even_runs, share, strip};
use crate::device::cpu::view::put;
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::activation::Act;
use crate::simd;
use std::ops::Range;

/// Floats of input that a thread works on at a time: with a panel of weights they fit its share of the second-level cache.
const BLOCK: usize = 96 * 1024;

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

/// Floats from pixel to pixel in a row buffer: few channels lie without gaps, so that the taps of a row are one run; many are
/// an odd number of vectors apart, so that the pixels of a strip fall into different sets of the cache.
fn buffer_pitch(channels: usize) -> usize {
    if channels < 16 { channels } else { 16 * (channels.div_ceil(16) | 1) }
}

/// Cuts a pass so that the input of a block fits [`BLOCK`] floats.
fn blocks(pass: &Pass, channels: usize, tile: Tile) -> Blocks {
    let pitch = buffer_pitch(channels);
    if pass.is_flat() {
        let pixels = (BLOCK / pitch / tile.rows).max(1) * tile.rows;
        return Blocks::new(pass, [1, 1, pixels]);
    }
    let rows = BLOCK / (pitch * pass.extent(1, pass.size[1]).max(1));
    Blocks::new(pass, [1, rows.saturating_sub(pass.taps[0]) / pass.step[0] + 1, usize::MAX])
}

/// Floats of one thread's row buffer, and of its strip of sums.
fn per_thread(pass: &Pass, channels: usize, tile: Tile) -> (usize, usize) {
    let [_, rows, cols] = blocks(pass, channels, tile).largest();
    let buffer = pass.extent(0, rows) * pass.extent(1, cols) * buffer_pitch(channels);
    (buffer.next_multiple_of(16), tile.rows * tile.width())
}

/// Floats of working memory of [`convolve`].
pub(in crate::ops) fn convolve_scratch(cpu: &Cpu, pass: &Pass, channels: usize) -> usize {
    let (buffer, sums) = per_thread(pass, channels, Tile::of(cpu.isa));
    cpu.threads() * (buffer + sums)
}

/// Where a block's input lies: pixel (a, b) of an image is at `at + (a - top) * row + (b - left) * pixel`.
#[derive(Clone, Copy)]
struct View {
    at: *const f32,
    top: isize,
    left: isize,
    row: usize,
    pixel: usize,
}

impl View {
    fn pixel(&self, a: isize, b: isize) -> *const f32 {
        self.at.wrapping_offset((a - self.top) * self.row as isize + (b - self.left) * self.pixel as isize)
    }
}

/// The image itself, where no row of results needs padding and its pitch does not fill a few cache sets over and over.
fn in_place(pass: &Pass, x: Src, image: usize) -> Option<View> {
    let aliases = x.pitch.is_multiple_of(256);
    let gaps = x.cols < 16 && x.pitch != x.cols;
    if !pass.is_unpadded_in_width() || aliases || gaps {
        return None;
    }
    let row = pass.input[1] * x.pitch;
    Some(View { at: x.ptr().wrapping_add(image * pass.input[0] * row), top: 0, left: 0, row, pixel: x.pitch })
}

/// Copies the input of a block into `buffer`, with columns of zeros for the padding. Rows of padding are left out: no tap of
/// them is taken.
fn fill(pass: &Pass, x: Src, block: &Block, buffer: &mut [f32]) -> View {
    let pitch = buffer_pitch(x.cols);
    let (top, left) = (pass.source(0, block.rows.start, 0), pass.source(1, block.cols.start, 0));
    let width = pass.extent(1, block.cols.len());
    let [height, pixels] = pass.input;
    // Columns of the buffer that lie on real pixels.
    let within = |b: isize| (b - left).clamp(0, width as isize) as usize;
    let real = within(0)..within(pixels as isize).max(within(0));
    for (i, row) in buffer.chunks_mut(width * pitch).take(pass.extent(0, block.rows.len())).enumerate() {
        let a = top + i as isize;
        if a < 0 || a >= height as isize {
            continue;
        }
        row[..real.start * pitch].fill(0.0);
        row[real.end * pitch..].fill(0.0);
        let first = (block.images.start * height + a as usize) * pixels;
        for b in real.clone() {
            let from = x.row(first + (b as isize + left) as usize);
            let to = &mut row[b * pitch..][..x.cols];
            if x.cols < 16 { to.iter_mut().zip(from).for_each(|(t, &f)| *t = f) } else { to.copy_from_slice(from) }
        }
    }
    View { at: buffer.as_ptr(), top, left, row: width * pitch, pixel: pitch }
}

/// Runs one pass: `y = finish(conv(x, w))` at the pixels the pass writes, `w` packed.
///
/// A result is one sum over taps and channels in a fixed order, whatever tile, block and thread it falls to.
pub(in crate::ops) fn convolve(cpu: &Cpu, pass: &Pass, x: Src, w: Src, y: Dst, finish: &Finish, scratch: Dst) {
    let tile = Tile::of(cpu.isa);
    let blocks = blocks(pass, x.cols, tile);
    let panels = y.cols.div_ceil(tile.width());
    // With few blocks, each is given to several threads, a share of the output channels to each.
    let groups = (4 * cpu.threads()).div_ceil(blocks.count().max(1)).min(panels);
    let (buffer, sums) = per_thread(pass, x.cols, tile);
    cpu.pool.parts(blocks.count() * groups, |part, thread| {
        let block = blocks.get(part / groups);
        let start = thread * (buffer + sums);
        // SAFETY: each thread has its own part of the scratch memory.
        let (buffer, sums) = unsafe { scratch.part(start..start + buffer + sums) }.split_at_mut(buffer);
        let view = in_place(pass, x, block.images.start).unwrap_or_else(|| fill(pass, x, &block, buffer));
        let strips = Strips { cpu, tile, pass, view, channels: x.cols, w, y, finish, sums };
        strips.run(&block, share(panels, groups, part % groups));
    });
}

/// The strips of one block.
struct Strips<'a> {
    cpu: &'a Cpu,
    tile: Tile,
    pass: &'a Pass,
    view: View,
    channels: usize,
    w: Src<'a>,
    y: Dst<'a>,
    finish: &'a Finish<'a>,
    sums: &'a mut [f32],
}

impl Strips<'_> {
    /// All rows for one panel of weights before the next panel: the panel stays in the cache.
    fn run(mut self, block: &Block, panels: Range<usize>) {
        for panel in panels {
            for row in block.rows.clone() {
                for cols in even_runs(block.cols.len(), self.tile.rows) {
                    let cols = block.cols.start + cols.start..block.cols.start + cols.end;
                    self.strip(block.images.start, row, cols, panel);
                }
            }
        }
    }

    fn strip(&mut self, image: usize, row: usize, cols: Range<usize>, panel: usize) {
        let (pass, view, depth) = (self.pass, self.view, self.channels);
        let (columns, width) = panel_columns(self.tile, panel, self.y.cols);
        let taps = pass.real_taps(0, row);
        // Taps without gaps between them are one long tap.
        let folds = view.pixel == depth;
        let k = pass.taps[0] * pass.taps[1] * depth;
        let plain = self.finish.is_none();
        let y_pixel = pass.apart[1] * self.y.pitch;
        let y = self.y.ptr().wrapping_add(pass.target(image, row, cols.start) * self.y.pitch + columns.start);
        let args = Strip {
            x: view.pixel(pass.source(0, row, taps.start), pass.source(1, cols.start, 0)),
            pixel: pass.step[1] * view.pixel,
            rows: taps.len(),
            row: view.row,
            taps: if folds { 1 } else { pass.taps[1] },
            tap: view.pixel,
            depth: if folds { pass.taps[1] * depth } else { depth },
            w: self.w.ptr().wrapping_add(panel * self.tile.width() * k + taps.start * pass.taps[1] * depth * width),
            y: if plain { y } else { self.sums.as_mut_ptr() },
            y_pixel: if plain { y_pixel } else { width },
            cols: columns.len(),
            add: plain && self.y.adds(),
        };
        // SAFETY: the taps lie in the image or the row buffer, the panel in the packed weights, and the results are pixels
        // and channels of `y` that belong to this part alone, or this thread's own sums.
        unsafe {
            strip(self.cpu.isa, cols.len(), width / self.tile.lanes)(&args);
            if !plain {
                let vector = |v: Option<Src>| v.map_or(std::ptr::null(), |v| v.ptr().wrapping_add(columns.start));
                let (scale, bias) = (vector(self.finish.scale), vector(self.finish.bias));
                let (sums, add) = (self.sums.as_mut_ptr(), self.y.adds());
                finish(self.cpu.isa, sums, width, y, y_pixel, cols.len(), columns.len(), scale, bias, self.finish.act, add);
            }
        }
    }
}

simd! {
    /// y (+)= act(sums * scale + bias) over `rows` x `cols`; `scale` and `bias` have `cols` floats or are null. The sums are lost.
    unsafe fn finish<V>(sums: *mut f32, pitch: usize, y: *mut f32, y_pitch: usize, rows: usize, cols: usize, scale: *const f32, bias: *const f32, act: Act, add: bool) {
        for c in (0..cols).step_by(V::N) {
            let n = V::N.min(cols - c);
            let scale = if scale.is_null() { V::splat(1.0) } else { V::take(scale.add(c), n) };
            let bias = if bias.is_null() { V::zero() } else { V::take(bias.add(c), n) };
            for r in 0..rows {
                let (from, to) = (sums.add(r * pitch + c), y.add(r * y_pitch + c));
                let value = V::take(from, n).fma(scale, bias);
                match act {
                    Act::Linear => value.put(to, n, add),
                    Act::Relu => value.max(V::zero()).put(to, n, add),
                    Act::Sigmoid => {
                        value.put(from, n, false);
                        for i in 0..n {
                            put(to.add(i), 1.0 / (1.0 + (-*from.add(i)).exp()), add);
                        }
                    }
                }
            }
        }
    }
}
