//! The proof that a plan is right.

use super::{Aliases, Buffer, Fixed, Plan};
use crate::base::Val;
use crate::device::{Arena, Operand, Write};
use crate::error::{Error, Result};
use crate::ir::{Graph, Role};
use crate::ops::{Columns, Op};
use std::collections::HashMap;

/// No two buffers that are in use at the same row share a byte, and all lie inside the arena.
pub fn disjoint(plan: &Plan) -> Result<()> {
    let mut order: Vec<_> = plan.buffers.iter().enumerate().collect();
    order.sort_by_key(|(_, b)| b.offset);
    for (k, (i, a)) in order.iter().enumerate() {
        if a.offset + a.bytes > plan.bytes[Arena::Temps.index()] {
            return Err(Error::internal(format!("buffer {i} ends outside the arena")));
        }
        for (j, b) in order[k + 1..].iter().take_while(|(_, b)| b.offset < a.offset + a.bytes) {
            if a.life.0 <= b.life.1 && b.life.0 <= a.life.1 && b.bytes > 0 {
                return Err(Error::internal(format!("buffers {i} and {j} overlap while both are in use")));
            }
        }
    }
    Ok(())
}

/// Every operand and all working memory of every step lies, with all its rows, inside one buffer that is in use at that row,
/// and what the host reads lies in one that outlives the run. With [`disjoint`], nothing else can have been written there.
pub fn placed(graph: &Graph, plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        let wrong = |what: String| Error::internal(what).at(&step.layer).at(format!("row {} ({})", step.row, step.op));
        let home = |first: usize, bytes: usize| {
            let holds =
                |b: &&Buffer| b.offset <= first && first + bytes <= b.offset + b.bytes && b.life.0 <= step.row && step.row <= b.life.1;
            plan.buffers.iter().find(holds).ok_or_else(|| wrong(format!("{bytes} bytes at {first} lie in no buffer in use")))
        };
        let extent = |o: &Operand| {
            let (rows, cols) = (o.ty.shape.rows(), o.ty.shape.cols());
            let fits = rows <= 1 || o.place.pitch >= cols;
            if fits { Ok((rows.saturating_sub(1) * o.place.pitch + cols) * o.ty.dtype.size()) } else { Err(wrong("rows overlap".into())) }
        };
        let temps = |o: &&Operand| o.place.arena == Arena::Temps && !o.ty.shape.is_empty();
        for o in step.ins.iter().chain(&step.outs).filter(temps) {
            home(o.place.offset, extent(o)?)?;
        }
        let packed = step.derived.filter(|&(arena, ..)| arena == Arena::Temps).map(|(_, offset, bytes)| (offset, bytes));
        for (offset, bytes) in step.scratch.into_iter().chain(packed) {
            home(offset, bytes)?;
        }
    }
    let lost = graph.outputs.iter().find(|(_, v)| {
        let place = plan.places[v.index()].filter(|p| p.arena == Arena::Temps);
        let kept = |p: crate::device::Place| {
            plan.buffers.iter().any(|b| b.life.1 == usize::MAX && b.offset <= p.offset && p.offset < b.offset + b.bytes)
        };
        place.is_some_and(|p| !kept(p))
    });
    lost.map_or(Ok(()), |(name, _)| Err(Error::internal(format!("output {name} does not outlive the run"))))
}

/// What one column of a tree holds: a value's own content, or a sum of which so many parts have arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    of: Val,
    parts: usize,
}

