//! What a configuration says about the network, held against what this program computes.

use super::super::model::Model;
use super::{Options, windows};
use crate::error::{Error, Result};
use crate::ops::preprocess::Mode;
use crate::weights::keras::{Config, ConfigLayer};
use serde_json::Value;

/// Layers that do nothing outside of training.
const INERT: [&str; 19] = [
    "InputLayer",
    "Dropout",
    "SpatialDropout2D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
    "RandomFlip",
    "RandomRotation",
    "RandomZoom",
    "RandomTranslation",
    "RandomContrast",
    "RandomBrightness",
    "RandomCrop",
    "RandomHeight",
    "RandomWidth",
    "RandomShear",
    "RandomHue",
    "RandomSaturation",
];

/// Layers without weights inside of a backbone; the last are Keras 1's.
const PLAIN: [&str; 8] = ["Activation", "ReLU", "MaxPooling2D", "AveragePooling2D", "ZeroPadding2D", "Add", "Concatenate", "Merge"];

/// Layers with weights.
const WEIGHTED: [&str; 5] = ["Conv2D", "SeparableConv2D", "BatchNormalization", "Convolution2D", "SeparableConvolution2D"];

/// What is not in the weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    pub input_size: Option<usize>,
    /// Batch norm's epsilon.
    pub epsilon: Option<f64>,
    /// What the model itself does to pixels first.
    pub preprocess: Option<Mode>,
    /// Of the dense layers in order: `relu`, `softmax`.
    pub activations: Vec<String>,
}

/// Where in the network a layer stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Zone {
    Pixels,
    Backbone,
    Head,
}

impl Topology {
    /// Goes through the layers of a configuration whose weights are those of `body` and a head.
    ///
    /// # Errors
    /// A layer that this program would leave out or compute otherwise, with its name.
    pub fn read(config: &Config, body: &Model, options: &Options, notes: &mut Vec<String>) -> Result<Self> {
        let layers = config.layers();
        let mut found = Topology { input_size: input_size(&layers, options)?, ..Topology::default() };
        let (mut zone, mut epsilons, mut inert) = (Zone::Pixels, Vec::new(), Vec::new());
        for layer in &layers {
            let class = layer.class.as_str();
            if WEIGHTED.contains(&class) && zone == Zone::Pixels {
                zone = Zone::Backbone;
            }
            let read = match class {
                _ if INERT.contains(&class) => {
                    inert.extend((class != "InputLayer").then_some(layer.name.as_str()));
                    Ok(())
                }
                "Dense" => found.dense(layer, zone),
                "Activation" | "ReLU" | "Softmax" if zone == Zone::Head => found.activation(layer),
                "GlobalAveragePooling2D" if zone == Zone::Backbone => {
                    zone = Zone::Head;
                    Ok(())
                }
                // Pooled features are flat already.
                "Flatten" if zone == Zone::Head => Ok(()),
                _ if WEIGHTED.contains(&class) => {
                    epsilons.extend(layer.settings["epsilon"].as_f64().filter(|_| class == "BatchNormalization"));
                    conventional(layer)
                }
                _ if PLAIN.contains(&class) && zone != Zone::Head => conventional(layer),
                _ if zone == Zone::Pixels => found.pixels(layer, options),
                _ => Err(Error::input(format!("is a {class} layer, which this program does not compute there"))),
            };
            read.map_err(|e| e.at(&layer.name))?;
        }
        windows::check(&layers, body)?;
        found.epsilon = one_epsilon(&epsilons, body.spec.profile.epsilon)?;
        if !inert.is_empty() {
            notes.push(format!("left out, because they do nothing outside of training: {}", inert.join(", ")));
        }
        Ok(found)
    }

    fn dense(&mut self, layer: &ConfigLayer, zone: Zone) -> Result<()> {
        if zone != Zone::Head {
            return Err(Error::input("is a dense layer that does not follow a GlobalAveragePooling2D; other heads are not supported"));
        }
        self.activations.push(activation_of(&layer.settings["activation"]));
        Ok(())
    }

    /// An activation of its own belongs to the dense layer before it.
    fn activation(&mut self, layer: &ConfigLayer) -> Result<()> {
        let act = match layer.class.as_str() {
            "Activation" => activation_of(&layer.settings["activation"]),
            class => class.to_lowercase(),
        };
        match self.activations.last_mut() {
            Some(last) if last == "linear" => *last = act,
            _ if act == "linear" => (),
            _ => return Err(Error::input(format!("is a second activation ({act}), which is not supported"))),
        }
        Ok(())
    }

