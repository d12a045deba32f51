//! What happens in a run, told to whoever shows, logs or draws it.

use super::folder::Row;
use crate::data::load::Stage;
use crate::error::{Error, Result};
use std::time::Duration;

/// What happens in a run.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Images are read; may come from several threads.
    Loading {
        stage: Stage,
        done: usize,
        total: usize,
    },
    /// Something to know that stops nothing.
    Warning(&'a str),
    /// What the run does by itself: class weights, a falling learning rate, an early end.
    Note(&'a str),
    /// Everything is planned.
    Planned {
        images: usize,
        validation: usize,
        trainable: usize,
        parameters: usize,
        bytes: usize,
        weights: &'a str,
        device: &'a str,
    },
    /// Features of a frozen backbone are computed, once for the run.
    Features {
        done: usize,
        total: usize,
    },
    /// The first step follows: of `epoch`, after `step` steps that are done.
    Started {
        epoch: usize,
        step: usize,
    },
    /// A step is done; loss and accuracy are means over the epoch so far, `images` of `total` were seen, and those of the batch
    /// are its own.
    Step {
        epoch: usize,
        epochs: usize,
        step: usize,
        images: usize,
        total: usize,
        loss: f64,
        accuracy: f64,
        batch_loss: f64,
        batch_accuracy: f64,
        lr: f64,
    },
    /// A learning rate of a sweep was tried.
    Trial {
        done: usize,
        total: usize,
        lr: f64,
        loss: f64,
    },
    Validating {
        done: usize,
        total: usize,
    },
    /// This epoch's model is the best so far; its files are written, unless they wait for those of a later epoch.
    Best {
        row: &'a Row,
    },
    /// An epoch is done; its files are written, unless they wait for those of a later epoch.
    Epoch {
        row: &'a Row,
        epochs: usize,
        best: bool,
    },
    /// The state after `step` steps is safe on disk: the run can be resumed from there.
    Saved {
        epoch: usize,
        step: usize,
    },
    /// The user asked to stop; the state is saved.
    Interrupted {
        epoch: usize,
        step: usize,
    },
}

/// Who is told.
pub trait Listener: Sync {
    /// Called as things happen; an error stops the run.
    ///
    /// # Errors
    /// Whatever the listener cannot do without: a log that cannot be written.
    fn on(&self, event: Event) -> Result<()>;

    /// For how long the user has been waiting for the run to stop; `None` if it shall go on.
    fn interrupted(&self) -> Option<Duration> {
        None
    }
}

/// How long a user who wants to stop waits for a step, or for a batch of a pass over images, to end; a longer one is put an end
/// to, undone, and done again later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether what is under way may still go on to its end.
pub(super) fn patient(listener: &dyn Listener) -> bool {
    listener.interrupted().is_none_or(|waiting| waiting < PATIENCE)
}

/// An error once the user asked to stop.
pub(super) fn go_on(listener: &dyn Listener) -> Result<()> {
    listener.interrupted().map_or(Ok(()), |_| Err(Error::interrupted("interrupted")))
}
