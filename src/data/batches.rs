//! The batches of one epoch, the next one prepared while the current one computes.
//!
//! Copying images together (or widening bytes to f32, or reading a cache file) is left to a thread of its own; random
//! changes ([`augment`](super::augment)) are computed on all cores. At most [`AHEAD`] batches wait, and one that was looked at.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rayon::prelude::*;

use crate::data::augment::Augmentation;
use crate::data::dataset::Dataset;
use crate::error::{Error, Result};

/// Batches that are ready before they are asked for.
pub const AHEAD: usize = 2;

/// Some images together.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Batch {
    /// `[n, size, size, 3]`, 0..=255.
    pub pixels: Vec<f32>,
    /// `[n]`.
    pub labels: Vec<usize>,
    /// `[n]`: which images of the dataset these are.
    pub indices: Vec<usize>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it holds no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Makes this the batch of `indices`, reusing its memory.
    fn fill(&mut self, dataset: &Dataset, indices: &[usize], changes: Option<&Augmentation>) {
        let (len, size) = (dataset.options().image_len(), dataset.options().size);
        self.pixels.resize(indices.len() * len, 0.0);
        match changes {
            None => self.pixels.chunks_exact_mut(len).zip(indices).for_each(|(place, &index)| dataset.copy_image(index, place)),
            Some(changes) => {
                let change = |plain: &mut Vec<f32>, (place, &index): (&mut [f32], &usize)| {
                    dataset.copy_image(index, plain);
                    changes.apply(index, plain, size, place);
                };
                self.pixels.par_chunks_exact_mut(len).zip(indices).for_each_init(|| vec![0.0; len], change);
            }
        }
        self.labels.clear();
        self.labels.extend(indices.iter().map(|&i| dataset.labels[i]));
        self.indices.clear();
        self.indices.extend_from_slice(indices);
    }
}

/// An iterator over the batches of an order of images; the last one may be smaller. Dropping it early ends its thread.
pub struct Batches {
    ready: Option<Receiver<Batch>>,
    /// Taken from the thread, and not asked for yet.
    ahead: Option<Batch>,
    spent: SyncSender<Batch>,
    worker: Option<JoinHandle<()>>,
    left: usize,
}

impl Batches {
    /// Starts an epoch over `order`, indices into `dataset`.
    ///
    /// # Errors
    /// Kind `Input`: a batch size of 0. Kind `Internal`: an index outside the dataset. Kind `Machine`: no thread.
    pub fn new(dataset: Arc<Dataset>, order: Vec<usize>, batch_size: usize) -> Result<Batches> {
        Batches::changed(dataset, order, batch_size, None)
    }

    /// As [`Batches::new`], with the random changes of an epoch.
    ///
    /// # Errors
    /// As [`Batches::new`].
    pub fn changed(dataset: Arc<Dataset>, order: Vec<usize>, batch_size: usize, changes: Option<Augmentation>) -> Result<Batches> {
        if batch_size == 0 {
            return Err(Error::input("a batch size of 0"));
        }
        if let Some(index) = order.iter().find(|&&i| i >= dataset.len()) {
            return Err(Error::internal(format!("image {index} of a dataset of {}", dataset.len())));
        }
        let left = order.len().div_ceil(batch_size);
        let (give, ready) = sync_channel::<Batch>(AHEAD - 1);
        let (spent, take) = sync_channel::<Batch>(AHEAD + 1);
        let work = move || {
            for indices in order.chunks(batch_size) {
                let mut batch = take.try_recv().unwrap_or_default();
                batch.fill(&dataset, indices, changes.as_ref());
                if give.send(batch).is_err() {
                    return;
                }
            }
        };
        let worker = std::thread::Builder::new()
            .name("batches".into())
            .spawn(work)
            .map_err(|e| Error::machine(format!("no thread for preparing batches: {e}")))?;
        Ok(Batches { ready: Some(ready), ahead: None, spent, worker: Some(worker), left })
    }

    /// A look at the batch that [`Batches::next`] returns next, if it is ready now.
    pub fn peek(&mut self) -> Option<&Batch> {
        if self.ahead.is_none() {
            self.ahead = self.ready.as_ref()?.try_recv().ok();
        }
        self.ahead.as_ref()
    }

