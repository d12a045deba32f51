//! Fusion: neighbouring rows become a field of their producer. It runs after `grad`, over both halves, and never makes a
//! new op, so gradient rules see plain rows only. Each rule is exact algebra up to the order of rounding. The last three are in `epilogue.rs`.
//!
//! | field | rows that it swallows |
//! | --- | --- |
//! | `Conv2d.scale`, `.bias` | `scale_shift` with constant coefficients after a convolution (a frozen batch norm) |
//! | `Conv2d.bias` | `bias_add` after a convolution |
//! | `Conv2d.act`, `ScaleShift.act` | `activation` after either |
//! | `ScaleShiftSums.act`, `ScaleShiftDx.act` | `activation_dx` before them, by recomputing the sign of `x * scale + shift` |
//! | `pre` of convolutions and of their filter gradients | `scale_shift` before them, if nothing else reads its result |
//! | `Conv2d.depthwise` of a 1x1 window | `depthwise` before it, and a ReLU before that, if nothing else reads their results |
//! | `Conv2dDx.past` of a 1x1 window | `scale_shift_sums` and `scale_shift_dx` after it, if nothing else reads its result |
//! | `ScaleShiftDx.stats` | `channel_stats_dx` whose result is added to its own |
//! | `Conv2dDx.mask` | `activation_dx` of its result, if nothing else reads that |
//! | `Conv2dDx.sums` | `scale_shift_sums` of its result, and the mask of the `scale_shift_dx` that reads it too |
//! | `Conv2d.stats` | `channel_stats` of its result |

use super::group::group;
use super::recompute::{LARGE, recompute};
use crate::base::{DType, Val};
use crate::device::Fusible;
use crate::error::Result;
use crate::ir::{Graph, Node, Role, check};
use crate::ops::activation::Act;
use crate::ops::{Activation, Add, Conv2d, Conv2dDw, Conv2dDx, Depthwise, DepthwiseDw, Op, ScaleShift, ScaleShiftDx, ScaleShiftSums};

/// Which rules run; all of them unless a test says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fusions {
    /// `scale_shift` into the convolution before it.
    pub scale: bool,
    /// `bias_add` into the convolution before it.
    pub bias: bool,
    /// `activation` into the row before it, and its gradient into the rows after it.
    pub act: bool,
    /// The two memory passes of a batch norm's input gradient into one.
    pub stats: bool,
    /// Small rows of one kind into one row: see [`super::group`].
    pub group: bool,
    /// `scale_shift` into the convolutions after it, which then read its input; so nothing keeps its result for the backward pass.
    pub pre: bool,
    /// The gradient of a `scale_shift` into the 1x1 convolution's input gradient before it.
    pub past: bool,
    /// A depthwise convolution into the 1x1 convolution after it, if nothing else reads its result.
    pub depthwise: bool,
    /// `activation_dx` into the input gradient before it.
    pub mask_out: bool,
    /// The sums of a `scale_shift`'s gradient into the input gradient before them.
    pub sums_out: bool,
    /// `channel_stats` into the convolution before it.
    pub stats_out: bool,
    /// Large results that are cheap are made again for the backward pass, see `recompute.rs`.
    pub again: bool,
    /// Average pools and 1x1 convolutions change places, see `commute.rs`.
    pub pools: bool,
}

impl Fusions {
    /// Every rule.
    pub const ALL: Fusions = Fusions {
        scale: true,
        bias: true,
        act: true,
        stats: true,
        group: true,
        pre: true,
        past: true,
        depthwise: true,
        mask_out: true,
        sums_out: true,
        stats_out: true,
        again: true,
        pools: true,
    };
    /// No rule: every row as the model wrote it.
    pub const NONE: Fusions = Fusions {
        scale: false,
        bias: false,
        act: false,
        stats: false,
        group: false,
        pre: false,
        past: false,
        depthwise: false,
        mask_out: false,
        sums_out: false,
        stats_out: false,
        again: false,
        pools: false,
    };

    /// These rules, without those whose fields a device does not run.
    pub fn within(self, able: Fusible) -> Fusions {
        Fusions {
            pre: self.pre && able.inputs,
            past: self.past && able.inputs,
            depthwise: self.depthwise && able.inputs,
            again: self.again && able.inputs,
            mask_out: self.mask_out && able.gradients,
            sums_out: self.sums_out && able.gradients,
            stats_out: self.stats_out && able.stats,
            ..self
        }
    }
}

