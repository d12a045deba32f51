//! Keras's layers over the graph builder: what a backbone is written in.
//!
//! Each call emits plain rows (no fusion) and records one [`Layer`] with the name, class, shape, weights and inputs it
//! has in Keras. A layer whose name is [`AUTO`] is numbered from 0 per class as in a fresh Keras process: `conv2d`,
//! `conv2d_1`. No call fails: the builder keeps the first error together with the layer's name.

use crate::base::{Padding, Shape, Val, Window};
use crate::ir::{Builder, Graph, Init, Role};
use crate::ops::activation::{Act, Activation};
use crate::ops::preprocess::{Mode, Preprocess};
use crate::ops::{Add, AvgPool, BiasAdd, Concat, Conv2d, Dense, Depthwise, GlobalAvgPool, MaxPool};
use crate::weights::Profile;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The name of a layer that Keras would name itself.
pub const AUTO: &str = "";

/// The Keras class of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    InputLayer,
    Conv2D,
    SeparableConv2D,
    BatchNormalization,
    Activation,
    ZeroPadding2D,
    MaxPooling2D,
    AveragePooling2D,
    GlobalAveragePooling2D,
    Add,
    Concatenate,
    Dense,
}

impl Kind {
    /// The class and the stem of its automatic names.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Kind::InputLayer => ("InputLayer", "input_layer"),
            Kind::Conv2D => ("Conv2D", "conv2d"),
            Kind::SeparableConv2D => ("SeparableConv2D", "separable_conv2d"),
            Kind::BatchNormalization => ("BatchNormalization", "batch_normalization"),
            Kind::Activation => ("Activation", "activation"),
            Kind::ZeroPadding2D => ("ZeroPadding2D", "zero_padding2d"),
            Kind::MaxPooling2D => ("MaxPooling2D", "max_pooling2d"),
            Kind::AveragePooling2D => ("AveragePooling2D", "average_pooling2d"),
            Kind::GlobalAveragePooling2D => ("GlobalAveragePooling2D", "global_average_pooling2d"),
            Kind::Add => ("Add", "add"),
            Kind::Concatenate => ("Concatenate", "concatenate"),
            Kind::Dense => ("Dense", "dense"),
        }
    }

    /// The class name as `summary` prints it.
    pub fn class(self) -> &'static str {
        self.names().0
    }
}

/// One Keras layer of a model.
#[derive(Clone, Debug)]
pub struct Layer {
    pub name: Arc<str>,
    pub kind: Kind,
    /// The output's shape, batch first.
    pub shape: Shape,
    /// The value of its output. For zero padding it is the unpadded input, because the pads lie in the next window.
    pub output: Val,
    /// The layers it reads, as indices into the list that holds this layer.
    pub inputs: Vec<usize>,
    /// Trainable weights in Keras's order.
    pub params: Vec<Val>,
    /// Moving statistics.
    pub states: Vec<Val>,
    /// Whether its weights stand still and its batch norm runs on moving statistics.
    pub frozen: bool,
}

/// What a layer returns: a value, the layer that made it, and zero padding still to be folded into the next window.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    pub(super) val: Val,
    layer: usize,
    /// Top, bottom, left, right.
    pads: [usize; 4],
}

/// Which layers stand still.
#[derive(Clone, Debug, Default)]
pub enum Frozen {
    #[default]
    Nothing,
    /// Every layer until [`Net::thaw`] is called.
    Everything,
    Named(HashSet<Arc<str>>),
}

/// How batch norm runs in this model.
#[derive(Clone, Copy, Debug)]
pub struct NormSettings {
    /// Whether layers that are not frozen use the statistics of the batch and update the moving ones.
    pub batch: bool,
    /// `moving = moving * momentum + batch * (1 - momentum)`.
    pub momentum: f64,
}

/// A network being written down, layer by layer.
pub struct Net {
    pub(super) builder: Builder,
    pub(super) norm: NormSettings,
    pub(super) profile: Profile,
    layers: Vec<Layer>,
    counts: HashMap<Kind, usize>,
    frozen: Frozen,
    /// Mean and variance of the values whose batch statistics have been computed.
    pub(super) statistics: HashMap<Val, (Val, Val)>,
    /// The parts of every concat.
    pub(super) parts: HashMap<Val, Vec<Val>>,
}

impl Net {
    /// An empty network for weights of a certain profile.
    pub fn new(norm: NormSettings, profile: Profile, frozen: Frozen) -> Self {
        let (builder, layers, counts) = (Builder::new(), Vec::new(), HashMap::new());
        Net { builder, norm, profile, layers, counts, frozen, statistics: HashMap::new(), parts: HashMap::new() }
    }

    /// Images `[batch, size, size, 3]` with values 0..255, preprocessed as the weights expect.
    pub fn images(&mut self, batch: usize, size: usize, mode: Mode) -> Tensor {
        self.begin(AUTO, Kind::InputLayer, &[]);
        let pixels = self.builder.input("pixels", [batch, size, size, 3]);
        let x = if mode == Mode::None { pixels } else { self.builder.op(Preprocess { mode }, &[pixels]) };
        self.end(x)
    }

