use crate::base::Geom;
use crate::device::cpu::tile::share;
use std::ops::Range;

/// One dense walk: result pixel `u` (of `size`) reads the input pixels `u * step + t - lead` for `t` in `0..taps`, as far as
/// they exist, and lies at pixel `first + u * apart` of the result's image. The forward convolution is one pass; the input
/// gradient is one for each phase of the stride, with leads that may be negative.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Pass {
    pub images: usize,
    pub input: [usize; 2],
    pub taps: [usize; 2],
    pub step: [usize; 2],
    pub lead: [isize; 2],
    pub size: [usize; 2],
    pub output: [usize; 2],
    pub first: [usize; 2],
    pub apart: [usize; 2],
}

impl Pass {
    /// The forward convolution.
    pub fn forward(g: &Geom, images: usize) -> Self {
        if g.is_pointwise() {
            return Self::flat(images * g.output[0] * g.output[1]);
        }
        Pass {
            images,
            input: g.input,
            taps: g.kernel,
            step: g.stride,
            lead: [g.before(0) as isize, g.before(1) as isize],
            size: g.output,
            output: g.output,
            first: [0; 2],
            apart: [1; 2],
        }
    }

    /// A matrix product: all pixels are one row of one image.
    pub fn flat(pixels: usize) -> Self {
        let row = [1, pixels];
        Pass { images: 1, input: row, taps: [1; 2], step: [1; 2], lead: [0; 2], size: row, output: row, first: [0; 2], apart: [1; 2] }
    }

    /// Whether the pass has one row, which may then be cut anywhere.
    pub fn is_flat(&self) -> bool {
        self.images == 1 && self.size[0] == 1 && self.taps == [1; 2]
    }

    /// Whether each result reads one pixel, which exists.
    pub fn has_one_real_tap(&self) -> bool {
        let inside = |axis: usize| {
            let last = self.source(axis, self.size[axis].saturating_sub(1), 0);
            self.source(axis, 0, 0) >= 0 && last < self.input[axis] as isize
        };
        self.taps == [1; 2] && inside(0) && inside(1)
    }

    /// The input coordinate that result coordinate `u` reads through tap `t`, in the padding or not.
    pub fn source(&self, axis: usize, u: usize, t: usize) -> isize {
        (u * self.step[axis] + t) as isize - self.lead[axis]
    }

    /// The taps of result coordinate `u` that lie on real pixels.
    pub fn real_taps(&self, axis: usize, u: usize) -> Range<usize> {
        let start = self.source(axis, u, 0);
        let clamp = |t: isize| t.clamp(0, self.taps[axis] as isize) as usize;
        let (first, last) = (clamp(-start), clamp(self.input[axis] as isize - start));
        first..last.max(first)
    }

    /// The part of `results` that reads real pixels through tap `t`.
    pub fn real_results(&self, axis: usize, t: usize, results: Range<usize>) -> Range<usize> {
        let (step, offset) = (self.step[axis] as isize, t as isize - self.lead[axis]);
        // The first u with u * step + offset >= bound.
        let reaches = |bound: isize| (bound - offset).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
        let first = reaches(0).clamp(results.start, results.end);
        let last = reaches(self.input[axis] as isize).clamp(first, results.end);
        first..last
    }

    /// Input coordinates from one that is buffered to the next: a single tap leaves out those between its steps.
    pub fn skip(&self, axis: usize) -> usize {
        if self.taps[axis] == 1 { self.step[axis] } else { 1 }
    }

    /// Buffered coordinates from the first tap of one result to that of the next.
    pub fn buffered_step(&self, axis: usize) -> usize {
        self.step[axis] / self.skip(axis)
    }

    /// Buffered coordinates that `count` neighbouring results read.
    pub fn extent(&self, axis: usize, count: usize) -> usize {
        if count == 0 { 0 } else { (count - 1) * self.buffered_step(axis) + self.taps[axis] }
    }

    /// Those among `extent` buffered coordinates, the first being input coordinate `start`, that lie on real pixels.
    pub fn real_extent(&self, axis: usize, start: isize, extent: usize) -> Range<usize> {
        let reaches = |bound: isize| (bound - start).max(0).unsigned_abs().div_ceil(self.skip(axis)).min(extent);
        reaches(0)..reaches(self.input[axis] as isize)
    }

    /// Whether every row of results reads real pixels only.
    pub fn is_unpadded_in_width(&self) -> bool {
        let last = self.size[1].saturating_sub(1);
        self.source(1, 0, 0) >= 0 && self.source(1, last, self.taps[1] - 1) < self.input[1] as isize
    }

    /// The pixel where a result goes.
    pub fn target(&self, image: usize, row: usize, col: usize) -> usize {
        let at = |axis: usize, u: usize| self.first[axis] + u * self.apart[axis];
        (image * self.output[0] + at(0, row)) * self.output[1] + at(1, col)
    }
}

/// Results cut into blocks of several whole images, or of some rows of one image, or of some pixels of a single row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    results: [usize; 3],
    cuts: [usize; 3],
}

/// One block: its images, its rows in each of them, its pixels in each of those.
pub(super) struct Block {
    pub images: Range<usize>,
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

impl Blocks {
    /// Blocks of at most `most` images, rows and pixels (at least one of each), as even as they can be.
    pub fn new(pass: &Pass, most: [usize; 3]) -> Self {
        let results = [pass.images, pass.size[0], pass.size[1]];
        Blocks { results, cuts: std::array::from_fn(|i| results[i].div_ceil(most[i].max(1))) }
    }

    /// Cuts along an axis that is cut already (or along images) until the blocks can be dealt out evenly to `threads`.
    pub fn for_threads(mut self, threads: usize) -> Self {
        let axis = (0..3).rev().find(|&axis| self.cuts[axis] > 1).unwrap_or(if self.results[0] > 1 { 0 } else { 2 });
        if axis == 2 && self.results[1] > 1 {
            return self;
        }
        self.cuts[axis] = self.cuts[axis].next_multiple_of(threads).min(self.results[axis]);
        self
    }

    pub fn count(&self) -> usize {
        self.cuts.iter().product()
    }

    pub fn get(&self, i: usize) -> Block {
        let [_, rows, cols] = self.cuts;
        let at = [i / (rows * cols), i / cols % rows, i % cols];
        let range = |axis: usize| share(self.results[axis], self.cuts[axis], at[axis]);
        Block { images: range(0), rows: range(1), cols: range(2) }
    }

    /// The most images, rows and pixels a block has.
    pub fn largest(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.results[i].div_ceil(self.cuts[i].max(1)))
    }
}
