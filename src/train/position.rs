//! Where a run stands between two steps: all that the loop knows besides the weights.

use super::folder::Row;
use super::schedule::Progress;
use serde::{Deserialize, Serialize};

/// Where a run stands between two steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Batches of the epoch under way that are done.
    pub batches: usize,
    /// Sums over these batches.
    pub sums: Running,
    /// Seconds that this epoch took so far.
    pub epoch_seconds: f64,
    /// Images that steps have seen, and the seconds that they took.
    pub images: usize,
    pub seconds: f64,
    /// The epoch whose model is the best so far; 0 for none.
    pub best: usize,
    /// The rows of `history.csv`: of the epochs that are done.
    pub history: Vec<Row>,
    /// The losses of all steps: `steps.csv`. They may be many: the state file has them as a tensor.
    #[serde(skip)]
    pub losses: Vec<f64>,
    /// What the learning rate's schedule remembers.
    pub schedule: Progress,
}

impl Position {
    /// The epoch under way, from 1.
    pub fn epoch(&self) -> usize {
        self.history.len() + 1
    }

    /// Steps that are done.
    pub fn steps(&self) -> usize {
        self.losses.len()
    }

    /// The row of the best epoch so far.
    pub fn best(&self) -> Option<&Row> {
        self.history.iter().find(|row| row.epoch == self.best)
    }
}

/// Sums of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Loss times images.
    pub loss: f64,
    pub correct: usize,
    pub images: usize,
}

impl Running {
    /// Adds a batch by its mean loss.
    pub fn add(&mut self, loss: f64, correct: usize, images: usize) {
        self.loss += loss * images as f64;
        self.correct += correct;
        self.images += images;
    }

    /// Mean over images.
    pub fn loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    /// Share of images.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}
