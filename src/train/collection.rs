//! The images of a run: decoded, split, and what was found about them.

use super::events::{Event, Listener};
use super::settings::Settings;
use crate::data::check::Report;
use crate::data::dataset::Dataset;
use crate::data::listing::Listing;
use crate::data::load;
use crate::data::split::Split;
use crate::error::Result;
use std::sync::{Arc, OnceLock};

/// The images of a run.
pub struct Collection {
    pub data: Arc<Dataset>,
    pub split: Split,
    /// The patient, video or site of each image, where it is known.
    pub groups: Option<Vec<String>>,
    pub report: Report,
}

impl Collection {
    /// Decodes the files of a listing, splits those that can be read, and tells what should be known of them. `reserve`
    /// bytes of memory are going to be needed for something else.
    ///
    /// # Errors
    /// Files that cannot be read, unless they are skipped; too little memory, a full disk; what the listener says.
    pub fn load(settings: &Settings, listing: &Listing, reserve: u64, listener: &dyn Listener) -> Result<Collection> {
        let failed = OnceLock::new();
        let tell = |stage, done, total| {
            if let Err(error) = listener.on(Event::Loading { stage, done, total }) {
                failed.get_or_init(|| error);
            }
        };
        let data = load::load(listing, &settings.loading(reserve), &tell)?;
        failed.into_inner().map_or(Ok(()), Err)?;
        let readable = listing.without(&data.bad);
        let (split, groups) = settings.rule().split(&readable)?;
        let report = Report::new(&data, &split, groups.as_deref(), [&listing.warnings[..], &data.warnings].concat());
        report.sentences().iter().try_for_each(|sentence| listener.on(Event::Warning(sentence)))?;
        data.notes.iter().try_for_each(|note| listener.on(Event::Note(note)))?;
        if let Some(file) = data.cache_file() {
            listener.on(Event::Note(&format!("pixels: in {}, which may be deleted after the run", file.display())))?;
        }
        Ok(Collection { data: Arc::new(data), split, groups, report })
    }
}
