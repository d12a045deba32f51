//! A whole run: epochs of steps, validation after each, the best model kept.

use super::events::{Event, Listener};
use super::features::{Fed, Feed};
use super::folder::Row;
use super::position::{Position, Running};
use super::schedule::Schedule;
use super::settings::{ScoreName, Settings};
use super::setup::Setup;
use super::validation::Validation;
use crate::data::permutation::epoch_order;
use crate::error::{Error, Result};
use crate::ops::Backend;
use std::path::Path;
use std::time::Instant;

/// What a run ended with.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The epoch whose model is `best.safetensors`.
    pub best: Row,
    pub images_per_second: f64,
}

/// Trains as `settings` say and leaves a run folder at `out`.
///
/// # Errors
/// Wrong settings or data (before anything is written), memory that is not there, a loss that is not finite, a full disk.
pub fn train<D: Backend>(device: D, settings: &Settings, out: &Path, listener: &dyn Listener) -> Result<Summary> {
    Run { setup: Setup::new(device, settings, out, listener)?, at: Position::default() }.run()
}

/// A run under way.
pub struct Run<'a, D: Backend> {
    pub setup: Setup<'a, D>,
    pub at: Position,
}

impl<D: Backend> Run<'_, D> {
    fn run(mut self) -> Result<Summary> {
        self.setup.listener.on(Event::Started { epoch: self.at.epoch + 1, step: self.at.steps() })?;
        while !self.over() {
            self.at.epoch += 1;
            (self.at.batches, self.at.sums) = (0, Running::default());
            let start = Instant::now();
            self.train_epoch()?;
            self.at.seconds += start.elapsed().as_secs_f64();
            let validation = self.validate()?;
            let row = self.row(validation.as_ref(), start.elapsed().as_secs_f64());
            self.keep(row, validation)?;
            self.judge()?;
        }
        let best = self.at.best().cloned().ok_or_else(|| Error::internal("a run without epochs"))?;
        Ok(Summary { best, images_per_second: self.at.images as f64 / self.at.seconds })
    }

    /// Whether all epochs or steps that were asked for are done, or too many of them brought no better model.
    fn over(&self) -> bool {
        self.at.epoch >= self.setup.settings.epochs || self.enough_steps() || self.stale()
    }

    /// Whether the last epochs, as many as early stopping allows, brought no better model.
    fn stale(&self) -> bool {
        let patience = self.setup.settings.early_stop;
        patience > 0 && self.at.epoch - self.at.best >= patience
    }

    /// The learning rate of step `t`, from 0.
    fn rate(&self, t: usize) -> f64 {
        self.schedule().rate(t, &self.at.schedule)
    }

    fn schedule(&self) -> Schedule {
        let Settings { batch_size, .. } = self.setup.settings;
        self.setup.settings.schedule(self.setup.split.train.len().div_ceil(*batch_size))
    }

    /// What the epoch's scores mean for those to come: a lower rate on a plateau, an early end.
    fn judge(&mut self) -> Result<()> {
        let (settings, listener, schedule) = (self.setup.settings, self.setup.listener, self.schedule());
        let row = self.at.history.last().ok_or_else(|| Error::internal("an epoch without a row"))?;
        let watched = if settings.plateau_on == ScoreName::ValLoss { row.val_loss } else { row.val_accuracy };
        if watched.is_some_and(|score| schedule.judge(row.epoch - 1, score, &mut self.at.schedule)) && !self.over() {
            listener.on(Event::Note(&format!(
                "no progress for {} epochs: the learning rate falls to {:.3e}",
                settings.patience,
                self.rate(self.at.steps())
            )))?;
        }
        if self.stale() && self.at.epoch < settings.epochs {
            let Settings { early_stop, epochs, .. } = settings;
            let line =
                format!("stopped early, after {} of {epochs} epochs: {early_stop} without a better validation accuracy", self.at.epoch);
            listener.on(Event::Note(&line))?;
        }
        Ok(())
    }

    fn enough_steps(&self) -> bool {
        let steps = self.setup.settings.steps;
        steps > 0 && self.at.steps() >= steps
    }

    /// What is left of the epoch's pass over the training images.
    fn train_epoch(&mut self) -> Result<()> {
        let Setup { settings, data, split, features, .. } = &self.setup;
        let mut order: Vec<usize> = match settings.shuffle {
            true => epoch_order(split.train.len(), settings.seed, self.at.epoch as u32).into_iter().map(|i| split.train[i]).collect(),
            false => split.train.clone(),
        };
        order.drain(..(self.at.batches * settings.batch_size).min(order.len()));
        let mut feed = Feed::new(data, features.as_ref(), order, settings.batch_size)?;
        while let Some(batch) = feed.next() {
            self.step(&batch)?;
            if self.enough_steps() {
                break;
            }
            feed.reuse(batch);
        }
        Ok(())
    }

    fn step(&mut self, batch: &Fed) -> Result<()> {
        let lr = self.rate(self.at.steps());
        let Run { setup: Setup { settings, listener, data, split, trainer, folder, .. }, at } = self;
        let result = trainer.step(batch.input(), batch.labels(), lr)?;
        at.losses.push(result.loss);
        if let Err(error) = check_loss(result.loss, at.steps(), batch.indices().iter().map(|&i| &data.paths[i][..])) {
            folder.write_steps(&at.losses)?;
            return Err(error);
        }
        at.batches += 1;
        at.images += batch.labels().len();
        at.sums.add(result.loss, result.correct, batch.labels().len());
        let (epoch, epochs, step) = (at.epoch, settings.epochs, at.steps());
        let (images, total, loss, accuracy) = (at.sums.images, split.train.len(), at.sums.loss(), at.sums.accuracy());
        listener.on(Event::Step { epoch, epochs, step, images, total, loss, accuracy, lr })
    }

    /// The validation images through the network, in inference mode; `None` if there are none.
    fn validate(&mut self) -> Result<Option<Validation>> {
        let Setup { settings, listener, data, split, trainer, features, .. } = &mut self.setup;
        let (mut indices, total) = (split.val.clone(), split.val.len());
        // In the order of the listing, as `evaluate` has them.
        indices.sort_unstable();
        if indices.is_empty() {
            return Ok(None);
        }
        let logits = match features {
            Some(features) => trainer.head(&features.of(&indices))?,
            None => {
                let mut tell = |done| listener.on(Event::Validating { done, total });
                trainer.logits(data, &indices, settings.val_batch_size, &mut tell)?
            }
        };
        Ok(Some(Validation::new(&self.setup.data, &indices, &logits)))
    }

    fn row(&self, validation: Option<&Validation>, seconds: f64) -> Row {
        let (at, scores) = (&self.at, validation.map(Validation::scores));
        Row {
            epoch: at.epoch,
            loss: at.sums.loss(),
            accuracy: at.sums.accuracy(),
            val_loss: scores.map(|(loss, _)| loss),
            val_accuracy: scores.map(|(_, accuracy)| accuracy),
            lr: self.rate(at.steps() - 1),
            seconds,
        }
    }
}

/// Stops a run whose loss is not a number, naming the batch.
fn check_loss<'a>(loss: f64, step: usize, files: impl Iterator<Item = &'a str>) -> Result<()> {
    if loss.is_finite() {
        return Ok(());
    }
    let what = format!("the loss is {loss} at step {step}; the batch was {}", files.collect::<Vec<_>>().join(", "));
    Err(Error::input(what).advise("try a smaller --lr; the models of earlier epochs are kept"))
}
