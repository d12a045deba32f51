//! The files of a run. Every one is either whole or absent: written beside its place, synced, renamed.

use super::settings::Settings;
use crate::base::DType;
use crate::data::check::Report;
use crate::data::csv::quoted;
use crate::data::dataset::Dataset;
use crate::data::split::Split;
use crate::device::Arena;
use crate::error::{Error, Result};
use crate::exec::{Program, Session};
use crate::ops::Backend;
use crate::report::Epoch;
use crate::weights::{Entry, Metadata, is_leftover, remove_leftovers, replace_file, save};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// One row of `history.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Row {
    /// What the curves show of it.
    pub fn drawn(&self) -> Epoch {
        Epoch { epoch: self.epoch, loss: self.loss, accuracy: self.accuracy, val_loss: self.val_loss, val_accuracy: self.val_accuracy }
    }
}

/// A run's folder.
pub struct Folder {
    path: PathBuf,
    /// Held as long as this process writes here.
    lock: Option<File>,
}

impl Folder {
    /// The folder of a run to be; it is made by [`Folder::begin`].
    ///
    /// # Errors
    /// When it exists and holds anything, since no run is ever overwritten; when it cannot be made or written, which is better
    /// known before all images are read.
    pub fn new(path: &Path) -> Result<Self> {
        let mut held = match fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io(path, &e).at("--out")),
        };
        held.retain(|name| !is_leftover(&name.to_string_lossy()));
        if held.iter().any(|name| name == "config.toml") {
            let advice = format!("name a new folder, or go on with that run: defrost resume {}", path.display());
            return Err(Error::input("holds a run").at(path.display()).at("--out").advise(advice));
        }
        if !held.is_empty() {
            return Err(Error::input("is not empty").at(path.display()).at("--out").advise("name a new folder; no run is overwritten"));
        }
        writable(path).map_err(|e| Error::io(path, &e).at("--out"))?;
        Ok(Folder { path: path.into(), lock: None })
    }

    /// Whether it is going to lie within another folder.
    pub fn lies_in(&self, other: &Path) -> bool {
        let existing = std::path::absolute(&self.path).ok().and_then(|path| path.ancestors().find_map(|a| a.canonicalize().ok()));
        existing.zip(other.canonicalize().ok()).is_some_and(|(path, other)| path.starts_with(other))
    }

    /// The folder of a run that was begun, cleared of what was being written when it was killed.
    ///
    /// # Errors
    /// When there is no such folder, or another process is at work there.
    pub fn open(path: &Path) -> Result<Self> {
        let mut folder = Folder { path: path.into(), lock: None };
        folder.lock()?;
        remove_leftovers(path)?;
        Ok(folder)
    }

    /// Makes sure that nobody else writes here; the system lets go of the lock when the process ends, however it ends.
    fn lock(&mut self) -> Result<()> {
        if cfg!(unix) {
            let file = File::open(&self.path).map_err(|e| Error::io(&self.path, &e))?;
            match file.try_lock() {
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::input("another defrost is at work on this run").at(self.path.display()));
                }
                // A file system without locks: then there is none.
                Err(fs::TryLockError::Error(_)) => {}
                Ok(()) => self.lock = Some(file),
            }
        }
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
        self.write_bytes(name, text.as_bytes())
    }

    /// Writes any file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<()> {
        replace_file(&self.file(name), |file| file.write_all(bytes))
    }

    /// Writes `check.json`: what was found about the images.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_findings(&self, report: &Report) -> Result<()> {
        let json = serde_json::to_string_pretty(report).map_err(|e| Error::internal(format!("a report is not JSON: {e}")))?;
        self.write("check.json", &(json + "\n"))
    }

    /// Makes the folder, and writes `config.toml`, which says what will be done.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&mut self, settings: &Settings) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, &e))?;
        self.lock()?;
        remove_leftovers(&self.path)?;
        self.write("config.toml", &settings.to_toml())
    }

    /// Writes `split.csv`, which says with which images.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_split(&self, data: &Dataset, split: &Split) -> Result<()> {
        let mut rows: Vec<(usize, &str)> = split.train.iter().map(|&i| (i, "train")).collect();
        rows.extend(split.val.iter().map(|&i| (i, "val")));
        rows.sort_unstable();
        let row = |&(i, subset): &(usize, &str)| {
            [&quoted(&data.paths[i]), &quoted(&data.classes[data.labels[i]]), subset, &data.sha256[i]].join(",") + "\n"
        };
        let table: String = rows.iter().map(row).collect();
        self.write("split.csv", &format!("path,class,subset,sha256\n{table}"))
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

    /// Writes a model file from the session's weights, of which the last are `trained` instead where these were kept from an earlier epoch.
    ///
    /// # Errors
    /// A weight that is not finite, or what the disk says; the file before it then stays.
    pub fn model<D: Backend>(
        &self,
        name: &str,
        (session, program): (&Session<D>, &Program<D>),
        metadata: &Metadata,
        trained: Option<&[u8]>,
    ) -> Result<()> {
        let graph = program.graph();
        let (mut params, states) = (session.bytes(program, Arena::Params)?, session.bytes(program, Arena::State)?);
        if let Some(trained) = trained {
            let first = params.len() - trained.len();
            params[first..].copy_from_slice(trained);
        }
        let (mut params, mut states, dtype) = (&params[..], &states[..], graph.dtype());
        let named = graph.params.iter().map(|v| (v, cut(&mut params, graph.ty(*v).bytes()))).collect::<Vec<_>>();
        let states = graph.states.iter().map(|v| (v, cut(&mut states, graph.ty(*v).bytes())));
        let shapes: Vec<_> = named.into_iter().chain(states).map(|(v, bytes)| (graph.name(*v), graph.ty(*v).shape, bytes)).collect();
        debug_assert!(dtype != DType::Bf16, "master weights are f32");
        let entries = shapes.iter().map(|(name, shape, bytes)| Entry { name, shape: shape.dims(), bytes });
        save(self.file(name), metadata, entries, dtype)
    }
}

/// Whether a folder can be made at `path`, or a file within if it is there: a file is made where it would begin, and removed.
fn writable(path: &Path) -> std::io::Result<()> {
    let path = std::path::absolute(path)?;
    let existing = path.ancestors().find(|a| a.exists()).unwrap_or(&path);
    let probe = existing.join(format!(".defrost-{}", std::process::id()));
    File::create(&probe)?;
    fs::remove_file(&probe)
}

/// Takes the first `n` bytes.
fn cut<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(n);
    *bytes = rest;
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_within_its_own_images_is_found_out_however_it_is_written() {
        let root = std::env::temp_dir().join(format!("defrost-within-{}", std::process::id()));
        let data = root.join("photos");
        fs::create_dir_all(data.join("polyp")).unwrap();
        let within = |path: &Path| Folder { path: path.into(), lock: None }.lies_in(&data);
        assert!(within(&data.join("run")) && within(&data.join("polyp/a/b")) && within(&root.join("photos/../photos/x")));
        assert!(!within(&root.join("run")) && !within(&root.join("photos-run")) && !within(&root.join("photos/../run")));
        fs::remove_dir_all(&root).unwrap();
    }
}
