//! The files of a run. Every one is either whole or absent: written beside its place, synced, renamed.

use super::settings::Settings;
use crate::base::DType;
use crate::data::csv::quoted;
use crate::data::dataset::Dataset;
use crate::data::split::Split;
use crate::device::Arena;
use crate::error::{Error, Result};
use crate::exec::{Program, Session};
use crate::ops::Backend;
use crate::weights::{Entry, Metadata, replace_file, save};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// One row of `history.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// From 1.
    pub epoch: usize,
    /// Mean over the training images as the weights change.
    pub loss: f64,
    pub accuracy: f64,
    /// After the epoch; absent without validation images.
    pub val_loss: Option<f64>,
    pub val_accuracy: Option<f64>,
    pub lr: f64,
    /// Training and validation of this epoch.
    pub seconds: f64,
}

/// A run's folder.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of a run to be; it is made by [`Folder::begin`].
    ///
    /// # Errors
    /// When it exists and holds anything: no run is ever overwritten.
    pub fn open(path: &Path) -> Result<Self> {
        let held = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io(path, &e).at("--out")),
        };
        if held {
            return Err(Error::input("is not empty").at(path.display()).at("--out").advise("name a new folder; no run is overwritten"));
        }
        Ok(Folder { path: path.into() })
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a text file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        replace_file(&self.file(name), |file| file.write_all(text.as_bytes()))
    }

    /// Makes the folder, and writes `config.toml` and `split.csv` to it, which say what will be done with which images.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&self, settings: &Settings, data: &Dataset, split: &Split) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, &e))?;
        let mut rows: Vec<(usize, &str)> = split.train.iter().map(|&i| (i, "train")).collect();
        rows.extend(split.val.iter().map(|&i| (i, "val")));
        rows.sort_unstable();
        let row = |&(i, subset): &(usize, &str)| {
            [&quoted(&data.paths[i]), &quoted(&data.classes[data.labels[i]]), subset, &data.sha256[i]].join(",") + "\n"
        };
        let table: String = rows.iter().map(row).collect();
        self.write("split.csv", &format!("path,class,subset,sha256\n{table}"))?;
        self.write("config.toml", &settings.to_toml())
    }

    /// Writes `history.csv`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_history(&self, history: &[Row]) -> Result<()> {
        let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
        let line = |r: &Row| {
            let (val_loss, val_accuracy) = (number(r.val_loss), number(r.val_accuracy));
            format!("{},{},{},{val_loss},{val_accuracy},{},{:.3}\n", r.epoch, r.loss, r.accuracy, r.lr, r.seconds)
        };
        let rows: String = history.iter().map(line).collect();
        self.write("history.csv", &format!("epoch,loss,accuracy,val_loss,val_accuracy,lr,seconds\n{rows}"))
    }

    /// Writes `steps.csv`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_steps(&self, losses: &[f64]) -> Result<()> {
        let steps: String = losses.iter().enumerate().map(|(i, loss)| format!("{},{loss}\n", i + 1)).collect();
        self.write("steps.csv", &format!("step,loss\n{steps}"))
    }

    /// Writes a model file from the session's weights.
    ///
    /// # Errors
    /// A weight that is not finite, or what the disk says; the file before it then stays.
    pub fn model<D: Backend>(&self, name: &str, session: &Session<D>, program: &Program<D>, metadata: &Metadata) -> Result<()> {
        let graph = program.graph();
        let (params, states) = (session.bytes(program, Arena::Params), session.bytes(program, Arena::State));
        let dtype = graph.dtype();
        let entry = |v: &crate::base::Val, bytes: &mut &[u8]| {
            let (tensor, rest) = bytes.split_at(graph.ty(*v).bytes());
            *bytes = rest;
            (graph.name(*v).to_string(), graph.ty(*v).shape, tensor.to_vec())
        };
        let (mut params, mut states) = (&params[..], &states[..]);
        let mut tensors: Vec<_> = graph.params.iter().map(|v| entry(v, &mut params)).collect();
        tensors.extend(graph.states.iter().map(|v| entry(v, &mut states)));
        debug_assert!(dtype != DType::Bf16, "master weights are f32");
        let entries = tensors.iter().map(|(name, shape, bytes)| Entry { name, shape: shape.dims(), bytes });
        save(self.file(name), metadata, entries, dtype)
    }
}
