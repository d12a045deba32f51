//! A model file in use: what it says about itself, its weights on a device, and what comes out for pixels.

use super::fill::fill;
use super::inference::Inference;
use crate::data::dataset::Options;
use crate::error::{Error, Result};
use crate::exec::Session;
use crate::metrics::softmax;
use crate::models::{Freeze, Spec};
use crate::ops::Backend;
use crate::weights::{Metadata, ModelFile, Request, Source};

/// A model that answers for images.
pub struct Opened<D: Backend> {
    pub(super) session: Session<D>,
    inference: Inference<D>,
    classes: usize,
    mapped: bool,
}

/// What comes out for `n` images.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// `[n, classes]`.
    pub logits: Vec<f64>,
    /// `[n, classes]`: the softmax of the logits, in f64.
    pub probabilities: Vec<f64>,
}

/// The network that a file holds, for inference; without head if the file has none.
///
/// # Errors
/// Metadata that this program does not understand, and class names that are not as many as the head's classes.
pub fn spec_of(file: &ModelFile) -> Result<Spec> {
    let m = file.metadata();
    let understood = || -> Result<Spec> {
        let classes = file.class_count();
        let named = m.classes.len();
        if named > 0 && classes.is_some_and(|c| c != named) {
            return Err(Error::input(format!("names {named} classes, its head has {}", classes.unwrap_or(0))));
        }
        Ok(Spec {
            size: m.input_size,
            hidden: m.hidden.iter().map(|text| text.parse()).collect::<Result<_>>()?,
            preprocess: m.preprocess.parse().map_err(Error::input)?,
            profile: m.profile,
            features_only: classes.is_none(),
            ..Spec::new(m.backbone.parse()?, classes.unwrap_or(0))
        })
    };
    understood().map_err(|e| e.at(file.tensors().path().display()))
}

/// How images became the pixels that a model was trained on.
///
/// # Errors
/// Metadata that this program does not understand.
pub fn images_of(file: &ModelFile) -> Result<Options> {
    let Metadata { input_size, resize, pixels, exif, .. } = file.metadata();
    let wrong = |e: String| Error::input(e).at(file.tensors().path().display());
    Ok(Options { size: *input_size, resize: resize.parse().map_err(wrong)?, pixels: pixels.parse().map_err(wrong)?, exif: *exif })
}

impl<D: Backend> Opened<D> {
    /// Puts the weights of a file on a device, for a network like [`spec_of`] says, perhaps at another size; plans it for
    /// batches of `batch` images. Where the device can, the file is mapped and not copied.
    ///
    /// # Errors
    /// A file without head or whose tensors are not the network's; too little memory.
    pub fn new(file: &ModelFile, spec: &Spec, device: D, batch: usize) -> Result<Self> {
        if spec.features_only || file.class_count().is_none() {
            return Err(Error::input("holds a backbone without head, which knows no classes")
                .at(file.tensors().path().display())
                .advise("`defrost train DATA --weights FILE` trains a head on it"));
        }
        // Nothing is trained here: weights are packed once and kept.
        let spec = &Spec { freeze: Freeze::All, ..spec.clone() };
        let (mut session, mut inference) = (Session::new(device)?, Inference::new(spec));
        let program = inference.program(session.device(), batch)?;
        let classes = file.class_names();
        let request =
            Request { backbone: spec.backbone.name(), graph: program.graph(), hidden: &file.metadata().hidden, classes: &classes };
        let matched = file.match_graph(request)?;
        if let Some((v, _)) = matched.sources.iter().find(|(_, source)| matches!(source, Source::New(_))) {
            let what = "does not fit the head that the file describes";
            return Err(Error::input(what).at(program.graph().name(*v)).at(file.tensors().path().display()));
        }
        let filled = fill(&mut session, program, Some((file, request)), 0)?;
        Ok(Opened { session, inference, classes: spec.classes, mapped: filled.mapped })
    }

    /// Whether the weights are the file's own pages, and not a copy.
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// The device with what was found out about the machine.
    pub fn describe(&self) -> String {
        self.session.device().describe()
    }

    /// What comes out for pixels `[n, s, s, 3]`; nothing for none. An image's numbers have the same bits in every batch.
    ///
    /// # Errors
    /// When memory is short.
    pub fn outputs(&mut self, pixels: &[f32]) -> Result<Outputs> {
        if pixels.is_empty() {
            return Ok(Outputs { logits: Vec::new(), probabilities: Vec::new() });
        }
        let logits = self.inference.batch(&mut self.session, "logits", pixels)?;
        let probabilities = logits.chunks_exact(self.classes).flat_map(softmax).collect();
        Ok(Outputs { logits, probabilities })
    }

    /// Another output of the last [`Opened::outputs`], for its `images` images: a tap of the [`Spec`].
    ///
    /// # Errors
    /// When the model has no such output.
    pub fn output(&mut self, name: &str, images: usize) -> Result<Vec<f64>> {
        let program = self.inference.program(self.session.device(), images)?;
        self.session.get(program, name)
    }
}