    /// Pooled features `[batch, channels]`, for a head alone.
    pub fn features(&mut self, batch: usize, channels: usize) -> Tensor {
        self.begin(AUTO, Kind::InputLayer, &[]);
        let x = self.builder.input("features", [batch, channels]);
        self.end(x)
    }

    /// A convolution without bias; kernel `[height, width, in, out]`.
    pub fn conv(&mut self, name: &str, x: Tensor, filters: usize, window: Window) -> Tensor {
        self.begin(name, Kind::Conv2D, &[x]);
        let y = self.conv_rows(x, filters, window);
        self.end(y)
    }

    /// A convolution with bias and ReLU, all in one layer.
    pub fn conv_relu(&mut self, name: &str, x: Tensor, filters: usize, window: Window) -> Tensor {
        self.begin(name, Kind::Conv2D, &[x]);
        let y = self.conv_rows(x, filters, window);
        let bias = self.param("bias", [filters], Init::Zeros);
        let y = self.builder.op(BiasAdd, &[y, bias]);
        let y = self.builder.op(Activation { act: Act::Relu }, &[y]);
        self.end(y)
    }

    /// One filter per channel, then a 1x1 convolution across channels; nothing in between, no bias.
    /// Kernels `[height, width, in, 1]` and `[1, 1, in, out]`.
    pub fn separable_conv(&mut self, name: &str, x: Tensor, filters: usize, window: Window) -> Tensor {
        self.begin(name, Kind::SeparableConv2D, &[x]);
        let (v, window) = self.windowed(x, window);
        let channels = self.builder.shape(v).cols();
        let [height, width] = window.kernel;
        let depthwise = self.kernel("depthwise_kernel", [height, width, channels, 1]);
        let pointwise = self.kernel("pointwise_kernel", [1, 1, channels, filters]);
        let y = self.builder.op(Depthwise { window, pre: None }, &[v, depthwise]);
        let y = self.builder.op(Conv2d::new(Window::valid(1, 1)), &[y, pointwise]);
        self.end(y)
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, name: &str, x: Tensor) -> Tensor {
        self.begin(name, Kind::Activation, &[x]);
        let v = self.plain(x);
        let y = self.builder.op(Activation { act: Act::Relu }, &[v]);
        self.end(y)
    }

    /// The largest pixel under each window; padding never wins.
    ///
    /// Keras's DenseNet pools over real zeros of a `ZeroPadding2D`, where this pool skips its padding. The two agree
    /// because that pool follows a ReLU: every window has a real pixel, which is at least zero, and where the zeros would
    /// tie with it the gradient ends in the ReLU.
    pub fn max_pool(&mut self, name: &str, x: Tensor, window: Window) -> Tensor {
        self.begin(name, Kind::MaxPooling2D, &[x]);
        let (v, window) = self.windowed(x, window);
        let y = self.builder.op(MaxPool { window }, &[v]);
        self.end(y)
    }

    /// The mean under each window: over real pixels only, unless the profile counts padding.
    pub fn avg_pool(&mut self, name: &str, x: Tensor, window: Window) -> Tensor {
        self.begin(name, Kind::AveragePooling2D, &[x]);
        let v = self.plain(x);
        let y = self.builder.op(AvgPool { window, count_padding: self.profile.count_padding }, &[v]);
        self.end(y)
    }

    /// The mean over all pixels: `[batch, height, width, channels]` to `[batch, channels]`.
    pub fn global_avg_pool(&mut self, name: &str, x: Tensor) -> Tensor {
        self.begin(name, Kind::GlobalAveragePooling2D, &[x]);
        let v = self.plain(x);
        let y = self.builder.op(GlobalAvgPool {}, &[v]);
        self.end(y)
    }

    /// `pad` zero pixels on all four sides: no row, only pads for the next convolution's or max pool's window.
    pub fn zero_pad(&mut self, name: &str, x: Tensor, pad: usize) -> Tensor {
        self.begin(name, Kind::ZeroPadding2D, &[x]);
        let v = self.plain(x);
        let mut y = self.end(v);
        y.pads = [pad; 4];
        if let Some([n, height, width, channels]) = self.builder.shape(v).four() {
            self.layers[y.layer].shape = Shape::from([n, height + 2 * pad, width + 2 * pad, channels]);
        }
        y
    }

    /// The sum of values of one shape.
    pub fn add(&mut self, name: &str, xs: &[Tensor]) -> Tensor {
        self.begin(name, Kind::Add, xs);
        let ins: Vec<Val> = xs.iter().map(|&x| self.plain(x)).collect();
        let y = self.builder.op(Add, &ins);
        self.end(y)
    }

