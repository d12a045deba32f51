//! `defrost train`: defaults, then `--config`, then flags; then one call.

use super::device::{DeviceArgs, Name, on_device};
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::models::Backbone;
use crate::train::settings::*;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Fine-tune a backbone on a folder of class folders
#[derive(clap::Args)]
#[command(after_help = "Examples:
  defrost train photos --backbone densenet121 --weights random --input-size 128 --out runs/1
  defrost train photos --backbone densenet121 --weights runs/1/best.safetensors --freeze all --out runs/2
  defrost train --config runs/1/config.toml --out runs/again

RUN then holds the best and the last model, history.csv, steps.csv, split.csv, config.toml, and of the best model\nmetrics.json, predictions_val.csv, confusion.svg and curves.svg.")]
pub struct Args {
    /// The folder of class folders
    #[arg(value_name = "DATA")]
    data: Option<PathBuf>,
    /// The folder to write; it must not exist yet, or be empty
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Read settings from a file with the flags' names; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The settings as flags: what is not given is left to the config file and the defaults.
#[derive(clap::Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Flags {
    /// vgg16, xception, inceptionv3 or densenet121
    #[arg(long, value_name = "B")]
    #[serde(skip_serializing_if = "Option::is_none")]
    backbone: Option<String>,
    /// imagenet, random, or a model file [default: imagenet]
    #[arg(long, value_name = "W")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
    /// none, all (the whole backbone), or everything up to and including a layer as `summary` prints them [default: none]
    #[arg(long, value_name = "all|none|LAYER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    freeze: Option<String>,
    /// A dense layer before the softmax, as 1024:sigmoid; may be given more than once
    #[arg(long, value_name = "UNITS:ACT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hidden: Vec<String>,
    /// Side of the square images, in pixels [default: the backbone's own]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    input_size: Option<usize>,
    /// Passes over the training images [default: 20]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<usize>,
    /// Stop after so many steps
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
    /// Images of a training step [default: 16]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
    /// Images validated at a time [default: 8]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    val_batch_size: Option<usize>,
    /// The update rule [default: sgd]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: 0.01]
    #[arg(long, value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    lr: Option<f64>,
    /// Momentum of SGD [default: 0]
    #[arg(long, value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    momentum: Option<f64>,
    /// Nesterov's form of momentum
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    nesterov: bool,
    /// Weight decay, decoupled from the gradient [default: 0]
    #[arg(long, value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    /// Share of each target spread evenly over the classes [default: 0]
    #[arg(long, value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    label_smoothing: Option<f64>,
    /// Statistics that batch norm trains with [default: batch]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_norm: Option<BatchNormName>,
    /// Momentum of batch norm's moving statistics [default: 0.99]
    #[arg(long, value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    bn_momentum: Option<f64>,
    /// Seed of new weights and of the order of images [default: 42]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
    /// Keep the split's own order in every epoch
    #[arg(long)]
    #[serde(skip)]
    no_shuffle: bool,
    /// How validation images are chosen [default: keras]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<SplitName>,
    /// Seed of the split [default: 42]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    split_seed: Option<u32>,
    /// Share of images that validate; 0 for none [default: 0.2]
    #[arg(long, value_name = "X")]
    #[serde(skip_serializing_if = "Option::is_none")]
    val_split: Option<f64>,
    /// How images are brought to size [default: keras]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    resize: Option<ResizeName>,
    /// What is done to pixels before the first layer [default: backbone]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    preprocess: Option<PreprocessName>,
    /// How pixels are kept in memory [default: f32]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pixels: Option<PixelsName>,
    /// Turn images by their EXIF orientation
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    exif: bool,
    /// The number type of the network [default: f32]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<PrecisionName>,
    /// Compute a frozen backbone's features anew in every epoch
    #[arg(long)]
    #[serde(skip)]
    no_feature_cache: bool,
}

fn is_false(x: &bool) -> bool {
    !x
}

/// Carries the command out.
pub fn run(args: Args) -> Result<()> {
    let settings = args.settings()?;
    settings.check()?;
    let named = |what: &str| Error::input(format!("{what:?} is none of auto, cpu, naive, cuda")).at("device");
    let device = <Name as clap::ValueEnum>::from_str(&settings.device, true).map_err(|_| named(&settings.device))?;
    let threads = u16::try_from(settings.threads).ok().filter(|&n| n > 0);
    let device = DeviceArgs { device, threads };
    let progress = Progress::new();
    let summary = on_device!(device.open()?, d => crate::train::train(d, &settings, &args.out, &progress))?;
    progress.finish(&summary, &args.out);
    Ok(())
}

impl Args {
    /// The defaults of the backbone, overlaid by the config file, overlaid by the flags.
    fn settings(&self) -> Result<Settings> {
        let mut given = match &self.config {
            Some(path) => read_config(path)?,
            None => toml::Table::new(),
        };
        given.extend(toml::Table::try_from(&self.flags).map_err(|e| Error::internal(e.to_string()))?);
        let text = |key: &str| given.get(key).and_then(toml::Value::as_str).map(String::from);
        let data = self.data.clone().or(text("data").map(PathBuf::from));
        let data =
            data.ok_or_else(|| Error::input("DATA is missing").advise("name the folder of class folders: defrost train DATA ..."))?;
        let backbone: Backbone = text("backbone")
            .ok_or_else(|| Error::input("--backbone is missing").advise("one of vgg16, xception, inceptionv3, densenet121"))?
            .parse()?;
        let mut all = toml::Table::try_from(Settings::new(&data, backbone)).map_err(|e| Error::internal(e.to_string()))?;
        all.extend(given);
        all.insert("data".into(), data.display().to_string().into());
        all.insert("backbone".into(), backbone.name().into());
        let switches = [("shuffle", self.flags.no_shuffle), ("feature-cache", self.flags.no_feature_cache)];
        for (key, _) in switches.iter().filter(|(_, off)| *off) {
            all.insert((*key).into(), false.into());
        }
        if self.device.device != Name::Auto {
            all.insert("device".into(), self.device.device.to_string().into());
        }
        if let Some(threads) = self.device.threads {
            all.insert("threads".into(), i64::from(threads).into());
        }
        let source = self.config.as_ref().map_or("settings".to_string(), |path| path.display().to_string());
        all.try_into().map_err(|e: toml::de::Error| {
            let key = e.to_string().lines().find_map(|l| l.strip_prefix("in `").map(|k| k.trim_end_matches('`').to_string()));
            let error = Error::input(e.message().to_string());
            key.map_or(error.clone(), |key| error.at(key)).at(source)
        })
    }
}

/// Reads a config file and refuses keys that no setting has.
fn read_config(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Error::input(e.to_string()).at(path.display()))?;
    let known = toml::Table::try_from(Settings::new("", Backbone::Vgg16)).map_err(|e| Error::internal(e.to_string()))?;
    match table.keys().find(|key| !known.contains_key(*key)) {
        None => Ok(table),
        Some(key) => {
            let line = text.lines().position(|l| l.trim_start().starts_with(key.as_str())).map_or(1, |i| i + 1);
            let error = Error::input(format!("line {line}: there is no setting {key:?}")).at(path.display());
            Err(match crate::models::did_you_mean(key, known.keys().map(String::as_str)) {
                Some(near) => error.advise(near),
                None => error,
            })
        }
    }
}
