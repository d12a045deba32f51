//! The images of a run on a device with memory of its own: whether they stay there, or travel batch by batch.

use super::settings::Settings;
use crate::data::dataset::{Dataset, Pixels};
use crate::device::apart::Stored;
use crate::error::Result;
use crate::exec::Session;
use crate::models::Freeze;
use crate::ops::Backend;
use crate::report::bytes as size_of;

/// One part in so many of the memory that the plan leaves may be taken by images; the rest is for what the driver keeps for itself.
const SHARE: u64 = 2;

/// Keeps the images of `data` on the session's device if they fit beside the plan, which leaves `left` bytes, and if they are
/// wanted there more than once and unchanged. Returns where they are, as a line; `None` on a device that shares the host's memory.
///
/// # Errors
/// When the device has failed.
pub fn keep<D: Backend>(session: &mut Session<D>, data: &Dataset, settings: &Settings, left: u64) -> Result<Option<String>> {
    if session.device().apart().is_none() {
        return Ok(None);
    }
    let (options, wanted) = (data.options(), Dataset::bytes_needed(data.len(), data.options()));
    let travel = |why: &str| Ok(Some(format!("pixels: each batch is sent to the device while the one before computes; {why}")));
    if settings.augmentation(1).is_some() {
        return travel("augmentation changes them in every epoch");
    }
    if settings.keeps_features() && settings.phases() == [Freeze::All] {
        return travel("for the features they are wanted once");
    }
    if wanted > left / SHARE {
        return travel(&format!("{} for all of them are more than a half of the {} that are free", size_of(wanted), size_of(left)));
    }
    let stored = match options.pixels {
        Pixels::F32 => Stored::F32,
        Pixels::U8 => Stored::U8,
    };
    session.keep_rows(stored, [data.len(), options.image_len()], &|i| data.image_bytes(i))?;
    Ok(Some(format!("pixels: on the device, {}", size_of(wanted))))
}
