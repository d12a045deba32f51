//! What to build: a backbone, its input, its head, and what of it is trained.

use super::backbone::Backbone;
use super::head::{self, Hidden};
use super::layers::{AUTO, Frozen, Kind, Layer, Net, NormSettings};
use super::model::Model;
use super::near::did_you_mean;
use crate::error::{Error, Result};
use crate::ops::preprocess::Mode;
use crate::weights::Profile;

/// Whether the graph ends in probabilities or in a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Batch norm on moving statistics; input `pixels`, outputs `features`, `logits`, `probabilities`.
    Infer,
    /// Further inputs `targets` and `weights`, further outputs `loss` and `losses`.
    Train,
}

/// What stands still in training.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Freeze {
    #[default]
    None,
    /// The whole backbone; the head is trained.
    All,
    /// Everything up to and including this layer, in the order of [`Model::layers`].
    Layer(String),
}

impl From<&str> for Freeze {
    /// As `--freeze` has it: `none`, `all`, or a layer.
    fn from(text: &str) -> Self {
        match text {
            "none" => Freeze::None,
            "all" => Freeze::All,
            layer => Freeze::Layer(layer.into()),
        }
    }
}

impl std::fmt::Display for Freeze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Freeze::None => "none",
            Freeze::All => "all",
            Freeze::Layer(layer) => layer,
        })
    }
}

/// Which statistics batch norm layers that are not frozen use in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BatchNorm {
    /// Those of the batch, and the moving ones are updated.
    #[default]
    Batch,
    /// The moving ones, which stand still.
    Moving,
}

/// A model to be built; [`Spec::new`] has the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub backbone: Backbone,
    /// Side of the square images, in pixels.
    pub size: usize,
    pub batch: usize,
    pub classes: usize,
    pub hidden: Vec<Hidden>,
    pub preprocess: Mode,
    pub purpose: Purpose,
    pub freeze: Freeze,
    pub batch_norm: BatchNorm,
    pub bn_momentum: f64,
    /// What the weights expect of the network: Keras's, unless they come from elsewhere.
    pub profile: Profile,
    pub label_smoothing: f64,
    /// The head alone: the input is `features` `[n, c]` instead of `pixels`.
    pub from_features: bool,
    /// The backbone alone: the only output is `features`.
    pub features_only: bool,
    /// Layers whose outputs become outputs of the graph under the layer's name.
    pub taps: Vec<String>,
}

impl Spec {
    /// Inference on one image at the backbone's own size and preprocessing.
    pub fn new(backbone: Backbone, classes: usize) -> Self {
        Spec {
            backbone,
            size: backbone.default_size(),
            batch: 1,
            classes,
            hidden: Vec::new(),
            preprocess: backbone.preprocess(),
            purpose: Purpose::Infer,
            freeze: Freeze::None,
            batch_norm: BatchNorm::Batch,
            bn_momentum: 0.99,
            profile: backbone.profile(),
            label_smoothing: 0.0,
            from_features: false,
            features_only: false,
            taps: Vec::new(),
        }
    }

    /// Builds the graph.
    ///
    /// Inputs are `pixels` `[n, s, s, 3]` with values 0..255 (or `features` `[n, c]`), in training also `targets` `[n, k]`
    /// and `weights` `[n]`. Outputs are `features` `[n, c]`, `logits` and `probabilities` `[n, k]`, in training also `loss`
    /// `[1]` and `losses` `[n]`.
    ///
    /// # Errors
    /// Settings that contradict each other, a size below the backbone's minimum, a layer that does not exist.
    pub fn build(&self) -> Result<Model> {
        self.check()?;
        let frozen = match &self.freeze {
            Freeze::None => Frozen::Nothing,
            Freeze::All => Frozen::Everything,
            // The order in which layers are frozen is known only once all of them are written down.
            Freeze::Layer(last) => {
                let layers = self.record(Frozen::Nothing)?.layers;
                let end = find(&layers, last)?;
                Frozen::Named(layers[..=end].iter().map(|l| l.name.clone()).collect())
            }
        };
        let model = self.record(frozen)?;
        if self.purpose == Purpose::Train && model.graph.trainables().next().is_none() {
            return Err(Error::input("everything is frozen, so there is nothing to train").advise("freeze up to an earlier layer"));
        }
        Ok(model)
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::input(what));
        if !self.from_features {
            self.backbone.check_size(self.size)?;
        }
        match self {
            Spec { batch: 0, .. } => wrong("batch size 0: expected at least 1"),
            Spec { classes: 0, features_only: false, .. } => wrong("0 classes: expected at least 1"),
            Spec { from_features: true, features_only: true, .. } => wrong("a model from features to features has no layers"),
            Spec { purpose: Purpose::Train, features_only: true, .. } => wrong("a model without head has no loss to train on"),
            _ if !(0.0..=1.0).contains(&self.bn_momentum) => wrong("batch norm momentum lies outside 0..1"),
            _ if !self.profile.is_sound() => wrong("batch norm epsilon must be positive"),
            _ if !(0.0..1.0).contains(&self.label_smoothing) => wrong("label smoothing lies outside 0..1"),
            _ => Ok(()),
        }
    }

    fn record(&self, frozen: Frozen) -> Result<Model> {
        let batch = self.purpose == Purpose::Train && self.batch_norm == BatchNorm::Batch;
        let mut n = Net::new(NormSettings { batch, momentum: self.bn_momentum }, self.profile, frozen);
        let mut last = if self.from_features {
            n.features(self.batch, self.backbone.channels())
        } else {
            let images = n.images(self.batch, self.size, self.preprocess);
            let x = self.backbone.layers(&mut n, images);
            n.global_avg_pool(AUTO, x)
        };
        n.builder.output("features", last.val);
        if !self.features_only {
            last = head::logits(&mut n, last, &self.hidden, self.classes);
            n.builder.output("logits", last.val);
            match self.purpose {
                Purpose::Infer => head::softmax(&mut n, last),
                Purpose::Train => head::loss(&mut n, last, self.label_smoothing),
            }
        }
        let (graph, layers) = n.finish()?;
        let mut model = Model::new(self.clone(), graph, layers);
        for name in &self.taps {
            let tapped = model.layers[find(&model.layers, name)?].output;
            model.graph.outputs.push((name.clone(), tapped));
        }
        Ok(model)
    }
}

/// The position of the layer called `name`.
fn find(layers: &[Layer], name: &str) -> Result<usize> {
    layers.iter().position(|l| &*l.name == name).ok_or_else(|| {
        let names = layers.iter().filter(|l| l.kind != Kind::InputLayer).map(|l| &*l.name);
        let error = Error::input(format!("no layer is called {name:?}"));
        error.advise(did_you_mean(name, names).unwrap_or_else(|| "`defrost summary` lists the layers".into()))
    })
}
