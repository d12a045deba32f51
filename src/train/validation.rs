//! What a pass over the validation images found, and the files that tell of it.

use super::folder::{Folder, Row};
use super::metrics::{Metrics, argmax, cross_entropy};
use crate::data::csv;
use crate::data::dataset::Dataset;
use crate::error::{Error, Result};
use crate::report;

/// Logits of the validation images, in the order of the split.
pub struct Validation {
    pub indices: Vec<usize>,
    /// `[n, k]`, row by row.
    pub logits: Vec<f64>,
}

impl Validation {
    fn rows<'a>(&'a self, data: &'a Dataset) -> impl Iterator<Item = (usize, &'a [f64])> + 'a {
        self.indices.iter().copied().zip(self.logits.chunks(data.classes.len()))
    }

    /// Mean loss and accuracy.
    pub fn scores(&self, data: &Dataset) -> (f64, f64) {
        let n = self.indices.len() as f64;
        let loss: f64 = self.rows(data).map(|(i, row)| cross_entropy(row, data.labels[i])).sum();
        let correct = self.rows(data).filter(|&(i, row)| argmax(row) == data.labels[i]).count();
        (loss / n, correct as f64 / n)
    }

    /// Writes `metrics.json`, `predictions_val.csv` and `confusion.svg`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, folder: &Folder, data: &Dataset) -> Result<()> {
        let probabilities: Vec<f64> = self.rows(data).flat_map(|(_, row)| softmax(row)).collect();
        let labels: Vec<usize> = self.indices.iter().map(|&i| data.labels[i]).collect();
        let losses: Vec<f64> = self.rows(data).map(|(i, row)| cross_entropy(row, data.labels[i])).collect();
        let metrics = Metrics::new(&data.classes, &labels, &probabilities, &losses)?;
        let json = serde_json::to_string_pretty(&metrics).map_err(|e| Error::internal(e.to_string()))?;
        folder.write("metrics.json", &(json + "\n"))?;
        folder.write("confusion.svg", &report::confusion("Validation, best epoch", &data.classes, &metrics.confusion))?;

        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by_key(|&k| &data.paths[self.indices[k]]);
        let header = ["path", "label", "predicted"].into_iter().chain(data.classes.iter().map(String::as_str));
        let line = |k: usize| {
            let row = &probabilities[k * data.classes.len()..][..data.classes.len()];
            let names = [&data.paths[self.indices[k]], &data.classes[labels[k]], &data.classes[argmax(row)]].map(Clone::clone);
            csv::line(names.into_iter().chain(row.iter().map(ToString::to_string)))
        };
        folder.write("predictions_val.csv", &(csv::line(header) + &order.into_iter().map(line).collect::<String>()))
    }
}

/// Writes `curves.svg` from the epochs so far.
///
/// # Errors
/// What the disk says.
pub fn write_curves(folder: &Folder, title: &str, history: &[Row], best: usize) -> Result<()> {
    let epoch =
        |r: &Row| report::Epoch { epoch: r.epoch, loss: r.loss, accuracy: r.accuracy, val_loss: r.val_loss, val_accuracy: r.val_accuracy };
    let history: Vec<report::Epoch> = history.iter().map(epoch).collect();
    folder.write("curves.svg", &report::curves(title, &history, Some(best)))
}

/// exp(x - max) / sum exp(x - max).
fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let exp: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|x| x / sum).collect()
}
