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

/// In which order a walk over rows of results takes them: a few vectors of channels go through some rows before the next ones do.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Walk {
    /// Rows of a run.
    rows: usize,
    /// Rows from the one that is read to the one that is asked for.
    ahead: usize,
}

impl Walk {
    /// Of pixels that come from memory: those of the next run are asked for.
    pub const FROM_MEMORY: Self = Walk { rows: 2, ahead: 2 };
    /// Of rows that lie in the second-level cache, which serves each pixel to the first once, not once for each row of the window.
    pub const IN_CACHE: Self = Walk { rows: usize::MAX, ahead: 0 };
}

/// Where a walk reads and writes.
#[derive(Clone, Copy)]
struct Field<'a> {
    x: Src<'a>,
    /// Height and width of an image.
    size: [usize; 2],
    /// The first row of the results, and the floats from pixel to pixel.
    y: *mut f32,
    pitch: usize,
    add: bool,
    ahead: usize,
}

/// Rows `rows` of the output, counted through all images of `size` pixels, `pitch` floats from pixel to pixel; `to` is where the first
/// of them begins. `w` is `[3,3,channels]`, turned by 180 degrees if `turned`.
///
/// # Safety
/// The rows are rows of the images in `x`, have room at `to` and belong to the caller; `w` has nine taps; `isa` is available on this machine.
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
    walk: Walk,
) {
    for start in rows.clone().step_by(walk.rows) {
        let run = start..rows.end.min(start.saturating_add(walk.rows));
        let y = to.wrapping_add((start - rows.start) * size[1] * pitch);
        // SAFETY: these rows are some of the caller's.
        unsafe { slide_run(isa, Field { x, size, y, pitch, add, ahead: walk.ahead }, entry, w.as_ptr(), turned, run) };
    }
}

/// `M` vectors of channels from `c` on (the first `n` of each) along some rows. `w` is 9 taps of all channels, read backwards if `turned`.
///
/// Three running sums: the outputs left of, at and right of the pixel just loaded. A block of channels walks along rows before
/// the next one does, an order that the hardware does not foresee: hence the prefetch of rows that come later. What is only
/// written needs none: no instruction waits for it.
///
/// # Safety
/// As for [`slide_run`], for `M * V::N` channels, or `n` if `M` is 1.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn slide<V: Vector, W: Way, const M: usize>(
    field: Field,
    way: W,
    w: *const f32,
    turned: bool,
    rows: Range<usize>,
    c: usize,
    n: usize,
) {
    let (Field { x, size, pitch, add, ahead, .. }, tap, way) = (field, field.x.cols, way.from(c));
    let [height, width] = size;
    // SAFETY: the caller's promise: the rows of `x` and of `y`, 9 taps of `w`, the stated channels of each.
    unsafe {
        let mut k = [[V::zero(); M]; 9];
        for (t, k) in k.iter_mut().enumerate() {
            for (m, k) in k.iter_mut().enumerate() {
                *k = V::take(w.add(if turned { 8 - t } else { t } * tap + c + m * V::N), n);
            }
        }
        for r in rows.clone() {
            let lines = Line::around(x, size, r / height, r % height).map(|l| l.from(c));
            let y = field.y.add((r - rows.start) * width * pitch + c);
            let (mut left, mut here) = ([V::zero(); M], [V::zero(); M]);
            for j in 0..width {
                for m in 0..M {
                    let (above, at) = (lines[0].read::<V, W>(j, m * V::N, n, way), lines[1].read::<V, W>(j, m * V::N, n, way));
                    let below = lines[2].read::<V, W>(j, m * V::N, n, way);
                    left[m] = below.fma(k[8][m], at.fma(k[5][m], above.fma(k[2][m], left[m])));
                    here[m] = below.fma(k[7][m], at.fma(k[4][m], above.fma(k[1][m], here[m])));
                    let right = below.fma(k[6][m], at.fma(k[3][m], above.mul(k[0][m])));
                    prefetch(lines[1].at.wrapping_add((j + (1 + ahead) * width) * x.pitch + m * V::N));
                    if add {
                        prefetch(y.wrapping_add((j + ahead * width) * pitch + m * V::N));
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
}

/// Some rows, as many channels at a time as fit the registers.
///
/// # Safety
/// As for [`slide_run`].
#[inline(always)]
unsafe fn slide_channels<V: Vector, W: Way>(field: Field, way: W, w: *const f32, turned: bool, rows: Range<usize>) {
    let (mut c, cols) = (0, field.x.cols);
    // SAFETY: the caller's promise; channels `c` on exist as far as each call goes.
    unsafe {
        while c + 2 * V::N <= cols {
            slide::<V, W, 2>(field, way, w, turned, rows.clone(), c, V::N);
            c += 2 * V::N;
        }
        while c < cols {
            slide::<V, W, 1>(field, way, w, turned, rows.clone(), c, V::N.min(cols - c));
            c += V::N;
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
    /// Rows of a 3x3 window: `y[i,j] (+)= sum of w[p,q] x[i + p - 1, j + q - 1]`. `w` is `[3,3,channels]`, turned by 180 degrees if `turned`.
    unsafe fn slide_run<V>(field: Field, entry: Entry, w: *const f32, turned: bool, rows: Range<usize>) {
        match entry {
            Entry::Plain => slide_channels::<V, Plain>(field, Plain, w, turned, rows),
            Entry::Relu => slide_channels::<V, Rectified>(field, Rectified, w, turned, rows),
            Entry::Normalised(pre) => match (pre.from(0), pre.act()) {
                (pre, Act::Relu) => slide_channels::<V, _>(field, NormalisedRelu(pre), w, turned, rows),
                (pre, _) => slide_channels::<V, _>(field, pre, w, turned, rows),
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
