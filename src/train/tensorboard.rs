//! A run's event files for TensorBoard: `RUN/tensorboard/{train,validation}/events.out.tfevents.*`.
//!
//! Tags and places are those of Keras's callback, so that curves of both lie over each other: `epoch_loss` and
//! `epoch_accuracy` of both subsets and `epoch_learning_rate` by epoch (from 1, as in `history.csv`), and of each step
//! `batch_loss`, `batch_accuracy` and `batch_learning_rate`.
//!
//! A run that goes on from a saved state first takes out what was written after that state, so that every step is there once
//! and in order, and then writes a new file beside the old ones. The wall-clock time of each event is the only number of a run
//! that is not the same twice.

use super::events::{Event, Listener};
use super::settings::Settings;
use super::tfevents::{self, What, records};
use crate::error::{Error, Result};
use crate::weights::{remove_leftovers, replace_file};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PREFIX: &str = "events.out.tfevents.";

/// A listener beside which event files are written, if the settings want them.
pub struct Logged<'a> {
    next: &'a dyn Listener,
    board: Option<Mutex<Board>>,
}

impl<'a> Logged<'a> {
    /// Files below `run`, the run's folder, made once the run has started; events are then passed on to `next`.
    pub fn new(settings: &Settings, run: &Path, next: &'a dyn Listener) -> Self {
        let board = settings.tensorboard.then(|| Mutex::new(Board::new(run.join("tensorboard"))));
        Logged { next, board }
    }
}

impl Listener for Logged<'_> {
    fn on(&self, event: Event) -> Result<()> {
        if let Some(board) = &self.board {
            board.lock().unwrap_or_else(|e| e.into_inner()).note(&event)?;
        }
        self.next.on(event)
    }

    fn interrupted(&self) -> Option<Duration> {
        self.next.interrupted()
    }
}

/// The event files of one run.
struct Board {
    folder: PathBuf,
    /// The step before which the run goes on, once it has started.
    start: u64,
    /// One file for each subset that something is known of.
    files: HashMap<&'static str, (PathBuf, File)>,
}

impl Board {
    fn new(folder: PathBuf) -> Self {
        Board { folder, start: 0, files: HashMap::new() }
    }

    fn note(&mut self, event: &Event) -> Result<()> {
        match *event {
            Event::Started { epoch, step } => {
                self.start = step as u64;
                ["train", "validation"].iter().try_for_each(|subset| keep_until(&self.folder.join(subset), epoch - 1, step))
            }
            Event::Step { step, batch_loss, batch_accuracy, lr, .. } => {
                let scalars = [("batch_loss", batch_loss), ("batch_accuracy", batch_accuracy), ("batch_learning_rate", lr)];
                self.write("train", step, &scalars)
            }
            Event::Epoch { row, .. } => {
                let scalars = [("epoch_loss", row.loss), ("epoch_accuracy", row.accuracy), ("epoch_learning_rate", row.lr)];
                self.write("train", row.epoch, &scalars)?;
                match (row.val_loss, row.val_accuracy) {
                    (Some(loss), Some(accuracy)) => {
                        self.write("validation", row.epoch, &[("epoch_loss", loss), ("epoch_accuracy", accuracy)])
                    }
                    _ => Ok(()),
                }
            }
            Event::Saved { .. } => self.files.values().try_for_each(|(path, file)| file.sync_data().map_err(|e| Error::io(path, &e))),
            _ => Ok(()),
        }
    }

    /// Appends scalars at a step, in one write, so that a killed run leaves whole records but for the last.
    fn write(&mut self, subset: &'static str, step: usize, scalars: &[(&str, f64)]) -> Result<()> {
        if !self.files.contains_key(subset) {
            let opened = begin(&self.folder.join(subset), self.start)?;
            self.files.insert(subset, opened);
        }
        let (path, file) = self.files.get_mut(subset).expect("opened above");
        let wall_time = now();
        let record = |&(tag, value): &(&str, f64)| {
            tfevents::Event { wall_time, step: step as u64, what: What::Scalar { tag: tag.into(), value: value as f32 } }.record()
        };
        file.write_all(&scalars.iter().flat_map(record).collect::<Vec<u8>>()).map_err(|e| Error::io(path, &e))
    }
}

/// Makes the next event file of a folder, for a run that goes on after `start` steps.
fn begin(folder: &Path, start: u64) -> Result<(PathBuf, File)> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    // TensorBoard reads a folder's files in the order of their names.
    let last = event_files(folder)?.iter().filter_map(|path| number(path)).max().unwrap_or(0);
    let path = folder.join(format!("{PREFIX}{:010}.defrost", last + 1));
    let mut file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(|e| Error::io(&path, &e))?;
    let version = tfevents::Event { wall_time: now(), step: 0, what: What::Version }.record();
    // Tells a TensorBoard that is looking on to forget what it saw of steps that are done again.
    let again = tfevents::Event { wall_time: now(), step: start + 1, what: What::Start }.record();
    let head = if start > 0 || last > 0 { [version, again].concat() } else { version };
    file.write_all(&head).map_err(|e| Error::io(&path, &e))?;
    Ok((path, file))
}

/// Takes out of a folder's event files what comes after so many epochs and steps, and the end of a record that was being
/// written when the run was killed.
fn keep_until(folder: &Path, epochs: usize, steps: usize) -> Result<()> {
    let paths = event_files(folder)?;
    if !paths.is_empty() {
        remove_leftovers(folder)?;
    }
    for path in paths {
        let bytes = fs::read(&path).map_err(|e| Error::io(&path, &e))?;
        let stays = |event: &tfevents::Event| match &event.what {
            What::Scalar { tag, .. } if tag.starts_with("epoch_") => event.step <= epochs as u64,
            _ => event.step <= steps as u64,
        };
        let kept: Vec<u8> = records(&bytes).into_iter().filter(|(_, event)| stays(event)).flat_map(|(record, _)| record.to_vec()).collect();
        if kept.len() < bytes.len() {
            replace_file(&path, |file| file.write_all(&kept))?;
        }
    }
    Ok(())
}

/// The event files of a folder in the order of their names; none if it does not exist.
fn event_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(folder, &e)),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| number(path).is_some()).collect();
    paths.sort();
    Ok(paths)
}

/// The number in an event file's name.
fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(".defrost")?.parse().ok()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}
