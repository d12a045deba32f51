//! The ops: what a row of a graph can be.
//!
//! One op, one folder: `mod.rs` has the formula, the parameters, shape inference, the gradient rule, the cost and the
//! awkward shapes it must be tested on; `naive.rs` is the specification in f64; `cpu.rs` the fast version. An op's gradient
//! ops are ordinary ops and live in the same folder. One line in the list at the end of this file makes the enum [`Op`] and
//! every dispatch; a gradient rule, a case list or a device that is missing does not compile.

mod window;

use crate::base::{Math, Shape, Ty, Val};
use crate::device::cpu::Cpu;
use crate::device::cuda::Cuda;
use crate::device::naive::Naive;
use crate::device::{Call, Device, Fusible};
use crate::error::Result;
use std::fmt::{self, Debug};
use std::ops::Range;

#[cfg(test)]
mod norm_testing;

/// What an op is: everything about it that does not depend on a device.
pub trait Rule: Clone + PartialEq + Debug + Into<Op> {
    /// The op's name in printed graphs: `conv2d`.
    const NAME: &'static str;
    /// What it computes, on one line, with every field filled.
    const FORMULA: &'static str;
    /// The file that defines it: `src/ops/conv2d/mod.rs`.
    const SOURCE: &'static str;

    /// What it computes as its fields are.
    fn formula(&self) -> String {
        Self::FORMULA.into()
    }

    /// The types of the results. An error says what was found and what was expected; the layer's name is added by the builder.
    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String>;

    /// The gradient rule (vector-Jacobian product): given the gradients `dys` of the results (`None`: nothing flows back
    /// there), emits rows for the gradients of those inputs that `at.wants` names and returns them in input order.
    ///
    /// An op that is itself part of a backward pass or an update says so in the `Err`.
    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str>;

    /// Floating-point operations of one run, a multiply-add counted as two.
    fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64;

    /// How many terms are summed into one element of a result: with the number type, it settles the error budget.
    fn terms(&self, ins: &[Ty], outs: &[Ty]) -> usize {
        let _ = (ins, outs);
        1
    }

    /// Of a row that takes something of its first result as that is stored, its epilogue: the row that would take it, and the inputs
    /// that this one reads after the first result. Its results are the later ones of the row; the errors of the first are not theirs.
    fn epilogue(&self) -> Option<(Op, Range<usize>)> {
        None
    }

    /// The input whose memory result `out` may take over: the op reads each element of it before it writes that element.
    fn in_place(&self, out: usize) -> Option<usize> {
        let _ = out;
        None
    }

    /// Operands that are parameters or gradients of parameters, inputs counted first and results after: they lie without
    /// gaps between rows.
    fn weights(&self) -> &'static [usize] {
        &[]
    }

    /// What a half-precision policy stores input `input` in.
    fn storage(&self, input: usize) -> Storage {
        let _ = input;
        Storage::Float
    }

    /// The shapes the op must be right on.
    fn cases() -> Vec<Case>;

    /// The parameters as a person reads them: `3x3/2 same`.
    fn detail(&self) -> String {
        String::new()
    }
}

/// What a half-precision policy stores an input of an op in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// f32: weights that multiply channel by channel, statistics, coefficients, features, the loss.
    Float,
    /// bf16, if it has pixels: activations, their gradients, filters.
    Half,
    /// Whatever it is in already; all such inputs of a row in one type.
    Alike,
}

/// How an op runs on a device.
pub trait Run<D: Device>: Rule {
    /// Bytes of working memory of one run.
    fn scratch(&self, device: &D, ins: &[Ty], outs: &[Ty]) -> usize {
        let _ = (device, ins, outs);
        0
    }

    /// Bytes of packed weights that [`Run::prepare`] makes and [`Run::run`] reads.
    fn derived(&self, device: &D, ins: &[Ty], outs: &[Ty]) -> usize {
        let _ = (device, ins, outs);
        0
    }

    /// By how much the algorithm that the device takes for these shapes enlarges rounding errors against plain sums of
    /// [`Rule::terms`] terms: a factor of the error budget.
    fn amplification(&self, device: &D, ins: &[Ty], outs: &[Ty]) -> f64 {
        let _ = (device, ins, outs);
        1.0
    }

