//! Grad-CAM: which places of an image speak for a class.
//!
//! Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*, 2017, equations 1
//! and 2, for the activation `A` `[h, w, k]` of a convolutional layer and the logit of class c before the softmax:
//!
//! ```text
//! weight_k = 1 / (h w) sum_ij d logit_c / d A_ijk
//! map_ij   = max(sum_k weight_k A_ijk, 0),  then divided by its largest value
//! ```
//!
//! Two programs share the weights. One is inference with the layer's activation among its outputs; the other is the network
//! from that activation on ([`tail`]) with the backward pass that `grad` appends, seeded with one class for each image. No
//! weight is asked for its gradient, so that what was frozen in training does not matter, and batch norm runs on its moving
//! statistics, so that an image's map does not depend on its neighbours in the batch.
//!
//! Maps of two classes or images are each on their own scale; [`Cam::peak`] says how large 1 is, in logits.

use super::opened::Opened;
use crate::base::Ty;
use crate::data::dataset::Options;
use crate::data::decode::Rgb;
use crate::data::stream::pixels_of;
use crate::error::{Error, Result};
use crate::exec::{Passes, Program};
use crate::ir::{Graph, Role};
use crate::metrics::argmax;
use crate::models::{Purpose, Spec};
use crate::ops::Backend;
use crate::pass::vjp;
use crate::report::{Heatmap, picture};
use crate::weights::ModelFile;
use image::RgbImage;
use std::collections::HashMap;

/// The map of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Cam {
    pub class: usize,
    /// `map / peak`; all zeros where the peak is 0.
    pub heat: Heatmap,
    /// The largest value of the map; 0 where no place speaks for the class.
    pub peak: f64,
}

/// What the network makes of one image, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Of every class.
    pub probabilities: Vec<f64>,
    /// In the order in which the classes were asked for.
    pub cams: Vec<Cam>,
}

/// A model that explains itself at one of its layers.
pub struct GradCam<D: Backend> {
    opened: Opened<D>,
    spec: Spec,
    layer: String,
    /// Height, width and channels of the layer's activation.
    shape: [usize; 3],
    /// The networks behind the activation, by batch size.
    tails: HashMap<usize, Program<D>>,
}

impl<D: Backend> GradCam<D> {
    /// Puts a model file on a device, as [`Opened::new`]; `layer` is by default the backbone's
    /// [`cam_layer`](crate::models::Backbone::cam_layer).
    ///
    /// # Errors
    /// As [`Opened::new`]; a layer that does not exist or has no image plane.
    pub fn new(file: &ModelFile, spec: &Spec, layer: Option<&str>, device: D, batch: usize) -> Result<Self> {
        let layer = layer.unwrap_or(spec.backbone.cam_layer()).to_string();
        let shape = plane_of(spec, &layer)?;
        let spec = Spec { taps: vec![layer.clone()], ..spec.clone() };
        Ok(GradCam { opened: Opened::new(file, &spec, device, batch)?, spec, layer, shape, tails: HashMap::new() })
    }

    /// The layer whose activation the maps weigh.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// Height and width of the maps.
    pub fn plane(&self) -> [usize; 2] {
        [self.shape[0], self.shape[1]]
    }

