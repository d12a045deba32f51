//! One op on a device against the specification, operands laid out to show a stray access.

use super::draw::{Random, inputs};
use super::{MODES, Row, title};
use crate::base::{DType, Ty};
use crate::device::naive::{Array, Naive};
use crate::device::{Arena, Arenas, Call, Device, Operand, Place, Write};
use crate::error::Result;
use crate::ops::{Backend, Case, Op};

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

/// Elements between rows and around operands.
const GAP: usize = 3;

/// Runs a case on a device in every mode.
pub fn check<D: Backend>(case: &Case, device: &D, fault: Fault) -> Result<Vec<Row>> {
    let ins = inputs(case);
    let mut random = Random(11);
    let shapes = case.op.infer(&types(&ins, DType::F64)).map_err(crate::error::Error::internal)?;
    let old: Vec<Array> = shapes.iter().map(|ty| random.array(crate::ops::Fill::Normal, ty.shape)).collect();
    let in_place = (0..shapes.len()).any(|out| case.op.in_place(out).is_some());
    let mut rows = Vec::new();
    for mode in MODES.into_iter().filter(|&m| m != Mode::InPlace || in_place) {
        let expected = execute(&Naive, &case.op, &ins, &old, mode, Fault::None)?.map_err(crate::error::Error::internal)?;
        if let Some(x) = expected.iter().flat_map(|e| &e.data).find(|x| !x.is_finite()) {
            let fault = Some(format!("the specification itself gives {x}"));
            rows.push(Row { case: title(case), check: "naive".into(), share: 0.0, fault });
            continue;
        }
        let (share, fault) = match execute(device, &case.op, &ins, &old, mode, fault)? {
            Ok(found) => (found.iter().zip(&expected).map(|(y, e)| share(device, &case.op, &ins, y, e)).fold(0.0, f64::max), None),
            Err(fault) => (0.0, Some(fault)),
        };
        rows.push(Row { case: title(case), check: format!("{} {mode:?}", device.describe()), share, fault });
    }
    Ok(rows)
}

pub(super) fn types(arrays: &[Array], dtype: DType) -> Vec<Ty> {
    arrays.iter().map(|a| Ty { shape: a.shape, dtype }).collect()
}

/// The largest difference as a share of the budget: the rounding of a chain of `terms` additions, taken as a random walk
/// (`4 sqrt(terms)` units of the largest result), and some units for the op's own arithmetic; times what the algorithm that the
/// device takes enlarges errors by.
fn share<D: Backend>(device: &D, op: &Op, ins: &[Array], y: &Array, expected: &Array) -> f64 {
    let difference = |(a, b): (&f64, &f64)| if a.is_finite() { (a - b).abs() } else { f64::INFINITY };
    y.data.iter().zip(&expected.data).map(difference).fold(0.0, f64::max) / budget(device, op, ins, expected)
}

fn budget<D: Backend>(device: &D, op: &Op, ins: &[Array], expected: &Array) -> f64 {
    let types = types(ins, DType::F32);
    let outs = op.infer(&types).unwrap_or_default();
    let terms = if outs.is_empty() { 1.0 } else { op.terms(&types, &outs) as f64 };
    let largest = expected.data.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
    DType::F32.roundoff() * (8.0 + 4.0 * terms.sqrt()) * device.amplification(op, &types, &outs) * largest
}

/// An image of the temps arena on the host, with the operands' places in it.
struct Image {
    cells: Vec<f64>,
    size: usize,
}

impl Image {
    /// Makes room for an operand: activations get gaps between rows, weights (which never have any) none.
    fn place(&mut self, ty: Ty, weight: bool, write: Write) -> Operand {
        let cols = ty.shape.cols();
        let pitch = if weight || ty.shape.rank() == 1 { cols } else { cols + GAP };
        self.cells.resize(self.cells.len() + GAP, f64::NAN);
        let place = Place { arena: Arena::Temps, offset: self.cells.len() * self.size, pitch };
        self.cells.resize(self.cells.len() + ty.shape.rows() * pitch + GAP, f64::NAN);
        Operand { ty, place, write }
    }

    /// Where element `i` of an operand lies.
    fn at(&self, operand: &Operand, i: usize) -> usize {
        let cols = operand.ty.shape.cols();
        operand.place.offset / self.size + i / cols * operand.place.pitch + i % cols
    }

