//! Everything that decides a training run; what `config.toml` holds.
//!
//! Two runs with equal settings on the same machine, with the same number of threads, give the same bits.

use crate::error::{Error, Result};
use crate::models::{Backbone, BatchNorm, Freeze, Hidden, Purpose, Spec};
use crate::ops::preprocess::Mode;
use crate::ops::{Adam, Sgd};
use crate::train::Optimizer;
use crate::weights::Profile;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$of])* $variant),+ }
    };
}

choice! {
    /// The update rule.
    OptimizerName { Sgd, Adam }
}
choice! {
    /// How validation images are chosen.
    SplitName {
        /// The tail of NumPy's seeded shuffle, as Keras does it.
        Keras,
        /// The same share of every class.
        Stratified,
        /// Whole groups (patients, videos), so that none is on both sides.
        Group,
    }
}
choice! {
    /// What is done about files that cannot be read.
    OnBadImage {
        /// All of them are named, and nothing is trained.
        Stop,
        /// They are left out and counted.
        Skip,
    }
}
choice! {
    /// Where decoded pixels are held.
    KeepName {
        /// In memory if they fit, otherwise on disk.
        Auto,
        Memory,
        /// In a mapped cache file, which a later run finds again.
        Disk,
    }
}
choice! {
    /// Which mirror images are trained on.
    FlipName {
        None,
        /// Left and right.
        H,
        /// Top and bottom.
        V,
        /// Both.
        Hv,
    }
}
choice! {
    /// How images are brought to the network's size.
    ResizeName {
        /// Bilinear without antialias, in float, as `image_dataset_from_directory` does.
        Keras,
        /// The nearest pixel, as Keras's `load_img` does.
        Nearest,
        /// Bilinear with antialias: best for large images.
        Antialias,
    }
}
choice! {
    /// What is done to pixels of 0 to 255 before the first layer.
    PreprocessName {
        /// The backbone's own `preprocess_input`, which the ImageNet weights expect.
        Backbone,
        /// Nothing, as in the well-known article.
        None,
        /// Division by 255.
        Rescale,
    }
}
choice! {
    /// Which statistics batch norm layers use in training.
    BatchNormName {
        /// Those of the batch.
        Batch,
        /// The moving ones, which then stand still.
        Moving,
    }
}
choice! {
    /// How the learning rate moves over a run; `schedule.rs` has the formulas.
    ScheduleName {
        /// It stays.
        Constant,
        /// It falls every so many epochs.
        Step,
        /// It falls along half a cosine, to the run's end.
        Cosine,
        /// It falls when validation makes no progress.
        Plateau,
    }
}
choice! {
    /// A score of validation.
    ScoreName { ValLoss, ValAccuracy }
}
choice! {
    /// How pixels are kept in memory.
    PixelsName {
        /// Exactly as resized.
        F32,
        /// Rounded to whole grey levels: a quarter of the memory.
        U8,
    }
}
choice! {
    /// What training steps compute in; validation and prediction compute in f32.
    PrecisionName {
        /// Everything in f32.
        F32,
        /// Stored in f32, multiplied in tf32 on tensor cores; on a GPU.
        Tf32,
        /// Convolutions multiply in bf16, on a GPU (whose activations then lie in memory so) or a processor that has such products;
        /// weights, statistics and the loss stay in f32.
        Bf16,
    }
}

