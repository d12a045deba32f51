//! What a run stands on before its first step: images, split, model, weights, folder.

use super::class_weights::class_weights;
use super::collection::Collection;
use super::diverged::Refused;
use super::events::{Event, Listener, patient};
use super::features::{Features, Feed};
use super::folder::Folder;
use super::foresight;
use super::resident;
use super::resume::same_data;
use super::settings::Settings;
use super::state::Saved;
use super::trainer::{Part, Trainer};
use crate::data::check::Report;
use crate::data::dataset::Dataset;
use crate::data::load::Keep;
use crate::data::memory;
use crate::data::permutation::epoch_order;
use crate::data::split::Split;
use crate::error::{Error, Result};
use crate::models::{Freeze, Spec};
use crate::ops::Backend;
use crate::weights::ModelFile;
use std::sync::Arc;
use std::time::Instant;

/// A run that is ready to begin.
pub struct Setup<'a, D: Backend> {
    pub settings: &'a Settings,
    pub listener: &'a dyn Listener,
    pub data: Arc<Dataset>,
    pub split: Split,
    /// What was found out about the images.
    pub report: Report,
    /// The patient, video or site of each image, where it is known.
    pub groups: Option<Vec<String>>,
    pub trainer: Trainer<D>,
    /// Those of a wholly frozen backbone, where they are kept.
    pub features: Option<Arc<Features>>,
    /// What they took.
    pub features_seconds: f64,
    /// Where the weights are from, as a sentence.
    weights: String,
    /// Where the pixels are, as a line; `None` on a device that shares the host's memory.
    pixels: Option<String>,
    /// The planned peak memory, in bytes.
    planned: usize,
}

/// What a step brought.
pub struct Took {
    /// Mean over its images.
    pub loss: f64,
    /// Images whose most probable class is the true one.
    pub correct: usize,
    /// Its batches, and which images of the data set they held.
    pub batches: usize,
    pub indices: Vec<usize>,
    /// A batch whose loss or gradient is not finite: the step then changed nothing.
    pub refused: Option<Refused>,
}

impl<'a, D: Backend> Setup<'a, D> {
    /// Prepares a run, or takes one up again from its saved state and its folder. Nothing is written.
    ///
    /// # Errors
    /// Wrong settings or data, memory that is not there.
    pub fn new(device: D, settings: &'a Settings, from: Option<(&Saved, &Folder)>, listener: &'a dyn Listener) -> Result<Self> {
        settings.check()?;
        let saved = from.map(|(saved, _)| saved);
        let file = if saved.is_some() { None } else { start_file(settings)? };
        let profile = saved.map(|s| s.state.profile).or(file.as_ref().map(|f| f.metadata().profile));
        let listing = settings.source().listing()?;
        let spec = settings.spec(listing.classes.len(), profile)?;
        settings.phases().into_iter().try_for_each(|freeze| Spec { freeze, ..spec.clone() }.build().map(drop))?;
        let freeze = saved.map_or(settings.freeze_in(1), |saved| Freeze::from(&saved.state.freeze[..]));
        let spec = Spec { freeze, ..spec };
        let trainer = Trainer::new(device, spec, settings.optimizer(), settings.clip(), settings.keeps_features())?;
        let mut trainer = trainer.with_precision(settings.precision());
        let (split, _) = settings.rule().split(&listing)?;
        settings.check_validation(split.val.len())?;
        let class_weights = |labels: &[usize], split: &Split| {
            class_weights(&settings.class_weight, &listing.classes, split.train.iter().map(|&i| labels[i]))
        };
        if saved.is_none() {
            class_weights(&listing.labels(), &split)?;
        }
        let loading = settings.loading(0);
        let pixels = if loading.keep == Keep::Memory { Dataset::bytes_needed(listing.files.len(), &loading.options) } else { 0 };
        // Pixels stay in the host's memory; a device with memory of its own has all of it for the plan.
        let host = || memory::available().map(|free| free.saturating_sub(pixels));
        let available = trainer.session.device().free_memory().or_else(host);
        let planned = foresight::check(&mut trainer, settings, [split.train.len(), split.val.len()], available)?;
        let Collection { data, split, groups, report } = Collection::load(settings, &listing, planned as u64, listener)?;
        trainer.class_weights = match saved {
            // A file of weights may have changed or gone since.
            Some(saved) => saved.state.class_weights.clone(),
            None => class_weights(&data.labels, &split)?,
        };
        let batch = settings.batch_size.min(split.train.len());
        let weights = match from {
            None => trainer.start(batch, file.as_ref(), &data.classes, settings.seed)?,
            Some((saved, folder)) => {
                same_data(folder, saved, &data, &split)?;
                trainer.restore(batch, saved)?;
                format!("as they were after {} steps", saved.state.position.steps())
            }
        };
        let left = available.map_or(0, |available| available.saturating_sub(planned as u64));
        let pixels = resident::keep(&mut trainer.session, &data, settings, left)?;
        let (features, features_seconds) = (None, 0.0);
        Ok(Setup { settings, listener, data, split, groups, report, trainer, features, features_seconds, weights, pixels, planned })
    }

