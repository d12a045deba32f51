use super::pairs::{channel_pairs, words};
use super::pass::{Block, Pass};
use crate::base::Math;
use crate::device::cpu::{Isa, Src};
use crate::ops::scale_shift::cpu::{Prologue, forward};

/// The input of a pass, and what happens to it on the way in: it is normalised, and rounded to what is multiplied.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Input<'a> {
    pub x: Src<'a>,
    pub pre: Option<Prologue<'a>>,
    pub math: Math,
}

impl<'a> From<Src<'a>> for Input<'a> {
    fn from(x: Src<'a>) -> Self {
        Input { x, pre: None, math: Math::Full }
    }
}

impl Input<'_> {
    /// Words of a pixel in a buffer: floats, or pairs of channels.
    pub fn words(&self) -> usize {
        words(self.math, self.x.cols)
    }
}

/// Where the input of a block lies: tap (0, 0) of its first result, and the floats (or words) from there to the next image, to the next
/// row and column of results, and to those of taps. Taps on the padding of rows may point nowhere: nothing reads them.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub first: *const f32,
    pub image: usize,
    pub result: [usize; 2],
    pub tap: [usize; 2],
}

impl View {
    /// The input itself.
    pub fn in_place(pass: &Pass, x: Src, block: &Block) -> Self {
        let tap = [pass.input[1] * x.pitch, x.pitch];
        let image = pass.input[0] * tap[0];
        let [top, left] = [pass.source(0, block.rows.start, 0), pass.source(1, block.cols.start, 0)];
        let first = x.ptr().wrapping_add(block.images.start * image);
        let first = first.wrapping_offset(top * tap[0] as isize + left * tap[1] as isize);
        View { first, image, result: [pass.step[0] * tap[0], pass.step[1] * tap[1]], tap }
    }

    /// A copy of the channels from `channel` on in `buffer`, `[images, rows, columns, pitch]`, normalised if the input is to be, with
    /// zeros for the columns of the padding; in words if pairs are multiplied.
    pub fn copied(isa: Isa, pass: &Pass, input: Input, channel: usize, block: &Block, buffer: &mut [f32], pitch: usize) -> Self {
        let x = input.x;
        let [height, width] = [pass.extent(0, block.rows.len()), pass.extent(1, block.cols.len())];
        let left = pass.source(1, block.cols.start, 0);
        let cols = pass.real_extent(1, left, width);
        for (i, start) in real_rows(pass, block) {
            let row = &mut buffer[i * width * pitch..(i + 1) * width * pitch];
            row[..cols.start * pitch].fill(0.0);
            row[cols.end * pitch..].fill(0.0);
            let first = start.wrapping_add_signed(left + (cols.start * pass.skip(1)) as isize);
            let from = (x.ptr().wrapping_add(first * x.pitch), pass.skip(1) * x.pitch);
            let to = &mut row[cols.start * pitch..cols.end * pitch];
            let (k, out) = (input.pre.map(|pre| pre.from(channel)), (to.as_mut_ptr(), pitch));
            // SAFETY: the pixels lie in the matrix, their copies in the buffer; the coefficients have a float per channel.
            unsafe {
                match (input.math, k) {
                    (Math::Bf16, k) => channel_pairs(from, k, out, cols.len(), x.cols),
                    (_, Some(k)) => forward(isa, from, k, out, cols.len(), x.cols, false),
                    (_, None) => copy_pixels(x, first, pass.skip(1), cols.len(), to, pitch),
                }
            }
        }
        let tap = [width * pitch, pitch];
        let result = [pass.buffered_step(0) * tap[0], pass.buffered_step(1) * tap[1]];
        View { first: buffer.as_ptr(), image: height * tap[0], result, tap }
    }
}

/// The rows that a block reads and that exist: their places among its buffered rows, and the first pixel of their image rows.
pub(super) fn real_rows(pass: &Pass, block: &Block) -> impl Iterator<Item = (usize, usize)> {
    let (height, top) = (pass.extent(0, block.rows.len()), pass.source(0, block.rows.start, 0));
    let (rows, images, pass) = (pass.real_extent(0, top, height), block.images.clone(), *pass);
    let first = images.start;
    images.flat_map(move |n| rows.clone().map(move |i| (n, i))).map(move |(n, i)| {
        let line = (n * pass.input[0]).wrapping_add_signed(top + (i * pass.skip(0)) as isize);
        ((n - first) * height + i, line * pass.input[1])
    })
}

/// Copies `count` pixels from pixel `first`, every `skip`-th, to `to`, `pitch` floats apart.
fn copy_pixels(x: Src, first: usize, skip: usize, count: usize, to: &mut [f32], pitch: usize) {
    if count > 0 && skip == 1 && x.pitch == x.cols && pitch == x.cols {
        return to.copy_from_slice(x.rows(first..first + count));
    }
    for (i, to) in to.chunks_exact_mut(pitch).enumerate() {
        let from = x.row(first + i * skip);
        if from.len() < 16 { to.iter_mut().zip(from).for_each(|(t, &f)| *t = f) } else { to[..from.len()].copy_from_slice(from) }
    }
}
