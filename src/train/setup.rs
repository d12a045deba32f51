//! What a run stands on before its first step: images, split, model, weights, folder.

use super::class_weights::class_weights;
use super::collection::Collection;
use super::events::{Event, Listener};
use super::features::Features;
use super::folder::Folder;
use super::foresight;
use super::resume::same_images;
use super::settings::Settings;
use super::state::Saved;
use super::trainer::Trainer;
use crate::data::augment::{sheet, spread};
use crate::data::dataset::Dataset;
use crate::data::load::Keep;
use crate::data::memory;
use crate::data::split::Split;
use crate::error::Result;
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
    pub trainer: Trainer<D>,
    pub folder: Folder,
    /// Those of a wholly frozen backbone, where they are kept.
    pub features: Option<Arc<Features>>,
    /// What they took.
    pub features_seconds: f64,
}

impl<'a, D: Backend> Setup<'a, D> {
    /// Prepares a run in `folder`, which is begun once everything fits, or goes on from a saved state.
    ///
    /// # Errors
    /// Wrong settings or data (before anything is written), memory that is not there, what the disk says.
    pub fn new(device: D, settings: &'a Settings, mut folder: Folder, saved: Option<&Saved>, listener: &'a dyn Listener) -> Result<Self> {
        settings.check()?;
        let file = if saved.is_some() { None } else { start_file(settings)? };
        let profile = saved.map(|s| s.state.profile).or(file.as_ref().map(|f| f.metadata().profile));
        let listing = settings.source().listing()?;
        let spec = settings.spec(listing.classes.len(), profile)?;
        settings.phases().into_iter().try_for_each(|freeze| Spec { freeze, ..spec.clone() }.build().map(drop))?;
        let freeze = saved.map_or(settings.freeze_in(1), |saved| Freeze::from(&saved.state.freeze[..]));
        let spec = Spec { freeze, ..spec };
        // Images that change in every epoch have no features that could be kept.
        let keep_features = settings.feature_cache && settings.augment().is_none();
        let mut trainer = Trainer::new(device, spec, settings.optimizer(), settings.clip(), keep_features)?;
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
        let available = memory::available().map(|free| free.saturating_sub(pixels));
        let bytes = foresight::check(&mut trainer, settings, [split.train.len(), split.val.len()], available)?;
        let Collection { data, split, report } = Collection::load(settings, &listing, bytes as u64, listener)?;
        trainer.class_weights = match saved {
            // A file of weights may have changed or gone since.
            Some(saved) => saved.state.class_weights.clone(),
            None => class_weights(&data.labels, &split)?,
        };
        let batch = settings.batch_size.min(split.train.len());
        let weights = match saved {
            None => trainer.start(batch, file.as_ref(), &data.classes, settings.seed)?,
            Some(saved) => {
                same_images(&folder, &data, &split)?;
                trainer.restore(batch, saved)?;
                format!("as they were after {} steps", saved.state.position.steps())
            }
        };
        if !folder.file("config.toml").exists() {
            folder.begin(settings)?;
        }
        if saved.is_none() {
            folder.write_split(&data, &split)?;
            folder.write_findings(&report)?;
            if let Some(changes) = settings.augmentation(1) {
                folder.write_bytes("augment.png", &sheet(&data, &spread(&split.train), &changes)?)?;
            }
        }
        let mut setup = Setup { settings, listener, data, split, trainer, folder, features: None, features_seconds: 0.0 };
        setup.announce(&weights, bytes)?;
        if settings.class_weight != "none" {
            let pairs = setup.data.classes.iter().zip(&setup.trainer.class_weights).map(|(class, w)| format!("{class} {w:.4}"));
            let line = format!("class weights: {}", pairs.collect::<Vec<_>>().join(", "));
            listener.on(Event::Note(&line))?;
        }
        if settings.feature_cache && !keep_features && settings.phases().contains(&Freeze::All) {
            listener.on(Event::Note("augmentation changes images in every epoch: the features of a frozen backbone are not kept"))?;
        }
        Ok(setup)
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
    fn announce(&mut self, weights: &str, bytes: usize) -> Result<()> {
        let (settings, split, trainer) = (self.settings, &self.split, &mut self.trainer);
        let batch = settings.batch_size.min(split.train.len());
        let model = trainer.model(batch)?;
        let (images, validation) = (split.train.len(), split.val.len());
        let (trainable, parameters, device) = (model.trainable(), model.parameters(), trainer.session.device().describe());
        self.listener.on(Event::Planned { images, validation, trainable, parameters, bytes, weights, device: &device })
    }
}

/// The file that weights start from.
fn start_file(settings: &Settings) -> Result<Option<ModelFile>> {
    match settings.weights.as_str() {
        "random" => Ok(None),
        "imagenet" => crate::weights::imagenet(settings.backbone()?.name()).map(Some),
        path => ModelFile::open(path).map(Some),
    }
}
