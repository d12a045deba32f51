//! Filters to planes and back.

#![allow(clippy::needless_range_loop)] // the counters are coordinates of planes and taps as well

use super::Scheme;
use super::form::{F11, F23, F25, F43, Form};
use crate::device::cpu::{Cpu, Dst, Src};
use crate::device::cpu::simd::Vector;
use crate::ops::conv2d::cpu::pack::{pack, pack_transposed, packed_floats};
use crate::simd;

/// Transforms a filter for the forward pass.
pub(super) fn prepare(cpu: &Cpu, scheme: Scheme, w: Src, packed: Dst) {
    let cin = w.rows / scheme.taps_total();
    fill(cpu, scheme, packed, packed_floats(cpu, cin, w.cols), |tap, plane| {
        pack(cpu, Src::of(w.rows(tap * cin..(tap + 1) * cin), cin, w.cols), plane);
    });
}

/// Transforms the rotated filter, with the channels exchanged, for the input gradient.
pub(super) fn prepare_transposed(cpu: &Cpu, scheme: Scheme, w: Src, packed: Dst) {
    let (taps, cin) = (scheme.taps_total(), w.rows / scheme.taps_total());
    fill(cpu, scheme, packed, packed_floats(cpu, w.cols, cin), |tap, plane| {
        pack_transposed(cpu, w, cin, &|_| taps - 1 - tap, 1, plane);
    });
}

/// Packs the taps into the last planes, then transforms all in place.
fn fill(cpu: &Cpu, scheme: Scheme, packed: Dst, plane: usize, pack_tap: impl Fn(usize, Dst)) {
    for tap in 0..scheme.taps_total() {
        let start = (scheme.planes() - scheme.taps_total() + tap) * plane;
        pack_tap(tap, packed.slice(start..start + plane));
    }
    let vectors = plane / cpu.isa.lanes();
    cpu.pool.ranges(vectors, 64, |range| {
        let at = packed.ptr().wrapping_add(range.start * cpu.isa.lanes());
        // SAFETY: these vectors of every plane belong to this thread; a plane is whole vectors.
        unsafe { filter(cpu.isa, scheme, at, plane, range.len() * cpu.isa.lanes()) }
    });
}

simd! {
    /// `(G g G^T)[x]` in plane x of `floats` floats from `at` on, where the last planes hold the taps g. Every pixel sees the same filter, so
    /// that its roundings do not cancel: it is transformed in double precision and rounded once.
    pub(super) unsafe fn filter<V>(scheme: Scheme, at: *mut f32, plane: usize, floats: usize) {
        match scheme {
            Scheme::F43 => raise::<V, F43, F43, _, _, _, _, _, _>(at, plane, floats),
            Scheme::F23x43 => raise::<V, F23, F43, _, _, _, _, _, _>(at, plane, floats),
            Scheme::F25 => raise::<V, F25, F25, _, _, _, _, _, _>(at, plane, floats),
            Scheme::Rows43 => raise::<V, F11, F43, _, _, _, _, _, _>(at, plane, floats),
            Scheme::Columns43 => raise::<V, F43, F11, _, _, _, _, _, _>(at, plane, floats),
        }
    }

    /// Taps `(G^T u G)`, `tap` floats apart, (+)= of the sum of `copies` buffers of planes, `copy` floats apart, over `floats` floats.
    pub(super) unsafe fn taps<V>(scheme: Scheme, from: *const f32, plane: usize, copies: usize, copy: usize, floats: usize, to: *mut f32, tap: usize, add: bool) {
        match scheme {
            Scheme::F43 => lower::<V, F43, F43, _, _, _, _, _, _>(from, plane, copies, copy, floats, to, tap, add),
            Scheme::F23x43 => lower::<V, F23, F43, _, _, _, _, _, _>(from, plane, copies, copy, floats, to, tap, add),
            Scheme::F25 => lower::<V, F25, F25, _, _, _, _, _, _>(from, plane, copies, copy, floats, to, tap, add),
            Scheme::Rows43 => lower::<V, F11, F43, _, _, _, _, _, _>(from, plane, copies, copy, floats, to, tap, add),
            Scheme::Columns43 => lower::<V, F43, F11, _, _, _, _, _, _>(from, plane, copies, copy, floats, to, tap, add),
        }
    }
}

