//! Convolution on the CPU, without ever unrolling the input into a matrix.
//!
//! [`pass`] describes one dense walk over result pixels; [`forward`] runs it (a few padded rows of input per thread, [`input`], packed
//! weights, register tiles); [`input_grad`] turns the input gradient into such passes over `dy` with the rotated filter;
//! [`filter_grad`] sums products over pixels, [`product_grad`] where there is one tap. [`pointwise`] takes an input gradient on through the batch norm before, [`separable`] a
//! depthwise convolution into the 1x1 one behind it. [`pack`] lays weights out as the tiles read them. A matrix product is the pass over
//! a single row of pixels, which is how 1x1 convolutions and dense layers run. [`winograd`] does filters of
//! several taps and stride 1 with fewer multiplications, all three directions, where the layer's shape makes it pay.
//! [`pairs`] rounds operands to bf16 on the way, two in the place of a float, where the precision says so.

mod filter_grad;
mod forward;
mod input;
mod input_grad;
mod pack;
mod pairs;
mod pass;
mod pointwise;
mod product_grad;
mod separable;
mod winograd;

pub(in crate::ops) use forward::{Finish, convolve, convolve_scratch};
pub(in crate::ops) use pack::{pack, pack_transposed, packed_floats};
pub(in crate::ops) use pass::Pass;
pub(in crate::ops) use product_grad::ProductGrad;

use filter_grad::FilterGrad;
use input::Input;

use super::{Conv2d, Conv2dDw, Conv2dDx, geometry};
use pairs::words;
use winograd::{Line, LineFilterGrad, Scheme, Winograd, WinogradFilterGrad, line_amplification};
use crate::base::{Math, Ty};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::ops::Run;
use crate::ops::activation::Act;
use crate::ops::scale_shift::cpu::Prologue;

/// The schemes of Winograd's algorithm that a forward pass with so many channels may take. F(4x4,3x3) is for layers
/// with many channels to read or whole blocks of 64: the 94 convolutions of InceptionV3 pass rounding errors on to each other, and with it
/// in the layers of 32 to 96 channels too, probabilities of a calibrated random network are further from exact ones than Keras's in f32
/// (root mean square 2.6e-5, against 2.1e-5 with F(2x4,3x3) and 1.8e-5 by plain sums). F(2x2,5x5) in three layers does not change that.
/// Gradients are less sensitive, and are not asked.
fn forward_schemes(cin: usize, cout: usize) -> &'static [Scheme] {
    let wide = cin >= 128 || (cin.is_multiple_of(64) && cout.is_multiple_of(64));
    if wide { &Scheme::ALL } else { &[Scheme::F23x43, Scheme::F25, Scheme::Rows43, Scheme::Columns43] }
}

/// Height and width of an activation.
fn size(x: Ty) -> [usize; 2] {
    let [_, height, width, _] = x.shape.four().expect("shape inference admits four axes here");
    [height, width]
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

    fn plan(&self, cpu: &Cpu, ins: &[Ty]) -> Forward {
        let (pass, cin, cout) = (self.pass(ins), ins[0].shape.cols(), ins[1].shape.cols());
        if let Some(act) = self.depthwise {
            return Forward::Separable(act, size(ins[0]));
        }
        if let Some(line) = Line::choose(cpu, &pass, cin, cout).filter(|_| self.math == Math::Full) {
            return Forward::Line(line);
        }
        match Scheme::choose(cpu, self.math, &pass, [cin, cout], forward_schemes(cin, cout)) {
            Some(scheme) => Forward::Winograd(Winograd::new(cpu, scheme, &pass, cin, cout)),
            None => Forward::Direct(pass),
        }
    }
}

/// The ways of a forward pass.
enum Forward {
    Direct(Pass),
    /// Behind a depthwise convolution of this activation of images of this size.
    Separable(Act, [usize; 2]),
    Winograd(Winograd),
    Line(Line),
}

