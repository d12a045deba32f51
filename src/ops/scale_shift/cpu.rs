//! Every loop walks rows outside and channels inside, with the per-channel vectors in the first-level cache: the time is
//! that of the memory. All three compute z by [`Coefficients::z`].

use super::{ScaleShift, ScaleShiftDx, ScaleShiftSums};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cpu::columns::{Stream, Terms, add_rows, row_sums, row_sums_scratch, rows_per_share};
use crate::device::cpu::simd::Vector;
use crate::device::cpu::{Cpu, Src};
use crate::ops::Run;
use crate::ops::activation::Act;
use crate::ops::activation::cpu::apply;
use crate::simd;

/// A matrix in a loop: its first element and its pitch.
type Rows = (*const f32, usize);

/// What an op with the field `pre` does to its input on the way in, as a call has it: the forward op.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Prologue<'a> {
    scale: Src<'a>,
    shift: Src<'a>,
    act: Act,
}

impl<'a> Prologue<'a> {
    /// From inputs `at` and `at + 1` of a call, if there is an activation.
    pub fn of(call: &Call<'a, Cpu>, pre: Option<Act>, at: usize) -> Option<Self> {
        pre.map(|act| Prologue { scale: call.src(at), shift: call.src(at + 1), act })
    }

    /// The activation, for loops that are compiled for one.
    pub fn act(&self) -> Act {
        self.act
    }

    /// From channel `c` on.
    pub fn from(&self, c: usize) -> Coefficients {
        Coefficients { scale: self.scale.ptr().wrapping_add(c), shift: self.shift.ptr().wrapping_add(c), act: self.act }
    }
}

/// The vectors of the forward op, `C` floats each, and its activation.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Coefficients {
    scale: *const f32,
    shift: *const f32,
    act: Act,
}

impl Coefficients {
    pub fn new(scale: Src, shift: Src, act: Act) -> Self {
        Coefficients { scale: scale.ptr(), shift: shift.ptr(), act }
    }

    /// The activation, for loops that are compiled for one.
    #[inline(always)]
    pub fn act(&self) -> Act {
        self.act
    }

    /// The same with another activation.
    #[inline(always)]
    pub fn with(self, act: Act) -> Self {
        Coefficients { act, ..self }
    }

    /// The same from channel `c` on.
    #[inline(always)]
    pub fn from(self, c: usize) -> Self {
        Coefficients { scale: self.scale.wrapping_add(c), shift: self.shift.wrapping_add(c), ..self }
    }

    /// act(x scale + shift) of the `n` channels from `c`.
    ///
    /// # Safety
    /// The vectors have `c + n` floats.
    #[inline(always)]
    pub unsafe fn apply<V: Vector>(&self, x: V, c: usize, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { apply(self.act, self.z(x, c, n)) }
    }

    /// z = x scale + shift of the `n` channels from `c`.
    #[inline(always)]
    unsafe fn z<V: Vector>(&self, x: V, c: usize, n: usize) -> V {
        // SAFETY: the caller's loop stays within the channels.
        unsafe { x.fma(V::take(self.scale.add(c), n), V::take(self.shift.add(c), n)) }
    }

    /// dz = dy act'(z).
    #[inline(always)]
    unsafe fn dz<V: Vector>(&self, dy: V, x: V, c: usize, n: usize) -> V {
        // SAFETY: as for `z`.
        unsafe {
            match self.act {
                Act::Linear => dy,
                Act::Relu => dy.where_positive(self.z(x, c, n)),
                Act::Sigmoid => {
                    let y = apply(self.act, self.z(x, c, n));
                    dy.mul(y).mul(V::splat(1.0).sub(y))
                }
            }
        }
    }
}

/// The vectors of the fused gradient of the statistics, `C` floats each, and 1/N.
#[derive(Clone, Copy)]
struct Stats {
    mean: *const f32,
    dmean: *const f32,
    dvar: *const f32,
    one: f32,
}

/// The terms of dscale and dshift: dz x and dz.
#[derive(Clone, Copy)]
struct Products {
    dy: Stream,
    x: Stream,
    k: Coefficients,
}

impl Terms<2> for Products {
    #[inline(always)]
    unsafe fn add<V: Vector>(self, r: usize, c: usize, n: usize, [dscale, dshift]: [V; 2]) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let x = self.x.take::<V>(r, c, n);
            let dz = self.k.dz(self.dy.take(r, c, n), x, c, n);
            [dz.fma(x, dscale), dshift.add(dz)]
        }
    }
}

