use super::graph::{Graph, Init, Phase, Role};
use crate::base::{Shape, Ty, Val};
use crate::device::Arena;
use crate::error::{Error, Result};
use crate::ops::{Emit, Op};
use std::sync::Arc;

/// Records rows. No call fails: the first error is kept with the layer's name, later rows are built on a placeholder, and
/// [`Builder::finish`] reports it. A model is thereby plain straight-line code.
pub struct Builder {
    graph: Graph,
    layer: Arc<str>,
    phase: Phase,
    fault: Option<Error>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::resume(Graph::default(), Phase::Forward)
    }

    /// Goes on with a graph, appending rows of another phase.
    pub fn resume(graph: Graph, phase: Phase) -> Self {
        Builder { graph, layer: "".into(), phase, fault: None }
    }

    /// Names the layer that the next rows belong to.
    pub fn at(&mut self, layer: impl Into<Arc<str>>) -> &mut Self {
        self.layer = layer.into();
        self
    }

    /// What has been recorded so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Latches an error found by the caller, with the current layer's name.
    pub fn fail(&mut self, what: impl Into<String>) {
        let error = Error::input(what).at(&self.layer);
        self.fault.get_or_insert(error);
    }

    /// A value fed by the host before each run.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>) -> Val {
        let v = self.graph.add_value(Ty::f32(shape), Role::Input, name);
        self.graph.inputs.push(v);
        v
    }

    /// A weight of the current layer: `kernel` becomes `block1_conv1/kernel`.
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Val {
        let v = self.graph.add_value(Ty::f32(shape), Role::Param { trainable: true, init }, format!("{}/{name}", self.layer));
        self.graph.params.push(v);
        v
    }

    /// A moving statistic of the current layer.
    pub fn state(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Val {
        let v = self.graph.add_value(Ty::f32(shape), Role::State { init }, format!("{}/{name}", self.layer));
        self.graph.states.push(v);
        v
    }

    /// Appends a row with one result.
    pub fn op(&mut self, op: impl Into<Op>, ins: &[Val]) -> Val {
        self.emit(op.into(), ins)[0]
    }

    /// Appends a row whose only result replaces `of` when it runs.
    pub fn update(&mut self, op: impl Into<Op>, ins: &[Val], of: Val) {
        self.update_all(op, ins, &[of]);
    }

    /// Appends a row whose first results replace `of`, one by one; returns all results.
    pub fn update_all(&mut self, op: impl Into<Op>, ins: &[Val], of: &[Val]) -> Vec<Val> {
        let phase = std::mem::replace(&mut self.phase, Phase::Update);
        let outs = self.emit(op.into(), ins);
        self.phase = phase;
        if self.fault.is_none() {
            for (out, &of) in outs.iter().zip(of) {
                self.graph.values[out.index()].role = Role::Update { of };
            }
        }
        outs
    }

    /// The trainable range of an arena as one vector of `len` elements; `copy` counts the slots of an optimizer.
    pub fn range(&mut self, arena: Arena, copy: usize, len: usize) -> Val {
        let ty = Ty { shape: Shape::from([len]), dtype: self.graph.dtype() };
        self.graph.add_value(ty, Role::Range { arena, copy }, format!("{arena:?}"))
    }

    /// Names a value that the host reads after a run.
    pub fn output(&mut self, name: &str, v: Val) {
        self.graph.outputs.push((name.into(), v));
    }

    /// The shape of a value, for a model's own arithmetic.
    pub fn shape(&self, v: Val) -> Shape {
        self.graph.ty(v).shape
    }

    /// The graph.
    ///
    /// # Errors
    /// The first thing that went wrong while recording, with the layer's name.
    pub fn finish(self) -> Result<Graph> {
        self.fault.map_or(Ok(self.graph), Err)
    }
}

impl Emit for Builder {
    fn ty(&self, v: Val) -> Ty {
        self.graph.ty(v)
    }

    fn emit(&mut self, op: Op, ins: &[Val]) -> Vec<Val> {
        let types: Vec<Ty> = ins.iter().map(|&v| self.graph.ty(v)).collect();
        let outs = op.infer(&types).unwrap_or_else(|what| {
            self.fail(what);
            vec![Ty::f32([1]); 4]
        });
        let outs: Vec<Val> = outs.into_iter().map(|ty| self.graph.add_value(ty, Role::Temp, self.layer.clone())).collect();
        if self.fault.is_none() {
            let (layer, phase) = (self.layer.clone(), self.phase);
            self.graph.nodes.push(super::Node { op, ins: ins.to_vec(), outs: outs.clone(), layer, phase });
        }
        outs
    }
}