impl Run<Cpu> for Conv2d {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let channels = ins[0].shape.cols();
        4 * match self.plan(cpu, ins) {
            Forward::Direct(pass) => convolve_scratch(cpu, &pass, words(self.multiplies_in(ins), channels)),
            Forward::Separable(_, [_, width]) => separable::scratch(cpu, channels, width),
            Forward::Winograd(winograd) => winograd.scratch(),
            Forward::Line(line) => line.scratch(),
        }
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        let ([height, width], w) = (self.window.kernel, ins[1].shape);
        let rows = height * width * words(self.multiplies_in(ins), ins[0].shape.cols());
        4 * match self.plan(cpu, ins) {
            Forward::Direct(_) | Forward::Separable(..) => packed_floats(cpu, rows, w.cols()),
            Forward::Winograd(winograd) => winograd.filter_floats(),
            Forward::Line(line) => line.filter_floats(),
        }
    }

    fn amplification(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> f64 {
        match self.plan(cpu, ins) {
            Forward::Direct(_) | Forward::Separable(..) => 1.0,
            Forward::Winograd(winograd) => winograd.scheme().amplification(),
            Forward::Line(_) => line_amplification(),
        }
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        let (cpu, w, packed) = (call.device, call.src(1), call.derived());
        let ins = call.in_types();
        match self.plan(cpu, &ins) {
            Forward::Direct(_) | Forward::Separable(..) if self.multiplies_in(&ins) == Math::Bf16 => pairs::pack(cpu, w, ins[0].shape.cols(), packed),
            Forward::Direct(_) | Forward::Separable(..) => pack(cpu, w, packed),
            Forward::Winograd(winograd) => winograd.prepare(cpu, w, packed),
            Forward::Line(line) => line.prepare(cpu, w, packed),
        }
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, scratch) = (call.device, call.src(0), call.scratch());
        let finish = Finish {
            scale: self.scale.then(|| call.src(2)),
            bias: self.bias.then(|| call.src(2 + usize::from(self.scale))),
            act: self.act,
        };
        let ins = call.in_types();
        let math = self.multiplies_in(&ins);
        let input = Input { x, pre: Prologue::of(call, self.pre, self.pre_at()), math };
        let (w, y) = (call.derived().src(), call.dst(0));
        match self.plan(cpu, &ins) {
            Forward::Direct(pass) => convolve(cpu, &pass, input, w, y, &finish, scratch),
            Forward::Separable(act, size) => {
                let depthwise = separable::Depthwise { x, size, act, filter: call.src(self.depthwise_at()) };
                separable::run(cpu, math, &depthwise, w, y, &finish, scratch);
            }
            Forward::Winograd(winograd) => winograd.run(cpu, input, w, y, &finish, scratch),
            Forward::Line(line) => line.run(cpu, input, w, y, &finish, scratch),
        }
    }
}

/// The ways of an input gradient.
enum InputGradient {
    /// A dense pass for each phase of the stride.
    Direct,
    Winograd(Winograd),
    Line(Line),
}

impl Conv2dDx {
    /// One pass by Winograd's algorithm, where it is one: not for strides.
    fn plan(&self, cpu: &Cpu, ins: &[Ty]) -> InputGradient {
        let (images, depth, cols) = (ins[0].shape.dims()[0], ins[0].shape.cols(), ins[1].shape.dims()[2]);
        let [phase] = &input_grad::phases(&self.geometry(), images)[..] else { return InputGradient::Direct };
        if let Some(line) = Line::choose(cpu, &phase.pass, depth, cols).filter(|_| self.math == Math::Full) {
            return InputGradient::Line(line);
        }
        let scheme = Scheme::choose(cpu, self.math, &phase.pass, [depth, cols], &Scheme::ALL);
        scheme.map_or(InputGradient::Direct, |scheme| InputGradient::Winograd(Winograd::new(cpu, scheme, &phase.pass, depth, cols)))
    }
}

impl Run<Cpu> for Conv2dDx {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], outs: &[Ty]) -> usize {
        if self.past.is_some() {
            return pointwise::scratch(cpu, self.math, ins[0], outs[0]);
        }
        let dy = ins[0].shape;
        let direct = || {
            let phases = input_grad::phases(&self.geometry(), dy.dims()[0]);
            phases.iter().map(|phase| convolve_scratch(cpu, &phase.pass, words(self.math, dy.cols()))).max().unwrap_or(0)
        };
        4 * match self.plan(cpu, ins) {
            InputGradient::Direct => direct(),
            InputGradient::Winograd(winograd) => winograd.scratch(),
            InputGradient::Line(line) => line.scratch(),
        }
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], outs: &[Ty]) -> usize {
        4 * match self.plan(cpu, ins) {
            InputGradient::Direct => packed_floats(cpu, self.geometry().taps_total() * words(self.math, ins[0].shape.cols()), outs[0].shape.cols()),
            InputGradient::Winograd(winograd) => winograd.filter_floats(),
            InputGradient::Line(line) => line.filter_floats(),
        }
    }

    fn amplification(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> f64 {
        match self.plan(cpu, ins) {
            InputGradient::Direct => 1.0,
            InputGradient::Winograd(winograd) => winograd.scheme().amplification(),
            InputGradient::Line(_) => line_amplification(),
        }
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        let (cpu, w, packed) = (call.device, call.src(1), call.derived());
        match self.plan(cpu, &call.in_types()) {
            InputGradient::Direct => input_grad::prepare(call, &self.geometry(), self.math),
            InputGradient::Winograd(winograd) => winograd.prepare_transposed(cpu, w, packed),
            InputGradient::Line(line) => line.prepare_transposed(cpu, w, packed),
        }
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        if let Some(act) = self.past {
            return pointwise::run(call, act, self.math);
        }
        let (cpu, dy, w, dx, scratch) = (call.device, call.src(0), call.derived().src(), call.dst(0), call.scratch());
        match self.plan(cpu, &call.in_types()) {
            InputGradient::Direct => input_grad::run(call, &self.geometry(), self.math),
            InputGradient::Winograd(winograd) => winograd.run(cpu, dy.into(), w, dx, &Finish::NONE, scratch),
            InputGradient::Line(line) => line.run(cpu, dy.into(), w, dx, &Finish::NONE, scratch),
        }
    }
}

