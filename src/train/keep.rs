//! What an epoch leaves in the run's folder.
//!
//! Where features are kept, an epoch takes milliseconds, and its files, hundreds of megabytes with the weights of a backbone that stands
//! still, would take most of the run. Then they wait: the layers that are trained are copied, and the files are written with those of a
//! later epoch, before the state that goes with them. What lies on the disk is of one epoch's end at any time, history and best model included.

use super::events::Event;
use super::folder::Row;
use super::pace::over;
use super::position::Running;
use super::run::Run;
use super::settings::Settings;
use super::validation::{Validation, write_curves};
use crate::device::Arena;
use crate::error::Result;
use crate::models::Freeze;
use crate::ops::Backend;
use crate::weights::{Metadata, VERSION};
use std::time::Duration;

/// The least time between two writings of files that may wait; more where a writing takes more than a tenth of it.
const PAUSE: Duration = Duration::from_secs(1);
const SHARE: u32 = 10;

/// What waits to be written: the last model, and the best one if it is newer than `best.safetensors`.
#[derive(Default)]
pub(super) struct Waiting {
    last: Option<Model>,
    best: Option<Model>,
}

/// A model that waits, with what its files say of it.
struct Model {
    /// The bytes of the trainable parameters, which are the last ones; `None` if they are those of the session.
    trained: Option<Vec<u8>>,
    metadata: Metadata,
    validation: Option<Validation>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none()
    }
}

