//! One training step as a graph: the model's loss, its gradients, and one row that updates the whole trainable range.

use crate::device::Arena;
use crate::error::Result;
use crate::ir::{Builder, Graph, Phase, check};
use crate::models::Model;
use crate::ops::{Adam, Sgd};
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

/// Length of the input `knobs`: learning rate, step counted from 1, and room.
pub const KNOBS: usize = 4;

/// Appends to a training model's graph the gradients of its loss and the optimizer's row over the flat trainable range.
/// The graph gets one more input, `knobs` `[4]`: learning rate, and the number of the step from 1.
///
/// # Errors
/// When the model has no loss, or an op on the way has no gradient.
pub fn training_graph(model: &Model, optimizer: &Optimizer) -> Result<Graph> {
    let trainable = model.trainable();
    let loss = model.graph.output("loss").expect("a training model has a loss");
    let graph = grad::train(model.graph.clone(), loss)?;
    let mut b = Builder::resume(graph, Phase::Update);
    b.at("optimizer");
    let knobs = b.input("knobs", [KNOBS]);
    let params = b.range(Arena::Params, 0, trainable);
    let grads = b.range(Arena::Grads, 0, trainable);
    let slots: Vec<_> = (0..optimizer.slots()).map(|copy| b.range(Arena::Slots, copy, trainable)).collect();
    let ins = [&[params, grads], &slots[..], &[knobs]].concat();
    let replaced = [&[params], &slots[..]].concat();
    match optimizer {
        Optimizer::Sgd(sgd) => b.update_all(sgd.clone(), &ins, &replaced),
        Optimizer::Adam(adam) => b.update_all(adam.clone(), &ins, &replaced),
    }
    let graph = b.finish()?;
    check(&graph)?;
    Ok(graph)
}
