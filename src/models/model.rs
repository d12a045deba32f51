//! A built model: its graph, and its layers as Keras would list them.

use super::head::Hidden;
use super::layers::{Kind, Layer};
use super::order::keras_order;
use super::spec::Spec;
use crate::base::Val;
use crate::error::Result;
use crate::ir::Graph;
use crate::weights::{Matched, ModelFile, Request};

/// A graph with the layers it came from. The graph's parameters and states are in the order of [`Model::layers`], which is
/// the order of weight files.
#[derive(Clone, Debug)]
pub struct Model {
    pub spec: Spec,
    pub graph: Graph,
    /// In Keras's order; [`Layer::inputs`] are positions in this list.
    pub layers: Vec<Layer>,
}

impl Model {
    /// Brings layers, parameters and states, given in order of creation, into Keras's order.
    pub(super) fn new(spec: Spec, mut graph: Graph, created: Vec<Layer>) -> Self {
        let inputs: Vec<Vec<usize>> = created.iter().map(|l| l.inputs.clone()).collect();
        let order = keras_order(&inputs, created.len() - 1);
        let mut position = vec![usize::MAX; created.len()];
        order.iter().enumerate().for_each(|(new, &old)| position[old] = new);

        let mut created: Vec<Option<Layer>> = created.into_iter().map(Some).collect();
        let mut layers: Vec<Layer> = order.iter().filter_map(|&old| created[old].take()).collect();
        layers.iter_mut().flat_map(|l| &mut l.inputs).for_each(|input| *input = position[*input]);
        graph.params = layers.iter().flat_map(|l| l.params.iter().copied()).collect();
        graph.states = layers.iter().flat_map(|l| l.states.iter().copied()).collect();
        Model { spec, graph, layers }
    }

    /// The layer called `name`.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|l| &*l.name == name)
    }

    /// All numbers in the model, moving statistics included, as Keras counts parameters.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|l| self.layer_parameters(l)).sum()
    }

    /// The numbers that training changes through gradients.
    pub fn trainable(&self) -> usize {
        self.graph.trainables().map(|v| self.graph.ty(v).shape.len()).sum()
    }

    /// The numbers of one layer, moving statistics included.
    pub fn layer_parameters(&self, layer: &Layer) -> usize {
        layer.params.iter().chain(&layer.states).map(|&v| self.graph.ty(v).shape.len()).sum()
    }

    /// The numbers of one layer that training changes through gradients.
    pub fn layer_trainable(&self, layer: &Layer) -> usize {
        layer.params.iter().filter(|&&v| self.graph.trainable(v)).map(|&v| self.graph.ty(v).shape.len()).sum()
    }

    /// Matches a model file with this model: see [`ModelFile::match_graph`].
    ///
    /// # Errors
    /// A file that does not fit, with the tensor's name.
    pub fn match_file<'f>(&self, file: &'f ModelFile, classes: &[String]) -> Result<Matched<'f>> {
        let hidden: Vec<String> = self.spec.hidden.iter().map(Hidden::to_string).collect();
        file.match_graph(Request { backbone: self.spec.backbone.name(), graph: &self.graph, hidden: &hidden, classes })
    }

    /// The weights of the head: all of its dense layers.
    pub fn head(&self) -> impl Iterator<Item = Val> + '_ {
        self.layers.iter().filter(|l| l.kind == Kind::Dense).flat_map(|l| l.params.iter().copied())
    }
}
