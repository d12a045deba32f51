//! Average pools and 1x1 convolutions change places where the pool then has less to do, or leaves the convolution less.
//!
//! Both are linear, one over pixels and one over channels, so `pool(conv(x)) = conv(pool(x))`, forward and backward:
//!
//! | before | after | pays when |
//! | --- | --- | --- |
//! | `c = conv(x, w); y = pool(c)` | `p = pool(x); y = conv(p, w)` | the pool leaves fewer pixels (DenseNet's transitions) |
//! | `dc = pool_dx(dy); dx = conv_dx(dc, w); dw = conv_dw(x, dc)` | `dp = conv_dx(dy, w); dx = pool_dx(dp); dw = conv_dw(p, dy)` | |
//! | `p = pool(x); y = conv(p, w)` | `c = conv(x, w); y = pool(c)` | the convolution leaves fewer channels, the pool all pixels (Inception) |
//! | `dp = conv_dx(dy, w); dx = pool_dx(dp); dw = conv_dw(p, dy)` | `dc = pool_dx(dy); dx = conv_dx(dc, w); dw = conv_dw(x, dc)` | |
//!
//! A pool that counts padding divides by a constant, one that does not by a number for each pixel; neither depends on the channel.

use super::fuse::Fuser;
use crate::base::{Ty, Val};
use crate::ir::{Node, Role};
use crate::ops::{AvgPoolDx, Conv2dDx, Op};

/// The rows of a pool and a convolution that follow each other, and of their gradients.
struct Pair {
    /// The first of the two, and the second.
    rows: [usize; 2],
    /// Input, weights, result.
    x: Val,
    w: Val,
    y: Val,
    gradient: Option<Gradient>,
}

/// The rows of the gradients, and the gradient between the two.
struct Gradient {
    conv_dx: Option<usize>,
    conv_dw: Option<usize>,
    pool_dx: Option<usize>,
    middle: Val,
}

