//! The sliding loop: a 3x3 window of stride 1 with one pixel of padding walks along a row and loads each pixel once for each output row.

use crate::device::cpu::simd::{Vector, prefetch};
use crate::device::cpu::{Isa, Src};
use crate::ops::activation::Act;
use crate::ops::activation::cpu::apply;
use crate::ops::scale_shift::cpu::{Coefficients, Prologue};
use crate::ops::window;
use crate::simd;
use std::ops::Range;

/// What happens to pixels on the way in.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Entry<'a> {
    Plain,
    Relu,
    Normalised(Prologue<'a>),
}

impl<'a> Entry<'a> {
    /// That of the field `pre`.
    pub fn of(pre: Option<Prologue<'a>>) -> Self {
        pre.map_or(Entry::Plain, Entry::Normalised)
    }
}

/// The same as a type, so that each has a loop of its own.
pub(super) trait Way: Copy {
    /// Whether zeros stay zeros.
    const KEEPS_ZERO: bool;

    /// The same seen from channel `c` on.
    fn from(self, c: usize) -> Self;

    /// A pixel's channels `c..c + n`.
    ///
    /// # Safety
    /// The coefficients, if any, have `c + n` floats; the instruction set of `V` must be there.
    unsafe fn enter<V: Vector>(self, x: V, c: usize, n: usize) -> V;
}

#[derive(Clone, Copy)]
struct Plain;
#[derive(Clone, Copy)]
struct Rectified;

impl Way for Plain {
    const KEEPS_ZERO: bool = true;

    #[inline(always)]
    fn from(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn enter<V: Vector>(self, x: V, _: usize, _: usize) -> V {
        x
    }
}

impl Way for Rectified {
    const KEEPS_ZERO: bool = true;

    #[inline(always)]
    fn from(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn enter<V: Vector>(self, x: V, _: usize, _: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { apply(Act::Relu, x) }
    }
}

impl Way for Coefficients {
    const KEEPS_ZERO: bool = false;

    #[inline(always)]
    fn from(self, c: usize) -> Self {
        Coefficients::from(self, c)
    }

    #[inline(always)]
    unsafe fn enter<V: Vector>(self, x: V, c: usize, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { self.apply(x, c, n) }
    }
}

/// Normalised, with a ReLU that is known where the loop is compiled: to look it up at every pixel takes as long as the window.
#[derive(Clone, Copy)]
struct NormalisedRelu(Coefficients);

impl Way for NormalisedRelu {
    const KEEPS_ZERO: bool = false;

    #[inline(always)]
    fn from(self, c: usize) -> Self {
        NormalisedRelu(self.0.from(c))
    }

    #[inline(always)]
    unsafe fn enter<V: Vector>(self, x: V, c: usize, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { self.0.with(Act::Relu).apply(x, c, n) }
    }
}

/// A row of pixels, `step` floats from one to the next. A row of padding is one pixel of zeros with a step of 0.
#[derive(Clone, Copy)]
pub(super) struct Line {
    at: *const f32,
    step: usize,
}

/// One pixel of padding, as far as a loop looks: two of the widest vectors.
static ZEROS: [f32; 32] = [0.0; 32];

impl Line {
    /// The rows above, at and below row `row` of an image of `height` x `width` pixels.
    pub fn around(x: Src, [height, width]: [usize; 2], image: usize, row: usize) -> [Self; 3] {
        [row.checked_sub(1), Some(row), Some(row + 1)].map(|r| match r.filter(|&r| r < height) {
            Some(r) => Line { at: x.ptr().wrapping_add((image * height + r) * width * x.pitch), step: x.pitch },
            None => Line { at: ZEROS.as_ptr(), step: 0 },
        })
    }

    /// Channels `c..c + n` of pixel `j` on their way in; padding is zero whatever happens to pixels.
    ///
    /// # Safety
    /// The row has the pixel, and `n` floats of it from `c` on; padding has two vectors.
    #[inline(always)]
    unsafe fn read<V: Vector, W: Way>(self, j: usize, c: usize, n: usize, way: W) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let x = V::take(self.at.add(j * self.step + c), n);
            if W::KEEPS_ZERO || self.step > 0 { way.enter(x, c, n) } else { x }
        }
    }

