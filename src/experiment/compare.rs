//! The article's experiment: every backbone frozen and unfrozen, on one split, side by side.
//!
//! Each row is a run folder of its own. A comparison that was stopped goes on where it was: finished rows stand, the one under way
//! is resumed, the rest follows. A row that fails is named and does not stop the others.

use crate::data::{csv, split_file};
use crate::error::{Error, Kind, Result};
use crate::report::{self, Trained};
use crate::train::Settings;
use crate::train::folder::Row;
use crate::weights::replace_file;
use std::path::{Path, PathBuf};

/// One run of a comparison.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `frozen` or `unfrozen`.
    pub freeze: &'static str,
    pub settings: Settings,
}

impl Plan {
    /// The frozen and the unfrozen run that differ in nothing else.
    pub fn pair(settings: &Settings) -> [Plan; 2] {
        [("frozen", "all"), ("unfrozen", "none")]
            .map(|(freeze, layers)| Plan { freeze, settings: Settings { freeze: layers.into(), ..settings.clone() } })
    }

    /// The run's folder below that of the comparison: `vgg16-frozen`.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.settings.backbone, self.freeze)
    }
}

/// A run that is done.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub plan: Plan,
    pub folder: PathBuf,
    pub history: Vec<Row>,
    /// Images that validated.
    pub validated: usize,
    /// Images of one epoch.
    pub trained: usize,
}

impl Outcome {
    fn read(plan: &Plan, out: &Path) -> Result<Self> {
        let folder = out.join(plan.folder());
        let history = history(&folder.join("history.csv"))?;
        let split = split_file::read(&folder.join("split.csv"))?;
        let validated = split.iter().filter(|row| row.subset == "val").count();
        Ok(Outcome { plan: plan.clone(), history, validated, trained: split.len() - validated, folder })
    }

    /// The epoch whose model is kept: the first with the highest validation accuracy, the last without validation.
    pub fn best(&self) -> &Row {
        let better = |best: &Row, row: &Row| row.val_accuracy > best.val_accuracy || row.val_accuracy.is_none();
        self.history.iter().reduce(|best, row| if better(best, row) { row } else { best }).expect("history() gives at least one")
    }

    /// Of all epochs, with validation and the first pass of a frozen backbone.
    pub fn seconds(&self) -> f64 {
        self.history.iter().map(|row| row.seconds).sum()
    }

    /// Images trained on per second of the whole run.
    pub fn images_per_second(&self) -> f64 {
        (self.trained * self.history.len()) as f64 / self.seconds()
    }

    fn csv(&self) -> String {
        let (best, number) = (self.best(), |x: Option<f64>| x.map_or(String::new(), |x| x.to_string()));
        let (backbone, accuracy, loss) = (csv::quoted(&self.plan.settings.backbone), number(best.val_accuracy), number(best.val_loss));
        let (freeze, epoch, seconds, rate) = (self.plan.freeze, best.epoch, self.seconds(), self.images_per_second());
        format!("{backbone},{freeze},{accuracy},{loss},{epoch},{seconds:.1},{rate:.2}\n")
    }

    fn figure(&self) -> Result<Trained> {
        let best = self.best();
        Ok(Trained {
            backbone: self.plan.settings.backbone()?.title().into(),
            freeze: self.plan.freeze.into(),
            accuracy: best.val_accuracy.unwrap_or(0.0),
            epoch: best.epoch,
            seconds: self.seconds(),
            history: self.history.iter().filter_map(|row| Some((row.epoch, row.val_accuracy?))).collect(),
            validated: self.validated,
        })
    }
}

/// The rows of a `history.csv`.
fn history(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let row = |(line, fields): (usize, Vec<String>)| {
        let wrong = || Error::input(format!("line {line} is no epoch of a history.csv")).at(path.display());
        let number = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok());
        let (epoch, of) = (number(0).ok_or_else(wrong)? as usize, |i| number(i).ok_or_else(wrong));
        Ok(Row { epoch, loss: of(1)?, accuracy: of(2)?, val_loss: number(3), val_accuracy: number(4), lr: of(5)?, seconds: of(6)? })
    };
    let rows = csv::records(&text).into_iter().skip(1).map(row).collect::<Result<Vec<_>>>()?;
    if rows.is_empty() { Err(Error::input("has no epochs").at(path.display())) } else { Ok(rows) }
}