/// Replays every step symbolically: each write marks the columns it covers with the value it makes, each read finds the
/// marks of exactly the value it names. Values of a tree have the same rows, so columns are all there is to follow; that
/// different trees keep apart is [`disjoint`]'s part, and the fixed arenas are disjoint by construction.
pub fn replay(graph: &Graph, fixed: &Fixed, aliases: &Aliases) -> Result<()> {
    let mut r = Replay { graph, fixed, aliases, cells: HashMap::new(), sum_of: HashMap::new() };
    for (y, parts) in aliases.sums.iter().enumerate() {
        for &part in parts.iter().flatten() {
            r.sum_of.insert(part, Val(y as u32));
        }
    }
    for (row, work) in aliases.work.iter().enumerate() {
        let (node, Some((_, ins))) = (&graph.nodes[row], work) else { continue };
        let named = |e: Error| e.at(&node.layer).at(format!("row {row} ({})", node.op));
        ins.iter().try_for_each(|&v| r.read(v)).map_err(named)?;
        node.outs.iter().try_for_each(|&v| r.write(v, ins.len())).map_err(named)?;
    }
    graph.outputs.iter().try_for_each(|&(_, v)| r.read(v))
}

struct Replay<'a> {
    graph: &'a Graph,
    fixed: &'a Fixed,
    aliases: &'a Aliases,
    /// By root and column.
    cells: HashMap<(Val, usize), Cell>,
    /// The accumulated sum that a value is a part of.
    sum_of: HashMap<Val, Val>,
}

