//! `defrost resume`: the settings of a run folder, then one call.

use super::device::{DeviceArgs, on_device};
use super::progress::Progress;
use crate::error::Result;
use crate::train::{Resumed, Settings};
use std::path::PathBuf;

/// Go on with a run that was interrupted, killed, or ran out of disk
///
/// It ends with the same bits as if it had never been stopped: device, threads and everything else are those of the run's
/// config.toml, and the images must be the same. Only `epochs` (and `steps`, `data`, `weights`, `save-every`, `tensorboard`) may be changed
/// there in between: a run that has ended goes on if it is given more epochs.
#[derive(clap::Args)]
pub struct Args {
    /// The run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

/// Carries the command out.
pub fn run(args: Args) -> Result<()> {
    let settings = Settings::of_run(&args.run)?;
    let device = DeviceArgs::of(&settings)?;
    let progress = Progress::new();
    match on_device!(device.open()?, d => crate::train::resume(d, &settings, &args.run, &progress))? {
        Resumed::Done(summary) => progress.finish(&summary, &args.run),
        Resumed::Before(best) => progress.ended(&best, &args.run),
    }
    Ok(())
}