/// `RR x RC` taps to `AR x AC` planes, in place: the taps are the last of them.
#[inline(always)]
unsafe fn raise<
    V: Vector,
    Fr: Form<MR, AR, RR>,
    Fc: Form<MC, AC, RC>,
    const MR: usize,
    const AR: usize,
    const RR: usize,
    const MC: usize,
    const AC: usize,
    const RC: usize,
>(
    at: *mut f32,
    plane: usize,
    floats: usize,
) {
    // SAFETY: the caller's planes have `floats` floats, a multiple of a vector; an element's taps are read before it is written.
    unsafe {
        for c in (0..floats).step_by(V::N) {
            let mut rows = [[Doubles::ZERO; RC]; AR];
            for i in 0..RR {
                for j in 0..RC {
                    let tap = Doubles::load::<V>(at.add((AR * AC - RR * RC + RC * i + j) * plane + c));
                    for x in 0..AR {
                        rows[x][j].add::<V>(Fr::FILTER[x][i], &tap);
                    }
                }
            }
            for i in 0..AR {
                for x in 0..AC {
                    let mut sum = Doubles::ZERO;
                    for j in 0..RC {
                        sum.add::<V>(Fc::FILTER[x][j], &rows[i][j]);
                    }
                    sum.store::<V>(at.add((i * AC + x) * plane + c));
                }
            }
        }
    }
}

/// The lanes of a vector in double precision.
#[derive(Clone, Copy)]
pub(super) struct Doubles([f64; 16]);

impl Doubles {
    pub const ZERO: Self = Doubles([0.0; 16]);

    /// # Safety
    /// A vector can be read.
    #[inline(always)]
    pub unsafe fn load<V: Vector>(from: *const f32) -> Self {
        let mut lanes = [0.0; 16];
        for lane in 0..V::N {
            // SAFETY: the caller's promise.
            lanes[lane] = f64::from(unsafe { *from.add(lane) });
        }
        Doubles(lanes)
    }

    /// `self += factor term`. Factors are constants, a third of them zero.
    #[inline(always)]
    pub fn add<V: Vector>(&mut self, factor: f64, term: &Doubles) {
        if factor != 0.0 {
            for lane in 0..V::N {
                self.0[lane] += factor * term.0[lane];
            }
        }
    }

    /// # Safety
    /// A vector can be written.
    #[inline(always)]
    pub unsafe fn store<V: Vector>(&self, to: *mut f32) {
        for lane in 0..V::N {
            // SAFETY: the caller's promise.
            unsafe { *to.add(lane) = self.0[lane] as f32 };
        }
    }
}

/// `AR x AC` planes to `RR x RC` taps.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // those of `taps`
unsafe fn lower<
    V: Vector,
    Fr: Form<MR, AR, RR>,
    Fc: Form<MC, AC, RC>,
    const MR: usize,
    const AR: usize,
    const RR: usize,
    const MC: usize,
    const AC: usize,
    const RC: usize,
>(
    from: *const f32,
    plane: usize,
    copies: usize,
    copy: usize,
    floats: usize,
    to: *mut f32,
    tap: usize,
    add: bool,
) {
    // SAFETY: the caller's planes and taps have `floats` floats.
    unsafe {
        for c in (0..floats).step_by(V::N) {
            let n = V::N.min(floats - c);
            let mut rows = [[V::zero(); AC]; RR];
            for j in 0..AC {
                let mut column = [V::zero(); AR];
                for i in 0..AR {
                    let at = from.add((i * AC + j) * plane + c);
                    column[i] = V::take(at, n);
                    for k in 1..copies {
                        column[i] = column[i].add(V::take(at.add(k * copy), n));
                    }
                }
                let column = Fr::taps(column);
                for i in 0..RR {
                    rows[i][j] = column[i];
                }
            }
            for i in 0..RR {
                let row = Fc::taps(rows[i]);
                for j in 0..RC {
                    row[j].put(to.add((RC * i + j) * tap + c), n, add);
                }
            }
        }
    }
}