    /// Channels side by side, in the order given.
    pub fn concat(&mut self, name: &str, xs: &[Tensor]) -> Tensor {
        self.begin(name, Kind::Concatenate, xs);
        let ins: Vec<Val> = xs.iter().map(|&x| self.plain(x)).collect();
        let y = self.builder.op(Concat, &ins);
        self.parts.insert(y, ins);
        self.end(y)
    }

    /// `act(x w + b)`; kernel `[in, units]`.
    pub fn dense(&mut self, name: &str, x: Tensor, units: usize, act: Act) -> Tensor {
        self.begin(name, Kind::Dense, &[x]);
        let v = self.plain(x);
        let inputs = self.builder.shape(v).cols();
        let kernel = self.param("kernel", [inputs, units], Init::GlorotUniform { fan_in: inputs, fan_out: units });
        let bias = self.param("bias", [units], Init::Zeros);
        let y = self.builder.op(Dense, &[v, kernel]);
        let y = self.builder.op(BiasAdd, &[y, bias]);
        let y = if act == Act::Linear { y } else { self.builder.op(Activation { act }, &[y]) };
        self.end(y)
    }

    /// Ends [`Frozen::Everything`]: layers from here on are trained.
    pub fn thaw(&mut self) {
        if matches!(self.frozen, Frozen::Everything) {
            self.frozen = Frozen::Nothing;
        }
    }

    /// The shape of a tensor, without pending padding.
    pub fn shape(&self, x: Tensor) -> Shape {
        self.builder.shape(x.val)
    }

    /// The graph and the layers in the order in which they were written.
    ///
    /// # Errors
    /// The first thing that went wrong, with the layer's name.
    pub fn finish(self) -> crate::error::Result<(Graph, Vec<Layer>)> {
        let mut graph = self.builder.finish()?;
        for layer in self.layers.iter().filter(|l| l.frozen) {
            for v in &layer.params {
                if let Role::Param { trainable, .. } = &mut graph.values[v.index()].role {
                    *trainable = false;
                }
            }
        }
        Ok((graph, self.layers))
    }

    /// Opens a layer: settles its name, which also names its rows and weights.
    pub(super) fn begin(&mut self, name: &str, kind: Kind, inputs: &[Tensor]) {
        let name: Arc<str> = if name == AUTO { self.auto_name(kind).into() } else { name.into() };
        let frozen = match &self.frozen {
            Frozen::Nothing => false,
            Frozen::Everything => true,
            Frozen::Named(names) => names.contains(&name),
        };
        self.builder.at(name.clone());
        let inputs = inputs.iter().map(|x| x.layer).collect();
        let (shape, output) = (Shape::from([1]), Val(0));
        self.layers.push(Layer { name, kind, shape, output, inputs, params: Vec::new(), states: Vec::new(), frozen });
    }

    /// Closes the layer.
    pub(super) fn end(&mut self, output: Val) -> Tensor {
        let layer = self.layers.len() - 1;
        self.layers[layer].output = output;
        self.layers[layer].shape = self.builder.shape(output);
        Tensor { val: output, layer, pads: [0; 4] }
    }

    /// The layer being written.
    pub(super) fn current(&mut self) -> &mut Layer {
        self.layers.last_mut().expect("a layer is open")
    }

    /// A trainable weight of the current layer.
    pub(super) fn param(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Val {
        let v = self.builder.param(name, shape, init);
        self.current().params.push(v);
        v
    }

    /// The value of a tensor for a layer that has no window to fold padding into.
    pub(super) fn plain(&mut self, x: Tensor) -> Val {
        if x.pads != [0; 4] {
            self.builder.fail("reads a zero padding; only a convolution or a max pool without padding of its own may");
        }
        x.val
    }

    /// A value and the window that reads it, with pending zero padding folded in.
    fn windowed(&mut self, x: Tensor, window: Window) -> (Val, Window) {
        let [top, bottom, left, right] = x.pads;
        if x.pads == [0; 4] || window.padding != Padding::Valid {
            return (self.plain(x), window);
        }
        (x.val, Window { padding: Padding::Pads { top, bottom, left, right }, ..window })
    }

    fn conv_rows(&mut self, x: Tensor, filters: usize, window: Window) -> Val {
        let (v, window) = self.windowed(x, window);
        let [height, width] = window.kernel;
        let kernel = self.kernel("kernel", [height, width, self.builder.shape(v).cols(), filters]);
        self.builder.op(Conv2d::new(window), &[v, kernel])
    }

    /// A convolution kernel. Keras counts the fans of every kernel, depthwise ones too, as the last two axes times the taps.
    fn kernel(&mut self, name: &str, shape: [usize; 4]) -> Val {
        let [height, width, inputs, outputs] = shape;
        let init = Init::GlorotUniform { fan_in: height * width * inputs, fan_out: height * width * outputs };
        self.param(name, shape, init)
    }

    fn auto_name(&mut self, kind: Kind) -> String {
        let count = self.counts.entry(kind).or_insert(0);
        *count += 1;
        let stem = kind.names().1;
        if *count == 1 { stem.to_string() } else { format!("{stem}_{}", *count - 1) }
    }
}
