//! Gradient rules against central finite differences, in f64 on the specification.

use super::draw::{Random, inputs};
use super::{Row, title};
use crate::base::{Precision, Val};
use crate::device::naive::{Array, Naive};
use crate::error::Result;
use crate::exec::{Passes, Program, Session};
use crate::ir::{Builder, Graph, Phase};
use crate::ops::{Case, Emit};
use crate::pass::plan::Options;
use crate::pass::{Fusions, vjp};

/// The step of a difference quotient: its error is of the order of `STEP^2` from the third derivative and `1e-16 / STEP`
/// from rounding.
const STEP: f64 = 1e-5;

/// At most so many elements of an input are varied.
const ELEMENTS: usize = 48;

const PLAIN: Passes = Passes { precision: Precision::F64, fusions: Fusions::NONE, plan: Options::PLAIN };

/// Compares, for each varied input `x`, the rule's `d <r, y> / dx` with `(<r, y(x + h)> - <r, y(x - h)>) / 2h`. The rule's
/// gradient is multiplied by `bend`, which is 1 except in a planted fault.
pub fn check(case: &Case, budget: f64, bend: f64) -> Result<Vec<Row>> {
    let varied: Vec<usize> = (0..case.ins.len()).filter(|&i| case.varied[i]).collect();
    if varied.is_empty() {
        return Ok(Vec::new());
    }
    let data = inputs(case);
    let (graph, xs, ys) = forward(case)?;
    let seeds: Vec<usize> = (0..ys.len()).filter(|j| case.seeds.as_ref().is_none_or(|s| s.contains(j))).collect();
    let mut random = Random(7);
    let weights: Vec<Vec<f64>> = seeds.iter().map(|&j| (0..graph.ty(ys[j]).shape.len()).map(|_| random.normal()).collect()).collect();

    let gradients = rule(graph.clone(), &xs, &ys, &varied, &seeds, &weights, &data)?;
    let mut sum = WeightedSum::new(graph, seeds, weights, &data)?;
    let mut rows = Vec::new();
    for (&i, gradient) in varied.iter().zip(gradients) {
        let (mut error, mut size) = (0.0f64, 0.0f64);
        let mut x = data[i].data.clone();
        for at in pick(x.len(), &mut random) {
            let middle = x[at];
            let mut side = |h: f64| -> Result<f64> {
                x[at] = middle + h;
                sum.at(i, &x)
            };
            let difference = (side(STEP)? - side(-STEP)?) / (2.0 * STEP);
            x[at] = middle;
            error += (bend * gradient[at] - difference).powi(2);
            size += difference.powi(2);
        }
        sum.at(i, &x)?;
        // A gradient of zero everywhere is compared absolutely.
        let share = error.sqrt() / size.sqrt().max(1e-3) / budget;
        rows.push(Row { case: title(case), check: format!("gradient by input {i}"), share, fault: None });
    }
    Ok(rows)
}

/// `<r, y>`, the number whose derivatives are compared.
struct WeightedSum {
    session: Session<Naive>,
    program: Program<Naive>,
    seeds: Vec<usize>,
    weights: Vec<Vec<f64>>,
}

impl WeightedSum {
    fn new(graph: Graph, seeds: Vec<usize>, weights: Vec<Vec<f64>>, data: &[Array]) -> Result<Self> {
        let program = Program::compile(graph, &Naive, PLAIN)?;
        let mut session = Session::new(Naive)?;
        session.reserve(&program)?;
        for (i, x) in data.iter().enumerate() {
            session.set(&program, &format!("x{i}"), &x.data[..])?;
        }
        Ok(WeightedSum { session, program, seeds, weights })
    }

    /// The sum with input `i` replaced by `x`.
    fn at(&mut self, i: usize, x: &[f64]) -> Result<f64> {
        self.session.set(&self.program, &format!("x{i}"), x)?;
        self.session.replay(&mut self.program, None)?;
        let dot = |(j, w): (&usize, &Vec<f64>)| {
            let y = self.session.get(&self.program, &format!("y{j}"))?;
            Ok(y.iter().zip(w).map(|(y, w)| y * w).sum::<f64>())
        };
        self.seeds.iter().zip(&self.weights).map(dot).sum()
    }
}

/// The op on inputs `x0, x1, ..`, with results named `y0, y1, ..`.
fn forward(case: &Case) -> Result<(Graph, Vec<Val>, Vec<Val>)> {
    let mut b = Builder::new();
    let xs: Vec<Val> = case.ins.iter().enumerate().map(|(i, &shape)| b.input(&format!("x{i}"), shape)).collect();
    let ys = b.at(title(case)).emit(case.op.clone(), &xs);
    ys.iter().enumerate().for_each(|(j, &y)| b.output(&format!("y{j}"), y));
    Ok((b.finish()?, xs, ys))
}

/// The rule's gradients of the weighted sum of results.
fn rule(
    graph: Graph,
    xs: &[Val],
    ys: &[Val],
    varied: &[usize],
    seeds: &[usize],
    weights: &[Vec<f64>],
    data: &[Array],
) -> Result<Vec<Vec<f64>>> {
    let mut b = Builder::resume(graph, Phase::Forward);
    let cotangents: Vec<(Val, Val)> = seeds.iter().map(|&j| (ys[j], b.input(&format!("r{j}"), b.shape(ys[j])))).collect();
    let wrt: Vec<Val> = varied.iter().map(|&i| xs[i]).collect();
    let (mut graph, gradients) = vjp(b.finish()?, &cotangents, &wrt)?;
    for (i, &g) in gradients.iter().enumerate() {
        graph.outputs.push((format!("g{i}"), g));
    }
    let mut program = Program::compile(graph, &Naive, PLAIN)?;
    let mut session = Session::new(Naive)?;
    session.reserve(&program)?;
    for (i, x) in data.iter().enumerate() {
        session.set(&program, &format!("x{i}"), &x.data[..])?;
    }
    for (j, w) in seeds.iter().zip(weights) {
        session.set(&program, &format!("r{j}"), &w[..])?;
    }
    session.replay(&mut program, None)?;
    (0..gradients.len()).map(|i| session.get(&program, &format!("g{i}"))).collect()
}

/// Which elements of an input are varied: all of a small one, a random choice of a large one.
fn pick(len: usize, random: &mut Random) -> Vec<usize> {
    if len <= ELEMENTS { (0..len).collect() } else { (0..ELEMENTS).map(|_| random.bits() as usize % len).collect() }
}
