//! Chooses the number type of every value. Models are written in f32; a policy says what they run in.

use crate::base::DType;
use crate::error::{Error, Result};
use crate::ir::Graph;
use crate::ops::Op;

/// Gives every value the number type `to`: f64 for the `naive` device, f32 as written.
///
/// Policies that mix types (tf32, bf16) insert casts here and keep statistics, loss and parameter gradients in f32.
///
/// # Errors
/// When no device can run the policy yet.
pub fn precision(mut graph: Graph, to: DType) -> Result<Graph> {
    if to == DType::Bf16 {
        return Err(Error::input("no device of this build computes in bf16").advise("use --precision f32"));
    }
    graph.values.iter_mut().for_each(|v| v.ty.dtype = to);
    for node in &mut graph.nodes {
        if let Op::Constant(constant) = &mut node.op {
            constant.dtype = to;
        }
    }
    Ok(graph)
}
