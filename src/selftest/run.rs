//! One op on a device against the specification, operands laid out to show a stray access.
//!
//! Under a half-precision policy operands have the types that the precision pass gives them, and the specification computes on
//! the same rounded numbers: what is compared is the arithmetic, not the rounding of data.

pub use super::image::Layout;

use super::draw::{Random, inputs};
use super::image::Image;
use super::{MODES, Row, title};
use crate::base::{DType, Math, Precision, Ty};
use crate::device::naive::{Array, Naive};
use crate::device::{Arena, Arenas, Call, Operand, Write};
use crate::error::{Error, Result};
use crate::ops::{Backend, Case, Fill, Op, Storage};
use std::ops::Range;

/// How results meet their destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Set,
    Add,
    /// The first result in the memory of the input that the op names.
    InPlace,
}

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// One element is off by four budgets.
    Inexact,
    /// One element is never written.
    Unwritten,
    /// One element beside the results is overwritten.
    Stray,
}

impl Fault {
    /// The faults that the self-test plants.
    pub const PLANTED: [Fault; 3] = [Fault::Inexact, Fault::Unwritten, Fault::Stray];
}

/// In which types an op is tried, and how its operands lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    pub precision: Precision,
    pub layout: Layout,
}

impl How {
    /// Products of bf16 in the same layout.
    pub const BF16: How = How { precision: Precision::Bf16, layout: Layout::Odd };
    /// The plainest: f32 without alignment.
    pub const PLAIN: How = How { precision: Precision::F32, layout: Layout::Odd };
}

/// An op as a policy has it, with the types of its operands.
pub struct Typed {
    pub op: Op,
    pub ins: Vec<Ty>,
    pub outs: Vec<Ty>,
}

impl Typed {
    /// `None` where the policy changes nothing, which f32 has tried, and for a cast in f32 on a device that stores half precision.
    pub fn of(op: &Op, ins: &[Array], precision: Precision, stores_half: bool) -> Result<Option<Self>> {
        let mut op = op.clone();
        let (float, narrow) = (precision.float(), precision == Precision::Bf16 && stores_half);
        let plain: Vec<Ty> = ins.iter().map(|a| Ty { shape: a.shape, dtype: float }).collect();
        let narrows = op.infer(&plain).is_ok_and(|outs| outs.iter().any(|o| o.dtype == DType::Bf16));
        let differs = match precision {
            Precision::F64 | Precision::F32 => !stores_half || !narrows,
            Precision::Tf32 => op.multiply_in(Math::Tf32),
            Precision::Bf16 if narrow => narrows || (0..ins.len()).any(|i| half(&op, i, plain[i])),
            Precision::Bf16 => op.multiply_in(Math::Bf16),
        };
        if !differs {
            return Ok(None);
        }
        let typed = |(i, &ty): (usize, &Ty)| if narrow && half(&op, i, ty) { Ty { dtype: DType::Bf16, ..ty } } else { ty };
        let ins: Vec<Ty> = plain.iter().enumerate().map(typed).collect();
        let mut outs = op.infer(&ins).map_err(Error::internal)?;
        if !narrow {
            outs.iter_mut().for_each(|ty| ty.dtype = float); // of a cast, where there is one type
        }
        Ok(Some(Typed { op, ins, outs }))
    }

    /// The row whose results are the later ones of this row, with the types that it has here.
    fn epilogue(&self) -> Option<(Typed, Range<usize>)> {
        let (op, more) = self.op.epilogue()?;
        let ins = [&self.outs[..1], &self.ins[more.clone()]].concat();
        Some((Typed { op, ins, outs: self.outs[1..].to_vec() }, more))
    }

    /// An input as the device sees it: a convolution's operands as they are multiplied.
    fn rounded(&self, i: usize, x: &Array) -> Array {
        let math = self.op.math().filter(|_| i < 2).unwrap_or_default();
        x.map(|x| self.ins[i].dtype.round(math.round(x)))
    }

    /// Whether what the op multiplies is rounded after something was computed of it, and so not as the specification has it.
    fn rounds_within(&self) -> bool {
        let normalises = match &self.op {
            Op::Conv2d(op) => op.pre.is_some() || op.depthwise.is_some(),
            Op::Conv2dDw(op) => op.pre.is_some(),
            _ => false,
        };
        normalises && self.op.math() == Some(Math::Bf16)
    }
}