impl Fuser {
    /// Applies the table above.
    pub(super) fn pools_past_convolutions(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::AvgPool(_))) {
            if let Some(pair) = self.conv_then_pool(row) {
                self.pool_first(pair);
            } else if let Some(pair) = self.pool_then_conv(row) {
                self.conv_first(pair);
            }
        }
    }

    fn node(&self, row: usize) -> &Node {
        self.rows[row].as_ref().expect("the row is in place")
    }

    fn ty(&self, v: Val) -> Ty {
        self.graph.ty(v)
    }

    /// A new value of the type of `like`, but with the pixels of `pixels` and the channels of `channels`.
    fn between(&mut self, pixels: Val, channels: Val) -> Val {
        let ty = self.ty(pixels);
        let cols = self.ty(channels).shape.cols();
        let name = self.graph.values[channels.index()].name.clone();
        let v = self.graph.add_value(ty.with(ty.shape.with_cols(cols)), Role::Temp, name);
        self.makers.push(None);
        self.readers.push(Vec::new());
        v
    }

    fn conv_then_pool(&self, pool: usize) -> Option<Pair> {
        let (middle, y) = (self.node(pool).ins[0], self.node(pool).outs[0]);
        let (conv, node) = self.maker(middle)?;
        let (x, w) = is_pointwise(&node.op).then(|| (node.ins[0], node.ins[1]))?;
        let fewer = self.ty(y).shape.rows() < self.ty(middle).shape.rows();
        if !fewer || !self.only_reader(middle, pool) {
            return None;
        }
        let gradient = self.gradient(x, w)?;
        // The gradient by the convolution's result comes from the pool.
        if let Some(g) = &gradient {
            matches!(self.maker(g.middle)?.1.op, Op::AvgPoolDx(_)).then_some(())?;
        }
        let gradient = gradient.map(|g| Gradient { pool_dx: self.maker(g.middle).map(|(row, _)| row), ..g });
        Some(Pair { rows: [conv, pool], x, w, y, gradient })
    }

    fn pool_then_conv(&self, pool: usize) -> Option<Pair> {
        let (x, middle) = (self.node(pool).ins[0], self.node(pool).outs[0]);
        let reads = |&&row: &&usize| matches!(self.node(row).op, Op::Conv2d(_));
        let conv = *self.readers[middle.index()].iter().find(reads)?;
        let node = self.node(conv);
        let (w, y) = is_pointwise(&node.op).then(|| (node.ins[1], node.outs[0]))?;
        let fewer = self.ty(y).shape.cols() < self.ty(x).shape.cols() && self.ty(middle).shape == self.ty(x).shape;
        let gradient = self.gradient(middle, w)?;
        let mut readers = vec![conv];
        readers.extend(gradient.as_ref().and_then(|g| g.conv_dw));
        let private = self.readers[middle.index()] == readers && self.graph.outputs.iter().all(|&(_, o)| o != middle);
        if !fewer || !private || node.ins[0] != middle {
            return None;
        }
        let gradient = match gradient {
            None => None,
            Some(g) => {
                // The convolution's input gradient goes to the pool alone.
                let dp = self.node(g.conv_dx?).outs[0];
                let [pool_dx] = self.readers[dp.index()][..] else { return None };
                matches!(self.node(pool_dx).op, Op::AvgPoolDx(_)).then_some(Gradient { pool_dx: Some(pool_dx), ..g })
            }
        };
        Some(Pair { rows: [pool, conv], x, w, y, gradient })
    }

    /// The gradients of a convolution of `x` with `w`: `None` within if there are none, `None` if they are not what is known here.
    fn gradient(&self, x: Val, w: Val) -> Option<Option<Gradient>> {
        let dxs = self.rows_of(|op| matches!(op, Op::Conv2dDx(_)));
        let dws = self.rows_of(|op| matches!(op, Op::Conv2dDw(_)));
        let dxs: Vec<usize> = dxs.into_iter().filter(|&r| self.node(r).ins[1] == w).collect();
        let of_w = |node: &Node| self.graph.role(node.outs[0]) == Role::Gradient { of: w };
        let beside = |node: &Node| dxs.iter().any(|&r| self.node(r).ins[0] == node.ins[1]);
        let mine = |node: &Node| node.ins[0] == x && (of_w(node) || beside(node));
        let dws: Vec<usize> = dws.into_iter().filter(|&r| mine(self.node(r))).collect();
        let middles: Vec<Val> = dxs.iter().map(|&r| self.node(r).ins[0]).chain(dws.iter().map(|&r| self.node(r).ins[1])).collect();
        let Some(&middle) = middles.first() else { return Some(None) };
        let rows: Vec<usize> = dxs.iter().chain(&dws).copied().collect();
        let known = dxs.len() <= 1 && dws.len() <= 1 && middles.iter().all(|&m| m == middle);
        let mut readers = self.readers[middle.index()].clone();
        readers.retain(|r| !rows.contains(r));
        let found = Gradient { conv_dx: dxs.first().copied(), conv_dw: dws.first().copied(), pool_dx: None, middle };
        (known && readers.is_empty()).then_some(Some(found))
    }

    /// `pool(conv(x))` to `conv(pool(x))`.
    fn pool_first(&mut self, pair: Pair) {
        let [conv_row, pool_row] = pair.rows;
        let p = self.between(pair.y, pair.x);
        let (conv, pool) = (self.take(conv_row), self.take(pool_row));
        self.put(conv_row, Node { ins: vec![pair.x], outs: vec![p], ..pool });
        self.put(pool_row, Node { ins: vec![p, pair.w], outs: vec![pair.y], ..conv });
        let Some(Gradient { conv_dx, conv_dw, pool_dx: Some(pool_dx), .. }) = pair.gradient else { return };
        let dy = self.node(pool_dx).ins[0];
        let pool = self.take(pool_dx);
        if let Some(row) = conv_dx {
            let dp = self.between(pair.y, pair.x);
            let conv = self.take(row);
            let dx = conv.outs.clone();
            let (op, back) = (conv_dx_on(&conv.op, self.ty(p)), pool_dx_to(&pool.op, self.ty(pair.x)));
            self.put(pool_dx, Node { op, ins: vec![dy, pair.w], outs: vec![dp], ..conv });
            self.put(row, Node { op: back, ins: vec![dp], outs: dx, ..pool });
        }
        if let Some(row) = conv_dw {
            let node = self.take(row);
            self.put(row, Node { ins: vec![p, dy], ..node });
        }
    }

    /// `conv(pool(x))` to `pool(conv(x))`.
    fn conv_first(&mut self, pair: Pair) {
        let [pool_row, conv_row] = pair.rows;
        let c = self.between(pair.x, pair.y);
        let (pool, conv) = (self.take(pool_row), self.take(conv_row));
        self.put(pool_row, Node { ins: vec![pair.x, pair.w], outs: vec![c], ..conv });
        self.put(conv_row, Node { ins: vec![c], outs: vec![pair.y], ..pool });
        let Some(Gradient { conv_dx: Some(conv_dx), conv_dw, pool_dx: Some(pool_dx), middle: dy }) = pair.gradient else { return };
        let dc = self.between(pair.x, pair.y);
        let (conv, pool) = (self.take(conv_dx), self.take(pool_dx));
        let dx = pool.outs.clone();
        self.put(conv_dx, Node { ins: vec![dy], outs: vec![dc], ..pool });
        self.put(pool_dx, Node { ins: vec![dc, pair.w], outs: dx, ..conv });
        if let Some(row) = conv_dw {
            let node = self.take(row);
            self.put(row, Node { ins: vec![pair.x, dc], ..node });
        }
    }
}

/// Whether an op is a 1x1 convolution of stride 1 with nothing merged into it.
fn is_pointwise(op: &Op) -> bool {
    let Op::Conv2d(conv) = op else { return false };
    let geometry = conv.window.on(1, 1);
    !conv.is_fused() && geometry.is_ok_and(|g| g.is_pointwise())
}

