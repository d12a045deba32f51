use super::graph::{Graph, Role};
use crate::base::Ty;
use crate::error::{Error, Result};

/// Checks that a graph is what every pass may rely on: each value is computed once and before it is read, types are those
/// that inference gives, and nothing reads a state or a parameter after a row has replaced it.
///
/// # Errors
/// An internal error that names the row.
pub fn check(graph: &Graph) -> Result<()> {
    let mut ready: Vec<bool> =
        graph.values.iter().map(|v| !matches!(v.role, Role::Temp | Role::Update { .. } | Role::Gradient { .. })).collect();
    let mut replaced = vec![false; graph.values.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let wrong = |what: String| Err(Error::internal(what).at(&node.layer).at(format!("row {i} ({})", node.op)));
        for v in &node.ins {
            if !ready[v.index()] {
                return wrong(format!("reads {v} before it is computed"));
            }
            if replaced[v.index()] {
                return wrong(format!("reads {v} ({}) after it was replaced", graph.name(*v)));
            }
        }
        let ins: Vec<Ty> = node.ins.iter().map(|&v| graph.ty(v)).collect();
        let outs: Vec<Ty> = node.outs.iter().map(|&v| graph.ty(v)).collect();
        match node.op.infer(&ins) {
            Ok(types) if types == outs => {}
            Ok(types) => return wrong(format!("has results {outs:?}, inference gives {types:?}")),
            Err(what) => return wrong(what),
        }
        for (out, v) in node.outs.iter().enumerate() {
            if std::mem::replace(&mut ready[v.index()], true) {
                return wrong(format!("computes {v} a second time"));
            }
            if let Role::Update { of } = graph.role(*v) {
                let source = node.op.in_place(out).map(|i| node.ins[i]);
                if source != Some(of) {
                    return wrong(format!("replaces {of} but does not run in place on it"));
                }
                replaced[of.index()] = true;
            }
        }
    }
    match graph.outputs.iter().find(|(_, v)| !ready[v.index()]) {
        Some((name, v)) => Err(Error::internal(format!("output {name} is {v}, which no row computes"))),
        None => Ok(()),
    }
}
