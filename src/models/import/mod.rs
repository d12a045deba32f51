//! From a file of Keras, torchvision or timm to a model file.
//!
//! Keras's layers are matched as Keras matches them, by their order in the graph, and every shape is checked before any weight is
//! read. A configuration, where the file has one, tells the head's activations, the input's size, batch norm's epsilon and
//! whether the network really is what its shapes look like; anything in it that this program would compute differently
//! is an error and never a guess.

mod arrange;
mod head;
pub mod official;
mod topology;
mod torch;
mod windows;

use super::backbone::Backbone;
use super::head::Hidden;
use super::model::Model;
use super::spec::Spec;
use crate::base::{DType, Shape, Val};
use crate::error::{Error, Result};
use crate::weights::hdf5::{self, File};
use crate::weights::keras::{self, Archive, Config, Found, Layer};
use crate::weights::{Entry, Metadata, Preprocess, VERSION, map_file, save};
use arrange::{arrange, choose};
use head::Head;
use std::borrow::Cow;
use std::path::Path;
use topology::Topology;

/// What the file does not tell, or is to be told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of the classes, in the order of the head's outputs; empty if they are not known.
    pub classes: Vec<String>,
    /// The network, where it should not be found out.
    pub backbone: Option<Backbone>,
    /// What the weights were trained on, where the model does not say.
    pub preprocess: Option<Preprocess>,
    pub input_size: Option<usize>,
    /// Hidden layers of the head, where the file has no configuration.
    pub hidden: Vec<Hidden>,
    /// What the model file is to say about where its weights are from, beside them; free of times, hosts and paths.
    pub history: serde_json::Value,
}

/// What was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    pub metadata: Metadata,
    /// Classes of the head; `None` without one.
    pub classes: Option<usize>,
    /// Numbers in the file, moving statistics included.
    pub parameters: usize,
    /// What the file was, in words.
    pub layout: String,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Reads a Keras file (legacy HDF5 with or without configuration, `.weights.h5`, `.keras`) or a safetensors file of
/// torchvision or timm, told apart by content, and writes a model file.
///
/// # Errors
/// A file that is none of these, is damaged or hostile, or holds another network; with the layer, what was found and what
/// was expected. Nothing is written then.
pub fn import(path: &Path, out: &Path, options: &Options) -> Result<Imported> {
    let read = || {
        let map = map_file(path)?;
        if out.canonicalize().is_ok_and(|out| path.canonicalize().is_ok_and(|path| out == path)) {
            return Err(Error::input("--out would replace the file that is imported"));
        }
        if is_safetensors(&map) {
            return torch::import(path, out, options);
        }
        let (bytes, config) = open(&map)?;
        let file = File::parse(&bytes)?;
        let found = keras::read(&file, config)?;
        Plan::new(&found, options)?.write(out)
    };
    read().map_err(|e: Error| if e.places().iter().any(|p| *p == path.display().to_string()) { e } else { e.at(path.display()) })
}

/// Does all of [`import`] for the bytes of a Keras file but reading its weights and writing: what a file says, checked.
///
/// # Errors
/// See [`import`].
pub fn examine(bytes: &[u8], options: &Options) -> Result<()> {
    let (bytes, config) = open(bytes)?;
    let file = File::parse(&bytes)?;
    Plan::new(&keras::read(&file, config)?, options).map(|_| ())
}

/// Eight bytes of length, then JSON.
fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{') && bytes[6..8] == [0, 0]
}

/// The HDF5 part of a file, and the configuration that stands beside it in an archive.
fn open(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, Option<Config>)> {
    if bytes.starts_with(hdf5::SIGNATURE) {
        return Ok((Cow::Borrowed(bytes), None));
    }
    if !bytes.starts_with(keras::ZIP) {
        return Err(foreign(bytes));
    }
    if bytes.windows(9).take(4096).any(|w| w == b"/data.pkl") {
        return Err(pickle());
    }
    let Archive { config, weights } = Archive::open(bytes)?;
    let config = Config::parse(&config).map_err(|e| e.at("config.json"))?;
    Ok((weights, config))
}

/// Says what a file is that is not Keras's.
fn foreign(bytes: &[u8]) -> Error {
    match bytes {
        [] => Error::input("is empty"),
        // Pickle's protocol 2 and later; what torch.save wrote until 2020 is one.
        [0x80, 2..=5, ..] => pickle(),
        _ => Error::input("is neither an HDF5 file (.h5, .hdf5) nor a .keras archive nor a safetensors file")
            .advise("Keras's model.save(\"model.h5\") writes one"),
    }
}

fn pickle() -> Error {
    Error::input("is a PyTorch pickle, which can run any program when it is opened, and is therefore not read").advise(
        "convert it where you trust it:\n    import torch, safetensors.torch\n    \
         safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load(\"FILE.pth\", map_location=\"cpu\", weights_only=True).items()}, \
         \"FILE.safetensors\")",
    )
}

/// A file understood: which of its tensors becomes which, and what stands beside them.
struct Plan<'l, 'f, 'a> {
    model: Model,
    /// The layers with weights, in the model's order.
    layers: Vec<&'l Layer<'f, 'a>>,
    metadata: Metadata,
    /// Whether the last layer's one output becomes two.
    binary: bool,
    layout: &'static str,
    notes: Vec<String>,
}

