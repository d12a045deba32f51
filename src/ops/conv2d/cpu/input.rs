use super::pass::{Block, Pass};
use crate::device::cpu::{Isa, Src};
use crate::ops::scale_shift::cpu::{Prologue, forward};

/// The input of a pass, and what happens to it on the way in.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Input<'a> {
    pub x: Src<'a>,
    pub pre: Option<Prologue<'a>>,
}

impl<'a> From<Src<'a>> for Input<'a> {
    fn from(x: Src<'a>) -> Self {
        Input { x, pre: None }
    }
}

/// Where the input of a block lies: tap (0, 0) of its first result, and the floats from there to the next image, to the next
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
    /// zeros for the columns of the padding.
    pub fn copied(isa: Isa, pass: &Pass, input: Input, channel: usize, block: &Block, buffer: &mut [f32], pitch: usize) -> Self {
        let x = input.x;
        let [height, width] = [pass.extent(0, block.rows.len()), pass.extent(1, block.cols.len())];
        let [top, left] = [pass.source(0, block.rows.start, 0), pass.source(1, block.cols.start, 0)];
        let [rows, cols] = [pass.real_extent(0, top, height), pass.real_extent(1, left, width)];
        for (image, i) in block.images.clone().flat_map(|n| rows.clone().map(move |i| (n, i))) {
            let at = ((image - block.images.start) * height + i) * width * pitch;
            let row = &mut buffer[at..at + width * pitch];
            row[..cols.start * pitch].fill(0.0);
            row[cols.end * pitch..].fill(0.0);
            let line = (image * pass.input[0]).wrapping_add_signed(top + (i * pass.skip(0)) as isize) * pass.input[1];
            let first = line.wrapping_add_signed(left + (cols.start * pass.skip(1)) as isize);
            let to = &mut row[cols.start * pitch..cols.end * pitch];
            match input.pre {
                None => copy_pixels(x, first, pass.skip(1), cols.len(), to, pitch),
                // SAFETY: the pixels lie in the matrix, their copies in the buffer; the coefficients have a float per channel.
                Some(pre) => unsafe {
                    let from = (x.ptr().wrapping_add(first * x.pitch), pass.skip(1) * x.pitch);
                    forward(isa, from, pre.from(channel), (to.as_mut_ptr(), pitch), cols.len(), x.cols, false);
                },
            }
        }
        let tap = [width * pitch, pitch];
        let result = [pass.buffered_step(0) * tap[0], pass.buffered_step(1) * tap[1]];
        View { first: buffer.as_ptr(), image: height * tap[0], result, tap }
    }
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
