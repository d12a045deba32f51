//! Convolution on the CPU, without ever unrolling the input into a matrix.
//!
//! [`pass`] describes one dense walk over result pixels; [`forward`] runs it (a few padded rows of input per thread, [`input`], packed
//! weights, register tiles); [`input_grad`] turns the input gradient into such passes over `dy` with the rotated filter;
//! [`filter_grad`] sums products over pixels. [`pack`] lays weights out as the tiles read them. A matrix product is the
//! pass over a single row of pixels, which is how 1x1 convolutions and dense layers run.

mod filter_grad;
mod forward;
mod input;
mod input_grad;
mod pack;
mod pass;

pub(in crate::ops) use filter_grad::FilterGrad;
pub(in crate::ops) use forward::{Finish, convolve, convolve_scratch};
pub(in crate::ops) use pack::{pack, pack_transposed, packed_floats};
pub(in crate::ops) use pass::Pass;

use super::{Conv2d, Conv2dDw, Conv2dDx, geometry};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::ops::Run;

impl Run<Cpu> for Conv2d {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let x = ins[0].shape;
        4 * convolve_scratch(cpu, &Pass::forward(&geometry(&self.window, x), x.dims()[0]), x.cols())
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let w = ins[1].shape;
        4 * packed_floats(cpu, w.rows(), w.cols())
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        pack(call.device, call.src(1), call.derived());
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let x = call.ins[0].ty.shape;
        let pass = Pass::forward(&geometry(&self.window, x), x.dims()[0]);
        let finish = Finish {
            scale: self.scale.then(|| call.src(2)),
            bias: self.bias.then(|| call.src(2 + usize::from(self.scale))),
            act: self.act,
        };
        convolve(call.device, &pass, call.src(0), call.derived().src(), call.dst(0), &finish, call.scratch());
    }
}

impl Run<Cpu> for Conv2dDx {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let dy = ins[0].shape;
        let phases = input_grad::phases(&self.geometry(), dy.dims()[0]);
        4 * phases.iter().map(|phase| convolve_scratch(cpu, &phase.pass, dy.cols())).max().unwrap_or(0)
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], outs: &[Ty]) -> usize {
        4 * packed_floats(cpu, self.geometry().taps_total() * ins[0].shape.cols(), outs[0].shape.cols())
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        input_grad::prepare(call, &self.geometry());
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        input_grad::run(call, &self.geometry());
    }
}

impl Run<Cpu> for Conv2dDw {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * self.plan(cpu, ins).scratch()
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let ins = [call.ins[0].ty, call.ins[1].ty];
        self.plan(call.device, &ins).run(call.device, call.src(0), call.src(1), call.dst(0), call.scratch());
    }
}

impl Conv2dDw {
    fn plan(&self, cpu: &Cpu, ins: &[Ty]) -> FilterGrad {
        let (x, dy) = (ins[0].shape, ins[1].shape);
        FilterGrad::new(cpu, Pass::forward(&geometry(&self.window, x), x.dims()[0]), x.cols(), dy.cols())
    }
}
