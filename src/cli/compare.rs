//! `defrost compare`: each backbone frozen and unfrozen, on one split.

use super::config;
use super::device::{DeviceArgs, on_device};
use super::flags::Flags;
use super::output;
use super::progress::Progress;
use crate::data::csv;
use crate::error::{Error, Result};
use crate::experiment::compare::{Begun, Outcome, Plan, Stage, compare};
use crate::models::Backbone;
use crate::report::{Align, Table, duration};
use std::path::{Path, PathBuf};

/// Train each backbone frozen and unfrozen on one split, side by side
#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
// What tells its rows apart.
#[command(mut_arg("backbone", |arg| arg.hide(true)), mut_arg("freeze", |arg| arg.hide(true)))]
#[command(after_help = "Examples:
  defrost compare photos --backbones all --epochs 8 --out runs/compare
  defrost compare photos --backbones vgg16,densenet121 --input-size 128 --out r

--out is a folder with one run per row, results.csv, compare.svg and
compare.html. The same command goes on where it was stopped.")]
pub struct Args {
    /// The folder of class folders
    #[arg(value_name = "DATA")]
    data: Option<PathBuf>,
    /// all, or some of vgg16, xception, inceptionv3, densenet121 with commas between
    #[arg(long, value_name = "all|B,B", default_value = "all")]
    backbones: String,
    /// The folder to write, or to go on with
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Read settings from a file with the flags' names; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Carries the command out.
pub fn run(mut args: Args) -> Result<()> {
    let plans = args.plans()?;
    let progress = Progress::new();
    let train = |plan: &Plan, folder: &Path, begun: Begun| {
        let device = DeviceArgs::of(&plan.settings)?;
        match begun {
            Begun::No => on_device!(device.open()?, d => crate::train::train(d, &plan.settings, folder, &progress)).map(drop),
            Begun::Yes => on_device!(device.open()?, d => crate::train::resume(d, &plan.settings, folder, &progress)).map(drop),
        }
    };
    let tell = |stage: Stage| match stage {
        Stage::Begin(i, n, plan) => progress.line(&format!("\n{}/{n}  {}", i + 1, title(plan))),
        Stage::Done(outcome) => progress.line(&done(outcome)),
        Stage::Failed(plan, error) => progress.line(&format!("{} failed: {error}", title(plan))),
    };
    let (outcomes, failed) = compare(&plans, &args.out, &train, &tell)?;
    progress.close();
    if !outcomes.is_empty() {
        let results = args.out.join("results.csv");
        let text = std::fs::read_to_string(&results).map_err(|e| Error::io(&results, &e))?;
        output::print(&format!("{}\n", table(&text)))?;
        output::tell(&format!("written: {}, compare.svg, compare.html", results.display()));
    }
    match failed {
        0 => Ok(()),
        n => Err(Error::partial(format!("{n} of {} runs failed", plans.len())).advise("the same command tries them again")),
    }
}

impl Args {
    fn plans(&mut self) -> Result<Vec<Plan>> {
        let all = Backbone::ALL;
        let backbones: Vec<Backbone> = match self.backbones.as_str() {
            "all" => all.to_vec(),
            names => names.split(',').map(|name| name.trim().parse()).collect::<Result<_>>()?,
        };
        if self.flags.network.backbone.is_some() || self.flags.network.freeze.is_some() {
            return Err(Error::input("compare trains each of --backbones frozen and unfrozen; leave --backbone and --freeze out"));
        }
        let mut plans = Vec::new();
        for backbone in backbones {
            self.flags.network.backbone = Some(backbone.name().into());
            let settings = config::settings(self.data.as_deref(), self.config.as_deref(), &self.flags, &self.device)?;
            settings.check()?;
            plans.extend(Plan::pair(&settings));
        }
        Ok(plans)
    }
}

fn title(plan: &Plan) -> String {
    let backbone = plan.settings.backbone().map_or(plan.settings.backbone.as_str(), |b| b.title());
    format!("{backbone}, {}", plan.freeze)
}

fn done(outcome: &Outcome) -> String {
    let best = outcome.best();
    let score = best.val_accuracy.map_or(String::new(), |a| format!("validation accuracy {a:.4} at epoch {}, ", best.epoch));
    format!("{}: {score}{}", title(&outcome.plan), duration(outcome.seconds()))
}

/// `results.csv` as a table to read.
pub fn table(text: &str) -> String {
    let mut records = csv::records(text).into_iter().map(|(_, fields)| fields);
    let _header = records.next();
    let mut table = Table::new(&[
        ("backbone", Align::Left),
        ("", Align::Left),
        ("best val accuracy", Align::Right),
        ("val loss", Align::Right),
        ("epoch", Align::Right),
        ("time", Align::Right),
        ("images/s", Align::Right),
    ]);
    for row in records {
        let number = |i: usize| row[i].parse::<f64>().map_or(String::new(), |x| format!("{x:.4}"));
        let time = row[5].parse().map_or(String::new(), duration);
        table.row(vec![row[0].clone(), row[1].clone(), number(2), number(3), row[4].clone(), time, row[6].clone()]);
    }
    table.to_string()
}
