//! The memory plan: a place for every value, before the first byte is allocated.
//!
//! 1. [`alias`] decides which values share memory by right: concat parts are columns of the whole, column ranges are views,
//!    contributions to a sum are written one over the other (`Write::Set` first, `Write::Add` after), elementwise rows run
//!    in place. Rows that thereby have nothing left to do disappear.
//! 2. [`arena`] packs the remaining buffers into one arena by their lifetimes.
//! 3. [`proof`] checks the outcome: no two live buffers overlap, every operand of every step lies in one live buffer, and
//!    replaying all reads and writes symbolically, every row reads exactly the values it names.

mod alias;
mod arena;
mod proof;

use crate::base::{Ty, Val};
use crate::device::{Arena, Operand, Place, Write};
use crate::error::{Error, Result};
use crate::ir::{Graph, Node, Phase, Role};
use crate::ops::Op;
use alias::Aliases;
use std::ops::Range;
use std::sync::Arc;

/// What the planner may do. Everything off is the plainest plan: each value its own memory, each row a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Concat parts and column ranges share memory with the whole.
    pub views: bool,
    /// Contributions to a sum are accumulated at its place.
    pub sums: bool,
    /// Elementwise rows overwrite their input when nothing reads it later.
    pub in_place: bool,
    /// Gradients of parameters are added to what the arena holds: all but the first part of an accumulated batch.
    pub accumulate: bool,
    /// Buffers whose lives do not meet share bytes. Without, every value can be read after a run.
    pub reuse: bool,
    /// Unused bytes between buffers, for a test that fills them with a pattern.
    pub guard: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { views: true, sums: true, in_place: true, accumulate: false, reuse: true, guard: 0 }
    }
}

impl Options {
    /// Every value in memory of its own, every row a step.
    pub const PLAIN: Options = Options { views: false, sums: false, in_place: false, accumulate: false, reuse: false, guard: 0 };
}

/// One op with the places of its operands.
#[derive(Clone, Debug)]
pub struct Step {
    pub op: Op,
    pub ins: Vec<Operand>,
    pub outs: Vec<Operand>,
    /// Offset and bytes of working memory in [`Arena::Temps`].
    pub scratch: Option<(usize, usize)>,
    /// Packed weights: arena, offset and bytes. Those of weights that change with every run live in [`Arena::Temps`], no longer than
    /// the step; those of constant weights stay in [`Arena::Derived`].
    pub derived: Option<(Arena, usize, usize)>,
    /// Whether the results are kept from run to run, in [`Arena::Derived`], and computed when their source has changed alone.
    pub kept: bool,
    pub layer: Arc<str>,
    pub phase: Phase,
    /// The row of the graph that the step carries out.
    pub row: usize,
}

/// A stretch of the temps arena and the rows between which it is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub bytes: usize,
    pub offset: usize,
    /// First row that writes and last row that reads; `usize::MAX` stands for the host.
    pub life: (usize, usize),
}

/// Where everything lies and what runs.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Place of each value; `None` for values that no step touches.
    pub places: Vec<Option<Place>>,
    /// Bytes of each arena, by [`Arena::index`].
    pub bytes: [usize; Arena::ALL.len()],
    /// The temps arena, buffer by buffer.
    pub buffers: Vec<Buffer>,
    /// The trainable suffix of the parameter arena, in elements.
    pub trainable: Range<usize>,
}

impl Plan {
    /// Bytes of all arenas together: the planned peak.
    pub fn total_bytes(&self) -> usize {
        self.bytes.iter().sum()
    }
}

/// A row with its op as it is carried out, its inputs, the buffer and bytes of working memory, and where packed weights go: in
/// [`Arena::Temps`] the number of a buffer, in [`Arena::Derived`] an offset, then bytes.
type Wanted<'a> = (usize, &'a Op, &'a Vec<Val>, Option<(usize, usize)>, Option<(Arena, usize, usize)>);

/// Bytes of scratch and of packed weights that a device wants for a row.
pub type Needs<'a> = dyn Fn(&Op, &[Ty], &[Ty]) -> (usize, usize) + 'a;

