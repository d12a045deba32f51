//! One pass over the input. Each block of rows sums `d = x - pivot` and `d^2` in f32, where the pivot is the block's own
//! first row: however large the mean, `d` is exact or nearly so, and `M2 = sum(d^2) - sum(d)^2 / n` cancels by at most
//! the block's 64 rows. Blocks and parts are merged in f64 by Chan, Golub and LeVeque (1979):
//! `mean += delta n_b / n`, `M2 += M2_b + delta^2 n_a n_b / n`, with `delta = mean_b - mean`.

use super::{ChannelStats, ChannelStatsDx};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cpu::columns::{Parts, Slots, Stream, Terms, add_rows, rows_per_share};
use crate::device::cpu::simd::Vector;
use crate::device::cpu::view::put;
use crate::device::cpu::{Cpu, Src};
use crate::ops::Run;
use crate::simd;

/// The terms of the sums: d and d^2.
#[derive(Clone, Copy)]
struct Shifted {
    x: Stream,
    pivot: *const f32,
}

impl Terms<2> for Shifted {
    #[inline(always)]
    unsafe fn add<V: Vector>(self, r: usize, c: usize, n: usize, [s1, s2]: [V; 2]) -> [V; 2] {
        // SAFETY: the caller's promise; the pivot is a row of `x`.
        unsafe {
            let d = self.x.take::<V>(r, c, n).sub(V::take(self.pivot.add(c), n));
            [s1.add(d), d.fma(d, s2)]
        }
    }
}

simd! {
    /// s1[c] += sum d, s2[c] += sum d^2 over `rows` x `cols` of x, with d = x - x[first row].
    unsafe fn shifted_sums<V>(x: *const f32, pitch: usize, rows: usize, cols: usize, s1: *mut f32, s2: *mut f32) {
        add_rows::<V, 2>(Shifted { x: Stream::new((x, pitch), cols), pivot: x }, rows, cols, [s1, s2]);
    }

    /// Merges a block of `n` rows, given its pivot and sums, into the `before` rows that `mean` and `m2` describe.
    unsafe fn merge_block<V>(n: usize, pivot: &[f32], s1: &[f32], s2: &[f32], before: usize, mean: &mut [f64], m2: &mut [f64]) {
        let (per_row, weight) = (1.0 / n as f64, Weight::of(before, n));
        for c in 0..pivot.len() {
            let (s1, s2) = (f64::from(s1[c]), f64::from(s2[c]));
            let block = (f64::from(pivot[c]) + s1 * per_row, (s2 - s1 * s1 * per_row).max(0.0));
            (mean[c], m2[c]) = weight.merge((mean[c], m2[c]), block);
        }
    }

    /// dx (+)= (x - mean) dvar (2/N) + dmean (1/N) over `rows` x `cols`; `dx` may be `x`.
    unsafe fn stats_dx<V>(x: (*const f32, usize), vectors: [*const f32; 3], dx: (*mut f32, usize), rows: usize, cols: usize, one: f32, add: bool) {
        let ([mean, dmean, dvar], one, two) = (vectors, V::splat(one), V::splat(2.0 * one));
        for r in 0..rows {
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                let centred = V::take(x.0.add(r * x.1 + c), n).sub(V::take(mean.add(c), n));
                let (dvar, dmean) = (V::take(dvar.add(c), n), V::take(dmean.add(c), n));
                centred.fma(dvar.mul(two), dmean.mul(one)).put(dx.0.add(r * dx.1 + c), n, add);
            }
        }
    }
}

/// The factors by which a second group of rows enters the mean and M2 of a first.
struct Weight {
    mean: f64,
    m2: f64,
}

impl Weight {
    fn of(first: usize, second: usize) -> Self {
        let (first, second) = (first as f64, second as f64);
        Weight { mean: second / (first + second), m2: first * second / (first + second) }
    }

    #[inline(always)]
    fn merge(&self, first: (f64, f64), second: (f64, f64)) -> (f64, f64) {
        let delta = second.0 - first.0;
        (first.0 + delta * self.mean, first.1 + second.1 + delta * delta * self.m2)
    }
}

/// Mean and M2 of one part's rows, left in the part's slot.
fn part_stats(cpu: &Cpu, x: &Src, parts: &Parts, part: usize, slots: &Slots) {
    // SAFETY: this thread alone works on the part.
    let (stats, sums) = unsafe { slots.part(part) };
    let ((mean, m2), mut before) = (stats.split_at_mut(x.cols), 0);
    mean.fill(0.0);
    m2.fill(0.0);
    for rows in parts.blocks(part) {
        sums.fill(0.0);
        let (s1, s2) = sums.split_at_mut(x.cols);
        let pivot = x.row(rows.start);
        // SAFETY: the block's rows lie in `x`; all vectors have `cols` elements.
        unsafe {
            shifted_sums(cpu.isa, pivot.as_ptr(), x.pitch, rows.len(), x.cols, s1.as_mut_ptr(), s2.as_mut_ptr());
            merge_block(cpu.isa, rows.len(), pivot, s1, s2, before, mean, m2);
        }
        before += rows.len();
    }
}

impl Run<Cpu> for ChannelStats {
    fn scratch(&self, _: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let (rows, cols) = (ins[0].shape.rows(), ins[0].shape.cols());
        Slots::bytes(rows, 2 * cols, 2 * cols)
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, mean, var) = (call.device, call.src(0), call.dst(0), call.dst(1));
        let (parts, slots) = (Parts::of(x.rows), Slots::new(call.scratch(), x.rows, 2 * x.cols, 2 * x.cols));
        cpu.pool.parts(parts.count(), |part, _| part_stats(cpu, &x, &parts, part, &slots));
        // SAFETY: the loop is over: this thread alone holds the parts and the results, and each part's memory is its own.
        unsafe {
            let (total, _) = slots.part(0);
            let ((total_mean, total_m2), mut before) = (total.split_at_mut(x.cols), parts.rows(0).len());
            for part in 1..parts.count() {
                let (stats, rows) = (slots.part(part).0, parts.rows(part).len());
                let weight = Weight::of(before, rows);
                for c in 0..x.cols {
                    (total_mean[c], total_m2[c]) = weight.merge((total_mean[c], total_m2[c]), (stats[c], stats[x.cols + c]));
                }
                before += rows;
            }
            for c in 0..x.cols {
                put(mean.ptr().add(c), total_mean[c] as f32, mean.adds());
                put(var.ptr().add(c), (total_m2[c] / x.rows as f64) as f32, var.adds());
            }
        }
    }
}

impl Run<Cpu> for ChannelStatsDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, dx) = (call.device, call.src(0), call.dst(0));
        let vectors = [1, 2, 3].map(|i| call.src(i));
        cpu.pool.ranges(dx.rows, rows_per_share(dx.cols), |rows| {
            // SAFETY: these rows of both matrices belong to this thread, the vectors have `cols` elements; an element is
            // read before it is written, so `dx` may be `x`.
            unsafe {
                let from = (x.ptr().add(rows.start * x.pitch), x.pitch);
                let to = (dx.ptr().add(rows.start * dx.pitch), dx.pitch);
                let one = (1.0 / dx.rows as f64) as f32;
                stats_dx(cpu.isa, from, vectors.map(|v| v.ptr()), to, rows.len(), dx.cols, one, dx.adds());
            }
        });
    }
}