/// Whether an input is stored in half precision under a policy that does.
fn half(op: &Op, input: usize, ty: Ty) -> bool {
    ty.shape.rank() == 4 && op.storage(input) != Storage::Float
}

/// Runs a case on a device in every mode.
pub fn check<D: Backend>(case: &Case, device: &D, how: How, fault: Fault) -> Result<Vec<Row>> {
    if !device.fuses().covers(case.op.needs()) {
        return Ok(Vec::new()); // fusion makes no such row for this device
    }
    let drawn = inputs(case);
    let Some(typed) = Typed::of(&case.op, &drawn, how.precision, device.stores_half())? else { return Ok(Vec::new()) };
    let Some(exact) = Typed::of(&case.op, &drawn, Precision::F64, false)? else { return Ok(Vec::new()) };
    let ins: Vec<Array> = drawn.iter().enumerate().map(|(i, x)| typed.rounded(i, x)).collect();
    // Numbers that differ by less than the type holds are all one number: there is no variance left to compare.
    let collapsed =
        |(fill, ty): (&Fill, &Ty)| matches!(fill, Fill::Offset { mean, deviation } if *deviation < mean.abs() * ty.dtype.roundoff());
    if case.fill.iter().zip(&typed.ins).any(collapsed) {
        return Ok(Vec::new());
    }
    let mut random = Random(11);
    let old: Vec<Array> = typed.outs.iter().map(|ty| random.array(Fill::Normal, ty.shape).map(|x| ty.dtype.round(x))).collect();
    let in_place = (0..typed.outs.len()).any(|out| in_place(&typed, out).is_some());
    let (mut rows, mut stored) = (Vec::new(), None);
    for mode in MODES.into_iter().filter(|&m| m != Mode::InPlace || in_place) {
        let expected = execute(&Naive, &exact, &ins, &old, mode, Layout::Odd, Fault::None)?.map_err(Error::internal)?;
        if let Some(x) = expected.iter().flat_map(|e| &e.data).find(|x| !x.is_finite()) {
            let fault = Some(format!("the specification itself gives {x}"));
            rows.push(Row { case: title(case), check: "naive".into(), share: 0.0, fault });
            continue;
        }
        let (share, fault) = match execute(device, &typed, &ins, &old, mode, how.layout, fault)? {
            Ok(found) => {
                // What is taken of the first result is taken before that is added to what lies there: the modes begin with one that sets.
                let stored = stored.get_or_insert_with(|| found[0].clone());
                let later = later(&typed, stored, &ins, &old[1..], mode)?;
                (worst(device, &typed, &found, &expected, later), None)
            }
            Err(fault) => (0.0, Some(fault)),
        };
        let aligned = if how.layout == Layout::Aligned { " aligned" } else { "" };
        let check = format!("{} {} {mode:?}{aligned}", device.describe(), how.precision);
        rows.push(Row { case: title(case), check, share, fault });
    }
    Ok(rows)
}

/// The input whose memory a result takes over, if they are of one type.
fn in_place(typed: &Typed, out: usize) -> Option<usize> {
    typed.op.in_place(out).filter(|&input| typed.ins[input] == typed.outs[out])
}

/// What the later results of a row should be that takes them of its first as the device stored it, with that row.
fn later(typed: &Typed, stored: &Array, ins: &[Array], old: &[Array], mode: Mode) -> Result<Option<(Typed, Vec<Array>)>> {
    let Some((row, more)) = typed.epilogue() else { return Ok(None) };
    let read = [std::slice::from_ref(stored), &ins[more]].concat();
    let exact = Typed::of(&row.op, &read, Precision::F64, false)?.expect("f64 runs everything");
    let expected = execute(&Naive, &exact, &read, old, mode, Layout::Odd, Fault::None)?.map_err(Error::internal)?;
    Ok(Some((row, expected)))
}

/// The worst share of all results, each within its own budget.
fn worst<D: Backend>(device: &D, typed: &Typed, found: &[Array], expected: &[Array], later: Option<(Typed, Vec<Array>)>) -> f64 {
    let shares = |row: &Typed, found: &[Array], expected: &[Array]| {
        (0..found.len()).map(|j| share(device, row, j, &found[j], &expected[j])).fold(0.0, f64::max)
    };
    match later {
        None => shares(typed, found, expected),
        Some((row, rest)) => shares(typed, &found[..1], expected).max(shares(&row, &found[1..], &rest)),
    }
}