/// [`backward_and_sums`] for `M` vectors of columns from `c` on, the first `n` of each.
///
/// # Safety
/// As for [`backward_and_sums`], for `M * V::N` columns, or `n` if `M` is 1.
#[inline(always)]
unsafe fn columns_back<V: Vector, const M: usize>(
    (dy, x): (Rows, Rows),
    k: Coefficients,
    dx: (*mut f32, usize),
    [dscale, dshift]: [*mut f32; 2],
    rows: usize,
    (c, n): (usize, usize),
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = |m: usize| c + m * V::N;
        let mut sums = [[V::zero(); 2]; M];
        for (m, sums) in sums.iter_mut().enumerate() {
            *sums = [V::take(dscale.add(at(m)), n), V::take(dshift.add(at(m)), n)];
        }
        for r in 0..rows {
            for (m, [dscale, dshift]) in sums.iter_mut().enumerate() {
                let x = V::take(x.0.add(r * x.1 + at(m)), n);
                let dz = k.dz(V::take(dy.0.add(r * dy.1 + at(m)), n), x, at(m), n);
                [*dscale, *dshift] = [dz.fma(x, *dscale), dshift.add(dz)];
                dz.mul(V::take(k.scale.add(at(m)), n)).put(dx.0.add(r * dx.1 + at(m)), n, add);
            }
        }
        for (m, [of_scale, of_shift]) in sums.into_iter().enumerate() {
            of_scale.put(dscale.add(at(m)), n, false);
            of_shift.put(dshift.add(at(m)), n, false);
        }
    }
}

simd! {
    /// y (+)= act(x scale + shift) over `rows` x `cols`; `y` may be `x`.
    pub(in crate::ops) unsafe fn forward<V>(x: Rows, k: Coefficients, y: (*mut f32, usize), rows: usize, cols: usize, add: bool) {
        let x = Stream::new(x, cols);
        for r in 0..rows {
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                k.apply(x.take::<V>(r, c, n), c, n).put(y.0.add(r * y.1 + c), n, add);
            }
        }
    }

    /// dscale[c] += sum of dz x, dshift[c] += sum of dz over `rows` x `cols`.
    pub(in crate::ops) unsafe fn sums<V>(dy: Rows, x: Rows, k: Coefficients, dscale: *mut f32, dshift: *mut f32, rows: usize, cols: usize) {
        add_rows::<V, 2>(Products { dy: Stream::new(dy, cols), x: Stream::new(x, cols), k }, rows, cols, [dscale, dshift]);
    }

    /// dx (+)= dz scale over `rows` x `cols`; `dx` may be `dy`.
    pub(in crate::ops) unsafe fn backward<V>(dy: Rows, x: Rows, k: Coefficients, dx: (*mut f32, usize), rows: usize, cols: usize, add: bool) {
        for r in 0..rows {
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let dy = V::take(dy.0.add(r * dy.1 + c), n);
                // A linear one needs no x: it is not read.
                let dz = if k.act == Act::Linear { dy } else { k.dz(dy, V::take(x.0.add(r * x.1 + c), n), c, n) };
                dz.mul(V::take(k.scale.add(c), n)).put(dx.0.add(r * dx.1 + c), n, add);
            }
        }
    }

    /// [`sums`] and [`backward`] at once, to the same bits: for what lies in a cache.
    pub(in crate::ops) unsafe fn backward_and_sums<V>(
        dy: Rows,
        x: Rows,
        k: Coefficients,
        dx: (*mut f32, usize),
        sums: [*mut f32; 2],
        rows: usize,
        cols: usize,
        add: bool,
    ) {
        let mut c = 0;
        while c + 2 * V::N <= cols {
            match k.act {
                Act::Relu => columns_back::<V, 2>((dy, x), k.with(Act::Relu), dx, sums, rows, (c, V::N), add),
                _ => columns_back::<V, 2>((dy, x), k, dx, sums, rows, (c, V::N), add),
            }
            c += 2 * V::N;
        }
        while c < cols {
            columns_back::<V, 1>((dy, x), k, dx, sums, rows, (c, V::N.min(cols - c)), add);
            c += V::N;
        }
    }

    /// dx (+)= dz scale + (x - mean) dvar (2/N) + dmean (1/N) over `rows` x `cols`; `dx` may be `dy`.
    unsafe fn backward_stats<V>(dy: Rows, x: Rows, k: Coefficients, s: Stats, dx: (*mut f32, usize), rows: usize, cols: usize, add: bool) {
        let (one, two) = (V::splat(s.one), V::splat(2.0 * s.one));
        for r in 0..rows {
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let x = V::take(x.0.add(r * x.1 + c), n);
                let dz = k.dz(V::take(dy.0.add(r * dy.1 + c), n), x, c, n);
                let spread = V::take(s.dvar.add(c), n).mul(two);
                let stats = x.sub(V::take(s.mean.add(c), n)).fma(spread, V::take(s.dmean.add(c), n).mul(one));
                dz.fma(V::take(k.scale.add(c), n), stats).put(dx.0.add(r * dx.1 + c), n, add);
            }
        }
    }
}

