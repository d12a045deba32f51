//! One training step as a graph: the model's loss, its gradients, and one row that updates the whole trainable range.

use crate::device::Arena;
use crate::error::Result;
use crate::ir::{Builder, Graph, Phase, check};
use crate::models::Model;
use crate::ops::sgd::KNOBS;
use crate::ops::{Adam, ClipNorm, ClipValue, Largest, Sgd};
use crate::pass::grad;
use std::fmt;

/// The update rule, in Keras's form. The learning rate is not part of it: it is fed before each step.
#[derive(Clone, Debug, PartialEq)]
pub enum Optimizer {
    Sgd(Sgd),
    Adam(Adam),
}

impl Optimizer {
    /// Copies of the trainable range that the rule keeps: velocity, or Adam's two moments.
    pub fn slots(&self) -> usize {
        match self {
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum > 0.0),
            Optimizer::Adam(_) => 2,
        }
    }
}

impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Optimizer::Sgd(Sgd { momentum, nesterov, .. }) if *momentum > 0.0 => {
                write!(f, "sgd, {}momentum {momentum}", if *nesterov { "Nesterov " } else { "" })
            }
            Optimizer::Sgd(_) => f.write_str("sgd"),
            Optimizer::Adam(_) => f.write_str("adam"),
        }
    }
}

/// What is done to the gradients before the optimizer reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clip {
    #[default]
    None,
    /// All gradients together are scaled down to this norm: Keras's `global_clipnorm`.
    Norm(f64),
    /// Every element is brought within this distance of zero: Keras's `clipvalue`.
    Value(f64),
}

/// Appends to a training model's graph the gradients of its loss, which are left in [`Arena::Grads`], and one more output, `largest`
/// `[1]`, the largest magnitude of them. Rows that replace something (batch norm's moving statistics) come last, so that a step
/// whose loss or gradient is not finite can be given up before it has changed anything.
///
/// # Errors
/// When the model has no loss, or an op on the way has no gradient.
pub fn gradient_graph(model: &Model) -> Result<Graph> {
    let loss = model.graph.output("loss").expect("a training model has a loss");
    with_largest(grad::train(model.graph.clone(), loss)?)
}

/// Appends `largest`, and lets the rows that replace something come last.
fn with_largest(graph: Graph) -> Result<Graph> {
    let trainable = trainable(&graph);
    let mut b = Builder::resume(graph, Phase::Backward);
    b.at("optimizer");
    let grads = b.range(Arena::Grads, 0, trainable);
    let largest = b.op(Largest, &[grads]);
    b.output("largest", largest);
    let mut graph = b.finish()?;
    graph.nodes.sort_by_key(|node| node.phase == Phase::Update);
    Ok(graph)
}

/// Elements that are trained.
fn trainable(graph: &Graph) -> usize {
    graph.trainables().map(|v| graph.ty(v).shape.len()).sum()
}

/// Appends to a graph with gradients the rows that change the weights: clipping and the optimizer, each one row over the
/// flat trainable range. The graph gets one more input, `knobs` `[4]`: learning rate, and the number of the step from 1; and
/// with [`Clip::Norm`] one more output, `norm` `[1]`.
///
/// # Errors
/// When a setting of a row makes no sense.
pub fn with_update(graph: Graph, optimizer: &Optimizer, clip: Clip) -> Result<Graph> {
    let trainable = trainable(&graph);
    let mut b = Builder::resume(graph, Phase::Update);
    b.at("optimizer");
    let knobs = b.input("knobs", [KNOBS]);
    let params = b.range(Arena::Params, 0, trainable);
    let mut grads = b.range(Arena::Grads, 0, trainable);
    match clip {
        Clip::None => {}
        Clip::Norm(limit) => {
            let outs = b.update_all(ClipNorm { limit }, &[grads], &[grads]);
            b.output("norm", outs[1]);
            grads = outs[0];
        }
        Clip::Value(limit) => grads = b.update_all(ClipValue { limit }, &[grads], &[grads])[0],
    }
    let slots: Vec<_> = (0..optimizer.slots()).map(|copy| b.range(Arena::Slots, copy, trainable)).collect();
    let ins = [&[params, grads], &slots[..], &[knobs]].concat();
    let replaced = [&[params], &slots[..]].concat();
    match optimizer {
        Optimizer::Sgd(sgd) => b.update_all(sgd.clone(), &ins, &replaced),
        Optimizer::Adam(adam) => b.update_all(adam.clone(), &ins, &replaced),
    };
    let graph = b.finish()?;
    check(&graph)?;
    Ok(graph)
}

