//! Every distinct convolution of some programs timed by itself, against the machine's peak arithmetic.
//!
//! A row is an op with its parameters and shapes; however many layers have it, it runs alone, on warm random operands, with packed
//! weights ready. Rates count the multiply-adds of the plain sums, so that an algorithm with fewer of them can pass 100% of the peak.

use crate::base::Ty;
use crate::device::{Arena, Arenas, Call, Operand, Place, Write};
use crate::error::Result;
use crate::ops::{Backend, Op};
use crate::pass::plan::Step;
use std::time::Instant;

/// A distinct op with its shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub op: Op,
    pub ins: Vec<Ty>,
    pub outs: Vec<Ty>,
    /// A layer that has it, and how many steps do.
    pub name: String,
    pub count: usize,
}

impl Layer {
    /// Floating-point operations of one run.
    pub fn flops(&self) -> u64 {
        self.op.flops(&self.ins, &self.outs)
    }
}

/// Adds the convolutions (any kind, any direction) and dense layers of a program's steps to `layers`; `network` goes before the
/// names.
pub fn collect(network: &str, steps: &[Step], layers: &mut Vec<Layer>) {
    let tys = |operands: &[Operand]| operands.iter().map(|o| o.ty).collect::<Vec<Ty>>();
    for step in steps {
        let kind = ["conv2d", "depthwise", "dense"].iter().any(|kind| step.op.name().starts_with(kind));
        if !kind {
            continue;
        }
        let (ins, outs) = (tys(&step.ins), tys(&step.outs));
        match layers.iter_mut().find(|l| l.op == step.op && l.ins == ins && l.outs == outs) {
            Some(known) => known.count += 1,
            None => {
                layers.push(Layer { op: step.op.clone(), ins, outs, name: format!("{network} {}", step.layer), count: 1 });
            }
        }
    }
}

/// Seconds of the fastest of at least `runs` runs of a layer, and of as many more as fit a tenth of a second.
///
/// # Errors
/// When the machine does not have the memory.
pub fn time<D: Backend>(device: &D, layer: &Layer, runs: usize) -> Result<f64> {
    let Layer { op, ins, outs, .. } = layer;
    let mut bytes = 0;
    let mut place = |ty: &Ty| {
        let place = Place { arena: Arena::Temps, offset: bytes, pitch: ty.shape.cols() };
        bytes = (bytes + ty.bytes()).next_multiple_of(64);
        Operand { ty: *ty, place, write: Write::Set }
    };
    let (sources, results): (Vec<Operand>, Vec<Operand>) = (ins.iter().map(&mut place).collect(), outs.iter().map(&mut place).collect());
    let (scratch, derived) = (device.scratch(op, ins, outs), device.derived(op, ins, outs));
    let mut arenas = Arenas::new(device)?;
    arenas.ensure(device, Arena::Temps, bytes + scratch)?;
    arenas.ensure(device, Arena::Derived, derived)?;
    for operand in &sources {
        let values: Vec<f32> = (0..operand.ty.shape.len()).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5).collect();
        device.write(arenas.get_mut(Arena::Temps), operand.place.offset, bytemuck::cast_slice(&values));
    }
    let (scratch, derived) = (Some((bytes, scratch)), Some((Arena::Derived, 0, derived)));
    let call = Call { device, arenas: &arenas, ins: &sources, outs: &results, scratch, derived };
    D::prepare(op, &call);
    let (start, mut best, mut done) = (Instant::now(), f64::INFINITY, 0);
    while done < runs || (start.elapsed().as_secs_f64() < 0.1 && done < 100) {
        let run = Instant::now();
        D::run(op, &call);
        best = best.min(run.elapsed().as_secs_f64());
        done += 1;
    }
    Ok(best)
}
