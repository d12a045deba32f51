//! The head: pooled features, optional hidden layers, one logit per class, softmax.

use super::layers::{AUTO, Net, Tensor};
use crate::base::Val;
use crate::error::{Error, Result};
use crate::ops::activation::Act;
use crate::ops::{CrossEntropy, Emit, Softmax};
use std::fmt;
use std::str::FromStr;

/// A hidden dense layer: `1024:sigmoid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden {
    pub units: usize,
    pub act: Act,
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.units, self.act)
    }
}

impl FromStr for Hidden {
    type Err = Error;

    /// `UNITS` or `UNITS:ACTIVATION`; without an activation it is ReLU.
    fn from_str(text: &str) -> Result<Self> {
        let (units, act) = text.split_once(':').unwrap_or((text, "relu"));
        let act = [Act::Relu, Act::Sigmoid, Act::Linear].into_iter().find(|a| a.to_string() == act.trim().to_lowercase());
        let units = units.trim().parse().ok().filter(|&n: &usize| n > 0);
        match (units, act) {
            (Some(units), Some(act)) => Ok(Hidden { units, act }),
            _ => Err(Error::input(format!("hidden layer {text:?} is not UNITS or UNITS:ACTIVATION"))
                .advise("for example 1024:sigmoid; the activations are relu, sigmoid and linear")),
        }
    }
}

/// The dense layers: features `[n, c]` to logits `[n, classes]`.
pub(super) fn logits(n: &mut Net, features: Tensor, hidden: &[Hidden], classes: usize) -> Tensor {
    n.thaw();
    let mut x = features;
    for layer in hidden {
        x = n.dense(AUTO, x, layer.units, layer.act);
    }
    n.dense(AUTO, x, classes, Act::Linear)
}

/// `probabilities = softmax(logits)`, an output of that name.
pub(super) fn softmax(n: &mut Net, logits: Tensor) {
    let probabilities = n.builder.op(Softmax, &[logits.val]);
    n.builder.output("probabilities", probabilities);
}

/// The loss, from the logits `[n, k]`, the inputs `targets` `[n, k]` (each row sums to one) and `weights` `[n]`:
/// outputs `loss` `[1]`, `probabilities` `[n, k]`, `losses` `[n]`.
pub(super) fn loss(n: &mut Net, logits: Tensor, label_smoothing: f64) {
    let shape = n.shape(logits);
    let targets = n.builder.input("targets", shape);
    let weights = n.builder.input("weights", [shape.rows()]);
    let ins: [Val; 3] = [logits.val, targets, weights];
    let outs = n.builder.emit(CrossEntropy { label_smoothing }.into(), &ins);
    for (name, v) in ["loss", "probabilities", "losses"].into_iter().zip(outs) {
        n.builder.output(name, v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_layers_are_read_as_they_are_printed() {
        let hidden: Hidden = "1024:Sigmoid".parse().unwrap();
        assert_eq!(hidden, Hidden { units: 1024, act: Act::Sigmoid });
        assert_eq!(hidden.to_string().parse::<Hidden>().unwrap(), hidden);
        assert_eq!("64".parse::<Hidden>().unwrap().act, Act::Relu);
        for wrong in ["", "0:relu", "12:tanh", "relu:12", "-3"] {
            assert!(wrong.parse::<Hidden>().is_err(), "{wrong}");
        }
    }
}
