//! Memory foreseen: a run that would not fit is refused before anything is decoded, with the settings that would.
//!
//! Plans are exact and cheap, so the largest batch that fits is found by planning, not by trying.

use super::settings::Settings;
use super::trainer::{Part, Trainer};
use crate::error::{Error, Result};
use crate::ops::Backend;
use crate::report::bytes as size_of;

/// What a run's programs will hold at most, in bytes. They share their arenas, each as large as the largest program wants it:
/// steps of one or several batches of `batch` images, in every phase of the run, and forward passes. On a device with memory of its
/// own, the next batch is on its way there meanwhile.
fn planned<D: Backend>(trainer: &Trainer<D>, settings: &Settings, batch: usize, several: bool, validation: usize) -> Result<usize> {
    // Features of a frozen backbone are computed in batches of training, for all images; otherwise validation has its own.
    let forward = if trainer.keeps_features() { batch } else { settings.val_batch_size.min(validation.max(1)) };
    let mut most = trainer.inference.planned(trainer.session.device(), forward)?;
    for freeze in settings.phases() {
        let bytes = trainer.planned(&freeze, batch, several)?;
        most.iter_mut().zip(bytes).for_each(|(most, bytes)| *most = bytes.max(*most));
    }
    let apart = trainer.session.device().apart().is_some();
    let ahead = if apart { batch.max(forward) * settings.images().image_len() * trainer.session.device().float().size() } else { 0 };
    Ok(most.iter().sum::<usize>() + ahead)
}

/// Refuses a batch whose plan exceeds `available` bytes; returns the planned ones. `images` are all that are trained on, and all
/// that are validated.
///
/// # Errors
/// Kind `Machine`: planned and available bytes, the largest batch that fits, and the pair of batch size and accumulation that
/// makes the same steps.
pub fn check<D: Backend>(trainer: &mut Trainer<D>, settings: &Settings, images: [usize; 2], available: Option<u64>) -> Result<usize> {
    let batch = settings.batch_size.min(images[0]);
    // The run's first program, which is planned once and kept.
    trainer.program(batch, Part::whole(batch))?;
    let wanted = planned(trainer, settings, batch, settings.accumulate > 1 && batch < images[0], images[1])?;
    let Some(available) = available.filter(|&available| wanted as u64 > available) else { return Ok(wanted) };
    let largest = largest(batch, &mut |batch| Ok(planned(trainer, settings, batch, true, images[1])? as u64 <= available))?;
    let what = format!("a batch of {batch} images needs {}, and {} are available", size_of(wanted), size_of(available));
    let (size, accumulate) = same_steps(settings.images_per_step().min(images[0]), largest);
    let advice = match largest {
        0 => "not even one image fits: a smaller --input-size, or --freeze with a later layer, needs less".to_string(),
        _ => format!(
            "the largest batch that fits is {largest}; --batch-size {size} --accumulate {accumulate} makes the same steps of {} images",
            size * accumulate
        ),
    };
    Err(Error::machine(what).at("memory").advise(advice))
}

/// The largest batch below `batch` that fits; 0 if none does. What a larger batch needs is never less.
fn largest(batch: usize, fits: &mut dyn FnMut(usize) -> Result<bool>) -> Result<usize> {
    let (mut fitting, mut failing) = (0, batch);
    while failing - fitting > 1 {
        let middle = fitting + (failing - fitting) / 2;
        if fits(middle)? { fitting = middle } else { failing = middle }
    }
    Ok(fitting)
}

/// Batches of equal size, of at most `largest` images, that make steps of `images`: their size and number.
fn same_steps(images: usize, largest: usize) -> (usize, usize) {
    let size = (1..=largest.min(images)).rev().find(|size| images.is_multiple_of(*size)).unwrap_or(1);
    (size, images / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_is_found_and_split_into_equal_ones() {
        for limit in 0..40 {
            let mut asked = 0;
            let found = largest(40, &mut |batch| {
                asked += 1;
                Ok(batch <= limit)
            });
            assert_eq!(found.unwrap(), limit);
            assert!(asked <= 6);
        }
        assert_eq!(same_steps(64, 20), (16, 4));
        assert_eq!(same_steps(16, 5), (4, 4));
        assert_eq!(same_steps(30, 16), (15, 2));
        assert_eq!(same_steps(7, 6), (1, 7));
    }
}