impl Replay<'_> {
    /// What column `c` of value `v` must hold when a row reads it.
    fn expected(&self, v: Val, c: usize) -> Option<Cell> {
        if let Some(parts) = &self.aliases.sums[v.index()] {
            debug_assert!(!parts.is_empty());
            return Some(Cell { of: v, parts: self.graph.nodes[self.maker(v)?].ins.len() });
        }
        let row = self.maker(v)?; // `None`: an input, a parameter, a state
        if self.aliases.work[row].is_some() {
            return Some(Cell { of: v, parts: 1 });
        }
        let node = &self.graph.nodes[row];
        match &node.op {
            Op::Columns(Columns { start, .. }) => self.expected(node.ins[0], c + start),
            Op::Concat(_) => {
                let mut c = c;
                let part = node.ins.iter().find(|p| {
                    let cols = self.graph.ty(**p).shape.cols();
                    let here = c < cols;
                    c -= if here { 0 } else { cols };
                    here
                });
                self.expected(*part?, c)
            }
            _ => Some(Cell { of: v, parts: 1 }),
        }
    }

    fn maker(&self, v: Val) -> Option<usize> {
        self.aliases.maker(v)
    }

    /// The columns to follow. A whole value in a fixed arena counts as one: a flat range has millions.
    fn columns_of(&self, v: Val) -> (Val, std::ops::Range<usize>) {
        let (root, columns) = self.aliases.columns_of(v, self.graph);
        let whole = self.fixed.get(root).is_some() && columns.len() == self.graph.ty(root).shape.cols();
        (root, if whole { 0..1 } else { columns })
    }

    fn read(&self, v: Val) -> Result<()> {
        let (root, columns) = self.columns_of(v);
        for (c, column) in columns.enumerate() {
            let (expected, found) = (self.expected(v, c), self.cells.get(&(root, column)).copied());
            if expected.is_some() && expected != found {
                return Err(Error::internal(format!("column {c} of {v} should hold {expected:?} and holds {found:?}")));
            }
        }
        Ok(())
    }

    /// Marks the columns of `v`; a row that carries out the rest of a sum brings `rest` parts at once.
    fn write(&mut self, v: Val, rest: usize) -> Result<()> {
        let (root, columns) = self.columns_of(v);
        let adds = self.aliases.writes[v.index()] == Write::Add;
        let is_sum = self.aliases.sums[v.index()].is_some();
        let sum = if is_sum { Some(v) } else { self.sum_of.get(&v).copied() };
        let first_of_gradient = |v: Val| self.fixed.accumulate && !is_sum && matches!(self.graph.role(v), Role::Gradient { .. });
        for (c, column) in columns.enumerate() {
            let cell = match sum {
                Some(y) if adds && self.aliases.sums[y.index()].as_ref().is_some_and(|parts| parts[0] != v) => {
                    let base = self.aliases.sums[y.index()].as_ref().expect("checked above")[0];
                    let found = self.cells.get(&(root, column)).copied();
                    let before = match found {
                        Some(cell) if cell.of == y => cell.parts,
                        _ if found == self.expected(base, c) => 1,
                        _ => return Err(Error::internal(format!("column {c} of {v} is added to {found:?}, not to a part of {y}"))),
                    };
                    Cell { of: y, parts: before + if is_sum { rest } else { 1 } }
                }
                _ if adds && sum.is_none() && !first_of_gradient(v) => {
                    return Err(Error::internal(format!("{v} is added to, but is no part of a sum")));
                }
                _ => Cell { of: v, parts: 1 },
            };
            self.cells.insert((root, column), cell);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, arena::Layout, plan};
    use super::*;
    use crate::ir::Builder;
    use crate::ops::activation::Act;
    use crate::ops::{Activation, Add, Concat};

    /// Two branches that are summed, and joined with a third.
    fn graph() -> Graph {
        let mut b = Builder::new();
        let x = b.input("x", [1, 2, 2, 4]);
        let mut relu = |v| b.op(Activation { act: Act::Relu }, &[v]);
        let (p, q, r) = (relu(x), relu(x), relu(x));
        let sum = b.op(Add, &[p, q]);
        let joined = b.op(Concat, &[sum, r]);
        b.output("joined", joined);
        b.finish().unwrap()
    }

    fn proven(spoil: impl Fn(&mut Aliases)) -> Result<()> {
        let graph = graph();
        let fixed = Fixed::of(&graph, Options::default())?;
        let mut aliases = Aliases::find(&graph, &fixed, Options::default());
        assert_eq!(aliases.work.iter().flatten().count(), 3, "sum and concat are carried out by the branches");
        spoil(&mut aliases);
        replay(&graph, &fixed, &aliases)
    }

    #[test]
    fn a_right_plan_is_proven_and_wrong_ones_are_not() {
        proven(|_| ()).unwrap();
        let (q, r) = (Val(2), Val(3));
        assert!(proven(|a| a.writes[q.index()] = Write::Set).is_err(), "the second part overwrites the first");
        assert!(proven(|a| a.writes[r.index()] = Write::Add).is_err(), "a value is added to what is no part of it");
        assert!(proven(|a| a.parent[r.index()] = Some((Val(5), 0))).is_err(), "two parts of a concat in one place");
        assert!(proven(|a| a.work[1] = None).is_err(), "a part never arrives");
    }

    #[test]
    fn operands_outside_a_buffer_in_use_are_found() {
        let graph = graph();
        let right = plan(&graph, &|_, _, _| (64, 0), Options::default()).unwrap();
        placed(&graph, &right).unwrap();
        let spoilt = |spoil: fn(&mut Plan)| {
            let mut plan = right.clone();
            spoil(&mut plan);
            placed(&graph, &plan)
        };
        assert!(spoilt(|p| p.steps[2].outs[0].place.offset += 1 << 20).is_err(), "a shifted place");
        assert!(spoilt(|p| p.steps[1].ins[0].place.pitch = 1).is_err(), "rows that overlap");
        assert!(spoilt(|p| p.buffers.iter_mut().for_each(|b| b.life.1 = b.life.1.min(1))).is_err(), "lives that end too early");
        assert!(spoilt(|p| p.steps[0].scratch = Some((1 << 20, 64))).is_err(), "working memory outside");
        assert!(spoilt(|p| p.steps[0].derived = Some((Arena::Temps, 1 << 20, 64))).is_err(), "packed weights outside");
    }

    #[test]
    fn buffers_in_use_together_must_lie_apart() {
        let mut layout = Layout::new(Options::default());
        [(100, (0, 4)), (100, (2, 6))].into_iter().for_each(|(bytes, life)| assert!(layout.add(bytes, life) < 2));
        let (mut buffers, bytes) = layout.pack();
        let spread = |buffers: Vec<Buffer>| Plan { steps: vec![], places: vec![], bytes: [0, 0, 0, 0, 0, bytes], buffers, trainable: 0..0 };
        disjoint(&spread(buffers.clone())).unwrap();
        buffers[1].offset = buffers[0].offset + 64;
        assert!(disjoint(&spread(buffers)).is_err());
    }
}