/// Applies the rules, drops rows that nothing needs any more, and checks the result.
///
/// # Errors
/// An internal error if the graph no longer holds together.
pub fn fuse(mut graph: Graph, fusions: Fusions) -> Result<Graph> {
    if fusions.again {
        recompute(&mut graph, LARGE);
    }
    let mut f = Fuser::new(graph);
    for (on, rule) in [
        (fusions.pools, Fuser::pools_past_convolutions as fn(&mut Fuser)),
        (fusions.scale, Fuser::scale_into_conv),
        (fusions.bias, Fuser::bias_into_conv),
        (fusions.act, Fuser::act_into_producer),
        (fusions.act, Fuser::act_into_gradient),
        (fusions.stats, Fuser::stats_into_gradient),
        (fusions.past, Fuser::scale_gradient_into_conv),
        (fusions.mask_out, Fuser::mask_into_conv),
        (fusions.sums_out, Fuser::sums_into_conv),
        (fusions.stats_out, Fuser::stats_into_conv),
        (fusions.pre, Fuser::scale_into_readers),
        (fusions.depthwise, Fuser::depthwise_into_conv),
    ] {
        if on {
            rule(&mut f);
        }
    }
    let mut graph = f.finish();
    graph.prune();
    if fusions.group {
        group(&mut graph);
    }
    check(&graph)?;
    Ok(graph)
}

/// A graph whose rows can be taken out, with who makes and who reads each value.
pub(super) struct Fuser {
    pub(super) graph: Graph,
    pub(super) rows: Vec<Option<Node>>,
    pub(super) makers: Vec<Option<usize>>,
    pub(super) readers: Vec<Vec<usize>>,
}

impl Fuser {
    fn new(mut graph: Graph) -> Self {
        graph.prune();
        let (makers, readers) = (graph.producers(), graph.uses());
        let rows = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
        Fuser { graph, rows, makers, readers }
    }

    fn finish(mut self) -> Graph {
        self.graph.nodes = self.rows.into_iter().flatten().collect();
        self.graph
    }

    /// The row that makes `v`, with its number.
    pub(super) fn maker(&self, v: Val) -> Option<(usize, &Node)> {
        let row = self.makers[v.index()]?;
        Some((row, self.rows[row].as_ref()?))
    }

    /// Whether rows alone read `v`, and the host does not.
    pub(super) fn is_private(&self, v: Val) -> bool {
        self.graph.role(v) == Role::Temp && self.graph.outputs.iter().all(|&(_, o)| o != v)
    }

    /// Whether `row` alone reads `v`, and the host does not.
    pub(super) fn only_reader(&self, v: Val, row: usize) -> bool {
        self.readers[v.index()] == [row] && self.is_private(v)
    }

    /// Whether `v` is there when `row` runs.
    pub(super) fn is_made_before(&self, v: Val, row: usize) -> bool {
        self.makers[v.index()].is_none_or(|maker| maker < row)
    }

    /// Takes a row out; its inputs lose a reader.
    pub(super) fn take(&mut self, row: usize) -> Node {
        let node = self.rows[row].take().expect("a rule takes a row out once");
        for v in &node.ins {
            self.readers[v.index()].retain(|&r| r != row);
        }
        node
    }

    /// Puts a row in the place of one taken out.
    pub(super) fn put(&mut self, row: usize, node: Node) {
        for v in &node.ins {
            if !self.readers[v.index()].contains(&row) {
                self.readers[v.index()].push(row);
                self.readers[v.index()].sort_unstable();
            }
        }
        node.outs.iter().for_each(|v| self.makers[v.index()] = Some(row));
        self.rows[row] = Some(node);
    }

    /// The numbers of the rows whose op `pick` accepts.
    pub(super) fn rows_of(&self, pick: impl Fn(&Op) -> bool) -> Vec<usize> {
        (0..self.rows.len()).filter(|&r| self.rows[r].as_ref().is_some_and(|n| pick(&n.op))).collect()
    }

    /// `y = conv(x) * scale + shift` where nothing else reads the convolution's own result. In training with batch
    /// statistics something does (the statistics), so this meets frozen and inference batch norms alone.
    fn scale_into_conv(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::ScaleShift(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (z, scale, shift) = (node.ins[0], node.ins[1], node.ins[2]);
            let Some((conv_row, Node { op: Op::Conv2d(conv), .. })) = self.maker(z) else { continue };
            if conv.scale || conv.bias || conv.act != Act::Linear || !self.only_reader(z, row) {
                continue;
            }
            let Op::ScaleShift(ScaleShift { act }) = node.op else { continue };
            let mut op = conv.clone();
            (op.scale, op.bias, op.act) = (true, true, act);
            let (conv, tail) = (self.take(conv_row), self.take(row));
            let ins = [conv.ins.as_slice(), &[scale, shift]].concat();
            self.put(row, Node { op: op.into(), ins, ..tail });
        }
    }

