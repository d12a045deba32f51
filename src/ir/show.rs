use super::graph::{Graph, Node, Phase, Role};
use crate::base::Ty;
use std::fmt::Write;

/// Prints the rows of a graph that `select` picks, one per line:
/// `%12 f32[16x56x56x128] = conv2d 3x3 same (%7, %8 block2_conv1/kernel)`, under a heading per phase.
pub fn show(graph: &Graph, select: impl Fn(&Node) -> bool) -> String {
    let mut text = String::new();
    let mut heading = None;
    for node in graph.nodes.iter().filter(|n| select(n)) {
        if heading.replace(node.phase) != Some(node.phase) {
            let title = match node.phase {
                Phase::Forward => "forward",
                Phase::Backward => "backward",
                Phase::Update => "update",
            };
            let _ = writeln!(text, "{title}:");
        }
        let _ = writeln!(text, "  {}   # {}", show_row(graph, node), node.layer);
    }
    text
}

/// Prints one row: `%12 f32[16x56x56x128] = conv2d 3x3 same (%7, %8 block2_conv1/kernel)`.
pub fn show_row(graph: &Graph, node: &Node) -> String {
    let outs: Vec<String> = node.outs.iter().map(|&v| value(graph, v.0 as usize, graph.ty(v))).collect();
    let ins: Vec<String> = node.ins.iter().map(|v| reference(graph, v.0 as usize)).collect();
    format!("{} = {} ({})", outs.join(", "), node.op, ins.join(", "))
}

fn value(graph: &Graph, index: usize, ty: Ty) -> String {
    match graph.values[index].role {
        Role::Update { of } => format!("%{index} {ty} -> {}", graph.name(of)),
        Role::Gradient { of } => format!("%{index} {ty} d {}", graph.name(of)),
        _ => format!("%{index} {ty}"),
    }
}

fn reference(graph: &Graph, index: usize) -> String {
    match graph.values[index].role {
        Role::Temp => format!("%{index}"),
        _ => format!("%{index} {}", graph.values[index].name),
    }
}