/// What a comparison is doing.
pub enum Stage<'a> {
    /// Row `0` of `1` begins.
    Begin(usize, usize, &'a Plan),
    Done(&'a Outcome),
    Failed(&'a Plan, &'a Error),
}

/// Runs every plan that is not done yet: `run` trains it anew in a folder, or resumes what is there. Returns the finished rows and how
/// many failed; `results.csv`, `compare.svg` and `compare.html` are written after every row.
///
/// # Errors
/// A folder that holds something else or runs with other settings; an interruption; what the disk says.
pub fn compare(
    plans: &[Plan],
    out: &Path,
    run: &dyn Fn(&Plan, &Path, Begun) -> Result<()>,
    tell: &dyn Fn(Stage),
) -> Result<(Vec<Outcome>, usize)> {
    refuse_strangers(plans, out)?;
    let begun = plans.iter().map(|plan| begun(plan, out)).collect::<Result<Vec<_>>>()?;
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, &e))?;
    let (mut outcomes, mut failed) = (Vec::new(), 0);
    for (i, (plan, begun)) in plans.iter().zip(begun).enumerate() {
        tell(Stage::Begin(i, plans.len(), plan));
        match run(plan, &out.join(plan.folder()), begun).and_then(|()| Outcome::read(plan, out)) {
            Ok(outcome) => {
                tell(Stage::Done(&outcome));
                outcomes.push(outcome);
                write(&outcomes, plans, out)?;
            }
            Err(error) if error.kind() == Kind::Interrupted => {
                let error = Error::interrupted(error.what()).at(plan.folder());
                return Err(error.advise("the same command goes on where it was stopped"));
            }
            Err(error) => {
                failed += 1;
                tell(Stage::Failed(plan, &error));
            }
        }
    }
    Ok((outcomes, failed))
}

/// Whether a run is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    No,
    Yes,
}

/// Whether the plan's run is there, and with the plan's settings.
fn begun(plan: &Plan, out: &Path) -> Result<Begun> {
    let folder = out.join(plan.folder());
    let config = folder.join("config.toml");
    if !config.exists() {
        clear_remains(&folder)?;
        return Ok(Begun::No);
    }
    let text = std::fs::read_to_string(&config).map_err(|e| Error::io(&config, &e))?;
    let of = |text: &str| text.parse::<toml::Table>().map_err(|e| Error::input(e.to_string()).at(config.display()));
    let (there, wanted) = (of(&text)?, of(&plan.settings.to_toml())?);
    match wanted.iter().find(|(key, value)| there.get(*key) != Some(*value)) {
        None => Ok(Begun::Yes),
        Some((key, value)) => {
            let found = there.get(key).map_or("nothing".into(), ToString::to_string);
            let what = format!("this run has {key} = {found}, and {value} is asked for now");
            Err(Error::input(what).at(folder.display()).advise("compare with the settings it was begun with, or name another --out"))
        }
    }
}

/// Removes a folder that was begun and killed before its `config.toml` was there, and nothing else.
fn clear_remains(folder: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let remains = |name: &str| name == "split.csv" || name.starts_with('.');
    match entries.flatten().all(|e| remains(&e.file_name().to_string_lossy())) {
        true => std::fs::remove_dir_all(folder).map_err(|e| Error::io(folder, &e)),
        false => Ok(()),
    }
}

/// Refuses a folder that holds anything but a comparison.
fn refuse_strangers(plans: &[Plan], out: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(out) else { return Ok(()) };
    let ours = |name: &str| plans.iter().any(|p| p.folder() == name) || name.starts_with("compare.") || name == "results.csv";
    let is_run = |path: &Path| path.join("config.toml").exists();
    let stranger = entries.flatten().find(|e| !ours(&e.file_name().to_string_lossy()) && !is_run(&e.path()));
    stranger.map_or(Ok(()), |entry| {
        Err(Error::input("holds something that is no comparison").at(entry.path().display()).at("--out").advise("name a new folder"))
    })
}

fn write(outcomes: &[Outcome], plans: &[Plan], out: &Path) -> Result<()> {
    let save = |name: &str, text: &str| replace_file(&out.join(name), |file| file.write_all(text.as_bytes()));
    let rows: String = outcomes.iter().map(Outcome::csv).collect();
    save("results.csv", &format!("backbone,freeze,best_val_accuracy,val_loss,epoch,seconds,images_per_s\n{rows}"))?;
    let figure = outcomes.iter().map(Outcome::figure).collect::<Result<Vec<_>>>()?;
    let data = plans[0].settings.data.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let title = format!("Frozen and unfrozen on {data}");
    let svg = report::compare(&title, &figure);
    save("compare.svg", &svg)?;
    save("compare.html", &super::page::page(&title, &svg, outcomes))
}
