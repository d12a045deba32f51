//! What `defrost evaluate --out` leaves: numbers, figures and a report of a test set.

use crate::data::dataset::{Options, sha256_hex};
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Predictions};
use crate::models::Spec;
use crate::ops::Backend;
use crate::report::{self, Report, grouped};
use crate::train::gallery::{MISTAKES, explanations, shots};
use crate::weights::{ModelFile, replace_file};
use std::path::Path;

/// What was evaluated and what was found.
pub struct Results<'a> {
    pub model: &'a Path,
    pub data: &'a Path,
    pub file: &'a ModelFile,
    /// How the model was fed, which may be otherwise than its file says.
    pub spec: &'a Spec,
    pub images: Options,
    pub found: &'a Predictions,
    pub metrics: &'a Metrics,
    pub warnings: Vec<String>,
}

impl Results<'_> {
    /// Writes `metrics.json`, `predictions.csv`, `confusion.svg`, `reliability.svg` and `report.html`; the device computes heat
    /// maps.
    ///
    /// # Errors
    /// Short memory, what the disk says.
    pub fn write<D: Backend>(&self, device: D, folder: &Path) -> Result<()> {
        let write = |name: &str, text: String| replace_file(&folder.join(name), |file| file.write_all(text.as_bytes()));
        let (found, metrics, title) = (self.found, self.metrics, self.images());
        let json = serde_json::to_string_pretty(metrics).map_err(|e| Error::internal(format!("a record is not JSON: {e}")))?;
        write("metrics.json", json + "\n")?;
        write("predictions.csv", found.to_csv())?;
        write("confusion.svg", report::confusion(&title, &found.classes, &metrics.confusion))?;
        write("reliability.svg", report::reliability(&title, &metrics.calibration))?;
        write("report.html", self.report(device)?.to_html())
    }

    fn images(&self) -> String {
        if self.found.len() == 1 { "1 image".into() } else { format!("{} images", grouped(self.found.len() as u64)) }
    }

    fn report<D: Backend>(&self, device: D) -> Result<Report> {
        let (spec, images, name) =
            (self.spec, self.images, |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned());
        let mistakes = self.found.mistakes(usize::MAX);
        let (explanations, explained_at) = explanations(device, self.file, spec, images, self.found, self.data)?;
        let backbone = spec.backbone;
        let hash = std::fs::read(self.model).map_err(|e| Error::io(self.model, &e))?;
        let facts = [
            ("model", self.model.display().to_string()),
            ("SHA-256", sha256_hex(&hash)),
            ("backbone", backbone.title().to_string()),
            ("input", format!("{0} x {0} pixels, resize {1}, preprocess {2}", images.size, images.resize, spec.preprocess)),
            ("images", self.data.display().to_string()),
            ("Defrost", env!("CARGO_PKG_VERSION").to_string()),
        ];
        Ok(Report {
            title: format!("{} on {}", backbone.title(), name(self.data)),
            summary: format!("The model {}, measured on {} of {} classes.", name(self.model), self.images(), self.found.classes.len()),
            warnings: self.warnings.clone(),
            metrics: Some(self.metrics.clone()),
            measured: "images".into(),
            mistaken: mistakes.len(),
            mistakes: shots(&mistakes[..mistakes.len().min(MISTAKES)], self.data, images.exif)?,
            explanations,
            explained_at,
            facts: facts.map(|(name, value)| (name.to_string(), value)).to_vec(),
            ..Report::default()
        })
    }
}