    /// Rebuilds the packed weights; called before `run` whenever their source (a parameter among the inputs) has changed.
    fn prepare(&self, call: &Call<'_, D>) {
        let _ = call;
    }

    /// Computes the results.
    fn run(&self, call: &Call<'_, D>);
}

/// The values around a row, for its gradient rule.
pub struct Site<'a> {
    pub ins: &'a [Val],
    pub outs: &'a [Val],
    /// For each input, whether its gradient is asked for.
    pub wants: &'a [bool],
}

/// What a gradient rule may do: look at types and emit rows.
pub trait Emit {
    /// The type of a value.
    fn ty(&self, v: Val) -> Ty;
    /// Appends a row and returns its results.
    fn emit(&mut self, op: Op, ins: &[Val]) -> Vec<Val>;
}

impl dyn Emit + '_ {
    /// Appends a row with one result.
    pub fn one(&mut self, op: impl Into<Op>, ins: &[Val]) -> Val {
        self.emit(op.into(), ins)[0]
    }
}

/// How the elements of a case's input are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Standard normal.
    Normal,
    /// Normal around a mean, for data that is far from zero against its spread.
    Offset { mean: f64, deviation: f64 },
    /// Uniform in 0.5..1.5: variances, scales.
    Positive,
    /// All different, at least 1e-2 apart, in random order: no ties in a pool, nothing near a kink at zero.
    Distinct,
    /// Small integers -1, 0, 1: ties everywhere. Finite differences are not taken.
    Ties,
    /// Rows that sum to one with a single 1.
    OneHot,
    /// The given constants, repeated: knobs of an optimizer.
    Values(&'static [f64]),
}

/// One awkward shape of an op, with data to try it on.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub op: Op,
    pub ins: Vec<Shape>,
    pub fill: Vec<Fill>,
    /// Inputs whose gradient is compared with finite differences.
    pub varied: Vec<bool>,
    /// Results that a gradient flows back into; `None` for all.
    pub seeds: Option<Vec<usize>>,
}

impl Case {
    /// A case on normal data, with the gradients of all inputs checked.
    pub fn new<S: Into<Shape> + Copy>(name: impl Into<String>, op: impl Into<Op>, ins: &[S]) -> Self {
        let ins: Vec<Shape> = ins.iter().map(|&s| s.into()).collect();
        Self::of(name, op, ins)
    }

    /// As [`Case::new`], for inputs of different ranks.
    pub fn of(name: impl Into<String>, op: impl Into<Op>, ins: Vec<Shape>) -> Self {
        Case { name: name.into(), op: op.into(), fill: vec![Fill::Normal; ins.len()], varied: vec![true; ins.len()], seeds: None, ins }
    }

    /// Draws input `i` in another way.
    pub fn fill(mut self, i: usize, fill: Fill) -> Self {
        self.fill[i] = fill;
        if fill == Fill::Ties {
            self.varied.fill(false);
        }
        self
    }

    /// Does not vary input `i`: a target, a knob, or an input the op has no gradient for.
    pub fn constant(mut self, i: usize) -> Self {
        self.varied[i] = false;
        self
    }

    /// Lets a gradient flow back into these results alone.
    pub fn seeds(mut self, results: &[usize]) -> Self {
        self.seeds = Some(results.to_vec());
        self
    }

    /// Takes no finite differences: an op of a backward pass or an update.
    pub fn forward_only(mut self) -> Self {
        self.varied.fill(false);
        self
    }
}

/// Checks the number of inputs of a row.
pub fn arity(ins: &[Ty], expected: usize) -> Result<(), String> {
    if ins.len() == expected { Ok(()) } else { Err(format!("has {} inputs, expects {expected}", ins.len())) }
}

/// Checks that an input is a vector with one element per channel.
pub fn per_channel(what: &str, ty: Ty, channels: usize) -> Result<(), String> {
    if ty.shape == Shape::from([channels]) {
        return Ok(());
    }
    Err(format!("{what} has shape {}, expects one value for each of {channels} channels", ty.shape))
}

