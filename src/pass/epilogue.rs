//! Fusion into the way out: what would read a convolution's result again is taken of it while it is still at hand.
//!
//! A convolution takes its batch norm's statistics. The gradient by its input goes on through the activation that made the input, or
//! takes the sums of the batch norm before it. The table is in `fuse.rs`.

use super::fuse::Fuser;
use crate::ir::Node;
use crate::ops::activation::Act;
use crate::ops::{ActivationDx, Conv2d, Conv2dDx, Op, ScaleShiftSums};

impl Fuser {
    /// `dz = activation_dx(conv_dx(dy, w), y)`: the mask is laid over the gradient as it leaves.
    pub(super) fn mask_into_conv(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::ActivationDx(_))) {
            let node = self.rows[row].as_ref().expect("picked above");
            let (da, y, dz, Op::ActivationDx(ActivationDx { act })) = (node.ins[0], node.ins[1], node.outs[0], &node.op) else { continue };
            let (act, Some((conv_row, Node { op: Op::Conv2dDx(conv), .. }))) = (*act, self.maker(da)) else { continue };
            let alike = [y, dz].iter().all(|&v| self.graph.ty(v) == self.graph.ty(da));
            if conv.is_fused() || !alike || !self.only_reader(da, row) || !self.is_made_before(y, conv_row) {
                continue;
            }
            let op = Conv2dDx { mask: Some(act), ..conv.clone() };
            let (conv, mask) = (self.take(conv_row), self.take(row));
            let ins = [&conv.ins[..], &[y]].concat();
            self.put(conv_row, Node { op: op.into(), ins, outs: mask.outs, layer: conv.layer, phase: conv.phase });
        }
    }

    /// `da = conv_dx(dy, w)`, then the sums of a `scale_shift`'s gradient over it: they are taken as the results leave, which are masked on
    /// the way, so that the rest of that gradient is linear in them. Nothing else may read `da`.
    pub(super) fn sums_into_conv(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::ScaleShiftSums(_))) {
            let sums = self.rows[row].as_ref().expect("picked above");
            let (da, site, Op::ScaleShiftSums(ScaleShiftSums { act })) = (sums.ins[0], sums.ins[1..].to_vec(), &sums.op) else { continue };
            let (act, Some((conv_row, Node { op: Op::Conv2dDx(conv), .. }))) = (*act, self.maker(da)) else { continue };
            let is_gradient = |&r: &usize| {
                let node = self.rows[r].as_ref().expect("a reader is in place");
                matches!(&node.op, Op::ScaleShiftDx(dx) if dx.act == act) && node.ins[1..4] == site && !node.ins[1..].contains(&da)
            };
            let others: Vec<usize> = self.readers[da.index()].iter().copied().filter(|&r| r != row).collect();
            let known = site.iter().all(|&v| v != da && self.is_made_before(v, conv_row));
            if conv.is_fused() || !known || !self.is_private(da) || !others.iter().all(is_gradient) {
                continue;
            }
            let op = Conv2dDx { sums: Some(act), ..conv.clone() };
            let (conv, sums) = (self.take(conv_row), self.take(row));
            let (ins, outs) = ([conv.ins, site].concat(), [conv.outs, sums.outs].concat());
            self.put(conv_row, Node { op: op.into(), ins, outs, layer: conv.layer, phase: conv.phase });
            for r in others {
                if let Some(Node { op: Op::ScaleShiftDx(dx), .. }) = &mut self.rows[r] {
                    dx.act = Act::Linear;
                }
            }
        }
    }

    /// `y = conv(x, w)`, then `channel_stats(y)`, whatever else reads `y`.
    pub(super) fn stats_into_conv(&mut self) {
        for row in self.rows_of(|op| matches!(op, Op::ChannelStats(_))) {
            let y = self.rows[row].as_ref().expect("picked above").ins[0];
            let Some((conv_row, Node { op: Op::Conv2d(conv), .. })) = self.maker(y) else { continue };
            if conv.stats {
                continue;
            }
            let op = Conv2d { stats: true, ..conv.clone() };
            let (conv, stats) = (self.take(conv_row), self.take(row));
            let outs = [conv.outs, stats.outs].concat();
            self.put(conv_row, Node { op: op.into(), ins: conv.ins, outs, layer: conv.layer, phase: conv.phase });
        }
    }
}
