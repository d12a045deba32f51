//! A model's layers as Keras would configure them, in the order in which Keras would list them.

use super::super::layers::{Kind, Layer};
use super::super::model::Model;
use super::super::order::keras_order;
use crate::base::{Padding, Shape, Window};
use crate::error::{Error, Result};
use crate::ops::Op;
use crate::ops::activation::Act;
use crate::ops::preprocess::{CAFFE_MEAN, Mode, TORCH_DEVIATION, TORCH_MEAN};
use serde_json::{Value, json};

/// One layer of Keras.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub class: &'static str,
    /// Its settings besides name, dtype and trainable.
    pub settings: Value,
    /// The layers that it reads, as positions in the list.
    pub inputs: Vec<usize>,
    /// The names of its weights, in Keras's order.
    pub weights: Vec<String>,
}

/// The layers of a model for inference; with `preprocess` also what is done to pixels first.
///
/// # Errors
/// A window that Keras has no layer for.
pub fn nodes(model: &Model, preprocess: bool) -> Result<Vec<Node>> {
    let mut w = Writer { model, nodes: Vec::new() };
    let mut of_layer = Vec::new();
    for layer in &model.layers {
        let inputs: Vec<usize> = layer.inputs.iter().map(|&i| of_layer[i]).collect();
        let mut made = w.layer(layer, &inputs)?;
        if layer.kind == Kind::InputLayer && preprocess {
            made = w.preprocess(model.spec.preprocess, made);
        }
        let names = layer.params.iter().chain(&layer.states).map(|&v| model.graph.name(v).to_string());
        w.nodes[made].weights = names.collect();
        of_layer.push(made);
    }
    Ok(in_keras_order(w.nodes))
}

/// Further layers change depths, by which Keras sorts.
fn in_keras_order(nodes: Vec<Node>) -> Vec<Node> {
    let inputs: Vec<Vec<usize>> = nodes.iter().map(|n| n.inputs.clone()).collect();
    let order = keras_order(&inputs, nodes.len() - 1);
    let mut position = vec![0; nodes.len()];
    order.iter().enumerate().for_each(|(new, &old)| position[old] = new);
    let moved = |&old: &usize| Node { inputs: inputs[old].iter().map(|&i| position[i]).collect(), ..nodes[old].clone() };
    order.iter().map(moved).collect()
}

struct Writer<'m> {
    model: &'m Model,
    nodes: Vec<Node>,
}

