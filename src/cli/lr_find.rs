//! `defrost lr-find`: a sweep over learning rates, its table and its picture.

use super::config;
use super::device::{DeviceArgs, on_device};
use super::flags::Flags;
use super::output::print;
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::report;
use crate::train::sweep::Sweep;
use crate::weights::replace_file;
use std::path::PathBuf;

/// Find a learning rate: one step at each of a hundred rates, from tiny to huge
///
/// Trains as `train` would with the same flags, while the rate grows by a constant factor from step to step, until the smoothed
/// loss exceeds four times its lowest value. Nothing of that is kept: no run is begun, no model written.
#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
// A sweep is no run: there is nothing to save, to log or to end early.
#[command(mut_arg("save_every", |arg| arg.hide(true)), mut_arg("tensorboard", |arg| arg.hide(true)))]
#[command(mut_arg("early_stop", |arg| arg.hide(true)), mut_arg("time_limit", |arg| arg.hide(true)))]
#[command(after_help = "Examples:
  defrost lr-find photos --backbone densenet121 --input-size 128
  defrost lr-find --config runs/1/config.toml --from 1e-5 --to 1 --steps 60

DIR then holds lr-find.csv (rate, loss, smoothed loss) and lr-find.svg. The
suggested rate lies in the middle of the longest valley of the smoothed loss, as
fastai suggests it; the steepest fall is marked as well.")]
pub struct Args {
    /// The folder of class folders
    #[arg(value_name = "DATA")]
    data: Option<PathBuf>,
    /// The folder for the table and the picture; an earlier sweep's are replaced
    #[arg(long, value_name = "DIR", default_value = "lr-find")]
    out: PathBuf,
    /// The first rate
    #[arg(long, value_name = "X", default_value_t = 1e-7)]
    from: f64,
    /// The last rate
    #[arg(long, value_name = "X", default_value_t = 10.0)]
    to: f64,
    /// Read settings from a file with the flags' names; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Rates of a sweep, if `--steps` does not say.
const TRIALS: usize = 100;

/// Carries the command out.
pub fn run(args: Args) -> Result<()> {
    let Args { from, to, out, .. } = args;
    let settings = config::settings(args.data.as_deref(), args.config.as_deref(), &args.flags, &args.device)?;
    if !(from > 0.0 && to > from && to.is_finite()) {
        return Err(Error::input(format!("{from} to {to}: expected two positive rates, the larger one last")).at("--to").at("--from"));
    }
    if out.join("config.toml").exists() {
        return Err(Error::input("holds a run").at(out.display()).at("--out").advise("name another folder for the sweep"));
    }
    std::fs::create_dir_all(&out).map_err(|e| Error::io(&out, &e).at("--out"))?;
    let progress = Progress::new();
    let steps = if settings.steps > 0 { settings.steps } else { TRIALS };
    let sweep = Sweep::new(from, to, steps);
    let sweep = on_device!(DeviceArgs::of(&settings)?.open()?, d => crate::train::find_rate(d, &settings, sweep, &progress))?;
    let rows = sweep.trials.iter().map(|t| format!("{},{},{}\n", t.lr, t.loss, t.smoothed)).collect::<String>();
    let write = |name: &str, text: String| replace_file(&out.join(name), |file| file.write_all(text.as_bytes()));
    write("lr-find.csv", format!("lr,loss,smoothed\n{rows}"))?;
    let suggestion = sweep.suggestion();
    let marks = suggestion.map_or(vec![], |s| vec![(s.valley, "suggested:"), (s.steepest, "steepest fall:")]);
    let title = format!("{}, {}, batch {}", settings.backbone()?.title(), settings.freeze_in(1).words(), settings.images_per_step());
    write("lr-find.svg", report::rates(&title, &sweep.trials, &marks))?;
    progress.close();
    match suggestion {
        Some(s) => {
            let (valley, steepest) = (report::short(s.valley), report::short(s.steepest));
            print(&format!("suggested: --lr {valley} (in the middle of the longest valley); the loss falls fastest at {steepest}\n"))?;
        }
        None => print("no suggestion: the loss never falls over these rates; more --steps, or another --from and --to, may show more\n")?,
    }
    print(&format!("{} steps; written: {}\n", sweep.trials.len(), out.join("lr-find.svg").display()))
}
