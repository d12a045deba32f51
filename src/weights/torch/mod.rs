//! Weights of torchvision and timm, by their names, in safetensors files.
//!
//! The file holds PyTorch's layouts and names; what comes out are the tensors of a model file, with the [`Profile`] under
//! which they give the numbers that their own network gives. Weights that the network here has no place for are known by
//! name and left out with a note: the counters of batch norm, InceptionV3's auxiliary classifier, VGG16's three-layer
//! classifier. Anything else that is missing, left over or of another shape is an error.

mod layout;
mod tables;

use super::open::TensorFile;
use super::profile::Profile;
use crate::error::{Error, Result};
use crate::ir::Graph;
use crate::ops::preprocess::Mode;
use std::collections::{HashMap, HashSet};
use tables::{Layout, Row, Table};

/// Classes of an ImageNet classifier that has one more, in front, for the background, as TensorFlow's had.
const WITH_BACKGROUND: usize = 1001;

/// A file of PyTorch's weights whose network is known.
#[derive(Debug)]
pub struct TorchFile<'f> {
    file: &'f TensorFile,
    network: &'static Network,
    /// The file's name of every tensor, by the name in the table.
    names: HashMap<String, &'f str>,
    rows: Vec<Row>,
    /// Rows of the classifier, if the file has one that fits.
    head: Option<usize>,
    notes: Vec<String>,
}

/// A weight converted: its name in the model, and f32 in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// What is known of a network in PyTorch.
#[derive(Debug)]
struct Network {
    backbone: &'static str,
    /// Where it is from, in words.
    origin: &'static str,
    /// A tensor that no other network of a known name has.
    signature: &'static str,
    table: fn() -> Table,
    /// Features that the classifier reads.
    channels: usize,
    profile: Profile,
    /// Beginnings of names that have no place here, and the note for leaving them out.
    dropped: &'static [(&'static str, &'static str)],
}

const KERAS_GEOMETRY: Profile =
    Profile { epsilon: 1e-3, gamma: true, count_padding: false, symmetric_pools: false, preprocess: Mode::Torch };

const VGG_HEAD: &str = "the classifier of three dense layers on 7x7 pixels is left out: the head here stands on pooled features";

static NETWORKS: [Network; 4] = [
    Network {
        backbone: "vgg16",
        origin: "VGG16 of torchvision or timm",
        signature: "features.28.weight",
        table: tables::vgg16,
        channels: 512,
        profile: KERAS_GEOMETRY,
        dropped: &[("classifier.", VGG_HEAD), ("pre_logits.", VGG_HEAD), ("head.", VGG_HEAD)],
    },
    Network {
        backbone: "xception",
        origin: "the legacy Xception of timm",
        signature: "block1.rep.0.conv1.weight",
        table: tables::xception,
        channels: 2048,
        profile: Profile { epsilon: 1e-5, symmetric_pools: true, preprocess: Mode::Tf, ..KERAS_GEOMETRY },
        dropped: &[],
    },
    Network {
        backbone: "inceptionv3",
        origin: "InceptionV3 of torchvision or timm",
        signature: "Mixed_7c.branch3x3dbl_3b.conv.weight",
        table: tables::inception_v3,
        channels: 2048,
        profile: Profile { count_padding: true, preprocess: Mode::Tf, ..KERAS_GEOMETRY },
        dropped: &[("AuxLogits.", "the auxiliary classifier is left out: it serves training from random weights only")],
    },
    Network {
        backbone: "densenet121",
        origin: "DenseNet121 of torchvision or timm",
        signature: "features.denseblock1.denselayer1.conv1.weight",
        table: tables::densenet121,
        channels: 1024,
        profile: Profile { epsilon: 1e-5, ..KERAS_GEOMETRY },
        dropped: &[],
    },
];