impl<'l, 'f, 'a> Plan<'l, 'f, 'a> {
    /// Looks at names, shapes and configuration alone.
    fn new(found: &'l Found<'f, 'a>, options: &Options) -> Result<Self> {
        let body = choose(found, options.backbone)?;
        let (mut layers, rest, mut notes) = arrange(found, &body)?;
        let backbone = body.spec.backbone;
        let topology = found.config.as_ref().map(|c| Topology::read(c, &body, options, &mut notes)).transpose()?;
        let head = Head::read(&rest, topology.as_ref(), &options.hidden, backbone.channels())?;
        let mut profile = backbone.profile();
        let said = topology.as_ref();
        profile.epsilon = said.and_then(|t| t.epsilon).unwrap_or(profile.epsilon);
        let preprocess = match (options.preprocess, said.and_then(|t| t.preprocess)) {
            (Some(wanted), _) => wanted.of(&profile),
            (None, Some(said)) => said,
            (None, None) => profile.preprocess,
        };
        let size = options.input_size.or(said.and_then(|t| t.input_size)).unwrap_or(backbone.default_size());
        let classes = head.as_ref().map(Head::classes);
        if classes.is_some() && options.preprocess.is_none() && said.is_none_or(|t| t.preprocess.is_none()) {
            notes.push(format!(
                "pixels will be preprocessed for {backbone} ({preprocess}); if the model was trained on raw pixels of 0 to 255, import it with --preprocess none"
            ));
        }
        let hidden = head.as_ref().map(|h| h.hidden.clone()).unwrap_or_default();
        let spec =
            Spec { size, hidden, preprocess, profile, features_only: classes.is_none(), ..Spec::new(backbone, classes.unwrap_or(0)) };
        layers.extend(rest);
        let binary = head.is_some_and(|h| h.binary);
        Ok(Plan { metadata: metadata(&spec, options)?, model: spec.build()?, layers, binary, layout: found.layout, notes })
    }

    /// Reads the weights and writes the model file: all parameters in graph order, then all moving statistics.
    fn write(self, out: &Path) -> Result<Imported> {
        let graph = &self.model.graph;
        let slots = arrange::slots(&self.model);
        let mut bytes: Vec<Option<Cow<[u8]>>> = vec![None; graph.values.len()];
        for (slot, layer) in slots.iter().zip(&self.layers) {
            for (&v, weight) in slot.weights.iter().zip(&layer.weights) {
                let read = weight.data.read().map_err(|e| e.at(&weight.name).at(&layer.name))?;
                let last = slot.layer.name == self.model.layers.last().map(|l| l.name.clone()).unwrap_or_default();
                bytes[v.index()] = Some(if self.binary && last { head::two_outputs(&read) } else { read });
            }
        }
        let missing = |v: Val| Error::internal("no weight was found for it").at(graph.name(v));
        save_model(out, &self.metadata, &self.model, |v| bytes[v.index()].as_deref().ok_or_else(|| missing(v)))?;
        let classes = (!self.model.spec.features_only).then_some(self.model.spec.classes);
        let (parameters, layout) = (self.model.parameters(), self.layout.to_string());
        Ok(Imported { classes, parameters, metadata: self.metadata, layout, notes: self.notes })
    }
}

/// What stands beside the weights of `spec`.
fn metadata(spec: &Spec, options: &Options) -> Result<Metadata> {
    let classes = &options.classes;
    if let Some(wrong) = wrong_names((!spec.features_only).then_some(spec.classes), classes) {
        return Err(wrong);
    }
    Ok(Metadata {
        backbone: spec.backbone.name().into(),
        classes: classes.clone(),
        exif: false,
        hidden: spec.hidden.iter().map(Hidden::to_string).collect(),
        input_size: spec.size,
        pixels: "f32".into(),
        preprocess: spec.preprocess.to_string(),
        profile: spec.profile,
        resize: "keras".into(),
        training: options.history.clone(),
        version: VERSION,
    })
}

/// Writes a model file: all parameters in graph order, then all moving statistics, each with its bytes of f32.
fn save_model<'b>(out: &Path, metadata: &Metadata, model: &Model, bytes: impl Fn(Val) -> Result<&'b [u8]>) -> Result<()> {
    let graph = &model.graph;
    let order: Vec<(Val, Shape)> = graph.params.iter().chain(&graph.states).map(|&v| (v, graph.ty(v).shape)).collect();
    let mut entries = Vec::new();
    for (v, shape) in &order {
        let (name, bytes) = (graph.name(*v), bytes(*v)?);
        believable(name, bytes).map_err(|e| e.at(name))?;
        entries.push(Entry { name, shape: shape.dims(), bytes });
    }
    save(out, metadata, entries, DType::F32)
}

/// Whether a tensor of f32 can be one of a network that was trained: all numbers finite, no variance below zero.
fn believable(name: &str, bytes: &[u8]) -> Result<()> {
    let mut numbers = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let variance = name.ends_with("/moving_variance");
    match numbers.clone().position(|x| !x.is_finite() || (variance && x < 0.0)) {
        None => Ok(()),
        Some(at) => {
            let what = format!("element {at} is {}, which no trained network has here", numbers.nth(at).unwrap_or_default());
            Err(Error::input(what).advise("the file is damaged, or its training had diverged when it was saved"))
        }
    }
}

/// Why class names do not fit a head.
fn wrong_names(classes: Option<usize>, names: &[String]) -> Option<Error> {
    match classes {
        _ if names.is_empty() => None,
        None => Some(Error::input("holds a backbone without head, which has no classes to be named").advise("leave out --classes")),
        Some(n) if n == names.len() => None,
        Some(n) => Some(Error::input(format!("the head has {n} classes, {} are named", names.len()))),
    }
}
