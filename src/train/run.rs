//! A whole run: epochs of steps, validation after each, the best model kept, the state saved.

use super::events::{Event, Listener, go_on, patient};
use super::features::Feed;
use super::folder::{Folder, Row};
use super::inference::Watch;
use super::keep::Waiting;
use super::pace::{enough_steps, over};
use super::position::Position;
use super::record::Recorder;
use super::report::write_report;
use super::resume::{same_images, saved};
use super::settings::Settings;
use super::setup::Setup;
use super::state::State;
use super::tensorboard::Logged;
use super::validation::Validation;
use crate::data::augment::{sheet, spread};
use crate::error::{Error, Kind, Result};
use crate::ops::Backend;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a run ended with.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The epoch whose model is `best.safetensors`.
    pub best: Row,
    /// In training; where features were kept, their computation counts.
    pub images_per_second: f64,
    /// Where features were kept: how many images', and the seconds that they took.
    pub features: Option<(usize, f64)>,
}

/// What became of a run that was to be resumed.
pub enum Resumed {
    /// It went on to its end.
    Done(Summary),
    /// It had ended before; the best epoch.
    Before(Row),
}

/// Trains as `settings` say and leaves a run folder at `out`.
///
/// # Errors
/// Wrong settings or data (before anything is written), memory that is not there, a loss that is not finite, a full disk, an
/// interruption.
pub fn train<D: Backend>(device: D, settings: &Settings, out: &Path, listener: &dyn Listener) -> Result<Summary> {
    let (begun, logged) = (Instant::now(), Logged::new(settings, out, listener));
    let folder = Folder::new(out)?;
    let recorder = Recorder::new(out, &logged)?;
    if folder.lies_in(&settings.data) {
        let text = "RUN lies within DATA, where the next command takes it for a class and its pictures for images; name a folder beside it";
        recorder.on(Event::Warning(text))?;
    }
    let setup = Setup::new(device, settings, None, &recorder)?;
    Run::new(setup, folder, Position::default(), begun).run()
}

/// Goes on with the run in `folder` from its last saved state, or from the beginning if it was stopped before the first;
/// it ends with the same bits as if it had never been stopped.
///
/// # Errors
/// As [`train`]; a damaged state; settings or images that are not those of the run.
pub fn resume<D: Backend>(device: D, settings: &Settings, folder: &Path, listener: &dyn Listener) -> Result<Resumed> {
    let logged = Logged::new(settings, folder, listener);
    let recorder = Recorder::new(folder, &logged)?;
    let (begun, folder, listener) = (Instant::now(), Folder::open(folder)?, &recorder);
    let saved = saved(&folder, settings)?;
    let at = saved.as_ref().map(|s| s.state.position.clone()).unwrap_or_default();
    if let (true, Some(best)) = (over(settings, &at), at.best()) {
        if !folder.file("report.html").exists() {
            report(device, &folder, settings, listener)?;
        }
        return Ok(Resumed::Before(best.clone()));
    }
    if let Some(then) = saved.as_ref().map(|s| &s.state.device).filter(|then| **then != device.describe()) {
        let text = format!("the run was begun on {then}, this is {}: the last bits of its numbers may differ", device.describe());
        listener.on(Event::Warning(&text))?;
    }
    let setup = Setup::new(device, settings, saved.as_ref().map(|saved| (saved, &folder)), listener)?;
    if saved.is_none() && folder.file("split.csv").exists() {
        same_images(&folder, &setup.data, &setup.split)?;
    }
    drop(saved);
    Run::new(setup, folder, at, begun).run().map(Resumed::Done)
}

/// Writes `report.html`. The run is whole without it, so what goes wrong is told and stops nothing.
fn report<D: Backend>(device: D, folder: &Folder, settings: &Settings, listener: &dyn Listener) -> Result<()> {
    match write_report(device, folder.path(), &settings.data) {
        Ok(_) => Ok(()),
        Err(error) => listener.on(Event::Warning(&format!("no report was written: {error}"))),
    }
}

/// A run under way.
pub struct Run<'a, D: Backend> {
    pub setup: Setup<'a, D>,
    pub folder: Folder,
    pub at: Position,
    /// When the state was saved, and how long it took with what had waited for it.
    pub(super) saved: Instant,
    pub(super) writing: Duration,
    /// What epochs left that is not written yet.
    pub(super) waiting: Waiting,
    /// When the command was given.
    begun: Instant,
}

impl<'a, D: Backend> Run<'a, D> {
    fn new(setup: Setup<'a, D>, folder: Folder, at: Position, begun: Instant) -> Self {
        Run { setup, folder, at, saved: Instant::now(), writing: Duration::ZERO, waiting: Waiting::default(), begun }
    }

    fn run(mut self) -> Result<Summary> {
        let listener = self.setup.listener;
        self.begin()?;
        listener.on(Event::Started { epoch: self.at.epoch(), step: self.at.steps() })?;
        let stopped = match self.epochs() {
            Err(error) if error.kind() == Kind::Interrupted => return Err(self.interrupted()?),
            Err(error) => return Err(self.failed(error)?),
            Ok(stopped) => stopped,
        };
        let best = self.at.best().cloned().or(stopped).ok_or_else(|| Error::internal("a run without epochs"))?;
        let features = self.setup.features.as_ref().map(|_| (self.setup.data.len(), self.setup.features_seconds));
        let images_per_second = self.at.images as f64 / (self.at.seconds + self.setup.features_seconds);
        let (Setup { trainer, settings, .. }, folder) = (self.setup, self.folder);
        report(trainer.session.into_device(), &folder, settings, listener)?;
        Ok(Summary { best, images_per_second, features })
    }

