//! `defrost train`.

use super::config;
use super::device::{DeviceArgs, on_device};
use super::flags::Flags;
use super::progress::Progress;
use crate::error::Result;
use crate::train::Settings;
use std::path::PathBuf;

/// Fine-tune a backbone on a folder of class folders
#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_help = "Examples:
  defrost train photos --backbone densenet121 --out runs/1
  defrost train photos --backbone densenet121 --freeze all --out runs/2
  defrost train photos --backbone vgg16 --weights random --input-size 64 --out r
  defrost train --config runs/1/config.toml --out runs/again

RUN then holds report.html, the best and the last model, history.csv,
steps.csv, split.csv, check.json, config.toml, curves.svg, and of the best model
metrics.json, predictions_val.csv, confusion.svg and reliability.svg.")]
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

/// The settings that the arguments amount to, checked.
///
/// # Errors
/// See [`config::settings`]; also settings that contradict each other.
pub fn settings(args: &Args) -> Result<Settings> {
    let settings = config::settings(args.data.as_deref(), args.config.as_deref(), &args.flags, &args.device)?;
    settings.check().map(|()| settings)
}

/// Carries the command out.
pub fn run(args: Args) -> Result<()> {
    let settings = settings(&args)?;
    let device = DeviceArgs::of(&settings)?;
    let progress = Progress::new();
    let summary = on_device!(device.open()?, d => crate::train::train(d, &settings, &args.out, &progress))?;
    progress.finish(&summary, &args.out);
    Ok(())
}