/// The largest difference as a share of the budget.
fn share<D: Backend>(device: &D, typed: &Typed, out: usize, y: &Array, expected: &Array) -> f64 {
    let difference = |(a, b): (&f64, &f64)| if a.is_finite() { (a - b).abs() } else { f64::INFINITY };
    y.data.iter().zip(&expected.data).map(difference).fold(0.0, f64::max) / budget(device, typed, out, expected)
}

/// The rounding of a chain of `terms` additions in f32, taken as a random walk (`4 sqrt(terms)` units of the largest result), some
/// units for the op's own arithmetic, times what the algorithm that the device takes enlarges errors by; for a narrower result its own
/// rounding; and where operands are rounded on the way, one such rounding: those of the terms are independent, so that their sum keeps
/// to the result as one keeps to its term.
fn budget<D: Backend>(device: &D, typed: &Typed, out: usize, expected: &Array) -> f64 {
    let terms = typed.op.terms(&typed.ins, &typed.outs) as f64;
    let largest = expected.data.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
    let stored = typed.outs[out].dtype.roundoff();
    let narrow = if stored > DType::F32.roundoff() { stored } else { 0.0 };
    let within = if typed.rounds_within() { DType::Bf16.roundoff() } else { 0.0 };
    let amplification = device.amplification(&typed.op, &typed.ins, &typed.outs);
    (DType::F32.roundoff() * (8.0 + 4.0 * terms.sqrt()) * amplification + narrow + within) * largest
}

/// One run of an op: its results, or what was overwritten that should not have been.
pub(super) fn execute<D: Backend>(
    device: &D,
    typed: &Typed,
    ins: &[Array],
    old: &[Array],
    mode: Mode,
    layout: Layout,
    fault: Fault,
) -> Result<Result<Vec<Array>, String>> {
    let Typed { op, ins: in_types, outs: out_types } = typed;
    let mut image = Image::new(layout);
    let weight = |operand: usize| op.weights().contains(&operand);
    let sources: Vec<Operand> = in_types.iter().enumerate().map(|(i, &ty)| image.place(ty, weight(i), Write::Set)).collect();
    let write = if mode == Mode::Add { Write::Add } else { Write::Set };
    let results: Vec<Operand> = (out_types.iter().enumerate())
        .map(|(j, &ty)| match in_place(typed, j).filter(|_| mode == Mode::InPlace) {
            Some(input) => sources[input],
            None => image.place(ty, weight(ins.len() + j), write),
        })
        .collect();
    sources.iter().zip(ins).for_each(|(operand, array)| image.fill(operand, array));
    if mode == Mode::Add {
        results.iter().zip(old).for_each(|(operand, array)| image.fill(operand, array));
    }
    let before = image.bytes.clone();
    let scratch = (before.len().next_multiple_of(64), device.scratch(op, in_types, out_types));
    let derived = device.derived(op, in_types, out_types);
    let mut arenas = Arenas::new(device)?;
    arenas.ensure(device, Arena::Derived, derived)?;
    arenas.ensure(device, Arena::Temps, scratch.0 + scratch.1 + 64)?;
    device.write(arenas.get_mut(Arena::Temps), 0, &before);
    let derived = Some((Arena::Derived, 0, derived));
    let call = Call { device, arenas: &arenas, ins: &sources, outs: &results, scratch: Some(scratch), derived };
    D::prepare(op, &call);
    D::run(op, &call);
    image.read_back(device, &arenas);
    if let Err(error) = device.sync() {
        return Ok(Err(error.to_string()));
    }
    let spoilt = budget(device, typed, 0, &image.read(&results[0]));
    image.plant(&before, &results[0], spoilt, fault);
    if let Some(i) = image.stray(&before, &results) {
        let [was, is] = [before[i], image.bytes[i]];
        return Ok(Err(format!("byte {i} of memory, which belongs to none of the results, was {was:#04x} and is {is:#04x}")));
    }
    Ok(Ok(results.iter().map(|o| image.read(o)).collect()))
}
