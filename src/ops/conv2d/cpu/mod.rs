//! Convolution on the CPU, without ever unrolling the input into a matrix.
//!
//! [`pass`] describes one dense walk over result pixels; [`forward`] runs it (a few padded rows of input per thread, [`input`], packed
//! weights, register tiles); [`input_grad`] turns the input gradient into such passes over `dy` with the rotated filter;
//! [`filter_grad`] sums products over pixels. [`pointwise`] takes an input gradient on through the batch norm before. [`pack`] lays weights out as the tiles read them. A matrix product is the
//! pass over a single row of pixels, which is how 1x1 convolutions and dense layers run. [`winograd`] does 3x3 filters of stride 1 with
//! fewer multiplications, all three directions, where the layer's shape makes it pay. [`pairs`] rounds operands to bf16 on the way, two in
//! the place of a float, where the precision says so.

mod filter_grad;
mod forward;
mod input;
mod input_grad;
mod pack;
mod pairs;
mod pass;
mod pointwise;
mod winograd;

pub(in crate::ops) use filter_grad::FilterGrad;
pub(in crate::ops) use forward::{Finish, convolve, convolve_scratch};
pub(in crate::ops) use pack::{pack, pack_transposed, packed_floats};
pub(in crate::ops) use pass::Pass;

use input::Input;

use super::{Conv2d, Conv2dDw, Conv2dDx, geometry};
use pairs::words;
use winograd::{Size, Winograd, WinogradFilterGrad};
use crate::base::{Math, Ty};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::ops::Run;
use crate::ops::scale_shift::cpu::Prologue;

/// Whether a forward pass with so many channels may take Winograd's algorithm: it has many to read, or whole blocks of 64. The 94
/// convolutions of InceptionV3 pass rounding errors on to each other; with Winograd in its layers of 32 to 96 channels, probabilities of a
/// calibrated random network are 2e-4 off Keras's, without 5e-5. Gradients are less sensitive, and are not asked.
fn is_wide(cin: usize, cout: usize) -> bool {
    cin >= 128 || (cin.is_multiple_of(64) && cout.is_multiple_of(64))
}

impl Conv2d {
    fn pass(&self, ins: &[Ty]) -> Pass {
        let x = ins[0].shape;
        Pass::forward(&geometry(&self.window, x), x.dims()[0])
    }

    /// The arithmetic of a direct pass.
    fn multiplies_in(&self, ins: &[Ty]) -> Math {
        pairs::worthwhile(self.math, ins[0].shape.cols())
    }

    fn winograd(&self, cpu: &Cpu, ins: &[Ty]) -> Option<Winograd> {
        let (pass, cin, cout) = (self.pass(ins), ins[0].shape.cols(), ins[1].shape.cols());
        let size = Size::choose(cpu, self.math, &pass, cin, cout).filter(|_| is_wide(cin, cout));
        size.map(|size| Winograd::new(cpu, size, &pass, cin, cout))
    }
}

impl Run<Cpu> for Conv2d {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * match self.winograd(cpu, ins) {
            Some(winograd) => winograd.scratch(),
            None => convolve_scratch(cpu, &self.pass(ins), words(self.multiplies_in(ins), ins[0].shape.cols())),
        }
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let ([height, width], w) = (self.window.kernel, ins[1].shape);
        4 * match self.winograd(cpu, ins) {
            Some(winograd) => winograd.filter_floats(),
            None => packed_floats(cpu, height * width * words(self.multiplies_in(ins), ins[0].shape.cols()), w.cols()),
        }
    }

    fn amplification(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> f64 {
        self.winograd(cpu, ins).map_or(1.0, |winograd| winograd.size().amplification())
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        let (cpu, w, packed) = (call.device, call.src(1), call.derived());
        let ins = call.in_types();
        match self.winograd(cpu, &ins) {
            Some(winograd) => winograd.prepare(cpu, w, packed),
            None if self.multiplies_in(&ins) == Math::Bf16 => pairs::pack(cpu, w, ins[0].shape.cols(), packed),
            None => pack(cpu, w, packed),
        }
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, ins) = (call.device, call.in_types());
        let finish = Finish {
            scale: self.scale.then(|| call.src(2)),
            bias: self.bias.then(|| call.src(2 + usize::from(self.scale))),
            act: self.act,
        };
        let input = Input { x: call.src(0), pre: Prologue::of(call, self.pre, self.pre_at()), math: self.multiplies_in(&ins) };
        let (w, y) = (call.derived().src(), call.dst(0));
        match self.winograd(cpu, &ins) {
            Some(winograd) => winograd.run(cpu, input, w, y, &finish, call.scratch()),
            None => convolve(cpu, &self.pass(&ins), input, w, y, &finish, call.scratch()),
        }
    }
}

