//! A loss or a gradient that is not finite: where it began, in which images, and what may help.
//!
//! Such a step changes nothing (see [`Trainer::step`]), so it can be repeated row by row.

use super::features::Fed;
use super::inference::Inference;
use super::settings::{PreprocessName, Settings};
use super::setup::Setup;
use super::trainer::{Part, StepResult, Trainer};
use crate::data::batches::Batches;
use crate::data::dataset::Dataset;
use crate::error::{Error, Result};
use crate::exec::Session;
use crate::ir::Phase;
use crate::ops::Backend;
use std::sync::Arc;

/// A batch that a step was refused for.
pub struct Refused {
    pub batch: Fed,
    pub part: Part,
    pub found: StepResult,
}

impl Refused {
    /// The error of a run at step `step` with rate `lr`.
    ///
    /// # Errors
    /// When the batch cannot be repeated.
    pub fn explain<D: Backend>(&self, setup: &mut Setup<D>, step: usize, lr: f64) -> Result<Error> {
        let what = match self.found.loss.is_finite() {
            true => format!("a gradient is {} (the loss is {})", self.found.gradient, self.found.loss),
            false => format!("the loss is {}", self.found.loss),
        };
        let files: Vec<&str> = self.batch.indices().iter().map(|&i| &setup.data.paths[i][..]).collect();
        let origin = setup.trainer.blame(&self.batch, self.part)?;
        let first = "it first appears in";
        let error = Error::input(format!("step {step}: {what}; {first} {origin}\n  the batch: {}", files.join(", ")));
        Ok(error.advise(advice(setup.settings, step, lr)))
    }
}

fn advice(settings: &Settings, step: usize, lr: f64) -> String {
    let saved = "no file holds a number of this step; models and state saved before are good, but would come to the same step again";
    let try_this = match settings {
        s if step == 1 && s.preprocess == PreprocessName::None => "leave --preprocess at the backbone's own".into(),
        s if s.clip_norm == 0.0 && s.clip_value == 0.0 => {
            format!("begin again with a smaller --lr (it was {lr}), --clip-norm 1 or --warmup-epochs 1")
        }
        _ => format!("begin again with a smaller --lr (it was {lr})"),
    };
    format!("{try_this}\n  {saved}")
}

impl<D: Backend> Trainer<D> {
    /// Repeats a batch's part of a step that was refused, and says where its first number that is not finite comes from: a weight, or
    /// the forward or backward pass of a layer.
    fn blame(&mut self, batch: &Fed, part: Part) -> Result<String> {
        // Gradients replace, instead of being added to, those of the batches before.
        let alone = Part { first: true, ..part };
        let (session, program) = self.feed(batch.input(), batch.labels(), alone, 0.0)?;
        if let Some(weight) = session.weights_not_finite(program) {
            return Ok(format!("{weight}, before the step"));
        }
        let Some(step) = session.first_not_finite(program) else {
            return Ok("the sum over the batches of the step".into());
        };
        let pass = if step.phase == Phase::Forward { "forward" } else { "backward" };
        Ok(format!("the {pass} pass of {} ({})", step.layer, step.op))
    }
}

impl<D: Backend> Inference<D> {
    /// The error of a frozen backbone whose features of image `index` are not finite: the weight or the layer where that begins.
    ///
    /// # Errors
    /// When the image cannot be passed again.
    pub fn blame(&mut self, session: &mut Session<D>, data: &Arc<Dataset>, index: usize) -> Result<Error> {
        let image = Batches::new(data.clone(), vec![index], 1)?.next();
        let program = self.by_layer(session.device())?;
        session.reserve(&program)?;
        session.set(&program, "pixels", &image.expect("one index makes one batch").pixels[..])?;
        let origin = match session.weights_not_finite(&program) {
            Some(weight) => weight.to_string(),
            None => session.first_not_finite(&program).map_or("the network".into(), |step| format!("{} ({})", step.layer, step.op)),
        };
        let what = format!("its features under the frozen backbone are not finite; that begins in {origin}");
        let advice = "the weights are damaged, or were trained on images that were preprocessed otherwise: see --weights and --preprocess";
        Ok(Error::input(what).at(&data.paths[index]).advise(advice))
    }
}
