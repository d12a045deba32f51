//! Grouping: small rows that do not depend on each other become one row with more operands, one launch instead of many.
//!
//! | op | rows that are gathered |
//! | --- | --- |
//! | `moving_average` | all of one momentum: they run at the end of a step, when every batch's statistics are known |
//! | `bn_coefficients` | all of one kind whose inputs nothing computes: the batch norms that run on moving statistics |
//!
//! Each touches a few kilobytes: on a GPU a row takes the time of its launch, and DenseNet121 has 121 batch norms.

use crate::ir::{Graph, Node};
use crate::ops::Op;

/// Gathers the rows of the table above. The row of a group stands where its last one stood if it ends a step, else where its
/// first one stood.
pub fn group(graph: &mut Graph) {
    gather(graph, true, |op| matches!(op, Op::MovingAverage(_)));
    gather(graph, false, |op| matches!(op, Op::BnCoefficients(_)));
}

/// Merges all rows of equal ops that `pick` accepts and whose inputs are there when the merged row runs: at the place of the last of
/// them (`late`), where everything is, or of the first, where what no row computes is.
fn gather(graph: &mut Graph, late: bool, pick: fn(&Op) -> bool) {
    let producers = graph.producers();
    let ready = |node: &Node| late || node.ins.iter().all(|v| producers[v.index()].is_none());
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (row, node) in graph.nodes.iter().enumerate().filter(|(_, node)| pick(&node.op) && ready(node)) {
        match groups.iter_mut().find(|group| same(&graph.nodes[group[0]], node)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let mut gone = vec![false; graph.nodes.len()];
    for group in groups.iter().filter(|group| group.len() > 1) {
        let place = if late { group[group.len() - 1] } else { group[0] };
        let all = |part: fn(&Node) -> &Vec<_>| group.iter().flat_map(|&row| part(&graph.nodes[row]).clone()).collect::<Vec<_>>();
        let (ins, outs) = (all(|node| &node.ins), all(|node| &node.outs));
        group.iter().filter(|&&row| row != place).for_each(|&row| gone[row] = true);
        let node = &mut graph.nodes[place];
        (node.ins, node.outs, node.layer) = (ins, outs, format!("{} layers", group.len()).into());
    }
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().expect("one flag per row"));
}

fn same(a: &Node, b: &Node) -> bool {
    a.op == b.op && a.phase == b.phase
}

#[cfg(test)]
mod tests {
    use super::group;
    use crate::ir::{Builder, Graph, Init, check};
    use crate::ops::{BnCoefficients, ChannelStats, Emit, MovingAverage, Op, ScaleShift};

    /// Batch norms one after the other, on the batch's statistics where `batch` says so.
    fn norms(batch: &[bool]) -> Graph {
        let mut b = Builder::new();
        let mut x = b.input("x", [2, 3, 3, 5]);
        for (i, &batch) in batch.iter().enumerate() {
            b.at(format!("norm{i}"));
            let [mean, var] = [("mean", Init::Zeros), ("var", Init::Ones)].map(|(name, init)| b.state(name, [5], init));
            let beta = b.param("beta", [5], Init::Zeros);
            let stats = if batch { b.emit(ChannelStats.into(), &[x]) } else { vec![mean, var] };
            let k = b.emit(BnCoefficients { epsilon: 1e-3, gamma: false }.into(), &[stats[0], stats[1], beta]);
            x = b.op(ScaleShift::default(), &[x, k[0], k[1]]);
            if batch {
                for (of, by) in [(mean, stats[0]), (var, stats[1])] {
                    b.update(MovingAverage { momentum: 0.9 }, &[of, by], of);
                }
            }
        }
        b.output("y", x);
        b.finish().unwrap()
    }

    #[test]
    fn rows_that_wait_for_nothing_are_gathered_and_others_stay() {
        let mut graph = norms(&[false, true, false, true, false]);
        group(&mut graph);
        check(&graph).unwrap();
        let of = |pick: fn(&Op) -> bool| graph.nodes.iter().filter(|n| pick(&n.op)).map(|n| n.outs.len()).collect::<Vec<_>>();
        assert_eq!(of(|op| matches!(op, Op::MovingAverage(_))), [4]);
        // Three frozen ones together, and two that wait for their batch.
        assert_eq!(of(|op| matches!(op, Op::BnCoefficients(_))), [6, 2, 2]);
    }
}
