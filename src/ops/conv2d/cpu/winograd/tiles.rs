use super::{Scheme, transform};
use crate::device::cpu::{Isa, Pool, Src};
use crate::ops::conv2d::cpu::input::Input;
use crate::ops::conv2d::cpu::pass::Pass;

/// The results of a pass as tiles: row by row, image by image. Those at the lower and right edge may stick out.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub pass: Pass,
    pub scheme: Scheme,
    grid: [usize; 2],
}

/// One tile: its image and its first result.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub image: usize,
    pub row: usize,
    pub col: usize,
}

/// Pointers to the pixels of a tile, row by row; places that do not exist point to zeros.
pub(super) type Pixels = [*const f32; 36];

impl Tiles {
    pub fn new(pass: Pass, scheme: Scheme) -> Self {
        let grid = [0, 1].map(|axis| pass.size[axis].div_ceil(scheme.results()[axis]));
        Tiles { pass, scheme, grid }
    }

    pub fn count(&self) -> usize {
        self.pass.images * self.grid[0] * self.grid[1]
    }

    /// Tiles from the `i`-th on.
    pub fn walk(&self, i: usize) -> impl Iterator<Item = Tile> {
        let ([high, wide], [rows, cols]) = (self.scheme.results(), self.grid);
        let first = Tile { image: i / (rows * cols), row: i / cols % rows * high, col: i % cols * wide };
        std::iter::successors(Some(first), move |&Tile { image, row, col }| {
            Some(match (row + high < rows * high, col + wide < cols * wide) {
                (_, true) => Tile { image, row, col: col + wide },
                (true, false) => Tile { image, row: row + high, col: 0 },
                (false, false) => Tile { image: image + 1, row: 0, col: 0 },
            })
        })
    }

    /// The input pixels that a tile's results read.
    pub fn sources(&self, x: Src, tile: Tile, zeros: *const f32) -> Pixels {
        let first = [self.pass.source(0, tile.row, 0), self.pass.source(1, tile.col, 0)];
        pixels(x, tile.image, self.pass.input, first, self.scheme.inputs(), zeros)
    }

    /// Whether all input pixels that a tile's results read exist.
    pub fn is_inside(&self, tile: Tile) -> bool {
        let inside = |axis: usize, at: usize| {
            let first = self.pass.source(axis, at, 0);
            first >= 0 && first + self.scheme.inputs()[axis] as isize <= self.pass.input[axis] as isize
        };
        inside(0, tile.row) && inside(1, tile.col)
    }

    /// The results of a tile in a matrix of results.
    pub fn results(&self, dy: Src, tile: Tile, zeros: *const f32) -> Pixels {
        pixels(dy, tile.image, self.pass.size, [tile.row as isize, tile.col as isize], self.scheme.results(), zeros)
    }

    /// Rows and columns of a tile's results that exist.
    pub fn extent(&self, tile: Tile) -> [usize; 2] {
        let [high, wide] = self.scheme.results();
        [(self.pass.size[0] - tile.row).min(high), (self.pass.size[1] - tile.col).min(wide)]
    }
}

fn pixels(x: Src, image: usize, [height, width]: [usize; 2], [top, left]: [isize; 2], [high, wide]: [usize; 2], zeros: *const f32) -> Pixels {
    let mut out = [zeros; 36];
    let within = |first: isize, extent: usize, size: usize| first >= 0 && first as usize + extent <= size;
    let line = |r: isize| (image * height).wrapping_add_signed(r) * width;
    if within(top, high, height) && within(left, wide, width) {
        let first = x.ptr().wrapping_add((line(top) + left as usize) * x.pitch);
        for i in 0..high {
            for j in 0..wide {
                out[i * wide + j] = first.wrapping_add((i * width + j) * x.pitch);
            }
        }
        return out;
    }
    for i in (0..high).filter(|&i| (0..height as isize).contains(&(top + i as isize))) {
        for j in (0..wide).filter(|&j| (0..width as isize).contains(&(left + j as isize))) {
            let pixel = line(top + i as isize).wrapping_add_signed(left + j as isize);
            out[i * wide + j] = x.ptr().wrapping_add(pixel * x.pitch);
        }
    }
    out
}

/// Transforms the inputs of a tile to rows of planes at `to`.
///
/// # Safety
/// `zeros` has as many floats as the input has channels; the rows belong to the caller, whole vectors of them.
pub(super) unsafe fn transform_input(isa: Isa, tiles: &Tiles, input: &Input, tile: Tile, zeros: *const f32, to: *mut f32, plane: usize) {
    let (x, scheme) = (input.x, tiles.scheme);
    let from = tiles.sources(x, tile, zeros);
    // SAFETY: the pixels lie in the matrix or are the zeros; the rest is the caller's promise.
    unsafe {
        match input.pre {
            None => transform::input(isa, scheme, &from, x.cols, to, plane),
            Some(pre) if tiles.is_inside(tile) => transform::input_inside(isa, scheme, &from, pre.from(0), x.cols, to, plane),
            Some(pre) => transform::input_edge(isa, scheme, &from, pre.from(0), zeros, x.cols, to, plane),
        }
    }
}

/// Who shares the work on one block of tiles.
#[derive(Clone, Copy)]
pub(super) enum Team<'a> {
    /// The thread that holds it: its buffers fit the thread's own caches.
    Alone,
    /// All threads, part by part: large filters are then read once for all.
    All(&'a Pool),
}

impl Team<'_> {
    /// Runs `body` for each of `parts` parts and waits for all.
    pub fn each(self, parts: usize, body: impl Fn(usize) + Sync) {
        match self {
            Team::Alone => (0..parts).for_each(body),
            Team::All(pool) => pool.parts(parts, |part, _| body(part)),
        }
    }

    /// Into how many parts work is cut, so that it can be dealt out evenly.
    pub fn shares(self) -> usize {
        match self {
            Team::Alone => 1,
            Team::All(pool) => 4 * pool.threads(),
        }
    }
}