    /// Takes a used batch back, so that its memory serves for a later one. Not calling it costs an allocation a batch.
    pub fn reuse(&self, batch: Batch) {
        let _ = self.spent.try_send(batch);
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let batch = match self.ahead.take() {
            Some(batch) => batch,
            None => self.ready.as_ref()?.recv().ok()?,
        };
        self.left -= 1;
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Batches {}

impl Drop for Batches {
    fn drop(&mut self) {
        // Without a receiver the worker's next send fails, and it returns.
        self.ready = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::Augment;
    use crate::data::dataset::Options;
    use crate::data::listing::Listing;
    use crate::data::testing::{Folder, png};

    /// Seven images of one colour each: 10, 11, ... 16; the first three of class `a`.
    fn dataset(name: &str) -> Arc<Dataset> {
        let f = Folder::new(name);
        for i in 0..7u8 {
            f.write(&format!("{}/{i}.png", if i < 3 { "a" } else { "b" }), &png(2, 2, &[10 + i; 12]));
        }
        let listing = Listing::read(f.path(), None).unwrap();
        Arc::new(Dataset::load(&listing, None, &Options::keras(2), &|_, _| ()).unwrap())
    }

    #[test]
    fn an_epoch_follows_its_order_and_ends_with_the_smaller_batch() {
        let batches = Batches::new(dataset("batches-order"), vec![6, 0, 3, 2, 1, 5, 4], 3).unwrap();
        assert_eq!(batches.len(), 3);
        let all: Vec<Batch> = batches.collect();
        assert_eq!(all.iter().map(Batch::len).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!((&all[0].indices, &all[0].labels), (&vec![6, 0, 3], &vec![1, 0, 1]));
        assert_eq!(all[0].pixels, [[16.0; 12], [10.0; 12], [13.0; 12]].as_flattened());
        assert_eq!((&all[2].indices, &all[2].labels, &all[2].pixels), (&vec![4], &vec![1], &vec![14.0; 12]));
    }

    #[test]
    fn a_batch_given_back_changes_nothing_that_follows() {
        let data = dataset("batches-reuse");
        let order: Vec<usize> = (0..70).map(|i| i * 3 % 7).collect();
        let fresh: Vec<Batch> = Batches::new(data.clone(), order.clone(), 4).unwrap().collect();
        let mut batches = Batches::new(data, order, 4).unwrap();
        for (i, expected) in fresh.iter().enumerate() {
            // Looked at or not, the same one comes next.
            let seen = if i % 3 > 0 { batches.peek().cloned() } else { None };
            assert!(seen.is_none_or(|seen| seen == *expected));
            let batch = batches.next().unwrap();
            assert_eq!(&batch, expected);
            batches.reuse(batch);
        }
        assert!(batches.peek().is_none() && batches.next().is_none() && batches.next().is_none());
    }

    #[test]
    fn changes_depend_on_the_image_and_not_on_its_batch() {
        let f = Folder::new("batches-changes");
        for i in 0..6u8 {
            let pixels: Vec<u8> = (0..48).map(|v: u8| v.wrapping_mul(37) ^ i).collect();
            f.write(&format!("{}/{i}.png", if i < 3 { "a" } else { "b" }), &png(4, 4, &pixels));
        }
        let data = Arc::new(Dataset::load(&Listing::read(f.path(), None).unwrap(), None, &Options::keras(8), &|_, _| ()).unwrap());
        let images = |order: &[usize], batch, epoch| {
            let changes = Augmentation { augment: Augment::PRESET, seed: 3, epoch };
            let batches = Batches::changed(data.clone(), order.to_vec(), batch, Some(changes)).unwrap();
            let mut images = vec![Vec::new(); 6];
            batches.for_each(|b| b.indices.iter().zip(b.pixels.chunks(8 * 8 * 3)).for_each(|(&i, p)| images[i] = p.to_vec()));
            images
        };
        let (one, other) = (images(&[0, 1, 2, 3, 4, 5], 4, 1), images(&[5, 3, 1, 0, 2, 4], 3, 1));
        assert!(one == other && one != images(&[0, 1, 2, 3, 4, 5], 4, 2));
        // What is left of an epoch after a resume.
        assert_eq!(images(&[3, 4, 5], 4, 1)[3..], one[3..]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut alone = vec![0.0; 8 * 8 * 3];
        pool.install(|| {
            let mut plain = alone.clone();
            data.copy_image(2, &mut plain);
            Augmentation { augment: Augment::PRESET, seed: 3, epoch: 1 }.apply(2, &plain, 8, &mut alone);
        });
        assert_eq!(alone, one[2]);
    }

    #[test]
    fn dropping_an_epoch_in_the_middle_ends_its_thread() {
        let data = dataset("batches-drop");
        let mut batches = Batches::new(data.clone(), (0..7).cycle().take(7000).collect(), 2).unwrap();
        batches.next();
        drop(batches);
        // The worker held the other handle; the thread has been joined.
        assert_eq!(Arc::strong_count(&data), 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let data = dataset("batches-wrong");
        assert_eq!(Batches::new(data.clone(), vec![0], 0).err().unwrap().exit_code(), 2);
        assert!(Batches::new(data.clone(), vec![7], 1).is_err());
        assert_eq!(Batches::new(data, vec![], 4).unwrap().count(), 0);
    }
}