/// The input gradient of a 1x1 convolution, for an input of other pixels.
fn conv_dx_on(op: &Op, input: Ty) -> Op {
    let (Op::Conv2dDx(dx), Some([_, h, w, _])) = (op, input.shape.four()) else { unreachable!("found as an input gradient") };
    Conv2dDx { input: [h, w], ..dx.clone() }.into()
}

/// The gradient of a pool, for an input of some pixels.
fn pool_dx_to(op: &Op, input: Ty) -> Op {
    let (Op::AvgPoolDx(dx), Some([_, h, w, _])) = (op, input.shape.four()) else { unreachable!("found as a pool's gradient") };
    AvgPoolDx { input: [h, w], ..dx.clone() }.into()
}

#[cfg(test)]
mod tests {
    use crate::base::Window;
    use crate::device::naive::Naive;
    use crate::exec::{Passes, Program, Session};
    use crate::ir::{Builder, Init, Phase};
    use crate::ops::activation::Act;
    use crate::ops::{Activation, AvgPool, Conv2d, Dense, GlobalAvgPool, Op};
    use crate::pass::{Fusions, grad};

    /// A convolution and a pool in either order, the gradients of its weights and of a layer's before, and the rows.
    fn results(conv_first: bool, fusions: Fusions) -> (Vec<Vec<f64>>, Vec<&'static str>) {
        let mut b = Builder::new();
        b.at("net");
        let x = b.input("x", [2, 4, 6, 5]);
        let below = b.param("below", [1, 1, 5, 5], Init::Ones);
        let w = b.param("w", [1, 1, 5, 3], Init::Ones);
        let conv = |b: &mut Builder, x, w| b.op(Conv2d::new(Window::valid(1, 1)), &[x, w]);
        let window = if conv_first { Window::valid(2, 2) } else { Window::same(3, 1) };
        let pool = |b: &mut Builder, x| b.op(AvgPool { window, count_padding: false }, &[x]);
        let z = conv(&mut b, x, below);
        let y = if conv_first {
            let c = conv(&mut b, z, w);
            pool(&mut b, c)
        } else {
            let p = pool(&mut b, z);
            conv(&mut b, p, w)
        };
        let bent = b.op(Activation { act: Act::Sigmoid }, &[y]);
        let mean = b.op(GlobalAvgPool {}, &[bent]);
        let ones = b.param("ones", [3, 1], Init::Ones);
        let per_image = b.op(Dense, &[mean, ones]);
        b.output("y", y);
        let graph = b.finish().unwrap();
        let seed_shape = graph.ty(per_image).shape;
        let mut b = Builder::resume(graph, Phase::Backward);
        let seed = b.input("seed", seed_shape);
        let (mut graph, gradients) = grad::vjp(b.finish().unwrap(), &[(per_image, seed)], &[below, w]).unwrap();
        for (name, g) in ["dbelow", "dw"].into_iter().zip(gradients) {
            graph.outputs.push((name.into(), g));
        }
        let mut program = Program::compile(graph, &Naive, Passes { fusions, ..Passes::default() }).unwrap();
        let mut session = Session::new(Naive).unwrap();
        session.reserve(&program).unwrap();
        for (name, len) in [("x", 240), ("net/below", 25), ("net/w", 15), ("net/ones", 3), ("seed", 2)] {
            let data: Vec<f64> = (0..len).map(|i| ((i * 37 % 23) as f64 - 11.0) / 9.0).collect();
            session.set(&program, name, &data[..]).unwrap();
        }
        session.replay(&mut program, None).unwrap();
        let order = program.graph().nodes.iter().map(|n| n.op.name()).collect();
        (["y", "dbelow", "dw"].iter().map(|name| session.get(&program, name).unwrap()).collect(), order)
    }

    #[test]
    fn both_orders_compute_the_same() {
        for conv_first in [true, false] {
            let (plain, before) = results(conv_first, Fusions { pools: false, ..Fusions::ALL });
            let (swapped, after) = results(conv_first, Fusions::ALL);
            let position = |order: &[&str], op: &str| order.iter().rposition(|o| *o == op).unwrap();
            assert_eq!(position(&before, "conv2d") < position(&before, "avg_pool"), conv_first);
            assert_eq!(position(&after, "conv2d") < position(&after, "avg_pool"), !conv_first);
            for (a, b) in plain.iter().zip(&swapped) {
                assert!(a.iter().any(|v| v.abs() > 1e-6));
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_pool_whose_input_others_read_stays() {
        let mut b = Builder::new();
        let (x, w) = (b.input("x", [1, 4, 4, 3]), b.param("w", [1, 1, 3, 3], Init::Ones));
        let c = b.op(Conv2d::new(Window::valid(1, 1)), &[x, w]);
        let y = b.op(AvgPool { window: Window::valid(2, 2), count_padding: false }, &[c]);
        b.output("c", c);
        b.output("y", y);
        let graph = crate::pass::fuse(b.finish().unwrap(), Fusions::ALL).unwrap();
        assert!(matches!(graph.nodes[0].op, Op::Conv2d(_)) && matches!(graph.nodes[1].op, Op::AvgPool(_)));
    }
}