    fn fill(&mut self, operand: &Operand, array: &Array) {
        for (i, &x) in array.data.iter().enumerate() {
            let at = self.at(operand, i);
            self.cells[at] = x;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self.size {
            8 => bytemuck::cast_slice(&self.cells).to_vec(),
            _ => self.cells.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
        }
    }

    fn read_back<D: Device>(&mut self, device: &D, arenas: &Arenas<D>) {
        let mut bytes = vec![0; self.cells.len() * self.size];
        device.read(arenas.get(Arena::Temps), 0, &mut bytes);
        self.cells = match self.size {
            8 => bytemuck::pod_collect_to_vec(&bytes),
            _ => bytemuck::pod_collect_to_vec::<u8, f32>(&bytes).into_iter().map(f64::from).collect(),
        };
    }
}

/// One run of an op: its results, or what was overwritten that should not have been.
pub(super) fn execute<D: Backend>(
    device: &D,
    op: &Op,
    ins: &[Array],
    old: &[Array],
    mode: Mode,
    fault: Fault,
) -> Result<Result<Vec<Array>, String>> {
    let dtype = device.float();
    let in_types = types(ins, dtype);
    let out_types = types(old, dtype);
    let mut image = Image { cells: Vec::new(), size: dtype.size() };
    let weight = |operand: usize| op.weights().contains(&operand);
    let sources: Vec<Operand> = in_types.iter().enumerate().map(|(i, &ty)| image.place(ty, weight(i), Write::Set)).collect();
    let write = if mode == Mode::Add { Write::Add } else { Write::Set };
    let results: Vec<Operand> = (out_types.iter().enumerate())
        .map(|(j, &ty)| match op.in_place(j).filter(|_| mode == Mode::InPlace) {
            Some(input) => sources[input],
            None => image.place(ty, weight(ins.len() + j), write),
        })
        .collect();
    sources.iter().zip(ins).for_each(|(operand, array)| image.fill(operand, array));
    if mode == Mode::Add {
        results.iter().zip(old).for_each(|(operand, array)| image.fill(operand, array));
    }
    let before = image.cells.clone();
    let scratch = ((image.cells.len() * image.size).next_multiple_of(64), device.scratch(op, &in_types, &out_types));
    let derived = device.derived(op, &in_types, &out_types);
    let mut arenas = Arenas::new(device)?;
    arenas.ensure(device, Arena::Derived, derived)?;
    arenas.ensure(device, Arena::Temps, scratch.0 + scratch.1 + 64)?;
    device.write(arenas.get_mut(Arena::Temps), 0, &image.bytes());
    let call = Call {
        device,
        arenas: &arenas,
        ins: &sources,
        outs: &results,
        scratch: Some(scratch),
        derived: Some((Arena::Derived, 0, derived)),
    };
    D::prepare(op, &call);
    D::run(op, &call);
    image.read_back(device, &arenas);
    let result = &results[0];
    let values: Vec<f64> = (0..result.ty.shape.len()).map(|i| image.cells[image.at(result, i)]).collect();
    plant(&mut image, &before, result, budget(device, op, ins, &Array { shape: result.ty.shape, data: values }), fault);

    let mut result = vec![false; before.len()];
    results.iter().for_each(|o| (0..o.ty.shape.len()).for_each(|i| result[image.at(o, i)] = true));
    let rounded = |x: f64| if image.size == 4 { f64::from(x as f32) } else { x };
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    if let Some(i) = (0..before.len()).find(|&i| !result[i] && !same(rounded(before[i]), image.cells[i])) {
        return Ok(Err(format!(
            "element {i} of memory, which belongs to none of the results, was {} and is {}",
            before[i], image.cells[i]
        )));
    }
    let read = |o: &Operand| Array { shape: o.ty.shape, data: (0..o.ty.shape.len()).map(|i| image.cells[image.at(o, i)]).collect() };
    Ok(Ok(results.iter().map(read).collect()))
}

/// Spoils what a correct run left behind, at the last element of a result.
fn plant(image: &mut Image, before: &[f64], result: &Operand, budget: f64, fault: Fault) {
    let at = image.at(result, result.ty.shape.len() - 1);
    match fault {
        Fault::None => {}
        Fault::Inexact => image.cells[at] += 4.0 * budget,
        Fault::Unwritten => image.cells[at] = before[at],
        Fault::Stray => image.cells[at + 1] = 1.0,
    }
}
