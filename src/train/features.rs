//! What steps and passes are fed with: pixels prepared ahead, images that stay on the device, or the features of a frozen backbone,
//! computed once.

use super::events::{Event, Listener, go_on, patient};
use super::inference::Watch;
use super::settings::Settings;
use super::trainer::Trainer;
use crate::data::augment::Augmentation;
use crate::data::batches::{Batch, Batches};
use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::exec::{Input, Sent, Session};
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
    /// Pixels prepared ahead; the receipt of the next batch, once it is on its way to the device.
    Pixels {
        batches: Batches,
        sent: Option<Sent>,
    },
    /// Images that stay on the device.
    Rows {
        data: Arc<Dataset>,
        order: Order,
    },
    Features {
        features: Arc<Features>,
        data: Arc<Dataset>,
        order: Order,
    },
}

/// What is left of an epoch's images.
pub struct Order {
    left: Vec<usize>,
    batch: usize,
}

impl Order {
    /// The next images of a data set, and their classes.
    fn next(&mut self, data: &Dataset) -> Option<(Vec<usize>, Vec<usize>)> {
        let indices: Vec<usize> = self.left.drain(..self.batch.min(self.left.len())).collect();
        let labels = indices.iter().map(|&i| data.labels[i]).collect();
        (!indices.is_empty()).then_some((indices, labels))
    }
}

/// One batch: what goes in, and of which images.
pub enum Fed {
    Pixels(Batch, Option<Sent>),
    Rows { labels: Vec<usize>, indices: Vec<usize> },
    Features { rows: Vec<f64>, labels: Vec<usize>, indices: Vec<usize> },
}

impl Fed {
    /// Pixels `[n, s, s, 3]` or features `[n, c]`.
    pub fn input(&self) -> Input<'_> {
        match self {
            Fed::Pixels(batch, None) => batch.pixels[..].into(),
            Fed::Pixels(batch, Some(sent)) => Input::Sent(*sent, batch.pixels[..].into()),
            Fed::Rows { indices, .. } => Input::Rows(indices),
            Fed::Features { rows, .. } => rows[..].into(),
        }
    }

    /// The true classes.
    pub fn labels(&self) -> &[usize] {
        match self {
            Fed::Pixels(batch, _) => &batch.labels,
            Fed::Rows { labels, .. } | Fed::Features { labels, .. } => labels,
        }
    }

    /// Which images of the data set these are.
    pub fn indices(&self) -> &[usize] {
        match self {
            Fed::Pixels(batch, _) => &batch.indices,
            Fed::Rows { indices, .. } | Fed::Features { indices, .. } => indices,
        }
    }
}

impl Feed {
    /// Batches of images over `order`, indices into `data`, with an epoch's random changes if there are any.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn pixels(data: &Arc<Dataset>, order: Vec<usize>, batch: usize, changes: Option<Augmentation>) -> Result<Self> {
        Ok(Feed::Pixels { batches: Batches::changed(data.clone(), order, batch, changes)?, sent: None })
    }

    /// Batches of the images of `data` that stay on the device, if they do; otherwise as [`Feed::pixels`].
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn unchanged<D: Backend>(session: &Session<D>, data: &Arc<Dataset>, order: Vec<usize>, batch: usize) -> Result<Self> {
        match session.keeps_rows() {
            true => Ok(Feed::Rows { data: data.clone(), order: Order { left: order, batch } }),
            false => Feed::pixels(data, order, batch, None),
        }
    }

    /// Batches of features.
    pub fn features(features: &Arc<Features>, data: &Arc<Dataset>, order: Vec<usize>, batch: usize) -> Self {
        Feed::Features { features: features.clone(), data: data.clone(), order: Order { left: order, batch } }
    }

    /// Sends the next batch on its way to the device, if it is ready and not there; for the time while the device computes.
    ///
    /// # Errors
    /// When memory is short.
    pub fn send_ahead<D: Backend>(&mut self, session: &mut Session<D>) -> Result<()> {
        if let Feed::Pixels { batches, sent: sent @ None } = self
            && session.device().apart().is_some()
            && let Some(next) = batches.peek()
        {
            *sent = session.send_ahead(&next.pixels[..])?;
        }
        Ok(())
    }

    /// Takes a used batch back, so that its memory serves for a later one.
    pub fn reuse(&self, fed: Fed) {
        if let (Feed::Pixels { batches, .. }, Fed::Pixels(batch, _)) = (self, fed) {
            batches.reuse(batch);
        }
    }
}

impl Iterator for Feed {
    type Item = Fed;

    fn next(&mut self) -> Option<Fed> {
        match self {
            Feed::Pixels { batches, sent } => batches.next().map(|batch| Fed::Pixels(batch, sent.take())),
            Feed::Rows { data, order } => order.next(data).map(|(indices, labels)| Fed::Rows { labels, indices }),
            Feed::Features { features, data, order } => {
                order.next(data).map(|(indices, labels)| Fed::Features { rows: features.of(&indices), labels, indices })
            }
        }
    }
}
