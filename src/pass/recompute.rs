//! Large results that are cheap to make are made again for the backward pass, so that nothing keeps them over the middle of a step.
//!
//! A depthwise convolution costs about what reading and writing its operands does, and so does a convolution of the three channels of an
//! image: some multiplications for each result, ten to thirty times fewer than the convolution behind it. That result is read by the next
//! convolution and, a whole forward and backward pass later, by the gradient of its filter. With rows of its own before that reader, the
//! first result needs no place in memory in between; a depthwise one often none at all, since the forward pair then runs tile by tile (see
//! [`super::fuse`]).

use crate::base::Val;
use crate::ir::{Graph, Node, Phase, Role};
use crate::ops::Op;
use crate::ops::activation::Act;

/// Numbers of the smallest result per image that is made again: of VGG16 and Xception at their default sizes, in the first blocks; a sixth
/// and a tenth of their memory.
pub(super) const LARGE: usize = 1 << 20;
/// Input channels of a convolution that counts as cheap.
const FEW: usize = 4;

/// Gives each cheap result of at least `large` numbers per image a second maker for its readers of the backward pass; the last results first,
/// since what makes one again reads the ones before.
pub(super) fn recompute(graph: &mut Graph, large: usize) {
    for made in (0..graph.nodes.len()).rev() {
        let node = &graph.nodes[made];
        let (&[y], Phase::Forward) = (&node.outs[..], node.phase) else { continue };
        let shape = graph.ty(y).shape;
        if shape.len() / shape.dims()[0] < large || graph.role(y) != Role::Temp {
            continue;
        }
        let readers = || graph.nodes.iter().enumerate().filter(|(_, node)| node.ins.contains(&y));
        // Rows that a convolution takes into itself count with it: the last of a chain is what others read.
        let is_last = !readers().any(|(_, node)| node.phase == Phase::Forward && goes_on(node));
        let backward = readers().find(|(_, node)| node.phase == Phase::Backward).map(|(row, _)| row);
        if let (true, Some(reader), Some(rows)) = (is_last, backward, chain(graph, &graph.producers(), y)) {
            // Rows before the reader keep their numbers, and so do those that are repeated.
            repeat(graph, &rows, reader);
        }
    }
}

/// A row that a convolution takes into itself.
fn goes_on(node: &Node) -> bool {
    match &node.op {
        Op::BiasAdd(_) => true,
        Op::Activation(activation) => activation.act == Act::Relu,
        _ => false,
    }
}

/// The rows that make `y`, first to last, if they are cheap: a depthwise convolution, or one of few channels, and what it takes into itself.
fn chain(graph: &Graph, producers: &[Option<usize>], y: Val) -> Option<Vec<usize>> {
    let row = producers[y.index()]?;
    let node = &graph.nodes[row];
    match &node.op {
        Op::Depthwise(_) => Some(vec![row]),
        Op::Conv2d(_) if graph.ty(node.ins[0]).shape.cols() <= FEW => Some(vec![row]),
        _ if goes_on(node) => {
            let mut rows = chain(graph, producers, node.ins[0])?;
            rows.push(row);
            Some(rows)
        }
        _ => None,
    }
}