/// Plans a graph for a device whose `needs` are given.
///
/// # Errors
/// An internal error if the proof fails.
pub fn plan(graph: &Graph, needs: &Needs, options: Options) -> Result<Plan> {
    let fixed = Fixed::of(graph, options)?;
    let aliases = Aliases::find(graph, &fixed, options);
    let mut layout = arena::Layout::new(options);
    let homes = aliases.buffers(graph, &fixed, &mut layout);
    let mut bytes = fixed.bytes;
    let mut steps = Vec::new();
    for (row, work) in aliases.work.iter().enumerate() {
        let (node, Some((op, ins))) = (&graph.nodes[row], work) else { continue };
        let types = |vals: &[Val]| vals.iter().map(|&v| graph.ty(v)).collect::<Vec<Ty>>();
        let (scratch, derived) = needs(op, &types(ins), &types(&node.outs));
        let packed = match derived {
            0 => None,
            _ if ins.iter().any(|&v| graph.trainable(v)) => Some((Arena::Temps, layout.add(derived, (row, row)), derived)),
            _ => {
                let offset = bytes[Arena::Derived.index()];
                bytes[Arena::Derived.index()] = arena::align(offset + derived);
                Some((Arena::Derived, offset, derived))
            }
        };
        let scratch = (scratch > 0).then(|| (layout.add(scratch, (row, row)), scratch));
        steps.push((row, op, ins, scratch, packed));
    }
    let (buffers, temps) = layout.pack();
    bytes[Arena::Temps.index()] = temps;
    let places: Vec<Option<Place>> =
        (0..graph.values.len()).map(|i| aliases.place(Val(i as u32), graph, &fixed, &homes, &buffers)).collect();
    let operand = |v: Val, write: Write| -> Result<Operand> {
        let place = places[v.index()].ok_or_else(|| Error::internal(format!("{v} has no place")).at(graph.name(v)))?;
        Ok(Operand { ty: graph.ty(v), place, write })
    };
    let build = |(row, op, ins, scratch, packed): Wanted| {
        let node = &graph.nodes[row];
        Ok(Step {
            op: op.clone(),
            ins: ins.iter().map(|&v| operand(v, Write::Set)).collect::<Result<_>>()?,
            outs: node.outs.iter().map(|&v| operand(v, aliases.writes[v.index()])).collect::<Result<_>>()?,
            scratch: scratch.map(|(buffer, bytes)| (buffers[buffer].offset, bytes)),
            derived: packed.map(|(arena, at, bytes)| (arena, if arena == Arena::Temps { buffers[at].offset } else { at }, bytes)),
            kept: keeps(graph, node),
            layer: node.layer.clone(),
            phase: node.phase,
            row,
        })
    };
    let steps = steps.into_iter().map(build).collect::<Result<_>>()?;
    let plan = Plan { steps, places, bytes, buffers, trainable: fixed.trainable.clone() };
    proof::disjoint(&plan)?;
    proof::placed(graph, &plan)?;
    proof::replay(graph, &fixed, &aliases)?;
    Ok(plan)
}

/// The values whose place follows from their role: parameters, states, their gradients and updates, ranges.
pub(crate) struct Fixed {
    places: Vec<Option<Place>>,
    bytes: [usize; Arena::ALL.len()],
    trainable: Range<usize>,
    /// Gradients are added to what the arena holds.
    accumulate: bool,
}

impl Fixed {
    fn of(graph: &Graph, options: Options) -> Result<Self> {
        let size = graph.dtype().size();
        let mut places = vec![None; graph.values.len()];
        let mut bytes = [0; Arena::ALL.len()];
        let mut lay = |vals: &[Val], arena: Arena| {
            let mut offset = 0;
            for &v in vals {
                let ty = graph.ty(v);
                places[v.index()] = Some(Place { arena, offset, pitch: ty.shape.cols() });
                offset += ty.bytes();
            }
            bytes[arena.index()] = offset;
        };
        lay(&graph.params, Arena::Params);
        lay(&graph.states, Arena::State);
        let trainable = trainable_suffix(graph)?;
        bytes[Arena::Grads.index()] = trainable.len() * size;
        for (i, value) in graph.values.iter().enumerate() {
            let pitch = value.ty.shape.cols();
            places[i] = match value.role {
                Role::Update { of } => places[of.index()].or_else(|| range_place(graph, of, &trainable, size)),
                Role::Gradient { of } => {
                    let start = places[of.index()].expect("a parameter has a place").offset;
                    Some(Place { arena: Arena::Grads, offset: start - trainable.start * size, pitch })
                }
                Role::Range { arena, copy } => {
                    let slots = &mut bytes[Arena::Slots.index()];
                    if arena == Arena::Slots {
                        *slots = (*slots).max((copy + 1) * trainable.len() * size);
                    }
                    range_place(graph, Val(i as u32), &trainable, size)
                }
                _ => places[i],
            };
        }
        for &v in graph.nodes.iter().filter(|node| keeps(graph, node)).flat_map(|node| &node.outs) {
            let (ty, offset) = (graph.ty(v), &mut bytes[Arena::Derived.index()]);
            places[v.index()] = Some(Place { arena: Arena::Derived, offset: *offset, pitch: ty.shape.cols() });
            *offset = arena::align(*offset + ty.bytes());
        }
        Ok(Fixed { places, bytes, trainable, accumulate: options.accumulate })
    }

    fn get(&self, v: Val) -> Option<Place> {
        self.places[v.index()]
    }
}

/// Whether the results of a row are kept from run to run: copies of weights that the program itself does not train.
fn keeps(graph: &Graph, node: &Node) -> bool {
    let trains = || graph.values.iter().any(|v| matches!(v.role, Role::Update { of } if !graph.states.contains(&of)));
    matches!(node.op, Op::WeightCast(_)) && !(node.ins.iter().any(|&v| graph.trainable(v)) && trains())
}

fn range_place(graph: &Graph, v: Val, trainable: &Range<usize>, size: usize) -> Option<Place> {
    let Role::Range { arena, copy } = graph.role(v) else { return None };
    let first = match arena {
        Arena::Params => trainable.start,
        _ => copy * trainable.len(),
    };
    Some(Place { arena, offset: first * size, pitch: graph.ty(v).shape.cols() })
}

/// The elements of the parameter arena that are trained: from the first trainable parameter to the end.
fn trainable_suffix(graph: &Graph) -> Result<Range<usize>> {
    let total: usize = graph.params.iter().map(|&v| graph.ty(v).shape.len()).sum();
    let frozen = graph.params.iter().take_while(|&&v| !graph.trainable(v)).map(|&v| graph.ty(v).shape.len()).sum();
    let late = graph.params.iter().skip_while(|&&v| !graph.trainable(v)).find(|&&v| !graph.trainable(v));
    match late {
        Some(&v) => Err(Error::internal("is frozen, but a layer before it is trained").at(graph.name(v))),
        None => Ok(frozen..total),
    }
}
