//! The roofline: no step can be faster than its arithmetic at the machine's peak, nor than its operands through memory
//! (Williams, Waterman and Patterson 2009).
//!
//! `ideal = max(flops / peak flops, bytes / bandwidth)`, `share = ideal / time`, `lost = time - ideal`. Operands that still lie in
//! a cache can be read faster than memory, so a share may exceed one; such a step has lost nothing.

use crate::base::Ty;
use crate::device::{Operand, Write};
use crate::ir::Phase;
use crate::pass::plan::Step;
use std::sync::Arc;

/// What the machine can do at best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    pub flops_per_s: f64,
    pub bytes_per_s: f64,
}

/// One step with its time and what it had to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    pub layer: Arc<str>,
    /// The op with its parameters: `conv2d 3x3 same`.
    pub op: String,
    /// The op alone: `conv2d`.
    pub kind: &'static str,
    pub phase: Phase,
    /// The largest operand's type.
    pub ty: Ty,
    pub seconds: f64,
    pub flops: u64,
    /// Operands read and written.
    pub bytes: u64,
    /// The least time that the machine allows.
    pub ideal: f64,
}

impl Cost {
    /// The share of the roofline that was reached.
    pub fn share(&self) -> f64 {
        self.ideal / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Seconds beyond the least time.
    pub fn lost(&self) -> f64 {
        (self.seconds - self.ideal).max(0.0)
    }
}

/// The costs of a program's steps, in their order; `seconds` has one time per step.
pub fn costs(steps: &[Step], seconds: &[f64], peaks: Peaks) -> Vec<Cost> {
    let cost = |(step, &seconds): (&Step, &f64)| {
        let tys = |operands: &[Operand]| operands.iter().map(|o| o.ty).collect::<Vec<Ty>>();
        let (ins, outs) = (tys(&step.ins), tys(&step.outs));
        let flops = step.op.flops(&ins, &outs);
        let written = |o: &Operand| o.ty.bytes() as u64 * if o.write == Write::Add { 2 } else { 1 };
        let bytes = ins.iter().map(|ty| ty.bytes() as u64).sum::<u64>() + step.outs.iter().map(written).sum::<u64>();
        let ty = ins.iter().chain(&outs).copied().max_by_key(|ty| ty.bytes()).unwrap_or(Ty::f32([1]));
        let ideal = (flops as f64 / peaks.flops_per_s).max(bytes as f64 / peaks.bytes_per_s);
        let (layer, op, kind, phase) = (step.layer.clone(), step.op.to_string(), step.op.name(), step.phase);
        Cost { layer, op, kind, phase, ty, seconds, flops, bytes, ideal }
    };
    steps.iter().zip(seconds).map(cost).collect()
}

/// Steps that have something in common, added up.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    pub steps: usize,
    pub seconds: f64,
    pub flops: u64,
    pub bytes: u64,
    pub ideal: f64,
    pub lost: f64,
}

impl Group {
    /// The share of the roofline that was reached.
    pub fn share(&self) -> f64 {
        self.ideal / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Adds up the steps that `key` gives the same name; those that lose most first.
pub fn groups<'a>(costs: &'a [Cost], key: impl Fn(&'a Cost) -> &'a str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for cost in costs {
        let name = key(cost);
        let at = groups.iter().position(|g| g.name == name).unwrap_or_else(|| {
            let name = name.to_string();
            groups.push(Group { name, steps: 0, seconds: 0.0, flops: 0, bytes: 0, ideal: 0.0, lost: 0.0 });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.steps += 1;
        group.seconds += cost.seconds;
        group.flops += cost.flops;
        group.bytes += cost.bytes;
        group.ideal += cost.ideal;
        group.lost += cost.lost();
    }
    groups.sort_by(|a, b| b.lost.total_cmp(&a.lost));
    groups
}