    fn bias_into_conv(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::BiasAdd(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (z, bias) = (node.ins[0], node.ins[1]);
            let Some((conv_row, Node { op: Op::Conv2d(conv), .. })) = self.maker(z) else { continue };
            if conv.bias || conv.act != Act::Linear || !self.only_reader(z, row) {
                continue;
            }
            let mut op = conv.clone();
            op.bias = true;
            let (conv, tail) = (self.take(conv_row), self.take(row));
            let ins = [conv.ins.as_slice(), &[bias]].concat();
            self.put(row, Node { op: op.into(), ins, ..tail });
        }
    }

    fn act_into_producer(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::Activation(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (z, Op::Activation(Activation { act })) = (node.ins[0], &node.op) else { continue };
            let (act, Some((maker_row, maker))) = (*act, self.maker(z)) else { continue };
            let mut op = maker.op.clone();
            match &mut op {
                Op::Conv2d(conv) if conv.act == Act::Linear => conv.act = act,
                Op::ScaleShift(affine) if affine.act == Act::Linear => affine.act = act,
                _ => continue,
            }
            if !self.only_reader(z, row) {
                continue;
            }
            let (maker, tail) = (self.take(maker_row), self.take(row));
            self.put(row, Node { op, ins: maker.ins, ..tail });
        }
    }

    /// `dz = dy * act'(y)` where only the gradient rows of the `scale_shift` that made `y` read `dz`.
    fn act_into_gradient(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::ActivationDx(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (dy, y, dz) = (node.ins[0], node.ins[1], node.outs[0]);
            let Some((_, Node { op: Op::ScaleShift(forward), ins: source, .. })) = self.maker(y) else { continue };
            let (act, source) = (forward.act, source.clone());
            let readers = self.readers[dz.index()].clone();
            let same_site = |r: &usize| {
                let node = self.rows[*r].as_ref().expect("a reader is in place");
                let plain = match &node.op {
                    Op::ScaleShiftSums(sums) => sums.act == Act::Linear,
                    Op::ScaleShiftDx(dx) => dx.act == Act::Linear,
                    _ => false,
                };
                plain && node.ins[0] == dz && node.ins[1..4] == source[..]
            };
            if act == Act::Linear || !self.graph.outputs.iter().all(|&(_, o)| o != dz) || !readers.iter().all(same_site) {
                continue;
            }
            for reader in readers {
                let mut node = self.take(reader);
                node.ins[0] = dy;
                match &mut node.op {
                    Op::ScaleShiftSums(ScaleShiftSums { act: field }) | Op::ScaleShiftDx(ScaleShiftDx { act: field, .. }) => *field = act,
                    _ => unreachable!("only these two were accepted"),
                }
                self.put(reader, node);
            }
            self.take(row);
        }
    }

    /// `da = conv_dx(dy, w)`, then sums and gradient of the same `scale_shift`: a pixel's `da` need not leave the cache. Where batch
    /// statistics belong to this batch norm alone, its gradient needs the sums first; where many share them (DenseNet), it does not.
    fn scale_gradient_into_conv(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::Conv2dDx(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (Op::Conv2dDx(conv), da) = (&node.op, node.outs[0]) else { continue };
            let pointwise = conv.window.on(conv.input[0], conv.input[1]).is_ok_and(|g| g.is_pointwise());
            let &[first, second] = &self.readers[da.index()][..] else { continue };
            if !pointwise || !self.is_private(da) || conv.is_fused() {
                continue;
            }
            let reader = |row: usize| self.rows[row].as_ref().expect("a reader is in place");
            let is_sums = |row: usize| matches!(reader(row).op, Op::ScaleShiftSums(_));
            let (sums_row, dx_row) = if is_sums(first) { (first, second) } else { (second, first) };
            let (sums, dx) = (reader(sums_row), reader(dx_row));
            let (Op::ScaleShiftSums(s), Op::ScaleShiftDx(d)) = (&sums.op, &dx.op) else { continue };
            if s.act != d.act || d.stats || sums.ins != dx.ins || sums.ins[0] != da || sums.ins[1..].contains(&da) {
                continue;
            }
            let op = Conv2dDx { past: Some(s.act), ..conv.clone() };
            let (conv, sums, dx) = (self.take(row), self.take(sums_row), self.take(dx_row));
            let ins = [&conv.ins[..], &sums.ins[1..]].concat();
            let outs = [&dx.outs[..], &sums.outs[..]].concat();
            // Where the gradient stood: what it needs, and what else it is added to, has been made.
            self.put(dx_row.min(sums_row), Node { op: op.into(), ins, outs, ..conv });
        }
    }

