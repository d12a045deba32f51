//! Chooses the number type of every value. Models are written in f32; a policy says what they run in.
//!
//! Under bf16 on a device that stores it, each row gets its operands in the types that its op asks for
//! ([`Rule::storage`](crate::ops::Rule::storage)), by casts where need be, and inference says the types of its results. Filters are
//! copied to bf16 once for all rows that read them, as many as fit in one row. The gradient of a value that dense blocks concatenate
//! again and again is a sum of many parts: it stays in f32, and the rows that add to it write f32 (`wide`). The pass runs before
//! fusion, so that a cast is seen by it like any other row. On another device all values stay in f32, and convolutions round their
//! operands as they multiply them; so they do under tf32 everywhere.

use crate::base::{DType, Math, Precision, Val};
use crate::error::{Error, Result};
use crate::ir::{Graph, Node, Phase, Role};
use crate::ops::{Cast, ChannelStatsDx, MOST_CASTS, Op, ScaleShiftDx, Storage, WeightCast};
use std::collections::HashMap;

/// Gives every value its number type, and convolutions their arithmetic. `stores_half`: whether values of the device may be bf16.
///
/// # Errors
/// An internal error if an op refuses the types.
pub fn precision(mut graph: Graph, policy: Precision, stores_half: bool) -> Result<Graph> {
    let (float, mixed) = (policy.float(), policy == Precision::Bf16 && stores_half);
    let math = match policy {
        Precision::Tf32 => Math::Tf32,
        Precision::Bf16 if !mixed => Math::Bf16,
        _ => Math::Full,
    };
    graph.values.iter_mut().for_each(|v| v.ty.dtype = float);
    for node in &mut graph.nodes {
        match &mut node.op {
            Op::Constant(constant) => constant.dtype = float,
            op => {
                op.multiply_in(math);
            }
        }
    }
    if mixed { Mixed::new(graph).run() } else { Ok(graph) }
}

/// A graph whose rows are being given types, one after another.
struct Mixed {
    graph: Graph,
    rows: Vec<Node>,
    /// Values in another type.
    casts: HashMap<(Val, DType), Val>,
    /// Values that a row takes a range of columns of, and those that are such a range.
    cut: Vec<bool>,
    range: Vec<bool>,
    /// Values that some row adds to a range of columns.
    added: Vec<bool>,
}

impl Mixed {
    fn new(graph: Graph) -> Self {
        let none = || vec![false; graph.values.len()];
        let (mut cut, mut range, mut added) = (none(), none(), none());
        for node in &graph.nodes {
            match node.op {
                Op::Columns(_) => (cut[node.ins[0].index()], range[node.outs[0].index()]) = (true, true),
                Op::Add(_) if node.ins.iter().any(|v| range[v.index()]) => node.ins.iter().for_each(|v| added[v.index()] = true),
                _ => {}
            }
        }
        Mixed { graph, rows: Vec::new(), casts: HashMap::new(), cut, range, added }
    }

    fn run(mut self) -> Result<Graph> {
        let nodes = std::mem::take(&mut self.graph.nodes);
        self.weights(&nodes);
        for node in nodes {
            self.row(node)?;
        }
        self.graph.nodes = self.rows;
        Ok(self.graph)
    }

    /// Copies of all filters that are multiplied in bf16, those of frozen layers in rows of their own.
    fn weights(&mut self, nodes: &[Node]) {
        let mut found = Vec::new();
        for node in nodes {
            let filter = |&(i, v): &(usize, &Val)| {
                matches!(self.graph.role(*v), Role::Param { .. }) && node.op.storage(i) == Storage::Half && !found.contains(v)
            };
            let filters: Vec<Val> = node.ins.iter().enumerate().filter(filter).map(|(_, &v)| v).collect();
            found.extend(filters);
        }
        let (trained, frozen): (Vec<Val>, Vec<Val>) = found.into_iter().partition(|&v| self.graph.trainable(v));
        for ins in frozen.chunks(MOST_CASTS).chain(trained.chunks(MOST_CASTS)) {
            let outs: Vec<Val> = ins.iter().map(|&v| self.value(v, DType::Bf16)).collect();
            self.casts.extend(ins.iter().zip(&outs).map(|(&v, &out)| ((v, DType::Bf16), out)));
            self.rows.push(Node { op: WeightCast.into(), ins: ins.to_vec(), outs, layer: "weights".into(), phase: Phase::Forward });
        }
    }

    /// A value like `v` in another type.
    fn value(&mut self, v: Val, dtype: DType) -> Val {
        let (mut ty, name) = (self.graph.ty(v), self.graph.values[v.index()].name.clone());
        ty.dtype = dtype;
        self.graph.add_value(ty, Role::Temp, name)
    }

    /// `v` in type `to`, by a cast before the row that asks for it.
    fn cast(&mut self, v: Val, to: DType, for_row: &Node) -> Val {
        if self.graph.ty(v).dtype == to {
            return v;
        }
        if let Some(&known) = self.casts.get(&(v, to)) {
            return known;
        }
        let y = self.value(v, to);
        self.casts.insert((v, to), y);
        let (layer, phase) = (for_row.layer.clone(), for_row.phase);
        self.rows.push(Node { op: Cast { to }.into(), ins: vec![v], outs: vec![y], layer, phase });
        y
    }