    /// Begins the folder, once everything fits and before anything is trained.
    fn begin(&mut self) -> Result<()> {
        let Setup { settings, data, split, report, .. } = &self.setup;
        if !self.folder.file("config.toml").exists() {
            self.folder.begin(settings)?;
        }
        if self.at == Position::default() {
            self.folder.write_split(data, split)?;
            self.folder.write_findings(report)?;
            if let Some(changes) = settings.augmentation(1) {
                self.folder.write_bytes("augment.png", &sheet(data, &spread(&split.train), &changes)?)?;
            }
        }
        self.setup.announce()
    }

    /// Epochs until the run is over or its time is up; in the second case, what there is of a model that is no epoch's.
    fn epochs(&mut self) -> Result<Option<Row>> {
        while !over(self.setup.settings, &self.at) {
            let before = self.setup.features_seconds;
            self.setup.enter(self.at.epoch())?;
            self.at.epoch_seconds += self.setup.features_seconds - before;
            if !self.train_epoch()? {
                return self.leave();
            }
            let start = Instant::now();
            let validation = self.validate()?;
            self.at.epoch_seconds += start.elapsed().as_secs_f64();
            let start = Instant::now();
            let written = self.keep(validation)?;
            self.judge()?;
            if written {
                self.save()?;
                self.writing = start.elapsed();
            }
            if self.late()? && !over(self.setup.settings, &self.at) {
                return self.leave();
            }
        }
        Ok(None)
    }

    /// Whether the time that the run was given is up.
    pub(super) fn late(&self) -> Result<bool> {
        Ok(self.setup.settings.time_limit()?.is_some_and(|limit| self.begun.elapsed() >= limit))
    }

    /// What is left of the epoch's pass over the training images; false if time was up before its end.
    fn train_epoch(&mut self) -> Result<bool> {
        let settings = self.setup.settings;
        let (step, save_every) = (settings.images_per_step(), Duration::from_secs(settings.save_every));
        let (mut feed, mut left) = self.setup.feed(self.at.epoch(), self.at.batches)?;
        while left > 0 && !enough_steps(settings, &self.at) {
            let images = left.min(step);
            self.step(&mut feed, images)?;
            left -= images;
            if self.saved.elapsed() >= save_every {
                self.save()?;
            }
            go_on(self.setup.listener)?;
            if left > 0 && !enough_steps(settings, &self.at) && self.late()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn step(&mut self, feed: &mut Feed, images: usize) -> Result<()> {
        let (start, lr) = (Instant::now(), self.rate(self.at.steps()));
        let took = self.setup.step(feed, images, lr)?;
        if let Some(refused) = &took.refused {
            self.folder.write_steps(&self.at.losses)?;
            return Err(refused.explain(&mut self.setup, self.at.steps() + 1, lr)?);
        }
        let Run { setup: Setup { settings, listener, split, .. }, at, .. } = self;
        at.losses.push(took.loss);
        at.batches += took.batches;
        at.images += images;
        at.sums.add(took.loss, took.correct, images);
        let seconds = start.elapsed().as_secs_f64();
        (at.seconds, at.epoch_seconds) = (at.seconds + seconds, at.epoch_seconds + seconds);
        let (batch_loss, batch_accuracy) = (took.loss, took.correct as f64 / images as f64);
        let (epoch, epochs, step) = (at.epoch(), settings.epochs, at.steps());
        let (images, total, loss, accuracy) = (at.sums.images, split.train.len(), at.sums.loss(), at.sums.accuracy());
        listener.on(Event::Step { epoch, epochs, step, images, total, loss, accuracy, batch_loss, batch_accuracy, lr })
    }

    /// The validation images through the network, in inference mode; `None` if there are none.
    pub(super) fn validate(&mut self) -> Result<Option<Validation>> {
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
                let mut tell = |done| listener.on(Event::Validating { done, total }).and_then(|()| go_on(*listener));
                let watch = Watch { go_on: &|| patient(*listener), progress: &mut tell };
                trainer.logits(data, &indices, settings.val_batch_size, watch)?
            }
        };
        Ok(Some(Validation::new(&self.setup.data, self.setup.groups.as_deref(), &indices, &logits)))
    }

    /// Saves the state as it is between two steps, after the files of the epochs before.
    pub(super) fn save(&mut self) -> Result<()> {
        self.write_waiting()?;
        let Run { setup: Setup { settings, data, trainer, listener, .. }, folder, .. } = self;
        let saved = State::of(settings, &data.classes, trainer, &self.at).save(&folder.file("state.safetensors"), trainer);
        saved.map_err(|e| e.advise(format!("the state saved before is whole; later: defrost resume {}", folder.path().display())))?;
        self.saved = Instant::now();
        listener.on(Event::Saved { epoch: self.at.epoch(), step: self.at.steps() })
    }

    /// Saves the epochs whose files wait before a run ends with an error, which comes first.
    fn failed(&mut self, error: Error) -> Result<Error> {
        if !self.waiting.is_empty()
            && let Err(another) = self.save()
        {
            self.setup.listener.on(Event::Warning(&format!("the epochs after the last saved state are lost: {another}")))?;
        }
        Ok(error)
    }

    /// Saves what was done when the user asked to stop.
    fn interrupted(&mut self) -> Result<Error> {
        self.save()?;
        let (epoch, step) = (self.at.epoch(), self.at.steps());
        self.setup.listener.on(Event::Interrupted { epoch, step })?;
        let what = format!("interrupted in epoch {epoch}, after {step} steps; the state is saved");
        Ok(Error::interrupted(what).advise(format!("go on with: defrost resume {}", self.folder.path().display())))
    }
}
