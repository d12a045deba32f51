//! The settings of a run as flags, for every command that trains. What is not given is left to the config file and the defaults.

use super::augment_flags::AugmentFlags;
use crate::train::settings::*;
use serde::{Serialize, Serializer};
use std::path::PathBuf;

/// All settings but DATA and the device.
#[derive(clap::Args, Serialize)]
pub struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    pub network: Network,
    #[command(flatten)]
    #[serde(flatten)]
    images: Images,
    #[command(flatten)]
    #[serde(flatten)]
    augment: AugmentFlags,
    #[command(flatten)]
    #[serde(flatten)]
    learning: Learning,
    #[command(flatten)]
    #[serde(flatten)]
    rate: Rate,
}

#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "Network")]
#[serde(rename_all = "kebab-case")]
pub struct Network {
    /// vgg16, xception, inceptionv3 or densenet121
    #[arg(long, value_name = "B")]
    pub backbone: Option<String>,
    /// imagenet, random, or a model file [default: imagenet]
    #[arg(long, value_name = "W")]
    weights: Option<String>,
    /// none, all (the whole backbone), or everything up to and including a layer as `summary` prints them [default: none]
    #[arg(long, value_name = "all|none|LAYER")]
    pub freeze: Option<String>,
    /// Train the head alone for so many epochs first; then what --freeze says [default: 0]
    #[arg(long, value_name = "N")]
    freeze_epochs: Option<usize>,
    /// A dense layer before the softmax, as 1024:sigmoid; may be given more than once
    #[arg(long, value_name = "UNITS:ACT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hidden: Vec<String>,
    /// Side of the square images, in pixels [default: the backbone's own]
    #[arg(long, value_name = "N")]
    input_size: Option<usize>,
    /// Statistics that batch norm trains with [default: batch]
    #[arg(long, value_name = "NAME")]
    batch_norm: Option<BatchNormName>,
    /// Momentum of batch norm's moving statistics [default: 0.99]
    #[arg(long, value_name = "X")]
    bn_momentum: Option<f64>,
    /// The number type of the network [default: f32]
    #[arg(long, value_name = "NAME")]
    precision: Option<PrecisionName>,
    /// Compute a frozen backbone's features anew in every epoch
    #[arg(long)]
    #[serde(rename = "feature-cache", skip_serializing_if = "not", serialize_with = "off")]
    no_feature_cache: bool,
}

#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "Images")]
#[serde(rename_all = "kebab-case")]
struct Images {
    /// How validation images are chosen [default: keras]
    #[arg(long, value_name = "NAME")]
    split: Option<SplitName>,
    /// Seed of the split [default: 42]
    #[arg(long, value_name = "N")]
    split_seed: Option<u32>,
    /// Share of images that validate; 0 for none [default: 0.2]
    #[arg(long, value_name = "X")]
    val_split: Option<f64>,
    /// A folder of the same class folders to validate on; all of DATA is then trained on
    #[arg(long, value_name = "DIR")]
    val_dir: Option<PathBuf>,
    /// The class names, one a line, in the order of their labels [default: the folders, sorted]
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// With --split group: an image's group is what this pattern captures in CLASS/FILE, as 'patient_(\d+)'
    #[arg(long, value_name = "PATTERN", conflicts_with = "group_csv")]
    group_regex: Option<String>,
    /// With --split group: a file with the columns path,group
    #[arg(long, value_name = "FILE")]
    group_csv: Option<PathBuf>,
    /// What is done about files that cannot be read [default: stop]
    #[arg(long, value_name = "stop|skip")]
    on_bad_image: Option<OnBadImage>,
    /// How images are brought to size [default: keras]
    #[arg(long, value_name = "NAME")]
    resize: Option<ResizeName>,
    /// What is done to pixels before the first layer [default: backbone]
    #[arg(long, value_name = "NAME")]
    preprocess: Option<PreprocessName>,
    /// How pixels are kept in memory [default: f32]
    #[arg(long, value_name = "NAME")]
    pixels: Option<PixelsName>,
    /// Turn images by their EXIF orientation
    #[arg(long)]
    #[serde(skip_serializing_if = "not")]
    exif: bool,
    /// Where decoded pixels are held; on disk, a later run finds them again [default: auto]
    #[arg(long, value_name = "auto|memory|disk")]
    pixel_cache: Option<KeepName>,
    /// The folder of pixel caches [default: defrost/pixels in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// GiB that pixel caches may take together; those used longest ago go first, 0 keeps all [default: 50]
    #[arg(long, value_name = "GIB")]
    cache_limit: Option<f64>,
}