/// Checks that inputs are of one number type.
pub fn same_type(ins: &[Ty]) -> Result<(), String> {
    match ins.iter().find(|ty| ty.dtype != ins[0].dtype) {
        Some(ty) => Err(format!("has inputs of {} and of {}", ins[0].dtype, ty.dtype)),
        None => Ok(()),
    }
}

/// Checks that an input has the shape of another.
pub fn same_shape(what: &str, ty: Ty, other: &str, like: Ty) -> Result<(), String> {
    if ty.shape == like.shape { Ok(()) } else { Err(format!("{what} has shape {}, expects {} as {other}", ty.shape, like.shape)) }
}

/// The refusal of an op that belongs to a backward pass or an update.
pub const NO_SECOND_DERIVATIVE: &str = "belongs to a backward pass or an update, and has no gradient itself";

macro_rules! ops {
    ($($module:ident :: { $($name:ident),+ $(,)? }),+ $(,)?) => {
        $(pub mod $module; pub use $module::{$($name),+};)+

        /// What one row of a graph does.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Op { $($(#[allow(missing_docs)] $name($name)),+),+ }

        $($(impl From<$name> for Op { fn from(op: $name) -> Op { Op::$name(op) } })+)+

        macro_rules! each {
            ($op:expr, $rule:ident => $body:expr) => { match $op { $($(Op::$name($rule) => $body),+),+ } };
        }

        impl Op {
            /// The name in printed graphs.
            pub fn name(&self) -> &'static str { match self { $($(Op::$name(_) => $name::NAME),+),+ } }
            /// See [`Rule::formula`].
            pub fn formula(&self) -> String { each!(self, op => op.formula()) }
            /// The defining file.
            pub fn source(&self) -> &'static str { match self { $($(Op::$name(_) => $name::SOURCE),+),+ } }
            /// See [`Rule::infer`].
            pub fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> { each!(self, op => op.infer(ins)) }
            /// See [`Rule::vjp`].
            pub fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
                each!(self, op => op.vjp(at, dys, e))
            }
            /// See [`Rule::flops`].
            pub fn flops(&self, ins: &[Ty], outs: &[Ty]) -> u64 { each!(self, op => op.flops(ins, outs)) }
            /// See [`Rule::terms`].
            pub fn terms(&self, ins: &[Ty], outs: &[Ty]) -> usize { each!(self, op => op.terms(ins, outs)) }
            /// See [`Rule::epilogue`].
            pub fn epilogue(&self) -> Option<(Op, Range<usize>)> { each!(self, op => op.epilogue()) }
            /// See [`Rule::in_place`].
            pub fn in_place(&self, out: usize) -> Option<usize> { each!(self, op => op.in_place(out)) }
            /// See [`Rule::weights`].
            pub fn weights(&self) -> &'static [usize] { each!(self, op => op.weights()) }
            /// See [`Rule::storage`].
            pub fn storage(&self, input: usize) -> Storage { each!(self, op => op.storage(input)) }
            /// See [`Rule::detail`].
            pub fn detail(&self) -> String { each!(self, op => op.detail()) }
            /// The cases of every op in the list.
            pub fn cases() -> Vec<Case> { let mut all = Vec::new(); $($(all.extend($name::cases());)+)+ all }
            /// The names of all ops, in the order of the list.
            pub fn names() -> Vec<&'static str> { vec![$($($name::NAME),+),+] }
        }

        /// The CUDA kernels that ops declare.
        pub fn kernels() -> Vec<crate::device::cuda::driver::Declared> {
            let mut all = [crate::device::cuda::columns::declared(), crate::device::cuda::apart::declared()].concat();
            $(all.extend($module::cuda::declared());)+
            all
        }

        /// A device that runs every op of the list.
        pub trait Backend: Device {
            /// See [`Run::scratch`].
            fn scratch(&self, op: &Op, ins: &[Ty], outs: &[Ty]) -> usize;
            /// See [`Run::derived`].
            fn derived(&self, op: &Op, ins: &[Ty], outs: &[Ty]) -> usize;
            /// See [`Run::amplification`].
            fn amplification(&self, op: &Op, ins: &[Ty], outs: &[Ty]) -> f64;
            /// See [`Run::prepare`].
            fn prepare(op: &Op, call: &Call<'_, Self>);
            /// See [`Run::run`].
            fn run(op: &Op, call: &Call<'_, Self>);
        }

        macro_rules! backend {
            ($device:ty) => {
                impl Backend for $device {
                    fn scratch(&self, op: &Op, ins: &[Ty], outs: &[Ty]) -> usize {
                        each!(op, op => Run::<$device>::scratch(op, self, ins, outs))
                    }
                    fn derived(&self, op: &Op, ins: &[Ty], outs: &[Ty]) -> usize {
                        each!(op, op => Run::<$device>::derived(op, self, ins, outs))
                    }
                    fn amplification(&self, op: &Op, ins: &[Ty], outs: &[Ty]) -> f64 {
                        each!(op, op => Run::<$device>::amplification(op, self, ins, outs))
                    }
                    fn prepare(op: &Op, call: &Call<'_, Self>) { each!(op, op => Run::<$device>::prepare(op, call)) }
                    fn run(op: &Op, call: &Call<'_, Self>) {
                        call.device.before(call);
                        each!(op, op => Run::<$device>::run(op, call));
                        call.device.after(call);
                    }
                }
            };
        }
    };
}

impl Op {
    /// In which arithmetic a convolution multiplies operands of f32.
    pub fn math(&self) -> Option<Math> {
        match self {
            Op::Conv2d(op) => Some(op.math),
            Op::Conv2dDx(op) => Some(op.math),
            Op::Conv2dDw(op) => Some(op.math),
            _ => None,
        }
    }

    /// Has a convolution multiply in another arithmetic; whether it is one.
    pub fn multiply_in(&mut self, math: Math) -> bool {
        let field = match self {
            Op::Conv2d(op) => &mut op.math,
            Op::Conv2dDx(op) => &mut op.math,
            Op::Conv2dDw(op) => &mut op.math,
            _ => return false,
        };
        *field = math;
        true
    }
}

impl Op {
    /// Which of the fields that not every device runs fusion has filled (see [`Device::fuses`]).
    pub fn needs(&self) -> Fusible {
        let normalises = |pre: Option<Act>| Fusible { inputs: pre.is_some(), ..Fusible::default() };
        match self {
            Op::Conv2d(op) => Fusible { stats: op.stats, ..normalises(op.pre.or(op.depthwise)) },
            Op::Conv2dDx(op) => Fusible { gradients: op.mask.or(op.sums).is_some(), ..normalises(op.past) },
            Op::Conv2dDw(op) => normalises(op.pre),
            Op::Depthwise(op) => normalises(op.pre),
            Op::DepthwiseDw(op) => normalises(op.pre),
            _ => Fusible::default(),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let detail = self.detail();
        if detail.is_empty() { Ok(()) } else { write!(f, " {detail}") }
    }
}

pub use activation::Act;
pub use cast::MOST_CASTS;

// The list: a folder and the ops it defines, forward first, then its gradients.
ops! {
    preprocess::{ Preprocess, PreprocessDx },
    conv2d::{ Conv2d, Conv2dDx, Conv2dDw },
    depthwise::{ Depthwise, DepthwiseDx, DepthwiseDw },
    dense::{ Dense, DenseDx, DenseDw },
    bias_add::{ BiasAdd, ColumnSum },
    activation::{ Activation, ActivationDx },
    channel_stats::{ ChannelStats, ChannelStatsDx },
    bn_coefficients::{ BnCoefficients, BnCoefficientsDx },
    scale_shift::{ ScaleShift, ScaleShiftSums, ScaleShiftDx },
    moving_average::{ MovingAverage },
    max_pool::{ MaxPool, MaxPoolDx },
    avg_pool::{ AvgPool, AvgPoolDx },
    global_avg_pool::{ GlobalAvgPool, GlobalAvgPoolDx },
    add::{ Add },
    cast::{ Cast, WeightCast },
    concat::{ Concat, Columns, PadColumns },
    softmax::{ Softmax, SoftmaxDx },
    cross_entropy::{ CrossEntropy, CrossEntropyDx },
    constant::{ Constant },
    largest::{ Largest },
    clip::{ ClipNorm, ClipValue },
    sgd::{ Sgd },
    adam::{ Adam },
}

backend!(Naive);
backend!(Cpu);
backend!(Cuda);