/// The settings of a run, with the flags' names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The folder of class folders.
    pub data: PathBuf,
    pub backbone: String,
    /// `imagenet`, `random`, or a model file.
    pub weights: String,
    /// `none`, `all`, or the last layer that is frozen.
    pub freeze: String,
    /// The first epochs train the head alone, whatever `freeze` says.
    pub freeze_epochs: usize,
    /// Hidden layers of the head: `1024:sigmoid`.
    pub hidden: Vec<String>,
    /// Side of the square images, in pixels.
    pub input_size: usize,
    pub epochs: usize,
    /// Stop after so many steps; 0 for none.
    pub steps: usize,
    pub batch_size: usize,
    /// Batches of one step.
    pub accumulate: usize,
    pub val_batch_size: usize,
    pub optimizer: OptimizerName,
    pub lr: f64,
    pub momentum: f64,
    pub nesterov: bool,
    pub weight_decay: f64,
    /// Limit of the norm of all gradients together; 0 for none.
    pub clip_norm: f64,
    /// Limit of each element of the gradients; 0 for none.
    pub clip_value: f64,
    pub label_smoothing: f64,
    /// `none`, `balanced`, or a file of lines `class,weight`.
    pub class_weight: String,
    pub schedule: ScheduleName,
    pub warmup_epochs: f64,
    pub warmup_steps: usize,
    /// Epochs between two falls of the step schedule.
    pub lr_step: usize,
    /// Factor of a fall of the step and plateau schedules.
    pub lr_gamma: f64,
    pub lr_min: f64,
    /// The base rate after the first epochs that train the head alone; 0 for the same.
    pub unfreeze_lr: f64,
    pub plateau_on: ScoreName,
    pub patience: usize,
    pub cooldown: usize,
    pub min_delta: f64,
    /// Stop after so many epochs without a better model; 0 for never.
    pub early_stop: usize,
    /// `none`, or how long each `train` and `resume` may take: `90m`, `1h30m`, `45s`.
    pub time_limit: String,
    pub batch_norm: BatchNormName,
    pub bn_momentum: f64,
    pub seed: u32,
    /// Whether every epoch has an order of its own.
    pub shuffle: bool,
    pub split: SplitName,
    pub split_seed: u32,
    pub val_split: f64,
    /// A folder of the same class folders to validate on; empty for none.
    pub val_dir: PathBuf,
    /// A file with the class names, one a line, in the order of their labels; empty for the sorted folders.
    pub classes: PathBuf,
    /// The group of an image by its path; empty for none.
    pub group_regex: String,
    /// The group of an image by a table with the columns `path,group`; empty for none.
    pub group_csv: PathBuf,
    pub on_bad_image: OnBadImage,
    pub resize: ResizeName,
    pub preprocess: PreprocessName,
    pub pixels: PixelsName,
    /// Whether images are turned by their EXIF orientation.
    pub exif: bool,
    pub pixel_cache: KeepName,
    /// The folder of pixel caches; empty for the user's.
    pub cache_dir: PathBuf,
    /// GiB that they may take together; 0 for any.
    pub cache_limit: f64,
    /// Whether the preset of augmentation is meant wherever the next six say nothing.
    pub augment: bool,
    pub flip: FlipName,
    /// Degrees.
    pub rotate: f64,
    /// Shares: of the side, of the size, of the range of grey levels, of the distance from the mean.
    pub shift: f64,
    pub zoom: f64,
    pub brightness: f64,
    pub contrast: f64,
    pub precision: PrecisionName,
    /// Whether the features of a wholly frozen backbone are computed once and kept.
    pub feature_cache: bool,
    /// Seconds between two saves of the state; 0 saves after every step.
    pub save_every: u64,
    /// Whether event files for TensorBoard are written.
    pub tensorboard: bool,
    /// `auto`, `cpu` or `naive`.
    pub device: String,
    /// 0 for one per core.
    pub threads: usize,
    /// Whether the cpu device takes every sum of a convolution term by term.
    pub exact: bool,
}

impl Settings {
    /// The defaults for a backbone on a folder.
    pub fn new(data: impl Into<PathBuf>, backbone: Backbone) -> Self {
        Settings {
            data: data.into(),
            backbone: backbone.name().into(),
            weights: "imagenet".into(),
            freeze: "none".into(),
            freeze_epochs: 0,
            hidden: Vec::new(),
            input_size: backbone.default_size(),
            epochs: 20,
            steps: 0,
            batch_size: 16,
            accumulate: 1,
            val_batch_size: 8,
            optimizer: OptimizerName::Sgd,
            lr: 0.01,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            clip_norm: 0.0,
            clip_value: 0.0,
            label_smoothing: 0.0,
            class_weight: "none".into(),
            schedule: ScheduleName::Constant,
            warmup_epochs: 0.0,
            warmup_steps: 0,
            lr_step: 10,
            lr_gamma: 0.1,
            lr_min: 0.0,
            unfreeze_lr: 0.0,
            plateau_on: ScoreName::ValLoss,
            patience: 10,
            cooldown: 0,
            min_delta: 1e-4,
            early_stop: 0,
            time_limit: "none".into(),
            batch_norm: BatchNormName::Batch,
            bn_momentum: 0.99,
            seed: 42,
            shuffle: true,
            split: SplitName::Keras,
            split_seed: 42,
            val_split: 0.2,
            val_dir: PathBuf::new(),
            classes: PathBuf::new(),
            group_regex: String::new(),
            group_csv: PathBuf::new(),
            on_bad_image: OnBadImage::Stop,
            resize: ResizeName::Keras,
            preprocess: PreprocessName::Backbone,
            pixels: PixelsName::F32,
            exif: false,
            pixel_cache: KeepName::Auto,
            cache_dir: PathBuf::new(),
            cache_limit: 50.0,
            augment: false,
            flip: FlipName::None,
            rotate: 0.0,
            shift: 0.0,
            zoom: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            precision: PrecisionName::F32,
            feature_cache: true,
            save_every: 300,
            tensorboard: false,
            device: "auto".into(),
            threads: 0,
            exact: false,
        }
    }