    /// The same row seen from channel `c` on.
    #[inline(always)]
    pub fn from(self, c: usize) -> Self {
        if self.step == 0 { self } else { Line { at: self.at.wrapping_add(c), ..self } }
    }
}

/// Rows `rows` of the output, counted through all images of `size` pixels, `pitch` floats from pixel to pixel; `to` is where the first
/// of them begins. `w` is `[3,3,channels]`, turned by 180 degrees if `turned`.
///
/// # Safety
/// The rows have room at `to` and belong to the caller; `w` has nine taps; `isa` is available on this machine.
#[allow(clippy::too_many_arguments)]
pub(in crate::ops) unsafe fn slide_rows(
    isa: Isa,
    x: Src,
    entry: Entry,
    w: &[f32],
    turned: bool,
    size: [usize; 2],
    rows: Range<usize>,
    to: *mut f32,
    pitch: usize,
    add: bool,
) {
    let [height, width] = size;
    for r in rows.clone() {
        let lines = Line::around(x, size, r / height, r % height);
        // SAFETY: the lines are rows of `x` or padding; the rest is the caller's promise.
        unsafe {
            let to = to.add((r - rows.start) * width * pitch);
            slide_row(isa, lines, entry, w.as_ptr(), turned, to, pitch, width, x.cols, add);
        }
    }
}

/// `M` vectors of channels (the first `n` of each) along a row. `w` is 9 taps, `tap` floats apart, read backwards if `turned`.
///
/// Three running sums: the outputs left of, at and right of the pixel just loaded. A block of channels walks along the row before
/// the next one does, an order that the hardware does not foresee: hence the prefetch of the row that comes next. What is only
/// written needs none: no instruction waits for it.
///
/// # Safety
/// As for [`slide_row`], for `M * V::N` channels, or `n` if `M` is 1.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn slide<V: Vector, W: Way, const M: usize>(
    lines: [Line; 3],
    way: W,
    w: *const f32,
    tap: usize,
    turned: bool,
    y: *mut f32,
    pitch: usize,
    width: usize,
    n: usize,
    add: bool,
) {
    // SAFETY: the caller's promise: `width` pixels of each line and of `y`, 9 taps of `w`, the stated channels of each.
    unsafe {
        let mut k = [[V::zero(); M]; 9];
        for (t, k) in k.iter_mut().enumerate() {
            for (m, k) in k.iter_mut().enumerate() {
                *k = V::take(w.add(if turned { 8 - t } else { t } * tap + m * V::N), n);
            }
        }
        let (mut left, mut here) = ([V::zero(); M], [V::zero(); M]);
        for j in 0..width {
            for m in 0..M {
                let (a, b) = (lines[0].read::<V, W>(j, m * V::N, n, way), lines[1].read::<V, W>(j, m * V::N, n, way));
                let c = lines[2].read::<V, W>(j, m * V::N, n, way);
                left[m] = c.fma(k[8][m], b.fma(k[5][m], a.fma(k[2][m], left[m])));
                here[m] = c.fma(k[7][m], b.fma(k[4][m], a.fma(k[1][m], here[m])));
                let right = c.fma(k[6][m], b.fma(k[3][m], a.mul(k[0][m])));
                prefetch(lines[2].at.wrapping_add((j + width) * lines[2].step + m * V::N));
                if add {
                    prefetch(y.wrapping_add((j + width) * pitch + m * V::N));
                }
                if j > 0 {
                    left[m].put(y.add((j - 1) * pitch + m * V::N), n, add);
                }
                (left[m], here[m]) = (here[m], right);
            }
        }
        for (m, left) in left.into_iter().enumerate() {
            left.put(y.add((width - 1) * pitch + m * V::N), n, add);
        }
    }
}