    /// A layer before the first convolution.
    fn pixels(&mut self, layer: &ConfigLayer, options: &Options) -> Result<()> {
        let number = |key: &str| layer.settings[key].as_f64();
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        match (layer.class.as_str(), number("scale"), number("offset")) {
            ("Rescaling", Some(scale), Some(offset)) if near(scale * 255.0, 1.0) && offset == 0.0 => self.preprocess = Some(Mode::Rescale),
            ("Rescaling", Some(scale), Some(offset)) if near(scale * 127.5, 1.0) && near(offset, -1.0) => self.preprocess = Some(Mode::Tf),
            ("Resizing", ..) => self.resizing(layer, options)?,
            // What it does is not readable, so the user says it.
            _ if options.preprocess.is_some() => (),
            (class, ..) => {
                let what = format!("is a {class} layer, by which the model preprocesses its own pixels");
                return Err(Error::input(what).advise("say what it amounts to with --preprocess none, rescale, caffe, tf or torch"));
            }
        }
        Ok(())
    }

    fn resizing(&mut self, layer: &ConfigLayer, options: &Options) -> Result<()> {
        let s = &layer.settings;
        let plain = s["interpolation"].as_str().unwrap_or("bilinear") == "bilinear" && s["crop_to_aspect_ratio"].as_bool() != Some(true);
        let sides = [&s["height"], &s["width"]].map(Value::as_u64);
        match sides {
            _ if !plain => Err(Error::input("resizes otherwise than bilinearly, which is not supported")),
            [Some(height), Some(width)] if height == width || options.input_size.is_some() => {
                self.input_size = Some(height as usize);
                Ok(())
            }
            _ => Err(Error::input("resizes to images that are not square").advise("name a size with --input-size")),
        }
    }
}

/// `relu` of `"relu"`, `{"class_name": "function", "config": "relu"}` or `{"class_name": "ReLU"}`.
fn activation_of(value: &Value) -> String {
    let name = value.as_str().or_else(|| value["config"].as_str()).or_else(|| value["class_name"].as_str());
    name.unwrap_or("linear").to_lowercase()
}

/// Settings by which a layer of the backbone could differ from this program's without its weights telling.
fn conventional(layer: &ConfigLayer) -> Result<()> {
    let s = &layer.settings;
    let order = s["data_format"].as_str().or(s["dim_ordering"].as_str());
    if order.is_some_and(|o| o == "channels_first" || o == "th") {
        return Err(Error::input("has channels first; only channels last is supported"));
    }
    let axis = s["axis"].as_i64().or(s["axis"][0].as_i64()).or(s["concat_axis"].as_i64());
    if let Some(axis) = axis.filter(|a| ![3, -1].contains(a)) {
        return Err(Error::input(format!("works along axis {axis}, expected 3, the channels")));
    }
    // ReLU6 and leaky ones are ReLU layers too.
    let bent = |key: &str| s[key].as_f64().or(s[key]["value"].as_f64()).is_some_and(|x| x != 0.0);
    if layer.class == "ReLU" && (!s["max_value"].is_null() || bent("negative_slope") || bent("threshold")) {
        return Err(Error::input("is a ReLU with a bound, a slope or a threshold, expected a plain one"));
    }
    let act = activation_of(&s["activation"]);
    match act.as_str() {
        "relu" | "linear" => Ok(()),
        _ => Err(Error::input(format!("has activation {act:?}, expected relu"))),
    }
}

/// The one epsilon of all batch norm layers; the network's own where they only round it.
fn one_epsilon(epsilons: &[f64], own: f64) -> Result<Option<f64>> {
    let Some(&first) = epsilons.first() else { return Ok(None) };
    if let Some(other) = epsilons.iter().find(|&&e| e != first) {
        return Err(Error::input(format!("its batch norm layers have different epsilons ({first} and {other})")));
    }
    Ok(Some(if (first - own).abs() <= 1e-6 * own { own } else { first }))
}

/// The side of the images, from the first input that tells one.
fn input_size(layers: &[&ConfigLayer], options: &Options) -> Result<Option<usize>> {
    for layer in layers {
        let shapes = ["batch_input_shape", "batch_shape"].map(|key| layer.settings[key].as_array());
        let Some([_, height, width, _]) = shapes.into_iter().flatten().next().map(Vec::as_slice) else { continue };
        match (height.as_u64(), width.as_u64()) {
            (Some(height), Some(width)) if height == width || options.input_size.is_some() => return Ok(Some(height as usize)),
            (Some(height), Some(width)) => {
                let what = format!("was trained on images of {height}x{width} pixels; only square images are supported");
                return Err(Error::input(what).at(&layer.name).advise("name the side to use with --input-size"));
            }
            _ => continue,
        }
    }
    Ok(None)
}