    /// Makes ready for an epoch: what stands still in it, and the features where they are kept.
    ///
    /// # Errors
    /// When memory is short.
    pub fn enter(&mut self, epoch: usize) -> Result<()> {
        let (settings, freeze) = (self.settings, self.settings.freeze_in(epoch));
        if self.trainer.spec().freeze != freeze {
            let batch = settings.batch_size.min(self.split.train.len());
            self.trainer.thaw(freeze, batch)?;
            let trainable = self.trainer.model(batch)?.trainable();
            let line = format!("epoch {epoch}: the backbone thaws, {trainable} parameters are trained from here on");
            self.listener.on(Event::Note(&line))?;
        }
        if !self.trainer.keeps_features() {
            self.features = None;
        } else if self.features.is_none() {
            let start = Instant::now();
            self.features = Some(Arc::new(Features::compute(&mut self.trainer, &self.data, settings, self.listener)?));
            self.features_seconds += start.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// Tells what is about to happen, with the planned peak memory.
    ///
    /// # Errors
    /// What the listener says.
    pub fn announce(&self) -> Result<()> {
        let (settings, split, trainer) = (self.settings, &self.split, &self.trainer);
        let model = trainer.model(settings.batch_size.min(split.train.len()))?;
        self.listener.on(Event::Planned {
            images: split.train.len(),
            validation: split.val.len(),
            trainable: model.trainable(),
            parameters: model.parameters(),
            bytes: self.planned,
            weights: &self.weights,
            device: &trainer.session.device().describe(),
        })?;
        if let Some(pixels) = &self.pixels {
            self.listener.on(Event::Note(pixels))?;
        }
        if settings.class_weight != "none" {
            let pairs = self.data.classes.iter().zip(&trainer.class_weights).map(|(class, w)| format!("{class} {w:.4}"));
            let line = format!("class weights: {}", pairs.collect::<Vec<_>>().join(", "));
            self.listener.on(Event::Note(&line))?;
        }
        if settings.feature_cache && !settings.keeps_features() && settings.phases().contains(&Freeze::All) {
            let line = "augmentation changes images in every epoch: the features of a frozen backbone are not kept";
            self.listener.on(Event::Note(line))?;
        }
        Ok(())
    }

    /// What is left of an epoch's pass over the training images when so many batches of it are done; and how many images that is.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn feed(&self, epoch: usize, batches: usize) -> Result<(Feed, usize)> {
        let Setup { settings, data, split, trainer, features, .. } = self;
        let mut order: Vec<usize> = match settings.shuffle {
            true => epoch_order(split.train.len(), settings.seed, epoch as u32).into_iter().map(|i| split.train[i]).collect(),
            false => split.train.clone(),
        };
        order.drain(..(batches * settings.batch_size).min(order.len()));
        let left = order.len();
        let feed = match (features, settings.augmentation(epoch)) {
            (Some(features), _) => Feed::features(features, data, order, settings.batch_size),
            (None, None) => Feed::unchanged(&trainer.session, data, order, settings.batch_size)?,
            (None, changes) => Feed::pixels(data, order, settings.batch_size, changes)?,
        };
        Ok((feed, left))
    }

    /// One step on the next `images` of an epoch, in as many batches as they make.
    ///
    /// # Errors
    /// When memory is short.
    pub fn step(&mut self, feed: &mut Feed, images: usize, lr: f64) -> Result<Took> {
        let Setup { trainer, listener, .. } = self;
        let go_on = || patient(*listener);
        let mut took = Took { loss: 0.0, correct: 0, batches: 0, indices: Vec::with_capacity(images), refused: None };
        while took.indices.len() < images {
            let batch = feed.next().ok_or_else(|| Error::internal("the epoch ends in the middle of a step"))?;
            let part = Part { of: images, first: took.batches == 0, last: took.indices.len() + batch.labels().len() == images };
            let send = |session: &mut _| feed.send_ahead(session);
            let found = trainer.step_while(batch.input(), batch.labels(), part, lr, &go_on, send)?;
            if !found.is_finite() {
                return Ok(Took { loss: f64::NAN, refused: Some(Refused { batch, part, found }), ..took });
            }
            took.loss += found.loss;
            took.correct += found.correct;
            took.batches += 1;
            took.indices.extend_from_slice(batch.indices());
            feed.reuse(batch);
        }
        Ok(took)
    }
}

/// The file that weights start from.
fn start_file(settings: &Settings) -> Result<Option<ModelFile>> {
    match settings.weights.as_str() {
        "random" => Ok(None),
        "imagenet" => crate::weights::imagenet(settings.backbone()?.name()).map(Some),
        path => match ModelFile::open(path) {
            Err(error) if !std::path::Path::new(path).exists() => {
                Err(error.at("--weights").advise("expected imagenet, random, or a model file"))
            }
            file => file.map(Some),
        },
    }
}
