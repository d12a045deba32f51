//! The head of an imported model: dense layers after the pooled features.

use super::super::head::Hidden;
use super::arrange::{is_dense, shapes};
use super::topology::Topology;
use crate::error::{Error, Result};
use crate::ops::activation::Act;
use crate::weights::keras::Layer;
use std::borrow::Cow;

/// Dense layers, the last of which has a logit for each class.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub hidden: Vec<Hidden>,
    outputs: usize,
    /// One sigmoid output, which is written as two.
    pub binary: bool,
}

impl Head {
    /// Reads the head from the layers after the backbone; `None` if there are none.
    ///
    /// # Errors
    /// A layer that is not dense or does not fit its neighbour, an activation that is not supported or not known.
    pub fn read(layers: &[&Layer], topology: Option<&Topology>, given: &[Hidden], channels: usize) -> Result<Option<Head>> {
        let mut units = vec![channels];
        for layer in layers {
            let wrong = |what: String| Err(Error::input(what).at(&layer.name));
            let parts: Vec<Vec<usize>> = layer.weights.iter().map(|w| w.shape()).collect();
            let inputs = units[units.len() - 1];
            match &parts[..] {
                [kernel, bias] if is_dense(layer) && kernel[0] == inputs && *bias == kernel[1..] => units.push(kernel[1]),
                _ => {
                    let what = format!("has shape {}, expected a dense layer with bias from {inputs} features", shapes(layer));
                    return wrong(format!("{what} (the head must begin with global average pooling, not with a flattened image)"));
                }
            }
            layer.weights.iter().try_for_each(|w| w.data.check().map_err(|e| e.at(&w.name).at(&layer.name)))?;
        }
        let Some((&outputs, hidden)) = units[1..].split_last() else { return Ok(None) };
        let names: Vec<&str> = layers.iter().map(|l| l.name.as_str()).collect();
        match topology {
            Some(topology) => Self::said(hidden, outputs, &names, topology).map(Some),
            None => Self::unsaid(hidden, outputs, &names, given).map(Some),
        }
    }

    /// With the activations of a configuration.
    fn said(hidden: &[usize], outputs: usize, names: &[&str], topology: &Topology) -> Result<Head> {
        let acts = &topology.activations;
        if acts.len() != names.len() {
            let what = format!("the configuration has {} dense layers, the weights have {}", acts.len(), names.len());
            return Err(Error::input(what));
        }
        let mut layers = Vec::new();
        for ((&units, name), act) in hidden.iter().zip(names).zip(acts) {
            let act = [Act::Relu, Act::Sigmoid, Act::Linear]
                .into_iter()
                .find(|a| a.to_string() == *act)
                .ok_or_else(|| Error::input(format!("has activation {act:?}; hidden layers may have relu, sigmoid or linear")).at(name))?;
            layers.push(Hidden { units, act });
        }
        let last = names[names.len() - 1];
        match (acts[acts.len() - 1].as_str(), outputs) {
            ("sigmoid", 1) => Ok(Head { hidden: layers, outputs: 1, binary: true }),
            ("softmax" | "linear", 2..) => Ok(Head { hidden: layers, outputs, binary: false }),
            (act, n) => {
                let what = format!(
                    "ends the network with {n} outputs and activation {act:?}; expected softmax over two or more classes, or one sigmoid"
                );
                Err(Error::input(what).at(last))
            }
        }
    }

    /// Without a configuration hidden activations are the user's to tell; the last layer is a softmax.
    fn unsaid(hidden: &[usize], outputs: usize, names: &[&str], given: &[Hidden]) -> Result<Head> {
        let units: Vec<usize> = given.iter().map(|h| h.units).collect();
        if units != hidden {
            let flags: Vec<String> = hidden.iter().map(|units| format!("--hidden {units}:ACTIVATION")).collect();
            let what = format!(
                "the head has hidden layers of {hidden:?} units, whose activations the file does not tell; --hidden says {units:?}"
            );
            return Err(Error::input(what).at(names[0]).advise(format!("import the whole model (model.save), or add {}", flags.join(" "))));
        }
        if outputs < 2 {
            let what = "has one output, of which only the whole model (model.save) tells what it means";
            return Err(Error::input(what).at(names[names.len() - 1]));
        }
        Ok(Head { hidden: given.to_vec(), outputs, binary: false })
    }

    /// Classes of the model file.
    pub fn classes(&self) -> usize {
        if self.binary { 2 } else { self.outputs }
    }
}

/// One sigmoid output as two logits: `sigmoid(z) = softmax(0, z)[1]`, so every number gets a zero before it. Bytes of f32.
pub fn two_outputs<'b>(one: &[u8]) -> Cow<'b, [u8]> {
    one.as_chunks::<4>().0.iter().flat_map(|&z| [[0; 4], z].concat()).collect()
}
