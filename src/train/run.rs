//! A whole run: data, model, epochs, the best model kept.

use super::folder::{Folder, Row};
use super::settings::Settings;
use super::trainer::Trainer;
use super::validation::{Validation, write_curves};
use crate::data::batches::Batches;
use crate::data::dataset::Dataset;
use crate::data::listing::Listing;
use crate::data::permutation::epoch_order;
use crate::data::split::{Split, keras_split, stratified_split};
use crate::error::{Error, Result};
use crate::exec::Host;
use crate::models::Spec;
use crate::ops::Backend;
use crate::train::settings::SplitName;
use crate::weights::{Metadata, ModelFile, VERSION};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What happens in a run, for a progress bar or a log.
pub enum Event<'a> {
    /// Images are decoded; may come from several threads.
    Loading {
        done: usize,
        total: usize,
    },
    /// Something to know that stops nothing.
    Warning(&'a str),
    /// Everything is planned and the first step follows.
    Planned {
        images: usize,
        validation: usize,
        trainable: usize,
        parameters: usize,
        bytes: usize,
        weights: &'a str,
        device: &'a str,
    },
    /// Features of a frozen backbone are computed, once for the run.
    Features {
        done: usize,
        total: usize,
    },
    /// A step is done; loss and accuracy are means over the epoch so far, `images` of `total` were seen.
    Step {
        epoch: usize,
        epochs: usize,
        images: usize,
        total: usize,
        loss: f64,
        accuracy: f64,
    },
    Validating {
        done: usize,
        total: usize,
    },
    /// An epoch is done and saved.
    Epoch {
        row: &'a Row,
        epochs: usize,
        best: bool,
    },
}

/// Who is told.
pub trait Listener: Sync {
    /// Called as things happen.
    fn on(&self, event: Event);
}

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
    settings.check()?;
    let file = start_file(settings)?;
    let listing = Listing::read(&settings.data, None)?;
    let spec = settings.spec(listing.classes.len(), file.as_ref().map(|f| f.metadata().profile))?;
    let mut trainer = Trainer::new(device, spec, settings.optimizer(), settings.feature_cache)?;
    trainer.model(settings.batch_size)?;
    let split = choose_split(settings, &listing)?;
    let mut folder = Folder::open(out)?;
    let data = Arc::new(Dataset::load(&listing, None, &settings.images(), &|done, total| listener.on(Event::Loading { done, total }))?);
    let warnings = [&listing.warnings[..], &data.warnings, &split.warnings(&data.classes, &data.labels)].concat();
    warnings.iter().for_each(|w| listener.on(Event::Warning(w)));
    let batch = settings.batch_size.min(split.train.len());
    let sentence = trainer.start(batch, file.as_ref(), &data.classes, settings.seed)?;
    folder.begin(settings, &data, &split)?;
    announce(&mut trainer, settings, &split, &sentence, batch, listener)?;
    let features = if trainer.keeps_features() { Some(Features::compute(&mut trainer, &data, settings, listener)?) } else { None };
    Loop { settings, data, split, features, listener, seen: 0, best: None }.run(&mut trainer, &mut folder)
}

/// The file that weights start from.
fn start_file(settings: &Settings) -> Result<Option<ModelFile>> {
    match settings.weights.as_str() {
        "random" => Ok(None),
        "imagenet" => crate::weights::imagenet(settings.backbone()?.name()).map(Some),
        path => ModelFile::open(path).map(Some),
    }
}

fn choose_split(settings: &Settings, listing: &Listing) -> Result<Split> {
    let (n, share, seed) = (listing.files.len(), settings.val_split, settings.split_seed);
    let split = match settings.split {
        _ if share == 0.0 => Split::all_train(n, seed),
        SplitName::Keras => keras_split(n, share, seed)?,
        SplitName::Stratified => stratified_split(&listing.labels(), share, seed)?,
    };
    if split.train.is_empty() {
        return Err(Error::input(format!("of {n} images none are left to train on")).at("--val-split"));
    }
    Ok(split)
}