/// A row, as many channels at a time as fit the registers.
///
/// # Safety
/// As for [`slide_row`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn slide_channels<V: Vector, W: Way>(
    lines: [Line; 3],
    way: W,
    w: *const f32,
    turned: bool,
    y: *mut f32,
    pitch: usize,
    width: usize,
    cols: usize,
    add: bool,
) {
    let mut c = 0;
    // SAFETY: the caller's promise; channels `c` on exist as far as each call goes.
    unsafe {
        while c + 2 * V::N <= cols {
            slide::<V, W, 2>(lines.map(|l| l.from(c)), way.from(c), w.add(c), cols, turned, y.add(c), pitch, width, V::N, add);
            c += 2 * V::N;
        }
        while c + V::N <= cols {
            slide::<V, W, 1>(lines.map(|l| l.from(c)), way.from(c), w.add(c), cols, turned, y.add(c), pitch, width, V::N, add);
            c += V::N;
        }
        if c < cols {
            slide::<V, W, 1>(lines.map(|l| l.from(c)), way.from(c), w.add(c), cols, turned, y.add(c), pitch, width, cols - c, add);
        }
    }
}

/// The part of a row in a kernel gradient, as [`slide_dw`] has it.
///
/// # Safety
/// As for [`slide_dw`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn slide_taps<V: Vector, W: Way>(
    lines: [Line; 3],
    way: W,
    dy: *const f32,
    pitch: usize,
    width: usize,
    sums: *mut f32,
    tap: usize,
    cols: usize,
) {
    for c in (0..cols).step_by(V::N) {
        // SAFETY: the caller's promise: `width` pixels of each line and of `dy`, 9 taps of `sums`, `cols` channels of each.
        unsafe {
            let n = V::N.min(cols - c);
            let (lines, way) = (lines.map(|l| l.from(c)), way.from(c));
            let mut sum = [V::zero(); 9];
            let (mut before, mut here) = (V::zero(), V::take(dy.add(c), n));
            for j in 0..width {
                let after = if j + 1 < width { V::take(dy.add((j + 1) * pitch + c), n) } else { V::zero() };
                window::prefetch(lines[2].at.wrapping_add((j + width) * lines[2].step));
                window::prefetch(dy.wrapping_add((j + width) * pitch + c));
                for p in 0..3 {
                    let x = lines[p].read::<V, W>(j, 0, n, way);
                    sum[3 * p] = x.fma(after, sum[3 * p]);
                    sum[3 * p + 1] = x.fma(here, sum[3 * p + 1]);
                    sum[3 * p + 2] = x.fma(before, sum[3 * p + 2]);
                }
                (before, here) = (here, after);
            }
            for (t, sum) in sum.into_iter().enumerate() {
                sum.put(sums.add(t * tap + c), n, true);
            }
        }
    }
}

simd! {
    /// One row of a 3x3 window: `y[j] (+)= sum of w[p,q] lines[p][j + q - 1]` for `width` pixels of `cols` channels. `w` is
    /// `[3,3,cols]`, turned by 180 degrees if `turned`.
    unsafe fn slide_row<V>(
        lines: [Line; 3], entry: Entry, w: *const f32, turned: bool, y: *mut f32, pitch: usize, width: usize, cols: usize, add: bool,
    ) {
        match entry {
            Entry::Plain => slide_channels::<V, Plain>(lines, Plain, w, turned, y, pitch, width, cols, add),
            Entry::Relu => slide_channels::<V, Rectified>(lines, Rectified, w, turned, y, pitch, width, cols, add),
            Entry::Normalised(pre) => match (pre.from(0), pre.act()) {
                (pre, Act::Relu) => slide_channels::<V, _>(lines, NormalisedRelu(pre), w, turned, y, pitch, width, cols, add),
                (pre, _) => slide_channels::<V, _>(lines, pre, w, turned, y, pitch, width, cols, add),
            },
        }
    }

    /// One row of a kernel gradient of 3x3: `sums[p,q] += sum over j of lines[p][j + q - 1] dy[j]`, for `width` pixels of
    /// `cols` channels; `tap` floats lie between the taps of `sums`. Each row is summed for itself first.
    pub(super) unsafe fn slide_dw<V>(
        lines: [Line; 3], pre: Option<Coefficients>, dy: *const f32, pitch: usize, width: usize, sums: *mut f32, tap: usize, cols: usize,
    ) {
        match pre {
            None => slide_taps::<V, Plain>(lines, Plain, dy, pitch, width, sums, tap, cols),
            Some(pre) => slide_taps::<V, Coefficients>(lines, pre, dy, pitch, width, sums, tap, cols),
        }
    }
}
