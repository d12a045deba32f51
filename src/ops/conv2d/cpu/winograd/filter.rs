use super::Size;
use super::transform::filter;
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::conv2d::cpu::pack::{pack, pack_transposed, packed_floats};

/// Transforms a filter for the forward pass.
pub(super) fn prepare(cpu: &Cpu, size: Size, w: Src, packed: Dst) {
    let cin = w.rows / 9;
    fill(cpu, size, packed, packed_floats(cpu, cin, w.cols), |tap, plane| {
        pack(cpu, Src::of(w.rows(tap * cin..(tap + 1) * cin), cin, w.cols), plane);
    });
}

/// Transforms the rotated filter, with the channels exchanged, for the input gradient.
pub(super) fn prepare_transposed(cpu: &Cpu, size: Size, w: Src, packed: Dst) {
    let cin = w.rows / 9;
    fill(cpu, size, packed, packed_floats(cpu, w.cols, cin), |tap, plane| {
        pack_transposed(cpu, w, cin, &|_| 8 - tap, 1, plane);
    });
}

/// Packs the nine taps into the last planes, then transforms all in place.
fn fill(cpu: &Cpu, size: Size, packed: Dst, plane: usize, pack_tap: impl Fn(usize, Dst)) {
    for tap in 0..9 {
        let start = (size.planes() - 9 + tap) * plane;
        pack_tap(tap, packed.slice(start..start + plane));
    }
    let vectors = plane / cpu.isa.lanes();
    cpu.pool.ranges(vectors, 64, |range| {
        let at = packed.ptr().wrapping_add(range.start * cpu.isa.lanes());
        // SAFETY: these vectors of every plane belong to this thread; a plane is whole vectors.
        unsafe { filter(cpu.isa, size, at, plane, range.len() * cpu.isa.lanes()) }
    });
}