impl<'f> TorchFile<'f> {
    /// Recognises the network by its tensors' names; checks that all of it is there and nothing else.
    ///
    /// # Errors
    /// Names of no known network; a tensor that is missing or unknown.
    pub fn recognise(file: &'f TensorFile) -> Result<Self> {
        let names: HashMap<String, &str> = file.names().iter().map(|name| (today(name), name.as_str())).collect();
        let Some(network) = NETWORKS.iter().find(|n| names.contains_key(n.signature)) else { return Err(unknown(file)) };
        let mut notes: Vec<String> = Vec::new();
        let Table { mut rows, .. } = (network.table)();
        let wanted: HashSet<&str> = rows.iter().map(|r| r.theirs.as_str()).collect();
        for (name, original) in &names {
            if wanted.contains(name.as_str()) || name.ends_with(".num_batches_tracked") {
                continue;
            }
            let Some((_, note)) = network.dropped.iter().find(|(start, _)| name.starts_with(start)) else {
                let what = format!("{} has no such weight", network.origin);
                return Err(file
                    .error(original, what)
                    .advise("other depths and variants, batch norm in VGG among them, are other networks"));
            };
            if !notes.iter().any(|n| n == note) {
                notes.push((*note).into());
            }
        }
        let is_head = |row: &Row| row.ours.starts_with("dense/");
        let headless = !rows.iter().any(|r| is_head(r) && names.contains_key(&r.theirs));
        rows.retain(|r| !(headless && is_head(r)));
        if let Some(missing) = rows.iter().find(|r| !names.contains_key(&r.theirs)) {
            let what = format!("{} needs it for {}, but the file has no such tensor", network.origin, missing.ours);
            return Err(file.error(&missing.theirs, what));
        }
        let mut this = TorchFile { file, network, names, rows, head: None, notes };
        this.head = this.classes()?;
        this.note_choices();
        Ok(this)
    }

    /// The network's name: `inceptionv3`.
    pub fn backbone(&self) -> &'static str {
        self.network.backbone
    }

    /// Where such names are from, in words.
    pub fn origin(&self) -> &'static str {
        self.network.origin
    }

    /// What the weights expect of the network around them.
    pub fn profile(&self) -> Profile {
        self.network.profile
    }

    /// Classes of the head; `None` if the file has none that fits.
    pub fn class_count(&self) -> Option<usize> {
        self.head.map(|rows| if rows == WITH_BACKGROUND { rows - 1 } else { rows })
    }

    /// What was left out or assumed, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// All weights of `graph`, a network of this backbone, profile and number of classes: parameters, then moving statistics,
    /// in the graph's order.
    ///
    /// # Errors
    /// A tensor of another shape, with both in PyTorch's order of axes; elements that are no floats.
    pub fn convert(&self, graph: &Graph) -> Result<Vec<Converted>> {
        let rows: HashMap<&str, &Row> = self.rows.iter().map(|row| (row.ours.as_str(), row)).collect();
        let weight = |&v: &crate::base::Val| -> Result<Converted> {
            let (name, shape) = (graph.name(v), graph.ty(v).shape);
            let row = rows.get(name).ok_or_else(|| self.file.error(name, "no tensor of the file becomes this weight"))?;
            let original = self.names[&row.theirs];
            let tensor = self.file.any(original)?;
            let offset = usize::from(self.head == Some(WITH_BACKGROUND) && name.starts_with("dense/"));
            let mut expected = layout::theirs(row.layout, shape.dims());
            expected[0] += offset;
            if tensor.shape != expected {
                return Err(self.file.error(original, format!("has shape {:?}, expected {expected:?} for {name}", tensor.shape)));
            }
            let per_class = tensor.shape[1..].iter().product::<usize>();
            let all = tensor.to_f32().map_err(|e| e.at(original).at(self.file.path().display()))?;
            let values = &all[offset * per_class..];
            Ok(Converted { name: name.into(), shape: shape.dims().to_vec(), values: layout::ours(row.layout, values, shape.dims()) })
        };
        graph.params.iter().chain(&graph.states).map(weight).collect()
    }

    /// Rows of the classifier, which must read the pooled features.
    fn classes(&self) -> Result<Option<usize>> {
        let Some(row) = self.rows.iter().find(|r| r.ours == "dense/kernel") else { return Ok(None) };
        let name = self.names[&row.theirs];
        match *self.file.any(name)?.shape {
            [classes, channels] if channels == self.network.channels && classes > 0 => Ok(Some(classes)),
            ref shape => Err(self.file.error(name, format!("has shape {shape:?}, expected [classes, {}]", self.network.channels))),
        }
    }

    /// Adds what a user should know about choices that the file itself does not tell.
    fn note_choices(&mut self) {
        if self.head == Some(WITH_BACKGROUND) {
            self.notes.push("the first of 1001 classes, the background of TensorFlow's labels, is left out".into());
        }
        if self.network.backbone == "inceptionv3" {
            self.notes.push(
                "pixels are fed as x / 127.5 - 1, which is what torchvision's transform_input makes of its mean and deviation; weights \
                 trained on mean and deviation themselves (timm's gluon_in1k) need --preprocess torch"
                    .into(),
            );
        }
    }
}

