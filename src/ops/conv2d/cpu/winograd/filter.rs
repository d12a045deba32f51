use super::Scheme;
use super::transform::filter;
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::conv2d::cpu::pack::{pack, pack_transposed, packed_floats};

/// Transforms a filter for the forward pass.
pub(super) fn prepare(cpu: &Cpu, scheme: Scheme, w: Src, packed: Dst) {
    let cin = w.rows / taps(scheme);
    fill(cpu, scheme, packed, packed_floats(cpu, cin, w.cols), |tap, plane| {
        pack(cpu, Src::of(w.rows(tap * cin..(tap + 1) * cin), cin, w.cols), plane);
    });
}

/// Transforms the rotated filter, with the channels exchanged, for the input gradient.
pub(super) fn prepare_transposed(cpu: &Cpu, scheme: Scheme, w: Src, packed: Dst) {
    let (taps, cin) = (taps(scheme), w.rows / taps(scheme));
    fill(cpu, scheme, packed, packed_floats(cpu, w.cols, cin), |tap, plane| {
        pack_transposed(cpu, w, cin, &|_| taps - 1 - tap, 1, plane);
    });
}

/// Taps of both axes.
fn taps(scheme: Scheme) -> usize {
    scheme.taps().iter().product()
}

/// Packs the taps into the last planes, then transforms all in place.
fn fill(cpu: &Cpu, scheme: Scheme, packed: Dst, plane: usize, pack_tap: impl Fn(usize, Dst)) {
    for tap in 0..taps(scheme) {
        let start = (scheme.planes() - taps(scheme) + tap) * plane;
        pack_tap(tap, packed.slice(start..start + plane));
    }
    let vectors = plane / cpu.isa.lanes();
    cpu.pool.ranges(vectors, 64, |range| {
        let at = packed.ptr().wrapping_add(range.start * cpu.isa.lanes());
        // SAFETY: these vectors of every plane belong to this thread; a plane is whole vectors.
        unsafe { filter(cpu.isa, scheme, at, plane, range.len() * cpu.isa.lanes()) }
    });
}