/// The ways to a filter's gradient.
enum FilterGradient {
    Direct(FilterGrad),
    Product(ProductGrad),
    Winograd(WinogradFilterGrad, Scheme),
    Line(LineFilterGrad),
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
        if let Some(line) = LineFilterGrad::choose(cpu, &pass, cin, cout).filter(|_| self.math == Math::Full) {
            return FilterGradient::Line(line);
        }
        if pass.has_one_real_tap() {
            return FilterGradient::Product(ProductGrad::new(cpu, self.multiplies_in(ins), pass, cin, cout, self.pre.is_some()));
        }
        match Scheme::choose(cpu, self.math, &pass, [cin, cout], &Scheme::ALL) {
            Some(scheme) => FilterGradient::Winograd(WinogradFilterGrad::new(cpu, scheme, &pass, cin, cout), scheme),
            None => FilterGradient::Direct(FilterGrad::new(cpu, self.multiplies_in(ins), pass, cin, cout, self.pre.is_some())),
        }
    }
}

impl Run<Cpu> for Conv2dDw {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * match self.plan(cpu, ins) {
            FilterGradient::Direct(direct) => direct.scratch(),
            FilterGradient::Product(product) => product.scratch(),
            FilterGradient::Winograd(winograd, _) => winograd.scratch(),
            FilterGradient::Line(line) => line.scratch(),
        }
    }

    fn amplification(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> f64 {
        match self.plan(cpu, ins) {
            FilterGradient::Direct(_) | FilterGradient::Product(_) => 1.0,
            FilterGradient::Winograd(_, scheme) => scheme.amplification(),
            FilterGradient::Line(_) => line_amplification(),
        }
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, dy, dw, scratch) = (call.device, call.src(1), call.dst(0), call.scratch());
        let input = Input { x: call.src(0), pre: Prologue::of(call, self.pre, 2), math: self.multiplies_in(&call.in_types()) };
        match self.plan(cpu, &call.in_types()) {
            FilterGradient::Direct(direct) => direct.run(cpu, input, dy, dw, scratch),
            FilterGradient::Product(product) => product.run(cpu, input, dy, dw, scratch),
            FilterGradient::Winograd(winograd, _) => winograd.run(cpu, input, dy, dw, scratch),
            FilterGradient::Line(line) => line.run(cpu, input, dy, dw, scratch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Window;
    use crate::device::cpu::Isa;
    use crate::ops::conv2d::shapes::{DEEP, shapes};

    /// Whatever [`Scheme::choose`] weighs, the shapes that convolutions are tried on reach each scheme, forward and backward.
    #[test]
    fn every_scheme_is_tried() {
        let cpu = Cpu::with(Isa::best(), 2);
        let (mut forward, mut to_input, mut to_filter) = (Vec::new(), Vec::new(), Vec::new());
        let deep = DEEP.map(|(h, cin, cout)| (Window::same(3, 1), 1, [h, h], cin, cout));
        for (window, images, [h, w], cin, cout) in shapes().into_iter().chain(deep) {
            let ([kh, kw], [oh, ow]) = (window.kernel, window.on(h, w).unwrap().output);
            let [x, filter, dy] = [[images, h, w, cin], [kh, kw, cin, cout], [images, oh, ow, cout]].map(Ty::f32);
            if let Forward::Winograd(winograd) = Conv2d::new(window).plan(&cpu, &[x, filter]) {
                forward.push(winograd.scheme());
            }
            if let FilterGradient::Winograd(_, scheme) = Conv2dDw::new(window).plan(&cpu, &[x, dy]) {
                to_filter.push(scheme);
            }
            if let InputGradient::Winograd(winograd) = Conv2dDx::new(window, [h, w]).plan(&cpu, &[dy, filter]) {
                to_input.push(winograd.scheme());
            }
        }
        for scheme in Scheme::ALL {
            assert!(forward.contains(&scheme), "{scheme:?} forward");
            // Gradients may always take F(4x4), which costs no more than F(2x4) on three rows and more.
            let backward = to_input.contains(&scheme) && to_filter.contains(&scheme);
            assert!(scheme == Scheme::F23x43 || backward, "{scheme:?} backward");
        }
    }
}