    /// Probabilities and maps of pixels `[n, s, s, 3]`. `classes` says for image i of them with these probabilities which
    /// classes to explain.
    ///
    /// # Errors
    /// When memory is short, or the network's numbers are not finite.
    pub fn explain(&mut self, pixels: &[f32], classes: &mut dyn FnMut(usize, &[f64]) -> Vec<usize>) -> Result<Vec<Explained>> {
        let outputs = self.opened.outputs(pixels)?;
        let rows = outputs.probabilities.chunks_exact(self.spec.classes);
        let wanted: Vec<Vec<usize>> = rows.clone().enumerate().map(|(i, row)| classes(i, row)).collect();
        let explained = |row: &[f64]| Explained { probabilities: row.to_vec(), cams: Vec::new() };
        let mut images: Vec<Explained> = rows.map(explained).collect();
        let rounds = wanted.iter().map(Vec::len).max().unwrap_or(0);
        if rounds == 0 {
            return Ok(images);
        }
        let activation = self.opened.output(&self.layer, images.len())?;
        for round in 0..rounds {
            let seeds: Vec<Option<usize>> = wanted.iter().map(|classes| classes.get(round).copied()).collect();
            let gradient = self.gradient(pixels, &activation, &seeds)?;
            let plane: usize = self.shape.iter().product();
            let parts = activation.chunks_exact(plane).zip(gradient.chunks_exact(plane));
            for ((image, class), (activation, gradient)) in images.iter_mut().zip(seeds).zip(parts) {
                if let Some(class) = class {
                    image.cams.push(self.cam(class, activation, gradient)?);
                }
            }
        }
        Ok(images)
    }

    /// An image with the map of a class over it, by default of the most probable one, at a size to look at.
    ///
    /// # Errors
    /// As [`GradCam::explain`].
    pub fn overlay(&mut self, image: &Rgb, options: &Options, class: Option<usize>) -> Result<(RgbImage, Explained)> {
        let mut choose = |_: usize, row: &[f64]| vec![class.unwrap_or_else(|| argmax(row))];
        let mut explained = self.explain(&pixels_of(image, options), &mut choose)?;
        let explained = explained.pop().ok_or_else(|| Error::internal("one image gave no result"))?;
        Ok((explained.cams[0].heat.over(&picture(image)), explained))
    }

    /// `d logit / d activation`, `[n, h, w, k]`, of each image's class.
    fn gradient(&mut self, pixels: &[f32], activation: &[f64], classes: &[Option<usize>]) -> Result<Vec<f64>> {
        let (n, k) = (classes.len(), self.spec.classes);
        let mut seed = vec![0f64; n * k];
        classes.iter().enumerate().for_each(|(i, class)| class.iter().for_each(|c| seed[i * k + c] = 1.0));
        let session = &mut self.opened.session;
        if !self.tails.contains_key(&n) {
            let graph = tail(&Spec { batch: n, ..self.spec.clone() }, &self.layer)?;
            self.tails.insert(n, Program::compile(graph, session.device(), Passes::default())?);
        }
        let program = self.tails.get_mut(&n).expect("inserted above");
        session.reserve(program)?;
        session.set(program, "seed", &seed[..])?;
        // A tail reads of these what it needs: a purely linear one neither, a layer beside a branch both.
        if program.graph().named(&self.layer).is_some() {
            session.set(program, &self.layer, activation)?;
        }
        if program.graph().named("pixels").is_some() {
            session.set(program, "pixels", pixels)?;
        }
        session.replay(program, None)?;
        session.get(program, "gradient")
    }

    /// The map of one class from one image's activation and gradient, both `[h, w, k]`.
    fn cam(&self, class: usize, activation: &[f64], gradient: &[f64]) -> Result<Cam> {
        let [height, width, channels] = self.shape;
        let mut weights = vec![0f64; channels];
        for pixel in gradient.chunks_exact(channels) {
            weights.iter_mut().zip(pixel).for_each(|(w, g)| *w += g / (height * width) as f64);
        }
        let dot = |pixel: &[f64]| pixel.iter().zip(&weights).map(|(a, w)| a * w).sum::<f64>();
        let map: Vec<f64> = activation.chunks_exact(channels).map(dot).collect();
        if map.iter().any(|v| !v.is_finite()) {
            return Err(Error::input("its activations or gradients are not finite").at(&self.layer));
        }
        let peak = map.iter().copied().fold(0.0, f64::max);
        let share = |v: f64| if peak > 0.0 { (v.max(0.0) / peak) as f32 } else { 0.0 };
        Ok(Cam { class, heat: Heatmap { height, width, values: map.into_iter().map(share).collect() }, peak })
    }
}