impl<D: Backend> Run<'_, D> {
    /// Writes what an epoch leaves, or has it wait: history, curves, the last model, and the best one with its metrics if it is
    /// strictly better than all before. Returns whether it is written, and the state with it is to be saved.
    pub(super) fn keep(&mut self, validation: Option<Validation>) -> Result<bool> {
        let validation = self.finite(validation)?;
        let row = self.row(validation.as_ref());
        (self.at.batches, self.at.sums, self.at.epoch_seconds) = (0, Running::default(), 0.0);
        let score = |r: &Row| r.val_accuracy;
        // Without validation images the last model counts as the best.
        let unseen = self.setup.split.val.is_empty();
        let better = self.at.best().is_none_or(|best| unseen || score(&row) > score(best));
        self.at.history.push(row.clone());
        self.at.best = if better { row.epoch } else { self.at.best };
        let (due, metadata) = (self.due(), self.metadata(&row));
        let trained = if due { None } else { Some(self.trained()?) };
        if better {
            self.waiting.best = Some(Model { trained: trained.clone(), metadata: metadata.clone(), validation });
        }
        self.waiting.last = Some(Model { trained, metadata, validation: None });
        if due {
            self.write_waiting()?;
        }
        let (listener, epochs) = (self.setup.listener, self.setup.settings.epochs);
        if better {
            listener.on(Event::Best { row: &row })?;
        }
        listener.on(Event::Epoch { row: &row, epochs, best: better })?;
        Ok(due)
    }

    /// Whether the files of the epoch that was done last are written now. The first epoch's always are, and those of the last one
    /// before what stands still changes or the run ends.
    fn due(&self) -> bool {
        let (settings, done) = (self.setup.settings, self.at.history.len());
        let pause = (SHARE * self.writing).max(PAUSE).min(Duration::from_secs(settings.save_every));
        let thaws = settings.freeze_in(done + 1) != settings.freeze_in(done);
        !self.setup.trainer.keeps_features() || done == 1 || thaws || over(settings, &self.at) || self.saved.elapsed() >= pause
    }

    /// The bytes of the parameters that are trained.
    fn trained(&self) -> Result<Vec<u8>> {
        let (session, program) = self.setup.trainer.weights()?;
        let graph = program.graph();
        let bytes = |trainable: bool| graph.params.iter().filter(|&&v| graph.trainable(v) == trainable).map(|&v| graph.ty(v).bytes()).sum();
        session.bytes_from(program, Arena::Params, bytes(false))
    }

    /// Writes what waits.
    pub(super) fn write_waiting(&mut self) -> Result<()> {
        let (folder, settings) = (&self.folder, self.setup.settings);
        let Some(last) = &self.waiting.last else { return Ok(()) };
        let weights = self.setup.trainer.weights()?;
        folder.write_history(&self.at.history)?;
        folder.write_steps(&self.at.losses)?;
        folder.model("last.safetensors", weights, &last.metadata, last.trained.as_deref())?;
        if let Some(best) = &self.waiting.best {
            folder.model("best.safetensors", weights, &best.metadata, best.trained.as_deref())?;
            best.validation.as_ref().map_or(Ok(()), |v| v.write(folder))?;
        }
        let title = format!("{}, {}", settings.backbone()?.title(), Freeze::from(&settings.freeze[..]).words());
        write_curves(folder, &title, &self.at.history, self.at.best)?;
        self.waiting = Waiting::default();
        Ok(())
    }

    /// Leaves a run whose time is up: the state is saved, `last.safetensors` is the model as it is. As long as no epoch is done it is
    /// also the best; the first epoch that is done replaces it, so that a resumed run ends as one that was left alone. Returns
    /// what is known of the model.
    pub(super) fn leave(&mut self) -> Result<Option<Row>> {
        let Settings { time_limit, .. } = self.setup.settings;
        let (steps, done, folder) = (self.at.steps(), self.at.history.len(), self.folder.path().display().to_string());
        let mut line = format!("time limit of {time_limit} reached after {steps} steps, {done} whole epochs");
        let mut row = None;
        if self.at.batches > 0 || !self.waiting.is_empty() {
            self.save()?;
        }
        if self.at.batches > 0 {
            let validation = self.validate()?;
            let validation = self.finite(validation)?;
            let found = self.row(validation.as_ref());
            let (folder, metadata, weights) = (&self.folder, self.metadata(&found), self.setup.trainer.weights()?);
            folder.write_steps(&self.at.losses)?;
            folder.model("last.safetensors", weights, &metadata, None)?;
            if let (Some(loss), Some(accuracy)) = (found.val_loss, found.val_accuracy) {
                line += &format!("; last.safetensors: val loss {loss:.4}, val accuracy {accuracy:.4}");
            }
            if self.at.best == 0 {
                folder.model("best.safetensors", weights, &metadata, None)?;
                validation.map_or(Ok(()), |v| v.write(folder))?;
            }
            row = Some(found);
        }
        self.setup.listener.on(Event::Note(&format!("{line}; go on with: defrost resume {folder}")))?;
        Ok(row)
    }

    /// A validation, unless it has numbers that are not finite: these are told, and no file holds them.
    fn finite(&self, validation: Option<Validation>) -> Result<Option<Validation>> {
        if validation.as_ref().is_some_and(|v| !v.is_finite()) {
            let text = "the validation's losses are not all finite, and count for nothing: \
                        training is near divergence, or the moving statistics of batch norm lag behind (--bn-momentum 0.9)";
            self.setup.listener.on(Event::Warning(text))?;
            return Ok(None);
        }
        Ok(validation)
    }

    fn row(&self, validation: Option<&Validation>) -> Row {
        let (at, scores) = (&self.at, validation.map(Validation::scores));
        Row {
            epoch: at.epoch(),
            loss: at.sums.loss(),
            accuracy: at.sums.accuracy(),
            val_loss: scores.map(|(loss, _)| loss),
            val_accuracy: scores.map(|(_, accuracy)| accuracy),
            lr: self.rate(at.steps() - 1),
            seconds: at.epoch_seconds,
        }
    }

    /// What the model files of an epoch say about themselves.
    fn metadata(&self, row: &Row) -> Metadata {
        let (s, data, spec) = (self.setup.settings, &self.setup.data, self.setup.trainer.spec());
        let training = serde_json::json!({
            "epoch": row.epoch, "loss": row.loss, "accuracy": row.accuracy, "val_loss": row.val_loss, "val_accuracy": row.val_accuracy,
            "freeze": s.freeze, "batch_size": s.batch_size, "optimizer": s.optimizer, "lr": s.lr, "momentum": s.momentum, "seed": s.seed,
        });
        let name =
            |choice: serde_json::Result<serde_json::Value>| choice.ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
        Metadata {
            backbone: spec.backbone.name().into(),
            classes: data.classes.clone(),
            exif: s.exif,
            hidden: spec.hidden.iter().map(ToString::to_string).collect(),
            input_size: s.input_size,
            pixels: name(serde_json::to_value(s.pixels)),
            preprocess: spec.preprocess.to_string(),
            profile: spec.profile,
            resize: name(serde_json::to_value(s.resize)),
            training,
            version: VERSION,
        }
    }
}
