//! `defrost report`: a run's report, made again.

use super::device::{DeviceArgs, on_device};
use super::output::tell;
use crate::error::{Error, Result};
use crate::train::Settings;
use crate::train::report::write_report;
use std::path::PathBuf;

/// Write a run's report.html again
///
/// The report is made from the files of the run and from the images that they name, with heat maps of its best model; `train`
/// writes it at its end.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  defrost report runs/polyps --data /mnt/archive/polyps")]
pub struct Args {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Where the images are now [default: where they were in training]
    #[arg(long, value_name = "DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Writes the report; pictures that are missing make the exit code 1.
pub fn run(args: Args) -> Result<()> {
    let data = args.data.map_or_else(|| Settings::of_run(&args.run).map(|s| s.data), Ok)?;
    let lost = on_device!(args.device.open()?, d => write_report(d, &args.run, &data))?;
    tell(&format!("written: {}", args.run.join("report.html").display()));
    match lost {
        0 => Ok(()),
        1 => Err(Error::partial("1 image of the report cannot be read").at(data.display()).advise("name the folder with --data")),
        _ => Err(Error::partial(format!("{lost} images of the report cannot be read"))
            .at(data.display())
            .advise("name the folder with --data")),
    }
}
