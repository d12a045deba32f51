use crate::device::cpu::tile::Tile;
use crate::device::cpu::{Cpu, Dst, Src};
use std::ops::Range;

/// The columns of panel `panel`, and the floats a row of it takes: whole vectors, the last one padded with zeros.
pub(super) fn panel_columns(tile: Tile, panel: usize, cols: usize) -> (Range<usize>, usize) {
    let columns = panel * tile.width()..((panel + 1) * tile.width()).min(cols);
    let padded = columns.len().next_multiple_of(tile.lanes);
    (columns, padded)
}

/// Floats of a packed matrix of `rows` x `cols`.
pub(in crate::ops) fn packed_floats(cpu: &Cpu, rows: usize, cols: usize) -> usize {
    rows * cols.next_multiple_of(Tile::of(cpu.isa).lanes)
}

/// Packs a kernel `[taps * in, out]` (or any matrix on the right of a product) into panels of output channels, one after
/// the other, each `[taps * in, panel width]`: the order in which a strip tile reads it.
pub(in crate::ops) fn pack(cpu: &Cpu, w: Src, packed: Dst) {
    let tile = Tile::of(cpu.isa);
    cpu.pool.parts(w.cols.div_ceil(tile.width()), |panel, _| {
        let (columns, padded) = panel_columns(tile, panel, w.cols);
        let start = panel * tile.width() * w.rows;
        // SAFETY: each panel is written by one thread.
        let out = unsafe { packed.part(start..start + padded * w.rows) };
        for (k, row) in out.chunks_mut(padded).enumerate() {
            row[..columns.len()].copy_from_slice(&w.row(k)[columns.clone()]);
            row[columns.len()..].fill(0.0);
        }
    });
}

/// Packs the transposed blocks of a kernel `[taps, in, out]` for a product that makes input channels: panels of them, each
/// `[chosen taps * out, panel width]`, the taps in the order given.
pub(in crate::ops) fn pack_transposed(cpu: &Cpu, w: Src, cin: usize, taps: &(dyn Fn(usize) -> usize + Sync), count: usize, packed: Dst) {
    let (tile, cout) = (Tile::of(cpu.isa), w.cols);
    cpu.pool.parts(cin.div_ceil(tile.width()), |panel, _| {
        let (columns, padded) = panel_columns(tile, panel, cin);
        let start = panel * tile.width() * count * cout;
        // SAFETY: each panel is written by one thread.
        let out = unsafe { packed.part(start..start + padded * count * cout) };
        for (t, block) in out.chunks_mut(padded * cout).enumerate() {
            let tap = taps(t);
            transpose(|lane| if lane < columns.len() { w.row(tap * cin + columns.start + lane) } else { &[] }, block, padded, cout);
        }
    });
}

/// `block[c][lane] = row(lane)[c]`, a few columns at a time so that both sides stay in the first cache; absent rows are zero.
fn transpose<'a>(row: impl Fn(usize) -> &'a [f32], block: &mut [f32], lanes: usize, cols: usize) {
    const RUN: usize = 16;
    for first in (0..cols).step_by(RUN) {
        let run = RUN.min(cols - first);
        let out = &mut block[first * lanes..(first + run) * lanes];
        for lane in 0..lanes {
            let from = row(lane);
            if from.is_empty() {
                out.iter_mut().skip(lane).step_by(lanes).for_each(|o| *o = 0.0);
                continue;
            }
            for (o, &value) in out.iter_mut().skip(lane).step_by(lanes).zip(&from[first..first + run]) {
                *o = value;
            }
        }
    }
}
