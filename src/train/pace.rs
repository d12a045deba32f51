//! How fast a run learns and when it has learned enough.

use super::events::Event;
use super::position::Position;
use super::run::Run;
use super::schedule::Schedule;
use super::settings::{ScoreName, Settings};
use crate::error::{Error, Result};
use crate::ops::Backend;

/// Whether all epochs or steps that were asked for are done, or too many of them brought no better model.
pub fn over(settings: &Settings, at: &Position) -> bool {
    let epochs = at.history.len();
    at.batches == 0 && (epochs >= settings.epochs || enough_steps(settings, at) || stale(settings, at))
}

/// Whether no step is left to be done.
pub fn enough_steps(settings: &Settings, at: &Position) -> bool {
    settings.steps > 0 && at.steps() >= settings.steps
}

/// Whether the last epochs, as many as early stopping allows, brought no better model.
fn stale(settings: &Settings, at: &Position) -> bool {
    settings.early_stop > 0 && at.history.len() - at.best >= settings.early_stop
}

impl<D: Backend> Run<'_, D> {
    /// The learning rate of step `t`, from 0.
    pub(super) fn rate(&self, t: usize) -> f64 {
        self.schedule().rate(t, &self.at.schedule)
    }

    fn schedule(&self) -> Schedule {
        let settings = self.setup.settings;
        settings.schedule(self.setup.split.train.len().div_ceil(settings.images_per_step()))
    }

    /// What the scores of the epoch that was done last mean for those to come: a lower rate on a plateau, an early end.
    pub(super) fn judge(&mut self) -> Result<()> {
        let (settings, listener, schedule) = (self.setup.settings, self.setup.listener, self.schedule());
        let row = self.at.history.last().ok_or_else(|| Error::internal("an epoch without a row"))?;
        let watched = if settings.plateau_on == ScoreName::ValLoss { row.val_loss } else { row.val_accuracy };
        if watched.is_some_and(|score| schedule.judge(row.epoch - 1, score, &mut self.at.schedule)) && !over(settings, &self.at) {
            listener.on(Event::Note(&format!(
                "no progress for {} epochs: the learning rate falls to {:.3e}",
                settings.patience,
                self.rate(self.at.steps())
            )))?;
        }
        if stale(settings, &self.at) && self.at.history.len() < settings.epochs {
            let (Settings { early_stop, epochs, .. }, done) = (settings, self.at.history.len());
            let line = format!("stopped early, after {done} of {epochs} epochs: {early_stop} without a better validation accuracy");
            listener.on(Event::Note(&line))?;
        }
        Ok(())
    }
}
