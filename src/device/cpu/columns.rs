//! Sums over the rows of a pixel matrix, one per column: bias gradients, batch norm's sums and statistics.
//!
//! The rows are cut into at most [`PARTS`] parts whatever the number of threads, each part into blocks of at most
//! [`BLOCK`] rows. Within a block a reduction works in f32, across blocks and parts in f64 and in a fixed order. So its
//! error grows with the block and not with the matrix, and its bits do not depend on the threads.

use super::simd::{Vector, prefetch};
use super::tile::{even_runs, share};
use super::view::put;
use super::{Cpu, Dst};
use crate::simd;
use std::ops::Range;

/// The most parts a matrix is cut into: as many threads can share the work.
pub const PARTS: usize = 16;
/// The most rows that are summed in f32.
pub const BLOCK: usize = 64;

/// Floats per thread below which an element-wise loop is not worth sharing out.
pub const GRAIN: usize = 4096;

/// Rows handed to a thread at a time by an element-wise loop, so that a share has some [`GRAIN`] floats.
pub fn rows_per_share(cols: usize) -> usize {
    GRAIN.div_ceil(cols.max(1))
}

/// Floats between what a loop reads and what it asks memory for: about what arrives in the time that memory takes to answer.
const AHEAD: usize = 1024;
/// Rows that are added up at a time: sums are loaded and stored once for that many.
const TOGETHER: usize = 4;
/// Vectors of columns of as many rows: enough reads at a time to keep memory busy, in registers.
const STRIP: usize = 4;

/// A matrix that a loop reads once, some rows at a time and within them strip by strip: an order which the hardware does not
/// foresee. So every read asks for what will be read [`AHEAD`] floats later.
#[derive(Clone, Copy)]
pub struct Stream {
    at: *const f32,
    pitch: usize,
    ahead: usize,
}

impl Stream {
    /// From the first element on; only the first `cols` of each `pitch` floats are read. If those are all, what comes next in
    /// memory comes next in the loop; otherwise it is as many whole rows further down.
    #[inline(always)]
    pub fn new((at, pitch): (*const f32, usize), cols: usize) -> Self {
        let rows = AHEAD.div_ceil(cols.max(1)).next_multiple_of(TOGETHER);
        Stream { at, pitch, ahead: if cols == pitch { AHEAD } else { rows * pitch } }
    }

    /// Columns `c..c + n` of row `r`.
    ///
    /// # Safety
    /// The matrix has them.
    #[inline(always)]
    pub unsafe fn take<V: Vector>(self, r: usize, c: usize, n: usize) -> V {
        let at = self.at.wrapping_add(r * self.pitch + c);
        prefetch(at.wrapping_add(self.ahead));
        // SAFETY: the caller's promise.
        unsafe { V::take(at, n) }
    }
}

/// What is added up over rows: `K` terms for each element.
pub trait Terms<const K: usize>: Copy {
    /// `sums` with the terms of columns `c..c + n` of row `r` added to them.
    ///
    /// # Safety
    /// The matrices that the terms are made of have the row and the columns; the instruction set of `V` must be there.
    unsafe fn add<V: Vector>(self, r: usize, c: usize, n: usize, sums: [V; K]) -> [V; K];
}

/// sums[k][c] += sum of term k over `rows` rows, for `cols` columns, row by row in order.
///
/// # Safety
/// As for [`Terms::add`]; each of `sums` has `cols` floats.
#[inline(always)]
pub unsafe fn add_rows<V: Vector, const K: usize>(terms: impl Terms<K>, rows: usize, cols: usize, sums: [*mut f32; K]) {
    for r in (0..rows).step_by(TOGETHER) {
        let (some, mut c) = (r..(r + TOGETHER).min(rows), 0);
        // SAFETY: the caller's promise; rows and columns stay below `rows` and `cols`.
        unsafe {
            while c + STRIP * V::N <= cols {
                add_strip::<V, K, STRIP>(terms, some.clone(), c, V::N, sums);
                c += STRIP * V::N;
            }
            while c < cols {
                add_strip::<V, K, 1>(terms, some.clone(), c, V::N.min(cols - c), sums);
                c += V::N;
            }
        }
    }
}

