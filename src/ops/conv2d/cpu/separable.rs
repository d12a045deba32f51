//! A depthwise convolution and the 1x1 convolution that alone reads it, some rows of pixels at a time.
//!
//! The depthwise results of a block go to a buffer that stays in a thread's second-level cache, where the product reads them: they
//! are never written to memory. A result has the same bits as from the two ops one after the other.

use super::forward::{BLOCK, Finish, Later, Strips, buffer_pitch};
use super::input::View;
use super::pairs::{channel_pairs, words};
use super::pass::{Block, Pass};
use crate::base::Math;
use crate::device::cpu::tile::{LINE, Tile, share};
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::activation::Act;
use crate::ops::depthwise::cpu::{Entry, Walk, slide_rows};
use std::ops::Range;

/// The depthwise half: its input with images of `size` pixels, what happens to that first, and its filter.
pub(super) struct Depthwise<'a> {
    pub x: Src<'a>,
    pub size: [usize; 2],
    pub act: Act,
    pub filter: Src<'a>,
}

impl<'a> Depthwise<'a> {
    fn entry(&self) -> Entry<'a> {
        if self.act == Act::Relu { Entry::Relu } else { Entry::Plain }
    }

    /// Rows of pixels, through all images, of a block whose results fit [`BLOCK`] floats.
    fn rows_of_block(&self) -> usize {
        rows_of_block(self.x.cols, self.size[1])
    }

    /// The pixels that some rows of results read: theirs, and a row above and below.
    fn reads(&self, rows: Range<usize>) -> Later {
        let row = self.size[1] * self.x.pitch;
        let first = rows.start.saturating_sub(1);
        Later { first: self.x.ptr().wrapping_add(first * row), lines: (rows.end + 1 - first) * row / LINE }
    }
}

fn rows_of_block(channels: usize, width: usize) -> usize {
    (BLOCK / (buffer_pitch(channels) * width)).max(1)
}

/// Floats of one thread's buffer, and of its strip of sums.
fn per_thread(tile: Tile, channels: usize, width: usize) -> [usize; 2] {
    let buffer = rows_of_block(channels, width) * width * buffer_pitch(channels);
    [buffer.next_multiple_of(16), tile.rows * tile.width()]
}

/// Floats of working memory for inputs of so many channels and pixels in a row.
pub(super) fn scratch(cpu: &Cpu, channels: usize, width: usize) -> usize {
    cpu.threads() * per_thread(Tile::of(cpu.isa), channels, width).iter().sum::<usize>()
}

/// `y = finish(depthwise(act(x)) w)`, `w` packed. Where pairs are multiplied, the rows of the buffer become words in place: what a word is
/// made of lies at its place or behind it.
pub(super) fn run(cpu: &Cpu, math: Math, depthwise: &Depthwise, w: Src, y: Dst, finish: &Finish, scratch: Dst) {
    let (x, tile, width) = (depthwise.x, Tile::of(cpu.isa), depthwise.size[1]);
    let (pass, pitch, rows) = (Pass::flat(x.rows), buffer_pitch(x.cols), x.rows / width);
    let (blocks, panels) = (rows.div_ceil(depthwise.rows_of_block()), y.cols.div_ceil(tile.width()));
    // With few blocks, each is given to several threads, a share of the output channels to each; they filter it each for itself.
    let groups = (4 * cpu.threads()).div_ceil(blocks.max(1)).min(panels);
    let [buffer, sums] = per_thread(tile, x.cols, width);
    cpu.pool.parts(blocks * groups, |part, thread| {
        let (block, start) = (share(rows, blocks, part / groups), thread * (buffer + sums));
        // SAFETY: each thread has its own part of the scratch memory.
        let (buffer, sums) = unsafe { scratch.part(start..start + buffer + sums) }.split_at_mut(buffer);
        let cols = block.start * width..block.end * width;
        let (entry, filter) = (depthwise.entry(), depthwise.filter.flat());
        // SAFETY: the buffer has room for a block's rows; a checked filter has nine taps.
        unsafe { slide_rows(cpu.isa, x, entry, filter, false, depthwise.size, block, buffer.as_mut_ptr(), pitch, false, Walk::IN_CACHE) };
        if math == Math::Bf16 {
            let at = buffer.as_mut_ptr();
            // SAFETY: the rows just written; a vector of words is written after the two of floats that it is made of were read.
            unsafe { channel_pairs((at, pitch), None, (at, pitch), cols.len(), x.cols) };
        }
        let view = View { first: buffer.as_ptr(), image: 0, result: [0, pitch], tap: [0, pitch] };
        // Threads take turns, nearly: where they do not, what was asked for is another's.
        let next = (part + cpu.threads()) / groups;
        let later = (next > part / groups && next < blocks).then(|| depthwise.reads(share(rows, blocks, next)));
        let strips = Strips { cpu, tile, pass: &pass, view, math, words: words(math, x.cols), w, y, finish, sums, later };
        strips.run(&Block { images: 0..1, rows: 0..1, cols }, share(panels, groups, part % groups));
    });
}
