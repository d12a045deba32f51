//! Which values share memory by right.
//!
//! Aliases form a forest: a value either has memory of its own or is a range of columns of its parent. All values of a tree
//! have the same number of rows and the pitch of the root, so "do these two overlap" is a question about columns.

use super::{Buffer, Fixed, Options};
use crate::base::Val;
use crate::device::{Arena, Place, Write};
use crate::ir::{Graph, Role};
use crate::ops::{Columns, Concat, Op};
use std::ops::Range;

/// The forest, and what is left to do for each row.
pub struct Aliases {
    /// For each value, the value it is a column range of, and the first column.
    pub parent: Vec<Option<(Val, usize)>>,
    /// For each row, the op and inputs that remain; `None` where nothing does.
    pub work: Vec<Option<(Op, Vec<Val>)>>,
    /// How each value is written by its row.
    pub writes: Vec<Write>,
    /// For each accumulated sum, the parts written at its place, in order.
    pub sums: Vec<Option<Vec<Val>>>,
    /// For each value, the rows that read it themselves (not through an alias).
    reads: Vec<Vec<usize>>,
    makers: Vec<Option<usize>>,
    /// For each root, all values of its tree.
    members: Vec<Vec<Val>>,
    /// Values that an op takes for a parameter or makes as the gradient of one: no gaps between rows.
    gapless: Vec<bool>,
}

impl Aliases {
    /// Finds the aliases that `options` allow.
    pub fn find(graph: &Graph, fixed: &Fixed, options: Options) -> Self {
        let count = graph.values.len();
        let mut a = Aliases {
            parent: vec![None; count],
            work: graph.nodes.iter().map(|n| Some((n.op.clone(), n.ins.clone()))).collect(),
            writes: vec![Write::Set; count],
            sums: vec![None; count],
            reads: graph.uses(),
            makers: graph.producers(),
            members: (0..count).map(|i| vec![Val(i as u32)]).collect(),
            gapless: vec![false; count],
        };
        for node in &graph.nodes {
            let operand = |&i: &usize| node.ins.iter().chain(&node.outs).nth(i);
            node.op.weights().iter().filter_map(operand).for_each(|v| a.gapless[v.index()] = true);
        }
        for &(_, v) in &graph.outputs {
            a.reads[v.index()].push(usize::MAX);
        }
        if options.views {
            (0..graph.nodes.len()).for_each(|row| a.concat(graph, fixed, row));
            (0..graph.nodes.len()).for_each(|row| a.columns(graph, fixed, row));
        }
        if options.sums {
            (0..graph.nodes.len()).for_each(|row| a.sum(graph, fixed, row));
        }
        if options.in_place {
            (0..graph.nodes.len()).for_each(|row| a.in_place(graph, fixed, row));
        }
        if fixed.accumulate {
            a.accumulate(graph);
        }
        a
    }

    /// The root of a value's tree, and the columns of it that the value occupies.
    pub fn columns_of(&self, v: Val, graph: &Graph) -> (Val, Range<usize>) {
        let (mut at, mut first) = (v, 0);
        while let Some((parent, column)) = self.parent[at.index()] {
            (at, first) = (parent, first + column);
        }
        (at, first..first + graph.ty(v).shape.cols())
    }

    /// The row that makes a value.
    pub fn maker(&self, v: Val) -> Option<usize> {
        self.makers[v.index()]
    }

    fn adopt(&mut self, child: Val, parent: Val, column: usize, graph: &Graph) {
        debug_assert!(self.parent[child.index()].is_none());
        self.parent[child.index()] = Some((parent, column));
        let (root, _) = self.columns_of(parent, graph);
        let moved = std::mem::take(&mut self.members[child.index()]);
        self.members[root.index()].extend(moved);
    }

    /// Whether a value has memory of its own that the planner may move elsewhere.
    fn is_free(&self, v: Val, graph: &Graph, fixed: &Fixed) -> bool {
        self.parent[v.index()].is_none() && fixed.get(v).is_none() && graph.role(v) == Role::Temp && self.makers[v.index()].is_some()
    }

    /// `y = concat(x, ..)`: the parts become columns of `y`, if every one of them is free; otherwise all are copied. A value that
    /// two concats want becomes part of the first.
    fn concat(&mut self, graph: &Graph, fixed: &Fixed, row: usize) {
        let node = &graph.nodes[row];
        let Op::Concat(_) = node.op else { return };
        let y = node.outs[0];
        let once = |x: &Val| node.ins.iter().filter(|&v| v == x).count() == 1;
        if !node.ins.iter().all(|x| self.is_free(*x, graph, fixed) && once(x)) {
            return;
        }
        let mut column = 0;
        for &x in &node.ins {
            self.adopt(x, y, column, graph);
            self.reads[x.index()].retain(|&r| r != row);
            column += graph.ty(x).shape.cols();
        }
        self.work[row] = None;
    }