#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "Learning")]
#[serde(rename_all = "kebab-case")]
struct Learning {
    /// Passes over the training images [default: 20]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Stop after so many steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Stop after so many epochs without a better validation accuracy
    #[arg(long, value_name = "N")]
    early_stop: Option<usize>,
    /// End after the step at which this time is up, saved and validated, to be resumed: 90m, 1h30m, 45s
    #[arg(long, value_name = "TIME")]
    time_limit: Option<String>,
    /// Save the state so often, besides every epoch's end (of epochs of milliseconds not every one); 0 after every step [default: 300]
    #[arg(long, value_name = "SECONDS")]
    save_every: Option<u64>,
    /// Write event files for TensorBoard to RUN/tensorboard
    #[arg(long)]
    #[serde(skip_serializing_if = "not")]
    tensorboard: bool,
    /// Images of a batch [default: 16]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Batches of one step: as a batch so many times as large, in the memory of one, but batch norm sees each alone [default: 1]
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Images validated at a time [default: 8]
    #[arg(long, value_name = "N")]
    val_batch_size: Option<usize>,
    /// The update rule [default: sgd]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<OptimizerName>,
    /// Momentum of SGD [default: 0]
    #[arg(long, value_name = "X")]
    momentum: Option<f64>,
    /// Nesterov's form of momentum
    #[arg(long)]
    #[serde(skip_serializing_if = "not")]
    nesterov: bool,
    /// Weight decay, decoupled from the gradient [default: 0]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Scale all gradients together down to this norm
    #[arg(long, value_name = "X")]
    clip_norm: Option<f64>,
    /// Bring every element of the gradients within this distance of zero
    #[arg(long, value_name = "X")]
    clip_value: Option<f64>,
    /// Share of each target spread evenly over the classes [default: 0]
    #[arg(long, value_name = "X")]
    label_smoothing: Option<f64>,
    /// What a class's images count for: none, balanced, or a file of lines `class,weight` [default: none]
    #[arg(long, value_name = "none|balanced|FILE")]
    class_weight: Option<String>,
    /// Seed of new weights and of the order of images [default: 42]
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Keep the split's own order in every epoch
    #[arg(long)]
    #[serde(rename = "shuffle", skip_serializing_if = "not", serialize_with = "off")]
    no_shuffle: bool,
}

#[derive(clap::Args, Serialize)]
#[command(next_help_heading = "Learning rate")]
#[serde(rename_all = "kebab-case")]
struct Rate {
    /// Learning rate [default: 0.01]
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// How the rate moves over the run [default: constant]
    #[arg(long, value_name = "NAME")]
    schedule: Option<ScheduleName>,
    /// Raise the rate from zero over so many epochs, 0.5 for half of one
    #[arg(long, value_name = "X", conflicts_with = "warmup_steps")]
    warmup_epochs: Option<f64>,
    /// Raise the rate from zero over so many steps
    #[arg(long, value_name = "N")]
    warmup_steps: Option<usize>,
    /// Epochs between two falls of `--schedule step` [default: 10]
    #[arg(long, value_name = "N")]
    lr_step: Option<usize>,
    /// What a fall multiplies the rate by, in the schedules step and plateau [default: 0.1]
    #[arg(long, value_name = "X")]
    lr_gamma: Option<f64>,
    /// The schedules lower the rate no further than this [default: 0]
    #[arg(long, value_name = "X")]
    lr_min: Option<f64>,
    /// The learning rate after --freeze-epochs [default: the same]
    #[arg(long, value_name = "X")]
    unfreeze_lr: Option<f64>,
    /// What `--schedule plateau` watches [default: val-loss]
    #[arg(long, value_name = "NAME")]
    plateau_on: Option<ScoreName>,
    /// Epochs without progress before a plateau lowers the rate [default: 10]
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// Epochs after a fall that do not count [default: 0]
    #[arg(long, value_name = "N")]
    cooldown: Option<usize>,
    /// A change of the score up to this much is no progress [default: 0.0001]
    #[arg(long, value_name = "X")]
    min_delta: Option<f64>,
}

fn not(x: &bool) -> bool {
    !x
}

/// `--no-shuffle` is `shuffle = false`.
fn off<S: Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(false)
}