/// The network from a layer's activation on, with its backward pass: inputs are the activation under the layer's name, `seed`
/// `[n, classes]` and, if the layer lies beside another branch, `pixels`; the output `gradient` is
/// `sum_c seed_c d logit_c / d activation`, each image by itself.
///
/// # Errors
/// When the model cannot be built, has no such layer, or (a defect) an op on the way has no gradient.
pub fn tail(spec: &Spec, layer: &str) -> Result<Graph> {
    let spec = Spec { taps: vec![layer.into()], purpose: Purpose::Infer, ..spec.clone() };
    let mut graph = spec.build()?.graph;
    let missing = || Error::internal("the model has no logits or no tap").at(layer);
    let activation = graph.output(layer).ok_or_else(missing)?;
    graph.cut(layer)?;
    let logits = graph.output("logits").ok_or_else(missing)?;
    let seed = graph.add_value(Ty::f32(graph.ty(logits).shape), Role::Input, "seed");
    graph.inputs.push(seed);
    let (mut graph, gradient) = vjp(graph, &[(logits, seed)], &[activation])?;
    graph.outputs = vec![("gradient".into(), gradient[0])];
    graph.prune();
    let read: Vec<_> = graph.nodes.iter().flat_map(|n| n.ins.iter().copied()).collect();
    graph.inputs.retain(|v| read.contains(v));
    Ok(graph)
}