impl Conv2dDx {
    /// The input gradient as one pass of Winograd's, where it is one: not for strides.
    fn winograd(&self, cpu: &Cpu, ins: &[Ty]) -> Option<Winograd> {
        let (images, depth, cols) = (ins[0].shape.dims()[0], ins[0].shape.cols(), ins[1].shape.dims()[2]);
        let [phase] = &input_grad::phases(&self.geometry(), images)[..] else { return None };
        Size::choose(cpu, self.math, &phase.pass, depth, cols).map(|size| Winograd::new(cpu, size, &phase.pass, depth, cols))
    }
}

impl Run<Cpu> for Conv2dDx {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], outs: &[Ty]) -> usize {
        if self.past.is_some() {
            return pointwise::scratch(self.math, ins[0], outs[0]);
        }
        if let Some(winograd) = self.winograd(cpu, ins) {
            return 4 * winograd.scratch();
        }
        let dy = ins[0].shape;
        let phases = input_grad::phases(&self.geometry(), dy.dims()[0]);
        4 * phases.iter().map(|phase| convolve_scratch(cpu, &phase.pass, words(self.math, dy.cols()))).max().unwrap_or(0)
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], outs: &[Ty]) -> usize {
        4 * match self.winograd(cpu, ins) {
            Some(winograd) => winograd.filter_floats(),
            None => packed_floats(cpu, self.geometry().taps_total() * words(self.math, ins[0].shape.cols()), outs[0].shape.cols()),
        }
    }

    fn amplification(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> f64 {
        self.winograd(cpu, ins).map_or(1.0, |winograd| winograd.size().amplification())
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        match self.winograd(call.device, &call.in_types()) {
            Some(winograd) => winograd.prepare_transposed(call.device, call.src(1), call.derived()),
            None => input_grad::prepare(call, &self.geometry(), self.math),
        }
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        if let Some(act) = self.past {
            return pointwise::run(call, act, self.math);
        }
        match self.winograd(call.device, &call.in_types()) {
            Some(winograd) => {
                let (dy, w, dx) = (call.src(0), call.derived().src(), call.dst(0));
                winograd.run(call.device, dy.into(), w, dx, &Finish::NONE, call.scratch());
            }
            None => input_grad::run(call, &self.geometry(), self.math),
        }
    }
}

/// The two ways to a filter's gradient.
enum FilterGradient {
    Direct(FilterGrad),
    Winograd(WinogradFilterGrad),
}

impl Conv2dDw {
    fn pass(&self, ins: &[Ty]) -> Pass {
        let x = ins[0].shape;
        Pass::forward(&geometry(&self.window, x), x.dims()[0])
    }

    /// The arithmetic of direct sums.
    fn multiplies_in(&self, ins: &[Ty]) -> Math {
        pairs::worthwhile(self.math, ins[0].shape.cols())
    }

    fn plan(&self, cpu: &Cpu, ins: &[Ty]) -> FilterGradient {
        let (pass, cin, cout) = (self.pass(ins), ins[0].shape.cols(), ins[1].shape.cols());
        match Size::choose(cpu, self.math, &pass, cin, cout) {
            Some(size) => FilterGradient::Winograd(WinogradFilterGrad::new(cpu, size, &pass, cin, cout)),
            None => FilterGradient::Direct(FilterGrad::new(cpu, self.multiplies_in(ins), pass, cin, cout, self.pre.is_some())),
        }
    }
}

impl Run<Cpu> for Conv2dDw {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * match self.plan(cpu, ins) {
            FilterGradient::Direct(direct) => direct.scratch(),
            FilterGradient::Winograd(winograd) => winograd.scratch(),
        }
    }

    fn amplification(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> f64 {
        let size = Size::choose(cpu, self.math, &self.pass(ins), ins[0].shape.cols(), ins[1].shape.cols());
        size.map_or(1.0, Size::amplification)
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, dy, dw, scratch) = (call.device, call.src(1), call.dst(0), call.scratch());
        let input = Input { x: call.src(0), pre: Prologue::of(call, self.pre, 2), math: self.multiplies_in(&call.in_types()) };
        match self.plan(cpu, &call.in_types()) {
            FilterGradient::Direct(direct) => direct.run(cpu, input, dy, dw, scratch),
            FilterGradient::Winograd(winograd) => winograd.run(cpu, input, dy, dw, scratch),
        }
    }
}