    /// Refuses numbers that make no sense, before anything is read.
    ///
    /// # Errors
    /// With the flag's name and what was expected.
    pub fn check(&self) -> Result<()> {
        let wrong = |flag: &str, found: f64, expected: &str| Err(Error::input(format!("{found} is not {expected}")).at(flag));
        let finite = |x: f64| x.is_finite() && x >= 0.0;
        match self {
            s if s.epochs == 0 => wrong("--epochs", 0.0, "at least 1"),
            s if s.batch_size == 0 => wrong("--batch-size", 0.0, "at least 1"),
            s if s.val_batch_size == 0 => wrong("--val-batch-size", 0.0, "at least 1"),
            s if !(s.lr.is_finite() && s.lr > 0.0) => wrong("--lr", s.lr, "a positive number"),
            s if !(0.0..1.0).contains(&s.momentum) => wrong("--momentum", s.momentum, "in 0..1"),
            s if !finite(s.weight_decay) => wrong("--weight-decay", s.weight_decay, "zero or a positive number"),
            s if !(0.0..1.0).contains(&s.val_split) => wrong("--val-split", s.val_split, "in 0..1"),
            s if !(0.0..1.0).contains(&s.label_smoothing) => wrong("--label-smoothing", s.label_smoothing, "in 0..1"),
            s if !(0.0..=1.0).contains(&s.bn_momentum) => wrong("--bn-momentum", s.bn_momentum, "in 0..=1"),
            s if !finite(s.cache_limit) => wrong("--cache-limit", s.cache_limit, "zero or a positive number"),
            s if s.nesterov && s.momentum == 0.0 => Err(Error::input("needs a --momentum above 0").at("--nesterov")),
            _ => self.backbone()?.check_size(self.input_size).and_then(|()| self.check_images()).and_then(|()| self.check_learning()),
        }
    }

    /// The backbone.
    ///
    /// # Errors
    /// When the name is unknown; the message lists the four.
    pub fn backbone(&self) -> Result<Backbone> {
        self.backbone.parse()
    }

    /// The model for training on `classes` classes, from weights with a profile of their own, or as Keras defines it.
    ///
    /// # Errors
    /// When a hidden layer or a size is wrong.
    pub fn spec(&self, classes: usize, profile: Option<Profile>) -> Result<Spec> {
        let backbone = self.backbone()?;
        let profile = profile.unwrap_or(backbone.profile());
        let hidden = self.hidden.iter().map(|h| h.parse::<Hidden>()).collect::<Result<_>>()?;
        Ok(Spec {
            size: self.input_size,
            batch: self.batch_size,
            hidden,
            preprocess: match self.preprocess {
                PreprocessName::Backbone => profile.preprocess,
                PreprocessName::None => Mode::None,
                PreprocessName::Rescale => Mode::Rescale,
            },
            purpose: Purpose::Train,
            freeze: Freeze::from(&self.freeze[..]),
            batch_norm: match self.batch_norm {
                BatchNormName::Batch => BatchNorm::Batch,
                BatchNormName::Moving => BatchNorm::Moving,
            },
            bn_momentum: self.bn_momentum,
            profile,
            label_smoothing: self.label_smoothing,
            ..Spec::new(backbone, classes)
        })
    }

    /// The update rule. Keras rounds the momentum to f32 even for weights of f64; the specification does likewise.
    pub fn optimizer(&self) -> Optimizer {
        let Settings { momentum, nesterov, weight_decay, .. } = *self;
        let momentum = f64::from(momentum as f32);
        match self.optimizer {
            OptimizerName::Sgd => Optimizer::Sgd(Sgd { momentum, nesterov, weight_decay }),
            OptimizerName::Adam => Optimizer::Adam(Adam { weight_decay, ..Adam::default() }),
        }
    }

    /// Reads the `config.toml` of a run, which names every setting; one that the program did not have when the run was begun
    /// has its default, which is what it did then.
    ///
    /// # Errors
    /// When it is not there, or not such a file.
    pub fn of_run(run: &Path) -> Result<Self> {
        let path = run.join("config.toml");
        if !path.exists() {
            let what = if run.is_dir() { "has no config.toml: no run was begun there" } else { "there is no such folder" };
            return Err(Error::input(what).at(run.display()).advise("`defrost train --out RUN` begins a run"));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
        let wrong = |e: toml::de::Error| Error::input(e.to_string()).at(path.display());
        let given: toml::Table = toml::from_str(&text).map_err(wrong)?;
        let backbone: Backbone = given.get("backbone").and_then(toml::Value::as_str).unwrap_or_default().parse()?;
        let mut all = toml::Table::try_from(Settings::new("", backbone)).map_err(|e| Error::internal(e.to_string()))?;
        all.extend(given);
        let settings: Settings = all.try_into().map_err(wrong)?;
        settings.check()?;
        Ok(settings)
    }

    /// The settings as `config.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings, numbers and lists are TOML")
    }
}