/// `M` vectors of columns from `c` on (the first `n` of each) of [`add_rows`].
///
/// # Safety
/// As for [`add_rows`], for `M * V::N` columns, or `n` if `M` is 1.
#[inline(always)]
unsafe fn add_strip<V: Vector, const K: usize, const M: usize>(
    terms: impl Terms<K>,
    rows: Range<usize>,
    c: usize,
    n: usize,
    sums: [*mut f32; K],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut total = [[V::zero(); K]; M];
        for (m, total) in total.iter_mut().enumerate() {
            for (total, sums) in total.iter_mut().zip(sums) {
                *total = V::take(sums.add(c + m * V::N), n);
            }
        }
        for r in rows {
            for (m, total) in total.iter_mut().enumerate() {
                *total = terms.add(r, c + m * V::N, n, *total);
            }
        }
        for (m, total) in total.into_iter().enumerate() {
            for (total, sums) in total.into_iter().zip(sums) {
                total.put(sums.add(c + m * V::N), n, false);
            }
        }
    }
}

/// Rows that are worth a part.
const LEAST: usize = BLOCK / 2;

/// The fixed cut of `rows` rows, as even as it can be: threads take parts one after the other, and the last to end is waited for.
#[derive(Clone, Copy)]
pub struct Parts {
    rows: usize,
    count: usize,
}

impl Parts {
    /// At most [`PARTS`] parts.
    pub fn of(rows: usize) -> Self {
        Parts { rows, count: rows.div_ceil(LEAST).min(PARTS) }
    }

    /// Number of parts.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The rows of a part.
    pub fn rows(&self, part: usize) -> Range<usize> {
        share(self.rows, self.count, part)
    }

    /// The blocks of a part, in order.
    pub fn blocks(&self, part: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.rows(part);
        even_runs(rows.len(), BLOCK).map(move |run| rows.start + run.start..rows.start + run.end)
    }
}

/// The working memory of a reduction: for every part `doubles` values of f64 and `floats` of f32, cut out of a call's
/// scratch memory.
#[derive(Clone, Copy)]
pub struct Slots<'a> {
    scratch: Dst<'a>,
    doubles: usize,
    floats: usize,
}

impl<'a> Slots<'a> {
    /// Bytes of scratch memory to ask for.
    pub fn bytes(rows: usize, doubles: usize, floats: usize) -> usize {
        4 * (1 + Parts::of(rows).count() * Self::stride(doubles, floats))
    }

    /// Takes hold of the scratch memory of a call that asked for [`Slots::bytes`].
    pub fn new(scratch: Dst<'a>, rows: usize, doubles: usize, floats: usize) -> Self {
        assert!(4 * scratch.cols >= Self::bytes(rows, doubles, floats), "the plan gave too little working memory");
        Slots { scratch, doubles, floats }
    }

    /// Floats from one part to the next, even so that every part's f64s are aligned.
    fn stride(doubles: usize, floats: usize) -> usize {
        2 * doubles + floats.next_multiple_of(2)
    }

    /// The memory of a part; it holds whatever an earlier step left there.
    ///
    /// # Safety
    /// No other reference to the part's memory may be alive: one thread works on a part.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, part: usize) -> (&'a mut [f64], &'a mut [f32]) {
        let base = self.scratch.ptr();
        // SAFETY: `new` checked that all parts lie in the scratch memory, with one float to spare for the alignment of
        // f64; any bits are a valid number; exclusivity is the caller's promise.
        unsafe {
            let first = base.add(base.align_offset(8) + part * Self::stride(self.doubles, self.floats));
            let doubles = std::slice::from_raw_parts_mut(first.cast::<f64>(), self.doubles);
            (doubles, std::slice::from_raw_parts_mut(first.add(2 * self.doubles), self.floats))
        }
    }
}

simd! {
    /// total[i] += sums[i] over equally long slices.
    unsafe fn fold<V>(sums: &[f32], total: &mut [f64]) {
        for (t, &s) in total.iter_mut().zip(sums) {
            *t += f64::from(s);
        }
    }
}

/// Bytes of scratch memory of [`row_sums_with`] with `sums` results of `cols` columns; `extra` is 0 for [`row_sums`].
pub fn row_sums_scratch(rows: usize, cols: usize, sums: usize, extra: usize) -> usize {
    Slots::bytes(rows, sums * cols, sums * cols + extra)
}

/// `K` sums over `rows` rows for every column: `outs[k][c] (+)= sum over r of term_k(r, c)`.
///
/// `block(rows, sums)` adds the terms of at most [`BLOCK`] rows to `sums`, `K` vectors of `cols` floats one after the other.
pub fn row_sums<const K: usize>(cpu: &Cpu, rows: usize, scratch: Dst, outs: [Dst; K], block: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    row_sums_with(cpu, rows, scratch, outs, 0, |rows, sums, _| block(rows, sums));
}