fn announce<D: Backend>(
    trainer: &mut Trainer<D>,
    settings: &Settings,
    split: &Split,
    weights: &str,
    batch: usize,
    listener: &dyn Listener,
) -> Result<()> {
    let model = trainer.model(batch)?;
    let step = trainer.program(batch)?.plan().bytes;
    // Features of a frozen backbone are computed in batches of training, for all images; otherwise validation has its own.
    let forward = if trainer.keeps_features() { settings.batch_size } else { settings.val_batch_size.min(split.val.len().max(1)) };
    let check = trainer.inference.program(trainer.session.device(), forward)?.plan().bytes;
    // Arenas are shared by the programs of a run, each as large as the largest program wants it.
    let bytes = step.iter().zip(check).map(|(&a, b)| a.max(b)).sum();
    let (images, validation) = (split.train.len(), split.val.len());
    let (trainable, parameters, device) = (model.trainable(), model.parameters(), trainer.session.device().describe());
    listener.on(Event::Planned { images, validation, trainable, parameters, bytes, weights, device: &device });
    Ok(())
}

/// The features of every image under a frozen backbone, `[n, c]`: inference is batch-invariant to the bit, so computing them
/// once changes nothing.
struct Features {
    /// In f64, which holds every device's numbers exactly.
    rows: Vec<f64>,
    channels: usize,
}

impl Features {
    fn compute<D: Backend>(trainer: &mut Trainer<D>, data: &Arc<Dataset>, settings: &Settings, listener: &dyn Listener) -> Result<Self> {
        let all: Vec<usize> = (0..data.len()).collect();
        let total = data.len();
        let mut tell = |done| listener.on(Event::Features { done, total });
        let rows = trainer.inference.images(&mut trainer.session, "features", data, &all, settings.batch_size, &mut tell)?;
        Ok(Features { channels: rows.len() / total, rows })
    }

    fn of(&self, indices: &[usize]) -> Vec<f64> {
        indices.iter().flat_map(|&i| &self.rows[i * self.channels..(i + 1) * self.channels]).copied().collect()
    }
}

struct Loop<'a> {
    settings: &'a Settings,
    data: Arc<Dataset>,
    split: Split,
    features: Option<Features>,
    listener: &'a dyn Listener,
    /// Images that steps have seen.
    seen: usize,
    best: Option<Row>,
}

/// Sums of an epoch.
#[derive(Default)]
struct Running {
    loss: f64,
    correct: usize,
    images: usize,
}

impl Running {
    fn add(&mut self, loss: f64, correct: usize, images: usize) {
        self.loss += loss * images as f64;
        self.correct += correct;
        self.images += images;
    }

    fn loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}

