//! The input gradient as dense convolutions of `dy`.
//!
//! Output pixel `o` read input pixel `a` through tap `i` when `o * s + i = a + pad`. So the input pixels of one phase
//! `r = (a + pad) mod s` have the taps `i = r + s * t`, and with `a + pad = q * s + r` they collect `dy[q - t]`: a convolution of
//! stride 1 over `dy` with every s-th tap in reversed order. Stride 1 is the single phase 0, the rotated filter. Pixels of a
//! phase without taps have gradient zero.

use super::forward::{Finish, convolve};
use super::input::Input;
use super::pack::{pack_transposed, packed_floats};
use super::pairs::{self, words};
use super::pass::Pass;
use crate::base::{Geom, Math};
use crate::device::Call;
use crate::device::cpu::Cpu;

/// The pixels of one phase: the pass that makes them, and which taps of the filter it takes.
pub(super) struct Phase {
    pub pass: Pass,
    /// Residues of its taps.
    residue: [usize; 2],
}

/// One axis of a phase.
struct Along {
    taps: usize,
    lead: isize,
    first: usize,
    size: usize,
}

fn along(g: &Geom, axis: usize, residue: usize) -> Along {
    let (stride, pad) = (g.stride[axis], g.before(axis));
    let taps = g.kernel[axis].saturating_sub(residue).div_ceil(stride);
    // The first q whose pixel q * stride + residue - pad exists.
    let start = pad.saturating_sub(residue).div_ceil(stride);
    let first = start * stride + residue - pad;
    let size = g.input[axis].saturating_sub(first).div_ceil(stride);
    Along { taps, lead: taps as isize - 1 - start as isize, first, size }
}

/// The phases that have pixels.
pub(super) fn phases(g: &Geom, images: usize) -> Vec<Phase> {
    if g.is_pointwise() {
        return vec![Phase { pass: Pass::flat(images * g.input[0] * g.input[1]), residue: [0; 2] }];
    }
    let phase = |residue: [usize; 2]| {
        let [v, h] = [along(g, 0, residue[0]), along(g, 1, residue[1])];
        let pass = Pass {
            images,
            input: g.output,
            taps: [v.taps, h.taps],
            step: [1; 2],
            lead: [v.lead, h.lead],
            size: [v.size, h.size],
            output: g.input,
            first: [v.first, h.first],
            apart: g.stride,
        };
        Phase { pass, residue }
    };
    let residues = (0..g.stride[0]).flat_map(|r| (0..g.stride[1]).map(move |c| [r, c]));
    residues.map(phase).filter(|phase| phase.pass.size.iter().all(|&s| s > 0)).collect()
}

impl Phase {
    fn taps(&self) -> usize {
        self.pass.taps.iter().product()
    }

    /// The filter tap behind tap `t` of the phase's convolution.
    fn filter_tap(&self, g: &Geom, t: usize) -> usize {
        let [rows, cols] = self.pass.taps;
        let i = self.residue[0] + g.stride[0] * (rows - 1 - t / cols);
        let j = self.residue[1] + g.stride[1] * (cols - 1 - t % cols);
        i * g.kernel[1] + j
    }
}

/// Packs the taps of each phase, one phase after the other.
pub(super) fn prepare(call: &Call<'_, Cpu>, g: &Geom, math: Math) {
    let (cpu, w, packed) = (call.device, call.src(1), call.derived());
    let (cin, cout) = (call.dst(0).cols, words(math, w.cols));
    let pack = if math == Math::Bf16 { pairs::pack_transposed } else { pack_transposed };
    let mut start = 0;
    for phase in phases(g, 1) {
        let end = start + packed_floats(cpu, phase.taps() * cout, cin);
        let part = packed.slice(start..end);
        pack(cpu, w, cin, &|t| phase.filter_tap(g, t), phase.taps(), part);
        start = end;
    }
}

pub(super) fn run(call: &Call<'_, Cpu>, g: &Geom, math: Math) {
    let (cpu, dx, packed) = (call.device, call.dst(0), call.derived());
    let dy = Input { x: call.src(0), pre: None, math };
    let images = call.ins[0].ty.shape.dims()[0];
    let mut start = 0;
    for phase in phases(g, images) {
        let end = start + packed_floats(cpu, phase.taps() * dy.words(), dx.cols);
        if phase.taps() > 0 {
            convolve(cpu, &phase.pass, dy, packed.slice(start..end).src(), dx, &Finish::NONE, call.scratch());
        } else if !dx.adds() {
            clear(call, &phase.pass);
        }
        start = end;
    }
}

/// Sets the pixels of a phase to zero.
fn clear(call: &Call<'_, Cpu>, pass: &Pass) {
    let dx = call.dst(0);
    call.device.pool.ranges(pass.images * pass.size[0], 1, |rows| {
        for row in rows {
            for col in 0..pass.size[1] {
                // SAFETY: the pixels of a row belong to one thread.
                unsafe { dx.row(pass.target(row / pass.size[0], row % pass.size[0], col)) }.fill(0.0);
            }
        }
    });
}
