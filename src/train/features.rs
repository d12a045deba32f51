//! What steps are fed with: pixels prepared ahead, or the features of a frozen backbone, computed once.

use super::events::{Event, Listener, go_on, patient};
use super::inference::Watch;
use super::settings::Settings;
use super::trainer::Trainer;
use crate::data::augment::Augmentation;
use crate::data::batches::{Batch, Batches};
use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::exec::Host;
use crate::ops::Backend;
use std::sync::Arc;

/// The features of every image under a frozen backbone, `[n, c]`: inference is batch-invariant to the bit, so computing them
/// once changes nothing.
pub struct Features {
    /// In f64, which holds every device's numbers exactly.
    rows: Vec<f64>,
    channels: usize,
}

impl Features {
    /// Passes all images of `data` through the backbone.
    ///
    /// # Errors
    /// When memory is short, or features are not finite: every step would fail on them, and none could say why.
    pub fn compute<D: Backend>(
        trainer: &mut Trainer<D>,
        data: &Arc<Dataset>,
        settings: &Settings,
        listener: &dyn Listener,
    ) -> Result<Self> {
        let all: Vec<usize> = (0..data.len()).collect();
        let total = data.len();
        let mut tell = |done| listener.on(Event::Features { done, total }).and_then(|()| go_on(listener));
        let watch = Watch { go_on: &|| patient(listener), progress: &mut tell };
        let rows = trainer.inference.images(&mut trainer.session, "features", data, &all, settings.batch_size, watch)?;
        let features = Features { channels: rows.len() / total, rows };
        match features.rows.iter().position(|x| !x.is_finite()) {
            None => Ok(features),
            Some(at) => Err(trainer.inference.blame(&mut trainer.session, data, at / features.channels)?),
        }
    }

    /// Those of some images, row by row.
    pub fn of(&self, indices: &[usize]) -> Vec<f64> {
        indices.iter().flat_map(|&i| &self.rows[i * self.channels..(i + 1) * self.channels]).copied().collect()
    }
}

/// The batches of an epoch, in order.
pub enum Feed {
    Pixels(Batches),
    Features { features: Arc<Features>, data: Arc<Dataset>, order: Vec<usize>, batch: usize },
}

/// One batch: what goes in, and of which images.
pub enum Fed {
    Pixels(Batch),
    Features { rows: Vec<f64>, labels: Vec<usize>, indices: Vec<usize> },
}

impl Fed {
    /// Pixels `[n, s, s, 3]` or features `[n, c]`.
    pub fn input(&self) -> Host<'_> {
        match self {
            Fed::Pixels(batch) => batch.pixels[..].into(),
            Fed::Features { rows, .. } => rows[..].into(),
        }
    }

    /// The true classes.
    pub fn labels(&self) -> &[usize] {
        match self {
            Fed::Pixels(batch) => &batch.labels,
            Fed::Features { labels, .. } => labels,
        }
    }

    /// Which images of the data set these are.
    pub fn indices(&self) -> &[usize] {
        match self {
            Fed::Pixels(batch) => &batch.indices,
            Fed::Features { indices, .. } => indices,
        }
    }
}

impl Feed {
    /// Batches over `order`, indices into `data`, from the features where they are kept; otherwise of images, with an epoch's
    /// random changes if there are any.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn new(
        data: &Arc<Dataset>,
        features: Option<&Arc<Features>>,
        order: Vec<usize>,
        batch: usize,
        changes: Option<Augmentation>,
    ) -> Result<Self> {
        match features {
            Some(features) => Ok(Feed::Features { features: features.clone(), data: data.clone(), order, batch }),
            None => Ok(Feed::Pixels(Batches::changed(data.clone(), order, batch, changes)?)),
        }
    }

    /// Takes a used batch back, so that its memory serves for a later one.
    pub fn reuse(&self, fed: Fed) {
        if let (Feed::Pixels(batches), Fed::Pixels(batch)) = (self, fed) {
            batches.reuse(batch);
        }
    }
}

impl Iterator for Feed {
    type Item = Fed;

    fn next(&mut self) -> Option<Fed> {
        match self {
            Feed::Pixels(batches) => batches.next().map(Fed::Pixels),
            Feed::Features { order, .. } if order.is_empty() => None,
            Feed::Features { features, data, order, batch } => {
                let indices: Vec<usize> = order.drain(..(*batch).min(order.len())).collect();
                let labels = indices.iter().map(|&i| data.labels[i]).collect();
                Some(Fed::Features { rows: features.of(&indices), labels, indices })
            }
        }
    }
}