/// Repeats rows before row `at`; what comes from there on reads the new results.
fn repeat(graph: &mut Graph, rows: &[usize], at: usize) {
    let mut renamed: Vec<(Val, Val)> = Vec::new();
    let rename = |ins: &mut [Val], renamed: &[(Val, Val)]| {
        for v in ins {
            *v = renamed.iter().find(|(old, _)| old == v).map_or(*v, |&(_, new)| new);
        }
    };
    let mut repeated = Vec::new();
    for &row in rows {
        let mut node = graph.nodes[row].clone();
        rename(&mut node.ins, &renamed);
        let (old, value) = (node.outs[0], graph.values[node.outs[0].index()].clone());
        let new = graph.add_value(value.ty, value.role, value.name);
        renamed.push((old, new));
        repeated.push(Node { outs: vec![new], phase: Phase::Backward, ..node });
    }
    graph.nodes[at..].iter_mut().for_each(|node| rename(&mut node.ins, &renamed));
    graph.nodes.splice(at..at, repeated);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Window;
    use crate::device::cpu::{Cpu, Isa};
    use crate::exec::{Passes, Program, Session};
    use crate::ir::{Builder, Init};
    use crate::ops::{Activation, BiasAdd, Conv2d, Dense, Depthwise, GlobalAvgPool};
    use crate::pass::grad;

    /// A convolution of three channels with bias and ReLU, a depthwise and a 1x1 one, and the gradients of all weights.
    fn network() -> Graph {
        let mut b = Builder::new();
        b.at("net");
        let x = b.input("x", [2, 9, 11, 3]);
        let (stem, bias) = (b.param("stem", [3, 3, 3, 20], Init::Ones), b.param("bias", [20], Init::Ones));
        let (filter, w) = (b.param("filter", [3, 3, 20, 1], Init::Ones), b.param("w", [1, 1, 20, 6], Init::Ones));
        let c = b.op(Conv2d::new(Window::same(3, 1)), &[x, stem]);
        let c = b.op(BiasAdd, &[c, bias]);
        let c = b.op(Activation { act: Act::Relu }, &[c]);
        let d = b.op(Depthwise { window: Window::same(3, 1), pre: None }, &[c, filter]);
        let y = b.op(Conv2d::new(Window::valid(1, 1)), &[d, w]);
        let y = b.op(Activation { act: Act::Sigmoid }, &[y]);
        let mean = b.op(GlobalAvgPool {}, &[y]);
        let ones = b.param("ones", [6, 1], Init::Ones);
        let per_image = b.op(Dense, &[mean, ones]);
        b.output("y", per_image);
        let graph = b.finish().unwrap();
        let shape = graph.ty(per_image).shape;
        let mut b = Builder::resume(graph, Phase::Backward);
        let seed = b.input("seed", shape);
        let (mut graph, gradients) = grad::vjp(b.finish().unwrap(), &[(per_image, seed)], &[stem, bias, filter, w]).unwrap();
        for (name, g) in ["dstem", "dbias", "dfilter", "dw"].into_iter().zip(gradients) {
            graph.outputs.push((name.into(), g));
        }
        graph
    }

    fn results(graph: Graph) -> Vec<Vec<f64>> {
        let cpu = || Cpu::with(Isa::best(), 2);
        let mut program = Program::compile(graph, &cpu(), Passes::default()).unwrap();
        let mut session = Session::new(cpu()).unwrap();
        session.reserve(&program).unwrap();
        for (name, len) in
            [("x", 594), ("net/stem", 540), ("net/bias", 20), ("net/filter", 180), ("net/w", 120), ("net/ones", 6), ("seed", 2)]
        {
            let data: Vec<f32> = (0..len).map(|i| ((i * 37 % 23) as f32 - 11.0) / 9.0).collect();
            session.set(&program, name, &data[..]).unwrap();
        }
        session.replay(&mut program, None).unwrap();
        ["y", "dstem", "dbias", "dfilter", "dw"].iter().map(|name| session.get(&program, name).unwrap()).collect()
    }

    #[test]
    fn what_is_made_again_has_the_same_bits() {
        let (kept, mut made) = (network(), network());
        recompute(&mut made, 1);
        crate::ir::check(&made).unwrap();
        let backward = |graph: &Graph| graph.nodes.iter().filter(|n| n.phase == Phase::Backward).map(|n| n.op.name()).collect::<Vec<_>>();
        let count = |graph: &Graph, op: &str| backward(graph).iter().filter(|name| **name == op).count();
        for op in ["conv2d", "bias_add", "activation", "depthwise"] {
            assert_eq!((count(&kept, op), count(&made, op)), (0, 1), "{op}");
        }
        let forward = |v: &Val| {
            made.producers()[v.index()]
                .is_some_and(|row| made.nodes[row].phase == Phase::Forward && chain(&made, &made.producers(), *v).is_some())
        };
        assert!(
            made.nodes.iter().filter(|n| n.phase == Phase::Backward).all(|n| !n.ins.iter().any(forward)),
            "a row keeps what is made again"
        );
        let (kept, made) = (results(kept), results(made));
        assert!(kept.iter().all(|values| values.iter().any(|v| v.abs() > 1e-3)));
        assert!(kept == made, "other bits");
    }

    #[test]
    fn what_is_small_is_kept() {
        let mut graph = network();
        let rows = graph.nodes.len();
        recompute(&mut graph, LARGE);
        assert_eq!(graph.nodes.len(), rows);
    }
}
