//! A model as Keras stores it: `keras.models.load_model` opens the file, and `load_weights` takes its weights into a network
//! of `keras.applications` with the same head.
//!
//! A legacy HDF5 file holds a configuration (JSON: layers, their settings, what each reads) and a group for each layer with
//! its weights. All that a [`Profile`](crate::weights::Profile) says is in the configuration, with further layers where one of
//! Keras's cannot say it. The configuration is in the form of Keras 2, which Keras 3 reads too. Pixels are preprocessed
//! outside of the model, unless asked for inside.

pub(super) mod nodes;

use super::backbone::Backbone;
use super::model::Model;
use super::spec::Spec;
use crate::base::DType;
use crate::error::{Error, Result};
use crate::ops::preprocess::Mode;
use crate::weights::hdf5::write::{Attribute, Dataset, Group, Member, write};
use crate::weights::{Head, Metadata, ModelFile, replace_file};
use nodes::{Node, nodes};
use serde_json::{Value, json};
use std::path::Path;

/// The last version of Keras that wrote configurations of this form.
const KERAS: &str = "2.15.0";

/// Writes the model of `file`, whose network is `model`, to `out`; with `preprocess` the Keras model takes raw pixels.
///
/// # Errors
/// A tensor of the file that is missing or of another shape; what the disk says.
pub fn keras_h5(file: &ModelFile, model: &Model, preprocess: bool, out: &Path) -> Result<()> {
    let matched = model.match_file(file, &file.class_names())?;
    if matched.head == Head::New {
        return Err(Error::input("its head is not what its metadata describe").at(file.tensors().path().display()));
    }
    let nodes = nodes(model, preprocess)?;
    let dtype = match file.tensors().names().first() {
        Some(name) => file.tensor(name)?.dtype,
        None => DType::F32,
    };
    let version = || ("keras_version".to_string(), Attribute::Text(KERAS.into()));
    let backend = || ("backend".to_string(), Attribute::Text("tensorflow".into()));
    let names = Attribute::Texts(nodes.iter().map(|n| n.name.clone()).collect());
    let mut layers = Group { attributes: vec![("layer_names".into(), names), backend(), version()], ..Group::default() };
    for node in &nodes {
        let mut group = Group::default();
        group.attributes.push(("weight_names".into(), Attribute::Texts(node.weights.clone())));
        for name in &node.weights {
            let tensor = file.tensor(name)?;
            group.place(name, Dataset { shape: tensor.shape, dtype: tensor.dtype, bytes: tensor.bytes });
        }
        layers.members.insert(node.name.clone(), Member::Group(group));
    }
    let root = Group {
        attributes: vec![
            ("model_config".into(), Attribute::Text(config(model, &nodes, dtype).to_string())),
            backend(),
            version(),
            ("defrost".into(), Attribute::Text(file.metadata().to_json())),
            ("defrost_input".into(), Attribute::Text(feeding(file.metadata(), &model.spec, preprocess))),
        ],
        members: [("model_weights".to_string(), Member::Group(layers))].into(),
    };
    replace_file(out, |disk| write(&root, disk))
}

/// What to feed the exported model with, in Python's words.
pub fn feeding(metadata: &Metadata, spec: &Spec, inside: bool) -> String {
    let (backbone, mode) = (spec.backbone, spec.preprocess);
    let size = metadata.input_size;
    let how = match metadata.resize.as_str() {
        "nearest" => "keras.utils.load_img, nearest",
        "antialias" => "PIL.Image.resize, bilinear",
        _ => "tf.image.resize, bilinear",
    };
    let pixels = format!("RGB pixels from 0 to 255, resized to {size} x {size} ({how})");
    let module = match mode {
        _ if inside => return format!("{pixels}; the model preprocesses them itself"),
        Mode::None => return format!("{pixels}, as they are"),
        Mode::Rescale => return format!("{pixels}, divided by 255"),
        mode if mode == backbone.preprocess() => backbone.keras_module(),
        // Another network's, for a model that was trained so.
        Mode::Caffe => Backbone::Vgg16.keras_module(),
        Mode::Tf => Backbone::InceptionV3.keras_module(),
        Mode::Torch => Backbone::DenseNet121.keras_module(),
    };
    format!("{pixels}, through keras.applications.{module}.preprocess_input")
}

/// `model_config`.
fn config(model: &Model, nodes: &[Node], dtype: DType) -> Value {
    let float = if dtype == DType::F64 { "float64" } else { "float32" };
    let layer = |node: &Node| {
        let mut settings = json!({"name": node.name, "dtype": float, "trainable": true});
        if let (Some(all), Some(own)) = (settings.as_object_mut(), node.settings.as_object()) {
            all.extend(own.clone());
        }
        if node.class == "InputLayer" {
            settings.as_object_mut().and_then(|s| s.remove("trainable"));
        }
        let reads: Vec<Value> = node.inputs.iter().map(|&i| json!([nodes[i].name, 0, 0, {}])).collect();
        let inbound = if reads.is_empty() { json!([]) } else { json!([reads]) };
        json!({"class_name": node.class, "name": node.name, "config": settings, "inbound_nodes": inbound})
    };
    let end = |node: Option<&Node>| json!([node.map_or("", |n| &n.name), 0, 0]);
    json!({
        "class_name": "Functional",
        "config": {
            "name": model.spec.backbone.name(),
            "trainable": true,
            "layers": nodes.iter().map(layer).collect::<Vec<_>>(),
            "input_layers": end(nodes.first()),
            "output_layers": end(nodes.last()),
        },
        "keras_version": KERAS,
        "backend": "tensorflow",
    })
}