    /// `y = act(x * scale + shift)` that convolutions alone read, for their input: each of them normalises x on the way in.
    fn scale_into_readers(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::ScaleShift(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (y, Op::ScaleShift(ScaleShift { act })) = (node.outs[0], &node.op) else { continue };
            let (act, source) = (*act, node.ins.clone());
            let readers = self.readers[y.index()].clone();
            let normalises = |&r: &usize| {
                let reader = self.rows[r].as_ref().expect("a reader is in place");
                reader.ins[0] == y && !reader.ins[1..].contains(&y) && with_pre(&reader.op, act).is_some()
            };
            if !self.is_private(y) || readers.is_empty() || !readers.iter().all(normalises) {
                continue;
            }
            for reader in readers {
                let mut node = self.take(reader);
                node.op = with_pre(&node.op, act).expect("accepted above");
                node.ins[0] = source[0];
                node.ins.extend(&source[1..3]);
                self.put(reader, node);
            }
            self.take(row);
        }
    }

    /// `y = conv(depthwise(x))`, 1x1 after 3x3, and perhaps a ReLU before, where nothing else reads what lies between: not for training,
    /// where the gradient of the 1x1 filter does.
    fn depthwise_into_conv(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::Conv2d(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (Op::Conv2d(conv), between) = (&node.op, node.ins[0]) else { continue };
            let Some((filter_row, Node { op: Op::Depthwise(Depthwise { window, pre: None }), ins, .. })) = self.maker(between) else {
                continue;
            };
            let ([x, filter], in_floats) = ([ins[0], ins[1]], self.graph.ty(between).dtype != DType::Bf16);
            if !in_floats || !conv.can_follow(window) || !self.only_reader(between, row) {
                continue;
            }
            let (source, act) = match self.maker(x) {
                Some((relu_row, Node { op: Op::Activation(Activation { act: Act::Relu }), ins, .. }))
                    if self.only_reader(x, filter_row) =>
                {
                    let source = ins[0];
                    self.take(relu_row);
                    (source, Act::Relu)
                }
                _ => (x, Act::Linear),
            };
            let mut node = self.take(row);
            let Op::Conv2d(conv) = &mut node.op else { unreachable!("picked above") };
            conv.depthwise = Some(act);
            self.take(filter_row);
            node.ins[0] = source;
            node.ins.push(filter);
            self.put(row, node);
        }
    }

    /// `dx = scale_shift_dx(..) + channel_stats_dx(x, ..) + ..`: the second becomes a field of the first.
    fn stats_into_gradient(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::Add(_))) {
            let parts = self.rows[row].as_ref().expect("picked above").ins.clone();
            let made_by = |accept: fn(&Op) -> bool| {
                parts.iter().find_map(|&v| {
                    self.maker(v).filter(|(_, n)| accept(&n.op) && self.only_reader(v, row)).map(|(r, n)| (v, r, n.ins.clone()))
                })
            };
            let stats = made_by(|op| matches!(op, Op::ChannelStatsDx(_)));
            let affine = made_by(|op| matches!(op, Op::ScaleShiftDx(ScaleShiftDx { stats: false, .. })));
            let (Some((stats_out, stats_row, stats_ins)), Some((affine_out, affine_row, affine_ins))) = (stats, affine) else { continue };
            if stats_ins[0] != affine_ins[1] {
                continue;
            }
            self.take(stats_row);
            let mut merged = self.take(affine_row);
            if let Op::ScaleShiftDx(dx) = &mut merged.op {
                dx.stats = true;
            }
            merged.ins.extend(&stats_ins[1..]);
            let mut sum = self.take(row);
            sum.ins.retain(|v| *v != stats_out);
            // The merged row needs what both needed, so it stands where the later of the two stood.
            let at = stats_row.max(affine_row);
            if sum.ins == [affine_out] {
                merged.outs = sum.outs;
                self.put(at, merged);
            } else {
                self.put(at, merged);
                self.put(row, Node { op: Add.into(), ..sum });
            }
        }
    }
}

/// A convolution, or the gradient of its filter, that normalises its input; `None` for any other op, or one that does already.
fn with_pre(op: &Op, act: Act) -> Option<Op> {
    let pre = Some(act);
    match op {
        Op::Conv2d(conv) if conv.pre.is_none() && conv.depthwise.is_none() => Some(Conv2d { pre, ..conv.clone() }.into()),
        Op::Conv2dDw(conv) if conv.pre.is_none() => Some(Conv2dDw { pre, ..conv.clone() }.into()),
        Op::Depthwise(conv) if conv.pre.is_none() => Some(Depthwise { pre, ..conv.clone() }.into()),
        Op::DepthwiseDw(conv) if conv.pre.is_none() => Some(DepthwiseDw { pre, ..conv.clone() }.into()),
        _ => None,
    }
}