    /// `y = columns(x)`: a view.
    fn columns(&mut self, graph: &Graph, fixed: &Fixed, row: usize) {
        let node = &graph.nodes[row];
        let Op::Columns(Columns { start, .. }) = node.op else { return };
        let (x, y) = (node.ins[0], node.outs[0]);
        if self.is_free(y, graph, fixed) && graph.role(x) == Role::Temp {
            self.adopt(y, x, start, graph);
            self.reads[x.index()].retain(|&r| r != row);
            self.work[row] = None;
        }
    }

    /// `y = p0 + p1 + ..`: parts that nothing else reads are accumulated at the place of `y`. The earliest part may have
    /// other readers if all of them are done before the second part is written over it: a residual connection's gradient.
    fn sum(&mut self, graph: &Graph, fixed: &Fixed, row: usize) {
        let node = &graph.nodes[row];
        let Op::Add(_) = node.op else { return };
        let y = node.outs[0];
        let mut parts = node.ins.clone();
        parts.sort_by_key(|v| self.ready(*v, graph));
        let once = |v: Val| node.ins.iter().filter(|&&p| p == v).count() == 1;
        let own = |a: &Self, v: Val| {
            let maker = a.makers[v.index()].filter(|&m| a.work[m].is_some());
            a.is_free(v, graph, fixed) && a.reads[v.index()] == [row] && once(v) && maker.is_some() && a.members[v.index()].len() == 1
        };
        let group: Vec<Val> = parts.iter().copied().filter(|&v| own(self, v)).collect();
        let first = parts[0];
        let second = group.iter().find(|&&v| v != first).and_then(|v| self.makers[v.index()]).unwrap_or(row);
        let y_settled = self.parent[y.index()].is_some() || fixed.get(y).is_some();
        let base = if once(first) && self.may_hold_sum(first, second, row, y_settled, graph, fixed) {
            Some(first)
        } else {
            group.first().copied()
        };
        let Some(base) = base else { return };
        let written: Vec<Val> = std::iter::once(base).chain(group.into_iter().filter(|&v| v != base)).collect();
        if y_settled {
            self.adopt(base, y, 0, graph);
        } else {
            self.adopt(y, base, 0, graph);
        }
        for &part in &written {
            self.reads[part.index()].retain(|&r| r != row);
            if part != base {
                self.adopt(part, y, 0, graph);
                self.writes[part.index()] = Write::Add;
            }
        }
        let rest: Vec<Val> = node.ins.iter().copied().filter(|v| !written.contains(v)).collect();
        self.writes[y.index()] = Write::Add;
        self.work[row] = match rest.len() {
            0 => None,
            1 => Some((Concat.into(), rest)),
            _ => Some((node.op.clone(), rest)),
        };
        self.sums[y.index()] = Some(written);
    }

    /// The row after which a value is whole. A view is as old as what it shows, an accumulated sum as its last part: their own
    /// rows do nothing. (In a dense block the gradient of the statistics comes between the two.)
    fn ready(&self, v: Val, graph: &Graph) -> Option<usize> {
        let row = self.makers[v.index()]?;
        match (&self.work[row], &self.sums[v.index()]) {
            (Some(_), _) => Some(row),
            (None, Some(parts)) => parts.iter().map(|&p| self.ready(p, graph)).max()?,
            (None, None) => graph.nodes[row].ins.iter().map(|&x| self.ready(x, graph)).max()?,
        }
    }

    /// Whether the sum of row `row` may be built up over `first`, the earliest of its parts.
    fn may_hold_sum(&self, first: Val, second: usize, row: usize, y_settled: bool, graph: &Graph, fixed: &Fixed) -> bool {
        let (root, range) = self.columns_of(first, graph);
        let rooted =
            if y_settled { self.is_free(first, graph, fixed) } else { fixed.get(root).is_none() && graph.role(root) == Role::Temp };
        let made = self.ready(first, graph).is_some_and(|m| m < second);
        rooted
            && made
            && self.members[root.index()].iter().all(|&m| {
                let (_, other) = self.columns_of(m, graph);
                let apart = other.end <= range.start || range.end <= other.start;
                let done = self.reads[m.index()].iter().all(|&r| r < second || (m == first && r == row));
                apart || done
            })
    }