    /// Casts the inputs of a row as its op asks for, and types its results.
    fn row(&mut self, mut node: Node) -> Result<()> {
        let wide = node.outs.first().is_some_and(|v| self.cut[v.index()] || self.added[v.index()]);
        match &mut node.op {
            Op::ScaleShiftDx(ScaleShiftDx { wide: field, .. }) | Op::ChannelStatsDx(ChannelStatsDx { wide: field }) => *field = wide,
            _ => {}
        }
        let alike = self.alike(&node);
        for i in 0..node.ins.len() {
            let (v, pixels) = (node.ins[i], self.graph.ty(node.ins[i]).shape.rank() == 4);
            let to = match node.op.storage(i) {
                Storage::Half if pixels => DType::Bf16,
                Storage::Half | Storage::Float => DType::F32,
                Storage::Alike => alike,
            };
            node.ins[i] = self.cast(v, to, &node);
        }
        let types: Vec<_> = node.ins.iter().map(|&v| self.graph.ty(v)).collect();
        let types = node.op.infer(&types).map_err(|what| Error::internal(what).at(&node.layer))?;
        node.outs.iter().zip(types).for_each(|(v, ty)| self.graph.values[v.index()].ty = ty);
        self.rows.push(node);
        Ok(())
    }

    /// The type of the inputs of a row that are to be alike: bf16 if all of them are, and no sum over ranges of columns is formed.
    fn alike(&self, node: &Node) -> DType {
        let sums = matches!(node.op, Op::Add(_)) && node.ins.iter().any(|v| self.range[v.index()]);
        let narrow = node.ins.iter().all(|&v| self.graph.ty(v).dtype == DType::Bf16);
        if narrow && !sums { DType::Bf16 } else { DType::F32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Window;
    use crate::ir::{Builder, Init, check};
    use crate::ops::{Act, Activation, BiasAdd, Concat, Conv2d, Dense, GlobalAvgPool};
    use crate::pass::grad;

    /// Two convolutions in a dense block, pooled, and a dense layer.
    fn network() -> Graph {
        let mut b = Builder::new();
        let x = b.input("x", [1, 4, 4, 8]);
        let layer = |b: &mut Builder, name: &str, x| {
            let channels = b.shape(x).cols();
            let w = b.at(name.to_string()).param("kernel", [3, 3, channels, 8], Init::Zeros);
            let y = b.op(Conv2d::new(Window::same(3, 1)), &[x, w]);
            b.op(Activation { act: Act::Relu }, &[y])
        };
        let a = layer(&mut b, "a", x);
        let c = layer(&mut b, "c", a);
        let joined = b.op(Concat, &[a, c]);
        let pooled = b.op(GlobalAvgPool {}, &[joined]);
        let w = b.at("head").param("kernel", [16, 1], Init::Zeros);
        let bias = b.param("bias", [1], Init::Zeros);
        let y = b.op(Dense, &[pooled, w]);
        let y = b.op(BiasAdd, &[y, bias]);
        b.output("y", y);
        b.finish().unwrap()
    }

    #[test]
    fn bf16_is_for_pixels_and_filters_alone() {
        let graph = precision(network(), Precision::Bf16, true).unwrap();
        check(&graph).unwrap();
        for node in &graph.nodes {
            for (i, &v) in node.ins.iter().enumerate() {
                let half = graph.ty(v).dtype == DType::Bf16;
                assert!(!half || graph.ty(v).shape.rank() == 4, "{} reads {v} in bf16", node.op);
                assert!(half || !matches!(node.op, Op::Conv2d(_)), "{} reads input {i} in f32", node.op);
            }
        }
        let casts = |op: fn(&Op) -> bool| graph.nodes.iter().filter(|n| op(&n.op)).count();
        assert_eq!(casts(|op| matches!(op, Op::WeightCast(_))), 1, "one row copies both filters");
        assert_eq!(casts(|op| matches!(op, Op::Cast(_))), 1, "the input alone is cast");
        assert_eq!(graph.ty(graph.output("y").unwrap()).dtype, DType::F32);
    }

    #[test]
    fn rounding_on_the_way_to_a_product_changes_arithmetic_and_no_type() {
        let plain = precision(network(), Precision::F32, true).unwrap();
        for (policy, stores_half, expected) in [(Precision::Tf32, true, Math::Tf32), (Precision::Bf16, false, Math::Bf16)] {
            let graph = precision(network(), policy, stores_half).unwrap();
            assert_eq!(plain.values, graph.values);
            assert!(graph.nodes.iter().filter_map(|n| n.op.math()).all(|math| math == expected));
        }
    }

    #[test]
    fn gradients_of_parameters_and_of_concatenated_values_stay_in_f32() {
        let graph = network();
        let y = graph.output("y").unwrap();
        let graph = precision(grad::train(graph, y).unwrap(), Precision::Bf16, true).unwrap();
        check(&graph).unwrap();
        let gradients = graph.values.iter().filter(|v| matches!(v.role, Role::Gradient { .. }));
        assert!(gradients.map(|v| v.ty.dtype).all(|dtype| dtype == DType::F32));
        let sum = graph.nodes.iter().find(|n| matches!(n.op, Op::Add(_))).expect("a has two readers");
        assert_eq!(graph.ty(sum.outs[0]).dtype, DType::F32);
    }
}