impl Writer<'_> {
    fn add(&mut self, name: impl Into<String>, class: &'static str, settings: Value, inputs: &[usize]) -> usize {
        self.nodes.push(Node { name: name.into(), class, settings, inputs: inputs.to_vec(), weights: Vec::new() });
        self.nodes.len() - 1
    }

    /// Adds a layer of the model, and what it needs around it.
    fn layer(&mut self, layer: &Layer, inputs: &[usize]) -> Result<usize> {
        let channels = layer.shape.cols();
        let settings = match layer.kind {
            Kind::InputLayer => json!({"batch_input_shape": batch_shape(layer.shape), "sparse": false, "ragged": false}),
            Kind::Conv2D => merged(
                json!({"filters": channels, "use_bias": layer.params.len() == 2, "activation": self.activation(layer).to_string()}),
                self.window(layer, "kernel_size")?,
            ),
            Kind::SeparableConv2D => merged(
                json!({"filters": channels, "depth_multiplier": 1, "use_bias": false, "activation": "linear"}),
                self.window(layer, "kernel_size")?,
            ),
            Kind::BatchNormalization => {
                let (momentum, epsilon) = (self.model.spec.bn_momentum, self.model.spec.profile.epsilon);
                json!({"axis": 3, "momentum": momentum, "epsilon": epsilon, "center": true, "scale": layer.params.len() == 2})
            }
            Kind::Activation => json!({"activation": "relu"}),
            Kind::ZeroPadding2D => {
                let pad = (layer.shape.dims()[1] - self.input_shape(layer).dims()[1]) / 2;
                json!({"padding": [[pad, pad], [pad, pad]], "data_format": "channels_last"})
            }
            Kind::MaxPooling2D => return self.max_pool(layer, inputs),
            Kind::AveragePooling2D => return self.avg_pool(layer, inputs),
            Kind::GlobalAveragePooling2D => json!({"data_format": "channels_last"}),
            Kind::Add => json!({}),
            Kind::Concatenate => json!({"axis": 3}),
            Kind::Dense => {
                let last = self.model.layers.last().is_some_and(|l| l.name == layer.name);
                let activation = if last { "softmax".into() } else { self.activation(layer).to_string() };
                json!({"units": channels, "use_bias": true, "activation": activation})
            }
        };
        Ok(self.add(&*layer.name, layer.kind.class(), settings, inputs))
    }

    /// A pool over pads of its own. They never win, which Keras can say only of SAME: on an odd map SAME pads both sides alike;
    /// on an even one the first row and column stand there twice instead, which changes no maximum.
    fn max_pool(&mut self, layer: &Layer, inputs: &[usize]) -> Result<usize> {
        let side = self.input_shape(layer).dims()[1];
        let (window, mut inputs) = (self.window_of(layer)?, inputs.to_vec());
        let own_pads = matches!(window.padding, Padding::Pads { .. }) && !self.reads_padding(layer);
        let padding = match window.padding {
            Padding::Pads { .. } if own_pads && window != Window::padded(3, 2, 1) => return Err(unknown(layer)),
            Padding::Same => Padding::Same,
            _ if own_pads && side % 2 == 1 => Padding::Same,
            _ => Padding::Valid,
        };
        if own_pads && padding == Padding::Valid {
            for (axis, part) in [(1, "row"), (2, "column")] {
                let crop = if axis == 1 { json!([[0, side - 1], [0, 0]]) } else { json!([[0, 0], [0, side - 1]]) };
                let crop = json!({"cropping": crop, "data_format": "channels_last"});
                let first = self.add(format!("{}_first_{part}", layer.name), "Cropping2D", crop, &inputs);
                let both = [first, inputs[0]];
                inputs = vec![self.add(format!("{}_with_{part}", layer.name), "Concatenate", json!({"axis": axis}), &both)];
            }
        }
        Ok(self.add(&*layer.name, layer.kind.class(), of_window(window, "pool_size", padding), &inputs))
    }

    /// Where padding counts in the divisor, it is a layer of zeros before the pool.
    fn avg_pool(&mut self, layer: &Layer, inputs: &[usize]) -> Result<usize> {
        let (mut window, mut inputs) = (self.window_of(layer)?, inputs.to_vec());
        if self.model.spec.profile.count_padding && window.padding != Padding::Valid {
            let [_, height, width, _] = self.input_shape(layer).four().ok_or_else(|| unknown(layer))?;
            let [top, bottom, left, right] = window.on(height, width).map_err(|_| unknown(layer))?.pad;
            let zeros = json!({"padding": [[top, bottom], [left, right]], "data_format": "channels_last"});
            inputs = vec![self.add(format!("{}_zeros", layer.name), "ZeroPadding2D", zeros, &inputs)];
            window.padding = Padding::Valid;
        }
        Ok(self.add(&*layer.name, layer.kind.class(), of_window(window, "pool_size", window.padding), &inputs))
    }

    /// The layers that make of raw RGB pixels what the network was trained on.
    fn preprocess(&mut self, mode: Mode, pixels: usize) -> usize {
        let rescaling = |scale: Value, offset: Value| json!({"scale": scale, "offset": offset});
        match mode {
            Mode::None => pixels,
            Mode::Rescale => self.add("rescaling", "Rescaling", rescaling(json!(1.0 / 255.0), json!(0.0)), &[pixels]),
            Mode::Tf => self.add("rescaling", "Rescaling", rescaling(json!(1.0 / 127.5), json!(-1.0)), &[pixels]),
            Mode::Torch => {
                let (scale, offset) = (TORCH_DEVIATION.map(|d| 1.0 / (255.0 * d)), [0, 1, 2].map(|c| -TORCH_MEAN[c] / TORCH_DEVIATION[c]));
                self.add("rescaling", "Rescaling", rescaling(json!(scale), json!(offset)), &[pixels])
            }
            Mode::Caffe => {
                let bgr = self.reverse_channels(pixels);
                self.add("rescaling", "Rescaling", rescaling(json!(1.0), json!(CAFFE_MEAN.map(|m| -m))), &[bgr])
            }
        }
    }

    /// RGB to BGR. No layer of Keras exchanges channels; with the channels in the columns' place, cropping picks each.
    fn reverse_channels(&mut self, pixels: usize) -> usize {
        let swap = json!({"dims": [1, 3, 2]});
        let columns = self.add("channels_to_columns", "Permute", swap.clone(), &[pixels]);
        let pick = |w: &mut Self, name: &str, before: usize, after: usize| {
            let crop = json!({"cropping": [[0, 0], [before, after]], "data_format": "channels_last"});
            w.add(name, "Cropping2D", crop, &[columns])
        };
        let bgr = [pick(self, "blue", 2, 0), pick(self, "green", 1, 1), pick(self, "red", 0, 2)];
        let bgr = self.add("bgr", "Concatenate", json!({"axis": 2}), &bgr);
        self.add("columns_to_channels", "Permute", swap, &[bgr])
    }

    /// The window of a convolution: Keras pads for SAME itself, other pads are a layer before it.
    fn window(&self, layer: &Layer, size: &str) -> Result<Value> {
        let window = self.window_of(layer)?;
        match window.padding {
            Padding::Pads { .. } if !self.reads_padding(layer) => Err(unknown(layer)),
            Padding::Pads { .. } => Ok(of_window(window, size, Padding::Valid)),
            padding => Ok(of_window(window, size, padding)),
        }
    }

    fn window_of(&self, layer: &Layer) -> Result<Window> {
        let rows = self.model.graph.nodes.iter().filter(|row| row.layer == layer.name);
        let mut windows = rows.filter_map(|row| match &row.op {
            Op::Conv2d(op) => Some(op.window),
            Op::Depthwise(op) => Some(op.window),
            Op::MaxPool(op) => Some(op.window),
            Op::AvgPool(op) => Some(op.window),
            _ => None,
        });
        windows.next().ok_or_else(|| unknown(layer))
    }

    fn activation(&self, layer: &Layer) -> Act {
        let rows = self.model.graph.nodes.iter().filter(|row| row.layer == layer.name);
        rows.filter_map(|row| if let Op::Activation(op) = &row.op { Some(op.act) } else { None }).next().unwrap_or(Act::Linear)
    }

    fn input_shape(&self, layer: &Layer) -> Shape {
        self.model.layers[layer.inputs[0]].shape
    }

    fn reads_padding(&self, layer: &Layer) -> bool {
        self.model.layers[layer.inputs[0]].kind == Kind::ZeroPadding2D
    }
}

/// `[null, height, width, channels]`.
fn batch_shape(shape: Shape) -> Value {
    let axes = shape.dims()[1..].iter().map(|&d| json!(d));
    std::iter::once(Value::Null).chain(axes).collect()
}

fn of_window(window: Window, size: &str, padding: Padding) -> Value {
    let padding = if padding == Padding::Same { "same" } else { "valid" };
    json!({size: window.kernel, "strides": window.stride, "padding": padding, "data_format": "channels_last"})
}

fn merged(mut a: Value, b: Value) -> Value {
    if let (Some(a), Value::Object(b)) = (a.as_object_mut(), b) {
        a.extend(b);
    }
    a
}

fn unknown(layer: &Layer) -> Error {
    Error::internal("has a window that Keras has no layer for").at(&layer.name)
}