impl Run<Cpu> for ScaleShift {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, y) = (call.device, call.src(0), call.dst(0));
        let (scale, shift) = (call.src(1), call.src(2));
        cpu.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            let k = Coefficients::new(scale, shift, self.act);
            // SAFETY: these rows belong to this thread, the vectors have `cols` elements; an element is read before it is
            // written, so `y` may be `x`.
            unsafe {
                let from = (x.ptr().add(rows.start * x.pitch), x.pitch);
                let to = (y.ptr().add(rows.start * y.pitch), y.pitch);
                forward(cpu.isa, from, k, to, rows.len(), y.cols, y.adds());
            }
        });
    }
}

impl Run<Cpu> for ScaleShiftSums {
    fn scratch(&self, _: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        row_sums_scratch(ins[0].shape.rows(), ins[0].shape.cols(), 2, 0)
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, [dy, x, scale, shift]) = (call.device, [0, 1, 2, 3].map(|i| call.src(i)));
        row_sums(cpu, x.rows, call.scratch(), [call.dst(0), call.dst(1)], |rows, totals| {
            let k = Coefficients::new(scale, shift, self.act);
            let (dscale, dshift) = totals.split_at_mut(x.cols);
            // SAFETY: the rows lie in both matrices; all vectors have `cols` elements.
            unsafe {
                let (of, from) = (dy.ptr().add(rows.start * dy.pitch), x.ptr().add(rows.start * x.pitch));
                let (dscale, dshift) = (dscale.as_mut_ptr(), dshift.as_mut_ptr());
                sums(cpu.isa, (of, dy.pitch), (from, x.pitch), k, dscale, dshift, rows.len(), x.cols);
            }
        });
    }
}

impl Run<Cpu> for ScaleShiftDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, [dy, x, scale, shift], dx) = (call.device, [0, 1, 2, 3].map(|i| call.src(i)), call.dst(0));
        let stats = self.stats.then(|| [4, 5, 6].map(|i| call.src(i)));
        cpu.pool.ranges(dx.rows, rows_per_share(dx.cols), |rows| {
            let k = Coefficients::new(scale, shift, self.act);
            // SAFETY: these rows belong to this thread, the vectors have `cols` elements; an element is read before it is
            // written, so `dx` may be `dy`.
            unsafe {
                let (of, from) = (dy.ptr().add(rows.start * dy.pitch), x.ptr().add(rows.start * x.pitch));
                let (of, from, to) = ((of, dy.pitch), (from, x.pitch), (dx.ptr().add(rows.start * dx.pitch), dx.pitch));
                match stats {
                    None => backward(cpu.isa, of, from, k, to, rows.len(), dx.cols, dx.adds()),
                    Some(stats) => {
                        let [mean, dmean, dvar] = stats.map(|s| s.ptr());
                        let stats = Stats { mean, dmean, dvar, one: (1.0 / dx.rows as f64) as f32 };
                        backward_stats(cpu.isa, of, from, k, stats, to, rows.len(), dx.cols, dx.adds())
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Isa;

    #[test]
    fn one_pass_has_the_bits_of_two() {
        for (rows, cols) in [(1, 1), (5, 16), (13, 70), (49, 32)] {
            let values = |seed: usize, count: usize| (0..count).map(|i| ((i * 37 + seed) % 101) as f32 / 17.0 - 3.0).collect::<Vec<_>>();
            let [dy, x, before] = [1, 2, 3].map(|seed| values(seed, rows * cols));
            let [scale, shift] = [4, 5].map(|seed| values(seed, cols));
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                for (act, add) in [Act::Linear, Act::Relu, Act::Sigmoid].into_iter().flat_map(|act| [(act, false), (act, true)]) {
                    let k = Coefficients { scale: scale.as_ptr(), shift: shift.as_ptr(), act };
                    let run = |together: bool| {
                        let (mut dx, mut dscale, mut dshift) = (before.clone(), vec![0.25; cols], vec![0.5; cols]);
                        let (of, from, to) = ((dy.as_ptr(), cols), (x.as_ptr(), cols), (dx.as_mut_ptr(), cols));
                        // SAFETY: matrices of `rows` x `cols` floats, vectors of `cols`.
                        unsafe {
                            if together {
                                let totals = [dscale.as_mut_ptr(), dshift.as_mut_ptr()];
                                backward_and_sums(isa, of, from, k, to, totals, rows, cols, add);
                            } else {
                                sums(isa, of, from, k, dscale.as_mut_ptr(), dshift.as_mut_ptr(), rows, cols);
                                backward(isa, of, from, k, to, rows, cols, add);
                            }
                        }
                        [dx, dscale, dshift].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    };
                    assert_eq!(run(true), run(false), "{isa} {rows}x{cols}, {act:?}, added: {add}");
                }
            }
        }
    }
}
