//! `report.html` of a run, from the files of its folder and the images that they name.

use super::folder::Row;
use super::gallery::{MISTAKES, explanations, shots};
use super::opened::{images_of, spec_of};
use super::record::Record;
use super::settings::Settings;
use crate::data::dataset::sha256_hex;
use crate::data::{csv, split_file};
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Predictions};
use crate::models::{Backbone, Freeze};
use crate::ops::Backend;
use crate::report::{Report, grouped};
use crate::weights::{ModelFile, replace_file};
use std::collections::HashSet;
use std::path::Path;

/// Writes `report.html` of the run at `folder`, whose images are in `data`; the device computes heat maps. Returns how many of
/// the pictures could not be read.
///
/// # Errors
/// A folder that is no run, a file of it that is damaged, short memory, what the disk says.
pub fn write_report<D: Backend>(device: D, folder: &Path, data: &Path) -> Result<usize> {
    let report = gather(device, folder, data)?;
    let shots = report.mistakes.iter().chain(report.explanations.iter().map(|e| &e.shot));
    let lost: HashSet<&String> = shots.filter(|shot| shot.picture.data.is_none()).map(|shot| &shot.scored.path).collect();
    replace_file(&folder.join("report.html"), |file| file.write_all(report.to_html().as_bytes()))?;
    Ok(lost.len())
}

fn gather<D: Backend>(device: D, folder: &Path, data: &Path) -> Result<Report> {
    let settings = Settings::of_run(folder)?;
    let (backbone, record) = (settings.backbone()?, Record::read(folder)?.unwrap_or_default());
    // A run that was stopped within its first epoch has only a last model.
    let best = folder.join("best.safetensors");
    let model = ModelFile::open(if best.exists() { best } else { folder.join("last.safetensors") })?;
    let best = model.metadata().training["epoch"].as_u64().map(|epoch| epoch as usize);
    let history = read_history(&folder.join("history.csv"))?;
    let (metrics, predictions) = measured(folder)?;
    let mistakes = predictions.as_ref().map(|p| p.mistakes(usize::MAX)).unwrap_or_default();
    let (explanations, explained_at) = match &predictions {
        Some(predictions) => explanations(device, &model, &spec_of(&model)?, images_of(&model)?, predictions, data)?,
        None => Default::default(),
    };
    let counts = counts(&model.metadata().classes, &split_file::read(&folder.join("split.csv"))?);
    Ok(Report {
        title: title(backbone, &settings),
        summary: summary(backbone, &settings, &history, best, &counts, metrics.as_ref()),
        warnings: record.warnings.clone(),
        best,
        measured: "validation images".into(),
        mistaken: mistakes.len(),
        mistakes: shots(&mistakes[..mistakes.len().min(MISTAKES)], data, settings.exif)?,
        data: counts,
        settings: settings.to_toml().lines().filter_map(pair).collect(),
        facts: facts(backbone, &settings, &record, &model),
        history: history.iter().map(Row::drawn).collect(),
        metrics,
        explanations,
        explained_at,
    })
}

/// `metrics.json` and `predictions_val.csv`, which a run without validation images lacks.
fn measured(folder: &Path) -> Result<(Option<Metrics>, Option<Predictions>)> {
    let path = folder.join("metrics.json");
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((None, None)),
        text => text.map_err(|e| Error::io(&path, &e))?,
    };
    let metrics = serde_json::from_str(&text).map_err(|e| Error::input(e.to_string()).at(path.display()))?;
    Ok((Some(metrics), Some(Predictions::read_csv(&folder.join("predictions_val.csv"))?)))
}

/// `history.csv`, which is not there before the first epoch is done.
fn read_history(path: &Path) -> Result<Vec<Row>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|e| Error::io(path, &e))?,
    };
    let row = |(line, fields): (usize, Vec<String>)| {
        let wrong = || Error::input(format!("line {line} is not that of an epoch")).at(path.display());
        let number = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok());
        let [Some(epoch), Some(loss), Some(accuracy), val_loss, val_accuracy, Some(lr), Some(seconds)] = [0, 1, 2, 3, 4, 5, 6].map(number)
        else {
            return Err(wrong());
        };
        Ok(Row { epoch: epoch as usize, loss, accuracy, val_loss, val_accuracy, lr, seconds })
    };
    csv::records(&text).into_iter().skip(1).map(row).collect()
}

/// Images of each class to train and to validate.
fn counts(classes: &[String], split: &[split_file::Row]) -> Vec<(String, [usize; 2])> {
    let count = |class: &str, side: &str| split.iter().filter(|row| row.class == class && row.subset == side).count();
    classes.iter().map(|class| (class.clone(), ["train", "val"].map(|side| count(class, side)))).collect()
}

fn title(backbone: Backbone, settings: &Settings) -> String {
    let folder = settings.data.file_name().map_or_else(|| settings.data.display().to_string(), |name| name.to_string_lossy().into());
    format!("{} on {folder}", backbone.title())
}

fn summary(
    backbone: Backbone,
    settings: &Settings,
    history: &[Row],
    best: Option<usize>,
    counts: &[(String, [usize; 2])],
    metrics: Option<&Metrics>,
) -> String {
    let epochs = match history.len() {
        0 => "less than an epoch".into(),
        1 => "1 epoch".into(),
        n => format!("{n} epochs"),
    };
    let images = grouped(counts.iter().map(|(_, n)| n[0] as u64).sum::<u64>());
    let start = format!(
        "{} at {} pixels, {}, trained for {epochs} on {images} images of {} classes.",
        backbone.title(),
        settings.input_size,
        Freeze::from(&settings.freeze[..]).words(),
        counts.len()
    );
    let kept = best.map_or(String::new(), |epoch| match metrics {
        Some(m) => format!(
            " The model of epoch {epoch} is kept, the best on {} validation images; all measures here are of it and of them.",
            grouped(m.images as u64)
        ),
        None => format!(" The model of epoch {epoch}, the last one, is kept; there were no images to validate it."),
    });
    start + &kept
}

/// A line of `config.toml`, unless its value is empty.
fn pair(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once(" = ")?;
    let value = value.trim_matches('"');
    (!matches!(value, "" | "[]")).then(|| (key.into(), value.into()))
}

fn facts(backbone: Backbone, settings: &Settings, record: &Record, model: &ModelFile) -> Vec<(String, String)> {
    let m = model.metadata();
    // What an older program did not record is left out.
    let counted = |n: usize| if n > 0 { grouped(n as u64) } else { String::new() };
    let hash = std::fs::read(model.tensors().path()).map_or_else(|e| e.to_string(), |bytes| sha256_hex(&bytes));
    let facts = [
        ("backbone", backbone.title().to_string()),
        ("weights at the start", format!("{}: {}", settings.weights, record.weights).trim_end_matches(": ").to_string()),
        ("frozen", Freeze::from(&settings.freeze[..]).words()),
        ("parameters", counted(record.parameters)),
        ("trained", counted(record.trainable)),
        ("input", format!("{0} x {0} pixels, resize {1}, preprocess {2}", m.input_size, m.resize, m.preprocess)),
        ("seeds", format!("{} (weights, order), {} (split)", settings.seed, settings.split_seed)),
        ("device", record.device.clone()),
        ("Defrost", record.defrost.clone()),
        ("best.safetensors, SHA-256", hash),
    ];
    let notes = record.notes.iter().map(|note| ("note", note.clone()));
    facts.into_iter().chain(notes).filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_string(), value)).collect()
}