/// One training step: [`gradient_graph`], and [`with_update`] without clipping.
///
/// # Errors
/// As theirs.
pub fn training_graph(model: &Model, optimizer: &Optimizer) -> Result<Graph> {
    with_update(gradient_graph(model)?, optimizer, Clip::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::{Cpu, Isa};
    use crate::device::naive::Naive;
    use crate::exec::{Passes, Program, Session};
    use crate::ir::Init;
    use crate::ops::{Backend, BiasAdd, CrossEntropy, Dense, Emit};

    /// Weights and bias of a dense layer of 2 x 3 after steps of `sgd` on five samples, and the last step's loss.
    fn dense<D: Backend>(device: D, sgd: Sgd, clip: Clip, class_weights: [f64; 3], steps: usize) -> (Vec<f64>, Vec<f64>, f64) {
        let mut b = Builder::new();
        let (x, targets, weights) = (b.input("x", [5, 2]), b.input("targets", [5, 3]), b.input("weights", [5]));
        let (w, bias) = (b.at("dense").param("kernel", [2, 3], Init::Zeros), b.param("bias", [3], Init::Zeros));
        let logits = b.op(Dense, &[x, w]);
        let logits = b.op(BiasAdd, &[logits, bias]);
        let loss = b.emit(CrossEntropy { label_smoothing: 0.0 }.into(), &[logits, targets, weights])[0];
        b.output("loss", loss);
        let graph = with_update(grad::train(b.finish().unwrap(), loss).unwrap(), &Optimizer::Sgd(sgd), clip).unwrap();
        let mut program = Program::compile(graph, &device, Passes::default()).unwrap();
        let mut session = Session::new(device).unwrap();
        session.reserve(&program).unwrap();
        let labels = [0, 1, 2, 1, 1];
        let one_hot: Vec<f64> = labels.iter().flat_map(|&l| (0..3).map(move |k| f64::from(u8::from(k == l)))).collect();
        for (name, values) in [
            ("x", &[0.5, -1.0, 1.5, 2.0, -0.25, 0.75, 1.0, 0.0, 0.0, -0.5][..]),
            ("targets", &one_hot),
            ("weights", &labels.map(|l| class_weights[l])),
            ("dense/kernel", &[0.1, -0.2, 0.3, 0.4, 0.05, -0.6]),
            ("dense/bias", &[0.01, -0.02, 0.03]),
            ("knobs", &[0.5, 1.0, 0.0, 0.0]),
        ] {
            session.set(&program, name, values).unwrap();
        }
        (0..steps).for_each(|_| session.replay(&mut program, None).unwrap());
        let get = |name| session.get(&program, name).unwrap();
        (get("dense/kernel"), get("dense/bias"), get("loss")[0])
    }

    fn close(found: &[f64], expected: &[f64], tolerance: f64) {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= tolerance, "{found:?} {expected:?}");
        }
    }

    const PLAIN: Sgd = Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };

    // The numbers are those of Keras 3.15 in float64: `model.fit` on this layer, this data and these weights. 4e-8 is half a unit
    // of f32 at 0.5, to which Keras rounds class weights and limits; the rest are a few operations in f64.
    #[test]
    fn class_weights_weigh_as_in_keras() {
        let (w, b, loss) = dense(Naive, PLAIN, Clip::None, [5.0 / 3.0, 5.0 / 9.0, 5.0 / 3.0], 1);
        close(&[loss], &[1.5514257688017876], 1e-7);
        let kernel =
            [0.11134472125160874, -0.09572553799184838, 0.1843808167402396, 0.14268895795617004, 0.11202905034489062, -0.40471800830106064];
        close(&w, &kernel, 4e-8);
        close(&b, &[0.0008644674162396927, 0.008151906974332306, 0.010983625609427995], 4e-8);
    }

    #[test]
    fn clipping_clips_as_in_keras() {
        let momentum = Sgd { momentum: f64::from(0.9f32), ..PLAIN };
        let (w, b, _) = dense(Naive, momentum.clone(), Clip::Norm(0.1), [1.0; 3], 2);
        let kernel =
            [0.07205023622031184, -0.1342428449681744, 0.26219260874786254, 0.31986896491281164, 0.09071246120814976, -0.5605814261209614];
        close(&w, &kernel, 4e-8);
        close(&b, &[-0.02053341837715804, 0.036855007979063936, 0.0036784103980940924], 4e-8);
        let (w, b, _) = dense(Naive, momentum, Clip::Value(0.02), [1.0; 3], 2);
        let kernel =
            [0.0710000002384186, -0.17100000023841858, 0.2710000002384186, 0.3710000002384186, 0.07899999976158142, -0.5710000002384186];
        close(&w, &kernel, 4e-8);
        close(&b, &[-0.01899999976158142, 0.00899999976158142, 0.0010000002384185774], 4e-8);
    }

    #[test]
    fn clipping_does_not_hide_what_is_not_a_number() {
        for clip in [Clip::Norm(1.0), Clip::Value(1.0)] {
            let spoilt = |(w, _, _): (Vec<f64>, Vec<f64>, f64)| assert!(w.iter().all(|x| x.is_nan()), "{clip:?}");
            let weights = [f64::NAN, 1.0, 1.0];
            spoilt(dense(Naive, PLAIN, clip, weights, 1));
            let isas = Isa::ALL.into_iter().filter(|isa| isa.available());
            isas.for_each(|isa| spoilt(dense(Cpu::with(isa, 1), PLAIN, clip, weights, 1)));
        }
    }
}
