use crate::base::{DType, Ty, Val};
use crate::device::Arena;
use crate::error::{Error, Result};
use crate::ops::Op;
use std::sync::Arc;

/// How a parameter or a state begins when no weight file says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    /// Uniform in +-sqrt(6 / (fan_in + fan_out)), as Keras starts every kernel.
    GlorotUniform {
        fan_in: usize,
        fan_out: usize,
    },
}

/// What a value is for; with the plan, it decides in which arena the value lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// Fed from the host before each run.
    Input,
    /// A weight; its gradient is taken if `trainable`.
    Param { trainable: bool, init: Init },
    /// A moving statistic: kept between runs, changed by `Update` rows alone.
    State { init: Init },
    /// The result of a row.
    Temp,
    /// The result of a row that replaces a parameter, a state or a range when the row runs.
    Update { of: Val },
    /// The gradient of a parameter; lies in [`Arena::Grads`] beside those of its neighbours.
    Gradient { of: Val },
    /// The whole trainable range of an arena as one flat vector, for the optimizer.
    Range { arena: Arena, copy: usize },
}

/// One value of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub ty: Ty,
    pub role: Role,
    /// `block1_conv1/kernel` for a parameter, the input's name, or the layer that made it.
    pub name: Arc<str>,
}

/// To which part of a step a row belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Forward,
    Backward,
    Update,
}

/// One row: an op applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub op: Op,
    pub ins: Vec<Val>,
    pub outs: Vec<Val>,
    /// The model's layer that the row belongs to.
    pub layer: Arc<str>,
    pub phase: Phase,
}

/// A table of values and the rows that compute them, in an order in which they can run.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    pub values: Vec<Value>,
    pub nodes: Vec<Node>,
    /// Parameters in file order, which is the order of the arena.
    pub params: Vec<Val>,
    /// Moving statistics in file order.
    pub states: Vec<Val>,
    /// Values fed by the host.
    pub inputs: Vec<Val>,
    /// Values that the host reads after a run, by name.
    pub outputs: Vec<(String, Val)>,
}

impl Graph {
    /// The type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.values[v.index()].ty
    }

    /// The role of a value.
    pub fn role(&self, v: Val) -> Role {
        self.values[v.index()].role
    }

    /// The name of a value.
    pub fn name(&self, v: Val) -> &str {
        &self.values[v.index()].name
    }

    /// The output called `name`.
    pub fn output(&self, name: &str) -> Option<Val> {
        self.outputs.iter().find(|(n, _)| n == name).map(|&(_, v)| v)
    }

    /// The input, parameter or state called `name`.
    pub fn named(&self, name: &str) -> Option<Val> {
        self.inputs.iter().chain(&self.params).chain(&self.states).copied().find(|&v| self.name(v) == name)
    }

    /// Whether a parameter is trained.
    pub fn trainable(&self, v: Val) -> bool {
        matches!(self.role(v), Role::Param { trainable: true, .. })
    }

    /// The trainable parameters, in file order.
    pub fn trainables(&self) -> impl Iterator<Item = Val> + '_ {
        self.params.iter().copied().filter(|&v| self.trainable(v))
    }

    /// For each value, the rows that read it, in order.
    pub fn uses(&self) -> Vec<Vec<usize>> {
        let mut uses = vec![Vec::new(); self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for v in &node.ins {
                if uses[v.index()].last() != Some(&i) {
                    uses[v.index()].push(i);
                }
            }
        }
        uses
    }

    /// For each value, the row that computes it; `None` for inputs, parameters, states and ranges.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = vec![None; self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for v in &node.outs {
                producers[v.index()] = Some(i);
            }
        }
        producers
    }

    /// Adds a value to the table.
    pub fn add_value(&mut self, ty: Ty, role: Role, name: impl Into<Arc<str>>) -> Val {
        self.values.push(Value { ty, role, name: name.into() });
        Val(self.values.len() as u32 - 1)
    }

    /// Whether a row must be kept although nothing reads its results: it updates something or makes an output or a gradient.
    pub fn is_root(&self, node: &Node) -> bool {
        let kept = |v: &Val| {
            let role = self.role(*v);
            matches!(role, Role::Update { .. } | Role::Gradient { .. }) || self.outputs.iter().any(|(_, o)| o == v)
        };
        node.outs.iter().any(kept)
    }

    /// Removes the rows whose results nothing needs.
    pub fn prune(&mut self) {
        let mut needed = vec![false; self.values.len()];
        let mut keep = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().rev() {
            keep[i] = self.is_root(node) || node.outs.iter().any(|v| needed[v.index()]);
            if keep[i] {
                node.ins.iter().for_each(|v| needed[v.index()] = true);
            }
        }
        let mut keep = keep.iter();
        self.nodes.retain(|_| *keep.next().expect("one flag per row"));
    }

    /// Makes the output called `name` an input of that name and drops the rows that computed it. Parameters keep their places,
    /// so that a program of the rest works on the same arenas as one of the whole.
    ///
    /// # Errors
    /// When there is no such output.
    pub fn cut(&mut self, name: &str) -> Result<()> {
        let v = self.output(name).ok_or_else(|| Error::internal(format!("the graph has no output {name:?} to cut at")))?;
        self.outputs.retain(|(n, _)| n != name);
        self.nodes.retain(|node| !node.outs.contains(&v));
        self.values[v.index()].role = Role::Input;
        self.values[v.index()].name = name.into();
        self.inputs.push(v);
        self.prune();
        let read: Vec<Val> = self.nodes.iter().flat_map(|n| n.ins.iter().copied()).collect();
        self.inputs.retain(|i| read.contains(i));
        Ok(())
    }

    /// The number type of the graph's values: that of its first input or parameter.
    pub fn dtype(&self) -> DType {
        self.values.first().map_or(DType::F32, |v| v.ty.dtype)
    }
}