impl Loop<'_> {
    fn run<D: Backend>(mut self, trainer: &mut Trainer<D>, folder: &mut Folder) -> Result<Summary> {
        let mut training = 0.0;
        let mut steps = 0;
        for epoch in 1..=self.settings.epochs {
            let start = Instant::now();
            let sums = self.epoch(trainer, folder, epoch, &mut steps)?;
            training += start.elapsed().as_secs_f64();
            let validation = self.validate(trainer)?;
            let scores = validation.as_ref().map(|v| v.scores(&self.data));
            let row = Row {
                epoch,
                loss: sums.loss(),
                accuracy: sums.accuracy(),
                val_loss: scores.map(|(loss, _)| loss),
                val_accuracy: scores.map(|(_, accuracy)| accuracy),
                lr: self.settings.lr,
                seconds: start.elapsed().as_secs_f64(),
            };
            self.keep(trainer, folder, row, validation)?;
            if self.settings.steps > 0 && steps >= self.settings.steps {
                break;
            }
        }
        let best = self.best.ok_or_else(|| Error::internal("a run without epochs"))?;
        Ok(Summary { best, images_per_second: self.seen as f64 / training })
    }

    /// One pass over the training images.
    fn epoch<D: Backend>(&mut self, trainer: &mut Trainer<D>, folder: &mut Folder, epoch: usize, steps: &mut usize) -> Result<Running> {
        let (settings, total) = (self.settings, self.split.train.len());
        let order: Vec<usize> = match settings.shuffle {
            true => epoch_order(total, settings.seed, epoch as u32).into_iter().map(|i| self.split.train[i]).collect(),
            false => self.split.train.clone(),
        };
        let mut sums = Running::default();
        let mut one = |this: &mut Self, x: Host, labels: &[usize], indices: &[usize]| -> Result<bool> {
            let result = trainer.step(x, labels, settings.lr)?;
            *steps += 1;
            folder.step(result.loss);
            if let Err(error) = this.check_loss(result.loss, *steps, indices) {
                folder.write_steps()?;
                return Err(error);
            }
            sums.add(result.loss, result.correct, labels.len());
            this.seen += labels.len();
            let (loss, accuracy) = (sums.loss(), sums.accuracy());
            this.listener.on(Event::Step { epoch, epochs: settings.epochs, images: sums.images, total, loss, accuracy });
            Ok(settings.steps > 0 && *steps >= settings.steps)
        };
        if let Some(features) = self.features.take() {
            for indices in order.chunks(settings.batch_size) {
                let labels: Vec<usize> = indices.iter().map(|&i| self.data.labels[i]).collect();
                if one(self, features.of(indices)[..].into(), &labels, indices)? {
                    break;
                }
            }
            self.features = Some(features);
            return Ok(sums);
        }
        let mut batches = Batches::new(self.data.clone(), order, settings.batch_size)?;
        while let Some(batch) = batches.next() {
            if one(self, batch.pixels[..].into(), &batch.labels, &batch.indices)? {
                break;
            }
            batches.reuse(batch);
        }
        Ok(sums)
    }

    /// The validation images through the network, in inference mode; `None` if there are none.
    fn validate<D: Backend>(&self, trainer: &mut Trainer<D>) -> Result<Option<Validation>> {
        let (indices, total) = (self.split.val.clone(), self.split.val.len());
        if indices.is_empty() {
            return Ok(None);
        }
        let logits = match &self.features {
            Some(features) => trainer.head(&features.of(&indices))?,
            None => {
                let mut tell = |done| self.listener.on(Event::Validating { done, total });
                trainer.logits(&self.data, &indices, self.settings.val_batch_size, &mut tell)?
            }
        };
        Ok(Some(Validation { indices, logits }))
    }

    /// Writes what an epoch leaves: history, curves, the last model, and the best one with its metrics if it is strictly better
    /// than all before.
    fn keep<D: Backend>(&mut self, trainer: &Trainer<D>, folder: &mut Folder, row: Row, validation: Option<Validation>) -> Result<()> {
        let score = |r: &Row| r.val_accuracy;
        // Without validation images the last model counts as the best.
        let better = self.best.as_ref().is_none_or(|best| score(&row).is_none() || score(&row) > score(best));
        let (session, program) = trainer.weights()?;
        let metadata = self.metadata(trainer.spec(), &row);
        folder.epoch(row.clone())?;
        folder.model("last.safetensors", session, program, &metadata)?;
        if better {
            folder.model("best.safetensors", session, program, &metadata)?;
            validation.map_or(Ok(()), |v| v.write(folder, &self.data))?;
            self.best = Some(row);
        }
        let best = self.best.as_ref().map_or(1, |r| r.epoch);
        write_curves(folder, &format!("{}, {} frozen", self.settings.backbone()?.title(), self.settings.freeze), best)?;
        let row = folder.history().last().expect("just added");
        self.listener.on(Event::Epoch { row, epochs: self.settings.epochs, best: better });
        Ok(())
    }

    fn metadata(&self, spec: &Spec, row: &Row) -> Metadata {
        let s = self.settings;
        let training = serde_json::json!({
            "epoch": row.epoch, "loss": row.loss, "accuracy": row.accuracy, "val_loss": row.val_loss, "val_accuracy": row.val_accuracy,
            "freeze": s.freeze, "batch_size": s.batch_size, "optimizer": s.optimizer, "lr": s.lr, "momentum": s.momentum, "seed": s.seed,
        });
        let name =
            |choice: serde_json::Result<serde_json::Value>| choice.ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
        Metadata {
            backbone: spec.backbone.name().into(),
            classes: self.data.classes.clone(),
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

    fn check_loss(&self, loss: f64, step: usize, indices: &[usize]) -> Result<()> {
        if loss.is_finite() {
            return Ok(());
        }
        let files: Vec<&str> = indices.iter().map(|&i| self.data.paths[i].as_str()).collect();
        let what = format!("the loss is {loss} at step {step}; the batch was {}", files.join(", "));
        Err(Error::input(what).advise("try a smaller --lr; the models of earlier epochs are kept"))
    }
}
