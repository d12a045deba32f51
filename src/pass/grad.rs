//! Reverse-mode differentiation: a loop over the rows from last to first that appends more rows to the same graph.
//!
//! A value's gradient is the sum of what its readers send back. Where several do, the sum is one `add` row, and the planner
//! turns that row into "the first contribution sets, later ones add" without a pass over memory.

use crate::base::Val;
use crate::error::{Error, Result};
use crate::ir::{Builder, Graph, Phase, Role};
use crate::ops::{Add, Constant, Emit, Op, Site};

/// Appends the gradient of the one-element value `of` by each of `wrt`, and returns those gradients in order. `of` may be
/// any value and `wrt` any targets: Grad-CAM asks for a logit by an activation of a frozen network.
///
/// # Errors
/// When `of` has more than one element, or an op on the way has no gradient.
pub fn grad(graph: Graph, of: Val, wrt: &[Val]) -> Result<(Graph, Vec<Val>)> {
    let ty = graph.ty(of);
    if ty.shape.len() != 1 {
        return Err(Error::internal(format!("the gradient of {} values was asked for; give a seed for each", ty.shape)));
    }
    let mut b = Builder::resume(graph, Phase::Backward);
    b.at("seed");
    let one = b.op(Constant::new(ty.shape, 1.0), &[]);
    vjp(b.finish()?, &[(of, one)], wrt)
}

/// Appends the vector-Jacobian product: for seeds `(y, dy)`, the gradients `sum_y dy . dy/dx` for each `x` of `wrt`.
///
/// Rows off the path from `wrt` to a seed get no backward rows: freezing is pruning.
///
/// # Errors
/// When an op on the way has no gradient, with the layer's name.
pub fn vjp(graph: Graph, seeds: &[(Val, Val)], wrt: &[Val]) -> Result<(Graph, Vec<Val>)> {
    let rows = graph.nodes.len();
    let wanted = depends_on(&graph, wrt);
    let mut b = Builder::resume(graph, Phase::Backward);
    let mut sent: Vec<Vec<Val>> = vec![Vec::new(); b.graph().values.len()];
    for &(y, dy) in seeds {
        sent[y.index()].push(dy);
    }
    for i in (0..rows).rev() {
        let node = b.graph().nodes[i].clone();
        let wants: Vec<bool> = node.ins.iter().map(|v| wanted[v.index()]).collect();
        let reached = node.outs.iter().any(|v| !sent[v.index()].is_empty());
        if !reached || node.phase == Phase::Update || !wants.contains(&true) {
            continue;
        }
        b.at(node.layer.clone());
        let dys: Vec<Option<Val>> = node.outs.iter().map(|v| sum(&mut b, &mut sent[v.index()])).collect();
        let site = Site { ins: &node.ins, outs: &node.outs, wants: &wants };
        let dxs = node.op.vjp(&site, &dys, &mut b).map_err(|why| Error::internal(format!("{} {why}", node.op)).at(&node.layer))?;
        for ((x, dx), wants) in node.ins.iter().zip(dxs).zip(&wants) {
            if let (Some(dx), true) = (dx, wants) {
                sent[x.index()].push(dx);
            }
        }
    }
    let mut gradients = Vec::new();
    for x in wrt {
        let name = b.graph().values[x.index()].name.clone();
        b.at(name.split_once('/').map_or(&*name, |(layer, _)| layer));
        let dx = match sum(&mut b, &mut sent[x.index()]) {
            Some(dx) => dx,
            None => {
                let shape = b.shape(*x);
                b.op(Constant::new(shape, 0.0), &[])
            }
        };
        gradients.push(dx);
    }
    Ok((b.finish()?, gradients))
}

/// Appends the gradients of `loss` by every trainable parameter, and marks them as such.
///
/// # Errors
/// As [`grad`].
pub fn train(graph: Graph, loss: Val) -> Result<Graph> {
    let params: Vec<Val> = graph.trainables().collect();
    let (mut graph, gradients) = grad(graph, loss, &params)?;
    let mut seen = vec![false; graph.values.len()];
    for (of, dw) in params.into_iter().zip(gradients) {
        // One value may be the gradient of one parameter only, since it lies where that parameter's gradient lies.
        if std::mem::replace(&mut seen[dw.index()], true) || graph.role(dw) != Role::Temp {
            return Err(Error::internal("two parameters share one gradient value").at(graph.name(of)));
        }
        graph.values[dw.index()].role = Role::Gradient { of };
    }
    Ok(graph)
}

/// The sum of all contributions to one gradient, as one value; it then is the only contribution.
fn sum(b: &mut Builder, sent: &mut Vec<Val>) -> Option<Val> {
    if sent.len() > 1 {
        let total = b.emit(Op::from(Add), sent)[0];
        *sent = vec![total];
    }
    sent.first().copied()
}

/// Which values depend on one of `sources`, the sources included.
fn depends_on(graph: &Graph, sources: &[Val]) -> Vec<bool> {
    let mut depends = vec![false; graph.values.len()];
    sources.iter().for_each(|v| depends[v.index()] = true);
    for node in graph.nodes.iter().filter(|n| n.phase != Phase::Update) {
        if node.ins.iter().any(|v| depends[v.index()]) {
            node.outs.iter().for_each(|v| depends[v.index()] = true);
        }
    }
    depends
}