/// As [`row_sums`], for a `block` that needs `extra` floats of memory of its own, which it gets with whatever was left in it.
pub fn row_sums_with<const K: usize>(
    cpu: &Cpu,
    rows: usize,
    scratch: Dst,
    outs: [Dst; K],
    extra: usize,
    block: impl Fn(Range<usize>, &mut [f32], &mut [f32]) + Sync,
) {
    let cols = outs[0].cols;
    let (parts, slots) = (Parts::of(rows), Slots::new(scratch, rows, K * cols, K * cols + extra));
    cpu.pool.parts(parts.count(), |part, _| {
        // SAFETY: this thread alone works on the part.
        let (total, floats) = unsafe { slots.part(part) };
        let (sums, extra) = floats.split_at_mut(K * cols);
        total.fill(0.0);
        for rows in parts.blocks(part) {
            sums.fill(0.0);
            block(rows, sums, extra);
            // SAFETY: slices know their lengths; the device's instruction set is available.
            unsafe { fold(cpu.isa, sums, total) };
        }
    });
    // SAFETY: the loop is over: this thread alone holds the parts and the results, and each part's memory is its own.
    unsafe {
        let (total, _) = slots.part(0);
        for part in 1..parts.count() {
            total.iter_mut().zip(slots.part(part).0).for_each(|(t, p)| *t += *p);
        }
        for (out, total) in outs.iter().zip(total.chunks(cols)) {
            total.iter().enumerate().for_each(|(c, &t)| put(out.ptr().add(c), t as f32, out.adds()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Isa;

    #[derive(Clone, Copy)]
    struct Squares(Stream);

    impl Terms<2> for Squares {
        #[inline(always)]
        unsafe fn add<V: Vector>(self, r: usize, c: usize, n: usize, [one, two]: [V; 2]) -> [V; 2] {
            // SAFETY: the caller's promise.
            unsafe {
                let x = self.0.take::<V>(r, c, n);
                [one.add(x), x.fma(x, two)]
            }
        }
    }

    simd! {
        /// Sums of x and of x^2 over `rows` x `cols`.
        unsafe fn squares<V>(x: (*const f32, usize), rows: usize, cols: usize, sums: [*mut f32; 2]) {
            add_rows::<V, 2>(Squares(Stream::new(x, cols)), rows, cols, sums);
        }
    }

    #[test]
    fn every_element_is_added_once_to_its_column() {
        for (rows, cols, pitch) in [(1, 1, 1), (3, 5, 5), (4, 64, 64), (7, 100, 100), (64, 133, 150), (65, 257, 256 + 16)] {
            // Small whole numbers: every sum is exact.
            let x: Vec<f32> = (0..rows * pitch).map(|i| (i * 7 % 11) as f32 - 4.0).collect();
            let column = |c: usize, f: fn(f32) -> f32| (0..rows).map(|r| f(x[r * pitch + c])).sum::<f32>();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                let mut sums = vec![1.0; 2 * cols];
                let (one, two) = sums.split_at_mut(cols);
                // SAFETY: `x` holds `rows` rows, both sums `cols` floats.
                unsafe { squares(isa, (x.as_ptr(), pitch), rows, cols, [one.as_mut_ptr(), two.as_mut_ptr()]) };
                for c in 0..cols {
                    assert_eq!(one[c], 1.0 + column(c, |x| x), "{isa} {rows}x{cols}, column {c}");
                    assert_eq!(two[c], 1.0 + column(c, |x| x * x), "{isa} {rows}x{cols}, column {c}");
                }
            }
        }
    }

    #[test]
    fn parts_are_few_and_their_blocks_cover_the_rows_in_order() {
        for rows in [1, 63, 64, 65, 784, 1024, 1025, 200_704] {
            let parts = Parts::of(rows);
            assert!(parts.count() <= PARTS);
            let lengths = (0..parts.count()).map(|p| parts.rows(p).len());
            assert!(lengths.clone().max() <= lengths.min().map(|least| least + 1), "{rows} rows: a thread would wait for another");
            let mut next = 0;
            for block in (0..parts.count()).flat_map(|p| parts.blocks(p)) {
                assert!(block.start == next && (1..=BLOCK).contains(&block.len()), "{rows} rows: {block:?}");
                next = block.end;
            }
            assert_eq!(next, rows);
        }
    }
}