/// Height, width and channels of a layer's activation.
///
/// # Errors
/// A layer that does not exist, with the nearest names, or that has no image plane.
pub fn plane_of(spec: &Spec, layer: &str) -> Result<[usize; 3]> {
    let model = Spec { batch: 1, taps: vec![layer.into()], ..spec.clone() }.build()?;
    let graph = &model.graph;
    let activation = graph.output(layer).ok_or_else(|| Error::internal("the model has no tap").at(layer))?;
    match graph.ty(activation).shape.four() {
        Some([_, h, w, k]) if graph.producers()[activation.index()].is_some_and(|row| graph.nodes[row].op.name() != "preprocess") => {
            Ok([h, w, k])
        }
        _ => Err(Error::input(format!("{layer} has no feature maps"))
            .advise(format!("name a layer between the images and the pooling, such as {}", spec.backbone.cam_layer()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::naive::Naive;
    use crate::exec::Session;
    use crate::models::{Backbone, Freeze};
    use crate::train::fill;
    use crate::weights::Draw;

    const STEP: f64 = 1e-5;

    /// A program on `naive` with new weights in a session of its own.
    fn ready(graph: Graph) -> (Session<Naive>, Program<Naive>) {
        let mut session = Session::new(Naive).unwrap();
        let program = Program::compile(graph, session.device(), Passes::default()).unwrap();
        fill(&mut session, &program, None, 5).unwrap();
        (session, program)
    }

    /// Numbers in 0.5..1.5.
    fn drawn(name: &str, len: usize) -> Vec<f64> {
        let draw = Draw::new(9, name, crate::ir::Init::GlorotUniform { fan_in: 12, fan_out: 12 });
        (0..len).map(|i| 1.0 + f64::from(draw.at(i))).collect()
    }

    fn feed(session: &mut Session<Naive>, program: &Program<Naive>, name: &str, data: &[f64]) {
        if program.graph().named(name).is_some() {
            session.set(program, name, data).unwrap();
        }
    }

    /// Between kinks a network on moving statistics is linear in an activation, so that a difference errs only by the logit's
    /// roundoff over the step; it is held to a millionth of the largest channel's gradient.
    fn channel_weights_are_differences(backbone: Backbone, layer: &str) {
        let spec = Spec { size: backbone.minimum_size(), ..Spec::new(backbone, 3) };
        let [height, width, channels] = plane_of(&spec, layer).unwrap();
        let activation = drawn("activation", height * width * channels);
        let pixels: Vec<f64> = drawn("pixels", spec.size * spec.size * 3).iter().map(|x| 85.0 * x).collect();

        let (mut session, mut program) = ready(tail(&spec, layer).unwrap());
        feed(&mut session, &program, layer, &activation);
        feed(&mut session, &program, "pixels", &pixels);
        session.set(&program, "seed", &[0.0, 1.0, 0.0][..]).unwrap();
        session.replay(&mut program, None).unwrap();
        let gradient = session.get(&program, "gradient").unwrap();

        let mut graph = Spec { taps: vec![layer.into()], ..spec.clone() }.build().unwrap().graph;
        graph.cut(layer).unwrap();
        let (mut session, mut program) = ready(graph);
        let mut logit = |channel: usize, by: f64| {
            let mut activation = activation.clone();
            activation.iter_mut().skip(channel).step_by(channels).for_each(|a| *a += by);
            feed(&mut session, &program, layer, &activation);
            feed(&mut session, &program, "pixels", &pixels);
            session.replay(&mut program, None).unwrap();
            session.get(&program, "logits").unwrap()[1]
        };
        let sums: Vec<f64> = (0..channels).map(|c| gradient.iter().skip(c).step_by(channels).sum()).collect();
        let largest = (0..channels).fold(0, |best, c| if sums[c].abs() > sums[best].abs() { c } else { best });
        for channel in [largest, 0, channels / 3, channels - 1] {
            let difference = (logit(channel, STEP) - logit(channel, -STEP)) / (2.0 * STEP);
            let off = (difference - sums[channel]).abs() / sums[largest].abs();
            assert!(off <= 1e-6 && sums[channel] != 0.0, "{layer}, channel {channel}: {:e}, by differences {difference:e}", sums[channel]);
        }
    }

    #[test]
    fn the_gradients_of_the_default_layers_are_finite_differences() {
        Backbone::ALL.into_iter().for_each(|backbone| channel_weights_are_differences(backbone, backbone.cam_layer()));
    }

    #[test]
    fn the_gradients_of_other_layers_are_finite_differences() {
        for (backbone, layer) in [
            (Backbone::Vgg16, "block5_conv2"),
            (Backbone::Xception, "block14_sepconv1_act"),
            (Backbone::InceptionV3, "mixed9"),
            // Beside this convolution runs the concat, which comes from the pixels.
            (Backbone::DenseNet121, "conv5_block15_2_conv"),
        ] {
            channel_weights_are_differences(backbone, layer);
        }
    }

    #[test]
    fn a_frozen_backbone_has_the_gradient_of_an_open_one() {
        let gradient = |freeze| {
            let spec = Spec { size: 32, freeze, ..Spec::new(Backbone::DenseNet121, 2) };
            let (mut session, mut program) = ready(tail(&spec, "conv5_block16_1_relu").unwrap());
            let [h, w, c] = plane_of(&spec, "conv5_block16_1_relu").unwrap();
            session.set(&program, "seed", &[1.0, 0.0][..]).unwrap();
            feed(&mut session, &program, "conv5_block16_1_relu", &drawn("a", h * w * c));
            feed(&mut session, &program, "pixels", &drawn("pixels", 32 * 32 * 3));
            session.replay(&mut program, None).unwrap();
            session.get(&program, "gradient").unwrap()
        };
        let open = gradient(Freeze::None);
        assert!(open.iter().any(|g| *g != 0.0));
        assert_eq!(gradient(Freeze::All), open);
    }

    #[test]
    fn layers_without_an_image_plane_are_refused_with_advice() {
        let spec = Spec { size: 32, ..Spec::new(Backbone::Vgg16, 2) };
        for layer in ["input_layer", "global_average_pooling2d", "dense"] {
            assert!(plane_of(&spec, layer).unwrap_err().to_string().contains("such as block5_conv3"), "{layer}");
        }
        assert!(plane_of(&spec, "block5_con3").unwrap_err().to_string().contains("did you mean block5_conv3"));
        assert_eq!(plane_of(&spec, "block5_pool").unwrap(), [1, 1, 512]);
    }
}
