//! What an epoch leaves in the run's folder.

use super::events::Event;
use super::folder::Row;
use super::run::Run;
use super::settings::Settings;
use super::validation::{Validation, write_curves};
use crate::error::Result;
use crate::models::Freeze;
use crate::ops::Backend;
use crate::weights::{Metadata, VERSION};

impl<D: Backend> Run<'_, D> {
    /// Writes what an epoch leaves: history, curves, the last model, and the best one with its metrics if it is strictly better
    /// than all before.
    pub(super) fn keep(&mut self, validation: Option<Validation>) -> Result<()> {
        let validation = self.finite(validation)?;
        let row = self.row(validation.as_ref());
        let score = |r: &Row| r.val_accuracy;
        // Without validation images the last model counts as the best.
        let unseen = self.setup.split.val.is_empty();
        let better = self.at.best().is_none_or(|best| unseen || score(&row) > score(best));
        let metadata = self.metadata(&row);
        let (folder, listener, settings) = (&self.folder, self.setup.listener, self.setup.settings);
        let (session, program) = self.setup.trainer.weights()?;
        self.at.history.push(row.clone());
        folder.write_history(&self.at.history)?;
        folder.write_steps(&self.at.losses)?;
        folder.model("last.safetensors", session, program, &metadata)?;
        if better {
            folder.model("best.safetensors", session, program, &metadata)?;
            validation.map_or(Ok(()), |v| v.write(folder))?;
            self.at.best = row.epoch;
            listener.on(Event::Best { row: &row })?;
        }
        let title = format!("{}, {}", settings.backbone()?.title(), Freeze::from(&settings.freeze[..]).words());
        write_curves(folder, &title, &self.at.history, self.at.best)?;
        listener.on(Event::Epoch { row: &row, epochs: settings.epochs, best: better })
    }

    /// Leaves a run whose time is up: the state is saved, `last.safetensors` is the model as it is. As long as no epoch is done it is
    /// also the best; the first epoch that is done replaces it, so that a resumed run ends as one that was left alone. Returns
    /// what is known of the model.
    pub(super) fn leave(&mut self) -> Result<Option<Row>> {
        let Settings { time_limit, .. } = self.setup.settings;
        let (steps, done, folder) = (self.at.steps(), self.at.history.len(), self.folder.path().display().to_string());
        let mut line = format!("time limit of {time_limit} reached after {steps} steps, {done} whole epochs");
        let mut row = None;
        if self.at.batches > 0 {
            self.save()?;
            let validation = self.validate()?;
            let validation = self.finite(validation)?;
            let found = self.row(validation.as_ref());
            let (folder, metadata, (session, program)) = (&self.folder, self.metadata(&found), self.setup.trainer.weights()?);
            folder.write_steps(&self.at.losses)?;
            folder.model("last.safetensors", session, program, &metadata)?;
            if let (Some(loss), Some(accuracy)) = (found.val_loss, found.val_accuracy) {
                line += &format!("; last.safetensors: val loss {loss:.4}, val accuracy {accuracy:.4}");
            }
            if self.at.best == 0 {
                folder.model("best.safetensors", session, program, &metadata)?;
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