    /// An elementwise row takes over the memory of its input when no later row reads anything there.
    fn in_place(&mut self, graph: &Graph, fixed: &Fixed, row: usize) {
        let node = &graph.nodes[row];
        let Some((_, ins)) = &self.work[row] else { return };
        for (out, &y) in node.outs.iter().enumerate() {
            let Some(input) = node.op.in_place(out).filter(|&i| i < ins.len()) else { continue };
            let x = ins[input];
            let same = graph.ty(x) == graph.ty(y) && ins.iter().filter(|&&v| v == x).count() == 1;
            let (root, range) = self.columns_of(x, graph);
            let whole = range.len() == graph.ty(root).shape.cols() && fixed.get(root).is_none() && graph.role(root) == Role::Temp;
            let done = |m: &Val| self.reads[m.index()].iter().all(|&r| r < row || (r == row && *m == x));
            let unrelated = ins.iter().all(|&v| v == x || self.columns_of(v, graph).0 != root);
            if same
                && whole
                && unrelated
                && self.is_free(y, graph, fixed)
                && self.makers[x.index()].is_some_and(|m| m < row)
                && self.columns_of(y, graph).0 != root
                && self.members[root.index()].iter().all(done)
                && self.members[y.index()].iter().all(|&m| !self.written_before(m, row))
            {
                self.adopt(y, x, 0, graph);
                break;
            }
        }
    }

    /// Whether a value's row comes before `row` and writes: the value could not start life in that row's result.
    fn written_before(&self, v: Val, row: usize) -> bool {
        self.makers[v.index()].is_some_and(|m| m < row && self.work[m].is_some())
    }

    /// The first write of each parameter's gradient adds as well.
    fn accumulate(&mut self, graph: &Graph) {
        for i in 0..graph.values.len() {
            if !matches!(graph.values[i].role, Role::Gradient { .. }) {
                continue;
            }
            let first = self.sums[i].as_ref().map_or(i, |parts| parts[0].index());
            self.writes[first] = Write::Add;
        }
    }

    /// Adds a buffer for each root that steps touch; returns the number of each root's buffer.
    pub fn buffers(&self, graph: &Graph, fixed: &Fixed, layout: &mut super::arena::Layout) -> Vec<Option<usize>> {
        (0..graph.values.len())
            .map(|i| {
                let root = Val(i as u32);
                if self.parent[i].is_some() || fixed.get(root).is_some() {
                    return None;
                }
                let life = self.life(root, graph)?;
                let shape = graph.ty(root).shape;
                let bytes = shape.rows() * self.pitch(root, graph) * graph.ty(root).dtype.size();
                Some(layout.add(bytes, life))
            })
            .collect()
    }

    /// From the first row that writes into a tree to the last that reads from it; inputs are written before the first row.
    fn life(&self, root: Val, graph: &Graph) -> Option<(usize, usize)> {
        let members = &self.members[root.index()];
        let made = |v: &Val| match graph.role(*v) {
            Role::Input => Some(0),
            _ => self.makers[v.index()].filter(|&m| self.work[m].is_some()),
        };
        let first = members.iter().filter_map(made).min()?;
        let last_read = members.iter().filter_map(|v| self.reads[v.index()].last().copied()).max();
        let last_made = members.iter().filter_map(made).max();
        // An input stays where it is for as long as the program, so that the same batch can be run again.
        let last = if graph.role(root) == Role::Input { Some(usize::MAX) } else { last_read.max(last_made) };
        Some((first, last?))
    }

    /// The distance between rows of a root: its columns, rounded up to whole vectors; not a multiple of 1024 floats, at
    /// which the rows of a tile would fall into one set of the cache (77% of the speed was measured).
    fn pitch(&self, root: Val, graph: &Graph) -> usize {
        let shape = graph.ty(root).shape;
        let cols = shape.cols();
        let gapless = self.members[root.index()].iter().any(|v| self.gapless[v.index()]);
        if shape.rows() == 1 || cols < 16 || gapless || graph.role(root) == Role::Input {
            return cols;
        }
        let rounded = cols.next_multiple_of(16);
        if rounded.is_multiple_of(1024) { rounded + 16 } else { rounded }
    }

    /// The place of a value, from that of its root.
    pub fn place(&self, v: Val, graph: &Graph, fixed: &Fixed, homes: &[Option<usize>], buffers: &[Buffer]) -> Option<Place> {
        let (root, columns) = self.columns_of(v, graph);
        let size = graph.ty(v).dtype.size();
        if let Some(place) = fixed.get(root) {
            return Some(Place { offset: place.offset + columns.start * size, ..place });
        }
        let offset = buffers[homes[root.index()]?].offset + columns.start * size;
        Some(Place { arena: Arena::Temps, offset, pitch: self.pitch(root, graph) })
    }
}