/// Whether the names of a safetensors file are those of a network of torchvision or timm.
pub fn is_torch(file: &TensorFile) -> bool {
    file.names().iter().any(|name| NETWORKS.iter().any(|n| n.signature == today(name)))
}

/// The name that a tensor has today: without the prefix of wrappers (`module.`, `model.`), DenseNet's `norm.1` as `norm1`,
/// Cadene's `last_linear` as `fc`.
fn today(name: &str) -> String {
    let mut name = name;
    while let Some(rest) = ["module.", "model."].iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    let name = if name.contains(".denselayer") {
        [("norm.", "norm"), ("conv.", "conv")].iter().fold(name.to_string(), |name, (old, new)| {
            ["1.", "2."].iter().fold(name, |name, n| name.replace(&format!(".{old}{n}"), &format!(".{new}{n}")))
        })
    } else {
        name.to_string()
    };
    name.strip_prefix("last_linear.").map_or(name.clone(), |rest| format!("fc.{rest}"))
}

fn unknown(file: &TensorFile) -> Error {
    let first: Vec<&str> = file.names().iter().take(3).map(String::as_str).collect();
    let origins = NETWORKS.each_ref().map(|n| n.origin).join(", ");
    let what = format!("its tensors ({}, ...) have the names of no network that can be imported", first.join(", "));
    Error::input(what).at(file.path().display()).advise(format!("known are {origins}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_wrappers_and_of_old_are_understood() {
        for (old, new) in [
            ("module.features.0.weight", "features.0.weight"),
            ("model.module.conv1.weight", "conv1.weight"),
            ("features.denseblock1.denselayer10.norm.1.running_var", "features.denseblock1.denselayer10.norm1.running_var"),
            ("features.denseblock4.denselayer2.conv.2.weight", "features.denseblock4.denselayer2.conv2.weight"),
            ("features.transition1.norm.weight", "features.transition1.norm.weight"),
            ("last_linear.bias", "fc.bias"),
        ] {
            assert_eq!(today(old), new);
        }
    }

    #[test]
    fn tables_have_as_many_rows_as_the_networks_have_weights() {
        // Keras's counts of tensors without head, VGG16 13 * 2, Xception 34 * 2 + 6 + 40 * 4, DenseNet121 120 + 121 * 4,
        // InceptionV3 94 * 5 with gamma; and two of the head, which VGG16 lacks.
        let counts = NETWORKS.each_ref().map(|n| (n.table)().rows.len());
        assert_eq!(counts, [26, 234 + 2, 470 + 2, 604 + 2]);
        for network in &NETWORKS {
            let rows = (network.table)().rows;
            let names: HashSet<&str> = rows.iter().flat_map(|r| [r.theirs.as_str(), r.ours.as_str()]).collect();
            assert_eq!(names.len(), 2 * rows.len(), "{}", network.backbone);
            assert!(rows.iter().any(|r| r.theirs == network.signature));
        }
    }
}
