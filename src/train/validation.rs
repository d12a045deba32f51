//! What a pass over the validation images found, and the files that tell of it.

use super::folder::{Folder, Row};
use crate::data::dataset::Dataset;
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Predictions};
use crate::report;

/// What the model of an epoch says of the validation images.
pub struct Validation {
    predictions: Predictions,
}

impl Validation {
    /// Takes the logits `[n, classes]` of the images at `indices`; `groups` are those of all images.
    pub fn new(data: &Dataset, groups: Option<&[String]>, indices: &[usize], logits: &[f64]) -> Self {
        let mut predictions = Predictions {
            classes: data.classes.clone(),
            paths: indices.iter().map(|&i| data.paths[i].clone()).collect(),
            labels: indices.iter().map(|&i| data.labels[i]).collect(),
            groups: groups.map(|groups| indices.iter().map(|&i| groups[i].clone()).collect()),
            ..Predictions::default()
        };
        predictions.push(logits);
        Validation { predictions }
    }

    /// Whether the network gave numbers for all images.
    pub fn is_finite(&self) -> bool {
        self.predictions.losses.iter().all(|loss| loss.is_finite())
    }

    /// Mean loss and accuracy.
    pub fn scores(&self) -> (f64, f64) {
        let (p, n) = (&self.predictions, self.predictions.len());
        let correct = (0..n).filter(|&i| p.predicted(i) == p.labels[i]).count();
        (p.losses.iter().sum::<f64>() / n as f64, correct as f64 / n as f64)
    }

    /// Writes `metrics.json`, `predictions_val.csv`, `confusion.svg` and `reliability.svg`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, folder: &Folder) -> Result<()> {
        let metrics = Metrics::new(&self.predictions)?;
        let json = serde_json::to_string_pretty(&metrics).map_err(|e| Error::internal(e.to_string()))?;
        folder.write("metrics.json", &(json + "\n"))?;
        folder.write("confusion.svg", &report::confusion("Validation, best epoch", &self.predictions.classes, &metrics.confusion))?;
        folder.write("reliability.svg", &report::reliability("Validation, best epoch", &metrics.calibration))?;
        folder.write("predictions_val.csv", &self.predictions.to_csv())
    }
}

/// Writes `curves.svg` from the epochs so far.
///
/// # Errors
/// What the disk says.
pub fn write_curves(folder: &Folder, title: &str, history: &[Row], best: usize) -> Result<()> {
    let history: Vec<report::Epoch> = history.iter().map(Row::drawn).collect();
    folder.write("curves.svg", &report::curves(title, &history, Some(best)))
}
